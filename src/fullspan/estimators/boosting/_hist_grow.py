# mypy: allow-untyped-decorators, allow-untyped-calls
"""One tree from quantised gradients, on several threads that meet at barriers.

Every thread keeps the same account of the leaves and takes the same decisions. Between two meetings each
parts its own rows of the leaf that is split, then adds its share of the smaller child's histogram; the larger
child's is the parent's less that. All sums are integers, so shares may be cut anywhere.

Arrays are few, with named columns, and made by the driver: each one, and each way of making one, costs the
compiler time. Shapes: as in `_hist_records`.
"""

from __future__ import annotations

from typing import Any

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
    part_by_cut,
    part_by_table,
    part_rows,
)
from fullspan.estimators.boosting._hist_leaves import (
    bound_children,
    choose_features,
    free_slot,
    gain_of,
    mark_left,
    mark_path,
    may_split,
    pop,
    push,
    split_account,
    write_split,
)
from fullspan.estimators.boosting._hist_records import (
    BIN,
    DEPTH,
    FEATURE,
    FOUND_BIN,
    FOUND_FEATURE,
    FOUND_KIND,
    FOUND_LEFT,
    GAIN,
    HIGHEST,
    IS_CATEGORICAL,
    KIND,
    LEFT_SUMS,
    LOWEST,
    MONOTONE,
    N_BINS,
    N_ROWS,
    NODE,
    PIECES,
    SLOT,
    TOTAL,
)
from fullspan.estimators.boosting._hist_splits import CATEGORIES, MISSING_LEFT, scan_categories, scan_numeric


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
def part(r: Any, feature: int, first: int, n: int, aside: int, bin_: int, kind: int, left: Any) -> Any:
    """Part the rows ``order[first : first + n]`` by a split; returns how many go left.

    aside : from where on r.spare is free; the same for all leaves of a thread, so that it stays in the cache
    left : int32 [256], one where a code goes left
    """
    if n == 0:
        return 0
    block, within, column = feature // r.width, feature % r.width, r.column_of[feature]
    spare = r.spare[aside:]
    if not r.vector:
        return part_rows(r.blocks[block], within, r.order, first, n, spare, left)
    codes, stride_bits = address(r.blocks[block]) + within, 4
    if column >= 0:
        codes, stride_bits = address(r.columns[column]), 0
    if kind == CATEGORIES:
        return part_by_table(codes, stride_bits, r.order, first, n, spare, left)
    turn = np.int64(kind == MISSING_LEFT)
    return part_by_cut(codes, stride_bits, r.order, first, n, spare, turn, bin_ + turn)


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
def _search_new_leaves(
    thread: int,
    n_threads: int,
    r: Any,
    f: Any,
    limits: Any,
    settings: Any,
    room: Any,
    desk: Any,
    n_leaves: int,
    small: int,
    big: int,
    search_small: bool,
    search_big: bool,
    parent_slot: int,
) -> Any:
    """Build the histograms of two new leaves that may be split, and find this thread's best splits of them.

    The larger leaf's histogram is what the parent's has left without the smaller one's, where it was kept.
    Returns the slots of the two histograms, -1 where there is none.
    """
    numbers, reals, marks = desk.numbers[thread], desk.reals[thread], desk.marks[thread]
    shared = room.hist.shape[1] % n_threads != 0
    derive = search_big and parent_slot >= 0
    slots = (-1, -1)
    for child in range(2):
        leaf = small if child == 0 else big
        searched = search_small if child == 0 else search_big
        if not (searched or (child == 0 and derive)):
            continue
        n_parted, subtract = 0, -1
        if child == 1 and derive:
            slot, subtract = parent_slot, slots[0]
        else:
            slot = free_slot(numbers, reals, n_leaves, desk.taken[thread])
            if shared and child == 1:
                barrier(room.meeting, thread, n_threads)
            _build(thread, n_threads, r, room.hist[slot], room.partial, numbers[leaf])
            if shared:
                n_parted = numbers[leaf, N_ROWS]
                barrier(room.meeting, thread, n_threads)
        slots = (slot, slots[1]) if child == 0 else (slots[0], slot)
        row = numbers[leaf]
        choose_features(
            desk.chosen[thread], f, row[NODE], row[DEPTH], marks[leaf if f.sets.shape[0] > 0 else 0]
        )
        _search(
            thread, n_threads, room, r.width, f, limits, settings, row, reals[leaf],
            child, slot, subtract, n_parted, searched, desk,
        )  # fmt: skip
    return slots


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
    """Grow one tree; writes `out` (thread 0) and each row's leaf into node_of_row [n] (all threads).

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
    """`grow_tree` with its records by reference, which compiles faster."""
    numbers, reals, heap, taken = (
        desk.numbers[thread],
        desk.reals[thread],
        desk.heap[thread],
        desk.taken[thread],
    )
    marks, goes_left, left = desk.marks[thread], desk.goes_left[thread], desk.left[thread]
    has_sets = f.sets.shape[0] > 0
    for slot in range(len(taken)):
        taken[slot] = 0
    # This thread's rows: every n-th chunk, so that sorted rows are spread over the threads.
    place, n = numbers[0, PIECES + 2 * thread], len(node_of_row)
    aside = place
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
        slots = _search_new_leaves(
            thread, n_threads, r, f, limits, settings, room, desk,
            n_leaves, small, big, search_small, search_big, parent_slot,
        )  # fmt: skip
        if search_small or search_big:
            barrier(room.meeting, thread, n_threads)
        for child in range(2):
            leaf, slot = (small, slots[0]) if child == 0 else (big, slots[1])
            searched = search_small if child == 0 else search_big
            codes = goes_left[leaf if len(goes_left) > 1 else 0]
            if searched and _settle(numbers[leaf], reals[leaf], codes, room, child, settings, limits):
                numbers[leaf, SLOT] = slot
                push(heap, waiting, leaf, numbers, reals, limits.lossguide)
                waiting += 1
            elif slot >= 0:
                taken[slot] = 0
        if parent_slot >= 0 and slots[1] != parent_slot:
            taken[parent_slot] = 0
        if waiting == 0 or n_leaves >= limits.max_leaves:
            break
        leaf, new = pop(heap, waiting, numbers, reals, limits.lossguide), n_leaves
        waiting -= 1
        mine, its = numbers[leaf], numbers[new]
        parent_slot = mine[SLOT]
        mine[SLOT] = -1
        codes = goes_left[leaf if mine[KIND] == CATEGORIES else 0]
        mark_left(left, mine[BIN], mine[KIND], codes)
        at = PIECES + 2 * thread
        room.n_left[turn, thread] = part(
            r, mine[FEATURE], mine[at], mine[at + 1], aside, mine[BIN], mine[KIND], left
        )
        if thread == 0:
            room.parted[mine[FEATURE]] += mine[N_ROWS]
            write_split(out, mine, reals[leaf], codes, n_nodes)
        barrier(room.meeting, thread, n_threads)
        direction = f.facts[mine[FEATURE], MONOTONE]
        bound_children(
            mine[LEFT_SUMS], mine[TOTAL] - mine[LEFT_SUMS], settings, direction, reals[leaf], reals[new]
        )
        split_account(mine, its, room.n_left[turn], n_nodes)
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
