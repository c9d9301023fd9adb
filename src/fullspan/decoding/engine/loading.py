"""Engines from files and from torch models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fullspan.checkpoints.gguf_file import GGUFFile
from fullspan.decoding.engine.model import PackedModel, is_ready, pack_gguf, pack_tensors
from fullspan.decoding.engine.packed_file import Origin, read_packed, write_packed
from fullspan.models.formats import gguf_config, is_gguf

if TYPE_CHECKING:
    from fullspan.models.llama import Llama

_MERGED = "q8"  # four bits would round away what an adapter has learnt


def load_packed(
    source: Path | GGUFFile, weights: str | None, adapter: Path | None, load_model: Callable[[], Llama]
) -> PackedModel:
    """The packed model of a GGUF file or a Hugging Face folder, with an adapter merged.

    What had to be quantised is kept in a file beside it.

    Parameters
    ----------
    source : Path or GGUFFile
        The file may be open already.
    weights : {"q4", "q8", "bf16", "f32"}, optional
        By default those of a GGUF file as they are, or as q8 where there is no kernel for their type.
    adapter : Path, optional
        Only named here: `load_model` merges it.
    load_model : function
        Loads the torch model in float32, with the adapter merged; called if there is no packed file.
    """
    path = source if isinstance(source, Path) else source.path
    plain_gguf = adapter is None and is_gguf(path)
    if plain_gguf:
        file = GGUFFile(path) if isinstance(source, Path) else source
        config = gguf_config(file)
        if weights is None and is_ready(file):
            return pack_gguf(file, config)
    name = weights or ("auto" if plain_gguf else _MERGED)
    origin = Origin(_files(path) + ([] if adapter is None else _files(adapter)), name)
    kept = _place(path if adapter is None else adapter, name)
    packed = read_packed(kept, origin)
    if packed is None:
        packed = pack_gguf(file, config, weights) if plain_gguf else pack_model(load_model(), name)
        write_packed(kept, packed, origin)
    return packed


def pack_model(model: Llama, weights: str) -> PackedModel:
    """The packed model of a torch model without adapters."""
    from fullspan.models.llama import weights_to_gguf

    named = weights_to_gguf(model.config, model.state_dict().items())
    tensors = {
        name: tensor.detach().float().cpu().numpy() for name, tensor in named if name != "rope_freqs.weight"
    }
    return pack_tensors(tensors, model.config, weights)


def _files(path: Path) -> list[Path]:
    """What a model or an adapter is made of."""
    if path.is_file():
        return [path]
    return [file for file in path.iterdir() if file.suffix in (".safetensors", ".json") and file.is_file()]


def _place(path: Path, name: str) -> Path:
    return path / f".{name}.packed" if path.is_dir() else path.with_name(f".{path.name}.{name}.packed")
