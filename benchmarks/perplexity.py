"""What quantised arithmetic costs: the engine's perplexity against torch's, with dequantised weights.

The text is Python's own reference, which every Python brings along (`pydoc_data.topics`), in pieces of 1,024
tokens.

    python -m benchmarks perplexity
"""

from __future__ import annotations

import math
import pydoc_data.topics

import torch

from benchmarks.interleave import write_results
from fullspan.decoding.loading import load
from fullspan.decoding.scoring import score_tokens

MODEL = "smollm2-135m-instruct"
N_TOKENS, PIECE = 100_000, 1024


def main() -> None:
    """Score the text by both, piece by piece."""
    engine, reference = load(MODEL, engine="cpu"), load(MODEL, dtype=torch.float32)
    text = "\n\n".join(topic for _, topic in sorted(pydoc_data.topics.topics.items()))
    ids = engine.prompt_ids(text)[:N_TOKENS]
    totals = {"engine": 0.0, "torch float32": 0.0}
    n, furthest = 0, 0.0
    for start in range(0, len(ids) - 1, PIECE):
        piece = ids[start : start + PIECE]
        scores = [score_tokens(model.decoder, piece) for model in (engine, reference)]
        for name, score in zip(totals, scores, strict=True):
            totals[name] += score.total
        furthest = max(
            furthest, *(abs(a - b) for a, b in zip(*(each.logprobs for each in scores), strict=True))
        )
        n += len(piece) - 1
        ours, theirs = (math.exp(-total / n) for total in totals.values())
        print(f"  {n:,} tokens: engine {ours:.4f}, torch {theirs:.4f}, {ours / theirs - 1:+.4%}", flush=True)
    print(
        f"perplexity on {n:,} tokens: engine {ours:.4f}, dequantised in float32 {theirs:.4f}, "
        f"{ours / theirs - 1:+.4%}; largest difference of a log-probability {furthest:.3f}"
    )
    write_results("perplexity", {"tokens": n, "engine": ours, "torch_float32": theirs, "largest": furthest})


if __name__ == "__main__":
    main()
