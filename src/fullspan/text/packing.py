"""Examples of differing lengths into dense batches, without a token of padding where it can be had.

Packing joins several examples in one row. They stay strangers: each has a segment of its own that
attention must not leave, and its positions restart at 0. `padded_batch` is the plain layout, one
example a row; both give the same losses.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fullspan.core.errors import DataError

IGNORED = -100  # the label of a position without a loss
PADDING_SEGMENT = -1


class Encoded(NamedTuple):
    """One tokenised example.

    Attributes
    ----------
    ids : sequence of int
        Token ids, [T].
    supervised : sequence of bool
        Whether the model should learn to produce the token at this place, [T].
    """

    ids: Sequence[int] | NDArray[np.int64]
    supervised: Sequence[bool] | NDArray[np.bool_]


@dataclass(frozen=True)
class Batch:
    """Arrays of one training batch, all int64 [B, T]; a packed batch has B = 1.

    Attributes
    ----------
    ids
        Token ids.
    positions
        Place of a token within its example, from 0.
    segments
        Which example of the row a token belongs to, from 0; -1 where there is padding.
    labels
        *Already shifted*: `labels[b, t]` is the token that the model should produce after reading
        position t, that is `ids[b, t + 1]` when it belongs to the same example and is supervised,
        and -100 everywhere else. The loss compares `logits[b, t]` with `labels[b, t]`.
    n_supervised
        How many labels are not -100: the loss is divided by their number over the whole step.
    """

    ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    segments: NDArray[np.int64]
    labels: NDArray[np.int64]
    n_supervised: int


@dataclass(frozen=True)
class Fitted:
    """Examples that fit the context, and the indices of those that were changed or left out."""

    examples: list[Encoded]
    truncated: list[int]
    skipped: list[int]


def fit_lengths(
    examples: Sequence[Encoded],
    max_length: int,
    long_examples: Literal["error", "truncate", "skip"] = "error",
) -> Fitted:
    """Deal with examples longer than `max_length` tokens.

    An example whose supervised tokens are all cut away by truncation teaches nothing and is skipped.

    Raises
    ------
    DataError
        If an example is too long and `long_examples` is "error", or if nothing is left.

    Examples
    --------
    >>> long = Encoded([5, 6, 7, 8], [False, True, True, True])
    >>> fit_lengths([long], 3, "truncate").examples
    [Encoded(ids=[5, 6, 7], supervised=[False, True, True])]
    """
    too_long = [index for index, example in enumerate(examples) if len(example.ids) > max_length]
    if too_long and long_examples == "error":
        index = too_long[0]
        others = f", and {len(too_long) - 1} more are too long" if len(too_long) > 1 else ""
        raise DataError(
            f"example {index + 1} has {len(examples[index].ids)} tokens, the limit is {max_length}{others}",
            "raise the maximal length, or let long examples be truncated or skipped",
        )
    kept: list[Encoded] = []
    truncated: list[int] = []
    skipped: list[int] = []
    for index, example in enumerate(examples):
        if len(example.ids) <= max_length:
            kept.append(example)
        elif long_examples == "truncate" and any(example.supervised[1:max_length]):
            kept.append(Encoded(example.ids[:max_length], example.supervised[:max_length]))
            truncated.append(index)
        else:
            skipped.append(index)
    if not kept:
        raise DataError(
            f"none of {len(examples)} examples fits {max_length} tokens", "raise the maximal length"
        )
    return Fitted(kept, truncated, skipped)


def pack(lengths: ArrayLike, capacity: int) -> list[list[int]]:
    """Distribute examples over as few bins of `capacity` tokens as best-fit decreasing finds.

    Longest first, each example goes into the fullest bin that still takes it. The result depends on
    `lengths` alone. For many examples, at most 11/9 of the optimal number of bins are used
    (Johnson, Demers, Ullman, Garey and Graham, 1974).

    Parameters
    ----------
    lengths
        Number of tokens of each example, [N].
    capacity
        Number of tokens in a bin.

    Returns
    -------
    list of list of int
        For each bin the indices of its examples; each index occurs once.

    Raises
    ------
    DataError
        If an example is empty or longer than `capacity`.

    Examples
    --------
    >>> pack([4, 7, 3, 6], capacity=10)
    [[1, 2], [3, 0]]
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    if sizes.size == 0:
        return []
    if sizes.min() < 1:
        raise DataError(f"example {int(sizes.argmin()) + 1} has no tokens", "leave empty examples out")
    if sizes.max() > capacity:
        raise DataError(
            f"example {int(sizes.argmax()) + 1} has {int(sizes.max())} tokens, a bin holds {capacity}",
            "raise the capacity, or truncate long examples first",
        )
    bins: list[list[int]] = []
    by_room: list[list[int]] = [[] for _ in range(capacity + 1)]  # bins with exactly this much room
    rooms: list[int] = []  # rooms that some bin has, ascending
    order = np.argsort(-sizes, kind="stable")
    for index, size in zip(order.tolist(), sizes[order].tolist(), strict=True):
        at = bisect.bisect_left(rooms, size)
        if at < len(rooms):
            room = rooms[at]
            chosen = by_room[room].pop()
            if not by_room[room]:
                del rooms[at]
            bins[chosen].append(index)
        else:
            room, chosen = capacity, len(bins)
            bins.append([index])
        left = room - size
        if left:
            if not by_room[left]:
                bisect.insort(rooms, left)
            by_room[left].append(chosen)
    return bins


def packed_batch(examples: Sequence[Encoded], *, pad_id: int = 0, length: int | None = None) -> Batch:
    """Join examples into one row [1, T], one segment each.

    Parameters
    ----------
    examples
        The examples of one bin of `pack`.
    pad_id, length
        With `length`, the row is padded to so many tokens (a constant shape for compiled models).

    Raises
    ------
    DataError
        If there is no example, one is empty, its mask has another length, or they exceed `length`.

    Examples
    --------
    >>> batch = packed_batch([Encoded([1, 2, 3], [0, 1, 1]), Encoded([4, 5], [1, 1])])
    >>> batch.ids.tolist(), batch.labels.tolist()
    ([[1, 2, 3, 4, 5]], [[2, 3, -100, 5, -100]])
    >>> batch.segments.tolist(), batch.positions.tolist()
    ([[0, 0, 0, 1, 1]], [[0, 1, 2, 0, 1]])
    """
    total = sum(len(example.ids) for example in examples)
    if length is not None and total > length:
        raise DataError(f"{total} tokens do not fit a row of {length}")
    batch = _padding(1, total if length is None else length, pad_id)
    start = 0
    for segment, example in enumerate(examples):
        start = _place(batch, 0, start, segment, example)
    return _counted(batch, examples)


def padded_batch(examples: Sequence[Encoded], *, pad_id: int = 0) -> Batch:
    """One example a row, padded on the right to the longest, [B, T].

    Raises
    ------
    DataError
        If there is no example, one is empty, or its mask has another length.

    Examples
    --------
    >>> batch = padded_batch([Encoded([1, 2, 3], [0, 1, 1]), Encoded([4, 5], [1, 1])])
    >>> batch.segments.tolist()
    [[0, 0, 0], [0, 0, -1]]
    """
    batch = _padding(len(examples), max((len(example.ids) for example in examples), default=0), pad_id)
    for row, example in enumerate(examples):
        _place(batch, row, 0, 0, example)
    return _counted(batch, examples)


def _padding(n_rows: int, length: int, pad_id: int) -> Batch:
    shape = (n_rows, length)
    return Batch(
        ids=np.full(shape, pad_id, dtype=np.int64),
        positions=np.zeros(shape, dtype=np.int64),
        segments=np.full(shape, PADDING_SEGMENT, dtype=np.int64),
        labels=np.full(shape, IGNORED, dtype=np.int64),
        n_supervised=0,
    )


def _place(batch: Batch, row: int, start: int, segment: int, example: Encoded) -> int:
    ids = np.asarray(example.ids, dtype=np.int64)
    supervised = np.asarray(example.supervised, dtype=np.bool_)
    if ids.ndim != 1 or ids.size == 0 or ids.shape != supervised.shape:
        raise DataError(f"an example has ids of shape {ids.shape} and a mask of shape {supervised.shape}")
    end = start + ids.size
    batch.ids[row, start:end] = ids
    batch.positions[row, start:end] = np.arange(ids.size)
    batch.segments[row, start:end] = segment
    # The last token of an example predicts nothing: what follows belongs to another one.
    batch.labels[row, start : end - 1] = np.where(supervised[1:], ids[1:], IGNORED)
    return end


def _counted(batch: Batch, examples: Sequence[Encoded]) -> Batch:
    if not examples:
        raise DataError("a batch needs at least one example")
    count = int((batch.labels != IGNORED).sum())
    return Batch(batch.ids, batch.positions, batch.segments, batch.labels, count)
