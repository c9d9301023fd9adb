"""Classes, their codes and the rows' weights, quickly for many rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets

_WIDEST = 1 << 16


def encode(y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The classes in order, and which of them each row has.

    Examples
    --------
    >>> classes, codes = encode(np.array([5, 3, 5]))
    >>> classes, codes
    (array([3, 5]), array([1, 0, 1], dtype=uint8))
    """
    if y.dtype.kind in "biu" and y.ndim == 1 and len(y):
        least, greatest = int(y.min()), int(y.max())
        if greatest - least < _WIDEST:  # counted instead of sorted
            places = y.astype(np.int64) - least if least or y.dtype.kind != "u" else y
            present = np.bincount(places, minlength=greatest - least + 1) > 0
            code = np.cumsum(present) - 1
            classes = (np.flatnonzero(present) + least).astype(y.dtype)
            return classes, code.astype(np.uint8 if len(classes) <= 256 else np.int64)[places]
    check_classification_targets(y)
    classes, codes = np.unique(y, return_inverse=True)
    return classes, codes.astype(np.uint8 if len(classes) <= 256 else np.int64)


def class_totals(codes: NDArray[Any], weight: NDArray[np.float64], n_classes: int) -> NDArray[np.float64]:
    """The weight of each class's rows; `weight` is empty where all rows are equal."""
    return np.bincount(codes, weight if len(weight) else None, n_classes).astype(np.float64)


def class_factors(
    class_weight: Any, classes: NDArray[Any], totals: NDArray[np.float64]
) -> NDArray[np.float64]:
    """What `class_weight` multiplies each class's rows by.

    Raises
    ------
    ValueError
        If it names a class that is not there, or a negative weight.
    """
    factors: NDArray[np.float64]
    if isinstance(class_weight, dict) and min(class_weight.values(), default=0) < 0:
        raise ValueError(f"class_weight must not be negative, got {class_weight}")
    # Each class once, with its rows' weight: what balances those balances the rows.
    present = totals > 0
    factors = np.ones(len(classes))
    if class_weight == "balanced":
        factors[present] = totals.sum() / (len(classes) * totals[present])
    else:
        factors = compute_class_weight(class_weight, classes=classes, y=classes)
    return factors
