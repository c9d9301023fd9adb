"""Principal component analysis of all rows at once."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse
from scipy.sparse.linalg import LinearOperator, svds
from sklearn.base import _fit_context
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, RealNotInt, StrOptions
from sklearn.utils.extmath import fast_logdet, randomized_svd, svd_flip
from sklearn.utils.validation import _check_sample_weight, assert_all_finite, check_is_fitted, validate_data

from fullspan.estimators.decomposition.base import LinearComponents
from fullspan.estimators.decomposition.dimension import most_probable_rank
from fullspan.estimators.decomposition.statistics import Moments, moments_of

Vector = NDArray[Any]


@dataclass
class _Decomposition:
    """What a solver found: left vectors or none, singular values, components, and the whole variance."""

    left: Vector | None
    singular: Vector
    components: Vector
    total_variance: float


class PCA(LinearComponents):
    """Principal components: the orthogonal directions along which data vary most.

    Results are scikit-learn's, with the same signs. Rows are centred before they are multiplied, so that
    data far from zero keep their digits with every solver.

    Parameters
    ----------
    n_components : int, float, "mle" or None
        How many to keep: so many, as many as explain more than this share of the variance, as many as Minka's
        evidence asks for, or all (with "arpack" all but one).
    copy : bool
        With False `fit` may overwrite X.
    whiten : bool
        Scale coordinates to unit variance.
    svd_solver : {"auto", "full", "covariance_eigh", "arpack", "randomized"}
        "auto" takes "covariance_eigh" for up to 1,000 columns and ten times as many rows, "arpack" for sparse
        data, "randomized" for few components of large data, otherwise "full".
    tol : float
        Of "arpack".
    iterated_power : int or "auto"
        Power iterations of "randomized".
    n_oversamples : int
        Further random vectors of "randomized".
    power_iteration_normalizer : {"auto", "QR", "LU", "none"}
        Of "randomized".
    random_state : int, RandomState or None
        Of "arpack" and "randomized".

    Attributes
    ----------
    components_ : ndarray of shape (n_components, n_features)
    explained_variance_ : ndarray of shape (n_components,)
        With n_samples - 1 in the denominator.
    explained_variance_ratio_ : ndarray of shape (n_components,)
    singular_values_ : ndarray of shape (n_components,)
    mean_ : ndarray of shape (n_features,)
    n_components_ : int
    n_samples_ : int
        Rows, or the sum of their weights.
    noise_variance_ : float
        Mean variance along the directions that are left out (Tipping and Bishop's model).
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features,)

    Raises
    ------
    ValueError
        In `fit`, for more components than rows or columns, missing or infinite values, or negative weights.
    TypeError
        In `fit`, for sparse data with "full" or "randomized".

    References
    ----------
    M. E. Tipping and C. M. Bishop, "Probabilistic principal component analysis", JRSS B 61 (1999).
    T. P. Minka, "Automatic choice of dimensionality for PCA", NIPS 2000. N. Halko, P.-G. Martinsson and J. A.
    Tropp, "Finding structure with randomness", SIAM Review 53 (2011).

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from fullspan.estimators import PCA
    >>> X, _ = load_iris(return_X_y=True)
    >>> pca = PCA(n_components=2).fit(X)
    >>> pca.explained_variance_ratio_.round(3)
    array([0.925, 0.053])
    >>> pca.transform(X[:1]).round(3)
    array([[-2.684,  0.319]])
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "n_components": [
            Interval(Integral, 0, None, closed="left"),
            Interval(RealNotInt, 0, 1, closed="neither"),
            StrOptions({"mle"}),
            None,
        ],
        "copy": ["boolean"],
        "whiten": ["boolean"],
        "svd_solver": [StrOptions({"auto", "full", "covariance_eigh", "arpack", "randomized"})],
        "tol": [Interval(Real, 0, None, closed="left")],
        "iterated_power": [StrOptions({"auto"}), Interval(Integral, 0, None, closed="left")],
        "n_oversamples": [Interval(Integral, 1, None, closed="left")],
        "power_iteration_normalizer": [StrOptions({"auto", "QR", "LU", "none"})],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        n_components: Any = None,
        *,
        copy: bool = True,
        whiten: bool = False,
        svd_solver: str = "auto",
        tol: float = 0.0,
        iterated_power: Any = "auto",
        n_oversamples: int = 10,
        power_iteration_normalizer: str = "auto",
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.copy = copy
        self.whiten = whiten
        self.svd_solver = svd_solver
        self.tol = tol
        self.iterated_power = iterated_power
        self.n_oversamples = n_oversamples
        self.power_iteration_normalizer = power_iteration_normalizer
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Find the components.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        y : ignored
        sample_weight : array-like of shape (n_samples,), optional
            How often each row counts; 2 is as if it was there twice, 0 as if it was not.

        Returns
        -------
        self
        """
        self._fit(X, sample_weight)
        return self

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit_transform(self, X: Any, y: Any = None, sample_weight: Any = None) -> Vector:
        """Find the components, and the rows' coordinates along them.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        y : ignored
        sample_weight : array-like of shape (n_samples,), optional

        Returns
        -------
        ndarray of shape (n_samples, n_components)
        """
        found, checked = self._fit(X, sample_weight)
        if found.left is None or sample_weight is not None:
            return self._project(checked)  # nothing was overwritten
        left = found.left[:, : self.n_components_]
        if self.whiten:
            return np.asarray(left * np.sqrt(self.n_samples_ - 1))
        return np.asarray(left * found.singular[: self.n_components_])

    def _fit(self, X: Any, sample_weight: Any) -> tuple[_Decomposition, Any]:
        if sparse.issparse(X) and self.svd_solver not in ("auto", "arpack", "covariance_eigh"):
            raise TypeError(
                'PCA only support sparse inputs with the "arpack" and "covariance_eigh" solvers, while '
                f'"{self.svd_solver}" was passed'
            )
        # Whether all values are finite shows in the mean, without reading them once more.
        X = validate_data(
            self, X, dtype=[np.float64, np.float32], accept_sparse=("csr", "csc"), copy=False,
            ensure_all_finite=sparse.issparse(X) or self.svd_solver not in ("auto", "covariance_eigh"),
        )  # fmt: skip
        used, weight = X, None
        if sample_weight is not None:
            weight = _check_sample_weight(sample_weight, X, dtype=X.dtype, ensure_non_negative=True)
            used, weight = X[weight > 0], weight[weight > 0]
            if weight.sum() <= 1.0:
                raise ValueError(
                    f"sample_weight must sum to more than 1, got {weight.sum():.6g}: weights say how often "
                    "a row counts, and one row has no variance"
                )
        if X.shape[0] == 1 and weight is None:
            raise ValueError("Found n_samples=1: one row has no variance, PCA needs two at least")
        solver, n_components = self._choose(used, weight)
        self._fit_svd_solver = solver
        if solver in ("full", "covariance_eigh"):
            self._check_full(n_components, used.shape, solver, weight)
        else:
            self._check_truncated(n_components, used.shape, solver)
        if solver == "covariance_eigh":
            found = self._by_covariance(used, weight)
        else:
            assert_all_finite(used, input_name="X")
            found = self._by_values(used, weight, solver, n_components)
        self._keep(found, n_components, used.shape, weight, X.dtype)
        return found, X

    def _choose(self, X: Any, weight: Vector | None) -> tuple[str, Any]:
        """The solver, and how many components are wanted of it."""
        n, p = X.shape
        solver = self.svd_solver
        n_components = self.n_components
        if solver == "auto" and sparse.issparse(X):
            solver = "arpack"
        if n_components is None:
            shape = X.shape if solver == "arpack" else self._counted(X.shape, weight)
            n_components = min(shape) - (solver == "arpack")
        if solver == "auto":
            if p <= 1_000 and (n >= 10 * p or weight is not None):
                solver = "covariance_eigh"
            elif max(n, p) <= 500 or n_components == "mle":
                solver = "full"
            elif 1 <= n_components < 0.8 * min(n, p):
                solver = "randomized"
            else:
                solver = "full"
        return solver, n_components

    def _counted(self, shape: tuple[int, int], weight: Vector | None) -> tuple[int, int]:
        """Rows, each as often as it counts, and columns."""
        return (shape[0] if weight is None else max(shape[0], round(float(weight.sum()))), shape[1])

    def _check_full(
        self, n_components: Any, shape: tuple[int, int], solver: str, weight: Vector | None
    ) -> None:
        n, p = self._counted(shape, weight) if solver == "covariance_eigh" else shape
        if n_components == "mle":
            if n < p:
                raise ValueError("n_components='mle' is only supported if n_samples >= n_features")
        elif not 0 <= n_components <= min(n, p):
            raise ValueError(
                f"n_components={n_components} must be between 0 and min(n_samples, n_features)={min(n, p)} "
                f"with svd_solver={solver!r}"
            )

    def _check_truncated(self, n_components: Any, shape: tuple[int, int], solver: str) -> None:
        if isinstance(n_components, str):
            raise ValueError(f"n_components={n_components!r} cannot be a string with svd_solver='{solver}'")
        most = min(shape)
        if not 1 <= n_components <= most:
            raise ValueError(
                f"n_components={n_components!r} must be between 1 and min(n_samples, n_features)={most} with "
                f"svd_solver='{solver}'"
            )
        if solver == "arpack" and n_components == most:
            raise ValueError(
                f"n_components={n_components!r} must be strictly less than min(n_samples, n_features)={most} "
                f"with svd_solver='{solver}'"
            )

    def _by_covariance(self, X: Any, weight: Vector | None) -> _Decomposition:
        moments = moments_of(X, weight)
        if not np.isfinite(moments.mean).all() or not np.isfinite(moments.products).all():
            assert_all_finite(X, input_name="X")  # says what is wrong with them
        return self._of_moments(moments)

    def _of_moments(self, moments: Moments) -> _Decomposition:
        self._total = moments.total
        self.mean_ = moments.mean
        values, vectors = np.linalg.eigh(moments.products / (moments.total - 1.0))
        values = np.maximum(values[::-1], 0.0)  # rounding can make them negative
        _, components = svd_flip(None, np.ascontiguousarray(vectors[:, ::-1].T), u_based_decision=False)
        return _Decomposition(None, np.sqrt(values * (moments.total - 1.0)), components, float(values.sum()))

    def _by_values(self, X: Any, weight: Vector | None, solver: str, n_components: Any) -> _Decomposition:
        """By singular values of the centred rows, each times the root of its weight."""
        self._total = float(X.shape[0]) if weight is None else float(weight.sum())
        sums = X.sum(axis=0, dtype=np.float64) if weight is None else weight.astype(np.float64) @ X
        mean = (np.asarray(sums).ravel() / self._total).astype(X.dtype)
        self.mean_ = mean
        if sparse.issparse(X):
            centred, total = _centred_operator(X, mean, weight)
        else:
            in_place = not self.copy and weight is None and X.flags.writeable
            centred = np.subtract(X, mean, out=X if in_place else None)
            centred = centred if weight is None else centred * np.sqrt(weight)[:, None]
            total = 0.0
        random_state = check_random_state(self.random_state)
        if solver == "full":
            left, singular, components = linalg.svd(centred, full_matrices=False)
        elif solver == "arpack":
            start = random_state.uniform(-1, 1, min(X.shape)).astype(X.dtype)
            left, singular, components = svds(centred, k=n_components, tol=self.tol, v0=start)
            left, singular, components = left[:, ::-1], singular[::-1], components[::-1]
        else:
            left, singular, components = randomized_svd(
                centred,
                n_components=n_components,
                n_oversamples=self.n_oversamples,
                n_iter=self.iterated_power,
                power_iteration_normalizer=self.power_iteration_normalizer,
                flip_sign=False,
                random_state=random_state,
            )
        left, components = svd_flip(left, components, u_based_decision=False)
        if solver == "full":
            total = float(np.sum(singular**2))
        elif not sparse.issparse(X):
            total = float(np.vdot(centred, centred))
        return _Decomposition(left, singular, components, total / (self._total - 1.0))

    def _keep(
        self,
        found: _Decomposition,
        n_components: Any,
        shape: tuple[int, int],
        weight: Vector | None,
        dtype: Any,
    ) -> None:
        most = min(self._counted(shape, weight) if self._fit_svd_solver == "covariance_eigh" else shape)
        variance = found.singular**2 / (self._total - 1.0)
        if found.total_variance > 0:
            ratio = variance / found.total_variance
        else:
            with np.errstate(invalid="ignore"):
                ratio = variance / found.total_variance
            warnings.warn("X has no variance: all its rows are equal", stacklevel=4)
        if n_components == "mle":
            n_components = most_probable_rank(variance, self._total)
        elif 0 < n_components < 1.0:
            # More than the share, not just as much.
            n_components = int(np.searchsorted(np.cumsum(ratio), n_components, side="right")) + 1
        k = min(int(n_components), len(variance))
        self.noise_variance_: Any = 0.0
        if k < most:
            if self._fit_svd_solver in ("arpack", "randomized"):
                rest = (found.total_variance - float(variance.sum())) / (most - k)
            else:
                rest = float(variance[k:most].mean())
            self.noise_variance_ = dtype.type(max(rest, 0.0))
        self.n_samples_ = self._counted(shape, weight)[0]
        self.n_components_ = k
        self.mean_ = self.mean_.astype(dtype)
        self.components_ = np.array(found.components[:k], dtype)
        self.explained_variance_ = variance[:k].astype(dtype)
        self.explained_variance_ratio_ = ratio[:k].astype(dtype)
        self.singular_values_ = found.singular[:k].astype(dtype)

    def score_samples(self, X: Any) -> Vector:
        """Logarithm of each row's density by the probabilistic model.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,)
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        centred, precision = X - self.mean_, self.get_precision()
        distance = np.sum(centred * (centred @ precision), axis=1)
        return np.asarray(-0.5 * (distance + X.shape[1] * np.log(2.0 * np.pi) - fast_logdet(precision)))

    def score(self, X: Any, y: Any = None) -> float:
        """Mean of `score_samples`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : ignored

        Returns
        -------
        float
        """
        return float(np.mean(self.score_samples(X)))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        tags.input_tags.sparse = self.svd_solver in ("auto", "arpack", "covariance_eigh")
        return tags


def _centred_operator(X: Any, mean: Vector, weight: Vector | None) -> tuple[LinearOperator, float]:
    """A sparse matrix less its mean that is never written down, and the sum of its squares."""
    root = np.ones(X.shape[0], X.dtype) if weight is None else np.sqrt(weight)
    scaled = X if weight is None else X.multiply(root[:, None]).tocsr()
    transposed = scaled.T
    square = float(np.sum(np.asarray(scaled.data, np.float64) ** 2))
    operator = LinearOperator(
        shape=X.shape,
        dtype=X.dtype,
        matvec=lambda v: scaled @ v.ravel() - root * (mean @ v.ravel()),
        rmatvec=lambda v: transposed @ v.ravel() - mean * (root @ v.ravel()),
        matmat=lambda V: scaled @ V - np.outer(root, mean @ V),
        rmatmat=lambda V: transposed @ V - np.outer(mean, root @ V),
    )
    return operator, square - float(root @ root) * float(mean.astype(np.float64) @ mean)
