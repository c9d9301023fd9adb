# mypy: allow-untyped-decorators, allow-untyped-calls
"""What the threads of a step share, and its attention: each token over the pages of its sequence's cache.

The work is cut by key/value heads, tiles and spans. A token of a tree sees places of the cache that do not
follow each other: those behind START are first copied together, so that its sums are a plain sequence's.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fullspan.core.kernels import helper, kernel
from fullspan.decoding.engine._attention_kernels import (
    attend_chunk,
    merge_row,
    summary_bytes,
    write_row,
)
from fullspan.decoding.engine._cell_kernels import copy_position
from fullspan.decoding.engine._layout import (
    CHUNK_BYTES,
    HEAD_DIM,
    IS_LINEAR,
    LINE,
    MOST_SPANS,
    N_HEADS,
    N_KV_HEADS,
    N_TILES,
    PAGE,
    PARTIALS_AT,
    QUERIES_AT,
    ROWS_OUT,
    SCRATCH_AT,
    SCRATCH_BYTES,
    SEQUENCE,
    START,
    TILE,
    TILE_LIMIT,
    TILE_LIMITS,
    TILE_ROWS,
    TILE_SPAN,
    TILE_TOKEN,
    TOKEN_ROW,
    TOKEN_TILE,
)


class Plan(NamedTuple):
    """What the threads of an engine share; see `_layout` for the columns.

    Attributes
    ----------
    sizes : int64 [N_SIZES]
    matrices : int64 [4 n_layers + 2, BIAS + 1]
    epsilon, scale : float32 [1]
        Of the norms; of the queries.
    asked : int64 [N_ORDERS]
    meeting : int64 [n_threads, 8]
    tokens : int64 [512, N_OF_TOKEN]
    paths : int64 [64, 64]
        Of a token in a tree: the place of its ancestor at each position behind START, itself the last.
    tiles : int64 [most tiles, N_OF_TILE]
    wanted : int64 [64]
        The tokens whose logits are computed.
    taps : int64 [n_layers]
        1 for the layers behind which the residual stream is kept.
    pages : int64 [64, most pages]
        Addresses of the pages of each sequence.
    """

    sizes: np.ndarray
    matrices: np.ndarray
    constants: np.ndarray
    asked: np.ndarray
    meeting: np.ndarray
    tokens: np.ndarray
    paths: np.ndarray
    tiles: np.ndarray
    wanted: np.ndarray
    taps: np.ndarray
    pages: np.ndarray


@helper()
def share(thread: int, n_threads: int, n: int) -> Any:
    return n * thread // n_threads, n * (thread + 1) // n_threads


@helper()
def chunk_at(p: Any, layer: int, kv: int, sequence: int, page: int) -> Any:
    """Where a chunk of keys and values stands."""
    s = p.sizes
    return p.pages[sequence, page] + CHUNK_BYTES * s[HEAD_DIM] * (s[N_KV_HEADS] * layer + kv)


# A thread's scratch: results of four products; scores; two summaries; a gathered chunk; a row of all heads.


@helper()
def scratch_of(p: Any, thread: int) -> Any:
    return p.sizes[SCRATCH_AT] + p.sizes[SCRATCH_BYTES] * thread


@helper()
def _scores(p: Any, thread: int) -> Any:
    return scratch_of(p, thread) + 4 * ROWS_OUT


@helper()
def _summary(p: Any, thread: int) -> Any:
    return _scores(p, thread) + 4 * TILE * PAGE


@helper()
def _gathered(p: Any, thread: int) -> Any:
    return _summary(p, thread) + summary_bytes(p.sizes[HEAD_DIM])


@helper()
def heads_of(p: Any, thread: int) -> Any:
    return _gathered(p, thread) + CHUNK_BYTES * p.sizes[HEAD_DIM]


def scratch_bytes(head_dim: int, n_heads: int) -> int:
    """Of one thread; whole cache lines."""
    size = 4 * ROWS_OUT + 4 * TILE * PAGE + 8 * TILE + 4 * TILE * head_dim
    size += CHUNK_BYTES * head_dim + 4 * n_heads * head_dim
    return -(-size // LINE) * LINE


@helper()
def attend_all(thread: int, n_threads: int, p: Any, layer: int) -> None:
    """Sum up this thread's share of all spans of all tiles and key/value heads."""
    n_tiles, n_kv_heads = p.asked[N_TILES], p.sizes[N_KV_HEADS]
    n_items = 0
    for tile in range(n_tiles):
        n_items += _n_spans(p.tiles[tile])
    first, last = share(thread, n_threads, n_items * n_kv_heads)
    item = 0
    for kv in range(n_kv_heads):
        for tile in range(n_tiles):
            for span in range(_n_spans(p.tiles[tile])):
                if first <= item < last:
                    _attend_span(thread, p, layer, kv, tile, span)
                item += 1


@helper()
def _n_spans(tile: Any) -> Any:
    width = PAGE * tile[TILE_SPAN]
    return (tile[TILE_LIMIT] + width - 1) // width


@helper()
def _partial(p: Any, kv: int, tile: int, span: int) -> Any:
    place = (kv * p.asked[N_TILES] + tile) * MOST_SPANS + span
    return p.sizes[PARTIALS_AT] + place * summary_bytes(p.sizes[HEAD_DIM])


@helper()
def _attend_span(thread: int, p: Any, layer: int, kv: int, tile: int, span: int) -> None:
    """Sum up a span: the first chunk in its place, the others beside it and merged."""
    s, t = p.sizes, p.tiles[tile]
    token = p.tokens[t[TILE_TOKEN]]
    queries = s[QUERIES_AT] + 4 * TILE * s[HEAD_DIM] * (kv * p.asked[N_TILES] + tile)
    sums, beside = _partial(p, kv, tile, span), _summary(p, thread)
    limits, limit = t[TILE_LIMITS:], t[TILE_LIMIT]
    begin = span * t[TILE_SPAN]
    last = (limit + PAGE - 1) // PAGE - 1
    end = min(begin + t[TILE_SPAN], last + 1)
    for c in range(begin, end):
        first = PAGE * c
        if token[IS_LINEAR] != 0 or first + PAGE <= token[START]:
            chunk = chunk_at(p, layer, kv, token[SEQUENCE], c)
            following = chunk_at(p, layer, kv, token[SEQUENCE], min(c + 1, last))
        else:
            chunk = following = _gather_chunk(thread, p, layer, kv, t[TILE_TOKEN], first, limit)
        to = sums if c == begin else beside
        attend_chunk(
            queries, chunk, following, s[HEAD_DIM], first, limits, t[TILE_ROWS], limit, _scores(p, thread), to
        )
        if c > begin:
            for row in range(t[TILE_ROWS]):
                if limits[row] > first:
                    merge_row(sums, beside, row, s[HEAD_DIM], False)


@helper()
def _gather_chunk(thread: int, p: Any, layer: int, kv: int, token: int, first: int, limit: int) -> Any:
    """Copy what a token of a tree sees, so that its ancestors stand one after the other."""
    row, head_dim = p.tokens[token], p.sizes[HEAD_DIM]
    target = _gathered(p, thread)
    for position in range(first, min(first + PAGE, limit)):
        slot = position
        if position >= row[START]:
            slot = p.paths[token, position - row[START]]
        source = chunk_at(p, layer, kv, row[SEQUENCE], slot // PAGE)
        copy_position(source, slot % PAGE, target, position - first, head_dim)
    return target


@helper()
def merge_heads(p: Any, thread: int, token: int, out: int) -> None:
    """out [n_heads, head_dim] = attention's result for a token."""
    s, row = p.sizes, p.tokens[token]
    group, total = s[N_HEADS] // s[N_KV_HEADS], _summary(p, thread)
    for head in range(s[N_HEADS]):
        at = row[TOKEN_ROW] + head % group
        tile, line = row[TOKEN_TILE] + at // TILE, at % TILE
        t = p.tiles[tile]
        for span in range(_n_spans(t)):
            if t[TILE_LIMITS + line] > PAGE * t[TILE_SPAN] * span:
                partial = _partial(p, head // group, tile, span)
                merge_row(total, partial, line, s[HEAD_DIM], span == 0)
        write_row(total, line, s[HEAD_DIM], out + 4 * s[HEAD_DIM] * head)


@kernel()
def move_positions(moves: Any, pages: Any, n_chunks: int, head_dim: int) -> None:
    """Copy keys and values within a cache, for all layers and heads.

    moves : int64 [n, 2], from and to which place; in an order in which none is overwritten before it is read
    pages : int64 [n], addresses of the cache's pages; n_chunks : chunks in a page
    """
    for i in range(len(moves)):
        source, target = moves[i, 0], moves[i, 1]
        for chunk in range(n_chunks):
            at = CHUNK_BYTES * head_dim * chunk
            from_, to = pages[source // PAGE] + at, pages[target // PAGE] + at
            copy_position(from_, source % PAGE, to, target % PAGE, head_dim)
