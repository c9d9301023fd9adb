"""Llama against transformers' LlamaForCausalLM on the same random weights."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fullspan.checkpoints.weights import load_weights
from fullspan.core.errors import CheckpointError
from fullspan.models._rope import llama3_divisors
from fullspan.models.llama import Llama, LlamaConfig
from fullspan.models.loading import load_model, save_model
from fullspan.nn.frequencies import DynamicScaling, LinearScaling, Llama3Scaling, YarnScaling

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # transformers' own imports
    import transformers

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

GQA = LlamaConfig(
    vocab_size=96,
    d_model=32,
    n_layers=2,
    n_heads=4,
    n_kv_heads=2,
    head_dim=8,
    d_ff=48,
    max_positions=64,
    rms_norm_eps=1e-5,
)
YARN = YarnScaling(factor=4.0, original_max_positions=16)
LLAMA3 = Llama3Scaling(factor=8.0, original_max_positions=32)


def variant(**changes: Any) -> LlamaConfig:
    return dataclasses.replace(GQA, **changes)


CONFIGS = {
    "gqa": GQA,
    "mha": variant(n_kv_heads=4),
    "mqa": variant(n_kv_heads=1),
    "three query heads a group": variant(n_heads=6, n_kv_heads=2, d_model=36, head_dim=6),
    "head_dim larger than d_model / n_heads": variant(head_dim=14),
    "head_dim smaller than d_model / n_heads": variant(head_dim=4),
    "tied head": variant(tied_head=True),
    "attention bias": variant(attention_bias=True),
    "mlp bias": variant(mlp_bias=True),
    "both biases, tied": variant(attention_bias=True, mlp_bias=True, tied_head=True),
    "another theta": variant(rope_theta=500000.0),
    "linear": variant(rope_scaling=LinearScaling(4.0)),
    "dynamic": variant(rope_scaling=DynamicScaling(2.0), max_positions=24),
    "yarn": variant(rope_scaling=YARN),
    "yarn with attention factor": variant(rope_scaling=dataclasses.replace(YARN, attention_factor=0.7)),
    "yarn with mscales": variant(rope_scaling=dataclasses.replace(YARN, mscale=0.8, mscale_all_dim=0.4)),
    "yarn with betas": variant(rope_scaling=dataclasses.replace(YARN, beta_fast=4.0, beta_slow=0.5)),
    "yarn, not truncated": variant(rope_scaling=dataclasses.replace(YARN, truncate=False)),
    "llama3": variant(rope_scaling=LLAMA3, head_dim=16),
    "llama3, other bands": variant(
        rope_scaling=Llama3Scaling(32.0, 24, low_freq_factor=0.5, high_freq_factor=3.0), head_dim=16
    ),
}
each_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
# For what does not depend on how frequencies are scaled. (Dynamic scaling has its own test: cached and
# uncached values differ on purpose, as in transformers.)
few_configs = pytest.mark.parametrize("name", ["gqa", "mha", "mqa", "both biases, tied", "yarn", "llama3"])


def reference_for(config: LlamaConfig, seed: int = 0) -> Any:
    """transformers' model, its weights large enough that attention is far from uniform."""
    hf_config = transformers.LlamaConfig(**config.to_hf())
    reference = transformers.LlamaForCausalLM(hf_config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in reference.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name:
                parameter.copy_(1 + 0.3 * noise)
            else:
                parameter.copy_(noise if parameter.ndim == 1 else noise * 1.5 / parameter.shape[1] ** 0.5)
    return reference


def ours_for(config: LlamaConfig, reference: Any) -> Llama:
    model = Llama(config)
    tied = ("lm_head.weight",) if config.tied_head else ()
    load_weights(model, reference.state_dict(), tied=tied)
    return model.eval()


def pair(config: LlamaConfig) -> tuple[Llama, Any]:
    reference = reference_for(config)
    return ours_for(config, reference), reference


def tokens(config: LlamaConfig, batch: int = 2, n_tokens: int = 40, seed: int = 1) -> Tensor:
    return torch.randint(config.vocab_size, (batch, n_tokens), generator=torch.Generator().manual_seed(seed))


def relative_error(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).abs().max() / expected.abs().max())


# Float32 keeps 7 digits; products in another order differ in the last one or two.
FLOAT32 = 1e-5


@each_config
def test_logits(config: LlamaConfig) -> None:
    model, reference = pair(config)
    ids = tokens(config)
    with torch.no_grad():
        assert relative_error(model(ids), reference(ids).logits) < FLOAT32


@each_config
def test_gradients_of_every_parameter(config: LlamaConfig) -> None:
    model, reference = pair(config)
    ids = tokens(config)
    for module, logits in ((model, model(ids)), (reference, reference(ids).logits)):
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        module.zero_grad()
        loss.backward()
    expected = {name: parameter.grad for name, parameter in reference.named_parameters()}
    actual = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert actual.keys() == expected.keys()
    for name, gradient in actual.items():
        # By norm: single small entries of a gradient are sums in which much cancels.
        assert (gradient - expected[name]).norm() < FLOAT32 * expected[name].norm(), name


@pytest.mark.parametrize("name", ["linear", "dynamic", "yarn", "llama3", "another theta"])
def test_scaling_matters_at_these_sizes(name: str) -> None:
    """Otherwise the parity above would not notice scaling that is never applied."""
    config = CONFIGS[name]
    model = ours_for(config, reference_for(config))
    plain = ours_for(
        dataclasses.replace(config, rope_scaling=None, rope_theta=10000.0), reference_for(config)
    )
    ids = tokens(config)
    with torch.no_grad():
        assert relative_error(model(ids), plain(ids)) > 100 * FLOAT32


@pytest.mark.parametrize("name", ["gqa", "linear", "dynamic", "yarn", "llama3"])
def test_sequences_beyond_the_context(name: str) -> None:
    model, reference = pair(CONFIGS[name])
    ids = tokens(CONFIGS[name], batch=1, n_tokens=600)
    with torch.no_grad():
        assert relative_error(model(ids), reference(ids).logits) < FLOAT32


@pytest.mark.parametrize(
    "chunks",
    [[1] * 40, [7, 1, 1, 20, 11], [39, 1], [1, 39]],
    ids=["tokens", "chunks", "one last", "one first"],
)
@few_configs
def test_cached_equals_uncached(name: str, chunks: list[int]) -> None:
    config = CONFIGS[name]
    model = ours_for(config, reference_for(config))
    ids = tokens(config)
    cache = model.new_cache(capacity=4)  # grows on the way
    with torch.no_grad():
        parts = [model(part, cache=cache) for part in ids.split(chunks, dim=1)]
        assert relative_error(torch.cat(parts, dim=1), model(ids)) < FLOAT32
    assert cache.length == 40


@pytest.mark.parametrize("chunks", [[1] * 40, [10, 1, 1, 20, 8]], ids=["tokens", "chunks"])
def test_dynamic_scaling_with_a_cache(chunks: list[int]) -> None:
    config = CONFIGS["dynamic"]
    model, reference = pair(config)
    cache, their_cache = model.new_cache(), transformers.DynamicCache()
    with torch.no_grad():
        for part in tokens(config).split(chunks, dim=1):
            expected = reference(part, past_key_values=their_cache, use_cache=True).logits
            assert relative_error(model(part, cache=cache), expected) < FLOAT32


LENGTHS = (5, 12, 1, 9)


def padded_batch(config: LlamaConfig, side: str) -> tuple[Tensor, Tensor, list[Tensor]]:
    rows = [tokens(config, 1, length, seed=length)[0] for length in LENGTHS]
    ids = torch.zeros(len(rows), max(LENGTHS), dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        where = slice(-len(row), None) if side == "left" else slice(len(row))
        ids[i, where], mask[i, where] = row, 1
    return ids, mask, rows


@pytest.mark.parametrize("side", ["left", "right"])
@few_configs
def test_padded_batches(name: str, side: str) -> None:
    config = CONFIGS[name]
    model, reference = pair(config)
    ids, mask, rows = padded_batch(config, side)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        logits = model(ids, attention_mask=mask)
        expected = reference(ids, attention_mask=mask, position_ids=positions).logits
        assert logits.isfinite().all()  # padding rows too
        assert relative_error(logits[mask.bool()], expected[mask.bool()]) < FLOAT32
        for row, row_logits, row_mask in zip(rows, logits, mask.bool(), strict=True):
            assert relative_error(row_logits[row_mask], model(row[None])[0]) < FLOAT32


@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_batches_have_finite_gradients(side: str) -> None:
    model = ours_for(GQA, reference_for(GQA))
    ids, mask, _ = padded_batch(GQA, side)
    model(ids, attention_mask=mask)[mask.bool()].square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_prompts_continue_from_a_cache(side: str) -> None:
    model = ours_for(GQA, reference_for(GQA))
    ids, mask, rows = padded_batch(GQA, side)
    more = tokens(GQA, len(rows), 6, seed=77)
    cache = model.new_cache(capacity=2)
    with torch.no_grad():
        model(ids, attention_mask=mask, cache=cache)
        continued = [model(part, cache=cache) for part in more.split([1, 1, 3, 1], dim=1)]
        for i, row in enumerate(rows):
            expected = model(torch.cat((row, more[i]))[None])[0, -6:]
            assert relative_error(torch.cat(continued, dim=1)[i], expected) < FLOAT32


def test_rows_that_end_early_stay_finite_in_the_cache() -> None:
    """A generator pads finished rows while the others go on."""
    model = ours_for(GQA, reference_for(GQA))
    ids, more = tokens(GQA), tokens(GQA, n_tokens=3, seed=5)
    cache = model.new_cache()
    with torch.no_grad():
        model(ids, cache=cache)
        for i in range(3):
            logits = model(more[:, i : i + 1], attention_mask=torch.tensor([[1], [0]]), cache=cache)
            assert logits.isfinite().all()
        assert relative_error(logits[0, -1], model(torch.cat((ids, more), dim=1))[0, -1]) < FLOAT32


@few_configs
def test_packed_segments_equal_separate_sequences(name: str) -> None:
    config = CONFIGS[name]
    model = ours_for(config, reference_for(config))
    lengths = [7, 1, 12, 4]
    rows = [tokens(config, 1, length, seed=length)[0] for length in lengths]
    ids = torch.cat((*rows, torch.zeros(3, dtype=torch.int64)))[None]
    segments = torch.repeat_interleave(torch.tensor([0, 1, 2, 3, -1]), torch.tensor([*lengths, 3]))[None]
    with torch.no_grad():
        logits = model(ids, segments=segments)
        assert logits.isfinite().all()
        for row, packed in zip(rows, logits[0, :-3].split(lengths), strict=True):
            assert relative_error(packed, model(row[None])[0]) < FLOAT32


def test_explicit_positions() -> None:
    model, reference = pair(GQA)
    ids, positions = tokens(GQA), torch.arange(40).flip(0)[None].expand(2, -1) * 3
    with torch.no_grad():
        # transformers takes descending positions for packed sequences, so the mask is given.
        expected = reference(ids, position_ids=positions, attention_mask=torch.ones_like(ids)).logits
        assert relative_error(model(ids, positions=positions), expected) < FLOAT32


@each_config
def test_bfloat16_is_close(config: LlamaConfig) -> None:
    reference = reference_for(config)
    ids = tokens(config)
    with torch.no_grad():
        exact = reference(ids).logits
        theirs = reference.to(torch.bfloat16)(ids).logits.float()
        model = ours_for(config, reference).to(torch.bfloat16)
        ours = model(ids)
    assert ours.dtype == torch.bfloat16
    # bfloat16 keeps 8 bits; what matters is that we lose no more than transformers does.
    assert (ours.float() - exact).square().mean() < 1.5 * (theirs - exact).square().mean()


@each_config
def test_folder_written_by_transformers(config: LlamaConfig, tmp_path: Path) -> None:
    reference = reference_for(config)
    reference.save_pretrained(tmp_path)
    model = load_model(tmp_path)
    assert model.config == config
    ids = tokens(config)
    with torch.no_grad():
        assert relative_error(model(ids), reference(ids).logits) < FLOAT32


@each_config
def test_folder_read_by_transformers(config: LlamaConfig, tmp_path: Path) -> None:
    model = ours_for(config, reference_for(config))
    save_model(model, tmp_path / "model")
    reference = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert type(reference) is transformers.LlamaForCausalLM
    ids = tokens(config)
    with torch.no_grad():
        assert relative_error(model(ids), reference.eval()(ids).logits) < FLOAT32


# What transformers reads from GGUF: no biases and no rope scaling.
GGUF_CONFIGS = ["gqa", "mha", "mqa", "three query heads a group", "tied head", "another theta"]


@pytest.mark.parametrize("name", GGUF_CONFIGS)
@pytest.mark.parametrize("ggml_type", ["f32", "q8_0"])
def test_gguf_read_by_transformers(name: str, ggml_type: str, tmp_path: Path) -> None:
    model = ours_for(CONFIGS[name], reference_for(CONFIGS[name]))
    save_model(model, tmp_path / "model.gguf", ggml_type=ggml_type)
    reference = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="model.gguf", dtype=torch.float32
    )
    reread = load_model(tmp_path / "model.gguf")
    ids = tokens(CONFIGS[name])
    with torch.no_grad():
        assert relative_error(reread(ids), reference.eval()(ids).logits) < FLOAT32


@each_config
def test_gguf_round_trip(config: LlamaConfig, tmp_path: Path) -> None:
    model = ours_for(config, reference_for(config))
    path = tmp_path / "model.gguf"
    if isinstance(config.rope_scaling, DynamicScaling) or config == CONFIGS["yarn, not truncated"]:
        with pytest.raises(CheckpointError, match="GGUF cannot express"):
            save_model(model, path, ggml_type="f32")
        assert not path.exists()
        return
    save_model(model, path, ggml_type="f32")
    reread = load_model(path)
    expected = model.state_dict()
    assert reread.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in reread.state_dict().items())
    ids = tokens(config)
    with torch.no_grad():
        # YaRN's attention factor goes through a float32 in the file, everything else exactly.
        tolerance = FLOAT32 if isinstance(config.rope_scaling, YarnScaling) else 0.0
        assert relative_error(reread(ids), model(ids)) <= tolerance


@pytest.mark.parametrize(
    "scaling",
    [Llama3Scaling(8.0, 8192), Llama3Scaling(32.0, 8192), Llama3Scaling(4.0, 4096, 1.0, 8.0)],
    ids=["Llama 3.1", "Llama 3.2", "other"],
)
def test_llama3_scaling_of_files_that_others_wrote(scaling: Llama3Scaling) -> None:
    """They hold the tensor rope_freqs.weight alone."""
    config = variant(head_dim=64, rope_theta=500000.0, rope_scaling=scaling, max_positions=131072)
    metadata = {key: value for key, value in config.to_gguf().items() if not key.startswith("fullspan.")}
    shapes = {"token_embd.weight": (96, 32), "output.weight": (96, 32)}
    divisors = llama3_divisors(scaling, config.rope_theta, config.head_dim)
    assert LlamaConfig.from_gguf(metadata, shapes, divisors) == config


PROMPTS = (
    "The capital of France is",
    "def fibonacci(n):",
    "Once upon a time, in a small village by the sea,",
    "Water boils at",
    "The three laws of thermodynamics are",
    "import numpy as np\n",
    "Dear Sir or Madam,",
    "To make bread you need",
    "Q: What is the largest planet?\nA:",
    "She opened the letter and",
    "1, 1, 2, 3, 5, 8,",
    "A prime number is",
    "Les enfants jouent dans",
    "In 1969, humans first",
    "The difference between a list and a tuple in Python is",
    "SELECT name FROM users WHERE",
    "The cat sat on the",
    "Machine learning models are trained by",
    "Once the rain stopped,",
    "The recipe calls for two cups of",
)


@pytest.fixture(scope="module")
def smollm2(smollm2_path: Path, smollm2_reference: Any) -> tuple[Llama, Any]:
    return load_model(smollm2_path), smollm2_reference


def prompts_left_padded(path: Path) -> tuple[Tensor, Tensor]:
    from fullspan.models.tokenizers import load_tokenizer

    tokenizer = load_tokenizer(path)
    encoded = [tokenizer.encode(prompt) for prompt in PROMPTS]
    width = max(map(len, encoded))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in encoded])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in encoded])
    return ids, mask


@pytest.mark.slow
def test_smollm2_logits(smollm2: tuple[Llama, Any]) -> None:
    model, reference = smollm2
    ids = tokens(model.config, n_tokens=128)
    with torch.no_grad():
        assert relative_error(model(ids), reference(ids).logits) < FLOAT32


@pytest.mark.slow
def test_smollm2_greedy_text(smollm2: tuple[Llama, Any], smollm2_path: Path) -> None:
    """Where transformers' likeliest token after each prefix of ours is our next one, its text is ours."""
    model, reference = smollm2
    ids, mask = prompts_left_padded(smollm2_path)
    cache = model.new_cache(capacity=ids.shape[1] + 100)
    with torch.inference_mode():
        hidden = model.hidden(ids, attention_mask=mask, cache=cache)
        written = [ids]
        for _ in range(100):
            written.append(model.logits(hidden[:, -1:]).argmax(-1))
            hidden = model.hidden(written[-1], cache=cache)
        texts = torch.cat(written, dim=1)
        for text, n_padding in zip(texts, (mask == 0).sum(1).tolist(), strict=True):
            likeliest = reference(text[None, n_padding:], logits_to_keep=101).logits[0, :-1].argmax(-1)
            assert torch.equal(text[-100:], likeliest)
