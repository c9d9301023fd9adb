"""Packing: every example once, no bin too full, and batches that mean the same packed and padded."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fullspan.core.errors import DataError
from fullspan.text.packing import IGNORED, Batch, Encoded, fit_lengths, pack, packed_batch, padded_batch

LENGTHS = st.lists(st.integers(1, 50), max_size=80)
EXAMPLE = st.lists(st.tuples(st.integers(0, 999), st.booleans()), min_size=1, max_size=12).map(
    lambda pairs: Encoded([token for token, _ in pairs], [own for _, own in pairs])
)


@given(LENGTHS, st.integers(50, 120))
def test_every_example_once_and_no_bin_over_capacity(lengths: list[int], capacity: int) -> None:
    bins = pack(lengths, capacity)
    assert sorted(index for chosen in bins for index in chosen) == list(range(len(lengths)))
    assert all(0 < sum(lengths[index] for index in chosen) <= capacity for chosen in bins)
    assert bins == pack(np.array(lengths, dtype=np.int32), capacity), "the result depends on lengths alone"


@given(LENGTHS, st.integers(50, 120))
def test_a_bin_is_opened_only_when_no_other_has_room(lengths: list[int], capacity: int) -> None:
    bins = pack(lengths, capacity)
    rooms = [capacity - sum(lengths[index] for index in chosen) for chosen in bins]
    for later, chosen in enumerate(bins):
        assert all(room < lengths[chosen[0]] for room in rooms[:later])


def plain_best_fit(lengths: list[int], capacity: int) -> int:
    """How many bins best-fit decreasing needs, in its plainest form."""
    rooms: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [index for index, room in enumerate(rooms) if room >= length]
        if fitting:
            rooms[min(fitting, key=lambda index: rooms[index])] -= length
        else:
            rooms.append(capacity - length)
    return len(rooms)


@given(LENGTHS, st.integers(50, 120))
def test_as_many_bins_as_the_plain_algorithm(lengths: list[int], capacity: int) -> None:
    assert len(pack(lengths, capacity)) == plain_best_fit(lengths, capacity)


def test_a_hundred_thousand_examples_pack_fast_and_tight() -> None:
    lengths = np.clip(np.random.default_rng(0).lognormal(4.5, 0.8, 100_000), 1, 2048).astype(int)
    start = time.perf_counter()
    bins = pack(lengths, 2048)
    # About 0.15 s on an idle core; a quadratic search would take minutes.
    assert time.perf_counter() - start < 5
    assert lengths.sum() / (2048 * len(bins)) > 0.99


def pairs_to_learn(batch: Batch) -> list[tuple[int, int, tuple[int, ...], int]]:
    """For each label: the position, the tokens of the same segment read so far, and the label."""
    found = []
    for row in range(batch.ids.shape[0]):
        for t in np.flatnonzero(batch.labels[row] != IGNORED):
            seen = (batch.segments[row] == batch.segments[row, t]) & (np.arange(batch.ids.shape[1]) <= t)
            context = tuple(batch.ids[row, seen].tolist())
            found.append((int(batch.positions[row, t]), len(context), context, int(batch.labels[row, t])))
    return sorted(found)


@given(st.lists(EXAMPLE, min_size=1, max_size=6))
@settings(deadline=None)
def test_packed_and_padded_batches_teach_the_same(examples: list[Encoded]) -> None:
    packed, padded = packed_batch(examples), padded_batch(examples, pad_id=7)
    expected = sorted(
        (t - 1, t, tuple(example.ids[:t]), example.ids[t])
        for example in examples
        for t in range(1, len(example.ids))
        if example.supervised[t]
    )
    assert pairs_to_learn(packed) == pairs_to_learn(padded) == expected
    assert packed.n_supervised == padded.n_supervised == len(expected)
    assert packed.ids.shape == (1, sum(len(example.ids) for example in examples))
    assert padded.ids.shape == (len(examples), max(len(example.ids) for example in examples))
    assert (padded.labels[padded.segments == -1] == IGNORED).all()


def test_a_batch_by_hand() -> None:
    batch = packed_batch(
        [Encoded([5, 6, 7], [True, False, True]), Encoded([8, 9], [True, True])], pad_id=3, length=7
    )
    assert batch.ids.tolist() == [[5, 6, 7, 8, 9, 3, 3]]
    assert batch.positions.tolist() == [[0, 1, 2, 0, 1, 0, 0]]
    assert batch.segments.tolist() == [[0, 0, 0, 1, 1, -1, -1]]
    # 5 and 8 begin their examples, so nothing predicts them; 7 is the last one and predicts nothing.
    assert batch.labels.tolist() == [[-100, 7, -100, 9, -100, -100, -100]]
    assert batch.n_supervised == 2
    assert {array.dtype for array in (batch.ids, batch.positions, batch.segments, batch.labels)} == {
        np.dtype(np.int64)
    }


def test_padding_with_the_end_token_hides_no_label() -> None:
    """Where pad and end of text are the same token, the real end is still learned."""
    batch = padded_batch([Encoded([1, 2], [False, True]), Encoded([1, 4, 5], [False, True, True])], pad_id=2)
    assert batch.labels.tolist() == [[2, -100, -100], [4, 5, -100]]


LONG = [Encoded([1, 2, 3, 4], [False, False, True, True]), Encoded([1, 2], [False, True])]


def test_long_examples_are_refused_cut_or_left_out() -> None:
    with pytest.raises(DataError, match="example 1 has 4 tokens, the limit is 3"):
        fit_lengths(LONG, 3)
    cut = fit_lengths(LONG, 3, "truncate")
    assert cut.examples == [Encoded([1, 2, 3], [False, False, True]), LONG[1]]
    assert (cut.truncated, cut.skipped) == ([0], [])
    skipped = fit_lengths(LONG, 3, "skip")
    assert skipped.examples == [LONG[1]] and skipped.skipped == [0]


def test_a_cut_that_leaves_nothing_to_learn_leaves_the_example_out() -> None:
    cut = fit_lengths(LONG, 2, "truncate")
    assert cut.examples == [LONG[1]] and (cut.truncated, cut.skipped) == ([], [0])
    with pytest.raises(DataError, match="none of 1 examples fits 2 tokens"):
        fit_lengths(LONG[:1], 2, "skip")


def test_what_cannot_be_packed_is_named() -> None:
    with pytest.raises(DataError, match="example 2 has 11 tokens, a bin holds 10"):
        pack([3, 11, 2], 10)
    with pytest.raises(DataError, match="example 3 has no tokens"):
        pack([3, 1, 0], 10)
    with pytest.raises(DataError, match="at least one example"):
        packed_batch([])
    with pytest.raises(DataError, match=r"ids of shape \(2,\) and a mask of shape \(1,\)"):
        padded_batch([Encoded([1, 2], [True])])
    with pytest.raises(DataError, match="5 tokens do not fit a row of 4"):
        packed_batch([Encoded([1] * 5, [True] * 5)], length=4)
    assert pack([], 10) == []
