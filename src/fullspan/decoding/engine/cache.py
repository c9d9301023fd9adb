"""Keys and values of one sequence, in pages that sequences may share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fullspan.core.errors import ConfigError
from fullspan.decoding.engine._context_kernels import move_positions
from fullspan.decoding.engine._layout import CHUNK_BYTES, PAGE
from fullspan.decoding.engine.memory import allocate


@dataclass(frozen=True)
class PageShape:
    """What makes up a page: chunks of 64 positions, one for each layer and key/value head."""

    n_chunks: int
    head_dim: int

    @property
    def n_bytes(self) -> int:
        """Size of a page."""
        return CHUNK_BYTES * self.head_dim * self.n_chunks


@dataclass(eq=False)
class _Page:
    memory: np.ndarray
    users: int = 1


class SequenceCache:
    """What an engine remembers of one sequence; `Engine.new_cache` makes one.

    A copy shares its pages with the original until one of the two writes into them.

    Attributes
    ----------
    length : int
        Tokens held.
    addresses : ndarray of int64
        Of the pages, for the kernels.
    n_proposed : int
        Tokens of the tree of the last step, which are not held.
    """

    def __init__(self, shape: PageShape) -> None:
        self.length = 0
        self.addresses = np.zeros(0, np.int64)
        self._shape = shape
        self._pages: list[_Page] = []
        self.n_proposed = 0

    def reserve(self, n_tokens: int) -> None:
        """Make room for `n_tokens` behind those held, in pages that nobody else reads."""
        first, end = self.length // PAGE, -(-(self.length + n_tokens) // PAGE)
        changed = len(self._pages) < end
        for index in range(first, min(end, len(self._pages))):
            page = self._pages[index]
            if page.users > 1:
                page.users -= 1
                self._pages[index] = _Page(allocate(page.memory.size))
                self._pages[index].memory[:] = page.memory
                changed = True
        while len(self._pages) < end:
            self._pages.append(_Page(allocate(self._shape.n_bytes)))
        if changed:
            self._list_addresses()

    def advance(self, n_tokens: int) -> None:
        """Count the tokens that a step has just written as held."""
        self.length += n_tokens
        self.n_proposed = 0

    def propose(self, n_tokens: int) -> None:
        """Remember how many tokens of a tree a step has written, for `keep`."""
        self.n_proposed = n_tokens

    def truncate(self, length: int) -> None:
        """Forget all tokens but the first `length`.

        Raises
        ------
        ConfigError
            If the cache holds fewer.
        """
        if not 0 <= length <= self.length:
            raise ConfigError(f"cannot keep {length} tokens of a cache that holds {self.length}")
        self.length, self.n_proposed = length, 0
        self._drop_pages(-(-length // PAGE))

    def keep(self, path: Sequence[int]) -> None:
        """Of the tree of the last step keep one path: its tokens' numbers in the step, from the root on.

        Raises
        ------
        ConfigError
            If no tree was proposed, or the numbers do not ascend within it.
        """
        steps = list(path)
        if any(b <= a for a, b in zip([-1, *steps], [*steps, self.n_proposed], strict=False)):
            raise ConfigError(
                f"the path {steps} does not ascend within the {self.n_proposed} tokens of the last tree"
            )
        moves = [(self.length + token, self.length + i) for i, token in enumerate(steps) if token != i]
        if moves:
            table = np.array(moves, np.int64)
            move_positions(table, self.addresses, self._shape.n_chunks, self._shape.head_dim)
        self.advance(len(steps))
        self._drop_pages(-(-self.length // PAGE))

    def copy(self) -> SequenceCache:
        """Another cache with the same tokens; pages are copied when one of the two writes into them."""
        other = SequenceCache(self._shape)
        other.length = self.length
        other._pages = self._pages[: -(-self.length // PAGE)]
        for page in other._pages:
            page.users += 1
        other._list_addresses()
        return other

    def _drop_pages(self, n_kept: int) -> None:
        for page in self._pages[n_kept:]:
            page.users -= 1
        del self._pages[n_kept:]
        self._list_addresses()

    def _list_addresses(self) -> None:
        self.addresses = np.array([page.memory.ctypes.data for page in self._pages], np.int64)

    def __del__(self) -> None:
        for page in self._pages:  # so that the others need not copy what nobody else reads
            page.users -= 1
