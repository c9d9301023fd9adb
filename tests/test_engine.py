"""The CPU engine against torch and against itself: every way to cut the same work gives the same bits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf.constants import GGMLQuantizationType
from numpy.typing import NDArray

import fullspan
from fullspan.adapters.lora import LoRAConfig, add_lora, lora_parameters
from fullspan.adapters.peft_format import save_adapter
from fullspan.checkpoints.gguf_file import GGUFFile, write_gguf
from fullspan.core.errors import CheckpointError, ConfigError, DataError
from fullspan.core.kernels import kernel
from fullspan.core.simd import address, load_float32
from fullspan.core.simd_tiles import may_use_tiles
from fullspan.decoding.engine import _layout as at
from fullspan.decoding.engine import loading
from fullspan.decoding.engine._product_kernels import (
    multiply_floats,
    multiply_integers,
    put_floats,
    put_integers,
)
from fullspan.decoding.engine.decoder import EngineDecoder
from fullspan.decoding.engine.engine import Engine, Segment, Taps
from fullspan.decoding.engine.loading import load_packed, pack_model
from fullspan.decoding.engine.memory import allocate
from fullspan.decoding.engine.model import pack_gguf
from fullspan.decoding.engine.packed_file import Origin, read_packed, write_packed
from fullspan.decoding.engine.packing import (
    KINDS,
    floats_of,
    packed_bytes,
    quantise,
    rows_from_gguf,
)
from fullspan.decoding.scoring import score_tokens
from fullspan.decoding.torch_decoder import TorchDecoder
from fullspan.models.formats import gguf_config
from fullspan.models.llama import Llama, LlamaConfig, weights_to_gguf
from fullspan.models.loading import load_model, save_model
from fullspan.nn.frequencies import DynamicScaling, LinearScaling, Llama3Scaling, YarnScaling

# No size is a whole number of vectors, groups, pages or tiles.
SIZES: dict[str, Any] = dict(
    vocab_size=103,
    d_model=48,
    n_layers=2,
    n_heads=6,
    n_kv_heads=2,
    head_dim=8,
    d_ff=72,
    max_positions=1300,
    tied_head=True,
)


def tiny(seed: int = 0, **changes: Any) -> Llama:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Llama(LlamaConfig(**(SIZES | changes))).eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.15)
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return model


def as_packed(model: Llama, weights: str) -> Llama:
    """A copy of a torch model whose matrices have the values that packing leaves them."""
    copy = Llama(model.config).eval()
    named = dict(weights_to_gguf(model.config, model.state_dict().items()))
    outer = ("token_embd.weight", "output.weight")
    state = model.state_dict()
    from fullspan.models.llama import weights_from_gguf

    for name, tensor in named.items():
        if tensor.ndim == 2:
            kind = "q8" if weights == "q4" and name in outer else weights
            columns = np.arange(tensor.shape[1])
            if "attn_output" in name:  # heads are padded to 32 columns, which are a group
                d = model.config.head_dim
                columns = columns // d * (-(-d // 32) * 32) + columns % d
            spread = np.zeros((len(tensor), columns[-1] + 1), np.float32)
            spread[:, columns] = tensor.numpy()
            values = floats_of(quantise(spread, KINDS[kind]))
            named[name] = torch.from_numpy(values[:, columns].copy())
    state |= dict(weights_from_gguf(model.config, named.items()))
    if model.config.tied_head:
        del state["lm_head.weight"]
    copy.load_state_dict(state, strict=False)
    return copy


def as_cached(x: torch.Tensor) -> torch.Tensor:
    """Numbers [..., D] as the engine's cache keeps them: int8, with a scale for 16 dimensions."""
    groups = torch.nn.functional.pad(x, (0, -x.shape[-1] % 16)).unflatten(-1, (-1, 16))
    most = groups.abs().amax(-1, keepdim=True).clamp(min=1e-30)
    return ((groups * (127 / most)).round() * (most / 127)).flatten(-2)[..., : x.shape[-1]]


def keys_as_cached(x: torch.Tensor) -> torch.Tensor:
    """The engine turns neighbouring dimensions, torch those of two halves."""
    neighbours = as_cached(x.unflatten(-1, (2, -1)).transpose(-1, -2).flatten(-2))
    return neighbours.unflatten(-1, (-1, 2)).transpose(-1, -2).flatten(-2)


@torch.inference_mode()
def torch_logits(model: Llama, ids: list[int]) -> NDArray[np.float32]:
    attend = torch.nn.functional.scaled_dot_product_attention
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            torch.nn.functional,
            "scaled_dot_product_attention",
            lambda q, k, v, **options: attend(q, keys_as_cached(k), as_cached(v), **options),
        )
        found: NDArray[np.float32] = model(torch.tensor([ids]))[0].numpy()
    return found


def tokens(n: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(0, SIZES["vocab_size"], n).tolist()


@pytest.fixture(scope="module")
def model() -> Llama:
    return tiny()


@pytest.fixture(scope="module", params=["q4", "f32"])
def engine(request: pytest.FixtureRequest, model: Llama) -> Engine:
    """One of each kernel; q4 has matrices of both integer kinds."""
    return Engine(pack_model(model, request.param), 2)


# Packing and products ---------------------------------------------------------------------------------


@kernel()
def multiply(kind: int, weights: Any, x: Any, n_groups: int, activations: Any, out: Any) -> None:
    """out [n_blocks, n, 16] of x [n, 32 G]."""
    n, record = len(x), at.INTEGER_RECORD if kind < at.BF16 else at.FLOAT_RECORD
    tile_bytes = record * n_groups
    for token in range(n):
        for g in range(n_groups):
            to = address(activations) + token // 8 * tile_bytes + record * g
            from_ = address(x) + 4 * (32 * n_groups * token + 32 * g)
            low, high = load_float32(from_), load_float32(from_ + 64)
            if kind < at.BF16:
                put_integers(low, high, to, token % 8)
            else:
                put_floats(low, high, to, token % 8)
    for block in range(len(out)):
        w, to = address(weights) + len(weights) // len(out) * block, address(out[block])
        if kind < at.BF16:
            multiply_integers(kind, w, address(activations), tile_bytes, n_groups, n, to)
        else:
            multiply_floats(kind, w, address(activations), tile_bytes, n_groups, n, to)


@pytest.mark.parametrize("weights", list(KINDS))
def test_products_are_numpys(weights: str) -> None:
    """The same int8 activations and weights in float64; what is left is float32's rounding of sums."""
    kind, rng = KINDS[weights], np.random.default_rng(0)
    matrix = rng.normal(size=(37, 90)).astype(np.float32)
    rows = quantise(matrix, kind)
    packed = allocate(packed_bytes(kind, 37, 3))
    rows.pack(packed)
    dense = floats_of(rows).astype(float)
    for n in (1, 2, 3, 5, 8, 13, 64):
        x = np.zeros((n, 96), np.float32)
        x[:, :90] = rng.normal(size=(n, 90)) * np.exp(rng.normal(size=(n, 1)))
        room, out = allocate(8 * 3 * 1024), np.zeros((3, 64, 16), np.float32)
        multiply(kind, packed, x, 3, room, out)
        seen = x.astype(float)
        if kind < at.BF16:
            groups = x.reshape(n, 3, 32)
            most = np.abs(groups).max(-1, keepdims=True)
            numbers = np.rint(groups * (np.float32(127) / most))
            seen = (numbers * (most / np.float32(127)).astype(float)).reshape(n, 96)
        found = out[:, :n].transpose(1, 0, 2).reshape(n, 48)[:, :37]
        np.testing.assert_allclose(found, seen @ dense.T, rtol=1e-5, atol=2e-4)


def test_quantised_weights_are_near() -> None:
    matrix = np.random.default_rng(1).normal(size=(20, 64)).astype(np.float32)
    groups = matrix.reshape(20, 2, 32)
    for weights, steps in (("q8", 254), ("q4", 15)):
        found = floats_of(quantise(matrix, KINDS[weights])).reshape(groups.shape)
        width = 2 * np.abs(groups).max(-1) if weights == "q8" else groups.max(-1) - groups.min(-1)
        # Half a step, and the rounding of scale and minimum to float16.
        assert (np.abs(found - groups).max(-1) < width / steps * 0.52 + 2e-3).all()
    np.testing.assert_array_equal(floats_of(quantise(matrix, KINDS["f32"])), matrix)
    expected = torch.from_numpy(matrix).bfloat16().float().numpy()
    np.testing.assert_array_equal(floats_of(quantise(matrix, KINDS["bf16"])), expected)


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q8_0", "Q4_K"])
def test_blocks_of_gguf_are_taken_as_they_are(name: str, tmp_path: Path) -> None:
    type_ = GGMLQuantizationType[name]
    weight = np.random.default_rng(2).normal(size=(3, 512)).astype(np.float32)
    path = tmp_path / "tiny.gguf"
    if name == "Q4_K":  # gguf reads it and does not write it: any bytes with moderate scales will do
        blocks = np.random.default_rng(3).integers(0, 256, (3, 2, 144)).astype(np.uint8)
        blocks[:, :, :4] = np.full(2, 0.01, np.float16).view(np.uint8)
        tensor = _raw_tensor(tmp_path, blocks.reshape(3, -1))
        file = tensor
    else:
        write_gguf(path, {"general.architecture": "llama"}, {"w": weight}, type_)
        file = GGUFFile(path)
    rows = rows_from_gguf(file.tensors["w"])
    assert rows is not None
    # Q4_K's products of two scales, here up to 0.63 and times 15, are rounded to float16.
    np.testing.assert_allclose(
        floats_of(rows), file.dequantize("w"), rtol=1e-6, atol=6e-3 if name == "Q4_K" else 0
    )


def _raw_tensor(folder: Path, blocks: NDArray[np.uint8]) -> GGUFFile:
    from gguf import GGUFWriter

    writer = GGUFWriter(folder / "raw.gguf", "llama")
    writer.add_tensor("w", blocks, raw_dtype=GGMLQuantizationType.Q4_K)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return GGUFFile(folder / "raw.gguf")


# Against torch ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", list(KINDS))
def test_logits_are_torchs(model: Llama, weights: str) -> None:
    """Of the same weights and the same cache: what differs is int8 activations, or order of sums alone."""
    ids = tokens(90)
    expected = torch_logits(as_packed(model, weights), ids)
    engine = Engine(pack_model(model, weights), 2)
    found = engine.step(ids, engine.new_cache())
    error, size = np.abs(found - expected).mean(), np.abs(expected).mean()
    assert error < size * (4e-2 if weights in ("q4", "q8") else 2e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"tied_head": False, "attention_bias": True, "mlp_bias": True},
        {"n_heads": 4, "n_kv_heads": 4, "head_dim": 40, "rope_scaling": LinearScaling(2.0)},
        {"n_heads": 11, "n_kv_heads": 1, "head_dim": 32, "rope_scaling": Llama3Scaling(8.0, 64)},
        {"rope_scaling": YarnScaling(4.0, 325), "rms_norm_eps": 1e-2, "rope_theta": 500.0},
        {"rope_scaling": DynamicScaling(2.0), "vocab_size": 112, "d_model": 64, "d_ff": 32},
    ],
)
def test_every_option_of_the_config(changes: dict[str, Any]) -> None:
    model = tiny(3, **changes)
    ids = tokens(70)
    engine = Engine(pack_model(model, "f32"), 2)
    expected = torch_logits(model, ids)
    found = engine.step(ids, engine.new_cache())
    assert np.abs(found - expected).mean() < 2e-4 * np.abs(expected).mean()  # ties of cells fall either way


def test_a_long_context(model: Llama) -> None:
    """Beyond 8 pages, where several pages make up a span, to the last position."""
    ids = tokens(SIZES["max_positions"])
    engine = Engine(pack_model(model, "f32"), 2)
    found = engine.step(ids, engine.new_cache())
    expected = torch_logits(model, ids)
    assert np.abs(found - expected).mean() < 2e-4 * np.abs(expected).mean()  # ties of cells fall either way


# The same bits however the work is cut ----------------------------------------------------------------


def test_steps_of_any_sizes_and_threads(engine: Engine, model: Llama) -> None:
    ids = tokens(600)
    whole = engine.step(ids, engine.new_cache())
    rng = np.random.default_rng(5)
    weights = "q4" if engine._model.is_integer else "f32"
    others = [Engine(pack_model(model, weights), n) for n in (1, 3)]
    for other in (engine, *others):
        cache, found = other.new_cache(), []
        while cache.length < len(ids):
            n = int(rng.choice([1, 2, 3, 5, 7, 8, 20, 64, 100]))
            found.append(other.step(ids[cache.length : cache.length + n], cache))
        np.testing.assert_array_equal(np.concatenate(found), whole)
    last = engine.step(ids, engine.new_cache(), n_logits=70)
    np.testing.assert_array_equal(last, whole[-70:])


def test_sequences_beside_each_other(engine: Engine) -> None:
    prompts = [tokens(n, n) for n in (1, 30, 64, 65, 200, 3)]
    alone = [engine.step(ids, engine.new_cache()) for ids in prompts]
    caches = [engine.new_cache() for _ in prompts]
    together = engine.step_all([Segment(c, ids) for c, ids in zip(caches, prompts, strict=True)])
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)
    following = engine.step_all([Segment(cache, [9]) for cache in caches])
    for ids, row in zip(prompts, following, strict=True):
        np.testing.assert_array_equal(engine.step([*ids, 9], engine.new_cache())[-1:], row)


@pytest.mark.parametrize("n_before", [0, 5, 60, 520])
def test_a_tree_equals_its_paths(engine: Engine, n_before: int) -> None:
    """Prefixes that end before, at and behind the border of a page; a tree with branches of all depths."""
    rng = np.random.default_rng(n_before)
    before, tree = tokens(n_before, 1), tokens(40, 2)
    parents = [-1, 0, 1, 2, *(int(rng.integers(-1, i)) for i in range(4, 40))]
    cache = engine.new_cache()
    if before:
        engine.step(before, cache)
    found = engine.step(tree, cache, parents)
    assert cache.length == n_before

    def path_of(i: int) -> list[int]:
        return [*path_of(parents[i]), i] if i >= 0 else []

    for i in range(40):
        path = path_of(i)
        fresh = engine.new_cache()
        expected = engine.step([*before, *(tree[j] for j in path)], fresh)
        np.testing.assert_array_equal(found[i], expected[-1])
    deepest = max((path_of(i) for i in range(40)), key=len)
    cache.keep(deepest)
    assert cache.length == n_before + len(deepest)
    fresh = engine.new_cache()
    engine.step([*before, *(tree[j] for j in deepest)], fresh)
    np.testing.assert_array_equal(engine.step([7, 8], cache), engine.step([7, 8], fresh))


@pytest.mark.parametrize("weights", ["f32", "q8"])
def test_hidden_states_vectors_and_growing_trees(weights: str) -> None:
    """Drafters look at the residual stream, feed layers with vectors, and let a tree grow step by step."""
    model, ids = tiny(), tokens(70)
    engine = Engine(pack_model(model, weights), n_threads=2)
    taps, cut, cache = Taps((1, 0)), Taps((1, 0)), engine.new_cache()
    logits = engine.step_all([Segment(cache, ids, taps=taps)])[0]
    found = taps.take()
    other = engine.new_cache()
    for start, end in ((0, 1), (1, 40), (40, 70)):
        engine.step_all([Segment(other, ids[start:end], taps=cut), Segment(engine.new_cache(), [5])])
    assert (cut.take() == found).all()
    streams: list[torch.Tensor] = []
    reference = as_packed(model, weights)
    for block in reference.model.layers:
        block.register_forward_hook(lambda _module, _inputs, output: streams.append(output))
    torch_logits(reference, ids)
    expected = torch.stack(streams[::-1], dim=2)[0].numpy()
    # Keys and values are kept in float16; eight-bit activations cost about half a percent each.
    assert abs(found - expected).max() < (2e-3 if weights == "f32" else 0.06) * abs(expected).max()

    embedded = reference.model.embed_tokens(torch.tensor(ids)).detach().numpy()
    given = engine.step_all([Segment(engine.new_cache(), [0] * 70, vectors=embedded)])[0]
    assert (given == logits).all()
    assert (engine.step(ids, engine.new_cache()) == logits).all()  # and embeddings again

    tree, parents = [3, 4, 5, 6, 7, 8], [-1, 0, 0, 1, 2, 3]
    whole = engine.step(tree, other, parents)
    parts = [
        engine.step_all([Segment(cache, tree[:end], parents[:end], n_read=begin)])[0]
        for begin, end in ((0, 1), (1, 3), (3, 6))
    ]
    assert (np.concatenate(parts) == whole).all()
    for each in (cache, other):
        each.keep([0, 1, 3])
    assert (engine.step([9], cache) == engine.step([9], other)).all()
    with pytest.raises(ConfigError, match="2 tokens of the tree were read before, but the cache was given 0"):
        engine.step_all([Segment(cache, [1, 2, 3], [-1, 0, 0], n_read=2)])


def test_rollback_and_copies(engine: Engine) -> None:
    ids = tokens(150)
    cache = engine.new_cache()
    engine.step(ids, cache)
    other = cache.copy()
    cache.truncate(70)
    again, fork = engine.step([1, 2, 3], cache), engine.step([4, 5], other)
    fresh = engine.new_cache()
    np.testing.assert_array_equal(again, engine.step([*ids[:70], 1, 2, 3], fresh)[-3:])
    fresh = engine.new_cache()
    np.testing.assert_array_equal(fork, engine.step([*ids, 4, 5], fresh)[-2:])


def test_a_batch_goes_on_from_the_last(engine: Engine, model: Llama) -> None:
    decoder = EngineDecoder(engine, lambda: model)
    prompts = [tokens(50, 1), tokens(20, 2), tokens(50, 1)]
    batch = decoder.begin(prompts, 10)
    ids = [list(prompt) for prompt in prompts]
    caches = [engine.new_cache() for _ in prompts]
    expected = [engine.read(prompt, cache)[-1] for prompt, cache in zip(prompts, caches, strict=True)]
    for step in range(5):
        np.testing.assert_array_equal(batch.logits, expected)
        appended = [step + place for place in range(len(ids))]
        batch.append(appended)
        ids = [[*row, token] for row, token in zip(ids, appended, strict=True)]
        expected = [engine.step([token], cache)[-1] for token, cache in zip(appended, caches, strict=True)]
        if step == 2:
            batch.keep([2, 0])
            ids, caches, expected = ([each[2], each[0]] for each in (ids, caches, expected))
    # A prompt that begins as the last one is read from where it differs.
    again = decoder.begin([[*ids[0][:52], 3, 4]], 10)
    assert again.caches[0].addresses[0] == batch.caches[0].addresses[0] or len(ids[0]) < 64
    caches[0].truncate(50)  # the last batch began with the row that now is the second
    np.testing.assert_array_equal(again.logits[0], engine.read([*ids[0][50:52], 3, 4], caches[0])[-1])
    np.testing.assert_array_equal(
        np.concatenate(list(decoder.read(ids[0]))), engine.read(ids[0], engine.new_cache())
    )


# Prompts, which tiles of bfloat16 read where the CPU has them -----------------------------------------

tiles = pytest.mark.skipif(not may_use_tiles(), reason="this CPU has no AMX")


@tiles
@pytest.mark.parametrize("weights", ["q4", "q8", "bf16"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tied_head": False, "attention_bias": True, "mlp_bias": True, "vocab_size": 112, "n_heads": 2},
        {"n_heads": 11, "n_kv_heads": 1, "head_dim": 40, "rope_scaling": Llama3Scaling(8.0, 64)},
    ],
)
def test_prompts_are_read_as_exactly_as_bfloat16_can(weights: str, changes: dict[str, Any]) -> None:
    """Of the same weights. Bfloat16 rounds weights, activations, queries and weights of attention by 2^-9.

    That changes what int8 cells hold. 600 tokens are two chunks and three blocks.
    """
    model = tiny(5, **changes)
    ids = tokens(600)
    expected = torch_logits(as_packed(model, weights), ids)
    engine = Engine(pack_model(model, weights), 2)
    found = engine.read(ids, engine.new_cache())
    assert not np.array_equal(found, engine.step(ids, engine.new_cache()))
    assert np.abs(found - expected).mean() < 2.5e-2 * np.abs(expected).mean()
    # Every row, near the beginning and behind borders of tiles, pages, blocks and chunks.
    assert (np.abs(found - expected).mean(1) < 8e-2 * np.abs(expected).mean(1)).all()


def test_prompts_have_the_same_bits_however_they_are_cut(model: Llama) -> None:
    ids, engine = tokens(600), Engine(pack_model(model, "q4"), 2)
    whole = engine.read(ids, engine.new_cache())
    rng = np.random.default_rng(6)
    for other in (engine, Engine(pack_model(model, "q4"), 1), Engine(pack_model(model, "q4"), 3)):
        cache, found = other.new_cache(), []
        while cache.length < len(ids):
            n = int(rng.choice([1, 15, 16, 17, 40, 64, 100, 300]))
            found.append(other.read(ids[cache.length : cache.length + n], cache))
        np.testing.assert_array_equal(np.concatenate(found), whole)
    np.testing.assert_array_equal(engine.read(ids, engine.new_cache(), n_logits=70), whole[-70:])


def test_prompts_beside_each_other_and_beside_steps(model: Llama) -> None:
    engine = Engine(pack_model(model, "q4"), 2)
    prompts = [tokens(n, n) for n in (1, 30, 64, 65, 700, 3)]
    caches = [engine.new_cache() for _ in prompts]
    alone = [engine.read(ids, cache) for ids, cache in zip(prompts, caches, strict=True)]
    steps = [engine.step([9], cache) for cache in caches]
    caches = [engine.new_cache() for _ in prompts]
    stepping = engine.new_cache()
    expected = engine.step(tokens(20), engine.new_cache())
    found = engine.step_all(
        [
            *(Segment(cache, ids, is_prompt=True) for cache, ids in zip(caches, prompts, strict=True)),
            Segment(stepping, tokens(20)),
        ]
    )
    for one, other in zip([*alone, expected], found, strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(steps, engine.step_all([Segment(c, [9]) for c in caches]), strict=True):
        np.testing.assert_array_equal(one, other)


def test_prompts_are_read_by_steps_without_tiles(model: Llama, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fullspan.decoding.engine.engine.may_use_tiles", lambda: False)
    engine, ids = Engine(pack_model(model, "q4"), 2), tokens(100)
    np.testing.assert_array_equal(engine.read(ids, engine.new_cache()), engine.step(ids, engine.new_cache()))


@pytest.mark.parametrize("part", ["q_proj", "k_proj", "v_proj"])
def test_nan_in_a_prompt_is_not_hidden(part: str) -> None:
    broken = tiny()
    with torch.no_grad():
        broken.get_parameter(f"model.layers.0.self_attn.{part}.weight").view(-1)[5] = torch.nan
    engine = Engine(pack_model(broken, "q4"), 1)
    assert np.isnan(engine.read(tokens(300), engine.new_cache())[-1]).all()


NARROW = """
import importlib.util, numba, numpy as np
numba.config.CPU_NAME, numba.config.CPU_FEATURES = {cpu!r}, ''
import fullspan.core.device as device
device.cpu_features = lambda: {features!r}
from fullspan.core import simd_products
assert simd_products.DOT_BYTES == {way!r}
spec = importlib.util.spec_from_file_location('narrow', {file!r})
tests = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tests)
model = tests.tiny()
tests.test_steps_of_any_sizes_and_threads(tests.Engine(tests.pack_model(model, 'q4'), 2), model)
tests.test_logits_are_torchs(model, 'q8')
print('same')
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not {"avx2", "fma"} <= set(__import__("fullspan.core.device").core.device.cpu_features()), reason="x86"
)
@pytest.mark.parametrize(
    ("cpu", "features", "way"),
    [("x86-64", [], "plain"), ("haswell", ["sse4_2", "avx2", "fma", "f16c"], "avx2")],
)
def test_the_same_on_other_processors(cpu: str, features: list[str], way: str) -> None:
    script = NARROW.format(cpu=cpu, features=features, way=way, file=__file__)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "same\n", done.stderr


# Files ------------------------------------------------------------------------------------------------


def test_a_packed_copy_is_read_instead(model: Llama, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    save_model(model, folder)
    calls = []

    def load() -> Llama:
        calls.append(1)
        return load_model(folder)

    first = load_packed(folder, "q8", None, load)
    second = load_packed(folder, "q8", None, load)
    assert len(calls) == 1 and second.config == first.config and second.matrices == first.matrices
    np.testing.assert_array_equal(first.memory, second.memory)
    np.testing.assert_array_equal(first.norms, second.norms)
    with pytest.MonkeyPatch.context() as patch:
        # Gigabytes are not even looked at while nobody has written to them.
        patch.setattr("fullspan.decoding.engine.packed_file.sha256", lambda file: pytest.fail("read again"))
        load_packed(folder, "q8", None, load)
    # Other weights in the same folder, also of the same size and date, or a copy that was cut off: made anew.
    save_model(tiny(9), folder)
    other = load_packed(folder, "q8", None, load)
    assert not (other.memory == first.memory).all() and len(calls) == 2
    weights = folder / "model.safetensors"
    before = weights.stat()
    save_model(model, tmp_path / "again")
    weights.write_bytes((tmp_path / "again" / "model.safetensors").read_bytes())
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    np.testing.assert_array_equal(load_packed(folder, "q8", None, load).memory, first.memory)
    assert weights.stat().st_size == before.st_size and len(calls) == 3
    [copy] = folder.glob(".*packed")
    copy.write_bytes(copy.read_bytes()[:5000])
    load_packed(folder, "q8", None, load)
    assert len(calls) == 4


def test_biases_and_own_heads_survive_the_packed_file(tmp_path: Path) -> None:
    model = tiny(4, attention_bias=True, mlp_bias=True, tied_head=False)
    packed = pack_model(model, "q4")
    write_packed(tmp_path / "p", packed, Origin([], "q4"))
    again = read_packed(tmp_path / "p", Origin([], "q4"))
    assert again is not None and read_packed(tmp_path / "p", Origin([], "q8")) is None
    ids = tokens(20)
    one, two = (Engine(each, 1) for each in (packed, again))
    np.testing.assert_array_equal(one.step(ids, one.new_cache()), two.step(ids, two.new_cache()))


def test_a_gguf_of_floats_becomes_q8(model: Llama, tmp_path: Path) -> None:
    save_model(model, tmp_path / "m.gguf", ggml_type="f32")
    packed = load_packed(tmp_path / "m.gguf", None, None, lambda: pytest.fail("torch is not needed"))
    expected = pack_model(model, "q8")
    np.testing.assert_array_equal(packed.memory, expected.memory)


# Bad input --------------------------------------------------------------------------------------------


def test_what_cannot_be_is_refused_and_changes_nothing(engine: Engine) -> None:
    most = SIZES["max_positions"]
    cache, other = engine.new_cache(), engine.new_cache()
    engine.step(tokens(most - 3), cache)
    with pytest.raises(DataError, match=f"{most - 3} tokens and 4 more do not fit into the model's context"):
        engine.step([1, 2, 3, 4], cache)
    # A tree may have more tokens than the context has places, but not be deeper.
    engine.step([1, 2, 3, 4, 5], cache, [-1, -1, 0, 1, 2])
    cache.keep([0, 2, 4])
    assert cache.length == most
    with pytest.raises(DataError, match="context"):
        engine.step([1], cache)
    for bad in (-1, SIZES["vocab_size"]):
        with pytest.raises(DataError, match=f"token id {bad} is outside the vocabulary of 103"):
            engine.step([1, bad], engine.new_cache())
    with pytest.raises(DataError, match="at least one token"):
        engine.step([], engine.new_cache())
    with pytest.raises(ConfigError, match="token 1 of the tree has the parent 1"):
        engine.step([1, 2], engine.new_cache(), [-1, 1])
    with pytest.raises(ConfigError, match="a tree of 65 tokens"):
        engine.step([1] * 65, engine.new_cache(), [-1] * 65)
    with pytest.raises(ConfigError, match="the same cache"):
        engine.step_all([Segment(other, [1]), Segment(other, [2])])
    with pytest.raises(ConfigError, match="cannot keep 5 tokens"):
        engine.new_cache().truncate(5)
    with pytest.raises(ConfigError, match="does not ascend"):
        cache.keep([0])
    assert cache.length == most


@pytest.mark.parametrize(
    "part", ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_down", "ffn_norm"]
)
@pytest.mark.parametrize("weights", ["q4", "f32"])
def test_nan_weights_give_nan(model: Llama, part: str, weights: str) -> None:
    """One weight of many; no part of the way hides it, so that sampling refuses the logits."""
    broken = tiny()
    name = {
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_gate": "mlp.gate_proj",
        "ffn_down": "mlp.down_proj",
        "ffn_norm": "post_attention_layernorm",
    }[part]
    with torch.no_grad():
        broken.get_parameter(f"model.layers.0.{name}.weight").view(-1)[5] = torch.nan
    engine = Engine(pack_model(broken, weights), 1)
    assert np.isnan(engine.step(tokens(5), engine.new_cache())).all()


def test_weights_that_do_not_fit(tmp_path: Path, model: Llama) -> None:
    save_model(model, tmp_path / "m.gguf", ggml_type="q8_0")
    file = GGUFFile(tmp_path / "m.gguf")
    config = gguf_config(file)
    with pytest.raises(ConfigError, match="weights cannot be 'q5'"):
        pack_gguf(file, config, "q5")
    del file.tensors["blk.1.attn_q.weight"]
    with pytest.raises(CheckpointError, match=r"1 missing: blk\.1\.attn_q\.weight"):
        pack_gguf(file, config)


# What a person meets ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def adapter(tiny_chat_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tuned") / "adapter"
    tuned = fullspan.load(tiny_chat_model, dtype=torch.float32).model
    add_lora(tuned, LoRAConfig(rank=4), seed=1)
    generator = torch.Generator().manual_seed(2)
    for name, parameter in lora_parameters(tuned).items():
        if name.endswith("lora_B"):
            torch.nn.init.normal_(parameter, std=0.2, generator=generator)
    save_adapter(tuned, folder, str(tiny_chat_model))
    return folder


def test_answers_are_the_most_likely_tokens_step_by_step(tiny_chat_model: Path) -> None:
    model = fullspan.load(tiny_chat_model, weights="q8")
    assert isinstance(model.decoder, EngineDecoder)
    ids = model.prompt_ids("Hello")
    engine, expected, logprobs = model.decoder.engine, [], []
    cache = engine.new_cache()
    row = engine.read(ids, cache)[-1].astype(np.float64)
    for _ in range(12):
        expected.append(int(row.argmax()))
        logprobs.append(row.max() - np.logaddexp.reduce(row))
        row = engine.step(expected[-1:], cache)[-1].astype(np.float64)
    answer = model.generate("Hello", max_tokens=12, logprobs=0)
    assert list(answer.token_ids) == expected[: len(answer.token_ids)]
    assert answer.logprobs is not None
    found = [each.logprob for each in answer.logprobs]
    assert found == pytest.approx(logprobs[: len(found)], abs=1e-5)
    scored = score_tokens(model.decoder, ids + list(answer.token_ids)).logprobs[-len(answer.token_ids) :]
    # Tiles read what is scored in bfloat16; the answer's tokens were steps with int8 activations.
    assert scored == pytest.approx(found, abs=5e-2)
    assert "".join(model.stream("Hello", max_tokens=12)) == answer.text
    # In a batch, with neighbours that leave it earlier or later, and sampled: the same to the last bit.
    options: dict[str, Any] = {"max_tokens": 15, "temperature": 0.9}
    prompts = ["a", "Hello", "two words", "a"]
    together = model.generate(prompts, seed=5, **options)
    for row_, prompt in enumerate(prompts):
        assert model.generate(prompt, seed=5 + row_, **options).token_ids == together[row_].token_ids
    assert isinstance(model.model, Llama)  # loaded when it is asked for


def test_an_adapter_is_merged_at_load(tiny_chat_model: Path, adapter: Path) -> None:
    text = "Hello there, how are you?"
    engines = [fullspan.load(path, weights="q8").score(text).total for path in (tiny_chat_model, adapter)]
    torchs = [
        fullspan.load(path, dtype=torch.float32).score(text).total for path in (tiny_chat_model, adapter)
    ]
    assert engines == pytest.approx(torchs, abs=0.05 * abs(torchs[1] - torchs[0]))
    assert (adapter / ".q8.packed").is_file() and (tiny_chat_model / ".q8.packed").is_file()
    assert fullspan.load(adapter, weights="q8").score(text).total == engines[1]


def test_who_computes(tiny_chat_model: Path, smollm2_path: Path) -> None:
    assert isinstance(fullspan.load(tiny_chat_model).decoder, TorchDecoder)
    assert isinstance(fullspan.load(tiny_chat_model, engine="cpu").decoder, EngineDecoder)
    assert isinstance(fullspan.load(smollm2_path).decoder, EngineDecoder)
    for options in ({"engine": "torch"}, {"dtype": torch.bfloat16}):
        assert isinstance(fullspan.load(smollm2_path, **options).decoder, TorchDecoder)
    for options, message in (
        ({"engine": "torch", "weights": "q4"}, "weights='q4' are of the CPU engine"),
        ({"engine": "cpu", "dtype": torch.float32}, "dtype is of torch models"),
        ({"weights": "q8", "device": "meta"}, "the device is meta"),
        ({"engine": "gpu"}, "engine cannot be 'gpu'"),
        ({"weights": "q5"}, "weights cannot be 'q5'"),
    ):
        with pytest.raises(ConfigError, match=message):
            fullspan.load(smollm2_path, **options)


# The real model ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_smollm2_is_as_near_as_its_eight_bit_activations(smollm2_path: Path) -> None:
    """On real text; llama.cpp's own distance on such text is 0.16 to 0.19."""
    from fullspan.models.tokenizers import load_tokenizer

    text = Path(loading.__file__).read_text() + str(np.__doc__)
    ids = load_tokenizer(smollm2_path).encode(text)[:300]
    expected = torch.from_numpy(torch_logits(load_model(smollm2_path), ids))
    engine = Engine(load_packed(smollm2_path, None, None, lambda: pytest.fail("not needed")))
    found = torch.from_numpy(engine.step(ids, engine.new_cache()))
    assert (found - expected).abs().mean() < 0.2
    assert (found.argmax(-1) == expected.argmax(-1)).float().mean() > 0.93
    following = torch.tensor(ids[1:])
    losses = [torch.nn.functional.cross_entropy(each[:-1], following).item() for each in (found, expected)]
    assert abs(losses[0] - losses[1]) < 0.02
