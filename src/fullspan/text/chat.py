"""Chat templates: messages to text, and to token ids with the assistant's own tokens marked."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fullspan.core.errors import DataError
from fullspan.text._template import compile_template, run_template
from fullspan.text.examples import Message
from fullspan.text.packing import Encoded
from fullspan.text.tokenizer import Tokenizer

Messages = Sequence[Message | Mapping[str, Any]]
_Span = tuple[int, int]


def render(
    template: str,
    messages: Messages,
    *,
    add_generation_prompt: bool = False,
    bos_token: str = "",
    eos_token: str = "",
    variables: Mapping[str, Any] | None = None,
) -> str:
    """Turn messages into text by a Jinja chat template, in a sandbox.

    What transformers' `apply_chat_template` offers to templates is there: loop controls, `tojson`
    without HTML escapes, `raise_exception`, `strftime_now` and `{% generation %}` blocks. Other than
    there, printing a variable that does not exist is an error, and the work a template may do is bounded.

    Parameters
    ----------
    template
        Source of the template, as in a tokenizer's `chat_template`.
    messages
        Turns with a role and a content.
    add_generation_prompt
        End with the beginning of an assistant's turn, to be continued by the model.
    bos_token, eos_token
        Texts of the special tokens, which templates may name.
    variables
        Other names that the template may use, such as `tools`; plain data only.

    Raises
    ------
    DataError
        If the template refuses these messages (it calls `raise_exception`).
    ConfigError
        If the template is not valid, names what is not there, reaches for Python's internals, or
        does not come to an end.

    Examples
    --------
    >>> template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    >>> render(template, [{"role": "user", "content": "Hi!"}])
    '<user>Hi!'
    """
    context = _context(messages, add_generation_prompt, bos_token, eos_token, variables)
    return run_template(compile_template(template), context)


def encode_chat(
    tokenizer: Tokenizer,
    messages: Messages,
    *,
    add_generation_prompt: bool = False,
    allow_special: bool = True,
    variables: Mapping[str, Any] | None = None,
) -> Encoded:
    """Token ids of a conversation, and which of them the assistant said.

    Supervised are the contents of the assistant's turns and the token that ends each turn, not the
    frame around them. They are found by the template's `{% generation %}` blocks, or, where it has
    none, as what each turn of the assistant adds to the text before it.

    Parameters
    ----------
    tokenizer
        A tokenizer with a chat template.
    messages
        Turns with a role and a content.
    add_generation_prompt
        End with the beginning of an assistant's turn. The ids are then a prompt: no assistant turn
        is required, and nothing need be supervised.
    allow_special
        Whether the spelling of a special token inside a message becomes that token, as in
        transformers. False keeps it plain text, so that a stranger's message cannot forge a turn.
    variables
        Other names that the template may use.

    Returns
    -------
    Encoded
        The ids of the rendered text (no special tokens are put before it) and the mask, both [T].

    Raises
    ------
    DataError
        If the tokenizer has no template, if the template refuses the messages or rewrites earlier
        turns, or if no token is supervised.
    """
    template = tokenizer.chat_template
    if template is None:
        raise DataError(
            "the model's tokenizer has no chat template",
            "it is a base model: use plain prompts, or a model that was tuned for chat",
        )
    turns = [_plain_turn(message) for message in messages]
    # One character put inside each spelling that is not to become a token; taken out again below.
    mark = "" if allow_special else _unused_character(turns)
    if mark:
        turns = [_marked(turn, _special_spelling(tokenizer, mark), mark) for turn in turns]
    chat = _Chat(template, turns, tokenizer, variables)
    spans: list[_Span] = []
    if add_generation_prompt:
        text = chat.text(len(turns), True)
    elif re.search(r"\{%-?\s*generation\s*-?%\}", template):
        text, spans = chat.text_and_blocks()
    else:
        text, spans = chat.text_and_added()
    ids, supervised = _tokenise(tokenizer, text, spans, mark)
    if not add_generation_prompt and not any(supervised):
        raise DataError(
            "no token of this conversation is supervised, so there is nothing to learn",
            "it needs a turn of the assistant, and the template must show it",
        )
    return Encoded(ids, supervised)


class _Chat:
    """One conversation and the template that renders its beginnings."""

    def __init__(
        self,
        template: str,
        turns: list[dict[str, Any]],
        tokenizer: Tokenizer,
        variables: Mapping[str, Any] | None,
    ) -> None:
        self._template = compile_template(template)
        self._turns = turns
        self._tokens = (tokenizer.bos_token, tokenizer.eos_token)
        self._variables = variables

    def text(self, n_turns: int, add_generation_prompt: bool, block_mark: str = "") -> str:
        """The first turns as text."""
        bos, eos = self._tokens
        context = _context(self._turns[:n_turns], add_generation_prompt, bos, eos, self._variables)
        return run_template(self._template, context, block_mark)

    def text_and_blocks(self) -> tuple[str, list[_Span]]:
        """The whole text and what lies inside its generation blocks."""
        mark = uuid.uuid4().hex
        marked = self.text(len(self._turns), False, mark)
        text, spans, start = "", [], 0
        # Each block stands between two marks, so every second piece is the inside of one.
        for number, piece in enumerate(marked.split(mark)):
            start = len(text)
            text += piece
            if number % 2:
                spans.append((start, len(text)))
        if text != self.text(len(self._turns), False):
            raise DataError("the chat template changes what its generation blocks print")
        return text, spans

    def text_and_added(self) -> tuple[str, list[_Span]]:
        """The whole text and what each turn of the assistant added to it."""
        text = self.text(len(self._turns), False)
        spans = []
        for index, turn in enumerate(self._turns):
            if turn["role"] == "assistant":
                prompt = self._beginning(text, index, True)
                spans.append((prompt, self._beginning(text, index + 1, False)))
        return text, spans

    def _beginning(self, text: str, n_turns: int, add_generation_prompt: bool) -> int:
        beginning = self.text(n_turns, add_generation_prompt)
        if not text.startswith(beginning):
            raise DataError(
                f"the chat template renders turn {n_turns} differently when other turns follow it, "
                "so the assistant's tokens cannot be told apart",
                "put {% generation %} … {% endgeneration %} around the assistant's content in the template",
            )
        return len(beginning)


def _tokenise(
    tokenizer: Tokenizer, text: str, spans: Sequence[_Span], mark: str
) -> tuple[list[int], list[bool]]:
    """Ids of the text, and for each whether it shares a character with a span."""
    ids: list[int] = []
    places: list[_Span] = []
    for start, end, is_plain in _sections(tokenizer, text, mark):
        section = text[start:end]
        at = [start + i for i, character in enumerate(section) if character != mark] + [end]
        encoding = tokenizer.encoding(
            section.replace(mark, "") if mark else section, allow_special=not is_plain
        )
        ids += encoding.ids
        places += [(at[first], at[last]) for first, last in encoding.offsets]
    supervised = [False] * len(ids)
    for start, end in spans:
        inside = [i for i, (first, last) in enumerate(places) if first < end and last > start]
        # What follows the end-of-turn token is the frame of the next turn.
        stop = max((i for i in inside if ids[i] in tokenizer.eos_ids), default=None)
        for i in inside:
            supervised[i] = stop is None or i <= stop
    return ids, supervised


def _sections(tokenizer: Tokenizer, text: str, mark: str) -> Iterator[tuple[int, int, bool]]:
    """Where to cut the text, and whether a section is plain: without any special token."""
    if not mark:
        yield 0, len(text), False
        return
    end = 0
    for match in _special_spelling(tokenizer, mark).finditer(text):
        yield end, match.start(), True
        yield match.start(), match.end(), False
        end = match.end()
    yield end, len(text), True


def _special_spelling(tokenizer: Tokenizer, mark: str) -> re.Pattern[str]:
    """Matches a special token; `_marked` puts the mark inside one, or behind one of a single character."""
    spellings = sorted((tokenizer.token(index) for index in tokenizer.special_ids), key=len, reverse=True)
    return re.compile(f"(?:{'|'.join(map(re.escape, spellings)) or '(?!)'})(?!{mark})")


def _marked(turn: Mapping[str, Any], spelling: re.Pattern[str], mark: str) -> dict[str, Any]:
    return {
        key: spelling.sub(lambda match: match[0][0] + mark + match[0][1:], value)
        if isinstance(value, str)
        else value
        for key, value in turn.items()
    }


def _unused_character(turns: Sequence[Mapping[str, Any]]) -> str:
    """A character that Unicode keeps free for internal use and that no message holds."""
    content = json.dumps(turns, ensure_ascii=False)
    for code in range(0xFDD0, 0xFDF0):
        if chr(code) not in content:
            return chr(code)
    raise DataError("the messages hold every one of Unicode's noncharacters U+FDD0 to U+FDEF")


def _context(
    turns: Messages,
    add_generation_prompt: bool,
    bos_token: str,
    eos_token: str,
    variables: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What a template may name; transformers always passes the first five."""
    return {
        "messages": [_plain_turn(turn) for turn in turns],
        "tools": None,
        "documents": None,
        "add_generation_prompt": add_generation_prompt,
        "bos_token": bos_token,
        "eos_token": eos_token,
        **{name: _plain(value, name) for name, value in (variables or {}).items()},
    }


def _plain_turn(turn: Message | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(turn, Message):
        return {"role": turn.role, "content": turn.content}
    if not isinstance(turn, Mapping) or not isinstance(turn.get("role"), str):
        raise DataError(f"a message should be a mapping with a role and a content, got {turn!r}")
    return {str(key): _plain(value, str(key)) for key, value in turn.items()}


def _plain(value: Any, name: str) -> Any:
    """The value, if it is plain data: methods of anything else would be open to the template."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item, name) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, name) for item in value]
    raise DataError(f"{name!r} is a {type(value).__name__}, a chat template is given plain data only")
