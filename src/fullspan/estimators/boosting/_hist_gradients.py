# mypy: allow-untyped-decorators, allow-untyped-calls
"""Gradients, their rounding, and the sums that leaf values come from.

Rows are taken in chunks, so that sorted rows are spread over the threads; g and h have room for 16 more than
there are rows.

Shapes: n rows, N rows with padding, B blocks, T threads.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fullspan.core.kernels import FINITE_ANY_ORDER, helper, kernel
from fullspan.core.simd import (
    address,
    exp,
    floor,
    gather_float32,
    lane_numbers,
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
FINE = 2.0**20


@helper()
def _floats(values: Any, i: int) -> Any:
    """16 numbers from number i on; what lies behind the last one is not read."""
    place, lanes = address(values) + 4 * i, lane_numbers()
    if i + 16 <= len(values):
        return load_float32(place)
    inside = lanes < np.int32(len(values) - i)
    return gather_float32(place, select(inside, lanes << np.int32(2), lanes & np.int32(0)))


@kernel()
def logistic_gradients(
    thread: int, n_threads: int, margin: Any, y: Any, weight: Any, weighted: bool, g: Any, h: Any
) -> None:
    """g = w (p - y) and h = w p (1 - p), with p = 1 / (1 + e^-margin); w = 1 unless weighted."""
    for first in range(thread * ROW_CHUNK, len(margin), n_threads * ROW_CHUNK):
        for i in range(first, min(first + ROW_CHUNK, len(margin)), 16):
            p = _ONE / (exp(_ZERO - _floats(margin, i)) + _ONE)
            slope = p - _floats(y, i)
            curve = p * (_ONE - p)
            if weighted:
                w = _floats(weight, i)
                slope, curve = slope * w, curve * w
            store(address(g) + 4 * i, slope)
            store(address(h) + 4 * i, curve)


@kernel()
def squared_gradients(
    thread: int, n_threads: int, margin: Any, y: Any, weight: Any, weighted: bool, g: Any, h: Any
) -> None:
    """g = w (margin - y) and h = w; w = 1 unless weighted."""
    for first in range(thread * ROW_CHUNK, len(margin), n_threads * ROW_CHUNK):
        for i in range(first, min(first + ROW_CHUNK, len(margin))):
            w = weight[i] if weighted else _ONE
            g[i], h[i] = w * (margin[i] - y[i]), w


@kernel()
def extremes(thread: int, n_threads: int, n: int, g: Any, h: Any, out: Any) -> None:
    """out float32 [T, 2] = largest |g| and h of this thread's rows; infinity if one is NaN."""
    zero, infinity, lanes = spread_float32(_ZERO), spread_float32(np.float32(np.inf)), lane_numbers()
    most_g = most_h = zero
    for first in range(thread * ROW_CHUNK, n, n_threads * ROW_CHUNK):
        for i in range(first, min(first + ROW_CHUNK, n), 16):
            inside = lanes < np.int32(min(n - i, 16))
            a = select(inside, load_float32(address(g) + 4 * i), zero)
            b = select(inside, load_float32(address(h) + 4 * i), zero)
            most_g = maximum(most_g, select(a == a, magnitude(a), infinity))
            most_h = maximum(most_h, select(b == b, b, infinity))
    out[thread, 0], out[thread, 1] = largest(most_g), largest(most_h)


@kernel()
def survey(thread: int, n_threads: int, n: int, g: Any, h: Any, finer: Any, out: Any) -> None:
    """What the choice of units needs to know of this thread's rows, in whole numbers, so in any order.

    finer : float32 [2], for which the largest |g| and h become `FINE`
    out : int64 [T, 5]; sums of |g| and h in those units, of their squares in units of `FINE` / 2^10, and how
    many are no whole numbers as they are
    """
    zero, lanes = spread_float32(_ZERO), lane_numbers()
    nothing, one = to_int32(zero), to_int32(spread_float32(_ONE))
    room = np.empty(16, np.int32)
    mine = out[thread]
    for first in range(thread * ROW_CHUNK, n, n_threads * ROW_CHUNK):
        sum_g = sum_h = square_g = square_h = broken = nothing
        for i in range(first, min(first + ROW_CHUNK, n), 16):
            inside = lanes < np.int32(min(n - i, 16))
            a = select(inside, magnitude(load_float32(address(g) + 4 * i)), zero)
            b = maximum(select(inside, load_float32(address(h) + 4 * i), zero), zero)
            broken = broken + select((floor(a) == a) & (floor(b) == b), nothing, one)
            a_, b_ = to_int32(a * finer[0]), to_int32(b * finer[1])
            sum_g, sum_h = sum_g + a_, sum_h + b_
            a_, b_ = a_ >> np.int32(10), b_ >> np.int32(10)
            square_g, square_h = square_g + a_ * a_, square_h + b_ * b_
        mine[0] += _lanes_sum(sum_g, room)
        mine[1] += _lanes_sum(sum_h, room)
        mine[2] += _lanes_sum(square_g, room)
        mine[3] += _lanes_sum(square_h, room)
        mine[4] += _lanes_sum(broken, room)


@helper()
def _lanes_sum(vector: Any, room: Any) -> Any:
    """The sum of the lanes."""
    store(address(room), vector)
    total = np.int64(0)
    for lane in range(16):
        total += room[lane]
    return total


@helper()
def _rounded_lanes(x: Any, chance: Any) -> Any:
    """x rounded down or up, up with the probability of its fraction; `chance` is uniform in [0, 1).

    What is whole but for float32's own rounding stays as it is.
    """
    near = floor(x + np.float32(0.5))
    return select(magnitude(x - near) < np.float32(1e-3), near, floor(x + chance))


@helper()
def _rounded(x: Any, chance: Any) -> Any:
    """The same of one number."""
    near = math.floor(x + 0.5)
    return near if abs(x - near) < 1e-3 else math.floor(x + chance)


@helper()
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
    n: int,
    g: Any,
    h: Any,
    scale_g: Any,
    scale_h: Any,
    salt: Any,
    first_row: int,
    blocks: Any,
    out_sums: Any,
) -> None:
    """Write gradients as int8 and hessians as uint8 into the last two bytes of each row's blocks.

    blocks : uint16 [B, N, 8]; out_sums : int64 [T], what each thread's rows add up to
    """
    words = np.empty(16, np.int32)
    total, lanes = np.int64(0), lane_numbers()
    unit = np.float32(1 / 65536)
    for first in range(thread * ROW_CHUNK, n, n_threads * ROW_CHUNK):
        for i in range(first, min(first + ROW_CHUNK, n), 16):
            bits = _mixed_lanes((lanes + np.int32(first_row + i)) ^ np.int32(salt))
            a = load_float32(address(g) + 4 * i) * scale_g
            b = maximum(load_float32(address(h) + 4 * i) * scale_h, spread_float32(_ZERO))
            a = _rounded_lanes(a, to_float32(bits & np.int32(65535)) * unit)
            b = _rounded_lanes(b, to_float32(bits >> np.int32(16)) * unit)
            a = minimum(maximum(a, spread_float32(np.float32(-127))), spread_float32(np.float32(127)))
            b = minimum(b, spread_float32(np.float32(255)))
            store(address(words), (to_int32(a) & np.int32(255)) | (to_int32(b) << np.int32(8)))
            for lane in range(min(n - i, 16)):
                word = words[lane]
                total += (np.int64(np.int8(word & 255)) << _SHIFT) + (word >> 8)
                for block in range(len(blocks)):
                    blocks[block, i + lane, 7] = np.uint16(word)
    out_sums[thread] = total


@kernel()
def quantise_wide(
    thread: int,
    n_threads: int,
    n: int,
    g: Any,
    h: Any,
    scale_g: float,
    scale_h: float,
    salt: Any,
    first_row: int,
    out: Any,
    out_sums: Any,
) -> None:
    """The same with more bits, packed as in a histogram, into out int64 [N]."""
    total = np.int64(0)
    for first in range(thread * ROW_CHUNK, n, n_threads * ROW_CHUNK):
        for i in range(first, min(first + ROW_CHUNK, n)):
            bits = mixed(np.uint32(np.uint32(first_row + i) ^ np.uint32(salt)))
            a = _rounded(np.float64(g[i]) * scale_g, np.float64(bits & np.uint32(65535)) / 65536.0)
            b = _rounded(max(np.float64(h[i]), 0.0) * scale_h, np.float64(bits >> np.uint32(16)) / 65536.0)
            out[i] = (np.int64(a) << _SHIFT) + np.int64(b)
            total += out[i]
    out_sums[thread] = total


@kernel()
def leaf_sums(
    thread: int, n_threads: int, n: int, g: Any, h: Any, scales: Any, node_of_row: Any, out: Any
) -> None:
    """Sums of g and h of each node's rows in units so fine that they are whole: any order gives the same.

    scales : float64 [2]; out : int64 [T, nodes, 2]
    """
    mine = out[thread]
    scale_g, scale_h = scales[0], scales[1]
    for first in range(thread * ROW_CHUNK, n, n_threads * ROW_CHUNK):
        for i in range(first, min(first + ROW_CHUNK, n)):
            node = np.uint64(node_of_row[i])
            mine[node, 0] += np.int64(np.float64(g[i]) * scale_g)
            mine[node, 1] += np.int64(max(np.float64(h[i]), 0.0) * scale_h)


@kernel(fastmath=FINITE_ANY_ORDER)
def add_leaf_values(thread: int, n_threads: int, values: Any, node_of_row: Any, margin: Any) -> None:
    """margin [n] += values[node_of_row]."""
    for first in range(thread * ROW_CHUNK, len(margin), n_threads * ROW_CHUNK):
        for i in range(first, min(first + ROW_CHUNK, len(margin))):
            margin[i] += values[np.uint64(node_of_row[i])]
