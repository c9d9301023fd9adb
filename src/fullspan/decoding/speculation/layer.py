"""A transformer layer that goes on from a model's hidden states, on an engine of its own.

Its input at a place is ``W [norm(embedding of the next token); norm(hidden state)]``, as in EAGLE (Li et al.
2024) and DeepSeek-V3's multi-token prediction; its output is a hidden state again, and logits of the token
after the next over the draft vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fullspan.core.errors import DataError
from fullspan.decoding.engine.engine import Engine
from fullspan.decoding.engine.model import pack_tensors
from fullspan.decoding.sampling import draw
from fullspan.decoding.speculation.drafters import DraftRow
from fullspan.decoding.speculation.trained import Floats, rms_norm
from fullspan.decoding.speculation.tree import Probabilities
from fullspan.models._llama_config import LlamaConfig

_KIND = "q8"  # a draft that is a little off costs less than reading more bytes
_JOIN = ("enorm.weight", "hnorm.weight", "eh_proj.weight")


def layer_shapes(config: LlamaConfig, number: int, *, joins: bool = True) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a layer's tensors in a drafter's file, by GGUF's names of a model's first layer."""
    d, ff, dim = config.d_model, config.d_ff, config.head_dim
    q, kv = config.n_heads * dim, config.n_kv_heads * dim
    matrices = {"attn_q": (q, d), "attn_k": (kv, d), "attn_v": (kv, d), "attn_output": (d, q)}
    matrices |= {"ffn_gate": (ff, d), "ffn_up": (ff, d), "ffn_down": (d, ff)}
    shapes: dict[str, tuple[int, ...]] = {f"blk.0.{name}.weight": shape for name, shape in matrices.items()}
    shapes |= {"blk.0.attn_norm.weight": (d,), "blk.0.ffn_norm.weight": (d,), "output_norm.weight": (d,)}
    if joins:
        shapes |= dict(zip(_JOIN, ((d,), (d,), (d, 2 * d)), strict=True))
    return {f"layers.{number}.{name}": shape for name, shape in shapes.items()}


def layer_config(config: LlamaConfig, n_tokens: int) -> LlamaConfig:
    """The config of a drafter's layer for a model: one of its own, without biases."""
    return replace(
        config, n_layers=1, vocab_size=n_tokens, tied_head=True, attention_bias=False, mlp_bias=False
    )


class DraftLayer:
    """One layer.

    Parameters
    ----------
    config : LlamaConfig
        Of the target.
    tensors : mapping of str to ndarray of float32
    number : int
        Which of the drafter's layers it is.

    Attributes
    ----------
    engine : Engine
    """

    def __init__(self, config: LlamaConfig, tensors: Mapping[str, Floats], number: int) -> None:
        prefix, head = f"layers.{number}.", tensors["head.weight"]
        own = {n.removeprefix(prefix): value for n, value in tensors.items() if n.startswith(prefix)}
        self._join = [own.pop(name) for name in _JOIN if name in own]
        self._eps = config.rms_norm_eps
        packed = pack_tensors(own | {"token_embd.weight": head}, layer_config(config, len(head)), _KIND)
        self.engine = Engine(packed)

    def join(self, embedded: Floats, hidden: Floats) -> Floats:
        """The layer's input [n, d_model] from embeddings and hidden states, both [n, d_model]."""
        enorm, hnorm, weight = self._join
        both = (rms_norm(embedded, enorm, self._eps), rms_norm(hidden, hnorm, self._eps))
        joined: Floats = np.concatenate(both, axis=-1) @ weight.T
        return joined


class Chooser:
    """Chooses one drafted token after the other, from the distribution that the row's options make of it.

    Parameters
    ----------
    tokens : ndarray of int64 [W]
        The draft vocabulary: all other tokens have q = 0.
    vocab_size : int
    least : float
        A draft ends where its tokens together are less likely than this.
    """

    def __init__(self, tokens: NDArray[np.int64], vocab_size: int, least: float) -> None:
        self._tokens, self._vocab_size, self._least = tokens, vocab_size, least

    def choose(
        self, row: DraftRow, path: list[int], logits: Floats, likelihood: float
    ) -> tuple[int, Probabilities | None, float] | None:
        """The next token of a chain, its q (None: proposed for certain), and the likelihood of the chain.

        Parameters
        ----------
        row : DraftRow
        path : list of int
            What was drafted before.
        logits : ndarray of float32 [W]
        likelihood : float
            Of the path. Whether to go on is decided by it, before the draw: a draw is never thrown away for
            what came out, which would change q.
        """
        if likelihood < self._least or (path and path[-1] in row.end_ids):
            return None
        if row.sampler.options.greedy and row.sampler.constraint is None:
            place = int(logits.argmax())
            likelihood *= 1 / float(np.exp(logits - logits[place]).sum())
            return (int(self._tokens[place]), None, likelihood) if likelihood >= self._least else None
        return self._processed(row, path, logits, likelihood)

    def _processed(
        self, row: DraftRow, path: list[int], logits: Floats, likelihood: float
    ) -> tuple[int, Probabilities | None, float] | None:
        sampler, wide = row.sampler, np.full(self._vocab_size, -np.inf, np.float32)
        wide[self._tokens] = logits
        for token in path:
            sampler.accept(token)
        try:
            if sampler.finished:
                return None
            q = sampler.distribution(wide)
        except DataError:
            return None  # nothing in the draft vocabulary is allowed here
        finally:
            sampler.rollback(len(path))
        if sampler.options.greedy:
            return int(q.argmax()), None, likelihood
        token = draw(q, sampler.generator.random())
        return token, q, likelihood * float(q[token])
