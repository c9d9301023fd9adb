"""Talk to a language model, or ask it one thing."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from fullspan.checkpoints.store import find_model
from fullspan.core.config import Argument, InputPath
from fullspan.core.errors import DataError, FullspanError, did_you_mean
from fullspan.core.files import replacing
from fullspan.decoding.constraints import grammar_of
from fullspan.decoding.engines import (
    ENGINE_HELP,
    SPECULATE_HELP,
    WEIGHTS_HELP,
    EngineName,
    Weights,
    check_speculate,
)
from fullspan.decoding.options import GenerationOptions

if TYPE_CHECKING:
    from fullspan.decoding.language_model import LanguageModel

_HELP = """\
/help          show this
/reset         forget the conversation
/system TEXT   set the system message and start over; without TEXT, remove it
/save FILE     write the conversation as one line of JSON that `fullspan train` reads
/exit          leave (or Ctrl-D); Ctrl-C stops an answer"""


class ChatConfig(GenerationOptions):
    """Options of `fullspan chat`."""

    model: Annotated[str, Argument()] = Field(
        description="a model of the store, a GGUF file, a Hugging Face folder or an adapter folder"
    )
    adapter: InputPath | None = Field(None, description="folder of a LoRA adapter to add to the model")
    engine: EngineName = Field("auto", description=ENGINE_HELP)
    weights: Weights | None = Field(None, description=WEIGHTS_HELP)
    speculate: str | None = Field(None, description=SPECULATE_HELP)
    system: str | None = Field(None, description="what the model is told before the conversation")
    message: str | None = Field(None, description="ask this, print the answer and leave")


def command(config: ChatConfig) -> None:
    """Talk to a language model, or ask it one thing.

    Without --message, what is typed goes to the model line by line; /help lists the commands. When
    standard input is a file or a pipe, each line of it is a turn.
    """
    # These say what is wrong before anything large is imported.
    find_model(config.model)
    grammar_of(config)
    check_speculate(config.speculate)
    from fullspan.decoding.loading import load

    model = load(config.model, adapter=config.adapter, engine=config.engine, weights=config.weights)
    chat = Chat(model, config)
    if config.message is not None:
        chat.say(config.message)
        return
    interactive = sys.stdin.isatty()
    if interactive:
        print(f"{model.name}: /help lists the commands, Ctrl-D leaves")
    for line in _typed_lines() if interactive else sys.stdin:
        if not line.strip():
            continue
        try:
            if not chat.take(line.rstrip("\n")):
                return
        except KeyboardInterrupt:
            if not interactive:
                raise
            print(" (stopped)")
        except FullspanError as error:
            # One wrong line does not end a conversation, but a script should know.
            if not interactive:
                raise
            print(f"error: {error}", file=sys.stderr)


def _typed_lines() -> Iterator[str]:
    with contextlib.suppress(ImportError):  # not on Windows, whose console edits lines itself
        import readline  # noqa: F401  # line editing and history for input()

    while True:
        try:
            yield input("> ")
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print("  (Ctrl-D or /exit leaves)")


class Chat:
    """A conversation that goes on, printed as it comes.

    Parameters
    ----------
    model : LanguageModel
    config : ChatConfig
    """

    def __init__(self, model: LanguageModel, config: ChatConfig) -> None:
        self.model = model
        self.config = config
        self.system = config.system
        self.turns: list[dict[str, str]] = []

    def take(self, line: str) -> bool:
        """Obey a command or answer a turn; False when the conversation is over."""
        found = re.fullmatch(r"/([a-z]+)(?:\s+(.*))?", line.strip())
        if not found:
            self.say(line)
            return True
        name, text = found[1], (found[2] or "").strip()
        commands: dict[str, Callable[[str], None]] = {
            "help": lambda _: print(_HELP),
            "reset": lambda _: self.reset(),
            "system": self.set_system,
            "save": self.save,
            "exit": lambda _: None,
        }
        if name not in commands:
            raise DataError(f"there is no command /{name}", did_you_mean(name, commands))
        commands[name](text)
        return name != "exit"

    def reset(self) -> None:
        """Forget all turns; the system message stays."""
        self.turns = []
        print("(the conversation starts over)")

    def set_system(self, text: str) -> None:
        """Set or remove the system message, and start over."""
        self.system = text or None
        self.reset()

    def save(self, file: str) -> None:
        """Write the conversation as an example that `fullspan train` reads."""
        if not file:
            raise DataError("/save needs the name of a file")
        with replacing(Path(file).expanduser()) as beside:
            beside.write_text(json.dumps({"messages": self.messages()}, ensure_ascii=False) + "\n", "utf-8")
        print(f"wrote {file}")

    def messages(self) -> list[dict[str, str]]:
        """The whole conversation, the system message first."""
        head = [] if self.system is None else [{"role": "system", "content": self.system}]
        return head + self.turns

    def say(self, text: str) -> None:
        """Answer a turn of the user; of an answer that Ctrl-C ends, what was said stays."""
        before = list(self.turns)
        self.turns.append({"role": "user", "content": text})
        said = ""
        try:
            for piece in self.model.stream_answer(self._prompt(), self.config, self.config.speculate):
                print(piece, end="", flush=True)
                said += piece
        except (KeyboardInterrupt, FullspanError):
            self.turns = [*self.turns, {"role": "assistant", "content": said}] if said else before
            raise
        print()
        self.turns.append({"role": "assistant", "content": said})

    def _prompt(self) -> list[int]:
        """Tokens of the conversation, without its oldest turns where the context is too short for all."""
        context = self.model.config.max_positions
        room = min(self.config.max_tokens, context // 2)
        ids = self.model.chat_ids(self.messages())
        forgotten = 0
        while len(ids) + room > context and len(self.turns) > 2:
            del self.turns[:2]
            forgotten += 2
            ids = self.model.chat_ids(self.messages())
        if forgotten:
            print(f"(the context is full: the oldest {forgotten} turns are forgotten)", file=sys.stderr)
        return ids
