"""Finds the verbs, turns their configs into options, and prints errors a person can act on."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
import typer.core
import typer.main

from fullspan._version import __version__

if TYPE_CHECKING:
    from fullspan.core.config import Config

_NOT_VERBS = {"__init__", "app", "options"}


def _verb_files() -> dict[str, Path]:
    folder = Path(__file__).parent
    return {file.stem: file for file in sorted(folder.glob("*.py")) if file.stem not in _NOT_VERBS}


def _help_line(file: Path) -> str:
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0]


class _Verbs(typer.core.TyperGroup):
    """Lists verbs by their files and imports one only to run it or to show its help."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(_verb_files())

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        # Listing the verbs needs their help lines only.
        file = _verb_files().get(cmd_name)
        return typer.core.TyperCommand(cmd_name, help=_help_line(file)) if file else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0]
        if name in _verb_files():
            return name, _load(name), args[1:]
        if ctx.resilient_parsing or name.startswith("-"):
            return super().resolve_command(ctx, args)
        from fullspan.core.errors import ConfigError, did_you_mean

        raise ConfigError(f"no command named {name!r}", did_you_mean(name, _verb_files()))


def config_of(verb: str) -> type[Config]:
    """The config class of a verb, for those who call verbs without a command line.

    Raises
    ------
    ConfigError
        If there is no such verb, or it has verbs of its own.
    """
    from fullspan.core.errors import ConfigError, did_you_mean

    if verb not in _verb_files():
        raise ConfigError(f"no command named {verb!r}", did_you_mean(verb, _verb_files()))
    command = getattr(importlib.import_module(f"fullspan.cli.{verb}"), "command", None)
    if command is None:
        raise ConfigError(f"{verb!r} has commands of its own and cannot be a step")
    from fullspan.cli.options import config_class

    return config_class(command)


def _load(verb: str) -> Any:
    module = importlib.import_module(f"fullspan.cli.{verb}")
    app = getattr(module, "app", None)
    if app is None:
        from fullspan.cli.options import app_for

        app = app_for(module.command)
    command = typer.main.get_command(app)
    command.name = verb
    return command


app = typer.Typer(cls=_Verbs, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)


def _show_version(asked: bool) -> None:
    if asked:
        print(f"fullspan {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    ctx: typer.Context,
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
    ),
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),
) -> None:
    """Machine learning from a raw table to a served language model, on an ordinary computer."""


def main() -> None:
    """Run the command line; an error ends in a message and a hint, never in a bare traceback."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character shows a question mark; an answer is not lost for it.
        if stream is not None:  # it is None where the caller has closed it
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    # The flag is taken before the verb and at the very end, so that it works for any error.
    debug = "--debug" in (sys.argv[1:2] + sys.argv[2:][-1:])
    if debug and sys.argv[1] != "--debug":
        sys.argv[1:] = ["--debug", *sys.argv[1:-1]]
    try:
        app(prog_name="fullspan")
    except Exception as error:
        if debug:
            raise
        from fullspan.core.errors import FullspanError

        if isinstance(error, FullspanError):
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(2) from None
        if isinstance(error, ModuleNotFoundError) and (extra := _extra_with(error.name or "")):
            print(f"error: this needs the package {error.name!r}, which is not installed", file=sys.stderr)
            print(f"hint: pip install 'fullspan[{extra}]'", file=sys.stderr)
            raise SystemExit(2) from None
        if isinstance(error, OSError) and error.strerror:
            where = f": {error.filename}" if error.filename else ""
            print(f"error: {error.strerror}{where}", file=sys.stderr)
            raise SystemExit(2) from None
        print(
            f"error: fullspan failed with {type(error).__name__}: {error}\n"
            "hint: this is a defect; run the command again with --debug and report the traceback",
            file=sys.stderr,
        )
        raise SystemExit(1) from None


def _extra_with(package: str) -> str | None:
    """The extra that installs a package, if one does."""
    import importlib.metadata
    import re

    for requirement in importlib.metadata.requires("fullspan") or []:
        extra = re.match(rf"{re.escape(package)}\b.*extra == ['\"](\w+)['\"]", requirement)
        if extra:
            return extra[1]
    return None
