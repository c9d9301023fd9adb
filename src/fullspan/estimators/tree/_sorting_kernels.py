# mypy: allow-untyped-defs, allow-untyped-decorators, allow-untyped-calls
"""Kernels that order a node's rows by a feature.

Sums of floats depend on their order in the last bit, and where two splits are equally good that bit decides.
scikit-learn's order within runs of equal values follows from its introsort, so `introsort` makes the same
moves; where no values are equal, every sort gives that order and presorted columns serve.
"""

from __future__ import annotations

import numpy as np

from fullspan.core.kernels import helper, kernel

_SMALL = 15
SORT_STACK = 3 * 128
NAN_KEY = np.uint64(0xFFFFFFFF)
_INFINITY = np.uint64(0x7F800000)


@helper(counts_references=False)
def introsort(values, samples, start, end, stack):
    """Sort both by `values[start:end]`: quicksort in three parts, heapsort if it goes deep (Musser 1997)."""
    n = end - start
    if n < 2:
        return
    depth = 0
    while n >> (depth + 1):
        depth += 1
    top = 0
    low, high, budget = start, end, 2 * depth
    while True:
        if high - low <= _SMALL:
            _insertion_sort(values, samples, low, high)
        elif budget <= 0:
            _heapsort(values, samples, low, high)
        else:
            budget -= 1
            pivot = _median_of_three(values[low], values[low + (high - low) // 2], values[high - 1])
            below, i, above = low, low, high
            while i < above:
                value = values[i]
                if value < pivot:
                    _swap(values, samples, i, below)
                    i += 1
                    below += 1
                elif value > pivot:
                    above -= 1
                    _swap(values, samples, i, above)
                else:
                    i += 1
            stack[top], stack[top + 1], stack[top + 2] = above, high, budget
            top += 3
            high = below
            continue
        if top == 0:
            return
        top -= 3
        low, high, budget = stack[top], stack[top + 1], stack[top + 2]


@helper(counts_references=False)
def _swap(values, samples, i, j):
    values[i], values[j] = values[j], values[i]
    samples[i], samples[j] = samples[j], samples[i]


@helper(counts_references=False)
def _median_of_three(a, b, c):
    if a < b:
        if b < c:
            return b
        return c if a < c else a
    if b < c:
        return a if a < c else c
    return b


@helper(counts_references=False)
def _insertion_sort(values, samples, low, high):
    for i in range(low + 1, high):
        value, sample = values[i], samples[i]
        j = i
        while j > low and values[j - 1] > value:
            values[j] = values[j - 1]
            samples[j] = samples[j - 1]
            j -= 1
        values[j] = value
        samples[j] = sample


@helper(counts_references=False)
def _heapsort(values, samples, low, high):
    n = high - low
    for root in range((n - 2) // 2, -1, -1):
        _sift_down(values, samples, low, root, n)
    for last in range(n - 1, 0, -1):
        _swap(values, samples, low, low + last)
        _sift_down(values, samples, low, 0, last)


@helper(counts_references=False)
def _sift_down(values, samples, low, root, n):
    while True:
        child = 2 * root + 1
        largest = root
        if child < n and values[low + largest] < values[low + child]:
            largest = child
        if child + 1 < n and values[low + largest] < values[low + child + 1]:
            largest = child + 1
        if largest == root:
            return
        _swap(values, samples, low + root, low + largest)
        root = largest


@kernel(counts_references=False)
def presort(bits, packed, spare, counts):
    """For each column its rows in ascending order, as words: the value's key above, the row's number below.

    bits : uint32 [n_features, n_samples], those of float32 numbers without -0.0; packed : uint64
    [n_features, n_samples], written; spare : uint64 [n_samples] and counts : int64 [3, 2048] are scratch.
    NaN sorts last, equal values in the order of their rows.
    """
    n = len(spare)
    for f in range(len(bits)):
        out = packed[f]
        for table in range(3):
            for digit in range(2048):
                counts[table, digit] = 0
        for i in range(n):
            key = _key(bits[f, i])
            out[i] = key << np.uint64(32) | np.uint64(i)
            counts[0, key & np.uint64(2047)] += 1
            counts[1, key >> np.uint64(11) & np.uint64(2047)] += 1
            counts[2, key >> np.uint64(22)] += 1
        _radix_pass(out, spare, counts[0], np.uint64(32))
        _radix_pass(spare, out, counts[1], np.uint64(43))
        _radix_pass(out, spare, counts[2], np.uint64(54))
        for i in range(n):
            out[i] = spare[i]


@helper(counts_references=False)
def _key(bits):
    """An unsigned number that grows with the float of these bits."""
    word = np.uint64(bits)
    if word & np.uint64(0x7FFFFFFF) > _INFINITY:
        return NAN_KEY
    return (~word if word >> np.uint64(31) else word | np.uint64(0x80000000)) & np.uint64(0xFFFFFFFF)


@helper(counts_references=False)
def bits_of_key(key):
    """The float's bits, from its key."""
    return key & np.uint64(0x7FFFFFFF) if key >> np.uint64(31) else ~key & np.uint64(0xFFFFFFFF)


@helper(counts_references=False)
def _radix_pass(source, target, counts, shift):
    position = 0
    for digit in range(2048):
        count = counts[digit]
        counts[digit] = position
        position += count
    for i in range(len(source)):
        digit = source[i] >> shift & np.uint64(2047)
        target[counts[digit]] = source[i]
        counts[digit] += 1
