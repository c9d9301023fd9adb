"""Checkpoints of a training run: enough to go on to the same numbers, bit for bit.

A checkpoint is the folder ``checkpoints/step-N`` with `tensors.safetensors` (LoRA parameters, the optimiser's
moments, torch's random state) and `state.json` (everything else). It is written beside its place and moved
there whole, so a kill leaves the one before.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fullspan.checkpoints.store import find_model
from fullspan.core.errors import CheckpointError, RunError
from fullspan.core.files import replacing, sha256
from fullspan.training.config import FREE_ON_RESUME, TrainConfig

TENSORS, STATE = "tensors.safetensors", "state.json"
KEPT = 2


@dataclass
class Progress:
    """Where a training run stands.

    Attributes
    ----------
    step : int
        Optimiser steps done; the position in the data follows from it.
    evaluated_step : int
        Last step whose evaluation is in the metrics; -1 before the first.
    first_loss, last_loss : float or None
        Held-out loss before training and at the last evaluation.
    best_loss, best_step : float or None, int
        Lowest held-out loss and its step.
    evaluations_since_best : int
        For early stopping.
    """

    step: int = 0
    evaluated_step: int = -1
    first_loss: float | None = None
    last_loss: float | None = None
    best_loss: float | None = None
    best_step: int = 0
    evaluations_since_best: int = 0


@dataclass
class RandomState:
    """States of the global generators, taken between two steps."""

    torch: Tensor = field(default_factory=torch.get_rng_state)
    numpy: Any = field(default_factory=np.random.get_state)
    python: Any = field(default_factory=random.getstate)

    def restore(self) -> None:
        """Set the global generators back."""
        torch.set_rng_state(self.torch)
        np.random.set_state(self.numpy)
        random.setstate(self.python)

    def to_json(self) -> dict[str, Any]:
        name, keys, *rest = self.numpy
        return {"numpy": [name, keys.tolist(), *rest], "python": self.python}

    @classmethod
    def from_json(cls, state: dict[str, Any], torch_state: Tensor) -> RandomState:
        name, keys, *rest = state["numpy"]
        version, internal, gauss = state["python"]
        numpy_state = (name, np.array(keys, dtype=np.uint32), *rest)
        return cls(torch_state, numpy_state, (version, tuple(internal), gauss))


def save_checkpoint(
    folder: Path,
    parameters: dict[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    random_state: RandomState,
    fingerprint: dict[str, Any],
    *,
    keep_best: bool,
) -> Path:
    """Write ``folder/step-N`` whole, then drop all but the last two and, with `keep_best`, the best.

    Raises
    ------
    CheckpointError
        If it cannot be written, for want of space say; the checkpoints before it stay.
    """
    tensors = {f"parameter.{name}": value.detach() for name, value in parameters.items()}
    for name, value in parameters.items():
        for key, moment in optimizer.state.get(value, {}).items():
            tensors[f"optimizer.{key}.{name}"] = moment
    tensors["random.torch"] = random_state.torch
    state = {
        "progress": asdict(progress),
        "random": random_state.to_json(),
        "fingerprint": fingerprint,
    }
    target = folder / f"step-{progress.step}"
    try:
        with replacing(target) as beside:
            beside.mkdir()
            save_file({name: value.contiguous() for name, value in tensors.items()}, beside / TENSORS)
            (beside / STATE).write_text(json.dumps(state), encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"the checkpoint {target} could not be written: {error}",
            "make room on the disk, then go on from the checkpoint before it with --resume",
        ) from error
    for path in saved_checkpoints(folder)[:-KEPT]:
        if not (keep_best and path.name == f"step-{progress.best_step}"):
            shutil.rmtree(path, ignore_errors=True)
    return target


def saved_checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints in `folder`, by step."""
    found = [path for path in folder.glob("step-*") if (path / STATE).exists()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))


def remove_partial(folder: Path) -> None:
    """Remove what a killed process was writing; only for the holder of the run's lock."""
    for path in folder.glob(".step-*.partial"):
        shutil.rmtree(path, ignore_errors=True)


def load_checkpoint(
    path: Path,
    parameters: dict[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    fingerprint: dict[str, Any],
) -> tuple[Progress, RandomState]:
    """Put a checkpoint's values back into `parameters` and `optimizer`.

    Raises
    ------
    RunError
        If an option or the data is not what the run began with; the message names it.
    CheckpointError
        If the checkpoint is damaged.
    """
    try:
        state = json.loads((path / STATE).read_text(encoding="utf-8"))
        tensors = load_file(path / TENSORS)
        check_fingerprint(state["fingerprint"], fingerprint)
        load_parameters(tensors, parameters)
        for name, value in parameters.items():
            prefix, suffix = "optimizer.", f".{name}"
            moments = {
                key.removeprefix(prefix).removesuffix(suffix): tensor
                for key, tensor in tensors.items()
                if key.startswith(prefix) and key.endswith(suffix)
            }
            if moments:
                optimizer.state[value] = moments
        progress = Progress(**state["progress"])
        return progress, RandomState.from_json(state["random"], tensors["random.torch"])
    except (OSError, SafetensorError, json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} is damaged: {type(error).__name__}: {error}", "remove it to go on from the one before"
        ) from error


def load_parameters(tensors: dict[str, Tensor], parameters: dict[str, nn.Parameter]) -> None:
    """Copy a checkpoint's LoRA parameters into the model's."""
    with torch.no_grad():
        for name, value in parameters.items():
            value.copy_(tensors[f"parameter.{name}"])


def load_best(folder: Path, progress: Progress, parameters: dict[str, nn.Parameter]) -> None:
    """Set the parameters to those of the lowest held-out loss."""
    load_parameters(load_file(folder / f"step-{progress.best_step}" / TENSORS), parameters)


def fingerprint(config: TrainConfig) -> dict[str, Any]:
    """What a run's numbers follow from: options, and the content of data and model."""
    values = config.model_dump(mode="json", exclude=set(FREE_ON_RESUME))
    values["content of data"] = sha256(config.data)
    if config.eval_data is not None:
        values["content of eval_data"] = sha256(config.eval_data)
    path = find_model(config.model)
    if path.is_file():
        values["content of model"] = sha256(path)
    else:  # weights, config and tokenizer; a read-me may change
        files = sorted(
            file for suffix in ("safetensors", "json", "jinja") for file in path.glob(f"*.{suffix}")
        )
        digests = [f"{file.name} {sha256(file)}" for file in files]
        values["content of model"] = hashlib.sha256("\n".join(digests).encode()).hexdigest()
    return values


def check_fingerprint(saved: dict[str, Any], current: dict[str, Any]) -> None:
    """Refuse to go on with other options or data than the run began with.

    Examples
    --------
    >>> check_fingerprint({"rank": 8}, {"rank": 16})
    Traceback (most recent call last):
    ...
    fullspan.core.errors.RunError: rank is 16, but the run began with 8
    hint: give rank as it was, or start a new run
    """
    for name in saved.keys() | current.keys():
        before, now = saved.get(name), current.get(name)
        if before != now:
            raise RunError(
                f"{name} is {now}, but the run began with {before}",
                f"give {name} as it was, or start a new run",
            )
