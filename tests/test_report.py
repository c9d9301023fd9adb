"""The report of a run, from what the run holds."""

from __future__ import annotations

import html.parser
import json
from pathlib import Path

import pytest

from fullspan.core.errors import RunError
from fullspan.core.runs import Run
from fullspan.pipelines.report import write_report


class Text(html.parser.HTMLParser):
    """Collects what a reader sees, and what the page would load from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self.loads: list[str] = []

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        # Plots refer to parts of themselves by #name.
        self.loads += [v for k, v in attrs if k in ("src", "href") and v and not v.startswith("#")]


@pytest.fixture
def run_path(tmp_path: Path) -> Path:
    with Run.open(tmp_path / "run") as run:
        run.log(0, eval_loss=3.0, eval_perplexity=20.1)
        for step in (1, 2):
            speed = {"tokens_per_second": 100.0, "supervised_tokens_per_second": 25.0 * step}
            run.log(
                step, loss=3.0 / step, tokens=80, supervised_tokens=20, peak_rss_mib=500.0 + step, **speed
            )
        run.log(2, eval_loss=2.0, eval_perplexity=7.4)
    before = {"loss": 3.0, "perplexity": 20.09}
    sample = {"question": "What is <b>?", "reference": "A tag.", "before": "Bold & loud", "after": "A tag"}
    evaluation = {"before": before, "after": {"loss": 2.0, "perplexity": 7.39}, "samples": [sample]}
    (run.path / "evaluation.json").write_text(json.dumps(evaluation))
    (run.path / "rows.jsonl").write_text('{"name": "first", "tags": ["x", "y"]}\n' * 5)
    (run.path / "config.yaml").write_text(
        "name: small\ndescription: A small run.\nclosing: ['look at {run}']\n"
    )
    return run.path


def test_report_shows_figures_samples_tables_and_stands_alone(run_path: Path) -> None:
    page = Text()
    page.feed(write_report(run_path).read_text(encoding="utf-8"))
    for wanted in ("small", "A small run.", "20.09", "7.39", "160", "502 MiB", "What is <b>?", "Bold & loud"):
        assert wanted in page.text
    assert '["x", "y"]' in page.text and "5 rows; the first 3." in page.text
    assert f"look at {run_path}" in page.text
    assert page.loads == []
    assert write_report(run_path).read_text(encoding="utf-8").count("<svg") == 2


def test_report_of_a_training_run_alone(run_path: Path) -> None:
    for name in ("evaluation.json", "rows.jsonl", "config.yaml"):
        (run_path / name).unlink()
    assert "held out" in write_report(run_path).read_text(encoding="utf-8")


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a run directory"):
        write_report(tmp_path)
