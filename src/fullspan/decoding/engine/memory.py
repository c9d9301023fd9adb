"""Large pieces of memory, in huge pages where the system has them: a step reads all weights once."""

from __future__ import annotations

import mmap

import numpy as np

from fullspan.decoding.engine._layout import LINE

_HUGE = 2**21


def allocate(n_bytes: int) -> np.ndarray:
    """uint8 [n_bytes] of zeros, at a multiple of 64 bytes (of 2 MiB, if it is as large).

    Examples
    --------
    >>> allocate(100).shape, allocate(100).ctypes.data % 64
    ((100,), 0)
    """
    if n_bytes < _HUGE:
        buffer = np.zeros(n_bytes + LINE, np.uint8)
        start = -buffer.ctypes.data % LINE
        return buffer[start : start + n_bytes]
    if hasattr(mmap, "MADV_HUGEPAGE"):
        # Private: Linux gives huge pages to memory that processes could share only where it is told to.
        mapped = mmap.mmap(-1, n_bytes + _HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        mapped.madvise(mmap.MADV_HUGEPAGE)
    else:
        mapped = mmap.mmap(-1, n_bytes + _HUGE)
    buffer = np.frombuffer(mapped, np.uint8)
    start = -buffer.ctypes.data % _HUGE
    return buffer[start : start + n_bytes]
