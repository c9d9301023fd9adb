"""Principal components beside scikit-learn's: at once, in batches, in a kernel's space and over parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sklearn.decomposition
from scipy import sparse
from sklearn.datasets import load_iris, make_circles

from fullspan.core.errors import ConfigError, DataError
from fullspan.core.partitions import LocalPartitions, ProcessPartitions
from fullspan.estimators import PCA, IncrementalPCA, KernelPCA, biplot, load, scree_plot
from fullspan.estimators.decomposition.dimension import log_evidence
from fullspan.estimators.decomposition.partitions import fit_partitions
from fullspan.estimators.decomposition.statistics import moments_of

SOLVERS = ("full", "covariance_eigh", "arpack", "randomized")
FITTED = (
    "components_", "explained_variance_", "explained_variance_ratio_", "singular_values_", "mean_",
    "noise_variance_",
)  # fmt: skip


@pytest.fixture(scope="module")
def X() -> np.ndarray:
    """Columns of falling variance, none of them centred."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((300, 12)) @ np.diag(1.5 ** -np.arange(12)) @ rng.standard_normal((12, 12)) + 3


def assert_same(pca: Any, expected: Any, rtol: float = 1e-9) -> None:
    for name in FITTED:
        value, wanted = getattr(pca, name), getattr(expected, name)
        atol = rtol * float(np.max(np.abs(wanted), initial=0.0))
        np.testing.assert_allclose(value, wanted, rtol=rtol, atol=atol, err_msg=name)
    assert pca.n_components_ == expected.n_components_


@pytest.mark.parametrize("solver", [*SOLVERS, "auto"])
@pytest.mark.parametrize("whiten", [False, True])
def test_each_solver_gives_scikit_learns_components(solver: str, whiten: bool, X: np.ndarray) -> None:
    options = {"n_components": 5, "svd_solver": solver, "whiten": whiten, "random_state": 0}
    pca, expected = PCA(**options), sklearn.decomposition.PCA(**options)
    scores, wanted = pca.fit_transform(X), expected.fit_transform(X)
    assert_same(pca, expected)
    np.testing.assert_allclose(scores, wanted, atol=1e-9)
    np.testing.assert_allclose(pca.transform(X), wanted, atol=1e-9)
    np.testing.assert_allclose(pca.inverse_transform(scores), expected.inverse_transform(wanted), atol=1e-9)
    np.testing.assert_allclose(pca.score_samples(X), expected.score_samples(X), rtol=1e-8)
    np.testing.assert_allclose(pca.get_covariance(), expected.get_covariance(), atol=1e-9)
    np.testing.assert_allclose(pca.get_covariance() @ pca.get_precision(), np.eye(12), atol=1e-8)
    small = PCA(**options).fit(X.astype(np.float32))
    assert {getattr(small, name).dtype for name in FITTED} == {np.dtype(np.float32)}
    # Vectors of singular values that are a third apart: float32's rounding times about ten.
    np.testing.assert_allclose(small.components_, pca.components_, atol=1e-5)


@pytest.mark.parametrize("n_components", [None, 0, 0.9, "mle"])
def test_the_number_of_components(n_components: Any, X: np.ndarray) -> None:
    for solver in ("full", "covariance_eigh"):
        options = {"n_components": n_components, "svd_solver": solver}
        assert_same(PCA(**options).fit(X), sklearn.decomposition.PCA(**options).fit(X))
    assert PCA(svd_solver="arpack").fit(X).n_components_ == 11
    with pytest.raises(ValueError, match="rank must be between 1 and 11"):
        log_evidence(np.ones(12), 12, 100)


@pytest.mark.parametrize("solver", ["auto", "arpack", "covariance_eigh"])
def test_sparse_rows_stay_sparse(solver: str) -> None:
    rows = sparse.random(200, 30, density=0.2, random_state=0, format="csr")
    for given in (rows, rows.tocsc()):
        pca = PCA(4, svd_solver=solver, random_state=0).fit(given)
        assert_same(pca, PCA(4, svd_solver="full").fit(rows.toarray()))
        np.testing.assert_allclose(pca.transform(given), pca.transform(rows.toarray()), atol=1e-12)
    with pytest.raises(TypeError, match="PCA only support sparse inputs"):
        PCA(4, svd_solver="full").fit(rows)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_weight_is_a_number_of_times(solver: str, X: np.ndarray) -> None:
    weight = np.random.default_rng(0).integers(0, 4, len(X))
    options = {"n_components": 3, "svd_solver": solver, "random_state": 0}
    expected = PCA(n_components=3, svd_solver="full").fit(np.repeat(X, weight, axis=0))
    weighted = PCA(**options).fit(X, sample_weight=weight)
    scores = PCA(**options).fit_transform(X, sample_weight=weight)
    np.testing.assert_allclose(scores, expected.transform(X), atol=1e-9)
    for name in ("components_", "explained_variance_", "singular_values_", "mean_", "noise_variance_"):
        np.testing.assert_allclose(getattr(weighted, name), getattr(expected, name), rtol=1e-9, err_msg=name)
    if solver in ("arpack", "covariance_eigh"):
        assert_same(PCA(**options).fit(sparse.csr_matrix(X), sample_weight=weight), weighted)
    with pytest.raises(ValueError, match=r"sample_weight must sum to more than 1, got 0\.5"):
        PCA().fit(X, sample_weight=np.full(len(X), 0.5 / len(X)))
    with pytest.raises(ValueError, match="Negative values in data passed to `sample_weight`"):
        PCA().fit(X, sample_weight=-np.ones(len(X)))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_data_far_from_zero_keep_their_digits(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    # Whole numbers of moderate size, so that adding the offset rounds nothing.
    near = rng.integers(-40, 40, (5000, 30)).astype(dtype)
    offset = dtype(2**17 if dtype == np.float32 else 2**40)
    far = PCA(3).fit(near + offset)
    assert far._fit_svd_solver == "covariance_eigh"
    expected = PCA(3, svd_solver="full").fit(near.astype(np.float64))
    # Products of float32 rows are taken in float32, in blocks whose sums are of float64.
    rtol = 1e-5 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(far.explained_variance_, expected.explained_variance_, rtol=rtol)


def test_moments_add_up(X: np.ndarray) -> None:
    weight = np.random.default_rng(0).random(len(X))
    whole, parts = moments_of(X, weight), moments_of(X[:1], weight[:1])
    for part in (slice(1, 50), slice(50, 300)):
        parts = parts + moments_of(np.asfortranarray(X[part]), weight[part])
    parts = parts + moments_of(X[:5], np.zeros(5))
    np.testing.assert_allclose(parts.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(parts.products, whole.products, atol=1e-12 * np.abs(whole.products).max())
    np.testing.assert_allclose(whole.products, np.cov(X.T, aweights=weight, ddof=0) * weight.sum(), rtol=1e-9)


def test_parts_in_processes_give_the_same(X: np.ndarray) -> None:
    weight = np.random.default_rng(0).integers(1, 4, len(X))
    expected = PCA(4, svd_solver="covariance_eigh").fit(X, sample_weight=weight)
    with ProcessPartitions([(X[:10], weight[:10]), (X[10:], weight[10:])]) as two:
        parted = fit_partitions(PCA(4), two)
    assert_same(parted, expected)
    assert parted.n_samples_ == weight.sum()
    np.testing.assert_allclose(parted.transform(X), expected.transform(X), atol=1e-9)
    with LocalPartitions([X, X[:, :3]]) as ragged, pytest.raises(DataError, match=r"\[3, 12\]"):
        fit_partitions(PCA(), ragged)
    with LocalPartitions([X]) as one, pytest.raises(ConfigError, match="arpack"):
        fit_partitions(PCA(svd_solver="arpack"), one)


@pytest.mark.parametrize("n_components", [None, 3])
def test_batches_give_scikit_learns_components(n_components: int | None, X: np.ndarray) -> None:
    options: dict[str, Any] = {"n_components": n_components, "batch_size": 70, "whiten": True}
    pca, expected = IncrementalPCA(**options), sklearn.decomposition.IncrementalPCA(**options)
    for rows in (X, sparse.csr_matrix(X)):
        assert_same(pca.fit(rows), expected.fit(X))
        np.testing.assert_allclose(pca.var_, expected.var_, rtol=1e-10)
        np.testing.assert_allclose(pca.transform(rows), expected.transform(X), atol=1e-8)
    by_hand = IncrementalPCA(n_components, whiten=True)
    for start in range(0, len(X), 70):
        by_hand.partial_fit(X[start : start + 70])
    assert_same(by_hand, pca)
    if n_components is None:
        assert_same(IncrementalPCA(batch_size=70).fit(X), PCA(svd_solver="full").fit(X), 1e-8)


def test_wrong_batches_are_refused(X: np.ndarray) -> None:
    with pytest.raises(ValueError, match="n_components=13 invalid for n_features=12"):
        IncrementalPCA(13).fit(X)
    with pytest.raises(ValueError, match="must be less or equal to the batch number of samples 5"):
        IncrementalPCA(6).partial_fit(X[:5])
    pca = IncrementalPCA(3).partial_fit(X)
    with pytest.raises(ValueError, match="X has 11 features"):
        pca.partial_fit(X[:, :11])
    with pytest.raises(ValueError, match="has changed from 3 to 4"):
        pca.set_params(n_components=4).partial_fit(X)
    with pytest.raises(TypeError, match="does not support sparse input"):
        pca.partial_fit(sparse.csr_matrix(X))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"kernel": "rbf", "gamma": 0.05, "n_components": 4, "fit_inverse_transform": True, "alpha": 0.1},
        {"kernel": "poly", "degree": 2, "n_components": 4, "eigen_solver": "arpack"},
        {
            "kernel": "sigmoid",
            "gamma": 1e-3,
            "n_components": 3,
            "eigen_solver": "randomized",
            "random_state": 0,
        },
        {"kernel": "cosine", "n_components": 3, "remove_zero_eig": True},
        {"kernel": lambda a, b, c: float(a @ b) + c, "kernel_params": {"c": 2.0}, "n_components": 2},
    ],
    ids=lambda options: str(options.get("kernel", "linear"))[:9],
)
def test_kernels_give_scikit_learns_components(options: dict[str, Any], X: np.ndarray) -> None:
    X, new = X[:210], X[210:]
    options = {**options, "random_state": 0}
    pca, expected = KernelPCA(**options), sklearn.decomposition.KernelPCA(**options)
    scores, wanted = pca.fit_transform(X), expected.fit_transform(X)
    np.testing.assert_allclose(pca.eigenvalues_, expected.eigenvalues_, rtol=1e-8)
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(scores, wanted, atol=1e-7 * scale)
    np.testing.assert_allclose(pca.transform(new), expected.transform(new), atol=1e-7 * scale)
    if options.get("fit_inverse_transform"):
        back = expected.inverse_transform(wanted)
        np.testing.assert_allclose(pca.inverse_transform(scores), back, rtol=1e-6)
    elif "eigen_solver" in options:
        found = KernelPCA(**options).fit_transform(sparse.csr_matrix(X))
        np.testing.assert_allclose(found, wanted, atol=1e-7 * scale)


def test_a_kernel_that_is_given_and_what_is_none(X: np.ndarray) -> None:
    circles, _ = make_circles(100, factor=0.3, noise=0.1, random_state=0)
    gram = np.exp(-((circles[:, None] - circles) ** 2).sum(-1))
    given = KernelPCA(2, kernel="precomputed").fit(gram)
    expected = KernelPCA(2, kernel="rbf", gamma=1.0).fit(circles)
    np.testing.assert_allclose(given.transform(gram[:5]), expected.transform(circles[:5]), atol=1e-10)
    with pytest.raises(ValueError, match="significant negative eigenvalues"):
        KernelPCA(kernel="precomputed").fit([[1.0, 5.0, 0.0], [5.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    with pytest.raises(ValueError, match="Cannot fit_inverse_transform with a precomputed kernel"):
        KernelPCA(kernel="precomputed", fit_inverse_transform=True).fit(gram)
    with pytest.raises(NotImplementedError, match="sparse"):
        KernelPCA(fit_inverse_transform=True).fit(sparse.csr_matrix(X))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_components": 13, "svd_solver": "full"}, "n_components=13 must be between 0 and .*=12"),
        ({"n_components": 12, "svd_solver": "arpack"}, "must be strictly less than .*=12"),
        ({"n_components": 0, "svd_solver": "randomized"}, "n_components=0 must be between 1 and .*=12"),
        ({"n_components": "mle", "svd_solver": "randomized"}, "n_components='mle' cannot be a string"),
        ({"svd_solver": "qr"}, "'svd_solver' parameter"),
        ({"n_components": -1}, "'n_components' parameter"),
    ],
)
def test_contradictions_are_refused_by_name(options: dict[str, Any], message: str, X: np.ndarray) -> None:
    with pytest.raises(ValueError, match=message):
        PCA(**options).fit(X)


def test_wrong_data_are_refused(X: np.ndarray) -> None:
    for solver in ("covariance_eigh", "full"):
        for wrong in (np.nan, np.inf):
            holes = X.copy()
            holes[5, 3] = wrong
            with pytest.raises(ValueError, match=r"Input X contains (NaN|infinity)"):
                PCA(svd_solver=solver).fit(holes)
    with pytest.raises(ValueError, match="X has 3 features"):
        PCA().fit(X).transform(X[:, :3])
    with pytest.raises(ValueError, match="n_samples >= n_features"):
        PCA("mle", svd_solver="full").fit(X[:5])
    with pytest.warns(UserWarning, match="X has no variance"):
        PCA().fit(np.ones((20, 2)))


def test_pictures_show_what_was_found(X: np.ndarray, tmp_path: Any) -> None:
    iris = load_iris(as_frame=True)
    pca = PCA(3).fit(iris.data)
    bars = scree_plot(pca)
    heights = [bar.get_height() for bar in bars.patches]
    np.testing.assert_allclose(heights, pca.explained_variance_ratio_)
    np.testing.assert_allclose(bars.lines[0].get_ydata(), np.cumsum(heights))
    ax = biplot(pca, iris.data, iris.target, components=(1, 2))
    points = np.concatenate([np.asarray(dots.get_offsets()) for dots in ax.collections])
    np.testing.assert_allclose(points.std(axis=0, ddof=1), 1.0)
    assert {text.get_text() for text in ax.texts} >= set(iris.data.columns)
    with pytest.raises(ValueError, match="two of 0 to 2"):
        biplot(pca, iris.data, components=(0, 3))
    pca.save(tmp_path / "pca")
    assert load(tmp_path / "pca").get_feature_names_out().tolist() == ["pca0", "pca1", "pca2"]
