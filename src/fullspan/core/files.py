"""Files that are either whole or not there."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yield a temporary sibling of `path` that takes its place when the block succeeds.

    The sibling may be written as a file or created as a folder. When the block raises (a full
    disk, Ctrl-C), the sibling is removed and whatever stood at `path` stays as it was.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> target = pathlib.Path(tempfile.mkdtemp()) / "notes.txt"
    >>> with replacing(target) as beside:
    ...     _ = beside.write_text("whole")
    >>> target.read_text()
    'whole'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    content = beside / path.name
    try:
        yield content
        _sync(content)
        if path.is_dir() and content.is_dir():
            # A folder cannot be replaced in one call: move the old one aside first.
            os.replace(path, beside / "previous")
        os.replace(content, path)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _sync(content: Path) -> None:
    for file in [content] if content.is_file() else content.rglob("*"):
        if file.is_file():
            with file.open("rb+") as handle:
                os.fsync(handle.fileno())


def sha256(path: Path | str) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
