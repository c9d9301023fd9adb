# mypy: allow-untyped-decorators, allow-untyped-calls
"""A block product by AMX tiles (see `core.simd_tiles`), and the packing of its operands, which is:

- *zipped*: two rows of a matrix become one row of words, for B as it stands;
- *turned*: a matrix read as words, transposed, for B = (that matrix)ᵀ.

Shapes: D head_dim; halves are bfloat16 as uint16, words uint32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fullspan.core.kernels import FINITE_ANY_ORDER, helper
from fullspan.core.simd_tiles import load_tile, multiply_tiles, store_tile, zero_tile
from fullspan.training._kernels import to_half

BLOCK = 32
_literal: Any = intrinsic(prefer_literal=True)


def _element(builder: Any, base: Any, index: Any, bits: int) -> Any:
    return builder.gep(builder.inttoptr(base, ir.IntType(bits).as_pointer()), [index])


@_literal
def half_at(typing_context: Any, base: Any, index: Any) -> Any:
    """The half number `index` after the address `base`.

    Slices of rows would count references, which costs more than the copies that are made here.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_element(builder, arguments[0], arguments[1], 16))

    return types.uint16(types.int64, types.int64), generate


@_literal
def word_at(typing_context: Any, base: Any, index: Any) -> Any:
    """The word number `index` after the address `base`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_element(builder, arguments[0], arguments[1], 32))

    return types.uint32(types.int64, types.int64), generate


@_literal
def put_half(typing_context: Any, base: Any, index: Any, value: Any) -> Any:
    """Store the half number `index` after the address `base`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[2], _element(builder, arguments[0], arguments[1], 16))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.uint16), generate


@helper(fastmath=FINITE_ANY_ORDER)
def address(x: Any) -> Any:
    """Signed, since Numba makes a float of the sum of an unsigned and a signed number."""
    return np.int64(x.ctypes.data)


@helper(fastmath=FINITE_ANY_ORDER)
def product(
    a: int, a_row: int, b: int, b_row: int, c: int, c_row: int, n_steps: int, accumulate: bool
) -> None:
    """C [32, 32] float32 (+)= A [32, 32 n_steps] bfloat16 times B of 16 n_steps packed rows of words.

    a, b, c are addresses; a_row, b_row, c_row bytes from row to row.
    """
    if accumulate:
        load_tile(0, c, c_row)
        load_tile(1, c + 64, c_row)
        load_tile(2, c + 16 * c_row, c_row)
        load_tile(3, c + 16 * c_row + 64, c_row)
    else:
        zero_tile(0)
        zero_tile(1)
        zero_tile(2)
        zero_tile(3)
    for _ in range(n_steps):
        load_tile(4, a, a_row)
        load_tile(5, a + 16 * a_row, a_row)
        load_tile(6, b, b_row)
        load_tile(7, b + 64, b_row)
        multiply_tiles(0, 4, 6)
        multiply_tiles(1, 4, 7)
        multiply_tiles(2, 5, 6)
        multiply_tiles(3, 5, 7)
        a += 64
        b += 16 * b_row
    store_tile(0, c, c_row)
    store_tile(1, c + 64, c_row)
    store_tile(2, c + 16 * c_row, c_row)
    store_tile(3, c + 16 * c_row + 64, c_row)


@helper(fastmath=FINITE_ANY_ORDER)
def _bytes(n: int, skew: int) -> Any:
    """`n` bytes that begin at a cache line, `skew` bytes later than they could."""
    raw = np.empty(n + skew + 64, np.uint8)
    start = (-raw.ctypes.data & 63) + skew
    return raw[start : start + n]


@helper(fastmath=FINITE_ANY_ORDER)
def words(n_rows: int, n_columns: int) -> Any:
    return _bytes(4 * n_rows * n_columns, 0).view(np.uint32).reshape(n_rows, n_columns)


@helper(fastmath=FINITE_ANY_ORDER)
def floats(n_rows: int, n_columns: int, skew: int) -> Any:
    return _bytes(4 * n_rows * n_columns, skew).view(np.float32).reshape(n_rows, n_columns)


@helper(fastmath=FINITE_ANY_ORDER)
def halves(n_rows: int, n_columns: int) -> Any:
    return _bytes(2 * n_rows * n_columns, 0).view(np.uint16).reshape(n_rows, n_columns)


@helper(fastmath=FINITE_ANY_ORDER)
def padded(n: int) -> int:
    return (n + BLOCK - 1) // BLOCK * BLOCK


@helper(fastmath=FINITE_ANY_ORDER)
def turn(x: Any, rows: Any, column: int, n: int, out: Any) -> None:
    """out[k, s] = the words of row rows[s] of x, from `column` on; out words [D / 2, >= n]; 0 past `rows`."""
    for s in range(n):
        if s < rows.shape[0]:
            row = address(x) + 2 * (rows[s] * x.shape[1] + column)
            for k in range(out.shape[0]):
                out[k, s] = word_at(row, k)
        else:
            for k in range(out.shape[0]):
                out[k, s] = np.uint32(0)


@helper(fastmath=FINITE_ANY_ORDER)
def zip_rows(x: Any, rows: Any, column: int, n: int, out: Any) -> None:
    """out[s, j] = (x[rows[2 s], j], x[rows[2 s + 1], j]) from `column` on; out words [>= n / 2, D]."""
    sixteen = np.uint32(16)
    for s in range(n // 2):
        t = 2 * s
        if t + 1 < rows.shape[0]:
            low = address(x) + 2 * (rows[t] * x.shape[1] + column)
            high = address(x) + 2 * (rows[t + 1] * x.shape[1] + column)
            for j in range(out.shape[1]):
                out[s, j] = np.uint32(half_at(low, j)) | (np.uint32(half_at(high, j)) << sixteen)
        elif t < rows.shape[0]:
            low = address(x) + 2 * (rows[t] * x.shape[1] + column)
            for j in range(out.shape[1]):
                out[s, j] = np.uint32(half_at(low, j))
        else:
            for j in range(out.shape[1]):
                out[s, j] = np.uint32(0)


@helper(fastmath=FINITE_ANY_ORDER)
def copy_rows(x: Any, rows: Any, column: int, out: Any) -> None:
    """out[t] = row rows[t] of x from `column` on; out halves [32, D]; 0 past `rows`."""
    for t in range(BLOCK):
        if t < rows.shape[0]:
            row = address(x) + 2 * (rows[t] * x.shape[1] + column)
            for j in range(out.shape[1]):
                out[t, j] = half_at(row, j)
        else:
            for j in range(out.shape[1]):
                out[t, j] = np.uint16(0)


@helper(fastmath=FINITE_ANY_ORDER)
def write_rows(x: Any, divisors: Any, rows: Any, column: int, out: Any) -> None:
    """Row rows[t] of out from `column` on = x[t] / divisors[t, 0]; x float32 [32, D]."""
    for t in range(rows.shape[0]):
        row = address(out) + 2 * (rows[t] * out.shape[1] + column)
        scale = np.float32(1) / divisors[t, 0]
        for j in range(x.shape[1]):
            put_half(row, j, to_half(out, x[t, j] * scale))
