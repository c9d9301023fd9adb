"""Speculation on the CPU engine: our decoding with drafts against our plain decoding, greedy.

Three kinds of prompts: the demo's (what is this function of the standard library?), free chat, and a page of
text to summarise. Contenders take turns in one process, so that they share a load of the machine; the answers
are the same to the token, which is checked. For each kind and contender: tokens a second after the prompt was
read, tokens a step, how often the first, second, ... proposal was accepted, and the drafter's part of time.

The datastore holds the demo's training examples. A smaller model of the vocabulary takes part with --draft.

    python -m benchmarks speculation
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fullspan
from benchmarks.demo_data import demo_examples
from benchmarks.interleave import write_results
from fullspan.decoding.options import GenerationOptions

if TYPE_CHECKING:
    from fullspan.decoding.language_model import LanguageModel
    from fullspan.decoding.results import Generation
    from fullspan.decoding.speculation.choice import Speculate

MODEL = "smollm2-135m-instruct"
ANSWER, PROMPTS, ROUNDS, PAGE_OF_TEXT = 128, 6, 3, 2400

CHAT = [
    "Why is the sky blue?",
    "Write a short story about a lighthouse keeper.",
    "Give me a recipe for pancakes.",
    "Explain recursion to a child.",
    "What should I see in Rome in two days?",
    "List ten tips for better sleep.",
]


def prompts(model: LanguageModel, examples: list[dict[str, Any]]) -> dict[str, list[list[int]]]:
    """Tokens of each kind of prompt."""
    asked = [example["messages"][:-1] for example in examples[:: len(examples) // PROMPTS][:PROMPTS]]
    modules = ("json", "random", "pathlib", "textwrap", "statistics", "shutil")
    pages = [Path(f"{__import__(name).__file__}").read_text(encoding="utf-8") for name in modules]
    summaries = [f"Summarise this:\n\n{page[:PAGE_OF_TEXT]}" for page in pages]
    return {
        "demo": [model.chat_ids(turns) for turns in asked],
        "chat": [model.chat_ids(question) for question in CHAT],
        "summarising": [model.chat_ids(question) for question in summaries],
    }


def answer(model: LanguageModel, ids: list[int], speculate: Speculate | None) -> tuple[Generation, float]:
    """An answer, and how long it took after its first token, which the prompt gives."""
    times: list[float] = []
    [result] = model.answer(
        [ids],
        GenerationOptions(max_tokens=ANSWER),
        after_token=lambda: times.append(time.perf_counter()),
        speculate=speculate,
    )
    return result, times[-1] - times[0]


def contenders(model: LanguageModel, examples: list[dict[str, Any]], draft: str | None) -> dict[str, Any]:
    """What is compared, by name."""
    from fullspan.decoding.speculation.datastore import Datastore
    from fullspan.decoding.speculation.ngram import NGramDrafter
    from fullspan.decoding.speculation.retrieval import RetrievalDrafter

    texts = [example["messages"][-1]["content"] for example in examples]
    started = time.perf_counter()
    store = Datastore.build(texts, model.tokenizer)
    print(f"datastore: {len(store.tokens):,} tokens in {time.perf_counter() - started:.1f} s")
    found: dict[str, Any] = {"plain": None}
    for n in (2, 3, 5, 7):
        found[f"ngram {n}"] = NGramDrafter(n)
    for n in (2, 4):
        found[f"datastore {n}"] = RetrievalDrafter(store, n)
    if draft is not None:
        found[f"model {draft}"] = fullspan.load(draft, engine="cpu")
    return found


def measure(
    model: LanguageModel, asked: dict[str, list[list[int]]], drafters: dict[str, Any]
) -> list[dict[str, Any]]:
    """One row for each kind of prompt, contender, round and prompt."""
    rows = []
    for number in range(ROUNDS):
        for kind, texts in asked.items():
            for which, ids in enumerate(texts):
                expected: tuple[int, ...] = ()
                for name, drafter in drafters.items():
                    result, seconds = answer(model, ids, drafter)
                    expected = expected or result.token_ids
                    if result.token_ids != expected:
                        raise SystemExit(f"{name} changed the answer to {kind} prompt {which}")
                    counts = result.speculation
                    rows.append(
                        {
                            "round": number,
                            "kind": kind,
                            "prompt": which,
                            "contender": name,
                            "tokens": len(result.token_ids) - 1,
                            "seconds": seconds,
                            "steps": counts.n_steps if counts else len(result.token_ids) - 1,
                            "proposed": counts.proposed if counts else [],
                            "accepted": counts.accepted if counts else [],
                            "draft_seconds": counts.draft_seconds if counts else 0.0,
                        }
                    )
    return rows


def show(rows: list[dict[str, Any]], kind: str, name: str) -> None:
    """Print a line of the table."""

    def of(contender: str, number: int) -> tuple[float, float]:
        found = [
            row for row in rows if (row["kind"], row["contender"], row["round"]) == (kind, contender, number)
        ]
        return sum(row["tokens"] for row in found), sum(row["seconds"] for row in found)

    speeds, ratios = [], []
    for number in range(ROUNDS):
        (tokens, seconds), (_, plain) = of(name, number), of("plain", number)
        speeds.append(tokens / seconds)
        ratios.append(plain / seconds)
    mine = [row for row in rows if (row["kind"], row["contender"]) == (kind, name)]
    depth = max((len(row["proposed"]) for row in mine), default=0)
    accepted = [
        sum(row["accepted"][i] for row in mine if len(row["accepted"]) > i)
        / sum(row["proposed"][i] for row in mine if len(row["proposed"]) > i)
        for i in range(depth)
    ]
    steps = sum(row["tokens"] for row in mine) / max(1, sum(row["steps"] for row in mine))
    drafting = sum(row["draft_seconds"] for row in mine) / sum(row["seconds"] for row in mine)
    print(
        f"{kind:12} {name:14} {statistics.median(speeds):6.0f} tokens/s "
        f"({min(speeds):.0f} to {max(speeds):.0f}), {statistics.median(ratios):.2f} of plain, "
        f"{steps:.2f} tokens a step, drafting {drafting:.1%}, "
        f"accepted by position {' '.join(f'{share:.2f}' for share in accepted)}"
    )


def main(draft: str | None = None) -> None:
    """Measure, print a table, and keep every answer's counts."""
    model = fullspan.load(MODEL, engine="cpu")
    with tempfile.TemporaryDirectory() as folder:
        lines = demo_examples(Path(folder)).read_text(encoding="utf-8").splitlines()
    examples = [json.loads(line) for line in lines]
    asked, drafters = prompts(model, examples), contenders(model, examples, draft)
    answer(model, asked["chat"][0], None)  # the kernels are in memory from here on
    rows = measure(model, asked, drafters)
    for kind in asked:
        for name in drafters:
            show(rows, kind, name)
    write_results("speculation", {"answers": rows})


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--draft", help="a smaller model of the same vocabulary")
    main(parser.parse_args().draft)
