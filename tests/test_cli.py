"""The command line as a person meets it: real processes, what they print, how they end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fullspan._version import __version__


def fullspan(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fullspan", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=120)


def test_version() -> None:
    assert fullspan("--version").stdout == f"fullspan {__version__}\n"


def test_unknown_verb_suggests_the_nearest() -> None:
    done = fullspan("docter")
    assert done.returncode == 2
    assert done.stderr == "error: no command named 'docter'\nhint: did you mean 'doctor'?\n"


def test_unknown_option_is_named() -> None:
    done = fullspan("doctor", "--colour")
    assert done.returncode == 2
    assert "No such option: --colour" in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_file_is_named(tmp_path: Path) -> None:
    done = fullspan("run", str(tmp_path / "none.yaml"))
    assert done.returncode == 2
    assert "none.yaml" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("where", ["before", "after"])
def test_debug_shows_the_traceback(tmp_path: Path, where: str) -> None:
    words = ["run", str(tmp_path / "none.yaml")]
    done = fullspan("--debug", *words) if where == "before" else fullspan(*words, "--debug")
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "ConfigError" in done.stderr


def test_doctor_tells_machine_packages_and_store() -> None:
    shown = fullspan("doctor").stdout
    for wanted in ("processor", "instruction sets", "torch", "numba", "store"):
        assert wanted in shown


def test_shell_completion_offers_verbs() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fullspan"],
        capture_output=True,
        text=True,
        env={
            "_FULLSPAN_COMPLETE": "complete_bash",
            "COMP_WORDS": "fullspan doc",
            "COMP_CWORD": "1",
            "PATH": "",
        },
    )
    assert "doctor" in done.stdout.split()


def test_a_config_file_stands_for_flags_and_arguments_and_flags_win(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n{"a": 2}\n')
    file = tmp_path / "options.yaml"
    file.write_text("query: SELECT a FROM rows\ntable: [rows=rows.jsonl]\nout: first.jsonl\n")
    assert fullspan("sql", "--config", str(file), cwd=tmp_path).returncode == 0
    assert fullspan("sql", "--config", str(file), "--out", "second.jsonl", cwd=tmp_path).returncode == 0
    assert (tmp_path / "first.jsonl").read_text() == (tmp_path / "second.jsonl").read_text()
    file.write_text("qery: SELECT a FROM rows\n")
    done = fullspan("sql", "--config", str(file))
    assert done.returncode == 2
    assert "SqlConfig has no option 'qery'" in done.stderr and "did you mean 'query'?" in done.stderr


def test_a_missing_argument_is_named() -> None:
    done = fullspan("report")
    assert done.returncode == 2
    assert "run: is required" in done.stderr
    assert "--target: is required" in fullspan("fit", "people.csv").stderr  # as it is typed


def test_a_terminal_that_cannot_show_a_character_shows_a_question_mark() -> None:
    words = [sys.executable, "-m", "fullspan", "dé"]
    environment = {"PYTHONIOENCODING": "ascii", "PATH": ""}
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert "no command named 'd?'" in done.stderr
