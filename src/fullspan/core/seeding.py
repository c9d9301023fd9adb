"""One function that makes a job repeatable."""

from __future__ import annotations

import random
import sys

import numpy as np


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and, when it is imported, torch's global generators.

    Examples
    --------
    >>> seed_everything(7); first = random.random()
    >>> seed_everything(7); first == random.random()
    True
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)


def draw_seed() -> int:
    """A seed that follows from the generators that `seed_everything` sets, or torch's alone where it is used.

    Examples
    --------
    >>> seed_everything(7); first = draw_seed()
    >>> seed_everything(7); first == draw_seed() != draw_seed()
    True
    """
    if "torch" in sys.modules:
        return int(sys.modules["torch"].randint(2**62, ()))
    return random.getrandbits(62)
