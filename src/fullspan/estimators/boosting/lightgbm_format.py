"""LightGBM's text models, read and written.

LightGBM sends x to the left when ``x <= threshold``, both as float64; an ensemble when ``x < threshold``,
both as float32. For inputs that are float32 the two agree: the threshold becomes the next float32 above
LightGBM's. Inputs with more digits are rounded to float32 first.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log1p, softmax

from fullspan.core.errors import CheckpointError
from fullspan.core.files import replacing
from fullspan.estimators.boosting.ensemble import TreeEnsemble
from fullspan.estimators.boosting.shap import shap_values
from fullspan.estimators.saving import Saveable

Array = NDArray[Any]

_CATEGORICAL, _DEFAULT_LEFT = 1, 2
_NONE, _ZERO, _NAN = 0, 1, 2
_IDENTITY = (
    "regression", "regression_l1", "huber", "fair", "quantile", "mape", "lambdarank", "rank_xendcg", "custom",
)  # fmt: skip
_EXPONENTIAL = ("poisson", "gamma", "tweedie")
_OTHERS = ("binary", "multiclass", "multiclassova", "cross_entropy", "cross_entropy_lambda")
_MOST_TREES = 10_000_000


class LightGBMModel(Saveable):
    """A model read from LightGBM's text form.

    Parameters
    ----------
    ensemble : TreeEnsemble
        Values are float64; covers are counts of rows, which LightGBM's SHAP values go by.
    objective : str
        As in the file, such as "binary sigmoid:1".
    average : bool
        Whether the margins are the mean over the rounds (boosting=rf), not the sum.
    feature_names : list of str
    """

    def __init__(
        self, ensemble: TreeEnsemble, objective: str, average: bool = False, feature_names: Any = None
    ) -> None:
        self.ensemble, self.objective, self.average = ensemble, objective, average
        self.feature_names = feature_names

    def margin(self, X: Any) -> NDArray[np.float64]:
        """Raw scores [n_samples, n_groups]."""
        out = self.ensemble.margin(X)
        if self.average:
            out /= max(self.ensemble.n_trees // self.ensemble.n_groups, 1)
        return out

    def predict(self, X: Any) -> NDArray[np.float64]:
        """What LightGBM's `predict` gives: probabilities of classes, or numbers.

        Parameters
        ----------
        X : array or sparse matrix of shape (n_samples, n_features)
            NaN is missing, as is what a sparse matrix does not hold. (LightGBM takes the latter for zeros.)

        Returns
        -------
        float64 array of shape (n_samples,) or (n_samples, n_classes)
        """
        out = _transformed(self.objective, self.margin(X))
        return out[:, 0] if out.shape[1] == 1 else out

    def shap_values(self, X: Any) -> NDArray[np.float32]:
        """SHAP values [n_samples, n_groups, n_features + 1] of the margins."""
        values = shap_values(self.ensemble, X)
        n_rounds = max(self.ensemble.n_trees // self.ensemble.n_groups, 1)
        return values / np.float32(n_rounds) if self.average else values


def _transformed(objective: str, margin: Array) -> Array:
    name, *options = objective.split()
    given = dict(option.partition(":")[::2] for option in options)
    if name in _EXPONENTIAL:
        return np.asarray(np.exp(margin))
    if name in ("binary", "multiclassova"):
        return np.asarray(expit(float(given.get("sigmoid", 1)) * margin))
    if name == "multiclass":
        return np.asarray(softmax(margin, axis=1))
    if name == "cross_entropy":
        return np.asarray(expit(margin))
    if name == "cross_entropy_lambda":
        return np.asarray(log1p(np.exp(margin)))
    if "sqrt" in options:
        return np.asarray(np.sign(margin) * margin**2)
    return margin


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


def read(path: str | Path) -> LightGBMModel:
    """Read a text model that LightGBM, or `write`, wrote.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged, or uses what is not supported; the message names file and key.
    """
    path = Path(path)
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
    if objective.split()[0] not in (*_IDENTITY, *_EXPONENTIAL, *_OTHERS):
        raise CheckpointError(f"{path} has the objective {objective!r:.50}, which is not supported")
    if n_groups < 1 or len(trees) % n_groups:
        raise head.damaged("num_tree_per_iteration", f"does not fit the {len(trees)} trees of")
    parts = [_tree(section, n_features) for section in trees]
    names = head.values.get("feature_names", "").split()
    missing = _zero_is_missing(path, parts, n_features)
    ensemble = _joined(parts, n_features, n_groups, missing)
    return LightGBMModel(ensemble, objective, "average_output" in head.values, names or None)


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
    if missing.max() > _NAN:
        raise section.damaged("decision_type", "has an unknown kind of missing values in")
    left, right = (_children(section, key, n_leaves) for key in ("left_child", "right_child"))
    children = np.concatenate([left, right])
    if len(np.unique(children)) != len(children) or children.min() < 1:
        raise section.damaged("left_child or right_child", "gives a node two parents in")
    double = section.numbers("threshold", np.float64, n_inner)
    categorical = (decision & _CATEGORICAL) != 0
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
    stated = (decision & _DEFAULT_LEFT) != 0
    # Without missing values, NaN counts as zero; it does not meet the sets of categories.
    natural = double >= 0
    out["default_left"][:n_inner] = np.where(missing == _NONE, natural, stated) | categorical
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
        for kind in (_ZERO, _NAN):
            kinds[kind, part["feature"][: len(inner)].astype(int)[inner == kind]] = True
    both = np.flatnonzero(kinds[_ZERO] & kinds[_NAN])
    if len(both):
        raise CheckpointError(
            f"{path} has splits of feature {both[0]} with zero as missing and without in decision_type, "
            "which is not supported"
        )
    return kinds[_ZERO] if kinds[_ZERO].any() else None


def _joined(
    parts: list[dict[str, Array]], n_features: int, n_groups: int, zero_is_missing: Array | None
) -> TreeEnsemble:
    def together(key: str, kind: Any) -> Array:
        return np.concatenate([np.empty(0, kind), *(part[key] for part in parts)]).astype(kind)

    counts = [np.empty(0, np.int64), *(np.diff(part["category_start"]) for part in parts)]
    return TreeEnsemble(
        n_features,
        n_groups,
        base_score=np.zeros(n_groups),
        tree_start=np.concatenate([[0], np.cumsum([len(part["left"]) for part in parts])]),
        tree_group=np.arange(len(parts)) % n_groups,
        tree_weight=np.ones(len(parts)),
        left=together("left", np.int32),
        right=together("right", np.int32),
        feature=together("feature", np.int32),
        threshold=together("threshold", np.float32),
        default_left=together("default_left", bool),
        value=together("value", np.float64),
        gain=together("gain", np.float32),
        cover=together("cover", np.float32),
        category_start=np.concatenate([[0], np.cumsum(np.concatenate(counts))]),
        categories=together("categories", np.int32),
        zero_is_missing=zero_is_missing,
    )


def write(path: str | Path, model: LightGBMModel) -> None:
    """Write a text model that LightGBM, or `read`, reads.

    A base score goes into the first tree of each output, and weights of trees into their leaves.

    Raises
    ------
    CheckpointError
        If LightGBM has no form for it: a split that sends missing categories with the listed ones, or outputs
        whose trees do not take turns.
    """
    e = model.ensemble
    if not np.array_equal(e.tree_group, np.arange(e.n_trees) % e.n_groups):
        raise CheckpointError("LightGBM has one tree of each output in a round, in order; this model has not")
    names = model.feature_names or [f"Column_{i}" for i in range(e.n_features)]
    objective = model.objective
    trees = [f"Tree={t}\n" + _tree_text(e, t) + "\n\n" for t in range(e.n_trees)]
    n_classes = e.n_groups if objective.startswith("multiclass") else 1
    head = [
        "tree",
        "version=v4",
        f"num_class={n_classes}",
        f"num_tree_per_iteration={e.n_groups}",
        "label_index=0",
        f"max_feature_idx={e.n_features - 1}",
        *([] if objective == "custom" else [f"objective={objective}"]),
        *(["average_output"] if model.average else []),
        "feature_names=" + " ".join(names),
        "feature_infos=" + " ".join(["[-inf:inf]"] * e.n_features),
        "tree_sizes=" + " ".join(str(len(tree.encode())) for tree in trees),
    ]
    with replacing(path) as beside:
        beside.write_text("\n".join(head) + "\n\n" + "".join(trees) + "end of trees\n\n", encoding="utf-8")


def _tree_text(e: TreeEnsemble, t: int) -> str:
    root = int(e.tree_start[t])
    span = slice(root, int(e.tree_start[t + 1]))
    inner, leaves = _order(e, t)
    value = e.value[span].astype(np.float64) * float(e.tree_weight[t])
    if t < e.n_groups:
        value = value + e.base_score[t]
    place = {node: i for i, node in enumerate(inner)} | {node: ~i for i, node in enumerate(leaves)}
    rows: dict[str, list[Any]] = {key: [] for key in ("feature", "threshold", "decision", "left", "right")}
    boundaries, words = [0], list[int]()
    for node in inner:
        i = root + node
        left, right = place[int(e.left[i])], place[int(e.right[i])]
        members = e.categories[e.category_start[i] : e.category_start[i + 1]]
        rows["feature"].append(int(e.feature[i]))
        if len(members):
            if not e.default_left[i]:
                raise CheckpointError(
                    f"tree {t} sends missing categories of feature {e.feature[i]} with the listed ones, "
                    "for which LightGBM has no form"
                )
            bits = np.zeros((int(members[-1]) // 32 + 1) * 32, dtype=np.uint8)
            bits[members] = 1
            rows["threshold"].append(float(len(boundaries) - 1))
            words += np.packbits(bits, bitorder="little").view("<u4").tolist()
            boundaries.append(len(words))
            rows["decision"].append(_CATEGORICAL | _NAN << 2)
            left, right = right, left
        else:
            rows["threshold"].append(float(np.nextafter(e.threshold[i], np.float32(-np.inf))))
            zero = e.zero_is_missing is not None and e.zero_is_missing[e.feature[i]]
            kind = _ZERO if zero else _NAN
            rows["decision"].append((_DEFAULT_LEFT if e.default_left[i] else 0) | kind << 2)
        rows["left"].append(left)
        rows["right"].append(right)
    at, ends = root + np.array(inner, dtype=int), root + np.array(leaves, dtype=int)
    lines = {
        "num_leaves": [len(leaves)],
        "num_cat": [len(boundaries) - 1],
        "split_feature": rows["feature"],
        "split_gain": [float(v) for v in e.gain[at]],
        "threshold": rows["threshold"],
        "decision_type": rows["decision"],
        "left_child": rows["left"],
        "right_child": rows["right"],
        "leaf_value": [float(value[node]) for node in leaves],
        "leaf_weight": [float(v) for v in e.cover[ends]],
        "leaf_count": [round(float(v)) for v in e.cover[ends]],
        "internal_value": [float(value[node]) for node in inner],
        "internal_weight": [float(v) for v in e.cover[at]],
        "internal_count": [round(float(v)) for v in e.cover[at]],
        **({"cat_boundaries": boundaries, "cat_threshold": words} if words else {}),
        "is_linear": [0],
        "shrinkage": [1],
    }
    return "\n".join(f"{key}=" + " ".join(repr(v) for v in values) for key, values in lines.items())


def _order(e: TreeEnsemble, t: int) -> tuple[list[int], list[int]]:
    """Splits, the root first, and leaves of a tree as LightGBM numbers them."""
    root = int(e.tree_start[t])
    inner, leaves, waiting = list[int](), list[int](), [0]
    while waiting:
        node = waiting.pop()
        if e.left[root + node] < 0:
            leaves.append(node)
        else:
            inner.append(node)
            waiting += [int(e.right[root + node]), int(e.left[root + node])]
    return inner, leaves
