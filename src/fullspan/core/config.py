"""Typed options: one pydantic model a command, read from YAML and flags alike."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

import pydantic
import yaml

from fullspan.core.errors import ConfigError, did_you_mean
from fullspan.core.files import replacing


class Input:
    """Marks a path that a command reads."""


class Output:
    """Marks a path that a command writes."""


class Argument:
    """Marks an option that the command line takes by position."""


InputPath = Annotated[Path, Input()]
OutputPath = Annotated[Path, Output()]
# A path, or the name of a model in the store.
ModelName = Annotated[str, Input()]


class Config(pydantic.BaseModel):
    """Options of one command. A field's description is its help on the command line.

    Examples
    --------
    >>> class TrainConfig(Config):
    ...     rank: int = pydantic.Field(16, ge=1, description="rank of the update")
    >>> TrainConfig.build({"rnak": 8})
    Traceback (most recent call last):
    ...
    fullspan.core.errors.ConfigError: TrainConfig has no option 'rnak'
    hint: did you mean 'rank'?
    """

    model_config = pydantic.ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False
    )

    @classmethod
    def build(cls, values: Mapping[str, Any], spell: Callable[[str], str] = str) -> Self:
        """Validate `values`; the error names the option, the value and what was expected.

        Parameters
        ----------
        values : mapping of str to object
        spell : callable, optional
            From the name of a field to how it was written, such as ``--eval-data`` on the command line.

        Raises
        ------
        ConfigError
            If an option is unknown, missing or has a wrong value.
        """
        for name in values:
            if name not in cls.model_fields:
                raise ConfigError(
                    f"{cls.__name__} has no option {name!r}", did_you_mean(name, cls.model_fields)
                )
        try:
            return cls.model_validate(dict(values))
        except pydantic.ValidationError as error:
            raise ConfigError("\n".join(_explain(detail, spell) for detail in error.errors())) from None

    @classmethod
    def read(cls, path: Path | str) -> Self:
        """Read a YAML file written by hand or by `write`."""
        return cls.build(read_yaml(path))

    def write(self, path: Path | str) -> None:
        """Write every option, defaults too, so that the file repeats the command."""
        with replacing(path) as beside:
            beside.write_text(
                yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
            )

    def input_files(self) -> list[Path]:
        """Existing or not, the paths this command reads."""
        return list(self._marked(Input))

    def output_files(self) -> list[Path]:
        """The paths this command writes."""
        return list(self._marked(Output))

    def _marked(self, mark: type) -> Iterator[Path]:
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            annotation = (
                Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
            )
            if value is not None and _has_mark(annotation, mark):
                values = value if isinstance(value, list | tuple) else [value]
                yield from (Path(v) for v in values)


def _has_mark(annotation: Any, mark: type) -> bool:
    if typing.get_origin(annotation) is Annotated:
        inner, *metadata = typing.get_args(annotation)
        return any(isinstance(item, mark) for item in metadata) or _has_mark(inner, mark)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, list, tuple):
        return any(_has_mark(inner, mark) for inner in typing.get_args(annotation))
    return False


def _explain(detail: Any, spell: Callable[[str], str]) -> str:
    first, *inner = map(str, detail["loc"] or ["options"])
    option = ".".join([spell(first), *inner])
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "missing":
        return f"{option}: is required"
    if not detail["loc"]:
        return str(message)
    return f"{option}: {message[0].lower() + message[1:]}, got {detail['input']!r}"


def read_yaml(path: Path | str) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises
    ------
    ConfigError
        If the file is missing, is not YAML or is not a mapping.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no such file: {path}", "give the path of a YAML file") from None
    except IsADirectoryError:
        raise ConfigError(f"{path} is a folder, expected a YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    if content is None:
        raise ConfigError(f"{path} is empty, expected a mapping of options")
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise ConfigError(f"{path} holds a {type(content).__name__}, expected a mapping of options by name")
    return content
