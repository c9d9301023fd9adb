"""The server on this machine: one stream, eight at once, and a thousand slow clients.

Through HTTP and server-sent events, with the demo's model. Times between tokens are those that a client sees.

    python -m benchmarks serving
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

MODEL = "smollm2-135m-instruct"
TOKENS = 200
CLIENTS = 8
SLOW = 1000
ROUNDS = 3


@contextmanager
def server() -> Iterator[int]:
    """The port of a server of its own process."""
    command = [sys.executable, "-m", "fullspan", "serve", MODEL, "--port", "0", "--max-waiting", "2000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().split()[2].rsplit(":", 1)[1])
        try:
            yield port
        finally:
            process.terminate()


def request(prompt: str, n_tokens: int) -> bytes:
    """A streamed completion that never ends by itself."""
    body = json.dumps(
        {
            "model": MODEL,
            "prompt": prompt,
            "max_tokens": n_tokens,
            "temperature": 0,
            "stream": True,
            "logit_bias": {"0": -100, "2": -100},
        }
    )
    head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


async def stream(
    port: int, prompt: str, n_tokens: int = TOKENS, stall: asyncio.Event | None = None
) -> list[float]:
    """When each token came; with `stall`, half of the request waits for it."""
    sent = request(prompt, n_tokens)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent[: len(sent) // 2])
    if stall is not None:
        await stall.wait()
    writer.write(sent[len(sent) // 2 :])
    times = []
    while line := await reader.readline():
        if line.startswith(b'data: {"id"'):
            times.append(time.perf_counter())
    writer.close()
    return times


async def at_once(port: int, prompts: Sequence[str]) -> tuple[float, list[float]]:
    """Tokens a second of all streams together, and the seconds between tokens."""
    started = time.perf_counter()
    found = await asyncio.gather(*(stream(port, prompt) for prompt in prompts))
    seconds = max(times[-1] for times in found) - started
    between = [float(gap) for times in found for gap in np.diff(times)]
    return len(prompts) * TOKENS / seconds, between


async def crowd(port: int) -> tuple[float, float, int]:
    """Seconds of a short answer alone and among stalled clients, and how many of those got their answer."""
    alone = await _seconds(port)
    go = asyncio.Event()
    waiting = [asyncio.ensure_future(stream(port, f"Client {i}", 2, go)) for i in range(SLOW)]
    await asyncio.sleep(3)
    among = await _seconds(port)
    go.set()
    return alone, among, sum(len(times) >= 2 for times in await asyncio.gather(*waiting))


async def _seconds(port: int) -> float:
    taken = []
    for i in range(5):
        started = time.perf_counter()
        await stream(port, f"Quick {i}", 8)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def main() -> None:
    """Print all figures."""
    prompts = [f"{i}. Once upon a time, in a town by the sea, there lived" for i in range(CLIENTS)]
    long = "word " * 1000
    with server() as port:
        asyncio.run(at_once(port, prompts))  # the first is slower
        for number in range(ROUNDS):
            one, _ = asyncio.run(at_once(port, prompts[:1]))
            many, between = asyncio.run(at_once(port, prompts))
            _, disturbed = asyncio.run(at_once(port, [*prompts, f"{number} {long}"]))
            p99, p99_disturbed = (1000 * float(np.percentile(each, 99)) for each in (between, disturbed))
            print(
                f"1 stream {one:.0f} tokens/s, {CLIENTS} streams {many:.0f} ({many / one:.2f} times), "
                f"p99 between tokens {p99:.0f} ms, beside a prompt of 1,000 tokens {p99_disturbed:.0f} ms",
                flush=True,
            )
        alone, among, n_answered = asyncio.run(crowd(port))
        print(
            f"8 tokens: {1000 * alone:.0f} ms alone, {1000 * among:.0f} ms beside {SLOW} stalled clients, "
            f"of which {n_answered} were answered"
        )


if __name__ == "__main__":
    main()
