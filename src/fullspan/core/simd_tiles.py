# mypy: allow-untyped-decorators, allow-untyped-calls
"""Tiles in kernels: AMX's eight registers of 16 rows of 64 bytes, and its product of bfloat16.

`multiply_tiles(c, a, b)` adds A B to C, float32 [16, 16]: A is [16, 32] bfloat16, and row k of B holds the
pairs (b[2k, n], b[2k + 1, n]) of 16 columns n as words. Tiles are named by numbers from 0 to 7 that the
compiler knows; places are addresses, and strides bytes from row to row. A thread configures its tiles before
it uses them and releases them afterwards.

Kernels with tiles compile on every CPU; what names a tile may be reached where `may_use_tiles` says so only.
"""

from __future__ import annotations

import ctypes
import functools
import platform
import sys
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fullspan.core.device import cpu_features
from fullspan.core.kernels import helper
from fullspan.core.simd import address, call, pointer

_literal: Any = intrinsic(prefer_literal=True)
_I8 = ir.IntType(8)

_HAS_TILES = sys.platform == "linux" and platform.machine() == "x86_64" and "amx_bf16" in cpu_features()


@functools.cache
def may_use_tiles() -> bool:
    """Whether the CPU has tiles and the system lets this process use them."""
    arch_prctl, request_permission, tile_data = 158, 0x1023, 18
    return _HAS_TILES and ctypes.CDLL(None).syscall(arch_prctl, request_permission, tile_data) == 0


def _do(builder: Any, name: str, *arguments: Any) -> None:
    """An instruction on tiles; a trap on CPUs that have none."""
    if _HAS_TILES:
        call(builder, name, ir.VoidType(), *arguments)
    else:
        call(builder, "llvm.trap", ir.VoidType())


def _tile(number: Any) -> Any:
    return ir.Constant(_I8, number.literal_value)


@_literal
def _configure(typing_context: Any, place: Any) -> Any:
    """Take the tile configuration of 64 bytes at a place."""

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        _do(builder, "llvm.x86.ldtilecfg", pointer(builder, arguments[0], _I8))
        return context.get_dummy_value()

    return types.void(types.int64), generate


@_literal
def release_tiles(typing_context: Any) -> Any:
    """Give the tiles back, so that a context switch need not save them."""

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        _do(builder, "llvm.x86.tilerelease")
        return context.get_dummy_value()

    return types.void(), generate


@_literal
def zero_tile(typing_context: Any, tile: Any) -> Any:
    """Fill a tile with zeros."""

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        _do(builder, "llvm.x86.tilezero", _tile(tile))
        return context.get_dummy_value()

    return types.void(tile), generate


def _move(name: str, doc: str) -> Any:
    def move(typing_context: Any, tile: Any, place: Any, stride: Any) -> Any:
        def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
            _, place_, stride_ = arguments
            _do(builder, name, _tile(tile), pointer(builder, place_, _I8), stride_)
            return context.get_dummy_value()

        return types.void(tile, types.int64, types.int64), generate

    move.__doc__ = doc
    return _literal(move)


load_tile = _move("llvm.x86.tileloadd64", "Load 16 rows of 64 bytes.")
store_tile = _move("llvm.x86.tilestored64", "Write 16 rows of 64 bytes.")


@_literal
def multiply_tiles(typing_context: Any, c: Any, a: Any, b: Any) -> Any:
    """Add tile a times tile b, of bfloat16, to tile c."""

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        _do(builder, "llvm.x86.tdpbf16ps", _tile(c), _tile(a), _tile(b))
        return context.get_dummy_value()

    return types.void(c, a, b), generate


_ALL_TILES = np.zeros(64, np.uint8)  # how the processor wants to be told
_ALL_TILES[0] = 1  # palette
_ALL_TILES[16:32:2] = 64  # bytes of a row of each of eight tiles
_ALL_TILES[48:56] = 16  # and their rows


@helper()
def configure_tiles() -> None:
    """Make all eight tiles 16 rows of 64 bytes."""
    _configure(address(_ALL_TILES))
