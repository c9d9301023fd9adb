"""Trees, forests and boosted trees as ONNX models, which run without fullspan and without Python."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullspan.core.errors import CheckpointError
from fullspan.core.files import replacing
from fullspan.estimators.boosting.ensemble import TreeEnsemble
from fullspan.estimators.tree.structure import Tree

_OPSET, _ML_OPSET, _IR_VERSION = 17, 3, 8


@dataclass(frozen=True)
class _Nodes:
    """Parallel arrays of one tree; `target` and `weight` of leaves: which output gets how much.

    A row takes the true branch when ``x < value`` (`strict`) or ``x <= value``.
    """

    feature: NDArray[Any]
    value: NDArray[np.float32]
    true: NDArray[Any]
    false: NDArray[Any]
    missing_true: NDArray[Any]
    leaf_weight: NDArray[np.float32]  # [n_nodes, n_targets]


def export_onnx(estimator: Any, path: Path | str) -> None:
    """Write a fitted tree estimator as an ONNX model.

    The model takes ``X``, float32 [n, n_features] with NaN for missing values. A classifier's gives ``label``
    (int64 or string [n]) and ``probabilities`` (float32 [n, n_classes]), a regressor's ``prediction``
    (float32 [n, 1]).

    Parameters
    ----------
    estimator : fitted DecisionTree*, RandomForest*, XGBClassifier or XGBRegressor
    path : path-like

    Raises
    ------
    CheckpointError
        If ONNX cannot express the model: categorical splits, several target columns, another kind of
        estimator or booster.

    Examples
    --------
    >>> import os, tempfile
    >>> from fullspan.estimators import DecisionTreeRegressor
    >>> tree = DecisionTreeRegressor().fit([[0.0], [1.0]], [0.0, 1.0])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     export_onnx(tree, f"{folder}/tree.onnx")  # for onnxruntime and others
    ...     os.listdir(folder)
    ['tree.onnx']
    """
    import onnx

    name = type(estimator).__name__
    if hasattr(estimator, "get_booster"):
        graph = _boosted(estimator, name)
    else:
        graph = _averaged(estimator, name)
    model = onnx.helper.make_model(
        graph,
        producer_name="fullspan",
        ir_version=_IR_VERSION,
        opset_imports=[
            onnx.helper.make_opsetid("", _OPSET),
            onnx.helper.make_opsetid("ai.onnx.ml", _ML_OPSET),
        ],
    )
    onnx.checker.check_model(model)
    with replacing(Path(path)) as beside:
        beside.write_bytes(model.SerializeToString())


def _averaged(estimator: Any, name: str) -> Any:
    """One tree, or the mean of a forest's."""
    trees = [part.tree_ for part in getattr(estimator, "estimators_", [estimator]) if hasattr(part, "tree_")]
    if not trees or not isinstance(trees[0], Tree) or not name.startswith(("DecisionTree", "RandomForest")):
        raise CheckpointError(f"a {name} cannot be written as ONNX", "trees, forests and XGB* can")
    if trees[0].n_outputs != 1:
        raise CheckpointError(f"this {name} predicts several columns, which is not written as ONNX")
    nodes = [_nodes_of_tree(tree, len(trees)) for tree in trees]
    classes = getattr(estimator, "classes_", None)
    sums = _sums(nodes, trees[0].max_n_classes, "BRANCH_LEQ", None)
    if classes is None:
        return _graph([sums, _named("Identity", "sums", "prediction")], trees[0].n_features, None)
    return _graph([sums, _named("Identity", "sums", "probabilities")], trees[0].n_features, classes)


def _nodes_of_tree(tree: Tree, n_trees: int) -> _Nodes:
    if tree.category_start is not None:
        raise CheckpointError("categorical splits cannot be written as ONNX")
    leaf = tree.children_left < 0
    # x <= threshold for a float32 x is x <= the largest float32 that is not above the threshold.
    value = tree.threshold.astype(np.float32)
    value = np.where(value > tree.threshold, np.nextafter(value, np.float32(-np.inf)), value)
    weight = np.where(leaf[:, None], tree.value[:, 0, :] / n_trees, 0)
    return _Nodes(
        np.where(leaf, 0, tree.feature),
        value.astype(np.float32),
        tree.children_left,
        tree.children_right,
        tree.missing_go_to_left.astype(bool),
        weight.astype(np.float32),
    )


def _boosted(estimator: Any, name: str) -> Any:
    ensemble = estimator.get_booster().model
    if not isinstance(ensemble, TreeEnsemble):
        raise CheckpointError(f"only boosted trees are written as ONNX, this {name} has another booster")
    # After early stopping, up to the best round.
    ensemble = ensemble.trees(*estimator.get_booster().trees_of(estimator._rounds(None)))
    if len(ensemble.categories) or ensemble.zero_is_missing is not None:
        raise CheckpointError(
            "categorical splits, and zeros that stand for missing, cannot be written as ONNX"
        )
    nodes = [_nodes_of_booster(ensemble, t) for t in range(ensemble.n_trees)]
    sums = _sums(nodes, ensemble.n_groups, "BRANCH_LT", ensemble.base_score)
    classes = getattr(estimator, "classes_", None)
    if classes is not None and ensemble.n_groups == 1:
        return _graph([sums, *_two_probabilities()], ensemble.n_features, classes)
    if classes is not None:
        return _graph([sums, _named("Softmax", "sums", "probabilities")], ensemble.n_features, classes)
    link = {"count:poisson": "Exp", "reg:gamma": "Exp", "reg:tweedie": "Exp", "reg:logistic": "Sigmoid"}
    operator = link.get(estimator._objective.name, "Identity")
    return _graph([sums, _named(operator, "sums", "prediction")], ensemble.n_features, None)


def _nodes_of_booster(ensemble: TreeEnsemble, tree: int) -> _Nodes:
    part = slice(int(ensemble.tree_start[tree]), int(ensemble.tree_start[tree + 1]))
    leaf = ensemble.left[part] < 0
    weight = np.zeros((len(leaf), ensemble.n_groups), np.float32)
    values = ensemble.value[part] * ensemble.tree_weight[tree]
    weight[:, ensemble.tree_group[tree]] = np.where(leaf, values, 0)
    return _Nodes(
        np.where(leaf, 0, ensemble.feature[part]),
        ensemble.threshold[part],
        ensemble.left[part],
        ensemble.right[part],
        ensemble.default_left[part],
        weight,
    )


def _sums(nodes: Sequence[_Nodes], n_targets: int, mode: str, base: NDArray[Any] | None) -> Any:
    """The node that adds up leaf weights: X -> sums float32 [n, n_targets]."""
    import onnx

    leaves = [np.flatnonzero(tree.true < 0) for tree in nodes]
    counts = [len(tree.true) for tree in nodes]
    is_leaf = np.concatenate([tree.true < 0 for tree in nodes])
    attributes: dict[str, Any] = {
        "nodes_treeids": np.repeat(np.arange(len(nodes)), counts),
        "nodes_nodeids": np.concatenate([np.arange(count) for count in counts]),
        "nodes_featureids": np.concatenate([tree.feature for tree in nodes]),
        "nodes_values": np.where(is_leaf, 0, np.concatenate([tree.value for tree in nodes])),
        "nodes_modes": np.where(is_leaf, "LEAF", mode),
        "nodes_truenodeids": np.where(is_leaf, 0, np.concatenate([tree.true for tree in nodes])),
        "nodes_falsenodeids": np.where(is_leaf, 0, np.concatenate([tree.false for tree in nodes])),
        "nodes_missing_value_tracks_true": np.concatenate([tree.missing_true for tree in nodes]) & ~is_leaf,
    }
    # A leaf adds to the outputs that it has a weight for, and to the first where it has none.
    targets = list(_targets(nodes, leaves))
    for position, key in enumerate(("target_treeids", "target_nodeids", "target_ids")):
        attributes[key] = [int(target[position]) for target in targets]
    attributes["target_weights"] = [float(target[3]) for target in targets]
    if base is not None:
        attributes["base_values"] = [float(value) for value in base]
    plain = {key: np.asarray(value).tolist() for key, value in attributes.items()}
    plain["nodes_missing_value_tracks_true"] = [
        int(value) for value in plain["nodes_missing_value_tracks_true"]
    ]
    return onnx.helper.make_node(
        "TreeEnsembleRegressor", ["X"], ["sums"], domain="ai.onnx.ml", n_targets=n_targets,
        aggregate_function="SUM", post_transform="NONE", **plain,
    )  # fmt: skip


def _targets(
    nodes: Sequence[_Nodes], leaves: Sequence[NDArray[Any]]
) -> Iterator[tuple[int, int, int, float]]:
    for index, (tree, of_tree) in enumerate(zip(nodes, leaves, strict=True)):
        for node in of_tree:
            outputs = np.flatnonzero(tree.leaf_weight[node])
            for output in outputs if len(outputs) else [0]:
                yield index, int(node), int(output), float(tree.leaf_weight[node, output])


def _named(operator: str, source: str, result: str) -> Any:
    import onnx

    return onnx.helper.make_node(operator, [source], [result])


def _two_probabilities() -> list[Any]:
    """From one margin to the probabilities of both classes: sigmoid of minus it, and of it."""
    import onnx

    return [
        onnx.helper.make_node("Neg", ["sums"], ["minus"]),
        onnx.helper.make_node("Concat", ["minus", "sums"], ["both"], axis=1),
        onnx.helper.make_node("Sigmoid", ["both"], ["probabilities"]),
    ]


def _graph(nodes: list[Any], n_features: int, classes: NDArray[Any] | None) -> Any:
    import onnx
    from onnx import TensorProto

    def info(name: str, kind: int, *shape: int | str) -> Any:
        return onnx.helper.make_tensor_value_info(name, kind, list(shape))

    inputs = [info("X", TensorProto.FLOAT, "n", n_features)]
    if classes is None:
        return onnx.helper.make_graph(
            nodes, "trees", inputs, [info("prediction", TensorProto.FLOAT, "n", "k")]
        )
    is_number = np.issubdtype(classes.dtype, np.integer) or classes.dtype == bool
    # Strings are objects to ONNX, which writes them as UTF-8.
    values = np.asarray(classes, np.int64) if is_number else np.array([str(c) for c in classes], dtype=object)
    labels = onnx.numpy_helper.from_array(values, "classes")
    nodes = [
        *nodes,
        onnx.helper.make_node("ArgMax", ["probabilities"], ["largest"], axis=1, keepdims=0),
        onnx.helper.make_node("Gather", ["classes", "largest"], ["label"]),
    ]
    outputs = [
        info("label", TensorProto.INT64 if is_number else TensorProto.STRING, "n"),
        info("probabilities", TensorProto.FLOAT, "n", len(classes)),
    ]
    return onnx.helper.make_graph(nodes, "trees", inputs, outputs, initializer=[labels])
