# mypy: allow-untyped-decorators, allow-untyped-calls
"""Rows of a packed matrix times the activations of a prompt's tokens, in bfloat16 by AMX.

The rows are first unpacked into a panel: for each group of 32 columns a tile whose row k holds the columns
2 k and 2 k + 1 of the 16 rows as pairs of bfloat16. Activations stand in tiles of 16 tokens by 32 columns.
What a token gets depends on neither how many tokens there are nor where it stands among them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fullspan.core.kernels import helper
from fullspan.core.simd import load_int32, store, to_float32
from fullspan.core.simd_products import (
    bfloat16_pairs,
    load_bfloat16,
    load_half,
    multiply_add,
    store_bfloat16,
)
from fullspan.core.simd_tiles import load_tile, multiply_tiles, store_tile, zero_tile
from fullspan.decoding.engine._layout import BF16, CHUNK, GROUP, Q4, TILE_BYTES, TILE_TOKENS

_ROW = 64  # bytes of a row of a tile


@helper()
def _unpack_q4(weights: int, n_groups: int, panel: int) -> None:
    for g in range(n_groups):
        w, to = weights + 320 * g, panel + TILE_BYTES * g
        d, m = load_half(w + 256), load_half(w + 288)
        for c in range(4):
            packed = load_int32(w + 64 * c)
            for half in range(2):
                for pair in range(2):
                    shift = np.int32(16 * pair + 4 * half)
                    even = to_float32((packed >> shift) & np.int32(15))
                    odd = to_float32((packed >> (shift + np.int32(8))) & np.int32(15))
                    at = to + _ROW * (8 * half + 2 * c + pair)
                    store(at, bfloat16_pairs(multiply_add(even, d, m), multiply_add(odd, d, m)))


@helper()
def _unpack_q8(weights: int, n_groups: int, panel: int) -> None:
    for g in range(n_groups):
        d = load_half(weights + 512 * n_groups + 32 * g)
        for c in range(8):
            packed = load_int32(weights + 512 * g + 64 * c)
            for pair in range(2):
                shift = np.int32(16 * pair)
                even = to_float32(((packed >> shift) & np.int32(255)) - np.int32(128))
                odd = to_float32(((packed >> (shift + np.int32(8))) & np.int32(255)) - np.int32(128))
                store(panel + TILE_BYTES * g + _ROW * (2 * c + pair), bfloat16_pairs(even * d, odd * d))


@helper()
def _pair_bfloats(weights: int, n_groups: int, panel: int) -> None:
    for pair in range(GROUP // 2 * n_groups):
        at = weights + 64 * pair
        store(panel + _ROW * pair, bfloat16_pairs(load_bfloat16(at), load_bfloat16(at + 32)))


@helper()
def _unpack(kind: int, weights: int, n_groups: int, panel: int) -> None:
    if kind == Q4:
        _unpack_q4(weights, n_groups, panel)
    elif kind == BF16:
        _pair_bfloats(weights, n_groups, panel)
    else:
        _unpack_q8(weights, n_groups, panel)


@helper()
def multiply_by_tiles(
    kind: int,
    weights: int,
    block_bytes: int,
    n_blocks: int,
    activations: int,
    n_groups: int,
    n_tokens: int,
    panel: int,
    out: int,
) -> None:
    """out [2, 512, 16] = one or two blocks of rows times the tokens.

    Two blocks by 32 tokens take four tiles; what there is beyond the last token is multiplied too, and nobody
    reads it. panel : room for 2 n_groups tiles
    """
    across = TILE_BYTES * n_groups
    for block in range(n_blocks):
        _unpack(kind, weights + block_bytes * block, n_groups, panel + across * block)
    for token in range(0, n_tokens, 2 * TILE_TOKENS):
        x, to = activations + across * (token // TILE_TOKENS), out + _ROW * token
        zero_tile(0)
        zero_tile(1)
        zero_tile(2)
        zero_tile(3)
        for g in range(n_groups):
            at, of = x + TILE_BYTES * g, panel + TILE_BYTES * g
            load_tile(4, at, _ROW)
            load_tile(5, of, _ROW)
            load_tile(6, at + across, _ROW)
            load_tile(7, of + across, _ROW)
            multiply_tiles(0, 4, 5)
            multiply_tiles(1, 6, 5)
            multiply_tiles(2, 4, 7)
            multiply_tiles(3, 6, 7)
        store_tile(0, to, _ROW)
        store_tile(1, to + TILE_BYTES, _ROW)
        store_tile(2, to + _ROW * CHUNK, _ROW)
        store_tile(3, to + _ROW * CHUNK + TILE_BYTES, _ROW)


@helper()
def put_bfloats(first: Any, second: Any, activations: int, n_groups: int, group: int, token: int) -> None:
    """Write 32 numbers of a token into its tile."""
    tile = activations + TILE_BYTES * (n_groups * (token // TILE_TOKENS) + group)
    at = tile + _ROW * (token % TILE_TOKENS)
    store_bfloat16(at, first)
    store_bfloat16(at + 32, second)
