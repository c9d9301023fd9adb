"""Medusa: heads on the model's last hidden state, each a guess of one of the next tokens.

Cai et al. 2024, "Medusa: Simple LLM Inference Acceleration Framework with Multiple Decoding Heads":
head k of the hidden state h guesses the token k + 1 places on from ``h + silu(W_k h + b_k)`` (section 2.1.1).
Here all heads share one matrix of logits, over the most frequent tokens only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fullspan.core.errors import CheckpointError, ConfigError
from fullspan.decoding.speculation.drafters import MOST_PROPOSALS, DraftRow, Target
from fullspan.decoding.speculation.positions import (
    Shape,
    best_shape,
    depth_of,
    fill,
    ranked,
    shape_from_paths,
)
from fullspan.decoding.speculation.trained import DrafterFiles, Floats, rms_norm
from fullspan.decoding.speculation.tree import Tree
from fullspan.decoding.speculation.typical import TypicalAcceptance


class MedusaDrafter:
    """Trained heads that propose a tree of a fixed shape.

    Its tokens are proposed for certain, also where the model samples. With `typical` they are accepted by
    the paper's typical acceptance: **not lossless**, sampled answers no longer have the model's distribution.

    Parameters
    ----------
    files : DrafterFiles
        From `fullspan train --objective medusa`.
    n_nodes : int
        Proposals of the tree, which are chosen by the heads' accuracies.
    paths : sequence of sequence of int, optional
        The tree itself instead: ranks of guesses from the first position on, parents before children.
    typical : TypicalAcceptance, optional

    Raises
    ------
    ConfigError
        If the tree is empty, too large, or deeper than there are heads.
    """

    def __init__(
        self,
        files: DrafterFiles,
        n_nodes: int = 5,
        paths: Sequence[Sequence[int]] | None = None,
        typical: TypicalAcceptance | None = None,
    ) -> None:
        self.files, self.layers, self.acceptance = files, tuple(files.about.layers), typical
        self.shape = checked_shape(files, n_nodes, paths)

    @classmethod
    def load(cls, folder: Path | str, n_nodes: int = 5, *, typical: bool = False) -> MedusaDrafter:
        """Of a folder that training wrote."""
        return cls(DrafterFiles.load(folder), n_nodes, typical=TypicalAcceptance() if typical else None)

    def check(self, target: Target) -> None:
        """Refuse a model that the heads were not trained for."""
        config = self.files.engine_of(target).config
        d, n, self.tokens = config.d_model, self.files.about.depth, self.files.vocabulary(config.vocab_size)
        shapes = {"tokens": self.tokens.shape, "head.weight": (len(self.tokens), d), "norm.weight": (d,)}
        tensors = self.files.taken(shapes | {"heads.weight": (n, d, d), "heads.bias": (n, d)})
        depth, self._n_ranks = depth_of(self.shape)
        self._eps, self._norm, self._head = (
            config.rms_norm_eps,
            tensors["norm.weight"],
            tensors["head.weight"],
        )
        self._weight, self._bias = tensors["heads.weight"][:depth], tensors["heads.bias"][:depth]

    def begin(self, n_rows: int) -> MedusaDrafter:
        """Start on a batch: it remembers nothing from step to step."""
        return self

    def propose(self, rows: Sequence[DraftRow]) -> list[Tree]:
        """A tree for each row."""
        return [self._tree(row) for row in rows]

    def keep(self, places: Sequence[int]) -> None:
        """Nothing is kept of rows."""

    def logits(self, hidden: Floats) -> Floats:
        """Logits [heads, W] of a hidden state [d_model] before the final norm."""
        h = rms_norm(hidden, self._norm, self._eps)
        inner = self._weight @ h + self._bias  # [heads, d_model]
        found: Floats = (h + inner / (1 + np.exp(-inner))) @ self._head.T
        return found

    def _tree(self, row: DraftRow) -> Tree:
        if not row.room:
            return Tree(row.ids[-1])
        return fill(self.shape, row, self.tokens[ranked(self.logits(row.hidden[-1, -1]), self._n_ranks)])


def checked_shape(files: DrafterFiles, n_nodes: int, paths: Sequence[Sequence[int]] | None) -> Shape:
    """The shape of the tree that was asked for.

    Raises
    ------
    ConfigError
        If it cannot be.
    """
    accuracy, about = files.about.accuracy, files.about
    if not 1 <= n_nodes <= MOST_PROPOSALS:
        raise ConfigError(f"a tree of {n_nodes} proposals, expected 1 to {MOST_PROPOSALS}")
    if len(accuracy) != about.depth or not all(accuracy):
        raise CheckpointError(f"the drafter has {about.depth} heads, and accuracies of {len(accuracy)}")
    if paths is None:
        return best_shape(accuracy, n_nodes)
    try:
        shape = shape_from_paths(paths)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if not 1 <= len(shape) <= MOST_PROPOSALS or depth_of(shape)[0] > about.depth:
        raise ConfigError(
            f"a tree of {len(shape)} proposals and depth {depth_of(shape)[0]}, expected 1 to "
            f"{MOST_PROPOSALS} and at most {about.depth}"
        )
    return shape
