"""booster="dart": each round leaves some of the trees out, and shares their part with the new ones.

References
----------
K. Rashmi, R. Gilad-Bachrach, "DART: dropouts meet multiple additive regression trees", AISTATS 2015.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Dropout:
    """Which trees are dropped, and how weights are shared afterwards; names are XGBoost's."""

    rate_drop: float
    skip_drop: float
    one_drop: bool
    sample_type: str
    normalize_type: str

    def dropped(self, weight: NDArray[np.float32], random: np.random.Generator) -> NDArray[np.int64]:
        """The trees that this round does without."""
        n = len(weight)
        if n == 0 or random.random() < self.skip_drop:
            return np.empty(0, dtype=np.int64)
        chance = np.full(n, self.rate_drop)
        if self.sample_type == "weighted":
            chance = self.rate_drop * n * weight / weight.sum()
        chosen = np.flatnonzero(random.random(n) < chance)
        if self.one_drop and not len(chosen):
            share = weight / weight.sum() if self.sample_type == "weighted" else None
            chosen = random.choice(n, 1, p=share)
        return chosen

    def factors(self, n_dropped: int, n_new: int, learning_rate: float) -> tuple[float, float]:
        """What the weights of the dropped trees are multiplied by, and the weight of the new ones."""
        if n_dropped == 0:
            return 1.0, 1.0
        step = learning_rate / n_new
        if self.normalize_type == "forest":
            return 1 / (1 + step), 1 / (1 + step)
        return n_dropped / (n_dropped + step), 1 / (n_dropped + step)
