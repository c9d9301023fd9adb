"""Let a language model go on from a prompt."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Annotated, Literal

from pydantic import Field

from fullspan.checkpoints.store import find_model
from fullspan.core.config import Argument, InputPath
from fullspan.core.errors import ConfigError, DataError
from fullspan.decoding.options import GenerationOptions


class GenerateConfig(GenerationOptions):
    """Options of `fullspan generate`."""

    model: Annotated[str, Argument()] = Field(
        description="a model of the store, a GGUF file, a Hugging Face folder or an adapter folder"
    )
    prompt: Annotated[str | None, Argument()] = Field(
        None, description="text to go on from; - or nothing reads standard input"
    )
    adapter: InputPath | None = Field(None, description="folder of a LoRA adapter to add to the model")
    stream: bool = Field(True, description="show text as it comes")
    format: Literal["text", "json"] = Field(
        "text", description="json: one object with the text, its tokens and the speed"
    )
    logprobs: int | None = Field(
        None, ge=0, description="with json: log-probabilities, and this many alternatives for each token"
    )


def command(config: GenerateConfig) -> None:
    """Let a language model go on from a prompt."""
    if config.logprobs is not None and config.format != "json":
        raise ConfigError("--logprobs are shown in JSON only", "add --format json")
    prompt = sys.stdin.read() if config.prompt in (None, "-") else config.prompt
    if not prompt:
        raise DataError("the prompt is empty", "give some text to go on from, or pipe it in")
    find_model(config.model)  # says that there is none before torch takes its seconds to import
    from fullspan.decoding.language_model import load

    model = load(config.model, adapter=config.adapter)
    ids = model.prompt_ids(prompt)
    if config.format == "json":
        [result] = model.answer([ids], config, config.logprobs)
        print(json.dumps({**asdict(result), "tokens_per_second": result.tokens_per_second}))
    elif config.stream:
        for piece in model.stream_answer(ids, config):
            print(piece, end="", flush=True)
        print()
    else:
        print(model.answer([ids], config)[0].text)
