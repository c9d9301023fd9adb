# mypy: allow-untyped-decorators, allow-untyped-calls
"""Attention of a prompt's tokens over their caches' pages, in bfloat16 by AMX.

A tile has 16 rows; a row is a query head of a token. Positions are gone through in blocks of 256, whose keys
and values are first unpacked for 8 tiles that follow each other. What is summed up for a tile is a softmax's
16 greatest scores, 16 sums of exp(score - greatest), and the values weighted by these, [16, head_dim]; all
float32. Blocks begin at the same positions for every token, so that no row's numbers depend on the others.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fullspan.core.kernels import helper
from fullspan.core.simd import (
    as_float32,
    lane_numbers,
    largest,
    load_float32,
    select,
    spread_float32,
    spread_int32,
    store,
    to_int32,
)
from fullspan.core.simd_products import (
    bfloat16_pairs,
    lane,
    multiply_add,
    nearest,
    number_float32,
    put_float32,
    store_bfloat16,
    total_of,
)
from fullspan.core.simd_tiles import load_tile, multiply_tiles, store_tile, zero_tile
from fullspan.decoding.engine._cell_kernels import key_scales, load_key, load_value
from fullspan.decoding.engine._context_kernels import chunk_at
from fullspan.decoding.engine._layout import (
    HEAD_DIM,
    N_HEADS,
    N_KV_HEADS,
    N_TILES,
    PAGE,
    PARTIALS_AT,
    PROMPT_AT,
    PROMPT_BLOCK,
    PROMPT_BYTES,
    QUERIES_AT,
    SEQUENCE,
    TILE_BYTES,
    TILE_LIMIT,
    TILE_LIMITS,
    TILE_ROWS,
    TILE_TOKEN,
    TILE_TOKENS,
    TOKEN_ROW,
    TOKEN_TILE,
)

_TILES_AT_ONCE = 8
_ROW = 64  # bytes of a row of a tile
_SCORES_ROW, _WEIGHTS_ROW = 4 * PROMPT_BLOCK, 2 * PROMPT_BLOCK  # bytes of a row
_SUMS, _RATIOS, _VALUES = 64, 128, 192  # where the sums, ratios of old to new and weighted values begin
_LOWEST = np.float32(-1e30)
_LOG2_E = np.float32(1.4426950408889634)


def prompt_bytes(head_dim: int) -> int:
    """Of a thread's unpacked keys and values, scores, weights and weighted values."""
    return 4 * PROMPT_BLOCK * head_dim + TILE_TOKENS * (_SCORES_ROW + _WEIGHTS_ROW + 4 * head_dim)


def prompt_summary_bytes(head_dim: int) -> int:
    """Of what is summed up for a tile."""
    return _VALUES + 4 * TILE_TOKENS * head_dim


@helper()
def _unpack_keys(chunk: int, head_dim: int, panel: int) -> None:
    """A page's keys: for each 16 positions and 32 dimensions a tile whose rows hold pairs of dimensions."""
    n_pairs = head_dim // 2
    for block in range(PAGE // 16):
        for pair in range(n_pairs):
            scales = key_scales(chunk, head_dim, block, pair // 8)
            low = load_key(chunk, head_dim, block, 2 * pair) * scales
            high = load_key(chunk, head_dim, block, 2 * pair + 1) * scales
            store(panel + _ROW * (n_pairs * block + pair), bfloat16_pairs(low, high))


@helper()
def _unpack_values(chunk: int, head_dim: int, n_seen: int, panel: int) -> None:
    """A page's values: for each 32 positions and 16 dimensions a tile whose rows hold pairs of positions.

    Positions from n_seen on are zero: nobody wrote there, and zero times what is no number is none either.
    """
    n_parts = head_dim // 16
    for pair in range(PAGE // 2):
        for part in range(n_parts):
            low = load_value(chunk, head_dim, 2 * pair, 16 * part)
            high = load_value(chunk, head_dim, 2 * pair + 1, 16 * part)
            if 2 * pair + 1 >= n_seen:
                high = spread_float32(np.float32(0))
                if 2 * pair >= n_seen:
                    low = high
            to = panel + TILE_BYTES * (pair // 16 * n_parts + part) + _ROW * (pair % 16)
            store(to, bfloat16_pairs(low, high))


@helper()
def _multiply_keys(queries: int, panel: int, head_dim: int, n_blocks: int, out: int) -> None:
    """out [16, 256] = queries keysᵀ, for an even number of blocks of 16 positions."""
    n_tiles = head_dim // 32
    for block in range(0, n_blocks, 2):
        zero_tile(0)
        zero_tile(1)
        for d in range(n_tiles):
            at = panel + TILE_BYTES * (n_tiles * block + d)
            load_tile(4, queries + TILE_BYTES * d, _ROW)
            load_tile(5, at, _ROW)
            load_tile(6, at + TILE_BYTES * n_tiles, _ROW)
            multiply_tiles(0, 4, 5)
            multiply_tiles(1, 4, 6)
        store_tile(0, out + _ROW * block, _SCORES_ROW)
        store_tile(1, out + _ROW * (block + 1), _SCORES_ROW)


@helper()
def _multiply_values(weights: int, panel: int, head_dim: int, n_blocks: int, out: int) -> None:
    """out [16, head_dim] = weights [16, 256] values, for an even number of blocks of 16 positions."""
    n_parts = head_dim // 16
    for part in range(0, n_parts, 2):
        zero_tile(0)
        zero_tile(1)
        for pair in range(n_blocks // 2):
            at = panel + TILE_BYTES * (n_parts * pair + part)
            load_tile(4, weights + _ROW * pair, _WEIGHTS_ROW)
            load_tile(5, at, _ROW)
            load_tile(6, at + TILE_BYTES, _ROW)
            multiply_tiles(0, 4, 5)
            multiply_tiles(1, 4, 6)
        store_tile(0, out + _ROW * part, 4 * head_dim)
        store_tile(1, out + _ROW * (part + 1), 4 * head_dim)


@helper()
def _exp2(x: Any) -> Any:
    """2 to the power of numbers up to 0, to three in a million; zero below 2^-126; NaN stays NaN."""
    n = nearest(x)
    r = x - n
    p = multiply_add(r, spread_float32(np.float32(0.0013333558)), spread_float32(np.float32(0.009618129)))
    p = multiply_add(p, r, spread_float32(np.float32(0.05550411)))
    p = multiply_add(p, r, spread_float32(np.float32(0.24022651)))
    p = multiply_add(p, r, spread_float32(np.float32(0.6931472)))
    p = multiply_add(p, r, spread_float32(np.float32(1)))
    power = as_float32((to_int32(n) + np.int32(127)) << np.int32(23))
    return select(x < np.float32(-126), spread_float32(np.float32(0)), p * power)


@helper()
def _larger(a: Any, b: Any) -> Any:
    """One instruction, which gives b where a is NaN."""
    return select(a > b, a, b)


@helper()
def _weigh_row(scores: int, n_seen: int, n_blocks: int, state: int, is_first: bool, weights: int) -> None:
    """Turn a row's scores into weights exp(score - greatest), zero from n_seen on; bring its state along."""
    zero = spread_float32(np.float32(0))
    full, rest = n_seen // 16, n_seen % 16
    most = spread_float32(_LOWEST)
    for block in range(full):
        most = _larger(load_float32(scores + 64 * block), most)
    seen = lane_numbers() < spread_int32(np.int32(rest))
    if rest > 0:
        most = _larger(select(seen, load_float32(scores + 64 * full), most), most)
    greatest = largest(most)
    old = greatest
    if not is_first:
        old = number_float32(state)
        greatest = max(greatest, old)
    shift = spread_float32(-greatest * _LOG2_E)
    factor = spread_float32(_LOG2_E)
    total = zero
    for block in range(full):
        weight = _exp2(multiply_add(load_float32(scores + 64 * block), factor, shift))
        store_bfloat16(weights + 32 * block, weight)
        total = total + weight
    if rest > 0:
        weight = select(seen, _exp2(multiply_add(load_float32(scores + 64 * full), factor, shift)), zero)
        store_bfloat16(weights + 32 * full, weight)
        total = total + weight
        full += 1
    for block in range(full, n_blocks):
        store_bfloat16(weights + 32 * block, zero)
    added = total_of(total)
    if not is_first:
        ratio = lane(_exp2(spread_float32((old - greatest) * _LOG2_E)), 0)
        put_float32(state + _RATIOS, ratio)
        added += number_float32(state + _SUMS) * ratio
    put_float32(state, greatest)
    put_float32(state + _SUMS, added)


@helper()
def _see_nothing(n_blocks: int, state: int, weights: int) -> None:
    """A row that has seen all of its context in the blocks before."""
    for block in range(n_blocks):
        store_bfloat16(weights + 32 * block, spread_float32(np.float32(0)))
    put_float32(state + _RATIOS, np.float32(1))


@helper()
def _attend_tile(queries: int, tile: Any, first: int, memory: int, head_dim: int, state: int) -> None:
    """Add the block of positions from `first` on to what is summed up for a tile."""
    values = memory + 2 * PROMPT_BLOCK * head_dim
    scores = values + 2 * PROMPT_BLOCK * head_dim
    weights = scores + TILE_TOKENS * _SCORES_ROW
    added = weights + TILE_TOKENS * _WEIGHTS_ROW
    n_blocks = (min(tile[TILE_LIMIT] - first, PROMPT_BLOCK) + 31) // 32 * 2
    _multiply_keys(queries, memory, head_dim, n_blocks, scores)
    for row in range(tile[TILE_ROWS]):
        n_seen = min(tile[TILE_LIMITS + row] - first, PROMPT_BLOCK)
        to = weights + _WEIGHTS_ROW * row
        if n_seen > 0:
            _weigh_row(scores + _SCORES_ROW * row, n_seen, n_blocks, state + 4 * row, first == 0, to)
        else:
            _see_nothing(n_blocks, state + 4 * row, to)
    if first == 0:
        _multiply_values(weights, values, head_dim, n_blocks, state + _VALUES)
        return
    _multiply_values(weights, values, head_dim, n_blocks, added)
    for row in range(tile[TILE_ROWS]):
        ratio = spread_float32(number_float32(state + _RATIOS + 4 * row))
        for part in range(head_dim // 16):
            at = 4 * head_dim * row + 64 * part
            old = load_float32(state + _VALUES + at)
            store(state + _VALUES + at, multiply_add(old, ratio, load_float32(added + at)))


@helper()
def _state(p: Any, kv: int, tile: int) -> Any:
    place = kv * p.asked[N_TILES] + tile
    return p.sizes[PARTIALS_AT] + place * (_VALUES + 4 * TILE_TOKENS * p.sizes[HEAD_DIM])


@helper()
def _queries(p: Any, kv: int, tile: int) -> Any:
    place = kv * p.asked[N_TILES] + tile
    return p.sizes[QUERIES_AT] + place * 2 * TILE_TOKENS * p.sizes[HEAD_DIM]


@helper()
def _attend_tiles(thread: int, p: Any, layer: int, kv: int, begin: int, end: int) -> None:
    """Sum up what tiles of one sequence see."""
    s, head_dim = p.sizes, p.sizes[HEAD_DIM]
    memory = s[PROMPT_AT] + s[PROMPT_BYTES] * thread
    sequence = p.tokens[p.tiles[begin, TILE_TOKEN], SEQUENCE]
    limit = p.tiles[end - 1, TILE_LIMIT]
    for first in range(0, limit, PROMPT_BLOCK):
        for page in range((min(limit - first, PROMPT_BLOCK) + PAGE - 1) // PAGE):
            chunk = chunk_at(p, layer, kv, sequence, first // PAGE + page)
            to = memory + 2 * PAGE * head_dim * page
            _unpack_keys(chunk, head_dim, to)
            _unpack_values(chunk, head_dim, limit - first - PAGE * page, to + 2 * PROMPT_BLOCK * head_dim)
        for tile in range(begin, end):
            if p.tiles[tile, TILE_LIMIT] > first:
                queries = _queries(p, kv, tile)
                _attend_tile(queries, p.tiles[tile], first, memory, head_dim, _state(p, kv, tile))


@helper()
def attend_prompts(thread: int, n_threads: int, p: Any, layer: int) -> None:
    """Sum up this thread's share of all tiles and key/value heads."""
    n_tiles = p.asked[N_TILES]
    n_shares = (n_tiles + _TILES_AT_ONCE - 1) // _TILES_AT_ONCE
    for item in range(thread, n_shares * p.sizes[N_KV_HEADS], n_threads):
        begin = _TILES_AT_ONCE * (item % n_shares)
        last = min(begin + _TILES_AT_ONCE, n_tiles)
        while begin < last:
            sequence, end = p.tokens[p.tiles[begin, TILE_TOKEN], SEQUENCE], begin + 1
            while end < last and p.tokens[p.tiles[end, TILE_TOKEN], SEQUENCE] == sequence:
                end += 1
            _attend_tiles(thread, p, layer, item // n_shares, begin, end)
            begin = end


@helper()
def put_query(p: Any, kv: int, at: int, tile: int, d: int, x: Any) -> None:
    """Write 16 dimensions of a query head; `at` counts the rows of `tile` and of those behind it."""
    to = _queries(p, kv, tile + at // TILE_TOKENS) + TILE_BYTES * (d // 32)
    store_bfloat16(to + _ROW * (at % TILE_TOKENS) + 2 * (d % 32), x)


@helper()
def write_heads(p: Any, token: int, out: int) -> None:
    """out [n_heads, head_dim] = attention's result for a prompt's token."""
    s, row = p.sizes, p.tokens[token]
    head_dim, group = s[HEAD_DIM], s[N_HEADS] // s[N_KV_HEADS]
    for head in range(s[N_HEADS]):
        at = row[TOKEN_ROW] + head % group
        state = _state(p, head // group, row[TOKEN_TILE] + at // TILE_TOKENS)
        line = at % TILE_TOKENS
        share = spread_float32(np.float32(1) / number_float32(state + _SUMS + 4 * line))
        for part in range(head_dim // 16):
            value = load_float32(state + _VALUES + 4 * head_dim * line + 64 * part)
            store(out + 4 * head_dim * head + 64 * part, value * share)
