"""The text of a growing answer: decoded as tokens come, ended before a stop string."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol


class Detokeniser(Protocol):
    """Turns tokens into text piece by piece, never splitting a UTF-8 character."""

    def push(self, token_id: int) -> str:
        """The text that `token_id` completes."""

    def finish(self) -> str:
        """What is left of an incomplete character."""


class AnswerText:
    """Text of an answer that is safe to show.

    A stop string may span tokens, so text that could be the start of one is held back until the
    next tokens decide.

    Parameters
    ----------
    detokeniser : Detokeniser
    stop : sequence of str
        The answer ends before the one that is complete first; it is not part of the text.

    Attributes
    ----------
    text : str
        All that was released so far.
    stopped : bool
        Whether a stop string was met.

    Examples
    --------
    >>> class Letters:
    ...     def push(self, token_id): return chr(token_id)
    ...     def finish(self): return ""
    >>> answer = AnswerText(Letters(), stop=["STOP"])
    >>> [answer.push(ord(letter)) for letter in "a ST. STO"]
    ['a', ' ', '', '', 'ST.', ' ', '', '', '']
    >>> answer.push(ord("P")), answer.stopped, answer.text
    ('', True, 'a ST. ')
    """

    def __init__(self, detokeniser: Detokeniser, stop: Sequence[str] = ()) -> None:
        self._detokeniser = detokeniser
        self._stop = tuple(stop)
        self._held = ""
        self.text = ""
        self.stopped = False

    def push(self, token_id: int) -> str:
        """Take the next token; return the text that can be shown now."""
        return self._release(self._detokeniser.push(token_id))

    def finish(self) -> str:
        """Return what was held back when the answer ends otherwise than by a stop string."""
        if self.stopped:
            return ""
        piece = self._release(self._detokeniser.finish())
        if not self.stopped:
            self.text += self._held
            piece, self._held = piece + self._held, ""
        return piece

    def _release(self, piece: str) -> str:
        if not self._stop:
            self.text += piece
            return piece
        self._held += piece
        found = [(at + len(stop), at) for stop in self._stop if (at := self._held.find(stop)) >= 0]
        if found:
            # The one that is complete first, as if the text had come letter by letter.
            self.stopped = True
            keep = min(found)[1]
        else:
            keep = len(self._held) - _longest_overlap(self._held, self._stop)
        released, self._held = self._held[:keep], self._held[keep:]
        self.text += released
        return released


def _longest_overlap(text: str, stops: Iterable[str]) -> int:
    """Length of the longest end of `text` that is the start of a stop string."""
    longest = 0
    for stop in stops:
        for length in range(min(len(stop) - 1, len(text)), longest, -1):
            if text.endswith(stop[:length]):
                longest = length
                break
    return longest
