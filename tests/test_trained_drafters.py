"""Drafters that are trained on a model: they learn, they change no answer, and they know their model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch.nn.functional import scaled_dot_product_attention, silu

import fullspan
from fullspan.cli import main
from fullspan.core.errors import CheckpointError, ConfigError
from fullspan.core.runs import read_metrics
from fullspan.decoding.engine.decoder import EngineDecoder
from fullspan.decoding.engine.engine import Engine
from fullspan.decoding.engine.loading import pack_model
from fullspan.decoding.engine.packing import KINDS
from fullspan.decoding.engine.unpacking import embeddings, fingerprint, unpack_rows
from fullspan.decoding.language_model import Generation, LanguageModel
from fullspan.decoding.options import GenerationOptions
from fullspan.decoding.speculation.drafters import Target
from fullspan.decoding.speculation.eagle import EagleDrafter
from fullspan.decoding.speculation.learned import trained_drafter
from fullspan.decoding.speculation.medusa import MedusaDrafter
from fullspan.decoding.speculation.mtp import ParallelMtpDrafter, SequentialMtpDrafter
from fullspan.decoding.speculation.trained import DrafterFiles
from fullspan.decoding.speculation.tree import Tree
from fullspan.decoding.speculation.typical import TypicalAcceptance
from fullspan.models.llama import Llama
from fullspan.training.config import TrainConfig
from fullspan.training.drafters.fitting import DrafterResult, train_drafter
from fullspan.training.drafters.modules import EagleLayer, SequentialModules

PROMPTS = ["abcabcabcab", "One, two, three, four", "a"]
KIND: dict[str, dict[str, Any]] = {
    "medusa": {"objective": "medusa"},
    "eagle": {"objective": "eagle"},
    "sequential": {"objective": "mtp"},
    "parallel": {"objective": "mtp", "mtp": "parallel"},
}


@pytest.fixture(scope="module")
def target(tiny_chat_model: Path) -> LanguageModel:
    return fullspan.load(tiny_chat_model, weights="q8")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("data") / "examples.jsonl"
    words = [f"{a}{b}{a}" for a in "abcdefgh" for b in "xyzuvw"]
    turns = [[{"role": "user", "content": w}, {"role": "assistant", "content": w[::-1] * 3}] for w in words]
    file.write_text("".join(json.dumps({"messages": each}) + "\n" for each in turns))
    return file


@pytest.fixture(scope="module")
def trained(
    tiny_chat_model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, DrafterResult]:
    """A drafter of each kind, from the model's own answers."""
    folder = tmp_path_factory.mktemp("drafters")
    common: dict[str, Any] = dict(
        model=str(tiny_chat_model),
        weights="q8",
        data=data,
        eval_fraction=0.2,
        max_steps=30,
        answer_tokens=20,
        draft_vocab=90,
        learning_rate=4e-3,
    )
    return {
        name: train_drafter(TrainConfig.build(common | kind | {"run": folder / name}))
        for name, kind in KIND.items()
    }


@pytest.mark.parametrize("name", KIND)
def test_training_teaches(trained: dict[str, DrafterResult], name: str) -> None:
    result = trained[name]
    losses = [line["loss"] for line in read_metrics(result.run / "metrics.jsonl") if "loss" in line]
    assert len(losses) == 30 and np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
    assert len(result.after) == 3 and sum(result.after) > sum(result.before) + 0.3
    print(name, losses, result.before, result.after)


def drafter(result: DrafterResult) -> Any:
    found = trained_drafter(result.drafter)
    assert found is not None
    return found


@pytest.mark.parametrize("name", KIND)
@pytest.mark.parametrize(
    "options",
    [{}, {"repetition_penalty": 1.4, "presence_penalty": 0.5}, {"regex": "(ab|ba|c){4,9}!"}],
    ids=["greedy", "penalties", "grammar"],
)
def test_greedy_answers_stay_the_same(
    target: LanguageModel, trained: dict[str, DrafterResult], name: str, options: dict[str, Any]
) -> None:
    plain = target.generate(PROMPTS, n=2, max_tokens=24, logprobs=1, **options)
    found = target.generate(
        PROMPTS, n=2, max_tokens=24, logprobs=1, speculate=drafter(trained[name]), **options
    )
    for one, other in zip(found, plain, strict=True):
        assert (one.token_ids, one.text, one.logprobs) == (other.token_ids, other.text, other.logprobs)
        assert one.speculation is not None and one.speculation.lossless
    counts = [answer.speculation for answer in found if answer.speculation]
    assert sum(count.n_proposed for count in counts) > 20
    print(
        name,
        options,
        [count.tokens_per_step for count in counts],
        [count.accepted for count in counts],
        [count.proposed for count in counts],
    )
