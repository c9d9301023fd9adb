"""What all linear principal components share: the probabilistic model, projections and the way back."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from fullspan.estimators.saving import Saveable

Vector = NDArray[Any]


class LinearComponents(Saveable, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Projections on orthogonal axes, and the normal distribution that they stand for.

    Fitted classes have `components_`, `mean_`, `explained_variance_`, `noise_variance_`, `n_components_` and
    the parameter `whiten`.
    """

    components_: Vector
    mean_: Vector
    explained_variance_: Vector
    noise_variance_: Any
    n_components_: int
    whiten: bool

    def _axes(self) -> tuple[Vector, Vector]:
        """Components, scaled if they whiten, and the variance that they have beyond the noise."""
        axes = self.components_
        if self.whiten:
            axes = axes * np.sqrt(self.explained_variance_[:, None])
        return axes, np.maximum(self.explained_variance_ - self.noise_variance_, 0.0)

    def get_covariance(self) -> Vector:
        """Covariance of the data by the model: that of the components, and the noise in all directions.

        Returns
        -------
        ndarray of shape (n_features, n_features)
        """
        check_is_fitted(self)
        axes, beyond = self._axes()
        covariance: Vector = (axes.T * beyond) @ axes
        covariance[np.diag_indices_from(covariance)] += self.noise_variance_
        return covariance

    def get_precision(self) -> Vector:
        """Inverse of the covariance, by the matrix inversion lemma.

        Returns
        -------
        ndarray of shape (n_features, n_features)
        """
        check_is_fitted(self)
        n_features = self.components_.shape[1]
        noise = self.noise_variance_
        if self.n_components_ == 0:
            return np.asarray(np.eye(n_features) / noise)
        if noise == 0.0:
            return np.asarray(linalg.inv(self.get_covariance()))
        axes, beyond = self._axes()
        inner = axes @ axes.T / noise
        # A component that is no stronger than the noise takes nothing away.
        with np.errstate(divide="ignore"):
            inner[np.diag_indices_from(inner)] += 1.0 / beyond
        precision = np.zeros((n_features, n_features), axes.dtype)
        strong = beyond > 0.0
        if strong.any():
            kept = axes[strong]
            precision = kept.T @ linalg.inv(inner[np.ix_(strong, strong)]) @ kept / -(noise**2)
        precision[np.diag_indices_from(precision)] += 1.0 / noise
        return precision

    def transform(self, X: Any) -> Vector:
        """Coordinates of rows along the components.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_components)
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], accept_sparse=("csr", "csc"), reset=False)
        return self._project(X)

    def _project(self, X: Any) -> Vector:
        # The mean is projected too: that needs no centred copy, and leaves zeros where they are.
        projected: Vector = np.asarray(X @ self.components_.T) - self.mean_ @ self.components_.T
        if self.whiten:
            scale = np.sqrt(self.explained_variance_)
            projected /= np.maximum(scale, np.finfo(scale.dtype).eps)
        return projected

    def inverse_transform(self, X: Any) -> Vector:
        """Rows from their coordinates: what `transform` made them of, but for what it left out.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_components)

        Returns
        -------
        ndarray of shape (n_samples, n_features)
        """
        check_is_fitted(self)
        X = check_array(X, input_name="X", dtype=[np.float64, np.float32])
        return np.asarray(X @ self._axes()[0] + self.mean_)

    @property
    def _n_features_out(self) -> int:
        return int(self.components_.shape[0])
