# mypy: allow-untyped-decorators, allow-untyped-calls, disallow-any-generics=False
"""Products of quantised numbers in kernels: dot products of bytes, 16-bit floats, and bundles of vectors.

A bundle is as many vectors as a kernel works on at once, so that a vector of weights that was loaded once
meets several tokens. `floats(n)` begins one, `n` being a number that the compiler knows.

The instruction behind `dot_bytes` is chosen by what the CPU has, when this module is imported: `DOT_BYTES`.
All of them give the same integers.

>>> from fullspan.core.kernels import kernel
>>> from fullspan.core.simd import address, load_int32, store
>>> import numpy as np
>>> @kernel()
... def dots(weights, x, out):
...     store(address(out), dot_bytes(ints(1), load_int32(address(weights)), address(x), 4))
>>> weights, x, out = np.arange(64, dtype=np.uint8), np.array([1, -1, 0, 2], np.int8), np.zeros(16, np.int32)
>>> dots(weights, x, out)
>>> out[:2], weights.reshape(16, 4)[:2] @ x.astype(int)
(array([ 5, 13], dtype=int32), array([ 5, 13]))
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fullspan.core.device import cpu_features
from fullspan.core.kernels import helper
from fullspan.core.simd import (
    FLOAT32,
    INT32,
    LANES,
    Vector,
    as_float32,
    bundled,
    call,
    each,
    lanes_of,
    narrow_store,
    pointer,
    select,
    shuffled,
    splat,
)

_intrinsic: Any = intrinsic
_literal: Any = intrinsic(prefer_literal=True)
_I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_F16, _F32 = ir.HalfType(), ir.FloatType()
_FEATURES = set(cpu_features())

HAS_FMA = bool(_FEATURES & {"fma", "asimd"})
HAS_HALVES = bool(_FEATURES & {"f16c", "asimd"})


# Bundles ------------------------------------------------------------------------------------------


def _zeros(element: Any, doc: str) -> Any:
    def zeros(typing_context: Any, n: Any) -> Any:
        if not isinstance(n, types.IntegerLiteral):
            return None
        bundle = Vector(element, n.literal_value)
        kind = lanes_of(_F32 if element == types.float32 else _I32)

        def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
            return bundled(builder, [ir.Constant(kind, [0] * LANES)] * bundle.count)

        return bundle(n), generate

    zeros.__doc__ = doc
    return _literal(zeros)


ints = _zeros(types.int32, "A bundle of n vectors of int32, all zero.")
floats = _zeros(types.float32, "A bundle of n vectors of float32, all zero.")


def _load_one(builder: Any, place: Any, stride: int, i: int, kind: Any) -> Any:
    loaded = builder.load(pointer(builder, builder.add(place, ir.Constant(_I64, stride * i)), kind))
    loaded.align = 1
    return loaded


def _spread(element: Any, kind: Any, doc: str) -> Any:
    def spread(typing_context: Any, place: Any, n: Any, stride: Any) -> Any:
        if not all(isinstance(number, types.IntegerLiteral) for number in (n, stride)):
            return None
        count, step = n.literal_value, stride.literal_value

        def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
            numbers = [_load_one(builder, arguments[0], step, i, kind) for i in range(count)]
            return bundled(builder, [splat(builder, number) for number in numbers])

        return Vector(element, count)(types.int64, n, stride), generate

    spread.__doc__ = doc
    return _literal(spread)


spread_each = _spread(
    types.float32,
    _F32,
    "A bundle of n vectors: 16 times the float32 at a place, 16 times that a stride of bytes after it, ...",
)
spread_each_int32 = _spread(types.int32, _I32, "As `spread_each`, of int32.")


@_literal
def store_each(typing_context: Any, place: Any, bundle: Any, stride: Any) -> Any:
    """Write the vectors of a bundle, at a stride of bytes."""
    if not isinstance(bundle, Vector) or not isinstance(stride, types.IntegerLiteral):
        return None

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        place_, value, _ = arguments
        for i in range(bundle.count):
            vector = value if bundle.count == 1 else builder.extract_value(value, i)
            to = builder.add(place_, ir.Constant(_I64, stride.literal_value * i))
            builder.store(vector, pointer(builder, to, vector.type)).align = 1
        return context.get_dummy_value()

    return types.void(types.int64, bundle, stride), generate


@_intrinsic
def multiply_add(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """a b + c of float32 vectors or bundles, rounded once where the CPU has an instruction for it."""
    if not all(isinstance(one, Vector) and one.element == types.float32 for one in (a, b, c)):
        return None
    count = max(one.count for one in (a, b, c))
    if any(one.count not in (1, count) for one in (a, b, c)):
        return None

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        def one(x: Any, y: Any, z: Any) -> Any:
            if HAS_FMA:
                return call(builder, "llvm.fma.v16f32", lanes_of(_F32), x, y, z)
            return builder.fadd(builder.fmul(x, y), z)

        return each(builder, count, one, *arguments)

    bundle = Vector(types.float32, count)
    return bundle(bundle, bundle, bundle), generate


# Dot products of bytes ----------------------------------------------------------------------------

_Dot = Callable[[Any, Any, Any, Any], Any]


def _parts(builder: Any, vector: Any, n: int) -> list[Any]:
    """A vector of 16 lanes in n equal pieces."""
    size = LANES // n
    return [shuffled(builder, vector, vector, range(i * size, (i + 1) * size)) for i in range(n)]


def _joined(builder: Any, parts: list[Any]) -> Any:
    while len(parts) > 1:
        size = 2 * parts[0].type.count
        parts = [shuffled(builder, a, b, range(size)) for a, b in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


def _as_bytes(builder: Any, vector: Any) -> Any:
    return builder.bitcast(vector, ir.VectorType(_I8, 4 * vector.type.count))


def _by_instruction(name: str, n_parts: int) -> _Dot:
    """One instruction for all: in each lane total + the sum of 4 products of unsigned and signed bytes."""

    def dot(builder: Any, total: Any, unsigned: Any, signed: Any) -> Any:
        pieces = zip(*(_parts(builder, each_, n_parts) for each_ in (total, unsigned, signed)), strict=True)
        results = [
            call(builder, name, t.type, t, _as_bytes(builder, u), _as_bytes(builder, s)) for t, u, s in pieces
        ]
        return _joined(builder, results)

    return dot


def _by_pairs(multiply: str, add: str, n_parts: int) -> _Dot:
    """Products added in pairs to 16 bits, which a byte of 255 would overflow: by nibbles, 15 + 16 x 15."""

    def dot(builder: Any, total: Any, unsigned: Any, signed: Any) -> Any:
        results = []
        pieces = zip(*(_parts(builder, each_, n_parts) for each_ in (total, unsigned, signed)), strict=True)
        for t, u, s in pieces:
            words, halves = t.type, ir.VectorType(_I16, 2 * t.type.count)
            nibble = ir.Constant(words, [0x0F0F0F0F] * t.type.count)
            four = ir.Constant(words, [4] * t.type.count)
            shifted = builder.lshr(u, four)
            for part, weight in ((u, 1), (shifted, 16)):
                low = _as_bytes(builder, builder.and_(part, nibble))
                pairs = call(builder, multiply, halves, low, _as_bytes(builder, s))
                weights = ir.Constant(halves, [weight] * halves.count)
                t = builder.add(t, call(builder, add, words, pairs, weights))
            results.append(t)
        return _joined(builder, results)

    return dot


def _by_signed_dots(builder: Any, total: Any, unsigned: Any, signed: Any) -> Any:
    """ARM's product of signed bytes: of u - 128, and 128 times the sum of the others as 2 x 64."""
    results = []
    pieces = zip(*(_parts(builder, each_, 4) for each_ in (total, unsigned, signed)), strict=True)
    for t, u, s in pieces:
        name, s8 = "llvm.aarch64.neon.sdot.v4i32.v16i8", _as_bytes(builder, s)
        top = ir.Constant(u.type, [-0x7F7F7F80] * 4)  # 0x80 in every byte
        sixty_four = ir.Constant(s8.type, [64] * 16)
        t = call(builder, name, t.type, t, _as_bytes(builder, builder.xor(u, top)), s8)
        t = call(builder, name, t.type, t, sixty_four, s8)
        results.append(call(builder, name, t.type, t, sixty_four, s8))
    return _joined(builder, results)


def _plainly(builder: Any, total: Any, unsigned: Any, signed: Any) -> Any:
    """Arithmetic of int32 that every CPU has."""
    kind = lanes_of(_I32)
    up = ir.Constant(kind, [24] * LANES)
    for byte in range(4):
        down = ir.Constant(kind, [8 * byte] * LANES)
        u = builder.and_(builder.lshr(unsigned, down), ir.Constant(kind, [255] * LANES))
        moved = builder.shl(signed, ir.Constant(kind, [24 - 8 * byte] * LANES))
        total = builder.add(total, builder.mul(u, builder.ashr(moved, up)))
    return total


# In order of preference; each with the features that it needs.
_DOTS: dict[str, tuple[set[str], _Dot]] = {
    "avx512_vnni": (
        {"avx512f", "avx512bw", "avx512_vnni"},
        _by_instruction("llvm.x86.avx512.vpdpbusd.512", 1),
    ),
    "avx_vnni": ({"avx2", "avx_vnni"}, _by_instruction("llvm.x86.avx512.vpdpbusd.256", 2)),
    "avx512bw": (
        {"avx512f", "avx512bw"},
        _by_pairs("llvm.x86.avx512.pmaddubs.w.512", "llvm.x86.avx512.pmaddw.d.512", 1),
    ),
    "avx2": ({"avx2"}, _by_pairs("llvm.x86.avx2.pmadd.ub.sw", "llvm.x86.avx2.pmadd.wd", 2)),
    "asimddp": ({"asimddp"}, _by_signed_dots),
    "plain": (set(), _plainly),
}
DOT_BYTES = next(name for name, (needed, _) in _DOTS.items() if needed <= _FEATURES)


def usable_dots() -> list[str]:
    """Ways of `dot_bytes` that this CPU can run, the chosen one first.

    Examples
    --------
    >>> usable_dots()[-1]
    'plain'
    """
    return [name for name, (needed, _) in _DOTS.items() if needed <= _FEATURES]


def dot_by(way: str) -> Any:
    """`dot_bytes` by one of `usable_dots`."""
    dot = _DOTS[way][1]

    @_literal
    def dot_bytes(typing_context: Any, total: Any, unsigned: Any, place: Any, stride: Any) -> Any:
        """total + the sum of 4 products of bytes in each lane, of every vector of a bundle.

        The unsigned bytes are those of a vector; the signed ones are 4 for all lanes: for the first vector
        those at the place, for the second those at a stride of bytes after it, and so on.
        """
        fits = isinstance(total, Vector) and total.element == types.int32 and unsigned == INT32
        if not fits or not isinstance(stride, types.IntegerLiteral):
            return None

        def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
            sums, weights, place_, _ = arguments
            results = []
            for i in range(total.count):
                word = _load_one(builder, place_, stride.literal_value, i, _I32)
                one = sums if total.count == 1 else builder.extract_value(sums, i)
                results.append(dot(builder, one, weights, splat(builder, word)))
            return bundled(builder, results)

        return total(total, unsigned, types.int64, stride), generate

    return dot_bytes


dot_bytes = dot_by(DOT_BYTES)


# Floats of 16 bits --------------------------------------------------------------------------------


@_intrinsic
def _load_words(typing_context: Any, place: Any) -> Any:
    """16 uint16 from a place of any alignment, as int32."""

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        return builder.zext(_load_one(builder, arguments[0], 0, 0, lanes_of(_I16)), lanes_of(_I32))

    return INT32(types.int64), generate


@_intrinsic
def load_signed_bytes(typing_context: Any, place: Any) -> Any:
    """16 int8 from a place of any alignment, as int32."""

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        return builder.sext(_load_one(builder, arguments[0], 0, 0, lanes_of(_I8)), lanes_of(_I32))

    return INT32(types.int64), generate


_store_words = narrow_store(_I16, "Write the lower 16 bits of each int32.")


@_intrinsic
def _as_int32(typing_context: Any, vector: Any) -> Any:
    """The bits of each float32."""
    if vector != FLOAT32:
        return None

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], lanes_of(_I32))

    return INT32(vector), generate


@_intrinsic
def _load_half_directly(typing_context: Any, place: Any) -> Any:
    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        return builder.fpext(_load_one(builder, arguments[0], 0, 0, lanes_of(_F16)), lanes_of(_F32))

    return FLOAT32(types.int64), generate


@helper()
def _load_half_by_bits(place: int) -> Any:
    """The exponent moves by 112 in a product, which also makes normal what was subnormal."""
    bits = _load_words(place)
    rest = (bits & np.int32(0x7FFF)) << np.int32(13)
    value = as_float32(rest) * np.float32(2.0**112)
    special = as_float32(rest | np.int32(0x7F800000))
    value = select((bits & np.int32(0x7C00)) == np.int32(0x7C00), special, value)
    return as_float32(_as_int32(value) | ((bits & np.int32(0x8000)) << np.int32(16)))


load_half = _load_half_directly if HAS_HALVES else _load_half_by_bits


@helper()
def load_bfloat16(place: int) -> Any:
    """16 bfloat16 from a place of any alignment."""
    return as_float32(_load_words(place) << np.int32(16))


@helper()
def _rounded(vector: Any) -> Any:
    """The bits of float32, whose upper half is the nearest bfloat16; of two that are as near, the larger."""
    return _as_int32(vector) + np.int32(0x8000)


@helper()
def store_bfloat16(place: int, vector: Any) -> None:
    """Write 16 float32 as bfloat16."""
    _store_words(place, _rounded(vector) >> np.int32(16))


@helper()
def bfloat16_pairs(low: Any, high: Any) -> Any:
    """Two float32 as bfloat16 in the halves of each word."""
    lower = (_rounded(low) >> np.int32(16)) & np.int32(0xFFFF)
    return lower | (_rounded(high) & np.int32(-0x10000))


# Lanes --------------------------------------------------------------------------------------------


def _scatter(element: Any, narrow: Any, doc: str) -> Any:
    def scatter(typing_context: Any, place: Any, vector: Any, stride: Any) -> Any:
        if vector != element or not isinstance(stride, types.IntegerLiteral):
            return None

        def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
            for lane in range(LANES):
                one = builder.extract_element(arguments[1], ir.Constant(_I32, lane))
                one = one if narrow is None else builder.trunc(one, narrow)
                to = builder.add(arguments[0], ir.Constant(_I64, lane * stride.literal_value))
                builder.store(one, pointer(builder, to, one.type)).align = 1
            return context.get_dummy_value()

        return types.void(types.int64, vector, stride), generate

    scatter.__doc__ = doc
    return _literal(scatter)


scatter_float32 = _scatter(FLOAT32, None, "Write each lane, at a stride of bytes.")
scatter_bytes = _scatter(INT32, _I8, "Write the lowest byte of each lane, at a stride of bytes.")


@_intrinsic
def neighbours(typing_context: Any, vector: Any) -> Any:
    """Lanes 1, 0, 3, 2, ... 15, 14."""
    if vector != FLOAT32:
        return None

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        return shuffled(builder, arguments[0], arguments[0], [lane ^ 1 for lane in range(LANES)])

    return FLOAT32(vector), generate


@_intrinsic
def total_of(typing_context: Any, vector: Any) -> Any:
    """The sum of 16 float32, always in the same order: halves, quarters, eighths, neighbours."""
    if vector != FLOAT32:
        return None

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        sums = arguments[0]
        for step in (8, 4, 2, 1):
            moved = shuffled(builder, sums, sums, [(lane + step) % LANES for lane in range(LANES)])
            sums = builder.fadd(sums, moved)
        return builder.extract_element(sums, ir.Constant(_I32, 0))

    return types.float32(vector), generate


@_intrinsic
def lane(typing_context: Any, vector: Any, number: Any) -> Any:
    """One lane."""
    if vector not in (FLOAT32, INT32):
        return None

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        return builder.extract_element(arguments[0], arguments[1])

    return vector.element(vector, types.int64), generate


@_intrinsic
def nearest(typing_context: Any, vector: Any) -> Any:
    """The nearest whole number, the even one of two that are equally near."""
    if vector != FLOAT32:
        return None

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        return call(builder, "llvm.rint.v16f32", lanes_of(_F32), arguments[0])

    return FLOAT32(vector), generate


def _scalar(kind: Any, numba_type: Any) -> tuple[Any, Any]:
    def load(typing_context: Any, place: Any) -> Any:
        def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
            return _load_one(builder, arguments[0], 0, 0, kind)

        return numba_type(types.int64), generate

    def store(typing_context: Any, place: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
            builder.store(arguments[1], pointer(builder, arguments[0], kind)).align = 1
            return context.get_dummy_value()

        return types.void(types.int64, numba_type), generate

    load.__doc__, store.__doc__ = "The number at a place.", "Write a number."
    return _intrinsic(load), _intrinsic(store)


number_float32, put_float32 = _scalar(_F32, types.float32)
number_int32, put_int32 = _scalar(_I32, types.int32)
number_uint16, put_uint16 = _scalar(_I16, types.uint16)
number_byte, put_byte = _scalar(_I8, types.uint8)
