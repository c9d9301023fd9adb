"""Ctrl-C and SIGTERM end a training between two micro-batches, with a checkpoint."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType


class TrainingStopped(KeyboardInterrupt):
    """A signal asked the training to stop.

    Attributes
    ----------
    run, checkpoint : pathlib.Path or None
        Where it can be gone on with; set once the checkpoint is saved.
    step : int
        Optimiser steps done.
    """

    run: Path | None = None
    checkpoint: Path | None = None
    step: int = 0


class Stop:
    """Whether a signal has come."""

    def __init__(self) -> None:
        self.asked = False

    def check(self) -> None:
        """Raise TrainingStopped once a signal has come."""
        if self.asked:
            raise TrainingStopped


@contextlib.contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Within the block the first SIGINT or SIGTERM sets the `Stop`; a second SIGINT ends the process at once.

    Outside the main thread, where signals cannot be caught, the block runs unchanged.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(_number: int, _frame: FrameType | None) -> None:
        stop.asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
