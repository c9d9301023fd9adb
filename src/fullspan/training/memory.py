"""The most memory a process has held."""

from __future__ import annotations

import sys

import psutil


def peak_rss_mib() -> float:
    """Peak resident memory of this process in MiB (on Windows its peak working set)."""
    if sys.platform == "win32":
        return float(psutil.Process().memory_info().peak_wset) / 2**20
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
