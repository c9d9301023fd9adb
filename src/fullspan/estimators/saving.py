"""Estimators on disk: one zip file with a JSON description and the arrays beside it. Nothing in it is run.

The file holds `estimator.json` and `arrays/0.npy`, `arrays/1.npy`, ... JSON values stand for themselves; what
JSON lacks is a mapping with one key: ``{"array": 3}``, ``{"scalar": 4}`` (an array without dimensions),
``{"objects": [shape, [...]]}`` (an array of strings), ``{"sparse": [kind, shape, [data, indices, indptr]]}``,
``{"tuple": [...]}``,
``{"items": [[key, value], ...]}`` (a dict), ``{"float": "nan"}``, ``{"object": [class, attributes]}``.
"""

from __future__ import annotations

import importlib
import json
import math
import zipfile
import zlib
from pathlib import Path
from typing import Any, Self

import numpy as np
from scipy.sparse import csc_array, csc_matrix, csr_array, csr_matrix

from fullspan._version import __version__
from fullspan.core.errors import CheckpointError
from fullspan.core.files import replacing

_DESCRIPTION = "estimator.json"
_FORMAT = 1
_PACKAGE = "fullspan.estimators."
_PLAIN = (bool, int, str, type(None))
_SPARSE: dict[str, Any] = {kind.__name__: kind for kind in (csr_matrix, csr_array, csc_matrix, csc_array)}


class Saveable:
    """What can be saved: first among the bases of every estimator, and of the parts that they consist of."""

    def save(self, path: Path | str) -> None:
        """Write to one file; `fullspan.estimators.load` reads it.

        Parameters
        ----------
        path : path-like
            Replaced once the new file is whole.

        Raises
        ------
        CheckpointError
            If an attribute holds what cannot be saved without pickle, such as a function or an estimator of
            another library; the message names it.
        """
        arrays: list[np.ndarray] = []
        description = {
            "format": _FORMAT,
            "version": __version__,
            "estimator": _encode(self, arrays, type(self).__name__),
        }
        with (
            replacing(Path(path)) as beside,
            zipfile.ZipFile(beside, "w") as archive,
        ):
            archive.writestr(_DESCRIPTION, json.dumps(description, allow_nan=False))
            for index, array in enumerate(arrays):
                with archive.open(f"arrays/{index}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)

    @classmethod
    def _rebuild(cls, attributes: dict[str, Any]) -> Self:
        made = cls.__new__(cls)
        vars(made).update(attributes)
        return made


def load(path: Path | str) -> Any:
    """Read an estimator that its `save` wrote.

    Raises
    ------
    CheckpointError
        If there is no such file, or it is damaged, of another kind or of a newer version.

    Examples
    --------
    >>> import tempfile
    >>> from fullspan.estimators import DecisionTreeRegressor
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     DecisionTreeRegressor().fit([[0.0], [1.0]], [0.0, 1.0]).save(f"{folder}/tree.fullspan")
    ...     load(f"{folder}/tree.fullspan").predict([[0.9]])
    array([1.])
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return _Reader(path, archive).read()
    except FileNotFoundError:
        raise CheckpointError(f"no such file: {path}") from None
    except (zipfile.BadZipFile, KeyError, EOFError, NotImplementedError, RecursionError, OSError) as error:
        raise CheckpointError(f"{path} is not a saved estimator, or is damaged: {error}") from None
    except (ValueError, TypeError, AttributeError, zlib.error) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None


def _encode(value: Any, arrays: list[np.ndarray], name: str) -> Any:
    """`value` as JSON; `name` says where it stands."""
    if isinstance(value, _PLAIN) and type(value) in _PLAIN:
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, np.ndarray):
        return _encode_array(value, arrays, name)
    if type(value) in _SPARSE.values():
        parts = [_encode_array(part, arrays, name) for part in (value.data, value.indices, value.indptr)]
        return {"sparse": [type(value).__name__, list(value.shape), parts]}
    if isinstance(value, np.generic):
        arrays.append(np.asarray(value))
        return {"scalar": len(arrays) - 1}
    if type(value) is list:
        return [_encode(item, arrays, f"{name}[{i}]") for i, item in enumerate(value)]
    if type(value) is tuple:
        return {"tuple": [_encode(item, arrays, f"{name}[{i}]") for i, item in enumerate(value)]}
    if type(value) is dict:
        items = [
            [_encode(key, arrays, f"a key of {name}"), _encode(item, arrays, f"{name}[{key!r}]")]
            for key, item in value.items()
        ]
        return {"items": items}
    if isinstance(value, Saveable) and type(value).__module__.startswith(_PACKAGE):
        attributes = {key: _encode(item, arrays, f"{name}.{key}") for key, item in vars(value).items()}
        return {"object": [f"{type(value).__module__}:{type(value).__qualname__}", attributes]}
    raise CheckpointError(
        f"{name} is {_described(value)}, which cannot be saved without running code when it is loaded",
        "use estimators of fullspan and plain values, or keep the whole with joblib",
    )


def _described(value: Any) -> str:
    kind = value if isinstance(value, type) else type(value)
    return f"a {kind.__module__}.{kind.__qualname__}"


def _encode_array(value: np.ndarray, arrays: list[np.ndarray], name: str) -> Any:
    if value.dtype.hasobject:
        if value.dtype.names is not None:
            raise CheckpointError(f"{name} is a structured array of objects, which cannot be saved")
        flat = [_encode(item, arrays, f"{name}[{i}]") for i, item in enumerate(value.ravel().tolist())]
        return {"objects": [list(value.shape), flat]}
    arrays.append(value)
    return {"array": len(arrays) - 1}


class _Reader:
    """Decodes one file; believes no number in it."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path = path
        self.archive = archive

    def read(self) -> Any:
        info = self.archive.getinfo(_DESCRIPTION)
        if info.compress_type != zipfile.ZIP_STORED:
            raise CheckpointError(f"{self.path} is damaged: its description is compressed")
        description = json.loads(self.archive.read(_DESCRIPTION))
        if not isinstance(description, dict) or not isinstance(description.get("format"), int):
            raise CheckpointError(f"{self.path} is not a saved estimator")
        if description["format"] > _FORMAT:
            raise CheckpointError(
                f"{self.path} was written by fullspan {description.get('version')}, this is {__version__}",
                "update fullspan",
            )
        return self.decode(description["estimator"])

    def decode(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self.decode(item) for item in value]
        if not isinstance(value, dict):
            return value
        ((kind, content),) = value.items()
        match kind:
            case "float":
                return float(content)
            case "array":
                return self.array(content)
            case "scalar":
                return self.array(content)[()]
            case "objects":
                shape, flat = content
                out = np.empty(len(flat), dtype=object)
                out[:] = [self.decode(item) for item in flat]
                return out.reshape(shape)
            case "sparse":
                name, shape, parts = content
                found = _SPARSE[name](tuple(self.decode(part) for part in parts), shape=tuple(shape))
                found.check_format(full_check=True)  # an index outside would be read from memory unchecked
                return found
            case "tuple":
                return tuple(self.decode(item) for item in content)
            case "items":
                return {self.decode(key): self.decode(item) for key, item in content}
            case "object":
                return self.object(*content)
        raise CheckpointError(f"{self.path} is damaged: it holds a value of the unknown kind {kind!r:.50}")

    def array(self, index: Any) -> np.ndarray:
        info = self.archive.getinfo(f"arrays/{int(index)}.npy")
        # Arrays are stored as they are, so that none can be larger than the file.
        if info.compress_type != zipfile.ZIP_STORED:
            raise CheckpointError(f"{self.path} is damaged: array {index} is compressed")
        with self.archive.open(info) as member:
            version = np.lib.format.read_magic(member)
            read_header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, fortran, dtype = read_header(member)
            if dtype.hasobject or math.prod(shape) * dtype.itemsize > info.file_size:
                raise CheckpointError(f"{self.path} is damaged: array {index} is larger than its bytes")
            content = member.read()
        if len(content) != math.prod(shape) * dtype.itemsize:
            raise CheckpointError(f"{self.path} is damaged: array {index} has the wrong number of bytes")
        flat = np.frombuffer(content, dtype=dtype) if content else np.empty(0, dtype)
        return flat.reshape(shape, order="F" if fortran else "C").copy(order="F" if fortran else "C")

    def object(self, name: str, attributes: dict[str, Any]) -> Any:
        module_name, _, qualname = name.partition(":")
        if not module_name.startswith(_PACKAGE):
            raise CheckpointError(f"{self.path} names the class {name!r:.100}, which is none of fullspan's")
        try:
            kind = getattr(importlib.import_module(module_name), qualname)
        except (ImportError, AttributeError):
            raise CheckpointError(
                f"{self.path} names the class {name!r:.100}, which this version does not have"
            ) from None
        if not (isinstance(kind, type) and issubclass(kind, Saveable)):
            raise CheckpointError(f"{self.path} names {name!r:.100}, which is no class that can be saved")
        return kind._rebuild({key: self.decode(item) for key, item in attributes.items()})
