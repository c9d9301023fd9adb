"""Speculation on the CPU engine: our decoding with drafts against our plain decoding, greedy.

Three kinds of prompts: the demo's (what is this function of the standard library?), free chat, and a page of
text to summarise. Contenders take turns in one process, so that they share a load of the machine; the answers
are the same to the token, which is checked. For each kind and contender: tokens a second after the prompt was
read, over plain decoding, tokens a step, how often the first, second, ... proposal was accepted, and the
drafter's part of time.

The datastore holds the model's own answers to other prompts of the demo's kind, as `fullspan datastore
--answers` makes it. The first run makes it, in minutes, and keeps it in benchmarks/results; later ones take a
minute.

    python -m benchmarks speculation
    python -m benchmarks.speculation --ways ngram early-exit:10 folder-of-a-drafter
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import fullspan
from benchmarks.demo_data import demo_examples
from benchmarks.interleave import RESULTS, write_results
from fullspan.core.progress import progress
from fullspan.decoding.options import GenerationOptions

if TYPE_CHECKING:
    from fullspan.decoding.language_model import LanguageModel

MODEL = "smollm2-135m-instruct"
ANSWER, PROMPTS, ROUNDS, PAGE_OF_TEXT = 96, 6, 1, 2400
STORED, TOGETHER = 240, 16
STORE, ASKED = RESULTS / "speculation.datastore", RESULTS / "speculation-prompts.json"

CHAT = [
    "Why is the sky blue?",
    "Write a short story about a lighthouse keeper.",
    "Give me a recipe for pancakes.",
    "Explain recursion to a child.",
    "What should I see in Rome in two days?",
    "List ten tips for better sleep.",
]


def prepare(model: LanguageModel) -> dict[str, list[list[int]]]:
    """Tokens of each kind of prompt; they and the datastore are made if they are not there."""
    if STORE.is_file() and ASKED.is_file():
        return dict(json.loads(ASKED.read_text()))
    from fullspan.decoding.speculation.datastore import Datastore, vocabulary_key

    with tempfile.TemporaryDirectory() as folder:
        lines = demo_examples(Path(folder)).read_text(encoding="utf-8").splitlines()
    turns = [json.loads(line)["messages"][:-1] for line in lines]
    measured = turns[:: len(turns) // PROMPTS][:PROMPTS]
    others = [turn for turn in turns[7 :: len(turns) // STORED] if turn not in measured][:STORED]
    pages = sorted((Path(__file__).parent.parent / "docs").glob("*.md"))[:PROMPTS]
    asked = {
        "demo": [model.chat_ids(turn) for turn in measured],
        "chat": [model.chat_ids(question) for question in CHAT],
        "summarising": [
            model.chat_ids(f"Summarise this:\n\n{page.read_text(encoding='utf-8')[:PAGE_OF_TEXT]}")
            for page in pages
        ],
    }
    answers = []
    with progress(len(others), "the model's own answers", "prompts") as advance:
        for start in range(0, len(others), TOGETHER):
            ids = [model.chat_ids(turn) for turn in others[start : start + TOGETHER]]
            for answer in model.answer(ids, GenerationOptions(max_tokens=120)):
                answers.append(answer.token_ids)
                advance()
    RESULTS.mkdir(exist_ok=True)
    Datastore.of(answers, vocabulary_key(model.tokenizer)).save(STORE)
    ASKED.write_text(json.dumps(asked))
    return asked


def main(ways: list[str] | None = None) -> None:
    """Measure, print a table, and keep it."""
    from fullspan.decoding.speculation.tuning import measure

    model = fullspan.load(MODEL, engine="cpu")
    kept = {}
    for kind, prompts in prepare(model).items():
        found = measure(model, prompts, ways or ["ngram", str(STORE)], max_tokens=ANSWER, n_rounds=ROUNDS)
        print(f"{kind}; steps: {', '.join(f'{n}: {ms:.2f} ms' for n, ms in found.times.items())}")
        for standing in found.standings:
            print(f"  {standing.line()}", flush=True)
        kept[kind] = asdict(found)
    write_results("speculation", kept)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--ways", nargs="+", help="as --speculate takes them; else ngram and the datastore")
    main(parser.parse_args().ways)
