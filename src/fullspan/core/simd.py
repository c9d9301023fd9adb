# mypy: allow-untyped-decorators, allow-untyped-calls, disallow-any-generics=False
"""Vectors of 16 numbers inside kernels, with the operators that numbers have.

`load_float32(place)` gives a vector; ``+ - * / & | ^ << >>``, comparisons and ``~`` work lane by lane, and a
number beside a vector stands for 16 equal ones. A comparison gives a mask, which `select`, `compress`,
`count` and masked stores take. LLVM turns each step into one AVX-512 instruction where the CPU has them, and
into narrower ones elsewhere, so that every kernel runs everywhere; `HAS_AVX512` tells a driver which of two
ways to go. Places are addresses (int64) of bytes, as `address` gives them: nothing checks their bounds.

A `Vector` may also be several of these at once: `simd_products` makes such bundles, whose arithmetic is that
of each of their vectors; a vector beside a bundle stands for as many equal ones.

>>> from fullspan.core.kernels import kernel
>>> import numpy as np
>>> @kernel()
... def count_above(x, limit):
...     found = 0
...     for i in range(0, len(x), 16):
...         found += count(load_float32(address(x) + 4 * i) > limit)
...     return found
>>> count_above(np.arange(32, dtype=np.float32), np.float32(20))
11
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.imputils import lower_builtin, lower_cast
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, models, register_model

from fullspan.core.device import cpu_features
from fullspan.core.kernels import helper

LANES = 16
HAS_AVX512 = {"avx512f", "avx512bw"} <= set(cpu_features())

_intrinsic: Any = intrinsic
_I1, _I8, _I32, _I64 = (ir.IntType(bits) for bits in (1, 8, 32, 64))
_F32 = ir.FloatType()
_FLOATS = (types.float32, types.float64)
_ELEMENTS: dict[Any, Any] = {
    types.boolean: _I1,
    types.int32: _I32,
    types.float32: _F32,
    types.float64: ir.DoubleType(),
}


class Vector(types.Type):
    """Numba's type of 16 lanes of one kind of number (of boolean: a mask), or of `count` times as many."""

    def __init__(self, element: Any, count: int = 1) -> None:
        self.element = element
        self.count = count
        super().__init__(name=f"Vector({element}, {count})")


INT32 = Vector(types.int32)
FLOAT32 = Vector(types.float32)
FLOAT64 = Vector(types.float64)
MASK = Vector(types.boolean)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        lanes = lanes_of(_ELEMENTS[vector.element])
        super().__init__(manager, vector, lanes if vector.count == 1 else ir.ArrayType(lanes, vector.count))


def each(builder: Any, count: int, function: Callable[..., Any], *values: Any) -> Any:
    """What a function of LLVM's vectors gives for each vector of bundles of `count`; of single ones, that."""
    if count == 1:
        return function(*values)
    results = [function(*(builder.extract_value(value, i) for value in values)) for i in range(count)]
    return bundled(builder, results)


def bundled(builder: Any, vectors: Sequence[Any]) -> Any:
    """LLVM's value of a bundle of vectors; one vector is its own."""
    if len(vectors) == 1:
        return vectors[0]
    bundle = ir.Constant(ir.ArrayType(vectors[0].type, len(vectors)), ir.Undefined)
    for i, vector in enumerate(vectors):
        bundle = builder.insert_value(bundle, vector, i)
    return bundle


def lanes_of(element: Any) -> Any:
    return ir.VectorType(element, LANES)


def splat(builder: Any, value: Any) -> Any:
    kind = lanes_of(value.type)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(_I32, 0))
    return builder.shuffle_vector(
        first, ir.Constant(kind, ir.Undefined), ir.Constant(lanes_of(_I32), [0] * LANES)
    )


def call(builder: Any, name: str, result: Any, *arguments: Any) -> Any:
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


@lower_cast(types.Number, Vector)
def _cast_number(context: Any, builder: Any, source: Any, target: Vector, value: Any) -> Any:
    number = context.cast(builder, value, source, target.element)
    return bundled(builder, [splat(builder, number)] * target.count)


@lower_cast(Vector, Vector)
def _cast_vector(context: Any, builder: Any, source: Vector, target: Vector, value: Any) -> Any:
    return value if source == target else bundled(builder, [value] * target.count)


def common(arguments: Any) -> Vector | None:
    """The vector type of an operation's arguments, if one of them is a vector and the others fit."""
    vectors = sorted({argument for argument in arguments if isinstance(argument, Vector)}, key=_count)
    others = [argument for argument in arguments if not isinstance(argument, Vector)]
    fits = all(isinstance(argument, types.Number) for argument in others)
    same = len({vector.element for vector in vectors}) == 1 and all(
        vector.count in (1, vectors[-1].count) for vector in vectors
    )
    return vectors[-1] if same and fits else None


def _count(vector: Vector) -> int:
    return vector.count


def _add_operator(symbol: Any, of_floats: str | None, of_integers: str | None, compares: bool) -> None:
    """Let kernels use `symbol` on vectors; the names are the builder's methods, or a predicate."""

    @infer_global(symbol)
    class _Template(AbstractTemplate):
        def generic(self, arguments: Any, keywords: Any) -> Any:
            vector = common(arguments) if len(arguments) == 2 else None
            if vector is None or (of_floats if vector.element in _FLOATS else of_integers) is None:
                return None
            if compares and vector.count > 1:
                return None
            return signature(MASK if compares else vector, vector, vector)

    @lower_builtin(symbol, Vector, Vector)
    def _lower(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        is_float = sig.args[0].element in _FLOATS
        if compares:
            compare = builder.fcmp_ordered if is_float else builder.icmp_signed
            if is_float and symbol is operator.ne:
                compare = builder.fcmp_unordered
            return compare(of_floats if is_float else of_integers, *arguments)
        operation = getattr(builder, of_floats if is_float else of_integers)  # type: ignore[arg-type]
        return each(builder, sig.args[0].count, operation, *arguments)


for _symbol, _of_floats, _of_integers in (
    (operator.add, "fadd", "add"),
    (operator.sub, "fsub", "sub"),
    (operator.mul, "fmul", "mul"),
    (operator.truediv, "fdiv", None),
    (operator.and_, None, "and_"),
    (operator.or_, None, "or_"),
    (operator.xor, None, "xor"),
    (operator.lshift, None, "shl"),
    (operator.rshift, None, "lshr"),
):
    _add_operator(_symbol, _of_floats, _of_integers, compares=False)
for _symbol, _sign in (
    (operator.lt, "<"),
    (operator.le, "<="),
    (operator.gt, ">"),
    (operator.ge, ">="),
    (operator.eq, "=="),
    (operator.ne, "!="),
):
    _add_operator(_symbol, _sign, _sign, compares=True)


@infer_global(operator.invert)
class _Invert(AbstractTemplate):
    def generic(self, arguments: Any, keywords: Any) -> Any:
        (argument,) = arguments
        return signature(argument, argument) if argument in (MASK, INT32) else None


@lower_builtin(operator.invert, Vector)
def _lower_invert(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
    return builder.not_(arguments[0])


@_intrinsic
def address(typing_context: Any, array: Any) -> Any:
    """Where an array's first element is."""
    if not isinstance(array, types.Array):
        return None

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        data = context.make_array(array)(context, builder, value=arguments[0]).data
        return builder.ptrtoint(data, _I64)

    return types.int64(array), generate


def pointer(builder: Any, place: Any, kind: Any) -> Any:
    return builder.inttoptr(place, kind.as_pointer())


def _load(vector: Vector, doc: str) -> Any:
    kind = lanes_of(_ELEMENTS[vector.element])

    def load(typing_context: Any, place: Any) -> Any:
        def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
            loaded = builder.load(pointer(builder, arguments[0], kind))
            loaded.align = 1
            return loaded

        return vector(types.int64), generate

    load.__doc__ = doc
    return _intrinsic(load)


load_int32 = _load(INT32, "16 int32 from a place of any alignment.")
load_float32 = _load(FLOAT32, "16 float32 from a place of any alignment.")
load_float64 = _load(FLOAT64, "16 float64 from a place of any alignment.")


@_intrinsic
def store(typing_context: Any, place: Any, vector: Any) -> Any:
    """Write the 16 numbers."""
    if vector not in (INT32, FLOAT32, FLOAT64):
        return None

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        written = builder.store(arguments[1], pointer(builder, arguments[0], arguments[1].type))
        written.align = 1
        return context.get_dummy_value()

    return types.void(types.int64, vector), generate


def narrow_store(kind: Any, doc: str) -> Any:
    """A function that writes the lowest bits of each of 16 int32, as many as an LLVM type has."""

    def put(typing_context: Any, place: Any, vector: Any) -> Any:
        if vector != INT32:
            return None

        def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
            narrow = builder.trunc(arguments[1], lanes_of(kind))
            builder.store(narrow, pointer(builder, arguments[0], narrow.type)).align = 1
            return context.get_dummy_value()

        return types.void(types.int64, vector), generate

    put.__doc__ = doc
    return _intrinsic(put)


store_bytes = narrow_store(_I8, "Write the lowest byte of each of 16 int32.")


@_intrinsic
def store_where(typing_context: Any, place: Any, vector: Any, mask: Any) -> Any:
    """Write the lanes that the mask has; the others' memory is not touched."""
    if vector not in (INT32, FLOAT32) or mask != MASK:
        return None
    name = "llvm.masked.store.v16i32.p0" if vector == INT32 else "llvm.masked.store.v16f32.p0"

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        place_, value, chosen = arguments
        where = pointer(builder, place_, _I8)
        call(builder, name, ir.VoidType(), value, where, ir.Constant(_I32, 1), chosen)
        return context.get_dummy_value()

    return types.void(types.int64, vector, mask), generate


def _gather(vector: Vector, suffix: str, doc: str) -> Any:
    kind = lanes_of(_ELEMENTS[vector.element])

    def gather(typing_context: Any, place: Any, offsets: Any) -> Any:
        if offsets != INT32:
            return None

        def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
            place_, lanes = arguments
            zero = ir.Constant(kind, [0] * LANES)
            everywhere = ir.Constant(lanes_of(_I1), [1] * LANES)
            if HAS_AVX512:
                letter = "i" if vector == INT32 else "s"
                name = f"llvm.x86.avx512.mask.gather.dp{letter}.512"
                where, one = pointer(builder, place_, _I8), ir.Constant(_I32, 1)
                return call(builder, name, kind, zero, where, lanes, everywhere, one)
            wide = builder.add(splat(builder, place_), builder.sext(lanes, lanes_of(_I64)))
            pointers = builder.inttoptr(wide, lanes_of(_I8.as_pointer()))
            name = f"llvm.masked.gather.v16{suffix}.v16p0"
            return call(builder, name, kind, pointers, ir.Constant(_I32, 1), everywhere, zero)

        return vector(types.int64, INT32), generate

    gather.__doc__ = doc
    return _intrinsic(gather)


gather_int32 = _gather(INT32, "i32", "16 int32, each from the place plus its offset in bytes.")
gather_float32 = _gather(FLOAT32, "f32", "16 float32, each from the place plus its offset in bytes.")


@_intrinsic
def scatter_where(typing_context: Any, place: Any, offsets: Any, vector: Any, mask: Any) -> Any:
    """Write the int32 that the mask has, each to the place plus its offset in bytes."""
    if offsets != INT32 or vector != INT32 or mask != MASK:
        return None

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        place_, lanes, value, chosen = arguments
        one = ir.Constant(_I32, 1)
        if HAS_AVX512:
            name = "llvm.x86.avx512.mask.scatter.dpi.512"
            call(builder, name, ir.VoidType(), pointer(builder, place_, _I8), chosen, lanes, value, one)
        else:
            wide = builder.add(splat(builder, place_), builder.sext(lanes, lanes_of(_I64)))
            pointers = builder.inttoptr(wide, lanes_of(_I8.as_pointer()))
            call(builder, "llvm.masked.scatter.v16i32.v16p0", ir.VoidType(), value, pointers, one, chosen)
        return context.get_dummy_value()

    return types.void(types.int64, offsets, vector, mask), generate


@_intrinsic
def compress(typing_context: Any, vector: Any, mask: Any) -> Any:
    """The lanes that the mask has, moved to the front in their order; zero after them."""
    if vector != INT32 or mask != MASK:
        return None

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        value, chosen = arguments
        zero = ir.Constant(value.type, [0] * LANES)
        if HAS_AVX512:
            return call(builder, "llvm.x86.avx512.mask.compress.v16i32", value.type, value, zero, chosen)
        return call(builder, "llvm.experimental.vector.compress.v16i32", value.type, value, chosen, zero)

    return INT32(vector, mask), generate


@_intrinsic
def count(typing_context: Any, mask: Any) -> Any:
    """How many lanes a mask has."""
    if mask != MASK:
        return None

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        bits = builder.bitcast(arguments[0], ir.IntType(LANES))
        return builder.zext(call(builder, "llvm.ctpop.i16", bits.type, bits), _I64)

    return types.int64(mask), generate


@_intrinsic
def select(typing_context: Any, mask: Any, yes: Any, no: Any) -> Any:
    """Lanes of `yes` where the mask has them, of `no` elsewhere."""
    if mask != MASK or yes != no or yes not in (INT32, FLOAT32, FLOAT64):
        return None
    return yes(mask, yes, no), lambda context, builder, sig, arguments: builder.select(*arguments)


@_intrinsic
def bytes_above(typing_context: Any, place: Any, limit: Any) -> Any:
    """Which of the next 64 bytes are above a limit: an int64 whose lowest bit is that of the first."""

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        kind = ir.VectorType(_I8, 64)
        found = builder.load(pointer(builder, arguments[0], kind))
        found.align = 1
        low = builder.trunc(arguments[1], _I8)
        first = builder.insert_element(ir.Constant(kind, ir.Undefined), low, ir.Constant(_I32, 0))
        limits = builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(_I32, 64), [0] * 64))
        return builder.bitcast(builder.icmp_unsigned(">", found, limits), _I64)

    return types.int64(types.int64, types.int64), generate


@_intrinsic
def mask_of_bits(typing_context: Any, bits: Any) -> Any:
    """The mask that has the lanes of the 16 lowest bits."""

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        return builder.bitcast(builder.trunc(arguments[0], ir.IntType(LANES)), lanes_of(_I1))

    return MASK(types.int64), generate


@_intrinsic
def bits_of_mask(typing_context: Any, mask: Any) -> Any:
    """An int64 whose lowest 16 bits are the mask's lanes."""
    if mask != MASK:
        return None

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        return builder.zext(builder.bitcast(arguments[0], ir.IntType(LANES)), _I64)

    return types.int64(mask), generate


@_intrinsic
def lowest_bit(typing_context: Any, bits: Any) -> Any:
    """Which bit of an int64 is the lowest that is set; 64 if none is."""

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        return call(builder, "llvm.cttz.i64", _I64, arguments[0], ir.Constant(_I1, 0))

    return types.int64(types.int64), generate


@_intrinsic
def lane_numbers(typing_context: Any) -> Any:
    """0 to 15."""
    numbers = ir.Constant(lanes_of(_I32), list(range(LANES)))
    return INT32(), lambda context, builder, sig, arguments: numbers


@_intrinsic
def spread_int32(typing_context: Any, value: Any) -> Any:
    """16 times a number."""
    return INT32(types.int32), lambda context, builder, sig, arguments: splat(builder, arguments[0])


@_intrinsic
def spread_float32(typing_context: Any, value: Any) -> Any:
    """16 times a number."""
    return FLOAT32(types.float32), lambda context, builder, sig, arguments: splat(builder, arguments[0])


@_intrinsic
def spread_float64(typing_context: Any, value: Any) -> Any:
    """16 times a number."""
    return FLOAT64(types.float64), lambda context, builder, sig, arguments: splat(builder, arguments[0])


@_intrinsic
def prefetch(typing_context: Any, place: Any) -> Any:
    """Begin to bring a cache line near; any address will do."""

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        for_reading, keep, data = (ir.Constant(_I32, n) for n in (0, 3, 1))
        where = pointer(builder, arguments[0], _I8)
        call(builder, "llvm.prefetch.p0", ir.VoidType(), where, for_reading, keep, data)
        return context.get_dummy_value()

    return types.void(types.int64), generate


@_intrinsic
def to_float32(typing_context: Any, vector: Any) -> Any:
    """int32 as float32, rounded to nearest; of a vector or a bundle."""
    if not isinstance(vector, Vector) or vector.element != types.int32:
        return None

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        return each(builder, vector.count, lambda one: builder.sitofp(one, lanes_of(_F32)), arguments[0])

    return Vector(types.float32, vector.count)(vector), generate


@_intrinsic
def unsigned_to_float32(typing_context: Any, vector: Any) -> Any:
    """Lanes read as uint32, as float32, rounded to nearest."""
    if vector != INT32:
        return None

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        return builder.uitofp(arguments[0], lanes_of(_F32))

    return FLOAT32(vector), generate


@_intrinsic
def to_int32(typing_context: Any, vector: Any) -> Any:
    """float32 as int32, cut off towards zero; the numbers must fit."""
    if vector != FLOAT32:
        return None

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        return builder.fptosi(arguments[0], lanes_of(_I32))

    return INT32(vector), generate


def _float_function(name: str, n_arguments: int, doc: str) -> Any:
    """A function of float32 vectors that LLVM has."""
    kind = lanes_of(_F32)

    def one(typing_context: Any, a: Any) -> Any:
        if a != FLOAT32:
            return None
        return FLOAT32(a), lambda context, builder, sig, arguments: call(builder, name, kind, *arguments)

    def two(typing_context: Any, a: Any, b: Any) -> Any:
        if a != FLOAT32 or b != FLOAT32:
            return None
        return FLOAT32(a, b), lambda context, builder, sig, arguments: call(builder, name, kind, *arguments)

    function = one if n_arguments == 1 else two
    function.__doc__ = doc
    return _intrinsic(function)


floor = _float_function("llvm.floor.v16f32", 1, "The whole number below.")
magnitude = _float_function("llvm.fabs.v16f32", 1, "Without the sign.")
maximum = _float_function("llvm.maxnum.v16f32", 2, "The larger of two; the other one where one is NaN.")
minimum = _float_function("llvm.minnum.v16f32", 2, "The smaller of two; the other one where one is NaN.")


@_intrinsic
def largest(typing_context: Any, vector: Any) -> Any:
    """The largest of the 16 numbers; any of them where one is NaN."""
    if vector != FLOAT32:
        return None

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        most = arguments[0]
        for step in (8, 4, 2, 1):
            moved = shuffled(builder, most, most, [(lane + step) % LANES for lane in range(LANES)])
            most = builder.select(builder.fcmp_ordered(">", most, moved), most, moved)
        return builder.extract_element(most, ir.Constant(_I32, 0))

    return types.float32(vector), generate


@_intrinsic
def lanes_sum(typing_context: Any, vector: Any) -> Any:
    """The sum of the 16 numbers, which may be larger than an int32."""
    if vector != INT32:
        return None

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        wide = builder.sext(arguments[0], lanes_of(_I64))
        return call(builder, "llvm.vector.reduce.add.v16i64", _I64, wide)

    return types.int64(vector), generate


@_intrinsic
def first_lane(typing_context: Any, mask: Any) -> Any:
    """The first lane that a mask has; 16 if it has none."""
    if mask != MASK:
        return None

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        bits = builder.bitcast(arguments[0], ir.IntType(LANES))
        zeros = call(builder, "llvm.cttz.i16", bits.type, bits, ir.Constant(_I1, 0))
        return builder.zext(zeros, _I64)

    return types.int64(mask), generate


def shuffled(builder: Any, one: Any, two: Any, lanes: Iterable[int]) -> Any:
    """Lanes of two vectors, those of the second following those of the first."""
    numbers = list(lanes)
    places = ir.Constant(ir.VectorType(_I32, len(numbers)), numbers)
    return builder.shuffle_vector(one, two, places)


def _every_second(start: int, doc: str) -> Any:
    def pick(typing_context: Any, one: Any, two: Any) -> Any:
        if one != INT32 or two != INT32:
            return None

        def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
            return shuffled(builder, arguments[0], arguments[1], range(start, 2 * LANES, 2))

        return INT32(one, two), generate

    pick.__doc__ = doc
    return _intrinsic(pick)


evens = _every_second(0, "Lanes 0, 2, ... 14 of one vector, then those of another.")
odds = _every_second(1, "Lanes 1, 3, ... 15 of one vector, then those of another.")


@_intrinsic
def running_sum(typing_context: Any, vector: Any) -> Any:
    """Each lane's sum with all lanes before it."""
    if vector != INT32:
        return None

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        sums, zero = arguments[0], ir.Constant(lanes_of(_I32), [0] * LANES)
        for step in (1, 2, 4, 8):
            moved = shuffled(builder, sums, zero, [*range(LANES, LANES + step), *range(LANES - step)])
            sums = builder.add(sums, moved)
        return sums

    return INT32(vector), generate


@_intrinsic
def spread_last(typing_context: Any, vector: Any) -> Any:
    """The last lane in all lanes."""
    if vector != INT32:
        return None

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        return shuffled(builder, arguments[0], arguments[0], [LANES - 1] * LANES)

    return INT32(vector), generate


@_intrinsic
def as_float32(typing_context: Any, vector: Any) -> Any:
    """The float32 with the bits of each int32."""
    if vector != INT32:
        return None

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], lanes_of(_F32))

    return FLOAT32(vector), generate


@helper()
def exp(x: Any) -> Any:
    """e to the power of each lane, to about one unit in the last place; at most e^87, at least e^-87.

    x = n ln 2 + r, and e^r by a polynomial for |r| <= ln 2 / 2 (Cephes).
    """
    x = minimum(maximum(x, spread_float32(np.float32(-87))), spread_float32(np.float32(87)))
    n = floor(x * np.float32(1.4426950408889634) + np.float32(0.5))
    r = x - n * np.float32(0.693359375) + n * np.float32(2.12194440e-4)
    p = r * np.float32(1.9875691500e-4) + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    p = p * r * r + r + np.float32(1)
    return p * as_float32((to_int32(n) + np.int32(127)) << np.int32(23))
