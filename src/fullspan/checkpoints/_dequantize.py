"""Quantised blocks to float32, bit for bit as `gguf.quants` does it, and several times as fast.

A block holds `block_size` weights: a scale d (and, in the _1 types, a minimum m) in float16, then
the integers q; the weight is d·q + m. The 4-bit types keep weight j in the low half and weight
j + 16 in the high half of byte j.
"""

from __future__ import annotations

import gguf.quants
import numpy as np
from gguf.constants import GGMLQuantizationType


def dequantize_blocks(blocks: np.ndarray, ggml_type: GGMLQuantizationType, out: np.ndarray) -> None:
    """Fill `out`, float32 [n_blocks, block_size], from `blocks`, uint8 [n_blocks, block_bytes].

    Raises
    ------
    NotImplementedError
        If `ggml_type` has no dequantisation (integer types, and formats newer than `gguf`).

    Examples
    --------
    >>> block = np.array([[0, 0x3C, 0, 0x40, *range(16)]], np.uint8)  # d = 1, m = 2, q = 0..15, 0
    >>> out = np.empty((1, 32), np.float32)
    >>> dequantize_blocks(block, GGMLQuantizationType.Q4_1, out)
    >>> out[0, :4].tolist(), out[0, 16:20].tolist()
    ([2.0, 3.0, 4.0, 5.0], [2.0, 2.0, 2.0, 2.0])
    """
    # Hostile bytes may hold infinite scales; they give what IEEE arithmetic gives, without a warning.
    with np.errstate(all="ignore"):
        if ggml_type == GGMLQuantizationType.F32:
            out[:] = blocks.view(np.float32)
        elif ggml_type == GGMLQuantizationType.F16:
            out[:] = blocks.view(np.float16)
        elif ggml_type == GGMLQuantizationType.BF16:
            np.left_shift(blocks.view(np.uint16), 16, out=out.view(np.uint32), dtype=np.uint32)
        elif ggml_type == GGMLQuantizationType.Q8_0:
            out[:] = blocks[:, 2:].view(np.int8)
            out *= _halves(blocks[:, :2])
        elif ggml_type == GGMLQuantizationType.Q4_0:
            _spread_nibbles(blocks, 2, out)
            out -= 8
            out *= _halves(blocks[:, :2])
        elif ggml_type == GGMLQuantizationType.Q4_1:
            _spread_nibbles(blocks, 4, out)
            scale_and_minimum = _halves(blocks[:, :4])
            out *= scale_and_minimum[:, :1]
            out += scale_and_minimum[:, 1:]
        else:
            # As one row: gguf splits its work by rows, and blocks as rows would be slow.
            out[:] = gguf.quants.dequantize(blocks.reshape(1, -1), ggml_type).reshape(out.shape)


def _halves(block_heads: np.ndarray) -> np.ndarray:
    """Leading float16 values of each block, as float32."""
    return np.ascontiguousarray(block_heads).view(np.float16).astype(np.float32)


def _spread_nibbles(blocks: np.ndarray, head_bytes: int, out: np.ndarray) -> None:
    halves = out.reshape(len(out), 2, 16)
    # Masking whole blocks, heads too, keeps the arrays contiguous and the loops vectorised.
    halves[:, 0] = (blocks & 15)[:, head_bytes:]
    halves[:, 1] = (blocks >> 4)[:, head_bytes:]
