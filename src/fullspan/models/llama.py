"""Llama 1 to 3.2 and what shares the architecture (SmolLM2, TinyLlama, ...).

Shapes: B batch, T tokens, V vocab_size. Parameters are named as in Hugging Face's checkpoints.

References
----------
Touvron et al. 2023, "LLaMA: Open and Efficient Foundation Language Models", section 2.2.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from fullspan.core.errors import CheckpointError, ConfigError, DataError
from fullspan.models._llama_config import LlamaConfig
from fullspan.models._rope import llama3_divisors
from fullspan.nn import masks
from fullspan.nn.attention import Attention, additive_mask
from fullspan.nn.frequencies import Llama3Scaling
from fullspan.nn.kv_cache import KVCache
from fullspan.nn.mlp import SwiGLU
from fullspan.nn.norms import RMSNorm
from fullspan.nn.positions import Rope

__all__ = ["Block", "Config", "Llama", "LlamaConfig", "Model"]


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.self_attn = Attention(
            config.d_model,
            n_heads=config.n_heads,
            n_kv_heads=config.n_kv_heads,
            head_dim=config.head_dim,
            bias=config.attention_bias,
        )
        self.mlp = SwiGLU(config.d_model, config.d_ff, bias=config.mlp_bias)
        self.input_layernorm = RMSNorm(config.d_model, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.d_model, config.rms_norm_eps)

    def forward(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        mask: Tensor | None = None,
        cache: KVCache | None = None,
        layer: int = 0,
    ) -> Tensor:
        """Map `x` [B, T, d_model] to the same shape; see `Attention` for the rest."""
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, mask=mask, cache=cache, layer=layer)
        x = x + self.mlp(self.post_attention_layernorm(x))
        return x


class Trunk(nn.Module):
    """What lies under the output head; the name `model` is Hugging Face's."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.d_model)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm = RMSNorm(config.d_model, config.rms_norm_eps)


class Llama(nn.Module):
    """A decoder-only language model.

    Examples
    --------
    >>> config = LlamaConfig(vocab_size=100, d_model=16, n_layers=1, n_heads=4, n_kv_heads=2, head_dim=4,
    ...                      d_ff=32, max_positions=64)
    >>> Llama(config)(torch.tensor([[1, 2, 3]])).shape
    torch.Size([1, 3, 100])
    """

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Trunk(config)
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.rope = Rope(config.head_dim, config.rope_theta, config.rope_scaling, config.max_positions)
        self.tie_head()

    def tie_head(self) -> None:
        """Make the head the embedding matrix where the config says so; after weights were assigned."""
        if self.config.tied_head:
            self.lm_head.weight = self.model.embed_tokens.weight

    def new_cache(self, capacity: int = 256) -> KVCache:
        """An empty cache for this model."""
        return KVCache(self.config.n_layers, capacity)

    def forward(
        self,
        ids: Tensor,
        *,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
        attention_mask: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Logits [B, T, V] of the token after each of `ids`; arguments as in `hidden`."""
        return self.logits(
            self.hidden(
                ids, positions=positions, segments=segments, attention_mask=attention_mask, cache=cache
            )
        )

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [..., V] of `hidden` [..., d_model]."""
        logits: Tensor = self.lm_head(hidden)
        return logits

    def hidden(
        self,
        ids: Tensor,
        *,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
        attention_mask: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Hidden states after the final norm.

        Parameters
        ----------
        ids : Tensor int64 [B, T]
        positions : Tensor int64 [B, T], optional
            By default they count the tokens of the row (or of the segment) that are no padding.
        segments : Tensor int64 [B, T], optional
            Tokens attend within equal ids only; -1 is padding.
        attention_mask : Tensor [B, T], optional
            1 for tokens, 0 for padding on either side. A cache remembers it for the tokens it holds.
        cache : KVCache, optional
            Holds the tokens before `ids` and takes these. Not together with `segments`.

        Returns
        -------
        Tensor [B, T, d_model]

        Raises
        ------
        DataError
            If an id lies outside the vocabulary or shapes disagree.
        ConfigError
            If the cache does not fit, or arguments exclude each other.
        """
        self._check(ids, positions, segments, attention_mask, cache)
        allowed, default_positions, valid = _visibility(ids, segments, attention_mask, cache)
        x = self.model.embed_tokens(ids)  # [B, T, d_model]
        cos, sin = self.rope.tables(default_positions if positions is None else positions, x.dtype)
        mask = None if allowed is None else additive_mask(allowed, x.dtype)
        n_tokens = ids.shape[1]
        if cache is not None:
            cache.reserve(n_tokens)
        for layer, block in enumerate(self.model.layers):
            x = block(x, cos, sin, mask, cache, layer)
        if cache is not None:
            cache.advance(n_tokens, valid)
        hidden: Tensor = self.model.norm(x)
        return hidden

    def _check(
        self,
        ids: Tensor,
        positions: Tensor | None,
        segments: Tensor | None,
        attention_mask: Tensor | None,
        cache: KVCache | None,
    ) -> None:
        if ids.ndim != 2 or ids.numel() == 0 or ids.dtype not in (torch.int64, torch.int32):
            raise DataError(
                f"ids have shape {tuple(ids.shape)} and type {ids.dtype}, expected integers [batch, tokens]"
            )
        low, high = (int(bound) for bound in ids.aminmax())
        if low < 0 or high >= self.config.vocab_size:
            raise DataError(
                f"token id {low if low < 0 else high} is outside the vocabulary of {self.config.vocab_size}",
                "was the text encoded with another model's tokenizer?",
            )
        given = {"positions": positions, "segments": segments, "attention_mask": attention_mask}
        for name, value in given.items():
            rows = {1, ids.shape[0]} if name == "positions" else {ids.shape[0]}
            if value is not None and (
                value.ndim != 2 or value.shape[0] not in rows or value.shape[1] != ids.shape[1]
            ):
                raise DataError(
                    f"{name} has shape {tuple(value.shape)}, expected that of ids, {tuple(ids.shape)}"
                )
        if segments is not None and (cache is not None or attention_mask is not None):
            raise ConfigError("segments exclude a cache and an attention_mask", "mark padding by segment -1")
        if cache is not None and cache.n_layers != self.config.n_layers:
            raise ConfigError(f"the cache has {cache.n_layers} layers, the model {self.config.n_layers}")
        if cache is not None and cache.batch_size not in (None, ids.shape[0]):
            raise ConfigError(f"the cache holds {cache.batch_size} rows, got a batch of {ids.shape[0]}")


def _visibility(
    ids: Tensor, segments: Tensor | None, attention_mask: Tensor | None, cache: KVCache | None
) -> tuple[Tensor | None, Tensor, Tensor | None]:
    """Which keys each query sees (None: causal), positions [B or 1, T], and valid new tokens or None."""
    n_tokens, past = ids.shape[1], 0 if cache is None else cache.length
    if segments is not None:
        return masks.segment_mask(segments), masks.segment_positions(segments), None
    valid = None if attention_mask is None or bool(attention_mask.all()) else attention_mask.bool()
    everything = valid if cache is None else cache.valid_with(n_tokens, valid)  # [B, past + T]
    if everything is not None:
        positions = (everything.cumsum(1) - 1).clamp_(min=0)[:, past:]
        return masks.padding_mask(everything, n_tokens), positions, valid
    positions = torch.arange(past, past + n_tokens, device=ids.device)[None]
    if past == 0 or n_tokens == 1:
        return None, positions, None
    return masks.causal_mask(n_tokens, past + n_tokens, ids.device)[None, None], positions, None


# Weights in files -------------------------------------------------------------------------------

Named = tuple[str, Tensor]

_GGUF_OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_GGUF_INNER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_TO_GGUF = {ours: theirs for theirs, ours in (_GGUF_OUTER | _GGUF_INNER).items()}


def weights_from_hf(config: LlamaConfig, weights: Iterable[Named]) -> Iterator[Named]:
    """Drop what old or tied checkpoints carry beside the weights.

    Raises
    ------
    CheckpointError
        If the config calls the head tied, and the checkpoint has one that is not the embedding.
    """
    twins: dict[str, Tensor] = {}
    for name, weight in weights:
        if config.tied_head and name in ("model.embed_tokens.weight", "lm_head.weight"):
            twins[name] = weight
        if not name.endswith("rotary_emb.inv_freq") and not (config.tied_head and name == "lm_head.weight"):
            yield name, weight
    if len(twins) == 2 and not torch.equal(*twins.values()):
        raise CheckpointError(
            "lm_head.weight differs from model.embed_tokens.weight, but tie_word_embeddings is true",
            "set tie_word_embeddings to false in config.json if the head is meant to be its own",
        )


def weights_from_gguf(config: LlamaConfig, weights: Iterable[Named]) -> Iterator[Named]:
    """Rename the tensors of a GGUF file and undo its order of query and key rows.

    A name that is not known here is passed on, for the loader to report.
    """
    for name, weight in weights:
        if name == "rope_freqs.weight":
            continue
        ours = name_from_gguf(name)
        if heads := _rotated_heads(ours, config):
            weight = _half_split(weight, heads)
        yield ours, weight


def weights_to_gguf(config: LlamaConfig, weights: Iterable[Named]) -> Iterator[Named]:
    """The inverse of `weights_from_gguf`, with Llama 3's scaling as the tensor that GGUF wants."""
    for name, weight in weights:
        if config.tied_head and name == "lm_head.weight":
            continue
        if heads := _rotated_heads(name, config):
            weight = _interleaved(weight, heads)
        yield _name_to_gguf(name), weight
    if isinstance(config.rope_scaling, Llama3Scaling):
        divisors = llama3_divisors(config.rope_scaling, config.rope_theta, config.head_dim)
        yield "rope_freqs.weight", torch.from_numpy(divisors)


def name_from_gguf(name: str) -> str:
    """Our name of a GGUF tensor; an unknown name comes back as it is.

    Examples
    --------
    >>> name_from_gguf("blk.3.attn_q.weight")
    'model.layers.3.self_attn.q_proj.weight'
    """
    if match := re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", name):
        layer, part, kind = match.groups()
        return f"model.layers.{layer}.{_GGUF_INNER[part]}.{kind}" if part in _GGUF_INNER else name
    part, _, kind = name.rpartition(".")
    return f"{_GGUF_OUTER[part]}.{kind}" if part in _GGUF_OUTER else name


def _name_to_gguf(name: str) -> str:
    part, _, kind = name.rpartition(".")
    if match := re.fullmatch(r"model\.layers\.(\d+)\.(.+)", part):
        return f"blk.{match[1]}.{_TO_GGUF[match[2]]}.{kind}"
    return f"{_TO_GGUF[part]}.{kind}"


def _rotated_heads(name: str, config: LlamaConfig) -> int:
    """Heads of a projection whose rows GGUF reorders, else 0."""
    if "self_attn.q_proj" in name:
        return config.n_heads
    return config.n_kv_heads if "self_attn.k_proj" in name else 0


def _half_split(weight: Tensor, heads: int) -> Tensor:
    # GGUF rotates neighbouring rows (2i, 2i + 1) of a head, Hugging Face rows (i, i + D/2).
    return weight.view(heads, -1, 2, *weight.shape[1:]).transpose(1, 2).reshape(weight.shape)


def _interleaved(weight: Tensor, heads: int) -> Tensor:
    return weight.view(heads, 2, -1, *weight.shape[1:]).transpose(1, 2).reshape(weight.shape)


Config, Model = LlamaConfig, Llama  # the names under which `loading` finds an architecture
