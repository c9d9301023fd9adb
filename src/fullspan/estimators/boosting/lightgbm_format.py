"""LightGBM's text models, read and written.

LightGBM sends x to the left when ``x <= threshold``, both as float64; an ensemble when ``x < threshold``,
both as float32. For inputs that are float32 the two agree: the threshold becomes the next float32 above
LightGBM's. Inputs with more digits are rounded to float32 first.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log1p, softmax

from fullspan.core.errors import CheckpointError
from fullspan.core.files import replacing
from fullspan.estimators.boosting.ensemble import TreeEnsemble
from fullspan.estimators.boosting.lightgbm_reader import (
    CATEGORICAL,
    DEFAULT_LEFT,
    EXPONENTIAL,
    NAN,
    ZERO,
    parse,
)
from fullspan.estimators.boosting.shap import shap_values
from fullspan.estimators.saving import Saveable

Array = NDArray[Any]


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

    Examples
    --------
    >>> stump = TreeEnsemble(
    ...     1, 1, base_score=[0.0], tree_start=[0, 3], tree_group=[0], tree_weight=[1.0],
    ...     left=[1, -1, -1], right=[2, -1, -1], feature=[0, 0, 0], threshold=[2.0, 0, 0],
    ...     default_left=[True, False, False], value=[0.0, -1.0, 1.0], gain=[3.0, 0, 0], cover=[4.0, 1, 3])
    >>> LightGBMModel(stump, "binary sigmoid:1").predict(np.array([[1.0], [3.0]])).round(3)
    array([0.269, 0.731], dtype=float32)
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
    if name in EXPONENTIAL:
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


def read(path: str | Path) -> LightGBMModel:
    """Read a text model that LightGBM, or `write`, wrote.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged, or uses what is not supported; the message names file and key.

    Examples
    --------
    >>> read("nothing.txt")
    Traceback (most recent call last):
    ...
    fullspan.core.errors.CheckpointError: nothing.txt cannot be read: No such file or directory
    """
    path = Path(path)
    return LightGBMModel(*parse(Path(path)))


def write(path: str | Path, model: LightGBMModel) -> None:
    """Write a text model that LightGBM, or `read`, reads.

    A base score goes into the first tree of each output, and weights of trees into their leaves.

    Raises
    ------
    CheckpointError
        If LightGBM has no form for it: a split that sends missing categories with the listed ones, or outputs
        whose trees do not take turns.

    Examples
    --------
    >>> import tempfile
    >>> stump = TreeEnsemble(
    ...     1, 1, base_score=[0.0], tree_start=[0, 3], tree_group=[0], tree_weight=[1.0],
    ...     left=[1, -1, -1], right=[2, -1, -1], feature=[0, 0, 0], threshold=[2.0, 0, 0],
    ...     default_left=[True, False, False], value=[0.0, -1.0, 1.0], gain=[3.0, 0, 0], cover=[4.0, 1, 3])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(f"{folder}/model.txt", LightGBMModel(stump, "regression"))
    ...     read(f"{folder}/model.txt").predict(np.array([[1.0], [3.0]]))
    array([-1.,  1.])
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
            rows["decision"].append(CATEGORICAL | NAN << 2)
            left, right = right, left
        else:
            rows["threshold"].append(float(np.nextafter(e.threshold[i], np.float32(-np.inf))))
            zero = e.zero_is_missing is not None and e.zero_is_missing[e.feature[i]]
            kind = ZERO if zero else NAN
            rows["decision"].append((DEFAULT_LEFT if e.default_left[i] else 0) | kind << 2)
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
