"""Show what this machine offers, which versions are installed and what is missing."""

from __future__ import annotations

import importlib.metadata
import platform
import re

import psutil

from fullspan.core.config import Config
from fullspan.core.device import cpu_features, cpu_name, has_fast_bfloat16, usable_cores


class DoctorConfig(Config):
    """Options of `fullspan doctor`: none."""


def command(config: DoctorConfig) -> None:
    """Show what this machine offers, which versions are installed and what is missing."""
    memory = psutil.virtual_memory()
    _section("machine")
    _line("system", f"{platform.system()} {platform.release()} {platform.machine()}")
    _line("processor", cpu_name())
    _line("threads", f"{usable_cores()}, one for each usable core")
    _line("memory", f"{memory.total / 2**30:.1f} GiB, {memory.available / 2**30:.1f} GiB free")
    _line("instruction sets", " ".join(cpu_features()) or "none that fullspan knows")
    _line("bfloat16", "in hardware" if has_fast_bfloat16() else "not in hardware: float32 is used")
    _section("packages")
    missing = _packages()
    _section("models")
    _models()
    if missing:
        print("\nmissing:")
        for extra, names in missing.items():
            print(f"  {', '.join(names)}: pip install 'fullspan[{extra}]'")
    else:
        print("\nnothing is missing")


def _packages() -> dict[str, list[str]]:
    """Print each declared dependency's version; return those that an extra would install."""
    _line("python", platform.python_version())
    _line("fullspan", importlib.metadata.version("fullspan"))
    missing: dict[str, list[str]] = {}
    for requirement in importlib.metadata.requires("fullspan") or []:
        name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
        extra = re.search(r"extra == ['\"](\w+)['\"]", requirement)
        if extra and extra[1] in ("dev", "docs", "peers"):
            continue  # for those who work on fullspan itself
        try:
            _line(name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            _line(name, "not installed")
            missing.setdefault(extra[1] if extra else "", []).append(name)
    return missing


def _models() -> None:
    from fullspan.checkpoints.store import ModelStore

    store = ModelStore()
    _line("store", str(store.root))
    for model in store.list():
        _line("model", f"{model.name}, {model.n_bytes / 1e6:.0f} MB")


def _section(title: str) -> None:
    print(f"\n{title}")


def _line(name: str, value: str) -> None:
    print(f"  {name:<18}{value}")
