# mypy: allow-untyped-decorators, allow-untyped-calls
"""Attention of the fused step on CPUs with AMX: scores never leave the cache.

32x32 blocks of a product take four tiles (see `_amx`), so head_dim must be a multiple of 32. Queries go in
blocks of 32 against the keys that any of them sees.

Shapes: T queries and S keys (padded to multiples of 32) of one piece, D head_dim, H heads, K key/value heads.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fullspan.core.kernels import FINITE_ANY_ORDER, helper, kernel
from fullspan.core.simd_tiles import configure_tiles, release_tiles
from fullspan.training._amx import (
    BLOCK,
    address,
    copy_rows,
    floats,
    halves,
    padded,
    product,
    put_half,
    turn,
    words,
    write_rows,
    zip_rows,
)
from fullspan.training._kernels import bits_of_float, exp, from_ordered, ordered, to_half

_CHUNK = 256  # queries whose weights are kept for the gradients of keys and values
# A score that a query does not see: its weight becomes 2^-126. Whole rows are worked on, since the remainder
# of a loop that ends anywhere is done in single steps.
_UNSEEN = np.float32(-1e30)


@helper(fastmath=FINITE_ANY_ORDER)
def _scores(q: Any, k: Any, n_keys: int, scores: Any, width: int) -> None:
    """scores [32, n_keys] = q [32, D] times the turned k [D / 2, width]; rows of all of `width` columns."""
    d = q.shape[1]
    for s in range(0, n_keys, BLOCK):
        a, b, c = address(q), address(k) + 4 * s, address(scores) + 4 * s
        product(a, 2 * d, b, 4 * width, c, 4 * width, d // BLOCK, False)


@kernel(fastmath=FINITE_ANY_ORDER)
def attend(
    qkv: Any,
    key_rows: Any,
    starts: Any,
    befores: Any,
    group: int,
    columns: Any,
    d: int,
    factor: Any,
    out: Any,
    normalisers: Any,
    first: int,
    last: int,
) -> None:
    """Softmax attention of the pieces of a shard, for the key/value heads first .. last.

    Parameters
    ----------
    qkv : halves [M, >= (H + 2 K) D]
    key_rows, starts, befores : int64
        Piece p sees the rows key_rows[starts[p] : starts[p + 1]], the first befores[p] of which are shared.
    group : int
        H / K.
    columns : (int, int)
        Where keys and values begin.
    out : halves [M, >= H D]
    normalisers : float32 [H, M]
        Receives log sum exp.
    """
    configure_tiles()
    longest = 0
    for p in range(befores.shape[0]):
        longest = max(longest, starts[p + 1] - starts[p])
    width = padded(longest)
    k, v = words(d // 2, width), words(width // 2, d)
    q, weights, scores, attended = (
        halves(BLOCK, d),
        halves(BLOCK, width),
        floats(BLOCK, width, 0),
        floats(BLOCK, d, 0),
    )
    for p in range(befores.shape[0]):
        rows, before = key_rows[starts[p] : starts[p + 1]], befores[p]
        n_all = rows.shape[0]
        for head in range(first, last):
            turn(qkv, rows, columns[0] + head * d, padded(n_all), k)
            zip_rows(qkv, rows, columns[1] + head * d, padded(n_all), v)
            for query_head in range(head * group, (head + 1) * group):
                for start in range(before, n_all, BLOCK):
                    own = rows[start : start + BLOCK]
                    n_keys = padded(start + own.shape[0])
                    copy_rows(qkv, own, query_head * d, q)
                    _scores(q, k, n_keys, scores, width)
                    _softmax(scores, start, n_keys, own, factor, weights, normalisers, query_head)
                    for j in range(0, d, BLOCK):
                        b, c = address(v) + 4 * j, address(attended) + 4 * j
                        product(address(weights), 2 * width, b, 4 * d, c, 4 * d, n_keys // BLOCK, False)
                    write_rows(attended, scores, own, query_head * d, out)
    release_tiles()


@helper(fastmath=FINITE_ANY_ORDER)
def _softmax(
    scores: Any, start: int, n_keys: int, own: Any, factor: Any, weights: Any, normalisers: Any, head: int
) -> None:
    """weights [32, n_keys] = exp(factor (scores - max)), about 0 where a query does not see; the sum stays in
    scores[:, 0], for the result is divided by it instead of the weights.
    """
    for t in range(BLOCK):
        if t >= own.shape[0]:
            for j in range(n_keys):
                weights[t, j] = np.uint16(0)
            continue
        for j in range(start + t + 1, n_keys):
            scores[t, j] = _UNSEEN
        largest = np.int32(-0x80000000)
        for j in range(n_keys):
            largest = max(largest, ordered(scores[t, j]))
        top = from_ordered(largest) * factor
        total = np.float32(0)
        for j in range(n_keys):
            value = exp(scores[t, j] * factor - top)
            total += value
            weights[t, j] = to_half(weights, value)
        normalisers[head, own[t]] = top + np.float32(math.log(total))
        scores[t, 0] = total


@kernel(fastmath=FINITE_ANY_ORDER)
def attend_backward(
    qkv: Any,
    key_rows: Any,
    starts: Any,
    befores: Any,
    group: int,
    columns: Any,
    d: int,
    factor: Any,
    d_out: Any,
    normalisers: Any,
    d_qkv: Any,
    shared: Any,
    first: int,
    last: int,
) -> None:
    """The way back of `attend`: d_qkv halves [M, >= (H + 2 K) D] from d_out halves [M, >= H D].

    shared float32 [2, K, befores.max(), D] is 0 at first; the gradients of the shared keys and values are
    collected there, so the shared piece (the first) is taken last.
    """
    configure_tiles()
    longest = 0
    for p in range(befores.shape[0]):
        longest = max(longest, starts[p + 1] - starts[p])
    width = padded(longest)
    chunk = min(_CHUNK, width)
    k, v, k_zipped = words(d // 2, width), words(d // 2, width), words(width // 2, d)
    d_k, d_v = floats(d, width, 0), floats(d, width, 0)
    weights, d_scores = words(chunk // 2, width), words(chunk // 2, width)
    q_turned, d_out_turned = halves(d, chunk), halves(d, chunk)
    for p in range(befores.shape[0] - 1, -1, -1):
        rows, before = key_rows[starts[p] : starts[p + 1]], befores[p]
        n_all = rows.shape[0]
        for head in range(first, last):
            turn(qkv, rows, columns[0] + head * d, padded(n_all), k)
            turn(qkv, rows, columns[1] + head * d, padded(n_all), v)
            zip_rows(qkv, rows, columns[0] + head * d, padded(n_all), k_zipped)
            d_k[:] = np.float32(0)
            d_v[:] = np.float32(0)
            for query_head in range(head * group, (head + 1) * group):
                for start in range(before, n_all, chunk):
                    own = rows[start : start + chunk]
                    _queries_backward(
                        qkv, d_out, query_head, own, start, factor, normalisers,
                        k, v, k_zipped, weights, d_scores, q_turned, d_out_turned, d_qkv,
                    )  # fmt: skip
                    _keys_backward(d_out_turned, weights, start, own.shape[0], d_v)
                    _keys_backward(q_turned, d_scores, start, own.shape[0], d_k)
            _write_keys(d_k, rows, before, shared[0, head], columns[0] + head * d, d_qkv)
            _write_keys(d_v, rows, before, shared[1, head], columns[1] + head * d, d_qkv)
    release_tiles()


@helper(fastmath=FINITE_ANY_ORDER)
def _queries_backward(
    qkv: Any,
    d_out: Any,
    head: int,
    own: Any,
    start: int,
    factor: Any,
    normalisers: Any,
    k: Any,
    v: Any,
    k_zipped: Any,
    weights: Any,
    d_scores: Any,
    q_turned: Any,
    d_out_turned: Any,
    d_qkv: Any,
) -> None:
    """d_q of a chunk of queries; weights and d_scores zipped, q and d_out transposed, for keys and values."""
    d, width = k_zipped.shape[1], k.shape[1]
    column = head * d
    q, d_o, rounded = halves(BLOCK, d), halves(BLOCK, d), halves(BLOCK, width)
    # Arrays of whole pages, one after the other: without a skew, the processor takes loads from one to depend
    # on stores to the other, for it compares places within a page only.
    p, d_p, d_q = floats(BLOCK, width, 0), floats(BLOCK, width, 2048), floats(BLOCK, d, 0)
    one = np.ones((BLOCK, 1), np.float32)
    for i in range(0, own.shape[0], BLOCK):
        block = own[i : i + BLOCK]
        n_keys = padded(start + i + block.shape[0])
        copy_rows(qkv, block, column, q)
        copy_rows(d_out, block, column, d_o)
        _transpose(q, q_turned, i)
        _transpose(d_o, d_out_turned, i)
        _scores(q, k, n_keys, p, width)
        _scores(d_o, v, n_keys, d_p, width)
        for t in range(BLOCK):
            if t >= block.shape[0]:
                for j in range(n_keys):
                    p[t, j] = np.float32(0)
                    d_p[t, j] = np.float32(0)
                continue
            for j in range(start + i + t + 1, n_keys):
                p[t, j] = _UNSEEN
            normaliser = normalisers[head, block[t]]
            total = np.float32(0)
            for j in range(n_keys):
                weight = exp(p[t, j] * factor - normaliser)
                p[t, j] = weight
                total += weight * d_p[t, j]
            for j in range(n_keys):
                d_p[t, j] = factor * p[t, j] * (d_p[t, j] - total)
        for t in range(BLOCK // 2):
            for j in range(n_keys):
                weights[i // 2 + t, j] = _pair(p[2 * t, j], p[2 * t + 1, j])
            for j in range(n_keys):
                d_scores[i // 2 + t, j] = _pair(d_p[2 * t, j], d_p[2 * t + 1, j])
        for t in range(BLOCK):
            for j in range(n_keys):
                rounded[t, j] = to_half(rounded, d_p[t, j])
        for j in range(0, d, BLOCK):
            b, c = address(k_zipped) + 4 * j, address(d_q) + 4 * j
            product(address(rounded), 2 * width, b, 4 * d, c, 4 * d, n_keys // BLOCK, False)
        write_rows(d_q, one, block, column, d_qkv)


@helper(fastmath=FINITE_ANY_ORDER)
def _transpose(x: Any, out: Any, column: int) -> None:
    """out[j, column + t] = x[t, j] for x halves [32, D]."""
    row = address(out) + 2 * column
    for j in range(x.shape[1]):
        for t in range(BLOCK):
            put_half(row + 2 * j * out.shape[1], t, x[t, j])


@helper(fastmath=FINITE_ANY_ORDER)
def _pair(low: Any, high: Any) -> Any:
    """Two float32 as bfloat16 in one word, rounded to nearest, ties to even."""
    a, b = bits_of_float(low), bits_of_float(high)
    one, sixteen, bias = np.uint32(1), np.uint32(16), np.uint32(0x7FFF)
    a += bias + ((a >> sixteen) & one)
    b += bias + ((b >> sixteen) & one)
    return (a >> sixteen) | (b & np.uint32(0xFFFF0000))


@helper(fastmath=FINITE_ANY_ORDER)
def _keys_backward(left: Any, right: Any, start: int, n: int, out: Any) -> None:
    """out [D, S] += left [D, T] times the zipped right [T / 2, S], where a query of the chunk sees a key."""
    d, chunk, width = left.shape[0], left.shape[1], right.shape[1]
    for s in range(0, padded(start + n), BLOCK):
        i = 0
        while padded(start + min(i + BLOCK, n)) <= s:
            i += BLOCK  # these queries come before the keys
        for j in range(0, d, BLOCK):
            a = address(left) + 2 * (j * chunk + i)
            b = address(right) + 4 * (i // 2 * width + s)
            c = address(out) + 4 * (j * width + s)
            product(a, 2 * chunk, b, 4 * width, c, 4 * width, (padded(n) - i) // BLOCK, True)


@helper(fastmath=FINITE_ANY_ORDER)
def _write_keys(gradient: Any, rows: Any, before: int, shared: Any, column: int, out: Any) -> None:
    """gradient [D, S] to the rows of out, that of shared keys to `shared` [P, D] until their own piece."""
    d = gradient.shape[0]
    for s in range(before):
        for j in range(d):
            shared[s, j] += gradient[j, s]
    collected = shared.shape[0] if before == 0 else 0
    for s in range(before, rows.shape[0]):
        row = address(out) + 2 * (rows[s] * out.shape[1] + column)
        if s < collected:
            for j in range(d):
                put_half(row, j, to_half(out, gradient[j, s] + shared[s, j]))
        else:
            for j in range(d):
                put_half(row, j, to_half(out, gradient[j, s]))
