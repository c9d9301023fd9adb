"""Principal components of rows that come in batches."""

from __future__ import annotations

from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse
from sklearn.base import _fit_context
from sklearn.utils import gen_batches, metadata_routing
from sklearn.utils._param_validation import Interval
from sklearn.utils.extmath import svd_flip
from sklearn.utils.validation import validate_data

from fullspan.estimators.decomposition.base import LinearComponents

Vector = NDArray[Any]
_STATE = (
    "components_", "n_samples_seen_", "mean_", "var_", "singular_values_", "explained_variance_",
    "explained_variance_ratio_", "noise_variance_",
)  # fmt: skip


class IncrementalPCA(LinearComponents):
    """Principal components of data too large for memory: batches are folded into what is known, one by one.

    Results are scikit-learn's. With fewer components than columns each batch forgets a little, so that they
    are near those of `PCA` and not equal to them.

    Parameters
    ----------
    n_components : int or None
        How many to keep; by default the lesser of the first batch's rows and columns.
    whiten : bool
        Scale coordinates to unit variance.
    copy : bool
        With False `fit` may overwrite X.
    batch_size : int or None
        Rows at a time in `fit`, five times the number of columns by default.

    Attributes
    ----------
    components_ : ndarray of shape (n_components, n_features)
    explained_variance_, explained_variance_ratio_, singular_values_ : ndarray of shape (n_components,)
    mean_, var_ : ndarray of shape (n_features,)
    noise_variance_ : float
    n_components_, n_samples_seen_, batch_size_ : int
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features,)

    Raises
    ------
    ValueError
        For more components than columns or than rows of the first batch, or a batch with other columns.

    References
    ----------
    D. A. Ross, J. Lim, R.-S. Lin and M.-H. Yang, "Incremental learning for robust visual tracking",
    Int. J. Comput. Vis. 77 (2008).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from fullspan.estimators import IncrementalPCA
    >>> X, _ = load_digits(return_X_y=True)
    >>> pca = IncrementalPCA(n_components=7)
    >>> for start in range(0, 1797, 200):
    ...     _ = pca.partial_fit(X[start : start + 200])
    >>> pca.transform(X).shape, int(pca.n_samples_seen_)
    ((1797, 7), 1797)
    """

    __metadata_request__partial_fit: ClassVar[dict[str, Any]] = {"check_input": metadata_routing.UNUSED}
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
        "whiten": ["boolean"],
        "copy": ["boolean"],
        "batch_size": [Interval(Integral, 1, None, closed="left"), None],
    }

    def __init__(
        self,
        n_components: int | None = None,
        *,
        whiten: bool = False,
        copy: bool = True,
        batch_size: int | None = None,
    ) -> None:
        self.n_components = n_components
        self.whiten = whiten
        self.copy = copy
        self.batch_size = batch_size

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(self, X: Any, y: Any = None) -> Self:
        """Forget what is known and fold in the rows, batch by batch.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Sparse batches become dense, one at a time.
        y : ignored

        Returns
        -------
        self
        """
        for name in _STATE:
            if hasattr(self, name):
                delattr(self, name)
        X = validate_data(
            self, X, accept_sparse=["csr", "csc", "lil"], copy=self.copy, dtype=[np.float64, np.float32],
            force_writeable=True,
        )  # fmt: skip
        self.batch_size_ = 5 * X.shape[1] if self.batch_size is None else self.batch_size
        rows = X.tocsr() if sparse.issparse(X) else X
        for batch in gen_batches(X.shape[0], self.batch_size_, min_batch_size=self.n_components or 0):
            part = rows[batch].toarray() if sparse.issparse(rows) else rows[batch]
            self._fold_in(part)
        return self

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any = None, check_input: bool = True) -> Self:
        """Fold in one batch of rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : ignored
        check_input : bool
            False for an array that is known to be of floats, finite and free to be overwritten.

        Returns
        -------
        self
        """
        if check_input:
            if sparse.issparse(X):
                raise TypeError(
                    "IncrementalPCA.partial_fit does not support sparse input. Either convert data to dense "
                    "or use IncrementalPCA.fit to do so in batches."
                )
            X = validate_data(
                self, X, copy=self.copy, dtype=[np.float64, np.float32], force_writeable=True,
                reset=not hasattr(self, "components_"),
            )  # fmt: skip
        self._fold_in(X)
        return self

    def _wanted(self, n_samples: int, n_features: int) -> int:
        """How many components this batch leaves."""
        first = not hasattr(self, "components_")
        if self.n_components is None:
            return min(n_samples, n_features) if first else self.components_.shape[0]
        if self.n_components > n_features:
            raise ValueError(
                f"n_components={self.n_components} invalid for n_features={n_features}, need more rows than "
                "columns for IncrementalPCA processing"
            )
        if first and self.n_components > n_samples:
            raise ValueError(
                f"n_components={self.n_components} must be less or equal to the batch number of samples "
                f"{n_samples} for the first partial_fit call."
            )
        if not first and self.components_.shape[0] != self.n_components:
            raise ValueError(
                f"Number of input features has changed from {len(self.components_)} to {self.n_components} "
                "between calls to partial_fit! Try setting n_components to a fixed value."
            )
        return self.n_components

    _mean: Vector
    _squares: Vector
    singular_values_: Vector

    def _fold_in(self, X: Vector) -> None:
        n, p = X.shape
        k = self._wanted(n, p)
        seen = getattr(self, "n_samples_seen_", 0)
        n_total = seen + n
        mean = X.mean(axis=0, dtype=np.float64)
        squares = X.var(axis=0, dtype=np.float64) * n
        X -= mean.astype(X.dtype)
        if seen:
            apart = self._mean - mean
            squares += self._squares + apart**2 * (seen * n / n_total)
            # What is known, as rows with the same products; then the batch, and the way between their means.
            known = self.singular_values_[:, None] * self.components_
            between = np.sqrt(seen / n_total * n) * apart
            X = np.vstack([known, X, between.astype(X.dtype)])
            mean = mean + apart * (seen / n_total)
        left, singular, components = linalg.svd(X, full_matrices=False, check_finite=False)
        _, components = svd_flip(left, components, u_based_decision=False)
        variance = singular**2 / max(n_total - 1, 1)
        self.n_samples_seen_, self.n_components_ = n_total, k
        self._mean, self._squares = mean, squares
        self.mean_, self.var_ = mean.astype(X.dtype), (squares / n_total).astype(X.dtype)
        self.components_ = components[:k].copy()
        self.singular_values_ = singular[:k].copy()
        self.explained_variance_ = variance[:k].copy()
        whole = squares.sum()
        with np.errstate(invalid="ignore", divide="ignore"):
            self.explained_variance_ratio_ = (singular[:k] ** 2 / whole).astype(X.dtype)
        left_out = variance[k:]
        self.noise_variance_: Any = left_out.mean() if k not in (n, p) and len(left_out) else 0.0

    def transform(self, X: Any) -> Vector:
        """Coordinates of rows along the components; sparse rows become dense in batches.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_components)
        """
        if not sparse.issparse(X):
            return super().transform(X)
        rows = X.tocsr()
        size = getattr(self, "batch_size_", 5 * X.shape[1])
        batches = gen_batches(X.shape[0], size, min_batch_size=self.n_components or 0)
        return np.vstack([super(IncrementalPCA, self).transform(rows[batch].toarray()) for batch in batches])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True  # in `fit`; partial_fit refuses it
        return tags
