"""Progress of long work: a bar with rate and time left on a terminal, sparse lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

# Seconds between lines when the output is a file or a pipe.
_LINE_EVERY = 10.0


@contextlib.contextmanager
def progress(total: int | None, description: str, unit: str = "") -> Iterator[Callable[..., None]]:
    """Show how far a job is, on standard error.

    Parameters
    ----------
    total : int or None
        How many units there are; None when it cannot be known.
    description : str
        What is being done, as in "tokenising".
    unit : str
        What is counted, as in "examples".

    Yields
    ------
    callable
        ``advance(n=1, note="")``: `n` more units are done; `note` is shown beside the bar.

    Examples
    --------
    >>> with progress(2, "counting", unit="sheep") as advance:
    ...     advance()
    ...     advance(note="done")
    """
    show = _bar if sys.stderr.isatty() else _lines
    with show(total, description, unit) as advance:
        yield advance


@contextlib.contextmanager
def _bar(total: int | None, description: str, unit: str) -> Iterator[Callable[..., None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}"),
    ]
    started = time.monotonic()
    done = 0
    with Progress(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task(description, total=total, note="", rate="")

        def advance(n: int = 1, note: str = "") -> None:
            nonlocal done
            done += n
            rate = f"{_rate(done, started)} {unit}/s".replace(" /s", "/s")
            if note:
                bars.update(task, advance=n, rate=rate, note=note)
            else:
                bars.update(task, advance=n, rate=rate)

        yield advance


@contextlib.contextmanager
def _lines(total: int | None, description: str, unit: str) -> Iterator[Callable[..., None]]:
    started = last = time.monotonic()
    done = 0

    def advance(n: int = 1, note: str = "") -> None:
        nonlocal done, last
        done += n
        now = time.monotonic()
        if now - last >= _LINE_EVERY:
            last = now
            of = f"/{total}" if total is not None else ""
            left = f", {(now - started) / done * (total - done):.0f} s left" if total and done else ""
            rate = _rate(done, started)
            print(
                f"{description}: {done}{of} {unit} ({rate}/s{left}) {note}".rstrip(),
                file=sys.stderr,
                flush=True,
            )

    yield advance


def _rate(done: int, started: float) -> str:
    rate = done / max(time.monotonic() - started, 1e-9)
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2f}"
