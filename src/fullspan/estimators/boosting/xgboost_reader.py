"""Reads XGBoost's model files, JSON and UBJSON."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullspan.core.errors import CheckpointError
from fullspan.estimators.boosting import ubjson
from fullspan.estimators.boosting.ensemble import TreeEnsemble
from fullspan.estimators.boosting.linear import LinearModel
from fullspan.estimators.boosting.objective import Objective
from fullspan.estimators.boosting.objectives import OBJECTIVES, make_objective
from fullspan.estimators.boosting.xgboost_format import NO_LIMIT, PARAMETER_GROUPS, Content

Array = NDArray[Any]

_MOST_OUTPUTS = 1_000_000


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
    return decode(content, str(path))


def decode(content: bytes, path: str) -> Content:
    """The model in the bytes of a file; `path` is what errors call it.

    Raises
    ------
    CheckpointError
        If they are damaged, or use what is not supported.
    """
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

    def __init__(self, path: str, document: Any) -> None:
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
        group = PARAMETER_GROUPS.get(name)
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
                return None if int(text) == NO_LIMIT else int(text)
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
        parts: list[list[tuple[int, dict[str, Array]]]] = []
        for i, (tree, group) in enumerate(zip(trees, groups.tolist(), strict=True)):
            parts.append(self.tree(tree, f"{name}.trees[{i}]", n_features, n_outputs, group))
        found = [one for part in parts for one in part]
        if "iteration_indptr" in model:
            found = []
            ends = self.numbers(model, "iteration_indptr", name, np.int64)
            if len(ends) and (ends[0] != 0 or ends[-1] != len(trees) or np.any(np.diff(ends) < 0)):
                raise self.damaged(f"{name}.iteration_indptr", f"does not fit the {len(trees)} trees")
            for first, last in itertools.pairwise(ends):
                members = [one for part in parts[first:last] for one in part]
                if len(members) != step:
                    raise self.unsupported(
                        f"{name}.iteration_indptr", "rounds with different numbers of trees"
                    )
                found += sorted(members, key=lambda one: one[0])
        groups = np.array([group for group, _ in found], dtype=np.int32)
        alone = [part for _, part in found]
        out.model = TreeEnsemble.of_trees(alone, n_features, base, groups, np.float32)
        self.encodings(model, name, n_features, out)

    def tree(
        self, tree: Any, name: str, n_features: int, n_outputs: int, group: int
    ) -> list[tuple[int, dict[str, Array]]]:
        """Outputs and arrays: of one tree, or of one for each output where leaves hold several values."""
        described = self.get(tree, "tree_param", name)
        size = self.whole(described, "size_leaf_vector", f"{name}.tree_param", 2**31, 1)
        one = self.one_tree(tree, name, n_features)
        if size <= 1:
            return [(group, one)]
        if size != n_outputs:
            raise self.damaged(f"{name}.tree_param.size_leaf_vector", f"is {size}, expected {n_outputs}")
        leaf = one["left"] < 0
        # A leaf says in place of its right child where its values are.
        place = self.numbers(tree, "right_children", name, np.int32)[leaf]
        values = self.numbers(tree, "leaf_weights", name, np.float32, int(leaf.sum()) * size)
        if np.any((place < 0) | (place >= leaf.sum())):
            raise self.damaged(f"{name}.right_children", "points out of leaf_weights")
        out = []
        for output in range(size):
            value = np.zeros(len(leaf), dtype=np.float32)
            value[leaf] = values.reshape(-1, size)[place, output]
            out.append((output, one | {"value": value, "cover": one["cover"] / np.float32(size)}))
        return out

    def one_tree(self, tree: Any, name: str, n_features: int) -> dict[str, Array]:
        left = self.numbers(tree, "left_children", name, np.int32)
        n = len(left)
        right = self.numbers(tree, "right_children", name, np.int32, n)
        self.check_shape(left, right, name)
        feature = self.numbers(tree, "split_indices", name, np.int64, n)
        inner = left >= 0
        if np.any(inner & ((feature < 0) | (feature >= n_features))):
            raise self.damaged(f"{name}.split_indices", f"names a feature out of {n_features}")
        condition = self.numbers(tree, "split_conditions", name, np.float32, n)
        weight = self.numbers(tree, "base_weights", name, np.float32)[:n]
        if len(weight) != n:
            raise self.damaged(f"{name}.base_weights", f"has shape {weight.shape}, expected ({n},)")
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
        names, types = learner.get("feature_names") or None, learner.get("feature_types") or None
        for key, value in (("feature_names", names), ("feature_types", types)):
            if value and (len(value) != n_features or not all(isinstance(v, str) for v in value)):
                raise self.damaged(f"learner.{key}", f"does not fit the {n_features} features")
        out.feature_names, out.feature_types = names, types
        attributes = learner.get("attributes", {})
        if not isinstance(attributes, Mapping) or not all(isinstance(v, str) for v in attributes.values()):
            raise self.damaged("learner.attributes", "is no mapping of texts")
        out.texts = dict(attributes)
        try:
            int(attributes.get("best_iteration", 0))
            float(attributes.get("best_score", 0))
        except ValueError:
            raise self.damaged(
                "learner.attributes", "has no number for best_iteration or best_score"
            ) from None
