# mypy: allow-untyped-decorators, allow-untyped-calls, allow-untyped-defs
"""Loops of gradient boosting that NumPy has no words for."""

from __future__ import annotations

import numpy as np

from fullspan.core.kernels import kernel


@kernel()
def choose_rows(chances, n_chosen):
    """Choose rows without replacement, each time with the chance that as many rows must still be chosen.

    Parameters
    ----------
    chances : float64 array of shape (n,)
        Uniform random numbers.
    n_chosen : int

    Returns
    -------
    bool array of shape (n,)
        True for `n_chosen` rows.
    """
    n = len(chances)
    chosen = np.zeros(n, np.bool_)
    count = 0
    for i in range(n):
        if chances[i] * (n - i) < n_chosen - count:
            chosen[i] = True
            count += 1
    return chosen
