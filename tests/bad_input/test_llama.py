"""What a model or its file can get wrong, and the error that says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fullspan.checkpoints.gguf_file import GGMLQuantizationType, write_gguf
from fullspan.core.errors import CheckpointError, ConfigError, DataError
from fullspan.models.llama import Llama, LlamaConfig
from fullspan.models.loading import load_model, save_model
from fullspan.nn.kv_cache import KVCache

CONFIG = LlamaConfig(
    vocab_size=40, d_model=16, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=4, d_ff=24, max_positions=32
)
IDS = torch.arange(12).view(2, 6)


@pytest.fixture
def model() -> Llama:
    return Llama(CONFIG).eval()


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (torch.tensor([[3, 40]]), "token id 40 is outside the vocabulary of 40"),
        (torch.tensor([[3, -1]]), "token id -1 is outside"),
        (torch.tensor([3, 4]), r"shape \(2,\)"),
        (torch.empty(1, 0, dtype=torch.int64), r"shape \(1, 0\)"),
        (torch.tensor([[0.5]]), "torch.float32, expected integers"),
    ],
)
def test_ids(model: Llama, ids: torch.Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        model(ids)


@pytest.mark.parametrize("name", ["positions", "segments", "attention_mask"])
@pytest.mark.parametrize("shape", [(2, 5), (3, 6), (6,)])
def test_shapes_that_disagree(model: Llama, name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=name):
        model(IDS, **{name: torch.ones(shape, dtype=torch.int64)})


def test_arguments_that_exclude_each_other(model: Llama) -> None:
    segments = torch.zeros_like(IDS)
    with pytest.raises(ConfigError, match="segments exclude"):
        model(IDS, segments=segments, cache=model.new_cache())
    with pytest.raises(ConfigError, match="segments exclude"):
        model(IDS, segments=segments, attention_mask=torch.ones_like(IDS))


def test_caches_that_do_not_fit(model: Llama) -> None:
    with pytest.raises(ConfigError, match="3 layers, the model 2"):
        model(IDS, cache=KVCache(3))
    with pytest.raises(ConfigError, match="cannot carry gradients"):
        model(IDS, cache=model.new_cache())
    with torch.no_grad():
        cache = model.new_cache()
        model(IDS, cache=cache)
        with pytest.raises(ConfigError, match="holds 2 rows, got a batch of 1"):
            model(IDS[:1], cache=cache)
    with pytest.raises(ConfigError, match="cannot trim 7 tokens from a cache that holds 6"):
        cache.trim(7)
    with pytest.raises(ConfigError, match="capacity"):
        KVCache(2, capacity=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"sliding_window": 4096}, "sliding_window"),
        ({"use_qk_norm": True}, "use_qk_norm"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"rope_scaling": {"rope_type": "longrope", "factor": 2.0}}, "'longrope' is not supported"),
        ({"rope_scaling": {"rope_type": "linear"}}, "lacks its parameter 'factor'"),
        ({"rope_scaling": {"rope_type": "linear", "factor": "two"}}, "expected a number"),
        ({"rope_scaling": {"rope_type": "linear", "factor": -1.0}}, "expected a positive number"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0, "sections": 3}}, "'sections'"),
        ({"num_hidden_layers": None}, "lacks 'num_hidden_layers'"),
        ({"hidden_size": "16"}, "d_model is '16'"),
        ({"num_key_value_heads": 3}, "not a multiple"),
        ({"head_dim": 5}, "head_dim is 5"),
        ({"model_type": "mamba"}, "architecture 'mamba' is not supported"),
        ({"model_type": None}, "architecture None"),
    ],
)
def test_configs(model: Llama, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    save_model(model, tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(CheckpointError, match=message):
        load_model(tmp_path)


def test_older_configs_are_read_alike() -> None:
    """Before transformers 5: rope_theta beside rope_scaling, with `type` in it."""
    old: dict[str, Any] = CONFIG.to_hf() | {
        "rope_theta": 5e5,
        "rope_scaling": {"type": "linear", "factor": 2.0},
    }
    del old["rope_parameters"]
    new = CONFIG.to_hf() | {
        "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 5e5},
    }
    del new["rope_theta"], new["rope_scaling"]
    assert LlamaConfig.from_hf(old) == LlamaConfig.from_hf(new) != CONFIG


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"llama.expert_count": 8}, "llama.expert_count"),
        ({"llama.attention.sliding_window": 128}, "llama.attention.sliding_window"),
        ({"llama.rope.dimension_count": 2}, "llama.attention.key_length is 4"),
        ({"llama.rope.scaling.type": "longrope"}, "'longrope' is not supported"),
        ({"llama.rope.scaling.type": "linear"}, "lacks llama.rope.scaling.factor"),
        ({"llama.block_count": 3}, "missing: model.layers.2"),
        ({"llama.block_count": 1}, "unexpected: model.layers.1"),
        ({"llama.embedding_length": None}, "lacks 'llama.embedding_length'"),
        ({"llama.feed_forward_length": 32}, r"gate_proj.weight is \(24, 16\), expected \(32, 16\)"),
        ({"general.architecture": "gemma"}, "architecture 'gemma' is not supported"),
    ],
)
def test_gguf_metadata(model: Llama, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    write_changed(model, tmp_path / "model.gguf", changes, {})
    with pytest.raises(CheckpointError, match=message):
        load_model(tmp_path / "model.gguf")


@pytest.mark.parametrize(
    ("tensor", "shape", "message"),
    [
        ("blk.0.attn_q_norm.weight", (4,), "unexpected: blk.0.attn_q_norm.weight"),
        ("token_embd.weight", (40,), "token_embd.weight has shape"),
        ("rope_freqs.weight", (3,), "rope_freqs.weight has shape"),
        ("rope_freqs.weight", (2,), "rope_freqs.weight"),
    ],
)
def test_gguf_tensors(
    model: Llama, tmp_path: Path, tensor: str, shape: tuple[int, ...], message: str
) -> None:
    path = tmp_path / "model.gguf"
    values = np.linspace(9.0, 1.5, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    write_changed(model, path, {}, {tensor: values})
    with pytest.raises(CheckpointError, match=message):
        load_model(path)


def write_changed(model: Llama, path: Path, metadata: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
    from fullspan.models.llama import weights_to_gguf

    merged = model.config.to_gguf() | metadata
    weights = {
        name: weight.numpy() for name, weight in weights_to_gguf(model.config, model.state_dict().items())
    }
    write_gguf(
        path,
        {key: value for key, value in merged.items() if value is not None},
        weights | tensors,
        GGMLQuantizationType.F32,
    )


def test_paths(model: Llama, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file or folder"):
        load_model(tmp_path / "nothing")
    text = tmp_path / "notes.txt"
    text.write_text("hello")
    with pytest.raises(CheckpointError, match="neither a GGUF file nor a model folder"):
        load_model(text)
    with pytest.raises(CheckpointError, match="no safetensors"):
        load_model(tmp_path)


def test_saving_what_is_not_merged(model: Llama, tmp_path: Path) -> None:
    model.model.layers[0].self_attn.q_proj.lora_A = torch.nn.Parameter(torch.ones(2, 16))
    for path in (tmp_path / "model.gguf", tmp_path / "folder"):
        with pytest.raises(CheckpointError, match=r"q_proj\.lora_A"):
            save_model(model, path)
    assert not list(tmp_path.iterdir())


def test_a_tied_head_that_differs(tmp_path: Path) -> None:
    """A config that calls the head tied while the file holds another one."""
    save_model(Llama(CONFIG), tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"tie_word_embeddings": True}))
    with pytest.raises(CheckpointError, match=r"lm_head\.weight differs"):
        load_model(tmp_path)
