"""Open and write checkpoints of any architecture that has a file in this folder."""

from __future__ import annotations

import importlib
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from fullspan.checkpoints.gguf_file import GGMLQuantizationType, GGUFFile, parse_ggml_type, write_gguf
from fullspan.checkpoints.safetensors_folder import SafetensorsFolder, write_folder
from fullspan.checkpoints.weights import load_weights
from fullspan.core.errors import CheckpointError
from fullspan.models.formats import check_architecture, gguf_config, is_gguf

if TYPE_CHECKING:
    from fullspan.models.llama import Llama


def load_model(
    path: Path | str, *, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None
) -> Llama:
    """Open a GGUF file or a Hugging Face folder (or one .safetensors file beside its config.json).

    Parameters
    ----------
    path : Path
        File or folder.
    dtype : torch.dtype
        Of the weights in memory; quantised ones are dequantised.
    device : torch.device, optional
        The CPU by default.

    Returns
    -------
    Llama
        In evaluation mode.

    Raises
    ------
    CheckpointError
        If the architecture is not supported, or weights are missing, unexpected or misshapen.
    """
    path = Path(path)
    if not path.exists():
        raise CheckpointError(f"no such file or folder: {path}")
    device = torch.device("cpu" if device is None else device)
    return _load_gguf(path, dtype, device) if is_gguf(path) else _load_folder(path, dtype, device)


def _architecture(name: Any) -> ModuleType:
    return importlib.import_module(f"fullspan.models.{check_architecture(name)}")


def _load_gguf(path: Path, dtype: torch.dtype, device: torch.device) -> Llama:
    file = GGUFFile(path)
    module = _architecture(file.metadata.get("general.architecture"))
    config = gguf_config(file)
    return _fill(module, config, module.weights_from_gguf(config, file.items(dtype)), device)


def _load_folder(path: Path, dtype: torch.dtype, device: torch.device) -> Llama:
    folder = SafetensorsFolder(path)
    module = _architecture(folder.config.get("model_type"))
    config = module.Config.from_hf(folder.config)
    weights = module.weights_from_hf(config, folder.items(dtype))
    return _fill(module, config, weights, device)


def _fill(
    module: ModuleType, config: Any, weights: Iterable[tuple[str, Tensor]], device: torch.device
) -> Llama:
    # No memory is spent on random weights that would be overwritten.
    with torch.device("meta"), _WithoutInitialisation():
        model: Llama = module.Model(config)
    placed = ((name, weight.to(device)) for name, weight in weights)
    load_weights(model, placed, tied={"lm_head.weight"} if config.tied_head else ())
    return model.eval()


class _WithoutInitialisation(TorchFunctionMode):
    """Leaves out `torch.nn.init`: on the meta device it would import torch's compiler, for seconds."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def save_model(
    model: Llama,
    path: Path | str,
    *,
    tokenizer: Any = None,
    ggml_type: str = "f16",
    name: str | None = None,
) -> None:
    """Write a GGUF file if `path` ends in .gguf, else a Hugging Face folder.

    Parameters
    ----------
    model : Llama
        With adapters merged.
    path : Path
        What stood there is replaced when everything is written.
    tokenizer : Tokenizer, optional
        Written along, so that the model can be used from that path alone.
    ggml_type : str
        Type of the matrices in a GGUF file, such as f32, f16, bf16, q8_0 or q4_1. Vectors stay float32, and
        matrices whose rows do not divide into the type's blocks are f16.
    name : str, optional
        The model's name in GGUF metadata; the file's by default.

    Raises
    ------
    CheckpointError
        If the format cannot express the model, the model has weights beside its architecture's (adapters),
        or `ggml_type` is unknown.
    """
    path = Path(path)
    _refuse_other_weights(model)
    if path.suffix == ".gguf":
        _save_gguf(model, path, tokenizer, ggml_type, name or path.stem)
    else:
        _save_folder(model, path, tokenizer)


def _refuse_other_weights(model: Llama) -> None:
    with torch.device("meta"):
        plain = type(model)(model.config).state_dict().keys()
    if other := sorted(model.state_dict().keys() ^ plain):
        raise CheckpointError(
            f"{other[0]} and {len(other) - 1} other weights do not match the model's architecture",
            "merge adapters into the model first",
        )


def _save_gguf(model: Llama, path: Path, tokenizer: Any, ggml_type: str, name: str) -> None:
    module = importlib.import_module(type(model).__module__)
    matrix_type = parse_ggml_type(ggml_type)
    metadata = {**model.config.to_gguf(), "general.name": name}
    if tokenizer is not None:
        metadata |= tokenizer.to_gguf_metadata()
    tensors = {
        theirs: weight.float().cpu().numpy()
        for theirs, weight in module.weights_to_gguf(model.config, model.state_dict().items())
    }
    types = {theirs: _storage_type(theirs, array.ndim, matrix_type) for theirs, array in tensors.items()}
    write_gguf(path, metadata, tensors, types)


def _storage_type(name: str, ndim: int, matrix_type: GGMLQuantizationType) -> GGMLQuantizationType:
    if ndim < 2:
        return GGMLQuantizationType.F32
    # Four and five bits cost the embedding and the head too much; llama.cpp spares them too.
    coarse = matrix_type.name.startswith(("Q4", "Q5"))
    return (
        GGMLQuantizationType.Q8_0
        if coarse and name in ("token_embd.weight", "output.weight")
        else matrix_type
    )


def _save_folder(model: Llama, path: Path, tokenizer: Any) -> None:
    weights = dict(model.state_dict())
    if model.config.tied_head:
        del weights["lm_head.weight"]
    dtype = str(model.model.norm.weight.dtype).removeprefix("torch.")
    config = {**model.config.to_hf(), "dtype": dtype, "torch_dtype": dtype}
    with tempfile.TemporaryDirectory() as temporary:
        extra: dict[str, str | bytes | Path] = {}
        if tokenizer is not None:
            ends = list(tokenizer.eos_ids)
            ids = {"bos_token_id": tokenizer.bos_id, "eos_token_id": ends, "pad_token_id": tokenizer.pad_id}
            config |= ids
            extra["generation_config.json"] = json.dumps(ids, indent=2) + "\n"
            tokenizer.save(Path(temporary))
            extra |= {file.name: file for file in sorted(Path(temporary).iterdir())}
        write_folder(path, config, weights, extra_files=extra)
