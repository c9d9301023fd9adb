"""The training of a drafter: from its config to a folder beside the run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fullspan.core.device import default_device, default_dtype, set_threads
from fullspan.core.errors import DataError, RunError
from fullspan.core.progress import progress
from fullspan.core.runs import Run
from fullspan.core.seeding import seed_everything
from fullspan.decoding.engine.decoder import EngineDecoder
from fullspan.decoding.engine.unpacking import fingerprint
from fullspan.decoding.language_model import LanguageModel
from fullspan.decoding.loading import load
from fullspan.decoding.speculation.trained import About, DrafterFiles, kind_of
from fullspan.models.loading import save_model
from fullspan.objectives.eagle import eagle_loss
from fullspan.objectives.medusa import medusa_loss
from fullspan.objectives.mtp import mtp_loss
from fullspan.training.config import TrainConfig
from fullspan.training.data import prepare, read_files
from fullspan.training.drafters.learner import RANKS, Learner, Padded
from fullspan.training.drafters.modules import (
    EagleLayer,
    MedusaHeads,
    ParallelModules,
    SequentialModules,
)
from fullspan.training.drafters.smaller import Smaller
from fullspan.training.drafters.texts import Text, frequent_tokens, own_answers, read_texts
from fullspan.training.interrupts import stop_on_signals
from fullspan.training.optim import clip_gradients, learning_rate_at, make_adamw, warmup_steps

DEFAULT_EPOCHS, DEFAULT_BATCH, DEFAULT_DEPTH = 4.0, 8, 3
DEFAULT_VOCABULARY, DEFAULT_ANSWER = 8192, 128
# Texts that accuracies are measured on when nothing is held out.
_MEASURED = 64


@dataclass(frozen=True)
class DrafterResult:
    """What a training made.

    Attributes
    ----------
    run, drafter : pathlib.Path
        The run directory, and the folder in it for `speculate`.
    steps : int
    before, after : list of float
        Of held-out text, by token ahead: how often the best guess was the model's choice.
    """

    run: Path
    drafter: Path
    steps: int
    before: list[float]
    after: list[float]


def train_drafter(config: TrainConfig) -> DrafterResult:
    """Train a drafter on the hidden states of a model, adapter included.

    Ctrl-C ends the training early; what was learnt until then is saved.

    Raises
    ------
    FullspanError
        If an option, the data or the model is wrong, or the run directory is taken.
    """
    set_threads(config.threads)
    if config.run is not None and config.run.exists() and any(config.run.iterdir()):
        raise RunError(f"{config.run} is not empty", "give a new or an empty directory")
    examples, held_out = read_files(config)
    model = load(config.model, adapter=config.adapter, engine="cpu", weights=config.weights)
    assert isinstance(model.decoder, EngineDecoder)  # as asked for
    data = prepare(config, model.tokenizer, examples, held_out, model.config.max_positions)
    texts, measured = data.train, data.held_out or data.train[:_MEASURED]
    run = (
        Run.open(config.run)
        if config.run is not None
        else Run.create("runs", config.name or config.objective)
    )
    with run:
        config.model_copy(update={"run": None}).write(run.path / "config.yaml")
        seed_everything(config.seed)
        print(f"run directory: {run.path}")
        if config.texts != "data":
            n = config.answer_tokens or DEFAULT_ANSWER
            texts, measured = own_answers(model, texts, n), own_answers(model, measured, n)
        layers = looked_at(config.objective, model.config.n_layers)
        learner = _learner(config, model, texts, len(layers))
        engine = model.decoder.engine
        fitting = Fitting(
            config,
            learner,
            read_texts(engine, texts, layers),
            read_texts(engine, measured, layers, with_choices=True),
            run,
        )
        before = fitting.measure()
        fitting.fit()
        after = fitting.measure()
        folder = run.path / "drafter"
        _save(config, model, learner, layers, after, folder)
        return DrafterResult(
            run.path, folder, fitting.step, [row[0] for row in before], [row[0] for row in after]
        )


def looked_at(objective: str, n_layers: int) -> list[int]:
    """The layers that a drafter looks at: EAGLE a low, a middle and the last one, others the last.

    Examples
    --------
    >>> looked_at("eagle", 30), looked_at("medusa", 30), looked_at("eagle", 2)
    ([2, 15, 29], [29], [1])
    """
    last = n_layers - 1
    return sorted({min(2, last), n_layers // 2, last}) if objective == "eagle" else [last]


def _learner(config: TrainConfig, model: LanguageModel, texts: Sequence[object], n_layers: int) -> Learner:
    assert isinstance(model.decoder, EngineDecoder)
    engine, depth, sizes = model.decoder.engine, config.depth or DEFAULT_DEPTH, model.config
    if config.objective == "draft":
        everything = np.arange(sizes.vocab_size)
        body = Smaller(model.model, config.draft_layers or max(1, sizes.n_layers // 8))
        learner = Learner(body, engine, everything, mtp_loss, first=0)
        learner.head.requires_grad_(False)
        return learner
    tokens = frequent_tokens(texts, config.draft_vocab or DEFAULT_VOCABULARY, model.tokenizer.eos_ids)  # type: ignore[arg-type]
    if config.objective == "medusa":
        return Learner(MedusaHeads(sizes, depth), engine, tokens, medusa_loss)
    if config.objective == "eagle":
        return Learner(EagleLayer(sizes, n_layers, depth), engine, tokens, eagle_loss)
    modules = ParallelModules if config.mtp == "parallel" else SequentialModules
    return Learner(modules(sizes, depth), engine, tokens, mtp_loss)


def _save(
    config: TrainConfig,
    model: LanguageModel,
    learner: Learner,
    layers: list[int],
    accuracy: list[list[float]],
    folder: Path,
) -> None:
    if isinstance(learner.body, Smaller):
        save_model(learner.body.model, folder, tokenizer=model.tokenizer)
        return
    assert isinstance(model.decoder, EngineDecoder)
    engine = model.decoder.engine
    about = About(
        kind=config.objective,
        target=model.name,
        weights=kind_of(engine),
        fingerprint=fingerprint(engine.packed),
        layers=layers,
        depth=len(accuracy),
        parallel=config.mtp == "parallel",
        accuracy=accuracy,
    )
    tensors = {"tokens": learner.tokens, "head.weight": learner.head.detach().numpy()}
    if config.objective != "eagle":
        tensors["norm.weight"] = learner.norm.weight.detach().numpy()
    DrafterFiles(about, tensors | learner.body.tensors()).save(folder)  # type: ignore[operator]


class Fitting:
    """The loop over batches of texts.

    Parameters
    ----------
    config : TrainConfig
    learner : Learner
    texts, measured : list of Text
        To learn from; to measure on, with the model's choices.
    run : Run
        Gets the metrics.
    """

    def __init__(
        self, config: TrainConfig, learner: Learner, texts: list[Text], measured: list[Text], run: Run
    ) -> None:
        self.config, self.learner, self.texts, self.measured, self.run = config, learner, texts, measured, run
        self.size, self.step = config.batch_size or DEFAULT_BATCH, 0
        per_epoch = math.ceil(len(texts) / self.size)
        self.steps = config.max_steps or max(1, round((config.epochs or DEFAULT_EPOCHS) * per_epoch))
        self.parameters = [each for each in learner.parameters() if each.requires_grad]
        self.warmup = warmup_steps(config.warmup, self.steps)
        self.optimizer = make_adamw(
            self.parameters,
            learning_rate=config.learning_rate,
            beta1=config.beta1,
            beta2=config.beta2,
            eps=config.eps,
            weight_decay=config.weight_decay,
        )

    def fit(self) -> None:
        """Train to the last step, or until a signal."""
        n = sum(each.numel() for each in self.parameters)
        print(f"{n:,} trainable parameters, {len(self.texts):,} texts, {self.steps:,} steps", flush=True)
        with stop_on_signals() as stop, progress(self.steps, "training", unit="steps") as advance:
            while self.step < self.steps and not stop.asked:
                advance(note=f"loss {self._step():.3f}")

    def measure(self) -> list[list[float]]:
        """By token ahead and rank: how often a guess was the model's choice.

        Raises
        ------
        DataError
            If no text is long enough to look that far ahead.
        """
        hits, counts = np.zeros(0), np.zeros(0)
        for start in range(0, len(self.measured), self.size):
            with self._precision():
                found = self.learner.right(Padded.of(self.measured[start : start + self.size]))
            part = np.array([each.numpy() for each, _ in found], float)
            hits, counts = (hits + part, counts) if hits.size else (part, np.zeros(len(part)))
            counts = counts + np.array([n for _, n in found])
        if not counts.all():
            raise DataError(
                "the texts are too short to look that far ahead", "give longer ones, or less depth"
            )
        shares = hits / counts[:, None]
        self.run.log(self.step, **{f"agreement_{k}": float(row[0]) for k, row in enumerate(shares, start=1)})
        ranks: list[list[float]] = shares[:, :RANKS].round(6).tolist()
        return ranks

    def _step(self) -> float:
        self.step += 1
        with self._precision():
            loss = self.learner.loss(Padded.of(self._batch(self.step - 1)))
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = clip_gradients(self.parameters, self.config.max_grad_norm)
        value = float(loss.detach())
        if not math.isfinite(value + norm):
            raise RunError(
                f"training diverged at step {self.step}: loss {value}, gradient norm {norm}",
                f"start a new run with a learning rate below {self.config.learning_rate:g}, or more warm-up",
            )
        rate = learning_rate_at(
            self.step,
            self.steps,
            peak=self.config.learning_rate,
            warmup=self.warmup,
            schedule=self.config.schedule,
            floor=self.config.min_learning_rate,
        )
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.step()
        self.run.log(self.step, loss=value, lr=rate, grad_norm=norm)
        return value

    def _batch(self, index: int) -> list[Text]:
        """Batch `index`, counted over all epochs; each epoch has an order of its own."""
        per_epoch = math.ceil(len(self.texts) / self.size)
        epoch, place = divmod(index, per_epoch)
        order = np.random.default_rng([self.config.seed, epoch]).permutation(len(self.texts))
        return [self.texts[i] for i in order[place * self.size : (place + 1) * self.size]]

    def _precision(self) -> torch.autocast:
        """bfloat16 products where those are fast."""
        fast = default_dtype(default_device()) == torch.bfloat16
        return torch.autocast("cpu", torch.bfloat16, enabled=fast)
