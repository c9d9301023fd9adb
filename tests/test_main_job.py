"""The main job from end to end, with a tiny model: every step of the demo's recipe as its own process."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from fullspan.core.runs import read_metrics

RECIPE = Path(__file__).parent.parent / "recipes" / "pydocs.yaml"


def test_the_demo_goes_from_docstrings_to_a_report(tiny_chat_model: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_chat_model, model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 2048}))
    words = ["run", str(RECIPE), "--runs", str(tmp_path), "--set", "steps=3", "--set", f"model={model}"]
    command = [sys.executable, "-m", "fullspan", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    (run,) = tmp_path.glob("*-pydocs")

    train = [json.loads(line)["messages"] for line in (run / "train.jsonl").read_text().splitlines()]
    held_out = [json.loads(line)["messages"] for line in (run / "heldout.jsonl").read_text().splitlines()]
    assert len(train) > 2000 and len(held_out) > 100
    assert not {turns[-1]["content"] for turns in train} & {turns[-1]["content"] for turns in held_out}

    assert [line["step"] for line in read_metrics(run / "train" / "metrics.jsonl") if "loss" in line] == [
        1,
        2,
        3,
    ]
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert evaluation["after"]["loss"] < evaluation["before"]["loss"]
    assert all(sample["question"] and sample["reference"] for sample in evaluation["samples"])

    report = (run / "report.html").read_text()
    for wanted in (
        "held-out perplexity before",
        "<svg",
        f"--adapter {run / 'train' / 'adapter'}",
        "modules.parquet",
    ):
        assert wanted in report
    assert f"report: {run / 'report.html'}" in done.stdout

    again = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert again.returncode == 0
    assert again.stdout.count("unchanged, done in") == 6
