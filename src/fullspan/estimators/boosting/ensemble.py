"""Boosted trees as flat arrays, with XGBoost's rules for which way a row goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from fullspan.core.device import usable_cores
from fullspan.estimators.boosting._kernels import add_margins, find_leaves
from fullspan.estimators.boosting.predict import pack
from fullspan.estimators.saving import Saveable

# Rows of a sparse matrix that are made dense at a time, and of a task for a thread.
_BLOCK = 4096
# Rows times trees from which on packing the trees is worth its while.
_PACKED_WORK = 100_000
_IMPORTANCES = ("gain", "weight", "cover", "total_gain", "total_cover")
_NODE_ARRAYS = {
    "left": np.int32,
    "right": np.int32,
    "feature": np.int32,
    "threshold": np.float32,
    "default_left": np.bool_,
    "gain": np.float32,
    "cover": np.float32,
}


class TreeEnsemble(Saveable):
    """Trees whose values add up to the margins (raw scores) of `n_groups` outputs.

    The nodes of all trees stand one tree after another; `left` and `right` count from the tree's own first
    node, its root, and are -1 at leaves. A row goes left when ``x[feature] < threshold``, with x as float32;
    NaN goes left where `default_left` is set. A node with categories sends just those to the right; one
    that is negative or unknown goes left.

    Parameters
    ----------
    n_features, n_groups : int
    base_score : float64 array of shape (n_groups,)
        Where the margins start.
    tree_start : int64 array of shape (n_trees + 1,)
        Tree t owns the nodes ``tree_start[t]:tree_start[t + 1]``.
    tree_group : int32 array of shape (n_trees,)
        Which output a tree adds to.
    tree_weight : float32 array of shape (n_trees,)
        Ones, but for dart.
    left, right, feature : int32 array of shape (n_nodes,)
    threshold : float32 array of shape (n_nodes,)
    default_left : bool array of shape (n_nodes,)
    value : float32 or float64 array of shape (n_nodes,)
        What a leaf adds, the learning rate applied; of other nodes, what they would add as leaves. float64,
        as in models read from LightGBM, makes the margins add up in float64.
    gain, cover : float32 array of shape (n_nodes,)
        How much a split improves the objective (0 at leaves); the sum of the hessians of a node's rows.
    category_start : int64 array of shape (n_nodes + 1,), optional
        Node i owns ``categories[category_start[i]:category_start[i + 1]]``; none when its split is numeric.
    categories : int32 array, optional
        Ascending in each node.
    zero_is_missing : bool array of shape (n_features,), optional
        Features whose zeros go where NaN goes, as in some of LightGBM's models.

    Examples
    --------
    >>> import numpy as np
    >>> stump = TreeEnsemble(
    ...     1, 1, base_score=[0.5], tree_start=[0, 3], tree_group=[0], tree_weight=[1.0],
    ...     left=[1, -1, -1], right=[2, -1, -1], feature=[0, 0, 0], threshold=[2.0, 0, 0],
    ...     default_left=[True, False, False], value=[0.0, -1.0, 1.0], gain=[3.0, 0, 0], cover=[4.0, 2, 2])
    >>> stump.margin(np.array([[1.0], [2.0], [np.nan]])).ravel().tolist()
    [-0.5, 1.5, -0.5]
    >>> stump.leaves(np.array([[1.0], [2.0]])).tolist()
    [[1], [2]]
    """

    def __init__(
        self,
        n_features: int,
        n_groups: int,
        *,
        base_score: ArrayLike,
        tree_start: ArrayLike,
        tree_group: ArrayLike,
        tree_weight: ArrayLike,
        left: ArrayLike,
        right: ArrayLike,
        feature: ArrayLike,
        threshold: ArrayLike,
        default_left: ArrayLike,
        value: ArrayLike,
        gain: ArrayLike,
        cover: ArrayLike,
        category_start: ArrayLike | None = None,
        categories: ArrayLike | None = None,
        zero_is_missing: ArrayLike | None = None,
    ) -> None:
        self.n_features = int(n_features)
        self.n_groups = int(n_groups)
        self.base_score = np.ascontiguousarray(base_score, np.float64)
        self.tree_start = np.ascontiguousarray(tree_start, np.int64)
        self.tree_group = np.ascontiguousarray(tree_group, np.int32)
        self.tree_weight = np.ascontiguousarray(tree_weight, np.float32)
        self.left = np.ascontiguousarray(left, np.int32)
        self.right = np.ascontiguousarray(right, np.int32)
        self.feature = np.ascontiguousarray(feature, np.int32)
        self.threshold = np.ascontiguousarray(threshold, np.float32)
        self.default_left = np.ascontiguousarray(default_left, np.bool_)
        given = np.asarray(value)
        self.value = np.ascontiguousarray(
            given, np.float64 if isinstance(value, np.ndarray) and given.dtype == np.float64 else np.float32
        )
        self.gain = np.ascontiguousarray(gain, np.float32)
        self.cover = np.ascontiguousarray(cover, np.float32)
        if category_start is None:
            category_start = np.zeros(len(self.left) + 1, dtype=np.int64)
        self.category_start = np.ascontiguousarray(category_start, np.int64)
        self.categories = np.ascontiguousarray([] if categories is None else categories, np.int32)
        self.zero_is_missing = (
            None if zero_is_missing is None else np.ascontiguousarray(zero_is_missing, np.bool_)
        )

    @property
    def n_trees(self) -> int:
        return len(self.tree_group)

    @classmethod
    def of_trees(
        cls,
        trees: Sequence[Mapping[str, NDArray[Any]]],
        n_features: int,
        base_score: NDArray[Any],
        tree_group: ArrayLike,
        value_type: type[np.floating[Any]],
        zero_is_missing: NDArray[np.bool_] | None = None,
    ) -> TreeEnsemble:
        """One ensemble of trees that have their arrays, named as the parameters, each by itself."""

        def together(name: str, kind: type) -> NDArray[Any]:
            return np.concatenate([np.empty(0, kind), *(tree[name] for tree in trees)]).astype(kind)

        counts = [np.empty(0, np.int64), *(np.diff(tree["category_start"]) for tree in trees)]
        return cls(
            n_features,
            len(base_score),
            base_score=base_score,
            tree_start=np.concatenate([[0], np.cumsum([len(tree["left"]) for tree in trees])]),
            tree_group=tree_group,
            tree_weight=np.ones(len(trees)),
            left=together("left", np.int32),
            right=together("right", np.int32),
            feature=together("feature", np.int32),
            threshold=together("threshold", np.float32),
            default_left=together("default_left", bool),
            value=together("value", value_type),
            gain=together("gain", np.float32),
            cover=together("cover", np.float32),
            category_start=np.concatenate([[0], np.cumsum(np.concatenate(counts))]),
            categories=together("categories", np.int32),
            zero_is_missing=zero_is_missing,
        )

    @classmethod
    def concat(cls, ensembles: Sequence[TreeEnsemble]) -> TreeEnsemble:
        """The trees of all, one after another, on the first one's base score.

        Raises
        ------
        ValueError
            If the ensembles differ in features, outputs or what zeros mean, or there is none.
        """
        if not ensembles:
            raise ValueError("ensembles is empty, expected at least one TreeEnsemble")
        first = ensembles[0]
        for other in ensembles[1:]:
            if (other.n_features, other.n_groups) != (first.n_features, first.n_groups):
                raise ValueError(
                    f"ensembles have {other.n_features} and {first.n_features} features, "
                    f"{other.n_groups} and {first.n_groups} outputs; expected the same"
                )
            if not np.array_equal(_mask(other), _mask(first)):
                raise ValueError("ensembles differ in the features whose zeros are missing")
        joined: dict[str, NDArray[Any]] = {
            name: np.concatenate([getattr(e, name) for e in ensembles])
            for name in [*_NODE_ARRAYS, "value", "tree_group", "tree_weight", "categories"]
        }
        return cls(
            first.n_features,
            first.n_groups,
            base_score=first.base_score,
            tree_start=_joined_starts([e.tree_start for e in ensembles]),
            category_start=_joined_starts([e.category_start for e in ensembles]),
            zero_is_missing=first.zero_is_missing,
            **joined,
        )

    def trees(self, first_tree: int, last_tree: int) -> TreeEnsemble:
        """A copy of the trees ``first_tree:last_tree`` alone, on the same base score."""
        start, stop = int(self.tree_start[first_tree]), int(self.tree_start[last_tree])
        first, last = int(self.category_start[start]), int(self.category_start[stop])
        nodes = {name: getattr(self, name)[start:stop].copy() for name in [*_NODE_ARRAYS, "value"]}
        return TreeEnsemble(
            self.n_features,
            self.n_groups,
            base_score=self.base_score,
            tree_start=self.tree_start[first_tree : last_tree + 1] - start,
            tree_group=self.tree_group[first_tree:last_tree].copy(),
            tree_weight=self.tree_weight[first_tree:last_tree].copy(),
            category_start=self.category_start[start : stop + 1] - first,
            categories=self.categories[first:last].copy(),
            zero_is_missing=self.zero_is_missing,
            **nodes,
        )

    def margin(
        self,
        X: Any,
        first_tree: int = 0,
        last_tree: int | None = None,
        base_margin: NDArray[Any] | None = None,
        n_threads: int | None = None,
    ) -> NDArray[Any]:
        """Raw scores: the base score, or `base_margin`, plus what the trees ``first_tree:last_tree`` add.

        Parameters
        ----------
        X : array or sparse matrix of shape (n_samples, n_features)
            NaN is missing; so is what a sparse matrix does not hold.
        first_tree, last_tree : int, optional
            All trees by default.
        base_margin : array of shape (n_samples, n_groups), optional
            Where each row starts instead of the base score.
        n_threads : int, optional
            One for each usable core by default.

        Returns
        -------
        array of shape (n_samples, n_groups)
            float32, or float64 where `value` is.
        """
        last_tree = self.n_trees if last_tree is None else last_tree
        out = np.empty((X.shape[0], self.n_groups), dtype=self.value.dtype)
        out[:] = self.base_score if base_margin is None else base_margin
        weight = self.tree_weight.astype(self.value.dtype)

        if self._may_be_packed(X, last_tree - first_tree):
            packed = pack(self, first_tree, last_tree)
            if packed is not None:
                packed.add_margins(np.ascontiguousarray(X, np.float32), out, n_threads)
                return out

        def add(block: NDArray[np.float32], rows: slice) -> None:
            add_margins(
                block, 0, len(block), first_tree, last_tree, self.tree_start, self.tree_group, weight,
                *self._routing(), self.value, out[rows],
            )  # fmt: skip

        self._for_blocks(X, add, n_threads)
        return out

    def leaves(
        self, X: Any, first_tree: int = 0, last_tree: int | None = None, n_threads: int | None = None
    ) -> NDArray[np.int32]:
        """The leaf of each row in each tree, counted from the tree's root.

        Returns
        -------
        int32 array of shape (n_samples, last_tree - first_tree)
        """
        last_tree = self.n_trees if last_tree is None else last_tree
        out = np.empty((X.shape[0], last_tree - first_tree), dtype=np.int32)

        def find(block: NDArray[np.float32], rows: slice) -> None:
            find_leaves(
                block, 0, len(block), first_tree, last_tree, self.tree_start, *self._routing(), out[rows]
            )

        self._for_blocks(X, find, n_threads)
        return out

    def importances(self, kind: str) -> NDArray[np.float64]:
        """How much each feature is used.

        Parameters
        ----------
        kind : {"weight", "gain", "cover", "total_gain", "total_cover"}
            The number of splits; their mean or total gain; their mean or total cover.

        Raises
        ------
        ValueError
            If there is no such kind.
        """
        if kind not in _IMPORTANCES:
            raise ValueError(f"importance_type must be one of {', '.join(_IMPORTANCES)}, got {kind!r}")
        inner = self.left >= 0
        feature = self.feature[inner]
        count = np.bincount(feature, minlength=self.n_features).astype(np.float64)
        if kind == "weight":
            return np.asarray(count, np.float64)
        amount = self.gain[inner] if kind.endswith("gain") else self.cover[inner]
        total = np.bincount(feature, weights=amount, minlength=self.n_features)
        return np.asarray(total if kind.startswith("total_") else total / np.maximum(count, 1), np.float64)

    def _may_be_packed(self, X: Any, n_trees: int) -> bool:
        """Whether there is enough work to make packing the trees worth its while."""
        return bool(
            not sp.issparse(X)
            and self.zero_is_missing is None
            and X.shape[1] == self.n_features
            and X.shape[0] * n_trees >= _PACKED_WORK
        )

    def _routing(self) -> tuple[NDArray[Any], ...]:
        return (
            self.left, self.right, self.feature, self.threshold, self.default_left,
            self.category_start, self.categories,
        )  # fmt: skip

    def _for_blocks(
        self, X: Any, work: Callable[[NDArray[np.float32], slice], None], n_threads: int | None
    ) -> None:
        if X.shape[1] != self.n_features:
            raise ValueError(f"X has {X.shape[1]} features, but the trees were made for {self.n_features}")
        X = X.tocsr() if sp.issparse(X) else X

        def run(start: int) -> None:
            rows = slice(start, min(start + _BLOCK, X.shape[0]))
            work(dense_rows(X, rows, self.zero_is_missing), rows)

        starts = range(0, X.shape[0], _BLOCK)
        if len(starts) <= 1:
            for start in starts:
                run(start)
            return
        with ThreadPoolExecutor(n_threads or usable_cores()) as pool:
            list(pool.map(run, starts))


def dense_rows(X: Any, rows: slice, zero_is_missing: NDArray[np.bool_] | None) -> NDArray[np.float32]:
    """Rows of an array or csr matrix as the kernels take them."""
    block = densified(X[rows]) if sp.issparse(X) else X[rows]
    block = np.ascontiguousarray(block, np.float32)
    if zero_is_missing is None:
        return block
    # LightGBM takes what is this small for zero.
    zero = (np.abs(block) <= np.float32(1e-35)) & zero_is_missing
    return np.where(zero, np.float32(np.nan), block)


def densified(X: Any) -> NDArray[np.float32]:
    """Rows of a csr matrix as an array, NaN where it holds nothing."""
    out = np.full(X.shape, np.nan, dtype=np.float32)
    rows = np.repeat(np.arange(X.shape[0]), np.diff(X.indptr))
    out[rows, X.indices] = X.data
    return out


def _mask(ensemble: TreeEnsemble) -> NDArray[np.bool_]:
    if ensemble.zero_is_missing is None:
        return np.zeros(ensemble.n_features, dtype=bool)
    return ensemble.zero_is_missing


def _joined_starts(starts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    counts = np.concatenate([np.diff(s) for s in starts])
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
