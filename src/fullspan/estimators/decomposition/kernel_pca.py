"""Principal components in the feature space of a kernel."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse
from scipy.sparse.linalg import eigsh
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin, _fit_context
from sklearn.exceptions import NotFittedError
from sklearn.metrics.pairwise import pairwise_kernels
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.extmath import randomized_svd, svd_flip
from sklearn.utils.validation import check_is_fitted, validate_data

from fullspan.estimators.saving import Saveable

Vector = NDArray[Any]
_MANY_ROWS = 200
_FEW_COMPONENTS = 10


class KernelPCA(Saveable, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Principal components of rows that a kernel has mapped to another space: curved structure made straight.

    Results are scikit-learn's, with the same signs.

    Parameters
    ----------
    n_components : int or None
        By default all whose eigenvalue is not zero.
    kernel : {"linear", "poly", "rbf", "sigmoid", "cosine", "precomputed"} or callable
    gamma : float or None
        Of rbf, poly and sigmoid; one over the number of columns by default.
    degree : float
        Of poly.
    coef0 : float
        Of poly and sigmoid.
    kernel_params : dict or None
        What a callable kernel gets besides two rows.
    alpha : float
        Ridge penalty of the inverse transform.
    fit_inverse_transform : bool
        Learn a way back to the rows.
    eigen_solver : {"auto", "dense", "arpack", "randomized"}
        "auto" takes "arpack" for fewer than 10 components of more than 200 rows.
    tol, max_iter
        Of "arpack".
    iterated_power : int or "auto"
        Of "randomized".
    remove_zero_eig : bool
        Leave out components without variance.
    random_state : int, RandomState or None
        Of "arpack" and "randomized".
    copy_X : bool
        With False a reference to X is kept, and a precomputed kernel is overwritten.
    n_jobs : int or None
        Of scikit-learn's kernels.

    Attributes
    ----------
    eigenvalues_ : ndarray of shape (n_components,)
    eigenvectors_ : ndarray of shape (n_samples, n_components)
    dual_coef_ : ndarray of shape (n_samples, n_features)
        The way back, with `fit_inverse_transform`.
    X_transformed_fit_ : ndarray of shape (n_samples, n_components)
        With `fit_inverse_transform`.
    X_fit_ : {ndarray, sparse matrix} of shape (n_samples, n_features)
    gamma_ : float
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features,)

    Raises
    ------
    ValueError
        In `fit`, for a kernel matrix with large negative eigenvalues, and the inverse of a given one.

    References
    ----------
    B. Schölkopf, A. Smola and K.-R. Müller, "Nonlinear component analysis as a kernel eigenvalue problem",
    Neural Computation 10 (1998). G. Bakır, J. Weston and B. Schölkopf, "Learning to find pre-images", 2003.

    Examples
    --------
    >>> from sklearn.datasets import make_circles
    >>> from fullspan.estimators import KernelPCA
    >>> X, y = make_circles(200, factor=0.3, noise=0.05, random_state=0)
    >>> Z = KernelPCA(n_components=2, kernel="rbf", gamma=5).fit_transform(X)
    >>> bool(Z[y == 1, 0].min() > Z[y == 0, 0].max())  # one circle inside the other, now side by side
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
        "kernel": [StrOptions({"linear", "poly", "rbf", "sigmoid", "cosine", "precomputed"}), callable],
        "gamma": [Interval(Real, 0, None, closed="left"), None],
        "degree": [Interval(Real, 0, None, closed="left")],
        "coef0": [Interval(Real, None, None, closed="neither")],
        "kernel_params": [dict, None],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "fit_inverse_transform": ["boolean"],
        "eigen_solver": [StrOptions({"auto", "dense", "arpack", "randomized"})],
        "tol": [Interval(Real, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left"), None],
        "iterated_power": [Interval(Integral, 0, None, closed="left"), StrOptions({"auto"})],
        "remove_zero_eig": ["boolean"],
        "random_state": ["random_state"],
        "copy_X": ["boolean"],
        "n_jobs": [None, Integral],
    }

    def __init__(
        self,
        n_components: int | None = None,
        *,
        kernel: Any = "linear",
        gamma: float | None = None,
        degree: float = 3,
        coef0: float = 1,
        kernel_params: dict[str, Any] | None = None,
        alpha: float = 1.0,
        fit_inverse_transform: bool = False,
        eigen_solver: str = "auto",
        tol: float = 0,
        max_iter: int | None = None,
        iterated_power: Any = "auto",
        remove_zero_eig: bool = False,
        random_state: Any = None,
        copy_X: bool = True,
        n_jobs: int | None = None,
    ) -> None:
        self.n_components = n_components
        self.kernel = kernel
        self.gamma = gamma
        self.degree = degree
        self.coef0 = coef0
        self.kernel_params = kernel_params
        self.alpha = alpha
        self.fit_inverse_transform = fit_inverse_transform
        self.eigen_solver = eigen_solver
        self.tol = tol
        self.max_iter = max_iter
        self.iterated_power = iterated_power
        self.remove_zero_eig = remove_zero_eig
        self.random_state = random_state
        self.copy_X = copy_X
        self.n_jobs = n_jobs

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(self, X: Any, y: Any = None) -> Self:
        """Find the components.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features), or (n_samples, n_samples)
            The rows, or for ``kernel="precomputed"`` the kernel of all pairs.
        y : ignored

        Returns
        -------
        self
        """
        if self.fit_inverse_transform and self.kernel == "precomputed":
            raise ValueError("Cannot fit_inverse_transform with a precomputed kernel.")
        X = validate_data(self, X, accept_sparse="csr", copy=self.copy_X)
        self.gamma_ = 1 / X.shape[1] if self.gamma is None else self.gamma
        kernel = self._kernel_of(X)
        # Rows less their mean in the feature space, without going there.
        self._column_means = kernel.mean(axis=0)
        self._mean = self._column_means.mean()
        kernel -= self._column_means
        kernel -= kernel.mean(axis=1)[:, None]
        self._decompose(kernel)
        if self.fit_inverse_transform:
            self._fit_way_back(self._of_fitted(), X)
        self.X_fit_ = X
        return self

    def fit_transform(self, X: Any, y: Any = None) -> Vector:
        """Find the components, and the rows' coordinates along them.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        y : ignored

        Returns
        -------
        ndarray of shape (n_samples, n_components)
        """
        fitted: KernelPCA = self.fit(X)
        return fitted._of_fitted()

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
        X = validate_data(self, X, accept_sparse="csr", reset=False)
        kernel = self._kernel_of(X, self.X_fit_)
        kernel = kernel - self._column_means - kernel.mean(axis=1)[:, None] + self._mean
        known = self.eigenvalues_ > 0
        scaled = np.zeros_like(self.eigenvectors_)
        scaled[:, known] = self.eigenvectors_[:, known] / np.sqrt(self.eigenvalues_[known])
        return np.asarray(kernel @ scaled)

    def inverse_transform(self, X: Any) -> Vector:
        """Rows that would be mapped near these coordinates, as kernel ridge regression learnt it.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_components)

        Returns
        -------
        ndarray of shape (n_samples, n_features)

        Raises
        ------
        NotFittedError
            Without `fit_inverse_transform`.
        """
        if not self.fit_inverse_transform:
            raise NotFittedError(
                "The fit_inverse_transform parameter was not set to True when instantiating and hence the "
                "inverse transform is not available."
            )
        check_is_fitted(self)
        return np.asarray(self._kernel_of(X, self.X_transformed_fit_) @ self.dual_coef_)

    def _kernel_of(self, X: Any, Y: Any = None) -> Vector:
        if callable(self.kernel):
            given = self.kernel_params or {}
        else:
            given = {"gamma": self.gamma_, "degree": self.degree, "coef0": self.coef0}
        return np.asarray(
            pairwise_kernels(X, Y, metric=self.kernel, filter_params=True, n_jobs=self.n_jobs, **given)
        )

    def _of_fitted(self) -> Vector:
        return np.asarray(self.eigenvectors_ * np.sqrt(self.eigenvalues_))

    def _decompose(self, kernel: Vector) -> None:
        n = len(kernel)
        k = n if self.n_components is None else min(n, self.n_components)
        solver = self.eigen_solver
        if solver == "auto":
            solver = "arpack" if n > _MANY_ROWS and k < _FEW_COMPONENTS else "dense"
        if solver == "dense":
            values, vectors = linalg.eigh(kernel, subset_by_index=(n - k, n - 1))
        elif solver == "arpack":
            start = check_random_state(self.random_state).uniform(-1, 1, n).astype(kernel.dtype)
            values, vectors = eigsh(kernel, k, which="LA", tol=self.tol, maxiter=self.max_iter, v0=start)
        else:
            vectors, values, right = randomized_svd(
                kernel, n_components=k, n_iter=self.iterated_power, flip_sign=False,
                random_state=self.random_state,
            )  # fmt: skip
            # Singular values are the eigenvalues' sizes; left and right vectors differ by their signs.
            values = values * np.sign(np.einsum("ik,ki->k", vectors, right))
        values = _without_rounding(values)
        vectors, _ = svd_flip(u=vectors, v=None)
        order = values.argsort()[::-1]
        values, vectors = values[order], vectors[:, order]
        if self.remove_zero_eig or self.n_components is None:
            values, vectors = values[values > 0], vectors[:, values > 0]
        self.eigenvalues_, self.eigenvectors_ = values, vectors

    def _fit_way_back(self, transformed: Vector, X: Any) -> None:
        if sparse.issparse(X):
            raise NotImplementedError("Inverse transform not implemented for sparse matrices!")
        kernel = self._kernel_of(transformed)
        kernel[np.diag_indices_from(kernel)] += self.alpha
        self.dual_coef_ = linalg.solve(kernel, X, assume_a="pos", overwrite_a=True)
        self.X_transformed_fit_ = transformed

    @property
    def _n_features_out(self) -> int:
        return len(self.eigenvalues_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        tags.input_tags.pairwise = self.kernel == "precomputed"
        return tags


def _without_rounding(values: Vector) -> Vector:
    """Eigenvalues of a kernel, those that only rounding keeps from zero set to it.

    Raises
    ------
    ValueError
        If some are so negative that the matrix is no kernel.
    """
    exact = values.dtype == np.float64
    share, size, least = (1e-5, 1e-10, 1e-12) if exact else (5e-3, 1e-6, 2e-7)
    greatest, lowest = float(values.max(initial=0.0)), float(values.min(initial=0.0))
    if lowest < 0 and -lowest > size and -lowest > share * greatest:
        raise ValueError(
            f"There are significant negative eigenvalues ({lowest:.3g}, the greatest is {greatest:.3g}): the "
            "kernel is not positive semidefinite"
        )
    return np.asarray(np.where(values > least * greatest, values, 0.0))
