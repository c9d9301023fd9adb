# mypy: allow-untyped-decorators, allow-untyped-calls
"""Threads that run one kernel together and meet at barriers inside it.

A kernel gets its thread's number and the number of threads before its other arguments. At a `barrier` each
waits for all: some thousand looks at the others' counters, longer than threads with equal work lie apart,
then it offers its core to whoever wants it, since with another busy process a spinning thread keeps away the
very one that it waits for. To offer it at once would be dear: whoever takes it keeps it for a while.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import numpy as np
from llvmlite import ir
from numba import typeof, types
from numba.core import cgutils
from numba.core.dispatcher import Dispatcher
from numba.extending import intrinsic

from fullspan.core.device import usable_cores
from fullspan.core.kernels import helper
from fullspan.core.simd import address

_CACHE_LINE = 64
_LOOKS = 2000
_I64 = ir.IntType(64)
_intrinsic: Any = intrinsic
_YIELD = "SwitchToThread" if sys.platform == "win32" else "sched_yield"


class Crew:
    """Threads for kernels that release the GIL; use it in a ``with`` block.

    Parameters
    ----------
    n_threads : int, optional
        One for each usable core by default.

    Attributes
    ----------
    n_threads : int
        How many run the next kernel; may be set to less, and back.

    Examples
    --------
    >>> from fullspan.core.kernels import kernel
    >>> @kernel()
    ... def fill(thread, n_threads, x):
    ...     x[thread] = thread + 10 * n_threads
    >>> x = np.zeros(2)
    >>> with Crew(2) as crew:
    ...     crew.run(fill, x)
    >>> x.tolist()
    [20.0, 21.0]
    """

    def __init__(self, n_threads: int | None = None) -> None:
        self.n_threads = n_threads or usable_cores()
        self._pool = ThreadPoolExecutor(self.n_threads) if self.n_threads > 1 else None

    def run(self, kernel: Callable[..., Any], *arguments: Any) -> None:
        """Call ``kernel(thread, n_threads, *arguments)`` on every thread, and wait for all."""
        if self._pool is None or self.n_threads == 1:
            kernel(0, self.n_threads, *arguments)
        else:
            if isinstance(kernel, Dispatcher) and not kernel.signatures:
                # In this thread, where Ctrl-C stops the compiler at once.
                kernel.compile(tuple(typeof(argument) for argument in (0, self.n_threads, *arguments)))
            self._pool.submit(self._run_all, self._pool, kernel, arguments).result()

    def _run_all(
        self, pool: ThreadPoolExecutor, kernel: Callable[..., Any], arguments: tuple[Any, ...]
    ) -> None:
        """Run thread 0 here and start the others.

        Ctrl-C only reaches the main thread, which waits: had it a part in this, the others might wait for
        ever at a barrier that it does not come to.
        """
        n = self.n_threads
        others = [pool.submit(kernel, thread, n, *arguments) for thread in range(1, n)]
        kernel(0, n, *arguments)
        for other in others:
            other.result()

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def new_barrier(n_threads: int) -> np.ndarray:
    """What `barrier` counts in: a cache line for each thread. A kernel that meets starts with a new one."""
    return np.zeros((n_threads, _CACHE_LINE // 8), dtype=np.int64)


@_intrinsic
def load_acquire(typing_context: Any, place: Any) -> Any:
    """The int64 at a place, and all that was written before it was."""

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        return builder.load_atomic(builder.inttoptr(arguments[0], _I64.as_pointer()), "acquire", 8)

    return types.int64(types.int64), generate


@_intrinsic
def store_release(typing_context: Any, place: Any, value: Any) -> Any:
    """Write an int64 after all that was written before."""

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        builder.store_atomic(arguments[1], builder.inttoptr(arguments[0], _I64.as_pointer()), "release", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@_intrinsic
def offer_core(typing_context: Any) -> Any:
    """Let another thread run."""

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(32), [])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, _YIELD), [])
        return context.get_dummy_value()

    return types.void(), generate


@_intrinsic
def pause(typing_context: Any) -> Any:
    """Tell the processor that this is a loop that waits."""

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        if platform.machine().lower() in ("x86_64", "amd64"):
            kind = ir.FunctionType(ir.VoidType(), [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse2.pause"), [])
        return context.get_dummy_value()

    return types.void(), generate


@helper()
def barrier(meeting: Any, thread: int, n_threads: int) -> None:
    """Wait until every thread is here; what each wrote before is then seen by all."""
    barrier_after(meeting, thread, n_threads, _LOOKS)


@helper()
def barrier_after(meeting: Any, thread: int, n_threads: int, most_looks: int) -> None:
    """As `barrier`, offering the core after so many looks."""
    if n_threads == 1:
        return
    first = address(meeting)
    turn = load_acquire(first + thread * _CACHE_LINE) + 1
    store_release(first + thread * _CACHE_LINE, turn)
    for other in range(n_threads):
        looks = 0
        while load_acquire(first + other * _CACHE_LINE) < turn:
            pause()
            looks += 1
            if looks > most_looks:
                offer_core()
