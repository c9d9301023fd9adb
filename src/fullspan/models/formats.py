"""Which architectures there are, and what a file on disk says about its own; without torch."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fullspan.models
from fullspan.core.errors import CheckpointError

if TYPE_CHECKING:
    from fullspan.checkpoints.gguf_file import GGUFFile

_NO_ARCHITECTURES = {"formats", "loading", "tokenizers"}


def architectures() -> list[str]:
    """Names of the supported architectures: the files of this folder.

    Examples
    --------
    >>> architectures()
    ['llama']
    """
    names = {module.name for module in pkgutil.iter_modules(fullspan.models.__path__)}
    return sorted(name for name in names - _NO_ARCHITECTURES if not name.startswith("_"))


def is_gguf(path: Path) -> bool:
    """Whether a path is a GGUF file rather than a folder with safetensors."""
    if path.is_dir() or path.suffix == ".safetensors":
        return False
    with path.open("rb") as file:
        if file.read(4) == b"GGUF":
            return True
    raise CheckpointError(f"{path} is neither a GGUF file nor a model folder")


def check_architecture(name: Any) -> str:
    """The name, if there is a file for it.

    Raises
    ------
    CheckpointError
        If it is not supported.
    """
    if name not in architectures():
        raise CheckpointError(
            f"architecture {name!r} is not supported", "supported: " + ", ".join(architectures())
        )
    return str(name)


def gguf_config(file: GGUFFile) -> Any:
    """The config of the architecture that a GGUF file names.

    Raises
    ------
    CheckpointError
        If it is not supported.
    """
    name = check_architecture(file.metadata.get("general.architecture"))
    module = importlib.import_module(f"fullspan.models._{name}_config")
    shapes = {name: tuple(tensor.shape) for name, tensor in file.tensors.items()}
    divisors = file.dequantize("rope_freqs.weight") if "rope_freqs.weight" in shapes else None
    return module.Config.from_gguf(file.metadata, shapes, divisors)
