# mypy: allow-untyped-decorators, allow-untyped-calls
"""The numbers of a cache: int8 with a scale for each 16 dimensions of a position, as `_layout` says."""

from __future__ import annotations

from typing import Any

import numpy as np

from fullspan.core.kernels import helper
from fullspan.core.simd import (
    count,
    largest,
    load_float32,
    magnitude,
    spread_float32,
    store_bytes,
    to_float32,
    to_int32,
)
from fullspan.core.simd_products import (
    load_signed_bytes,
    nearest,
    number_byte,
    number_float32,
    put_byte,
    put_float32,
    scatter_bytes,
)
from fullspan.decoding.engine._layout import KEY_SCALES, PAGE, VALUE_SCALES, VALUES


@helper()
def load_key(chunk: int, head_dim: int, block: int, d: int) -> Any:
    """One dimension of 16 positions' keys, without their scales."""
    return to_float32(load_signed_bytes(chunk + 16 * (head_dim * block + d)))


@helper()
def key_scales(chunk: int, head_dim: int, block: int, group: int) -> Any:
    """Of 16 positions' keys, for a group of 16 dimensions."""
    return load_float32(chunk + KEY_SCALES * head_dim + 4 * (PAGE * group + 16 * block))


@helper()
def load_value(chunk: int, head_dim: int, position: int, d: int) -> Any:
    """16 dimensions of a position's value, from d on."""
    scale = number_float32(chunk + VALUE_SCALES * head_dim + 4 * (head_dim // 16 * position + d // 16))
    numbers = to_float32(load_signed_bytes(chunk + VALUES * head_dim + head_dim * position + d))
    return numbers * spread_float32(scale)


@helper()
def _rounded(x: Any) -> Any:
    """Whole numbers up to 127 and their scale, which is NaN where one of x is."""
    most = largest(magnitude(x))
    scale, inverse = most / np.float32(127), np.float32(0)
    if most > 0:
        inverse = np.float32(127) / most
    if count(x != x) > 0:
        scale = np.float32(np.nan)
    return to_int32(nearest(x * spread_float32(inverse))), scale


@helper()
def put_key(chunk: int, head_dim: int, position: int, d: int, x: Any) -> None:
    """Write 16 dimensions of a position's key, from d on."""
    numbers, scale = _rounded(x)
    scatter_bytes(chunk + 16 * (head_dim * (position // 16) + d) + position % 16, numbers, 16)
    put_float32(chunk + KEY_SCALES * head_dim + 4 * (PAGE * (d // 16) + position), scale)


@helper()
def put_value(chunk: int, head_dim: int, position: int, d: int, x: Any) -> None:
    """Write 16 dimensions of a position's value, from d on."""
    numbers, scale = _rounded(x)
    store_bytes(chunk + VALUES * head_dim + head_dim * position + d, numbers)
    put_float32(chunk + VALUE_SCALES * head_dim + 4 * (head_dim // 16 * position + d // 16), scale)


@helper()
def copy_position(source: int, from_: int, target: int, to: int, head_dim: int) -> None:
    """Copy the key and the value of one place of a chunk to a place of another."""
    k0 = source + 16 * head_dim * (from_ // 16) + from_ % 16
    k1 = target + 16 * head_dim * (to // 16) + to % 16
    v0, v1 = source + head_dim * (VALUES + from_), target + head_dim * (VALUES + to)
    for d in range(head_dim):
        put_byte(k1 + 16 * d, number_byte(k0 + 16 * d))
        put_byte(v1 + d, number_byte(v0 + d))
    n_groups = head_dim // 16
    s0, s1 = source + KEY_SCALES * head_dim, target + KEY_SCALES * head_dim
    w0, w1 = source + VALUE_SCALES * head_dim, target + VALUE_SCALES * head_dim
    for group in range(n_groups):
        put_float32(s1 + 4 * (PAGE * group + to), number_float32(s0 + 4 * (PAGE * group + from_)))
        put_float32(w1 + 4 * (n_groups * to + group), number_float32(w0 + 4 * (n_groups * from_ + group)))
