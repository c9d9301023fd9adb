"""A kd-tree's arrays: how they are made, and how kernels get them for one kind of distance."""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np

from fullspan.core.device import usable_cores
from fullspan.core.simd import LANES
from fullspan.core.threads import Crew, new_barrier
from fullspan.estimators.neighbors._build_kernels import build_tree
from fullspan.estimators.neighbors._distance_kernels import EUCLIDEAN, MANHATTAN, MAXIMUM, OTHER
from fullspan.estimators.saving import Saveable

_CACHE = 1 << 20  # bytes of points that one thread sorts alone, in its own cache
_WORTH_THREADS = 4096  # points or queries
_MOST_POINTS = 2**31 - 1
# Outside of these, squares could overflow or vanish: such numbers are scaled by a power of two first.
_SAFE = (1e-120, 1e120)


def run(kernel: Any, n_threads: int, *arguments: Any) -> None:
    """Run a kernel on so many threads."""
    with Crew(n_threads) as crew:
        crew.run(kernel, *arguments)


def thread_count(workers: int | None, n_items: int) -> int:
    """Threads for so many points or queries.

    Raises
    ------
    ValueError
        If `workers` is neither -1, nor None, nor a positive number.
    """
    if workers is not None and workers != -1 and workers < 1:
        raise ValueError(f"workers={workers}: expected how many threads to use, or -1 for every core")
    wanted = usable_cores() if workers is None or workers == -1 else int(workers)
    return max(1, min(wanted, n_items // (_WORTH_THREADS // 2)))


def plain(array: np.ndarray) -> np.ndarray:
    """The same memory, C-contiguous, without the mark that it must not be written.

    Kernels would be compiled a second time for arrays that have it. The view is good while the array lives.
    """
    if array.flags.writeable or not array.size:
        return array
    memory = (ctypes.c_char * array.nbytes).from_address(array.ctypes.data)
    view: np.ndarray = np.frombuffer(memoryview(memory), dtype=array.dtype).reshape(array.shape)
    return view


class Structure(Saveable):
    """Points in leaves, boxes around them, and the splits between; see `_build_kernels`.

    Parameters
    ----------
    data : ndarray of shape (n, m)
        float64, C-contiguous and finite; n > 0.
    leafsize : int
        Points of a leaf, rounded up to a multiple of 16.
    """

    def __init__(self, data: np.ndarray, leafsize: int) -> None:
        n, m = data.shape
        if n > _MOST_POINTS:
            raise ValueError(f"data has {n} points; at most {_MOST_POINTS} are possible")
        self.block = block = min(-(-leafsize // LANES) * LANES, -(-n // LANES) * LANES)
        self.m = m
        n_leaves = -(-n // block)
        self.n_levels = max(n_leaves - 1, 0).bit_length()
        counts = [-(-n // (block << level)) for level in range(1, self.n_levels + 1)]
        self.split_starts = np.array([0, 0, *np.cumsum(counts)][: self.n_levels + 1], dtype=np.int64)
        self.dimensions = np.empty(sum(counts), dtype=np.int32)
        self.values = np.empty(sum(counts))
        nodes: list[int] = []
        while LANES ** len(nodes) < n_leaves:
            nodes.append(-(-n_leaves // LANES ** (len(nodes) + 1)))
        self.box_starts = np.array([0, 0, *np.cumsum(nodes)][: len(nodes) + 1], dtype=np.int64)
        self.boxes = np.empty((sum(nodes), m, 2, LANES))
        self.boxes[:, :, 0], self.boxes[:, :, 1] = np.inf, -np.inf
        self.blocks = np.empty((n_leaves, m, block))
        self.ids = np.arange(n, dtype=np.int32)
        self._build(data)

    def _build(self, data: np.ndarray) -> None:
        n, m = data.shape
        threads = thread_count(None, n)
        alone = self.n_levels
        fewest = 3 if threads > 1 else 0  # levels shared out, so that each thread gets some subtrees
        while alone and ((self.block << alone) * m * 8 > _CACHE or self.n_levels - alone < fewest):
            alone -= 1
        cap = min(self.block << alone, n)
        scratch = (
            np.empty((threads, n + LANES)),
            np.empty((threads, 2, n + LANES)),
            np.empty((threads, n + LANES), dtype=np.int32),
            np.empty((threads, 512)),
            np.empty((threads, cap * m)),
            np.empty((threads, cap), dtype=np.int32),
        )
        run(
            build_tree,
            threads,
            new_barrier(threads),
            plain(data).reshape(-1),
            (n, m, self.block, self.n_levels, alone),
            self.ids,
            (self.dimensions, self.values, self.split_starts),
            self.blocks.reshape(-1),
            self.boxes.reshape(-1),
            self.box_starts,
            scratch,
        )

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """The least and the greatest value of each dimension."""
        if len(self.boxes):
            root = self.boxes[-1]
            return root[:, 0].min(axis=1), root[:, 1].max(axis=1)
        points = self.blocks[0, :, : len(self.ids)]
        return points.min(axis=1), points.max(axis=1)

    def scaled(self, exponent: int) -> tuple[Any, ...]:
        """What kernels take for the tree, with all numbers times a power of two."""
        blocks, boxes = plain(self.blocks), plain(self.boxes)
        if exponent:
            blocks, boxes = np.ldexp(blocks, exponent), np.ldexp(boxes, exponent)
        ids, box_starts = plain(self.ids), plain(self.box_starts)
        return blocks.reshape(-1), self.block, self.m, ids, boxes.reshape(-1), box_starts

    def splits(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Dimension and value of each node, level by level, and where each level starts."""
        return plain(self.dimensions), plain(self.values), plain(self.split_starts)


def norm_of(p: float) -> tuple[int, float]:
    """How kernels call a Minkowski norm."""
    codes = {1.0: MANHATTAN, 2.0: EUCLIDEAN, math.inf: MAXIMUM}
    return codes.get(float(p), OTHER), float(p)


def exponent_for(largest: float) -> int:
    """The power of two by which numbers up to `largest` are multiplied before they are raised to powers."""
    if largest == 0 or _SAFE[0] <= largest <= _SAFE[1]:
        return 0
    return -math.frexp(largest)[1]
