"""Writes GGUF files through `gguf.GGUFWriter`, one tensor in memory at a time."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf.quants
import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType, LlamaFileType
from gguf.gguf_writer import GGUFWriter

from fullspan.core.errors import CheckpointError, did_you_mean
from fullspan.core.files import replacing

_FILE_TYPES = {
    GGMLQuantizationType.F32: LlamaFileType.ALL_F32,
    GGMLQuantizationType.F16: LlamaFileType.MOSTLY_F16,
    GGMLQuantizationType.BF16: LlamaFileType.MOSTLY_BF16,
    GGMLQuantizationType.Q8_0: LlamaFileType.MOSTLY_Q8_0,
    GGMLQuantizationType.Q4_0: LlamaFileType.MOSTLY_Q4_0,
    GGMLQuantizationType.Q4_1: LlamaFileType.MOSTLY_Q4_1,
    GGMLQuantizationType.Q5_0: LlamaFileType.MOSTLY_Q5_0,
    GGMLQuantizationType.Q5_1: LlamaFileType.MOSTLY_Q5_1,
}
_NUMPY_TYPES = {
    np.dtype(np.uint8): GGUFValueType.UINT8,
    np.dtype(np.int8): GGUFValueType.INT8,
    np.dtype(np.uint16): GGUFValueType.UINT16,
    np.dtype(np.int16): GGUFValueType.INT16,
    np.dtype(np.uint32): GGUFValueType.UINT32,
    np.dtype(np.int32): GGUFValueType.INT32,
    np.dtype(np.uint64): GGUFValueType.UINT64,
    np.dtype(np.int64): GGUFValueType.INT64,
    np.dtype(np.float32): GGUFValueType.FLOAT32,
    np.dtype(np.float64): GGUFValueType.FLOAT64,
    np.dtype(np.bool_): GGUFValueType.BOOL,
}
_RANGES = {
    GGUFValueType.UINT32: (0, 2**32 - 1),
    GGUFValueType.INT32: (-(2**31), 2**31 - 1),
    GGUFValueType.INT64: (-(2**63), 2**63 - 1),
    GGUFValueType.UINT64: (0, 2**64 - 1),
}
# The first that fits is taken; llama.cpp counts in UINT32 and keeps token types in INT32.
_SCALAR_INTEGERS = (GGUFValueType.UINT32, GGUFValueType.INT32, GGUFValueType.INT64, GGUFValueType.UINT64)
_LIST_INTEGERS = (GGUFValueType.INT32, GGUFValueType.UINT32, GGUFValueType.INT64, GGUFValueType.UINT64)
# Below this, 1/scale overflows in the quantisers; such a weight is zero in float16 anyway.
_TINY = 1e-30


def parse_ggml_type(name: str) -> GGMLQuantizationType:
    """The type of a name such as ``"q8_0"``, if it can be written.

    Examples
    --------
    >>> parse_ggml_type("q8_0").name
    'Q8_0'
    >>> parse_ggml_type("q8")
    Traceback (most recent call last):
    ...
    fullspan.core.errors.CheckpointError: GGUF type 'q8' cannot be written
    hint: did you mean 'q8_0'?
    """
    writable = {ggml_type.name.lower(): ggml_type for ggml_type in _FILE_TYPES}
    if name.lower() not in writable:
        raise CheckpointError(f"GGUF type {name!r} cannot be written", did_you_mean(name.lower(), writable))
    return writable[name.lower()]


def write_gguf(
    path: Path | str,
    metadata: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    types: GGMLQuantizationType | Mapping[str, GGMLQuantizationType],
) -> None:
    """Write a GGUF file that takes the place of `path` only once it is whole.

    As in llama.cpp, a single type applies to tensors of two and more dimensions (norms and biases
    stay F32), and a tensor whose rows are not a multiple of its type's block falls back to F16.
    ``general.file_type`` is set to the type that holds most weights.

    Parameters
    ----------
    path : path-like
    metadata : mapping
        Must name ``general.architecture``. Python values are stored as llama.cpp expects them
        (int as UINT32, or INT32 when negative, float as FLOAT32, lists of int as INT32); a numpy
        scalar or array keeps its type.
    tensors : mapping of str to float32 ndarray, row-major
    types : GGMLQuantizationType or mapping
        F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0 or Q5_1: one for all, or one for each tensor.

    Raises
    ------
    CheckpointError
        If a type cannot be written, a value cannot be stored, a weight does not fit its type
        (beyond float16, not finite), or the disk is full. Nothing is left behind then.
    """
    path = Path(path)
    chosen = {name: _choose_type(name, tensor.shape, types) for name, tensor in tensors.items()}
    try:
        with replacing(path) as beside:
            _write(beside, metadata, tensors, chosen)
    except OSError as error:
        # A partial write by numpy carries no errno.
        problem = error.strerror or "the disk took only a part of it"
        hint = "make room on the disk" if error.errno in (errno.ENOSPC, errno.EDQUOT, None) else ""
        raise CheckpointError(f"cannot write {path}: {problem}", hint) from None


def _write(
    path: Path,
    metadata: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    types: Mapping[str, GGMLQuantizationType],
) -> None:
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str) or not architecture:
        raise CheckpointError("GGUF needs the name of an architecture", "set general.architecture")
    writer = GGUFWriter(path, architecture)
    try:
        for key, value in metadata.items():
            if key not in ("general.architecture", "general.file_type", "general.quantization_version"):
                _add_value(writer, key, value)
        if types:
            weights_of: Counter[GGMLQuantizationType] = Counter()
            for name, ggml_type in types.items():
                weights_of[ggml_type] += tensors[name].size
            writer.add_file_type(_FILE_TYPES[weights_of.most_common(1)[0][0]])
            writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        for name, ggml_type in types.items():
            _add_info(writer, name, tensors[name], ggml_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name, ggml_type in types.items():
            writer.write_tensor_data(_quantize(name, tensors[name], ggml_type))
    finally:
        writer.close()


def _choose_type(
    name: str, shape: tuple[int, ...], types: GGMLQuantizationType | Mapping[str, GGMLQuantizationType]
) -> GGMLQuantizationType:
    if not 1 <= len(shape) <= 4 or 0 in shape:
        raise CheckpointError(f"tensor {name!r} has shape {shape}, GGUF holds 1 to 4 positive dimensions")
    if not isinstance(types, GGMLQuantizationType) and name not in types:
        raise CheckpointError(f"no GGUF type given for tensor {name!r}")
    wanted = types if isinstance(types, GGMLQuantizationType) else types[name]
    if wanted not in _FILE_TYPES:
        choices = "choose from: " + ", ".join(ggml_type.name for ggml_type in _FILE_TYPES)
        raise CheckpointError(f"GGUF type {wanted.name} can be read but not written", choices)
    if isinstance(types, GGMLQuantizationType) and len(shape) == 1:
        return GGMLQuantizationType.F32
    return wanted if shape[-1] % GGML_QUANT_SIZES[wanted][0] == 0 else GGMLQuantizationType.F16


def _add_info(writer: GGUFWriter, name: str, tensor: np.ndarray, ggml_type: GGMLQuantizationType) -> None:
    block_size, block_bytes = GGML_QUANT_SIZES[ggml_type]
    n_bytes = tensor.size // block_size * block_bytes
    if ggml_type in (GGMLQuantizationType.F32, GGMLQuantizationType.F16):
        dtype = np.dtype(np.float32 if ggml_type == GGMLQuantizationType.F32 else np.float16)
        writer.add_tensor_info(name, tensor.shape, dtype, n_bytes, raw_dtype=ggml_type)
    else:
        byte_shape = (*tensor.shape[:-1], tensor.shape[-1] // block_size * block_bytes)
        writer.add_tensor_info(name, byte_shape, np.dtype(np.uint8), n_bytes, raw_dtype=ggml_type)


def _quantize(name: str, tensor: np.ndarray, ggml_type: GGMLQuantizationType) -> np.ndarray:
    values = np.ascontiguousarray(tensor, dtype=np.float32)
    if GGML_QUANT_SIZES[ggml_type][0] > 1:
        if not np.isfinite(values).all():
            raise CheckpointError(f"tensor {name!r} holds weights that are not finite")
        values = np.where(np.abs(values) < _TINY, np.float32(0), values)
    try:
        with np.errstate(over="raise"):
            return np.ascontiguousarray(gguf.quants.quantize(values, ggml_type))
    except FloatingPointError:
        largest = np.abs(values).max()
        raise CheckpointError(
            f"tensor {name!r} reaches {largest:g}, beyond the float16 that {ggml_type.name} stores",
            "write it as f32 or bf16",
        ) from None


def _add_value(writer: GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, np.ndarray | np.generic) and value.dtype in _NUMPY_TYPES and value.ndim <= 1:
        code = _NUMPY_TYPES[value.dtype]
        value = value.tolist()
    else:
        code = _value_type(key, value)
    if key == "general.alignment":
        writer.add_custom_alignment(value)
    elif not isinstance(value, list | tuple):
        writer.add_key_value(key, value, code)
    elif value:  # GGUFWriter has no empty arrays
        writer.add_key_value(key, list(value), GGUFValueType.ARRAY, sub_type=code)


def _value_type(key: str, value: Any) -> GGUFValueType:
    """The type of a Python value, or of the items of a list."""
    is_list = isinstance(value, list | tuple)
    items = list(value) if is_list else [value]
    for kind, code in (bool, GGUFValueType.BOOL), (str, GGUFValueType.STRING), (float, GGUFValueType.FLOAT32):
        if all(isinstance(item, kind) for item in items):
            return code
    if all(isinstance(item, int) and not isinstance(item, bool) for item in items):
        for code in _LIST_INTEGERS if is_list else _SCALAR_INTEGERS:
            least, most = _RANGES[code]
            if least <= min(items) and max(items) <= most:
                return code
    raise CheckpointError(f"metadata entry {key!r} holds {value!r:.60}, which GGUF cannot store")
