# mypy: allow-untyped-decorators, allow-untyped-calls
"""The best split of a node by one feature's histogram.

Gains are XGBoost's: with G and H the sums of gradients and hessians, λ and α the penalties and
S(G) = sign(G) max(|G| - α, 0), a side is worth S(G)² / (H + λ), and a split the sum of its sides less the
node's own worth (Chen & Guestrin 2016, equation 7, without the one half). Where weights are bounded (by
`max_delta_step` or a monotone constraint) a side with weight w is worth -(2Gw + (H + λ)w²).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fullspan.core.kernels import helper
from fullspan.core.simd import (
    address,
    evens,
    first_lane,
    lane_numbers,
    largest,
    load_float32,
    load_int32,
    magnitude,
    maximum,
    odds,
    running_sum,
    select,
    spread_float32,
    spread_int32,
    spread_last,
    store,
    to_float32,
    unsigned_to_float32,
)

# Settings, an array of float32: units of the quantised sums, then penalties.
UNIT_G, UNIT_H, LAMBDA, ALPHA, MIN_HESSIAN, MAX_STEP, BOUNDED = range(7)
N_SETTINGS = 7
# Kinds of split.
MISSING_RIGHT, MISSING_LEFT, CATEGORIES = 0, 1, 2

MISSING = 255
OTHER = 254  # a category without a code of its own: it goes left wherever it comes
_SHIFT = np.int64(32)
_LOW = np.int64(0xFFFFFFFF)
_NONE = np.float32(-1e30)
_ZERO = np.float32(0)
_TWO = np.float32(2)


@helper(counts_references=False)
def gradients_of(sums: Any) -> Any:
    """The upper half: sum of quantised gradients."""
    return np.float32(sums >> _SHIFT)


@helper(counts_references=False)
def hessians_of(sums: Any) -> Any:
    """The lower half: sum of quantised hessians."""
    return np.float32(sums & _LOW)


@helper(counts_references=False)
def shrunk(g: Any, alpha: Any) -> Any:
    """S(G)."""
    above, below = g - alpha, g + alpha
    return above if above > _ZERO else (below if below < _ZERO else _ZERO)


@helper(counts_references=False)
def weight_of(g: Any, h: Any, settings: Any, lowest: Any, highest: Any) -> Any:
    """The weight of a leaf within its bounds."""
    w = -shrunk(g, settings[ALPHA]) / (h + settings[LAMBDA])
    step = settings[MAX_STEP]
    if step > _ZERO:
        w = min(max(w, -step), step)
    return min(max(w, lowest), highest)


@helper(counts_references=False)
def worth_of(g: Any, h: Any, settings: Any, lowest: Any, highest: Any) -> Any:
    """What a side (or the whole node) is worth."""
    if not h > _ZERO:
        return _ZERO
    if settings[BOUNDED] == _ZERO:
        s = shrunk(g, settings[ALPHA])
        return s * s / (h + settings[LAMBDA])
    w = weight_of(g, h, settings, lowest, highest)
    return -(_TWO * g * w + (h + settings[LAMBDA]) * w * w)


@helper(counts_references=False)
def split_worth(left: Any, total: Any, settings: Any, direction: int, lowest: Any, highest: Any) -> Any:
    """What the sides are worth together; hugely negative where the split is not allowed."""
    unit_g, unit_h = settings[UNIT_G], settings[UNIT_H]
    right = total - left
    gl, hl = gradients_of(left) * unit_g, hessians_of(left) * unit_h
    gr, hr = gradients_of(right) * unit_g, hessians_of(right) * unit_h
    if not (hl >= settings[MIN_HESSIAN] and hr >= settings[MIN_HESSIAN]):
        return _NONE
    if direction != 0:
        wl = weight_of(gl, hl, settings, lowest, highest)
        wr = weight_of(gr, hr, settings, lowest, highest)
        if (wr - wl) * direction < _ZERO:
            return _NONE
    return worth_of(gl, hl, settings, lowest, highest) + worth_of(gr, hr, settings, lowest, highest)


@helper(counts_references=False)
def _plain_worths(
    below_g: int, below_h: int, n: int, more_g: Any, more_h: Any, total: Any, settings: Any, out: int
) -> Any:
    """Worth and place of the best of the first n cuts, the first of equals, where weights have no bounds.

    below_g, below_h : addresses of the sums below each cut, int32 and uint32; more_g, more_h add to them.
    out : address of room for 256 float32
    """
    unit_g, unit_h = settings[UNIT_G], settings[UNIT_H]
    penalty, alpha, least = settings[LAMBDA], settings[ALPHA], settings[MIN_HESSIAN]
    total_g, total_h = np.int32(total >> _SHIFT), np.int32(total & _LOW)
    zero, nothing, lanes = spread_float32(_ZERO), spread_float32(_NONE), lane_numbers()
    best = nothing
    for b in range(0, n, 16):
        left_g, left_h = load_int32(below_g + 4 * b) + more_g, load_int32(below_h + 4 * b) + more_h
        right_g, right_h = spread_int32(total_g) - left_g, spread_int32(total_h) - left_h
        hl, hr = unsigned_to_float32(left_h) * unit_h, unsigned_to_float32(right_h) * unit_h
        sl = maximum(magnitude(to_float32(left_g) * unit_g) - alpha, zero)
        sr = maximum(magnitude(to_float32(right_g) * unit_g) - alpha, zero)
        worth = sl * sl / (hl + penalty) + sr * sr / (hr + penalty)
        allowed = (hl >= least) & (hr >= least) & (lanes < np.int32(min(n - b, 16)))
        worth = select(allowed, worth, nothing)
        store(out + 4 * b, worth)
        best = maximum(best, worth)
    most = largest(best)
    for b in range(0, n, 16):
        lane = first_lane(load_float32(out + 4 * b) == most)
        if lane < 16:
            return most, np.int64(b + lane)
    return most, np.int64(0)


@helper(counts_references=False)
def _bounded_worths(
    below: Any, n: int, more: Any, total: Any, settings: Any, direction: int, lowest: Any, highest: Any
) -> Any:
    """The same where weights have bounds."""
    best, place = _NONE, np.int64(0)
    for b in range(n):
        left = packed(below[0, b], below[1, b]) + more
        worth = split_worth(left, total, settings, direction, lowest, highest)
        if worth > best:
            best, place = worth, np.int64(b)
    return best, place


@helper(counts_references=False)
def packed(g: Any, h: Any) -> Any:
    """Two sums in one word."""
    return (np.int64(g) << _SHIFT) + (np.int64(h) & _LOW)


@helper(counts_references=False)
def _best_below(
    below: Any,
    n: int,
    more: Any,
    total: Any,
    settings: Any,
    direction: int,
    lowest: Any,
    highest: Any,
    worths: Any,
) -> Any:
    """Worth and place of the best of the first n cuts; `more` lies below all of them too."""
    if settings[BOUNDED] == _ZERO:
        more_g, more_h = np.int32(more >> _SHIFT), np.int32(more & _LOW)
        return _plain_worths(
            address(below[0]), address(below[1]), n, more_g, more_h, total, settings, address(worths)
        )
    return _bounded_worths(below, n, more, total, settings, direction, lowest, highest)


@helper(counts_references=False)
def _sum_below(sums: int, n: int, below_g: int, below_h: int) -> None:
    """Sums of the first bins, 1 to n of them (n rounded up to 16), their halves apart.

    sums, below_g, below_h : addresses of int64, int32 and uint32
    """
    g = h = spread_int32(np.int32(0))
    for b in range(0, n, 16):
        # A word's upper half, the gradients, is its second.
        one, two = load_int32(sums + 8 * b), load_int32(sums + 8 * b + 64)
        g = running_sum(odds(one, two)) + spread_last(g)
        h = running_sum(evens(one, two)) + spread_last(h)
        store(below_g + 4 * b, g)
        store(below_h + 4 * b, h)


@helper(counts_references=False)
def scan_numeric(
    sums: Any,
    n_bins: int,
    total: Any,
    settings: Any,
    direction: int,
    lowest: Any,
    highest: Any,
    below: Any,
    worths: Any,
) -> Any:
    """(worth, bin, kind, sums on the left) of the best cut of a feature.

    sums : int64 [256], what lies in each bin; below : int32 [2, 256], worths : float32 [256], room.
    """
    _sum_below(address(sums), n_bins, address(below[0]), address(below[1]))
    none, missing = np.int64(0), sums[MISSING]
    best, place = _best_below(below, n_bins, none, total, settings, direction, lowest, highest, worths)
    kind, left = np.int64(MISSING_RIGHT), packed(below[0, place], below[1, place])
    if missing != 0:
        other, at = _best_below(below, n_bins, missing, total, settings, direction, lowest, highest, worths)
        if other > best:
            best, place, kind = other, at, np.int64(MISSING_LEFT)
            left = packed(below[0, at], below[1, at]) + missing
    return best, place, kind, left


@helper(counts_references=False)
def fill_ones(codes: Any) -> None:
    """All go left."""
    for i in range(len(codes)):
        codes[i] = 1


@helper(counts_references=False)
def scan_categories(
    sums: Any,
    n_bins: int,
    total: Any,
    settings: Any,
    lowest: Any,
    highest: Any,
    most_one_hot: int,
    most_right: int,
    order: Any,
    keys: Any,
    goes_left: Any,
) -> Any:
    """(worth, sums on the left) of the best set of categories; `goes_left` [256] is the set.

    With few categories, one against the rest (missing values on either side). With more, they are sorted by
    their weights (Fisher 1958: the best set is then a prefix); at most `most_right` of them are told apart,
    from either end, and missing values go with the rest.
    """
    best, best_left = _NONE, np.int64(0)
    missing = sums[MISSING]
    if n_bins <= most_one_hot:
        for c in range(n_bins):
            for missing_right in range(1 if missing == 0 else 2):
                left = total - sums[c] - missing_right * missing
                worth = split_worth(left, total, settings, 0, lowest, highest)
                if worth > best:
                    best, best_left = worth, left
                    fill_ones(goes_left)
                    goes_left[c] = 0
                    goes_left[MISSING] = 1 - missing_right
        return best, best_left
    _sort_by_weight(sums, n_bins, settings, order, keys)
    most = min(most_right, n_bins - 1)
    right = np.int64(0)
    size, from_front = 0, True
    for i in range(most):
        right += sums[order[i]]
        worth = split_worth(total - right, total, settings, 0, lowest, highest)
        if worth > best:
            best, best_left, size = worth, total - right, i + 1
    left = sums[OTHER]
    for i in range(most):
        left += sums[order[n_bins - 1 - i]]
        worth = split_worth(left, total, settings, 0, lowest, highest)
        if worth > best:
            best, best_left, size, from_front = worth, left, i + 1, False
    if size:
        fill_ones(goes_left)
        on_right = size if from_front else n_bins - size
        for i in range(on_right):
            goes_left[order[i]] = 0
        goes_left[MISSING] = from_front
        goes_left[OTHER] = 1
    return best, best_left


@helper(counts_references=False)
def _sort_by_weight(sums: Any, n: int, settings: Any, order: Any, keys: Any) -> None:
    """Categories by -G / (H + λ), equal ones by number: insertion into a sorted list."""
    for c in range(n):
        h = hessians_of(sums[c]) * settings[UNIT_H] + settings[LAMBDA]
        g = gradients_of(sums[c]) * settings[UNIT_G]
        key = -g / h if h > _ZERO else _ZERO
        i = c
        while i > 0 and keys[i - 1] > key:
            keys[i], order[i] = keys[i - 1], order[i - 1]
            i -= 1
        keys[i], order[i] = key, c
