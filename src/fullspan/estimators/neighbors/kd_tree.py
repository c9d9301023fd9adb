"""A kd-tree with scipy's interface: nearest neighbours, and all neighbours within a distance."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import sparse

from fullspan.core.simd import LANES
from fullspan.estimators.neighbors import _range_search as ranges
from fullspan.estimators.neighbors._build_kernels import find_homes
from fullspan.estimators.neighbors._query_kernels import nearest
from fullspan.estimators.neighbors._structure import (
    Structure,
    exponent_for,
    norm_of,
    plain,
    run,
    thread_count,
)
from fullspan.estimators.neighbors.nodes import InnerNode, LeafNode, Node, node
from fullspan.estimators.saving import Saveable

_WORTH_SORTING = 64  # queries


class KDTree(Saveable):
    """Finds the points that are nearest to others, or within a distance of them.

    Built by splitting at the median of the widest dimension; leaves hold 16 points, nodes have 16 children
    with a box around each, and distances to 16 points or boxes are computed at once. Neighbours are exactly
    scipy's, distances to the last bit; of neighbours equally far, the one with the lower index comes first,
    and which of them come in where not all do depends on the tree.

    Parameters
    ----------
    data : array-like of shape (n, m)
        The points; finite. Not copied if it is a C-contiguous array of float64: do not change it then.
    leafsize : int
        Points of a leaf; rounded up to a multiple of 16.
    compact_nodes, balanced_tree : bool
        Taken so that calls written for scipy work. Boxes are always tight, and splits always at the median:
        both are cheap here.
    copy_data : bool
        Copy `data` always.
    boxsize : float or array-like of shape (m,), optional
        Length of each dimension after which space repeats itself; 0 for those that do not.

    Attributes
    ----------
    data : ndarray of shape (n, m)
    n, m : int
        Points, and dimensions.
    leafsize : int
    mins, maxes : ndarray of shape (m,)
        The least and the greatest value of each dimension.
    boxsize : ndarray of shape (m,) or None
    indices : ndarray of shape (n,)
        The points in the order of the leaves.
    size : int
        How many nodes the tree has.
    tree : Node
        The root, to look at.

    Raises
    ------
    ValueError
        If data is not a table, is not finite, or lies outside of the periodic box; if the leaf size is not
        positive, or the box size negative or of the wrong length.
    TypeError
        If data is complex.

    References
    ----------
    J. L. Bentley, "Multidimensional Binary Search Trees Used for Associative Searching", Communications of
    the ACM 18(9), 1975. J. H. Friedman, J. L. Bentley and R. A. Finkel, "An Algorithm for Finding Best
    Matches in Logarithmic Expected Time", ACM Transactions on Mathematical Software 3(3), 1977. J. S. Beis
    and D. G. Lowe, "Shape Indexing Using Approximate Nearest-Neighbour Search in High-Dimensional Spaces",
    CVPR 1997.

    Examples
    --------
    >>> import numpy as np
    >>> from fullspan.estimators import KDTree
    >>> tree = KDTree([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0], [5.0, 5.0]])
    >>> distances, indices = tree.query([0.1, 0.0], k=2)
    >>> print(distances, indices)
    [0.1 0.9] [0 1]
    >>> tree.query_ball_point([0.0, 0.0], 2.0, return_sorted=True)
    [0, 1, 2]
    """

    node = Node
    innernode = InnerNode
    leafnode = LeafNode

    def __init__(
        self,
        data: Any,
        leafsize: int = 10,
        compact_nodes: bool = True,
        copy_data: bool = False,
        balanced_tree: bool = True,
        boxsize: Any = None,
    ) -> None:
        self.data = _points(data, "data", copy=copy_data)
        if self.data.ndim != 2 or self.data.shape[1] == 0:
            raise ValueError(
                f"data must be a table of points, of shape (n, m) with m > 0; got {self.data.shape}"
            )
        if leafsize < 1:
            raise ValueError(f"leafsize={leafsize}: a leaf must hold at least 1 point")
        self.n, self.m = (int(length) for length in self.data.shape)
        self.leafsize = int(leafsize)
        self._structure = Structure(self.data, self.leafsize) if self.n else None
        self.mins, self.maxes = np.zeros(self.m), np.zeros(self.m)
        if self._structure:
            self.mins, self.maxes = self._structure.bounds()
        self.boxsize = self._box(boxsize)

    def _box(self, boxsize: Any) -> np.ndarray | None:
        if boxsize is None:
            return None
        periods = np.array(np.broadcast_to(np.asarray(boxsize, dtype=np.float64), (self.m,)))
        if not (np.isfinite(periods).all() and (periods >= 0).all()):
            raise ValueError(f"boxsize={boxsize}: lengths must be finite, and 0 where space does not repeat")
        for name, outside in (("greater", self.maxes >= periods), ("less", self.mins < 0)):
            wrong = np.flatnonzero(outside & (periods > 0))
            if self.n and len(wrong):
                raise ValueError(
                    f"data in dimension {wrong[0]} is {name} than the periodic box, which goes from 0 to "
                    f"{periods[wrong[0]]}"
                )
        return periods

    @property
    def indices(self) -> np.ndarray:
        """The points in the order of the leaves: ndarray of shape (n,)."""
        return self._structure.ids.astype(np.intp) if self._structure else np.empty(0, dtype=np.intp)

    @property
    def size(self) -> int:
        """How many nodes the tree has, leaves included."""
        leaves = -(-self.n // self._structure.block) if self._structure else 1
        return 2 * leaves - 1

    @property
    def tree(self) -> Node:
        """The root, to look at; the tree must not be empty."""
        return node(self, self._structure.n_levels if self._structure else 0, 0)

    def query(
        self,
        x: Any,
        k: int | Sequence[int] | np.ndarray = 1,
        eps: float = 0.0,
        p: float = 2.0,
        distance_upper_bound: float = np.inf,
        workers: int | None = None,
        *,
        max_leaves: int | None = None,
    ) -> tuple[Any, Any]:
        """The nearest points.

        Parameters
        ----------
        x : array-like of shape (..., m)
            Where to look from.
        k : int or sequence of int
            How many neighbours; or which of them, 1 being the nearest.
        eps : float
            The k-th is at most ``1 + eps`` times as far as the true one.
        p : float
            Of the Minkowski norm, from 1 (sum of differences) to infinity (the greatest).
        distance_upper_bound : float
            Only points nearer than this.
        workers : int, optional
            Threads: every core by default, and if -1. Results do not depend on them.
        max_leaves : int, optional
            Look at so many leaves only, in the order of their distances ("best bin first"): fast, and near
            the truth, in many dimensions.

        Returns
        -------
        distances : float or ndarray of shape (..., k)
            Nearest first; infinite for neighbours that there are not. Without the last dimension if k is 1.
        indices : int or ndarray of shape (..., k)
            Rows of `data`; n for neighbours that there are not.

        Raises
        ------
        ValueError
            For x of other dimensions or not finite, or a parameter out of range.
        TypeError
            If x is complex.

        Examples
        --------
        >>> import numpy as np
        >>> from fullspan.estimators import KDTree
        >>> distances, indices = KDTree(np.arange(10.0)[:, None]).query([[2.2], [7.9]], k=[1, 3])
        >>> print(indices)
        [[2 1]
         [8 9]]
        """
        ranks = _ranks(k)
        rows, shape = self._rows(x)
        if not eps >= 0:
            raise ValueError(f"eps={eps}: expected at least 0")
        if math.isnan(distance_upper_bound):
            raise ValueError("distance_upper_bound is not a number")
        if max_leaves is not None and max_leaves < 1:
            raise ValueError(f"max_leaves={max_leaves}: expected at least 1")
        _check_norm(p)
        most = int(ranks.max())
        distances = np.full((len(rows), most), np.inf)
        indices = np.full((len(rows), most), self.n, dtype=np.intp)
        threads = thread_count(workers, len(rows))
        if self._structure and len(rows):
            self._find(rows, p, (eps, distance_upper_bound), max_leaves, threads, (distances, indices))
        if np.ndim(k) == 0:
            last: tuple[int, ...] = (most,) if most > 1 else ()
        else:
            last = (len(ranks),)
            if not np.array_equal(ranks, np.arange(1, most + 1)):
                distances, indices = distances[:, ranks - 1], indices[:, ranks - 1]
        # Of one query for one neighbour, numbers.
        return distances.reshape(shape + last)[()], indices.reshape(shape + last)[()]

    def _find(
        self,
        rows: np.ndarray,
        p: float,
        reach: tuple[float, float],
        max_leaves: int | None,
        threads: int,
        found: tuple[np.ndarray, np.ndarray],
    ) -> None:
        structure = self._structure
        assert structure is not None
        eps, bound = reach
        homes = np.empty(len(rows), dtype=np.int64)
        rows = plain(rows)
        run(find_homes, threads, rows, structure.n_levels, structure.splits(), homes)
        order = np.argsort(homes) if len(rows) >= _WORTH_SORTING else np.arange(len(rows))
        exponent, tree, rows, metric = self._scaled(rows, p)
        slack = (1 + eps) ** -(p if math.isfinite(p) else 1)
        levels = len(structure.box_starts)
        room = LANES * levels if max_leaves is None else structure.boxes.shape[0] * LANES + 1
        work = (
            np.empty((threads, room + LANES)),
            np.empty((threads, room + LANES), dtype=np.int64),
            np.empty((threads, LANES)),
        )
        reaches = (float(ranges.powers(math.ldexp(bound, exponent), p)), slack)
        leaves = -1 if max_leaves is None else max_leaves
        run(nearest, threads, rows, order, homes, tree, metric, reaches, leaves, found, work)
        if exponent:
            found[0][:] = np.ldexp(found[0], -exponent)

    def _scaled(self, rows: np.ndarray, p: float) -> tuple[int, Any, np.ndarray, Any]:
        """An exponent of two, and tree, points and metric for kernels, times two to the power of it."""
        assert self._structure is not None
        largest = max(
            float(np.abs(each).max(initial=0.0)) for each in (self.mins, self.maxes, rows, self._periods())
        )
        exponent = exponent_for(largest)
        rows, periods = plain(rows), plain(self._periods())
        if exponent:
            rows, periods = np.ldexp(rows, exponent), np.ldexp(periods, exponent)
        return exponent, self._structure.scaled(exponent), rows, (*norm_of(p), periods)

    def _periods(self) -> np.ndarray:
        return np.empty(0) if self.boxsize is None else self.boxsize

    def _rows(self, x: Any, name: str = "x") -> tuple[np.ndarray, tuple[int, ...]]:
        """Points to look from: [n_queries, m], in the periodic box; and their shape without the last axis."""
        points = _points(x, name)
        if points.shape[-1:] != (self.m,):
            raise ValueError(
                f"{name} must consist of vectors of length {self.m}, as the tree's data; "
                f"got shape {points.shape}"
            )
        rows = points.reshape(-1, self.m)
        if self.boxsize is not None:
            periods = np.where(self.boxsize > 0, self.boxsize, np.inf)
            rows = np.where(self.boxsize > 0, np.mod(rows, periods), rows)
            rows[rows >= periods] = 0.0  # a negative number next to 0 is rounded up
        return rows, points.shape[:-1]

    def query_ball_point(
        self,
        x: Any,
        r: Any,
        p: float = 2.0,
        eps: float = 0.0,
        workers: int | None = None,
        return_sorted: bool | None = None,
        return_length: bool = False,
    ) -> Any:
        """All points within a distance; those at the distance itself too.

        Parameters
        ----------
        x : array-like of shape (..., m)
        r : array-like
            Distances; broadcast to the shape of x without its last axis.
        p : float
            Of the Minkowski norm, at least 1.
        eps : float
            Points up to ``r * (1 + eps)`` are taken as well.
        workers : int, optional
            Threads: every core by default, and if -1.
        return_sorted : bool, optional
            Whether indices are in order. By default they are if x is more than one point.
        return_length : bool
            Only how many points there are.

        Returns
        -------
        list of int, or ndarray of lists of shape (...)
            Rows of `data`; with `return_length` int or ndarray of int.

        Raises
        ------
        ValueError
            For x of other dimensions or not finite, or a parameter out of range.

        Examples
        --------
        >>> from fullspan.estimators import KDTree
        >>> KDTree([[0.0], [1.0], [2.0]]).query_ball_point([[0.0], [1.5]], 1.0).tolist()
        [[0, 1], [1, 2]]
        """
        _check_norm(p)
        rows, shape = self._rows(x)
        radii = ranges.radii_of(r, eps, shape)
        threads = thread_count(workers, len(rows))
        starts = ranges.count(self, rows, radii, p, threads)
        if return_length:
            return np.diff(starts).reshape(shape)[()]
        ids = ranges.collect(self, rows, radii, p, threads, starts)
        in_order = return_sorted if return_sorted is not None else len(shape) > 0
        return ranges.as_lists(ids, starts, shape, in_order)

    def query_box(
        self, low: Any, high: Any, workers: int | None = None, *, return_length: bool = False
    ) -> Any:
        """All points in a rectangle with sides along the axes; those on its border too.

        Parameters
        ----------
        low, high : array-like of shape (..., m)
            Its corners; infinite where a side is open.
        workers : int, optional
            Threads: every core by default, and if -1.
        return_length : bool
            Only how many points there are.

        Returns
        -------
        list of int, or ndarray of lists of shape (...)
            Rows of `data`, in order; with `return_length` int or ndarray of int.

        Raises
        ------
        ValueError
            If corners have other dimensions than the data or are no numbers, or the tree is periodic.

        Examples
        --------
        >>> from fullspan.estimators import KDTree
        >>> KDTree([[0.0, 0.0], [1.0, 3.0], [2.0, 1.0]]).query_box([0.5, 0.0], [2.0, 3.0])
        [1, 2]
        """
        if self.boxsize is not None:
            raise ValueError("query_box looks at space that does not repeat itself; this tree has a boxsize")
        corners = np.broadcast_arrays(np.asarray(low, dtype=float), np.asarray(high, dtype=float))
        for name, corner in zip(("low", "high"), corners, strict=True):
            if corner.shape[-1:] != (self.m,):
                raise ValueError(f"{name} must have {self.m} numbers, as the tree's data; got {corner.shape}")
            if np.isnan(corner).any():
                raise ValueError(f"{name} holds NaN")
        shape = corners[0].shape[:-1]
        rows = np.concatenate(corners, axis=-1).reshape(-1, 2 * self.m)
        threads = thread_count(workers, len(rows))
        starts = ranges.count(self, rows, None, 2.0, threads)
        if return_length:
            return np.diff(starts).reshape(shape)[()]
        return ranges.as_lists(ranges.collect(self, rows, None, 2.0, threads, starts), starts, shape, True)

    def query_ball_tree(self, other: KDTree, r: float, p: float = 2.0, eps: float = 0.0) -> list[list[int]]:
        """For each point, the points of another tree within a distance.

        Parameters
        ----------
        other : KDTree
        r : float
        p, eps
            As of `query_ball_point`.

        Returns
        -------
        list of lists of int
            For each row of `data`, rows of the other's, in order.

        Examples
        --------
        >>> from fullspan.estimators import KDTree
        >>> KDTree([[0.0], [9.0]]).query_ball_tree(KDTree([[0.5], [1.0]]), 0.7)
        [[0], []]
        """
        self._check_other(other)
        found: list[list[int]] = other.query_ball_point(self.data, r, p, eps).tolist()
        return found

    def query_pairs(
        self, r: float, p: float = 2.0, eps: float = 0.0, output_type: str = "set"
    ) -> set[tuple[int, int]] | np.ndarray:
        """All pairs of points within a distance of each other.

        Parameters
        ----------
        r : float
        p, eps
            As of `query_ball_point`.
        output_type : {"set", "ndarray"}

        Returns
        -------
        set of tuples (i, j) with i < j, or ndarray of shape (n_pairs, 2), in order
        """
        if output_type not in ("set", "ndarray"):
            raise ValueError(f"output_type={output_type!r}: expected 'set' or 'ndarray'")
        _check_norm(p)
        pairs = ranges.pairs(self, float(ranges.radii_of(r, eps, ())[()]), p)
        return pairs if output_type == "ndarray" else set(map(tuple, pairs.tolist()))

    def count_neighbors(
        self, other: KDTree, r: Any, p: float = 2.0, weights: Any = None, cumulative: bool = True
    ) -> Any:
        """How many pairs of a point here and one of another tree are within a distance.

        Parameters
        ----------
        other : KDTree
        r : float or array-like of shape (n_r,)
            Distances.
        p : float
            Of the Minkowski norm, at least 1.
        weights : tuple of array-likes, or array-like, optional
            Of the points here and there (None: 1 each); a pair counts as the product. One for both if they
            are the same tree.
        cumulative : bool
            If not, pairs that are within the distance before do not count again; distances are in order then.

        Returns
        -------
        int, float or ndarray of shape (n_r,)
            Floats if there are weights.

        Examples
        --------
        >>> from fullspan.estimators import KDTree
        >>> tree = KDTree([[0.0], [1.0], [3.0]])
        >>> print(tree.count_neighbors(tree, [0.0, 1.0, 2.0]))
        [3 5 7]
        """
        self._check_other(other)
        _check_norm(p)
        return ranges.count_pairs(self, other, np.asarray(r, dtype=float), p, weights, cumulative)

    def sparse_distance_matrix(
        self, other: KDTree, max_distance: float, p: float = 2.0, output_type: str = "dok_matrix"
    ) -> Any:
        """Distances to the points of another tree, without those above a limit.

        Parameters
        ----------
        other : KDTree
        max_distance : float
        p : float
            Of the Minkowski norm, at least 1.
        output_type : {"dok_matrix", "coo_matrix", "dok_array", "coo_array", "dict", "ndarray"}
            "ndarray" has the fields i, j and v.

        Returns
        -------
        sparse matrix or array of shape (self.n, other.n), dict or ndarray

        Examples
        --------
        >>> from fullspan.estimators import KDTree
        >>> KDTree([[0.0], [9.0]]).sparse_distance_matrix(KDTree([[0.5]]), 1.0, output_type="dict")
        {(0, 0): 0.5}
        """
        self._check_other(other)
        _check_norm(p)
        shape = (self.n, other.n)
        makers: dict[str, Callable[[Any], Any]] = {
            "dok_matrix": lambda each: sparse.coo_matrix(each, shape).todok(),
            "coo_matrix": lambda each: sparse.coo_matrix(each, shape),
            "dok_array": lambda each: sparse.coo_array(each, shape).todok(),
            "coo_array": lambda each: sparse.coo_array(each, shape),
            "dict": lambda each: dict(
                zip(zip(each[1][0].tolist(), each[1][1].tolist(), strict=True), each[0].tolist(), strict=True)
            ),
            "ndarray": ranges.as_records,
        }
        if output_type not in makers:
            raise ValueError(f"output_type={output_type!r}: expected one of {', '.join(makers)}")
        return makers[output_type](ranges.distances(self, other, max_distance, p))

    def _check_other(self, other: KDTree) -> None:
        if not isinstance(other, KDTree):
            raise TypeError(f"other must be a KDTree, not a {type(other).__name__}")
        if other.m != self.m:
            raise ValueError(f"the other tree has {other.m} dimensions, this one {self.m}")
        if not np.array_equal(other._periods(), self._periods()):
            raise ValueError(f"the other tree's boxsize is {other.boxsize}, this one's {self.boxsize}")


def _points(data: Any, name: str, copy: bool = False) -> np.ndarray:
    """Finite float64 in C order."""
    points = np.asarray(data)
    if points.dtype.kind == "c":
        raise TypeError(f"KDTree does not work with complex data, as in {name}")
    points = np.array(points, dtype=np.float64, order="C", copy=True if copy else None)
    with np.errstate(over="ignore", invalid="ignore"):
        suspect = not math.isfinite(points.sum())
    if suspect and not np.isfinite(points).all():
        raise ValueError(f"{name} must be finite, check for nan or inf values")
    return points


def _ranks(k: Any) -> np.ndarray:
    if k is None:
        raise ValueError("k must be an integer or a sequence of integers, not None")
    ranks = np.asarray(k)
    if ranks.dtype.kind not in "iu" or ranks.ndim > 1 or ranks.size == 0:
        raise ValueError(f"k must be an integer or a sequence of integers; got {k!r}")
    if ranks.min() < 1:
        raise ValueError(f"k must be at least 1; got {ranks.min()}")
    return ranks if ranks.ndim else np.array([int(ranks)])


def _check_norm(p: float) -> None:
    if not p >= 1:
        raise ValueError(f"p={p}: only norms with 1 <= p <= infinity are possible")
