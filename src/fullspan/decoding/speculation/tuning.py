"""Measures every way to decode on the user's prompts, and keeps the fastest for `speculate="auto"`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fullspan.core.errors import ConfigError
from fullspan.decoding.engine.decoder import EngineDecoder
from fullspan.decoding.options import GenerationOptions
from fullspan.decoding.speculation.choice import drafter_of
from fullspan.decoding.speculation.pace import StepCosts
from fullspan.decoding.speculation.racing import PLAIN, Standing, fastest, race, standings, step_times
from fullspan.decoding.speculation.tuned import Tuned, save_tuned

if TYPE_CHECKING:
    from fullspan.decoding.language_model import LanguageModel


@dataclass(frozen=True)
class Measured:
    """What was measured.

    Attributes
    ----------
    times : dict of int to float
        Milliseconds of steps by their number of tokens.
    standings : list of Standing
    """

    times: dict[int, float]
    standings: list[Standing]


def measure(
    model: LanguageModel,
    prompts: Sequence[list[int]],
    ways: Sequence[str],
    *,
    max_tokens: int = 96,
    n_rounds: int = 2,
    after_turn: Callable[[], None] | None = None,
) -> Measured:
    """Let plain decoding and some ways of speculation take turns on prompts, greedy.

    Parameters
    ----------
    model : LanguageModel
        On the CPU engine.
    prompts : sequence of list of int
    ways : sequence of str
        As `speculate` takes them.
    max_tokens, n_rounds, after_turn
        As of `race`.
    """
    if not isinstance(model.decoder, EngineDecoder):
        raise ConfigError(f"{model.name} runs on torch", "load it with engine='cpu'")
    if not prompts:
        raise ConfigError("there are no prompts to measure with")
    for name in ways:
        if name in (PLAIN, "auto"):
            raise ConfigError(f"{name!r} is no way of speculation", "plain decoding takes part by itself")
    # The first answer reads what lies on disk, and fills the caches of the CPU.
    model.answer([prompts[0]], GenerationOptions(max_tokens=8))
    times = step_times(model.decoder.engine)
    costs = StepCosts.between(times)
    contenders = {PLAIN: None} | {name: drafter_of(name, costs) for name in ways}
    turns = race(model, prompts, contenders, max_tokens=max_tokens, n_rounds=n_rounds, after_turn=after_turn)
    return Measured(times, standings(turns))


def tune(model: LanguageModel, found: Measured) -> tuple[Tuned, Path]:
    """Keep the fastest way, or plain decoding where none is surely faster; the choice, and where it is.

    Raises
    ------
    ConfigError
        If the model was not loaded from a file or folder.
    """
    if model.source is None:
        raise ConfigError(f"{model.name} was not loaded from a file, so there is no place for the choice")
    best = fastest(found.standings)
    way = None if best is None else best.contender
    if way is not None and Path(way).exists():
        way = str(Path(way).resolve())
    tuned = Tuned(speculate=way, times=found.times, ratio=1.0 if best is None else best.ratio)
    return tuned, save_tuned(model.source, tuned)
