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

from fullspan.core.kernels import FINITE_ANY_ORDER, helper
from fullspan.core.simd import use_full_vectors

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


@helper()
def gradients_of(sums: Any) -> Any:
    """The upper half: sum of quantised gradients."""
    return np.float32(sums >> _SHIFT)


@helper()
def hessians_of(sums: Any) -> Any:
    """The lower half: sum of quantised hessians."""
    return np.float32(sums & _LOW)


@helper()
def shrunk(g: Any, alpha: Any) -> Any:
    """S(G)."""
    above, below = g - alpha, g + alpha
    return above if above > _ZERO else (below if below < _ZERO else _ZERO)


@helper()
def weight_of(g: Any, h: Any, settings: Any, lowest: Any, highest: Any) -> Any:
    """The weight of a leaf within its bounds."""
    w = -shrunk(g, settings[ALPHA]) / (h + settings[LAMBDA])
    step = settings[MAX_STEP]
    if step > _ZERO:
        w = min(max(w, -step), step)
    return min(max(w, lowest), highest)


@helper()
def worth_of(g: Any, h: Any, settings: Any, lowest: Any, highest: Any) -> Any:
    """What a side (or the whole node) is worth."""
    if not h > _ZERO:
        return _ZERO
    if settings[BOUNDED] == _ZERO:
        s = shrunk(g, settings[ALPHA])
        return s * s / (h + settings[LAMBDA])
    w = weight_of(g, h, settings, lowest, highest)
    return -(_TWO * g * w + (h + settings[LAMBDA]) * w * w)


@helper()
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


@helper()
def _plain_worths(below: Any, n: int, total: Any, settings: Any, out: Any) -> None:
    """out[b] = what a split is worth that has ``below[b]`` on its left; n is a multiple of 16."""
    use_full_vectors()
    unit_g, unit_h = settings[UNIT_G], settings[UNIT_H]
    penalty, alpha, least = settings[LAMBDA], settings[ALPHA], settings[MIN_HESSIAN]
    for b in range(n):
        left = below[b]
        right = total - left
        gl, hl = np.float32(left >> _SHIFT) * unit_g, np.float32(left & _LOW) * unit_h
        gr, hr = np.float32(right >> _SHIFT) * unit_g, np.float32(right & _LOW) * unit_h
        sl = max(abs(gl) - alpha, _ZERO)
        sr = max(abs(gr) - alpha, _ZERO)
        worth = sl * sl / (hl + penalty) + sr * sr / (hr + penalty)
        out[b] = worth if (hl >= least) & (hr >= least) else _NONE


@helper(fastmath=FINITE_ANY_ORDER)
def _largest(values: Any, n: int) -> Any:
    use_full_vectors()
    best = _NONE
    for i in range(n):
        best = max(best, values[i])
    return best


@helper()
def _best_below(
    below: Any, n: int, total: Any, settings: Any, direction: int, lowest: Any, highest: Any, worths: Any
) -> Any:
    """Worth and place of the best of the first n cuts, the first of equals."""
    if settings[BOUNDED] == _ZERO:
        whole = min((n + 15) // 16 * 16, 256)
        _plain_worths(below, whole, total, settings, worths)
    else:
        for b in range(n):
            worths[b] = split_worth(below[b], total, settings, direction, lowest, highest)
    best = _largest(worths, n)
    place = 0
    while worths[place] != best:
        place += 1
    return best, place


@helper()
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

    sums : int64 [256], what lies in each bin; below, worths : int64 and float32 [256], room to work in.
    """
    running = np.int64(0)
    for b in range(n_bins):
        running += sums[b]
        below[b] = running
    for b in range(n_bins, min((n_bins + 15) // 16 * 16, 256)):
        below[b] = running
    best, place = _best_below(below, n_bins, total, settings, direction, lowest, highest, worths)
    kind, left = np.int64(MISSING_RIGHT), below[place]
    missing = sums[MISSING]
    if missing != 0:
        for b in range(min((n_bins + 15) // 16 * 16, 256)):
            below[b] += missing
        other, other_place = _best_below(below, n_bins, total, settings, direction, lowest, highest, worths)
        if other > best:
            best, place, kind, left = other, other_place, np.int64(MISSING_LEFT), below[other_place]
    return best, place, kind, left


@helper()
def fill_ones(codes: Any) -> None:
    """All go left."""
    for i in range(len(codes)):
        codes[i] = 1


@helper()
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


@helper()
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
