"""Caches of texts that were read before, for requests that begin in the same way."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from fullspan.decoding.engine._layout import PAGE
from fullspan.decoding.engine.cache import SequenceCache

# Most texts that are kept: each is compared with every new prompt.
MOST_KEPT = 256
# Tokens that are compared at a time.
_PIECE = 64


class PrefixCache:
    """Keeps the caches that were used last, and finds the one that has most in common with a prompt.

    Attributes
    ----------
    n_tokens : int
        Tokens that there is memory for in the pages of all caches; what two of them share counts twice.

    Examples
    --------
    >>> common_prefix([1, 2, 3], [1, 2, 4, 5])
    2
    """

    def __init__(self) -> None:
        self.n_tokens = 0
        # Least recently used first.
        self._kept: OrderedDict[int, tuple[list[int], SequenceCache]] = OrderedDict()
        self._n_put = 0

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, ids: Sequence[int], cache: SequenceCache) -> None:
        """Keep a cache of the tokens `ids`; what it has the beginning of is no longer needed."""
        new = list(ids)
        for name, (old, _) in list(self._kept.items()):
            common = common_prefix(old, new)
            if common == len(new):
                self._kept.move_to_end(name)
                return
            if common == len(old):
                self._drop(name)
        self._n_put += 1
        self._kept[self._n_put] = new, cache
        self.n_tokens += _in_pages(new)
        if len(self._kept) > MOST_KEPT:
            self._drop(next(iter(self._kept)))

    def find(self, prompt: Sequence[int]) -> tuple[int, SequenceCache | None]:
        """The longest beginning of `prompt` that a cache holds, and that cache."""
        best, found = 0, None
        for name, (ids, _) in self._kept.items():
            common = common_prefix(ids, prompt)
            if common > best:
                best, found = common, name
        if found is None:
            return 0, None
        self._kept.move_to_end(found)
        return best, self._kept[found][1]

    def shrink(self, n_tokens: int) -> None:
        """Forget the least recently used ones until at most `n_tokens` have memory."""
        while self._kept and self.n_tokens > n_tokens:
            self._drop(next(iter(self._kept)))

    def _drop(self, name: int) -> None:
        ids, _ = self._kept.pop(name)
        self.n_tokens -= _in_pages(ids)


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two texts have in common at their beginning."""
    n = min(len(a), len(b))
    for start in range(0, n, _PIECE):
        end = min(n, start + _PIECE)
        if a[start:end] != b[start:end]:
            return next(at for at in range(start, end) if a[at] != b[at])
    return n


def _in_pages(ids: Sequence[int]) -> int:
    return -(-len(ids) // PAGE) * PAGE
