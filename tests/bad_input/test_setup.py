"""`make demo` and `make test` on a machine that cannot reach a package index."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_without_an_index_one_sentence_says_what_is_missing_and_what_to_do(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "tools", tmp_path / "tools")
    environment = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "no-wheels")}
    command = ["make", "demo", f"PYTHON={sys.executable}"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    error, *_ = done.stderr.splitlines()  # make adds that it stops
    assert error.startswith("error: pip could not get 'setuptools")
    assert "PIP_FIND_LINKS=/folder" in error and "PIP_INDEX_URL" in error
    assert not (tmp_path / ".venv" / "fullspan-extras.txt").exists()

    # A virtual environment that was left half made is made again.
    shutil.rmtree(tmp_path / ".venv" / "lib")
    again = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert "making .venv" in again.stdout and again.stderr == done.stderr
