"""One LoRA training step: fullspan's fused engine against transformers + peft, interleaved in one process.

    python benchmarks/fused_step.py [--model NAME_OR_PATH] [--rounds 3] [--only-ours]

The peer runs in three ways: batches padded as they come, batches of similar lengths, and packed into one row
with a block-diagonal mask. All take the same examples, LoRA on every linear layer, and bfloat16 throughout.
Prints supervised tokens per second (median over rounds) and the process's peak memory.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from fullspan.adapters.lora import LoRAConfig, add_lora
from fullspan.checkpoints.store import find_model
from fullspan.models.llama import Llama
from fullspan.models.loading import load_model
from fullspan.text.packing import Batch, Encoded, pack, packed_batch, padded_batch
from fullspan.training.fused import FusedStep

RANK = 8
TOKENS = 2048
SYSTEM_TOKENS = 24  # the default system prompt of SmolLM2's chat template


def examples(n: int, vocab_size: int) -> list[Encoded]:
    """Lengths like the demo's: a shared system prompt, a question, a supervised answer; 60 to 250 tokens."""
    draw = np.random.default_rng(0)
    system = draw.integers(0, vocab_size, SYSTEM_TOKENS)
    made = []
    for _ in range(n):
        question = draw.integers(15, 40)
        answer = int(np.clip(draw.lognormal(4.1, 0.6), 20, 190))
        ids = np.concatenate([system, draw.integers(0, vocab_size, question + answer)])
        made.append(Encoded(ids, np.arange(len(ids)) >= len(system) + question))
    return made


def packed(data: list[Encoded]) -> list[Batch]:
    bins = pack([len(example.ids) for example in data], TOKENS)
    return [packed_batch([data[index] for index in indices]) for indices in bins]


def peer_model(ours: Llama) -> torch.nn.Module:
    import peft
    import transformers

    config = transformers.LlamaConfig(**ours.config.to_hf())
    model = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
    model.load_state_dict(ours.state_dict(), strict=False)
    lora = peft.LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear")
    return peft.get_peft_model(model, lora, autocast_adapter_dtype=False)


def peer_step(model: torch.nn.Module, batch: Batch) -> None:
    ids, positions, segments, labels = (
        torch.from_numpy(array) for array in (batch.ids, batch.positions, batch.segments, batch.labels)
    )
    if segments.shape[0] == 1:
        n = ids.shape[1]
        same = (segments[0][:, None] == segments[0][None]) & torch.ones(n, n).tril().bool()
        mask = torch.zeros(n, n).masked_fill_(~same, -torch.inf).to(torch.bfloat16)[None, None]
    else:
        mask = (segments >= 0).long()
    logits = model(input_ids=ids, position_ids=positions, attention_mask=mask).logits
    loss = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="sum"
    )
    (loss / batch.n_supervised).backward()


def rate(step: Callable[[Batch], object], batches: list[Batch]) -> float:
    start = time.perf_counter()
    for batch in batches:
        step(batch)
    return sum(batch.n_supervised for batch in batches) / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only-ours", action="store_true")
    options = parser.parse_args()
    model = load_model(find_model(options.model), dtype=torch.bfloat16)
    data = examples(28, model.config.vocab_size)
    by_length = sorted(data, key=lambda example: len(example.ids))
    ways: dict[str, tuple[Callable[[Batch], object], list[Batch]]] = {}
    if not options.only_ours:
        peer = peer_model(model)
        batch_size = TOKENS // max(len(example.ids) for example in data)

        def groups(order: list[Encoded]) -> list[Batch]:
            return [padded_batch(order[i : i + batch_size]) for i in range(0, len(order), batch_size)]

        for name, batches in (
            ("peer, padded", groups(data)),
            ("peer, length-grouped", groups(by_length)),
            ("peer, packed", packed(data)),
        ):
            ways[name] = (lambda batch: peer_step(peer, batch), batches)
    add_lora(model, LoRAConfig(rank=RANK, alpha=2 * RANK))
    fused = FusedStep(model)
    start = time.perf_counter()
    ways["fullspan, fused"] = (lambda batch: fused.loss_and_grads(batch, batch.n_supervised), packed(data))
    rate(*ways["fullspan, fused"])
    print(f"first pass {time.perf_counter() - start:.1f} s (with compilation)")
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, (step, batches) in ways.items():
            rates[name].append(rate(step, batches))
    tokens = sum(len(example.ids) for example in data)
    supervised = sum(batch.n_supervised for batch in ways["fullspan, fused"][1])
    print(f"{len(data)} examples, {tokens} tokens, {supervised} supervised")
    ours = statistics.median(rates["fullspan, fused"])
    for name, found in rates.items():
        one = statistics.median(found)
        spread = f"{min(found):.0f} to {max(found):.0f}"
        print(f"{name:22} {one:7.0f} supervised tokens/s ({spread}); ours is {ours / one:.2f} times that")
    print(f"peak memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


if __name__ == "__main__":
    main()
