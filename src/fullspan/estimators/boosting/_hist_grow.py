# mypy: allow-untyped-decorators, allow-untyped-calls
"""One tree from quantised gradients, on several threads that meet at barriers.

Every thread keeps the same account of the leaves and takes the same decisions. Between two meetings each
parts its own rows of the leaf that is split, then adds its share of the smaller child's histogram; the larger
child's is the parent's less that. All sums are integers, so shares may be cut anywhere.

Arrays are few, with named columns, and made by the driver: each one, and each way of making one, costs the
compiler time. Shapes: as in `_hist_kernels`; L leaves at most, M = 2L - 1 nodes, P sets of features that may
interact.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fullspan.core.kernels import helper, kernel
from fullspan.core.references import by_reference
from fullspan.core.simd import address
from fullspan.core.threads import barrier
from fullspan.estimators.boosting._hist_kernels import (
    BINS,
    ROW_CHUNK,
    add_rows,
    add_rows_wide,
    mixed,
    part_by_cut,
    part_by_table,
    part_rows,
)
from fullspan.estimators.boosting._hist_splits import (
    CATEGORIES,
    MIN_HESSIAN,
    MISSING,
    MISSING_LEFT,
    UNIT_G,
    UNIT_H,
    gradients_of,
    hessians_of,
    scan_categories,
    scan_numeric,
    weight_of,
    worth_of,
)

# Columns of a leaf's whole numbers; from PIECES on, where each thread's rows begin and how many they are.
TOTAL, LEFT_SUMS, NODE, DEPTH, SLOT, FEATURE, BIN, KIND, N_ROWS, PIECES = range(10)
# Columns of its other numbers, and of a node's.
GAIN, LOWEST, HIGHEST = range(3)
# Columns of a node's whole numbers.
LEFT, RIGHT, NODE_FEATURE, NODE_BIN, NODE_KIND = range(5)
# Columns of a feature's facts.
N_BINS, IS_CATEGORICAL, MONOTONE = range(3)
# What is found for a leaf.
FOUND_FEATURE, FOUND_BIN, FOUND_KIND, FOUND_LEFT = range(4)


class Rows(NamedTuple):
    """The rows; where in `order` a thread has its own, the account of the leaves says."""

    blocks: Any  # uint8 [B, N, 16]
    columns: Any  # uint8 [C, N], copies of the codes of some features
    column_of: Any  # int64 [F], the feature's place among the columns, or -1
    wide: Any  # int64 [N] where is_wide
    order: Any  # int32
    spare: Any  # int32, as long; node_of_row is its beginning, written when nothing is parted any more
    is_wide: Any
    width: Any  # features of a block
    vector: Any  # whether rows are parted by vectors


class Features(NamedTuple):
    """What may be split: of a tree's features a level takes n_level and a node n_node, as `salt` has it."""

    facts: Any  # int64 [F, 3]
    sets: Any  # uint8 [P, F]
    features: Any  # int64
    n_level: Any
    n_node: Any
    salt: Any


class Limits(NamedTuple):
    """When to stop; how many categories are tried one by one, and how many are told apart."""

    max_leaves: Any
    max_depth: Any  # 0: any
    lossguide: Any  # else level by level
    least_gain: Any
    most_one_hot: Any
    most_right: Any


class Room(NamedTuple):
    """What threads share."""

    hist: Any  # int64 [S, B, W * 256]
    partial: Any  # int64 [T, 2, W * 256]
    meeting: Any
    n_left: Any  # int64 [2, T]
    found: Any  # int64 [T, 2, 4], for two children
    worth: Any  # float32 [T, 2]
    goes_left: Any  # uint8 [T, 2, 256]
    parted: Any  # int64 [F], how many rows have been parted by a feature


class Desk(NamedTuple):
    """What each thread has for itself; T comes first in all shapes."""

    numbers: Any  # int64 [L, PIECES + 2T], the account of the leaves
    reals: Any  # float32 [L, 3]
    goes_left: Any  # uint8 [L or 1, 256], of leaves that will be split by categories
    marks: Any  # uint8 [L or 1, P + F]: sets that hold all features of the path, then those features
    heap: Any  # int64 [L]
    taken: Any  # uint8 [S]
    chosen: Any  # int64 [2, F]
    below: Any  # int32 [2, 256]
    order: Any  # int64 [256]
    worths: Any  # float32 [2, 256]
    codes: Any  # uint8 [256]
    left: Any  # int32 [256]


class Grown(NamedTuple):
    """The tree."""

    numbers: Any  # int64 [M, 5]
    reals: Any  # float32 [M, 3]
    goes_left: Any  # uint8 [M or 1, 256]
    n_nodes: Any  # int64 [1]


_INFINITY = np.float32(np.inf)
_HALF = np.float32(0.5)


@helper(counts_references=False)
def _comes_before(a: int, b: int, numbers: Any, reals: Any, lossguide: bool) -> Any:
    """Whether leaf a is split before leaf b."""
    if lossguide and reals[a, GAIN] != reals[b, GAIN]:
        return reals[a, GAIN] > reals[b, GAIN]
    return numbers[a, NODE] < numbers[b, NODE]


@helper(counts_references=False)
def _push(heap: Any, n: int, leaf: int, numbers: Any, reals: Any, lossguide: bool) -> None:
    """Add a leaf to the heap of n leaves that wait."""
    i = n
    while i > 0:
        above = (i - 1) // 2
        if not _comes_before(leaf, heap[above], numbers, reals, lossguide):
            break
        heap[i] = heap[above]
        i = above
    heap[i] = leaf


@helper(counts_references=False)
def _pop(heap: Any, n: int, numbers: Any, reals: Any, lossguide: bool) -> Any:
    """Take the first leaf from the heap of n leaves."""
    first, leaf = heap[0], heap[n - 1]
    i = 0
    while True:
        below = 2 * i + 1
        if below >= n - 1:
            break
        if below + 1 < n - 1 and _comes_before(heap[below + 1], heap[below], numbers, reals, lossguide):
            below += 1
        if not _comes_before(heap[below], leaf, numbers, reals, lossguide):
            break
        heap[i] = heap[below]
        i = below
    heap[i] = leaf
    return first


@helper(counts_references=False)
def _sample(chosen: Any, n: int, wanted: int, salt: Any) -> None:
    """Move `wanted` of the first n numbers to the front, any of them with the same chance."""
    for i in range(min(wanted, n - 1)):
        j = i + np.int64(mixed(salt + np.uint32(i) * np.uint32(0x9E3779B9)) % np.uint32(n - i))
        chosen[i], chosen[j] = chosen[j], chosen[i]


@helper(counts_references=False)
def choose_features(chosen: Any, f: Any, node: int, depth: int, marks: Any) -> None:
    """chosen[1, feature] = 1 for the features that a node may be split by; chosen[0] is room to work in.

    marks : uint8 [P + F], or less where features may meet freely
    """
    work, allowed = chosen[0], chosen[1]
    n, n_sets = len(f.features), f.sets.shape[0]
    for i in range(n):
        work[i] = f.features[i]
    if f.n_level < n:
        _sample(work, n, f.n_level, mixed(f.salt + np.uint32(2 * depth)))
        n = f.n_level
    if f.n_node < n:
        _sample(work, n, f.n_node, mixed(f.salt + np.uint32(2 * node + 1)))
        n = f.n_node
    for feature in range(len(allowed)):
        allowed[feature] = 0
    for i in range(n):
        feature = work[i]
        # Below the root: what the path has, and what is in a set with all that the path has.
        fits = n_sets == 0 or depth == 0 or marks[n_sets + feature] != 0
        for s in range(n_sets):
            fits |= (marks[s] & f.sets[s, feature]) != 0
        allowed[feature] = fits


@helper(counts_references=False)
def _share(thread: int, n_threads: int, n_blocks: int, n_rows: int) -> Any:
    """A thread's part of all blocks' rows, numbered block after block."""
    work = n_blocks * n_rows
    return work * thread // n_threads, work * (thread + 1) // n_threads


@helper(counts_references=False)
def add_range(r: Any, block: int, account: Any, first: int, last: int, sums: Any) -> None:
    """sums [W * 256] = those of the rows first to last of a leaf, whose rows lie in several pieces."""
    for i in range(len(sums)):
        sums[i] = 0
    passed = 0
    for at in range(PIECES, len(account), 2):
        begin, count = account[at], account[at + 1]
        a, z = begin + max(first - passed, 0), begin + min(last - passed, count)
        if a < z:
            if r.is_wide:
                add_rows_wide(r.blocks, block, r.wide, r.order, a, z, r.width, sums)
            else:
                add_rows(r.blocks, block, r.order, a, z, r.width, sums)
        passed += count


@helper(counts_references=False)
def _build(thread: int, n_threads: int, r: Any, hist: Any, partial: Any, account: Any) -> None:
    """Add this thread's share of a leaf's rows: whole blocks into its histogram [B, W * 256], parts aside."""
    n_rows, n_blocks = account[N_ROWS], r.blocks.shape[0]
    low, high = _share(thread, n_threads, n_blocks, n_rows)
    for block in range(low // n_rows, (high + n_rows - 1) // n_rows):
        first, last = max(low - block * n_rows, 0), min(high - block * n_rows, n_rows)
        sums = hist[block]
        if first > 0 or last < n_rows:
            sums = partial[thread, np.int64(block != low // n_rows)]
        add_range(r, block, account, first, last, sums)


@helper(counts_references=False)
def _gather_parts(
    n_threads: int, partial: Any, n_blocks: int, n_rows: int, block: int, at: int, sums: Any
) -> None:
    """Sum up what threads have set aside for one feature (256 bins from `at`) of a block that they shared."""
    fresh = True
    for thread in range(n_threads):
        low, high = _share(thread, n_threads, n_blocks, n_rows)
        first, last = max(low - block * n_rows, 0), min(high - block * n_rows, n_rows)
        if first < last and (first > 0 or last < n_rows):
            part = partial[thread, np.int64(block != low // n_rows)]
            for b in range(BINS):
                sums[b] = part[at + b] if fresh else sums[b] + part[at + b]
            fresh = False


@helper(counts_references=False)
def find_split(
    facts: Any,
    limits: Any,
    settings: Any,
    sums: Any,
    total: Any,
    low: Any,
    high: Any,
    below: Any,
    order: Any,
    worths: Any,
    goes_left: Any,
) -> Any:
    """(worth, bin, kind, sums on the left) of a feature's best split of a node; see `_hist_splits`."""
    if facts[IS_CATEGORICAL] == 0:
        return scan_numeric(
            sums, facts[N_BINS], total, settings, facts[MONOTONE], low, high, below, worths[0]
        )
    worth, left = scan_categories(
        sums,
        facts[N_BINS],
        total,
        settings,
        low,
        high,
        limits.most_one_hot,
        limits.most_right,
        order,
        worths[1],
        goes_left,
    )
    return worth, np.int64(0), np.int64(CATEGORIES), left


@helper(counts_references=False)
def _search(
    thread: int,
    n_threads: int,
    room: Any,
    width: int,
    f: Any,
    limits: Any,
    settings: Any,
    account: Any,
    reals: Any,
    child: int,
    slot: int,
    subtract: int,
    n_parted: int,
    scan: bool,
    desk: Any,
) -> None:
    """Put a leaf's histogram together, and find its best split over this thread's share of the features.

    subtract : a slot that is taken from this one first, or -1; n_parted: the leaf's rows if its blocks may be
    shared by threads, else 0; scan: whether to look for splits at all.
    """
    n_blocks, n_features = room.hist.shape[1], len(f.facts)
    first, last = n_features * thread // n_threads, n_features * (thread + 1) // n_threads
    if n_blocks % n_threads == 0:
        first = min(n_blocks // n_threads * thread * width, n_features)
        last = min(n_blocks // n_threads * (thread + 1) * width, n_features)
    best = np.float32(-1e30)
    found, allowed, codes = room.found[thread, child], desk.chosen[thread, 1], desk.codes[thread]
    for feature in range(first, last):
        block, at = feature // width, feature % width * BINS
        sums = room.hist[slot, block, at : at + BINS]
        if n_parted:
            _gather_parts(n_threads, room.partial, n_blocks, n_parted, block, at, sums)
        if subtract >= 0:
            less = room.hist[subtract, block, at : at + BINS]
            for b in range(BINS):
                sums[b] -= less[b]
        if scan and allowed[feature]:
            worth, bin_, kind, left = find_split(
                f.facts[feature],
                limits,
                settings,
                sums,
                account[TOTAL],
                reals[LOWEST],
                reals[HIGHEST],
                desk.below[thread],
                desk.order[thread],
                desk.worths[thread],
                codes,
            )
            if worth > best:
                best = worth
                found[FOUND_FEATURE], found[FOUND_BIN] = feature, bin_
                found[FOUND_KIND], found[FOUND_LEFT] = kind, left
                if kind == CATEGORIES:
                    for code in range(BINS):
                        room.goes_left[thread, child, code] = codes[code]
    room.worth[thread, child] = best


@helper(counts_references=False)
def mark_left(left: Any, bin_: int, kind: int, goes_left: Any) -> None:
    """left [256] = 1 for the codes that go left."""
    for code in range(BINS):
        left[code] = goes_left[code] if kind == CATEGORIES else np.uint8(code <= bin_)
    if kind != CATEGORIES:
        left[MISSING] = kind == MISSING_LEFT


@helper(counts_references=False)
def part(r: Any, feature: int, first: int, n: int, bin_: int, kind: int, left: Any) -> Any:
    """Part the rows ``order[first : first + n]`` by a split; returns how many go left.

    left : int32 [256], one where a code goes left
    """
    if n == 0:
        return 0
    block, within, column = feature // r.width, feature % r.width, r.column_of[feature]
    if not r.vector:
        return part_rows(r.blocks[block], within, r.order, first, n, r.spare, left)
    codes, stride_bits = address(r.blocks[block]) + within, 4
    if column >= 0:
        codes, stride_bits = address(r.columns[column]), 0
    if kind == CATEGORIES:
        return part_by_table(codes, stride_bits, r.order, first, n, r.spare, left)
    turn = np.int64(kind == MISSING_LEFT)
    return part_by_cut(codes, stride_bits, r.order, first, n, r.spare, turn, bin_ + turn)


@helper(counts_references=False)
def _free_slot(numbers: Any, reals: Any, n_leaves: int, taken: Any) -> Any:
    """A histogram slot: a free one, or that of the waiting leaf with the least gain."""
    for slot in range(len(taken)):
        if not taken[slot]:
            taken[slot] = 1
            return slot
    last = -1
    for leaf in range(n_leaves):
        if numbers[leaf, SLOT] >= 0 and (last < 0 or reals[leaf, GAIN] <= reals[last, GAIN]):
            last = leaf
    slot = numbers[last, SLOT]
    numbers[last, SLOT] = -1
    return slot


@helper(counts_references=False)
def gain_of(worth: Any, account: Any, reals: Any, settings: Any) -> Any:
    """What a split adds to what its node is worth."""
    g = gradients_of(account[TOTAL]) * settings[UNIT_G]
    h = hessians_of(account[TOTAL]) * settings[UNIT_H]
    return worth - worth_of(g, h, settings, reals[LOWEST], reals[HIGHEST])


@helper(counts_references=False)
def _settle(
    account: Any, reals: Any, goes_left: Any, room: Any, child: int, settings: Any, limits: Any
) -> Any:
    """Take the best of what the threads have found for a leaf; whether it may be split."""
    best, finder = np.float32(-1e30), -1
    for thread in range(room.worth.shape[0]):
        if room.worth[thread, child] > best:
            best, finder = room.worth[thread, child], thread
    if finder < 0:
        return False
    found = room.found[finder, child]
    gain = gain_of(best, account, reals, settings)
    if not (gain > np.float32(1e-6) and gain >= limits.least_gain):
        return False
    reals[GAIN] = gain
    account[FEATURE], account[BIN] = found[FOUND_FEATURE], found[FOUND_BIN]
    account[KIND], account[LEFT_SUMS] = found[FOUND_KIND], found[FOUND_LEFT]
    if account[KIND] == CATEGORIES:
        for code in range(BINS):
            goes_left[code] = room.goes_left[finder, child, code]
    return True


@helper(counts_references=False)
def bound_children(
    left_sums: Any, right_sums: Any, settings: Any, direction: int, mine: Any, its: Any
) -> None:
    """Bounds of two children, `mine` being their parent's until now; a monotone split keeps them apart."""
    low, high = mine[LOWEST], mine[HIGHEST]
    its[LOWEST], its[HIGHEST] = low, high
    if direction != 0:
        unit_g, unit_h = settings[UNIT_G], settings[UNIT_H]
        gl, hl = gradients_of(left_sums) * unit_g, hessians_of(left_sums) * unit_h
        gr, hr = gradients_of(right_sums) * unit_g, hessians_of(right_sums) * unit_h
        wl = weight_of(gl, hl, settings, low, high)
        wr = weight_of(gr, hr, settings, low, high)
        middle = (wl + wr) * _HALF
        if direction > 0:
            mine[HIGHEST], its[LOWEST] = middle, middle
        else:
            mine[LOWEST], its[HIGHEST] = middle, middle


@helper(counts_references=False)
def _split_account(mine: Any, its: Any, n_left: Any, n_nodes: int) -> None:
    """A leaf's account becomes its left child's; `its` is the right child's."""
    mine[N_ROWS] = its[N_ROWS] = 0
    for piece in range(len(n_left)):
        at = PIECES + 2 * piece
        its[at] = mine[at] + n_left[piece]
        its[at + 1] = mine[at + 1] - n_left[piece]
        mine[at + 1] = n_left[piece]
        mine[N_ROWS] += mine[at + 1]
        its[N_ROWS] += its[at + 1]
    its[TOTAL] = mine[TOTAL] - mine[LEFT_SUMS]
    mine[TOTAL] = mine[LEFT_SUMS]
    mine[NODE], its[NODE] = n_nodes, n_nodes + 1
    mine[DEPTH] += 1
    its[DEPTH] = mine[DEPTH]
    its[SLOT] = -1


@helper(counts_references=False)
def mark_path(sets: Any, feature: int, mine: Any, its: Any) -> None:
    """The path of a leaf's two children has one more feature."""
    n_sets, n_features = sets.shape
    mine[n_sets + feature] = 1
    for s in range(n_sets):
        mine[s] &= sets[s, feature]
    for i in range(n_sets + n_features):
        its[i] = mine[i]


@helper(counts_references=False)
def _write_split(out: Any, account: Any, reals: Any, goes_left: Any, n_nodes: int) -> None:
    """The node of a leaf becomes a split whose children are the next two nodes."""
    node = account[NODE]
    numbers = out.numbers[node]
    numbers[LEFT], numbers[RIGHT] = n_nodes, n_nodes + 1
    numbers[NODE_FEATURE], numbers[NODE_BIN] = account[FEATURE], account[BIN]
    numbers[NODE_KIND] = account[KIND]
    out.reals[node, GAIN] = reals[GAIN]
    if account[KIND] == CATEGORIES:
        for code in range(BINS):
            out.goes_left[node, code] = goes_left[code]


@helper(counts_references=False)
def may_split(account: Any, settings: Any, limits: Any) -> Any:
    """Whether a leaf is heavy enough for two, and not too deep."""
    deep = limits.max_depth != 0 and account[DEPTH] >= limits.max_depth
    heavy = hessians_of(account[TOTAL]) * settings[UNIT_H] >= settings[MIN_HESSIAN] + settings[MIN_HESSIAN]
    return heavy and not deep and account[N_ROWS] > 1


@kernel(counts_references=False)
def grow_tree(
    thread: int,
    n_threads: int,
    r: Any,
    f: Any,
    limits: Any,
    settings: Any,
    room: Any,
    desk: Any,
    out: Any,
    node_of_row: Any,
) -> None:
    """Grow one tree; writes `out` (thread 0) and each row's leaf into node_of_row int32 [n] (all threads).

    The account of leaf 0 is the root's.
    """
    rows, features, when = by_reference(r), by_reference(f), by_reference(limits)
    shared, own, tree = by_reference(room), by_reference(desk), by_reference(out)
    _grow(thread, n_threads, rows, features, when, settings, shared, own, tree, node_of_row)


@helper(counts_references=False)
def _grow(
    thread: int,
    n_threads: int,
    r: Any,
    f: Any,
    limits: Any,
    settings: Any,
    room: Any,
    desk: Any,
    out: Any,
    node_of_row: Any,
) -> None:
    shared = room.hist.shape[1] % n_threads != 0
    numbers, reals, heap, taken = (
        desk.numbers[thread],
        desk.reals[thread],
        desk.heap[thread],
        desk.taken[thread],
    )
    marks, goes_left, left, chosen = (
        desk.marks[thread],
        desk.goes_left[thread],
        desk.left[thread],
        desk.chosen[thread],
    )
    has_sets = f.sets.shape[0] > 0
    for slot in range(len(taken)):
        taken[slot] = 0
    # This thread's rows: every n-th chunk, so that sorted rows are spread over the threads.
    place, n = numbers[0, PIECES + 2 * thread], len(node_of_row)
    for first in range(thread * ROW_CHUNK, n, n_threads * ROW_CHUNK):
        for i in range(first, min(first + ROW_CHUNK, n)):
            r.order[place] = i
            place += 1
    barrier(room.meeting, thread, n_threads)
    n_leaves = n_nodes = 1
    waiting = turn = 0
    # The leaves that are new, and the histogram of the one that they were.
    small, big, parent_slot = 0, -1, -1
    while True:
        full = n_leaves >= limits.max_leaves
        search_small = not full and may_split(numbers[small], settings, limits)
        search_big = big >= 0 and not full and may_split(numbers[big], settings, limits)
        derive = search_big and parent_slot >= 0
        slots = (-1, -1)
        # The smaller first; the larger one's histogram is what the parent's has left, where that was kept.
        for child in range(2):
            leaf = small if child == 0 else big
            searched = search_small if child == 0 else search_big
            if not (searched or (child == 0 and derive)):
                continue
            n_parted, subtract = 0, -1
            if child == 1 and derive:
                slot, subtract = parent_slot, slots[0]
                parent_slot = -1
            else:
                slot = _free_slot(numbers, reals, n_leaves, taken)
                if shared and child == 1:
                    barrier(room.meeting, thread, n_threads)
                _build(thread, n_threads, r, room.hist[slot], room.partial, numbers[leaf])
                if shared:
                    n_parted = numbers[leaf, N_ROWS]
                    barrier(room.meeting, thread, n_threads)
            slots = (slot, slots[1]) if child == 0 else (slots[0], slot)
            row = numbers[leaf]
            choose_features(chosen, f, row[NODE], row[DEPTH], marks[leaf if has_sets else 0])
            _search(
                thread, n_threads, room, r.width, f, limits, settings, row, reals[leaf],
                child, slot, subtract, n_parted, searched, desk,
            )  # fmt: skip
        if search_small or search_big:
            barrier(room.meeting, thread, n_threads)
        for child in range(2):
            leaf, slot = (small, slots[0]) if child == 0 else (big, slots[1])
            searched = search_small if child == 0 else search_big
            codes = goes_left[leaf if len(goes_left) > 1 else 0]
            if searched and _settle(numbers[leaf], reals[leaf], codes, room, child, settings, limits):
                numbers[leaf, SLOT] = slot
                _push(heap, waiting, leaf, numbers, reals, limits.lossguide)
                waiting += 1
            elif slot >= 0:
                taken[slot] = 0
        if parent_slot >= 0:
            taken[parent_slot] = 0
        if waiting == 0 or n_leaves >= limits.max_leaves:
            break
        leaf, new = _pop(heap, waiting, numbers, reals, limits.lossguide), n_leaves
        waiting -= 1
        mine, its = numbers[leaf], numbers[new]
        parent_slot = mine[SLOT]
        mine[SLOT] = -1
        codes = goes_left[leaf if mine[KIND] == CATEGORIES else 0]
        mark_left(left, mine[BIN], mine[KIND], codes)
        at = PIECES + 2 * thread
        room.n_left[turn, thread] = part(
            r, mine[FEATURE], mine[at], mine[at + 1], mine[BIN], mine[KIND], left
        )
        if thread == 0:
            room.parted[mine[FEATURE]] += mine[N_ROWS]
            _write_split(out, mine, reals[leaf], codes, n_nodes)
        barrier(room.meeting, thread, n_threads)
        direction = f.facts[mine[FEATURE], MONOTONE]
        bound_children(
            mine[LEFT_SUMS], mine[TOTAL] - mine[LEFT_SUMS], settings, direction, reals[leaf], reals[new]
        )
        _split_account(mine, its, room.n_left[turn], n_nodes)
        if has_sets:
            mark_path(f.sets, mine[FEATURE], marks[leaf], marks[new])
        if thread == 0:
            for leaf_ in (leaf, new):
                out.reals[numbers[leaf_, NODE], LOWEST] = reals[leaf_, LOWEST]
                out.reals[numbers[leaf_, NODE], HIGHEST] = reals[leaf_, HIGHEST]
        # In turns: a thread may be ahead of another that still reads.
        turn = 1 - turn
        n_leaves += 1
        n_nodes += 2
        small, big = leaf, new
        if its[N_ROWS] < mine[N_ROWS]:
            small, big = new, leaf
    for leaf in range(n_leaves):
        first = numbers[leaf, PIECES + 2 * thread]
        for i in range(first, first + numbers[leaf, PIECES + 2 * thread + 1]):
            node_of_row[r.order[i]] = numbers[leaf, NODE]
    if thread == 0:
        out.n_nodes[0] = n_nodes


@kernel()
def leaf_histogram(r: Any, first: int, n: int, out: Any) -> None:
    """out int64 [B, W * 256] = what the rows ``order[first : first + n]`` add up to."""
    account = np.empty(PIECES + 2, np.int64)
    account[PIECES], account[PIECES + 1] = first, n
    rows = by_reference(r)
    for block in range(len(out)):
        add_range(rows, block, account, 0, n, out[block])


@kernel()
def part_leaf(r: Any, feature: int, first: int, n: int, bin_: int, kind: int, left: Any) -> int:
    """`part` for callers in Python."""
    return part(by_reference(r), feature, first, n, bin_, kind, left)  # type: ignore[no-any-return]


@kernel()
def search_node(
    hist: Any,
    width: int,
    f: Any,
    limits: Any,
    settings: Any,
    account: Any,
    reals: Any,
    marks: Any,
    goes_left: Any,
) -> Any:
    """Find the best split of a node from its whole histogram; whether there is one.

    Written to `account`, `reals` (GAIN) and, for categories, `goes_left`.
    """
    chosen = np.empty((2, len(f.facts)), np.int64)
    below, order = np.empty((2, BINS), np.int32), np.empty(BINS, np.int64)
    worths, codes = np.empty((2, BINS), np.float32), np.empty(BINS, np.uint8)
    when = by_reference(limits)
    choose_features(chosen, by_reference(f), account[NODE], account[DEPTH], marks)
    best = np.float32(-1e30)
    for feature in range(len(f.facts)):
        if chosen[1, feature]:
            sums = hist[feature // width, feature % width * BINS : (feature % width + 1) * BINS]
            worth, bin_, kind, left = find_split(
                f.facts[feature], when, settings, sums, account[TOTAL], reals[LOWEST], reals[HIGHEST],
                below, order, worths, codes,
            )  # fmt: skip
            if worth > best:
                best = worth
                account[FEATURE], account[BIN], account[KIND], account[LEFT_SUMS] = feature, bin_, kind, left
                if kind == CATEGORIES:
                    for code in range(BINS):
                        goes_left[code] = codes[code]
    gain = gain_of(best, account, reals, settings)
    reals[GAIN] = gain
    return best > np.float32(-1e30) and gain > np.float32(1e-6) and gain >= limits.least_gain


@kernel()
def split_node(
    f: Any, settings: Any, mine: Any, its: Any, reals: Any, its_reals: Any, marks: Any, its_marks: Any
) -> None:
    """The accounts of a node's two children but for their numbers and rows; `mine` was the node's."""
    feature, left_sums = mine[FEATURE], mine[LEFT_SUMS]
    its[TOTAL] = mine[TOTAL] - left_sums
    bound_children(left_sums, its[TOTAL], settings, f.facts[feature, MONOTONE], reals, its_reals)
    mine[TOTAL] = left_sums
    mine[DEPTH] += 1
    its[DEPTH] = mine[DEPTH]
    if f.sets.shape[0] > 0:
        mark_path(f.sets, feature, marks, its_marks)
