"""Matrices as the engine's kernels read them: from GGUF's blocks without loss, or quantised from floats.

Shapes: N rows, C columns, G groups of 32 columns. The order of the bytes is in `_layout`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from gguf.constants import GGMLQuantizationType
from gguf.quants import Q4_K

from fullspan.checkpoints.gguf_file import GGUFTensor
from fullspan.core.errors import ConfigError
from fullspan.decoding.engine._layout import BF16, F32, GROUP, GROUP_BYTES, LINE, Q4, Q8, ROWS

KINDS = {"q4": Q4, "q8": Q8, "bf16": BF16, "f32": F32}
# Types of GGUF whose blocks need only be put in order.
NATIVE = (GGMLQuantizationType.Q4_0, GGMLQuantizationType.Q4_1, GGMLQuantizationType.Q8_0)
# Kinds that `rows_from_gguf` makes.
_KINDS_OF_TYPES = {
    GGMLQuantizationType.Q4_0: Q4,
    GGMLQuantizationType.Q4_1: Q4,
    GGMLQuantizationType.Q4_K: Q4,
    GGMLQuantizationType.Q8_0: Q8,
}
# Rows quantised at a time: what they need besides stays small.
_CHUNK = 2**20


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of a matrix, not yet in blocks.

    Attributes
    ----------
    kind : int
        Q4, Q8, BF16 or F32 of `_layout`.
    numbers : ndarray
        uint32 [N, G, 4] of nibbles, uint32 [N, G, 8] of bytes q + 128, uint16 or float32 [N, 32 G].
    factors : tuple of ndarray of uint16 [N, G]
        float16 scales, and minima of Q4; none of floats.
    """

    kind: int
    numbers: np.ndarray
    factors: tuple[np.ndarray, ...]

    @property
    def n_groups(self) -> int:
        """Groups of 32 columns."""
        return int(self.numbers.shape[1]) // (1 if self.kind in (Q4, Q8) else GROUP)

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, rows: np.ndarray) -> Rows:
        """The rows with these numbers; a row of zeros for -1."""

        def taken(array: np.ndarray) -> np.ndarray:
            new: np.ndarray = array[rows]
            new[rows < 0] = 0
            return new

        return Rows(self.kind, taken(self.numbers), tuple(taken(factor) for factor in self.factors))

    def pack(self, out: np.ndarray) -> None:
        """Write the blocks into `out`, uint8 of `packed_bytes`; the last is filled up with zeros."""
        n_blocks, groups = -(-len(self) // ROWS), self.n_groups
        whole = self
        if len(self) % ROWS:
            filled = np.full(n_blocks * ROWS, -1)
            filled[: len(self)] = np.arange(len(self))
            whole = self.take(filled)
        blocks = out.reshape(n_blocks, -1)
        lanes = [array.reshape(n_blocks, ROWS, *array.shape[1:]) for array in (whole.numbers, *whole.factors)]
        if self.kind in (BF16, F32):
            columns = blocks.view(whole.numbers.dtype).reshape(n_blocks, -1, ROWS)
            columns[:] = lanes[0].transpose(0, 2, 1)
        elif self.kind == Q4:
            records = blocks.reshape(n_blocks, groups, GROUP_BYTES[Q4])
            words = records[:, :, :256].view(np.uint32).reshape(n_blocks, groups, 4, ROWS)
            words[:] = lanes[0].transpose(0, 2, 3, 1)
            halves = records[:, :, 256:].view(np.uint16).reshape(n_blocks, groups, 2, ROWS)
            halves[:, :, 0] = lanes[1].transpose(0, 2, 1)
            halves[:, :, 1] = lanes[2].transpose(0, 2, 1)
        else:
            n = 512 * groups
            words = blocks[:, :n].view(np.uint32).reshape(n_blocks, groups, 8, ROWS)
            words[:] = lanes[0].transpose(0, 2, 3, 1)
            scales = blocks[:, n : n + 32 * groups].view(np.uint16).reshape(n_blocks, groups, ROWS)
            scales[:] = lanes[1].transpose(0, 2, 1)


def block_bytes(kind: int, n_groups: int) -> int:
    """Bytes of a block of 16 rows, whole cache lines."""
    return -(-n_groups * GROUP_BYTES[kind] // LINE) * LINE


def packed_bytes(kind: int, n_rows: int, n_groups: int) -> int:
    """Bytes of a matrix."""
    return -(-n_rows // ROWS) * block_bytes(kind, n_groups)


def join(parts: Sequence[Rows]) -> Rows:
    """One matrix's rows after another's, of the same kind."""
    factors = zip(*(part.factors for part in parts), strict=True)
    return Rows(
        parts[0].kind,
        np.concatenate([part.numbers for part in parts]),
        tuple(np.concatenate(each) for each in factors),
    )


def kind_of_gguf(tensor: GGUFTensor) -> int | None:
    """The kind of `rows_from_gguf`; None of types that it does not take."""
    return _KINDS_OF_TYPES.get(tensor.ggml_type)


def rows_from_gguf(tensor: GGUFTensor, rows: slice = slice(None)) -> Rows:
    """Some rows of a matrix whose blocks need only be put in order.

    Raises
    ------
    ConfigError
        If it is of another type: `kind_of_gguf` is None.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from fullspan.checkpoints.gguf_file import GGUFFile, write_gguf
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "tiny.gguf"
    >>> weight = np.linspace(-1, 1, 64, dtype=np.float32).reshape(2, 32)
    >>> write_gguf(path, {"general.architecture": "llama"}, {"w": weight}, GGMLQuantizationType.Q8_0)
    >>> rows = rows_from_gguf(GGUFFile(path).tensors["w"], slice(1, 2))
    >>> bool(abs(floats_of(rows) - weight[1:]).max() < 0.01)
    True
    """
    data = tensor.data.reshape(tensor.shape[0], -1)[rows]
    n = len(data)
    if tensor.ggml_type == GGMLQuantizationType.Q4_1:
        words = data.view(np.uint32).reshape(n, -1, 5)
        heads = np.ascontiguousarray(words[:, :, :1]).view(np.uint16)
        return Rows(Q4, words[:, :, 1:], (heads[:, :, 0], heads[:, :, 1]))
    if tensor.ggml_type == GGMLQuantizationType.Q4_0:
        halves = data.view(np.uint16).reshape(n, -1, 9)
        scales = halves[:, :, 0]
        # d (q - 8) = d q + m with m = -8 d, exact in float16 unless it overflows.
        minima = (scales.view(np.float16) * np.float16(-8)).view(np.uint16)
        words = np.ascontiguousarray(halves[:, :, 1:]).view(np.uint32)
        return Rows(Q4, words, (scales, minima))
    if tensor.ggml_type == GGMLQuantizationType.Q8_0:
        halves = data.view(np.uint16).reshape(n, -1, 17)
        words = np.ascontiguousarray(halves[:, :, 1:]).view(np.uint32) ^ np.uint32(0x80808080)
        return Rows(Q8, words, (halves[:, :, 0],))
    if tensor.ggml_type == GGMLQuantizationType.Q4_K:
        return _from_q4_k(data.reshape(n, -1, 144))
    raise ConfigError(f"there are no kernels for blocks of type {tensor.ggml_type.name}")


def _from_q4_k(blocks: np.ndarray) -> Rows:
    """Q4_K's 8 groups of 32 have their own scale and minimum, products that float16 holds well enough."""
    n = len(blocks)
    heads = np.ascontiguousarray(blocks[:, :, :4]).view(np.float16).astype(np.float32)
    d, d_min = heads[:, :, :1], heads[:, :, 1:]
    scales, minima = Q4_K.get_scale_min(np.ascontiguousarray(blocks[:, :, 4:16]).reshape(-1, 12))
    scales = (scales.reshape(n, -1, 8) * d).astype(np.float16).view(np.uint16)
    minima = (minima.reshape(n, -1, 8) * -d_min).astype(np.float16).view(np.uint16)
    quarters = np.ascontiguousarray(blocks[:, :, 16:]).reshape(n, -1, 4, 32)
    numbers = np.stack((quarters & 15, quarters >> 4), axis=3).reshape(n, -1, 32)
    nibbles = numbers[..., :16] | (numbers[..., 16:] << 4)
    return Rows(Q4, nibbles.view(np.uint32), (scales.reshape(n, -1), minima.reshape(n, -1)))


def quantise(weights: np.ndarray, kind: int) -> Rows:
    """float32 [N, C] as rows of a kind; C is filled up with zeros to a multiple of 32.

    Q8: scale max |w| / 127. Q4: from the least to the greatest of each group in 15 steps. Scales and minima
    are rounded to float16 first, so that the numbers make up for it.

    Examples
    --------
    >>> rows = quantise(np.array([[-1.0, 0.875] * 16], np.float32), Q4)
    >>> floats_of(rows)[0, :2].tolist()
    [-1.0, 0.875]
    """
    weights = np.ascontiguousarray(weights, np.float32)
    n, n_columns = weights.shape
    if n_columns % GROUP:
        weights = np.pad(weights, ((0, 0), (0, -n_columns % GROUP)))
    if kind == F32:
        return Rows(F32, weights, ())
    if kind == BF16:
        return Rows(BF16, _bfloat16(weights), ())
    step = max(1, _CHUNK // max(1, weights.shape[1]))
    quantised = _q4 if kind == Q4 else _q8
    parts = [
        quantised(weights[start : start + step].reshape(-1, weights.shape[1] // GROUP, GROUP))
        for start in range(0, n, step)
    ]
    return join(parts)


def _bfloat16(weights: np.ndarray) -> np.ndarray:
    """Bits of bfloat16, rounded to nearest, ties to even."""
    bits = weights.view(np.uint32)
    rounded: np.ndarray = ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype(np.uint16)
    return rounded


def _q8(groups: np.ndarray) -> Rows:
    with np.errstate(all="ignore"):  # what is not finite stays so in the scale
        scales = (np.abs(groups).max(-1) / np.float32(127)).astype(np.float16)
        wide = scales.astype(np.float32)[..., None]
        numbers = np.rint(np.divide(groups, wide, out=np.zeros_like(groups), where=wide != 0))
        numbers = np.nan_to_num(numbers).clip(-127, 127)
    quantised = (numbers.astype(np.int8).view(np.uint8) ^ np.uint8(0x80)).view(np.uint32)
    return Rows(Q8, quantised, (scales.view(np.uint16),))


def _q4(groups: np.ndarray) -> Rows:
    with np.errstate(all="ignore"):
        low, high = groups.min(-1), groups.max(-1)
        minima = low.astype(np.float16)
        scales = ((high - minima.astype(np.float32)) / np.float32(15)).astype(np.float16)
        wide = scales.astype(np.float32)[..., None]
        above = groups - minima.astype(np.float32)[..., None]
        numbers = np.rint(np.divide(above, wide, out=np.zeros_like(groups), where=wide != 0))
        numbers = np.nan_to_num(numbers).clip(0, 15).astype(np.uint8)
    nibbles = numbers[..., :16] | (numbers[..., 16:] << 4)
    return Rows(Q4, nibbles.view(np.uint32), (scales.view(np.uint16), minima.view(np.uint16)))


def floats_of(rows: Rows) -> np.ndarray:
    """The weights as float32 [N, 32 G]."""
    n = len(rows)
    if rows.kind == F32:
        return rows.numbers
    if rows.kind == BF16:
        return (rows.numbers.astype(np.uint32) << 16).view(np.float32)
    scales = _wide(rows.factors[0])
    numbers = np.ascontiguousarray(rows.numbers).view(np.uint8).reshape(n, rows.n_groups, -1)
    if rows.kind == Q8:
        weights: np.ndarray = (numbers.astype(np.float32) - 128) * scales
    else:
        spread = np.concatenate((numbers & 15, numbers >> 4), axis=-1)
        weights = spread.astype(np.float32) * scales + _wide(rows.factors[1])
    whole: np.ndarray = weights.reshape(n, -1)
    return whole


def _wide(halves: np.ndarray) -> np.ndarray:
    wide: np.ndarray = np.ascontiguousarray(halves).view(np.float16).astype(np.float32)
    return wide[..., None]
