"""Principal components over data in parts: one round of sums decides them."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import _check_sample_weight, check_array

from fullspan.core.errors import ConfigError, DataError
from fullspan.core.partitions import Partitions, total
from fullspan.estimators.decomposition.pca import PCA
from fullspan.estimators.decomposition.statistics import Moments, moments_of


def fit_partitions(pca: PCA, partitions: Partitions) -> PCA:
    """Fit principal components to data in parts.

    Parameters
    ----------
    pca : PCA
        With `svd_solver` "auto" or "covariance_eigh".
    partitions : Partitions
        Each part is X or (X, sample_weight).

    Returns
    -------
    PCA
        `pca`, fitted: to rounding as by `fit` with "covariance_eigh" on all rows.

    Raises
    ------
    ConfigError
        For a solver that needs all rows in one place.
    DataError
        If the parts have different columns.

    Examples
    --------
    >>> from fullspan.core.partitions import LocalPartitions
    >>> X = np.array([[0.0, 0.0], [1.0, 2.0], [2.0, 4.0], [3.0, 6.0]])
    >>> with LocalPartitions([X[:1], X[1:]]) as parts:
    ...     pca = fit_partitions(PCA(1), parts)
    >>> pca.components_.round(3)
    array([[0.447, 0.894]])
    """
    pca._validate_params()
    if pca.svd_solver not in ("auto", "covariance_eigh"):
        raise ConfigError(
            f"fitting over parts does not take svd_solver={pca.svd_solver!r}", "leave it at 'auto'"
        )
    partitions.start(_Worker)
    found = partitions.call("describe")
    widths = sorted({width for _, width, _ in found})
    if len(widths) > 1:
        raise DataError(f"the parts have different numbers of columns: {widths}")
    moments = total(partitions, "moments")
    n_samples = sum(size for size, _, _ in found)
    weight = np.array([moments.total]) if any(weighted for _, _, weighted in found) else None
    shape = (n_samples, widths[0])
    pca.n_features_in_ = widths[0]
    pca._fit_svd_solver = "covariance_eigh"
    n_components = min(pca._counted(shape, weight)) if pca.n_components is None else pca.n_components
    pca._check_full(n_components, shape, "covariance_eigh", weight)
    pca._keep(pca._of_moments(moments), n_components, shape, weight, np.dtype(np.float64))
    return pca


class _Worker:
    """One part."""

    def __init__(self, part: Any) -> None:
        X, weight = part if isinstance(part, tuple) else (part, None)
        self.X = check_array(X, accept_sparse=("csr", "csc"), dtype=[np.float64, np.float32])
        self.weight = None
        if weight is not None:
            self.weight = _check_sample_weight(weight, self.X, dtype=self.X.dtype, ensure_non_negative=True)

    def describe(self) -> tuple[int, int, bool]:
        return self.X.shape[0], self.X.shape[1], self.weight is not None

    def moments(self) -> Moments:
        return moments_of(self.X, self.weight)
