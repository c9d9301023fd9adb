"""How many proposals are worth their time: what more tokens cost a step, and how often they are accepted."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fullspan.core.errors import ConfigError
from fullspan.decoding.engine._layout import MOST_TOKENS
from fullspan.decoding.speculation.tree import Tree

# Tokens after which what a text shows counts as much as what is known beforehand.
_PRIOR_WEIGHT = 4.0


@dataclass(frozen=True)
class StepCosts:
    """How long the target's steps take, over the time of a step of one token.

    Parameters
    ----------
    times : tuple of float
        Of steps of 1, 2, 3, ... tokens, the first 1.

    Examples
    --------
    >>> costs = StepCosts.between({1: 5.0, 3: 6.0, 5: 10.0})
    >>> [costs.of(n) for n in (1, 2, 3, 4, 7)]
    [1.0, 1.1, 1.2, 1.6, 2.8]
    """

    times: tuple[float, ...]

    @classmethod
    def between(cls, measured: Mapping[int, float]) -> StepCosts:
        """From the times of steps of some numbers of tokens, in any unit; straight lines lie between them.

        Raises
        ------
        ConfigError
            If a step of one token is not among them, or a time is not positive.
        """
        if 1 not in measured or len(measured) < 2 or not all(time > 0 for time in measured.values()):
            raise ConfigError(f"step costs need positive times of 1 token and of more, got {dict(measured)}")
        sizes = sorted(measured)
        # No step is cheaper than a shorter one: what looks so is noise.
        known = np.maximum.accumulate([measured[n] / measured[1] for n in sizes])
        n = np.arange(1, max(MOST_TOKENS, sizes[-1]) + 1)
        slope = (known[-1] - known[-2]) / (sizes[-1] - sizes[-2])
        times = np.interp(n, sizes, known) + slope * np.maximum(n - sizes[-1], 0)
        return cls(tuple(np.round(times, 4).tolist()))

    @functools.cached_property
    def least(self) -> float:
        """What one more token costs where it costs least."""
        return min((time - 1.0) / n for n, time in enumerate(self.times[1:], 1))

    def of(self, n_tokens: int) -> float:
        """Of a step of so many tokens; those of several such steps beyond the largest."""
        full, rest = divmod(n_tokens, len(self.times))
        return full * self.times[-1] + (self.times[rest - 1] if rest else 0.0)


# Of SmolLM2-135M in Q4_1 on two cores with AVX-512 VNNI; `fullspan bench decode --tune` measures others.
TYPICAL = StepCosts.between({1: 1.0, 2: 1.1, 4: 1.31, 8: 2.17, 16: 3.86, 64: 14.5})


def n_worthwhile(chances: Sequence[float], costs: StepCosts, n_rows: int = 1) -> int:
    """How many of some proposals make decoding fastest.

    A step gives a token, and each proposal another one with its chance; that over the step's cost counts.

    Parameters
    ----------
    chances : sequence of float
        That each is accepted, and all before it on its path, descending.
    costs : StepCosts
    n_rows : int
        Rows that take a step together; the others are taken to have as many proposals.

    Examples
    --------
    >>> n_worthwhile([0.9, 0.8, 0.7, 0.1], TYPICAL), n_worthwhile([0.05, 0.02], TYPICAL)
    (3, 0)
    >>> n_worthwhile([0.5, 0.25], TYPICAL, n_rows=16)
    0
    """
    best, gained = 0, 1.0
    speed = 1.0 / costs.of(n_rows)
    for n, chance in enumerate(chances, 1):
        gained += chance
        found = gained / costs.of(n_rows * (n + 1))
        if found > speed:
            best, speed = n, found
    return best


class Experience:
    """How often proposals of each kind were right, from a guess that gives way to what is seen.

    The mean of a beta distribution whose prior weighs as much as four proposals.

    Parameters
    ----------
    prior : function
        From a kind to its rate beforehand.

    Examples
    --------
    >>> seen = Experience(lambda kind: 0.5)
    >>> for _ in range(4):
    ...     seen.learn(3, right=True)
    >>> seen.rate(3), seen.rate(4)
    (0.75, 0.5)
    """

    def __init__(self, prior: Callable[[int], float]) -> None:
        self._prior = prior
        self._counts: dict[int, tuple[float, float]] = {}

    def rate(self, kind: int) -> float:
        """Chance that a proposal of this kind is right."""
        right, n = self._counts.get(kind) or self._begin(kind)
        return right / n

    def learn(self, kind: int, *, right: bool) -> None:
        """Count a proposal that was right or wrong."""
        hits, n = self._counts.get(kind) or self._begin(kind)
        self._counts[kind] = hits + right, n + 1

    def _begin(self, kind: int) -> tuple[float, float]:
        self._counts[kind] = self._prior(kind) * _PRIOR_WEIGHT, _PRIOR_WEIGHT
        return self._counts[kind]


class Guesses:
    """What a drafter of one row thought of at its last step: the best of it is proposed, all of it teaches.

    Parameters
    ----------
    prior : function
        As in `Experience`.

    Examples
    --------
    >>> guesses = Guesses(lambda kind: 0.9)
    >>> guesses.begin([5, 6])
    >>> guesses.add(guesses.add(-1, 7, kind=0), 8, kind=0)
    1
    >>> guesses.tree(6, TYPICAL).tokens
    [6, 7, 8]
    >>> guesses.begin([5, 6, 7, 9])  # one of the two was right
    >>> round(guesses.seen.rate(0), 3)
    0.767
    """

    def __init__(self, prior: Callable[[int], float]) -> None:
        self.seen = Experience(prior)
        self.chances: list[float] = []
        self._tokens: list[int] = []
        self._parents: list[int] = []
        self._kinds: list[int] = []
        self._n_ids = 0

    def __len__(self) -> int:
        """Number of guesses."""
        return len(self._tokens)

    def begin(self, ids: Sequence[int]) -> None:
        """Learn from what came since the last guesses, and forget these."""
        if self._tokens:
            self._learn(ids[self._n_ids :])
        self._n_ids = len(ids)
        self.chances, self._tokens, self._parents, self._kinds = [], [], [], []

    def chance(self, parent: int, kind: int) -> float:
        """That a token of this kind comes behind a guess (-1: behind the text), and the guess before it."""
        return (self.chances[parent] if parent >= 0 else 1.0) * self.seen.rate(kind)

    def add(self, parent: int, token: int, kind: int) -> int:
        """A further guess, none likelier than the one before; its number."""
        self.chances.append(self.chance(parent, kind))
        self._tokens.append(token)
        self._parents.append(parent)
        self._kinds.append(kind)
        return len(self._tokens) - 1

    def path(self, guess: int) -> list[int]:
        """Tokens from behind the text to a guess."""
        tokens = []
        while guess >= 0:
            tokens.append(self._tokens[guess])
            guess = self._parents[guess]
        return tokens[::-1]

    def tree(self, root: int, costs: StepCosts, n_rows: int = 1) -> Tree:
        """As many of the guesses as pay."""
        tree = Tree(root)
        for guess in range(n_worthwhile(self.chances, costs, n_rows)):
            tree.add(self._parents[guess] + 1, self._tokens[guess])
        return tree

    def _learn(self, came: Sequence[int]) -> None:
        node = -1
        for token in came:
            found = None
            for guess in range(node + 1, len(self._tokens)):
                if self._parents[guess] == node:
                    right = self._tokens[guess] == token
                    self.seen.learn(self._kinds[guess], right=right)
                    if right:
                        found = guess
            if found is None:
                return
            node = found
