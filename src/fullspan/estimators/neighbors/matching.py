"""Pairs of descriptors, such as SIFT features of two images, that most likely show the same thing."""

from __future__ import annotations

from typing import Any

import numpy as np

from fullspan.estimators.neighbors.kd_tree import KDTree


def match(
    descriptors_a: Any,
    descriptors_b: Any,
    ratio: float = 0.8,
    *,
    max_leaves: int | None = None,
    workers: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Match descriptors to their nearest neighbours where the second nearest is clearly farther.

    A feature that shows in one image only has a nearest neighbour too, but most likely a second one nearly as
    near: such matches are left out (Lowe's ratio test).

    Parameters
    ----------
    descriptors_a : array-like of shape (n_a, n_dimensions)
        Those that get a match, or none.
    descriptors_b : array-like of shape (n_b, n_dimensions)
        Those that are matched to; at least 2.
    ratio : float
        The nearest must be nearer than this times the second nearest; above 0, at most 1.
    max_leaves : int, optional
        Leaves of the kd-tree to look at, nearest first ("best bin first"); all that are needed by default.
        200 find most matches of some thousand SIFT descriptors.
    workers : int, optional
        Threads: every core by default.

    Returns
    -------
    pairs : int ndarray of shape (n_matches, 2)
        Rows of `descriptors_a` and of `descriptors_b`, in order of the first.
    distances : ndarray of shape (n_matches,)

    Raises
    ------
    ValueError
        If descriptors are no tables with as many columns, or not finite; if there are fewer than 2 to match
        to; or a parameter is out of range.

    References
    ----------
    D. G. Lowe, "Distinctive Image Features from Scale-Invariant Keypoints", International Journal of Computer
    Vision 60(2), 2004, sections 7.1 and 7.2. J. S. Beis and D. G. Lowe, "Shape Indexing Using Approximate
    Nearest-Neighbour Search in High-Dimensional Spaces", CVPR 1997.

    Examples
    --------
    >>> from fullspan.estimators import match
    >>> pairs, distances = match([[0.1, 0.0], [5.0, 5.0]], [[0.0, 0.0], [9.0, 9.0], [1.0, 1.0]])
    >>> print(pairs, distances)
    [[0 0]] [0.1]
    """
    if not 0 < ratio <= 1:
        raise ValueError(f"ratio={ratio}: expected above 0, at most 1")
    tables = []
    for name, each in (("descriptors_a", descriptors_a), ("descriptors_b", descriptors_b)):
        table = np.asarray(each)
        if table.ndim != 2:
            raise ValueError(f"{name} must be a table, a row for each feature; got shape {table.shape}")
        tables.append(table)
    a, b = tables
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"descriptors_a has {a.shape[1]} columns, descriptors_b {b.shape[1]}")
    if len(b) < 2:
        raise ValueError(f"descriptors_b has {len(b)} rows; the second nearest is needed too")
    distances, nearest = KDTree(b).query(a, 2, workers=workers, max_leaves=max_leaves)
    rows = np.flatnonzero(distances[:, 0] < ratio * distances[:, 1])
    return np.column_stack([rows, nearest[rows, 0]]), distances[rows, 0]
