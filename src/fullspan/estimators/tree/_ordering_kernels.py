# mypy: allow-untyped-defs, allow-untyped-decorators, allow-untyped-calls
"""Bringing a node's rows into a feature's order, and parting them at a split.

`Work.samples` and `Work.values` hold, between `start` and `end`, the node's rows and their values of
one feature. How they are ordered there decides in which order sums are taken; see `_sorting_kernels`.
"""

from __future__ import annotations

import numpy as np

from fullspan.core.kernels import helper
from fullspan.estimators.tree._sorting_kernels import NAN_KEY, bits_of_key, introsort

# Values that lie this near are not told apart. In float32, as every value here.
THRESHOLD_STEP = np.float32(1e-7)
_FEW = 15
# Among this many rows no two splits are equally good by chance, so that a last bit hardly ever decides:
# a few equal values may then stand in any order.
_MANY = 4096
_RARELY = 64


@helper(counts_references=False)
def is_presorted(columns, n):
    """Whether presorted columns are kept for nodes of this size: sorting a few rows costs less than that."""
    return n > _FEW and columns.packed.shape[0] > 0


@helper(counts_references=False)
def order_rows(columns, targets, work, f, start, end):
    """Sort the node's rows by a numeric feature, those without a value last; returns how many those are."""
    if len(columns.indptr):
        _order_sparse(work.position, columns, work, f, start, end)
        return 0
    if is_presorted(columns, end - start) and _unpack(columns, targets, work, f, start, end):
        return _count_missing(columns, work, f, start, end)
    n_missing = gather(columns, work, f, start, end)
    introsort(work.values, work.samples, start, end - n_missing, work.stack)
    return n_missing


@helper(counts_references=False)
def gather(columns, work, f, start, end):
    """Read the feature's values; rows without one change places with rows from the end."""
    column, samples, values = columns.values[f], work.samples, work.values
    if not columns.has_missing[f]:
        for p in range(start, end):
            values[p] = column[samples[p]]
        return 0
    p, last = start, end - 1
    while p <= last:
        if np.isnan(column[samples[last]]):
            last -= 1
            continue
        if np.isnan(column[samples[p]]):
            samples[p], samples[last] = samples[last], samples[p]
            last -= 1
        values[p] = column[samples[p]]
        p += 1
    return end - 1 - last


@helper(counts_references=False)
def _unpack(columns, targets, work, f, start, end):
    """Take the order from the presorted column, unless sorting would give another and that would show."""
    words = columns.packed[f]
    if targets.order_matters:
        n_equal = 0
        for p in range(start + 1, end):
            n_equal += words[p] >> np.uint64(32) == words[p - 1] >> np.uint64(32)
        if n_equal > (end - start) // _RARELY if end - start > _MANY else n_equal > 0:
            return False
        # Which of the rows without a value comes first, sorting decides in its own way.
        if end - start <= _MANY and words[end - 1] >> np.uint64(32) == NAN_KEY:
            return False
    samples, bits = work.samples, work.bits
    for p in range(start, end):
        word = words[p]
        samples[p] = np.int32(word & np.uint64(0x7FFFFFFF))
        bits[p] = np.uint32(bits_of_key(word >> np.uint64(32)))
    return True


@helper(counts_references=False)
def _count_missing(columns, work, f, start, end):
    if not columns.has_missing[f]:
        return 0
    n_missing = 0
    while n_missing < end - start and np.isnan(work.values[end - 1 - n_missing]):
        n_missing += 1
    return n_missing


@helper(counts_references=False)
def move_missing_first(work, start, end, n_missing):
    """From values, then missing ones, to missing ones, then values; both keep their order."""
    present = end - start - n_missing
    samples, values = work.samples, work.values
    for p in range(present):
        work.spare_samples[p] = samples[start + p]
        work.spare_values[p] = values[start + p]
    for m in range(n_missing):
        samples[start + m] = samples[end - n_missing + m]
    for p in range(present):
        samples[start + n_missing + p] = work.spare_samples[p]
        values[start + n_missing + p] = work.spare_values[p]


@helper(counts_references=False)
def _extract(position, columns, work, f, start, end):
    """Bring the rows with negative values to the front and those with positive ones to the end.

    Returns where the negative ones end and the positive ones start; zeros in between, which have no entries.
    """
    negative_end, positive_start = start, end
    if position is None:
        return negative_end, positive_start
    samples, values = work.samples, work.values
    for k in range(columns.indptr[f], columns.indptr[f + 1]):
        value = columns.data[k]
        p = position[columns.indices[k]]
        if value == 0 or p < start or p >= end:
            continue
        if value > 0:
            positive_start -= 1
            q = positive_start
        else:
            q = negative_end
            negative_end += 1
        values[q] = value
        _exchange(samples, position, p, q)
    return negative_end, positive_start


@helper(counts_references=False)
def _exchange(samples, position, p, q):
    samples[p], samples[q] = samples[q], samples[p]
    if position is not None:
        position[samples[p]] = p
        position[samples[q]] = q


@helper(counts_references=False)
def _order_sparse(position, columns, work, f, start, end):
    if position is None:
        return
    samples, values = work.samples, work.values
    negative_end, positive_start = _extract(position, columns, work, f, start, end)
    introsort(values, samples, start, negative_end, work.stack)
    introsort(values, samples, positive_start, end, work.stack)
    for p in range(start, negative_end):
        position[samples[p]] = p
    for p in range(positive_start, end):
        position[samples[p]] = p
    for p in range(negative_end, positive_start):
        values[p] = 0.0


@helper(counts_references=False)
def value_range(columns, work, f, start, end):
    """Read a feature's values without sorting: the smallest, the largest, how many are missing.

    The last two tell where negative values end and positive ones start, for sparse columns.
    """
    values = work.values
    negative_end, positive_start, n_missing = start, end, 0
    low, high = np.float32(np.inf), np.float32(-np.inf)
    if len(columns.indptr):
        negative_end, positive_start = _extract(work.position, columns, work, f, start, end)
        for p in range(start, end):
            if negative_end <= p < positive_start:
                values[p] = 0.0
            low, high = _widened(low, high, values[p])
    else:
        for p in range(start, end):
            value = columns.values[f, work.samples[p]]
            values[p] = value
            if np.isnan(value):
                n_missing += 1
            else:
                low, high = _widened(low, high, value)
    return low, high, n_missing, negative_end, positive_start


@helper(counts_references=False)
def _widened(low, high, value):
    return value if value < low else low, value if value > high else high


@helper(counts_references=False)
def part_at(columns, work, threshold, missing_left, start, end, negative_end, positive_start):
    """Bring the rows that go left to the front, by `values`; returns where the others start."""
    samples, values = work.samples, work.values
    first, last = start, end
    if len(columns.indptr):
        if threshold < 0.0:
            last = negative_end
        elif threshold > 0.0:
            first = positive_start
        else:
            return positive_start
    while first < last:
        value = values[first]
        if missing_left if np.isnan(value) else value <= threshold:
            first += 1
        else:
            last -= 1
            values[first], values[last] = values[last], values[first]
            _exchange(samples, work.position, first, last)
    return last


@helper(counts_references=False)
def part_by_feature(columns, work, f, threshold, missing_left, start, end):
    """`part_at`, reading the values of a numeric feature again."""
    if len(columns.indptr):
        negative_end, positive_start = _extract(work.position, columns, work, f, start, end)
        return part_at(columns, work, threshold, missing_left, start, end, negative_end, positive_start)
    samples, column = work.samples, columns.values[f]
    first, last = start, end
    while first < last:
        value = column[samples[first]]
        if missing_left if np.isnan(value) else value <= threshold:
            first += 1
        else:
            last -= 1
            samples[first], samples[last] = samples[last], samples[first]
    return last


@helper(counts_references=False)
def part_presorted(columns, work, start, position, end):
    """Part every presorted column as `samples` is parted, keeping its order on both sides."""
    goes_left, spare = work.goes_left, work.spare_packed
    for p in range(start, position):
        goes_left[work.samples[p]] = 1
    for p in range(position, end):
        goes_left[work.samples[p]] = 0
    for f in range(columns.packed.shape[0]):
        if columns.n_categories[f]:
            continue
        words = columns.packed[f]
        n_left, n_right = start, np.int64(0)
        for p in range(start, end):
            word = words[p]
            side = np.int64(goes_left[np.int64(word & np.uint64(0x7FFFFFFF))])
            words[n_left] = word
            spare[n_right] = word
            n_left += side
            n_right += 1 - side
        for p in range(n_right):
            words[n_left + p] = spare[p]
