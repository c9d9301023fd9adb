"""Reads the trees of LightGBM's text models."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullspan.core.errors import CheckpointError
from fullspan.estimators.boosting.ensemble import TreeEnsemble

Array = NDArray[Any]

# Parts of a split's decision_type.
CATEGORICAL, DEFAULT_LEFT = 1, 2
NONE, ZERO, NAN = 0, 1, 2
EXPONENTIAL = ("poisson", "gamma", "tweedie")
OBJECTIVES = (
    "regression", "regression_l1", "huber", "fair", "quantile", "mape", "lambdarank", "rank_xendcg", "custom",
    *EXPONENTIAL,
    "binary", "multiclass", "multiclassova", "cross_entropy", "cross_entropy_lambda",
)  # fmt: skip
_MOST_TREES = 10_000_000


@dataclass
class _Section:
    """Lines ``key=value`` of a file; says file and key where one is wrong."""

    path: Path
    name: str
    values: dict[str, str]

    def damaged(self, key: str, what: str) -> CheckpointError:
        return CheckpointError(f"{self.path} is damaged: {key} {what} {self.name}")

    def text(self, key: str) -> str:
        if key not in self.values:
            raise self.damaged(key, "is missing in")
        return self.values[key]

    def whole(self, key: str, most: int, default: int | None = None) -> int:
        text = self.values.get(key, str(default)) if default is not None else self.text(key)
        try:
            value = int(text)
        except ValueError:
            value = -1
        if not 0 <= value <= most:
            raise self.damaged(key, f"is {text!r:.30} in")
        return value

    def numbers(self, key: str, kind: Any, size: int) -> Array:
        words = self.text(key).split()
        if len(words) != size:
            raise self.damaged(key, f"has {len(words)} numbers, expected {size}, in")
        try:
            return np.array([float(w) if kind is np.float64 else int(w) for w in words], dtype=kind)
        except (ValueError, OverflowError):
            raise self.damaged(key, "is no list of numbers in") from None


def parse(path: Path) -> tuple[TreeEnsemble, str, bool, list[str] | None]:
    """Trees, objective, whether margins are means over rounds, and names of features.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged, or uses what is not supported; the message names file and key.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CheckpointError(f"{path} is not a LightGBM text model") from None
    if not lines or lines[0].strip() != "tree":
        raise CheckpointError(f"{path} is not a LightGBM text model: its first line is not 'tree'")
    head, trees = _sections(path, lines)
    n_groups = head.whole("num_tree_per_iteration", _MOST_TREES, 1)
    n_features = head.whole("max_feature_idx", 2**31 - 2) + 1
    objective = head.values.get("objective", "custom").strip() or "custom"
    if objective.split()[0] not in OBJECTIVES:
        raise CheckpointError(f"{path} has the objective {objective!r:.50}, which is not supported")
    if n_groups < 1 or len(trees) % n_groups:
        raise head.damaged("num_tree_per_iteration", f"does not fit the {len(trees)} trees of")
    parts = [_tree(section, n_features) for section in trees]
    names = head.values.get("feature_names", "").split()
    missing = _zero_is_missing(path, parts, n_features)
    groups = np.arange(len(parts)) % n_groups
    ensemble = TreeEnsemble.of_trees(parts, n_features, np.zeros(n_groups), groups, np.float64, missing)
    return ensemble, objective, "average_output" in head.values, names or None


def _sections(path: Path, lines: list[str]) -> tuple[_Section, list[_Section]]:
    head = _Section(path, "the head", {})
    trees: list[_Section] = []
    for line in lines[1:]:
        if line.strip() == "end of trees":
            return head, trees
        key, _, value = line.strip().partition("=")
        if key == "Tree":
            trees.append(_Section(path, f"tree {value:.20}", {}))
        elif key:
            (trees[-1] if trees else head).values[key] = value
    raise CheckpointError(f"{path} is damaged: 'end of trees' is missing")


def _tree(section: _Section, n_features: int) -> dict[str, Array]:
    n_leaves = section.whole("num_leaves", 2**30)
    leaf_value = section.numbers("leaf_value", np.float64, n_leaves)
    if n_leaves < 1:
        raise section.damaged("num_leaves", "is 0 in")
    if section.whole("is_linear", 1, 0):
        raise CheckpointError(f"{section.path} has linear models at the leaves, which are not supported")
    n_inner, n = n_leaves - 1, 2 * n_leaves - 1
    if n_inner == 0:
        return _leaf_only(leaf_value)
    feature = section.numbers("split_feature", np.int64, n_inner)
    if feature.min() < 0 or feature.max() >= n_features:
        raise section.damaged("split_feature", f"names a feature out of {n_features} in")
    decision = section.numbers("decision_type", np.int64, n_inner)
    missing = (decision >> 2) & 3
    if missing.max() > NAN:
        raise section.damaged("decision_type", "has an unknown kind of missing values in")
    left, right = (_children(section, key, n_leaves) for key in ("left_child", "right_child"))
    children = np.concatenate([left, right])
    if len(np.unique(children)) != len(children) or children.min() < 1:
        raise section.damaged("left_child or right_child", "gives a node two parents in")
    double = section.numbers("threshold", np.float64, n_inner)
    categorical = (decision & CATEGORICAL) != 0
    # What follows counts rows; old files lack it.
    count = "leaf_count" in section.values and "internal_count" in section.values
    cover = np.concatenate(
        [
            section.numbers("internal_count", np.int64, n_inner),
            section.numbers("leaf_count", np.int64, n_leaves),
        ]
        if count
        else [np.zeros(n)]
    )
    out = {
        "left": np.full(n, -1, np.int32),
        "right": np.full(n, -1, np.int32),
        "feature": np.zeros(n, np.int32),
        "threshold": np.zeros(n, np.float32),
        "default_left": np.zeros(n, bool),
        "value": np.concatenate([np.zeros(n_inner), leaf_value]),
        "gain": np.zeros(n, np.float32),
        "cover": cover.astype(np.float32),
        "missing": np.where(categorical, -1, missing),
        "category_start": np.zeros(n + 1, np.int64),
    }
    if "split_gain" in section.values:
        out["gain"][:n_inner] = section.numbers("split_gain", np.float64, n_inner)
    out["feature"][:n_inner] = feature
    # Of a category the listed ones go left in LightGBM, right in an ensemble: the children change sides.
    out["left"][:n_inner] = np.where(categorical, right, left)
    out["right"][:n_inner] = np.where(categorical, left, right)
    out["threshold"][:n_inner] = np.where(categorical, 0, threshold_above(double))
    stated = (decision & DEFAULT_LEFT) != 0
    # Without missing values, NaN counts as zero; it does not meet the sets of categories.
    natural = double >= 0
    out["default_left"][:n_inner] = np.where(missing == NONE, natural, stated) | categorical
    out["categories"] = _categories(section, categorical, double, out)
    return out


def _leaf_only(leaf_value: Array) -> dict[str, Array]:
    zero = np.zeros(1)
    return {
        "left": np.full(1, -1), "right": np.full(1, -1), "feature": zero, "threshold": zero,
        "default_left": zero, "value": leaf_value, "gain": zero, "cover": zero, "missing": np.empty(0, int),
        "category_start": np.zeros(2, np.int64), "categories": np.empty(0, np.int32),
    }  # fmt: skip


def threshold_above(double: Array) -> NDArray[np.float32]:
    """The float32 t for which ``x < t`` is the same as ``x <= double`` for every float32 x.

    Examples
    --------
    >>> threshold_above(np.array([1.0, 0.1])) > np.array([1.0, 0.1])
    array([ True,  True])
    """
    with np.errstate(over="ignore"):
        nearest = double.astype(np.float32)
    below = np.where(nearest > double, np.nextafter(nearest, np.float32(-np.inf)), nearest)
    return np.nextafter(below, np.float32(np.inf))


def _children(section: _Section, key: str, n_leaves: int) -> Array:
    child = section.numbers(key, np.int64, n_leaves - 1)
    if child.min() < -n_leaves or child.max() >= n_leaves - 1:
        raise section.damaged(key, "points out of the tree in")
    # Leaf j is written as ~j and comes after the n_leaves - 1 splits.
    return np.where(child >= 0, child, n_leaves - 1 + ~child).astype(np.int32)


def _categories(section: _Section, categorical: Array, double: Array, out: dict[str, Array]) -> Array:
    """The categories of each node, ascending; counts go to out["category_start"]."""
    if not categorical.any():
        return np.empty(0, dtype=np.int32)
    n_sets = section.whole("num_cat", 2**30)
    ends = section.numbers("cat_boundaries", np.int64, n_sets + 1)
    words = section.numbers("cat_threshold", np.int64, len(section.text("cat_threshold").split()))
    if (
        np.any(np.diff(ends) < 0)
        or ends[0] < 0
        or ends[-1] > len(words)
        or np.any((words < 0) | (words >= 2**32))
    ):
        raise section.damaged("cat_boundaries", "points out of cat_threshold in")
    sets = []
    for node in np.flatnonzero(categorical):
        which = int(double[node]) if 0 <= double[node] < n_sets else -1
        if which < 0:
            raise section.damaged("threshold", f"names a set of categories out of {n_sets} in")
        bits = words[ends[which] : ends[which + 1]].astype("<u4").view(np.uint8)
        members = np.flatnonzero(np.unpackbits(bits, bitorder="little"))
        out["category_start"][node + 1] = len(members)
        if not len(members):
            out["threshold"][node] = np.inf  # no category goes right
        sets.append(members)
    out["category_start"] = np.cumsum(out["category_start"])
    return np.concatenate(sets).astype(np.int32)


def _zero_is_missing(path: Path, parts: list[dict[str, Array]], n_features: int) -> Array | None:
    kinds = np.zeros((3, n_features), dtype=bool)
    for part in parts:
        inner = part["missing"]
        for kind in (ZERO, NAN):
            kinds[kind, part["feature"][: len(inner)].astype(int)[inner == kind]] = True
    both = np.flatnonzero(kinds[ZERO] & kinds[NAN])
    if len(both):
        raise CheckpointError(
            f"{path} has splits of feature {both[0]} with zero as missing and without in decision_type, "
            "which is not supported"
        )
    return kinds[ZERO] if kinds[ZERO].any() else None
