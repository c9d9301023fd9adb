"""Time to the first token of `fullspan chat` from a cold start: a new process each time."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from benchmarks.interleave import write_results

MODEL = "smollm2-135m-instruct"
ROUNDS = 7


def main() -> None:
    """Start `fullspan chat` and stop the clock at its first character."""
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        words = ["chat", MODEL, "--message", "What is a kd-tree?"]
        process = subprocess.Popen([sys.executable, "-m", "fullspan", *words], stdout=subprocess.PIPE)
        assert process.stdout is not None
        if not process.stdout.read(1):
            raise SystemExit("fullspan chat printed nothing")
        times.append(time.perf_counter() - started)
        process.kill()
        process.wait()
    print(
        f"time to first token: {statistics.median(times):.2f} s (median of {ROUNDS}; "
        f"{min(times):.2f} to {max(times):.2f}; the first, with cold caches, {times[0]:.2f})"
    )
    write_results("first_token", {"seconds": times})


if __name__ == "__main__":
    main()
