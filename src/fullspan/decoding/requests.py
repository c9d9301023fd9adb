"""What a scheduler is asked, and what it says: requests and updates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from fullspan.core.errors import FullspanError
from fullspan.decoding.engine._layout import PAGE
from fullspan.decoding.generation import Answer
from fullspan.decoding.logprobs import TokenLogprob


class QueueFull(FullspanError):
    """More requests wait already than the limits allow.

    Attributes
    ----------
    retry_after : int
        Seconds until there is likely to be room.
    """

    def __init__(self, n_waiting: int, retry_after: int) -> None:
        super().__init__(
            f"the queue is full: {n_waiting} answers wait already", f"try again in {retry_after} s"
        )
        self.retry_after = retry_after


class Closing(FullspanError):
    """No more requests are taken."""

    def __init__(self) -> None:
        super().__init__("no more requests are taken: it is about to end", "ask again in a minute")


@dataclass(frozen=True)
class Update:
    """A token of an answer, or its end.

    Attributes
    ----------
    index : int
        Which of the request's answers.
    text : str
        What can be shown now; often empty.
    logprob : TokenLogprob or None
        Of the token, where asked for.
    finish_reason : {"stop", "length"} or None
    error : Exception or None
        Why the answer cannot go on.
    """

    index: int
    text: str = ""
    logprob: TokenLogprob | None = None
    finish_reason: str | None = None
    error: Exception | None = None

    @property
    def is_last(self) -> bool:
        """Whether no other follows for this answer."""
        return self.finish_reason is not None or self.error is not None


@dataclass(eq=False)
class Request:
    """Answers to one prompt.

    Attributes
    ----------
    answers : list of Answer
        All with the same prompt; filled in place.
    max_tokens : int
    on_update : callable
        Gets what each step did, in the scheduler's thread: it must not block. If it raises, the request is
        cancelled.
    n_logprobs : int, optional
        Record each token's log-probability, and this many of the most likely ones.
    reproducible : bool
        Whether a sample must not depend on what else runs. No drafter helps then: how much it proposes does.
    n_reused : int
        Tokens of the prompt that were in a cache already.
    """

    answers: list[Answer]
    max_tokens: int
    on_update: Callable[[list[Update]], None]
    n_logprobs: int | None = None
    reproducible: bool = False
    n_reused: int = 0
    cancelled: bool = field(default=False, init=False)
    submitted: float = field(default=0.0, init=False)

    @property
    def prompt(self) -> list[int]:
        """Tokens of the prompt."""
        return self.answers[0].prompt_ids

    @property
    def most_tokens(self) -> int:
        """Tokens of memory that it can come to need."""
        n = len(self.answers)
        return len(self.prompt) + PAGE + n * (self.answers[0].limit + PAGE)


@dataclass
class BatchCounts:
    """What a scheduler has done so far."""

    steps: int = 0
    prompt_tokens: int = 0
    reused_tokens: int = 0
    answer_tokens: int = 0
    proposed_tokens: int = 0
    accepted_tokens: int = 0
    cancelled: int = 0
    refused: int = 0
