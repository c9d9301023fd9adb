# mypy: allow-untyped-decorators, allow-untyped-calls
"""Attention over a paged cache, for tiles of up to 8 rows; a row is a query head of a token.

A row's context is cut into chunks of 64 positions, and the chunks into spans, by the row's position alone.
Within a span chunk after chunk is added, then span after span, so that a row's numbers depend neither on how
many threads there are nor on the other rows.

What is summed up of some positions is a softmax's greatest score, the sum of exp(score - greatest), and the
values weighted by these. It stands as 8 greatest, 8 sums, then [head_dim / 16, 8 rows, 16], all float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fullspan.core.kernels import helper
from fullspan.core.simd import (
    exp,
    lane_numbers,
    largest,
    load_float32,
    maximum,
    prefetch,
    select,
    spread_float32,
    spread_int32,
    store,
)
from fullspan.core.simd_products import (
    floats,
    lane,
    multiply_add,
    number_float32,
    put_float32,
    spread_each,
    store_each,
    total_of,
)
from fullspan.decoding.engine._cell_kernels import key_scales, load_key, load_value
from fullspan.decoding.engine._layout import KEY_SCALES, PAGE, TILE, VALUE_SCALES, VALUES

_ROW_BYTES = 4 * PAGE  # a row's scores
_SUMS = 4 * TILE  # where the sums stand, after the greatest
_VALUES = 8 * TILE  # where the weighted values begin
_ACROSS = 64 * TILE  # from 16 values of all rows to the next 16
_LOWEST = np.float32(-1e30)


@helper()
def summary_bytes(head_dim: int) -> Any:
    """The size of what is summed up for a tile."""
    return _VALUES + 4 * TILE * head_dim


def _tile_scores(n: int) -> Any:
    @helper(name=f"tile_scores_{n}")
    def scores(queries: int, chunk: int, following: int, head_dim: int, n_blocks: int, out: int) -> None:
        """out [n rows, 64] = queries [head_dim, 8]ᵀ keys, for blocks of 16 positions."""
        for block in range(n_blocks):
            total = floats(n)
            for group in range(head_dim // 16):
                even, odd = floats(n), floats(n)
                for d in range(16 * group, 16 * group + 16, 2):
                    q = queries + 4 * TILE * d
                    prefetch(following + 16 * (head_dim * block + d))
                    even = multiply_add(load_key(chunk, head_dim, block, d), spread_each(q, n, 4), even)
                    key = load_key(chunk, head_dim, block, d + 1)
                    odd = multiply_add(key, spread_each(q + 4 * TILE, n, 4), odd)
                prefetch(following + KEY_SCALES * head_dim + 4 * (PAGE * group + 16 * block))
                total = multiply_add(even + odd, key_scales(chunk, head_dim, block, group), total)
            store_each(out + 64 * block, total, _ROW_BYTES)

    return scores


def _tile_values(n: int) -> Any:
    @helper(name=f"tile_values_{n}")
    def values(weights: int, chunk: int, following: int, head_dim: int, n_positions: int, out: int) -> None:
        """The values of a chunk, each times its weight [n rows, 64]."""
        for d in range(0, head_dim, 32):
            low, high = floats(n), floats(n)
            for t in range(n_positions):
                prefetch(following + VALUES * head_dim + head_dim * t + d)
                prefetch(following + VALUE_SCALES * head_dim + 4 * (head_dim // 16 * t + d // 16))
                w = spread_each(weights + 4 * t, n, _ROW_BYTES)
                low = multiply_add(load_value(chunk, head_dim, t, d), w, low)
                high = multiply_add(load_value(chunk, head_dim, t, d + 16), w, high)
            at = out + _VALUES + _ACROSS // 16 * d
            store_each(at, low, 64)
            store_each(at + _ACROSS, high, 64)

    return values


_scores_1, _scores_4, _scores_8 = (_tile_scores(n) for n in (1, 4, 8))
_values_1, _values_4, _values_8 = (_tile_values(n) for n in (1, 4, 8))


@helper()
def _softmax_row(scores: int, n_seen: int, n_blocks: int, out: int) -> None:
    """Turn a row's scores into exp(score - greatest), zero from n_seen on; NaN stays NaN."""
    lanes = lane_numbers()
    most = spread_float32(_LOWEST)
    for block in range(n_blocks):
        seen = lanes + np.int32(16 * block) < spread_int32(np.int32(n_seen))
        most = maximum(most, select(seen, load_float32(scores + 64 * block), spread_float32(_LOWEST)))
    greatest = largest(most)
    total = spread_float32(np.float32(0))
    for block in range(n_blocks):
        seen = lanes + np.int32(16 * block) < spread_int32(np.int32(n_seen))
        score = load_float32(scores + 64 * block)
        # score - score is NaN for what is no number, which exp and the maximum would hide.
        weight = exp(score - spread_float32(greatest)) + (score - score)
        weight = select(seen, weight, spread_float32(np.float32(0)))
        store(scores + 64 * block, weight)
        total = total + weight
    put_float32(out, greatest)
    put_float32(out + _SUMS, total_of(total))


@helper()
def attend_chunk(
    queries: int,
    chunk: int,
    following: int,
    head_dim: int,
    first: int,
    limits: Any,
    n_rows: int,
    limit: int,
    scores: int,
    out: int,
) -> None:
    """Sum up what the rows of a tile see in the chunk of positions from `first` on.

    following : where the chunk stands that is next, whose memory is asked for meanwhile
    limits : int64 [8], how many positions each row sees of its context; limit : the most of them
    scores : room for [8, 64] float32
    """
    n_positions = min(limit - first, PAGE)
    n_blocks = (n_positions + 15) // 16
    if n_rows == 1:
        _scores_1(queries, chunk, following, head_dim, n_blocks, scores)
    elif n_rows <= 4:
        _scores_4(queries, chunk, following, head_dim, n_blocks, scores)
    else:
        _scores_8(queries, chunk, following, head_dim, n_blocks, scores)
    for row in range(n_rows):
        # Where a row sees nothing its weights are zero, and nobody asks for its sum.
        _softmax_row(scores + _ROW_BYTES * row, limits[row] - first, n_blocks, out + 4 * row)
    if n_rows == 1:
        _values_1(scores, chunk, following, head_dim, n_positions, out)
    elif n_rows <= 4:
        _values_4(scores, chunk, following, head_dim, n_positions, out)
    else:
        _values_8(scores, chunk, following, head_dim, n_positions, out)


@helper()
def merge_row(into: int, other: int, row: int, head_dim: int, fresh: bool) -> None:
    """Add what was summed up of later positions to a row's sum; `fresh`: there is nothing yet."""
    m0, m1 = number_float32(into + 4 * row), number_float32(other + 4 * row)
    l0, l1 = number_float32(into + _SUMS + 4 * row), number_float32(other + _SUMS + 4 * row)
    if fresh:
        put_float32(into + 4 * row, m1)
        put_float32(into + _SUMS + 4 * row, l1)
        for part in range(head_dim // 16):
            at = _VALUES + _ACROSS * part + 64 * row
            store(into + at, load_float32(other + at))
        return
    most = max(m0, m1)
    old, new = exp(spread_float32(m0 - most)), exp(spread_float32(m1 - most))
    put_float32(into + 4 * row, most)
    put_float32(into + _SUMS + 4 * row, l0 * lane(old, 0) + l1 * lane(new, 0))
    for part in range(head_dim // 16):
        at = _VALUES + _ACROSS * part + 64 * row
        before = load_float32(into + at) * old
        store(into + at, multiply_add(load_float32(other + at), new, before))


@helper()
def write_row(summary: int, row: int, head_dim: int, out: int) -> None:
    """out [head_dim] = the weighted values over the sum of weights."""
    share = spread_float32(np.float32(1) / number_float32(summary + _SUMS + 4 * row))
    for part in range(head_dim // 16):
        store(out + 64 * part, load_float32(summary + _VALUES + _ACROSS * part + 64 * row) * share)
