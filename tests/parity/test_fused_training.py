"""The fused training step against autograd: our own model's, and transformers' with peft."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fullspan.adapters.lora import LoRAConfig, add_lora, lora_parameters
from fullspan.core.device import has_fast_bfloat16
from fullspan.core.errors import ConfigError, DataError
from fullspan.models.llama import Llama, LlamaConfig
from fullspan.models.loading import load_model
from fullspan.models.tokenizers import load_tokenizer
from fullspan.nn.frequencies import Llama3Scaling, YarnScaling
from fullspan.text.packing import Batch, Encoded, packed_batch, padded_batch
from fullspan.training.fused import FusedStep, unsupported_reason
from fullspan.training.steps import AutogradStep

GQA = LlamaConfig(
    vocab_size=160,
    d_model=64,
    n_layers=3,
    n_heads=4,
    n_kv_heads=2,
    head_dim=16,
    d_ff=96,
    max_positions=1024,
)
CONFIGS: dict[str, dict[str, Any]] = {
    "gqa": {},
    "mha": {"n_kv_heads": 4},
    "mqa": {"n_kv_heads": 1},
    "three query heads a group": {"n_heads": 6, "n_kv_heads": 2, "d_model": 96},
    "odd sizes": {"d_model": 42, "head_dim": 14, "d_ff": 50, "vocab_size": 131},
    "head of 64": {"head_dim": 64},
    "one layer": {"n_layers": 1},
    "tied head": {"tied_head": True},
    "yarn": {"rope_scaling": YarnScaling(factor=4.0, original_max_positions=16)},
    "llama 3": {"rope_scaling": Llama3Scaling(factor=8.0, original_max_positions=32)},
}
LORA = LoRAConfig(rank=8, alpha=16.0)
LENGTHS = (17, 1, 40, 2, 33, 70)

Gradients = dict[str, Tensor]


def make_model(lora: LoRAConfig = LORA, **changes: Any) -> Llama:
    """Random weights of a size at which no layer saturates, and an adapter that is not at its start."""
    torch.manual_seed(0)
    model = Llama(dataclasses.replace(GQA, **changes))
    for parameter in model.parameters():
        if parameter.ndim == 1:  # gains of norms
            nn.init.uniform_(parameter, 0.5, 1.5)
        else:
            nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
    add_lora(model, lora)
    for name, parameter in lora_parameters(model).items():
        if "magnitude" not in name:
            nn.init.normal_(parameter, std=0.3 * parameter.shape[1] ** -0.5)
    return model


def make_examples(
    lengths: tuple[int, ...] = LENGTHS, shared: int = 0, vocab_size: int = 131
) -> list[Encoded]:
    """Random examples whose first `shared` tokens are the same and not supervised."""
    draw = np.random.default_rng(0)
    prefix = draw.integers(0, vocab_size, shared)
    made = []
    for length in lengths:
        ids = np.concatenate([prefix, draw.integers(0, vocab_size, length)])
        made.append(Encoded(ids, (draw.random(len(ids)) < 0.6) & (np.arange(len(ids)) >= shared)))
    return made


def half_weights(model: Llama, dtype: torch.dtype) -> Llama:
    """A copy with the frozen weights rounded to bfloat16 and held in `dtype`."""
    model = copy.deepcopy(model)
    for name, parameter in model.named_parameters():
        if "lora" not in name:
            parameter.data = parameter.data.to(torch.bfloat16).to(dtype)
    model.tie_head()
    return model


def run(engine: Any, batch: Batch) -> tuple[float, Gradients]:
    engine.model.zero_grad()
    loss = engine.loss_and_grads(batch, batch.n_supervised)
    return loss, {name: p.grad.clone() for name, p in lora_parameters(engine.model).items()}


def error(found: Gradients, expected: Gradients) -> dict[str, float]:
    assert found.keys() == expected.keys()
    return {name: float((found[name] - expected[name]).norm() / expected[name].norm()) for name in found}


def assert_equal_in_float32(model: Llama, batch: Batch) -> None:
    expected_loss, expected = run(AutogradStep(copy.deepcopy(model)), batch)
    fused = FusedStep(model)
    loss, gradients = run(fused, batch)
    assert loss == pytest.approx(expected_loss, rel=2e-6)
    assert max(error(gradients, expected).values()) < 2e-5  # sums in another order
    assert fused.loss(batch) == pytest.approx(loss, rel=1e-6)


@pytest.mark.parametrize("changes", CONFIGS.values(), ids=CONFIGS.keys())
def test_architectures(changes: dict[str, Any]) -> None:
    assert_equal_in_float32(make_model(**changes), packed_batch(make_examples()))


@pytest.mark.parametrize("rank", [1, 8, 16, 40])
def test_ranks(rank: int) -> None:
    model = make_model(LoRAConfig(rank=rank, alpha=2.0 * rank))
    assert_equal_in_float32(model, packed_batch(make_examples()))


@pytest.mark.parametrize(
    "targets", [["q_proj", "v_proj"], ["down_proj"], ["gate_proj", "o_proj"], ["k_proj"]]
)
def test_some_targets(targets: list[str]) -> None:
    """Groups without an adapter, and groups where only one layer has one."""
    assert_equal_in_float32(make_model(LoRAConfig(rank=4, targets=targets)), packed_batch(make_examples()))


def test_some_layers() -> None:
    model = make_model(LoRAConfig(rank=4, targets=["layers.1.self_attn.q_proj", "layers.2.mlp.up_proj"]))
    assert_equal_in_float32(model, packed_batch(make_examples()))


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("shared", [0, 9])
def test_threads_and_shared_prefixes(threads: int, shared: int) -> None:
    """A prefix is computed once, and its keys collect gradients from all the segments that see it."""
    torch.set_num_threads(threads)
    assert_equal_in_float32(make_model(), packed_batch(make_examples(shared=shared)))


@pytest.mark.parametrize("threads", [1, 3])
def test_one_long_segment(threads: int) -> None:
    """Longer than a block of queries, and not divisible among threads by segments."""
    torch.set_num_threads(threads)
    batch = packed_batch(make_examples((601, 20), shared=10))
    assert_equal_in_float32(make_model(), batch)


def test_padded_batch() -> None:
    assert_equal_in_float32(make_model(), padded_batch(make_examples()))
    assert_equal_in_float32(make_model(), packed_batch(make_examples(), length=200))


def test_peft() -> None:
    """The same numbers as transformers with peft's LoRA, in float32."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # their imports
        import peft
        import transformers
    model = make_model(LoRAConfig(rank=4, alpha=12.0))
    config = transformers.LlamaConfig(**model.config.to_hf())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = peft.get_peft_model(
            transformers.LlamaForCausalLM(config),
            peft.LoraConfig(r=4, lora_alpha=12.0, target_modules="all-linear", lora_dropout=0.0),
        )
    named = {}
    for name, tensor in model.state_dict().items():
        theirs = name.replace(".lora_A", ".lora_A.default.weight").replace(
            ".lora_B", ".lora_B.default.weight"
        )
        if "proj" in name and "lora" not in name:
            theirs = name.replace(".base.weight", ".base_layer.weight")
        named["base_model.model." + theirs] = tensor
    assert not peer.load_state_dict(named, strict=False).unexpected_keys
    batch = padded_batch(make_examples((20, 33, 9)))
    mask = torch.from_numpy((batch.segments >= 0).astype(int))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logits = peer(input_ids=torch.from_numpy(batch.ids), attention_mask=mask).logits
    loss = nn.functional.cross_entropy(
        logits.flatten(0, 1), torch.from_numpy(batch.labels).flatten(), reduction="sum"
    )
    (loss / batch.n_supervised).backward()
    expected = {}
    for name, parameter in peer.named_parameters():
        if parameter.requires_grad:
            expected[name.removeprefix("base_model.model.").replace(".default.weight", "")] = parameter.grad
    fused_loss, gradients = run(FusedStep(model), batch)
    assert fused_loss == pytest.approx(float(loss.detach()), rel=2e-6)
    assert max(error(gradients, expected).values()) < 2e-5


def assert_close_in_bfloat16(model: Llama, batch: Batch) -> None:
    """Against float32 on the same rounded weights; not much further from it than autocast is."""
    expected_loss, expected = run(AutogradStep(half_weights(model, torch.float32)), batch)
    autocast_loss, autocast = run(AutogradStep(half_weights(model, torch.bfloat16)), batch)
    loss, gradients = run(FusedStep(half_weights(model, torch.bfloat16)), batch)
    # Few tokens, whose errors of a few thousandths hardly cancel.
    assert abs(loss / expected_loss - 1) < max(1.5e-3, 1.5 * abs(autocast_loss / expected_loss - 1))
    ours, theirs = error(gradients, expected), error(autocast, expected)
    for name in ours:
        assert ours[name] < max(0.02, 1.5 * theirs[name]), name
    mean, their_mean = np.mean(list(ours.values())), np.mean(list(theirs.values()))
    assert mean < 1.2 * their_mean + 0.002


needs_bfloat16 = pytest.mark.skipif(not has_fast_bfloat16(), reason="this CPU has no bfloat16 products")


@needs_bfloat16
@pytest.mark.parametrize("changes", CONFIGS.values(), ids=CONFIGS.keys())
def test_bfloat16(changes: dict[str, Any]) -> None:
    assert_close_in_bfloat16(make_model(**changes), packed_batch(make_examples(shared=8)))


@needs_bfloat16
@pytest.mark.parametrize("lengths", [(300, 17, 270), (64, 64), (31, 33, 128)])
def test_bfloat16_lengths(lengths: tuple[int, ...]) -> None:
    """Around the sizes of the blocks of attention."""
    assert_close_in_bfloat16(make_model(head_dim=32), packed_batch(make_examples(lengths, shared=0)))
    assert_close_in_bfloat16(make_model(head_dim=64), packed_batch(make_examples(lengths, shared=40)))


@needs_bfloat16
@pytest.mark.slow
def test_smollm2(smollm2_path: Path) -> None:
    model = load_model(smollm2_path, dtype=torch.bfloat16)
    add_lora(model, LORA)
    torch.manual_seed(0)
    for parameter in lora_parameters(model).values():
        nn.init.normal_(parameter, std=0.02)
    tokenizer = load_tokenizer(smollm2_path)
    texts = [str(function.__doc__) for function in (int, str.split, dict, sorted)]
    encoded = [tokenizer.encode("Documentation:\n" + text) for text in texts]
    batch = packed_batch([Encoded(ids, np.arange(len(ids)) > 8) for ids in encoded])
    expected_loss, expected = run(AutogradStep(half_weights(model, torch.float32)), batch)
    _, autocast = run(AutogradStep(half_weights(model, torch.bfloat16)), batch)
    loss, gradients = run(FusedStep(model), batch)
    # A token's loss is off by 0.03 at random, for us and for autocast: 1.5e-3 of 2.7 is three deviations of
    # the mean of 440 tokens.
    assert loss == pytest.approx(expected_loss, rel=1.5e-3)
    ours, theirs = error(gradients, expected), error(autocast, expected)
    assert np.mean(list(ours.values())) < 1.2 * np.mean(list(theirs.values()))
    assert max(ours.values()) < 1.5 * max(theirs.values())


def test_segments_are_strangers() -> None:
    """Packed together or one by one: the same sum of losses and gradients."""
    examples = make_examples()
    model = make_model()
    batch = packed_batch(examples)
    fused = FusedStep(model)
    loss, together = run(fused, batch)
    model.zero_grad()
    apart = sum(fused.loss_and_grads(packed_batch([one]), batch.n_supervised) for one in examples)
    assert apart == pytest.approx(loss, rel=1e-6)
    assert max(error({n: p.grad for n, p in lora_parameters(model).items()}, together).values()) < 1e-5


def test_same_bits_every_time() -> None:
    """Also after other batches went through the same memory."""
    dtype = torch.bfloat16 if has_fast_bfloat16() else torch.float32
    fused = FusedStep(half_weights(make_model(), dtype))
    batch = packed_batch(make_examples(shared=8))
    loss, gradients = run(fused, batch)
    run(fused, packed_batch(make_examples((300, 2))))
    again, more = run(fused, batch)
    assert loss == again
    assert all(torch.equal(gradients[name], more[name]) for name in gradients)


def test_follows_the_parameters() -> None:
    """A step of the optimiser, or a loaded checkpoint, is seen by the next call."""
    model, other = make_model(), make_model()
    batch = packed_batch(make_examples())
    fused = FusedStep(model)
    fused.loss(batch)
    with torch.no_grad():
        for one in (model, other):
            for parameter in lora_parameters(one).values():
                parameter.mul_(1.5)
    assert fused.loss(batch) == pytest.approx(AutogradStep(other).loss(batch), rel=2e-6)


def test_model_goes_on_working() -> None:
    """Its weights are views now: same logits, and a cast that moves them is noticed."""
    model = make_model()
    ids = torch.arange(12)[None]
    before = model(ids)
    fused = FusedStep(model)
    assert torch.equal(model(ids), before)
    batch = packed_batch(make_examples())
    expected = fused.loss(batch)
    model.to(torch.float64).to(torch.float32)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.base.weight.mul_(2)
    assert fused.loss(batch) == pytest.approx(AutogradStep(model).loss(batch), rel=2e-6)
    assert fused.loss(batch) != pytest.approx(expected, rel=1e-5)


def test_nothing_supervised() -> None:
    model = make_model()
    batch = packed_batch([Encoded([1, 2, 3], [False] * 3)])
    assert FusedStep(model).loss_and_grads(batch, 1) == 0.0
    assert all(p.grad is None for p in lora_parameters(model).values())


def test_batches_that_are_wrong() -> None:
    fused = FusedStep(make_model())
    batch = packed_batch(make_examples())
    with pytest.raises(ConfigError, match="normaliser is 0"):
        fused.loss_and_grads(batch, 0)
    with pytest.raises(DataError, match="token id 160 is outside the vocabulary of 160"):
        fused.loss(packed_batch([Encoded([1, 160], [True, True])]))
    torn = dataclasses.replace(
        batch, segments=np.where(np.arange(batch.ids.size) % 5 == 0, 7, batch.segments)
    )
    with pytest.raises(DataError, match="not contiguous"):
        fused.loss(torn)


def test_models_that_are_not_supported() -> None:
    assert unsupported_reason(make_model()) is None
    assert "dropout" in str(unsupported_reason(make_model(LoRAConfig(dropout=0.1))))
    assert "DoRA" in str(unsupported_reason(make_model(LoRAConfig(dora=True))))
    assert "bias" in str(unsupported_reason(make_model(attention_bias=True)))
    assert "float64" in str(unsupported_reason(make_model().double()))
    assert "no LoRA" in str(unsupported_reason(Llama(GQA).requires_grad_(False)))
    assert "not frozen" in str(unsupported_reason(Llama(GQA)))
    with pytest.raises(ConfigError, match="fused training is not possible: DoRA"):
        FusedStep(make_model(LoRAConfig(dora=True)))
