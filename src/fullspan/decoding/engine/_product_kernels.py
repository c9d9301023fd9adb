# mypy: allow-untyped-decorators, allow-untyped-calls
"""16 rows of a packed matrix times the activations of some tokens.

There is a product for 1, 2, 4 and 8 tokens at once. What a token gets is computed in the same order whatever
the others are: group after group, so that its numbers do not depend on how many tokens a step has.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fullspan.core.kernels import helper
from fullspan.core.simd import (
    count,
    lanes_sum,
    largest,
    load_float32,
    load_int32,
    magnitude,
    maximum,
    prefetch,
    spread_float32,
    store_bytes,
    to_float32,
    to_int32,
)
from fullspan.core.simd_products import (
    dot_bytes,
    floats,
    ints,
    load_bfloat16,
    load_half,
    multiply_add,
    nearest,
    put_float32,
    put_int32,
    scatter_float32,
    spread_each,
    spread_each_int32,
    store_each,
)
from fullspan.decoding.engine._layout import (
    ACROSS,
    BF16,
    GROUP,
    INTEGER_RECORD,
    LINE,
    Q4,
    SCALE_AT,
    SHIFT_AT,
    SUM_AT,
    TILE,
)

_AHEAD = 4096  # bytes of weights that are asked for before they are used
_NIBBLES = np.int32(0x0F0F0F0F)
_OUT = 4 * 16  # bytes of 16 results of a token


def q4_product(n: int) -> Any:
    """A product of Q4 with n tokens."""
    fetches = n <= 4

    @helper(name=f"q4_product_{n}")
    def product(weights: int, x: int, scales: int, n_groups: int, out: int) -> None:
        total = floats(n)
        for g in range(n_groups):
            w, a, s = weights + 320 * g, x + INTEGER_RECORD * g, scales + INTEGER_RECORD * g
            if fetches:
                for line in range(5):
                    prefetch(w + _AHEAD + LINE * line)
            dots, more = ints(n), ints(n)
            for c in range(4):
                packed = load_int32(w + 64 * c)
                dots = dot_bytes(dots, packed & _NIBBLES, a + 4 * c, GROUP)
                more = dot_bytes(more, (packed >> np.int32(4)) & _NIBBLES, a + 16 + 4 * c, GROUP)
            d, m = load_half(w + 256), load_half(w + 288)
            total = multiply_add(m, spread_each(s + SUM_AT, n, 4), total)
            total = multiply_add(to_float32(dots + more), spread_each(s + SCALE_AT, n, 4) * d, total)
        store_each(out, total, _OUT)

    return product


def q8_product(n: int) -> Any:
    """A product of Q8 with n tokens; the 128 that its bytes have too much is taken off the sums at first."""
    fetches = n <= 4

    @helper(name=f"q8_product_{n}")
    def product(weights: int, x: int, scales: int, n_groups: int, out: int) -> None:
        total = floats(n)
        factors = weights + 512 * n_groups
        for g in range(n_groups):
            w, a, s = weights + 512 * g, x + INTEGER_RECORD * g, scales + INTEGER_RECORD * g
            if fetches:
                for line in range(8):
                    prefetch(w + _AHEAD + LINE * line)
            dots, more = spread_each_int32(s + SHIFT_AT, n, 4), ints(n)
            for c in range(0, 8, 2):
                dots = dot_bytes(dots, load_int32(w + 64 * c), a + 4 * c, GROUP)
                more = dot_bytes(more, load_int32(w + 64 * c + 64), a + 4 * c + 4, GROUP)
            d = load_half(factors + 32 * g)
            total = multiply_add(to_float32(dots + more), spread_each(s + SCALE_AT, n, 4) * d, total)
        store_each(out, total, _OUT)

    return product


def float_product(n: int, size: int, load: Any) -> Any:
    """A product of floats of `size` bytes with n tokens, in two sums: of even and of odd columns."""

    @helper(name=f"float_product_{size}_{n}")
    def product(weights: int, x: int, n_groups: int, out: int) -> None:
        even, odd = floats(n), floats(n)
        for column in range(0, GROUP * n_groups, 2):
            w, a = weights + 16 * size * column, x + 4 * TILE * column
            prefetch(w + _AHEAD)
            even = multiply_add(load(w), spread_each(a, n, 4), even)
            odd = multiply_add(load(w + 16 * size), spread_each(a + 4 * TILE, n, 4), odd)
        store_each(out, even + odd, _OUT)

    return product


_q4_1, _q4_2, _q4_4, _q4_8 = (q4_product(n) for n in (1, 2, 4, 8))
_q8_1, _q8_2, _q8_4, _q8_8 = (q8_product(n) for n in (1, 2, 4, 8))
_bf16_1, _bf16_2, _bf16_4, _bf16_8 = (float_product(n, 2, load_bfloat16) for n in (1, 2, 4, 8))
_f32_1, _f32_2, _f32_4, _f32_8 = (float_product(n, 4, load_float32) for n in (1, 2, 4, 8))


@helper()
def multiply_integers(
    kind: int, weights: int, activations: int, tile_bytes: int, n_groups: int, n_tokens: int, out: int
) -> None:
    """out [n_tokens, 16] = the rows of a block of Q4 or Q8 times the tokens' integers."""
    done = 0
    while done < n_tokens:
        tile, within = activations + done // TILE * tile_bytes, done % TILE
        x, s, to = tile + GROUP * within, tile + 4 * within, out + _OUT * done
        left = n_tokens - done
        # Three or seven tokens take the product of four or eight, whose last results nobody reads.
        if left >= 7 and within == 0:
            if kind == Q4:
                _q4_8(weights, x, s, n_groups, to)
            else:
                _q8_8(weights, x, s, n_groups, to)
            done += 8
        elif left >= 3:
            if kind == Q4:
                _q4_4(weights, x, s, n_groups, to)
            else:
                _q8_4(weights, x, s, n_groups, to)
            done += 4
        elif left == 2:
            if kind == Q4:
                _q4_2(weights, x, s, n_groups, to)
            else:
                _q8_2(weights, x, s, n_groups, to)
            done += 2
        else:
            if kind == Q4:
                _q4_1(weights, x, s, n_groups, to)
            else:
                _q8_1(weights, x, s, n_groups, to)
            done += 1


@helper()
def multiply_floats(
    kind: int, weights: int, activations: int, tile_bytes: int, n_groups: int, n_tokens: int, out: int
) -> None:
    """As `multiply_integers`, of BF16 or F32."""
    done = 0
    while done < n_tokens:
        within = done % TILE
        x, to = activations + done // TILE * tile_bytes + 4 * within, out + _OUT * done
        left = n_tokens - done
        if left >= 7 and within == 0:
            if kind == BF16:
                _bf16_8(weights, x, n_groups, to)
            else:
                _f32_8(weights, x, n_groups, to)
            done += 8
        elif left >= 3:
            if kind == BF16:
                _bf16_4(weights, x, n_groups, to)
            else:
                _f32_4(weights, x, n_groups, to)
            done += 4
        elif left == 2:
            if kind == BF16:
                _bf16_2(weights, x, n_groups, to)
            else:
                _f32_2(weights, x, n_groups, to)
            done += 2
        else:
            if kind == BF16:
                _bf16_1(weights, x, n_groups, to)
            else:
                _f32_1(weights, x, n_groups, to)
            done += 1


@helper()
def put_integers(first: Any, second: Any, record: int, token: int) -> None:
    """Quantise 32 numbers of a token into a record: q = round(x 127 / max |x|).

    Where one of them is NaN, so is the scale.
    """
    most = largest(maximum(magnitude(first), magnitude(second)))
    scale, inverse = most / np.float32(127), np.float32(0)
    if most > 0:
        inverse = np.float32(127) / most
    if count((first != first) | (second != second)) > 0:
        scale = np.float32(np.nan)
    spread = spread_float32(inverse)
    low, high = to_int32(nearest(first * spread)), to_int32(nearest(second * spread))
    store_bytes(record + GROUP * token, low)
    store_bytes(record + GROUP * token + 16, high)
    total = np.int32(lanes_sum(low + high))
    put_float32(record + SCALE_AT + 4 * token, scale)
    put_float32(record + SUM_AT + 4 * token, scale * np.float32(total))
    put_int32(record + SHIFT_AT + 4 * token, np.int32(-128) * total)


@helper()
def put_floats(first: Any, second: Any, record: int, token: int) -> None:
    """Write 32 numbers of a token into a record."""
    scatter_float32(record + 4 * token, first, ACROSS)
    scatter_float32(record + 4 * token + 16 * ACROSS, second, ACROSS)
