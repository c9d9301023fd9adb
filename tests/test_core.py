"""Configs, files, runs and progress."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydantic
import pytest

from fullspan.core.config import Config, InputPath, ModelName, OutputPath
from fullspan.core.device import cpu_features, threads_of, usable_cores
from fullspan.core.errors import ConfigError, FullspanError, RunError, did_you_mean
from fullspan.core.files import replacing, sha256
from fullspan.core.progress import progress
from fullspan.core.runs import Run, read_metrics
from fullspan.core.seeding import seed_everything


class Options(Config):
    """A config with one of each kind."""

    model: ModelName
    data: InputPath | None = None
    more: list[InputPath] = []  # noqa: RUF012 (pydantic copies defaults)
    out: OutputPath | None = None
    rank: int = pydantic.Field(16, ge=1)
    mode: str = "fast"


def test_config_refuses_unknown_keys_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"no option 'rnak'") as caught:
        Options.build({"model": "m", "rnak": 3})
    assert caught.value.hint == "did you mean 'rank'?"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "model: is required"),
        ({"model": "m", "rank": 0}, "rank: input should be greater than or equal to 1, got 0"),
        ({"model": "m", "rank": "many"}, "rank: .* got 'many'"),
    ],
)
def test_config_errors_name_option_and_value(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Options.build(values)


def test_config_survives_yaml(tmp_path: Path) -> None:
    options = Options(model="m", data=tmp_path / "a.jsonl", rank=8, mode="naïve: yes")
    options.write(tmp_path / "config.yaml")
    assert Options.read(tmp_path / "config.yaml") == options


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "holds a list"),
        ("", "is empty"),
        ("1: 2", "by name"),
        ("a: [", "not valid YAML"),
        ("!!python/object:os.system {}", "not valid YAML"),
    ],
)
def test_wrong_yaml_is_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        Options.read(file)


def test_missing_yaml_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        Options.read(tmp_path / "none.yaml")


def test_config_knows_what_it_reads_and_writes() -> None:
    options = Options(model="m", data=Path("a"), more=[Path("b"), Path("c")], out=Path("d"))
    assert options.input_files() == [Path("m"), Path("a"), Path("b"), Path("c")]
    assert options.output_files() == [Path("d")]
    assert Options(model="m").output_files() == []


def test_did_you_mean_lists_when_nothing_is_near() -> None:
    assert did_you_mean("zzz", ["b", "a"]) == "choose from: a, b"
    assert did_you_mean("zzz", []) == ""


def test_replacing_keeps_the_old_file_when_the_block_fails(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    with pytest.raises(OSError, match="full"), replacing(target) as beside:
        beside.write_text("half")
        raise OSError("full")
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_replacing_takes_folders(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    for content in ("first", "second"):
        with replacing(target) as beside:
            beside.mkdir()
            (beside / "inside").write_text(content)
    assert (target / "inside").read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_sha256(tmp_path: Path) -> None:
    file = tmp_path / "abc"
    file.write_bytes(b"abc")
    # The example of FIPS 180-2, appendix B.1.
    assert sha256(file) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_runs_made_in_the_same_second_are_apart(tmp_path: Path) -> None:
    runs = [Run.create(tmp_path, "x") for _ in range(3)]
    assert len({run.path for run in runs}) == 3
    for run in runs:
        run.close()


def test_metrics_survive_a_torn_line(tmp_path: Path) -> None:
    with Run.open(tmp_path / "run") as run:
        run.log(1, loss=2.0)
        with run.metrics_file.open("a") as handle:
            handle.write('{"step": 2, "lo')
        assert run.metrics() == [{"step": 1, "loss": 2.0}]
    with Run.open(tmp_path / "run") as run:
        run.log(2, loss=1.5)
        assert [line["step"] for line in run.metrics()] == [1, 2]


def test_a_broken_metrics_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\nnot json\n{"step": 2}\n')
    with pytest.raises(RunError, match="line 2 is no JSON object with a step"):
        read_metrics(tmp_path / "metrics.jsonl")


HOLD = """
import sys, time
from fullspan.core.runs import Run
run = Run.open(sys.argv[1])
print("held", flush=True)
time.sleep(60)
"""


def test_two_processes_never_share_a_run_and_a_kill_frees_it(tmp_path: Path) -> None:
    path = tmp_path / "run"
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None and other.stdout.readline() == "held\n"
    with pytest.raises(RunError, match="another process"):
        Run.open(path)
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    other.stdout.close()
    Run.open(path).close()


def test_a_run_is_never_a_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(RunError, match="is a file"):
        Run.open(file)


def test_seeding_repeats_every_generator() -> None:
    import torch

    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    seed_everything(3)
    first = draw()
    seed_everything(3)
    assert draw() == first
    seed_everything(4)
    assert draw() != first


def test_progress_prints_lines_when_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fullspan.core.progress._LINE_EVERY", 0.0)
    with progress(4, "counting", unit="sheep") as advance:
        advance(2)
        advance(2, note="done")
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("counting: 2/4 sheep (") and "s left" in first
    assert second.startswith("counting: 4/4 sheep (") and second.endswith("done")


@pytest.mark.parametrize(("n_jobs", "wanted"), [(None, 4), (0, 4), (-1, 4), (-2, 3), (-9, 1), (1, 1), (7, 7)])
def test_threads_that_n_jobs_asks_for(
    n_jobs: int | None, wanted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fullspan.core.device.usable_cores", lambda: 4)
    assert threads_of(n_jobs) == wanted


def test_machine_facts_are_of_this_machine() -> None:
    assert usable_cores() == len(os.sched_getaffinity(0))
    if Path("/proc/cpuinfo").exists():
        flags = Path("/proc/cpuinfo").read_text().split()
        assert set(cpu_features()) <= set(flags)


def test_errors_show_their_hint() -> None:
    assert str(FullspanError("bad", "do this")) == "bad\nhint: do this"
    assert str(FullspanError("bad")) == "bad"


def test_import_and_help_stay_light() -> None:
    """What makes `import fullspan` slow is named here, where a timing would be flaky."""
    code = """if True:
        import atexit, sys
        from fullspan.cli import main
        atexit.register(lambda: print(sorted({name.split('.')[0] for name in sys.modules})))
        sys.argv = ["fullspan", "--help"]
        main()
    """
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for heavy in (
        "torch",
        "numpy",
        "numba",
        "duckdb",
        "sqlglot",
        "pydantic",
        "matplotlib",
        "gguf",
        "pyarrow",
    ):
        assert f"'{heavy}'" not in loaded


def test_help_lists_every_verb() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "fullspan", "--help"], capture_output=True, text=True, check=True
    )
    folder = Path(sys.modules["fullspan.core"].__file__ or "").parent.parent / "cli"
    verbs = {file.stem for file in folder.glob("*.py")} - {"__init__", "app", "options"}
    listed = {line.split()[0] for line in shown.stdout.split("Commands:")[1].splitlines() if line.strip()}
    assert verbs <= listed
