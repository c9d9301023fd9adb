"""Sampling draws what it says it draws, for any logits and any seed."""

from __future__ import annotations

import random
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from scipy import stats

from fullspan.decoding.options import Sampling
from fullspan.decoding.sampler import Sampler, row_generator
from fullspan.decoding.sampling import (
    Row,
    choose,
    distribution,
    draw,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    keep_typical,
    penalise_repetition,
)


@pytest.fixture
def random_seed() -> int:
    """A new seed in every run: what holds must hold for any."""
    return random.SystemRandom().randrange(2**31)


logits_lists = st.lists(st.floats(-30, 30, width=32, allow_subnormal=False), min_size=1, max_size=40)
probabilities = st.none() | st.floats(0.01, 1)


@st.composite
def any_options(draw) -> Sampling:
    return Sampling(
        temperature=draw(st.sampled_from([0.0, 1e-30, 0.3, 1.0, 2.5])),
        top_k=draw(st.none() | st.integers(1, 50)),
        top_p=draw(probabilities),
        min_p=draw(probabilities),
        typical_p=draw(probabilities),
        repetition_penalty=draw(st.sampled_from([1.0, 0.7, 1.4])),
        presence_penalty=draw(st.sampled_from([0.0, -1.0, 2.0])),
        frequency_penalty=draw(st.sampled_from([0.0, 0.5])),
    )


@given(logits_lists, st.integers(1, 50))
def test_top_k_keeps_the_k_largest_and_ties(values, k):
    least = sorted(values, reverse=True)[min(k, len(values)) - 1]
    kept = keep_top_k(np.float32(values), k)
    assert kept.tolist() == [i for i, value in enumerate(values) if value >= least]


@given(logits_lists, st.floats(0.01, 0.99))
def test_top_p_keeps_the_smallest_sufficient_set(values, p):
    chosen = set(keep_top_p(np.float32(values), p).tolist())
    exact = _softmax(np.array(values))
    # float32 sums of up to 40 terms are good to about 1e-5
    assert sum(exact[i] for i in chosen) >= p - 1e-5
    worst = max(chosen, key=lambda i: (-values[i], i))
    assert len(chosen) == 1 or sum(exact[i] for i in chosen - {worst}) < p + 1e-5
    # nothing dropped is more likely than what was kept, and of equals the lowest ids stay
    assert all((values[i], -i) < (values[worst], -worst) for i in set(range(len(values))) - chosen)


@given(logits_lists, st.floats(0, 1))
def test_min_p_keeps_what_is_likely_enough(values, p):
    chosen = set(keep_min_p(np.float32(values), p).tolist())
    ratios = np.exp(np.array(values) - max(values))
    assert {i for i, ratio in enumerate(ratios) if ratio > p * (1 + 1e-4)} <= chosen
    assert chosen <= {i for i, ratio in enumerate(ratios) if ratio >= p * (1 - 1e-4)}
    assert values.index(max(values)) in chosen


@given(logits_lists, st.floats(0.01, 0.99))
def test_typical_keeps_the_nearest_sufficient_set(values, p):
    chosen = set(keep_typical(np.float32(values), p).tolist())
    exact = _softmax(np.array(values))
    surprise = np.log(np.exp(np.array(values) - max(values)).sum()) - (np.array(values) - max(values))
    distance = np.abs(surprise - (exact * surprise).sum())
    assert sum(exact[i] for i in chosen) >= p - 1e-5
    farthest = max(distance[i] for i in chosen)
    # float32: distances of up to 60 nats are good to 1e-5
    assert all(distance[i] > farthest - 1e-4 for i in set(range(len(values))) - chosen)
    nearer = [i for i in chosen if distance[i] < farthest - 1e-4]
    assert sum(exact[i] for i in nearer) < p + 1e-5


@given(logits_lists, st.floats(0.1, 10), st.data())
def test_repetition_penalty_moves_only_seen_tokens(values, penalty, data):
    seen = np.array(data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values))))
    logits = np.float32(values)
    result = penalise_repetition(logits, np.flatnonzero(seen), penalty)
    assert np.array_equal(result[~seen], logits[~seen])
    assert (result[seen] <= logits[seen]).all() if penalty >= 1 else (result[seen] >= logits[seen]).all()


@given(logits_lists, any_options(), st.floats(0, 1, exclude_max=True), st.data())
def test_a_draw_is_from_the_distribution(values, options, uniform, data):
    logits, size = np.float32(values), len(values)
    allowed = np.array(data.draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    allowed[data.draw(st.integers(0, size - 1))] = True
    counts = np.int32(data.draw(st.lists(st.integers(0, 3), min_size=size, max_size=size)))
    bias = (np.array([size - 1]), np.float32([data.draw(st.sampled_from([-100.0, 3.0]))]))
    row = Row(bias=bias, seen=np.flatnonzero(counts), counts=counts, allowed=allowed)
    before = logits.copy()
    p = distribution(logits, options, row)
    assert np.array_equal(logits, before), "the logits must not be changed"
    assert p.shape == (size,) and (p >= 0).all() and p.sum() == pytest.approx(1, abs=1e-12)
    assert not p[~allowed].any()
    token = choose(logits, options, row, uniform)
    assert p[token] > 0
    assert token == draw(p, uniform)


def test_a_draw_never_takes_what_is_impossible():
    p = np.array([0.0, 1 / 3, 0.0, 2 / 3, 0.0])
    assert [draw(p, uniform) for uniform in (0.0, 1 / 3 - 1e-9, 1 / 3 + 1e-9, 1 - 2**-53)] == [1, 1, 3, 3]


@given(logits_lists)
def test_temperature_zero_takes_the_lowest_id_of_equals(values):
    sampler = Sampler(Sampling(), row_generator(0), prompt_ids=[], vocab_size=len(values))
    assert sampler.choose(np.float32(values)) == values.index(max(values))
    assert sampler.distribution(np.float32(values)).argmax() == values.index(max(values))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**63 - 1), any_options())
def test_a_row_draws_the_same_alone_and_in_a_batch(seed, options):
    """Rows that take turns, one of which leaves early, against each row by itself."""
    logits = np.random.default_rng(seed).standard_normal((8, 4, 50)).astype(np.float32)  # [step, row, V]

    def sampler(row: int) -> Sampler:
        return Sampler(options, row_generator(seed, row), prompt_ids=[row, row + 1], vocab_size=50)

    def step(sampler: Sampler, logits: Any) -> int:
        sampler.accept(token := sampler.choose(logits))
        return token

    samplers = [sampler(row) for row in range(4)]
    together = [
        [step(samplers[row], logits[at, row]) for row in range(4) if (at, row) < (3, 2) or row != 2]
        for at in range(8)
    ]
    for row in (0, 1, 3):
        alone = sampler(row)
        tokens = [step(alone, logits[at, row]) for at in range(8)]
        assert tokens == [each[row if len(each) == 4 or row < 2 else 2] for each in together]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), any_options(), st.integers(0, 6))
def test_distributions_along_a_path_equal_those_of_tokens_accepted_one_by_one(seed, options, length):
    numbers = np.random.default_rng(seed)
    logits = numbers.standard_normal((length + 1, 12)).astype(np.float32) * 3
    path = numbers.integers(0, 12, length).tolist()
    sampler = Sampler(options, row_generator(1), prompt_ids=[1, 2], vocab_size=12)
    sampler.accept(5)
    fork, before = sampler.fork(), sampler.distribution(logits[0])
    along = sampler.distributions(logits, path)
    assert np.array_equal(sampler.distribution(logits[0]), before), "the state must be as it was"
    for at in range(length + 1):
        assert np.array_equal(along[at], fork.distribution(logits[at]))
        if at < length:
            fork.accept(path[at])
    fork.rollback(length)
    assert np.array_equal(fork.distribution(logits[0]), before)


CASES = [
    Sampling(temperature=1.0),
    Sampling(temperature=0.6),
    Sampling(temperature=1.5, top_k=4),
    Sampling(temperature=1.0, top_p=0.8),
    Sampling(temperature=1.0, min_p=0.2),
    Sampling(temperature=1.0, typical_p=0.6),
    Sampling(temperature=1.2, presence_penalty=1.1, frequency_penalty=-0.4, logit_bias={3: 2.5, 4: -100}),
    Sampling(temperature=0.9, top_k=6, top_p=0.9, min_p=0.05, typical_p=0.95, repetition_penalty=1.3),
]


@pytest.mark.parametrize("options", CASES)
def test_frequencies_follow_the_processed_distribution(options, random_seed):
    numbers = np.random.default_rng(random_seed)
    logits = (numbers.standard_normal(10) * 1.5).astype(np.float32)
    said = [0, 7, 7]
    ids = np.array(list(options.logit_bias), dtype=int)
    bias = (ids, np.float32(list(options.logit_bias.values()))) if options.logit_bias else None
    sampler = Sampler(options, numbers, prompt_ids=[2, 7], vocab_size=10, bias=bias)
    for token in said:
        sampler.accept(token)
    expected = _by_hand(logits.astype(np.float64), options, prompt=[2, 7], said=said)
    assert sampler.distribution(logits) == pytest.approx(expected, abs=1e-6)  # float32 against float64
    draws = 2000
    counts = np.bincount([sampler.choose(logits) for _ in range(draws)], minlength=10)
    assert counts[expected == 0].sum() == 0
    # Cells that expect few draws are merged, so that the chi-square approximation holds in its tail.
    rare = draws * expected < 20
    observed = np.append(counts[~rare], counts[rare].sum())
    hoped = np.append(draws * expected[~rare], draws * expected[rare].sum())
    observed, hoped = observed[hoped > 0], hoped[hoped > 0]
    # A right sampler fails once in a million seeds; a wrong temperature or a lost filter always.
    assert len(hoped) == 1 or stats.chisquare(observed, hoped).pvalue > 1e-6, f"seed {random_seed}"


def _by_hand(logits: np.ndarray, options: Sampling, prompt: list[int], said: list[int]) -> np.ndarray:
    """The definition, token by token in float64."""
    for token in range(len(logits)):
        logits[token] += options.logit_bias.get(token, 0.0)
        if token in prompt + said:
            penalty = options.repetition_penalty
            logits[token] *= penalty if logits[token] < 0 else 1 / penalty
        n = said.count(token)
        logits[token] -= n * options.frequency_penalty + (n > 0) * options.presence_penalty
    p = _softmax(logits / options.temperature)
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
    if options.typical_p:
        surprise = -np.log(p, where=p > 0, out=np.zeros_like(p))
        distance = np.where(p > 0, np.abs(surprise - (p * surprise).sum()), np.inf)
        order = np.argsort(distance)
        enough = int(np.searchsorted(np.cumsum(p[order]), options.typical_p)) + 1
        p[order[enough:]] = 0
        p /= p.sum()
    return p


def _softmax(logits: np.ndarray) -> np.ndarray:
    p = np.exp(logits.astype(np.float64) - logits.max())
    return p / p.sum()
