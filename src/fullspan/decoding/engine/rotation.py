"""Rotary positions as the engine's kernels read them."""

from __future__ import annotations

import numpy as np

from fullspan.decoding.engine.model import padded
from fullspan.models._llama_config import LlamaConfig
from fullspan.nn.frequencies import YarnScaling, inverse_frequencies


def rotations(config: LlamaConfig, n_positions: int) -> np.ndarray:
    """float32 [n_positions, 2, padded head_dim]: cosines, then sines with the sign that each lane needs.

    Neighbours (a, b) become (a cos - b sin, b cos + a sin). Dynamic scaling sets in beyond the context that
    an engine has, so that positions are all that counts.
    """
    scaling = config.rope_scaling
    frequencies = inverse_frequencies(config.head_dim, config.rope_theta, scaling)
    angles = np.arange(n_positions, dtype=np.float32)[:, None] * frequencies
    stretch = np.float32(scaling.effective_attention_factor() if isinstance(scaling, YarnScaling) else 1)
    table = np.zeros((n_positions, 2, padded(config.head_dim)), np.float32)
    table[:, 0, : config.head_dim] = (np.cos(angles) * stretch).repeat(2, axis=1)
    table[:, 1, : config.head_dim] = (np.sin(angles) * stretch).repeat(2, axis=1)
    table[:, 1, 0::2] *= -1
    return table
