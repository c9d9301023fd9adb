"""Proposals that are copied from the prompt and the answer so far."""

from __future__ import annotations

from collections.abc import Sequence

from fullspan.core.errors import ConfigError
from fullspan.decoding.speculation.drafters import MOST_PROPOSALS, DraftRow, Target
from fullspan.decoding.speculation.tree import Tree


class NGramDrafter:
    """Prompt lookup: where the last few tokens stood before, what followed them is proposed again.

    Prompt lookup decoding (Saxena 2023) and the n-gram part of LLMA (Yang et al. 2023): of all n-grams that
    end the text the longest that occurred before counts, and of its occurrences the latest. It costs
    microseconds, and pays where answers quote: summaries, code that is edited, lists.

    Parameters
    ----------
    n_tokens : int
        Tokens to propose.
    longest, shortest : int
        Lengths of the n-grams that are looked for.

    Raises
    ------
    ConfigError
        If a number is out of its range, or the shortest is longer than the longest.

    Examples
    --------
    >>> index = NGramIndex(longest=3, shortest=1)
    >>> index.follow([1, 2, 3, 4, 1, 2], n_tokens=3)
    [3, 4, 1]
    >>> index.follow([1, 2, 3, 4, 1, 2, 9], n_tokens=3)
    []
    """

    def __init__(self, n_tokens: int = 3, longest: int = 4, shortest: int = 2) -> None:
        if not 1 <= n_tokens <= MOST_PROPOSALS:
            raise ConfigError(f"n_tokens of a draft must be 1 to {MOST_PROPOSALS}, got {n_tokens}")
        if not 1 <= shortest <= longest:
            raise ConfigError(f"n-grams of {shortest} to {longest} tokens cannot be looked for")
        self.n_tokens, self.longest, self.shortest = n_tokens, longest, shortest

    def check(self, target: Target) -> None:
        """It fits any target."""

    def begin(self, n_rows: int) -> NGramDrafting:
        """Start on a batch."""
        return NGramDrafting(self.n_tokens, [NGramIndex(self.longest, self.shortest) for _ in range(n_rows)])


class NGramDrafting:
    """N-gram drafts of one batch."""

    def __init__(self, n_tokens: int, indexes: list[NGramIndex]) -> None:
        self._n_tokens, self._indexes = n_tokens, indexes

    def propose(self, rows: Sequence[DraftRow]) -> list[Tree]:
        """A chain for each row."""
        trees = []
        for row, index in zip(rows, self._indexes, strict=True):
            tree = Tree(row.ids[-1])
            node = 0
            for token in index.follow(row.ids, min(self._n_tokens, row.room)):
                node = tree.add(node, token)
            trees.append(tree)
        return trees

    def keep(self, places: Sequence[int]) -> None:
        """Go on with these rows only."""
        self._indexes = [self._indexes[place] for place in places]


class NGramIndex:
    """Where each n-gram of one growing text was seen last.

    Parameters
    ----------
    longest, shortest : int
    """

    def __init__(self, longest: int, shortest: int) -> None:
        self._lengths = range(longest, shortest - 1, -1)
        self._ends: dict[tuple[int, ...], int] = {}
        self._n_read = 0

    def follow(self, ids: Sequence[int], n_tokens: int) -> list[int]:
        """What followed the longest n-gram that ends `ids` where it stood before, up to `n_tokens`.

        Where the copy reaches the end of the text it goes on copying itself, as a period would.

        Parameters
        ----------
        ids : sequence of int
            The text of the call before, and what has come since.
        n_tokens : int
        """
        for end in range(self._n_read, len(ids)):  # n-grams that something follows
            for length in self._lengths:
                if length <= end:
                    self._ends[tuple(ids[end - length : end])] = end
        self._n_read = max(self._n_read, len(ids))
        for length in self._lengths:
            found = self._ends.get(tuple(ids[-length:])) if length <= len(ids) else None
            if found is not None:
                period = len(ids) - found
                return [ids[found + i % period] for i in range(n_tokens)]
        return []
