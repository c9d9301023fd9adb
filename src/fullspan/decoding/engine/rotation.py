"""Rotary positions as the engine's kernels read them."""

from __future__ import annotations

import numpy as np

from fullspan.decoding.engine.model import padded
from fullspan.models.llama import LlamaConfig
from fullspan.nn.positions import Rope


def rotations(config: LlamaConfig, n_positions: int) -> np.ndarray:
    """float32 [n_positions, 2, padded head_dim]: cosines, then sines with the sign that each lane needs.

    Neighbours (a, b) become (a cos - b sin, b cos + a sin). Dynamic scaling sets in beyond the context that
    an engine has, so that positions are all that counts.
    """
    import torch

    rope = Rope(config.head_dim, config.rope_theta, config.rope_scaling, config.max_positions)
    cos, sin = rope.tables(torch.arange(n_positions)[None], torch.float32)
    table = np.zeros((n_positions, 2, padded(config.head_dim)), np.float32)
    table[:, 0, : config.head_dim] = cos[0, :, 0].repeat_interleave(2, -1).numpy()
    table[:, 1, : config.head_dim] = sin[0, :, 0].repeat_interleave(2, -1).numpy()
    table[:, 1, 0::2] *= -1
    return table
