"""Perplexity, apart from the losses: who scores text without torch needs it too."""

from __future__ import annotations

import math


def perplexity(loss: float) -> float:
    """exp of a mean cross-entropy; losses above 700, for which exp would overflow, count as 700.

    Examples
    --------
    >>> round(perplexity(math.log(4)), 6), perplexity(1e6) == perplexity(700.0)
    (4.0, True)
    """
    return math.exp(min(loss, 700.0))
