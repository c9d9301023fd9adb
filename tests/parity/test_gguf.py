"""GGUF against the `gguf` package: the same header, the same weights bit for bit, the same bytes written."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as GGML

from fullspan.checkpoints.gguf_file import GGUFFile, parse_ggml_type, write_gguf
from fullspan.core.errors import CheckpointError

READABLE = [
    GGML.F32,
    GGML.F16,
    GGML.BF16,
    GGML.Q8_0,
    GGML.Q4_0,
    GGML.Q4_1,
    GGML.Q5_0,
    GGML.Q5_1,
    GGML.Q4_K,
    GGML.Q5_K,
    GGML.Q6_K,
]
WRITABLE = READABLE[:8]


def write_raw(path: Path, ggml_type: GGML, n_rows: int, row_size: int, seed: int = 0) -> np.ndarray:
    """A file with one tensor of random bytes, written by the reference; returns the bytes."""
    block_size, block_bytes = gguf.GGML_QUANT_SIZES[ggml_type]
    raw = np.random.default_rng(seed).integers(
        0, 256, (n_rows, row_size // block_size * block_bytes), dtype=np.uint8
    )
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("w", raw, raw_dtype=ggml_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return raw


def same_bits(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Equal bit for bit, except that any NaN equals any other."""
    nan = np.isnan(theirs)
    return ours.shape == theirs.shape and bool(
        (np.isnan(ours) == nan).all() and (ours.view(np.uint32) == theirs.view(np.uint32))[~nan].all()
    )


@pytest.mark.parametrize("ggml_type", READABLE, ids=lambda t: t.name)
def test_dequantised_random_bytes_equal_the_reference(tmp_path: Path, ggml_type: GGML) -> None:
    # Random scales include infinities, NaN and denormal numbers. 700 rows make several chunks.
    raw = write_raw(tmp_path / "raw.gguf", ggml_type, n_rows=700, row_size=768)
    with np.errstate(all="ignore"):
        expected = np.asarray(gguf.quants.dequantize(raw, ggml_type), np.float32)
    file = GGUFFile(tmp_path / "raw.gguf")
    assert file.tensors["w"].shape == (700, 768)
    assert file.tensors["w"].ggml_type == ggml_type
    assert same_bits(file.dequantize("w"), expected)
    assert np.array_equal(file.packed("w"), raw)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_torch_tensors_equal_the_converted_float32(
    tmp_path: Path, dtype: torch.dtype, n_threads: int
) -> None:
    # 1001 rows of 256: neither chunks nor threads divide them evenly.
    values = np.random.default_rng(1).standard_normal((1001, 256), np.float32)
    write_gguf(tmp_path / "w.gguf", {"general.architecture": "llama"}, {"w": values}, GGML.Q5_1)
    file = GGUFFile(tmp_path / "w.gguf")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(n_threads)
        assert torch.equal(file.tensor("w", dtype), torch.from_numpy(file.dequantize("w")).to(dtype))
    finally:
        torch.set_num_threads(before)


def test_packed_is_a_view_of_the_file(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw.gguf", GGML.Q4_0, n_rows=4, row_size=64)
    file = GGUFFile(tmp_path / "raw.gguf")
    packed = file.packed("w")
    assert packed.shape == (4, 36)
    assert np.shares_memory(packed, file.tensors["w"].data)
    assert not packed.flags.writeable


def test_every_metadata_type_reads_as_the_reference_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "types.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint8("u8", 255)
    writer.add_int8("i8", -128)
    writer.add_uint16("u16", 65535)
    writer.add_int16("i16", -32768)
    writer.add_uint32("u32", 2**32 - 1)
    writer.add_int32("i32", -(2**31))
    writer.add_uint64("u64", 2**64 - 1)
    writer.add_int64("i64", -(2**63))
    writer.add_float32("f32", 1e-5)
    writer.add_float64("f64", 0.1)
    writer.add_bool("yes", True)
    writer.add_string("text", "naïve 漢字 🙂\n\x00")
    writer.add_array("ints", [1, -2, 3])
    writer.add_array("floats", [0.5, -1e30])
    writer.add_array("flags", [True, False])
    writer.add_array("texts", ["", "a", "漢字" * 1000])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    ours = GGUFFile(path).metadata
    reference = {
        key: field.contents()
        for key, field in gguf.GGUFReader(path).fields.items()
        if not key.startswith("GGUF.")
    }
    assert {key: v.tolist() if isinstance(v, np.ndarray) else v for key, v in ours.items()} == reference
    assert ours["ints"].dtype == np.int32 and ours["floats"].dtype == np.float32


def test_version_2_reads_as_version_3(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "v3.gguf", GGML.Q4_1, n_rows=3, row_size=32)
    content = bytearray((tmp_path / "v3.gguf").read_bytes())
    content[4] = 2  # the two differ in this number only
    (tmp_path / "v2.gguf").write_bytes(content)
    assert gguf.GGUFReader(tmp_path / "v2.gguf").fields["GGUF.version"].contents() == 2
    assert np.array_equal(GGUFFile(tmp_path / "v2.gguf").packed("w"), raw)


def test_the_real_model_reads_as_the_reference_reads_it(smollm2_path: Path) -> None:
    file, reference = GGUFFile(smollm2_path), gguf.GGUFReader(smollm2_path)
    assert list(file.tensors) == [tensor.name for tensor in reference.tensors]
    for tensor in reference.tensors:
        ours = file.tensors[tensor.name]
        assert ours.shape == tuple(int(n) for n in tensor.shape[::-1])
        assert ours.ggml_type == tensor.tensor_type
        assert np.array_equal(ours.data, tensor.data.reshape(-1).view(np.uint8))
    for name in ("blk.0.attn_q.weight", "blk.29.ffn_down.weight", "output_norm.weight"):
        theirs = next(tensor for tensor in reference.tensors if tensor.name == name)
        assert same_bits(file.dequantize(name), gguf.quants.dequantize(theirs.data, theirs.tensor_type))
    for key, value in file.metadata.items():
        assert (value.tolist() if isinstance(value, np.ndarray) else value) == reference.fields[
            key
        ].contents()


@pytest.mark.parametrize("ggml_type", WRITABLE, ids=lambda t: t.name)
def test_written_tensors_hold_the_bytes_of_the_reference_quantiser(tmp_path: Path, ggml_type: GGML) -> None:
    values = np.random.default_rng(2).standard_normal((48, 96), np.float32)
    path = tmp_path / "written.gguf"
    write_gguf(path, {"general.architecture": "llama", "llama.block_count": 1}, {"w": values}, ggml_type)
    (tensor,) = gguf.GGUFReader(path).tensors
    assert tensor.tensor_type == ggml_type
    assert tuple(tensor.shape) == (96, 48)
    assert tensor.data.tobytes() == gguf.quants.quantize(values, ggml_type).tobytes()


def test_a_rewritten_file_has_the_same_metadata_and_weights(tmp_path: Path) -> None:
    metadata = {
        "general.architecture": "llama",
        "llama.block_count": 2,
        "llama.rope.freq_base": 100000.0,
        "llama.attention.layer_norm_rms_epsilon": float(np.float32(1e-5)),
        "tokenizer.ggml.tokens": ["<s>", "Ġthe", "漢"],
        "tokenizer.ggml.token_type": np.array([3, 1, 1], np.int32),
        "tokenizer.ggml.add_bos_token": False,
        "a.negative": -1,
        "a.large": 2**40,
        "a.precise": np.float64(0.1),
    }
    tensors = {"a": np.float32([[1, -2], [3, 4]]), "b": np.float32([0.5])}
    write_gguf(tmp_path / "one.gguf", metadata, tensors, GGML.F32)
    one = GGUFFile(tmp_path / "one.gguf")
    write_gguf(tmp_path / "two.gguf", one.metadata, {n: one.dequantize(n) for n in one.tensors}, GGML.F32)
    two = GGUFFile(tmp_path / "two.gguf")
    for key, value in metadata.items():
        assert np.array_equal(one.metadata[key], value) and np.array_equal(two.metadata[key], value)
    for name, values in tensors.items():
        assert np.array_equal(two.dequantize(name), values)
    fields = gguf.GGUFReader(tmp_path / "one.gguf").fields
    assert fields["llama.block_count"].types == [gguf.GGUFValueType.UINT32]
    assert fields["llama.rope.freq_base"].types == [gguf.GGUFValueType.FLOAT32]
    assert fields["a.precise"].types == [gguf.GGUFValueType.FLOAT64]


def test_norms_stay_float32_and_odd_rows_fall_back_to_float16(tmp_path: Path) -> None:
    tensors = {
        "norm": np.ones(64, np.float32),
        "even": np.ones((3, 64), np.float32),
        "odd": np.ones((3, 33), np.float32),
    }
    write_gguf(tmp_path / "m.gguf", {"general.architecture": "llama"}, tensors, GGML.Q8_0)
    file = GGUFFile(tmp_path / "m.gguf")
    assert {name: tensor.ggml_type.name for name, tensor in file.tensors.items()} == {
        "norm": "F32",
        "even": "Q8_0",
        "odd": "F16",
    }
    assert file.metadata["general.file_type"] == gguf.LlamaFileType.MOSTLY_Q8_0


def test_types_are_chosen_for_each_tensor(tmp_path: Path) -> None:
    tensors = {"a": np.ones((1, 32), np.float32), "b": np.ones(32, np.float32)}
    types = {"a": GGML.Q4_0, "b": GGML.BF16}
    write_gguf(tmp_path / "m.gguf", {"general.architecture": "llama"}, tensors, types)
    assert {n: t.ggml_type for n, t in GGUFFile(tmp_path / "m.gguf").tensors.items()} == types


def test_blocks_of_tiny_weights_quantise_to_zero_without_a_warning(tmp_path: Path) -> None:
    # 1/scale would overflow float32 for these.
    values = np.full((1, 32), 1e-40, np.float32)
    for ggml_type in WRITABLE[3:]:
        write_gguf(tmp_path / "m.gguf", {"general.architecture": "llama"}, {"w": values}, ggml_type)
        assert not GGUFFile(tmp_path / "m.gguf").dequantize("w").any()


@pytest.mark.parametrize("ggml_type", [GGML.Q4_K, GGML.Q6_K, GGML.IQ4_NL], ids=lambda t: t.name)
def test_types_without_a_quantiser_are_refused(tmp_path: Path, ggml_type: GGML) -> None:
    with pytest.raises(CheckpointError, match=f"GGUF type {ggml_type.name} can be read but not written"):
        write_gguf(
            tmp_path / "m.gguf",
            {"general.architecture": "llama"},
            {"w": np.ones((1, 256), np.float32)},
            ggml_type,
        )
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(CheckpointError, match="cannot be written"):
        parse_ggml_type(ggml_type.name)


def test_transformers_loads_what_is_written(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    rng = np.random.default_rng(3)
    metadata = {
        "general.architecture": "llama",
        "llama.block_count": 1,
        "llama.context_length": 64,
        "llama.embedding_length": 64,
        "llama.feed_forward_length": 96,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": 16,
        "llama.rope.freq_base": 10000.0,
        "llama.vocab_size": 160,
        "tokenizer.ggml.tokens": [str(i) for i in range(160)],
    }
    shapes = {
        "token_embd.weight": (160, 64),
        "output.weight": (160, 64),
        "output_norm.weight": (64,),
        "blk.0.attn_norm.weight": (64,),
        "blk.0.ffn_norm.weight": (64,),
        "blk.0.attn_q.weight": (64, 64),
        "blk.0.attn_k.weight": (32, 64),
        "blk.0.attn_v.weight": (32, 64),
        "blk.0.attn_output.weight": (64, 64),
        "blk.0.ffn_gate.weight": (96, 64),
        "blk.0.ffn_up.weight": (96, 64),
        "blk.0.ffn_down.weight": (64, 96),
    }
    tensors = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    write_gguf(tmp_path / "tiny.gguf", metadata, tensors, GGML.Q8_0)
    state = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="tiny.gguf").state_dict()
    file = GGUFFile(tmp_path / "tiny.gguf")
    # Query and key rows are permuted between the two formats; the models' own tests cover that.
    for theirs, ours in {
        "model.embed_tokens.weight": "token_embd.weight",
        "lm_head.weight": "output.weight",
        "model.norm.weight": "output_norm.weight",
        "model.layers.0.self_attn.v_proj.weight": "blk.0.attn_v.weight",
        "model.layers.0.mlp.down_proj.weight": "blk.0.ffn_down.weight",
    }.items():
        assert torch.equal(state[theirs].float(), torch.from_numpy(file.dequantize(ours)))
