"""Logistic regression beside scikit-learn's, and its standard errors beside statsmodels'."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import numpy as np
import pytest
import sklearn.linear_model
from scipy import sparse
from sklearn.datasets import load_breast_cancer, load_iris, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import scale

from fullspan.core.errors import ConfigError, DataError
from fullspan.core.partitions import LocalPartitions, ProcessPartitions
from fullspan.estimators import LogisticRegression
from fullspan.estimators.linear.partitions import fit_partitions
from fullspan.estimators.linear.rows import Rows
from fullspan.estimators.losses import Logistic, Multinomial

SOLVERS = ("auto", "lbfgs", "newton-cg", "newton-cholesky", "sag", "saga")


@pytest.fixture(scope="module")
def two() -> tuple[np.ndarray, np.ndarray]:
    X, y = load_breast_cancer(return_X_y=True)
    return np.ascontiguousarray(scale(X)[:, :12]), y


@pytest.fixture(scope="module")
def three() -> tuple[np.ndarray, np.ndarray]:
    X, y = load_iris(return_X_y=True)
    return np.ascontiguousarray(scale(X)), y


def reference(X: Any, y: np.ndarray, weight: Any = None, **options: Any) -> Any:
    """scikit-learn's, at its optimum."""
    settings = {"tol": 1e-10, "max_iter": 100_000, "solver": "newton-cholesky", **options}
    return sklearn.linear_model.LogisticRegression(**settings).fit(X, y, weight)


def assert_same(model: Any, expected: Any, atol: float) -> None:
    np.testing.assert_allclose(model.coef_, expected.coef_, rtol=0, atol=atol)
    np.testing.assert_allclose(model.intercept_, expected.intercept_, rtol=0, atol=atol)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("data", ["two", "three"])
def test_every_solver_finds_scikit_learns_coefficients(
    solver: str, data: str, request: pytest.FixtureRequest
) -> None:
    X, y = request.getfixturevalue(data)
    weight = np.random.default_rng(0).random(len(y))
    weight[::11] = 0.0
    options = {"C": 0.1, "class_weight": "balanced"}
    expected = reference(X, y, weight, **options)
    # Solvers that watch the gradient end within tol over the least curvature of the optimum, here about 0.01;
    # the stochastic ones watch their steps.
    tol = 1e-9 if solver in ("sag", "saga") else 1e-8
    for rows in (X, sparse.csr_matrix(X)):
        model = LogisticRegression(solver=solver, tol=tol, max_iter=5000, random_state=0, **options)
        model.fit(rows, y, weight)
        assert_same(model, expected, 1e-6)
        np.testing.assert_allclose(model.predict_proba(rows), expected.predict_proba(X), atol=1e-6)
        np.testing.assert_allclose(model.predict_log_proba(X), expected.predict_log_proba(X), atol=1e-5)


@pytest.mark.parametrize("l1_ratio", [0.4, 1.0])
@pytest.mark.parametrize("data", ["two", "three"])
def test_penalties_with_corners(l1_ratio: float, data: str, request: pytest.FixtureRequest) -> None:
    X, y = request.getfixturevalue(data)
    options = {"C": 0.05, "l1_ratio": l1_ratio}
    expected = reference(X, y, solver="saga", **{**options, "tol": 1e-9})
    for solver in ("auto", "saga"):
        model = LogisticRegression(solver=solver, tol=1e-9, max_iter=20_000, random_state=0, **options)
        model.fit(X, y)
        assert_same(model, expected, 1e-6)
        assert ((model.coef_ == 0) == (expected.coef_ == 0)).all() and (model.coef_ == 0).any()


def test_many_columns_with_an_l1_penalty_are_looked_at_few_at_a_time() -> None:
    rng = np.random.default_rng(0)
    X = sparse.random(400, 1500, density=0.02, random_state=0, format="csr")
    y = (X @ rng.standard_normal(1500) + 0.1 * rng.standard_normal(400) > 0).astype(int)
    model = LogisticRegression(l1_ratio=1, C=3.0, tol=1e-9).fit(X, y)
    expected = reference(X, y, solver="liblinear", l1_ratio=1, C=3.0, fit_intercept=False, tol=1e-9)
    free = LogisticRegression(l1_ratio=1, C=3.0, tol=1e-9, fit_intercept=False).fit(X, y)
    np.testing.assert_allclose(free.coef_, expected.coef_, atol=1e-5)  # LIBLINEAR's rule is a relative one
    # The condition for the least value, over all columns.
    p = model.predict_proba(X)[:, 1]
    gradient = np.asarray(X.T @ (p - y)).ravel() * 3.0
    zero = model.coef_[0] == 0
    assert 1000 < zero.sum() < 1500 and (np.abs(gradient[zero]) <= 1 + 1e-5).all()
    np.testing.assert_allclose(gradient[~zero], -np.sign(model.coef_[0][~zero]), atol=1e-5)
    assert abs(np.sum(p - y)) < 1e-5


@pytest.mark.parametrize("l1_ratio", [0, 1])
def test_liblinear_penalises_the_intercept(l1_ratio: int, two: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = two
    options = {"l1_ratio": l1_ratio, "C": 0.1, "intercept_scaling": 0.5}
    expected = reference(X, y, solver="liblinear", **options)
    model = LogisticRegression(solver="liblinear", tol=1e-10, **options).fit(X.astype(np.float32), y)
    assert model.coef_.dtype == np.float64
    assert_same(model, expected, 1e-5)


def test_large_data_are_begun_with_few_rows_and_ended_with_all() -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((30_000, 70)).astype(np.float32)  # more columns than our own loop takes
    y = (X[:, :5].sum(axis=1) + 3 * rng.logistic(size=len(X)) > 1).astype(int)
    model = LogisticRegression(tol=1e-9).fit(X, y)
    assert model.coef_.dtype == np.float32
    assert_same(model, reference(X.astype(np.float64), y), 1e-6)
    few = np.ascontiguousarray(X[:, :5])
    whole = LogisticRegression(solver="newton-cholesky").fit(few, y)
    assert LogisticRegression().fit(few, y).n_iter_[0] < whole.n_iter_[0]


@pytest.mark.parametrize("n_classes", [2, 3])
def test_sums_are_the_losses(n_classes: int) -> None:
    """The kernels' loss, gradient and hessian against the loss family and finite differences."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 3)) * [1, 10, 1000]  # some scores in the hundreds
    codes, weight = rng.integers(0, n_classes, 60), rng.random(60)
    for rows_of, given in itertools.product((lambda X: X, sparse.csr_matrix), (weight, np.empty(0))):
        rows = Rows(rows_of(X), codes, given, n_classes, True)
        params = rng.standard_normal(rows.n_vectors * 4)
        loss, wrong, gradient, hessian = rows.loss_gradient_hessian(params)
        matrix = params.reshape(rows.n_vectors, 4)
        raw = X @ matrix[:, :3].T + matrix[:, 3]
        w = given if len(given) else np.ones(60)
        family: Any = Logistic() if n_classes == 2 else Multinomial(3)
        raw = raw[:, 0] if n_classes == 2 else raw
        slopes = (family.gradient(codes, raw).reshape(60, -1) * w[:, None]).T
        assert loss == pytest.approx(w @ family.pointwise(codes, raw), rel=1e-12)
        expected = np.column_stack([slopes @ X, slopes.sum(axis=1)])
        np.testing.assert_allclose(gradient, expected.ravel(), rtol=1e-9, atol=1e-9)
        predicted = raw > 0 if n_classes == 2 else raw.argmax(axis=1)
        assert wrong == np.sum(predicted != codes)
        # On scores of order one, where differences can be taken.
        small = Rows(rows_of(X / [1, 10, 1000]), codes, given, n_classes, True)
        hessian = small.loss_gradient_hessian(params)[3]
        for j, step in enumerate(np.eye(len(params)) * 1e-5):
            ahead, behind = small.loss_gradient(params + step)[2], small.loss_gradient(params - step)[2]
            np.testing.assert_allclose(hessian[j], (ahead - behind) / 2e-5, atol=1e-6)
            np.testing.assert_allclose(small.hessian_product(params, step), hessian[j] * 1e-5, atol=1e-14)


def test_standard_errors_are_statsmodels() -> None:
    """Figures of statsmodels 0.15: Logit, GLM with freq_weights, MNLogit (from the first class, too)."""
    X, y = load_breast_cancer(return_X_y=True)
    X = X[:, :2]
    table = LogisticRegression(C=np.inf, tol=1e-10).fit(X, y).summary()
    coef, errors = [-1.0571018305, -0.2181410061, 19.8494165665], [0.1014806321, 0.037066019, 1.7739454372]
    np.testing.assert_allclose(table.coefficients, [coef], rtol=1e-7)
    np.testing.assert_allclose(table.standard_errors, [errors], rtol=1e-7)
    np.testing.assert_allclose(table.p_values, [[2.0786321e-25, 3.9756833e-09, 4.5944063e-29]], rtol=1e-6)
    np.testing.assert_allclose(table.lower, [[-1.2560002146, -0.2907890685, 16.3725473989]], rtol=1e-7)
    np.testing.assert_allclose(table.upper, [[-0.8582034465, -0.1454929437, 23.326285734]], rtol=1e-7)
    found = (table.log_likelihood, table.null_log_likelihood, table.aic, table.bic)
    assert found == pytest.approx((-145.56165318904, -375.72000273203, 297.12330637809, 310.15494768047))
    assert table.likelihood_ratio_p_value == pytest.approx(1.1053474903e-100, rel=1e-6)
    assert table.notes == [] and "    -0.21814    0.037066" in str(table)

    weight = np.random.default_rng(0).integers(1, 5, len(y))
    model = LogisticRegression(C=np.inf, tol=1e-10, solver="lbfgs", max_iter=10_000).fit(X, y, weight)
    with pytest.raises(ValueError, match=r"summary\(X, y\)"):
        model.summary()
    table = model.summary(X, y, weight)
    np.testing.assert_allclose(table.standard_errors, [[0.0675540043, 0.0248615059, 1.1933023066]], rtol=1e-6)
    assert table.log_likelihood == pytest.approx(-349.95863411664)
    assert len(table.notes) == 1 and "weighted" in table.notes[0]

    X, y = load_wine(return_X_y=True)
    table = LogisticRegression(C=np.inf, tol=1e-10).fit(X[:, [1, 4]], y).summary()
    coefs = [[-0.0892357637, -0.0660353542, 6.9450217378], [1.1523090745, -0.0240984037, -0.7025147475]]
    errors = [[0.2304184017, 0.0158064056, 1.6284250359], [0.2325647016, 0.0174976111, 1.9180015028]]
    np.testing.assert_allclose(table.coefficients, coefs, rtol=1e-6)
    np.testing.assert_allclose(table.standard_errors, errors, rtol=1e-6)
    assert (table.log_likelihood, table.bic) == pytest.approx((-155.57501994949, 342.24074120074))


def test_what_a_penalty_does_to_a_summary_is_said(three: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = three
    ridge = LogisticRegression(C=0.5, tol=1e-10).fit(X, y).summary()
    assert "know nothing of the bias" in ridge.notes[0]
    # By simulation would take long; the formula, written another way: contrasts of the softmax's parameters.
    rows = Rows(X, y, np.empty(0), 3, True)
    model = LogisticRegression(C=0.5, tol=1e-10).fit(X, y)
    hessian = rows.loss_gradient_hessian(np.column_stack([model.coef_, model.intercept_]).ravel())[3]
    inverse = np.linalg.pinv(hessian + np.diag(np.tile([2.0, 2.0, 2.0, 2.0, 0.0], 3)))
    spread = inverse @ hessian @ inverse
    of_second = np.kron([-1, 1, 0], np.eye(5))
    expected = np.sqrt(np.diag(of_second @ spread @ of_second.T))
    np.testing.assert_allclose(ridge.standard_errors[0], expected, rtol=1e-6)
    lasso = LogisticRegression(C=0.1, l1_ratio=1).fit(X, y)
    table = lasso.summary()
    both_zero = (lasso.coef_[1:] == 0) & (lasso.coef_[0] == 0)
    assert both_zero.any() and np.array_equal(np.isnan(table.standard_errors[:, :4]), both_zero)
    assert "chose the columns" in table.notes[0]


def test_separable_classes_are_found_out() -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 2)).round(1)
    apart = (X[:, 0] > 0.45).astype(int)
    mixed = rng.integers(0, 2, 200)
    touching = np.where(X[:, 0] == 0, mixed, X[:, 0] > 0).astype(int)  # mixed on a line, apart beside it
    thirds = np.digitize(X[:, 1], [-0.45, 0.45])
    for classes in (apart, touching, thirds):
        with pytest.warns(ConvergenceWarning, match="separable"):
            model = LogisticRegression(C=np.inf).fit(X, classes)
        assert model.separable_ and "separable" in model.summary().notes[0]
    assert LogisticRegression().fit(X, thirds).coef_.any()  # with a penalty there is no cause to warn
    assert not LogisticRegression(C=np.inf).fit(X, mixed).separable_


def test_columns_that_follow_from_others_have_no_standard_error(two: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = two
    doubled = np.column_stack([X[:, 1], X[:, 4], X[:, 4], np.zeros(len(X))])
    model = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000).fit(doubled, y)
    plain = LogisticRegression(C=np.inf, tol=1e-8).fit(X[:, [1, 4]], y)
    np.testing.assert_allclose(model.predict_proba(doubled), plain.predict_proba(X[:, [1, 4]]), atol=1e-6)
    errors = model.summary(doubled, y).standard_errors[0]
    assert np.isinf(errors[1:4]).all()
    assert errors[0] == pytest.approx(plain.summary().standard_errors[0, 0], rel=1e-5)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_parts_in_processes_give_the_same(n_classes: int, two: Any, three: Any) -> None:
    X, y = two if n_classes == 2 else three
    names = np.array(["a", "b", "c"])[y]
    weight = np.random.default_rng(0).random(len(y))
    order = np.random.default_rng(1).permutation(len(y))
    parts = [(X[part], names[part], weight[part]) for part in np.array_split(order, 2)]
    options: dict[str, Any] = {"tol": 1e-10, "class_weight": "balanced"}
    whole = LogisticRegression(**options).fit(X, names, weight)
    with ProcessPartitions(parts) as two_processes:
        parted = fit_partitions(LogisticRegression(**options), two_processes)
        np.testing.assert_array_equal(parted.classes_, whole.classes_)
        assert_same(parted, whole, 1e-9)
        errors = parted.summary().standard_errors
        np.testing.assert_allclose(errors, whole.summary().standard_errors, rtol=1e-6)
        if n_classes == 2:
            for more in ({"l1_ratio": 1.0, "C": 0.1}, {"solver": "newton-cg"}, {"solver": "liblinear"}):
                whole = LogisticRegression(**options, **more).fit(X, names, weight)
                assert_same(fit_partitions(LogisticRegression(**options, **more), two_processes), whole, 1e-7)
    with LocalPartitions([(X, y), (X[:, :2], y)]) as ragged:
        with pytest.raises(DataError, match=r"\[2, "):
            fit_partitions(LogisticRegression(), ragged)
        with pytest.raises(ConfigError, match="saga"):
            fit_partitions(LogisticRegression(solver="saga"), ragged)


@pytest.mark.parametrize("data", ["two", "three"])
def test_a_warm_start_goes_on(data: str, request: pytest.FixtureRequest) -> None:
    X, y = request.getfixturevalue(data)
    whole = LogisticRegression(solver="newton-cholesky", max_iter=2)
    steps = LogisticRegression(solver="newton-cholesky", max_iter=1, warm_start=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        whole.fit(X, y)
        steps.fit(X, y).fit(X, y)
    assert_same(steps, whole, 1e-12)
    again = LogisticRegression(warm_start=True).fit(X, y).fit(X, y)
    assert again.n_iter_[0] == 0
    with pytest.raises(ValueError, match="warm_start"):
        again.fit(X[:, :3], y)


@pytest.mark.parametrize("solver", [*SOLVERS, "liblinear"])
def test_too_few_iterations_are_said(solver: str, two: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = two
    model = LogisticRegression(solver=solver, max_iter=1, tol=1e-12)
    with pytest.warns(ConvergenceWarning, match=r"max_iter=1, tol=1e-12"):
        model.fit(X, y)
    assert model.n_iter_[0] == 1


def test_sparse_coefficients_predict_the_same(two: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = two
    model = LogisticRegression(l1_ratio=1, C=0.05).fit(X, y)
    dense = model.decision_function(X)
    assert sparse.issparse(model.sparsify().coef_)
    np.testing.assert_allclose(model.decision_function(sparse.csr_matrix(X)), dense, rtol=1e-12)
    assert isinstance(model.densify().coef_, np.ndarray)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "lbfgs", "l1_ratio": 1}, "Solver lbfgs supports only 'l2' or None penalties, got l1"),
        ({"dual": True}, "Solver auto supports only dual=False"),
        ({"solver": "liblinear", "l1_ratio": 0.5}, "Only 'saga' solver supports elasticnet"),
        ({"solver": "liblinear", "C": np.inf}, "penalty=None is not supported for the liblinear solver"),
        ({"C": 0}, "'C' parameter"),
        ({"solver": "irls"}, "'solver' parameter"),
        ({"l1_ratio": 1.5}, "'l1_ratio' parameter"),
        ({"class_weight": {0: -1.0}}, "class_weight must not be negative"),
    ],
)
def test_contradictions_are_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LogisticRegression(**options).fit([[0.0], [1.0], [2.0]], [0, 1, 0])


def test_wrong_data_are_refused(three: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = three
    with pytest.raises(ValueError, match="only one class: 1"):
        LogisticRegression().fit(X, np.ones(len(X), int))
    with pytest.raises(ValueError, match="does not support multiclass classification"):
        LogisticRegression(solver="liblinear").fit(X, y)
    with pytest.raises(ValueError, match="Negative values in data passed to `sample_weight`"):
        LogisticRegression().fit(X, y, -np.ones(len(X)))
    with pytest.raises(ValueError, match="Input X contains NaN"):
        LogisticRegression().fit(np.where(X > 2, np.nan, X), y)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        LogisticRegression().fit(X[:-1], y)
    with pytest.raises(ValueError, match="Unknown label type"):
        LogisticRegression().fit(X, X[:, 0])
    model = LogisticRegression().fit(X, y)
    with pytest.raises(ValueError, match="X has 3 features"):
        model.predict(X[:, :3])
    with pytest.raises(ValueError, match="classes that the model was not fitted to"):
        model.summary(X, y + 1)
    with pytest.raises(ValueError, match="level must be between 0 and 1"):
        model.summary(level=95)
    for penalty in ("l2", None):
        with pytest.warns(FutureWarning, match="'penalty' was deprecated"):
            LogisticRegression(penalty=penalty).fit(X, np.arange(len(y)) % 2)
    with pytest.warns(FutureWarning, match="'n_jobs' has no effect"):
        LogisticRegression(n_jobs=2).fit(X, y)
