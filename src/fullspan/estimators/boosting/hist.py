"""Trees grown from histograms of quantised gradients.

::

    config = GrowConfig(max_leaves=255, max_depth=0, grow_policy="lossguide", learning_rate=0.1)
    with HistGrower(config, Binner.fit(X), X) as grower:
        for round in range(50):
            g, h = ...                                   # float32 [n], weights in them; 0 where left out
            tree, node_of_row = grower.grow(g, h, round) # TreeArrays, [n]
            margin += tree.value[node_of_row]            # the learning rate is in the values

Gradients and hessians are rounded to 8 bits (to more where a few are far larger than the rest), up or down at
random so that sums stay unbiased, after Shi et al. 2022, "Quantized training of gradient boosting decision
trees". Only the choice of splits sees rounded numbers: leaf values come from the sums of g and h as they are.
Whole gradients and hessians of up to 127 and 255 are not rounded at all. All sums are integers, so that the
tree is the same for any number of threads or parts of the data.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Self

import numpy as np

from fullspan.core.errors import DataError
from fullspan.core.simd import HAS_AVX512
from fullspan.core.threads import Crew, new_barrier
from fullspan.estimators.binning import Binner
from fullspan.estimators.boosting import _hist_records as records
from fullspan.estimators.boosting._hist_gradients import (
    GIVEN,
    LOGISTIC,
    SQUARED,
    Gradients,
    add_leaf_values,
    extremes,
    leaf_sums,
    quantise,
    quantise_wide,
    survey,
)
from fullspan.estimators.boosting._hist_grow import grow_tree
from fullspan.estimators.boosting._hist_kernels import BINS, MOST_FEATURES, ROW_CHUNK, copy_column
from fullspan.estimators.boosting._hist_records import Desk, Room, Rows
from fullspan.estimators.boosting.hist_plan import (
    GrowConfig,
    Scales,
    TreeArrays,
    TreePlan,
    finer_units,
    new_grown,
)

__all__ = ["GrowConfig", "HistGrower", "TreeArrays"]

_MOST_ROWS = 2**31 - 2**16
_MOST_ROWS_OF_VECTORS = 2**27
# Room for histograms: as many as fit into so many bytes, but not fewer than so many.
_HISTOGRAM_BYTES, _FEWEST_HISTOGRAMS = 2**22, 64
# One in so many features has its codes a second time, as a column.
_COLUMNS_PART = 6
# Below so many values one thread is faster than several that meet.
_FEW_VALUES = 2**19
_PADDING = 64  # rows: what is read ahead, and written beside
# A tree that takes so many seconds, in which threads had less than that part of their cores, shows that the
# machine is crowded. The next tree is then grown by one thread; twice as many each time that this goes on.
_LONG_ENOUGH, _CROWDED, _MOST_ALONE = 0.02, 0.6, 8


class HistGrower:
    """Grows trees over one matrix of features; use it in a ``with`` block, which ends its threads.

    Parameters
    ----------
    config : GrowConfig
    binner : Binner
    X : array of shape (n_samples, n_features)
        Taken as float32; NaN is a missing value.

    Raises
    ------
    ConfigError
        If a constraint does not fit the features.
    DataError
        If there are too many rows, or a category is negative.
    """

    def __init__(self, config: GrowConfig, binner: Binner, X: np.ndarray) -> None:
        self.plan = TreePlan(config, binner)
        self.n = len(X)
        if self.n > _MOST_ROWS:
            raise DataError(f"X has {self.n} rows, at most {_MOST_ROWS} fit", "fit parts of the data")
        n_blocks = -(-binner.n_features // MOST_FEATURES)
        self.width = -(-binner.n_features // n_blocks)
        self.crew = Crew(1 if X.shape[0] * X.shape[1] < _FEW_VALUES else config.n_threads)
        self.blocks = binner.blocks(
            np.ascontiguousarray(X, dtype=np.float32), self.width, _PADDING, self.crew
        )
        self.wide = np.zeros(1, dtype=np.int64)
        self.vector = HAS_AVX512 and self.n < _MOST_ROWS_OF_VECTORS
        self.order = np.zeros(self.n + (self.crew.n_threads + 2) * _PADDING, dtype=np.int32)
        self._room: Room | None = None
        self._most_threads, self._trees_alone, self._next_alone = self.crew.n_threads, 0, 1
        n_columns = -(-binner.n_features // _COLUMNS_PART) if self.vector else 0
        self.columns = np.zeros((n_columns, self.n + _PADDING), dtype=np.uint8)
        self.column_of = np.full(binner.n_features, -1, dtype=np.int64)

    def close(self) -> None:
        """End the threads."""
        self.crew.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def grow(self, g: np.ndarray, h: np.ndarray, round: int) -> tuple[TreeArrays, np.ndarray]:
        """Grow one tree.

        Parameters
        ----------
        g, h : float32 arrays of shape (n_samples,)
            Gradients and hessians of the objective at the present margin, weights in them; 0 where a row is
            left out. Negative hessians count as 0.
        round : int
            Which tree it is: columns and roundings are drawn anew for each.

        Returns
        -------
        tree : TreeArrays
        node_of_row : uint16 or int32 array of shape (n_samples,)
            The leaf that each row is in.

        Raises
        ------
        DataError
            If a gradient or hessian is not finite.
        """
        return self._grow(gradients_of(GIVEN, g, h, None), round)

    def boost_logistic(
        self, y: np.ndarray, weight: np.ndarray | None, margin: np.ndarray, round: int
    ) -> TreeArrays:
        """Grow one tree for the logistic loss, and add its values to the margin.

        The same as `grow` with the gradients of that loss, but for the last bits of an exponential.

        Parameters
        ----------
        y : C-contiguous float32 array of shape (n_samples,)
            From 0 to 1.
        weight : C-contiguous float32 array of shape (n_samples,), optional
        margin : C-contiguous float32 array of shape (n_samples,)
            Changed in place.
        round : int
        """
        return self._boost(gradients_of(LOGISTIC, margin, y, weight), round)

    def boost_squared(
        self, y: np.ndarray, weight: np.ndarray | None, margin: np.ndarray, round: int
    ) -> TreeArrays:
        """The same for the squared loss."""
        return self._boost(gradients_of(SQUARED, margin, y, weight), round)

    def _boost(self, source: Gradients, round: int) -> TreeArrays:
        tree, node_of_row = self._grow(source, round)
        self.crew.run(add_leaf_values, tree.value, node_of_row, source.first)
        return tree

    def extremes(self, source: Gradients) -> np.ndarray:
        """Largest |g| and h, or what they cannot exceed."""
        if source.loss == LOGISTIC and not source.weighted:
            return np.array([1, 0.25], dtype=np.float32)
        found = np.zeros((self.crew.n_threads, 2), dtype=np.float32)
        self.crew.run(extremes, source, found)
        return np.asarray(found.max(axis=0))

    def survey(self, source: Gradients, finer: np.ndarray) -> np.ndarray:
        """What the choice of units needs to know besides: sums over the rows."""
        found = np.zeros((self.crew.n_threads, 5), dtype=np.int64)
        self.crew.run(survey, source, finer, found)
        return np.asarray(found.sum(axis=0))

    def quantise(self, source: Gradients, scales: Scales, salt: Any, first_row: int) -> int:
        """Round the gradients into the blocks; gives their packed sum."""
        sums = np.zeros(self.crew.n_threads, dtype=np.int64)
        if scales.wide:
            if len(self.wide) == 1:
                self.wide = np.zeros(self.blocks.shape[1], dtype=np.int64)
            units = scales.g, scales.h, scales.nearest
            self.crew.run(quantise_wide, source, *units, salt, first_row, self.wide, sums)
        else:
            narrow = np.array([scales.g, scales.h], dtype=np.float32)
            self.crew.run(quantise, source, narrow, salt, first_row, self.blocks.view(np.uint16), sums)
        return int(sums.sum())

    def leaf_sums(
        self, source: Gradients, scales: Scales, n_nodes: int, node_of_row: np.ndarray
    ) -> np.ndarray:
        """Sums of g and h of each leaf's rows, in the finest units: int64 [nodes, 2]."""
        sums = np.zeros((self.crew.n_threads, n_nodes, 2), dtype=np.int64)
        self.crew.run(leaf_sums, source, scales.finest(), node_of_row, sums)
        return np.asarray(sums.sum(axis=0))

    def rows(self, spare: np.ndarray, is_wide: bool) -> Rows:
        """The rows as kernels take them."""
        return Rows(
            self.blocks,
            self.columns,
            self.column_of,
            self.wide,
            self.order,
            spare,
            is_wide,
            self.width,
            self.vector,
        )

    def _grow(self, source: Gradients, round: int) -> tuple[TreeArrays, np.ndarray]:
        most_g_and_h = self.extremes(source)
        finer = finer_units(most_g_and_h)
        scales = Scales.of(most_g_and_h, self.survey(source, finer), finer, self.n)
        salt = self.plan.salt(round)
        total = self.quantise(source, scales, salt, 0)
        most = self.plan.most_leaves(self.n, total & 0xFFFFFFFF, scales)
        grown = new_grown(2 * most - 1, self.plan.has_categories)
        # Where rows are put aside while they are parted, and at the end the number of each row's leaf.
        spare = np.empty(len(self.order), dtype=np.int32)
        numbers = spare.view(np.uint16) if 2 * most <= 2**16 else spare
        node_of_row = numbers[: self.n]
        room = self._working_room(most)
        started, used = time.perf_counter(), time.process_time()
        self.crew.run(
            grow_tree,
            self.rows(spare, scales.wide),
            self.plan.features_of_tree(round, salt),
            self.plan.limits(most),
            self.plan.settings(scales),
            room,
            self._new_desk(most, len(room.hist), total),
            grown,
            node_of_row,
        )
        self._share_cores(time.perf_counter() - started, time.process_time() - used)
        self._copy_columns(room.parted)
        n_nodes = int(grown.n_nodes[0])
        sums = self.leaf_sums(source, scales, n_nodes, node_of_row)
        return self.plan.finish(grown, n_nodes, sums / scales.finest()), node_of_row

    def _copy_columns(self, parted: np.ndarray) -> None:
        """Copy the codes of the features that part most rows, so that they lie beside each other.

        To part rows by a feature then reads a line of memory for 64 rows, not for 4.
        """
        if not self.vector:
            return
        free = len(self.columns) - int((self.column_of >= 0).sum())
        waiting = np.flatnonzero((self.column_of < 0) & (parted >= self.n))
        for feature in waiting[np.argsort(-parted[waiting], kind="stable")[:free]]:
            place = int(self.column_of.max()) + 1
            self.crew.run(copy_column, self.n, self.blocks, self.width, feature, self.columns[place])
            self.column_of[feature] = place

    def _share_cores(self, wall: float, used: float) -> None:
        """Go on with one thread for some trees if others keep this process from its cores.

        Threads that meet hundreds of times a tree then wait for the one that does not run. `wall` and `used`
        are the seconds that a tree took, on the clock and of all threads.
        """
        if self._trees_alone:
            self._trees_alone -= 1
            if not self._trees_alone:
                self.crew.n_threads = self._most_threads
        elif self.crew.n_threads > 1 and wall > _LONG_ENOUGH and used < _CROWDED * self.crew.n_threads * wall:
            self.crew.n_threads, self._trees_alone = 1, self._next_alone
            self._next_alone = min(2 * self._next_alone, _MOST_ALONE)
        else:
            self._next_alone = 1

    def _working_room(self, most_leaves: int) -> Room:
        """Room for histograms: one for each leaf that waits, or fewer, and then some are built again."""
        threads, (n_blocks, _, _) = self.crew.n_threads, self.blocks.shape
        size = self.width * BINS
        fitting = _HISTOGRAM_BYTES // (8 * n_blocks * size)
        slots = max(3, min(most_leaves + 1, max(fitting, _FEWEST_HISTOGRAMS)))
        if self._room is None or len(self._room.hist) < slots or len(self._room.worth) != threads:
            self._room = Room(
                np.empty((slots, n_blocks, size), dtype=np.int64),
                np.empty((threads if n_blocks % threads else 1, 2, size), dtype=np.int64),
                new_barrier(threads),
                np.zeros((2, threads), dtype=np.int64),
                np.zeros((threads, 2, 4), dtype=np.int64),
                np.zeros((threads, 2), dtype=np.float32),
                np.zeros((threads, 2, BINS), dtype=np.uint8),
                np.zeros(len(self.column_of), dtype=np.int64),
            )
        return self._room

    def _new_desk(self, most: int, n_slots: int, total: int) -> Desk:
        """Each thread's account of the leaves, in which the root has all rows."""
        threads, (n_sets, n_features) = self.crew.n_threads, self.plan.features.sets.shape
        has_categories = self.plan.has_categories
        numbers = np.zeros((threads, most, records.PIECES + 2 * threads), dtype=np.int64)
        root = numbers[:, 0]
        root[:, records.TOTAL] = total
        root[:, records.SLOT] = -1
        root[:, records.N_ROWS] = self.n
        first = 0
        for thread in range(threads):
            count = _rows_of_thread(self.n, thread, threads)
            root[:, records.PIECES + 2 * thread] = first
            root[:, records.PIECES + 2 * thread + 1] = count
            first += count + _PADDING
        reals = np.zeros((threads, most, 3), dtype=np.float32)
        reals[:, 0, records.LOWEST], reals[:, 0, records.HIGHEST] = -np.inf, np.inf
        marks = np.zeros((threads, most if n_sets else 1, n_sets + n_features), dtype=np.uint8)
        marks[:, :, :n_sets] = 1
        return Desk(
            numbers,
            reals,
            np.zeros((threads, most if has_categories else 1, BINS), dtype=np.uint8),
            marks,
            np.zeros((threads, most), dtype=np.int64),
            np.zeros((threads, n_slots), dtype=np.uint8),
            np.zeros((threads, 2, n_features), dtype=np.int64),
            np.zeros((threads, 2, BINS), dtype=np.int32),
            np.zeros((threads, BINS), dtype=np.int64),
            np.zeros((threads, 2, BINS), dtype=np.float32),
            np.zeros((threads, BINS), dtype=np.uint8),
            np.zeros((threads, BINS), dtype=np.int32),
        )


def gradients_of(loss: int, first: np.ndarray, second: np.ndarray, weight: np.ndarray | None) -> Gradients:
    """The source of gradients, float32 arrays of shape (n_samples,): see `Gradients`."""
    given = np.empty(1, dtype=np.float32) if weight is None else weight
    a, b, w = (np.ascontiguousarray(values, dtype=np.float32) for values in (first, second, given))
    return Gradients(loss, a, b, w, weight is not None)


def _rows_of_thread(n: int, thread: int, threads: int) -> int:
    """How many rows are in every `threads`-th chunk, from chunk `thread` on."""
    chunks, rest = divmod(n, ROW_CHUNK)
    whole = len(range(thread, chunks, threads))
    return whole * ROW_CHUNK + (rest if chunks % threads == thread else 0)
