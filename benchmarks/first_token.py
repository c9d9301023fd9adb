"""A cold start: time to the first token and peak memory, a new process each time, llama.cpp in turn.

`fullspan chat` answers a question; llama.cpp, through llama-cpp-python where it is installed, completes the
same chat from the same file, once with a context of 512 tokens, and once with all of the model's, which
fullspan's always is. Memory is the largest resident set until the end, with interpreter and tokenizer.

    python -m benchmarks first_token
"""

from __future__ import annotations

import importlib.util
import os
import statistics
import subprocess
import sys
import time

from benchmarks.interleave import write_results
from fullspan.checkpoints.store import find_model

MODEL = "smollm2-135m-instruct"
QUESTION = "What is a kd-tree?"
TOKENS = 64
PEERS = {"llama.cpp (512)": "512", "llama.cpp (whole context)": "0"}
ROUNDS = 7

LLAMA_CPP = """
import sys
import llama_cpp

model = llama_cpp.Llama(sys.argv[1], n_ctx=int(sys.argv[4]), verbose=False)
turns = [{"role": "user", "content": sys.argv[2]}]
for part in model.create_chat_completion(turns, max_tokens=int(sys.argv[3]), temperature=0, stream=True):
    print(part["choices"][0]["delta"].get("content", ""), end="", flush=True)
"""


def cold_start(words: list[str]) -> tuple[float, float]:
    """Seconds to the first character, and the peak memory in MiB."""
    started = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.PIPE)
    assert process.stdout is not None
    if not process.stdout.read(1):
        raise SystemExit(f"{words[:3]} printed nothing")
    seconds = time.perf_counter() - started
    process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{words[:3]} failed")
    return seconds, used.ru_maxrss / 1024


def main() -> None:
    """Start each program anew in each round."""
    words = ["chat", MODEL, "--message", QUESTION, "--max-tokens", str(TOKENS)]
    contenders = {"fullspan": [sys.executable, "-m", "fullspan", *words]}
    if importlib.util.find_spec("llama_cpp") is not None:
        arguments = [str(find_model(MODEL)), QUESTION, str(TOKENS)]
        for name, context in PEERS.items():
            contenders[name] = [sys.executable, "-c", LLAMA_CPP, *arguments, context]
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for _ in range(ROUNDS):
        for name, command in contenders.items():
            found[name].append(cold_start(command))
    for name, figures in found.items():
        times, sizes = zip(*figures, strict=True)
        print(
            f"{name}: first token after {statistics.median(times):.2f} s (median of {ROUNDS}; "
            f"{min(times):.2f} to {max(times):.2f}; the first, with cold caches, {times[0]:.2f}), "
            f"peak {statistics.median(sizes):.0f} MiB"
        )
    medians = {
        name: [statistics.median(column) for column in zip(*rows, strict=True)]
        for name, rows in found.items()
    }
    ours = medians.pop("fullspan")
    for name, theirs in medians.items():
        print(f"fullspan over {name}: time {ours[0] / theirs[0]:.2f}, memory {ours[1] / theirs[1]:.2f}")
    write_results("first_token", found)


if __name__ == "__main__":
    main()
