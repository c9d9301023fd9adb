"""Checks that every architecture in fullspan.models passes."""

from __future__ import annotations

import copy
import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fullspan.checkpoints.gguf_file import GGMLQuantizationType, GGUFFile
from fullspan.checkpoints.safetensors_folder import SafetensorsFolder
from fullspan.core.errors import FullspanError
from fullspan.models.formats import architectures
from fullspan.models.loading import load_model, save_model

TINY = {
    "llama": {
        "vocab_size": 80,
        "d_model": 64,
        "n_layers": 2,
        "n_heads": 4,
        "n_kv_heads": 2,
        "head_dim": 16,
        "d_ff": 96,
        "max_positions": 64,
    }
}
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
# Sums in another order differ in the last bits of float32.
FLOAT32 = 1e-5


def test_every_architecture_is_checked() -> None:
    assert architectures() == sorted(TINY)


@pytest.fixture(params=sorted(TINY))
def model(request: pytest.FixtureRequest) -> Any:
    module = importlib.import_module(f"fullspan.models.{request.param}")
    torch.manual_seed(0)
    model = module.Model(module.Config(**TINY[request.param])).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            # Larger than the default, so that attention is far from uniform.
            parameter.mul_(3.0) if parameter.ndim == 2 else parameter.uniform_(0.5, 1.5)
    return model


def tokens(model: Any, batch: int = 2, n_tokens: int = 12, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(model.config.vocab_size, (batch, n_tokens), generator=generator)


def assert_close(actual: Tensor, expected: Tensor) -> None:
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= FLOAT32 * expected.abs().max()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@torch.no_grad()
def test_keeps_its_dtype(model: Any, dtype: torch.dtype) -> None:
    ids = tokens(model)
    expected = model(ids)
    logits = copy.deepcopy(model).to(dtype)(ids)
    assert logits.dtype == dtype
    # Eight bits of bfloat16 over two layers; float16 has eleven.
    assert (logits.float() - expected).abs().max() < 0.1 * expected.abs().max()


@torch.no_grad()
def test_positions_stay_exact_when_cast(model: Any) -> None:
    """Positions above 256 are not all representable in bfloat16: far tokens would share one."""
    cast = copy.deepcopy(model).to(torch.bfloat16)
    ids = tokens(model, 1, 8)
    far = torch.arange(4000, 4008)[None]
    logits = cast(ids, positions=far)
    neighbours = cast(ids, positions=far + torch.arange(8) // 4)
    assert not torch.equal(logits, neighbours)
    # Rotary positions are relative.
    assert (logits - cast(ids)).abs().max() < 0.1 * logits.abs().max()


@torch.no_grad()
def test_rows_of_a_batch_are_independent(model: Any) -> None:
    ids = tokens(model, batch=4)
    assert_close(model(ids), torch.cat([model(row[None]) for row in ids]))


@torch.no_grad()
def test_no_token_sees_the_future(model: Any) -> None:
    ids = tokens(model)
    changed = ids.clone()
    changed[:, 7] = (changed[:, 7] + 1) % model.config.vocab_size
    before, after = model(ids), model(changed)
    assert_close(after[:, :7], before[:, :7])
    assert ((after - before)[:, 7:].abs().amax(-1) > 1e-3).all()


@torch.no_grad()
def test_hidden_then_logits_is_forward(model: Any) -> None:
    ids = tokens(model)
    hidden = model.hidden(ids)
    assert hidden.shape == (2, 12, model.config.d_model)
    assert torch.equal(model.logits(hidden), model(ids))
    assert_close(model.logits(hidden[:, -1]), model(ids)[:, -1])


@torch.no_grad()
def test_cached_values_equal_uncached_values(model: Any) -> None:
    ids = tokens(model)
    expected = model(ids)
    cache = model.new_cache()
    for i in range(ids.shape[1]):
        assert_close(model(ids[:, i : i + 1], cache=cache)[:, 0], expected[:, i])
        assert cache.length == i + 1


@torch.no_grad()
def test_a_cache_that_grew_holds_the_same(model: Any) -> None:
    ids = tokens(model, n_tokens=20)
    small, ample = model.new_cache(capacity=1), model.new_cache(capacity=64)
    for part in ids.split([3, 1, 1, 9, 6], dim=1):
        assert torch.equal(model(part, cache=small), model(part, cache=ample))
    assert (small.length, small.capacity) == (20, 32)


@torch.no_grad()
def test_trimmed_cache_continues_as_if_never_longer(model: Any) -> None:
    ids, wrong = tokens(model), tokens(model, n_tokens=5, seed=9)
    cache = model.new_cache()
    model(ids[:, :8], cache=cache)
    model(wrong, cache=cache)
    cache.trim(5)
    assert cache.length == 8
    assert_close(model(ids[:, 8:], cache=cache), model(ids)[:, 8:])


@torch.no_grad()
def test_cache_rows_can_be_selected_and_repeated(model: Any) -> None:
    ids, more = tokens(model, batch=3), tokens(model, batch=4, n_tokens=3, seed=3)
    mask = torch.ones_like(ids)
    mask[1, :5] = 0
    cache = model.new_cache()
    model(ids, attention_mask=mask, cache=cache)
    rows = torch.tensor([2, 1, 1, 0])
    cache.select(rows)
    whole = torch.cat((ids[rows], more), dim=1)
    whole_mask = torch.cat((mask[rows], torch.ones_like(more)), dim=1)
    assert_close(model(more, cache=cache), model(whole, attention_mask=whole_mask)[:, -3:])


def test_a_pass_that_fails_leaves_the_cache_as_it_was(model: Any) -> None:
    ids = tokens(model)
    cache = model.new_cache()
    with torch.no_grad():
        model(ids[:, :6], cache=cache)
        with pytest.raises(FullspanError):
            model(ids[:, 6:] + model.config.vocab_size, cache=cache)
        assert_close(model(ids[:, 6:], cache=cache), model(ids)[:, 6:])


def test_every_parameter_gets_a_gradient(model: Any) -> None:
    model(tokens(model)).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


@torch.no_grad()
def test_state_dict_round_trip(model: Any) -> None:
    other = type(model)(model.config).eval()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(tokens(model)), model(tokens(model)))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@torch.no_grad()
def test_folder_round_trip(model: Any, dtype: torch.dtype, tmp_path: Path) -> None:
    model = model.to(dtype)
    save_model(model, tmp_path / "model")
    assert SafetensorsFolder(tmp_path / "model").config["dtype"] == str(dtype).removeprefix("torch.")
    reread = load_model(tmp_path / "model", dtype=dtype)
    assert reread.config == model.config and not reread.training
    assert torch.equal(reread(tokens(model)), model(tokens(model)))


@torch.no_grad()
def test_gguf_round_trip(model: Any, tmp_path: Path) -> None:
    save_model(model, tmp_path / "model.gguf", ggml_type="f32")
    reread = load_model(tmp_path / "model.gguf")
    assert reread.config == model.config and not reread.training
    assert torch.equal(reread(tokens(model)), model(tokens(model)))


@pytest.mark.parametrize(("ggml_type", "bits"), [("f16", 10), ("bf16", 7), ("q8_0", 6), ("q4_1", 3)])
@torch.no_grad()
def test_gguf_types(model: Any, ggml_type: str, bits: int, tmp_path: Path) -> None:
    save_model(model, tmp_path / "model.gguf", ggml_type=ggml_type)
    types = {name: tensor.ggml_type for name, tensor in GGUFFile(tmp_path / "model.gguf").tensors.items()}
    assert types["blk.0.attn_norm.weight"] == GGMLQuantizationType.F32
    assert types["blk.0.attn_q.weight"] == GGMLQuantizationType[ggml_type.upper()]
    # As in llama.cpp, a coarse type is too coarse for the embedding and the head.
    assert types["output.weight"].name == ("Q8_0" if ggml_type == "q4_1" else ggml_type.upper())
    reread = dict(load_model(tmp_path / "model.gguf").named_parameters())
    for name, parameter in model.named_parameters():
        # Half a step of the type, relative to the largest weight near by.
        assert (reread[name] - parameter).abs().max() <= parameter.abs().max() * 2.0**-bits, name


@torch.no_grad()
def test_loading_converts_to_the_asked_dtype(model: Any, tmp_path: Path) -> None:
    for path in (tmp_path / "model.gguf", tmp_path / "folder"):
        save_model(model, path)
        reread = load_model(path, dtype=torch.bfloat16)
        assert {parameter.dtype for parameter in reread.parameters()} == {torch.bfloat16}
        assert not any(tensor.is_meta for tensor in (*reread.parameters(), *reread.buffers()))


def test_a_loaded_model_can_be_trained(model: Any, tmp_path: Path) -> None:
    """Weights are memory-mapped: training must neither fail nor write to the file."""
    save_model(model, tmp_path / "folder")
    before = (tmp_path / "folder" / "model.safetensors").read_bytes()
    reread = load_model(tmp_path / "folder")
    reread(tokens(model)).square().mean().backward()
    torch.optim.SGD(reread.parameters(), lr=0.1).step()
    assert not torch.equal(reread.model.norm.weight, model.model.norm.weight)
    assert (tmp_path / "folder" / "model.safetensors").read_bytes() == before
