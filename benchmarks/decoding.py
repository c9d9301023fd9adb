"""Decoding on the CPU: fullspan's engine against llama.cpp on the same file, and transformers in bfloat16.

Each contender is a process of its own, and they take turns. A round is: a prompt of 128 tokens and 200 greedy
tokens after it, one at a time; steps of several tokens at once behind that prompt; a prompt of 1,024 tokens;
and of fullspan alone a step of one token for each of 8 sequences, and single tokens behind 4,096.

llama.cpp takes part where llama-cpp-python is installed. On a machine with virtual cores its native build may
use instructions that the host does not pass on: build it for those that the processor states.

    python -m benchmarks decoding
"""

from __future__ import annotations

import argparse
import importlib.util
import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.interleave import median, race, serve, spread, write_results
from fullspan.checkpoints.store import find_model
from fullspan.core.device import usable_cores

MODEL = "smollm2-135m-instruct"
PROMPT, ANSWER, LONG, FAR = 128, 200, 1024, 4096
STEPS = (1, 2, 4, 8, 16, 32, 64)
REPEATS = 5
ROUNDS = 5
SEQUENCES = 8


def ids(n: int) -> list[int]:
    """A prompt of tokens that any model of this vocabulary takes."""
    return np.random.default_rng(n).integers(1000, 40000, n).tolist()


def seconds(call: Callable[[], Any]) -> float:
    """How long one call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def peak_mib() -> float:
    """The largest resident set so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def reader(table: np.ndarray) -> Callable[[], None]:
    """What does nothing but read the bytes that a step of one token reads, on all cores."""
    from fullspan.core.kernels import kernel
    from fullspan.core.simd import address, load_int32, spread_int32, store
    from fullspan.core.threads import Crew

    @kernel()
    def read(thread: int, n_threads: int, places: Any, sizes: Any, out: Any) -> None:
        a = b = spread_int32(np.int32(0))
        for i in range(len(places)):
            lines = sizes[i] // 128
            for line in range(lines * thread // n_threads, lines * (thread + 1) // n_threads):
                a = a + load_int32(places[i] + 128 * line)
                b = b + load_int32(places[i] + 128 * line + 64)
        store(address(out[thread]), a + b)

    crew = Crew(usable_cores())
    places, sizes = table[:, 0].copy(), table[:, 2] * table[:, 4]
    out = np.zeros((usable_cores(), 16), np.int32)
    return lambda: crew.run(read, places, sizes, out)


def run_fullspan() -> None:
    started = time.perf_counter()
    from fullspan.decoding.engine.decoder import EngineDecoder
    from fullspan.decoding.engine.engine import Segment
    from fullspan.decoding.loading import load

    imported = time.perf_counter()
    decoder = load(MODEL, engine="cpu").decoder
    assert isinstance(decoder, EngineDecoder)
    engine = decoder.engine
    ready = {"import_s": imported - started, "load_s": time.perf_counter() - imported}

    def round_() -> dict[str, float]:
        figures = dict(ready)
        batch = decoder.begin([ids(PROMPT)], ANSWER)

        def answer() -> None:
            for _ in range(ANSWER):
                batch.append([int(batch.logits[0].argmax())])

        figures["decode"] = ANSWER / seconds(answer)
        cache = engine.new_cache()
        engine.read(ids(PROMPT), cache, n_logits=1)
        for n in STEPS:
            times = []
            for _ in range(REPEATS):
                times.append(seconds(lambda n=n: engine.step(ids(n), cache)))  # type: ignore[misc]
                cache.truncate(PROMPT)
            figures[f"step_{n}_ms"] = statistics.median(times) * 1e3
        empty = engine.new_cache()
        figures["prefill"] = LONG / seconds(lambda: engine.read(ids(LONG), empty, n_logits=1))
        # In the first round, before what the others have no part in.
        figures["race_peak_mib"] = ready.setdefault("race_peak_mib", peak_mib())
        caches = [cache.copy() for _ in range(SEQUENCES)]
        together = [Segment(each, [5]) for each in caches]
        times = [seconds(lambda: engine.step_all(together)) for _ in range(REPEATS)]
        figures["eight_streams"] = SEQUENCES / statistics.median(times)
        far = engine.new_cache()
        engine.read(ids(FAR), far, n_logits=1)
        times = [seconds(lambda: engine.step([5], far)) for _ in range(4 * REPEATS)]
        figures["decode_at_4096"] = 1 / statistics.median(times)
        return figures

    serve(round_)


def run_reading() -> None:
    from fullspan.decoding.engine.decoder import EngineDecoder
    from fullspan.decoding.loading import load

    decoder = load(MODEL, engine="cpu").decoder
    assert isinstance(decoder, EngineDecoder)
    packed = decoder.engine.packed
    read = reader(packed.table()[:-1])  # the last is the embedding, of which a step reads one row
    read()  # compiles
    serve(lambda: {"read_ms": statistics.median(seconds(read) for _ in range(20)) * 1e3})


def run_llama_cpp() -> None:
    import llama_cpp

    started = time.perf_counter()
    cores = usable_cores()
    model = llama_cpp.Llama(
        str(find_model(MODEL)),
        n_ctx=LONG + ANSWER,
        n_batch=512,
        n_threads=cores,
        n_threads_batch=cores,
        logits_all=False,
        verbose=False,
    )
    ready = {"load_s": time.perf_counter() - started}
    batch = llama_cpp.llama_batch_init(512, 0, 1)
    context, memory = model.ctx, llama_cpp.llama_get_memory(model.ctx)

    def step(tokens: list[int], at: int, all_logits: bool) -> None:
        for start in range(0, len(tokens), 512):
            piece = tokens[start : start + 512]
            batch.n_tokens = len(piece)
            for i, token in enumerate(piece):
                batch.token[i], batch.pos[i] = token, at + start + i
                batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
                batch.logits[i] = all_logits or start + i == len(tokens) - 1
            assert llama_cpp.llama_decode(context, batch) == 0
        llama_cpp.llama_synchronize(context)

    def greedy() -> int:
        logits = llama_cpp.llama_get_logits_ith(context, -1)
        return int(np.ctypeslib.as_array(logits, (model.n_vocab(),)).argmax())

    def forget(at: int) -> None:
        llama_cpp.llama_memory_seq_rm(memory, 0, at, -1)

    def round_() -> dict[str, float]:
        figures = dict(ready)
        forget(0)
        step(ids(PROMPT), 0, False)

        def answer() -> None:
            for at in range(PROMPT, PROMPT + ANSWER):
                step([greedy()], at, False)

        figures["decode"] = ANSWER / seconds(answer)
        for n in STEPS:
            times = []
            for _ in range(REPEATS):
                forget(PROMPT)
                times.append(seconds(lambda n=n: step(ids(n), PROMPT, True)))  # type: ignore[misc]
            figures[f"step_{n}_ms"] = statistics.median(times) * 1e3
        forget(0)
        figures["prefill"] = LONG / seconds(lambda: step(ids(LONG), 0, False))
        figures["race_peak_mib"] = peak_mib()
        return figures

    serve(round_)


def run_transformers() -> None:
    import tempfile

    import torch
    from transformers import AutoModelForCausalLM

    from fullspan.core.device import set_threads
    from fullspan.models.loading import load_model, save_model

    set_threads(None)
    with tempfile.TemporaryDirectory() as folder:
        save_model(load_model(find_model(MODEL), dtype=torch.bfloat16), f"{folder}/model")
        started = time.perf_counter()
        model = AutoModelForCausalLM.from_pretrained(f"{folder}/model", dtype=torch.bfloat16)
        ready = {"load_s": time.perf_counter() - started}

    @torch.inference_mode()
    def round_() -> dict[str, float]:
        figures = dict(ready)
        out = model(torch.tensor([ids(PROMPT)]), use_cache=True, logits_to_keep=1)

        def answer() -> None:
            nonlocal out
            for _ in range(ANSWER):
                token = out.logits[:, -1].argmax(-1, keepdim=True)
                out = model(token, past_key_values=out.past_key_values, use_cache=True)

        figures["decode"] = ANSWER / seconds(answer)
        cache = model(torch.tensor([ids(PROMPT)]), use_cache=True, logits_to_keep=1).past_key_values
        for n in STEPS:
            times = []
            for _ in range(REPEATS):
                call = torch.tensor([ids(n)])
                times.append(seconds(lambda call=call: model(call, past_key_values=cache)))  # type: ignore[misc]
                cache.crop(-n)
            figures[f"step_{n}_ms"] = statistics.median(times) * 1e3
        long = torch.tensor([ids(LONG)])
        figures["prefill"] = LONG / seconds(lambda: model(long, use_cache=True, logits_to_keep=1))
        figures["race_peak_mib"] = peak_mib()
        return figures

    serve(round_)


RUNNERS = {
    "fullspan": run_fullspan,
    "reading": run_reading,
    "llama.cpp": run_llama_cpp,
    "transformers": run_transformers,
}


def main() -> None:
    """Race, and print each figure beside the peers' and the ratio of the medians."""
    names = [name for name in RUNNERS if name != "llama.cpp" or importlib.util.find_spec("llama_cpp")]
    commands = {name: [sys.executable, "-m", "benchmarks.decoding", "--run", name] for name in names}
    measured = race(commands, ROUNDS)
    ours = measured["fullspan"]
    for figure in ours[0]:
        line = f"{figure:15} fullspan {median(ours, figure):,.4g} ({spread(ours, figure)})"
        less_is_better = figure.endswith(("_ms", "_s", "_mib"))
        for name in names[1:]:
            if name != "reading" and figure in measured[name][0]:
                theirs = measured[name]
                ratio = median(ours, figure) / median(theirs, figure)
                line += f"; {name} {median(theirs, figure):,.4g} ({spread(theirs, figure)}), "
                line += f"ratio {1 / ratio if less_is_better else ratio:.2f}"
        print(line)
    one, read = median(ours, "step_1_ms"), median(measured["reading"], "read_ms")
    print(f"reading the same bytes alone: {read:.2f} ms; a step of one token: {one / read:.2f} times that")
    print("steps against one:", ", ".join(f"{n}: {median(ours, f'step_{n}_ms') / one:.2f}" for n in STEPS))
    write_results("decoding", {"rounds": measured})


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", choices=list(RUNNERS))
    run = parser.parse_args().run
    if run:
        RUNNERS[run]()
    else:
        main()
