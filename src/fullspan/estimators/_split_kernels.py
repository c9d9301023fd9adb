# mypy: allow-untyped-defs, allow-untyped-decorators, allow-untyped-calls
# mypy: disable-error-code="call-arg, var-annotated"
"""Best splits from histograms of binned features: what growing in memory and growing over partitions share.

A row has two statistics. In *pair* problems (two classes, or a regression) they are (w, w y) and a bin of a
histogram holds their sums; with more classes they are (w, class) and a bin holds one sum of w for each class.
Nothing here uses fast-math, so that the same sums give the same split wherever they were added up.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fullspan.core.kernels import helper

GINI, ENTROPY, SQUARED_ERROR, POISSON = range(4)
MISSING = 255
BINS = 256
GROUP = 4
"""Features whose histograms are filled in one pass over the rows."""

_EPSILON = float(np.finfo(np.float64).eps)
_NOT_PREDICTIVE = -np.inf

# Where `find_split` keeps what it found so far.
FEATURE, BELOW, ABOVE, MISSING_LEFT, HAD_MISSING = range(5)

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
LEFT_PATH, RIGHT_PATH = np.uint64(0x2545F4914F6CDD1D), np.uint64(0xD6E8FEB86659FD93)
_27, _30, _31, _32 = np.uint64(27), np.uint64(30), np.uint64(31), np.uint64(32)
_1, _6, _63 = np.uint64(1), np.uint64(6), np.uint64(63)


@intrinsic
def _trailing_zeros(typing_context, word):
    """Number of the lowest bit that is set; the word is not 0."""

    def codegen(context, builder, signature, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), codegen


@intrinsic
def _add_pair(typing_context, target, source):
    """Add two float64 at the address `source` to the two at `target`, as one vector."""

    def codegen(context, builder, signature, args):
        vector = ir.VectorType(ir.DoubleType(), 2)
        place, addend = (builder.inttoptr(address, vector.as_pointer()) for address in args)
        total = builder.fadd(builder.load(place, align=8), builder.load(addend, align=8))
        builder.store(total, place, align=8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def _take_mask(typing_context, address):
    """Which of the 64 bytes at `address` are not 0, as bits; they are 0 afterwards."""

    def codegen(context, builder, signature, args):
        vector = ir.VectorType(ir.IntType(8), 64)
        place = builder.inttoptr(args[0], vector.as_pointer())
        zeros = ir.Constant(vector, [0] * 64)
        mask = builder.icmp_unsigned("!=", builder.load(place, align=1), zeros)
        builder.store(zeros, place, align=1)
        return builder.bitcast(mask, ir.IntType(64))

    return types.uint64(types.int64), codegen


@helper(counts_references=False)
def mix(z):
    """A number that looks random, from one that need not (the finaliser of SplitMix64)."""
    z = (z ^ (z >> _30)) * _MIX_1
    z = (z ^ (z >> _27)) * _MIX_2
    return z ^ (z >> _31)


@helper(counts_references=False)
def draw(key, drawn, features):
    """Draw number `drawn` of a node without replacement: swap a feature of the rest to this place.

    Returns the place that it came from, for `undraw`. The draws depend on the node's key alone.
    """
    left_over = np.uint64(len(features) - drawn)
    random = mix(key + np.uint64(drawn + 1) * _GOLDEN)
    place = drawn + np.int64(((random >> _32) * left_over) >> _32)
    features[drawn], features[place] = features[place], features[drawn]
    return place


@helper(counts_references=False)
def undraw(features, swaps, drawn):
    """Put the features in ascending order again."""
    for i in range(drawn - 1, -1, -1):
        place = swaps[i]
        features[i], features[place] = features[place], features[i]


@helper(counts_references=False)
def accumulate(rows, stats, order, start, stop, chosen, n_chosen, width, pair, histograms, seen):
    """Fill the histograms of `n_chosen` features with the rows `order[start:stop]`."""
    if pair and n_chosen == GROUP:
        _accumulate_group(rows, stats, order, start, stop, chosen, histograms, seen)
        return
    for g in range(n_chosen):
        f = np.uint64(chosen[g])
        base = g * BINS
        if pair:
            to = np.int64(histograms.ctypes.data) + base * 16
            source = np.int64(stats.ctypes.data)
            for i in range(start, stop):
                r = np.uint64(order[i])
                code = np.int64(rows[r, f])
                seen[np.uint64(base + code)] = 1
                _add_pair(to + code * 16, source + np.int64(r) * 16)
        else:
            for i in range(start, stop):
                r = np.uint64(order[i])
                code = base + np.int64(rows[r, f])
                seen[np.uint64(code)] = 1
                histograms[np.uint64(code * width + np.int64(stats[r, 1]))] += stats[r, 0]


@helper(counts_references=False)
def _accumulate_group(rows, stats, order, start, stop, chosen, histograms, seen):
    f0, f1 = np.uint64(chosen[0]), np.uint64(chosen[1])
    f2, f3 = np.uint64(chosen[2]), np.uint64(chosen[3])
    to = np.int64(histograms.ctypes.data)
    source = np.int64(stats.ctypes.data)
    for i in range(start, stop):
        r = np.uint64(order[i])
        row = source + np.int64(r) * 16
        code0, code1 = np.int64(rows[r, f0]), np.int64(rows[r, f1])
        code2, code3 = np.int64(rows[r, f2]), np.int64(rows[r, f3])
        seen[np.uint64(code0)] = 1
        seen[np.uint64(code1 + BINS)] = 1
        seen[np.uint64(code2 + 2 * BINS)] = 1
        seen[np.uint64(code3 + 3 * BINS)] = 1
        _add_pair(to + code0 * 16, row)
        _add_pair(to + (code1 + BINS) * 16, row)
        _add_pair(to + (code2 + 2 * BINS) * 16, row)
        _add_pair(to + (code3 + 3 * BINS) * 16, row)


@helper(counts_references=False)
def count_rows(rows, order, start, stop, chosen, n_chosen, counts):
    """How many rows each bin holds: only needed where leaves have a least size."""
    for g in range(n_chosen):
        f = np.uint64(chosen[g])
        for i in range(start, stop):
            counts[g * BINS + np.int64(rows[order[i], f])] += 1


@helper(counts_references=False)
def find_split(
    feature, g, criterion, pair, ordered, limits, totals, n_rows, table, counts, bins, best, where
):
    """Improve on the best split so far by one on `feature`, and empty its histogram, number `g`.

    Parameters
    ----------
    ordered : bool
        False where codes are categories.
    limits : (least rows in a leaf, least weight in a leaf)
    totals : float64 array of shape (width,)
        The node's sums.
    table : (histograms, seen)
    bins : (codes, sums, numbers, sequence, means, left)
        Scratch: of each bin that holds rows, and the sums on the left.
    best : float64 array of shape (1,)
    where : (int64 array of shape (5,), uint64 array of shape (8,))
        The split: see the constants above; bits of the categories that go left, and of those that are there.

    Returns
    -------
    bool
        Whether the feature is constant here.
    """
    histograms, seen = table
    plain = pair and ordered and limits[0] <= 1 and limits[1] <= 0.0
    plain = plain and (criterion == GINI or criterion == SQUARED_ERROR)
    if plain and not seen[g * BINS + MISSING]:
        return _scan_pairs(feature, g, totals[0], totals[1], histograms, seen, best, where[0])
    n_bins = _collect(g, len(totals), histograms, seen, counts, bins)
    if n_bins < 2:
        return True
    if not ordered:
        _order_categories(n_bins - (bins[0][n_bins - 1] == MISSING), pair, totals, bins)
    _scan(feature, n_bins, criterion, pair, ordered, limits, totals, n_rows, bins, best, where)
    return False


@helper(counts_references=False)
def _scan_pairs(feature, g, total0, total1, histograms, seen, best, found):
    """The commonest case in one go: no missing values, no limits, gini of two classes or squared error.

    Both are greatest where l1^2 / l0 + r1^2 / r0 is: l0 is the weight on the left, l1 the sum of w y there.
    """
    left0 = left1 = 0.0
    n_bins = 0
    before = 0
    address = np.int64(seen.ctypes.data) + g * BINS
    score = best[0]
    for word in range(4):
        bits = _take_mask(address + 64 * word)
        while bits != np.uint64(0):
            code = np.int64(_trailing_zeros(bits)) + 64 * word
            bits &= bits - _1
            if n_bins > 0:
                right0, right1 = total0 - left0, total1 - left1
                s = (left1 * left1 * right0 + right1 * right1 * left0) / (left0 * right0)
                if s > score:
                    score = s
                    found[FEATURE] = feature
                    found[BELOW] = before
                    found[ABOVE] = code
                    found[HAD_MISSING] = 0
            n_bins += 1
            at = np.uint64((g * BINS + code) * 2)
            left0 += histograms[at]
            left1 += histograms[at + _1]
            histograms[at] = 0.0
            histograms[at + _1] = 0.0
            before = code
    best[0] = score
    return n_bins < 2


@helper(counts_references=False)
def _collect(g, width, histograms, seen, counts, bins):
    """List the bins that hold rows, ascending by code, and empty the histogram."""
    codes, sums, numbers, sequence, _, _ = bins
    address = np.int64(seen.ctypes.data) + g * BINS
    k = 0
    for word in range(4):
        bits = _take_mask(address + 64 * word)
        while bits != np.uint64(0):
            code = np.int64(_trailing_zeros(bits)) + 64 * word
            bits &= bits - _1
            at = g * BINS + code
            codes[k] = code
            sequence[k] = k
            numbers[k] = counts[at]
            counts[at] = 0
            for q in range(width):
                sums[k * width + q] = histograms[at * width + q]
                histograms[at * width + q] = 0.0
            k += 1
    return k


@helper(counts_references=False)
def _order_categories(n_bins, pair, totals, bins):
    """Sort categories by their mean response: the best of all subsets is then among the first so many.

    With more than two classes by the share of the node's commonest class, which is a heuristic.
    """
    _, sums, _, sequence, means, _ = bins
    width = len(totals)
    commonest = 0
    for q in range(1, width):
        if totals[q] > totals[commonest]:
            commonest = q
    for k in range(n_bins):
        if pair:
            means[k] = sums[k * 2 + 1] / sums[k * 2]
        else:
            total = 0.0
            for q in range(width):
                total += sums[k * width + q]
            means[k] = sums[k * width + commonest] / total
        i = k
        while i > 0 and means[sequence[i - 1]] > means[k]:
            sequence[i] = sequence[i - 1]
            i -= 1
        sequence[i] = k


@helper(counts_references=False)
def _scan(feature, n_bins, criterion, pair, ordered, limits, totals, n_rows, bins, best, where):
    """Try each place between two bins, with the missing values on the right and on the left."""
    codes, sums, numbers, sequence, _, left = bins
    width = len(totals)
    least_rows, least_weight = limits
    missing = codes[n_bins - 1] == MISSING
    known = n_bins - 1 if missing else n_bins
    weight = weight_of(pair, totals)
    for missing_left in range(2 if missing else 1):
        for q in range(width):
            left[q] = sums[known * width + q] if missing_left else 0.0
        n_left = numbers[known] if missing_left else 0
        # With the missing values alone on the right, all others may go left.
        for j in range(known if missing and not missing_left else known - 1):
            k = sequence[j]
            n_left += numbers[k]
            left_weight = on_left = on_right = 0.0
            for q in range(width):
                moved = left[q] + sums[k * width + q]
                stayed = totals[q] - moved
                left[q] = moved
                left_weight += moved
                on_left += moved * moved
                on_right += stayed * stayed
            if pair:
                left_weight = left[0]
            if least_rows > 1 and (n_left < least_rows or n_rows - n_left < least_rows):
                continue
            if left_weight < least_weight or weight - left_weight < least_weight:
                continue
            if pair:
                s = _pair_score(criterion, left[0], left[1]) + _pair_score(
                    criterion, totals[0] - left[0], totals[1] - left[1]
                )
            elif criterion == ENTROPY:
                s = _class_entropy(left, totals, left_weight, weight - left_weight)
            else:
                s = on_left / left_weight + on_right / (weight - left_weight)
            if s > best[0]:
                best[0] = s
                found, chosen = where
                found[FEATURE] = feature
                found[BELOW] = codes[k]
                found[ABOVE] = codes[sequence[j + 1]] if j + 1 < known else BINS
                found[MISSING_LEFT] = missing_left
                found[HAD_MISSING] = missing
                if not ordered:
                    _remember(sequence, codes, j + 1, known, chosen)


@helper(counts_references=False)
def _remember(sequence, codes, n, n_known, chosen):
    """Bits of the categories that go left, then of those that are there."""
    for word in range(len(chosen)):
        chosen[word] = 0
    for j in range(n_known):
        code = np.uint64(codes[sequence[j]])
        bit = _1 << (code & _63)
        chosen[4 + (code >> _6)] |= bit
        if j < n:
            chosen[code >> _6] |= bit


@helper(counts_references=False)
def _times_log(x, total):
    return x * np.log(x / total) if x > 0.0 else 0.0


@helper(counts_references=False)
def _pair_score(criterion, weight, total):
    """What one child adds: greater is purer."""
    if criterion == ENTROPY:
        return _times_log(total, weight) + _times_log(weight - total, weight)
    if criterion == POISSON:
        # A mean that is not positive has no deviance.
        return _times_log(total, weight) if total > _EPSILON else _NOT_PREDICTIVE
    return total * total / weight


@helper(counts_references=False)
def _class_entropy(left, totals, left_weight, right_weight):
    score = 0.0
    for q in range(len(left)):
        score += _times_log(left[q], left_weight) + _times_log(totals[q] - left[q], right_weight)
    return score


@helper(counts_references=False)
def weight_of(pair, totals):
    """A node's weight, from its sums."""
    if pair:
        return totals[0]
    weight = 0.0
    for q in range(len(totals)):
        weight += totals[q]
    return weight


@helper(counts_references=False)
def node_score(criterion, pair, totals):
    """The score of a node that is not split: what a split's score is compared to."""
    if pair:
        return _pair_score(criterion, totals[0], totals[1])
    weight = weight_of(pair, totals)
    score = 0.0
    for q in range(len(totals)):
        if criterion == ENTROPY:
            score += _times_log(totals[q], weight)
        else:
            score += totals[q] * totals[q] / weight
    return score


@helper(counts_references=False)
def impurity(criterion, pair, totals, moment):
    """Of a node, as scikit-learn defines it; `moment` is the sum of w y^2, or of w y log y for Poisson."""
    if criterion == SQUARED_ERROR:
        mean = totals[1] / totals[0]
        return moment / totals[0] - mean * mean
    if criterion == POISSON:
        return (moment - _times_log(totals[1], totals[0])) / totals[0]
    weight = weight_of(pair, totals)
    if criterion == ENTROPY:
        return -node_score(criterion, pair, totals) / weight / np.log(2.0)
    if pair:
        p = totals[1] / weight
        return 2.0 * p * (1.0 - p)
    return 1.0 - node_score(criterion, pair, totals) / weight


@helper(counts_references=False)
def improvement(criterion, pair, score, totals, all_weight):
    """The decrease of impurity by a split, weighted by the node's share of all rows."""
    gain = (score - node_score(criterion, pair, totals)) / all_weight
    if criterion == ENTROPY:
        return gain / np.log(2.0)
    return 2.0 * gain if criterion == GINI and pair else gain
