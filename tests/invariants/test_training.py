"""What must not change the result of training: packing, accumulation, merging, interruption."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fullspan.adapters.lora import LoRAConfig, add_lora, lora_parameters, merge_lora
from fullspan.adapters.peft_format import load_adapter
from fullspan.models.llama import Llama
from fullspan.models.loading import load_model
from fullspan.text.packing import Batch, Encoded, packed_batch, padded_batch
from fullspan.training.config import TrainConfig
from fullspan.training.fused import FusedStep
from fullspan.training.steps import AutogradStep, StepFunction
from fullspan.training.trainer import TrainResult, evaluate_loss, train

ENGINES: dict[str, Callable[[Llama], StepFunction]] = {"autograd": AutogradStep, "fused": FusedStep}
# Float32 sums of a few hundred products, taken in another order.
CLOSE = {"rtol": 1e-5, "atol": 1e-6}
# Measured, not computed: these may differ between runs.
MEASURED = {"tokens_per_second", "supervised_tokens_per_second", "peak_rss_mib"}


def _model(folder: Path, **options: Any) -> Llama:
    """The tiny model with adapters that do something."""
    torch.set_num_threads(1)
    model = load_model(folder)
    add_lora(model, LoRAConfig(rank=4, **options), seed=2)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in lora_parameters(model).items():
            if name.endswith("lora_B"):
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def _examples(n: int = 8) -> list[Encoded]:
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 30, n)
    return [Encoded(rng.integers(3, 250, size), np.arange(size) >= size // 3) for size in lengths]


def _loss_and_grads(
    engine: StepFunction, model: Llama, batches: list[Batch]
) -> tuple[float, list[torch.Tensor]]:
    for parameter in lora_parameters(model).values():
        parameter.grad = None
    total = sum(batch.n_supervised for batch in batches)
    loss = sum(engine.loss_and_grads(batch, total) for batch in batches)
    grads = [parameter.grad for parameter in lora_parameters(model).values()]
    assert all(grad is not None and grad.any() for grad in grads)
    return loss / total, [grad.clone() for grad in grads if grad is not None]


@pytest.mark.parametrize("engine_name", ENGINES)
def test_packed_equals_unpacked(engine_name: str, tiny_chat_model: Path) -> None:
    model = _model(tiny_chat_model)
    engine = ENGINES[engine_name](model)
    examples = _examples()
    packed = _loss_and_grads(engine, model, [packed_batch(examples)])
    alone = _loss_and_grads(engine, model, [packed_batch([example]) for example in examples])
    padded = _loss_and_grads(engine, model, [padded_batch(examples)])
    for other in (alone, padded):
        assert packed[0] == pytest.approx(other[0], rel=1e-6)
        torch.testing.assert_close(packed[1], other[1], **CLOSE)


@pytest.mark.parametrize("engine_name", ENGINES)
def test_accumulation_of_8_equals_a_batch_of_8(engine_name: str, tiny_chat_model: Path) -> None:
    """Examples have different numbers of supervised tokens: a mean of means would differ."""
    model = _model(tiny_chat_model)
    engine = ENGINES[engine_name](model)
    examples = _examples()
    at_once = _loss_and_grads(engine, model, [padded_batch(examples)])
    one_by_one = _loss_and_grads(engine, model, [padded_batch([example]) for example in examples])
    assert at_once[0] == pytest.approx(one_by_one[0], rel=1e-6)
    torch.testing.assert_close(at_once[1], one_by_one[1], **CLOSE)


def test_whole_runs_agree_over_accumulation(
    tiny_chat_model: Path, tiny_examples: Path, tmp_path: Path
) -> None:
    losses = []  # of five steps that see all 40 examples and one of the next epoch
    for accumulation, batch_size in ((1, 8), (8, 1)):
        config = _config(
            tiny_chat_model, tiny_examples, tmp_path / f"{accumulation}", max_steps=6, packing=False,
            accumulation=accumulation, batch_size=batch_size, eval_fraction=0, save_every=100, dropout=0.0,
        )  # fmt: skip
        losses.append([line["loss"] for line in _metrics(train(config)) if "loss" in line])
    assert len(losses[0]) == 6
    # AdamW divides by the size of each gradient, so rounding grows from step to step.
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("engine_name", ENGINES)
def test_segments_cannot_see_each_other(engine_name: str, tiny_chat_model: Path) -> None:
    """Changing one example of a pack leaves the others' losses exactly as they were."""
    model = _model(tiny_chat_model)
    engine = ENGINES[engine_name](model)
    examples = _examples(3)
    changed = [
        examples[0],
        Encoded(np.asarray(examples[1].ids)[::-1].copy(), examples[1].supervised),
        examples[2],
    ]

    def loss_of(pack: list[Encoded], segment: int) -> float:
        batch = packed_batch(pack)
        labels = np.where(batch.segments == segment, batch.labels, -100)
        return engine.loss(
            Batch(batch.ids, batch.positions, batch.segments, labels, int((labels >= 0).sum()))
        )

    assert loss_of(examples, 0) == loss_of(changed, 0)
    assert loss_of(examples, 2) == loss_of(changed, 2)
    assert loss_of(examples, 1) != loss_of(changed, 1)


@pytest.mark.parametrize("options", [{}, {"rslora": True}, {"dora": True}], ids=["lora", "rslora", "dora"])
def test_merged_equals_unmerged(options: dict[str, Any], tiny_chat_model: Path) -> None:
    model = _model(tiny_chat_model, **options)
    ids = torch.arange(3, 63).view(2, 30)
    with torch.no_grad():
        unmerged = model(ids)
        merge_lora(model)
        torch.testing.assert_close(model(ids), unmerged, rtol=1e-5, atol=1e-5)
    assert not lora_parameters(model)


def test_merging_into_bfloat16_rounds_once(tiny_chat_model: Path) -> None:
    """Sum in float32, then one rounding: as close to the float32 sum as bfloat16 can be."""
    model = load_model(tiny_chat_model, dtype=torch.bfloat16)
    add_lora(model, LoRAConfig(rank=4, targets=["q_proj"]), seed=2)
    layer = model.get_submodule("model.layers.0.self_attn.q_proj")
    with torch.no_grad():
        layer.lora_B.normal_(generator=torch.Generator().manual_seed(0))
    expected = (
        layer.base.weight.double() + layer.scale * layer.lora_B.double() @ layer.lora_A.double()
    ).detach()
    assert layer.merged_weight().dtype == torch.float32
    merge_lora(model)
    merged = model.get_submodule("model.layers.0.self_attn.q_proj").weight
    assert merged.dtype == torch.bfloat16
    # Half a unit in the last of 8 bits.
    torch.testing.assert_close(merged.double(), expected, rtol=2**-8, atol=1e-6)


def test_exported_gguf_equals_the_adapted_model(
    tiny_chat_model: Path, tiny_examples: Path, tmp_path: Path
) -> None:
    target = tmp_path / "merged.gguf"
    config = _config(
        tiny_chat_model, tiny_examples, tmp_path / "run", max_steps=3, export=target, export_type="f32"
    )
    result = train(config)
    model = load_model(tiny_chat_model)
    load_adapter(model, result.adapter)
    ids = torch.arange(3, 63).view(2, 30)
    with torch.no_grad():
        torch.testing.assert_close(load_model(target)(ids), model(ids), rtol=1e-5, atol=1e-5)


def test_best_adapter_is_kept_when_training_makes_it_worse(
    tiny_chat_model: Path, tiny_examples: Path, tmp_path: Path
) -> None:
    config = _config(
        tiny_chat_model, tiny_examples, tmp_path / "run", max_steps=200, learning_rate=0.3,
        schedule="constant", warmup=0, eval_every=2, patience=2, eval_fraction=0.2, dropout=0.0,
    )  # fmt: skip
    result = train(config)
    evaluations = [line["eval_loss"] for line in _metrics(result) if "eval_loss" in line]
    assert result.steps < 200  # it stopped early
    assert result.loss_after == min(evaluations) < evaluations[-1]
    best = _metrics(result)[-1]["step"] - 4
    assert (result.run / "checkpoints" / f"step-{best}").is_dir()
    saved = load_file(result.adapter / "adapter_model.safetensors")
    checkpoint = load_file(result.run / "checkpoints" / f"step-{best}" / "tensors.safetensors")
    name = "model.layers.1.mlp.up_proj.lora_B"
    assert torch.equal(saved[f"base_model.model.{name}.weight"], checkpoint[f"parameter.{name}"])


def test_evaluation_is_the_mean_over_tokens_not_over_batches(tiny_chat_model: Path) -> None:
    model = _model(tiny_chat_model, dropout=0.5)
    engine = AutogradStep(model)
    examples = _examples()
    split = evaluate_loss(engine, [packed_batch(examples[:1]), packed_batch(examples[1:])])
    whole = evaluate_loss(engine, [packed_batch(examples)])
    assert split[1] == whole[1]
    assert split[0] == pytest.approx(whole[0], rel=1e-6)  # and dropout is off


# Interruptions ------------------------------------------------------------------------------------


def _config(model: Path, data: Path, run: Path, **options: Any) -> TrainConfig:
    values = {
        "model": str(model), "data": data, "run": run, "rank": 4, "dropout": 0.2, "tokens_per_batch": 128,
        "learning_rate": 1e-2, "precision": "float32", "engine": "autograd", "threads": 1, "save_every": 7,
    } | options  # fmt: skip
    if not values.get("packing", True):
        del values["tokens_per_batch"]
    return TrainConfig.build(values)


def _metrics(result: TrainResult) -> list[dict[str, Any]]:
    lines = (result.run / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in MEASURED} for line in lines]


LONG_RUN = {"max_steps": 40, "accumulation": 2, "eval_every": 10, "eval_fraction": 0.1}


@pytest.fixture(scope="module")
def unbroken(
    tiny_chat_model: Path, tiny_examples: Path, tmp_path_factory: pytest.TempPathFactory
) -> TrainResult:
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    return train(_config(tiny_chat_model, tiny_examples, folder, **LONG_RUN))


def _start(config: TrainConfig, folder: Path) -> subprocess.Popen[str]:
    file = folder / "train.yaml"
    config.write(file)
    command = [sys.executable, "-m", "fullspan", "train", "--config", str(file)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _wait_for_step(process: subprocess.Popen[str], run: Path, step: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        file = run / "metrics.jsonl"
        if file.exists() and f'"step": {step},' in file.read_text():
            return
        time.sleep(0.005)
    raise AssertionError(f"step {step} never came: {process.communicate()[0]}")


def _assert_same(resumed: TrainResult, unbroken: TrainResult) -> None:
    assert _metrics(resumed) == _metrics(unbroken)
    assert resumed.steps == 40
    files = [result.adapter / "adapter_model.safetensors" for result in (resumed, unbroken)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_killed_run_resumes_to_the_same_bits(
    unbroken: TrainResult, tiny_chat_model: Path, tiny_examples: Path, tmp_path: Path
) -> None:
    """SIGKILL leaves no time for anything; the last checkpoint is whole and nothing of later steps stays."""
    run = tmp_path / "run"
    process = _start(_config(tiny_chat_model, tiny_examples, run, **LONG_RUN), tmp_path)
    _wait_for_step(process, run, 24)
    process.kill()
    process.communicate()
    assert not (run / "adapter").exists()
    resumed = train(TrainConfig.build({"run": run, "resume": True}))
    _assert_same(resumed, unbroken)


def test_killed_run_of_the_fused_engine_resumes_to_the_same_bits(
    tiny_chat_model: Path, tiny_examples: Path, tmp_path: Path
) -> None:
    """The engine that `auto` takes; it has no dropout, and sums gradients in an order of its own."""
    options = LONG_RUN | {"engine": "fused", "dropout": 0.0, "accumulation": 4}
    unbroken = train(_config(tiny_chat_model, tiny_examples, tmp_path / "unbroken", **options))
    run = tmp_path / "run"
    process = _start(_config(tiny_chat_model, tiny_examples, run, **options), tmp_path)
    _wait_for_step(process, run, 16)
    process.kill()
    process.communicate()
    assert not (run / "adapter").exists()
    _assert_same(train(TrainConfig.build({"run": run, "resume": True})), unbroken)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_saves_says_how_to_go_on_and_resumes_to_the_same_bits(
    number: int, unbroken: TrainResult, tiny_chat_model: Path, tiny_examples: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    process = _start(_config(tiny_chat_model, tiny_examples, run, **LONG_RUN), tmp_path)
    _wait_for_step(process, run, 16)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert f"go on with: fullspan train --run {run} --resume" in output
    assert "Traceback" not in output
    done = max(line["step"] for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()))
    assert (run / "checkpoints" / f"step-{done}").is_dir()  # no step was lost
    resumed = train(TrainConfig.build({"run": run, "resume": True}))
    _assert_same(resumed, unbroken)


def test_resuming_before_the_first_checkpoint_begins_again(
    unbroken: TrainResult, tiny_chat_model: Path, tiny_examples: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    process = _start(
        _config(tiny_chat_model, tiny_examples, run, **LONG_RUN | {"save_every": 1000}), tmp_path
    )
    _wait_for_step(process, run, 3)
    process.kill()
    process.communicate()
    _assert_same(train(TrainConfig.build({"run": run, "resume": True})), unbroken)


def test_config_in_the_run_directory_repeats_the_run(unbroken: TrainResult, tmp_path: Path) -> None:
    values = TrainConfig.read(unbroken.run / "config.yaml").model_dump()
    again = train(TrainConfig.build(values | {"run": tmp_path / "again"}))
    _assert_same(again, unbroken)


def test_only_the_last_two_checkpoints_are_kept(unbroken: TrainResult) -> None:
    assert sorted(path.name for path in (unbroken.run / "checkpoints").iterdir()) == ["step-35", "step-40"]
