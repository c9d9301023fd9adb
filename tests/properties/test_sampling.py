"""Sampling draws what it says it draws, for any logits and any seed."""

from __future__ import annotations

import random

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from scipy import stats

from fullspan.decoding.options import Sampling
from fullspan.decoding.sampling import (
    draw,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    penalise_repetition,
    process,
)


@pytest.fixture
def random_seed() -> int:
    """A new seed in every run: what holds must hold for any."""
    return random.SystemRandom().randrange(2**31)


logits_lists = st.lists(st.floats(-30, 30, width=32, allow_subnormal=False), min_size=1, max_size=40)


def kept(logits: torch.Tensor) -> set[int]:
    return set(torch.isfinite(logits).nonzero().flatten().tolist())


@given(logits_lists, st.integers(1, 50))
def test_top_k_keeps_the_k_largest_and_ties(values, k):
    logits = torch.tensor(values)
    least = sorted(values, reverse=True)[min(k, len(values)) - 1]
    result = keep_top_k(logits, k)
    assert kept(result) == {i for i, value in enumerate(values) if value >= least}
    assert all(result[i] == logits[i] for i in kept(result))


@given(logits_lists, st.floats(0.01, 0.99))
def test_top_p_keeps_the_smallest_sufficient_set(values, p):
    logits = torch.tensor(values)
    chosen = kept(keep_top_p(logits, p))
    probabilities = torch.tensor(values, dtype=torch.float64).softmax(0).numpy()
    # float32 sums of up to 40 terms are good to about 1e-5
    assert sum(probabilities[i] for i in chosen) >= p - 1e-5
    worst = max(chosen, key=lambda i: (-values[i], i))
    assert len(chosen) == 1 or sum(probabilities[i] for i in chosen - {worst}) < p + 1e-5
    # nothing dropped is more likely than what was kept, and of equals the lowest ids stay
    assert all((values[i], -i) < (values[worst], -worst) for i in set(range(len(values))) - chosen)


@given(logits_lists, st.floats(0, 1))
def test_min_p_keeps_what_is_likely_enough(values, p):
    logits = torch.tensor(values)
    chosen = kept(keep_min_p(logits, p))
    ratios = np.exp(np.array(values) - max(values))
    assert {i for i, ratio in enumerate(ratios) if ratio > p * (1 + 1e-4)} <= chosen
    assert chosen <= {i for i, ratio in enumerate(ratios) if ratio >= p * (1 - 1e-4)}
    assert values.index(max(values)) in chosen


@given(logits_lists, st.floats(0.1, 10), st.data())
def test_repetition_penalty_moves_only_seen_tokens(values, penalty, data):
    seen = torch.tensor(data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values))))
    logits = torch.tensor(values)
    result = penalise_repetition(logits, seen, penalty)
    assert torch.equal(result[~seen], logits[~seen])
    if penalty >= 1:
        assert (result[seen] <= logits[seen]).all()
    else:
        assert (result[seen] >= logits[seen]).all()


@given(logits_lists)
def test_temperature_zero_takes_the_lowest_id_of_equals(values):
    logits = torch.tensor([values])
    assert draw(logits, Sampling(), []).item() == values.index(max(values))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**63 - 1))
def test_a_row_draws_the_same_alone_and_in_a_batch(seed):
    options = Sampling(temperature=1.0)
    logits = torch.randn(4, 50, generator=torch.Generator().manual_seed(seed))
    together = draw(logits, options, [torch.Generator().manual_seed(seed - i) for i in range(4)])
    alone = [draw(logits[i : i + 1], options, [torch.Generator().manual_seed(seed - i)]) for i in range(4)]
    assert together.tolist() == [row.item() for row in alone]


@pytest.mark.parametrize(
    "options",
    [
        Sampling(temperature=1.0),
        Sampling(temperature=0.6),
        Sampling(temperature=1.5, top_k=4),
        Sampling(temperature=1.0, top_p=0.8),
        Sampling(temperature=1.0, min_p=0.2),
        Sampling(temperature=0.9, top_k=6, top_p=0.9, min_p=0.05, repetition_penalty=1.3),
    ],
)
def test_frequencies_follow_the_processed_distribution(options, random_seed):
    generator = torch.Generator().manual_seed(random_seed)
    logits = torch.randn(10, generator=generator) * 1.5
    seen = torch.arange(10) % 3 == 0
    processed = process(logits, options, seen)
    expected = _by_hand(logits.double().numpy(), options, seen.numpy())
    draws = 4000
    rows = draw(processed.expand(draws, -1), options, [generator] * draws)
    counts = np.bincount(rows.numpy(), minlength=10)
    assert counts[expected == 0].sum() == 0
    # Cells that expect few draws are merged, so that the chi-square approximation holds in its tail.
    rare = draws * expected < 20
    observed = np.append(counts[~rare], counts[rare].sum())
    hoped = np.append(draws * expected[~rare], draws * expected[rare].sum())
    observed, hoped = observed[hoped > 0], hoped[hoped > 0]
    # A right sampler fails once in a million seeds; a wrong temperature or a lost filter always.
    assert len(hoped) == 1 or stats.chisquare(observed, hoped).pvalue > 1e-6, f"seed {random_seed}"


def _by_hand(logits: np.ndarray, options: Sampling, seen: np.ndarray) -> np.ndarray:
    """The definition, token by token in float64."""
    penalty = options.repetition_penalty
    logits = np.where(seen, np.where(logits < 0, logits * penalty, logits / penalty), logits)
    p = np.exp(logits / options.temperature)
    p /= p.sum()
    if options.top_k:
        p[np.argsort(-p)[options.top_k :]] = 0
        p /= p.sum()
    if options.top_p:
        order = np.argsort(-p)
        enough = int(np.searchsorted(np.cumsum(p[order]), options.top_p)) + 1
        p[order[enough:]] = 0
        p /= p.sum()
    if options.min_p:
        p[p < options.min_p * p.max()] = 0
        p /= p.sum()
    return p
