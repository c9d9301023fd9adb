"""LoRA fine-tuning on the demo's examples: fullspan against transformers + peft, padded, grouped and packed.

Every contender takes optimiser steps (AdamW) over the same examples, with the same rank, targets, precision
(frozen weights in bfloat16, LoRA in float32, products in bfloat16) and threads, each in a process of its own,
in turns. Peers get their faster micro-batch of the two tried. Peak memory is compared at the same batch: all
examples of a step at once.

    python -m benchmarks training
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.interleave import median, race, serve, spread, write_results
from fullspan.checkpoints.store import find_model
from fullspan.core.device import set_threads
from fullspan.text.packing import Encoded

MODEL = "smollm2-135m-instruct"
RANK, ALPHA = 16, 32.0
STEP_EXAMPLES = 32
PACK_TOKENS = 2048
ROUNDS = 5
PEERS = ("padded", "grouped", "packed")


def examples(data: Path) -> list[Encoded]:
    """The demo's training examples, tokenised, in a fixed random order."""
    from fullspan.models.tokenizers import load_tokenizer
    from fullspan.text.chat import encode_chat
    from fullspan.text.examples import read_examples

    tokenizer = load_tokenizer(find_model(MODEL))
    read = list(read_examples(data))
    order = np.random.default_rng(0).permutation(len(read))[: STEP_EXAMPLES * 16]
    encoded = []
    for index in order:
        ids, supervised = encode_chat(tokenizer, read[index].messages)
        encoded.append(Encoded(ids, supervised))
    return encoded


def supervised_tokens(chosen: list[Encoded]) -> int:
    """Tokens that have a loss; a first token never has."""
    return sum(int(np.sum(example.supervised[1:])) for example in chosen)


class Steps:
    """Hands out the examples of one optimiser step after another and times the step."""

    def __init__(self, data: Path, grouped: bool = False) -> None:
        self.examples = examples(data)
        if grouped:
            # As transformers' length-grouped sampler: sorted within mega-batches, which are long here.
            self.examples.sort(key=lambda example: len(example.ids))
        self.count = 0

    def next(self) -> list[Encoded]:
        starts = range(0, len(self.examples), STEP_EXAMPLES)
        # Any length may come at any time, also when grouped.
        start = starts[(self.count * 7) % len(starts)]
        self.count += 1
        return self.examples[start : start + STEP_EXAMPLES]


def run_fullspan(data: Path) -> None:
    from fullspan.adapters.lora import LoRAConfig, add_lora, lora_parameters
    from fullspan.models.loading import load_model
    from fullspan.text.packing import pack, packed_batch
    from fullspan.training.steps import choose_engine

    model = load_model(find_model(MODEL), dtype=torch.bfloat16)
    add_lora(model, LoRAConfig(rank=RANK, alpha=ALPHA), seed=0)
    parameters = list(lora_parameters(model).values())
    engine = choose_engine(model, "fused")
    optimiser = torch.optim.AdamW(parameters, lr=1e-4, fused=True)
    steps = Steps(data)

    def round_() -> dict[str, float]:
        chosen = steps.next()
        started = time.perf_counter()
        n_supervised = supervised_tokens(chosen)
        total = 0.0
        for group in pack([len(example.ids) for example in chosen], PACK_TOKENS):
            total += engine.loss_and_grads(packed_batch([chosen[i] for i in group]), n_supervised)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=False)
        return figures(chosen, total / n_supervised, time.perf_counter() - started)

    serve(round_)


def run_peer(kind: str, data: Path, folder: Path, micro: int) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, attn_implementation="sdpa")
    model = get_peft_model(base, LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear"))
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=1e-4, fused=True)
    steps = Steps(data, grouped=kind == "grouped")
    batches = packed_batches if kind == "packed" else padded_batches

    def round_() -> dict[str, float]:
        chosen = steps.next()
        n_supervised = supervised_tokens(chosen)
        prepared = batches(chosen, micro)  # peers prepare their data sets beforehand
        started = time.perf_counter()
        total = 0.0
        for batch in prepared:
            with torch.autocast("cpu", torch.bfloat16):
                loss = model(**batch, num_items_in_batch=n_supervised, use_cache=False).loss
            loss.backward()
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        return figures(chosen, total, time.perf_counter() - started)

    serve(round_)


def padded_batches(chosen: list[Encoded], micro: int) -> list[dict[str, torch.Tensor]]:
    """Right-padded micro-batches, as transformers' collators make them."""
    made = []
    for start in range(0, len(chosen), micro):
        part = chosen[start : start + micro]
        width = max(len(example.ids) for example in part)
        ids = torch.zeros(len(part), width, dtype=torch.long)
        labels = torch.full_like(ids, -100)
        mask = torch.zeros_like(ids)
        for row, example in enumerate(part):
            n = len(example.ids)
            ids[row, :n] = torch.as_tensor(np.asarray(example.ids))
            labels[row, :n] = torch.where(torch.as_tensor(np.asarray(example.supervised)), ids[row, :n], -100)
            mask[row, :n] = 1
        labels[:, 0] = -100
        made.append({"input_ids": ids, "attention_mask": mask, "labels": labels})
    return made


def packed_batches(chosen: list[Encoded], micro: int) -> list[dict[str, torch.Tensor]]:
    """trl's best-fit-decreasing packing; restarted positions make transformers mask across examples."""
    import datasets
    from trl import pack_dataset

    datasets.disable_progress_bars()
    columns = {
        "input_ids": [list(map(int, example.ids)) for example in chosen],
        "labels": [
            [-100, *(int(i) if s else -100 for i, s in zip(e.ids[1:], e.supervised[1:], strict=True))]
            for e in chosen
        ],
    }
    capacity = max(PACK_TOKENS * micro // STEP_EXAMPLES, max(len(example.ids) for example in chosen))
    packed = pack_dataset(datasets.Dataset.from_dict(columns), seq_length=capacity, strategy="bfd")
    made = []
    for row in packed:
        positions = torch.cat([torch.arange(length) for length in row["seq_lengths"]])
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor([row["labels"]])
        made.append({"input_ids": ids, "labels": labels, "position_ids": positions[None]})
    return made


def figures(chosen: list[Encoded], loss: float, seconds: float) -> dict[str, float]:
    """What a round is measured by."""
    tokens = sum(len(example.ids) for example in chosen)
    return {
        "supervised_tokens_per_second": supervised_tokens(chosen) / seconds,
        "tokens_per_second": tokens / seconds,
        "loss": loss,
    }


def main() -> None:
    """Race fullspan against each peer at two micro-batches and print the ratios."""
    from benchmarks.demo_data import demo_examples
    from fullspan.models.loading import load_model, save_model

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        save_model(load_model(find_model(MODEL), dtype=torch.bfloat16), folder)
        data = demo_examples(Path(temporary))

        def command(kind: str, micro: int) -> list[str]:
            words = ["--kind", kind, "--data", str(data), "--folder", str(folder), "--micro", str(micro)]
            return [sys.executable, "-m", "benchmarks.training", *words]

        speed: dict[str, Any] = {}
        memory = race({k: command(k, STEP_EXAMPLES) for k in ("fullspan", *PEERS)}, ROUNDS)
        smaller = race({k: command(k, STEP_EXAMPLES // 4) for k in ("fullspan", *PEERS)}, ROUNDS)
    rate = "supervised_tokens_per_second"
    ours = median(memory["fullspan"], rate)
    print(f"fullspan: {ours:,.0f} supervised tokens/s ({spread(memory['fullspan'], rate)})")
    for kind in PEERS:
        # Our rate is that of the same race, so that a noisy hour weighs on both.
        whole, part = median(memory[kind], rate), median(smaller[kind], rate)
        ours_then, best = (ours, whole) if whole > part else (median(smaller["fullspan"], rate), part)
        rows = memory[kind] if whole > part else smaller[kind]
        less = median(memory["fullspan"], "peak_mib") / median(memory[kind], "peak_mib")
        print(
            f"transformers + peft, {kind}: {best:,.0f} ({spread(rows, rate)}); "
            f"ratio {ours_then / best:.2f}; our peak memory is {less:.2f} of theirs"
        )
        speed[kind] = {"rate": best, "ratio": ours_then / best, "memory_ratio": less}
    write_results("training", {"fullspan": ours, "peers": speed, "whole": memory, "quarter": smaller})


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--kind", choices=["fullspan", *PEERS], required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--micro", type=int, required=True)
    words = parser.parse_args()
    set_threads(None)
    if words.kind == "fullspan":
        run_fullspan(words.data)
    else:
        run_peer(words.kind, words.data, words.folder, words.micro)
