# mypy: allow-untyped-decorators, allow-untyped-calls
"""Threads that stand by for many short runs of one kernel, such as the steps of a language model.

Between two runs a thread looks out for the next for about a millisecond, in the kernel, and offers its core
meanwhile; after that it sleeps until it is woken. A run that follows soon thus begins within a microsecond,
and nothing spins in an idle process.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import typeof
from numba.core.dispatcher import Dispatcher

from fullspan.core.kernels import helper
from fullspan.core.simd import address
from fullspan.core.threads import load_acquire, offer_core, pause, store_release

# Places in the crew's orders, one cache line each.
_TURN, _ANNOUNCED, _STOPPING = 0, 8, 16
_LOOKS = 300  # before a thread offers its core
_PATIENCE = 3000  # before it goes to sleep


def new_orders() -> np.ndarray:
    """What a crew and its kernel talk through."""
    return np.zeros(24, dtype=np.int64)


@helper()
def next_turn(thread: int, orders: Any, seen: int) -> int:
    """The number of the next run; `seen` again if there is none for some time, -1 if there never will be.

    Thread 0, which is the caller's, begins the run.
    """
    place = address(orders)
    if thread == 0:
        store_release(place + 8 * _TURN, seen + 1)
        return seen + 1
    looks = 0
    while load_acquire(place + 8 * _TURN) == seen:
        if load_acquire(place + 8 * _STOPPING) != 0:
            return -1
        pause()
        looks += 1
        if looks > _LOOKS:
            offer_core()
        if looks > _PATIENCE:
            return seen
    return seen + 1


class StandingCrew:
    """Runs one kernel again and again on the same threads.

    Parameters
    ----------
    kernel : callable
        ``kernel(thread, n_threads, orders, seen, *arguments)``. It asks `next_turn` for its turn and does the
        run: once on thread 0; on the others until that is no more than `seen`. It returns the last turn.
    n_threads : int
    arguments
        The same in every run; what changes, changes inside of them.
    """

    def __init__(self, kernel: Callable[..., int], n_threads: int, *arguments: Any) -> None:
        self.n_threads = n_threads
        self._kernel = kernel
        self._arguments = arguments
        self._orders = new_orders()
        self._beds = [_Bed() for _ in range(n_threads - 1)]
        self._lock = threading.Lock()
        if isinstance(kernel, Dispatcher) and not kernel.signatures:
            # In this thread, where Ctrl-C stops the compiler at once.
            kernel.compile(tuple(typeof(each) for each in (0, n_threads, self._orders, 0, *arguments)))
        for thread, bed in enumerate(self._beds, 1):
            work = (kernel, thread, n_threads, self._orders, arguments, bed)
            threading.Thread(target=_stand_by, args=work, daemon=True, name=f"standing-{thread}").start()
        self.close = weakref.finalize(self, _stop, self._orders, self._beds)

    def run(self) -> None:
        """Do one run, on all threads."""
        with self._lock:
            orders = self._orders
            turn = int(orders[_TURN])
            try:
                # Said before looking who sleeps: whoever goes to bed looks for it after lying down.
                orders[_ANNOUNCED] = turn + 1
                for bed in self._beds:
                    bed.wake()
                # The turn begins inside of the kernel, where Ctrl-C cannot come between.
                self._kernel(0, self.n_threads, orders, turn, *self._arguments)
            finally:
                orders[_ANNOUNCED] = orders[_TURN]


class _Bed:
    """Where a thread sleeps. The interpreter's lock keeps the steps of both sides in order."""

    def __init__(self) -> None:
        self.asleep = False
        self.bell = threading.Semaphore(0)

    def wake(self) -> None:
        if self.asleep:
            self.asleep = False
            self.bell.release()


def _stand_by(
    kernel: Callable[..., int], thread: int, n_threads: int, orders: np.ndarray, arguments: Any, bed: _Bed
) -> None:
    seen = 0
    while seen >= 0:
        seen = kernel(thread, n_threads, orders, seen, *arguments)
        bed.asleep = True
        if seen < 0 or orders[_ANNOUNCED] > seen or orders[_STOPPING]:
            bed.asleep = False
        else:
            bed.bell.acquire()


def _stop(orders: np.ndarray, beds: list[_Bed]) -> None:
    orders[_STOPPING] = 1
    for bed in beds:
        bed.wake()
