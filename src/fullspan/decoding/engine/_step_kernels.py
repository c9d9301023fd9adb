# mypy: allow-untyped-decorators, allow-untyped-calls
"""One step of a Llama over up to 64 tokens, or 512 of prompts, by threads that meet between its stages.

Each number is computed by one thread in an order that depends on neither the number of threads nor on the
other tokens of the step. With one token each thread normalises and quantises for itself what it needs, which
saves a meeting; with more they share the tokens.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fullspan.core.kernels import helper, kernel
from fullspan.core.references import by_reference
from fullspan.core.simd import exp, load_float32, spread_float32, store
from fullspan.core.simd_products import (
    lane,
    load_bfloat16,
    load_half,
    multiply_add,
    neighbours,
    number_byte,
    put_float32,
    scatter_float32,
    total_of,
)
from fullspan.core.simd_tiles import configure_tiles, release_tiles
from fullspan.core.standing import next_turn
from fullspan.core.threads import barrier_after
from fullspan.decoding.engine._cell_kernels import put_key, put_value
from fullspan.decoding.engine._context_kernels import (
    attend_all,
    chunk_at,
    heads_of,
    merge_heads,
    scratch_of,
    share,
)
from fullspan.decoding.engine._layout import (
    ACROSS,
    ACTIVATIONS_AT,
    ACTIVATIONS_BYTES,
    ADDRESS,
    BF16,
    BIAS,
    BLOCK_BYTES,
    BY_TILES,
    D_FF,
    D_MODEL,
    DOWN,
    FLOAT_RECORD,
    GATE_UP,
    GIVEN,
    GROUP,
    HEAD_DIM,
    HIDDEN_AT,
    INTEGER_RECORD,
    KIND,
    LOGITS_AT,
    MOST_TOKENS,
    N_BLOCKS,
    N_GROUPS,
    N_HEADS,
    N_KV_HEADS,
    N_LAYERS,
    N_OF_LAYER,
    N_TILES,
    N_TOKENS,
    N_WANTED,
    NORMS_AT,
    OUTPUT,
    PAGE,
    PANEL_AT,
    PANEL_BYTES,
    POSITION,
    Q4,
    QKV,
    QUERIES_AT,
    RESIDUAL_AT,
    ROPE_AT,
    ROWS,
    ROWS_OUT,
    SEQUENCE,
    SLOT,
    TAPS_AT,
    TILE,
    TOKEN,
    TOKEN_ROW,
    TOKEN_TILE,
    TRUE_D_MODEL,
    VOCAB_ROWS,
)
from fullspan.decoding.engine._product_kernels import (
    multiply_floats,
    multiply_integers,
    put_floats,
    put_integers,
)
from fullspan.decoding.engine._prompt_kernels import attend_prompts, put_query, write_heads
from fullspan.decoding.engine._tile_kernels import multiply_by_tiles, put_bfloats

_LOOKS = 300  # at a meeting, before a thread offers its core


@helper()
def _own_blocks(thread: int, n_threads: int, p: Any, n_blocks: int) -> Any:
    """A thread's first block of rows, the one behind its last, and how many it multiplies at once.

    Two blocks share the tiles of activations that a prompt's products load.
    """
    at_once = 2 if p.asked[BY_TILES] != 0 else 1
    first, last = share(thread, n_threads, (n_blocks + at_once - 1) // at_once)
    return at_once * first, min(at_once * last, n_blocks), at_once


@helper()
def _integer_weight(kind: int, block: int, n_groups: int, row: int, column: int) -> Any:
    """One weight of a block of Q4 or Q8."""
    g, j = column // GROUP, column % GROUP
    if kind == Q4:
        record = block + 320 * g
        byte = np.int64(number_byte(record + 64 * (j % 16 // 4) + 4 * row + j % 4))
        q = (byte & 15) if j < 16 else ((byte >> 4) & 15)
        d, m = lane(load_half(record + 256), row), lane(load_half(record + 288), row)
        return np.float32(q) * d + m
    byte = np.int64(number_byte(block + 512 * g + 64 * (j // 4) + 4 * row + j % 4))
    return np.float32((byte & 255) - 128) * lane(load_half(block + 512 * n_groups + 32 * g), row)


@helper()
def _float_weight(kind: int, block: int, n_groups: int, row: int, column: int) -> Any:
    """One weight of a block of BF16 or F32."""
    if kind == BF16:
        return lane(load_bfloat16(block + 32 * column), row)
    return lane(load_float32(block + 64 * column), row)


@helper()
def _place_head(p: Any, layer: int, row: int, n: int, out: int) -> None:
    """Rotate 16 rows of queries or keys and put them, or values, where attention finds them."""
    s = p.sizes
    d, head = row % s[HEAD_DIM], row // s[HEAD_DIM]
    group = s[N_HEADS] // s[N_KV_HEADS]
    kind = 0 if head < s[N_HEADS] else (1 if head < s[N_HEADS] + s[N_KV_HEADS] else 2)
    kv = head // group if kind == 0 else (head - s[N_HEADS]) % s[N_KV_HEADS]
    for token in range(n):
        row_of = p.tokens[token]
        x = load_float32(out + 64 * token)
        if kind < 2:
            cos = s[ROPE_AT] + 8 * s[HEAD_DIM] * row_of[POSITION] + 4 * d
            sin = cos + 4 * s[HEAD_DIM]
            x = multiply_add(neighbours(x), load_float32(sin), x * load_float32(cos))
        if kind == 0 and p.asked[BY_TILES] != 0:
            at = row_of[TOKEN_ROW] + head % group
            put_query(p, kv, at, row_of[TOKEN_TILE], d, x * spread_float32(p.constants[1]))
        elif kind == 0:
            at = row_of[TOKEN_ROW] + head % group
            tile = kv * p.asked[N_TILES] + row_of[TOKEN_TILE] + at // TILE
            to = s[QUERIES_AT] + 4 * TILE * (tile * s[HEAD_DIM] + d) + 4 * (at % TILE)
            scatter_float32(to, x * spread_float32(p.constants[1]), ACROSS)
        else:
            chunk = chunk_at(p, layer, kv, row_of[SEQUENCE], row_of[SLOT] // PAGE)
            at = row_of[SLOT] % PAGE
            if kind == 1:
                put_key(chunk, s[HEAD_DIM], at, d, x)
            else:
                put_value(chunk, s[HEAD_DIM], at, d, x)


def _step_of(family: str, multiply: Any, put: Any, weight: Any, record: int) -> Any:
    """A thread's part of a step whose matrices are all integers, or all floats."""

    def part(function: Any) -> Any:
        return helper(name=f"{function.__name__}_{family}")(function)

    @part
    def product(
        thread: int, p: Any, matrix: Any, block: int, n_blocks: int, activations: int, n: int, out: int
    ) -> None:
        """out [n_blocks, 512, 16] = blocks of rows times the activations of n tokens, with the bias."""
        weights = matrix[ADDRESS] + matrix[BLOCK_BYTES] * block
        kind, n_groups = matrix[KIND], matrix[N_GROUPS]
        if p.asked[BY_TILES] != 0:
            panel = p.sizes[PANEL_AT] + p.sizes[PANEL_BYTES] * thread
            multiply_by_tiles(
                kind, weights, matrix[BLOCK_BYTES], n_blocks, activations, n_groups, n, panel, out
            )
        for i in range(n_blocks):
            to = out + ROWS_OUT * i
            if p.asked[BY_TILES] == 0:
                at = weights + matrix[BLOCK_BYTES] * i
                multiply(kind, at, activations, record * n_groups, n_groups, n, to)
            if matrix[BIAS] != 0:
                bias = load_float32(matrix[BIAS] + 64 * (block + i))
                for token in range(n):
                    store(to + 64 * token, load_float32(to + 64 * token) + bias)

    @part
    def put_group(
        p: Any, first: Any, second: Any, activations: int, n_groups: int, group: int, token: int
    ) -> None:
        """Put 32 numbers of a token into the tiles of activations."""
        if p.asked[BY_TILES] != 0:
            put_bfloats(first, second, activations, n_groups, group, token)
        else:
            put(first, second, activations + record * (token // TILE * n_groups + group), token % TILE)

    @part
    def quantise(p: Any, x: int, n_groups: int, activations: int, token: int) -> None:
        """Put a row of floats into the tiles of activations."""
        for g in range(n_groups):
            at = x + 4 * GROUP * g
            put_group(p, load_float32(at), load_float32(at + 64), activations, n_groups, g, token)

    @part
    def normalise(p: Any, x: int, norm: int, activations: int, token: int) -> None:
        """Put x / sqrt(mean(x²) + epsilon) times the norm's weights into the tiles of activations."""
        n_groups = p.sizes[D_MODEL] // GROUP
        weights = p.sizes[NORMS_AT] + 4 * p.sizes[D_MODEL] * norm
        first, second = spread_float32(np.float32(0)), spread_float32(np.float32(0))
        for g in range(n_groups):
            low, high = load_float32(x + 4 * GROUP * g), load_float32(x + 4 * GROUP * g + 64)
            first, second = multiply_add(low, low, first), multiply_add(high, high, second)
        mean = total_of(first + second) / np.float32(p.sizes[TRUE_D_MODEL])
        factor = spread_float32(np.float32(1) / np.float32(math.sqrt(mean + p.constants[0])))
        for g in range(n_groups):
            at, w = x + 4 * GROUP * g, weights + 4 * GROUP * g
            low = load_float32(at) * factor * load_float32(w)
            high = load_float32(at + 64) * factor * load_float32(w + 64)
            put_group(p, low, high, activations, n_groups, g, token)

    @part
    def normalise_all(thread: int, n_threads: int, p: Any, norm: int, n: int) -> Any:
        """Normalise the tokens; where this thread finds the activations."""
        x, shared = p.sizes[RESIDUAL_AT], p.sizes[ACTIVATIONS_AT]
        if n == 1 and p.asked[BY_TILES] == 0:
            own = shared + thread * p.sizes[ACTIVATIONS_BYTES]
            normalise(p, x, norm, own, 0)
            return own
        for token in range(thread, n, n_threads):
            normalise(p, x + 4 * p.sizes[D_MODEL] * token, norm, shared, token)
        barrier_after(p.meeting, thread, n_threads, _LOOKS)
        return shared

    @part
    def embed(thread: int, n_threads: int, p: Any, n: int) -> None:
        matrix, d_model = p.matrices[len(p.matrices) - 1], p.sizes[D_MODEL]
        for token in range(thread, n, n_threads):
            id_ = p.tokens[token, TOKEN]
            block = matrix[ADDRESS] + matrix[BLOCK_BYTES] * (id_ // ROWS)
            for column in range(d_model):
                value = weight(matrix[KIND], block, matrix[N_GROUPS], id_ % ROWS, column)
                put_float32(p.sizes[RESIDUAL_AT] + 4 * (d_model * token + column), value)

    @part
    def project_in(thread: int, n_threads: int, p: Any, layer: int, n: int, activations: int) -> None:
        """Queries, keys and values."""
        matrix = p.matrices[N_OF_LAYER * layer + QKV]
        out = scratch_of(p, thread)
        first, last, at_once = _own_blocks(thread, n_threads, p, matrix[N_BLOCKS])
        for block in range(first, last, at_once):
            n_blocks = min(at_once, last - block)
            product(thread, p, matrix, block, n_blocks, activations, n, out)
            for i in range(n_blocks):
                _place_head(p, layer, ROWS * (block + i), n, out + ROWS_OUT * i)

    @part
    def project_out(thread: int, n_threads: int, p: Any, which: int, n: int, activations: int) -> None:
        """Add a product to the residual stream."""
        matrix = p.matrices[which]
        out, x = scratch_of(p, thread), p.sizes[RESIDUAL_AT]
        first, last, at_once = _own_blocks(thread, n_threads, p, matrix[N_BLOCKS])
        for block in range(first, last, at_once):
            n_blocks = min(at_once, last - block)
            product(thread, p, matrix, block, n_blocks, activations, n, out)
            for token in range(n):
                for i in range(n_blocks):
                    at = x + 4 * p.sizes[D_MODEL] * token + 64 * (block + i)
                    store(at, load_float32(at) + load_float32(out + 64 * token + ROWS_OUT * i))

    @part
    def feed_forward(thread: int, n_threads: int, p: Any, layer: int, n: int, activations: int) -> None:
        """silu(gate) up, put into the tiles that the last product reads; 32 rows of each at a time."""
        matrix = p.matrices[N_OF_LAYER * layer + GATE_UP]
        n_units, out = p.sizes[D_FF] // GROUP, scratch_of(p, thread)
        first, last = share(thread, n_threads, n_units)
        for unit in range(first, last):
            product(thread, p, matrix, 4 * unit, 2, activations, n, out)
            product(thread, p, matrix, 4 * unit + 2, 2, activations, n, out + 2 * ROWS_OUT)
            for token in range(n):
                at = out + 64 * token
                low = _silu(load_float32(at)) * load_float32(at + 2 * ROWS_OUT)
                high = _silu(load_float32(at + ROWS_OUT)) * load_float32(at + 3 * ROWS_OUT)
                put_group(p, low, high, p.sizes[HIDDEN_AT], n_units, unit, token)

    @part
    def gather_heads(thread: int, n_threads: int, p: Any, n: int) -> Any:
        """Merge the spans of all heads and put the result into activations; where this thread finds them."""
        n_groups = p.sizes[N_HEADS] * p.sizes[HEAD_DIM] // GROUP
        shared = p.sizes[ACTIVATIONS_AT]
        row = heads_of(p, thread)
        if n == 1 and p.asked[BY_TILES] == 0:
            own = shared + thread * p.sizes[ACTIVATIONS_BYTES]
            merge_heads(p, thread, 0, row)
            quantise(p, row, n_groups, own, 0)
            return own
        for token in range(thread, n, n_threads):
            if p.asked[BY_TILES] != 0:
                write_heads(p, token, row)
            else:
                merge_heads(p, thread, token, row)
            quantise(p, row, n_groups, shared, token)
        barrier_after(p.meeting, thread, n_threads, _LOOKS)
        return shared

    @part
    def finish(thread: int, n_threads: int, p: Any) -> None:
        """Logits of the wanted tokens."""
        n = p.asked[N_WANTED]
        if n == 0:
            return
        s, norm = p.sizes, 2 * p.sizes[N_LAYERS]
        matrix = p.matrices[N_OF_LAYER * s[N_LAYERS]]
        activations, out = s[ACTIVATIONS_AT], scratch_of(p, thread)
        if n == 1 and p.asked[BY_TILES] == 0:
            activations += thread * s[ACTIVATIONS_BYTES]
            normalise(p, s[RESIDUAL_AT] + 4 * s[D_MODEL] * p.wanted[0], norm, activations, 0)
        else:
            for i in range(thread, n, n_threads):
                normalise(p, s[RESIDUAL_AT] + 4 * s[D_MODEL] * p.wanted[i], norm, activations, i)
            barrier_after(p.meeting, thread, n_threads, _LOOKS)
        first, last, at_once = _own_blocks(thread, n_threads, p, matrix[N_BLOCKS])
        for block in range(first, last, at_once):
            n_blocks = min(at_once, last - block)
            product(thread, p, matrix, block, n_blocks, activations, n, out)
            for token in range(n):
                for i in range(n_blocks):
                    to = s[LOGITS_AT] + 4 * s[VOCAB_ROWS] * token + 64 * (block + i)
                    store(to, load_float32(out + 64 * token + ROWS_OUT * i))

    @part
    def whole(thread: int, n_threads: int, p: Any) -> None:
        n = p.asked[N_TOKENS]
        if p.asked[BY_TILES] != 0:
            configure_tiles()
        if p.asked[GIVEN] == 0:
            embed(thread, n_threads, p, n)
        barrier_after(p.meeting, thread, n_threads, _LOOKS)
        for layer in range(p.sizes[N_LAYERS]):
            activations = normalise_all(thread, n_threads, p, 2 * layer, n)
            project_in(thread, n_threads, p, layer, n, activations)
            barrier_after(p.meeting, thread, n_threads, _LOOKS)
            if p.asked[BY_TILES] != 0:
                attend_prompts(thread, n_threads, p, layer)
            else:
                attend_all(thread, n_threads, p, layer)
            barrier_after(p.meeting, thread, n_threads, _LOOKS)
            activations = gather_heads(thread, n_threads, p, n)
            project_out(thread, n_threads, p, N_OF_LAYER * layer + OUTPUT, n, activations)
            barrier_after(p.meeting, thread, n_threads, _LOOKS)
            activations = normalise_all(thread, n_threads, p, 2 * layer + 1, n)
            feed_forward(thread, n_threads, p, layer, n, activations)
            barrier_after(p.meeting, thread, n_threads, _LOOKS)
            project_out(thread, n_threads, p, N_OF_LAYER * layer + DOWN, n, p.sizes[HIDDEN_AT])
            barrier_after(p.meeting, thread, n_threads, _LOOKS)
            if p.taps[layer] != 0:
                _keep_stream(thread, n_threads, p, layer, n)
        finish(thread, n_threads, p)
        if p.asked[BY_TILES] != 0:
            release_tiles()
        barrier_after(p.meeting, thread, n_threads, _LOOKS)

    return whole


@helper()
def _keep_stream(thread: int, n_threads: int, p: Any, layer: int, n: int) -> None:
    """Copy the residual stream behind a layer; it changes again only after the next meeting."""
    s = p.sizes
    to = s[TAPS_AT] + 4 * MOST_TOKENS * s[D_MODEL] * layer
    first, last = share(thread, n_threads, n * s[D_MODEL] // ROWS)
    for i in range(first, last):
        store(to + 64 * i, load_float32(s[RESIDUAL_AT] + 64 * i))


@helper()
def _silu(x: Any) -> Any:
    return x / (exp(x * np.float32(-1)) + np.float32(1))


_with_integers = _step_of("integers", multiply_integers, put_integers, _integer_weight, INTEGER_RECORD)
_with_floats = _step_of("floats", multiply_floats, put_floats, _float_weight, FLOAT_RECORD)


@kernel(counts_references=False)
def step_integers(thread: int, n_threads: int, orders: Any, seen: int, plan: Any) -> Any:
    """For a `StandingCrew`: thread 0 does one step, the others all that come; matrices of Q4 and Q8."""
    p = by_reference(plan)
    while True:
        turn = next_turn(thread, orders, seen)
        if turn == seen or turn < 0:
            return turn
        seen = turn
        _with_integers(thread, n_threads, p)
        if thread == 0:
            return seen


@kernel(counts_references=False)
def step_floats(thread: int, n_threads: int, orders: Any, seen: int, plan: Any) -> Any:
    """As `step_integers`, for matrices of BF16 and F32."""
    p = by_reference(plan)
    while True:
        turn = next_turn(thread, orders, seen)
        if turn == seen or turn < 0:
            return turn
        seen = turn
        _with_floats(thread, n_threads, p)
        if thread == 0:
            return seen
