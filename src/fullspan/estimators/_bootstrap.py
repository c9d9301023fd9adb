"""Rows drawn with replacement for each tree of a forest: scikit-learn's draws for the same seed."""

from __future__ import annotations

import warnings
from numbers import Integral

import numpy as np
from numpy.typing import NDArray


def bootstrap_size(n_samples: int, max_samples: float | None, weight: NDArray[np.float64] | None) -> int:
    """How many rows to draw; a fraction is one of the rows, or of the sum of their weights."""
    if max_samples is None:
        return n_samples
    if isinstance(max_samples, Integral):
        return int(max_samples)
    total = n_samples if weight is None else weight.sum()
    size = max(int(max_samples * total), 1)
    if size < max(10, n_samples ** (1 / 3)):
        of_what = "the number of samples" if weight is None else "the total sum of sample weights"
        warnings.warn(
            f"Using the fractional value max_samples={max_samples!r} when {of_what} is {total} results in a "
            f"low number ({size}) of bootstrap samples. We recommend passing `max_samples` as an integer "
            "instead.",
            stacklevel=4,
        )
    return size


def bootstrap_rows(
    seed: int, n_samples: int, n_drawn: int, weight: NDArray[np.float64] | None
) -> NDArray[np.int32]:
    """Numbers of the rows that the tree with this seed is grown on, int32 of shape (n_drawn,).

    Raises
    ------
    ValueError
        If a weight is negative: then it is no probability.
    """
    random = np.random.RandomState(seed)
    if weight is None:
        return random.randint(0, n_samples, n_drawn, dtype=np.int32)
    return random.choice(n_samples, n_drawn, replace=True, p=weight / np.sum(weight)).astype(np.int32)


def rows_left_out(
    seed: int, n_samples: int, n_drawn: int, weight: NDArray[np.float64] | None
) -> NDArray[np.int64]:
    """Ascending numbers of the rows that the tree with this seed was not grown on."""
    drawn = np.zeros(n_samples, dtype=bool)
    drawn[bootstrap_rows(seed, n_samples, n_drawn, weight)] = True
    return np.flatnonzero(~drawn)
