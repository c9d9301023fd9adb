# mypy: allow-untyped-defs, allow-untyped-decorators, allow-untyped-calls
"""Splits of a categorical feature: its categories are ranked, and a split parts the ranks.

With one target, or with two classes, ranking categories by the mean target makes one of these splits the best
of all subsets, for the impurities that are concave (Breiman et al. 1984, section 4.2.2; Fisher 1958). With
more classes or targets they are ranked along the first principal component of their means (Coppersmith, Hong
and Hosking 1999), which is near the best. Without categorical features `categories` is None everywhere, and
nothing of this is compiled.
"""

from __future__ import annotations

import numpy as np

from fullspan.core.kernels import helper
from fullspan.estimators.tree._records import BEST_RANK, COUNT, ENTROPY, ORDER, RANK
from fullspan.estimators.tree._sorting_kernels import introsort

_POWER_STEPS = 16
_ABSENT = -1
# Rows of `Work.category_sums`; after them come those of the targets or of the classes, later their means.
_SCORE, _WEIGHT, _MEANS = range(3)


@helper(counts_references=False)
def order_by_category(categories, columns, targets, rules, work, f, start, end):
    """Sort the node's rows by the rank of their category, those without one last; returns how many those are.

    `values` gets the ranks, and `categories[RANK]` the rank of each category, -1 for those not in the node.
    """
    if categories is None:
        return 0
    samples, values, column = work.samples, work.values, columns.values[f]
    n_missing = _sum_up_categories(
        categories, column, targets, rules, work, columns.n_categories[f], start, end
    )
    present = _rank_categories(categories, work, columns.n_categories[f])
    # A counting sort: COUNT becomes the place of each category's next row.
    place = 0
    for r in range(present):
        code = categories[ORDER, r]
        count = categories[COUNT, code]
        categories[COUNT, code] = place
        place += count
    for p in range(start, end):
        code = column[samples[p]]
        if np.isnan(code):
            work.spare_samples[place] = samples[p]
            work.spare_values[place] = code
            place += 1
        else:
            q = categories[COUNT, int(code)]
            categories[COUNT, int(code)] += 1
            work.spare_samples[q] = samples[p]
            work.spare_values[q] = categories[RANK, int(code)]
    for p in range(start, end):
        samples[p] = work.spare_samples[p - start]
        values[p] = work.spare_values[p - start]
    return n_missing


@helper(counts_references=False)
def _sum_up_categories(categories, column, targets, rules, work, n_categories, start, end):
    """Rows, weights and means of the node's categories; returns how many rows have none."""
    sums = work.category_sums
    width = work.sums.shape[2]
    for code in range(n_categories):
        categories[COUNT, code] = 0
        for m in range(sums.shape[0]):
            sums[m, code] = 0.0
    n_missing = 0
    for p in range(start, end):
        i = work.samples[p]
        if np.isnan(column[i]):
            n_missing += 1
            continue
        code = int(column[i])
        w = targets.weight[i]
        categories[COUNT, code] += 1
        sums[_WEIGHT, code] += w
        for k in range(work.sums.shape[1]):
            if rules.criterion <= ENTROPY:
                sums[_MEANS + k * width + int(targets.y[i, k]), code] += w
            else:
                sums[_MEANS + k * width, code] += w * targets.y[i, k]
    for code in range(n_categories):
        if sums[_WEIGHT, code] != 0.0:
            for m in range(_MEANS, sums.shape[0]):
                sums[m, code] /= sums[_WEIGHT, code]
    return n_missing


@helper(counts_references=False)
def _rank_categories(categories, work, n_categories):
    """Fill RANK and ORDER; returns how many categories the node has."""
    sums = work.category_sums
    # A mean, or the share of the second of two classes, tells all.
    last = sums.shape[0] - 1
    if last > _MEANS + 1:
        _project_on_principal_component(
            sums, n_categories, work.directions[0], work.directions[1], work.directions[2]
        )
    present = 0
    for code in range(n_categories):
        categories[RANK, code] = _ABSENT
        if categories[COUNT, code] > 0:
            sums[_SCORE, present] = sums[last, code]
            categories[ORDER, present] = code
            present += 1
    introsort(sums[_SCORE], categories[ORDER], np.int64(0), np.int64(present), work.stack)
    for r in range(present):
        categories[RANK, categories[ORDER, r]] = r
    return present


@helper(counts_references=False)
def _project_on_principal_component(sums, n_categories, centre, direction, turned):
    """Where each category's means lie along the direction of their greatest weighted variance.

    Found by power iteration, from the category that contributes most. Overwrites the last of the means.
    """
    n_means = sums.shape[0] - _MEANS
    total = 0.0
    for m in range(n_means):
        centre[m] = 0.0
    for code in range(n_categories):
        total += sums[_WEIGHT, code]
        for m in range(n_means):
            centre[m] += sums[_WEIGHT, code] * sums[_MEANS + m, code]
    greatest, first = 0.0, 0
    for code in range(n_categories):
        distance = 0.0
        for m in range(n_means):
            distance += (sums[_MEANS + m, code] - centre[m] / total) ** 2
        if sums[_WEIGHT, code] * distance > greatest:
            greatest, first = sums[_WEIGHT, code] * distance, code
    for m in range(n_means):
        centre[m] /= total
        direction[m] = sums[_MEANS + m, first] - centre[m]
    for _ in range(_POWER_STEPS):
        for m in range(n_means):
            turned[m] = 0.0
        for code in range(n_categories):
            along = sums[_WEIGHT, code] * _along(sums, code, centre, direction)
            for m in range(n_means):
                turned[m] += along * (sums[_MEANS + m, code] - centre[m])
        length = 0.0
        for m in range(n_means):
            length = max(length, abs(turned[m]))
        for m in range(n_means):
            direction[m] = turned[m] / length if length > 0.0 else 0.0
    for code in range(n_categories):
        sums[_MEANS + n_means - 1, code] = _along(sums, code, centre, direction)


@helper(counts_references=False)
def _along(sums, code, centre, direction):
    along = 0.0
    for m in range(len(direction)):
        along += (sums[_MEANS + m, code] - centre[m]) * direction[m]
    return along


@helper(counts_references=False)
def keep_ranks(categories, n_categories):
    """Remember the ranks of the best split so far."""
    if categories is None:
        return
    for code in range(n_categories):
        categories[BEST_RANK, code] = categories[RANK, code]


@helper(counts_references=False)
def part_by_category(categories, columns, work, f, threshold, missing_left, start, end):
    """Bring the rows whose category's remembered rank is at most `threshold` to the front."""
    if categories is None:
        return
    samples, column = work.samples, columns.values[f]
    first, last = start, end
    while first < last:
        code = column[samples[first]]
        if missing_left if np.isnan(code) else categories[BEST_RANK, int(code)] <= threshold:
            first += 1
        else:
            last -= 1
            samples[first], samples[last] = samples[last], samples[first]


@helper(counts_references=False)
def write_bits(categories, n_categories, threshold, missing_left, words):
    """One bit for each category: whether it goes left. Those not in the node go where missing values go."""
    if categories is None:
        return
    for word in range((n_categories + 63) // 64):
        words[word] = np.uint64(0)
    for code in range(n_categories):
        r = categories[BEST_RANK, code]
        if missing_left if r == _ABSENT else r <= threshold:
            words[code >> 6] |= np.uint64(1) << np.uint64(code & 63)
