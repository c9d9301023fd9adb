"""Whatever the bytes of a checkpoint are, it is read rightly or refused in words, in little memory."""

from __future__ import annotations

import atexit
import itertools
import json
import shutil
import struct
import tempfile
import tracemalloc
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as GGML
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from fullspan.checkpoints.gguf_file import GGUFFile, write_gguf
from fullspan.checkpoints.safetensors_folder import SafetensorsFolder
from fullspan.core.errors import CheckpointError

FOLDER = Path(tempfile.mkdtemp(prefix="fullspan-fuzz-"))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
NUMBERS = st.sampled_from(
    [0, 1, 2, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1]
)


def valid_gguf() -> bytes:
    metadata = {
        "general.architecture": "llama",
        "llama.block_count": 2,
        "a.float": 0.5,
        "a.flag": True,
        "tokenizer.ggml.tokens": ["<s>", "the", "漢字", ""],
        "tokenizer.ggml.scores": np.float32([0, 1, 2, 3]),
        "a.flags": [True, False],
    }
    rng = np.random.default_rng(0)
    tensors = {f"w{i}": rng.standard_normal((2, 64), np.float32) for i in range(5)}
    types = dict(zip(tensors, [GGML.F32, GGML.F16, GGML.Q4_1, GGML.Q8_0, GGML.BF16], strict=True))
    write_gguf(FOLDER / "valid.gguf", metadata, tensors, types)
    return (FOLDER / "valid.gguf").read_bytes()


def valid_safetensors() -> bytes:
    return save({"a": torch.arange(12.0).reshape(3, 4), "b": torch.ones(5, dtype=torch.bfloat16)})


GGUF_BYTES = valid_gguf()
SAFETENSORS_BYTES = valid_safetensors()


@st.composite
def broken(draw: st.DrawFn, whole: bytes, n_header: int) -> bytes:
    """`whole` with bytes changed, 4- or 8-byte numbers put in, pieces cut out or the end cut off."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["byte", "u32", "u64", "cut", "insert"]))
        at = draw(st.integers(0, min(n_header, len(content)) - 1)) if content else 0
        if kind == "byte":
            content[at : at + 1] = bytes([draw(st.integers(0, 255))])
        elif kind == "u32":
            content[at : at + 4] = struct.pack("<I", draw(NUMBERS) % 2**32)
        elif kind == "u64":
            content[at : at + 8] = struct.pack("<Q", draw(NUMBERS))
        elif kind == "cut":
            del content[at : at + draw(st.integers(1, 16))]
        else:
            content[at:at] = draw(st.binary(min_size=1, max_size=16))
    if draw(st.booleans()):
        del content[draw(st.integers(0, len(content))) :]
    return bytes(content)


def read_gguf(content: bytes) -> GGUFFile | None:
    """The file, all of its tensors read; None if it was refused in words."""
    path = FOLDER / "fuzzed.gguf"
    path.write_bytes(content)
    try:
        file = GGUFFile(path)
    except CheckpointError as error:
        assert str(path) in error.message
        return None
    for name, tensor in file.tensors.items():
        try:
            assert file.dequantize(name).shape == tensor.shape
        except CheckpointError as error:
            assert tensor.ggml_type.name in error.message
    return file


@given(broken(GGUF_BYTES, 700))
@settings(max_examples=600, deadline=None)
def test_a_broken_gguf_is_read_or_refused_in_words(content: bytes) -> None:
    read_gguf(content)


@given(broken(GGUF_BYTES, 700))
@settings(max_examples=150, deadline=None)
def test_a_broken_gguf_costs_little_memory(content: bytes) -> None:
    read_gguf(content)  # imports and caches are not the file's
    tracemalloc.start()
    try:
        read_gguf(content)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # The file has 3 kB; a block of 256 weights a type, temporaries and error texts need some more.
    assert peak < 3_000_000


@given(st.integers(0, len(GGUF_BYTES) - 1))
@settings(max_examples=300, deadline=None)
def test_no_truncated_gguf_is_read(n_bytes: int) -> None:
    # Only the padding after the last tensor can be missed by no one.
    file = read_gguf(GGUF_BYTES[:n_bytes])
    assert file is None or n_bytes > len(GGUF_BYTES) - 32


@given(broken(GGUF_BYTES, 700))
@settings(max_examples=200, deadline=None)
def test_what_both_readers_accept_they_read_alike(content: bytes) -> None:
    ours = read_gguf(content)
    if ours is None:
        return
    try:
        reference = gguf.GGUFReader(FOLDER / "fuzzed.gguf")
    except Exception:  # the reference fails in many ways on files that are merely odd
        return
    assert list(ours.tensors) == [tensor.name for tensor in reference.tensors]
    for tensor in reference.tensors:
        assert ours.tensors[tensor.name].data.tobytes() == tensor.data.tobytes()


@pytest.mark.parametrize("where", range(4))
@pytest.mark.parametrize("count", [2**20, 2**32, 2**63 - 1, 2**64 - 1])
def test_huge_counts_are_refused_at_once(where: int, count: int) -> None:
    name = struct.pack("<Q", 1) + b"k"
    huge = struct.pack("<Q", count)
    body = [
        huge + struct.pack("<Q", 1),  # tensors
        struct.pack("<Q", 0) + huge,  # metadata entries
        struct.pack("<QQ", 0, 1) + huge,  # length of a key
        struct.pack("<QQ", 0, 1) + name + struct.pack("<II", 9, 8) + huge,  # strings in an array
    ][where]
    tracemalloc.start()
    try:
        assert read_gguf(b"GGUF" + struct.pack("<I", 3) + body + bytes(100)) is None
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("n_items", [1, 10, 1000])
def test_string_lengths_that_lie_are_refused(n_items: int) -> None:
    for length, at in itertools.product([2**63, 2**64 - 1, 2**64 - 8, 10**6], [0, n_items - 1]):
        items = [struct.pack("<Q", length if i == at else 1) + b"x" for i in range(n_items)]
        head = struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"k" + struct.pack("<IIQ", 9, 8, n_items)
        assert read_gguf(b"GGUF" + head + b"".join(items)) is None


def read_safetensors(content: bytes, file_name: str = "fuzzed.safetensors") -> None:
    path = FOLDER / file_name
    path.write_bytes(content)
    try:
        folder = SafetensorsFolder(path)
    except CheckpointError as error:
        assert str(path) in error.message
        return
    for name, shape in folder.shapes().items():
        assert tuple(folder.tensor(name).shape) == shape


@given(broken(SAFETENSORS_BYTES, 200))
@settings(max_examples=300, deadline=None)
def test_a_broken_safetensors_file_is_read_or_refused_in_words(content: bytes) -> None:
    read_safetensors(content)


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_random_bytes_are_refused_in_words(content: bytes) -> None:
    read_safetensors(content)
    assert read_gguf(content) is None
    read_gguf(b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + content)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=8)
    | st.sampled_from(["m.safetensors", "../m"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(JSON | st.fixed_dictionaries({"weight_map": JSON}))
@settings(max_examples=100, deadline=None)
def test_any_json_as_an_index_is_read_or_refused_in_words(index: object) -> None:
    folder = FOLDER / "folder"
    folder.mkdir(exist_ok=True)
    (folder / "m.safetensors").write_bytes(SAFETENSORS_BYTES)
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    try:
        SafetensorsFolder(folder)
    except CheckpointError as error:
        assert str(folder) in error.message
