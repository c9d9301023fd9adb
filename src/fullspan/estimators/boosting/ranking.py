"""Learning to rank: the queries that rows belong to, and LambdaMART's gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fullspan.estimators.boosting._ranking_kernels import MAP, NDCG, PAIRWISE, query_gradients
from fullspan.estimators.saving import Saveable

_KINDS = {"pairwise": PAIRWISE, "ndcg": NDCG, "map": MAP}


class RankingGroups(Saveable):
    """Query k owns the rows ``start[k]:start[k + 1]``."""

    def __init__(self, start: NDArray[np.int64]) -> None:
        self.start = start

    @property
    def n_groups(self) -> int:
        return len(self.start) - 1

    @classmethod
    def of(cls, n: int, qid: ArrayLike | None, group: ArrayLike | None) -> RankingGroups:
        """From the query of each row, in one piece each, or from the sizes of the queries.

        Raises
        ------
        ValueError
            If neither or both are given, qid is not sorted, or the sizes do not add up.
        """
        if (qid is None) == (group is None):
            raise ValueError("Either `group` or `qid` is required: they say which rows belong to a query")
        if qid is not None:
            ids = np.asarray(qid).ravel()
            if len(ids) != n:
                raise ValueError(f"qid has {len(ids)} entries, X has {n} rows")
            if np.any(ids[1:] < ids[:-1]):
                raise ValueError("`qid` must be sorted in non-decreasing order along with data.")
            edges = np.flatnonzero(ids[1:] != ids[:-1]) + 1
            return cls(np.concatenate([[0], edges, [n]]).astype(np.int64))
        sizes = np.asarray(group).ravel()
        if sizes.sum() != n or np.any(sizes < 0):
            raise ValueError(f"the sizes in group add up to {sizes.sum()}, X has {n} rows")
        return cls(np.concatenate([[0], np.cumsum(sizes[sizes > 0])]).astype(np.int64))


class PositionBias(Saveable):
    """How much likelier rows are clicked because of where they stand; rows of a query are in that order.

    Parameters
    ----------
    n_positions : int
        How many are told apart.
    bias_norm : float
        The ratios' exponent is ``1 / (1 + bias_norm)``.

    References
    ----------
    Z. Hu et al., "Unbiased LambdaMART: an unbiased pairwise learning-to-rank algorithm", WWW 2019, equations
    30 and 31.
    """

    def __init__(self, n_positions: int, bias_norm: float) -> None:
        self.plus, self.minus = np.ones(n_positions), np.ones(n_positions)
        self.bias_norm = bias_norm

    def update(self, plus: NDArray[np.float64], minus: NDArray[np.float64]) -> None:
        """New ratios from what positions explain of the loss."""
        for ratios, explained in ((self.plus, plus), (self.minus, minus)):
            if len(explained) and explained[0] >= 1e-16:
                ratios[:] = (explained / explained[0]) ** (1 / (1 + self.bias_norm))


def rank_gradients(
    kind: str,
    margin: NDArray[np.float32],
    y: NDArray[np.float32],
    groups: RankingGroups,
    weight: NDArray[np.float32] | None,
    n_pairs: int,
    mean: bool,
    normalise: bool,
    by_score: bool,
    exponential_gain: bool,
    round: int,
    bias: PositionBias,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Gradients and hessians [n_samples, 1] of all queries, whose weights average to one; updates `bias`."""
    g, h = np.zeros(len(y), dtype=np.float32), np.zeros(len(y), dtype=np.float32)
    gain = np.exp2(y.astype(np.float64)) - 1 if exponential_gain else y.astype(np.float64)
    scale = 1.0 if weight is None else groups.n_groups / float(np.sum(weight, dtype=np.float64))
    plus, minus = np.zeros(len(bias.plus)), np.zeros(len(bias.minus))
    ranks = np.empty(0, dtype=np.int64)
    for k in range(groups.n_groups):
        rows = slice(int(groups.start[k]), int(groups.start[k + 1]))
        order = np.argsort(-margin[rows], kind="stable")
        ideal = dcg(np.sort(gain[rows])[::-1], len(order) if mean else n_pairs)
        if mean:
            ranks = np.argsort(-y[rows][order], kind="stable")
        query_gradients(
            _KINDS[kind], margin[rows], y[rows], gain[rows], order, 1 / ideal if ideal > 0 else 0.0, n_pairs,
            ranks, (round + 1) * groups.n_groups + k, normalise, by_score,
            (1.0 if weight is None else float(weight[k])) * scale, bias.plus, bias.minus, plus, minus,
            g[rows], h[rows],
        )  # fmt: skip
    bias.update(plus, minus)
    return g[:, None], h[:, None]


def dcg(gains: NDArray[np.float64], most: int) -> float:
    """Discounted cumulative gain of gains in the order of a ranking."""
    gains = gains[:most]
    return float(np.sum(gains / np.log2(np.arange(len(gains)) + 2.0)))
