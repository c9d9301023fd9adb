"""Sizes and constants of a Llama, and how Hugging Face and GGUF spell them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fullspan.core.errors import CheckpointError
from fullspan.models import _rope
from fullspan.nn.frequencies import RopeScaling

_HF_SIZES = {
    "vocab_size": "vocab_size",
    "d_model": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "d_ff": "intermediate_size",
    "max_positions": "max_position_embeddings",
}
_GGUF_SIZES = {
    "d_model": "embedding_length",
    "n_layers": "block_count",
    "n_heads": "attention.head_count",
    "d_ff": "feed_forward_length",
    "max_positions": "context_length",
}
_GGUF_EPS = "attention.layer_norm_rms_epsilon"

_HF_UNSUPPORTED = (
    "sliding_window",
    "use_sliding_window",
    "qk_norm",
    "use_qk_norm",
    "num_local_experts",
    "num_experts",
    "quantization_config",
    "no_rope_layers",
    "logits_scaling",
    "logit_scale",
    "residual_multiplier",
    "embedding_multiplier",
    "attention_multiplier",
    "final_logit_softcapping",
    "attn_logit_softcapping",
)
# Read elsewhere, or without effect on the numbers. Any other key that says something is refused.
_GGUF_OTHERS = (
    "vocab_size",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "tensor_data_layout",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scale_linear",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.attn_factor",
    "rope.scaling.original_context_length",
    "rope.scaling.finetuned",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
)


@dataclass(frozen=True)
class LlamaConfig:
    """Sizes and constants of a Llama.

    Attributes
    ----------
    max_positions : int
        Context length that the model was made for; the model itself runs beyond it, with poor results.
    tied_head : bool
        Whether the output head is the embedding matrix.

    Examples
    --------
    >>> config = LlamaConfig(vocab_size=100, d_model=16, n_layers=1, n_heads=4, n_kv_heads=2, head_dim=4,
    ...                      d_ff=32, max_positions=64)
    >>> LlamaConfig.from_hf(config.to_hf()) == config
    True
    """

    vocab_size: int
    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    d_ff: int
    max_positions: int
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    tied_head: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False

    def __post_init__(self) -> None:
        sizes = "vocab_size d_model n_layers n_heads n_kv_heads head_dim d_ff max_positions".split()
        for name in sizes:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise CheckpointError(f"{name} is {value!r}, expected a positive integer")
        if self.n_heads % self.n_kv_heads:
            raise CheckpointError(f"n_heads {self.n_heads} is not a multiple of n_kv_heads {self.n_kv_heads}")
        if self.head_dim % 2:
            raise CheckpointError(
                f"head_dim is {self.head_dim}, expected an even number for rotary positions"
            )

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> LlamaConfig:
        """Read the content of a Hugging Face config.json.

        Raises
        ------
        CheckpointError
            If a size is missing or the config asks for something that is not supported here.
        """
        _refuse_hf(config)
        values = {ours: _required(config, theirs) for ours, theirs in _HF_SIZES.items()}
        theta, scaling = _rope.rope_from_hf(config, values["max_positions"])
        return cls(
            **values,
            n_kv_heads=config.get("num_key_value_heads") or values["n_heads"],
            head_dim=config.get("head_dim") or values["d_model"] // values["n_heads"],
            rms_norm_eps=float(config.get("rms_norm_eps", 1e-6)),
            rope_theta=theta,
            rope_scaling=scaling,
            tied_head=bool(config.get("tie_word_embeddings", False)),
            attention_bias=bool(config.get("attention_bias", False)),
            mlp_bias=bool(config.get("mlp_bias", False)),
        )

    def to_hf(self) -> dict[str, Any]:
        """Content of a config.json that transformers reads, version 4 or 5."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            **{theirs: getattr(self, ours) for ours, theirs in _HF_SIZES.items()},
            "num_key_value_heads": self.n_kv_heads,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "rms_norm_eps": self.rms_norm_eps,
            "tie_word_embeddings": self.tied_head,
            "attention_bias": self.attention_bias,
            "mlp_bias": self.mlp_bias,
            **_rope.rope_to_hf(self.rope_theta, self.rope_scaling),
        }

    @classmethod
    def from_gguf(
        cls,
        metadata: Mapping[str, Any],
        shapes: Mapping[str, tuple[int, ...]],
        rope_divisors: np.ndarray | None = None,
    ) -> LlamaConfig:
        """Read GGUF metadata; `shapes` of the tensors (rows first) tell what metadata leaves out.

        Raises
        ------
        CheckpointError
            If a key is missing or one asks for something that is not supported here.
        """
        _refuse_gguf(metadata)
        embedding = shapes.get("token_embd.weight", ())
        if len(embedding) != 2:
            raise CheckpointError(f"token_embd.weight has shape {embedding}, expected (vocab_size, d_model)")
        values = {ours: _required(metadata, f"llama.{theirs}") for ours, theirs in _GGUF_SIZES.items()}
        head_dim = metadata.get("llama.rope.dimension_count") or values["d_model"] // values["n_heads"]
        theta = _rope.decimal(metadata.get("llama.rope.freq_base") or 10000.0)
        return cls(
            **values,
            vocab_size=int(embedding[0]),
            n_kv_heads=metadata.get("llama.attention.head_count_kv") or values["n_heads"],
            head_dim=head_dim,
            rms_norm_eps=_rope.decimal(_required(metadata, f"llama.{_GGUF_EPS}")),
            rope_theta=theta,
            rope_scaling=_rope.scaling_from_gguf(
                metadata,
                "llama",
                theta=theta,
                head_dim=head_dim,
                max_positions=values["max_positions"],
                divisors=rope_divisors,
            ),
            tied_head="output.weight" not in shapes,
            attention_bias="blk.0.attn_q.bias" in shapes,
            mlp_bias="blk.0.ffn_up.bias" in shapes,
        )

    def to_gguf(self) -> dict[str, Any]:
        """GGUF metadata of the architecture; tokenizer and general keys are not part of it."""
        return {
            "general.architecture": "llama",
            **{f"llama.{theirs}": getattr(self, ours) for ours, theirs in _GGUF_SIZES.items()},
            "llama.vocab_size": self.vocab_size,
            "llama.attention.head_count_kv": self.n_kv_heads,
            "llama.attention.key_length": self.head_dim,
            "llama.attention.value_length": self.head_dim,
            "llama.rope.dimension_count": self.head_dim,
            "llama.rope.freq_base": self.rope_theta,
            f"llama.{_GGUF_EPS}": self.rms_norm_eps,
            **_rope.scaling_to_gguf(self.rope_scaling, "llama"),
        }


def _required(values: Mapping[str, Any], key: str) -> Any:
    if values.get(key) is None:
        raise CheckpointError(f"the model's config lacks {key!r}")
    return values[key]


def _refuse_hf(config: Mapping[str, Any]) -> None:
    """Raise for what would change the numbers and is not implemented."""
    if config.get("hidden_act", "silu") not in ("silu", "swish"):
        raise CheckpointError(f"hidden_act {config['hidden_act']!r} is not supported", "supported: silu")
    for key in _HF_UNSUPPORTED:
        if config.get(key):
            raise CheckpointError(f"the config sets {key} to {config[key]!r}, which is not supported")


def _refuse_gguf(metadata: Mapping[str, Any]) -> None:
    known = {f"llama.{name}" for name in (*_GGUF_SIZES.values(), *_GGUF_OTHERS, _GGUF_EPS)}
    for key, value in metadata.items():
        if key.startswith("llama.") and key not in known and bool(np.any(value)):
            raise CheckpointError(f"the file sets {key} to {value!r}, which is not supported")
    head_dim = metadata.get("llama.rope.dimension_count")
    for key in ("llama.attention.key_length", "llama.attention.value_length"):
        if metadata.get(key, head_dim) != head_dim:
            raise CheckpointError(
                f"{key} is {metadata[key]}, but llama.rope.dimension_count {head_dim}, expected the same"
            )


Config = LlamaConfig  # the name under which `formats` finds it
