"""Decision trees as text and as Graphviz graphs, in scikit-learn's formats."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions, validate_params
from sklearn.utils.validation import check_array, check_is_fitted

from fullspan.estimators.tree._node_text import Marks, NodeText, condition_text
from fullspan.estimators.tree.base import BaseDecisionTree
from fullspan.estimators.tree.structure import LEAF, Tree

_PLAIN = Marks("#", "[", "]", "<=", "\\n", '"', '"')
_HTML = Marks("&#35;", "<SUB>", "</SUB>", "&le;", "<br/>", "<", ">")
_CROPPED_COLOR = "#C0C0C0"


@validate_params(
    {
        "decision_tree": [BaseDecisionTree],
        "feature_names": ["array-like", None],
        "class_names": ["array-like", None],
        "max_depth": [Interval(Integral, 0, None, closed="left"), None],
        "spacing": [Interval(Integral, 1, None, closed="left"), None],
        "decimals": [Interval(Integral, 0, None, closed="left"), None],
        "show_weights": ["boolean"],
    },
    prefer_skip_nested_validation=True,
)  # type: ignore[untyped-decorator]
def export_text(
    decision_tree: Any,
    *,
    feature_names: Any = None,
    class_names: Any = None,
    max_depth: int = 10,
    spacing: int = 3,
    decimals: int = 2,
    show_weights: bool = False,
) -> str:
    """The rules of a tree, one condition a line, indented by depth.

    Parameters
    ----------
    decision_tree : DecisionTreeClassifier or DecisionTreeRegressor
        Fitted.
    feature_names : array-like of str of shape (n_features,), optional
        "feature_0", "feature_1", ... by default.
    class_names : array-like of shape (n_classes,), optional
        ``classes_`` by default. Not for several outputs.
    max_depth : int
        Branches below it are summed up in a line each.
    spacing : int
        Width of a level.
    decimals : int
    show_weights : bool
        Whether leaves show the weight of each class.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If there are too many or too few names.

    Examples
    --------
    >>> from fullspan.estimators import DecisionTreeRegressor
    >>> tree = DecisionTreeRegressor().fit([[0], [1], [2]], [1.0, 1.0, 4.0])
    >>> print(export_text(tree, feature_names=["age"]))
    |--- age <= 1.50
    |   |--- value: [1.00]
    |--- age >  1.50
    |   |--- value: [4.00]
    <BLANKLINE>
    """
    check_is_fitted(decision_tree)
    tree = decision_tree.tree_
    names = _names(feature_names)
    if names is not None and len(names) != tree.n_features:
        raise ValueError(f"feature_names must contain {tree.n_features} elements, got {len(names)}")
    classes = _names(class_names)
    if is_classifier(decision_tree):
        if classes is None:
            classes = decision_tree.classes_
        elif len(classes) != len(decision_tree.classes_):
            raise ValueError(
                "When `class_names` is an array, it should contain as many items as "
                f"`decision_tree.classes_`. Got {len(classes)} while the tree was fitted with "
                f"{len(decision_tree.classes_)} classes."
            )

    def leaf_text(node: int) -> str:
        several = tree.n_outputs > 1
        value = tree.value[node].T[0] if several else tree.value[node][0]
        if not is_classifier(decision_tree):
            return f" value: [{', '.join(f'{v:.{decimals}f}' for v in value)}]"
        best = np.argmax(value)
        name = classes[best] if tree.n_classes[0] != 1 and not several else best
        if not show_weights:
            return f" class: {name}"
        weights = (f"{v * tree.weighted_n_node_samples[node]:.{decimals}f}" for v in value)
        return f" weights: [{', '.join(weights)}] class: {name}"

    def lines(node: int, depth: int) -> Iterator[str]:
        indent = ("|" + " " * spacing) * depth + "|" + "-" * spacing
        if tree.children_left[node] == LEAF:
            yield indent + leaf_text(node)
        elif max_depth is not None and depth > max_depth:
            yield f"{indent} truncated branch of depth {_height(tree, node)}"
        else:
            name = f"feature_{tree.feature[node]}" if names is None else names[tree.feature[node]]
            yes, no = condition_text(decision_tree, node, name, f"{tree.threshold[node]:.{decimals}f}")
            yield f"{indent} {yes}"
            yield from lines(tree.children_left[node], depth + 1)
            yield f"{indent} {no}"
            yield from lines(tree.children_right[node], depth + 1)

    return "".join(line + "\n" for line in lines(0, 0))


@validate_params(
    {
        "decision_tree": "no_validation",
        "out_file": [str, None, HasMethods("write")],
        "max_depth": [Interval(Integral, 0, None, closed="left"), None],
        "feature_names": ["array-like", None],
        "class_names": ["array-like", "boolean", None],
        "label": [StrOptions({"all", "root", "none"})],
        "filled": ["boolean"],
        "leaves_parallel": ["boolean"],
        "impurity": ["boolean"],
        "node_ids": ["boolean"],
        "proportion": ["boolean"],
        "rotate": ["boolean"],
        "rounded": ["boolean"],
        "special_characters": ["boolean"],
        "precision": [Interval(Integral, 0, None, closed="left"), None],
        "fontname": [str],
    },
    prefer_skip_nested_validation=True,
)  # type: ignore[untyped-decorator]
def export_graphviz(
    decision_tree: Any,
    out_file: Any = None,
    *,
    max_depth: int | None = None,
    feature_names: Any = None,
    class_names: Any = None,
    label: str = "all",
    filled: bool = False,
    leaves_parallel: bool = False,
    impurity: bool = True,
    node_ids: bool = False,
    proportion: bool = False,
    rotate: bool = False,
    rounded: bool = False,
    special_characters: bool = False,
    precision: int = 3,
    fontname: str = "helvetica",
) -> str | None:
    """A tree as a graph in Graphviz's DOT language.

    Parameters
    ----------
    decision_tree : DecisionTreeClassifier or DecisionTreeRegressor
        Fitted.
    out_file : str or file, optional
        Where to write; by default the text is returned.
    max_depth : int, optional
        Nodes below it are shown as "(...)".
    feature_names : array-like of str of shape (n_features,), optional
        "x[0]", "x[1]", ... by default.
    class_names : array-like of shape (n_classes,) or True, optional
        Adds a line with the class; True calls them "y[0]", "y[1]", ...
    label : {"all", "root", "none"}
        At which nodes figures are named.
    filled : bool
        Colour nodes by class, value or (for several outputs) purity.
    leaves_parallel : bool
        Draw all leaves at the bottom.
    impurity, node_ids : bool
        Whether to show them.
    proportion : bool
        Shares instead of numbers of rows and weights of classes.
    rotate : bool
        Root at the left instead of the top.
    rounded : bool
        Round corners.
    special_characters : bool
        HTML labels, with subscripts and ≤.
    precision : int
        Decimals of impurities, thresholds and values.
    fontname : str

    Returns
    -------
    str or None
        The graph, unless it was written to `out_file`.

    Raises
    ------
    ValueError
        If there are too many or too few feature names, or they are no strings.

    Examples
    --------
    >>> from fullspan.estimators import DecisionTreeRegressor
    >>> tree = DecisionTreeRegressor().fit([[0], [1]], [1.0, 4.0])
    >>> print(export_graphviz(tree, impurity=False, label="none"))
    digraph Tree {
    node [shape=box, fontname="helvetica"] ;
    edge [fontname="helvetica"] ;
    0 [label="x[0] <= 0.5\\n2\\n2.5"] ;
    1 [label="1\\n1.0"] ;
    0 -> 1 [labeldistance=2.5, labelangle=45, headlabel="True"] ;
    2 [label="1\\n4.0"] ;
    0 -> 2 [labeldistance=2.5, labelangle=-45, headlabel="False"] ;
    }
    """
    if feature_names is not None and any(not isinstance(name, str) for name in feature_names):
        raise ValueError("All feature names must be strings.")
    check_is_fitted(decision_tree)
    names = _names(feature_names)
    if names is not None and len(names) != decision_tree.n_features_in_:
        raise ValueError(
            f"Length of feature_names, {len(names)} does not match number of features, "
            f"{decision_tree.n_features_in_}"
        )
    text = NodeText(
        decision_tree,
        _HTML if special_characters else _PLAIN,
        feature_names=None if names is None else [_escaped(name) for name in names],
        class_names=class_names if isinstance(class_names, bool) else _escaped_names(class_names),
        label=label,
        impurity=impurity,
        node_ids=node_ids,
        proportion=proportion,
        precision=precision,
    )
    styles = [name for name, wanted in (("filled", filled), ("rounded", rounded)) if wanted]
    style = f', style="{", ".join(styles)}", color="black"' if styles else ""
    head = [f'node [shape=box{style}, fontname="{fontname}"] ;']
    if leaves_parallel:
        head.append("graph [ranksep=equally, splines=polyline] ;")
    head.append(f'edge [fontname="{fontname}"] ;')
    if rotate:
        head.append("rankdir=LR ;")
    ranks: dict[str, list[str]] = {"leaves": []}
    body = list(_graph_lines(text, 0, None, 0, max_depth, filled, rotate, ranks))
    if leaves_parallel:
        body += [f"{{rank=same ; {'; '.join(ranks[rank])}}} ;" for rank in sorted(ranks)]
    graph = "\n".join(["digraph Tree {", *head, *body, "}"])
    if out_file is None:
        return graph
    if isinstance(out_file, str):
        Path(out_file).write_text(graph, encoding="utf-8")
    else:
        out_file.write(graph)
    return None


def _graph_lines(
    text: NodeText,
    node: int,
    parent: int | None,
    depth: int,
    max_depth: int | None,
    filled: bool,
    rotate: bool,
    ranks: dict[str, list[str]],
) -> Iterator[str]:
    """The lines of a node, of the edge to it and of what is below it; notes its rank."""
    tree = text.tree
    cropped = max_depth is not None and depth > max_depth
    is_leaf = tree.children_left[node] == LEAF
    ranks.setdefault("leaves" if cropped or is_leaf else str(depth), []).append(str(node))
    label = '"(...)"' if cropped else text(node)
    color = f', fillcolor="{_CROPPED_COLOR if cropped else text.color(node)}"' if filled else ""
    yield f"{node} [label={label}{color}] ;"
    if parent is not None:
        edge = ""
        if parent == 0 and not cropped:
            is_left = node == tree.children_left[0]
            angle = 45 if is_left != rotate else -45
            edge = f' [labeldistance=2.5, labelangle={angle}, headlabel="{is_left}"]'
        yield f"{parent} -> {node}{edge} ;"
    if not cropped and not is_leaf:
        for child in (tree.children_left[node], tree.children_right[node]):
            yield from _graph_lines(text, int(child), node, depth + 1, max_depth, filled, rotate, ranks)


def _names(names: Any) -> Any:
    if names is None:
        return None
    return check_array(names, ensure_2d=False, dtype=None, ensure_min_samples=0)


def _escaped(name: Any) -> str:
    return str(name).replace('"', r"\"")


def _escaped_names(names: Any) -> list[str] | None:
    return None if names is None else [_escaped(name) for name in _names(names)]


def _height(tree: Tree, node: int) -> int:
    """Levels of the branch that starts at `node`."""
    level, height = [node], 0
    while level:
        height += 1
        splits = [n for n in level if tree.children_left[n] != LEAF]
        level = [child for n in splits for child in (tree.children_left[n], tree.children_right[n])]
    return height
