"""Boosted trees and linear models in words: text, JSON, Graphviz' dot and tables, all in XGBoost's forms."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fullspan.estimators.boosting.ensemble import TreeEnsemble
from fullspan.estimators.boosting.linear import LinearModel

FORMS = ("text", "json", "dot")


@dataclass(frozen=True)
class Feature:
    """How a feature is called and shown: `kind` is "q", "float", "int", "i" (yes or no) or "c"."""

    name: str
    kind: str


def features_of_model(
    n_features: int, names: Sequence[str] | None, types: Sequence[str] | None
) -> list[Feature]:
    """Names and types, by default "f0", "f1", ... and "q"."""
    return [Feature(names[i] if names else f"f{i}", types[i] if types else "q") for i in range(n_features)]


def features_of_map(path: Path | str) -> list[Feature]:
    """A file with a line for each feature: its number, name and type."""
    lines = [line.split() for line in Path(path).read_text().splitlines() if line.strip()]
    if any(len(words) < 3 for words in lines):
        raise ValueError(f"{path} must have a number, a name and a type on each line")
    return [Feature(words[1], words[2]) for words in sorted(lines, key=lambda words: int(words[0]))]


def number(value: Any) -> str:
    """A float32 with the digits that tell it from others."""
    return f"{float(value):.9g}"


def dump(model: TreeEnsemble | LinearModel, features: Sequence[Feature], form: str, stats: bool) -> list[str]:
    """Each tree, or the one linear model.

    Raises
    ------
    ValueError
        If there is no such form.
    """
    if form not in FORMS:
        raise ValueError(f"dump_format must be one of {', '.join(FORMS)}, got {form!r}")
    if isinstance(model, LinearModel):
        return [_linear(model, form)]
    write = {"text": _text, "json": _json, "dot": _dot}[form]
    return [write(_Tree(model, tree, features, stats)) for tree in range(model.n_trees)]


class _Tree:
    """One tree, node by node."""

    def __init__(self, model: TreeEnsemble, tree: int, features: Sequence[Feature], stats: bool) -> None:
        self.model, self.features, self.stats = model, features, stats
        self.root = int(model.tree_start[tree])

    def is_leaf(self, node: int) -> bool:
        return bool(self.model.left[self.root + node] < 0)

    def children(self, node: int) -> tuple[int, int]:
        return int(self.model.left[self.root + node]), int(self.model.right[self.root + node])

    def missing(self, node: int) -> int:
        left, right = self.children(node)
        return left if self.model.default_left[self.root + node] else right

    def feature(self, node: int) -> Feature:
        return self.features[int(self.model.feature[self.root + node])]

    def categories(self, node: int) -> list[int] | None:
        start = self.model.category_start[self.root + node : self.root + node + 2]
        return self.model.categories[start[0] : start[1]].tolist() if start[1] > start[0] else None

    def yes_and_no(self, node: int) -> tuple[int, int]:
        """Where a row goes that has one of the categories, or is below the threshold."""
        left, right = self.children(node)
        if self.categories(node) is not None:
            return right, left
        if self.feature(node).kind == "i":
            return (right, left) if self.missing(node) == left else (left, right)
        return left, right

    def threshold(self, node: int) -> str:
        value = self.model.threshold[self.root + node]
        return str(int(np.ceil(value))) if self.feature(node).kind == "int" else number(value)

    def value(self, node: int) -> str:
        return number(self.model.value[self.root + node])

    def gain(self, node: int) -> str:
        return number(self.model.gain[self.root + node])

    def cover(self, node: int) -> str:
        return number(self.model.cover[self.root + node])

    def question(self, node: int) -> str:
        name, categories = self.feature(node).name, self.categories(node)
        if categories is not None:
            return f"{name}:{{{','.join(map(str, categories))}}}"
        return name if self.feature(node).kind == "i" else f"{name}<{self.threshold(node)}"


def _text(tree: _Tree) -> str:
    lines, waiting = [], [(0, 0)]
    while waiting:
        node, depth = waiting.pop()
        if tree.is_leaf(node):
            line = f"{node}:leaf={tree.value(node)}" + (f",cover={tree.cover(node)}" if tree.stats else "")
        else:
            yes, no = tree.yes_and_no(node)
            line = f"{node}:[{tree.question(node)}] yes={yes},no={no}"
            if tree.feature(node).kind != "i":
                line += f",missing={tree.missing(node)}"
            if tree.stats:
                line += f",gain={tree.gain(node)},cover={tree.cover(node)}"
            waiting += [(child, depth + 1) for child in reversed(tree.children(node))]
        lines.append("\t" * depth + line + "\n")
    return "".join(lines)


def _json(tree: _Tree, node: int = 0, depth: int = 0) -> str:
    indent = "  " * (depth + 1)
    if tree.is_leaf(node):
        cover = f', "cover": {tree.cover(node)}' if tree.stats else ""
        space = " " if tree.stats else ""
        return f'{indent}{{ "nodeid": {node}, "leaf": {tree.value(node)}{space}{cover} }}'
    categories, (yes, no) = tree.categories(node), tree.yes_and_no(node)
    parts = [f'"nodeid": {node}', f'"depth": {depth}', f'"split": {json.dumps(tree.feature(node).name)}']
    if categories is not None:
        parts.append(f'"split_condition": [{", ".join(map(str, categories))}]')
    elif tree.feature(node).kind != "i":
        parts.append(f'"split_condition": {tree.threshold(node)}')
    parts += [f'"yes": {yes}', f'"no": {no}']
    if tree.feature(node).kind != "i":
        parts.append(f'"missing": {tree.missing(node)}')
    parts[-1] += " "
    if tree.stats:
        parts += [f'"gain": {tree.gain(node)}', f'"cover": {tree.cover(node)}']
    below = ", \n".join(_json(tree, child, depth + 1) for child in tree.children(node))
    return f'{indent}{{ {", ".join(parts)}, "children": [\n{below}\n{indent}]}}'


def _dot(tree: _Tree) -> str:
    out, waiting = ["digraph {\n    graph [ rankdir=TB ]\n"], [0]
    while waiting:
        node = waiting.pop()
        label = f"leaf={tree.value(node)}" if tree.is_leaf(node) else tree.question(node)
        if tree.stats:
            label += "" if tree.is_leaf(node) else f"\ngain={tree.gain(node)}"
            label += f"\ncover={tree.cover(node)}"
        label = label.replace('"', '\\"')
        block = [f'    {node} [ label="{label}" ]']
        if not tree.is_leaf(node):
            yes, _ = tree.yes_and_no(node)
            for child in tree.children(node):
                words = "yes" if child == yes else "no"
                words += ", missing" if child == tree.missing(node) else ""
                colour = "#0000FF" if child == tree.missing(node) else "#FF0000"
                block.append(f'    {node} -> {child} [label="{words}" color="{colour}"]')
            waiting += reversed(tree.children(node))
        out.append("\n".join(block) + "\n")
    return "\n".join(out) + "}"


def _linear(model: LinearModel, form: str) -> str:
    bias = [f"{float(v):.6g}" for v in model.bias]
    weight = [f"{float(v):.6g}" for v in model.weight.ravel()]
    if form == "json":
        lists = [",\n".join(f"      {v}" for v in values) for values in (bias, weight)]
        return f'  {{ "bias": [\n{lists[0]}\n    ],\n    "weight": [\n{lists[1]}\n    ]\n  }}'
    return "bias:\n" + "\n".join(bias) + "\nweight:\n" + "\n".join(weight) + "\n"


def table(model: TreeEnsemble, features: Sequence[Feature]) -> dict[str, list[Any]]:
    """A row for each node, by column, in the order of trees and nodes."""
    names = ("Tree", "Node", "ID", "Feature", "Split", "Yes", "No", "Missing", "Gain", "Cover", "Category")
    rows: list[tuple[Any, ...]] = []
    for number_ in range(model.n_trees):
        tree = _Tree(model, number_, features, True)
        for node in sorted(_reached(tree)):
            start = (number_, node, f"{number_}-{node}")
            if tree.is_leaf(node):
                nothing = (np.nan, np.nan, np.nan, np.nan)
                rows.append(
                    (*start, "Leaf", *nothing, float(tree.value(node)), float(tree.cover(node)), np.nan)
                )
                continue
            yes, no = tree.yes_and_no(node)
            categories = tree.categories(node)
            split = np.nan if categories is not None else float(tree.threshold(node))
            ids = tuple(f"{number_}-{child}" for child in (yes, no, tree.missing(node)))
            listed = None if categories is None else [str(c) for c in categories]
            rows.append(
                (*start, tree.feature(node).name, split, *ids, float(tree.gain(node)),
                 float(tree.cover(node)), listed)
            )  # fmt: skip
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


def _reached(tree: _Tree) -> list[int]:
    found, waiting = [], [0]
    while waiting:
        node = waiting.pop()
        found.append(node)
        if not tree.is_leaf(node):
            waiting += tree.children(node)
    return found
