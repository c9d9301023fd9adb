"""Writes XGBoost's model files, JSON and UBJSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullspan.core.errors import CheckpointError
from fullspan.core.files import replacing
from fullspan.estimators.boosting import ubjson
from fullspan.estimators.boosting.ensemble import TreeEnsemble
from fullspan.estimators.boosting.linear import LinearModel
from fullspan.estimators.boosting.objective import Objective
from fullspan.estimators.boosting.objectives import RankObjective
from fullspan.estimators.boosting.xgboost_format import NO_LIMIT, PARAMETER_GROUPS, VERSION, Content

Array = NDArray[Any]

_ROOT_PARENT = 2147483647
_BOUNDED = ("binary:logistic", "reg:logistic")


def write(path: str | Path, content: Content) -> None:
    """Write a model that XGBoost, or `read`, reads: UBJSON when the name ends in ".ubj", else JSON.

    Raises
    ------
    CheckpointError
        If XGBoost has no form for the model.
    """
    path = Path(path)
    with replacing(path) as beside:
        beside.write_bytes(encode(content, "ubj" if path.suffix == ".ubj" else "json"))


def encode(content: Content, form: str) -> bytes:
    """The bytes of a file, in the form "json" or "ubj".

    Raises
    ------
    CheckpointError
        If XGBoost has no form for the model.
    """
    model = content.model
    if isinstance(model, TreeEnsemble):
        if model.value.dtype != np.float32 or model.zero_is_missing is not None:
            raise CheckpointError(
                "this model was read from LightGBM's form and cannot be written in XGBoost's",
                "write it with lightgbm_format.write",
            )
    elif not isinstance(model, LinearModel):
        raise CheckpointError("XGBoost's form has no place for a weak learner of your own", "use save(path)")
    learner = {
        "attributes": content.texts,
        "feature_names": content.feature_names or [],
        "feature_types": content.feature_types or [],
        "gradient_booster": _booster(content),
        "learner_model_param": learner_parameters(content),
        "objective": described(content.objective),
    }
    document = {"learner": learner, "version": VERSION}
    if form == "ubj":
        return ubjson.encode(document)
    return json.dumps(document, default=as_list).encode()


def learner_parameters(content: Content) -> dict[str, str]:
    """Base scores, and the numbers of classes, features and target columns."""
    model, classes = content.model, content.objective.name.startswith("multi:")
    return {
        "base_score": "[" + ",".join(str(v) for v in base_scores(content.objective, model)) + "]",
        "boost_from_average": "1",
        "num_class": str(model.n_groups if classes else 0),
        "num_feature": str(model.n_features),
        "num_target": str(1 if classes else model.n_groups),
    }


def as_list(value: Any) -> Any:
    """An array as JSON."""
    if value.dtype == np.float32:
        # The shortest digits that give the same float32.
        return [float(str(v)) for v in value]
    return value.tolist()


def base_scores(objective: Objective, model: Any) -> Array:
    """Predictions whose margins are the model's, to the last digit where there are such."""
    margin = model.base_score.astype(np.float32)
    if objective.name.startswith(("multi:", "rank:")) or objective.name == "binary:hinge":
        return np.asarray(margin)
    base = objective.prediction(margin[None])[0].astype(np.float32)
    for k in range(len(base)):
        ends = np.array([0, 1], dtype=np.float32) if objective.name in _BOUNDED else base[:0]
        # Of probabilities that a margin's clipping makes the same, the end itself.
        same = [v for v in ends if objective.to_margin(np.array([v]))[0] == margin[k]]
        if same:
            base[k] = same[0]
            continue
        up = down = base[k]
        for _ in range(64):
            near = [v for v in (up, down) if 0 < v < 1 or objective.name not in _BOUNDED]
            exact = [v for v in near if objective.to_margin(np.array([v]))[0] == margin[k]]
            if exact:
                base[k] = exact[0]
                break
            up, down = np.nextafter(up, np.float32(np.inf)), np.nextafter(down, np.float32(-np.inf))
    return np.asarray(base)


def described(objective: Objective) -> dict[str, Any]:
    """An objective with its parameters."""
    out: dict[str, Any] = {"name": objective.name}
    group = PARAMETER_GROUPS.get(objective.name)
    if group is None:
        return out
    texts = {key: _parameter_text(value) for key, value in objective.parameters.items()}
    if objective.name.startswith("multi:"):
        texts["num_class"] = str(objective.n_outputs)
    out[group] = texts
    if isinstance(objective, RankObjective) and objective.parameters["lambdarank_unbiased"]:
        bias = objective.position_bias()
        out["ti+"], out["tj-"] = bias.plus.astype(np.float32), bias.minus.astype(np.float32)
    return out


def _parameter_text(value: Any) -> str:
    if value is None:
        return str(NO_LIMIT)
    if isinstance(value, bool | np.bool_):
        return str(int(value))
    if isinstance(value, list):
        return "[" + ",".join(str(float(v)) for v in value) + "]"
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def _booster(content: Content) -> dict[str, Any]:
    model = content.model
    if isinstance(model, LinearModel):
        weights = np.concatenate([model.weight, model.bias[None]]).ravel().astype(np.float32)
        return {"model": {"boosted_rounds": model.n_rounds, "weights": weights}, "name": "gblinear"}
    step = content.n_parallel * model.n_groups
    forest = {
        "cats": _encoded(content),
        "gbtree_model_param": {
            "num_parallel_tree": str(content.n_parallel),
            "num_trees": str(model.n_trees),
        },
        "iteration_indptr": list(range(0, model.n_trees + 1, step)),
        "tree_info": model.tree_group.tolist(),
        "trees": [_tree(model, t) for t in range(model.n_trees)],
    }
    gbtree = {"model": forest, "name": "gbtree"}
    if np.all(model.tree_weight == 1):
        return gbtree
    return {"gbtree": gbtree, "name": "dart", "weight_drop": [float(w) for w in model.tree_weight]}


def _tree(model: TreeEnsemble, t: int) -> dict[str, Any]:
    model = _without_loose_nodes(model.trees(t, t + 1))
    span = slice(0, int(model.tree_start[1]))
    left, right = model.left[span], model.right[span]
    n, inner = len(left), left >= 0
    parents = np.full(n, _ROOT_PARENT, dtype=np.int32)
    parents[left[inner]] = parents[right[inner]] = np.flatnonzero(inner)
    first = model.category_start[:-1]
    sizes = np.diff(model.category_start)
    nodes = np.flatnonzero(inner & (sizes > 0))
    return {
        "base_weights": model.value[span],
        "categories": model.categories,
        "categories_nodes": nodes.astype(np.int32),
        "categories_segments": first[nodes].astype(np.int64),
        "categories_sizes": sizes[nodes].astype(np.int64),
        "default_left": model.default_left[span].astype(np.uint8),
        "id": t,
        "left_children": left,
        "loss_changes": model.gain[span],
        "parents": parents,
        "right_children": right,
        "split_conditions": np.where(inner, model.threshold[span], model.value[span]).astype(np.float32),
        "split_indices": model.feature[span].astype(np.int32),
        "split_type": (inner & (sizes > 0)).astype(np.uint8),
        "sum_hessian": model.cover[span],
        "tree_param": {
            "num_deleted": "0",
            "num_feature": str(model.n_features),
            "num_nodes": str(n),
            "size_leaf_vector": "1",
        },
    }


def _without_loose_nodes(tree: TreeEnsemble) -> TreeEnsemble:
    """One tree without nodes that nothing leads to, which XGBoost keeps where it has pruned."""
    reached = np.zeros(len(tree.left), dtype=bool)
    waiting = [0]
    while waiting:
        node = waiting.pop()
        reached[node] = True
        if tree.left[node] >= 0:
            waiting += [int(tree.left[node]), int(tree.right[node])]
    if reached.all():
        return tree
    # Nodes that nothing leads to are leaves: they own no categories.
    new_index = np.cumsum(reached).astype(np.int32) - 1
    for side in (tree.left, tree.right):
        side[side >= 0] = new_index[side[side >= 0]]
    for name in ("left", "right", "feature", "threshold", "default_left", "value", "gain", "cover"):
        setattr(tree, name, getattr(tree, name)[reached])
    tree.category_start = np.concatenate([tree.category_start[:-1][reached], tree.category_start[-1:]])
    tree.tree_start = np.array([0, len(tree.left)])
    return tree


def _encoded(content: Content) -> dict[str, Any]:
    """What codes stand for, in the form of XGBoost's `cats`."""
    empty = np.empty(0, dtype=np.int32)
    if not content.categories:
        return {"enc": [], "feature_segments": empty, "sorted_idx": empty}
    columns: list[dict[str, Any]] = []
    sizes, order = [], []
    for index in range(content.model.n_features):
        values = content.categories.get(index)
        if values is None:
            columns.append({"offsets": empty, "values": np.empty(0, dtype=np.int8)})
            sizes.append(0)
            continue
        sizes.append(len(values))
        order.append(np.argsort(values, kind="stable"))
        if values.dtype.kind in "iub":  # yes and no are 1 and 0, as they are to a lookup
            columns.append({"type": 15, "values": values.astype(np.int64)})
        elif values.dtype.kind == "f":
            columns.append({"type": 8, "values": values.astype(np.float64)})
        else:
            names = [str(v).encode() for v in values]
            ends = np.concatenate([[0], np.cumsum([len(n) for n in names])]).astype(np.int32)
            columns.append({"offsets": ends, "values": np.frombuffer(b"".join(names), np.int8)})
    return {
        "enc": columns,
        "feature_segments": np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32),
        "sorted_idx": np.concatenate(order).astype(np.int32),
    }
