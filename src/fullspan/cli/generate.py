"""Let a language model go on from a prompt."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from fullspan.checkpoints.store import find_model
from fullspan.core.config import Argument, InputPath, OutputPath
from fullspan.core.errors import ConfigError, DataError
from fullspan.decoding.constraints import grammar_of
from fullspan.decoding.engines import (
    ENGINE_HELP,
    SPECULATE_HELP,
    WEIGHTS_HELP,
    EngineName,
    Weights,
    check_speculate,
)
from fullspan.decoding.options import MOST_SAMPLES, GenerationOptions

if TYPE_CHECKING:
    from fullspan.decoding.language_model import LanguageModel
    from fullspan.decoding.results import Generation
    from fullspan.decoding.speculation.report import Recorder


class GenerateConfig(GenerationOptions):
    """Options of `fullspan generate`."""

    model: Annotated[str, Argument()] = Field(
        description="a model of the store, a GGUF file, a Hugging Face folder or an adapter folder"
    )
    prompt: Annotated[str | None, Argument()] = Field(
        None, description="text to go on from; - or nothing reads standard input"
    )
    adapter: InputPath | None = Field(None, description="folder of a LoRA adapter to add to the model")
    engine: EngineName = Field("auto", description=ENGINE_HELP)
    weights: Weights | None = Field(None, description=WEIGHTS_HELP)
    speculate: str | None = Field(None, description=SPECULATE_HELP)
    speculation_report: OutputPath | None = Field(
        None, description="write a page about what was proposed and accepted at each step"
    )
    n: int = Field(
        1, ge=1, le=MOST_SAMPLES, description="answers to give; --temperature above 0 makes them differ"
    )
    stream: bool = Field(True, description="show text as it comes, where there is one answer")
    format: Literal["text", "json"] = Field(
        "text",
        description="json: an object for each answer, on a line, with the text, its tokens and the speed",
    )
    logprobs: int | None = Field(
        None, ge=0, description="with json: log-probabilities, and this many alternatives for each token"
    )


def command(config: GenerateConfig) -> None:
    """Let a language model go on from a prompt."""
    if config.logprobs is not None and config.format != "json":
        raise ConfigError("--logprobs are shown in JSON only", "add --format json")
    if config.speculation_report is not None and (config.speculate is None or config.n > 1):
        raise ConfigError("--speculation-report is about one answer with --speculate")
    prompt = sys.stdin.read() if config.prompt in (None, "-") else config.prompt
    if not prompt:
        raise DataError("the prompt is empty", "give some text to go on from, or pipe it in")
    # These say what is wrong before anything large is imported.
    find_model(config.model)
    grammar_of(config)
    check_speculate(config.speculate)
    from fullspan.decoding.loading import load

    model = load(config.model, adapter=config.adapter, engine=config.engine, weights=config.weights)
    ids = model.prompt_ids(prompt)
    recorder = None if config.speculation_report is None else _recorder(model, config.speculate or "auto")
    speculate = recorder or config.speculate
    if config.format == "text" and config.stream and config.n == 1:
        stream = model.stream_answer(ids, config, speculate)
        for piece in stream:
            print(piece, end="", flush=True)
        print()
        _report(model, config, stream.result, recorder)
        return
    results = model.answer([ids], config, config.logprobs, n=config.n, speculate=speculate)
    _report(model, config, results[0], recorder)
    for number, result in enumerate(results):
        if config.format == "json":
            print(json.dumps({**asdict(result), "tokens_per_second": result.tokens_per_second}))
        else:
            print(("---\n" if number else "") + result.text)


def _recorder(model: LanguageModel, speculate: str) -> Recorder:
    from fullspan.decoding.speculation.report import recorder_of

    drafter = model.drafter(speculate)
    if drafter is None:
        raise ConfigError("--speculate auto is plain decoding here, so there is nothing to report")
    return recorder_of(drafter)


def _report(
    model: LanguageModel, config: GenerateConfig, answer: Generation, recorder: Recorder | None
) -> None:
    if recorder is None or config.speculation_report is None or config.speculate is None:
        return
    from fullspan.decoding.speculation.report import write_speculation_report

    path = config.speculation_report
    write_speculation_report(path, model.name, config.speculate, answer, recorder, model.tokenizer)
    print(f"wrote {path}", file=sys.stderr)
