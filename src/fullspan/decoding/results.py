"""What `LanguageModel` answers with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fullspan.decoding.generation import Answer
from fullspan.decoding.logprobs import TokenLogprob
from fullspan.decoding.speculation.statistics import Speculation


@dataclass(frozen=True)
class Generation:
    """An answer.

    Attributes
    ----------
    text : str
        Without the closing end-of-turn token or stop string.
    token_ids : tuple of int
        Every generated token, the closing one included.
    finish_reason : {"stop", "length"}
        "stop": an end token, a stop string or the end of a constraint; "length": `max_tokens` or the context
        was reached, so what a constraint asked for may be incomplete.
    n_prompt_tokens : int
    seconds : float
        From the start of the batch to this answer's last token.
    logprobs : tuple of TokenLogprob or None
        One for each of `token_ids`, where asked for.
    speculation : Speculation or None
        How many proposals were accepted, where there was a drafter.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: str
    n_prompt_tokens: int
    seconds: float
    logprobs: tuple[TokenLogprob, ...] | None = None
    speculation: Speculation | None = None

    @property
    def tokens_per_second(self) -> float:
        """Generated tokens over the whole time, reading the prompt included."""
        return len(self.token_ids) / self.seconds


class Stream:
    """Pieces of an answer's text as they are generated; iterate over it once.

    Stopping early leaves the answer so far in `result`.
    """

    def __init__(self, answer: Answer, pieces: Iterator[tuple[Answer, str]]) -> None:
        self._answer = answer
        self._pieces = pieces

    def __iter__(self) -> Iterator[str]:
        return (piece for _, piece in self._pieces if piece)

    @property
    def result(self) -> Generation:
        """What was generated so far."""
        return generation_of(self._answer, logprobs=False)


def generation_of(answer: Answer, *, logprobs: bool) -> Generation:
    """What is there of an answer, whether or not it is finished."""
    return Generation(
        text=answer.text.text,
        token_ids=tuple(answer.token_ids),
        finish_reason=answer.finish_reason or "length",
        n_prompt_tokens=len(answer.prompt_ids),
        seconds=answer.seconds,
        logprobs=tuple(answer.logprobs) if logprobs else None,
        speculation=answer.speculation,
    )
