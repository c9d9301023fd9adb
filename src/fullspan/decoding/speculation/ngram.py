"""Proposals that are copied from the prompt and the answer so far."""

from __future__ import annotations

from collections.abc import Sequence

from fullspan.core.errors import ConfigError
from fullspan.decoding.speculation.drafters import MOST_PROPOSALS, DraftRow, Target
from fullspan.decoding.speculation.pace import TYPICAL, Guesses, StepCosts
from fullspan.decoding.speculation.tree import Tree

# Copies that have held for longer are as good as one that has held for so many tokens.
_LONGEST_TRUSTED = 12
# Shares of copies that held for 0, 1, 2, ... tokens and held for another, in answers of SmolLM2-135M.
_RATES = (0.0, 0.35, 0.5, 0.65, 0.72, 0.78, 0.82, 0.85, 0.88, 0.88, 0.88, 0.89, 0.9)


class NGramDrafter:
    """Prompt lookup: where the last few tokens stood before, what followed them is proposed again.

    Prompt lookup decoding (Saxena 2023) and the n-gram part of LLMA (Yang et al. 2023): of all n-grams that
    end the text the longest that occurred before counts, and of its occurrences the latest. It costs
    microseconds, and pays where answers quote: summaries, code that is edited, lists.

    How many tokens are proposed is decided at each step: the longer the copy has held, and the more often
    copies of this text have, the more of them, as far as a step of more tokens pays.

    Parameters
    ----------
    n_tokens : int
        Most tokens to propose.
    longest, shortest : int
        Lengths of the n-grams that are looked for.
    costs : StepCosts
        Of the target's steps.

    Raises
    ------
    ConfigError
        If a number is out of its range, or the shortest is longer than the longest.

    Examples
    --------
    >>> index = NGramIndex(longest=3, shortest=1)
    >>> index.follow([1, 2, 3, 4, 1, 2], n_tokens=3)
    (2, [3, 4, 1])
    >>> index.follow([1, 2, 3, 4, 1, 2, 9], n_tokens=3)
    (0, [])
    """

    def __init__(
        self, n_tokens: int = 15, longest: int = 6, shortest: int = 2, costs: StepCosts = TYPICAL
    ) -> None:
        if not 1 <= n_tokens <= MOST_PROPOSALS:
            raise ConfigError(f"n_tokens of a draft must be 1 to {MOST_PROPOSALS}, got {n_tokens}")
        if not 1 <= shortest <= longest:
            raise ConfigError(f"n-grams of {shortest} to {longest} tokens cannot be looked for")
        self.n_tokens, self.longest, self.shortest, self.costs = n_tokens, longest, shortest, costs

    def check(self, target: Target) -> None:
        """It fits any target."""

    def begin(self, n_rows: int) -> NGramDrafting:
        """Start on a batch."""
        return NGramDrafting(self, n_rows)


class NGramDrafting:
    """N-gram drafts of one batch."""

    def __init__(self, drafter: NGramDrafter, n_rows: int) -> None:
        self._n_tokens, self._costs = drafter.n_tokens, drafter.costs
        self._rows = [
            (NGramIndex(drafter.longest, drafter.shortest), Guesses(copy_rate)) for _ in range(n_rows)
        ]

    def propose(self, rows: Sequence[DraftRow]) -> list[Tree]:
        """A chain for each row."""
        trees = []
        for row, (index, guesses) in zip(rows, self._rows, strict=True):
            guesses.begin(row.ids)
            held, tokens = index.follow(row.ids, min(self._n_tokens, row.room))
            for i, token in enumerate(tokens):
                guesses.add(i - 1, token, copy_kind(held + i))
            trees.append(guesses.tree(row.ids[-1], self._costs, len(rows)))
        return trees

    def keep(self, places: Sequence[int]) -> None:
        """Go on with these rows only."""
        self._rows = [self._rows[place] for place in places]


def copy_kind(held: int) -> int:
    """The kind, for `Guesses`, of a token copied from where the text has agreed for so many tokens."""
    return min(held, _LONGEST_TRUSTED)


def copy_rate(kind: int) -> float:
    """The chance that such a token is right, before anything is known of the text."""
    return _RATES[kind]


class NGramIndex:
    """Where each n-gram of one growing text was seen last.

    Parameters
    ----------
    longest, shortest : int
    """

    def __init__(self, longest: int = 6, shortest: int = 2) -> None:
        self._lengths = range(longest, shortest - 1, -1)
        self._ends: dict[tuple[int, ...], int] = {}
        self._n_read = 0

    def follow(self, ids: Sequence[int], n_tokens: int) -> tuple[int, list[int]]:
        """What followed the longest n-gram that ends `ids` where it stood before, up to `n_tokens`.

        Where the copy reaches the end of the text it goes on copying itself, as a period would.

        Parameters
        ----------
        ids : sequence of int
            The text of the call before, and what has come since.
        n_tokens : int

        Returns
        -------
        held : int
            For how many tokens the two places agree already, counted as far as matters; 0 without a copy.
        tokens : list of int
        """
        for end in range(self._n_read, len(ids)):  # n-grams that something follows
            for length in self._lengths:
                if length <= end:
                    self._ends[tuple(ids[end - length : end])] = end
        self._n_read = max(self._n_read, len(ids))
        for length in self._lengths:
            found = self._ends.get(tuple(ids[-length:])) if length <= len(ids) else None
            if found is not None:
                period, held = len(ids) - found, length
                while held < min(_LONGEST_TRUSTED, found) and ids[found - 1 - held] == ids[-1 - held]:
                    held += 1
                return held, [ids[found + i % period] for i in range(n_tokens)]
        return 0, []
