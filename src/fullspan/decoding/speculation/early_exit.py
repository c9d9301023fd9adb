"""Proposals of the model's own first layers, with its own head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fullspan.core.errors import ConfigError
from fullspan.decoding.engine._layout import N_OF_LAYER
from fullspan.decoding.engine.engine import Engine
from fullspan.decoding.engine.model import PackedModel
from fullspan.decoding.speculation.draft_model import ModelDrafting, tree_size
from fullspan.decoding.speculation.drafters import Target


class EarlyExitDrafter:
    """Stops after some layers and asks the head there (Draft & Verify, Zhang et al. 2024; LayerSkip, 2024).

    It shares the target's weights, so it takes no memory but a cache. What the layers left out would have
    changed decides how good it is: most models are not trained for it, and then it does not pay.

    Parameters
    ----------
    n_layers : int
    widths : sequence of int
        The tree, as of `ModelDrafter`.

    Raises
    ------
    ConfigError
        If there is no layer, or the tree is empty or too large.
    """

    def __init__(self, n_layers: int, widths: Sequence[int] = (1, 1)) -> None:
        if n_layers < 1:
            raise ConfigError(f"early exit after {n_layers} layers, expected 1 or more")
        tree_size(widths)
        self.n_layers, self.widths = n_layers, tuple(widths)
        self._engine: Engine | None = None
        self._target: Engine | None = None

    def check(self, target: Target) -> None:
        """Refuse a target that has no more layers; take its weights."""
        if self._target is target.engine:
            return
        n = target.engine.config.n_layers
        if self.n_layers >= n:
            raise ConfigError(
                f"early exit after {self.n_layers} of {n} layers of {target.name}", f"give 1 to {n - 1}"
            )
        self._engine = Engine(first_layers(target.engine.packed, self.n_layers), target.engine.n_threads)
        self._target = target.engine

    def begin(self, n_rows: int) -> ModelDrafting:
        """Start on a batch."""
        assert self._engine is not None  # since `check`
        return ModelDrafting(self._engine, self.widths, n_rows)


def first_layers(model: PackedModel, n_layers: int) -> PackedModel:
    """A model of the first layers, the last norm and the head, in the same memory."""
    kept = [*range(N_OF_LAYER * n_layers), len(model.matrices) - 2, len(model.matrices) - 1]
    return PackedModel(
        replace(model.config, n_layers=n_layers),
        [model.matrices[i] for i in kept],
        model.memory,
        np.concatenate([model.norms[: 2 * n_layers], model.norms[-1:]]),
        [model.biases[i] for i in kept],
    )
