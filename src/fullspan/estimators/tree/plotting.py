"""Pictures of trees with matplotlib."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions, validate_params
from sklearn.utils.validation import check_is_fitted

from fullspan.estimators.tree._node_text import Marks, NodeText
from fullspan.estimators.tree.base import BaseDecisionTree
from fullspan.estimators.tree.structure import LEAF, Tree

_MARKS = Marks("#", "[", "]", "<=", "\n", "", "")


@validate_params(
    {
        "decision_tree": [BaseDecisionTree],
        "max_depth": [Interval(Integral, 0, None, closed="left"), None],
        "feature_names": ["array-like", None],
        "class_names": ["array-like", "boolean", None],
        "label": [StrOptions({"all", "root", "none"})],
        "filled": ["boolean"],
        "impurity": ["boolean"],
        "node_ids": ["boolean"],
        "proportion": ["boolean"],
        "rounded": ["boolean"],
        "precision": [Interval(Integral, 0, None, closed="left"), None],
        "ax": "no_validation",
        "fontsize": [Interval(Integral, 0, None, closed="left"), None],
    },
    prefer_skip_nested_validation=True,
)  # type: ignore[untyped-decorator]
def plot_tree(
    decision_tree: Any,
    *,
    max_depth: int | None = None,
    feature_names: Any = None,
    class_names: Any = None,
    label: str = "all",
    filled: bool = False,
    impurity: bool = True,
    node_ids: bool = False,
    proportion: bool = False,
    rounded: bool = False,
    precision: int = 3,
    ax: Any = None,
    fontsize: int | None = None,
) -> list[Any]:
    """Draw a tree: boxes with arrows from parent to child.

    Parameters
    ----------
    decision_tree : DecisionTreeClassifier or DecisionTreeRegressor
        Fitted.
    max_depth : int, optional
        Nodes below it are shown as "(...)".
    feature_names, class_names, label, filled, impurity, node_ids, proportion, rounded, precision
        As in `export_graphviz`.
    ax : matplotlib Axes, optional
        Cleared and drawn on; the current ones by default.
    fontsize : int, optional
        By default as large as fits.

    Returns
    -------
    list of matplotlib Annotation
        One a node and one for each of the root's two arrows, in the order of drawing.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> from fullspan.estimators import DecisionTreeRegressor
    >>> tree = DecisionTreeRegressor().fit([[0], [1]], [1.0, 4.0])
    >>> [drawn.get_text().strip() for drawn in plot_tree(tree, impurity=False, label="none")]
    ['x[0] <= 0.5\\n2\\n2.5', '1\\n1.0', 'True', '1\\n4.0', 'False']
    """
    check_is_fitted(decision_tree)
    import matplotlib.pyplot as plt

    text = NodeText(
        decision_tree,
        _MARKS,
        feature_names=feature_names,
        class_names=class_names,
        label=label,
        impurity=impurity,
        node_ids=node_ids,
        proportion=proportion,
        precision=precision,
    )
    axes = plt.gca() if ax is None else ax
    axes.clear()
    axes.set_axis_off()
    places = _layout(text.tree, None if max_depth is None else max_depth + 1)
    width = max(x for x, _ in places.values()) + 1
    height = max(y for _, y in places.values()) + 1
    drawn: list[Any] = []
    common: dict[str, Any] = {} if fontsize is None else {"fontsize": fontsize}
    for node, (x, depth) in places.items():
        at = ((x + 0.5) / width, (height - depth - 0.5) / height)
        cropped = max_depth is not None and depth > max_depth
        face = "grey" if cropped else text.color(node) if filled else axes.get_facecolor()
        box: dict[str, Any] = {"fc": face, **({"boxstyle": "round"} if rounded else {})}
        content = "\n  (...)  \n" if cropped else text(node)
        style: dict[str, Any] = {
            "ha": "center",
            "va": "center",
            "bbox": box,
            "zorder": 100 - 10 * depth,
            **common,
        }
        parent = _parent(text.tree, node)
        if parent is None:
            drawn.append(axes.annotate(content, at, xycoords="axes fraction", **style))
            continue
        px, py = places[parent]
        above = ((px + 0.5) / width, (height - py - 0.5) / height)
        arrow = {"arrowstyle": "<-", "edgecolor": plt.rcParams["text.color"]}
        drawn.append(axes.annotate(content, above, at, xycoords="axes fraction", arrowprops=arrow, **style))
        if parent == 0 and not cropped:
            is_left = node == text.tree.children_left[0]
            middle = ((above[0] + at[0]) / 2, (above[1] + at[1]) / 2)
            word, side = ("True  ", "right") if is_left else ("  False", "left")
            drawn.append(
                axes.annotate(
                    word, middle, xycoords="axes fraction", ha=side, zorder=100 - 10 * depth, **common
                )
            )
    if fontsize is None:
        _fit_font(axes, drawn, width, height)
    return drawn


def _parent(tree: Tree, node: int) -> int | None:
    found = np.flatnonzero((tree.children_left == node) | (tree.children_right == node))
    return int(found[0]) if len(found) else None


def _layout(tree: Tree, max_depth: int | None) -> dict[int, tuple[float, int]]:
    """(x, depth) of each shown node, parents first and left before right.

    Branches are moved together until they nearly touch, and a parent stands in the middle over its children
    (Reingold and Tilford 1981).
    """
    offset: dict[int, float] = {}

    def outline(node: int, depth: int) -> tuple[list[float], list[float]]:
        """Leftmost and rightmost x of every level of a branch, its root at 0; notes the children's offset."""
        if tree.children_left[node] == LEAF or depth == max_depth:
            return [0.0], [0.0]
        left, right = int(tree.children_left[node]), int(tree.children_right[node])
        left_lows, left_highs = outline(left, depth + 1)
        right_lows, right_highs = outline(right, depth + 1)
        # The branches' roots must be this far apart so that no level overlaps.
        gap = 1 + max(high - low for high, low in zip(left_highs, right_lows, strict=False))
        offset[node] = half = gap / 2
        n_levels = max(len(left_lows), len(right_lows))
        lows = [0.0] + [
            left_lows[i] - half if i < len(left_lows) else right_lows[i] + half for i in range(n_levels)
        ]
        highs = [0.0] + [
            right_highs[i] + half if i < len(right_highs) else left_highs[i] - half for i in range(n_levels)
        ]
        return lows, highs

    lows, _ = outline(0, 0)
    places: dict[int, tuple[float, int]] = {}
    waiting = [(0, -min(lows), 0)]
    while waiting:
        node, x, depth = waiting.pop()
        places[node] = (x, depth)
        if node in offset:
            waiting.append((int(tree.children_right[node]), x + offset[node], depth + 1))
            waiting.append((int(tree.children_left[node]), x - offset[node], depth + 1))
    return places


def _fit_font(axes: Any, drawn: list[Any], width: float, height: float) -> None:
    """Shrink or enlarge the text so that no box is larger than its cell."""
    renderer = axes.figure.canvas.get_renderer()
    window = axes.get_window_extent()
    for annotation in drawn:
        annotation.update_bbox_position_size(renderer)
    boxes = [box.get_window_extent() for a in drawn if (box := a.get_bbox_patch()) is not None]
    widest, highest = max(box.width for box in boxes), max(box.height for box in boxes)
    size = drawn[0].get_fontsize() * min(window.width / width / widest, window.height / height / highest)
    for annotation in drawn:
        annotation.set_fontsize(size)
