"""Fitting over data in parts: each part gives statistics, their sum decides the update, round after round.

A worker holds one part of the data and keeps what it needs between rounds (bins, scores, leaf numbers). The
driver sees nothing but sums of statistics, so a fit does not care where its parts are. Sums are taken in the
order of the parts; where statistics are integers, or the number of parts does not change, a fit is the same
wherever the parts are.
"""

from __future__ import annotations

import functools
import multiprocessing
import operator
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Protocol, Self

from fullspan.core.errors import FullspanError

Statistics = Any
"""What a worker's method returns: a NumPy array or a number, or a tuple of those."""


class Partitions(Protocol):
    """Parts of a data set, each with a worker that stays beside it."""

    def start(self, make_worker: Callable[..., Any], *arguments: Any) -> None:
        """Make each part's worker: ``make_worker(part, *arguments)``."""

    def call(self, method: str, *arguments: Any) -> list[Any]:
        """What ``worker.method(*arguments)`` returns for each part, in the order of the parts."""


def total(partitions: Partitions, method: str, *arguments: Any) -> Statistics:
    """The sum over all parts of the statistics that a worker's method gives.

    Examples
    --------
    >>> import numpy as np
    >>> class Mean:
    ...     def __init__(self, part):
    ...         self.part = part
    ...     def count_and_sum(self):
    ...         return len(self.part), self.part.sum(axis=0)
    >>> with LocalPartitions([np.ones((2, 3)), np.zeros((4, 3))]) as parts:
    ...     parts.start(Mean)
    ...     n, x = total(parts, "count_and_sum")
    >>> n, x
    (6, array([2., 2., 2.]))
    """
    found = partitions.call(method, *arguments)
    if isinstance(found[0], tuple):
        return tuple(functools.reduce(operator.add, column) for column in zip(*found, strict=True))
    return functools.reduce(operator.add, found)


class LocalPartitions:
    """All parts in this process, one after the other.

    Parameters
    ----------
    parts : sequence
        At least one; what a part is, the workers know.
    """

    def __init__(self, parts: Sequence[Any]) -> None:
        self._parts = _some(parts)
        self._workers: list[Any] = []

    def start(self, make_worker: Callable[..., Any], *arguments: Any) -> None:
        self._workers = [make_worker(part, *arguments) for part in self._parts]

    def call(self, method: str, *arguments: Any) -> list[Any]:
        return [getattr(worker, method)(*arguments) for worker in self._workers]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._workers = []


class ProcessPartitions:
    """Each part in a process of its own; use it in a ``with`` block, which ends the processes.

    Parameters
    ----------
    parts : sequence
        Sent to the processes once, at the start.

    Raises
    ------
    FullspanError
        If a worker fails; the message has its error.
    """

    def __init__(self, parts: Sequence[Any]) -> None:
        self._parts = _some(parts)
        self._pipes: list[Connection] = []
        self._processes: list[Any] = []

    def start(self, make_worker: Callable[..., Any], *arguments: Any) -> None:
        if not self._processes:
            # A fresh interpreter: a fork would copy the locks of threads that do not exist in it.
            context = multiprocessing.get_context("spawn")
            for _ in self._parts:
                here, there = context.Pipe()
                process = context.Process(target=_serve, args=(there,), daemon=True)
                process.start()
                there.close()
                self._pipes.append(here)
                self._processes.append(process)
        self._all([(make_worker, part, arguments) for part in self._parts])

    def call(self, method: str, *arguments: Any) -> list[Any]:
        return self._all([(method, None, arguments)] * len(self._parts))

    def _all(self, requests: Sequence[tuple[Any, Any, tuple[Any, ...]]]) -> list[Any]:
        for pipe, request in zip(self._pipes, requests, strict=True):
            pipe.send(request)
        answers = []
        for number, pipe in enumerate(self._pipes):
            try:
                answer, error = pipe.recv()
            except EOFError:
                answer, error = None, "its process ended"
            if error is not None:
                raise FullspanError(f"part {number} of {len(self._pipes)} failed: {error}")
            answers.append(answer)
        return answers

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            if error is not None:
                process.terminate()
            process.join()
        self._pipes, self._processes = [], []


def _some(parts: Sequence[Any]) -> Sequence[Any]:
    if len(parts) == 0:
        raise FullspanError("there are no parts to fit on", "give at least one part of the data")
    return parts


def _serve(pipe: Connection) -> None:
    """Answer requests until the driver closes its end."""
    worker: Any = None
    while True:
        try:
            target, part, arguments = pipe.recv()
        except EOFError:
            return
        try:
            if callable(target):
                worker, answer = target(part, *arguments), None
            else:
                answer = getattr(worker, target)(*arguments)
            pipe.send((answer, None))
        except Exception as error:
            pipe.send((None, f"{type(error).__name__}: {error}"))
