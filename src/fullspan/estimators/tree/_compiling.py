"""How the growing kernels' helpers are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

_njit: Any = numba.njit  # its types leave out some of its options


def helper() -> Callable[[Callable[..., Any]], Any]:
    """Like `fullspan.core.kernels.helper`, for functions that make no arrays.

    They do not count references to the arrays that they get. In functions that run once for every node and
    feature, and take many arrays out of tuples, counting took half of the time.
    """
    return _njit(  # type: ignore[no-any-return]
        nogil=True, error_model="numpy", no_cfunc_wrapper=True, no_cpython_wrapper=True, _nrt=False
    )
