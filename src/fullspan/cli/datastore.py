"""Build a datastore of your texts, from which answers are drafted."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from fullspan.checkpoints.store import find_model
from fullspan.core.config import Argument, Config, InputPath, OutputPath
from fullspan.core.progress import progress
from fullspan.text.examples import iter_examples
from fullspan.text.prompts import is_text, iter_prompts, read_text

if TYPE_CHECKING:
    from fullspan.decoding.language_model import LanguageModel

_TOGETHER = 16  # prompts that are answered in one batch


class DatastoreConfig(Config):
    """Options of `fullspan datastore`."""

    texts: Annotated[list[InputPath], Argument()] = Field(
        min_length=1,
        description="text files, or examples as of fullspan train, whose answers are taken",
    )
    model: str = Field(description="the model that it is for, or another with the same tokenizer")
    adapter: InputPath | None = Field(None, description="folder of a LoRA adapter to add to the model")
    out: OutputPath = Field(description="file to write")
    answers: bool = Field(
        False,
        description="let the model answer the prompts of the files (of a text: its lines), and take that",
    )
    max_tokens: int = Field(128, ge=1, description="with --answers: most tokens of each")
    max_prompts: int = Field(400, ge=1, description="with --answers: most prompts of each file")


def command(config: DatastoreConfig) -> None:
    """Build a datastore of your texts, from which answers are drafted.

    With --speculate and the file, `fullspan generate` and `fullspan chat` propose what stands there where an
    answer begins to say the same; answers stay what they are. With --answers it is the model's own answers
    that are kept, which fit best.
    """
    path = find_model(config.model)
    from fullspan.decoding.speculation.datastore import Datastore, vocabulary_key

    if config.answers:
        from fullspan.decoding.loading import load

        model = load(config.model, adapter=config.adapter, engine="cpu")
        prompts = [
            model.chat_ids(turns)
            for file in config.texts
            for turns in islice(iter_prompts(file), config.max_prompts)
        ]
        store = Datastore.of(_answers(model, prompts, config.max_tokens), vocabulary_key(model.tokenizer))
    else:
        from fullspan.models.tokenizers import load_tokenizer

        store = Datastore.build(_texts(config.texts), load_tokenizer(path))
    store.save(config.out)
    print(f"wrote {config.out}: {len(store.tokens):,} tokens")


def _answers(model: LanguageModel, prompts: list[list[int]], max_tokens: int) -> Iterator[tuple[int, ...]]:
    from fullspan.decoding.options import GenerationOptions

    options = GenerationOptions(max_tokens=max_tokens)
    with progress(len(prompts), "answering", "prompts") as advance:
        for start in range(0, len(prompts), _TOGETHER):
            for answer in model.answer(prompts[start : start + _TOGETHER], options):
                yield answer.token_ids
                advance()


def _texts(files: list[InputPath]) -> Iterator[str]:
    for file in files:
        if is_text(file):
            yield read_text(file)
        else:
            for example in iter_examples(file):
                yield from (turn.content for turn in example.messages if turn.role == "assistant")
