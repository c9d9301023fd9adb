"""GGUF files that we write, through llama.cpp: the same tokens and the same logits.

llama-cpp-python compiles for minutes, so `make test` does not install it; with it installed
(`pip install llama-cpp-python`) these tests run.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fullspan.models.llama import Llama, LlamaConfig
from fullspan.models.loading import load_model, save_model
from fullspan.models.tokenizers import load_tokenizer
from fullspan.nn.frequencies import LinearScaling, Llama3Scaling, YarnScaling

llama_cpp = pytest.importorskip("llama_cpp")

TOLERANCE = 1e-5
TEXT = "The quick brown fox: naïve 東京 🎉\n\n    def f(x):\treturn x ** 2  # 1234567\n"


def _open(path: Path) -> Any:
    float32 = llama_cpp.GGML_TYPE_F32  # of its cache, float16 by default
    return llama_cpp.Llama(
        str(path), n_ctx=128, logits_all=True, verbose=False, n_threads=1, type_k=float32, type_v=float32
    )


def _their_logits(path: Path, ids: list[int]) -> np.ndarray:
    model = _open(path)
    model.eval(ids)
    logits = np.array(model.scores[: len(ids)])
    model.close()
    return logits


def _relative_error(model: Llama, path: Path, ids: list[int]) -> float:
    with torch.no_grad():
        ours = model(torch.tensor([ids])).numpy()[0]
    return float(np.abs(ours - _their_logits(path, ids)).max() / np.abs(ours).max())


def test_the_exported_model_has_the_same_tokens_and_logits(smollm2_path: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(smollm2_path)
    model = load_model(smollm2_path)
    path = tmp_path / "exported.gguf"
    save_model(model, path, tokenizer=tokenizer, ggml_type="f32")

    ids = tokenizer.encode(TEXT)
    theirs = _open(path)
    assert theirs.tokenize(TEXT.encode(), add_bos=False, special=False) == ids
    assert theirs.detokenize(ids).decode() == TEXT
    theirs.close()
    assert _relative_error(model, path, ids) < TOLERANCE


YARN = YarnScaling(factor=4.0, original_max_positions=32)
CHANGES: dict[str, dict[str, Any]] = {
    "gqa": {},
    "mqa": {"n_kv_heads": 1},
    "mha": {"n_kv_heads": 4},
    "tied head": {"tied_head": True},
    "another theta": {"rope_theta": 5e5},
    "head_dim larger than d_model / n_heads": {"head_dim": 64},
    "both biases": {"attention_bias": True, "mlp_bias": True},
    "linear": {"rope_scaling": LinearScaling(4.0)},
    "yarn": {"rope_scaling": YARN},
    "yarn with attention factor": {"rope_scaling": dataclasses.replace(YARN, attention_factor=0.7)},
    "llama3": {"rope_scaling": Llama3Scaling(8.0, 32)},
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES.keys())
def test_random_models(changes: dict[str, Any], smollm2_path: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(smollm2_path)
    sizes: dict[str, Any] = {
        "vocab_size": tokenizer.vocab_size,
        "d_model": 128,
        "n_layers": 2,
        "n_heads": 4,
        "n_kv_heads": 2,
        "head_dim": 32,
        "d_ff": 256,
        "max_positions": 128,
    }
    model = Llama(LlamaConfig(**(sizes | changes))).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # large enough that attention is far from uniform
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            matrix = noise * 1.5 / parameter.shape[-1] ** 0.5
            parameter.copy_(1 + 0.3 * noise if "norm" in name else matrix)
    path = tmp_path / "random.gguf"
    save_model(model, path, tokenizer=tokenizer, ggml_type="f32")
    ids = tokenizer.encode(TEXT * 2)
    assert _relative_error(model, path, ids) < TOLERANCE
