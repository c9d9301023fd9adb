"""The text of an answer does not depend on how it is cut into tokens."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fullspan.decoding.stopping import AnswerText


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


@given(st.lists(st.text(max_size=5), max_size=8))
def test_without_stop_strings_nothing_is_held_back(pieces):
    answer = AnswerText(Pieces(pieces), [])
    assert [answer.push(token) for token in range(len(pieces))] == pieces
    assert answer.finish() == ""
