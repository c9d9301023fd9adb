"""Hugging Face folders against transformers, both ways, and weights put into modules."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from fullspan.checkpoints.safetensors_folder import SafetensorsFolder, write_folder
from fullspan.checkpoints.weights import load_weights


def tiny_llama(seed: int = 0, tied: bool = False) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=64,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=tied,
        )
    )


@pytest.mark.parametrize("shard_size", ["10KB", "5GB"])
def test_what_transformers_writes_reads_equal(tmp_path: Path, shard_size: str) -> None:
    model = tiny_llama()
    model.save_pretrained(tmp_path, max_shard_size=shard_size)
    folder = SafetensorsFolder(tmp_path)
    assert (len(folder.files) > 1) == (shard_size == "10KB")
    state = model.state_dict()
    assert set(folder.names()) == set(state)
    assert folder.shapes() == {name: tuple(tensor.shape) for name, tensor in state.items()}
    assert all(torch.equal(folder.tensor(name), state[name]) for name in state)
    assert folder.config["num_key_value_heads"] == 2


@pytest.mark.parametrize("max_shard_bytes", [10_000, 5_000_000_000])
def test_transformers_loads_what_is_written(tmp_path: Path, max_shard_bytes: int) -> None:
    model = tiny_llama()
    path = tmp_path / "model"
    write_folder(
        path,
        model.config.to_dict(),
        model.state_dict(),
        max_shard_bytes=max_shard_bytes,
        extra_files={"generation_config.json": "{}", "notes.md": b"bytes"},
    )
    shards = sorted(path.glob("*.safetensors"))
    assert all(shard.stat().st_size <= max_shard_bytes + 2000 for shard in shards)  # headers aside
    assert (len(shards) > 1) == (max_shard_bytes == 10_000)
    loaded, report = LlamaForCausalLM.from_pretrained(path, output_loading_info=True)
    assert not any(report.values())
    ids = torch.arange(8)[None]
    with torch.no_grad():
        assert torch.equal(loaded(ids).logits, model.eval()(ids).logits)


def test_the_index_states_names_and_size_as_transformers_does(tmp_path: Path) -> None:
    model = tiny_llama()
    model.save_pretrained(tmp_path / "theirs", max_shard_size="10KB")
    write_folder(tmp_path / "ours", {}, model.state_dict(), max_shard_bytes=10_000)
    name = "model.safetensors.index.json"
    ours, theirs = (json.loads((tmp_path / who / name).read_text()) for who in ("ours", "theirs"))
    assert ours["weight_map"].keys() == theirs["weight_map"].keys()
    assert ours["metadata"]["total_size"] == theirs["metadata"]["total_size"]


def test_tensors_are_mapped_and_a_change_stays_in_memory(tmp_path: Path) -> None:
    write_folder(tmp_path / "m", {}, {"w": torch.zeros(1000)})
    first, second = SafetensorsFolder(tmp_path / "m"), SafetensorsFolder(tmp_path / "m")
    first.tensor("w").fill_(1)
    assert not second.tensor("w").any()
    assert not SafetensorsFolder(tmp_path / "m").tensor("w").any()


def test_dtypes_survive_and_convert(tmp_path: Path) -> None:
    tensors = {"b": torch.randn(3).bfloat16(), "h": torch.randn(3).half(), "i": torch.arange(3)}
    write_folder(tmp_path / "m", {}, tensors)
    folder = SafetensorsFolder(tmp_path / "m")
    assert folder.dtypes() == {"b": "BF16", "h": "F16", "i": "I64"}
    assert all(
        torch.equal(folder.tensor(n), t) and folder.tensor(n).dtype == t.dtype for n, t in tensors.items()
    )
    assert folder.tensor("b", torch.float32).dtype == torch.float32


def test_slices_and_transposes_are_written_whole(tmp_path: Path) -> None:
    fused = torch.arange(12.0).reshape(4, 3)
    write_folder(tmp_path / "m", {}, {"q": fused[:2], "k": fused[2:], "t": fused[:2].T})
    folder = SafetensorsFolder(tmp_path / "m")
    assert torch.equal(folder.tensor("k"), fused[2:]) and torch.equal(folder.tensor("t"), fused[:2].T)
    # The slices bring no bytes of the tensor that they were cut from.
    assert folder.files[0].stat().st_size < 18 * 4 + 400


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    write_folder(tmp_path / "m", {}, {"a": torch.ones(2000), "b": torch.ones(2000)}, max_shard_bytes=8000)
    write_folder(tmp_path / "m", {}, {"c": torch.ones(2)})
    assert sorted(file.name for file in (tmp_path / "m").iterdir()) == ["config.json", "model.safetensors"]
    assert SafetensorsFolder(tmp_path / "m").names() == ["c"]


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("tied", [False, True])
def test_load_weights_gives_the_module_the_stored_weights(tmp_path: Path, device: str, tied: bool) -> None:
    source = tiny_llama(seed=1, tied=tied)
    source.save_pretrained(tmp_path)
    target = tiny_llama(seed=2, tied=tied)
    if device == "meta":
        target = target.to("meta")
        target.tie_weights()
        target.model.rotary_emb = source.model.rotary_emb  # its buffers are in no file
    load_weights(target, SafetensorsFolder(tmp_path).items(), tied=["lm_head.weight"] if tied else [])
    assert (target.lm_head.weight is target.model.embed_tokens.weight) == tied
    ids = torch.arange(8)[None]
    with torch.no_grad():
        assert torch.equal(target.eval()(ids).logits, source.eval()(ids).logits)


def test_load_weights_fills_in_place_and_converts() -> None:
    layer = nn.Linear(3, 2).to(torch.bfloat16)
    layer.weight.requires_grad_(False)
    weight, before = torch.randn(2, 3), layer.weight
    load_weights(layer, {"weight": weight, "bias": torch.ones(2)})
    assert layer.weight is before and not before.requires_grad
    assert torch.equal(layer.weight, weight.bfloat16())


def test_load_weights_replaces_meta_parameters_without_a_copy() -> None:
    with torch.device("meta"):
        layer = nn.Linear(3, 2)
    layer.bias.requires_grad_(False)
    weight = torch.randn(2, 3)
    load_weights(layer, iter([("weight", weight), ("bias", torch.ones(2))]))
    assert layer.weight.data_ptr() == weight.data_ptr()
    assert layer.weight.requires_grad and not layer.bias.requires_grad


def test_a_tied_name_that_is_present_never_overrides() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(4, 3)
            self.head = nn.Linear(3, 4, bias=False)
            self.head.weight = self.embed.weight

    module = Tied()
    load_weights(
        module, {"embed.weight": torch.ones(4, 3), "head.weight": torch.zeros(4, 3)}, tied=["head.weight"]
    )
    assert module.head.weight is module.embed.weight and module.embed.weight.eq(1).all()
