"""What was found fastest on this machine, kept beside the model for `speculate="auto"`."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import pydantic

from fullspan._version import __version__
from fullspan.core.device import cpu_features, cpu_name, usable_cores
from fullspan.core.errors import DataError
from fullspan.core.files import replacing

_MOST_KEPT = 16  # machines and kinds of weights, in one file


class Tuned(pydantic.BaseModel):
    """A choice.

    Attributes
    ----------
    speculate : str or None
        What to give `speculate`; None is plain decoding.
    times : dict of int to float
        Milliseconds of the target's steps, by their number of tokens.
    ratio : float
        Speed over that of plain decoding, as measured.
    machine, version : str
        Where it was measured, and with which fullspan.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    speculate: str | None
    times: dict[int, pydantic.PositiveFloat]
    ratio: float
    machine: str = ""
    version: str = ""


@dataclass(frozen=True)
class Source:
    """What a model was loaded from.

    Attributes
    ----------
    path : Path
        A GGUF file or a folder.
    adapter : Path or None
        A folder.
    weights : str or None
        Kind that was asked for.
    """

    path: Path
    adapter: Path | None = None
    weights: str | None = None

    @property
    def place(self) -> Path:
        """Where choices for it are kept."""
        folder = self.adapter or self.path
        if folder.is_dir():
            return folder / ".speculation.json"
        return folder.with_name(f".{folder.name}.speculation.json")

    def key(self) -> str:
        """Of the model's files, the machine and the version: what a choice is good for."""
        files = [file for path in (self.path, self.adapter) if path is not None for file in _files(path)]
        stats = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        what = [__version__, self.weights, stats, cpu_name(), cpu_features(), usable_cores()]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:32]


def save_tuned(source: Source, tuned: Tuned) -> Path:
    """Keep a choice, beside those of other machines; where it is."""
    try:
        kept = _read(source.place)
    except DataError:
        kept = {}  # a broken file is written anew
    kept.pop(source.key(), None)
    entry = tuned.model_copy(update={"machine": f"{cpu_name()}, {usable_cores()}", "version": __version__})
    kept[source.key()] = entry
    latest = dict(list(kept.items())[-_MOST_KEPT:])
    text = json.dumps({key: each.model_dump() for key, each in latest.items()}, indent=1)
    with replacing(source.place) as beside:
        beside.write_text(text + "\n", encoding="utf-8")
    return source.place


def load_tuned(source: Source) -> Tuned | None:
    """The choice for this model on this machine, None if there is none.

    Raises
    ------
    DataError
        If the file of choices is broken.
    """
    return _read(source.place).get(source.key())


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    kinds = (".safetensors", ".json", ".gguf")
    # Those that begin with a dot are our own, choices among them.
    return sorted(file for file in path.iterdir() if file.suffix in kinds and file.name[0] != ".")


def _read(place: Path) -> dict[str, Tuned]:
    try:
        text = place.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {place}: {error}") from None
    try:
        return pydantic.TypeAdapter(dict[str, Tuned]).validate_json(text)
    except pydantic.ValidationError as error:
        raise DataError(
            f"{place} is broken: {error.errors()[0]['msg']}", "run fullspan bench decode --tune again"
        ) from None
