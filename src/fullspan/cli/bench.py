"""Measure how fast a model decodes on your prompts, and choose the fastest way."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import typer
from pydantic import Field

from fullspan.checkpoints.store import find_model
from fullspan.cli.options import with_options
from fullspan.core.config import Argument, Config, InputPath
from fullspan.core.progress import progress
from fullspan.decoding.engines import SPECULATE_HELP, WEIGHTS_HELP, Weights, check_speculate
from fullspan.text.prompts import iter_prompts

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help=__doc__,
)


@app.callback()
def _root() -> None:
    """Measure how fast a model decodes on your prompts, and choose the fastest way."""


class DecodeConfig(Config):
    """Options of `fullspan bench decode`."""

    model: Annotated[str, Argument()] = Field(
        description="a model of the store, a GGUF file, a Hugging Face folder or an adapter folder"
    )
    prompts: InputPath = Field(
        description="what you will ask: a text file with a question a line, or examples as of fullspan train"
    )
    adapter: InputPath | None = Field(None, description="folder of a LoRA adapter to add to the model")
    weights: Weights | None = Field(None, description=WEIGHTS_HELP)
    speculate: list[str] = Field(
        ["ngram"], min_length=1, description=f"a way to measure beside plain decoding; {SPECULATE_HELP}"
    )
    max_prompts: int = Field(8, ge=2, description="measure on the first so many prompts")
    max_tokens: int = Field(96, ge=2, description="most tokens of an answer")
    rounds: int = Field(2, ge=1, description="how often each prompt is answered in each way")
    tune: bool = Field(
        False,
        description="keep the fastest way beside the model, for --speculate auto; plain decoding where "
        "nothing is surely faster",
    )


@app.command()
@with_options
def decode(config: DecodeConfig) -> None:
    """Measure plain decoding and speculation on your prompts: acceptance, tokens a step and speed."""
    find_model(config.model)
    for way in config.speculate:
        check_speculate(way)
    prompts = list(islice(iter_prompts(config.prompts), config.max_prompts))
    from fullspan.decoding.loading import load
    from fullspan.decoding.speculation.tuning import measure, tune

    model = load(config.model, adapter=config.adapter, engine="cpu", weights=config.weights)
    ids = [model.chat_ids(turns) for turns in prompts]
    n_turns = len(ids) * config.rounds * (len(config.speculate) + 1)
    with progress(n_turns, "decoding", "answers") as advance:
        found = measure(
            model,
            ids,
            config.speculate,
            max_tokens=config.max_tokens,
            n_rounds=config.rounds,
            after_turn=advance,
        )
    steps = ", ".join(f"{n}: {found.times[n]:.2f} ms" for n in found.times)
    print(f"steps by their number of tokens: {steps}")
    for standing in found.standings:
        print(standing.line())
    if config.tune:
        chosen, place = tune(model, found)
        print(f"--speculate auto is now {chosen.speculate or 'plain decoding'}, kept in {place}")
