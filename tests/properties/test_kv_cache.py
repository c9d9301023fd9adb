"""The cache against a plain tensor, under any order of operations."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fullspan.nn.kv_cache import KVCache

steps = st.one_of(
    st.tuples(st.just("write"), st.integers(1, 7)),
    st.tuples(st.just("write padded"), st.integers(1, 7)),
    st.tuples(st.just("trim"), st.floats(0, 1)),
    st.tuples(st.just("select"), st.lists(st.integers(0, 10), min_size=1, max_size=4)),
)


@given(st.lists(steps, min_size=1, max_size=15), st.integers(1, 9))
@settings(max_examples=150, deadline=None)
def test_cache_holds_what_was_written(operations: list[tuple[str, object]], capacity: int) -> None:
    generator = torch.Generator().manual_seed(0)
    cache = KVCache(n_layers=2, capacity=capacity)
    plain = torch.empty(2, 2, 3, 2, 0, 4)  # keys and values, layer, B, H, S, D
    valid = torch.empty(3, 0, dtype=torch.bool)
    for name, argument in operations:
        if name.startswith("write"):
            new = torch.randn(2, 2, plain.shape[2], 2, int(argument), 4, generator=generator)
            mask = torch.ones(plain.shape[2], int(argument), dtype=torch.bool)
            if name == "write padded":
                mask = torch.rand(mask.shape, generator=generator) < 0.5
            plain, valid = torch.cat((plain, new), dim=4), torch.cat((valid, mask), dim=1)
            cache.reserve(int(argument))
            for layer in range(2):
                keys, values = cache.write(layer, new[0, layer], new[1, layer])
                assert torch.equal(keys, plain[0, layer]) and torch.equal(values, plain[1, layer])
            cache.advance(int(argument), mask if name == "write padded" else None)
        elif name == "trim":
            n_tokens = int(argument * cache.length)
            cache.trim(n_tokens)
            plain, valid = plain[..., : plain.shape[4] - n_tokens, :], valid[:, : valid.shape[1] - n_tokens]
        elif cache.batch_size is not None:
            rows = torch.tensor([row % plain.shape[2] for row in argument])
            cache.select(rows)
            plain, valid = plain[:, :, rows], valid[rows]
        assert cache.length == plain.shape[4] <= cache.capacity
        assert torch.equal(cache.valid, valid) if cache.valid is not None else bool(valid.all())
