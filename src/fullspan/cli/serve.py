"""Serve a language model over HTTP, as OpenAI's interface has it."""

from __future__ import annotations

import importlib
from typing import Annotated

from pydantic import Field

from fullspan.checkpoints.store import find_model
from fullspan.core.config import Argument, InputPath
from fullspan.decoding.engines import WEIGHTS_HELP, Weights, check_speculate
from fullspan.serving.settings import ServerSettings, read_keys


class ServeConfig(ServerSettings):
    """Options of `fullspan serve`."""

    model: Annotated[str, Argument()] = Field(
        description="a model of the store, a GGUF file, a Hugging Face folder or an adapter folder"
    )
    adapter: InputPath | None = Field(None, description="folder of a LoRA adapter to add to the model")
    weights: Weights | None = Field(None, description=WEIGHTS_HELP)


def command(config: ServeConfig) -> None:
    """Serve a language model over HTTP, as OpenAI's interface has it."""
    # These say what is wrong before the model takes its seconds to load.
    keys = read_keys(config)
    find_model(config.model)
    check_speculate(config.speculate)
    importlib.import_module("uvicorn")
    from fullspan.decoding.loading import load
    from fullspan.serving.server import serve

    model = load(config.model, adapter=config.adapter, engine="cpu", weights=config.weights)
    serve(model, config, keys)
