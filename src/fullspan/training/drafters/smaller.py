"""A smaller model of the same vocabulary, made of some layers of the model that it will draft for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from fullspan.core.errors import ConfigError
from fullspan.models.llama import Llama


class Smaller(nn.Module):
    """Evenly spaced layers of a model between its embeddings and its head, which stay as they are.

    Parameters
    ----------
    model : Llama
    n_layers : int

    Raises
    ------
    ConfigError
        If the model has fewer layers.

    Attributes
    ----------
    model : Llama
        The smaller one.
    """

    def __init__(self, model: Llama, n_layers: int) -> None:
        super().__init__()
        if n_layers >= model.config.n_layers:
            raise ConfigError(
                f"--draft-layers is {n_layers}, but the model itself has {model.config.n_layers} layers"
            )
        self.model = Llama(replace(model.config, n_layers=n_layers))
        chosen = np.linspace(0, model.config.n_layers - 1, n_layers + 1).astype(int)[1:]
        chosen[0] = 0 if n_layers > 1 else chosen[0]
        for mine, number in zip(self.model.model.layers, chosen.tolist(), strict=True):
            mine.load_state_dict(model.model.layers[number].state_dict())
        for part in ("embed_tokens", "norm"):
            getattr(self.model.model, part).load_state_dict(getattr(model.model, part).state_dict())
        self.model.lm_head.load_state_dict(model.lm_head.state_dict())
        self.model.tie_head()
        self.model.float()
        for fixed in (self.model.model.embed_tokens, self.model.lm_head):
            fixed.requires_grad_(False)

    def forward(self, normed: Tensor, hidden: Tensor, embedded: Tensor) -> list[Tensor]:
        """States of the next token: what the smaller model's head gets."""
        positions = torch.arange(embedded.shape[1])[None]
        cos, sin = self.model.rope.tables(positions, torch.float32)
        x = embedded
        for block in self.model.model.layers:
            x = block(x, cos, sin)
        return [self.model.model.norm(x)]
