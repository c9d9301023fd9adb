"""Splits a batch over threads so that they need not wait for each other.

Attention joins the tokens of one segment only, so whole segments are dealt to shards, and each shard is a
small batch of its own. Segments that begin alike (the system prompt of a chat template) share those tokens:
a shard computes them once, and its other tokens see their keys and values.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fullspan.core.errors import DataError
from fullspan.text.packing import IGNORED, PADDING_SEGMENT, Batch

Int64s = NDArray[np.int64]

ROW_MULTIPLE = 32
"""Shards are padded to so many rows: products then come in few shapes, each of which costs compilation."""

_SHORTEST_PREFIX = 8  # fewer shared tokens are not worth the bookkeeping
_LARGEST_IMBALANCE = 1.3  # longest shard over the mean from which one shard on all threads is faster
_EQUAL_COST_LENGTH = 2000  # keys for which attention costs a token about what the matrix products do


@dataclass(frozen=True)
class Piece:
    """Queries of one segment and the rows of the keys that they see.

    Attributes
    ----------
    key_rows : int64 [n_before + n]
        Rows of the shard: those of the shared prefix, then the piece's own.
    n_before : int
        Length of the shared prefix, 0 for the prefix itself.
    """

    key_rows: Int64s
    n_before: int

    @property
    def own_rows(self) -> Int64s:
        """The rows of the queries, [n]."""
        return self.key_rows[self.n_before :]


@dataclass(frozen=True)
class Shard:
    """What one thread computes.

    Attributes
    ----------
    n_tokens : int
        Rows that are no padding; they come first.
    ids, positions : int64 [M]
        M is a multiple of `ROW_MULTIPLE`; the id of padding rows is -1.
    pieces : list of Piece
        A shared prefix comes first.
    rows, targets : int64 [N]
        The supervised rows and the tokens that they must predict.
    """

    n_tokens: int
    ids: Int64s
    positions: Int64s
    pieces: list[Piece]
    rows: Int64s
    targets: Int64s

    @functools.cached_property
    def flat_pieces(self) -> tuple[Int64s, Int64s, Int64s]:
        """The pieces as arrays: all key_rows, where those of each begin (and the end), n_before."""
        lengths = [len(piece.key_rows) for piece in self.pieces]
        starts = np.concatenate([[0], np.cumsum(lengths)])
        befores = np.array([piece.n_before for piece in self.pieces])
        return np.concatenate([piece.key_rows for piece in self.pieces]), starts, befores


@dataclass(frozen=True)
class _Segment:
    ids: Int64s
    positions: Int64s
    labels: Int64s


def split(batch: Batch, n_shards: int, vocab_size: int) -> list[Shard]:
    """Deal the segments of `batch` to at most `n_shards` shards of about equal cost.

    A batch that cannot be divided evenly (one long segment) becomes one shard.

    Raises
    ------
    DataError
        If an id lies outside the vocabulary, or a segment is not contiguous.

    Examples
    --------
    >>> from fullspan.text.packing import Encoded, packed_batch
    >>> batch = packed_batch([Encoded([1, 2, 3], [0, 1, 1]), Encoded([4, 5], [1, 1])])
    >>> shard, = split(batch, n_shards=1, vocab_size=10)
    >>> [piece.own_rows.tolist() for piece in shard.pieces], shard.targets.tolist()
    ([[0, 1, 2], [3, 4]], [2, 3, 5])
    """
    segments = _segments(batch, vocab_size)
    n_shared = _shared_prefix(segments)
    dealt = _deal(segments, n_shared, n_shards)
    return [_shard(group, n_shared if len(group) > 1 else 0) for group in dealt if group]


def _segments(batch: Batch, vocab_size: int) -> list[_Segment]:
    ids, positions, labels, segments = (
        np.atleast_2d(np.asarray(array))
        for array in (batch.ids, batch.positions, batch.labels, batch.segments)
    )
    found = []
    for row in range(ids.shape[0]):
        edges = np.flatnonzero(np.diff(segments[row])) + 1
        seen: set[int] = set()
        for start, end in zip([0, *edges.tolist()], [*edges.tolist(), ids.shape[1]], strict=True):
            segment = int(segments[row, start])
            if segment == PADDING_SEGMENT:
                continue
            if segment in seen:
                raise DataError(f"segment {segment} of row {row} is not contiguous")
            seen.add(segment)
            part = (row, slice(start, end))
            found.append(_Segment(ids[part], positions[part], labels[part]))
    for segment_ in found:
        for values, what in (
            (segment_.ids, "token id"),
            (segment_.labels[segment_.labels != IGNORED], "label"),
        ):
            if values.size and not 0 <= values.min() <= values.max() < vocab_size:
                wrong = values[(values < 0) | (values >= vocab_size)][0]
                raise DataError(f"{what} {wrong} is outside the vocabulary of {vocab_size}")
    return found


def _shared_prefix(segments: list[_Segment]) -> int:
    """How many tokens all segments begin with; none of them supervised, and each segment keeps some."""
    if len(segments) < 2:
        return 0
    one = segments[0]
    n = min(len(segment.ids) for segment in segments) - 1
    for other in segments:
        same = (one.ids[:n] == other.ids[:n]) & (one.positions[:n] == other.positions[:n])
        same &= other.labels[:n] == IGNORED
        n = n if same.all() else int(same.argmin())
    return n if n >= _SHORTEST_PREFIX else 0


def _deal(segments: list[_Segment], n_shared: int, n_shards: int) -> list[list[_Segment]]:
    """Longest first, each to the shard with the least to do; within a shard the batch's order."""
    lengths = np.array([len(segment.ids) for segment in segments])
    costs = (lengths - n_shared) * (1 + lengths / _EQUAL_COST_LENGTH)
    loads = np.zeros(n_shards)
    chosen: list[list[int]] = [[] for _ in range(n_shards)]
    for index in np.argsort(-costs, kind="stable").tolist():
        shard = int(loads.argmin())
        loads[shard] += costs[index]
        chosen[shard].append(index)
    if loads.max(initial=0.0) > _LARGEST_IMBALANCE * loads.mean():
        return [segments]
    return [[segments[index] for index in sorted(indices)] for indices in chosen]


def _shard(segments: list[_Segment], n_shared: int) -> Shard:
    pieces = []
    prefix = np.arange(n_shared)
    parts = []
    n_rows = n_shared
    if n_shared:
        parts.append(_cut(segments[0], 0, n_shared))
        pieces.append(Piece(prefix, 0))
    for segment in segments:
        own = np.arange(n_rows, n_rows + len(segment.ids) - n_shared)
        n_rows += len(own)
        pieces.append(Piece(np.concatenate([prefix, own]), n_shared))
        parts.append(_cut(segment, n_shared, len(segment.ids)))
    padding = np.zeros(-n_rows % ROW_MULTIPLE, np.int64)
    parts.append(_Segment(padding - 1, padding, padding + IGNORED))
    ids, positions, labels = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("ids", "positions", "labels")
    )
    rows = np.flatnonzero(labels != IGNORED)
    return Shard(n_rows, ids, positions, pieces, rows, labels[rows])


def _cut(segment: _Segment, start: int, end: int) -> _Segment:
    part = slice(start, end)
    return _Segment(segment.ids[part], segment.positions[part], segment.labels[part])
