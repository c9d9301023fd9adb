"""Turns a `Config` into command-line options, so that each option is written down once."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from pydantic.fields import FieldInfo

from fullspan.core.config import Argument, Config, read_yaml
from fullspan.core.errors import FullspanError


def app_for(command: Callable[..., None]) -> typer.Typer:
    """A Typer application with the one command, its options read off the config it takes."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(with_options(command))
    return app


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Wrap `command(config)` as a function whose parameters are the config's fields.

    Flags win over the file given by `--config`; what neither sets keeps its default.
    """
    options = config_class(command)

    def call(**flags: Any) -> None:
        file = flags.pop("config", None)
        values = read_yaml(file) if file else {}
        values |= {name: value for name, value in flags.items() if value not in (None, [], ())}
        spell = partial(_flag, options)
        try:
            command(options.build(values, spell))
        except FullspanError as error:
            error.message = _as_typed(error.message, options, spell)
            raise

    parameters = [_parameter(name, field) for name, field in options.model_fields.items()]
    if parameters:
        help_ = "YAML file with any of these options; flags win over it."
        parameters.append(_keyword("config", Annotated[Path | None, typer.Option("--config", help=help_)]))
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    call.__doc__ = command.__doc__ or inspect.getmodule(command).__doc__
    call.__name__ = command.__name__
    return call


def config_class(command: Callable[..., None]) -> type[Config]:
    """The class of the config that a verb's function takes."""
    first = next(iter(inspect.signature(command).parameters))
    return typing.cast(type[Config], typing.get_type_hints(command)[first])


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    kind = _plain_type(field.annotation)
    help_ = (field.description or "") + _shown_default(field)
    required = "(required) " if field.is_required() else ""
    if _is_argument(field):
        # Not required here: a file given by --config may hold it.
        return _keyword(
            name, Annotated[kind | None, typer.Argument(help=required + help_, show_default=False)]
        )
    flag = name.replace("_", "-")
    flags = f"--{flag}/--no-{flag}" if kind is bool else f"--{flag}"
    inner = typing.get_args(kind) if typing.get_origin(kind) is list else ()
    metavar = f"<{inner[0].__name__.lower()}>" if inner else None  # one each time that it is given
    option = typer.Option(flags, help=required + help_, show_default=False, metavar=metavar)
    return _keyword(name, Annotated[kind | None, option])


def _keyword(name: str, annotation: Any, default: Any = None) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def _flag(options: type[Config], name: str) -> str:
    """How the command line writes an option."""
    field = options.model_fields.get(name)
    return name if field is None or _is_argument(field) else f"--{name.replace('_', '-')}"


def _as_typed(message: str, options: type[Config], spell: Callable[[str], str]) -> str:
    """A message that begins with the names of options, in Python's spelling, with what the user typed."""
    begin = re.match(r"(\w+( and \w+)*)(?=:| is | are | should | must | has )", message)
    names = begin[0].split(" and ") if begin else []
    if not names or not set(names) <= set(options.model_fields):
        return message
    return " and ".join(map(spell, names)) + message[len(" and ".join(names)) :]


def _is_argument(field: FieldInfo) -> bool:
    return any(isinstance(item, Argument) for item in field.metadata)


def _shown_default(field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=False)
    if field.is_required() or default is None or default in ([], (), {}):
        return ""
    if isinstance(default, bool):
        default = "yes" if default else "no"
    return f" [default: {', '.join(map(str, default)) if isinstance(default, list) else default}]"


def _plain_type(annotation: Any) -> Any:
    """What Typer should parse: without the marks, the limits and the None of an optional."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _plain_type(inner[0])
    if origin in (typing.Union, types.UnionType):
        return _plain_type(next(item for item in inner if item is not type(None)))
    if origin is dict:
        return list[str]  # pairs, which a validator of the field takes apart
    if origin in (list, tuple):
        return list[_plain_type(inner[0])]  # type: ignore[misc]
    if origin is Literal or annotation in (str, int, float, bool, Path):
        return annotation
    raise TypeError(f"no command-line form for an option of type {annotation!r}")
