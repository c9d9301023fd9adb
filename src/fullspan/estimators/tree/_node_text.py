"""What a node says and which colour it has, in graphs and plots of trees."""

from __future__ import annotations

import colorsys
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fullspan.estimators.tree.structure import LEAF, Tree


class Marks(NamedTuple):
    """How a language of labels writes these."""

    number: str
    index_open: str
    index_close: str
    at_most: str
    newline: str
    open: str
    close: str


def condition_text(estimator: Any, node: int, name: str, threshold: str) -> tuple[str, str]:
    """The conditions for going left and right at a split."""
    codes = estimator.tree_.categories_left(node)
    if codes is None:
        return f"{name} <= {threshold}", f"{name} >  {threshold}"
    categories = _categories_text(estimator, node, codes)
    return f"{name} in {categories}", f"{name} not in {categories}"


def _categories_text(estimator: Any, node: int, codes: NDArray[np.int64]) -> str:
    known = getattr(estimator, "categories_", None)
    values = codes if known is None else known[estimator.tree_.feature[node]][codes]
    return "{" + ", ".join(str(value) for value in values) + "}"


class NodeText:
    """Called with a node's number, gives its label; `color` gives its colour as #rrggbb."""

    def __init__(
        self,
        estimator: Any,
        marks: Marks,
        *,
        feature_names: Any,
        class_names: Any,
        label: str,
        impurity: bool,
        node_ids: bool,
        proportion: bool,
        precision: int,
    ) -> None:
        self.estimator = estimator
        self.tree: Tree = estimator.tree_
        self.marks = marks
        self.feature_names = feature_names
        self.class_names = class_names
        self.label = label
        self.impurity = impurity
        self.node_ids = node_ids
        self.proportion = proportion
        self.precision = precision

    def __call__(self, node: int) -> str:
        tree, marks = self.tree, self.marks
        named = self.label == "all" or (self.label == "root" and node == 0)

        def line(name: str, content: str, equals: str = " = ") -> str:
            return name + equals + content if named else content

        lines = [line("node", f"{marks.number}{node}", " ")] if self.node_ids else []
        if tree.children_left[node] != LEAF:
            lines.append(self._condition(node))
        if self.impurity:
            lines.append(
                line(self.estimator.criterion, str(round(float(tree.impurity[node]), self.precision)))
            )
        n_samples = tree.n_node_samples[node]
        share = f"{round(100.0 * float(n_samples) / float(tree.n_node_samples[0]), 1)}%"
        lines.append(line("samples", share if self.proportion else str(n_samples)))
        lines.append(line("value", self._value(node)))
        several_classes = tree.n_classes[0] != 1 and tree.n_outputs == 1
        if self.class_names is not None and self.class_names is not False and several_classes:
            lines.append(line("class", self._class(int(np.argmax(tree.value[node][0])))))
        return marks.open + marks.newline.join(lines) + marks.close

    def color(self, node: int) -> str:
        """White for the middle between classes (or the lowest value), full colour for a pure node."""
        tree = self.tree
        colors = _class_colors(int(tree.n_classes[0]))
        color, strength = colors[0], 0.0
        if tree.n_outputs > 1:
            strength = _share(-tree.impurity[node], -tree.impurity.max(), -tree.impurity.min())
        elif tree.n_classes[0] == 1:
            strength = _share(tree.value[node, 0, 0], tree.value.min(), tree.value.max())
        else:
            shares = tree.value[node, 0]
            color = colors[int(np.argmax(shares))]
            second, first = np.sort(shares)[-2:]
            strength = (first - second) / (1 - second)
        return "#" + "".join(f"{round(strength * part + (1 - strength) * 255):02x}" for part in color)

    def _condition(self, node: int) -> str:
        tree, marks = self.tree, self.marks
        feature = tree.feature[node]
        name = f"x{marks.index_open}{feature}{marks.index_close}"
        if self.feature_names is not None:
            name = self.feature_names[feature]
        codes = tree.categories_left(node)
        if codes is not None:
            return f"{name} in {_categories_text(self.estimator, node, codes)}"
        return f"{name} {marks.at_most} {round(float(tree.threshold[node]), self.precision)}"

    def _value(self, node: int) -> str:
        tree = self.tree
        value = tree.value[node] if tree.n_outputs > 1 else tree.value[node][0]
        if tree.n_classes[0] != 1 and not self.proportion:
            value = value * tree.weighted_n_node_samples[node]
        whole = tree.n_classes[0] != 1 and not self.proportion and np.all(np.mod(value, 1) == 0)
        shown = value.astype(int) if whole else np.around(value, self.precision)
        if tree.n_classes[0] == 1:
            rows = [str(number) for number in np.ravel(shown)]
            if tree.n_outputs == 1:
                return rows[0]
            return "[" + self.marks.newline.join(f"[{row}]" for row in rows) + "]"
        if tree.n_outputs == 1:
            return _row(shown)
        return "[" + self.marks.newline.join(_row(row) for row in shown) + "]"

    def _class(self, code: int) -> str:
        if self.class_names is True:
            return f"y{self.marks.index_open}{code}{self.marks.index_close}"
        return str(self.class_names[code])


def _row(values: NDArray[Any]) -> str:
    return "[" + ", ".join(str(value) for value in values) + "]"


def _share(value: float, low: float, high: float) -> float:
    """Where `value` lies between the two; in the middle if there is no between."""
    return float((value - low) / (high - low)) if high > low else 0.0


def _class_colors(n_classes: int) -> list[tuple[int, int, int]]:
    """Hues at equal distances from orange on."""
    hues = np.arange(25, 385, 360.0 / n_classes).astype(int)[:n_classes]
    rgb = (colorsys.hsv_to_rgb((hue % 360) / 360, 0.75, 0.9) for hue in hues)
    return [(int(255 * r), int(255 * g), int(255 * b)) for r, g, b in rgb]
