"""Bins: what they hold, and the fast codes against a plain search."""

from __future__ import annotations

import numpy as np
import pytest

from fullspan.core.errors import ConfigError, DataError
from fullspan.core.threads import Crew
from fullspan.estimators import binning
from fullspan.estimators.binning import MISSING, UNKNOWN, Binner


def make_data(seed: int, n: int = 3000) -> tuple[np.ndarray, np.ndarray]:
    """Columns with many and few values, ties, neighbours in float32, missing ones, and two of categories."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 19)).astype(np.float32)
    X[:, 1] = rng.integers(0, 7, n)
    X[rng.random(n) < 0.3, 2] = np.nan
    X[:, 3] = np.nan
    X[:, 4] = np.where(rng.random(n) < 0.5, np.float32(1), np.nextafter(np.float32(1), np.float32(2)))
    X[:, 5] = rng.choice([0, 3, 4, 200], n)
    X[:, 6] = np.minimum(rng.geometric(0.01, n), 400)
    X[rng.random(n) < 0.1, 5] = np.nan
    X[:, 7] = np.float32(3e38) * np.sign(X[:, 7])
    categorical = np.zeros(19, dtype=bool)
    categorical[[5, 6]] = True
    return X, categorical


def plain_codes(binner: Binner, X: np.ndarray, unknown: int) -> np.ndarray:
    codes = np.empty(X.T.shape, dtype=np.uint8)
    for f, column in enumerate(X.T):
        for i, x in enumerate(column.tolist()):
            if np.isnan(x):
                codes[f, i] = MISSING
            elif binner.is_categorical[f]:
                place = np.flatnonzero(binner.categories[f] == np.floor(x))
                codes[f, i] = place[0] if len(place) else unknown
            else:
                codes[f, i] = sum(cut < x for cut in binner.cuts[f].tolist())
    return codes


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_codes_are_those_of_a_plain_search(seed: int, dtype: type) -> None:
    X, categorical = make_data(seed, n=600)
    binner = Binner.fit(X, max_bins=100, categorical=categorical)
    other, _ = make_data(seed + 100, n=200)
    other[0] = [*(np.float32(cuts[-1]) if len(cuts) else 0 for cuts in binner.cuts)]
    other[1, [5, 6]] = -1, 3.5
    other[2, :4] = np.inf, -np.inf, 0, 0
    other = other.astype(dtype)
    np.testing.assert_array_equal(binner.transform(other), plain_codes(binner, other, MISSING))


def test_blocks_hold_the_same_codes_for_any_number_of_threads() -> None:
    X, categorical = make_data(0)
    binner = Binner.fit(X, categorical=categorical)
    expected = binner.transform(X)
    rare = (expected == MISSING) & ~np.isnan(X.T)
    assert rare[6].any() and not np.delete(rare, 6, axis=0).any()
    expected[rare] = UNKNOWN
    for n_threads in (1, 3):
        with Crew(n_threads) as crew:
            blocks = binner.blocks(X, 7, 5, crew)
        assert blocks.shape == (3, len(X) + 5, 16)
        found = [blocks[f // 7, : len(X), f % 7] for f in range(19)]
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("weighted", [False, True])
def test_bins_of_a_continuous_column_weigh_the_same(weighted: bool) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20_000, 1)).astype(np.float32)
    weight = rng.exponential(size=len(X)) if weighted else None
    codes = Binner.fit(X, max_bins=50, sample_weight=weight).transform(X)[0]
    share = np.bincount(codes, weight, minlength=50)
    assert len(share) == 50
    np.testing.assert_allclose(share / share.sum(), 1 / 50, atol=0.001)


def test_rows_without_weight_do_not_count() -> None:
    X = np.arange(10, dtype=np.float32)[:, None]
    weight = (X[:, 0] < 3).astype(float)
    assert Binner.fit(X, sample_weight=weight).cuts[0].tolist() == [0.5, 1.5]


def test_few_values_are_cut_halfway_and_none_is_missed_by_the_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binning, "SAMPLE_ROWS", 10)
    X = np.zeros((1000, 1), dtype=np.float32)
    X[:500] = 2
    X[777] = 5
    assert Binner.fit(X).cuts[0].tolist() == [1.0, 3.5]


def test_a_cut_between_neighbours_keeps_them_apart() -> None:
    low, high = np.float32(1), np.nextafter(np.float32(1), np.float32(2))
    X = np.array([[low], [high]])
    assert Binner.fit(X).transform(X).tolist() == [[0, 1]]


def test_the_most_frequent_categories_have_codes() -> None:
    X = np.repeat(np.arange(300), np.arange(300) + 1).astype(np.float32)[:, None]
    binner = Binner.fit(X, categorical=np.array([True]))
    assert binner.categories[0].tolist() == list(range(46, 300))
    assert binner.n_bins.tolist() == [254]


def test_saved_bins_are_the_same(tmp_path: object) -> None:
    from pathlib import Path

    from fullspan.estimators.saving import load

    X, categorical = make_data(1)
    binner = Binner.fit(X, categorical=categorical)
    file = Path(str(tmp_path)) / "bins"
    binner.save(file)
    np.testing.assert_array_equal(load(file).transform(X), binner.transform(X))


@pytest.mark.parametrize("max_bins", [1, 256])
def test_the_number_of_bins_is_checked(max_bins: int) -> None:
    with pytest.raises(ConfigError, match="max_bins must be between 2 and 255"):
        Binner.fit(np.zeros((3, 1)), max_bins=max_bins)


@pytest.mark.parametrize("bad", [np.inf, -np.inf])
def test_infinity_is_refused_by_column(bad: float) -> None:
    X = np.zeros((5, 4), dtype=np.float32)
    X[3, 2] = bad
    with pytest.raises(DataError, match="column 2 holds an infinite value"):
        Binner.fit(X)


def test_the_number_of_columns_is_checked() -> None:
    binner = Binner.fit(np.zeros((3, 2)))
    with pytest.raises(DataError, match="X has 3 columns, the bins are those of 2"):
        binner.transform(np.zeros((3, 3)))
