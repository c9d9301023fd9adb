"""Contenders as processes of their own that take turns, so that neither memory nor a noisy hour is shared.

A contender is a script that calls `serve(round)`: it loads what it needs, says that it is ready, and does
one round of work each time it is asked to. `race` starts all of them, lets them take turns, and returns
what each measured.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def serve(round_: Callable[[], dict[str, float]]) -> None:
    """Do a round for each line on standard input; its figures go out as a line of JSON."""
    print(json.dumps({"ready": True}), flush=True)
    for _ in sys.stdin:
        figures = round_()
        figures["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(figures), flush=True)


def race(contenders: dict[str, list[str]], rounds: int) -> dict[str, list[dict[str, float]]]:
    """Start each contender's command and let them take turns for `rounds` rounds, after one to warm up."""
    processes = {
        name: subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for name, command in contenders.items()
    }
    try:
        for name, process in processes.items():
            _answer(name, process)
        measured: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
        for number in range(rounds + 1):
            for name, process in processes.items():
                assert process.stdin is not None
                process.stdin.write("go\n")
                process.stdin.flush()
                figures = _answer(name, process)
                if number:
                    measured[name].append(figures)
                    shown = ", ".join(f"{key} {value:,.4g}" for key, value in figures.items())
                    print(f"  round {number}/{rounds} {name}: {shown}", file=sys.stderr, flush=True)
        return measured
    finally:
        for process in processes.values():
            process.kill()
            process.wait()


def _answer(name: str, process: subprocess.Popen[str]) -> dict[str, float]:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("{"):
            return dict(json.loads(line))
    raise SystemExit(f"contender {name!r} ended early with exit code {process.wait()}")


def median(measured: list[dict[str, float]], figure: str) -> float:
    """The median of a figure over the rounds."""
    return statistics.median(row[figure] for row in measured)


def spread(measured: list[dict[str, float]], figure: str) -> str:
    """Least to most of a figure over the rounds."""
    values = [row[figure] for row in measured]
    return f"{min(values):,.4g} to {max(values):,.4g}"


def write_results(name: str, content: dict[str, Any]) -> None:
    """Keep a bench's figures as JSON."""
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{name}.json"
    file.write_text(json.dumps(content, indent=1))
    print(f"wrote {file}")
