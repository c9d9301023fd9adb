"""From logits to the distribution that a token is drawn from, and the draw, as pure functions.

The order is that of transformers where it has the step: logit bias, repetition penalty, presence and
frequency penalty, constraint, temperature, top-k, top-p, min-p, typical-p. Each truncation works on what
the one before it left, renormalised.

A truncation takes the logits of the tokens that are left, ``[m]``, and returns the positions that stay,
ascending. So after the first of them everything is small, and none sorts the vocabulary: a cheap comparison
finds the few tokens that can matter first.

NumPy rather than torch, whose calls cost several times more for one row of a vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullspan.decoding.options import Sampling

Logits = NDArray[np.float32]
Ids = NDArray[np.intp]

# What a head of the distribution may leave out at first: tokens less likely than these fractions of the
# most likely one. The last takes every token.
_HEADS = (1e-2, 1e-4, 0.0)
# Distances from the entropy, in nats, within which typical tokens are looked for first.
_REACHES = (0.5, 2.0, 8.0, np.inf)
# Tokens whose probabilities are summed up first when one is drawn; cumulating all of them takes longer.
_BLOCK = 256
# Temperatures below it divide as this one does: all but the most likely token is out either way.
_COLDEST = float(np.finfo(np.float32).tiny)


def add_bias(logits: Logits, ids: Ids, bias: NDArray[np.float32]) -> Logits:
    """Add to the logits of some tokens.

    Examples
    --------
    >>> add_bias(np.float32([1, 2, 3]), np.array([2, 0]), np.float32([-100, 1]))
    array([  2.,   2., -97.], dtype=float32)
    """
    changed = logits.copy()
    changed[ids] += bias
    return changed


def penalise_repetition(logits: Logits, seen: Ids, penalty: float) -> Logits:
    """Make tokens that were seen less likely, for penalties above 1 (CTRL, Keskar et al. 2019, section 4.1).

    Positive logits are divided by the penalty, negative ones multiplied.

    Parameters
    ----------
    logits : ndarray of float32 [V]
    seen : ndarray of int
        Tokens of the prompt and of the answer so far, each once.
    penalty : float

    Examples
    --------
    >>> penalise_repetition(np.float32([2, -2, 1]), np.array([0, 1]), 2.0)
    array([ 1., -4.,  1.], dtype=float32)
    """
    changed, old = logits.copy(), logits[seen]
    changed[seen] = np.where(old < 0, old * np.float32(penalty), old / np.float32(penalty))
    return changed


def penalise_counts(logits: Logits, counts: NDArray[np.int32], presence: float, frequency: float) -> Logits:
    """Lower a token's logit by `presence` if it was generated, and by `frequency` for each time that it was.

    OpenAI's definition: the prompt does not count.

    Parameters
    ----------
    logits : ndarray of float32 [V]
    counts : ndarray of int32 [V]
        How often each token was generated.
    presence, frequency : float

    Examples
    --------
    >>> penalise_counts(np.float32([1, 1, 1]), np.int32([0, 1, 3]), presence=0.5, frequency=0.25)
    array([ 1.  ,  0.25, -0.25], dtype=float32)
    """
    changed, ids = logits.copy(), np.flatnonzero(counts)
    changed[ids] -= np.float32(presence) + np.float32(frequency) * counts[ids].astype(np.float32)
    return changed


def keep_top_k(logits: Logits, k: int) -> Ids:
    """Keep the `k` largest logits and those equal to the k-th.

    Examples
    --------
    >>> keep_top_k(np.float32([1, 3, 2]), 2)
    array([1, 2])
    """
    if k >= len(logits):
        return np.arange(len(logits))
    at = len(logits) - k
    return np.flatnonzero(logits >= np.partition(logits, at)[at])


def keep_top_p(logits: Logits, p: float) -> Ids:
    """Keep the most likely tokens until their probabilities reach `p`; of equals the lowest ids stay.

    Nucleus sampling (Holtzman et al. 2020, section 3.1).

    Examples
    --------
    >>> keep_top_p(np.log(np.float32([0.5, 0.3, 0.2])), 0.7)
    array([0, 1])
    """
    if p >= 1:
        return np.arange(len(logits))
    most = logits.max()
    weights = np.exp(logits - most)
    enough = p * weights.sum(dtype=np.float64)
    for floor in _HEADS:
        head = np.flatnonzero(weights >= floor)
        if weights[head].sum(dtype=np.float64) >= enough:
            break
    ordered = np.sort(logits[head])[::-1]
    sums = np.cumsum(np.exp(ordered - most), dtype=np.float64)
    n = min(int(np.searchsorted(sums, enough)) + 1, len(head))
    kept: Ids = head[logits[head] >= ordered[n - 1]]
    surplus = len(kept) - n
    if surplus:  # equals of the last one
        equal = np.flatnonzero(logits[kept] == ordered[n - 1])
        kept = np.delete(kept, equal[-surplus:])
    return kept


def keep_min_p(logits: Logits, p: float) -> Ids:
    """Keep tokens whose probability is at least `p` times the largest (min-p, Nguyen et al. 2024).

    Examples
    --------
    >>> keep_min_p(np.log(np.float32([0.5, 0.3, 0.2])), 0.5)
    array([0, 1])
    """
    if p == 0:
        return np.arange(len(logits))
    return np.flatnonzero(logits >= logits.max() + np.float32(np.log(p)))


def keep_typical(logits: Logits, p: float) -> Ids:
    """Keep the tokens whose surprise is nearest to the expected one, until their probabilities reach `p`.

    Locally typical sampling (Meister et al. 2023, section 3): tokens are taken in the order of
    ``|-log probability - entropy|``, and those equal to the last one stay.

    Examples
    --------
    >>> keep_typical(np.log(np.float32([0.5, 0.3, 0.15, 0.05])), 0.4)
    array([0, 1])
    """
    if p >= 1:
        return np.arange(len(logits))
    shifted = logits - logits.max()
    weights = np.exp(shifted)
    total = weights.sum(dtype=np.float64)
    # What is impossible has no surprise; a finite stand-in keeps 0 times infinity out of the sum.
    surprise = np.log(total) - np.maximum(shifted, -1e30)
    distance = np.abs(surprise - (weights * surprise).sum() / total)
    for reach in _REACHES:
        near = np.flatnonzero(distance <= reach)
        if weights[near].sum(dtype=np.float64) >= p * total:
            break
    order = near[np.argsort(distance[near])]
    sums = np.cumsum(weights[order], dtype=np.float64)
    last = order[min(int(np.searchsorted(sums, p * total)), len(order) - 1)]
    kept: Ids = near[distance[near] <= distance[last]]
    return kept


@dataclass(frozen=True, eq=False)
class Row:
    """What a row's past and its rules have to say about its next token.

    Attributes
    ----------
    bias : tuple of ndarray, optional
        Token ids and what is added to their logits.
    seen : ndarray of int, optional
        Tokens of prompt and answer, each once; needed for a repetition penalty.
    counts : ndarray of int32 [V], optional
        How often each token was generated; needed for a presence or frequency penalty.
    allowed : ndarray of bool [V], optional
        Tokens that a constraint allows.
    """

    bias: tuple[Ids, NDArray[np.float32]] | None = None
    seen: Ids | None = None
    counts: NDArray[np.int32] | None = None
    allowed: NDArray[np.bool_] | None = None


_PLAIN = Row()


def process(logits: Logits, options: Sampling, row: Row = _PLAIN) -> tuple[Ids | None, Logits]:
    """The tokens that may be drawn and their logits; under greedy options, their largest is taken.

    Parameters
    ----------
    logits : ndarray of float32 [V]
    options : Sampling
    row : Row, optional

    Returns
    -------
    ids : ndarray of int [m] or None
        Ascending; None for the whole vocabulary.
    logits : ndarray of float32 [m]
        The distribution is their softmax.

    Examples
    --------
    >>> process(np.float32([1, 3, 2]), Sampling(temperature=0.5, top_k=2))
    (array([1, 2]), array([ 0., -2.], dtype=float32))
    """
    logits = _penalise(logits, options, row)
    ids = None
    if row.allowed is not None:
        ids = np.flatnonzero(row.allowed)
        logits = logits[ids]
    if options.greedy:
        return ids, logits
    with np.errstate(over="ignore"):  # at temperatures near 0 all but the largest go to -inf
        logits = logits - logits.max()
        logits /= np.float32(max(options.temperature, _COLDEST))
    for keep in _truncations(options):
        kept = keep(logits)
        ids = kept if ids is None else ids[kept]
        logits = logits[kept]
    return ids, logits


def _truncations(options: Sampling) -> Iterator[Callable[[Logits], Ids]]:
    if options.top_k is not None:
        yield partial(keep_top_k, k=options.top_k)
    if options.top_p is not None:
        yield partial(keep_top_p, p=options.top_p)
    if options.min_p is not None:
        yield partial(keep_min_p, p=options.min_p)
    if options.typical_p is not None:
        yield partial(keep_typical, p=options.typical_p)


def _penalise(logits: Logits, options: Sampling, row: Row) -> Logits:
    if row.bias is not None:
        logits = add_bias(logits, *row.bias)
    if options.repetition_penalty != 1 and row.seen is not None:
        logits = penalise_repetition(logits, row.seen, options.repetition_penalty)
    if (options.presence_penalty or options.frequency_penalty) and row.counts is not None:
        logits = penalise_counts(logits, row.counts, options.presence_penalty, options.frequency_penalty)
    return logits


def distribution(logits: Logits, options: Sampling, row: Row = _PLAIN) -> NDArray[np.float64]:
    """Probabilities that the next token is drawn with; for greedy options all of it is on one token.

    Parameters
    ----------
    logits : ndarray of float32 [V]
    options : Sampling
    row : Row, optional

    Returns
    -------
    ndarray of float64 [V]
        Sums to 1; what cannot be drawn has exactly 0.

    Examples
    --------
    >>> distribution(np.log(np.float32([0.2, 0.5, 0.3])), Sampling(temperature=1, top_k=2)).round(3)
    array([0.   , 0.625, 0.375])
    """
    ids, left = process(logits, options, row)
    weights = _weights(left, options)
    if ids is None:
        return weights
    probabilities = np.zeros(len(logits))
    probabilities[ids] = weights
    return probabilities


def _weights(logits: Logits, options: Sampling) -> NDArray[np.float64]:
    """Probabilities of the tokens that are left."""
    weights: NDArray[np.float64]
    if options.greedy:
        weights = np.zeros(len(logits))
        weights[logits.argmax()] = 1.0  # of equals the lowest id
        return weights
    weights = _unnormalised(logits).astype(np.float64)
    weights /= weights.sum()
    return weights


def _unnormalised(logits: Logits) -> Logits:
    most = logits.max()
    return np.exp(logits if most == 0 else logits - most)


def draw(probabilities: NDArray[np.floating[Any]], uniform: float) -> int:
    """The token at `uniform`, in [0, 1), of the cumulated probabilities.

    Parameters
    ----------
    probabilities : ndarray [V]
        Or what is proportional to them.
    uniform : float

    Examples
    --------
    >>> [draw(np.array([0.25, 0.0, 0.75]), uniform) for uniform in (0.0, 0.2, 0.25, 0.999)]
    [0, 0, 2, 2]
    """
    begins = np.arange(0, len(probabilities), _BLOCK)
    blocks = np.cumsum(np.add.reduceat(probabilities, begins, dtype=np.float64))
    target = uniform * blocks[-1]
    block = _first_above(blocks, target)
    before = blocks[block - 1] if block else 0.0
    inside = probabilities[begins[block] : begins[block] + _BLOCK]
    return int(begins[block]) + _first_above(np.cumsum(inside, dtype=np.float64), target - before)


def _first_above(sums: NDArray[np.float64], target: float) -> int:
    """The first place where the sums exceed `target`; never past the last that adds something."""
    at = int(np.searchsorted(sums, target, side="right"))
    return at if at < len(sums) else int(np.searchsorted(sums, sums[-1]))


def choose(logits: Logits, options: Sampling, row: Row, uniform: float) -> int:
    """The next token: `draw` from `distribution`, without filling in the tokens that cannot come.

    Parameters
    ----------
    logits : ndarray of float32 [V]
    options : Sampling
    row : Row
    uniform : float
        In [0, 1); unused when greedy.

    Examples
    --------
    >>> choose(np.float32([0, 2, 2]), Sampling(), Row(), 0.0)  # equals: the lowest id
    1
    """
    ids, left = process(logits, options, row)
    at = int(left.argmax()) if options.greedy else draw(_unnormalised(left), uniform)
    return at if ids is None else int(ids[at])
