"""KDTree against scipy's: the same neighbours, and distances to the last bit."""

from __future__ import annotations

import itertools
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from fullspan import estimators
from fullspan.estimators import KDTree
from fullspan.estimators.neighbors._query_kernels import nearest

NORMS = [1, 2, 3.5, np.inf]
RNG = np.random.default_rng(0)


def points(kind: str, n: int, m: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    match kind:
        case "uniform":
            return rng.random((n, m))
        case "clusters":  # on scales from 1e-6 to 1, and far from the origin
            return rng.normal(size=(n, m)) * 10.0 ** rng.integers(-6, 1, (n, 1)) + rng.integers(0, 3, (n, 1))
        case "line":  # all dimensions depend on one
            return np.linspace(0, 1, n)[:, None] ** np.arange(1, m + 1)
    raise AssertionError(kind)


def both(x: np.ndarray, q: np.ndarray, k: Any, boxsize: Any = None, **options: Any) -> None:
    ours = KDTree(x, boxsize=boxsize).query(q, k, **options)
    theirs = cKDTree(x, boxsize=boxsize).query(q, k, **options)
    assert np.array_equal(ours[1], theirs[1])
    if options.get("p") == 3.5:  # sums of powers; the functions for them differ in the last bit
        np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-13)
    else:
        assert np.array_equal(ours[0], theirs[0])


@pytest.mark.parametrize("kind", ["uniform", "clusters", "line"])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (15, 2), (17, 3), (300, 1), (5000, 3), (2000, 8), (600, 21)])
def test_the_nearest_are_scipys(kind: str, n: int, m: int) -> None:
    x, q = points(kind, n, m), points(kind, 150, m, seed=1)
    both(x, q, 5)
    both(x, 3 * q, [2, 40])  # kept in a heap; where there are none: infinity and n


@pytest.mark.parametrize("p", NORMS)
def test_every_norm(p: float) -> None:
    x, q = points("uniform", 2000, 6), points("uniform", 100, 6, seed=1)
    both(x, q, 7, p=p)
    both(x, q, 7, p=p, distance_upper_bound=0.3)
    both(x, q, 3, p=p, boxsize=[1, 1.5, 0, 1, 2, 0])


def test_a_period_moves_nothing_and_no_point_comes_twice() -> None:
    x = points("uniform", 700, 3)
    tree = KDTree(x, boxsize=1.0)
    distances, indices = tree.query(x, 700)
    assert (np.sort(indices, axis=1) == np.arange(700)).all()
    for shift in (-1.0, 3.0):
        moved = tree.query(x + shift, 9)
        np.testing.assert_allclose(moved[0], distances[:, :9], atol=1e-14)
        assert np.array_equal(moved[1], indices[:, :9])
    images = np.concatenate([x + np.array(step) for step in itertools.product((-1, 0, 1), repeat=3)])
    np.testing.assert_allclose(KDTree(images).query(x, 9)[0], distances[:, :9], atol=1e-14)
    assert KDTree([[0.0]], boxsize=1.0).query([-1e-300])[0] == 0  # rounds to the period itself


def test_equally_far_neighbours_come_by_index_and_duplicates_are_no_trouble() -> None:
    grid = RNG.integers(0, 4, (3000, 2)).astype(float)  # 16 places
    tree = KDTree(grid)
    distances, indices = tree.query(grid[:50], 300)
    assert np.array_equal(distances, cKDTree(grid).query(grid[:50], 300)[0])
    for d, i in zip(distances, indices, strict=True):
        assert len(set(i)) == 300 and np.array_equal(np.lexsort((i, d)), np.arange(300))
    same = KDTree(np.full((5000, 3), 7.0))
    assert same.query_ball_point([7.0, 7, 7], 0, return_length=True) == 5000
    assert (same.query([[7.0, 7, 7], [9, 7, 7]], 2)[0] == [[0, 0], [2, 2]]).all()
    few_apart = np.r_[np.zeros(40_000), RNG.random(9_000), np.full(2_000, 0.5)][:, None]
    both(few_apart[40_000:49_000], few_apart[:100], 3)
    assert np.array_equal(
        KDTree(few_apart).query(few_apart[-50:], 8)[0], cKDTree(few_apart).query(few_apart[-50:], 8)[0]
    )


@pytest.mark.parametrize("exponent", [-1060, -600, 600, 1020])
def test_tiny_and_huge_numbers_are_no_trouble(exponent: int) -> None:
    # In units of the smallest number there is, and so far that squares overflow: scipy finds 0 or nothing.
    x, q = RNG.integers(-500, 500, (2000, 3)).astype(float), RNG.integers(-500, 500, (40, 3)).astype(float)
    plain = KDTree(x).query(q, 4)
    tree = KDTree(np.ldexp(x, exponent - 9))
    distances, indices = tree.query(np.ldexp(q, exponent - 9), 4)
    assert np.array_equal(indices, plain[1])
    if exponent > -1060:  # square roots of numbers below the normal ones are rounded to these
        assert np.array_equal(distances, np.ldexp(plain[0], exponent - 9))
    near = tree.query_ball_point(np.ldexp(q, exponent - 9), np.ldexp(120.0, exponent - 9), return_length=True)
    assert np.array_equal(near, KDTree(x).query_ball_point(q, 120.0, return_length=True))


@pytest.mark.parametrize("p", NORMS)
@pytest.mark.parametrize("boxsize", [None, 1.0])
def test_ranges_are_scipys(p: float, boxsize: float | None) -> None:
    x, y = points("uniform", 1500, 3), points("uniform", 400, 3, seed=1)
    ours, theirs = ((kind(x, boxsize=boxsize), kind(y, boxsize=boxsize)) for kind in (KDTree, cKDTree))
    radii = np.linspace(0, 0.4, 400)
    found = ours[0].query_ball_point(y, radii, p)
    assert [*found] == [*theirs[0].query_ball_point(y, radii, p)]
    assert ours[0].query_ball_point(x[0], -0.1, p) == []  # scipy squares it
    lengths = ours[0].query_ball_point(y.reshape(20, 20, 3), radii.reshape(20, 20), p, return_length=True)
    assert lengths.ravel().tolist() == [len(each) for each in found]
    assert ours[1].query_ball_tree(ours[0], 0.2, p) == [
        sorted(each) for each in theirs[1].query_ball_tree(theirs[0], 0.2, p)
    ]
    assert ours[0].query_pairs(0.08, p) == theirs[0].query_pairs(0.08, p)
    r = np.array([0.3, 0.0, 0.05, 0.05, 2.0, np.inf])
    assert np.array_equal(
        ours[0].count_neighbors(ours[1], r, p),
        [*theirs[0].count_neighbors(theirs[1], r[:-1], p), 600_000],
    )
    weights = RNG.random(1500), RNG.random(400)
    for cumulative in (True, False):
        np.testing.assert_allclose(
            ours[0].count_neighbors(ours[1], np.sort(r[:-1]), p, weights, cumulative),
            theirs[0].count_neighbors(theirs[1], np.sort(r[:-1]), p, weights, cumulative),
            rtol=1e-11,  # sums of 600,000 products
            atol=1e-8,
        )
    near = ours[0].sparse_distance_matrix(ours[1], 0.2, p, output_type="coo_array")
    np.testing.assert_allclose(
        near.toarray(),
        theirs[0].sparse_distance_matrix(theirs[1], 0.2, p, output_type="coo_matrix").toarray(),
        rtol=1e-13,
    )


def test_kinds_of_output() -> None:
    x = points("uniform", 60, 2)
    tree = KDTree(x)
    distances = cdist(x, x) * (cdist(x, x) <= 0.3)
    for kind in ("dok_matrix", "coo_matrix", "dok_array", "coo_array"):
        np.testing.assert_allclose(
            tree.sparse_distance_matrix(tree, 0.3, output_type=kind).toarray(), distances, rtol=1e-14
        )
    records = tree.sparse_distance_matrix(tree, 0.3, output_type="ndarray")
    as_dict = tree.sparse_distance_matrix(tree, 0.3, output_type="dict")
    assert as_dict == {(i, j): v for i, j, v in records.tolist()} and len(as_dict) > 60
    pairs = tree.query_pairs(0.3, output_type="ndarray")
    assert set(map(tuple, pairs.tolist())) == tree.query_pairs(0.3)
    assert tree.count_neighbors(tree, 0.3) == 2 * len(pairs) + 60
    single = tree.query(x[0])
    assert single[0] == 0.0 and single[1] == 0 and np.ndim(single[0]) == 0
    assert tree.query(x.reshape(3, 20, 2), 3)[0].shape == (3, 20, 3)
    assert tree.query(x, [1])[0].shape == (60, 1) and tree.query(x, 1)[1].shape == (60,)
    assert isinstance(tree.query_ball_point(x[0], 0.1), list)


def test_rectangles() -> None:
    x = RNG.integers(0, 30, (4000, 3)).astype(float)
    low, high = RNG.integers(0, 30, (2, 50, 3)).astype(float)
    low[0] = -np.inf
    found = KDTree(x).query_box(low, high)
    expected = [
        np.flatnonzero(((x >= a) & (x <= b)).all(axis=1)).tolist() for a, b in zip(low, high, strict=True)
    ]
    assert [*found] == expected and 0 in map(len, expected) and max(map(len, expected)) > 100
    assert KDTree(x).query_box(low, high, return_length=True).tolist() == [len(each) for each in expected]


def test_eps_keeps_its_promises() -> None:
    x, q = points("uniform", 4000, 5), points("uniform", 200, 5, seed=1)
    tree = KDTree(x)
    exact, near = tree.query(q, 4)[0], tree.query(q, 4, eps=0.5)[0]
    assert (near <= 1.5 * exact).all() and (near >= exact).all() and (near > exact).any()
    distances = cdist(q, x)
    for row, each in enumerate(tree.query_ball_point(q, 0.2, eps=0.3)):
        assert set(np.flatnonzero(distances[row] <= 0.2 / 1.3)) <= set(each)
        assert distances[row][each].max(initial=0) <= 0.2 * 1.3


def test_best_bin_first_nears_the_truth_leaf_by_leaf() -> None:
    x, q = points("uniform", 5000, 12), points("uniform", 200, 12, seed=1)
    tree = KDTree(x)
    exact = tree.query(q, 2)
    found = [(tree.query(q, 2, max_leaves=leaves)[1] == exact[1]).mean() for leaves in (1, 8, 64, 400)]
    assert found == sorted(found) and found[0] < 0.5 and found[-1] == 1.0
    # One leaf holds 16 points, and the home leaf is not looked at in vain.
    assert np.isinf(tree.query(q, 17, max_leaves=1)[0][:, 16]).all()


def test_threads_and_kinds_of_numbers_change_nothing() -> None:
    x, q = points("clusters", 30_000, 3), points("clusters", 9_000, 3, seed=1)
    tree = KDTree(x)
    expected = tree.query(q, 3, workers=1)
    for workers in (2, 5, -1):
        found = tree.query(q, 3, workers=workers)
        assert np.array_equal(found[0], expected[0]) and np.array_equal(found[1], expected[1])
    weights = RNG.random(30_000)
    sums = [tree.count_neighbors(tree, [1e-3, 1e-2], weights=weights) for _ in range(2)]
    assert np.array_equal(*sums)
    coarse = x.astype(np.float32), q.astype(np.float32)  # some are equally far then
    assert np.array_equal(KDTree(coarse[0]).query(coarse[1], 3)[0], cKDTree(coarse[0]).query(coarse[1], 3)[0])
    both(np.asfortranarray(x), q[::-1, ::-1], 3)
    x.flags.writeable = q.flags.writeable = False
    known = len(nearest.signatures)
    both(x, q, 3)
    assert len(nearest.signatures) == known  # nothing is compiled for arrays that must not be written
    assert KDTree([[0, 0], [3, 4]]).query([0, 0], 2)[0].tolist() == [0, 5]


def test_kept_and_copied(tmp_path: Path) -> None:
    x = points("uniform", 300, 4)
    tree = KDTree(x, boxsize=1.0, copy_data=True)
    assert KDTree(x).data is x and tree.data is not x
    expected = tree.query(x, 5)
    tree.save(tmp_path / "tree")
    for other in (estimators.load(tmp_path / "tree"), pickle.loads(pickle.dumps(tree))):
        assert np.array_equal(other.query(x, 5)[1], expected[1]) and other.leafsize == 10
    x[:] = 0
    assert np.array_equal(tree.query(tree.data, 5)[1], expected[1])


@pytest.mark.parametrize("leafsize", [1, 40])
def test_the_tree_can_be_looked_at(leafsize: int) -> None:
    x = points("clusters", 1000, 3)
    tree = KDTree(x, leafsize)
    assert (tree.n, tree.m, tree.leafsize) == (1000, 3, leafsize)
    assert np.array_equal(tree.mins, x.min(axis=0)) and np.array_equal(tree.maxes, x.max(axis=0))
    nodes, leaves = [tree.tree], []
    count = 0
    while nodes:
        node = nodes.pop()
        count += 1
        assert np.array_equal(node.data_points, x[node.idx]) and node.children == len(node.idx)
        if isinstance(node, KDTree.leafnode):
            leaves.append(node.idx)
            assert node.children <= 48 and node.lesser is node.greater is None
        else:
            assert node.lesser.children + node.greater.children == node.children
            assert node.lesser.data_points[:, node.split_dim].max() <= node.split
            assert node.greater.data_points[:, node.split_dim].min() >= node.split
            nodes += [node.less, node.greater]
    assert count == tree.size and sorted(np.concatenate(leaves)) == list(range(1000))


def test_no_points_at_all() -> None:
    tree = KDTree(np.empty((0, 3)))
    distances, indices = tree.query(np.ones((2, 3)), 2)
    assert np.isinf(distances).all() and (indices == 0).all()
    assert tree.query_ball_point(np.ones((1, 3)), 1.0).tolist() == [[]]
    assert tree.query_pairs(1.0) == set() and tree.query_pairs(1.0, output_type="ndarray").shape == (0, 2)
    assert tree.count_neighbors(tree, [0, 1]).tolist() == [0, 0]
    assert tree.sparse_distance_matrix(tree, 0.3).shape == (0, 0)
    full = KDTree(np.ones((4, 3)))
    assert full.query(np.empty((0, 3)), 2)[0].shape == (0, 2)
    assert full.query_ball_tree(tree, 1.0) == [[]] * 4 and tree.query_ball_tree(full, 1.0) == []
