"""The files of a trained drafter, and what it must match: the model whose hidden states it learnt from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from fullspan.core.errors import CheckpointError, ConfigError
from fullspan.core.files import replacing
from fullspan.decoding.engine.engine import Engine
from fullspan.decoding.engine.packing import KINDS
from fullspan.decoding.engine.unpacking import fingerprint
from fullspan.decoding.speculation.drafters import Target

CONFIG_FILE, WEIGHTS_FILE = "drafter.json", "drafter.safetensors"
_FORMAT = 1
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class About:
    """What drafter.json says.

    Attributes
    ----------
    kind : {"medusa", "eagle", "mtp"}
    target : str
        Name of the model that it was trained for.
    weights : str
        Kind of that model's packed weights.
    fingerprint : str
    layers : list of int
        The model's layers whose hidden states are looked at.
    depth : int
        Tokens ahead that it was trained for.
    parallel : bool
        Of mtp: whether the heads work beside each other rather than one after the other.
    accuracy : list of list of float
        Of heads that guess positions on their own: how often the guess of each rank was the model's choice,
        on held-out text.
    format : int
    """

    kind: str
    target: str
    weights: str
    fingerprint: str
    layers: list[int]
    depth: int
    parallel: bool = False
    accuracy: list[list[float]] = field(default_factory=list)
    format: int = _FORMAT


@dataclass(frozen=True, eq=False)
class DrafterFiles:
    """A drafter on disk: drafter.json and drafter.safetensors in one folder.

    Attributes
    ----------
    about : About
    tensors : mapping of str to ndarray
        "tokens" int64 [W], the draft vocabulary; "head.weight" [W, d_model]; others by kind. Matrices are
        kept in float16.
    """

    about: About
    tensors: Mapping[str, np.ndarray]

    def save(self, folder: Path | str) -> None:
        """Write the folder, whole or not at all."""
        with replacing(folder) as beside:
            beside.mkdir()
            (beside / CONFIG_FILE).write_text(json.dumps(asdict(self.about), indent=1), encoding="utf-8")
            save_file(
                {
                    name: np.ascontiguousarray(value.astype(np.float16) if value.ndim > 1 else value)
                    for name, value in self.tensors.items()
                },
                beside / WEIGHTS_FILE,
            )

    @classmethod
    def load(cls, folder: Path | str) -> DrafterFiles:
        """Read a folder.

        Raises
        ------
        CheckpointError
            If a file is missing or broken, or of a format that is not known.
        """
        folder = Path(folder)
        try:
            said = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
            tensors = load_file(folder / WEIGHTS_FILE)
        except (OSError, ValueError, SafetensorError) as error:
            raise CheckpointError(f"{folder} holds no drafter that can be read: {error}") from None
        return cls(_about(folder, said), tensors)

    def taken(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, Floats]:
        """The tensors as float32, if they are those expected.

        Raises
        ------
        CheckpointError
            If tensors are missing, unexpected or misshapen.
        """
        wrong = [name for name in [*shapes, *self.tensors] if not (name in shapes and name in self.tensors)]
        wrong += [
            name
            for name, shape in shapes.items()
            if name in self.tensors and self.tensors[name].shape != tuple(shape)
        ]
        if wrong:
            raise CheckpointError(
                f"the drafter's weights do not fit: {len(wrong)} missing, unexpected or misshapen: {wrong[0]}"
            )
        return {
            name: np.asarray(value, np.float32) for name, value in self.tensors.items() if name != "tokens"
        }

    def vocabulary(self, vocab_size: int) -> NDArray[np.int64]:
        """The draft vocabulary: tokens of the model, int64 [W]."""
        tokens = np.asarray(self.tensors.get("tokens", ()), np.int64)
        if tokens.ndim != 1 or not len(tokens) or tokens.min() < 0 or tokens.max() >= vocab_size:
            raise CheckpointError(f"the drafter's vocabulary does not fit one of {vocab_size} tokens")
        return tokens

    def engine_of(self, target: Target) -> Engine:
        """The target's engine.

        Raises
        ------
        ConfigError
            If it is not the model that the drafter was trained for.
        """
        packed, about = target.engine.packed, self.about
        if fingerprint(packed) != about.fingerprint:
            raise ConfigError(
                f"this {about.kind} drafter was trained for {about.target} with weights of kind "
                f"{about.weights}, not for {target.name} with {kind_of(target.engine)}",
                "load the model as it was loaded for training (adapter and weights), or train a drafter for "
                f"it: fullspan train --objective {about.kind} --model {target.name}",
            )
        return target.engine


def kind_of(engine: Engine) -> str:
    """The kind of an engine's matrices, as `weights` names it."""
    return next(name for name, kind in KINDS.items() if kind == engine.packed.matrices[0].kind)


def is_drafter(path: Path | str) -> bool:
    """Whether a folder holds a trained drafter."""
    return (Path(path) / CONFIG_FILE).is_file()


def _about(folder: Path, said: Any) -> About:
    known = set(About.__dataclass_fields__)
    if not isinstance(said, dict) or set(said) != known or said["format"] != _FORMAT:
        raise CheckpointError(
            f"{folder / CONFIG_FILE} is not of format {_FORMAT} of drafters",
            "train the drafter again with this version",
        )
    about = About(**said)
    if about.kind not in ("medusa", "eagle", "mtp") or not about.layers or about.depth < 1:
        raise CheckpointError(f"{folder / CONFIG_FILE} describes no drafter that is known: {about.kind!r}")
    return about


def rms_norm(x: Floats, weight: Floats, eps: float) -> Floats:
    """x / sqrt(mean(x²) + eps) times the weight, over the last dimension.

    Examples
    --------
    >>> rms_norm(np.float32([3, 4]), np.float32([1, 2]), 0.0).round(3).tolist()
    [0.8489999771118164, 2.263000011444092]
    """
    normed: Floats = x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + np.float32(eps)) * weight
    return normed
