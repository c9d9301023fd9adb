"""What `KDTree` does with ranges: distances in, indices, lists and sums out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from fullspan.core.simd import LANES
from fullspan.estimators.neighbors._range_kernels import CHUNK, RECTANGLE, count_within, within
from fullspan.estimators.neighbors._structure import plain, run, thread_count

if TYPE_CHECKING:
    from fullspan.estimators.neighbors.kd_tree import KDTree

_NOTHING = np.empty(0)
_NO_IDS = np.empty(0, dtype=np.intp)
_RECORD = np.dtype([("i", np.intp), ("j", np.intp), ("v", np.float64)], align=True)


def powers(distances: Any, p: float) -> Any:
    """Distances as kernels measure them."""
    with np.errstate(over="ignore"):
        return np.asarray(distances) ** (p if math.isfinite(p) else 1)


def _limits(radii: np.ndarray, exponent: int, p: float) -> np.ndarray:
    """Powers of radii; of negative ones, which nothing is within, -1."""
    with np.errstate(over="ignore"):
        scaled = np.ldexp(radii, exponent)
    return np.where(radii < 0, -1.0, powers(np.abs(scaled), p))


def radii_of(r: Any, eps: float, shape: tuple[int, ...]) -> np.ndarray:
    """Radii of queries, checked."""
    if not eps >= 0:
        raise ValueError(f"eps={eps}: expected at least 0")
    radii = np.asarray(r, dtype=np.float64)
    if np.isnan(radii).any():
        raise ValueError("r holds NaN")
    try:
        return np.broadcast_to(radii * (1 + eps) if eps else radii, shape)
    except ValueError:
        raise ValueError(f"r has shape {radii.shape}, which does not fit the points' {shape}") from None


def _search(
    tree: KDTree,
    rows: np.ndarray,
    radii: np.ndarray | None,
    p: float,
    threads: int,
    starts: np.ndarray,
    out: tuple[np.ndarray, np.ndarray],
    *,
    only_after: bool = False,
    whole: bool = True,
) -> None:
    if tree._structure is None or not len(rows):
        return
    exponent, kernels_tree, scaled, metric = (
        tree._scaled(rows, p)
        if radii is not None
        else (0, tree._structure.scaled(0), rows, (2, 2.0, _NOTHING))
    )
    if radii is None:
        limits, metric = np.zeros(len(rows)), (RECTANGLE, *metric[1:])
    else:
        limits = _limits(np.ascontiguousarray(radii.reshape(-1)), exponent, p)
    room = LANES * (len(tree._structure.box_starts) + 1)
    work = (np.empty((threads, room), dtype=np.int64), np.empty((threads, LANES)))
    run(within, threads, scaled, kernels_tree, metric, limits, only_after, whole, starts, out, work)
    if exponent and len(out[1]):
        out[1][:] = np.ldexp(out[1], -exponent)


def count(
    tree: KDTree, rows: np.ndarray, radii: np.ndarray | None, p: float, threads: int, only_after: bool = False
) -> np.ndarray:
    """Where each row's points begin if they are written one after the other: [n_rows + 1]."""
    starts = np.zeros(len(rows) + 1, dtype=np.int64)
    _search(tree, rows, radii, p, threads, starts, (_NO_IDS, _NOTHING), only_after=only_after)
    return np.cumsum(starts)


def collect(
    tree: KDTree,
    rows: np.ndarray,
    radii: np.ndarray | None,
    p: float,
    threads: int,
    starts: np.ndarray,
    distances: np.ndarray = _NOTHING,
    only_after: bool = False,
) -> np.ndarray:
    """The points themselves; distances too where there is room for them."""
    ids = np.empty(starts[-1], dtype=np.intp)
    if len(ids):
        out = (ids, distances)
        whole = len(distances) == 0
        _search(tree, rows, radii, p, threads, starts, out, only_after=only_after, whole=whole)
    return ids


def as_lists(ids: np.ndarray, starts: np.ndarray, shape: tuple[int, ...], in_order: bool) -> Any:
    """A list for each query."""
    if in_order:
        owners = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        ids = ids[np.lexsort((ids, owners))]
    if not shape:
        return ids.tolist()
    lists = np.empty(len(starts) - 1, dtype=object)
    every, ends = ids.tolist(), starts.tolist()
    for row in range(len(lists)):
        lists[row] = every[ends[row] : ends[row + 1]]
    return lists.reshape(shape)


def pairs(tree: KDTree, radius: float, p: float) -> np.ndarray:
    """Pairs of points within a radius: [n_pairs, 2], the lower index first, in order."""
    order = tree.indices
    rows, radii = tree.data[order], np.full(tree.n, radius)
    threads = thread_count(None, tree.n)
    starts = count(tree, rows, radii, p, threads, only_after=True)
    ids = collect(tree, rows, radii, p, threads, starts, only_after=True)
    owners = np.repeat(order, np.diff(starts))
    both = np.column_stack([np.minimum(ids, owners), np.maximum(ids, owners)])
    return both[np.lexsort((both[:, 1], both[:, 0]))]


def distances(
    tree: KDTree, other: KDTree, most: float, p: float
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Distances up to a limit, and the rows here and there that they are between, in order."""
    radii = radii_of(most, 0.0, (tree.n,))
    threads = thread_count(None, tree.n)
    starts = count(other, tree.data, radii, p, threads)
    values = np.empty(starts[-1])
    ids = collect(other, tree.data, radii, p, threads, starts, values)
    owners = np.repeat(np.arange(tree.n), np.diff(starts))
    order = np.lexsort((ids, owners))
    return values[order], (owners[order], ids[order])


def as_records(found: tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Fields i, j and v."""
    values, (i, j) = found
    records = np.empty(len(values), dtype=_RECORD)
    records["i"], records["j"], records["v"] = i, j, values
    return records


def count_pairs(tree: KDTree, other: KDTree, r: np.ndarray, p: float, weights: Any, cumulative: bool) -> Any:
    """See `KDTree.count_neighbors`."""
    if r.ndim > 1 or np.isnan(r).any():
        raise ValueError("r must be a number or a list of numbers")
    radii = np.atleast_1d(r)
    if not cumulative and (np.diff(radii) < 0).any():
        raise ValueError("r must be in order where counts are not cumulative")
    own, others = _weights(tree, other, weights)
    sums = np.zeros(len(radii))
    if tree._structure is not None and other._structure is not None and len(radii):
        order = np.argsort(radii, kind="stable")
        bins = _binned(tree, other, radii[order], p, own, others)
        if cumulative:
            bins = np.cumsum(bins)
        sums[order] = bins
    result = sums if weights is not None else np.rint(sums).astype(np.intp)
    return result.reshape(r.shape)[()]


def _weights(tree: KDTree, other: KDTree, weights: Any) -> tuple[np.ndarray, np.ndarray]:
    """Of each point here, and there; empty where all are 1."""
    if not isinstance(weights, tuple):
        if weights is not None and tree is not other:
            raise ValueError("weights: of two different trees, give a tuple of the weights of both")
        weights = (weights, weights)
    if len(weights) != 2:
        raise ValueError(f"weights: expected those of 2 trees, got {len(weights)}")
    checked = []
    for each, which in zip(weights, (tree, other), strict=True):
        values = _NOTHING if each is None else plain(np.ascontiguousarray(each, dtype=np.float64))
        if each is not None and values.shape != (which.n,):
            raise ValueError(f"weights: expected one for each of {which.n} points, got shape {values.shape}")
        checked.append(values)
    return checked[0], checked[1]


def _binned(
    tree: KDTree, other: KDTree, radii: np.ndarray, p: float, own: np.ndarray, others: np.ndarray
) -> np.ndarray:
    """Weights of pairs within each radius but not within the one before; radii are in order."""
    structure = other._structure
    assert structure is not None
    here = tree.indices
    exponent, kernels_tree, rows, metric = other._scaled(tree.data[here], p)
    limits = _limits(radii, exponent, p)
    own, others = (own[here] if len(own) else own), (others[other.indices] if len(others) else others)
    levels: list[np.ndarray] = []
    starts = [0]
    if len(others):
        sums = np.add.reduceat(others, np.arange(0, other.n, structure.block))
        while len(levels) < len(structure.box_starts):
            levels.append(sums)
            starts.append(starts[-1] + len(sums))
            sums = np.add.reduceat(sums, np.arange(0, len(sums), LANES))
    node_weights = (np.concatenate(levels) if levels else _NOTHING, np.array(starts))
    threads = thread_count(None, tree.n)
    room = LANES * (len(structure.box_starts) + 1)
    work = (
        np.empty((threads, room), dtype=np.int64),
        np.empty((threads, room), dtype=np.int64),
        np.empty((threads, LANES)),
        np.empty((threads, LANES)),
    )
    sums = np.zeros((-(-tree.n // CHUNK), len(radii) + 1))
    run(count_within, threads, rows, kernels_tree, metric, limits, (own, others), node_weights, sums, work)
    return sums.sum(axis=0)[:-1]  # type: ignore[no-any-return]
