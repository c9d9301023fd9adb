# mypy: allow-untyped-decorators, allow-untyped-calls
"""Gradients, their rounding, and the sums that leaf values come from.

Rows are taken in chunks, so that sorted rows are spread over the threads. For losses that are known here no
array holds gradients: each pass computes them from the margin, which costs less than to read them.

Shapes: n rows, N rows with padding, B blocks, T threads.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from fullspan.core.kernels import FINITE_ANY_ORDER, helper, kernel
from fullspan.core.simd import (
    address,
    exp,
    floor,
    gather_float32,
    lane_numbers,
    lanes_sum,
    largest,
    load_float32,
    magnitude,
    maximum,
    minimum,
    select,
    spread_float32,
    store,
    to_float32,
    to_int32,
)
from fullspan.estimators.boosting._hist_kernels import ROW_CHUNK, mixed

_SHIFT = np.int64(32)
_ZERO = np.float32(0)
_ONE = np.float32(1)
_UNIT = np.float32(1 / 65536)
FINE = 2.0**20


# Losses whose gradients are computed where they are needed; or they are given.
GIVEN, LOGISTIC, SQUARED = range(3)


class Gradients(NamedTuple):
    """Where the rows' gradients and hessians come from; see `_lanes`."""

    loss: Any
    first: Any  # float32 [n]: g where they are given, else the margin
    second: Any  # float32 [n]: h where they are given, else y
    weight: Any  # float32 [n] where weighted
    weighted: Any


@helper(counts_references=False)
def _floats(values: Any, i: int) -> Any:
    """16 numbers from number i on; what lies behind the last one is not read."""
    place, lanes = address(values) + 4 * i, lane_numbers()
    if i + 16 <= len(values):
        return load_float32(place)
    inside = lanes < np.int32(len(values) - i)
    return gather_float32(place, select(inside, lanes << np.int32(2), lanes & np.int32(0)))


@helper(counts_references=False)
def _lanes(source: Any, i: int) -> Any:
    """g and h of 16 rows from row i on, zeros behind the last row; negative hessians count as 0.

    Squared loss: g = margin - y and h = 1. Logistic loss: g = p - y and h = p (1 - p) for the probability
    p = 1 / (1 + e^-margin). Both times the weight.
    """
    zero, one = spread_float32(_ZERO), spread_float32(_ONE)
    g, h = _floats(source.first, i), _floats(source.second, i)
    if source.loss == LOGISTIC:
        p = one / (exp(zero - g) + one)
        g, h = p - h, p * (one - p)
    elif source.loss == SQUARED:
        g, h = g - h, one
    if source.weighted:
        w = _floats(source.weight, i)
        g, h = g * w, h * w
    inside = lane_numbers() < np.int32(min(len(source.first) - i, 16))
    # A NaN stays one.
    return select(inside, g, zero), select(inside, select(h < zero, zero, h), zero)


@kernel()
def extremes(thread: int, n_threads: int, source: Any, out: Any) -> None:
    """out float32 [T, 2] = largest |g| and h of this thread's rows; infinity if one is NaN."""
    zero, infinity = spread_float32(_ZERO), spread_float32(np.float32(np.inf))
    most_g = most_h = zero
    n = len(source.first)
    for first in range(thread * ROW_CHUNK, n, n_threads * ROW_CHUNK):
        for i in range(first, min(first + ROW_CHUNK, n), 16):
            g, h = _lanes(source, i)
            most_g = maximum(most_g, select(g == g, magnitude(g), infinity))
            most_h = maximum(most_h, select(h == h, h, infinity))
    out[thread, 0], out[thread, 1] = largest(most_g), largest(most_h)


@kernel()
def survey(thread: int, n_threads: int, source: Any, finer: Any, out: Any) -> None:
    """What the choice of units needs to know of this thread's rows, in whole numbers, so in any order.

    finer : float32 [2], for which the largest |g| and h become `FINE`
    out : int64 [T, 5]; sums of |g| and h in those units, of their squares in units of `FINE` / 2^10, and how
    many are no whole numbers as they are
    """
    zero = spread_float32(_ZERO)
    nothing, one = to_int32(zero), to_int32(spread_float32(_ONE))
    n, mine = len(source.first), out[thread]
    for first in range(thread * ROW_CHUNK, n, n_threads * ROW_CHUNK):
        sum_g = sum_h = square_g = square_h = broken = nothing
        for i in range(first, min(first + ROW_CHUNK, n), 16):
            g, h = _lanes(source, i)
            g = magnitude(g)
            broken = broken + select((floor(g) == g) & (floor(h) == h), nothing, one)
            g_, h_ = to_int32(g * finer[0]), to_int32(h * finer[1])
            sum_g, sum_h = sum_g + g_, sum_h + h_
            g_, h_ = g_ >> np.int32(10), h_ >> np.int32(10)
            square_g, square_h = square_g + g_ * g_, square_h + h_ * h_
        mine[0] += lanes_sum(sum_g)
        mine[1] += lanes_sum(sum_h)
        mine[2] += lanes_sum(square_g)
        mine[3] += lanes_sum(square_h)
        mine[4] += lanes_sum(broken)


@helper(counts_references=False)
def _rounded_lanes(x: Any, chance: Any) -> Any:
    """x rounded down or up, up with the probability of its fraction; `chance` is uniform in [0, 1).

    What is whole but for float32's own rounding stays as it is.
    """
    near = floor(x + np.float32(0.5))
    return select(magnitude(x - near) < np.float32(1e-3), near, floor(x + chance))


@helper(counts_references=False)
def _rounded(x: Any, chance: Any) -> Any:
    """The same of one number."""
    near = math.floor(x + 0.5)
    return near if abs(x - near) < 1e-3 else math.floor(x + chance)


@helper(counts_references=False)
def _mixed_lanes(x: Any) -> Any:
    """`mixed` of 16 words."""
    x = x ^ (x >> np.int32(16))
    x = x * np.int32(0x7FEB352D)
    x = x ^ (x >> np.int32(15))
    x = x * np.int32(0x846CA68B - 2**32)
    return x ^ (x >> np.int32(16))


@kernel()
def quantise(
    thread: int,
    n_threads: int,
    source: Any,
    units: Any,
    salt: Any,
    first_row: int,
    blocks: Any,
    out_sums: Any,
) -> None:
    """Write gradients as int8 and hessians as uint8 into the last two bytes of each row's blocks.

    units : float32 [2], how many of them one is; blocks : uint16 [B, N, 8]; out_sums : int64 [T], what each
    thread's rows add up to
    """
    words = np.empty(16, np.int32)
    n, total, lanes = len(source.first), np.int64(0), lane_numbers()
    nothing = to_int32(spread_float32(_ZERO))
    for first in range(thread * ROW_CHUNK, n, n_threads * ROW_CHUNK):
        sum_g = sum_h = nothing
        for i in range(first, min(first + ROW_CHUNK, n), 16):
            bits = _mixed_lanes((lanes + np.int32(first_row + i)) ^ np.int32(salt))
            g, h = _lanes(source, i)
            g = _rounded_lanes(g * units[0], to_float32(bits & np.int32(65535)) * _UNIT)
            h = _rounded_lanes(h * units[1], to_float32(bits >> np.int32(16)) * _UNIT)
            g = minimum(maximum(g, spread_float32(np.float32(-127))), spread_float32(np.float32(127)))
            h = minimum(h, spread_float32(np.float32(255)))
            g_, h_ = to_int32(g), to_int32(h)
            sum_g, sum_h = sum_g + g_, sum_h + h_
            store(address(words), (g_ & np.int32(255)) | (h_ << np.int32(8)))
            for block in range(len(blocks)):
                if i + 16 <= n:
                    for lane in range(16):
                        blocks[block, i + lane, 7] = np.uint16(words[lane])
                else:
                    for lane in range(n - i):
                        blocks[block, i + lane, 7] = np.uint16(words[lane])
        total += (lanes_sum(sum_g) << _SHIFT) + lanes_sum(sum_h)
    out_sums[thread] = total


@kernel()
def quantise_wide(
    thread: int,
    n_threads: int,
    source: Any,
    scale_g: float,
    scale_h: float,
    nearest: bool,
    salt: Any,
    first_row: int,
    out: Any,
    out_sums: Any,
) -> None:
    """The same with more bits, packed as in a histogram, into out int64 [N]; or rounded to nearest."""
    n, total, room = len(source.first), np.int64(0), np.empty(32, np.float32)
    for first in range(thread * ROW_CHUNK, n, n_threads * ROW_CHUNK):
        for i in range(first, min(first + ROW_CHUNK, n), 16):
            g, h = _lanes(source, i)
            store(address(room), g)
            store(address(room) + 64, h)
            for lane in range(min(n - i, 16)):
                bits = mixed(np.uint32(np.uint32(first_row + i + lane) ^ np.uint32(salt)))
                a_chance = np.float64(bits & np.uint32(65535)) / 65536.0
                b_chance = np.float64(bits >> np.uint32(16)) / 65536.0
                if nearest:
                    a_chance = b_chance = np.float64(0.5)
                a = _rounded(np.float64(room[lane]) * scale_g, a_chance)
                b = _rounded(np.float64(room[16 + lane]) * scale_h, b_chance)
                out[i + lane] = (np.int64(a) << _SHIFT) + np.int64(b)
                total += out[i + lane]
    out_sums[thread] = total


@kernel()
def leaf_sums(thread: int, n_threads: int, source: Any, units: Any, node_of_row: Any, out: Any) -> None:
    """Sums of g and h of each node's rows in units so fine that they are whole: any order gives the same.

    units : float32 [2], powers of two for which |g| and h stay below 2^31; out : int64 [T, nodes, 2]
    """
    mine, room, n = out[thread], np.empty(32, np.int32), len(source.first)
    for first in range(thread * ROW_CHUNK, n, n_threads * ROW_CHUNK):
        for i in range(first, min(first + ROW_CHUNK, n), 16):
            g, h = _lanes(source, i)
            store(address(room), to_int32(g * units[0]))
            store(address(room) + 64, to_int32(h * units[1]))
            if i + 16 <= n:
                for lane in range(16):
                    node = np.uint64(node_of_row[i + lane])
                    mine[node, 0] += room[lane]
                    mine[node, 1] += room[16 + lane]
            else:
                for lane in range(n - i):
                    node = np.uint64(node_of_row[i + lane])
                    mine[node, 0] += room[lane]
                    mine[node, 1] += room[16 + lane]


@kernel(fastmath=FINITE_ANY_ORDER)
def add_leaf_values(thread: int, n_threads: int, values: Any, node_of_row: Any, margin: Any) -> None:
    """margin [n] += values[node_of_row]."""
    for first in range(thread * ROW_CHUNK, len(margin), n_threads * ROW_CHUNK):
        for i in range(first, min(first + ROW_CHUNK, len(margin))):
            margin[i] += values[np.uint64(node_of_row[i])]
