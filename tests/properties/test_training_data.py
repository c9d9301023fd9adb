"""The order of training data: complete, shuffled, repeatable, and found from an index alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullspan.text.packing import Encoded
from fullspan.training.config import TrainConfig
from fullspan.training.data import Batches, read_files, total_steps


def _numbered(lengths: list[int]) -> list[Encoded]:
    """Example i is `length` times the token i."""
    return [Encoded([i] * length, [True] * length) for i, length in enumerate(lengths)]


def _epoch(batches: Batches, epoch: int) -> list[list[int]]:
    start = epoch * batches.per_epoch
    return [
        [int(i) for i in batch.ids[batch.segments >= 0]]
        for batch in (batches[start + place] for place in range(batches.per_epoch))
    ]


@given(
    lengths=st.lists(st.integers(2, 20), min_size=1, max_size=40),
    layout=st.sampled_from([{"tokens_per_batch": 20}, {"tokens_per_batch": 33}, {"batch_size": 3}]),
    seed=st.integers(0, 2**32),
)
def test_every_epoch_holds_every_example_once(lengths: list[int], layout: dict[str, Any], seed: int) -> None:
    batches = Batches(_numbered(lengths), seed=seed, **layout)
    expected = sorted(i for i, length in enumerate(lengths) for _ in range(length))
    for epoch in (0, 1, 2):
        assert sorted(i for batch in _epoch(batches, epoch) for i in batch) == expected


@given(st.integers(0, 2**32))
def test_a_batch_is_found_from_its_index_alone(seed: int) -> None:
    """What resuming rests on: no state but the index."""
    examples = _numbered([3, 5, 2, 8, 4, 4, 6, 7])
    in_order = Batches(examples, seed=seed, tokens_per_batch=10)
    n = 3 * in_order.per_epoch
    straight = [in_order[i].ids.tolist() for i in range(n)]
    backwards = Batches(examples, seed=seed, tokens_per_batch=10)
    assert straight == [backwards[i].ids.tolist() for i in reversed(range(n))][::-1]


@pytest.mark.parametrize("layout", [{"tokens_per_batch": 10}, {"batch_size": 2}])
def test_epochs_and_seeds_differ_in_order(layout: dict[str, Any]) -> None:
    examples = _numbered([5] * 40)  # equal lengths: packing too may join any two
    batches = Batches(examples, seed=0, **layout)
    assert _epoch(batches, 0) != _epoch(batches, 1)
    assert _epoch(batches, 0) != _epoch(Batches(examples, seed=1, **layout), 0)
    pairs = [{tuple(sorted(set(batch))) for batch in _epoch(batches, epoch)} for epoch in (0, 1)]
    assert pairs[0] != pairs[1]  # who shares a batch changes, not only the order of batches


def test_packed_batches_are_no_larger_than_asked_for() -> None:
    rng = np.random.default_rng(0)
    examples = _numbered(rng.integers(2, 60, 200).tolist())
    batches = Batches(examples, seed=0, tokens_per_batch=64)
    sizes = [batches[i].ids.size for i in range(batches.per_epoch)]
    assert max(sizes) <= 64
    assert sum(sizes) / (64 * len(sizes)) > 0.95  # little is wasted


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"epochs": 1.0}, (3, 5)),  # the last step has one batch
        ({"epochs": 2.0}, (5, 10)),  # steps run over the end of an epoch
        ({"epochs": 0.5}, (1, 2)),
        ({"max_steps": 4}, (4, 8)),
        ({}, (3, 5)),
    ],
)
def test_number_of_steps(options: dict[str, Any], expected: tuple[int, int]) -> None:
    config = TrainConfig(model="m", data=Path("d.jsonl"), accumulation=2, **options)
    assert total_steps(config, batches_per_epoch=5) == expected


def test_held_out_examples_are_set_apart_the_same_way_for_a_seed(tiny_examples: Path) -> None:
    def split(seed: int, fraction: float) -> tuple[list[str], list[str]]:
        config = TrainConfig(model="m", data=tiny_examples, seed=seed, eval_fraction=fraction)
        train, held_out = read_files(config)
        return [e.messages[0].content for e in train], [e.messages[0].content for e in held_out]

    train, held_out = split(0, 0.25)
    assert (len(train), len(held_out)) == (30, 10)
    assert not set(train) & set(held_out)
    assert split(0, 0.25) == (train, held_out)
    assert split(1, 0.25) != (train, held_out)
    assert len(split(0, 0.001)[1]) == 1  # a share asked for is never empty
    assert len(split(0, 0.999)[0]) == 1
