"""Pictures of principal components: what each explains, and where rows and columns lie along two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.utils.validation import _check_feature_names_in, check_is_fitted


def scree_plot(pca: Any, ax: Any = None) -> Any:
    """Draw the share of the variance that each component explains, and the sum of those up to it.

    Parameters
    ----------
    pca : PCA or IncrementalPCA
    ax : matplotlib axes, optional
        By default those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from fullspan.estimators import PCA, scree_plot
    >>> scree_plot(PCA().fit(load_iris().data)).get_ylabel()
    'share of the variance'
    """
    check_is_fitted(pca)
    ax = _axes(ax)
    shares = np.asarray(pca.explained_variance_ratio_)
    number = np.arange(1, len(shares) + 1)
    ax.bar(number, shares, color="tab:blue", label="each")
    ax.plot(number, np.cumsum(shares), color="tab:orange", marker="o", markersize=3, label="sum")
    ax.set(xlabel="component", ylabel="share of the variance", ylim=(0, 1.05))
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend()
    return ax


def biplot(
    pca: Any,
    X: Any,
    y: Any = None,
    *,
    components: tuple[int, int] = (0, 1),
    feature_names: Sequence[str] | None = None,
    max_arrows: int = 20,
    ax: Any = None,
) -> Any:
    """Draw rows as points along two components, and columns as arrows.

    Points are scaled to unit variance and arrows are the columns' covariances with them (Gabriel 1971, with
    alpha = 0): the angle between two arrows tells their correlation, as far as two components show it.

    Parameters
    ----------
    pca : PCA or IncrementalPCA
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
    y : array-like of shape (n_samples,), optional
        Classes, each drawn in a colour of its own.
    components : tuple of int
        Those to draw, counted from 0.
    feature_names : sequence of str, optional
        By default those that `pca` was fitted with.
    max_arrows : int
        Of more columns only the longest arrows are drawn.
    ax : matplotlib axes, optional
        By default those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If `pca` has not both components.

    References
    ----------
    K. R. Gabriel, "The biplot graphic display of matrices with application to principal component analysis",
    Biometrika 58 (1971).

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from fullspan.estimators import PCA, biplot
    >>> iris = load_iris()
    >>> ax = biplot(PCA().fit(iris.data), iris.data, iris.target, feature_names=iris.feature_names)
    >>> ax.get_xlabel()
    'component 1 (92.5 %)'
    """
    check_is_fitted(pca)
    chosen = list(components)
    if len(chosen) != 2 or not all(0 <= k < len(pca.components_) for k in chosen):
        raise ValueError(
            f"components must be two of 0 to {len(pca.components_) - 1}, the components that were kept, "
            f"got {components}"
        )
    ax = _axes(ax)
    spread = np.maximum(np.sqrt(pca.explained_variance_[chosen]), np.finfo(float).tiny)
    points = pca.transform(X)[:, chosen]
    points = points if pca.whiten else points / spread
    groups = np.zeros(len(points), int) if y is None else np.asarray(y)
    for group in np.unique(groups):
        ax.scatter(*points[groups == group].T, s=8, alpha=0.5, label=None if y is None else str(group))
    arrows = (pca.components_[chosen] * spread[:, None]).T
    lengths = np.hypot(*arrows.T)
    # Arrows are lengthened together until the longest reaches the points.
    factor = 0.9 * np.abs(points).max(initial=1e-300) / max(float(lengths.max()), np.finfo(float).tiny)
    names = _check_feature_names_in(pca) if feature_names is None else list(feature_names)
    for index in np.argsort(-lengths)[:max_arrows]:
        tip = factor * arrows[index]
        ax.annotate("", tip, (0, 0), arrowprops={"arrowstyle": "->", "color": "black"})
        ax.text(*(1.06 * tip), str(names[index]), fontsize="small", ha="center", va="center")
    for axis, k in zip((ax.set_xlabel, ax.set_ylabel), chosen, strict=True):
        axis(f"component {k + 1} ({pca.explained_variance_ratio_[k]:.1%})".replace("%", " %"))
    if y is not None:
        ax.legend()
    return ax


def _axes(ax: Any) -> Any:
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    return Figure(layout="constrained").subplots()
