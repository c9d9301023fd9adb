"""Drafters as torch modules: what `fullspan.decoding.speculation` runs without torch, to be trained.

Shapes: B texts, T tokens, L layers looked at, D d_model, W draft vocabulary. Every module maps hidden states
of the model to one list entry for each token ahead: states [B, T, D] whose product with the head are logits
of the token k + 1 places on from the one at a place, k = 1, 2, ...
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fullspan.decoding.speculation.layer import layer_config
from fullspan.models.llama import Block, LlamaConfig, weights_to_gguf
from fullspan.nn.norms import RMSNorm
from fullspan.nn.positions import Rope, apply_rope


class Ahead(Protocol):
    """A drafter's body, without its head."""

    def __call__(self, normed: Tensor, hidden: Tensor, embedded: Tensor) -> list[Tensor]:
        """States of each token ahead.

        Parameters
        ----------
        normed : Tensor [B, T, D]
            The model's last hidden states after its final norm.
        hidden : Tensor [B, T, L, D]
            Those behind the layers looked at.
        embedded : Tensor [B, T, D]
            The model's embeddings of the tokens.
        """

    def tensors(self) -> dict[str, np.ndarray]:
        """The weights as a drafter's file names them."""


class MedusaHeads(nn.Module):
    """``h + silu(W_k h + b_k)``; W and b begin at zero, so that each head begins as the model's own."""

    def __init__(self, config: LlamaConfig, depth: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(depth, config.d_model, config.d_model))
        self.bias = nn.Parameter(torch.zeros(depth, config.d_model))

    def forward(self, normed: Tensor, hidden: Tensor, embedded: Tensor) -> list[Tensor]:
        """States of each token ahead."""
        return [
            normed + F.silu(F.linear(normed, weight, bias))
            for weight, bias in zip(self.weight, self.bias, strict=True)
        ]

    def tensors(self) -> dict[str, np.ndarray]:
        """The weights as a drafter's file names them."""
        return {"heads.weight": _array(self.weight), "heads.bias": _array(self.bias)}


class Layer(nn.Module):
    """A block of the model's shape, with what joins a hidden state and an embedding before it.

    ``eh_proj [enorm(embedding); hnorm(hidden)]``, the order of DeepSeek-V3's checkpoints.
    """

    def __init__(self, config: LlamaConfig, *, joins: bool) -> None:
        super().__init__()
        self.config = layer_config(config, 1)
        d, eps = config.d_model, config.rms_norm_eps
        self.block, self.norm = Block(self.config), RMSNorm(d, eps)
        self.rope = Rope(config.head_dim, config.rope_theta, config.rope_scaling, config.max_positions)
        self.joins = joins
        if joins:
            self.enorm, self.hnorm = RMSNorm(d, eps), RMSNorm(d, eps)
            self.eh_proj = nn.Linear(2 * d, d, bias=False)

    def join(self, embedded: Tensor, hidden: Tensor) -> Tensor:
        """The block's input [B, T, D]."""
        joined: Tensor = self.eh_proj(torch.cat((self.enorm(embedded), self.hnorm(hidden)), dim=-1))
        return joined

    def rotations(self, n_tokens: int, shift: int = 0) -> tuple[Tensor, Tensor]:
        """Of the places 0, 1, ..., moved by `shift`."""
        return self.rope.tables(torch.arange(shift, shift + n_tokens)[None], torch.float32)

    def forward(self, x: Tensor) -> Tensor:
        """The block on a whole text [B, T, D]."""
        out: Tensor = self.block(x, *self.rotations(x.shape[1]))
        return out

    def tensors(self, number: int) -> dict[str, np.ndarray]:
        """The weights as a drafter's file names them."""
        named = {f"model.layers.0.{name}": value for name, value in self.block.named_parameters()}
        named["model.norm.weight"] = self.norm.weight
        found = {n: _array(v) for n, v in weights_to_gguf(self.config, named.items()) if "rope" not in n}
        if self.joins:
            found |= {f"{n}.weight": _array(getattr(self, n).weight) for n in ("enorm", "hnorm", "eh_proj")}
        return {f"layers.{number}.{name}": value for name, value in found.items()}


class SequentialModules(nn.Module):
    """DeepSeek-V3's modules (equations 21 to 23): each goes on from the one before and a token."""

    def __init__(self, config: LlamaConfig, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(config, joins=True) for _ in range(depth))

    def forward(self, normed: Tensor, hidden: Tensor, embedded: Tensor) -> list[Tensor]:
        """States of each token ahead."""
        states, state = [], normed
        for k, layer in enumerate(_each(self.layers), start=1):
            state = layer(layer.join(_ahead(embedded, k), state))
            states.append(layer.norm(state))
        return states

    def tensors(self) -> dict[str, np.ndarray]:
        """The weights as a drafter's file names them."""
        return _all_tensors(self.layers)


class ParallelModules(nn.Module):
    """A block for each token ahead, all on the model's last hidden state (Gloeckle et al. 2024)."""

    def __init__(self, config: LlamaConfig, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(config, joins=False) for _ in range(depth))

    def forward(self, normed: Tensor, hidden: Tensor, embedded: Tensor) -> list[Tensor]:
        """States of each token ahead."""
        return [layer.norm(layer(normed)) for layer in _each(self.layers)]

    def tensors(self) -> dict[str, np.ndarray]:
        """The weights as a drafter's file names them."""
        return _all_tensors(self.layers)


class EagleLayer(nn.Module):
    """One layer that goes on from its own output, as often in training as in use."""

    def __init__(self, config: LlamaConfig, n_layers: int, depth: int) -> None:
        super().__init__()
        self.depth = depth
        self.fuse = nn.Linear(n_layers * config.d_model, config.d_model, bias=False)
        self.layer = Layer(config, joins=True)

    def forward(self, normed: Tensor, hidden: Tensor, embedded: Tensor) -> list[Tensor]:
        """States of each token ahead.

        The drafts from all places are computed at once: at step k place i stands for the k-th token of the
        draft that begins there, at position i + k - 1. It sees the model's own places up to i, and of the
        drafted ones those of its own draft.
        """
        block, attention = self.layer.block, self.layer.block.self_attn
        state, states = self.fuse(hidden.flatten(2)), []
        keys: list[Tensor] = []
        values: list[Tensor] = []
        for k in range(1, self.depth + 1):
            x = self.layer.join(_ahead(embedded, k), state)
            cos, sin = self.layer.rotations(x.shape[1], k - 1)
            q, key, value = self._project(block.input_layernorm(x), cos, sin)
            keys.append(key)
            values.append(value)
            x = x + attention.o_proj(_attend_ahead(q, keys, values))
            state = x + block.mlp(block.post_attention_layernorm(x))
            states.append(self.layer.norm(state))
        return states

    def _project(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [B, H, T, head_dim], all with the heads of the queries."""
        attention = self.layer.block.self_attn
        split = (*x.shape[:2], -1, attention.head_dim)
        q = apply_rope(attention.q_proj(x).view(split), cos, sin)
        k = apply_rope(attention.k_proj(x).view(split), cos, sin)
        group = attention.n_heads // attention.n_kv_heads
        k, v = (each.repeat_interleave(group, 2) for each in (k, attention.v_proj(x).view(split)))
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)

    def tensors(self) -> dict[str, np.ndarray]:
        """The weights as a drafter's file names them."""
        return {"fuse.weight": _array(self.fuse.weight)} | self.layer.tensors(0)


def _attend_ahead(q: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
    """Attention of a step [B, T, H head_dim]: causal over the first keys; of the others its own."""
    n, scale = q.shape[2], 1 / math.sqrt(q.shape[3])
    future = torch.ones(n, n, dtype=torch.bool, device=q.device).triu(1)
    scores = (q @ keys[0].transpose(2, 3)).masked_fill(future, -torch.inf)  # [B, H, T, T]
    own = [(q * key).sum(-1, keepdim=True) for key in keys[1:]]  # [B, H, T, 1] each
    shares = (torch.cat([scores, *own], dim=-1) * scale).float().softmax(-1).to(q.dtype)
    out = shares[..., :n] @ values[0]
    for place, value in enumerate(values[1:], start=n):
        out = out + shares[..., place : place + 1] * value
    return out.transpose(1, 2).flatten(2)


def _ahead(x: Tensor, k: int) -> Tensor:
    """x [B, T, D] moved k places to the front; zeros come in at the end, whose places are never used."""
    return F.pad(x[:, k:], (0, 0, 0, min(k, x.shape[1])))


def _array(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.detach().float().cpu().numpy()
    return array


def _each(layers: nn.ModuleList) -> list[Layer]:
    return [layer for layer in layers if isinstance(layer, Layer)]


def _all_tensors(layers: nn.ModuleList) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for number, layer in enumerate(_each(layers)):
        found |= layer.tensors(number)
    return found
