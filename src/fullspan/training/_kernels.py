"""Row kernels of the fused training step, compiled by Numba.

Everything that is not a matrix product happens here, each thing in one pass over memory. The kernels take
"half" arrays in one of two dtypes: uint16, whose values are the bits of bfloat16 (Numba has no such type),
or float32. Sums are float32. Every kernel works on the rows ``first <= row < last`` and releases the GIL,
so a caller can give parts of the rows to several threads. All arrays are C-contiguous: a kernel takes the
whole buffer and the number of columns that it works on, since strides stop LLVM from vectorising. So does
an index ``start + j``, which Numba takes to be possibly negative: parts of a row are sliced first.

Shapes: M rows (tokens), D d_model, F d_ff, H heads, V vocab_size.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fullspan.core.kernels import FINITE_ANY_ORDER, helper, kernel

_intrinsic: Any = intrinsic  # untyped


def _use_full_vectors(builder: Any) -> None:
    """Let LLVM use 512-bit vectors where the CPU has them; it prefers 256 for the sake of older ones."""
    # llvmlite's `add` refuses attributes that it does not know.
    set.add(builder.function.attributes, '"prefer-vector-width"="512"')


@_intrinsic
def wide(typing_context: Any, value: Any) -> Any:
    """Float32 value of a half: bfloat16 bits become the upper half of a float32."""
    if value == types.float32:
        return types.float32(types.float32), lambda context, builder, signature, arguments: arguments[0]
    if value != types.uint16:
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _use_full_vectors(builder)
        word = builder.zext(arguments[0], ir.IntType(32))
        return builder.bitcast(builder.shl(word, ir.Constant(ir.IntType(32), 16)), ir.FloatType())

    return types.float32(types.uint16), generate


@_intrinsic
def to_half(typing_context: Any, like: Any, value: Any) -> Any:
    """`value` as an element of the array `like`; to bfloat16 it is rounded to nearest, ties to even."""
    if not isinstance(like, types.Array) or value != types.float32:
        return None
    if like.dtype == types.float32:
        return types.float32(like, value), lambda context, builder, signature, arguments: arguments[1]

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _use_full_vectors(builder)
        word, constant = ir.IntType(32), ir.Constant
        bits = builder.bitcast(arguments[1], word)
        sixteen = constant(word, 16)
        odd = builder.and_(builder.lshr(bits, sixteen), constant(word, 1))
        rounded = builder.add(builder.add(bits, constant(word, 0x7FFF)), odd)
        return builder.trunc(builder.lshr(rounded, sixteen), ir.IntType(16))

    return types.uint16(like, value), generate


@_intrinsic
def _float_of_bits(typing_context: Any, bits: Any) -> Any:
    """The float32 with the bits of an int32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate


@_intrinsic
def bits_of_float(typing_context: Any, value: Any) -> Any:
    """The bits of a float32 as uint32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.uint32(types.float32), generate


@helper(fastmath=FINITE_ANY_ORDER)
def exp(x: Any) -> Any:
    """exp(x) of a float32 to about 2e-7; vectorises, which the library's does not.

    2^t = 2^n 2^f with f in [-1/2, 1/2] and a polynomial of degree 6; values below 2^-126 become that.
    """
    t = min(max(x * np.float32(1.4426950408889634), np.float32(-126.0)), np.float32(127.0))
    n = np.floor(t + np.float32(0.5))
    f = t - n
    p = np.float32(1.5403530393e-4)
    p = p * f + np.float32(1.3333558146e-3)
    p = p * f + np.float32(9.6181291076e-3)
    p = p * f + np.float32(5.5504108665e-2)
    p = p * f + np.float32(2.4022650696e-1)
    p = p * f + np.float32(6.9314718056e-1)
    p = p * f + np.float32(1.0)
    return p * _float_of_bits(np.int32((np.int32(n) + np.int32(127)) << np.int32(23)))


@_intrinsic
def ordered(typing_context: Any, value: Any) -> Any:
    """An int32 with the order of a float32: LLVM vectorises the maximum of integers, not that of floats.

    Applied to the bits of such an integer it gives the float back (`from_ordered`).
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _use_full_vectors(builder)
        return _flip_negative(builder, builder.bitcast(arguments[0], ir.IntType(32)))

    return types.int32(types.float32), generate


@_intrinsic
def from_ordered(typing_context: Any, key: Any) -> Any:
    """The float32 of an int32 made by `ordered`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(_flip_negative(builder, arguments[0]), ir.FloatType())

    return types.float32(types.int32), generate


def _flip_negative(builder: Any, bits: Any) -> Any:
    # The magnitude bits of negative numbers are inverted: larger magnitudes come first.
    word = ir.IntType(32)
    sign = builder.ashr(bits, ir.Constant(word, 31))
    return builder.xor(bits, builder.and_(sign, ir.Constant(word, 0x7FFFFFFF)))


@kernel(fastmath=FINITE_ANY_ORDER)
def embed(table: Any, ids: Any, x: Any, first: int, last: int) -> None:
    """x[i] = table[ids[i]]; rows with an id of -1 are padding and become 0.

    table half [V, D], ids int64 [M], x float32 [M, D].
    """
    for i in range(first, last):
        token = ids[i]
        for j in range(x.shape[1]):
            x[i, j] = wide(table[token, j]) if token >= 0 else np.float32(0)


@kernel(fastmath=FINITE_ANY_ORDER)
def add_norm(
    x: Any,
    branch: Any,
    add: bool,
    gain: Any,
    eps: Any,
    saved: Any,
    scales: Any,
    out: Any,
    first: int,
    last: int,
) -> None:
    """x += branch (where `add`), then out = RMSNorm(x): the end of one block and the start of the next.

    x float32 [M, D], branch half [M, D], gain float32 [D], out half [M, >= D]; saved half [M, D] receives x
    and scales float32 [M] the factors 1 / sqrt(mean(x²) + eps), for the way back.
    """
    d = x.shape[1]
    for i in range(first, last):
        total = np.float32(0)
        if add:
            for j in range(d):
                value = x[i, j] + wide(branch[i, j])
                x[i, j] = value
                total += value * value
        else:
            for j in range(d):
                total += x[i, j] * x[i, j]
        scale = np.float32(1) / np.float32(math.sqrt(total / np.float32(d) + eps))
        scales[i] = scale
        for j in range(d):
            out[i, j] = to_half(out, x[i, j] * scale * gain[j])
            saved[i, j] = to_half(saved, x[i, j])


@kernel(fastmath=FINITE_ANY_ORDER)
def norm_again(saved: Any, gain: Any, scales: Any, out: Any, first: int, last: int) -> None:
    """The out of `add_norm` once more, from what it saved."""
    for i in range(first, last):
        scale = scales[i]
        for j in range(saved.shape[1]):
            out[i, j] = to_half(out, wide(saved[i, j]) * scale * gain[j])


@kernel(fastmath=FINITE_ANY_ORDER)
def norm_backward(
    saved: Any, gain: Any, scales: Any, d_out: Any, d_x: Any, d_branch: Any, first: int, last: int
) -> None:
    """d_x += the gradient of RMSNorm; d_branch = d_x as a half, what the block before gets.

    With r the scale and g the gain: d_x_j += r g_j d_j - x_j r³ / D sum_k(d_k g_k x_k).

    d_out half [M, D], d_x float32 [M, D], d_branch half [M, >= D].
    """
    d = saved.shape[1]
    for i in range(first, last):
        scale = scales[i]
        total = np.float32(0)
        for j in range(d):
            total += wide(d_out[i, j]) * gain[j] * wide(saved[i, j])
        back = total * scale * scale * scale / np.float32(d)
        for j in range(d):
            value = d_x[i, j] + wide(d_out[i, j]) * gain[j] * scale - wide(saved[i, j]) * back
            d_x[i, j] = value
            d_branch[i, j] = to_half(d_branch, value)


@kernel(fastmath=FINITE_ANY_ORDER)
def rotate(x: Any, n_heads: int, cos: Any, sin: Any, first: int, last: int) -> None:
    """Rotate the first `n_heads` heads of each row in place (half-split RoPE); with -sin it is the way back.

    x half [M, >= H * head_dim], cos and sin float32 [M, head_dim / 2].
    """
    half = cos.shape[1]
    for i in range(first, last):
        for head in range(n_heads):
            start = head * 2 * half
            left, right = x[i, start : start + half], x[i, start + half : start + 2 * half]
            for j in range(half):
                a = wide(left[j])
                b = wide(right[j])
                left[j] = to_half(x, a * cos[i, j] - b * sin[i, j])
                right[j] = to_half(x, b * cos[i, j] + a * sin[i, j])


@kernel(fastmath=FINITE_ANY_ORDER)
def swiglu(gate_up: Any, out: Any, n: int, first: int, last: int) -> None:
    """out = silu(gate) * up with gate_up half [M, 2 F] = [gate, up], n = F, out half [M, >= F]."""
    for i in range(first, last):
        gates, ups = gate_up[i, :n], gate_up[i, n : 2 * n]
        for j in range(n):
            gate = wide(gates[j])
            out[i, j] = to_half(out, gate / (np.float32(1) + exp(-gate)) * wide(ups[j]))


@kernel(fastmath=FINITE_ANY_ORDER)
def swiglu_backward(gate_up: Any, d_out: Any, d_gate_up: Any, n: int, first: int, last: int) -> None:
    """d_gate_up from d_out, and d_out becomes the forward result, which the gradient of A needs.

    gate_up half [M, 2 F], d_out half [M, >= F], d_gate_up half [M, >= 2 F], n = F.
    """
    for i in range(first, last):
        gates, ups = gate_up[i, :n], gate_up[i, n : 2 * n]
        d_gates, d_ups = d_gate_up[i, :n], d_gate_up[i, n : 2 * n]
        for j in range(n):
            gate = wide(gates[j])
            up = wide(ups[j])
            d = wide(d_out[i, j])
            sigmoid = np.float32(1) / (np.float32(1) + exp(-gate))
            silu = gate * sigmoid
            d_gates[j] = to_half(d_gate_up, d * up * (sigmoid + silu * (np.float32(1) - sigmoid)))
            d_ups[j] = to_half(d_gate_up, d * silu)
            d_out[i, j] = to_half(d_out, silu * up)


@kernel(fastmath=FINITE_ANY_ORDER)
def cross_entropy(logits: Any, labels: Any, losses: Any, backward: bool, first: int, last: int) -> None:
    """Loss of each row, and (where `backward`) the logits become its gradient, softmax minus one-hot.

    logits half [C, V], labels int64 [C], losses float32 [C].
    """
    n = logits.shape[1]
    for i in range(first, last):
        largest = np.int32(-0x80000000)
        for j in range(n):
            largest = max(largest, ordered(wide(logits[i, j])))
        top = from_ordered(largest)
        total = np.float32(0)
        for j in range(n):
            total += exp(wide(logits[i, j]) - top)
        label = labels[i]
        target = wide(logits[i, label])
        losses[i] = np.float32(math.log(total)) - (target - top)
        if backward:
            inverse = np.float32(1) / total
            for j in range(n):
                logits[i, j] = to_half(logits, exp(wide(logits[i, j]) - top) * inverse)
            # p - 1 from the float32 p: near 1 the rounded one would lose the difference.
            logits[i, label] = to_half(logits, np.float32(exp(target - top) * inverse - np.float32(1)))


@kernel(fastmath=FINITE_ANY_ORDER)
def gather_heads(x: Any, rows: Any, column: int, out: Any, first: int, last: int) -> None:
    """out[h, t] = head h of row rows[t]; what `rows` does not reach is 0. Works on heads, not on rows.

    x half [M, W], heads from `column` on; rows int64 [T]; out float32 [H, >= T, head_dim].
    """
    n, d = rows.shape[0], out.shape[2]
    for h in range(first, last):
        start = column + h * d
        for t in range(n):
            row = x[rows[t], start : start + d]
            for j in range(d):
                out[h, t, j] = wide(row[j])
        for t in range(n, out.shape[1]):
            for j in range(d):
                out[h, t, j] = np.float32(0)


@kernel(fastmath=FINITE_ANY_ORDER)
def scatter_heads(x: Any, skip: int, rows: Any, column: int, out: Any, first: int, last: int) -> None:
    """The way back: head h of row rows[t] of out = x[h, skip + t].

    x float32 [H, >= skip + T, head_dim], rows int64 [T], out half [M, W].
    """
    d = x.shape[2]
    for h in range(first, last):
        start = column + h * d
        for t in range(rows.shape[0]):
            row, source = out[rows[t], start : start + d], x[h, skip + t]
            for j in range(d):
                row[j] = to_half(out, source[j])


@kernel(fastmath=FINITE_ANY_ORDER)
def causal_softmax(
    scores: Any,
    factor: Any,
    n_queries: int,
    n_before: int,
    normalisers: Any,
    column: int,
    first: int,
    last: int,
) -> None:
    """Softmax of factor * scores over the keys that a query may see, in place; the other entries become 0.

    Query t sees keys 0 .. n_before + t. scores float32 [H, T, S] with T >= n_queries; normalisers float32
    [H, >= column + n_queries] receives log sum exp.
    """
    for h in range(first, last):
        for t in range(scores.shape[1]):
            n = n_before + t + 1 if t < n_queries else 0
            row = scores[h, t]
            largest = np.int32(-0x80000000)
            for j in range(n):
                largest = max(largest, ordered(row[j]))
            top = from_ordered(largest) * factor
            total = np.float32(0)
            for j in range(n):
                value = exp(row[j] * factor - top)
                row[j] = value
                total += value
            if n:
                inverse = np.float32(1) / total
                for j in range(n):
                    row[j] *= inverse
                normalisers[h, column + t] = top + np.float32(math.log(total))
            for j in range(n, scores.shape[2]):
                row[j] = np.float32(0)


@kernel(fastmath=FINITE_ANY_ORDER)
def causal_softmax_backward(
    scores: Any,
    d_weights: Any,
    factor: Any,
    n_queries: int,
    n_before: int,
    normalisers: Any,
    column: int,
    first: int,
    last: int,
) -> None:
    """From scores and the gradient of the weights: scores become the weights P, d_weights the gradient of
    the scores, factor P (dP - sum(P dP)); entries that a query may not see become 0. Shapes as above.
    """
    for h in range(first, last):
        for t in range(scores.shape[1]):
            n = n_before + t + 1 if t < n_queries else 0
            row = scores[h, t]
            d_row = d_weights[h, t]
            if n:
                normaliser = normalisers[h, column + t]
                total = np.float32(0)
                for j in range(n):
                    weight = exp(row[j] * factor - normaliser)
                    row[j] = weight
                    total += weight * d_row[j]
                for j in range(n):
                    d_row[j] = factor * row[j] * (d_row[j] - total)
            for j in range(n, scores.shape[2]):
                row[j] = np.float32(0)
                d_row[j] = np.float32(0)
