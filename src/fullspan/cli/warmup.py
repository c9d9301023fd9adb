"""Compile all kernels now, so that no later command waits for it."""

from __future__ import annotations

import importlib.util
import time

from fullspan.core.config import Config


class WarmupConfig(Config):
    """Options of `fullspan warmup`: none."""


def command(config: WarmupConfig) -> None:
    """Compile all kernels now, so that no later command waits for it.

    Each kernel is compiled once for a machine and a version of fullspan, and kept on disk.
    """
    from fullspan.estimators.warmup import warm_up

    started = time.monotonic()
    warm_up()
    if importlib.util.find_spec("torch") is not None:
        from fullspan.decoding.engine.warmup import warm_up_engine
        from fullspan.training.fused_warmup import warm_up_all

        warm_up_all()
        warm_up_engine()
    print(f"all kernels are compiled ({time.monotonic() - started:.0f} s)")
