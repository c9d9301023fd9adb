"""Prefill in bfloat16: fullspan against transformers on the same weights, in turns in one process."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.interleave import write_results
from fullspan.checkpoints.store import find_model
from fullspan.core.device import set_threads
from fullspan.models.loading import load_model, save_model

MODEL = "smollm2-135m-instruct"
LENGTHS = (32, 128, 512, 1024)
ROUNDS = 15


def main() -> None:
    """Time the last token's logits of a prompt, cache filled, and print the ratio for each length."""
    from transformers import AutoModelForCausalLM

    set_threads(None)
    ours = load_model(find_model(MODEL), dtype=torch.bfloat16)
    with tempfile.TemporaryDirectory() as folder:
        save_model(ours, Path(folder) / "model")
        theirs = AutoModelForCausalLM.from_pretrained(Path(folder) / "model", dtype=torch.bfloat16)
    results = {}
    for length in LENGTHS:
        ids = torch.randint(0, 49152, (1, length), generator=torch.Generator().manual_seed(length))

        def prefill_ours(ids: torch.Tensor = ids) -> torch.Tensor:
            return ours.logits(ours.hidden(ids, cache=ours.new_cache(ids.shape[1]))[:, -1])

        def prefill_theirs(ids: torch.Tensor = ids) -> torch.Tensor:
            return theirs(ids, use_cache=True, logits_to_keep=1).logits[:, -1]

        with torch.inference_mode():
            torch.testing.assert_close(prefill_ours().float(), prefill_theirs().float(), atol=0.7, rtol=0.1)
            times = [(seconds(prefill_ours), seconds(prefill_theirs)) for _ in range(ROUNDS)]
        our_median, their_median = (statistics.median(column) for column in zip(*times, strict=True))
        ratios = sorted(theirs_ / ours_ for ours_, theirs_ in times)
        print(
            f"{length:5} tokens: fullspan {length / our_median:,.0f} tokens/s, transformers "
            f"{length / their_median:,.0f}; ratio {their_median / our_median:.2f} "
            f"({ratios[len(ratios) // 4]:.2f} to {ratios[-len(ratios) // 4]:.2f})"
        )
        results[length] = {"ours": our_median, "theirs": their_median, "ratio": their_median / our_median}
    write_results("prefill", results)


def seconds(call: Callable[[], torch.Tensor]) -> float:
    """How long one call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
