"""Pictures of self-organizing maps with matplotlib: squares or hexagons, one for each unit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullspan.estimators.som.map import SelfOrganizingMap

_CORNERS = {
    "rectangular": np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]]),
    "hexagonal": np.array([[0.5, k / np.sqrt(12)] for k in (-1, 1)] + [[0.0, 1 / np.sqrt(3)]]
                          + [[-0.5, k / np.sqrt(12)] for k in (1, -1)] + [[0.0, -1 / np.sqrt(3)]]),
}  # fmt: skip


def plot_u_matrix(som: SelfOrganizingMap, *, ax: Any = None, cmap: str = "bone_r") -> Any:
    """Draw how far units' weights are from their neighbours': ridges part clusters (Ultsch and Siemon 1990).

    Parameters
    ----------
    som : SelfOrganizingMap
        Fitted.
    ax : matplotlib Axes, optional
        The current ones by default.
    cmap : str
        matplotlib's name of a colour map.

    Returns
    -------
    matplotlib Axes

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> som = SelfOrganizingMap(4, 3).fit([[0.0, 1.0], [1.0, 1.0], [2.0, 0.0]])
    >>> plot_u_matrix(som).get_title()
    'U-matrix'
    """
    return _draw(som, som.distance_map("mean"), "U-matrix", ax, cmap, bar=True)


def plot_hits(som: SelfOrganizingMap, X: Any = None, *, ax: Any = None, cmap: str = "Blues") -> Any:
    """Draw how many rows each unit wins.

    Parameters
    ----------
    som : SelfOrganizingMap
        Fitted.
    X : array-like of shape (n_samples, n_features), optional
        Those of `fit` by default.
    ax, cmap
        As of `plot_u_matrix`.

    Returns
    -------
    matplotlib Axes

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> som = SelfOrganizingMap(2, 1).fit([[0.0], [1.0], [1.0]])
    >>> [text.get_text() for text in plot_hits(som).texts]
    ['1', '2']
    """
    hits = som.hits_ if X is None else som.activation_response(X)
    axes = _draw(som, hits, "Hits", ax, cmap, bar=False)
    dark = hits.max() / 2
    for (x, y), n in zip(som._grid().positions(), hits.ravel().tolist(), strict=True):
        if n:
            axes.text(x, y, n, ha="center", va="center", fontsize=7, color="white" if n > dark else "black")
    return axes


def plot_components(
    som: SelfOrganizingMap,
    features: Sequence[int] | None = None,
    *,
    names: Sequence[str] | None = None,
    cmap: str = "viridis",
) -> Any:
    """Draw the weights of each feature over the map, in a figure of their own.

    Parameters
    ----------
    som : SelfOrganizingMap
        Fitted.
    features : sequence of int, optional
        All of them by default.
    names : sequence of str, optional
        Of all features; those of the columns by default.
    cmap : str
        matplotlib's name of a colour map.

    Returns
    -------
    matplotlib Figure

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> som = SelfOrganizingMap(4, 3).fit([[0.0, 1.0], [1.0, 1.0], [2.0, 0.0]])
    >>> [axes.get_title() for axes in plot_components(som).axes[:2]]
    ['x0', 'x1']
    """
    import matplotlib.pyplot as plt

    n_features = som.weights_.shape[2]
    chosen = list(range(n_features) if features is None else features)
    if names is None:
        names = [
            str(name) for name in getattr(som, "feature_names_in_", [f"x{f}" for f in range(n_features)])
        ]
    n_columns = min(4, len(chosen))
    n_rows = -(-len(chosen) // n_columns)
    figure, panels = plt.subplots(
        n_rows, n_columns, figsize=(2.8 * n_columns, 2.6 * n_rows), layout="constrained", squeeze=False
    )
    for panel in panels.ravel()[len(chosen) :]:
        panel.set_axis_off()
    for panel, f in zip(panels.ravel(), chosen, strict=False):
        _draw(som, som.weights_[:, :, f], names[f], panel, cmap, bar=True)
    return figure


def plot_clusters(
    som: SelfOrganizingMap, n_clusters: int | None = None, *, ax: Any = None, cmap: str = "tab10"
) -> Any:
    """Draw groups of similar units; or, of a map that was fitted with labels, the units' labels.

    Parameters
    ----------
    som : SelfOrganizingMap
        Fitted.
    n_clusters : int, optional
        As of `SelfOrganizingMap.cluster_units`; needed for a map without labels.
    ax, cmap
        As of `plot_u_matrix`.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ValueError
        If neither `n_clusters` nor labels are there.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> som = SelfOrganizingMap(3, 1).fit([[0.0], [1.0], [9.0]])
    >>> [text.get_text() for text in plot_clusters(som, 2).get_legend().get_texts()]
    ['0', '1']
    """
    from matplotlib.patches import Patch

    if n_clusters is not None:
        groups, numbers, title = *np.unique(som.cluster_units(n_clusters), return_inverse=True), "Clusters"
    elif hasattr(som, "unit_labels_"):
        groups, numbers, title = *np.unique(som.unit_labels_, return_inverse=True), "Labels"
    else:
        raise ValueError("the map was fitted without labels: say how many clusters by n_clusters")
    axes = _draw(som, numbers.reshape(som.x, som.y), title, ax, cmap, bar=False, n_colors=len(groups))
    colors = axes.collections[0].get_cmap()
    patches = [Patch(color=colors(i), label=str(group)) for i, group in enumerate(groups.tolist())]
    axes.legend(handles=patches, loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return axes


def _draw(
    som: SelfOrganizingMap,
    values: NDArray[Any],
    title: str,
    ax: Any,
    cmap: str,
    *,
    bar: bool,
    n_colors: int | None = None,
) -> Any:
    import matplotlib.pyplot as plt
    from matplotlib.collections import PolyCollection

    axes = plt.gca() if ax is None else ax
    shapes = som._grid().positions()[:, None, :] + _CORNERS[som.topology]
    colors = plt.get_cmap(cmap, n_colors) if n_colors else plt.get_cmap(cmap)
    # The line hides the gap that rounding leaves between two shapes.
    drawn = PolyCollection(list(shapes), array=values.ravel(), cmap=colors, edgecolors="face", linewidths=0.3)
    if n_colors:
        drawn.set_clim(-0.5, n_colors - 0.5)
    axes.add_collection(drawn)
    axes.autoscale_view()
    axes.set_aspect("equal")
    axes.set_axis_off()
    axes.set_title(title)
    if bar:
        axes.figure.colorbar(drawn, ax=axes, shrink=0.8)
    return axes
