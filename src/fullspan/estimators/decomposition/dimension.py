"""How many components data have: Minka's choice by the evidence for each number."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

_LEAST = 1e-15
"""Of a variance whose logarithm is taken."""


def log_evidence(spectrum: NDArray[Any], rank: int, n_samples: float) -> float:
    """Logarithm of the probability of data with these variances, given `rank` components.

    Parameters
    ----------
    spectrum : ndarray of shape (n_features,)
        Variances along the components, in falling order.
    rank : int
        From 1 to n_features - 1.
    n_samples : float

    References
    ----------
    T. P. Minka, "Automatic choice of dimensionality for PCA", NIPS 2000, equations 30 and 31.
    """
    p = len(spectrum)
    spectrum = np.asarray(spectrum, np.float64)
    if not 1 <= rank < p:
        raise ValueError(f"rank must be between 1 and {p - 1}, the number of features less one, got {rank}")
    if spectrum[rank - 1] < _LEAST:
        return -np.inf
    freedoms = p - np.arange(rank)
    of_axes = -rank * np.log(2.0) + float(np.sum(gammaln(freedoms / 2.0) - np.log(np.pi) * freedoms / 2.0))
    noise = max(_LEAST, float(spectrum[rank:].sum()) / (p - rank))
    of_data = -n_samples / 2.0 * (float(np.log(spectrum[:rank]).sum()) + np.log(noise) * (p - rank))
    n_free = p * rank - rank * (rank + 1.0) / 2.0
    smoothed = np.append(spectrum[:rank], np.full(p - rank, noise))
    # Over pairs of a kept component i and a later one j.
    i, j = np.triu_indices(p, 1)
    pairs = i < rank
    i, j = i[pairs], j[pairs]
    with np.errstate(divide="ignore", invalid="ignore"):
        bend = np.log((spectrum[i] - spectrum[j]) * (1.0 / smoothed[j] - 1.0 / smoothed[i]))
    curvature = float(np.sum(bend)) + len(i) * np.log(n_samples)
    return float(
        of_axes + of_data + np.log(2.0 * np.pi) * (n_free + rank) / 2.0 - curvature / 2.0
        - rank * np.log(n_samples) / 2.0
    )  # fmt: skip


def most_probable_rank(spectrum: NDArray[Any], n_samples: float) -> int:
    """The number of components, from 1 to n_features - 1, with the greatest evidence.

    Examples
    --------
    >>> most_probable_rank(np.array([9.0, 8.0, 0.11, 0.1, 0.09]), 100)
    2
    """
    evidence = [log_evidence(spectrum, rank, n_samples) for rank in range(1, len(spectrum))]
    return 1 + int(np.argmax(evidence)) if evidence else 0
