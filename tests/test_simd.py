"""Vectors in kernels against NumPy, with AVX-512 and (in a process of its own) without; threads that meet."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest

from fullspan.core import simd
from fullspan.core.kernels import kernel
from fullspan.core.simd import address
from fullspan.core.threads import Crew, barrier, new_barrier


@kernel()
def arithmetic(a: Any, b: Any, x: Any, y: Any, ints: Any, floats: Any) -> None:
    """One row of results for each operation on 16 numbers."""
    i, j = simd.load_int32(address(a)), simd.load_int32(address(b))
    p, q = simd.load_float32(address(x)), simd.load_float32(address(y))
    out = address(ints)
    simd.store(out, i + j * np.int32(3) - np.int32(1))
    simd.store(out + 64, (i & np.int32(255)) | (j << np.int32(8)) ^ ~i)
    simd.store(out + 128, i >> np.int32(5))
    simd.store(out + 192, simd.compress(i, i > j))
    simd.store(out + 256, simd.select((p < q) & (i != j), i, j))
    simd.store(out + 320, simd.gather_int32(address(a), simd.lane_numbers() * np.int32(-4) + np.int32(60)))
    simd.store(out + 384, simd.to_int32(p * np.float32(100)))
    simd.store_where(out + 448, i, p >= q)
    simd.store_bytes(out + 512, i)
    simd.scatter_where(out + 576, (simd.lane_numbers() ^ np.int32(5)) << np.int32(2), i, p < q)
    simd.store(out + 640, simd.select(simd.mask_of_bits(np.int64(0xA5F0)), i, j))
    out = address(floats)
    simd.store(out, p / q - np.float32(2))
    simd.store(out + 64, simd.maximum(simd.floor(p), simd.minimum(q, simd.magnitude(p))))
    simd.store(out + 128, simd.gather_float32(address(x), (simd.lane_numbers() ^ np.int32(1)) << np.int32(2)))
    simd.store(out + 192, simd.unsigned_to_float32(i))
    simd.store(out + 256, simd.to_float32(i))
    simd.store(out + 320, simd.exp(p))
    floats[6, 0] = simd.largest(p)
    floats[6, 1] = simd.count(p > q)
    floats[6, 2] = simd.first_lane(p > q)
    floats[6, 3] = simd.first_lane(p != p)


@kernel()
def reduced(a: Any, limit: int) -> Any:
    """What becomes one number."""
    return simd.lanes_sum(simd.load_int32(address(a))), simd.bytes_above(address(a), limit)


def check_arithmetic(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = (rng.integers(-1000, 1000, 16).astype(np.int32) for _ in range(2))
    x, y = (rng.normal(size=16).astype(np.float32) * 10 for _ in range(2))
    ints, floats = np.zeros((11, 16), np.int32), np.zeros((7, 16), np.float32)
    arithmetic(a, b, x, y, ints, floats)
    chosen = a[a > b]
    expected = [
        a + b * 3 - 1,
        (a & 255) | ((b << 8) ^ ~a),
        (a.view(np.uint32) >> 5).view(np.int32),
        np.concatenate([chosen, np.zeros(16 - len(chosen), np.int32)]),
        np.where((x < y) & (a != b), a, b),
        a[::-1],
        (x * np.float32(100)).astype(np.int32),
        np.where(x >= y, a, 0),
    ]
    np.testing.assert_array_equal(ints[:8], expected)
    np.testing.assert_array_equal(ints[8].view(np.uint8)[:16], a.astype(np.uint8))
    scattered = np.zeros(16, np.int32)
    scattered[np.arange(16)[x < y] ^ 5] = a[x < y]
    np.testing.assert_array_equal(ints[9], scattered)
    np.testing.assert_array_equal(ints[10], np.where(0xA5F0 >> np.arange(16) & 1, a, b))
    np.testing.assert_array_equal(floats[0], x / y - np.float32(2))
    np.testing.assert_array_equal(floats[1], np.maximum(np.floor(x), np.minimum(y, abs(x))))
    np.testing.assert_array_equal(floats[2], x[np.arange(16) ^ 1])
    np.testing.assert_array_equal(floats[3], a.view(np.uint32).astype(np.float32))
    np.testing.assert_array_equal(floats[4], a.astype(np.float32))
    np.testing.assert_allclose(floats[5], np.exp(x.astype(float)), rtol=3e-7)
    huge = a * np.int32(2_000_000)
    for limit in (0, 100, 127, 128, 254, 255):  # bytes are unsigned
        total, above = reduced(huge, limit)
        assert total == huge.sum(dtype=np.int64)
        assert above == np.packbits(huge.view(np.uint8) > limit, bitorder="little").view(np.int64)[0]
    found = [x.max(), (x > y).sum(), np.flatnonzero(x > y)[0] if (x > y).any() else 16, 16]
    np.testing.assert_array_equal(floats[6, :4], np.array(found, np.float32))


@pytest.mark.parametrize("seed", range(5))
def test_operations_are_numpys(seed: int) -> None:
    check_arithmetic(seed)


def test_the_same_without_avx512() -> None:
    """Narrow vectors, on a CPU of 2003 as far as LLVM knows."""
    script = (
        "import importlib.util, numba, sys\n"
        "numba.config.CPU_NAME, numba.config.CPU_FEATURES = 'x86-64', ''\n"
        "import fullspan.core.device as device\n"
        "device.cpu_features = lambda: []\n"
        f"spec = importlib.util.spec_from_file_location('narrow', {__file__!r})\n"
        "tests = sys.modules['narrow'] = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(tests)\n"
        "assert not tests.simd.HAS_AVX512\n"
        "for seed in range(5): tests.check_arithmetic(seed)\n"
        "assert 'zmm' not in next(iter(tests.arithmetic.inspect_asm().values()))\n"
        "print('same')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "same\n", done.stderr


def test_exp_has_bounds() -> None:
    x = np.array([-1e30, -88, -87, 0, 87, 1e30] + [0] * 10, np.float32)
    floats = np.zeros((7, 16), np.float32)
    whole = np.zeros(16, np.int32)
    arithmetic(
        whole, whole, np.clip(x, -1e4, 1e4), np.ones(16, np.float32), np.zeros((11, 16), np.int32), floats
    )
    np.testing.assert_allclose(floats[5, :6], np.exp(np.clip(x[:6], -87, 87).astype(float)), rtol=3e-7)


@kernel()
def relay(thread: int, n_threads: int, meeting: Any, seen: Any, rounds: int) -> None:
    """Each thread adds up what all threads wrote in the round before."""
    for turn in range(rounds):
        total = 0
        for other in range(n_threads):
            total += seen[turn, other]
        seen[turn + 1, thread] = total + thread
        barrier(meeting, thread, n_threads)


@pytest.mark.parametrize("n_threads", [1, 2, 5])
def test_a_barrier_waits_for_all(n_threads: int) -> None:
    rounds = 20
    seen = np.zeros((rounds + 1, n_threads), np.int64)
    with Crew(n_threads) as crew:
        crew.run(relay, new_barrier(n_threads), seen, rounds)
    expected = np.zeros(n_threads, np.int64)
    for turn in range(rounds):
        expected = expected.sum() + np.arange(n_threads)
        np.testing.assert_array_equal(seen[turn + 1], expected)


def test_a_crews_error_is_raised_and_its_threads_end() -> None:
    def fail(thread: int, n_threads: int) -> None:
        if thread == 1:
            raise ValueError("thread 1 fails")

    before = threading.active_count()
    with pytest.raises(ValueError, match="thread 1 fails"), Crew(3) as crew:
        crew.run(fail)
    assert threading.active_count() == before


def test_ctrl_c_leaves_no_thread_alone_at_a_barrier() -> None:
    gate, met = threading.Barrier(2), []

    def meet(thread: int, n_threads: int) -> None:
        if thread == 1:
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)
        gate.wait(timeout=10)
        met.append(thread)

    with pytest.raises(KeyboardInterrupt), Crew(2) as crew:
        crew.run(meet)
    assert sorted(met) == [0, 1]
