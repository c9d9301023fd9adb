# mypy: allow-untyped-decorators, allow-untyped-calls
"""One tree from quantised gradients, on several threads that meet at barriers.

Every thread keeps the same account of the leaves and takes the same decisions. Between two meetings each
parts its own rows of the leaf that is split, then adds its share of the smaller child's histogram; the larger
child's is the parent's less that. All sums are integers, so shares may be cut anywhere.

Shapes: as in `_hist_kernels`; L leaves at most, M = 2L - 1 nodes, P sets of features that may interact.
"""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import numpy as np

from fullspan.core.kernels import helper, kernel
from fullspan.core.simd import address
from fullspan.core.threads import barrier
from fullspan.estimators.boosting._hist_kernels import (
    BINS,
    add_rows,
    add_rows_wide,
    mixed,
    part_rows,
    part_rows_vector,
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

# The rows: blocks uint8 [B, N, 16]; wide int64 [N] where is_wide; width: features of a block; order and spare
# int32, in which thread t has places[t] to places[t] + counts[t]; vector: whether rows are parted by vectors.
Rows = namedtuple("Rows", "blocks wide is_wide width order spare places counts vector")
# Room to work in: hist int64 [S, B, W * 256], partial int64 [T, 2, W * 256], meeting as of `new_barrier`, n_left
# int64 [2, T], and what each thread finds for two children: worth float32 [T, 2], place int64 [T, 2, 4],
# goes_left uint8 [T, 2, 256].
Room = namedtuple("Room", "hist partial meeting n_left worth place goes_left")
# What may be split: n_bins int64 [F]; kinds uint8 [F] (0 numeric, 1 categories); monotone int8 [F]; sets uint8
# [P, F]; features int32, those of this tree, of which a level takes n_level and a node n_node, as `salt` has it.
Features = namedtuple("Features", "n_bins kinds monotone sets features n_level n_node salt")
# When to stop: max_leaves, max_depth (0: any), lossguide (else level by level), least_gain; how many categories
# are tried one by one, and how many are told apart.
Limits = namedtuple("Limits", "max_leaves max_depth lossguide least_gain most_one_hot most_right")
# The grown tree: left, right, feature, bin int32 [M]; kind int8 [M]; gain float32 [M]; total int64 [M]; lowest,
# highest float32 [M]; goes_left uint8 [M or 1, 256], of nodes that split by categories; n_nodes int64 [1].
Grown = namedtuple("Grown", "left right feature bin kind gain total lowest highest goes_left n_nodes")
# The account of the leaves: begins, counts int64 [L, T]; total, left_sums, node, depth, slot int64 [L]; gain
# float32 [L]; split int64 [L, 3], feature, bin and kind; bounds float32 [L, 2]; goes_left uint8 [L or 1, 256];
# alive uint8 [L or 1, P], the sets that hold all of the path's features; path uint8 [L or 1, F].
Leaves = namedtuple(
    "Leaves", "begins counts total left_sums node depth slot gain split bounds goes_left alive path"
)

_INFINITY = np.float32(np.inf)
_HALF = np.float32(0.5)
_ZERO = np.float32(0)


@helper()
def _comes_before(a: int, b: int, gains: Any, nodes: Any, lossguide: bool) -> bool:
    """Whether leaf a is split before leaf b."""
    if lossguide and gains[a] != gains[b]:
        return gains[a] > gains[b]
    return nodes[a] < nodes[b]


@helper()
def _push(heap: Any, n: int, leaf: int, gains: Any, nodes: Any, lossguide: bool) -> int:
    """Add a leaf to the heap of n leaves that wait; returns how many wait now."""
    i = n
    while i > 0:
        above = (i - 1) // 2
        if not _comes_before(leaf, heap[above], gains, nodes, lossguide):
            break
        heap[i] = heap[above]
        i = above
    heap[i] = leaf
    return n + 1


@helper()
def _pop(heap: Any, n: int, gains: Any, nodes: Any, lossguide: bool) -> int:
    """Take the first leaf from the heap of n leaves."""
    first, leaf = heap[0], heap[n - 1]
    i = 0
    while True:
        below = 2 * i + 1
        if below >= n - 1:
            break
        if below + 1 < n - 1 and _comes_before(heap[below + 1], heap[below], gains, nodes, lossguide):
            below += 1
        if not _comes_before(heap[below], leaf, gains, nodes, lossguide):
            break
        heap[i] = heap[below]
        i = below
    heap[i] = leaf
    return first


@helper()
def _sample(chosen: Any, n: int, wanted: int, salt: Any) -> int:
    """Move `wanted` of the first n numbers to the front, any of them with the same chance."""
    for i in range(min(wanted, n - 1)):
        j = i + np.int64(mixed(salt + np.uint32(i) * np.uint32(0x9E3779B9)) % np.uint32(n - i))
        chosen[i], chosen[j] = chosen[j], chosen[i]
    return min(wanted, n)


@helper()
def _choose_features(allowed: Any, work: Any, f: Any, leaves: Any, leaf: int) -> None:
    """allowed [F] = 1 for the features that a leaf may be split by."""
    n, node, depth = len(f.features), leaves.node[leaf], leaves.depth[leaf]
    for i in range(n):
        work[i] = f.features[i]
    if f.n_level < n:
        n = _sample(work, n, f.n_level, mixed(f.salt + np.uint32(2 * depth)))
    if f.n_node < n:
        n = _sample(work, n, f.n_node, mixed(f.salt + np.uint32(2 * node + 1)))
    n_sets = f.sets.shape[0]
    allowed[:] = 0
    for i in range(n):
        feature = work[i]
        # Below the root: what the path has, and what is in a set with all that the path has.
        fits = n_sets == 0 or depth == 0 or leaves.path[leaf, feature] != 0
        for s in range(n_sets):
            fits |= (leaves.alive[leaf, s] & f.sets[s, feature]) != 0
        allowed[feature] = fits


@helper()
def _share(thread: int, n_threads: int, n_blocks: int, n_rows: int) -> Any:
    """A thread's part of all blocks' rows, numbered block after block."""
    work = n_blocks * n_rows
    return work * thread // n_threads, work * (thread + 1) // n_threads


@helper()
def _add_range(r: Any, block: int, begins: Any, counts: Any, first: int, last: int, sums: Any) -> None:
    """Add the rows numbered first to last of a leaf, whose rows lie in a piece for each thread."""
    sums[:] = 0
    passed = 0
    for piece in range(len(counts)):
        a, z = max(first - passed, 0), min(last - passed, counts[piece])
        if a < z:
            a, z = a + begins[piece], z + begins[piece]
            if r.is_wide:
                add_rows_wide(r.blocks, block, r.wide, r.order, a, z, r.width, sums)
            else:
                add_rows(r.blocks, block, r.order, a, z, r.width, sums)
        passed += counts[piece]


@helper()
def _build(thread: int, n_threads: int, r: Any, room: Any, begins: Any, counts: Any, slot: int) -> None:
    """Add this thread's share of a leaf's rows: whole blocks into the slot, parts of blocks aside."""
    n_rows, n_blocks = counts.sum(), r.blocks.shape[0]
    low, high = _share(thread, n_threads, n_blocks, n_rows)
    for block in range(low // n_rows, (high + n_rows - 1) // n_rows):
        first, last = max(low - block * n_rows, 0), min(high - block * n_rows, n_rows)
        if first == 0 and last == n_rows:
            _add_range(r, block, begins, counts, first, last, room.hist[slot, block])
        elif first < last:
            part = room.partial[thread, np.int64(block != low // n_rows)]
            _add_range(r, block, begins, counts, first, last, part)


@helper()
def _gather_parts(
    n_threads: int, room: Any, n_blocks: int, n_rows: int, block: int, at: int, sums: Any
) -> None:
    """Sum up what threads have set aside for one feature (256 bins from `at`) of a block that they shared."""
    fresh = True
    for thread in range(n_threads):
        low, high = _share(thread, n_threads, n_blocks, n_rows)
        first, last = max(low - block * n_rows, 0), min(high - block * n_rows, n_rows)
        if first >= last or (first == 0 and last == n_rows):
            continue
        part = room.partial[thread, np.int64(block != low // n_rows)]
        for b in range(BINS):
            sums[b] = part[at + b] if fresh else sums[b] + part[at + b]
        fresh = False


@helper()
def _find_split(
    f: Any, limits: Any, settings: Any, sums: Any, feature: int, total: Any, low: Any, high: Any, work: Any
) -> Any:
    """(worth, bin, kind, sums on the left) of a feature's best split of a node."""
    below, worths, order, keys, goes_left = work
    if f.kinds[feature] == 0:
        direction = np.int64(f.monotone[feature])
        return scan_numeric(sums, f.n_bins[feature], total, settings, direction, low, high, below, worths)
    worth, left = scan_categories(
        sums,
        f.n_bins[feature],
        total,
        settings,
        low,
        high,
        limits.most_one_hot,
        limits.most_right,
        order,
        keys,
        goes_left,
    )
    return worth, 0, CATEGORIES, left


@helper()
def _search(
    thread: int,
    n_threads: int,
    r: Any,
    room: Any,
    f: Any,
    limits: Any,
    settings: Any,
    leaves: Any,
    leaf: int,
    child: int,
    slot: int,
    subtract: int,
    n_parted: int,
    scan: bool,
    allowed: Any,
    work: Any,
) -> None:
    """Put a leaf's histogram together, and find its best split over this thread's share of the features.

    subtract : a slot that is taken from this one first, or -1; n_parted: the leaf's rows if its blocks may be
    shared by threads, else 0; scan: whether to look for splits at all.
    """
    n_blocks, n_features, width = r.blocks.shape[0], len(f.n_bins), r.width
    first, last = n_features * thread // n_threads, n_features * (thread + 1) // n_threads
    if n_blocks % n_threads == 0:
        first = min(n_blocks // n_threads * thread * width, n_features)
        last = min(n_blocks // n_threads * (thread + 1) * width, n_features)
    total, low, high = leaves.total[leaf], leaves.bounds[leaf, 0], leaves.bounds[leaf, 1]
    best = np.float32(-1e30)
    for feature in range(first, last):
        block, at = feature // width, feature % width * BINS
        sums = room.hist[slot, block, at : at + BINS]
        if n_parted:
            _gather_parts(n_threads, room, n_blocks, n_parted, block, at, sums)
        if subtract >= 0:
            less = room.hist[subtract, block, at : at + BINS]
            for b in range(BINS):
                sums[b] -= less[b]
        if scan and allowed[feature]:
            worth, bin_, kind, left = _find_split(f, limits, settings, sums, feature, total, low, high, work)
            if worth > best:
                best = worth
                place = room.place[thread, child]
                place[0], place[1], place[2], place[3] = feature, bin_, kind, left
                if kind == CATEGORIES:
                    room.goes_left[thread, child, :] = work[4]
    room.worth[thread, child] = best


@helper()
def _mark_left(left: Any, bin_: int, kind: int, goes_left: Any) -> None:
    """left [256] = 1 for the codes that go left."""
    for code in range(BINS):
        if kind == CATEGORIES:
            left[code] = goes_left[code]
        else:
            left[code] = code <= bin_
    if kind != CATEGORIES:
        left[MISSING] = kind == MISSING_LEFT


@helper()
def _part(r: Any, feature: int, first: int, n: int, left: Any) -> int:
    """Part this thread's rows of a leaf; returns how many go left."""
    if n == 0:
        return 0
    block, within = feature // r.width, feature % r.width
    if r.vector:
        codes = address(r.blocks[block]) + within
        return part_rows_vector(codes, 4, r.order, first, n, r.spare, left)
    return part_rows(r.blocks[block], within, r.order, first, n, r.spare, left)


@helper()
def _free_slot(slots: Any, n_leaves: int, taken: Any, gains: Any) -> int:
    """A histogram slot: a free one, or that of the waiting leaf that would be split last."""
    for slot in range(len(taken)):
        if not taken[slot]:
            taken[slot] = 1
            return slot
    last = -1
    for leaf in range(n_leaves):
        if slots[leaf] >= 0 and (last < 0 or gains[leaf] <= gains[last]):
            last = leaf
    slot = slots[last]
    slots[last] = -1
    return slot


@helper()
def _new_leaves(most: int, n_threads: int, n_features: int, n_sets: int, has_categories: bool) -> Any:
    return Leaves(
        np.zeros((most, n_threads), np.int64),
        np.zeros((most, n_threads), np.int64),
        np.zeros(most, np.int64),
        np.zeros(most, np.int64),
        np.zeros(most, np.int64),
        np.zeros(most, np.int64),
        np.full(most, -1, np.int64),
        np.zeros(most, np.float32),
        np.zeros((most, 3), np.int64),
        np.zeros((most, 2), np.float32),
        np.zeros((most if has_categories else 1, BINS), np.uint8),
        np.ones((most if n_sets else 1, n_sets), np.uint8),
        np.zeros((most if n_sets else 1, n_features), np.uint8),
    )


@helper()
def _settle(leaves: Any, leaf: int, room: Any, child: int, settings: Any, limits: Any) -> bool:
    """Take the best of what the threads have found for a leaf; whether it may be split."""
    best, finder = np.float32(-1e30), -1
    for thread in range(room.worth.shape[0]):
        if room.worth[thread, child] > best:
            best, finder = room.worth[thread, child], thread
    if finder < 0:
        return False
    place = room.place[finder, child]
    total, low, high = leaves.total[leaf], leaves.bounds[leaf, 0], leaves.bounds[leaf, 1]
    g, h = gradients_of(total) * settings[UNIT_G], hessians_of(total) * settings[UNIT_H]
    gain = best - worth_of(g, h, settings, low, high)
    if not (gain > np.float32(1e-6) and gain >= limits.least_gain):
        return False
    leaves.gain[leaf] = gain
    leaves.split[leaf, 0], leaves.split[leaf, 1], leaves.split[leaf, 2] = place[0], place[1], place[2]
    leaves.left_sums[leaf] = place[3]
    if place[2] == CATEGORIES:
        leaves.goes_left[leaf, :] = room.goes_left[finder, child, :]
    return True


@helper()
def _bound_children(leaves: Any, leaf: int, new: int, right_sums: Any, settings: Any, direction: int) -> None:
    """Weights of the two children stay on their side of the middle where the split must be monotone."""
    low, high = leaves.bounds[leaf, 0], leaves.bounds[leaf, 1]
    leaves.bounds[new, 0], leaves.bounds[new, 1] = low, high
    if direction != 0:
        left_sums = leaves.left_sums[leaf]
        unit_g, unit_h = settings[UNIT_G], settings[UNIT_H]
        gl, hl = gradients_of(left_sums) * unit_g, hessians_of(left_sums) * unit_h
        gr, hr = gradients_of(right_sums) * unit_g, hessians_of(right_sums) * unit_h
        wl = weight_of(gl, hl, settings, low, high)
        wr = weight_of(gr, hr, settings, low, high)
        middle = (wl + wr) * _HALF
        if direction > 0:
            leaves.bounds[leaf, 1], leaves.bounds[new, 0] = middle, middle
        else:
            leaves.bounds[leaf, 0], leaves.bounds[new, 1] = middle, middle


@helper()
def _write_split(out: Any, leaves: Any, leaf: int, n_nodes: int) -> None:
    """The node of a leaf becomes a split whose children are the next two nodes."""
    node = leaves.node[leaf]
    out.left[node], out.right[node] = n_nodes, n_nodes + 1
    out.feature[node], out.bin[node], out.kind[node] = (
        leaves.split[leaf, 0],
        leaves.split[leaf, 1],
        leaves.split[leaf, 2],
    )
    out.gain[node] = leaves.gain[leaf]
    if leaves.split[leaf, 2] == CATEGORIES:
        out.goes_left[node, :] = leaves.goes_left[leaf, :]


@helper()
def _write_node(out: Any, leaves: Any, leaf: int) -> None:
    """What is known of a node when it is made."""
    node = leaves.node[leaf]
    out.total[node] = leaves.total[leaf]
    out.lowest[node], out.highest[node] = leaves.bounds[leaf, 0], leaves.bounds[leaf, 1]


@helper()
def _split_account(
    leaves: Any, leaf: int, new: int, n_left: Any, n_nodes: int, settings: Any, f: Any, constrained: bool
) -> None:
    """`leaf` becomes the left child, `new` the right one."""
    feature = leaves.split[leaf, 0]
    right_sums = leaves.total[leaf] - leaves.left_sums[leaf]
    _bound_children(leaves, leaf, new, right_sums, settings, np.int64(f.monotone[feature]))
    for piece in range(len(n_left)):
        leaves.begins[new, piece] = leaves.begins[leaf, piece] + n_left[piece]
        leaves.counts[new, piece] = leaves.counts[leaf, piece] - n_left[piece]
        leaves.counts[leaf, piece] = n_left[piece]
    leaves.total[new], leaves.total[leaf] = right_sums, leaves.left_sums[leaf]
    leaves.node[leaf], leaves.node[new] = n_nodes, n_nodes + 1
    leaves.depth[leaf] += 1
    leaves.depth[new] = leaves.depth[leaf]
    if constrained:
        leaves.path[leaf, feature] = 1
        for s in range(f.sets.shape[0]):
            leaves.alive[leaf, s] &= f.sets[s, feature]
        leaves.alive[new, :] = leaves.alive[leaf, :]
        leaves.path[new, :] = leaves.path[leaf, :]


@helper()
def _may_split(leaves: Any, leaf: int, settings: Any, limits: Any) -> bool:
    """Whether a leaf is heavy enough for two, and not too deep."""
    deep = limits.max_depth and leaves.depth[leaf] >= limits.max_depth
    heavy = (
        hessians_of(leaves.total[leaf]) * settings[UNIT_H] >= settings[MIN_HESSIAN] + settings[MIN_HESSIAN]
    )
    return heavy and not deep and leaves.counts[leaf].sum() > 1


@kernel()
def grow_tree(
    thread: int,
    n_threads: int,
    r: Any,
    room: Any,
    f: Any,
    limits: Any,
    settings: Any,
    total: Any,
    out: Any,
    leaf_of_row: Any,
) -> None:
    """Grow one tree; writes `out` (thread 0) and each row's leaf into leaf_of_row int32 [n] (all threads)."""
    n_features, n_blocks = len(f.n_bins), r.blocks.shape[0]
    constrained = f.sets.shape[0] > 0
    shared = n_blocks % n_threads != 0
    leaves = _new_leaves(
        limits.max_leaves, n_threads, n_features, f.sets.shape[0], out.goes_left.shape[0] > 1
    )
    heap = np.zeros(limits.max_leaves, np.int64)
    taken = np.zeros(room.hist.shape[0], np.uint8)
    allowed = np.zeros(n_features, np.uint8)
    chosen = np.zeros(n_features, np.int64)
    left = np.zeros(BINS, np.int32)
    work = (
        np.zeros(BINS, np.int64),
        np.zeros(BINS, np.float32),
        np.zeros(BINS, np.int64),
        np.zeros(BINS, np.float32),
        np.zeros(BINS, np.uint8),
    )
    leaves.begins[0, :] = r.places
    leaves.counts[0, :] = r.counts
    leaves.total[0] = total
    leaves.bounds[0, 0], leaves.bounds[0, 1] = -_INFINITY, _INFINITY
    n_leaves = n_nodes = 1
    waiting = turn = 0
    if thread == 0:
        _write_node(out, leaves, 0)
    # The leaves that are new, and the histogram of the one that they were.
    small, big, parent_slot = 0, -1, -1
    while True:
        full = n_leaves >= limits.max_leaves
        search_small = not full and _may_split(leaves, small, settings, limits)
        search_big = big >= 0 and not full and _may_split(leaves, big, settings, limits)
        if search_small or search_big:
            derive = search_big and parent_slot >= 0
            small_slot = big_slot = -1
            if search_small or derive:
                small_slot = _free_slot(leaves.slot, n_leaves, taken, leaves.gain)
                _build(thread, n_threads, r, room, leaves.begins[small], leaves.counts[small], small_slot)
                n_parted = leaves.counts[small].sum() if shared else 0
                if shared:
                    barrier(room.meeting, thread, n_threads)
                _choose_features(allowed, chosen, f, leaves, small)
                _search(
                    thread, n_threads, r, room, f, limits, settings, leaves, small,
                    0, small_slot, -1, n_parted, search_small, allowed, work,
                )  # fmt: skip
            if search_big:
                n_parted = 0
                if derive:
                    big_slot = parent_slot
                    parent_slot = -1
                else:
                    big_slot = _free_slot(leaves.slot, n_leaves, taken, leaves.gain)
                    if shared:
                        barrier(room.meeting, thread, n_threads)
                    _build(thread, n_threads, r, room, leaves.begins[big], leaves.counts[big], big_slot)
                    if shared:
                        n_parted = leaves.counts[big].sum()
                        barrier(room.meeting, thread, n_threads)
                _choose_features(allowed, chosen, f, leaves, big)
                _search(
                    thread, n_threads, r, room, f, limits, settings, leaves, big,
                    1, big_slot, small_slot if derive else -1, n_parted, True, allowed, work,
                )  # fmt: skip
            barrier(room.meeting, thread, n_threads)
            for child in range(2):
                leaf, slot = (small, small_slot) if child == 0 else (big, big_slot)
                searched = search_small if child == 0 else search_big
                if searched and _settle(leaves, leaf, room, child, settings, limits):
                    leaves.slot[leaf] = slot
                    waiting = _push(heap, waiting, leaf, leaves.gain, leaves.node, limits.lossguide)
                elif slot >= 0:
                    taken[slot] = 0
        if parent_slot >= 0:
            taken[parent_slot] = 0
        if waiting == 0 or n_leaves >= limits.max_leaves:
            break
        leaf = _pop(heap, waiting, leaves.gain, leaves.node, limits.lossguide)
        waiting -= 1
        parent_slot = leaves.slot[leaf]
        leaves.slot[leaf] = -1
        kind = leaves.split[leaf, 2]
        _mark_left(left, leaves.split[leaf, 1], kind, leaves.goes_left[leaf if kind == CATEGORIES else 0])
        room.n_left[turn, thread] = _part(
            r, leaves.split[leaf, 0], leaves.begins[leaf, thread], leaves.counts[leaf, thread], left
        )
        if thread == 0:
            _write_split(out, leaves, leaf, n_nodes)
        barrier(room.meeting, thread, n_threads)
        new = n_leaves
        _split_account(leaves, leaf, new, room.n_left[turn], n_nodes, settings, f, constrained)
        # In turns: a thread may be ahead of another that still reads.
        turn = 1 - turn
        n_leaves += 1
        n_nodes += 2
        if thread == 0:
            _write_node(out, leaves, leaf)
            _write_node(out, leaves, new)
        small, big = leaf, new
        if leaves.counts[new].sum() < leaves.counts[leaf].sum():
            small, big = new, leaf
    for leaf in range(n_leaves):
        first = leaves.begins[leaf, thread]
        for i in range(first, first + leaves.counts[leaf, thread]):
            leaf_of_row[r.order[i]] = leaves.node[leaf]
    if thread == 0:
        out.n_nodes[0] = n_nodes
