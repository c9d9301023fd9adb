"""Packed models on disk, beside what they were made from, so that a second load need not quantise again.

A file is in the format of safetensors; its metadata say what it was made from and by which version.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from fullspan.core.files import replacing, sha256
from fullspan.decoding.engine.memory import allocate
from fullspan.decoding.engine.model import PackedModel, Slot
from fullspan.models._llama_config import LlamaConfig

_VERSION = 1  # of the order of the bytes


def content_key(files: Iterable[Path], weights: str) -> str:
    """What a packed model is made from: the contents of files, and the kind of weights.

    Examples
    --------
    >>> content_key([], "q8") == content_key([], "q8") != content_key([], "q4")
    True
    """
    parts = [f"{_VERSION} {weights}", *(f"{file.name} {sha256(file)}" for file in sorted(files))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def write_packed(path: Path, model: PackedModel, key: str) -> None:
    """Write a packed model; where that is not possible, such as in a read-only folder, nothing happens."""
    tensors = {"memory": model.memory, "norms": model.norms}
    tensors |= {f"bias.{i}": bias for i, bias in enumerate(model.biases) if bias is not None}
    metadata = {
        "key": key,
        "config": json.dumps(model.config.to_hf()),
        "matrices": json.dumps([dataclasses.astuple(slot) for slot in model.matrices]),
    }
    with contextlib.suppress(OSError), replacing(path) as beside:
        save_file(tensors, beside, metadata)


def read_packed(path: Path, key: str) -> PackedModel | None:
    """The packed model, or None where there is none of this key, or only a broken one."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size))
            metadata = header.pop("__metadata__")
            if metadata["key"] != key:
                return None
            found = {}
            for name, entry in header.items():
                start, end = entry["data_offsets"]
                memory = allocate(end - start)
                file.seek(8 + size + start)
                if file.readinto(memory.data) != end - start:
                    return None
                found[name] = memory if name == "memory" else memory.view(np.float32).reshape(entry["shape"])
            slots = [Slot(*fields) for fields in json.loads(metadata["matrices"])]
            config = LlamaConfig.from_hf(json.loads(metadata["config"]))
            biases = [found.get(f"bias.{i}") for i in range(len(slots))]
            return PackedModel(config, slots, found["memory"], found["norms"], biases)
    except (OSError, ValueError, KeyError, TypeError):
        return None
