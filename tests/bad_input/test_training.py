"""Wrong options, data and circumstances of `fullspan train`: each has its error, and nothing is lost."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fullspan.adapters.lora import LoRAConfig, add_lora
from fullspan.adapters.peft_format import load_adapter, save_adapter
from fullspan.checkpoints.store import ModelStore
from fullspan.core.errors import CheckpointError, ConfigError, DataError, FullspanError, RunError
from fullspan.models.loading import load_model
from fullspan.training.config import TrainConfig
from fullspan.training.export import export_model
from fullspan.training.trainer import train


def _values(model: Path, data: Path, **options: Any) -> dict[str, Any]:
    return {
        "model": str(model), "data": data, "rank": 2, "max_steps": 2, "tokens_per_batch": 256,
        "precision": "float32", "engine": "autograd", "threads": 1,
    } | options  # fmt: skip


def _write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


ROW = {"instruction": "Add 1 and 2.", "output": "3"}

WRONG_OPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "unknown option": ({"lerning_rate": 1.0}, "no option 'lerning_rate'\nhint: did you mean 'learning_rate'"),
    "unknown model": ({"model": "smollm3"}, "smollm3"),
    "unknown target": ({"targets": ["q_porj"]}, "named 'q_porj'\nhint: did you mean 'q_proj'"),
    "head as target": ({"targets": ["lm_head"]}, "the head 'lm_head' cannot be a LoRA target"),
    "unknown objective": ({"objective": "dpo"}, "objective: input should be 'sft'"),
    "rank of zero": ({"rank": 0}, "rank: input should be greater than or equal to 1, got 0"),
    "rate of zero": ({"learning_rate": 0}, "learning_rate: input should be greater than 0"),
    "endless": ({"epochs": float("inf"), "max_steps": None}, "epochs: input should be a finite number"),
    "infinite rate": ({"learning_rate": float("inf")}, "learning_rate: input should be a finite number"),
    "no targets": ({"targets": []}, "targets: list should have at least 1 item"),
    "name that leaves runs/": ({"name": "../../x"}, "name: string should match pattern"),
    "steps and epochs": ({"epochs": 1.0}, "--epochs and --max-steps contradict each other"),
    "held out twice": (
        {"eval_data": "e.jsonl", "eval_fraction": 0.1},
        "--eval-data and --eval-fraction contradict",
    ),
    "rows of a packed batch": ({"batch_size": 4}, "--batch-size is for padded batches"),
    "tokens of a padded batch": ({"packing": False}, "--tokens-per-batch is for packed batches"),
    "patience alone": ({"patience": 2}, "--patience counts evaluations and needs --eval-every"),
    "nothing to be patient on": (
        {"patience": 2, "eval_every": 1, "eval_fraction": 0},
        "--eval-fraction is 0",
    ),
    "type without export": ({"export_type": "f16"}, "--export-type is given without --export"),
    "type of a folder": ({"export_type": "f16", "export": "merged"}, "--export-type is for a .gguf file"),
    "resume of nothing": ({"resume": True}, "--resume needs the run"),
    "longer than the context": ({"max_length": 300}, "--max-length is 300, but the model's context is 256"),
    "longer than a batch": ({"max_length": 256, "tokens_per_batch": 128}, "but --tokens-per-batch is 128"),
    "warm-up without end": ({"warmup": 2}, "--warmup is 2 steps, but the training has 2"),
    "fused DoRA": ({"dora": True, "engine": "fused"}, "fused engine cannot train this: DoRA"),
}


@pytest.mark.parametrize("case", WRONG_OPTIONS)
def test_wrong_options_are_named_and_leave_no_run(
    case: str, tiny_chat_model: Path, tiny_examples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    change, message = WRONG_OPTIONS[case]
    with pytest.raises(FullspanError, match=re.escape(message)):
        train(TrainConfig.build(_values(tiny_chat_model, tiny_examples) | change))
    assert not (tmp_path / "runs").exists()


LONG_ROW = {"instruction": "Add.", "output": "x" * 300}

USER_ONLY = {"messages": [{"role": "user", "content": "Hi"}]}

WRONG_DATA: dict[str, tuple[list[dict[str, Any]], dict[str, Any], str]] = {
    "empty": ([], {}, "holds no examples"),
    "no assistant": ([USER_ONLY], {}, "line 1: has no turn of the assistant"),
    "too long": ([ROW, LONG_ROW], {"eval_fraction": 0}, "example 2 has 325 tokens, the limit is 256"),
    "all too long": ([LONG_ROW], {"long_examples": "skip"}, "none of 1 examples fits 256"),
    # The assistant's turn begins after some 30 tokens: what is left has nothing to learn from.
    "answers cut away": ([ROW, ROW], {"max_length": 20, "long_examples": "truncate"}, "none of"),
    "one line to hold out": ([ROW], {"eval_fraction": 0.5}, "has one example: none can be held out"),
}


@pytest.mark.parametrize("case", WRONG_DATA)
def test_wrong_data_is_named_and_leaves_no_run(
    case: str, tiny_chat_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows, options, message = WRONG_DATA[case]
    data = _write(tmp_path / "data.jsonl", *rows)
    with pytest.raises(DataError, match=re.escape(message)):
        train(TrainConfig.build(_values(tiny_chat_model, data, **options)))
    assert not (tmp_path / "runs").exists()


def test_missing_data_is_named_and_leaves_no_run(tiny_chat_model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(DataError, match=r"no such file: \S+nowhere\.jsonl"):
        train(TrainConfig.build(_values(tiny_chat_model, tmp_path / "nowhere.jsonl", run=run)))
    assert not run.exists()


def test_one_line_of_data_trains_with_nothing_held_out(
    tiny_chat_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = _write(tmp_path / "data.jsonl", ROW)
    result = train(TrainConfig.build(_values(tiny_chat_model, data, run=tmp_path / "run")))
    assert (result.steps, result.loss_before) == (2, None)
    assert (result.adapter / "adapter_config.json").exists()
    assert "1 examples in 1 batches an epoch, 0 held out" in capsys.readouterr().out


def test_long_examples_can_be_truncated_or_skipped(
    tiny_chat_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = _write(tmp_path / "data.jsonl", ROW, LONG_ROW)
    for choice, said in (
        ("truncate", "1 examples truncated, 0"),
        ("skip", "0 examples truncated, 1 skipped"),
    ):
        options = {"long_examples": choice, "eval_fraction": 0, "run": tmp_path / choice}
        train(TrainConfig.build(_values(tiny_chat_model, data, **options)))
        assert said in capsys.readouterr().out


def test_diverging_training_stops_at_the_step_and_keeps_its_checkpoint(
    tiny_chat_model: Path, tiny_examples: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    # Weights of 1e25 overflow float32 in the squares of the first norm.
    options = {"learning_rate": 1e25, "warmup": 0, "max_steps": 50, "save_every": 1, "run": run}
    with pytest.raises(RunError, match=r"training diverged at step 2: loss nan.*step-1") as caught:
        train(TrainConfig.build(_values(tiny_chat_model, tiny_examples, eval_fraction=0, **options)))
    assert "learning rate below 1e+25" in caught.value.hint
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-1"]


# Run directories ----------------------------------------------------------------------------------


def test_a_used_run_directory_is_refused_and_stays(
    tiny_chat_model: Path, tiny_examples: Path, tmp_path: Path
) -> None:
    config = TrainConfig.build(_values(tiny_chat_model, tiny_examples, run=tmp_path / "run"))
    train(config)
    before = {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()}
    with pytest.raises(RunError, match="holds a run already"):
        train(config)
    assert before == {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()}


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_of_other_files_is_refused_and_stays(
    resume: bool, tiny_chat_model: Path, tiny_examples: Path, tmp_path: Path
) -> None:
    run = tmp_path / "mine"
    (run / "adapter").mkdir(parents=True)
    with pytest.raises(RunError, match="mine is not a run: it holds 'adapter'"):
        train(TrainConfig.build(_values(tiny_chat_model, tiny_examples, run=run, resume=resume)))
    assert [path.name for path in run.iterdir()] == ["adapter"]


def test_an_empty_folder_becomes_a_run_and_a_file_does_not(
    tiny_chat_model: Path, tiny_examples: Path, tmp_path: Path
) -> None:
    run, file = tmp_path / "run", tmp_path / "file"
    run.mkdir()
    (run / ".lock").touch()
    train(TrainConfig.build(_values(tiny_chat_model, tiny_examples, run=run)))
    assert (run / "config.yaml").exists()
    file.touch()
    with pytest.raises(RunError, match="file is a file, expected a run directory"):
        train(TrainConfig.build(_values(tiny_chat_model, tiny_examples, run=file)))


def test_resuming_with_other_options_or_data_is_refused_by_name(
    tiny_chat_model: Path, tiny_examples: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data.jsonl"
    data.write_bytes(tiny_examples.read_bytes())
    run = tmp_path / "run"
    train(TrainConfig.build(_values(tiny_chat_model, data, run=run)))
    with pytest.raises(RunError, match=r"rank is 3, but the run began with 2"):
        train(TrainConfig.build({"run": run, "resume": True, "rank": 3}))
    with pytest.raises(RunError, match=r"epochs is 2\.0, but the run began with None|max_steps is None"):
        train(TrainConfig.build({"run": run, "resume": True, "epochs": 2.0}))
    # The edit keeps the number of examples, so only the content tells.
    data.write_text(data.read_text().replace("Add 7", "Add 8"))
    with pytest.raises(RunError, match="content of data is"):
        train(TrainConfig.build({"run": run, "resume": True}))
    assert (run / "checkpoints" / "step-2").is_dir()


def test_resuming_with_an_edited_model_of_the_same_size_is_refused(
    tiny_chat_model: Path, tiny_examples: Path, tmp_path: Path
) -> None:
    folder, run = tmp_path / "model", tmp_path / "run"
    shutil.copytree(tiny_chat_model, folder)
    train(TrainConfig.build(_values(folder, tiny_examples, run=run)))
    (folder / "README.md").write_text("Not part of the model.")
    train(TrainConfig.build({"run": run, "resume": True}))
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1  # the exponent's lowest bit of the last weight
    weights.write_bytes(content)
    with pytest.raises(RunError, match="content of model is"):
        train(TrainConfig.build({"run": run, "resume": True}))


def test_a_damaged_checkpoint_is_named_and_the_one_before_still_resumes(
    tiny_chat_model: Path, tiny_examples: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    first = train(TrainConfig.build(_values(tiny_chat_model, tiny_examples, run=run, save_every=1)))
    adapter = (first.adapter / "adapter_model.safetensors").read_bytes()
    tensors = run / "checkpoints" / "step-2" / "tensors.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="step-2 is damaged") as caught:
        train(TrainConfig.build({"run": run, "resume": True}))
    assert "remove it" in caught.value.hint
    tensors.with_name("state.json").unlink()
    torn = run / "checkpoints" / ".step-2.abc.partial"  # what a kill in the middle of writing leaves
    torn.mkdir()
    again = train(TrainConfig.build({"run": run, "resume": True}))
    assert (again.adapter / "adapter_model.safetensors").read_bytes() == adapter
    assert not torn.exists()


def _command(config: TrainConfig, file: Path, prelude: str = "") -> list[str]:
    config.write(file)
    code = f"import sys; sys.argv[1:] = ['train', '--config', {str(file)!r}]\n{prelude}\n"
    return [sys.executable, "-c", code + "from fullspan.cli import main; main()"]


def _wait_for(file: Path, text: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not (file.exists() and text in file.read_text()):
        assert process.poll() is None, process.stdout and process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_two_processes_cannot_share_a_run_and_a_full_disk_loses_nothing(
    tiny_chat_model: Path, tiny_examples: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    values = _values(
        tiny_chat_model, tiny_examples, run=run, save_every=5, max_steps=2000, tokens_per_batch=64
    )
    config = TrainConfig.build(values)
    first = subprocess.Popen(
        _command(config, tmp_path / "a.yaml"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        _wait_for(run / "metrics.jsonl", '"step": 6,', first)
        with pytest.raises(RunError, match="another process is writing to"):
            train(TrainConfig.build({"run": run, "resume": True}))
    finally:
        first.kill()
        first.communicate()
    before = {file: file.read_bytes() for file in (run / "checkpoints").rglob("*") if file.is_file()}
    assert before

    # No file may grow past a few KiB more than the metrics: what a full disk looks like to a program.
    limit = (run / "metrics.jsonl").stat().st_size + 8192
    prelude = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))"
    config = TrainConfig.build(values | {"resume": True})
    done = subprocess.run(
        _command(config, tmp_path / "b.yaml", prelude), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2, done.stderr
    assert "could not be written" in done.stderr
    assert "--resume" in done.stderr
    assert "Traceback" not in done.stderr
    assert before == {file: file.read_bytes() for file in (run / "checkpoints").rglob("*") if file.is_file()}


def test_the_command_line_names_a_wrong_option() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fullspan", "train", "--lerning-rate", "1"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "--learning-rate" in done.stderr
    with pytest.raises(ConfigError, match="model: is required"):
        TrainConfig.build({})


# Exports ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("text.txt/model.gguf", "text.txt is no folder"),
        ("text.txt/a/b", "text.txt is no folder"),
        ("text.txt", "is a file, expected a folder"),
        ("notes", "holds 'mine.md', which is no part of a model"),
        ("taken.gguf", "is a folder, expected a file"),
    ],
)
def test_an_export_that_cannot_be_written_is_refused_before_training(
    target: str, said: str, tiny_chat_model: Path, tiny_examples: Path, tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_text("mine")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.md").write_text("mine")
    (tmp_path / "taken.gguf").mkdir()
    options = {"run": tmp_path / "run", "export": tmp_path / target}
    with pytest.raises(CheckpointError, match=said) as caught:
        train(TrainConfig.build(_values(tiny_chat_model, tiny_examples, **options)))
    assert "disk" not in str(caught.value)
    assert not (tmp_path / "run").exists()
    with pytest.raises(CheckpointError, match=said):
        export_model(str(tiny_chat_model), None, tmp_path / target)
    assert {file.read_text() for file in tmp_path.rglob("*") if file.is_file()} == {"mine"}


def test_an_adapter_exports_with_its_base_and_is_no_model_to_train(
    tiny_chat_model: Path, tiny_examples: Path, tmp_path: Path
) -> None:
    adapter = train(TrainConfig.build(_values(tiny_chat_model, tiny_examples, run=tmp_path / "run"))).adapter
    export_model(str(adapter), None, tmp_path / "alone")
    export_model(str(tiny_chat_model), adapter, tmp_path / "named")
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("alone", "named")]
    assert weights[0] == weights[1]
    with pytest.raises(CheckpointError, match="adapter is an adapter, not a model") as caught:
        train(TrainConfig.build(_values(adapter, tiny_examples, run=tmp_path / "again")))
    assert str(tiny_chat_model) in caught.value.hint
    with pytest.raises(CheckpointError, match="adapter is an adapter, not a model"):
        ModelStore(tmp_path / "store").add(adapter)


def test_resuming_what_is_no_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nope holds no run to go on with"):
        TrainConfig.build({"run": tmp_path / "nope", "resume": True})


@pytest.mark.parametrize(
    ("made_for", "told"),
    [
        ("/elsewhere/tiny-chat", False),
        ("someone/Tiny-Chat", False),
        ("tiny-chat.Q4_1.gguf", False),
        (None, False),
        ("someone/other-model", True),
    ],
)
def test_an_adapter_of_another_base_is_told(
    made_for: str | None,
    told: bool,
    tiny_chat_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = load_model(tiny_chat_model)
    add_lora(model, LoRAConfig(rank=1), seed=0)
    save_adapter(model, tmp_path / "adapter", "replaced below")
    file = tmp_path / "adapter" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": made_for}))
    load_adapter(load_model(tiny_chat_model), tmp_path / "adapter", str(tiny_chat_model))
    assert ("was made for someone/other-model" in capsys.readouterr().err) == told
