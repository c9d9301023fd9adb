"""What speculation brought an answer."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(eq=False)
class Speculation:
    """Counts of one answer.

    Attributes
    ----------
    n_steps : int
        Steps of the target after it had read the prompt.
    n_tokens : int
        Tokens that these gave.
    n_proposed : int
        Tokens proposed, branches included.
    proposed, accepted : list of int
        By position behind the text, from 1 on: steps in which a token was proposed there, and in which
        one was accepted.
    draft_seconds, verify_seconds : float
        Of the batch's steps that the row took part in: the drafter's time, and the target's.
    lossless : bool
        Whether the answer has the distribution that the target gives it. Typical acceptance changes that.

    Examples
    --------
    >>> counts = Speculation()
    >>> counts.add(n_proposed=3, depth=3, n_tokens=2, n_accepted=1)
    >>> counts.add(n_proposed=1, depth=1, n_tokens=2, n_accepted=1)
    >>> counts.proposed, counts.accepted, counts.tokens_per_step
    ([2, 1, 1], [2, 0, 0], 2.0)
    """

    n_steps: int = 0
    n_tokens: int = 0
    n_proposed: int = 0
    proposed: list[int] = field(default_factory=list)
    accepted: list[int] = field(default_factory=list)
    draft_seconds: float = 0.0
    verify_seconds: float = 0.0
    lossless: bool = True

    @property
    def tokens_per_step(self) -> float:
        """Tokens that a step of the target gave; 1 is plain decoding."""
        return self.n_tokens / self.n_steps if self.n_steps else 1.0

    def add(self, n_proposed: int, depth: int, n_tokens: int, n_accepted: int) -> None:
        """Count a step: `n_tokens` came of it, `n_accepted` of them proposed on a tree of this depth."""
        self.n_steps += 1
        self.n_tokens += n_tokens
        self.n_proposed += n_proposed
        more = depth - len(self.proposed)
        self.proposed += [0] * more
        self.accepted += [0] * more
        for position in range(depth):
            self.proposed[position] += 1
            self.accepted[position] += position < n_accepted
