"""Packed models on disk, beside what they were made from, so that a second load need not quantise again.

A file is in the format of safetensors; its metadata say what it was made from and by which version.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from fullspan.core.files import replacing, sha256
from fullspan.decoding.engine.memory import allocate
from fullspan.decoding.engine.model import PackedModel, Slot
from fullspan.models._llama_config import LlamaConfig

_VERSION = 1  # of the order of the bytes


@dataclasses.dataclass(frozen=True)
class Origin:
    """What a packed model is made from: files, and the kind of weights.

    Examples
    --------
    >>> Origin([], "q8").key == Origin([], "q8").key != Origin([], "q4").key
    True
    """

    files: Sequence[Path]
    weights: str

    @functools.cached_property
    def key(self) -> str:
        """Digest of the contents; takes seconds where there are gigabytes."""
        return self._digest(sha256(file) for file in self.files)

    @functools.cached_property
    def stamp(self) -> str:
        """Changes whenever a file is written or another takes its place, whatever its date."""
        states = [file.stat() for file in self.files]
        return self._digest(f"{s.st_size} {s.st_mtime_ns} {s.st_ctime_ns} {s.st_ino}" for s in states)

    def _digest(self, of_files: Iterable[str]) -> str:
        lines = sorted(f"{file.name} {each}" for file, each in zip(self.files, of_files, strict=True))
        return hashlib.sha256("\n".join([f"{_VERSION} {self.weights}", *lines]).encode()).hexdigest()

    def made(self, metadata: Mapping[str, str]) -> bool:
        """Whether a file with these metadata is of this origin; contents are read only if they may differ."""
        return metadata.get("stamp") == self.stamp or metadata["key"] == self.key


def write_packed(path: Path, model: PackedModel, origin: Origin) -> None:
    """Write a packed model; where that is not possible, such as in a read-only folder, nothing happens."""
    from safetensors.numpy import save_file

    tensors = {"memory": model.memory, "norms": model.norms}
    tensors |= {f"bias.{i}": bias for i, bias in enumerate(model.biases) if bias is not None}
    metadata = {
        "key": origin.key,
        "stamp": origin.stamp,
        "config": json.dumps(model.config.to_hf()),
        "matrices": json.dumps([dataclasses.astuple(slot) for slot in model.matrices]),
    }
    with contextlib.suppress(OSError), replacing(path) as beside:
        save_file(tensors, beside, metadata)


def read_packed(path: Path, origin: Origin) -> PackedModel | None:
    """The packed model, or None where there is none of this origin, or only a broken one."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size))
            metadata = header.pop("__metadata__")
            if not origin.made(metadata):
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
