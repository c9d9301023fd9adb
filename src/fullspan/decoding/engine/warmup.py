"""Compiles the engine's kernels, once a machine."""

from __future__ import annotations

from fullspan.decoding.engine.engine import Engine
from fullspan.decoding.engine.loading import pack_model
from fullspan.models.llama import Llama, LlamaConfig

_TINY = LlamaConfig(
    vocab_size=16, d_model=32, n_layers=1, n_heads=1, n_kv_heads=1, head_dim=32, d_ff=32, max_positions=64
)


def warm_up_engine() -> None:
    """Take a step with integers and one with floats, and keep a path of a tree."""
    model = Llama(_TINY)
    for weights in ("q8", "f32"):
        engine = Engine(pack_model(model, weights), n_threads=1)
        cache = engine.new_cache()
        engine.step([1, 2], cache, [-1, -1])
        cache.keep([1])
