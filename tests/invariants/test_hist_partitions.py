"""Boosting over parts of the data, also in other processes, gives the in-memory fit bit for bit."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from fullspan.core.errors import ConfigError
from fullspan.core.partitions import LocalPartitions, ProcessPartitions
from fullspan.estimators.binning import Binner
from fullspan.estimators.boosting.hist import GrowConfig, HistGrower, TreeArrays
from fullspan.estimators.boosting.hist_partitions import HistPart, boost, fit_binner

CATEGORICAL = np.arange(16) == 3
CONFIGS = {
    "loss-guided": GrowConfig(max_leaves=15, max_depth=0, grow_policy="lossguide", colsample_bynode=0.5),
    "constrained": GrowConfig(max_depth=4, monotone=(1,) + (0,) * 15, interactions=((0, 1, 2, 3), (4, 5, 6))),
}


def make_data() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(5001, 16)).astype(np.float32)
    X[rng.random(X.shape) < 0.1] = np.nan
    X[:, 3] = rng.integers(0, 9, len(X))
    y = (np.nan_to_num(X[:, 0]) + (X[:, 3] % 2) + rng.normal(size=len(X)) > 0.5).astype(np.float32)
    return X, y, rng.exponential(size=len(X)).astype(np.float32)


def in_memory(config: GrowConfig, objective: str, n_rounds: int) -> list[TreeArrays]:
    X, y, weight = make_data()
    binner = Binner.fit(X, sample_weight=weight, categorical=CATEGORICAL)
    margin = np.zeros(len(X), dtype=np.float32)
    with HistGrower(config, binner, X) as grower:
        step = grower.boost_logistic if objective == "logistic" else grower.boost_squared
        return [step(y, weight, margin, round_) for round_ in range(n_rounds)]


def parts_of(cuts: list[int]) -> list[Any]:
    X, y, weight = make_data()
    edges = [0, *cuts, len(X)]
    return [(X[a:b], y[a:b], weight[a:b], a) for a, b in itertools.pairwise(edges)]


def assert_same(trees: list[TreeArrays], expected: list[TreeArrays]) -> None:
    for tree, other in zip(trees, expected, strict=True):
        for name, value in vars(other).items():
            assert getattr(tree, name).tobytes() == value.tobytes(), name


@pytest.mark.parametrize("case", CONFIGS)
@pytest.mark.parametrize("objective", ["logistic", "squared"])
def test_parts_in_this_process(case: str, objective: Any) -> None:
    expected = in_memory(CONFIGS[case], objective, 3)
    assert len(expected[0].left) > 10
    with LocalPartitions(parts_of([7, 1900])) as parts:
        parts.start(HistPart)
        binner = fit_binner(parts, categorical=CATEGORICAL)
        assert_same(boost(parts, CONFIGS[case], binner, objective, 3), expected)


def test_parts_in_processes_of_their_own() -> None:
    config = CONFIGS["loss-guided"]
    with ProcessPartitions(parts_of([2500])) as parts:
        parts.start(HistPart)
        binner = fit_binner(parts, categorical=CATEGORICAL)
        trees = boost(parts, config, binner, "logistic", 2)
    assert_same(trees, in_memory(config, "logistic", 2))


def test_unknown_objective() -> None:
    with LocalPartitions(parts_of([])) as parts:
        parts.start(HistPart)
        with pytest.raises(ConfigError, match="objective must be one of logistic, squared"):
            boost(parts, CONFIGS["loss-guided"], fit_binner(parts), "cubic", 1)  # type: ignore[arg-type]
