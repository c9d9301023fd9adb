"""XGBoost's model files, JSON and UBJSON, read and written."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullspan.core.errors import CheckpointError
from fullspan.core.files import replacing
from fullspan.estimators.boosting import ubjson
from fullspan.estimators.boosting.ensemble import TreeEnsemble
from fullspan.estimators.boosting.linear import LinearModel
from fullspan.estimators.boosting.objectives import OBJECTIVES, Objective, make_objective

Array = NDArray[Any]

_VERSION = [3, 2, 0]
_ROOT_PARENT = 2147483647
_MOST_OUTPUTS = 1_000_000
# Where XGBoost keeps each objective's parameters.
_PARAMETER_GROUPS = {
    "reg:squarederror": "reg_loss_param",
    "reg:logistic": "reg_loss_param",
    "reg:gamma": "reg_loss_param",
    "binary:logistic": "reg_loss_param",
    "binary:logitraw": "reg_loss_param",
    "reg:pseudohubererror": "pseudo_huber_param",
    "reg:quantileerror": "quantile_loss_param",
    "reg:tweedie": "tweedie_regression_param",
    "count:poisson": "poisson_regression_param",
    "survival:aft": "aft_loss_param",
    "multi:softprob": "softmax_multiclass_param",
    "multi:softmax": "softmax_multiclass_param",
    "rank:ndcg": "lambdarank_param",
    "rank:pairwise": "lambdarank_param",
    "rank:map": "lambdarank_param",
}
_NO_LIMIT = 4294967295


@dataclass
class Content:
    """What a model file holds."""

    model: Any
    objective: Objective
    n_parallel: int = 1
    feature_names: Any = None
    is_categorical: Array = field(default_factory=lambda: np.empty(0, bool))
    categories: dict[int, Array] = field(default_factory=dict)
    best_iteration: int | None = None
    best_score: float | None = None

    @property
    def is_linear(self) -> bool:
        return isinstance(self.model, LinearModel)


def read(path: str | Path) -> Content:
    """Read a model that XGBoost, or `write`, wrote.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged, or uses what is not supported; the message names file and key.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
    try:
        # JSON begins with a brace and a quote or white space, UBJSON with a brace and a length.
        is_json = content[:1] == b"{" and content[1:2] in (b'"', b"\n", b" ", b"\r", b"\t", b"}")
        if is_json:
            tree = json.loads(content, parse_int=_bounded)
        else:
            tree = ubjson.decode(content)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is not an XGBoost model, or is damaged: {error}",
            "save it with save_model('….json') or '….ubj'; the old binary form is not supported",
        ) from None
    return _Reader(path, tree).content()


def _bounded(text: str) -> int:
    if len(text) > 20:
        raise ValueError(f"the whole number {text[:20]}… is too long")
    return int(text)


class _Reader:
    """Takes values by key; says file and key where one is missing or of another kind."""

    def __init__(self, path: Path, document: Any) -> None:
        self.path = path
        self.document = document

    def damaged(self, key: str, what: str) -> CheckpointError:
        return CheckpointError(f"{self.path} is damaged: {key} {what}")

    def unsupported(self, key: str, what: str) -> CheckpointError:
        return CheckpointError(f"{self.path} has {what} in {key}, which is not supported")

    def get(self, parent: Any, key: str, name: str, kind: type | tuple[type, ...] = dict) -> Any:
        if not isinstance(parent, Mapping) or key not in parent:
            raise self.damaged(f"{name}.{key}", "is missing")
        value = parent[key]
        if not isinstance(value, kind):
            raise self.damaged(f"{name}.{key}", f"is a {type(value).__name__}")
        return value

    def whole(self, parent: Any, key: str, name: str, most: int, default: int | None = None) -> int:
        """A whole number, which XGBoost writes as text."""
        if default is not None and (not isinstance(parent, Mapping) or key not in parent):
            return default
        value = self.get(parent, key, name, (str, int))
        try:
            number = int(value)
        except ValueError:
            raise self.damaged(f"{name}.{key}", f"is {value!r:.40}, expected a whole number") from None
        if not 0 <= number <= most:
            raise self.damaged(f"{name}.{key}", f"is {number}, out of range")
        return number

    def numbers(self, parent: Any, key: str, name: str, kind: Any, size: int | None = None) -> Array:
        value = self.get(parent, key, name, (list, np.ndarray))
        try:
            array = np.asarray(value)
            if array.size and array.dtype.kind not in "iufb":
                raise ValueError
            if np.issubdtype(kind, np.integer) and array.size:
                info = np.iinfo(kind)
                if array.dtype.kind == "f" or array.max() > info.max or array.min() < info.min:
                    raise ValueError
            with np.errstate(over="ignore"):
                array = array.astype(kind)
        except (ValueError, OverflowError, TypeError):
            raise self.damaged(f"{name}.{key}", "is no list of numbers of its kind") from None
        if array.ndim != 1 or (size is not None and len(array) != size):
            raise self.damaged(f"{name}.{key}", f"has shape {array.shape}, expected ({size},)")
        return array

    def content(self) -> Content:
        learner = self.get(self.document, "learner", "the file")
        name = "learner"
        shape = self.get(learner, "learner_model_param", name)
        name = "learner.learner_model_param"
        n_features = self.whole(shape, "num_feature", name, 2**31)
        n_outputs = max(
            self.whole(shape, "num_class", name, _MOST_OUTPUTS, 0),
            self.whole(shape, "num_target", name, _MOST_OUTPUTS, 1),
            1,
        )
        objective = self.objective(learner, n_outputs)
        base = self.base_score(shape, n_outputs, objective)
        booster = self.get(learner, "gradient_booster", "learner")
        kind = self.get(booster, "name", "learner.gradient_booster", str)
        out = Content(None, objective)
        match kind:
            case "gblinear":
                out.model = self.linear(booster, n_features, n_outputs, base)
            case "gbtree":
                self.forest(booster, "learner.gradient_booster", n_features, n_outputs, base, out)
            case "dart":
                inner = self.get(booster, "gbtree", "learner.gradient_booster")
                self.forest(inner, "learner.gradient_booster.gbtree", n_features, n_outputs, base, out)
                out.model.tree_weight[:] = self.numbers(
                    booster, "weight_drop", "learner.gradient_booster", np.float32, out.model.n_trees
                )
            case _:
                raise self.unsupported("learner.gradient_booster.name", f"the booster {kind!r:.40}")
        self.describe(learner, n_features, out)
        return out

    def objective(self, learner: Any, n_outputs: int) -> Objective:
        described = self.get(learner, "objective", "learner")
        name = self.get(described, "name", "learner.objective", str)
        name = {"reg:linear": "reg:squarederror"}.get(name, name)
        if name not in OBJECTIVES:
            raise self.unsupported("learner.objective.name", f"the objective {name!r:.40}")
        group = _PARAMETER_GROUPS.get(name)
        texts = described.get(group, {}) if group else {}
        given: dict[str, Any] = {}
        for key, default in OBJECTIVES[name][1].items():
            if isinstance(texts, Mapping) and key in texts:
                given[key] = self.parameter(f"learner.objective.{group}.{key}", str(texts[key]), default)
        try:
            made = make_objective(name, n_outputs, given)
        except ValueError as error:
            raise self.damaged("learner.objective", f"is wrong: {error}") from None
        if made.n_outputs != n_outputs:
            raise self.damaged("learner.objective", f"has {made.n_outputs} outputs, the model {n_outputs}")
        return made

    def parameter(self, key: str, text: str, default: Any) -> Any:
        try:
            if key.endswith("quantile_alpha"):
                return [float(part) for part in text.strip("[]()").split(",")]
            if key.endswith("num_pair_per_sample"):
                return None if int(text) == _NO_LIMIT else int(text)
            if isinstance(default, bool):
                return bool(int(text))
            return float(text) if isinstance(default, float) else text
        except ValueError:
            raise self.damaged(key, f"is {text!r:.40}") from None

    def base_score(self, shape: Any, n_outputs: int, objective: Objective) -> Array:
        key = "learner.learner_model_param.base_score"
        text = self.get(shape, "base_score", "learner.learner_model_param", (str, float, int))
        try:
            values = np.array([float(part) for part in str(text).strip("[]").split(",")], dtype=np.float32)
            if len(values) not in (1, n_outputs):
                raise ValueError
            return objective.to_margin(np.broadcast_to(values, n_outputs).copy()).astype(np.float64)
        except ValueError:
            raise self.damaged(key, f"is {str(text)[:40]!r}") from None

    def linear(self, booster: Any, n_features: int, n_outputs: int, base: Array) -> LinearModel:
        name = "learner.gradient_booster.model"
        model = self.get(booster, "model", "learner.gradient_booster")
        values = self.numbers(model, "weights", name, np.float32, (n_features + 1) * n_outputs)
        table = values.reshape(n_features + 1, n_outputs)
        rounds = self.whole(model, "boosted_rounds", name, 2**31, 0)
        # XGBoost starts the margins of all outputs at the first one's base score.
        base = np.full(n_outputs, base[0])
        return LinearModel(n_features, n_outputs, base, table[:-1].copy(), table[-1].copy(), rounds)

    def forest(
        self, booster: Any, name: str, n_features: int, n_outputs: int, base: Array, out: Content
    ) -> None:
        model = self.get(booster, "model", name)
        name += ".model"
        trees = self.get(model, "trees", name, list)
        groups = self.numbers(model, "tree_info", name, np.int32, len(trees))
        if len(groups) and not (0 <= groups.min() and groups.max() < n_outputs):
            raise self.damaged(f"{name}.tree_info", f"names outputs out of {n_outputs}")
        described = self.get(model, "gbtree_model_param", name)
        out.n_parallel = max(
            self.whole(described, "num_parallel_tree", f"{name}.gbtree_model_param", 2**31, 1), 1
        )
        step = out.n_parallel * n_outputs
        if "iteration_indptr" in model:
            ends = self.numbers(model, "iteration_indptr", name, np.int64)
            if len(ends) > 1 and not np.all(np.diff(ends) == step):
                raise self.unsupported(f"{name}.iteration_indptr", "rounds with different numbers of trees")
        parts = [self.tree(tree, f"{name}.trees[{i}]", n_features) for i, tree in enumerate(trees)]
        out.model = _joined(parts, n_features, n_outputs, base, groups)
        self.encodings(model, name, n_features, out)

    def tree(self, tree: Any, name: str, n_features: int) -> dict[str, Array]:
        described = self.get(tree, "tree_param", name)
        if self.whole(described, "size_leaf_vector", f"{name}.tree_param", 2**31, 1) > 1:
            raise self.unsupported(f"{name}.tree_param.size_leaf_vector", "several outputs at a leaf")
        left = self.numbers(tree, "left_children", name, np.int32)
        n = len(left)
        right = self.numbers(tree, "right_children", name, np.int32, n)
        self.check_shape(left, right, name)
        feature = self.numbers(tree, "split_indices", name, np.int64, n)
        inner = left >= 0
        if np.any(inner & ((feature < 0) | (feature >= n_features))):
            raise self.damaged(f"{name}.split_indices", f"names a feature out of {n_features}")
        condition = self.numbers(tree, "split_conditions", name, np.float32, n)
        weight = self.numbers(tree, "base_weights", name, np.float32, n)
        out = {
            "left": left,
            "right": np.where(inner, right, -1).astype(np.int32),
            "feature": np.where(inner, feature, 0).astype(np.int32),
            "threshold": np.where(inner, condition, 0).astype(np.float32),
            "default_left": self.numbers(tree, "default_left", name, np.int32, n) != 0,
            "value": np.where(inner, weight, condition).astype(np.float32),
            "gain": np.where(inner, self.numbers(tree, "loss_changes", name, np.float32, n), 0),
            "cover": self.numbers(tree, "sum_hessian", name, np.float32, n),
        }
        return out | self.node_categories(tree, name, n, out)

    def check_shape(self, left: Array, right: Array, name: str) -> None:
        """Every node is reached once at most, from the root on."""
        if not len(left):
            raise self.damaged(f"{name}.left_children", "is empty")
        inner = np.flatnonzero(left >= 0)
        children = np.concatenate([left[inner], right[inner]])
        if len(children) and not (children.min() >= 1 and children.max() < len(left)):
            raise self.damaged(f"{name}.left_children or right_children", "points out of the tree")
        if len(np.unique(children)) != len(children):
            raise self.damaged(f"{name}.left_children or right_children", "gives a node two parents")

    def node_categories(self, tree: Any, name: str, n: int, out: dict[str, Array]) -> dict[str, Array]:
        start = np.zeros(n + 1, dtype=np.int64)
        nodes = np.empty(0, dtype=np.int64)
        if "categories_nodes" in tree:
            nodes = self.numbers(tree, "categories_nodes", name, np.int64)
        if "split_type" in tree:
            kinds = self.numbers(tree, "split_type", name, np.int32, n)
            if not np.array_equal(np.flatnonzero((kinds == 1) & (out["left"] >= 0)), np.sort(nodes)):
                raise self.damaged(f"{name}.split_type", "and categories_nodes do not agree")
        if not len(nodes):
            return {"category_start": start, "categories": np.empty(0, np.int32)}
        values = self.numbers(tree, "categories", name, np.int32)
        begin = self.numbers(tree, "categories_segments", name, np.int64, len(nodes))
        size = self.numbers(tree, "categories_sizes", name, np.int64, len(nodes))
        if nodes.min() < 0 or nodes.max() >= n or len(np.unique(nodes)) != len(nodes):
            raise self.damaged(f"{name}.categories_nodes", "names nodes out of the tree")
        if (
            np.any(begin < 0)
            or np.any(size < 0)
            or np.any(begin > len(values))
            or np.any(size > len(values) - begin)
        ):
            raise self.damaged(f"{name}.categories_sizes", "asks for more categories than there are")
        sets = {
            int(node): np.unique(values[b : b + s]) for node, b, s in zip(nodes, begin, size, strict=True)
        }
        for node, members in sets.items():
            if len(members):
                start[node + 1] = len(members)
            else:
                out["threshold"][node] = np.inf  # no category goes right
        joined = [sets[node] for node in sorted(sets)]
        return {"category_start": np.cumsum(start), "categories": np.concatenate(joined).astype(np.int32)}

    def encodings(self, model: Any, name: str, n_features: int, out: Content) -> None:
        """The values that codes of categories stand for, where a DataFrame was fitted."""
        columns = model.get("cats", {}).get("enc", []) if isinstance(model.get("cats", {}), Mapping) else []
        if len(columns) > n_features:
            raise self.damaged(f"{name}.cats.enc", f"has {len(columns)} columns")
        for index, column in enumerate(columns):
            key = f"{name}.cats.enc[{index}]"
            if not isinstance(column, Mapping):
                raise self.damaged(key, f"is a {type(column).__name__}")
            if "offsets" not in column:
                values = self.get(column, "values", key, (list, np.ndarray))
                if len(values):
                    floats = any(isinstance(v, float | np.floating) for v in values)
                    out.categories[index] = self.numbers(
                        column, "values", key, np.float64 if floats else np.int64
                    )
                continue
            ends = self.numbers(column, "offsets", key, np.int64)
            letters = (self.numbers(column, "values", key, np.int64) & 255).astype(np.uint8).tobytes()
            if not len(ends):
                continue
            if np.any(np.diff(ends) < 0) or ends[0] < 0 or ends[-1] > len(letters):
                raise self.damaged(f"{key}.offsets", "points out of the names")
            names = [letters[a:b].decode("utf-8", "replace") for a, b in itertools.pairwise(ends)]
            out.categories[index] = np.array(names, dtype=object)

    def describe(self, learner: Any, n_features: int, out: Content) -> None:
        names, types = learner.get("feature_names") or None, learner.get("feature_types") or []
        for key, value in (("feature_names", names), ("feature_types", types)):
            if value and (len(value) != n_features or not all(isinstance(v, str) for v in value)):
                raise self.damaged(f"learner.{key}", f"does not fit the {n_features} features")
        out.feature_names = names
        out.is_categorical = np.array([t == "c" for t in types] or [False] * n_features, dtype=bool)
        attributes = learner.get("attributes", {})
        if not isinstance(attributes, Mapping):
            raise self.damaged("learner.attributes", f"is a {type(attributes).__name__}")
        try:
            if "best_iteration" in attributes:
                out.best_iteration = int(attributes["best_iteration"])
            if "best_score" in attributes:
                out.best_score = float(attributes["best_score"])
        except (ValueError, TypeError):
            raise self.damaged(
                "learner.attributes", "has no number for best_iteration or best_score"
            ) from None


def _joined(
    parts: list[dict[str, Array]], n_features: int, n_outputs: int, base: Array, groups: Array
) -> TreeEnsemble:
    def together(key: str, kind: Any) -> Array:
        return np.concatenate([np.empty(0, kind), *(part[key] for part in parts)]).astype(kind)

    sizes = [len(part["left"]) for part in parts]
    counts = [np.diff(part["category_start"]) for part in parts]
    return TreeEnsemble(
        n_features,
        n_outputs,
        base_score=base,
        tree_start=np.concatenate([[0], np.cumsum(sizes)]),
        tree_group=groups,
        tree_weight=np.ones(len(parts)),
        left=together("left", np.int32),
        right=together("right", np.int32),
        feature=together("feature", np.int32),
        threshold=together("threshold", np.float32),
        default_left=together("default_left", bool),
        value=together("value", np.float32),
        gain=together("gain", np.float32),
        cover=together("cover", np.float32),
        category_start=np.concatenate([[0], np.cumsum(np.concatenate([np.empty(0, int), *counts]))]),
        categories=together("categories", np.int32),
    )


def write(path: str | Path, content: Content) -> None:
    """Write a model that XGBoost, or `read`, reads: UBJSON when the name ends in ".ubj", else JSON.

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
        "attributes": _attributes(content),
        "feature_names": [] if content.feature_names is None else [str(n) for n in content.feature_names],
        "feature_types": ["c" if c else "float" for c in content.is_categorical],
        "gradient_booster": _booster(content),
        "learner_model_param": {
            "base_score": "[" + ",".join(str(v) for v in base_scores(content.objective, model)) + "]",
            "boost_from_average": "1",
            "num_class": str(model.n_groups if content.objective.name.startswith("multi:") else 0),
            "num_feature": str(model.n_features),
            "num_target": str(1 if content.objective.name.startswith("multi:") else model.n_groups),
        },
        "objective": _described(content.objective),
    }
    tree = {"learner": learner, "version": _VERSION}
    path = Path(path)
    with replacing(path) as beside:
        if path.suffix == ".ubj":
            beside.write_bytes(ubjson.encode(tree))
        else:
            beside.write_text(json.dumps(tree, default=_as_list))


def _as_list(value: Any) -> Any:
    if value.dtype == np.float32:
        # The shortest digits that give the same float32.
        return [float(str(v)) for v in value]
    return value.tolist()


def _attributes(content: Content) -> dict[str, str]:
    out = {}
    if content.best_iteration is not None:
        out["best_iteration"] = str(content.best_iteration)
    if content.best_score is not None:
        out["best_score"] = repr(content.best_score)
    return out


def base_scores(objective: Objective, model: Any) -> Array:
    """Predictions whose margins are the model's, to the last digit where there are such."""
    margin = model.base_score.astype(np.float32)
    if objective.name.startswith(("multi:", "rank:")) or objective.name == "binary:hinge":
        return np.asarray(margin)
    base = objective.prediction(margin[None])[0].astype(np.float32)
    for k in range(len(base)):
        up = down = base[k]
        for _ in range(64):
            near = [v for v in (up, down) if 0 < v < 1 or objective.name not in _BOUNDED]
            exact = [v for v in near if objective.to_margin(np.array([v]))[0] == margin[k]]
            if exact:
                base[k] = exact[0]
                break
            up, down = np.nextafter(up, np.float32(np.inf)), np.nextafter(down, np.float32(-np.inf))
    return np.asarray(base)


_BOUNDED = ("binary:logistic", "reg:logistic")


def _described(objective: Objective) -> dict[str, Any]:
    out: dict[str, Any] = {"name": objective.name}
    group = _PARAMETER_GROUPS.get(objective.name)
    if group is None:
        return out
    texts = {key: _parameter_text(value) for key, value in objective.parameters.items()}
    if objective.name.startswith("multi:"):
        texts["num_class"] = str(objective.n_outputs)
    out[group] = texts
    return out


def _parameter_text(value: Any) -> str:
    if value is None:
        return str(_NO_LIMIT)
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
        if values.dtype.kind in "iu":
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
