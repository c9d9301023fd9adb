"""What a model is, read off its headers alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class ModelDescription:
    """The figures that tell models apart.

    Attributes
    ----------
    architecture : str
        As the file names it, such as ``"llama"`` or ``"LlamaForCausalLM"``.
    n_parameters : int
        Stored weights; a tied head counts once.
    tensor_types : dict of str to int
        How many tensors are stored in each type.
    max_positions : int or None
        The longest context, if stated.
    vocab_size : int or None
        Number of tokens, if stated.
    licence : str
        Empty if not stated.
    """

    architecture: str
    n_parameters: int
    tensor_types: dict[str, int]
    max_positions: int | None
    vocab_size: int | None
    licence: str


def describe(path: Path) -> ModelDescription:
    """Describe a GGUF file or a Hugging Face folder without reading its weights.

    Raises
    ------
    CheckpointError
        If it is neither, or is broken.
    """
    return _describe_gguf(path) if path.is_file() else _describe_folder(path)


def _describe_gguf(path: Path) -> ModelDescription:
    from fullspan.checkpoints.gguf_file import GGUFFile

    file = GGUFFile(path)
    architecture = str(file.metadata.get("general.architecture", "unknown"))
    tokens = file.metadata.get("tokenizer.ggml.tokens")
    return ModelDescription(
        architecture=architecture,
        n_parameters=sum(tensor.n_elements for tensor in file.tensors.values()),
        tensor_types=dict(Counter(tensor.ggml_type.name for tensor in file.tensors.values())),
        max_positions=_whole(file.metadata, f"{architecture}.context_length"),
        vocab_size=len(tokens)
        if isinstance(tokens, list)
        else _whole(file.metadata, f"{architecture}.vocab_size"),
        licence=str(file.metadata.get("general.license", "")),
    )


def _describe_folder(path: Path) -> ModelDescription:
    from fullspan.checkpoints.safetensors_folder import SafetensorsFolder

    folder = SafetensorsFolder(path)
    names = folder.config.get("architectures")
    architecture = (
        names[0] if isinstance(names, list) and names else folder.config.get("model_type", "unknown")
    )
    return ModelDescription(
        architecture=str(architecture),
        n_parameters=sum(math.prod(shape) for shape in folder.shapes().values()),
        tensor_types=dict(Counter(folder.dtypes().values())),
        max_positions=_whole(folder.config, "max_position_embeddings"),
        vocab_size=_whole(folder.config, "vocab_size"),
        licence=_licence_of_readme(path / "README.md"),
    )


def _whole(values: Mapping[str, Any], key: str) -> int | None:
    value = values.get(key)
    return value if isinstance(value, int) else None


def _licence_of_readme(file: Path) -> str:
    """The licence in the YAML head of a model card."""
    if not file.is_file():
        return ""
    parts = file.read_text(encoding="utf-8", errors="replace").split("---\n", 2)
    try:
        head = yaml.safe_load(parts[1]) if len(parts) == 3 and not parts[0] else None
    except yaml.YAMLError:
        return ""
    return str(head.get("license", "")) if isinstance(head, dict) else ""
