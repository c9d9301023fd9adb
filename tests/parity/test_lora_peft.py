"""Adapters against PEFT on the same weights: logits, gradients, and files both ways."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers

from fullspan.adapters.lora import LoRAConfig, add_lora, disabled, lora_parameters, merge_lora
from fullspan.adapters.peft_format import load_adapter, save_adapter
from fullspan.core.errors import CheckpointError
from fullspan.models.llama import Llama
from fullspan.models.loading import load_model

# PEFT itself calls what this version of transformers deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

# Sums of 32 to 64 float32 products in another order: about 1e-6 of the logits, which are of order one.
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
IDS = torch.tensor([[5, 17, 99, 3, 42, 200, 7], [1, 2, 3, 4, 5, 6, 8]])

VARIANTS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "some modules": {"target_modules": ["q_proj", "down_proj"]},
    "patterns": {"rank_pattern": {"v_proj": 2}, "alpha_pattern": {"layers.1.mlp.up_proj": 3}},
    "one layer": {"target_modules": ["v_proj"], "layers_to_transform": [1], "layers_pattern": "layers"},
}


def _reference(folder: Path, **options: Any) -> Any:
    """A PEFT model whose adapters are no longer zero."""
    base = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    settings = {"r": 4, "lora_alpha": 7, "target_modules": "all-linear", "task_type": "CAUSAL_LM"} | options
    model = peft.get_peft_model(base, peft.LoraConfig(**settings))
    _fill(model)
    return model.eval()


def _fill(model: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
            if "magnitude" in name:
                parameter.mul_(1 + 0.3 * torch.rand(parameter.shape, generator=generator))


@pytest.mark.parametrize("variant", VARIANTS)
def test_reads_what_peft_wrote(variant: str, tiny_chat_model: Path, tmp_path: Path) -> None:
    reference = _reference(tiny_chat_model, **VARIANTS[variant])
    reference.save_pretrained(tmp_path)
    model = load_model(tiny_chat_model)
    before = model(IDS)
    load_adapter(model, tmp_path)
    with torch.no_grad():
        expected = reference(IDS).logits
        torch.testing.assert_close(model(IDS), expected, **TOLERANCE)
        assert (before - expected).abs().max() > 0.1  # the adapter does something
        with disabled(model):
            torch.testing.assert_close(model(IDS), before, rtol=0, atol=0)


@pytest.mark.parametrize("variant", ["lora", "rslora", "dora", "some modules"])
def test_peft_reads_what_we_wrote(variant: str, tiny_chat_model: Path, tmp_path: Path) -> None:
    options = VARIANTS[variant]
    model = _ours(tiny_chat_model, options)
    save_adapter(model, tmp_path / "adapter", str(tiny_chat_model))
    base = transformers.AutoModelForCausalLM.from_pretrained(tiny_chat_model, attn_implementation="eager")
    reference = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    with torch.no_grad():
        torch.testing.assert_close(reference(IDS).logits, model(IDS), **TOLERANCE)


def _ours(folder: Path, options: dict[str, Any]) -> Llama:
    model = load_model(folder)
    config = LoRAConfig(
        rank=4,
        alpha=7,
        targets=options.get("target_modules", ["all-linear"]),
        rslora=options.get("use_rslora", False),
        dora=options.get("use_dora", False),
    )
    add_lora(model, config, seed=1)
    _fill(model)
    return model


@pytest.mark.parametrize("variant", ["lora", "dora"])
def test_gradients_equal_pefts(variant: str, tiny_chat_model: Path, tmp_path: Path) -> None:
    reference = _reference(tiny_chat_model, **VARIANTS[variant])
    reference.save_pretrained(tmp_path)
    model = load_model(tiny_chat_model)
    load_adapter(model, tmp_path)
    reference(IDS).logits.square().mean().backward()
    model(IDS).square().mean().backward()
    expected = {name: value.grad for name, value in reference.named_parameters() if value.requires_grad}
    ours = lora_parameters(model)
    assert len(ours) == len(expected)
    endings = {"lora_A": ".lora_A.default.weight", "lora_B": ".lora_B.default.weight"}
    for name, parameter in ours.items():
        layer, _, kind = name.rpartition(".")
        theirs = "base_model.model." + layer + endings.get(kind, ".lora_magnitude_vector.default.weight")
        torch.testing.assert_close(parameter.grad, expected[theirs], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("variant", ["lora", "rslora", "dora"])
def test_first_values_are_those_of_peft(variant: str, tiny_chat_model: Path) -> None:
    """B is zero and A uniform in +-1/sqrt(in): the adapted model starts as its base."""
    model = load_model(tiny_chat_model)
    before = model(IDS).detach()
    options = VARIANTS[variant]
    add_lora(model, LoRAConfig(rslora="use_rslora" in options, dora="use_dora" in options))
    torch.testing.assert_close(model(IDS).detach(), before, **TOLERANCE)
    layer = model.get_submodule("model.layers.0.mlp.down_proj")
    bound = 64**-0.5
    values = layer.lora_A.detach()
    assert values.abs().max() <= bound
    assert values.abs().max() > 0.98 * bound  # 1024 draws: the chance of a miss is 1e-9
    assert not layer.lora_B.any()


def test_merging_equals_pefts_merge(tiny_chat_model: Path, tmp_path: Path) -> None:
    reference = _reference(tiny_chat_model, use_dora=True)
    reference.save_pretrained(tmp_path)
    model = load_model(tiny_chat_model)
    load_adapter(model, tmp_path)
    merge_lora(model)
    merged = reference.merge_and_unload().state_dict()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, merged[name], rtol=1e-5, atol=1e-6)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "bias": ({"bias": "all"}, "bias is 'all'"),
    "modules_to_save": ({"modules_to_save": ["lm_head"]}, "modules_to_save is"),
    "another method": ({"peft_type": "LOHA"}, "peft_type is 'LOHA'"),
    "unknown switch": ({"use_wonder": True}, "use_wonder is True"),
    "changed base": ({"init_lora_weights": "pissa_niter_4"}, "changes the base weights"),
    "negative rank": ({"r": -1}, "r is -1"),
    "lora_bias": ({"lora_bias": True}, "lora_bias is True"),
    "regular expression": ({"rank_pattern": {".*(q|v)_proj": 2}}, "not a plain module name"),
    "wrong rank": ({"r": 5}, r"lora_A of \S+down_proj has shape \(4, 64\), expected \(5, 64\)"),
    "missing magnitude": ({"use_dora": True}, "expected .*magnitude"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_supported_is_refused_by_name(case: str, tiny_chat_model: Path, tmp_path: Path) -> None:
    change, message = REFUSED[case]
    model = _ours(tiny_chat_model, {})
    save_adapter(model, tmp_path / "adapter", "base")
    file = tmp_path / "adapter" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    fresh = load_model(tiny_chat_model)
    before = fresh(IDS).detach()
    with pytest.raises(CheckpointError, match=message):
        load_adapter(fresh, tmp_path / "adapter")
    torch.testing.assert_close(fresh(IDS).detach(), before, rtol=0, atol=0)  # left as it was


def test_damaged_files_are_named(tiny_chat_model: Path, tmp_path: Path) -> None:
    model = load_model(tiny_chat_model)
    with pytest.raises(CheckpointError, match="is not an adapter"):
        load_adapter(model, tmp_path)
    save_adapter(_ours(tiny_chat_model, {}), tmp_path / "a", "base")
    weights = tmp_path / "a" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors is damaged"):
        load_adapter(model, tmp_path / "a")
    (tmp_path / "a" / "adapter_config.json").write_text("{")
    with pytest.raises(CheckpointError, match="is not JSON"):
        load_adapter(model, tmp_path / "a")
