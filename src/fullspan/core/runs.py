"""Run directories: one place for the config, metrics, checkpoints and report of a long job."""

from __future__ import annotations

import contextlib
import json
import os
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filelock import FileLock, Timeout

from fullspan.core.errors import RunError
from fullspan.core.files import replacing


class Run:
    """A directory that one process at a time writes to.

    Make one with `Run.create` or `Run.open`; both take the directory's lock, which the operating
    system drops when the process ends, however it ends.

    Attributes
    ----------
    path : pathlib.Path
        The directory. `config.yaml`, `metrics.jsonl`, `checkpoints/` and `report.html` live there.

    Examples
    --------
    >>> import tempfile
    >>> with Run.create(tempfile.mkdtemp(), "demo") as run:
    ...     run.log(1, loss=2.5)
    ...     run.metrics()
    [{'step': 1, 'loss': 2.5}]
    """

    def __init__(self, path: Path, lock: FileLock) -> None:
        self.path = path
        self._lock = lock
        self._drop_torn_line()

    @classmethod
    def create(cls, root: Path | str, name: str) -> Self:
        """Make `root/<time>-<name>`; a number is appended when that exists already."""
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        for attempt in range(1, 1000):
            path = Path(root) / (f"{stamp}-{name}" if attempt == 1 else f"{stamp}-{name}-{attempt}")
            with contextlib.suppress(FileExistsError):
                path.mkdir(parents=True)
                return cls.open(path)
        raise RunError(f"{root} holds a thousand runs named {stamp}-{name}", "give the run another name")

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Take the run at `path`, new or existing.

        Raises
        ------
        RunError
            If another process is writing to it, or `path` is a file.
        """
        path = Path(path)
        if path.exists() and not path.is_dir():
            raise RunError(f"{path} is a file, expected a run directory", "give the path of a folder")
        path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path / ".lock")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            raise RunError(
                f"another process is writing to {path}", "wait for it to end, or give another run directory"
            ) from None
        return cls(path, lock)

    @property
    def metrics_file(self) -> Path:
        """The file that `log` appends to."""
        return self.path / "metrics.jsonl"

    def log(self, step: int, **values: float | int | str) -> None:
        """Append one line of metrics; it is on disk when the call returns."""
        line = json.dumps({"step": step, **values}) + "\n"
        with self.metrics_file.open("a", encoding="utf-8") as handle:
            handle.write(line)
            handle.flush()
            os.fsync(handle.fileno())

    def metrics(self) -> list[dict[str, Any]]:
        """All the lines logged so far."""
        return read_metrics(self.metrics_file)

    def close(self) -> None:
        """Let other processes have the directory."""
        self._lock.release()

    def _drop_torn_line(self) -> None:
        """Cut off a last line that a kill left half written, so that the next one starts clean."""
        if not self.metrics_file.exists():
            return
        content = self.metrics_file.read_bytes()
        if content and not content.endswith(b"\n"):
            with replacing(self.metrics_file) as beside:
                beside.write_bytes(content[: content.rfind(b"\n") + 1])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_metrics(path: Path | str) -> list[dict[str, Any]]:
    """Read a `metrics.jsonl`; a last line that is being written is left out.

    Raises
    ------
    RunError
        If a line is not JSON.
    """
    path = Path(path)
    if not path.exists():
        return []
    whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
    lines = []
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            values = json.loads(line)
            values["step"]
        except (json.JSONDecodeError, TypeError, KeyError):
            raise RunError(f"{path}, line {number} is no JSON object with a step: {line[:80]!r}") from None
        lines.append(values)
    return lines
