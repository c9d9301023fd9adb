"""What kd-trees refuse, and how they say so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fullspan.estimators import KDTree

TREE = KDTree(np.random.default_rng(0).random((50, 3)))
X = np.zeros((2, 3))


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ([[0.0, np.nan]], {}, "data must be finite"),
        ([[0.0, np.inf]], {}, "data must be finite"),
        ([0.0, 1.0], {}, r"data must be a table of points, .* got \(2,\)"),
        (np.empty((3, 0)), {}, r"data must be a table"),
        ([["a", "b"]], {}, "could not convert"),
        ([[0.0]], {"leafsize": 0}, "leafsize=0"),
        ([[0.5], [1.5]], {"boxsize": 1.0}, "dimension 0 is greater than the periodic box"),
        ([[0.5], [-0.5]], {"boxsize": 1.0}, "dimension 0 is less than the periodic box"),
        ([[0.5]], {"boxsize": -1.0}, "boxsize=-1.0"),
        ([[0.5]], {"boxsize": np.nan}, "boxsize=nan"),
    ],
)
def test_trees(data: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KDTree(data, **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: TREE.query([1.0, 2.0]), r"x must consist of vectors of length 3, .* got shape \(2,\)"),
        (lambda: TREE.query([1.0, 2.0, np.nan]), "x must be finite"),
        (lambda: TREE.query(X, k=0), "k must be at least 1; got 0"),
        (lambda: TREE.query(X, k=None), "k must be an integer or a sequence of integers"),
        (lambda: TREE.query(X, k=1.5), "k must be an integer or a sequence of integers"),
        (lambda: TREE.query(X, k=[]), "k must be an integer or a sequence of integers"),
        (lambda: TREE.query(X, p=0.5), "p=0.5"),
        (lambda: TREE.query(X, eps=-1), "eps=-1"),
        (lambda: TREE.query(X, workers=0), "workers=0"),
        (lambda: TREE.query(X, max_leaves=0), "max_leaves=0"),
        (lambda: TREE.query(X, distance_upper_bound=np.nan), "distance_upper_bound"),
        (lambda: TREE.query_ball_point(X, [1.0, 2.0, 3.0]), r"r has shape \(3,\)"),
        (lambda: TREE.query_ball_point(X, np.nan), "r holds NaN"),
        (lambda: TREE.query_box([0.0, 0.0], [1.0, 1.0, 1.0]), "shape mismatch"),
        (lambda: TREE.query_box([0.0, 0.0], [1.0, 1.0]), "low must have 3 numbers"),
        (lambda: TREE.query_box([np.nan] * 3, [1.0] * 3), "low holds NaN"),
        (lambda: KDTree([[0.5]], boxsize=1.0).query_box([0.0], [1.0]), "boxsize"),
        (lambda: TREE.query_pairs(1.0, output_type="list"), "output_type='list'"),
        (lambda: TREE.query_ball_tree(KDTree([[1.0]]), 1.0), "1 dimensions, this one 3"),
        (lambda: TREE.query_ball_tree(KDTree(X, boxsize=1.0), 1.0), "boxsize"),
        (lambda: TREE.sparse_distance_matrix(TREE, 1.0, output_type="csr"), "output_type='csr'"),
        (lambda: TREE.count_neighbors(TREE, [0.1, 0.0], cumulative=False), "r must be in order"),
        (lambda: TREE.count_neighbors(TREE, 1.0, weights=np.ones(3)), "one for each of 50 points"),
        (lambda: TREE.count_neighbors(KDTree(X), 1.0, weights=np.ones(50)), "tuple of the weights of both"),
    ],
)
def test_questions(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_types() -> None:
    with pytest.raises(TypeError, match="complex data"):
        KDTree(np.zeros((2, 2), dtype=complex))
    with pytest.raises(TypeError, match="complex data"):
        TREE.query(X * 1j)
    with pytest.raises(TypeError, match="other must be a KDTree"):
        TREE.query_ball_tree(X, 1.0)  # type: ignore[arg-type]
