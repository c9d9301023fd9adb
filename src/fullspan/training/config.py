"""Options of `fullspan train`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from fullspan.core.config import Config, InputPath, ModelName, OutputPath, read_yaml
from fullspan.core.errors import ConfigError
from fullspan.decoding.engines import Weights

# What may differ when a run goes on: it changes where results go or how fast, not what they are.
FREE_ON_RESUME = frozenset(
    {"threads", "run", "name", "resume", "save_every", "save_minutes", "export", "export_type"}
)

# Options that stand for one another: giving one drops what the resumed run had for the others.
_ALTERNATIVES = (
    ("epochs", "max_steps"),
    ("eval_data", "eval_fraction"),
    ("packing", "batch_size", "tokens_per_batch"),
    ("run", "name"),
)


_DRAFTERS_ONLY = (
    "adapter",
    "weights",
    "texts",
    "answer_tokens",
    "depth",
    "draft_vocab",
    "mtp",
    "draft_layers",
)
_SFT_ONLY = (
    *("rank", "alpha", "dropout", "targets", "rslora", "dora", "packing", "accumulation", "precision"),
    *("engine", "eval_every", "patience", "save_every", "save_minutes", "resume", "export", "export_type"),
)


def check_objective(config: TrainConfig) -> None:
    """Refuse options that belong to other objectives.

    Raises
    ------
    ConfigError
        Naming the first of them.
    """
    kind = config.objective
    wrong = list(_DRAFTERS_ONLY if kind == "sft" else _SFT_ONLY)
    if kind != "sft":
        wrong += ["mtp"] if kind != "mtp" else []
        wrong += ["draft_layers"] if kind != "draft" else ["depth", "draft_vocab"]
        wrong += ["answer_tokens"] if config.texts == "data" else []
    for name in wrong:
        field = TrainConfig.model_fields[name]
        if getattr(config, name) != field.get_default():
            raise ConfigError(
                f"--{name.replace('_', '-')} is no option of --objective {kind}"
                + (" with --texts data" if name == "answer_tokens" and kind != "sft" else ""),
                f"it is: {field.description}",
            )


class TrainConfig(Config):
    """A fine-tuning run: what is trained on what, how, and where the result goes."""

    objective: Literal["sft", "medusa", "eagle", "mtp", "draft"] = Field(
        "sft",
        description="what is trained; sft: a LoRA adapter, by cross-entropy of the assistant's tokens; "
        "medusa, eagle, mtp, draft: a drafter for faster decoding of the model, which stays as it is (draft: "
        "a smaller model)",
    )
    model: ModelName = Field(description="model to fine-tune: a name of the store, a GGUF file or a folder")
    data: InputPath = Field(
        description="training examples: Messages, Alpaca or ShareGPT as JSONL, JSON or Parquet"
    )
    eval_data: InputPath | None = Field(None, description="held-out examples in the same formats")
    eval_fraction: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="share of the data to hold out when there is no eval-data [default: 0.05]",
    )

    adapter: InputPath | None = Field(None, description="of drafters: an adapter that the model is used with")
    weights: Weights | None = Field(
        None, description="of drafters: kind of the model's weights, as it will be loaded to decode"
    )
    texts: Literal["own", "data"] | None = Field(
        None,
        description="of drafters: learn from the model's own answers to the data's prompts, or from the data "
        "as they are [default: own]",
    )
    answer_tokens: int | None = Field(
        None, ge=2, description="of drafters: longest answer of its own [default: 128]"
    )
    depth: int | None = Field(
        None, ge=1, le=16, description="of medusa, eagle, mtp: tokens to look ahead [default: 3]"
    )
    draft_vocab: int | None = Field(
        None, ge=2, description="of medusa, eagle, mtp: most frequent tokens to propose [default: 8192]"
    )
    mtp: Literal["sequential", "parallel"] | None = Field(
        None, description="of mtp: modules after or beside each other [default: sequential]"
    )
    draft_layers: int | None = Field(
        None, ge=1, description="of draft: layers of the smaller model [default: an eighth]"
    )

    rank: int = Field(16, ge=1, description="rank of the LoRA update")
    alpha: float = Field(32.0, gt=0, description="LoRA's alpha; the update is scaled by alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the inputs of the LoRA update")
    targets: list[str] = Field(
        ["all-linear"],
        min_length=1,
        description="layers to adapt, such as q_proj; all-linear: every one but the head",
    )
    rslora: bool = Field(False, description="scale by alpha / sqrt(rank) instead (rsLoRA)")
    dora: bool = Field(False, description="train a magnitude for each output beside the direction (DoRA)")

    epochs: float | None = Field(None, gt=0, le=1_000_000, description="passes over the data [default: 1]")
    max_steps: int | None = Field(None, ge=1, description="optimiser steps, instead of epochs")
    packing: bool = Field(True, description="pack examples into one sequence; without it they are padded")
    tokens_per_batch: int | None = Field(
        None, ge=8, description="tokens of one packed micro-batch [default: 2048]"
    )
    batch_size: int | None = Field(
        None, ge=1, description="examples of one padded micro-batch, without packing [default: 8]"
    )
    accumulation: int = Field(1, ge=1, description="micro-batches to an optimiser step")
    max_length: int | None = Field(
        None,
        ge=2,
        description="longest example in tokens [default: what the batch and the model's context hold]",
    )
    long_examples: Literal["error", "truncate", "skip"] = Field(
        "error", description="what to do with an example longer than max-length"
    )

    learning_rate: float = Field(5e-4, gt=0, description="highest learning rate")
    schedule: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="how the learning rate falls after the warm-up"
    )
    warmup: float = Field(0.05, ge=0, description="warm-up: a share of the steps if below 1, else steps")
    min_learning_rate: float = Field(
        0.0, ge=0, le=1, description="where the schedule ends, as a share of the learning rate"
    )
    weight_decay: float = Field(0.0, ge=0, description="AdamW's decoupled weight decay")
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW's decay of the first moment")
    beta2: float = Field(0.999, ge=0, lt=1, description="AdamW's decay of the second moment")
    eps: float = Field(1e-8, gt=0, description="AdamW's epsilon")
    max_grad_norm: float = Field(1.0, ge=0, description="clip the gradient to this norm; 0: no clipping")

    precision: Literal["auto", "float32", "bf16"] = Field(
        "auto", description="dtype of the frozen model and of the products; auto: bf16 where it is fast"
    )
    engine: Literal["auto", "autograd", "fused"] = Field(
        "auto", description="fused: the fast path for CPUs; auto: fused where it can"
    )
    seed: int = Field(
        0, ge=0, lt=2**63, description="seed of the adapters, the order of the data and dropout"
    )
    threads: int | None = Field(None, ge=1, description="CPU threads [default: one a core]")

    eval_every: int | None = Field(
        None, ge=1, description="steps between evaluations [default: before and after only]"
    )
    patience: int | None = Field(
        None, ge=1, description="stop after this many evaluations without a lower loss and keep the best"
    )
    save_every: int | None = Field(None, ge=1, description="steps between checkpoints")
    save_minutes: float | None = Field(
        None, gt=0, description="minutes between checkpoints [default: 5, unless save-every is given]"
    )
    run: OutputPath | None = Field(None, description="run directory [default: runs/<time>-<name>]")
    name: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        max_length=100,
        description="name of the run under runs/ [default: train]",
    )
    resume: bool = Field(False, description="go on with the run in --run where it stopped, with its options")
    export: OutputPath | None = Field(
        None, description="write the merged model too: a .gguf file or a folder"
    )
    export_type: Literal["f32", "f16", "bf16", "q8_0"] | None = Field(
        None, description="number format of an exported .gguf file [default: f16]"
    )

    @model_validator(mode="before")
    @classmethod
    def _continue_run(cls, values: Any) -> Any:
        """Options that are not given again are those of the run that goes on."""
        if not isinstance(values, dict) or not values.get("resume"):
            return values
        if not values.get("run"):
            raise ConfigError("--resume needs the run to go on with", "add --run DIRECTORY")
        file = Path(values["run"]) / "config.yaml"
        if not file.exists() and values.get("model") is None:
            raise ConfigError(
                f"{values['run']} holds no run to go on with", "give the directory of a run that was stopped"
            )
        saved = read_yaml(file) if file.exists() else {}
        for group in _ALTERNATIVES:
            if any(values.get(name) is not None for name in group):
                saved = {name: value for name, value in saved.items() if name not in group}
        return {**saved, **values}

    @model_validator(mode="after")
    def _no_contradictions(self) -> Self:
        for first, second in (("epochs", "max_steps"), ("eval_data", "eval_fraction"), ("run", "name")):
            if getattr(self, first) is not None and getattr(self, second) is not None:
                flags = " and ".join(f"--{name.replace('_', '-')}" for name in (first, second))
                raise ConfigError(f"{flags} contradict each other", "give one of them")
        if self.packing and self.batch_size is not None:
            raise ConfigError(
                "--batch-size is for padded batches", "add --no-packing, or give --tokens-per-batch"
            )
        if not self.packing and self.tokens_per_batch is not None:
            raise ConfigError(
                "--tokens-per-batch is for packed batches", "drop --no-packing, or give --batch-size"
            )
        if self.patience is not None and self.eval_every is None:
            raise ConfigError("--patience counts evaluations and needs --eval-every")
        if self.patience is not None and not self.eval_data and self.eval_fraction == 0:
            raise ConfigError("--patience needs held-out data, but --eval-fraction is 0")
        check_objective(self)
        if self.export_type is not None and self.export is None:
            raise ConfigError("--export-type is given without --export", "say where to with --export FILE")
        if self.export_type is not None and self.export is not None and self.export.suffix != ".gguf":
            raise ConfigError(f"--export-type is for a .gguf file, but --export is the folder {self.export}")
        return self
