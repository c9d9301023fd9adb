"""From a row of logits to a token: fullspan against transformers' processors and draw, in turns.

The logits are SmolLM2's own, at each place of a text. A constraint's mask has no peer and is timed alone.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.interleave import write_results
from fullspan.core.device import set_threads
from fullspan.decoding.loading import load
from fullspan.decoding.options import GenerationOptions
from fullspan.decoding.sampler import Sampler, row_generator

MODEL = "smollm2-135m-instruct"
TEXT = (
    "A k-d tree is a binary tree in which every node is a point in k dimensions. Each node that is no leaf "
    'cuts the space in two, and what lies on the left side of it is found in the left subtree. {"a": 1}'
)
ROUNDS = 5
CASES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "temperature": {"temperature": 0.8},
    "top-k 50": {"temperature": 0.8, "top_k": 50},
    "top-p 0.95": {"temperature": 0.8, "top_p": 0.95},
    "top-k 50, top-p 0.95": {"temperature": 0.8, "top_k": 50, "top_p": 0.95},
    "min-p 0.05": {"temperature": 0.8, "min_p": 0.05},
    "typical 0.9": {"temperature": 0.8, "typical_p": 0.9},
    "repetition penalty 1.1": {"repetition_penalty": 1.1},
    "all of them": {
        "temperature": 0.8,
        "top_k": 200,
        "top_p": 0.95,
        "min_p": 0.01,
        "typical_p": 0.95,
        "repetition_penalty": 1.1,
    },
    "JSON schema": {"temperature": 0.8, "json_schema": {"type": "object"}},
}


def main() -> None:
    """Print microseconds a token for each case, and their ratio."""
    set_threads(None)
    model = load(MODEL)
    ids = model.prompt_ids(TEXT)
    with torch.inference_mode():
        logits = model.model(torch.tensor([ids]))[0].float()  # [T, V]
    results = {}
    for name, keywords in CASES.items():
        options = GenerationOptions(**keywords)
        ours, theirs = _ours(model, logits.numpy(), ids, options), _theirs(logits, ids, options)
        times = [(_microseconds(ours, len(ids)), _microseconds(theirs, len(ids))) for _ in range(ROUNDS + 1)]
        our_median, their_median = (statistics.median(column) for column in zip(*times[1:], strict=True))
        peer = f"transformers {their_median:,.0f} µs; ratio {their_median / our_median:.1f}"
        constrained = options.json_schema is not None
        print(f"{name:24} fullspan {our_median:6,.0f} µs" + ("" if constrained else f", {peer}"))
        results[name] = {"ours": our_median} | ({} if constrained else {"theirs": their_median})
    write_results("sampling", results)


def _ours(model: Any, logits: np.ndarray, ids: list[int], options: GenerationOptions) -> Callable[[], None]:
    """Choosing and accepting a token at each place; a constraint is met by the tokens of a JSON text."""
    [answer] = model.new_answers([ids], options, 1)
    accepted = model.tokenizer.encode('{"name": "Ada", "born": 1815, "languages": ["English", "French"]}')

    def run() -> None:
        constraint = None if answer.sampler.constraint is None else answer.sampler.constraint.fork()
        sampler = Sampler(
            options,
            row_generator(1),
            prompt_ids=ids,
            vocab_size=logits.shape[1],
            constraint=constraint,
        )
        for at, row in enumerate(logits):
            token = sampler.choose(row)
            if constraint is not None:
                if at % len(accepted) == 0 and at:
                    constraint.rollback(len(accepted))
                token = accepted[at % len(accepted)]
            sampler.accept(token)

    return run


def _theirs(logits: torch.Tensor, ids: list[int], options: GenerationOptions) -> Callable[[], None]:
    from transformers.generation import logits_process as theirs

    made: list[Any] = []
    if options.repetition_penalty != 1:
        made.append(theirs.RepetitionPenaltyLogitsProcessor(options.repetition_penalty))
    if not options.greedy:
        made.append(theirs.TemperatureLogitsWarper(options.temperature))
        if options.top_k:
            made.append(theirs.TopKLogitsWarper(options.top_k))
        if options.top_p:
            made.append(theirs.TopPLogitsWarper(options.top_p))
        if options.min_p:
            made.append(theirs.MinPLogitsWarper(options.min_p))
        if options.typical_p:
            made.append(theirs.TypicalLogitsWarper(options.typical_p))
    processors, seen = theirs.LogitsProcessorList(made), torch.tensor([ids])

    def run() -> None:
        for row in logits:
            scores = processors(seen, row[None])
            if options.greedy:
                scores.argmax(-1).item()
            else:
                torch.multinomial(scores.softmax(-1), 1).item()

    return run


def _microseconds(call: Callable[[], None], n_tokens: int) -> float:
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) / n_tokens * 1e6


if __name__ == "__main__":
    main()
