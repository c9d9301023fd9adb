"""Logistic regression of two or more classes, with penalties and weights, and what its coefficients tell."""

from __future__ import annotations

import warnings
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import LinAlgWarning
from scipy.special import expit, log_expit, log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Hidden, Interval, StrOptions
from sklearn.utils.extmath import safe_sparse_dot
from sklearn.utils.validation import (
    _check_feature_names_in,
    _check_sample_weight,
    check_is_fitted,
    validate_data,
)

from fullspan.estimators.linear.fitting import Fit, Penalty, Plan, fit_rows
from fullspan.estimators.linear.rows import Rows, Vector
from fullspan.estimators.linear.summary import Summary, summarise
from fullspan.estimators.linear.targets import class_factors, class_totals, encode
from fullspan.estimators.saving import Saveable

_WARNINGS = {
    "lbfgs": "lbfgs failed to converge after {} iterations",
    "newton-cg": "newton-cg failed to converge at iteration {}. Increase the number of iterations.",
    "newton-cholesky": "Newton solver did not converge after {} iterations",
    "coordinate": "coordinate descent did not converge after {} iterations",
    "sag": "The max_iter was reached which means the coef_ did not converge ({} epochs)",
    "saga": "The max_iter was reached which means the coef_ did not converge ({} epochs)",
    "liblinear": "Liblinear failed to converge, increase the number of iterations ({}).",
}


class LogisticRegression(Saveable, ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Logistic regression: the log-odds of classes as linear functions of the columns.

    Minimises ``C * sum(weight * loss) + (1 - l1_ratio) / 2 * ||coef||² + l1_ratio * ||coef||_1``, where the
    loss is the negative log-likelihood; the intercept is not penalised. Results are scikit-learn's.

    Parameters
    ----------
    penalty : {"l1", "l2", "elasticnet", None}
        Deprecated, as in scikit-learn: say it by `l1_ratio` and `C`.
    C : float
        Inverse strength of the penalty; ``np.inf`` is maximum likelihood.
    l1_ratio : float
        0 for an L2 penalty, 1 for L1, between them for both.
    dual : bool
        Only for `solver="liblinear"`, and of no consequence: the least value is the same.
    tol : float
        When to stop: the largest component of the mean loss's gradient.
    fit_intercept : bool
    intercept_scaling : float
        With `solver="liblinear"`, which penalises the intercept: as that of a column of this constant.
    class_weight : dict, "balanced" or None
        Multiplies the weights of each class's rows; "balanced" makes all classes weigh the same.
    random_state : int, RandomState or None
        Orders the rows for "sag" and "saga"; the other solvers use no chance.
    solver : {"auto", "lbfgs", "liblinear", "newton-cg", "newton-cholesky", "sag", "saga"}
        "auto" takes Newton's method (iteratively reweighted least squares) for up to 400 parameters, L-BFGS
        for more, and coordinate descent on Newton's quadratic models with an L1 penalty. It begins with every
        twentieth row where there are many. The other names are scikit-learn's: "liblinear" penalises the
        intercept too, "sag" and "saga" go row by row.
    max_iter : int
    verbose : int
        With 1 or more, each iteration is printed.
    warm_start : bool
        Begin where the last fit ended.
    n_jobs : int or None
        Deprecated and ignored, as in scikit-learn. Large data are worked on by every usable core.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    coef_ : ndarray of shape (1, n_features) or (n_classes, n_features)
    intercept_ : ndarray of shape (1,) or (n_classes,)
    n_iter_ : ndarray of shape (1,)
    separable_ : bool
        Whether the fit found out that a plane parts the classes: then there is no maximum-likelihood
        estimate (with C=np.inf a warning says so), and standard errors mean nothing.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features,)

    Raises
    ------
    ValueError
        In `fit`, for a solver that does not take the penalty, one class only, negative weights, or missing or
        infinite values.

    References
    ----------
    J. Friedman, T. Hastie and R. Tibshirani, "Regularization paths for generalized linear models via
    coordinate descent", J. Stat. Softw. 33 (2010). A. Albert and J. A. Anderson, "On the existence of maximum
    likelihood estimates in logistic regression models", Biometrika 71 (1984).

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from fullspan.estimators import LogisticRegression
    >>> X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    >>> model = LogisticRegression(C=np.inf, tol=1e-8).fit(X[["mean radius", "mean texture"]], y)
    >>> model.coef_.round(3)
    array([[-1.057, -0.218]])
    >>> table = model.summary()
    >>> table.names, table.standard_errors.round(3)
    (['mean radius', 'mean texture', 'intercept'], array([[0.101, 0.037, 1.774]]))
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "penalty": [StrOptions({"l1", "l2", "elasticnet"}), None, Hidden(StrOptions({"deprecated"}))],
        "C": [Interval(Real, 0, None, closed="right")],
        "l1_ratio": [Interval(Real, 0, 1, closed="both"), None],
        "dual": ["boolean"],
        "tol": [Interval(Real, 0, None, closed="left")],
        "fit_intercept": ["boolean"],
        "intercept_scaling": [Interval(Real, 0, None, closed="neither")],
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "random_state": ["random_state"],
        "solver": [StrOptions({"auto", *_WARNINGS} - {"coordinate"})],
        "max_iter": [Interval(Integral, 0, None, closed="left")],
        "verbose": ["verbose"],
        "warm_start": ["boolean"],
        "n_jobs": [None, Integral],
    }

    def __init__(
        self,
        penalty: Any = "deprecated",
        *,
        C: float = 1.0,
        l1_ratio: float | None = 0.0,
        dual: bool = False,
        tol: float = 1e-4,
        fit_intercept: bool = True,
        intercept_scaling: float = 1.0,
        class_weight: Any = None,
        random_state: Any = None,
        solver: str = "auto",
        max_iter: int = 100,
        verbose: int = 0,
        warm_start: bool = False,
        n_jobs: int | None = None,
    ) -> None:
        self.penalty = penalty
        self.C = C
        self.l1_ratio = l1_ratio
        self.dual = dual
        self.tol = tol
        self.fit_intercept = fit_intercept
        self.intercept_scaling = intercept_scaling
        self.class_weight = class_weight
        self.random_state = random_state
        self.solver = solver
        self.max_iter = max_iter
        self.verbose = verbose
        self.warm_start = warm_start
        self.n_jobs = n_jobs

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit to rows and their classes.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        y : array-like of shape (n_samples,)
        sample_weight : array-like of shape (n_samples,), optional
            How much each row counts; 2 is as if it was there twice.

        Returns
        -------
        self
        """
        penalty = self._penalty()
        X, y = validate_data(
            self,
            X,
            y,
            accept_sparse="csr",
            dtype=[np.float64, np.float32],
            order="C",
            accept_large_sparse=self.solver not in ("liblinear", "sag", "saga"),
        )
        weight = np.empty(0)
        if sample_weight is not None:
            weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        classes, codes = encode(y)
        self._check_classes(classes)
        totals = class_totals(codes, weight, len(classes))
        if self.class_weight is not None:
            factors = class_factors(self.class_weight, classes, totals)
            weight = factors[codes] if not len(weight) else weight * factors[codes]
            totals = totals * factors
        rows = Rows(X, codes, weight, len(classes), self.fit_intercept)
        start = self._start(rows) if self.warm_start and self.solver != "liblinear" else None
        plan = Plan(self.solver, self.tol, self.max_iter, self.verbose)
        fit = fit_rows(rows, penalty, plan, start, check_random_state(self.random_state))
        self.classes_ = classes
        self._keep(fit, penalty, totals, rows.n_samples, X.dtype, bool(len(weight)))
        return self

    def _check_classes(self, classes: NDArray[Any]) -> None:
        if self.solver == "liblinear" and len(classes) > 2:
            raise ValueError(
                "The 'liblinear' solver does not support multiclass classification (n_classes >= 3): y has "
                f"{len(classes)} classes. Choose another solver, or wrap it in OneVsRestClassifier."
            )
        if len(classes) < 2:
            raise ValueError(
                "This solver needs samples of at least 2 classes in the data, but the data contains only one "
                f"class: {classes[0]}"
            )

    def _penalty(self) -> Penalty:
        """What `penalty`, `C`, `l1_ratio` and `solver` ask for together.

        Raises
        ------
        ValueError
            If they contradict each other.
        """
        kind = self._kind()
        if self.solver in ("lbfgs", "newton-cg", "newton-cholesky", "sag") and kind not in ("l2", None):
            raise ValueError(f"Solver {self.solver} supports only 'l2' or None penalties, got {kind}.")
        if self.solver != "liblinear" and self.dual:
            raise ValueError(f"Solver {self.solver} supports only dual=False, got dual={self.dual}")
        if self.solver == "liblinear" and kind == "elasticnet":
            raise ValueError(f"Only 'saga' solver supports elasticnet penalty, got solver={self.solver}.")
        if self.solver == "liblinear" and kind is None:
            raise ValueError("C=np.inf as well as penalty=None is not supported for the liblinear solver")
        if self.n_jobs is not None:
            warnings.warn(
                f"'n_jobs' has no effect and goes with scikit-learn 1.10, got n_jobs={self.n_jobs}: leave it "
                "unset. Large data are worked on by every usable core.",
                FutureWarning,
                stacklevel=3,
            )
        strength = 0.0 if self.penalty is None or np.isinf(self.C) else 1.0 / self.C
        share = {"l1": 1.0, "elasticnet": self.l1_ratio}.get(kind or "", 0.0)
        scaling = float(self.intercept_scaling) if self.solver == "liblinear" else None
        return Penalty(strength * (1.0 - float(share or 0.0)), strength * float(share or 0.0), scaling)

    def _kind(self) -> str | None:
        """The penalty's name; warns of what scikit-learn's next version will refuse."""
        ratio = self.l1_ratio
        if self.penalty == "deprecated":
            if ratio is None:
                warnings.warn(
                    "'l1_ratio=None' was deprecated in scikit-learn 1.8 and goes with 1.10. Use 0 to 1.",
                    FutureWarning,
                    stacklevel=4,
                )
            if self.C == np.inf:
                return None
            return "l2" if not ratio else "l1" if ratio == 1 else "elasticnet"
        warnings.warn(
            "'penalty' was deprecated in scikit-learn 1.8 and goes with 1.10: leave it unset. l1_ratio=0 is "
            "'l2', l1_ratio=1 is 'l1', a number between them 'elasticnet', C=np.inf is None.",
            FutureWarning,
            stacklevel=4,
        )
        kind: str | None = self.penalty
        if kind == "elasticnet" and ratio is None:
            raise ValueError("l1_ratio must be specified when penalty is elasticnet.")
        if kind != "elasticnet" and ratio is not None and 0 < ratio < 1:
            warnings.warn(
                f"l1_ratio parameter is only used when penalty is 'elasticnet'. Got (penalty={kind})",
                stacklevel=4,
            )
        if (kind == "l2" and ratio != 0) or (kind == "l1" and ratio != 1):
            warnings.warn(
                f"Inconsistent values: penalty={kind} with l1_ratio={ratio}. penalty is deprecated. "
                "Please use l1_ratio only.",
                stacklevel=4,
            )
        if kind is None and self.C != 1.0:
            warnings.warn("Setting penalty=None will ignore the C and l1_ratio parameters", stacklevel=4)
        return kind

    def _start(self, rows: Rows) -> Vector | None:
        """The last fit's parameters."""
        coef = getattr(self, "coef_", None)
        if coef is None:
            return None
        coef = coef.toarray() if sparse.issparse(coef) else coef
        found = np.column_stack([coef, self.intercept_]) if self.fit_intercept else coef
        if found.shape != (rows.n_vectors, rows.width):
            raise ValueError(
                f"warm_start=True, but the last fit's coefficients are of shape {coef.shape} and these data "
                f"need {(rows.n_vectors, rows.n_features)}. Fit a clone, or the same columns and classes."
            )
        return np.asarray(found, np.float64)

    def _keep(
        self, fit: Fit, penalty: Penalty, totals: Vector, n_samples: int, dtype: Any, weighted: bool
    ) -> None:
        dtype = np.float64 if self.solver == "liblinear" else dtype
        n_features = fit.params.shape[1] - self.fit_intercept
        self.coef_: Any = fit.params[:, :n_features].astype(dtype)
        intercept = fit.params[:, -1] if self.fit_intercept else np.zeros(len(fit.params))
        self.intercept_ = intercept.astype(dtype)
        self.n_iter_ = np.array([fit.n_iter], np.int32)
        self.separable_ = fit.separable
        self._hessian, self._log_likelihood = fit.hessian, -fit.loss
        self._totals, self._n_samples, self._weighted = totals, n_samples, weighted
        self._l2, self._l1 = penalty.l2, penalty.l1
        self._params = fit.params
        self._warn(fit, penalty)

    def _warn(self, fit: Fit, penalty: Penalty) -> None:
        if fit.fell_back and self.solver == "newton-cholesky":
            warnings.warn(
                "The Hessian is singular or ill-conditioned: it now resorts to lbfgs instead. Columns that "
                "follow from others, or C too large for so few rows, are the usual reasons.",
                LinAlgWarning,
                stacklevel=4,
            )
        if fit.separable and not penalty.l2 and not penalty.l1:
            warnings.warn(
                "The classes are separable: a plane parts them, so there is no maximum-likelihood estimate "
                "and coefficients grow without end until tol or max_iter stops them. Give a finite C, or "
                "leave out the columns that tell the classes apart.",
                ConvergenceWarning,
                stacklevel=4,
            )
        elif fit.problem:
            name = "liblinear" if self.solver == "liblinear" else fit.method
            warnings.warn(
                _WARNINGS[name].format(fit.n_iter)
                + f" (max_iter={self.max_iter}, tol={self.tol}). More of them, or columns of like scale "
                "(StandardScaler), would help.",
                ConvergenceWarning,
                stacklevel=4,
            )

    def decision_function(self, X: Any) -> NDArray[Any]:
        """Scores of the rows: the log-odds of the second of two classes, or one score for each class.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_classes)
        """
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse="csr", reset=False)
        scores: NDArray[Any] = np.asarray(safe_sparse_dot(X, self.coef_.T, dense_output=True))
        scores = scores + self.intercept_
        return scores.ravel() if scores.shape[1] == 1 else scores

    def predict(self, X: Any) -> NDArray[Any]:
        """The most probable class of each row.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,)
        """
        scores = self.decision_function(X)
        codes = (scores > 0).astype(np.intp) if scores.ndim == 1 else scores.argmax(axis=1)
        return np.asarray(self.classes_[codes])

    def predict_proba(self, X: Any) -> NDArray[Any]:
        """Probabilities of the classes.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
        """
        scores = self.decision_function(X)
        if scores.ndim == 1:
            return np.column_stack([expit(-scores), expit(scores)])
        return np.asarray(softmax(scores, axis=1))

    def predict_log_proba(self, X: Any) -> NDArray[Any]:
        """Logarithms of the probabilities; finite where a probability is too small for a float.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
        """
        scores = self.decision_function(X)
        if scores.ndim == 1:
            return np.column_stack([log_expit(-scores), log_expit(scores)])
        return np.asarray(log_softmax(scores, axis=1))

    def sparsify(self) -> Self:
        """Keep `coef_` as a CSR matrix, which is smaller where most coefficients are zero."""
        check_is_fitted(self)
        self.coef_ = sparse.csr_matrix(self.coef_)
        return self

    def densify(self) -> Self:
        """Undo `sparsify`."""
        check_is_fitted(self)
        self.coef_ = self.coef_.toarray() if sparse.issparse(self.coef_) else self.coef_
        return self

    def summary(
        self, X: Any = None, y: Any = None, sample_weight: Any = None, *, level: float = 0.95
    ) -> Summary:
        """Standard errors, z, p-values and intervals of the coefficients.

        Parameters
        ----------
        X, y, sample_weight
            What the model was fitted to. Not needed after a fit by Newton's method or coordinate descent
            ("auto", up to 400 parameters), which keeps its second derivatives.
        level : float
            Of the intervals.

        Returns
        -------
        Summary
            Equal to statsmodels' Logit and MNLogit where there is no penalty.

        Raises
        ------
        ValueError
            If X is needed and not given, or `level` is not between 0 and 1.
        """
        check_is_fitted(self)
        if not 0 < level < 1:
            raise ValueError(f"level must be between 0 and 1, got {level}")
        hessian, log_likelihood = self._hessian, self._log_likelihood
        if X is not None:
            hessian, log_likelihood = self._derivatives(X, y, sample_weight)
        if hessian is None:
            raise ValueError(
                f"this fit (solver={self.solver!r}, {self._params.size} parameters) kept no derivatives"
                ": give the data it was fitted to, summary(X, y), or fit with solver='newton-cholesky'"
            )
        l2 = np.full(self._params.shape, self._l2)
        if self.fit_intercept and self.solver != "liblinear":
            l2[:, -1] = 0.0
        elif self.fit_intercept:
            l2[:, -1] /= self.intercept_scaling**2
        names = [*map(str, _check_feature_names_in(self)), *(["intercept"] if self.fit_intercept else [])]
        return summarise(
            self._params, hessian, l2, self.classes_, self._totals, log_likelihood, names, level,
            self._n_samples, self.fit_intercept, bool(self._l1), self._notes(),
        )  # fmt: skip

    def _derivatives(self, X: Any, y: Any, sample_weight: Any) -> tuple[Vector, float]:
        X, y = validate_data(
            self, X, y, accept_sparse="csr", dtype=[np.float64, np.float32], order="C", reset=False
        )
        codes = np.searchsorted(self.classes_, y)
        if np.any(self.classes_[np.minimum(codes, len(self.classes_) - 1)] != y):
            raise ValueError(f"y has classes that the model was not fitted to; it knows {self.classes_}")
        weight = np.empty(0)
        if sample_weight is not None:
            weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        if self.class_weight is not None:
            totals = class_totals(codes, weight, len(self.classes_))
            factors = class_factors(self.class_weight, self.classes_, totals)
            weight = factors[codes] if not len(weight) else weight * factors[codes]
        rows = Rows(X, codes, weight, len(self.classes_), self.fit_intercept)
        loss, _, _, hessian = rows.loss_gradient_hessian(self._params.ravel())
        return hessian, -loss

    def _notes(self) -> list[str]:
        notes = []
        if self.separable_:
            notes.append(
                "the classes are separable: without a penalty there is no estimate, and these standard "
                "errors mean nothing"
            )
        if self._l2 and not self._l1:
            notes.append(
                "penalised: coefficients are drawn towards zero, and so are their expectations. Standard "
                "errors are those around the expectation, (H+P)^-1 H (H+P)^-1; intervals "
                "know nothing of the bias"
            )
        if self._l1:
            notes.append(
                "the L1 penalty chose the columns: standard errors are those of the chosen ones as if they "
                "had been known before (too small); coefficients of zero have none"
            )
        if self._weighted:
            notes.append(
                "weighted: a weight of 2 counts as two rows. If weights are no counts, or come from "
                "class_weight, standard errors are not those of a sample"
            )
        return notes

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        if self.solver == "liblinear":
            tags.classifier_tags.multi_class = False
        return tags
