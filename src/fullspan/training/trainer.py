"""The training loop: a run from its config to an adapter, with everything needed to go on after a stop."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from fullspan.adapters.lora import LoRAConfig, add_lora, lora_parameters
from fullspan.adapters.peft_format import save_adapter
from fullspan.checkpoints.store import find_model
from fullspan.core.device import default_device, default_dtype, set_threads
from fullspan.core.errors import FullspanError, RunError
from fullspan.core.files import replacing
from fullspan.core.progress import progress
from fullspan.core.runs import Run
from fullspan.core.seeding import seed_everything
from fullspan.models.llama import Llama
from fullspan.models.loading import load_model
from fullspan.models.tokenizers import load_tokenizer
from fullspan.objectives.perplexity import perplexity
from fullspan.text.packing import Batch
from fullspan.training import checkpoints
from fullspan.training.checkpoints import Progress, RandomState
from fullspan.training.config import TrainConfig
from fullspan.training.data import TrainingData, prepare, read_files, total_steps
from fullspan.training.export import check_target, export_model
from fullspan.training.interrupts import Stop, TrainingStopped, stop_on_signals
from fullspan.training.memory import peak_rss_mib
from fullspan.training.optim import clip_gradients, learning_rate_at, make_adamw, warmup_steps
from fullspan.training.steps import StepFunction, choose_engine

DEFAULT_SAVE_MINUTES = 5.0


@dataclass(frozen=True)
class TrainResult:
    """What a training run made.

    Attributes
    ----------
    run : pathlib.Path
        The run directory.
    adapter : pathlib.Path
        Folder in PEFT's format.
    steps : int
        Optimiser steps done.
    loss_before, loss_after : float or None
        Held-out loss a supervised token; `loss_after` is that of the saved adapter.
    export : pathlib.Path or None
        The merged model.
    """

    run: Path
    adapter: Path
    steps: int
    loss_before: float | None
    loss_after: float | None
    export: Path | None


def train(config: TrainConfig) -> TrainResult:
    """Fine-tune a model.

    Raises
    ------
    FullspanError
        If an option, the data or the model is wrong, the run directory is taken, or the loss is not finite.
    TrainingStopped
        On SIGINT or SIGTERM, after a checkpoint was saved.
    """
    threads = set_threads(config.threads)
    if config.export is not None:
        check_target(config.export)
    if config.run is not None and config.run.exists():
        if config.run.is_dir():
            _check_unused(config.run, config.resume)
        Run.open(config.run).close()  # fails now, not after loading, when another process has it
    trainer = _prepare(config)  # first, so that wrong options or data leave no run directory behind
    run = Run.open(config.run) if config.run is not None else Run.create("runs", config.name or "train")
    with run:
        _check_unused(run.path, config.resume)  # again: another process may have been here meanwhile
        return _train_in(run, trainer, threads)


def _check_unused(folder: Path, resume: bool) -> None:
    """Refuse a folder of other files, and one with a run unless that is to go on."""
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    is_run = not names.isdisjoint({"config.yaml", "checkpoints"})
    if names and not is_run:
        raise RunError(
            f"{folder} is not a run: it holds {min(names)!r} and no config.yaml",
            "give a new or an empty directory",
        )
    if is_run and not resume:
        raise RunError(
            f"{folder} holds a run already",
            f"go on with it by `fullspan train --run {folder} --resume`, or give another directory",
        )


def _prepare(config: TrainConfig) -> Trainer:
    train_examples, held_out = read_files(config)
    model_path = find_model(config.model)
    model = load_model(model_path, dtype=_dtype(config), device=default_device())
    lora = LoRAConfig(config.rank, config.alpha, config.dropout, config.targets, config.rslora, config.dora)
    add_lora(model, lora, config.seed)
    context = model.config.max_positions
    data = prepare(config, load_tokenizer(model_path), train_examples, held_out, context)
    return Trainer(config, model, data)


def _dtype(config: TrainConfig) -> torch.dtype:
    if config.precision == "auto":
        return default_dtype(default_device())
    return torch.bfloat16 if config.precision == "bf16" else torch.float32


def _train_in(run: Run, trainer: Trainer, threads: int) -> TrainResult:
    trainer.start(run)
    trainer.announce(threads)
    with stop_on_signals() as stop:
        trainer.fit(stop)
    return trainer.finish()


def evaluate_loss(
    engine: StepFunction, batches: Sequence[Batch], after_batch: Callable[[], None] | None = None
) -> tuple[float, int]:
    """Summed loss and number of supervised tokens over `batches`; dropout is off.

    Parameters
    ----------
    engine : StepFunction
        ``AutogradStep(model)`` for a model with or without adapters.
    after_batch : callable, optional
        Called after each batch, to show progress or to stop.
    """
    loss_sum, n_tokens = 0.0, 0
    for batch in batches:
        loss_sum += engine.loss(batch)
        n_tokens += batch.n_supervised
        if after_batch is not None:
            after_batch()
    return loss_sum, n_tokens


class Trainer:
    """One run of `TrainConfig` over prepared data: `start`, `fit`, `finish`.

    Parameters
    ----------
    config : TrainConfig
    model : Llama
        With adapters.
    data : TrainingData

    Raises
    ------
    ConfigError
        If the engine or the warm-up asked for is not possible.
    """

    run: Run
    fingerprint: dict[str, object]

    def __init__(self, config: TrainConfig, model: Llama, data: TrainingData) -> None:
        self.config = config
        self.model = model
        self.data = data
        self.parameters = lora_parameters(model)
        self.engine = choose_engine(model, config.engine)
        self.batches = data.batches(config)
        self.eval_batches = data.eval_batches(config)
        self.steps, self.n_batches = total_steps(config, self.batches.per_epoch)
        self.warmup = warmup_steps(config.warmup, self.steps)
        self.optimizer = make_adamw(
            self.parameters.values(),
            learning_rate=config.learning_rate,
            beta1=config.beta1,
            beta2=config.beta2,
            eps=config.eps,
            weight_decay=config.weight_decay,
        )
        self.progress = Progress()
        self.random_state = RandomState()
        self._saved_at = time.monotonic()
        self._saved_step = -1

    @property
    def checkpoint_folder(self) -> Path:
        return self.run.path / "checkpoints"

    def start(self, run: Run) -> None:
        """Take a run directory: begin there, or go back to its last checkpoint if resuming was asked for.

        Raises
        ------
        RunError
            If an option or the data differs from what the run began with.
        CheckpointError
            If the checkpoint is damaged.
        """
        self.run = run
        self.fingerprint = checkpoints.fingerprint(self.config) | {
            "engine": type(self.engine).__name__,
            "dtype of the model": str(self.model.lm_head.weight.dtype),
        }
        seed_everything(self.config.seed)
        self.random_state = RandomState()
        if self.config.resume:
            checkpoints.remove_partial(self.checkpoint_folder)
            saved = checkpoints.saved_checkpoints(self.checkpoint_folder)
            if saved:
                self.progress, self.random_state = checkpoints.load_checkpoint(
                    saved[-1], self.parameters, self.optimizer, self.fingerprint
                )
                self.random_state.restore()
                self._saved_step = self.progress.step
            self._trim_metrics()
        # Complete and reusable: the same command again makes a run of its own.
        self.config.model_copy(update={"run": None, "resume": False}).write(run.path / "config.yaml")

    def _trim_metrics(self) -> None:
        """Drop the metrics of steps that will be done again."""
        done = self.progress
        kept = [
            line
            for line in self.run.metrics()
            if line["step"] <= (done.evaluated_step if "eval_loss" in line else done.step)
        ]
        with replacing(self.run.metrics_file) as beside:
            beside.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")

    def announce(self, threads: int) -> None:
        """Say what is about to happen."""
        data, dtype = self.data, str(self.model.lm_head.weight.dtype).removeprefix("torch.")
        trainable = sum(value.numel() for value in self.parameters.values())
        print(f"run directory: {self.run.path}")
        print(
            f"{len(data.train):,} examples in {self.batches.per_epoch:,} batches an epoch, "
            f"{len(data.held_out):,} held out"
        )
        if data.truncated or data.skipped:
            print(f"too long: {data.truncated:,} examples truncated, {data.skipped:,} skipped")
        engine = type(self.engine).__name__
        print(
            f"{trainable:,} trainable parameters, base in {dtype}, {engine}, {threads} threads, "
            f"{self.steps:,} steps" + (f", {self.progress.step:,} done" if self.progress.step else ""),
            flush=True,
        )

    def fit(self, stop: Stop) -> None:
        """Train to the last step, or until early stopping, a signal or a loss that is not finite."""
        try:
            with progress(self.steps, "training", unit="steps") as advance:
                advance(self.progress.step, "evaluating")
                self._evaluate_if_due(stop)
                while self.progress.step < self.steps and not self._patience_is_over():
                    stop.check()
                    note = self._step(stop)
                    advance(note=note)
                    self._evaluate_if_due(stop)
                    self._save_if_due()
        except TrainingStopped as stopped:
            self.save()
            stopped.run, stopped.step = self.run.path, self.progress.step
            stopped.checkpoint = self.checkpoint_folder / f"step-{self.progress.step}"
            raise
        self.save()

    def _step(self, stop: Stop) -> str:
        """One optimiser step: accumulate over its micro-batches, clip, update, log."""
        started = time.perf_counter()
        step, config = self.progress.step + 1, self.config
        first = (step - 1) * config.accumulation
        indices = range(first, min(first + config.accumulation, self.n_batches))
        batches = [self.batches[index] for index in indices]
        # The loss is a mean over the supervised tokens of the whole step, however they are
        # spread over its micro-batches.
        n_supervised = sum(batch.n_supervised for batch in batches)
        for parameter in self.parameters.values():
            parameter.grad = None
        loss_sum = 0.0
        for batch in batches:
            if loss_sum:
                stop.check()
            loss_sum += self.engine.loss_and_grads(batch, n_supervised)
        loss = loss_sum / n_supervised
        norm = clip_gradients(self.parameters.values(), config.max_grad_norm)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise self._not_finite(step, loss, norm)
        rate = learning_rate_at(
            step,
            self.steps,
            peak=config.learning_rate,
            warmup=self.warmup,
            schedule=config.schedule,
            floor=config.min_learning_rate,
        )
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.step()
        self.progress.step = step
        self.random_state = RandomState()
        seconds = time.perf_counter() - started
        n_tokens = sum(int((batch.segments >= 0).sum()) for batch in batches)
        self.run.log(
            step,
            epoch=(first + len(batches)) / self.batches.per_epoch,
            loss=loss,
            lr=rate,
            grad_norm=norm,
            tokens=n_tokens,
            supervised_tokens=n_supervised,
            tokens_per_second=n_tokens / seconds,
            supervised_tokens_per_second=n_supervised / seconds,
            peak_rss_mib=peak_rss_mib(),
        )
        return f"loss {loss:.3f}, {n_tokens / seconds:,.0f} tokens/s"

    def _not_finite(self, step: int, loss: float, norm: float) -> FullspanError:
        saved = checkpoints.saved_checkpoints(self.checkpoint_folder)
        kept = f"; the last checkpoint is {saved[-1]}" if saved else ""
        return RunError(
            f"training diverged at step {step}: loss {loss}, gradient norm {norm}{kept}",
            f"start a new run with a learning rate below {self.config.learning_rate:g}, or more warm-up",
        )

    def _evaluate_if_due(self, stop: Stop) -> None:
        step, every = self.progress.step, self.config.eval_every
        due = step in (0, self.steps) or (every is not None and step % every == 0)
        if due and self.eval_batches and self.progress.evaluated_step != step:
            self._evaluate(stop)

    def _evaluate(self, stop: Stop) -> None:
        loss_sum, n_tokens = evaluate_loss(self.engine, self.eval_batches, stop.check)
        loss, done = loss_sum / n_tokens, self.progress
        if not math.isfinite(loss):
            raise self._not_finite(done.step, loss, math.nan)
        self.run.log(done.step, eval_loss=loss, eval_perplexity=perplexity(loss))
        done.evaluated_step = done.step
        done.last_loss = loss
        if done.first_loss is None:
            done.first_loss = loss
        if done.best_loss is None or loss < done.best_loss:
            done.best_loss, done.best_step, done.evaluations_since_best = loss, done.step, 0
            if self.config.patience is not None:
                self.save()
        else:
            done.evaluations_since_best += 1

    def _patience_is_over(self) -> bool:
        patience = self.config.patience
        return patience is not None and self.progress.evaluations_since_best >= patience

    def _save_if_due(self) -> None:
        config = self.config
        minutes = config.save_minutes
        if minutes is None and config.save_every is None:
            minutes = DEFAULT_SAVE_MINUTES
        by_steps = config.save_every is not None and self.progress.step % config.save_every == 0
        by_time = minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes
        if by_steps or by_time:
            self.save()

    def save(self) -> None:
        """Write a checkpoint of the last whole step, unless it is there."""
        self._saved_at = time.monotonic()
        if self._saved_step == self.progress.step:
            return
        checkpoints.save_checkpoint(
            self.checkpoint_folder,
            self.parameters,
            self.optimizer,
            self.progress,
            self.random_state,
            self.fingerprint,
            keep_best=self.config.patience is not None,
        )
        self._saved_step = self.progress.step

    def finish(self) -> TrainResult:
        """Write the adapter (of the best evaluation when stopping early was asked for) and the export."""
        config, done = self.config, self.progress
        loss_after = done.last_loss
        if config.patience is not None and done.best_step != done.step:
            checkpoints.load_best(self.checkpoint_folder, done, self.parameters)
            loss_after = done.best_loss
        adapter = self.run.path / "adapter"
        save_adapter(self.model, adapter, config.model)
        if config.export is not None:
            export_model(config.model, adapter, config.export, config.export_type or "f16")
        return TrainResult(self.run.path, adapter, done.step, done.first_loss, loss_after, config.export)
