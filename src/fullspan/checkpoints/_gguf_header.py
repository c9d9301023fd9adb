"""Reads the header of a GGUF file and trusts no number in it.

`gguf.GGUFReader` builds one numpy object for every array element (seconds for a vocabulary of
49 thousand) and believes the counts that a file states; this reader checks every count against
the bytes that are left, so that a broken file costs no more memory than its own size.

Source: the GGUF specification, https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import itertools
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf.constants import (
    GGML_QUANT_SIZES,
    GGUF_DEFAULT_ALIGNMENT,
    GGUF_MAGIC,
    GGMLQuantizationType,
    GGUFValueType,
)

from fullspan.core.errors import CheckpointError

_SCALARS = {
    GGUFValueType.UINT8: "B",
    GGUFValueType.INT8: "b",
    GGUFValueType.UINT16: "H",
    GGUFValueType.INT16: "h",
    GGUFValueType.UINT32: "I",
    GGUFValueType.INT32: "i",
    GGUFValueType.FLOAT32: "f",
    GGUFValueType.BOOL: "?",
    GGUFValueType.UINT64: "Q",
    GGUFValueType.INT64: "q",
    GGUFValueType.FLOAT64: "d",
}
_MAX_DIMENSIONS = 4
# The shortest metadata entry is an empty key and one byte; the shortest tensor has no dimensions.
_MIN_ENTRY_BYTES, _MIN_TENSOR_BYTES = 13, 24


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies in the file. `shape` is row-major, the fastest dimension last."""

    name: str
    shape: tuple[int, ...]
    ggml_type: GGMLQuantizationType
    start: int
    n_bytes: int


class _Cursor:
    """Takes values off the file one after the other, never past its end."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self.data = data
        self.path = path
        self.position = 0
        self.reading = "the header"  # named in errors

    def error(self, problem: str) -> CheckpointError:
        return CheckpointError(f"{self.path} is not a valid GGUF file: {problem}")

    def need(self, n_bytes: int) -> int:
        """The end of the next `n_bytes` bytes."""
        end = self.position + n_bytes
        if end > len(self.data):
            raise CheckpointError(
                f"{self.path} is truncated or broken: {self.reading} needs bytes {self.position}-{end}, "
                f"but the file ends at {len(self.data)}",
                "fetch or copy the file again",
            )
        return end

    def unpack(self, layout: str) -> tuple[Any, ...]:
        end = self.need(struct.calcsize(layout))
        values = struct.unpack_from(layout, self.data, self.position)
        self.position = end
        return values

    def string(self) -> str:
        (length,) = self.unpack("<Q")
        start, self.position = self.position, self.need(length)
        try:
            return self.data[start : self.position].decode()
        except UnicodeDecodeError:
            raise self.error(f"{self.reading} holds text that is not UTF-8") from None

    def value(self, code: int) -> Any:
        if code == GGUFValueType.STRING:
            return self.string()
        if code == GGUFValueType.ARRAY:
            return self.array(*self.unpack("<IQ"))
        if code in _SCALARS:
            (value,) = self.unpack("<" + _SCALARS[GGUFValueType(code)])
            # A float too, but one that is written back with all its digits.
            return np.float64(value) if code == GGUFValueType.FLOAT64 else value
        raise self.error(f"{self.reading} has the unknown value type {code}")

    def array(self, code: int, count: int) -> list[str] | np.ndarray:
        if code == GGUFValueType.STRING:
            return self.strings(count)
        if code not in _SCALARS:
            what = "arrays" if code == GGUFValueType.ARRAY else f"the unknown value type {code}"
            raise self.error(f"{self.reading} is an array of {what}")
        dtype = np.dtype("<" + _SCALARS[GGUFValueType(code)])
        start, self.position = self.position, self.need(count * dtype.itemsize)
        raw = np.frombuffer(self.data, dtype=np.uint8, count=self.position - start, offset=start)
        return raw != 0 if code == GGUFValueType.BOOL else raw.view(dtype).copy()

    def strings(self, count: int) -> list[str]:
        self.need(8 * count)
        data, position, size = self.data, self.position, len(self.data)
        length_at = struct.Struct("<Q").unpack_from
        found = []
        try:
            for _ in range(count):
                start = position + 8
                # A length beyond the end of the file makes the next read, or the check below, fail.
                position = start + length_at(data, position)[0]
                found.append(data[start:position].decode())
        except (struct.error, OverflowError, IndexError):
            position = size + 1
        except UnicodeDecodeError:
            raise self.error(f"{self.reading} holds text that is not UTF-8") from None
        if position > size:
            self.need(size - self.position + 1)
        self.position = position
        return found


def read_header(data: mmap.mmap, path: Path) -> tuple[dict[str, Any], dict[str, TensorInfo]]:
    """Metadata and tensor positions of a mapped GGUF file, all of them checked.

    Raises
    ------
    CheckpointError
        If the file is not GGUF, ends early, or states counts, types, shapes or positions that
        cannot be.
    """
    cursor = _Cursor(data, path)
    if len(data) < 4 or cursor.unpack("<I")[0] != GGUF_MAGIC:
        raise CheckpointError(f"{path} is not a GGUF file: it does not start with 'GGUF'")
    n_tensors, n_entries = _read_counts(cursor)
    metadata = _read_metadata(cursor, n_entries)
    alignment = metadata.get("general.alignment", GGUF_DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        raise cursor.error(f"general.alignment is {alignment!r}, expected a power of two")
    if metadata.get("split.count") not in (None, 0, 1):
        raise CheckpointError(
            f"{path} is one part of a model in {metadata['split.count']} files",
            "merge the parts with llama.cpp's `llama-gguf-split --merge`",
        )
    relative = [_read_tensor_info(cursor, i) for i in range(n_tensors)]
    data_start = -(-cursor.position // alignment) * alignment
    return metadata, _place_tensors(cursor, relative, data_start, alignment)


def _read_counts(cursor: _Cursor) -> tuple[int, int]:
    (version,) = cursor.unpack("<I")
    if version not in (2, 3):
        big_endian = version in (2 << 24, 3 << 24)
        what = "is big-endian" if big_endian else f"has version {version}"
        raise CheckpointError(f"{cursor.path} {what}; GGUF versions 2 and 3, little-endian, can be read")
    n_tensors, n_entries = cursor.unpack("<QQ")
    left = len(cursor.data) - cursor.position
    if n_entries * _MIN_ENTRY_BYTES + n_tensors * _MIN_TENSOR_BYTES > left:
        raise cursor.error(
            f"it states {n_entries} metadata entries and {n_tensors} tensors, "
            f"more than its {len(cursor.data)} bytes can hold"
        )
    return n_tensors, n_entries


def _read_metadata(cursor: _Cursor, n_entries: int) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for i in range(n_entries):
        cursor.reading = f"metadata entry {i}"
        key = cursor.string()
        cursor.reading = f"metadata entry {key!r:.100}"
        if key in metadata:
            raise cursor.error(f"{cursor.reading} appears twice")
        metadata[key] = cursor.value(cursor.unpack("<I")[0])
    return metadata


def _read_tensor_info(cursor: _Cursor, index: int) -> TensorInfo:
    """One tensor, with `start` still relative to the data section."""
    cursor.reading = f"the entry of tensor {index}"
    name = cursor.string()
    cursor.reading = f"the entry of tensor {name!r:.100}"
    (n_dimensions,) = cursor.unpack("<I")
    if n_dimensions > _MAX_DIMENSIONS:
        raise cursor.error(
            f"tensor {name!r:.100} has {n_dimensions} dimensions, at most {_MAX_DIMENSIONS} can be"
        )
    shape = cursor.unpack(f"<{n_dimensions}Q")[::-1]
    code, start = cursor.unpack("<IQ")
    try:
        ggml_type = GGMLQuantizationType(code)
    except ValueError:
        raise cursor.error(f"tensor {name!r:.100} has the unknown type {code}") from None
    block_size, block_bytes = GGML_QUANT_SIZES[ggml_type]
    row = shape[-1] if shape else 1
    n_elements = 1
    for size in shape:
        n_elements *= size  # Python's integers do not overflow
    if n_elements == 0 or row % block_size:
        raise cursor.error(
            f"tensor {name!r:.100} has shape {shape}, expected positive sizes and, for {ggml_type.name}, "
            f"rows of a multiple of {block_size}"
        )
    return TensorInfo(name, shape, ggml_type, start, n_elements // block_size * block_bytes)


def _place_tensors(
    cursor: _Cursor, relative: list[TensorInfo], data_start: int, alignment: int
) -> dict[str, TensorInfo]:
    placed: dict[str, TensorInfo] = {}
    for info in relative:
        if info.name in placed:
            raise cursor.error(f"tensor {info.name!r:.100} appears twice")
        if info.start % alignment:
            raise cursor.error(
                f"tensor {info.name!r:.100} starts at offset {info.start}, expected a multiple of {alignment}"
            )
        cursor.reading, cursor.position = f"tensor {info.name!r:.100}", data_start + info.start
        cursor.need(info.n_bytes)
        placed[info.name] = TensorInfo(info.name, info.shape, info.ggml_type, cursor.position, info.n_bytes)
    in_order = sorted(placed.values(), key=lambda info: info.start)
    for before, after in itertools.pairwise(in_order):
        if before.start + before.n_bytes > after.start:
            raise cursor.error(f"tensors {before.name!r:.100} and {after.name!r:.100} overlap")
    return placed
