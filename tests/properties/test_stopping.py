"""The text of an answer does not depend on how it is cut into tokens."""

from __future__ import annotations

import functools

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fullspan.decoding.stopping import AnswerText
from fullspan.models.tokenizers import load_tokenizer
from fullspan.text.tokenizer import Tokenizer


class Pieces:
    """Token i is the i-th piece."""

    def __init__(self, pieces: list[str], rest: str = "") -> None:
        self.pieces = pieces
        self.rest = rest

    def push(self, token_id: int) -> str:
        return self.pieces[token_id]

    def finish(self) -> str:
        return self.rest


def expected(text: str, stop: list[str]) -> tuple[str, bool]:
    """Read letter by letter until a stop string is complete."""
    for end in range(1, len(text) + 1):
        found = [word for word in stop if text[:end].endswith(word)]
        if found:
            return text[: end - max(map(len, found))], True
    return text, False


# Few letters, so that stop strings are met, half met and overlap.
pieces_lists = st.lists(st.text("abc", max_size=5), max_size=8)
words = st.text("ab", min_size=1, max_size=4)


@given(pieces_lists, st.text("abc", max_size=2), st.lists(words, max_size=3))
def test_streamed_text_ends_where_the_whole_text_would(pieces, rest, stop):
    answer = AnswerText(Pieces(pieces, rest), stop)
    shown = []
    for token in range(len(pieces)):
        shown.append(answer.push(token))
        if not answer.stopped:
            # held back is what may be the start of a stop string, and nothing more
            so_far = "".join(pieces[: token + 1])
            starts = [n for word in stop for n in range(1, len(word)) if so_far.endswith(word[:n])]
            assert len(so_far) - len("".join(shown)) == max(starts, default=0)
        if answer.stopped:
            break
    else:
        shown.append(answer.finish())
    text, stopped = expected("".join(pieces) + rest, stop)
    assert "".join(shown) == answer.text == text
    assert answer.stopped == stopped


# Characters of one to four bytes, some of which share their first bytes, and bytes that are none.
characters = st.sampled_from(["a", "ä", "à", "€", "₭", "🐍", "🐎"]).map(str.encode)
raw = st.lists(characters | st.sampled_from([b"\xf0\x9f", b"\x80", b"\xc3"]), max_size=8).map(b"".join)
wide = st.text("aäà€🐍", min_size=1, max_size=3)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw, st.lists(wide, max_size=2))
def test_stop_strings_over_tokens_of_single_bytes(tiny_chat_model, raw, stop):
    """Every token of this vocabulary is a byte, so stop strings end inside of characters."""
    tokenizer = _tokenizer(tiny_chat_model)
    answer = AnswerText(tokenizer.stream(), stop)
    shown = []
    for byte in raw:
        shown.append(answer.push(_token_of(tokenizer)[byte]))
        if answer.stopped:
            break
    else:
        shown.append(answer.finish())
    text, stopped = expected(raw.decode(errors="replace"), stop)
    assert "".join(shown) == answer.text == text
    assert answer.stopped == stopped


_tokenizer = functools.cache(load_tokenizer)


@functools.cache
def _token_of(tokenizer: Tokenizer) -> dict[int, int]:
    """The token of each byte that the texts above have."""
    texts = ["a", "ä", "à", "€", "₭", "🐍", "🐎", "Ā"]
    return {
        byte: token
        for text in texts
        for byte, token in zip(text.encode(), tokenizer.encode(text), strict=True)
    }


@given(st.lists(st.text(max_size=5), max_size=8))
def test_without_stop_strings_nothing_is_held_back(pieces):
    answer = AnswerText(Pieces(pieces), [])
    assert [answer.push(token) for token in range(len(pieces))] == pieces
    assert answer.finish() == ""
