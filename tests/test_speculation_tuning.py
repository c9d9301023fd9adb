"""The fastest way to decode is measured, kept beside the model, and never slower than plain decoding."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import fullspan
from fullspan.cli import main
from fullspan.core.errors import ConfigError, DataError
from fullspan.decoding.language_model import LanguageModel
from fullspan.decoding.speculation import tuned as kept
from fullspan.decoding.speculation.choice import drafter_for
from fullspan.decoding.speculation.datastore import Datastore
from fullspan.decoding.speculation.early_exit import EarlyExitDrafter, first_layers
from fullspan.decoding.speculation.ngram import NGramDrafter
from fullspan.decoding.speculation.pace import StepCosts
from fullspan.decoding.speculation.racing import PLAIN, Turn, fastest, standings
from fullspan.decoding.speculation.statistics import Speculation
from fullspan.decoding.speculation.tuned import Source, Tuned, load_tuned, save_tuned
from fullspan.decoding.speculation.tuning import Measured, measure, tune


@pytest.fixture(scope="module")
def model(tiny_chat_model: Path, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """A copy, as files are put beside it."""
    folder = tmp_path_factory.mktemp("tuned") / "tiny"
    folder.mkdir()
    for file in tiny_chat_model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return fullspan.load(folder, weights="q8")


def run(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> None:
    monkeypatch.setattr(sys, "argv", ["fullspan", *map(str, words)])
    with pytest.raises(SystemExit, match="0"):
        main()


def turns(name: str, seconds: list[list[float]]) -> list[Turn]:
    """Of some prompts and rounds, 10 tokens each."""
    counts = None if name == PLAIN else Speculation(n_steps=5, n_tokens=10)
    return [Turn(name, p, 10, s, counts) for p, rounds in enumerate(seconds) for s in rounds]


def test_noise_is_not_taken_for_speed() -> None:
    generator = np.random.default_rng(0)
    plain = generator.uniform(0.8, 1.2, (8, 2))
    uneven = plain / np.array(
        [[1.9], [0.8]] * 4
    )  # faster on half of the prompts: with others it may be slower
    contenders = {"slower": plain * 1.1, "as fast": plain * 1.0, "uneven": uneven, "fast": plain / 1.4}
    found = standings(
        turns(PLAIN, plain.tolist())
        + [turn for name, seconds in contenders.items() for turn in turns(name, seconds.tolist())]
    )
    by_name = {each.contender: each for each in found}
    assert by_name["fast"].ratio == pytest.approx(1.4) == by_name["fast"].at_least
    assert by_name["fast"].tokens_per_step == 2
    assert by_name["uneven"].at_least < 1.02 < 1.1 < by_name["uneven"].ratio
    best = fastest(found)
    assert best is not None and best.contender == "fast"
    assert fastest([each for each in found if each.contender != "fast"]) is None


def test_a_choice_is_measured_kept_and_used(model: LanguageModel) -> None:
    prompts = [model.chat_ids(text) for text in ("abcabc", "say it again and again")]
    found = measure(model, prompts, ["ngram", "early-exit:1"], max_tokens=12, n_rounds=1)
    assert [each.contender for each in found.standings] == [PLAIN, "ngram", "early-exit:1"]
    assert all(each.tokens_per_second > 0 for each in found.standings)
    assert found.times[1] > 0 and max(found.times) == 16
    plain = turns(PLAIN, [[1.0, 1.0]] * 4)
    for way, seconds in (("early-exit:1", 0.5), ("ngram", 0.7), ("ngram", 1.3)):
        standing = standings(plain + turns(way, [[seconds, seconds]] * 4))
        chosen, place = tune(model, Measured(found.times, standing))
        expected = way if seconds < 1 else None
        assert (chosen.speculate, place.name) == (expected, ".speculation.json")
        drafter = drafter_for("auto", model.source)
        assert (expected is None) == (drafter is None)
        if isinstance(drafter, NGramDrafter):
            assert drafter.costs == StepCosts.between(found.times)
        assert isinstance(drafter, EarlyExitDrafter) == (way == "early-exit:1")
    answer = model.generate("abcabc", max_tokens=5, speculate="auto")
    assert answer.speculation is None  # plain decoding was chosen
    assert answer.token_ids == model.generate("abcabc", max_tokens=5).token_ids


def test_choices_are_of_one_machine_model_and_version(
    model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(b"weights")
    source, tuned = Source(file), Tuned(speculate="ngram", times={1: 2.0, 2: 2.5}, ratio=1.3)
    assert load_tuned(source) is None
    assert isinstance(drafter_for("auto", source), NGramDrafter)
    assert isinstance(drafter_for("auto", None), NGramDrafter)
    assert save_tuned(source, tuned) == tmp_path / ".m.gguf.speculation.json"
    found = load_tuned(source)
    assert found is not None and (found.speculate, found.times) == ("ngram", tuned.times)
    assert load_tuned(Source(file, weights="q8")) is None
    for name, value in (("cpu_name", "another"), ("__version__", "0.0"), ("usable_cores", 99)):
        with monkeypatch.context() as patch:
            patch.setattr(kept, name, value if name == "__version__" else lambda value=value: value)
            assert load_tuned(source) is None
    save_tuned(Source(file, weights="q8"), tuned)
    assert load_tuned(source) == found  # the other stands beside it
    file.write_bytes(b"other weights")
    assert load_tuned(source) is None
    for broken in ("{", "[]", '{"k": {"speculate": 3, "times": {}, "ratio": 1}}', "\xff"):
        source.place.write_text(broken, encoding="latin-1")
        with pytest.raises(DataError, match=r"m\.gguf\.speculation\.json"):
            load_tuned(source)
    save_tuned(source, tuned)
    assert load_tuned(source) is not None
    with pytest.raises(ConfigError, match="was not loaded from a file"):
        tune(LanguageModel(model.decoder, model.tokenizer, "made"), Measured({1: 1.0}, []))


def test_the_first_layers_are_a_model(model: LanguageModel, tiny_chat_model: Path) -> None:
    """As what torch computes when its other layers are taken away."""
    import dataclasses

    import torch

    from fullspan.decoding.engine.decoder import EngineDecoder
    from fullspan.decoding.engine.engine import Engine
    from fullspan.decoding.engine.loading import pack_model
    from fullspan.models.llama import Llama
    from fullspan.models.loading import load_model

    whole = load_model(tiny_chat_model, dtype=torch.float32)
    short = Llama(dataclasses.replace(whole.config, n_layers=1))
    short.load_state_dict(whole.state_dict(), strict=False)
    assert isinstance(model.decoder, EngineDecoder)
    packed = model.decoder.engine.packed
    first = first_layers(packed, 1)
    assert np.shares_memory(first.memory, packed.memory)
    ids = model.prompt_ids("some text")
    engine, expected = Engine(first, 1), Engine(pack_model(short, "q8"), 1)
    found = engine.step(ids, engine.new_cache())
    np.testing.assert_array_equal(found, expected.step(ids, expected.new_cache()))
    for n_layers, message in ((2, "early exit after 2 of 2 layers"), (0, "expected 1 or more")):
        with pytest.raises(ConfigError, match=message):
            model.generate("a", speculate=f"early-exit:{n_layers}")
    with pytest.raises(ConfigError, match="names no number of layers"):
        model.generate("a", speculate="early-exit:x")


@pytest.mark.parametrize(
    "options", [{}, {"temperature": 1.0, "top_p": 0.9, "seed": 4}], ids=["greedy", "sampled"]
)
def test_answers_with_early_exit(model: LanguageModel, options: dict[str, float]) -> None:
    prompts = ["abcabcabc", "One, two"]
    found = model.generate(prompts, max_tokens=24, speculate="early-exit:1", **options)  # type: ignore[arg-type]
    assert all(each.speculation and each.speculation.n_proposed for each in found)
    if not options:
        plain = model.generate(prompts, max_tokens=24)
        assert [each.token_ids for each in found] == [each.token_ids for each in plain]


def test_the_command_line(
    model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert model.source is not None
    folder, prompts, store = model.source.path, tmp_path / "questions.txt", tmp_path / "answers.store"
    prompts.write_text("What is abc?\n\nWhat is abd?\n")
    run(
        monkeypatch, "datastore", prompts, "--model", folder, "--out", store, "--answers", "--max-tokens", "9"
    )
    assert "tokens" in capsys.readouterr().out
    answers = model.chat(["What is abc?", "What is abd?"], max_tokens=9)
    expected = [-1, *answers[0].token_ids, -1, *answers[1].token_ids, -1]
    assert Datastore.load(store).tokens.tolist() == expected
    words = [
        "bench",
        "decode",
        folder,
        "--weights",
        "q8",
        "--prompts",
        prompts,
        "--max-tokens",
        "9",
        "--tune",
    ]
    run(monkeypatch, *words, "--speculate", "ngram", "--speculate", store)
    said = capsys.readouterr().out
    assert "steps by their number of tokens: 1: " in said
    assert "answers.store" in said and "of plain" in said
    assert "--speculate auto is now" in said
    assert model.source.place.is_file()
    words = ["generate", folder, "abc", "--weights", "q8", "--max-tokens", "5", "--format", "json"]
    run(monkeypatch, *words, "--speculate", "auto")
    assert json.loads(capsys.readouterr().out)["text"] == model.generate("abc", max_tokens=5).text


def test_a_datastore_of_files(
    model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert model.source is not None
    text, rows, store = tmp_path / "notes.md", tmp_path / "rows.jsonl", tmp_path / "out.store"
    text.write_text("some notes")
    rows.write_text('{"prompt": "Q", "completion": "an answer"}')
    run(monkeypatch, "datastore", text, rows, "--model", model.source.path, "--out", store)
    capsys.readouterr()
    tokens = Datastore.load(store).tokens.tolist()
    parts = [model.tokenizer.encode(part) for part in ("some notes", "an answer")]
    assert tokens == [-1, *parts[0], -1, *parts[1], -1]
    text.write_bytes(b"\xff\xfe")
    for file, message in ((text, "is not UTF-8"), (tmp_path / "none.txt", "No such file|no such file")):
        monkeypatch.setattr(
            sys, "argv", ["fullspan", "datastore", str(file), "--model", str(model.source.path), "--out", "x"]
        )
        with pytest.raises(SystemExit, match="2"):
            main()
        assert re.search(message, capsys.readouterr().err)


def test_the_page_shows_each_tree(
    model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from html.parser import HTMLParser

    assert model.source is not None
    page = tmp_path / "page.html"
    words = ["generate", model.source.path, "<b>abcabcabc", "--weights", "q8", "--max-tokens", "40"]
    run(monkeypatch, *words, "--speculate", "early-exit:1", "--speculation-report", page)
    plain = model.generate("<b>abcabcabc", max_tokens=40)
    captured = capsys.readouterr()
    assert captured.out == plain.text + "\n" and f"wrote {page}" in captured.err
    counts = model.generate("<b>abcabcabc", max_tokens=40, speculate="early-exit:1").speculation
    assert counts is not None

    class Reader(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.classes: list[str] = []
            self.addresses: list[str] = []

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.classes += [value or "" for name, value in attrs if name == "class"]
            self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]

    text = page.read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(text)
    assert not reader.addresses and "http" not in text
    # One of each is the legend's.
    assert reader.classes.count("token accepted") - 1 == sum(counts.accepted)
    shown = reader.classes.count("token accepted") + reader.classes.count("token rejected") - 2
    assert shown == counts.n_proposed
    assert f"<b>{counts.tokens_per_step:.2f}</b>tokens a step" in text
    monkeypatch.setattr(sys, "argv", ["fullspan", *map(str, words), "--speculation-report", str(page)])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "about one answer with --speculate" in capsys.readouterr().err
