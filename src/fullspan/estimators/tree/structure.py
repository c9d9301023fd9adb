"""A finished decision tree as parallel arrays, with scikit-learn's names for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
import sklearn.utils
from numpy.typing import NDArray

from fullspan.estimators.saving import Saveable
from fullspan.estimators.tree._kernels import apply_csr, apply_dense, average_over_others, node_depths

LEAF = -1
UNDEFINED = -2


class Tree(Saveable):
    """One binary tree. Node 0 is the root, and children come after their parents.

    A row goes left when ``x[feature] <= threshold``, with x as float32. NaN goes left where
    `missing_go_to_left` is set. In a categorical split x holds the category's code, and the row goes left
    when the code's bit is set; a code beyond the known ones goes where NaN goes.

    Parameters
    ----------
    n_features : int
    n_classes : array of shape (n_outputs,)
        Classes of each output; ones for regression.
    children_left, children_right : int64 array of shape (node_count,)
        -1 at leaves.
    feature : int64 array of shape (node_count,)
        -2 at leaves.
    threshold : float64 array of shape (node_count,)
        -2.0 at leaves, NaN at categorical splits.
    impurity, weighted_n_node_samples : float64 array of shape (node_count,)
    n_node_samples : int64 array of shape (node_count,)
    value : float64 array of shape (node_count, n_outputs, max_n_classes)
        Fractions of the classes, or means of the targets (with one "class").
    missing_go_to_left : uint8 array of shape (node_count,)
    category_start : int64 array of shape (node_count + 1,), optional
        ``category_words[category_start[i]:category_start[i + 1]]`` are the bits of node i, none for a numeric
        split; None when no split is categorical.
    category_words : uint64 array, optional

    Examples
    --------
    >>> import numpy as np
    >>> one, zero = np.array([1]), np.zeros(3)
    >>> tree = Tree(1, one, np.array([1, -1, -1]), np.array([2, -1, -1]), np.array([0, -2, -2]),
    ...             np.array([0.5, -2, -2]), zero, np.array([4, 2, 2]), np.array([4.0, 2, 2]),
    ...             np.array([3.0, 1, 5]).reshape(3, 1, 1), zero.astype(np.uint8))
    >>> tree.predict(np.array([[0.0], [1.0]], dtype=np.float32))
    array([[1.],
           [5.]])
    """

    def __init__(
        self,
        n_features: int,
        n_classes: NDArray[np.int64],
        children_left: NDArray[np.int64],
        children_right: NDArray[np.int64],
        feature: NDArray[np.int64],
        threshold: NDArray[np.float64],
        impurity: NDArray[np.float64],
        n_node_samples: NDArray[np.int64],
        weighted_n_node_samples: NDArray[np.float64],
        value: NDArray[np.float64],
        missing_go_to_left: NDArray[np.uint8],
        category_start: NDArray[np.int64] | None = None,
        category_words: NDArray[np.uint64] | None = None,
    ) -> None:
        self.n_features = int(n_features)
        self.n_classes = np.ascontiguousarray(n_classes, np.int64)
        self.children_left = np.ascontiguousarray(children_left, np.int64)
        self.children_right = np.ascontiguousarray(children_right, np.int64)
        self.feature = np.ascontiguousarray(feature, np.int64)
        self.threshold = np.ascontiguousarray(threshold, np.float64)
        self.impurity = np.ascontiguousarray(impurity, np.float64)
        self.n_node_samples = np.ascontiguousarray(n_node_samples, np.int64)
        self.weighted_n_node_samples = np.ascontiguousarray(weighted_n_node_samples, np.float64)
        self.value = np.ascontiguousarray(value, np.float64)
        self.missing_go_to_left = np.ascontiguousarray(missing_go_to_left, np.uint8)
        self.category_start = category_start
        self.category_words = category_words

    @property
    def node_count(self) -> int:
        """Splits and leaves together."""
        return len(self.children_left)

    @property
    def capacity(self) -> int:
        """Nodes that there is room for: just those that there are."""
        return self.node_count

    @property
    def n_outputs(self) -> int:
        """How many targets one row has."""
        return len(self.n_classes)

    @property
    def max_n_classes(self) -> int:
        """Classes of the output that has most."""
        return int(self.n_classes.max())

    @property
    def n_leaves(self) -> int:
        """Nodes without children."""
        return int(np.count_nonzero(self.children_left == LEAF))

    @property
    def max_depth(self) -> int:
        """Splits on the longest way from the root to a leaf."""
        return int(self.compute_node_depths().max()) - 1

    def apply(self, X: Any) -> NDArray[np.int64]:
        """The leaf that each row ends in.

        Parameters
        ----------
        X : float32 array or csr matrix of shape (n_samples, n_features)

        Returns
        -------
        int64 array of shape (n_samples,)

        Raises
        ------
        ValueError
            If X is neither an array nor in csr format, or is not float32.
        """
        if sp.issparse(X):
            return self._apply_sparse(X)
        if not isinstance(X, np.ndarray):
            raise ValueError(f"X should be in np.ndarray format, got {type(X)}")
        _require_float32(X)
        leaves = np.empty(X.shape[0], np.int64)
        start, words = self._categories()
        apply_dense(
            np.ascontiguousarray(X),
            self.children_left,
            self.children_right,
            self.feature,
            self.threshold,
            self.missing_go_to_left,
            start,
            words,
            leaves,
        )
        return leaves

    def predict(self, X: Any) -> NDArray[np.float64]:
        """The value of each row's leaf.

        Parameters
        ----------
        X : float32 array or csr matrix of shape (n_samples, n_features)

        Returns
        -------
        float64 array of shape (n_samples, [n_outputs,] max_n_classes)
        """
        values = self.value.take(self.apply(X), axis=0)
        return values[:, 0, :] if self.n_outputs == 1 else values

    def decision_path(self, X: Any) -> Any:
        """Which nodes each row passes.

        Parameters
        ----------
        X : float32 array or csr matrix of shape (n_samples, n_features)

        Returns
        -------
        csr matrix of shape (n_samples, node_count)
            Ones at the nodes on the row's way, the leaf included.
        """
        leaves = self.apply(X)
        depths = self.compute_node_depths()
        parent = np.full(self.node_count, -1)
        splits = np.flatnonzero(self.children_left != LEAF)
        parent[self.children_left[splits]] = splits
        parent[self.children_right[splits]] = splits
        indptr = np.concatenate([[0], np.cumsum(depths[leaves])])
        indices = np.empty(indptr[-1], np.int64)
        # From the leaves up, all rows one step at a time.
        rows, nodes, position = np.arange(len(leaves)), leaves, indptr[1:] - 1
        while len(rows):
            indices[position] = nodes
            nodes, position = parent[nodes], position - 1
            rows, nodes, position = (part[nodes >= 0] for part in (rows, nodes, position))
        path = sp.csr_array(
            (np.ones(len(indices), np.int64), indices, indptr), shape=(len(leaves), self.node_count)
        )
        return _as_configured(path)

    def compute_node_depths(self) -> NDArray[np.int64]:
        """How deep each node lies, the root at 1."""
        depths = np.empty(self.node_count, np.int64)
        node_depths(self.children_left, self.children_right, depths)
        return depths

    def compute_feature_importances(self, normalize: bool = True) -> NDArray[np.float64]:
        """The weighted impurity that the splits on each feature remove.

        Parameters
        ----------
        normalize : bool
            Whether to let them sum to one.

        Returns
        -------
        float64 array of shape (n_features,)
        """
        splits = np.flatnonzero(self.children_left != LEAF)
        weighted = self.weighted_n_node_samples * self.impurity
        decrease = (
            weighted[splits] - weighted[self.children_left[splits]] - weighted[self.children_right[splits]]
        )
        importances = np.zeros(self.n_features)
        np.add.at(importances, self.feature[splits], decrease)
        importances /= self.weighted_n_node_samples[0]
        total = importances.sum()
        if normalize and total > 0.0:
            importances /= total
        return importances

    def compute_partial_dependence(
        self, X: NDArray[np.float32], target_features: NDArray[np.int64], out: NDArray[np.float64]
    ) -> None:
        """Add to `out` the first value that the tree has on average where only some features are known.

        Parameters
        ----------
        X : float32 array of shape (n_points, n_known)
            Values of the features that are known.
        target_features : int array of shape (n_known,)
            Which they are.
        out : float64 array of shape (n_points,)
            Changed in place.
        """
        column = np.full(self.n_features, -1)
        column[target_features] = np.arange(len(target_features))
        start, words = self._categories()
        average_over_others(
            np.ascontiguousarray(X),
            column,
            self.children_left,
            self.children_right,
            self.feature,
            self.threshold,
            self.missing_go_to_left,
            start,
            words,
            self.weighted_n_node_samples,
            np.ascontiguousarray(self.value[:, 0, 0]),
            out,
        )

    def categories_left(self, node: int) -> NDArray[np.int64] | None:
        """The codes that go left at `node`, or None if its split is numeric."""
        start, words = self._categories()
        if len(start) == 0 or start[node] == start[node + 1]:
            return None
        bits = np.unpackbits(
            words[start[node] : start[node + 1]].astype("<u8").view(np.uint8), bitorder="little"
        )
        return np.flatnonzero(bits)

    def _apply_sparse(self, X: Any) -> NDArray[np.int64]:
        if X.format != "csr":
            raise ValueError(f"X should be in CSR sparse format, got {type(X)}")
        _require_float32(X)
        leaves = np.empty(X.shape[0], np.int64)
        apply_csr(
            X.data,
            X.indices.astype(np.int32, copy=False),
            X.indptr.astype(np.int64, copy=False),
            self.children_left,
            self.children_right,
            self.feature,
            self.threshold,
            self.missing_go_to_left,
            self.n_features,
            leaves,
        )
        return leaves

    def _categories(self) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        if self.category_start is None or self.category_words is None:
            return np.empty(0, np.int64), np.empty(0, np.uint64)
        return self.category_start, self.category_words


def _require_float32(X: Any) -> None:
    if X.dtype != np.float32:
        raise ValueError(f"X.dtype should be np.float32, got {X.dtype}")


def _as_configured(matrix: sp.csr_array) -> Any:
    """A sparse matrix or array, as scikit-learn's configuration asks (before 1.9: a matrix)."""
    align = getattr(sklearn.utils, "_align_api_if_sparse", sp.csr_matrix)
    return align(matrix)
