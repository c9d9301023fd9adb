# mypy: allow-untyped-decorators, allow-untyped-calls, allow-untyped-defs
"""The best split of all rows into two classes, over and over while only the rows' weights change.

Each column is sorted once and cut into bins of neighbouring values. A round sums the weights of each bin,
which gives the quality of the splits between bins. Inside a bin the quality is bounded: it is a convex
function of the two classes' weights on the left, so that it is greatest at a corner of the rectangle that
these move in. Only bins whose bound reaches the best quality found are looked through row by row.
"""

from __future__ import annotations

import numpy as np

from fullspan.core.kernels import helper, kernel
from fullspan.core.threads import barrier

# scikit-learn sees no difference between values that are closer than this.
STEP = np.float32(1e-7)
_BLOCK = 1024  # rows whose weights are summed apart, so that long sums lose less
_TINY = 1e-300  # keeps sides without weight from dividing by zero


@kernel(counts_references=False)
def cut_column(column, order, codes, starts):
    """Cut a column into bins of about equal size that never part close values.

    Parameters
    ----------
    column : float32 array of shape (n,)
        Finite.
    order : int32 array of shape (n,)
        The rows by ascending value.
    codes : uint16 array of shape (n,)
        Written: each row's bin.
    starts : int32 array of shape (most + 1,)
        Written: the first position of each bin, and of the end.

    Returns
    -------
    int
        The number of bins, at most `most`.
    """
    n, most = len(order), len(starts) - 1
    n_distinct = 1
    for p in range(1, n):
        n_distinct += column[order[p]] > column[order[p - 1]] + STEP
    n_bins = 1
    starts[0] = 0
    codes[order[0]] = 0
    for p in range(1, n):
        if (
            column[order[p]] > column[order[p - 1]] + STEP
            and (n_distinct <= most or p * most >= n_bins * n)
            and n_bins < most
        ):
            starts[n_bins] = p
            n_bins += 1
        codes[order[p]] = n_bins - 1
    starts[n_bins] = n
    return n_bins


@helper(counts_references=False)
def _quality(left_0, left_1, total_0, total_1):
    """Grows as the weighted Gini impurity falls; without branches, so that loops vectorise."""
    right_0, right_1 = total_0 - left_0, total_1 - left_1
    return (left_0 * left_0 + left_1 * left_1) / (left_0 + left_1 + _TINY) + (
        right_0 * right_0 + right_1 * right_1
    ) / (right_0 + right_1 + _TINY)


@helper(counts_references=False)
def _bounds(first, second, totals, out):
    """Of bins, from the weights up to their ends.

    The two other corners are the bin's ends: splits that are known.
    """
    one = _quality(first[0], 0.0, totals[0], totals[1])
    other = _quality(0.0, second[0], totals[0], totals[1])
    out[0] = one if one > other else other
    for b in range(1, len(first)):
        one = _quality(first[b], second[b - 1], totals[0], totals[1])
        other = _quality(first[b - 1], second[b], totals[0], totals[1])
        out[b] = one if one > other else other


@helper(counts_references=False)
def _note(quality, feature, position, left_0, left_1, best, place):
    """Keep the best split and the quality of the next best."""
    if quality > best[0]:
        best[1] = best[0]
        best[0] = quality
        best[2] = left_0
        best[3] = left_1
        place[0] = feature
        place[1] = position
    elif quality > best[1]:
        best[1] = quality


@kernel(counts_references=False)
def best_stump(
    thread, n_threads, meeting, columns, orders, codes, starts, n_bins, weights, n_first, totals, margin,
    sums, qualities, best, place,
):  # fmt: skip
    """Find the best split; the threads share out the features.

    Parameters
    ----------
    thread, n_threads : int
    meeting : int64 array
        A new barrier.
    columns : float32 array of shape (n_features, n)
    orders : int32 array of shape (n_features, n)
        Rows by ascending value.
    codes : uint16 array of shape (n_features, n)
    starts : int32 array of shape (n_features, most + 1)
    n_bins : int64 array of shape (n_features,)
        These three from `cut_into_bins`.
    weights : float64 array of shape (n,)
    n_first : int
        Rows before this one are of class 0, the others of class 1.
    totals : float64 array of shape (2,)
        The classes' weights.
    margin : float
        Splits whose quality is this close to the best one's are found for certain.
    sums : float64 array of shape (n_features, 2, most)
        Room for the weights by class up to the ends of bins.
    qualities : float64 array of shape (n_threads, most)
        Scratch.
    best : float64 array of shape (n_threads, 4)
        Written: the best quality, the next best, and the classes' weights on the best one's left.
    place : int64 array of shape (n_threads, 2)
        Written: feature and position of the best split; feature -1 if there is none.
    """
    own_best, own_place, own_qualities = best[thread], place[thread], qualities[thread]
    for i in range(len(own_best)):
        own_best[i] = 0.0
    own_place[0] = own_place[1] = -1
    _sum_up_bins(thread, n_threads, codes, n_bins, weights, n_first, sums)
    for f in range(thread, len(codes), n_threads):
        first, second = sums[f, 0, : n_bins[f]], sums[f, 1, : n_bins[f]]
        _try_ends(f, first, second, starts[f], totals, own_qualities, own_best, own_place)
    barrier(meeting, thread, n_threads)
    # A thread that is ahead may have raised its own already: that shuts out bins, but no best split.
    floor = best[0, 0]
    for other in range(1, n_threads):
        floor = max(floor, best[other, 0])
    for f in range(thread, len(codes), n_threads):
        first, second = sums[f, 0, : n_bins[f]], sums[f, 1, : n_bins[f]]
        _bounds(first, second, totals, own_qualities)
        for b in range(len(first)):
            if own_qualities[b] >= floor - margin:
                start, end = starts[f, b], starts[f, b + 1]
                left = (first[b - 1], second[b - 1]) if b else (0.0, 0.0)
                _look_through(
                    columns[f],
                    orders[f, start:end],
                    weights,
                    n_first,
                    left,
                    totals,
                    (f, start),
                    own_best,
                    own_place,
                )


@helper(counts_references=False)
def _sum_up_bins(thread, n_threads, codes, n_bins, weights, n_first, sums):
    """The weights by class of the bins of a thread's features."""
    of_first, of_second = weights[:n_first], weights[n_first:]
    for f in range(thread, len(codes), 2 * n_threads):
        # Two columns at a time wait less for each other's sums; the last one may be alone.
        g = f + n_threads if f + n_threads < len(codes) else f
        _clear(sums[f], n_bins[f])
        if g == f:
            _add_up(codes[f, :n_first], of_first, sums[f, 0])
            _add_up(codes[f, n_first:], of_second, sums[f, 1])
            break
        _clear(sums[g], n_bins[g])
        _add_up_two(codes[f, :n_first], codes[g, :n_first], of_first, sums[f, 0], sums[g, 0])
        _add_up_two(codes[f, n_first:], codes[g, n_first:], of_second, sums[f, 1], sums[g, 1])


@helper(counts_references=False)
def _clear(sums, n):
    for c in range(len(sums)):
        for b in range(n):
            sums[c, b] = 0.0


@helper(counts_references=False)
def _try_ends(feature, first, second, starts, totals, qualities, best, place):
    """Add the bins' weights up from the left, and note the splits at their ends."""
    for b in range(1, len(first)):
        first[b] += first[b - 1]
        second[b] += second[b - 1]
    for b in range(len(first) - 1):
        qualities[b] = _quality(first[b], second[b], totals[0], totals[1])
    for b in range(len(first) - 1):
        if qualities[b] > best[1]:
            _note(qualities[b], feature, starts[b + 1], first[b], second[b], best, place)


@helper(counts_references=False)
def _add_up(code, weights, sums):
    for i in range(len(weights)):
        sums[code[i]] += weights[i]


@helper(counts_references=False)
def _add_up_two(code, other_code, weights, sums, other_sums):
    for i in range(len(weights)):
        sums[code[i]] += weights[i]
        other_sums[other_code[i]] += weights[i]


@helper(counts_references=False)
def _look_through(column, order, weights, n_first, left, totals, where, best, place):
    """Note the splits inside one bin."""
    left_0, left_1 = left
    before = column[order[0]]
    for p in range(1, len(order)):
        i = order[p - 1]
        if i < n_first:
            left_0 += weights[i]
        else:
            left_1 += weights[i]
        value = column[order[p]]
        if value > before + STEP:
            quality = _quality(left_0, left_1, totals[0], totals[1])
            _note(quality, where[0], where[1] + p, left_0, left_1, best, place)
        before = value


@kernel(counts_references=False)
def mark_wrong(column, threshold, first_left, first_right, n_first, rows, wrong):
    """Mark the rows that a stump gets wrong.

    Parameters
    ----------
    column : float32 array of shape (n,)
    threshold : float
    first_left, first_right : bool
        Whether the stump says the first class on either side.
    n_first : int
        How many rows are of the first class.
    rows : int64 array of shape (n,)
        Where each row is marked.
    wrong : bool array
        Written.
    """
    for i in range(len(column)):
        says_first = first_left if column[i] <= threshold else first_right
        wrong[rows[i]] = says_first != (i < n_first)


@kernel(counts_references=False)
def weighted_error(weights, wrong):
    """Share of the weight on the rows that are wrong."""
    total, of_wrong = 0.0, 0.0
    for start in range(0, len(weights), _BLOCK):
        block, of_block = 0.0, 0.0
        for i in range(start, min(start + _BLOCK, len(weights))):
            block += weights[i]
            of_block += weights[i] if wrong[i] else 0.0
        total += block
        of_wrong += of_block
    return of_wrong / total


@kernel(counts_references=False)
def reweight_wrong(weights, wrong, factor, least):
    """As `reweight`, with one factor for the rows that are wrong and 1 for the others."""
    for i in range(len(weights)):
        if wrong[i] and weights[i] > 0.0:
            weights[i] *= factor
    return _normalise(weights, least)


@kernel(counts_references=False)
def reweight(weights, factors, least):
    """Multiply the weights, let them sum to one, and raise those that are neither zero nor `least`.

    Parameters
    ----------
    weights : float64 array of shape (n,)
        Written.
    factors : float64 array of shape (n,)
    least : float

    Returns
    -------
    bool
        Whether the sum was finite.
    """
    for i in range(len(weights)):
        if weights[i] > 0.0:
            weights[i] *= factors[i]
    return _normalise(weights, least)


@helper(counts_references=False)
def _normalise(weights, least):
    total = 0.0
    for start in range(0, len(weights), _BLOCK):
        block = 0.0
        for i in range(start, min(start + _BLOCK, len(weights))):
            block += weights[i]
        total += block
    if not np.isfinite(total):
        return False
    for i in range(len(weights)):
        if weights[i] > 0.0:
            weights[i] = max(weights[i] / total, least)
    return True
