"""Products of bytes, 16-bit floats and bundles in kernels against NumPy, by every way that this CPU has."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest

from fullspan.core import simd_products as products
from fullspan.core.kernels import kernel
from fullspan.core.simd import address, load_float32, load_int32, store
from fullspan.core.standing import StandingCrew, next_turn
from fullspan.core.threads import barrier, new_barrier


def kernel_of(dot: Any, n: int) -> Any:
    @kernel()
    def dots(weights: Any, x: Any, out: Any) -> None:
        total = dot(products.ints(n), load_int32(address(weights)), address(x), 8)
        products.store_each(address(out), total, 64)

    return dots


@pytest.mark.parametrize("way", products.usable_dots())
def test_every_way_gives_the_same_integers(way: str) -> None:
    """With the greatest bytes, too, which overflow 16 bits where products are added in pairs."""
    rng = np.random.default_rng(0)
    n = 3
    run = kernel_of(products.dot_by(way), n)
    for case in range(20):
        weights = rng.integers(0, 256, 64).astype(np.uint8)
        x = rng.integers(-127, 128, (n, 8)).astype(np.int8)
        if case < 2:
            weights[:], x[:] = 255, 127 if case else -127
        out = np.zeros((n, 16), np.int32)
        run(weights, x, out)
        np.testing.assert_array_equal(out, x[:, :4].astype(int) @ weights.reshape(16, 4).T.astype(int))


HALVES = np.arange(2**16, dtype=np.uint32).astype(np.uint16)


@kernel()
def widen(halves: Any, direct: Any, by_bits: Any) -> None:
    for i in range(0, len(halves), 16):
        place = address(halves) + 2 * i
        store(address(direct) + 4 * i, products.load_half(place))
        store(address(by_bits) + 4 * i, products._load_half_by_bits(place))


def test_all_float16_become_float32() -> None:
    direct, by_bits = np.zeros((2, 2**16), np.float32)
    widen(HALVES, direct, by_bits)
    np.testing.assert_array_equal(direct, HALVES.view(np.float16).astype(np.float32))
    np.testing.assert_array_equal(by_bits, direct)


@kernel()
def bundles(x: Any, out: Any) -> None:
    """One row of results for each operation."""
    vector, to = load_float32(address(x)), address(out)
    four = products.spread_each(address(x), 4, 4)
    products.store_each(to, products.multiply_add(vector, four, four * vector + np.float32(1)), 64)
    store(to + 256, products.nearest(vector))
    store(to + 320, products.neighbours(vector))
    products.scatter_float32(to + 384, vector, 4)
    products.put_float32(to + 448, products.total_of(vector))
    products.put_float32(to + 452, products.lane(vector, 5))


def test_bundles_and_lanes() -> None:
    x = np.random.default_rng(1).normal(size=16).astype(np.float32) * 8
    out = np.zeros((8, 16), np.float32)
    bundles(x, out)
    expected = x.astype(float) * x[:4, None] + (x * x[:4, None] + 1)
    np.testing.assert_allclose(out[:4], expected, rtol=1e-6, atol=1e-5)
    np.testing.assert_array_equal(out[4], np.rint(x))
    np.testing.assert_array_equal(out[5], x.reshape(8, 2)[:, ::-1].ravel())
    np.testing.assert_array_equal(out[6], x)
    np.testing.assert_allclose(out[7, :2], [x.sum(), x[5]], rtol=1e-5)


# Threads that stand by --------------------------------------------------------------------------------


@kernel()
def count_runs(thread: int, n_threads: int, orders: Any, seen: int, meeting: Any, runs: Any) -> int:
    while True:
        turn = next_turn(thread, orders, seen)
        if turn == seen or turn < 0:
            return turn
        seen = turn
        barrier(meeting, thread, n_threads)
        runs[thread] += 1
        barrier(meeting, thread, n_threads)
        if thread == 0:
            return seen


def test_a_standing_crew_runs_at_once_and_after_a_sleep() -> None:
    runs = np.zeros(3, np.int64)
    before = threading.active_count()
    crew = StandingCrew(count_runs, 3, new_barrier(3), runs)
    for number in range(1, 40):
        if number % 13 == 0:
            time.sleep(0.05)  # they go to bed
        crew.run()
        assert runs.tolist() == [number] * 3
    crew.close()
    until = time.monotonic() + 60
    while threading.active_count() > before and time.monotonic() < until:
        time.sleep(0.01)
    assert threading.active_count() == before


def test_idle_threads_take_no_time() -> None:
    """In a process of its own, whose processor time nobody else spends."""
    code = (
        "import time, numpy as np\n"
        f"import importlib.util as u; spec = u.spec_from_file_location('t', {__file__!r})\n"
        "t = u.module_from_spec(spec); spec.loader.exec_module(t)\n"
        "crew = t.StandingCrew(t.count_runs, 3, t.new_barrier(3), np.zeros(3, np.int64))\n"
        "crew.run(); time.sleep(0.5); before = time.process_time(); time.sleep(1)\n"
        "print(time.process_time() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.5  # two that spin would take 2 s
