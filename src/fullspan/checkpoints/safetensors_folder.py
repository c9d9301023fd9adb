"""Hugging Face model folders: config.json beside weights in one or more safetensors files."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from fullspan.checkpoints.adapter_folder import ADAPTER_CONFIG, base_of_adapter
from fullspan.core.errors import CheckpointError, did_you_mean
from fullspan.core.files import replacing

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
# The files that programs write for a model; a folder with anything else in it is never replaced.
# README.md and the like are not among them: a person may have written those.
_WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")
_PACKED = re.compile(r"\.\w+\.packed")  # the CPU engine's copy of the weights, which it makes anew if need be
_WRITTEN_BY_PROGRAMS = frozenset(
    f"""{_INDEX} config.json generation_config.json tokenizer.json tokenizer_config.json tokenizer.model
    special_tokens_map.json added_tokens.json vocab.json vocab.txt merges.txt chat_template.jinja
    chat_template.json""".split()
)


class SafetensorsFolder:
    """The weights of a Hugging Face folder, or of one safetensors file, read lazily.

    Parameters
    ----------
    path : path-like
        A folder with ``model.safetensors``, or ``model.safetensors.index.json`` and the files it
        names, or any ``*.safetensors``; or a single such file.

    Attributes
    ----------
    path : Path
    files : list of Path
        The files of weights.

    Raises
    ------
    CheckpointError
        If nothing is there, a file is broken, or the index names files or tensors that are
        missing or lie outside of the folder.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "model"
    >>> write_folder(path, {"model_type": "llama"}, {"w": torch.ones(2, 3)})
    >>> folder = SafetensorsFolder(path)
    >>> folder.names(), folder.shapes(), folder.config["model_type"]
    (['w'], {'w': (2, 3)}, 'llama')
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        _refuse_adapter(self.path)
        index: dict[str, str] = {}
        if self.path.is_file():
            self.files = [self.path]
        elif not self.path.is_dir():
            raise CheckpointError(f"no such file or folder: {self.path}")
        elif (self.path / _SINGLE).is_file():
            self.files = [self.path / _SINGLE]
        elif (self.path / _INDEX).is_file():
            index = _read_index(self.path)
            self.files = [self.path / name for name in sorted(set(index.values()))]
        else:
            self.files = sorted(self.path.glob("*.safetensors"))
        if not self.files:
            raise CheckpointError(f"{self.path} holds no safetensors file", f"expected {_SINGLE} or {_INDEX}")
        self._file_of: dict[str, Any] = {}
        for file in self.files:
            handle = _open(file)
            for name in handle.keys():
                if name in self._file_of:
                    raise CheckpointError(f"tensor {name!r} is in two files of {self.path}")
                if not index or index.get(name) == file.name:
                    self._file_of[name] = handle
        absent = sorted(set(index) - set(self._file_of))
        if absent:
            raise CheckpointError(
                f"{len(absent)} tensors of {self.path / _INDEX} are not in the files it names: "
                + ", ".join(map(repr, absent[:10]))
            )

    @cached_property
    def config(self) -> dict[str, Any]:
        """The folder's config.json."""
        folder = self.path if self.path.is_dir() else self.path.parent
        return _read_json(folder / "config.json")

    def names(self) -> list[str]:
        """Names of all tensors."""
        return list(self._file_of)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each tensor, without reading its values."""
        return {name: tuple(file.get_slice(name).get_shape()) for name, file in self._file_of.items()}

    def dtypes(self) -> dict[str, str]:
        """Stored type of each tensor, such as ``"BF16"``, without reading its values."""
        return {name: file.get_slice(name).get_dtype() for name, file in self._file_of.items()}

    def tensor(self, name: str, dtype: torch.dtype | None = None) -> torch.Tensor:
        """One tensor, memory-mapped until it is changed or converted to another `dtype`.

        Raises
        ------
        CheckpointError
            If there is no such tensor.
        """
        if name not in self._file_of:
            raise CheckpointError(f"{self.path} has no tensor {name!r}", did_you_mean(name, self._file_of))
        tensor: torch.Tensor = self._file_of[name].get_tensor(name)
        return tensor.to(dtype) if dtype is not None else tensor

    def items(self, dtype: torch.dtype | None = None) -> Iterator[tuple[str, torch.Tensor]]:
        """Each name and tensor in turn."""
        for name in self._file_of:
            yield name, self.tensor(name, dtype)


def write_folder(
    path: Path | str,
    config: Mapping[str, Any],
    tensors: Mapping[str, torch.Tensor],
    *,
    max_shard_bytes: int = 5_000_000_000,
    extra_files: Mapping[str, str | bytes | Path] | None = None,
) -> None:
    """Write a folder that transformers loads; it takes the place of `path` only once it is whole.

    Parameters
    ----------
    path : path-like
        The folder. An older model folder there is replaced; any other is refused.
    config : mapping
        Content of config.json.
    tensors : mapping of str to Tensor
    max_shard_bytes : int
        A file of weights grows no larger (a single tensor may).
    extra_files : mapping, optional
        Further files by name, such as the tokenizer's: their text, bytes, or a file to copy.

    Raises
    ------
    CheckpointError
        If `path` holds something else, two tensors are one (tied weights), or the disk is full.
    """
    path = Path(path)
    refuse_other_content(path)
    _refuse_aliases(tensors)
    shards = _shards(tensors, max_shard_bytes)
    try:
        with replacing(path) as folder:
            folder.mkdir()
            (folder / "config.json").write_text(json.dumps(dict(config), indent=2) + "\n", encoding="utf-8")
            for name, content in (extra_files or {}).items():
                _write_extra(folder / name, content)
            _write_shards(folder, tensors, shards)
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error.strerror or error}") from None
    except SafetensorError as error:
        hint = "make room on the disk" if f"os error {errno.ENOSPC}" in str(error) else ""
        raise CheckpointError(f"cannot write {path}: {error}", hint) from None


def _write_shards(folder: Path, tensors: Mapping[str, torch.Tensor], shards: list[list[str]]) -> None:
    weight_map: dict[str, str] = {}
    for i, names in enumerate(shards, start=1):
        file = _SINGLE if len(shards) == 1 else f"model-{i:05}-of-{len(shards):05}.safetensors"
        save_file({name: _standing_alone(tensors[name]) for name in names}, folder / file, {"format": "pt"})
        weight_map |= dict.fromkeys(names, file)
    if len(shards) > 1:
        total = sum(tensor.nbytes for tensor in tensors.values())
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        (folder / _INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _standing_alone(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor itself, or a copy of what is a slice or a transpose of a larger storage."""
    tensor = tensor.detach().cpu()
    alone = tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.nbytes
    return tensor if alone else tensor.clone(memory_format=torch.contiguous_format)


def _write_extra(file: Path, content: str | bytes | Path) -> None:
    if isinstance(content, str):
        content = content.encode()
    file.write_bytes(content.read_bytes() if isinstance(content, Path) else content)


def _shards(tensors: Mapping[str, torch.Tensor], max_bytes: int) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    filled = 0
    for name, tensor in tensors.items():
        if shards[-1] and filled + tensor.nbytes > max_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += tensor.nbytes
    return shards


def _is_part(name: str) -> bool:
    """Whether a file in a model's folder was written by a program."""
    return name in _WRITTEN_BY_PROGRAMS or bool(_WEIGHTS.fullmatch(name) or _PACKED.fullmatch(name))


def refuse_other_content(path: Path) -> None:
    """Check that a model may be written to `path`: nothing, an empty folder or an older model is there.

    Raises
    ------
    CheckpointError
        If it is a file, or a folder with something that writing a model would delete.
    """
    if path.is_file():
        raise CheckpointError(f"{path} is a file, expected a folder to write the model to")
    items = sorted(path.iterdir()) if path.is_dir() else []
    hint = "choose a new folder, or empty this one"
    for item in items:
        if item.is_dir() or not _is_part(item.name):
            raise CheckpointError(f"{path} exists and holds {item.name!r}, which is no part of a model", hint)
    names = {item.name for item in items}
    if items and not ("config.json" in names and any(map(_WEIGHTS.fullmatch, names))):
        raise CheckpointError(f"{path} exists and is no model: it holds {items[0].name!r}", hint)


def _refuse_adapter(folder: Path) -> None:
    if (folder / ADAPTER_CONFIG).is_file() and not (folder / "config.json").exists():
        base = base_of_adapter(folder)
        raise CheckpointError(
            f"{folder} is an adapter, not a model",
            f"give its base instead: {base or 'the model it was trained on'}",
        )


def _refuse_aliases(tensors: Mapping[str, torch.Tensor]) -> None:
    seen: dict[tuple[int, torch.Size], str] = {}
    for name, tensor in tensors.items():
        other = seen.setdefault((tensor.data_ptr(), tensor.shape), name)
        if other != name and tensor.numel():
            raise CheckpointError(f"tensors {other!r} and {name!r} are the same memory", "pass one of them")


def _read_index(folder: Path) -> dict[str, str]:
    index = _read_json(folder / _INDEX).get("weight_map")
    if not isinstance(index, dict) or not all(isinstance(file, str) for file in index.values()):
        raise CheckpointError(f"{folder / _INDEX} has no weight_map from names to files")
    for file in set(index.values()):
        # Such a name could make us read any file of the machine.
        if Path(file).name != file or "\\" in file or not file.endswith(".safetensors"):
            raise CheckpointError(f"{folder / _INDEX} names {file!r}, expected a safetensors file beside it")
    missing = sorted(file for file in set(index.values()) if not (folder / file).is_file())
    if missing:
        raise CheckpointError(f"{folder} lacks {len(missing)} of its weight files: {', '.join(missing)}")
    return index


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} holds a {type(content).__name__}, expected an object")
    return content


def _open(file: Path) -> Any:
    try:
        return safe_open(file, framework="pt")
    except SafetensorError as error:
        raise CheckpointError(f"{file} is not a valid safetensors file: {error}") from None
    except OSError as error:
        raise CheckpointError(f"cannot open {file}: {error.strerror or error}") from None
