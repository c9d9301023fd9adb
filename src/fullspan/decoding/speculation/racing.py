"""Drafters take turns on prompts: acceptance, tokens a step and speed of each beside plain decoding."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fullspan.core.errors import ConfigError, FullspanError
from fullspan.decoding.engine.engine import Engine
from fullspan.decoding.options import GenerationOptions
from fullspan.decoding.speculation.statistics import Speculation

if TYPE_CHECKING:
    from fullspan.decoding.language_model import LanguageModel
    from fullspan.decoding.speculation.choice import Speculate

PLAIN = "plain"
STEP_SIZES = (1, 2, 3, 4, 5, 6, 8, 12, 16)
# A contender must be faster than plain decoding by this, at the lower end of what resampling gives.
_MARGIN = 1.02
_RESAMPLES = 1000


@dataclass(frozen=True)
class Turn:
    """One answer of one contender; seconds and tokens are those after the first token."""

    contender: str
    prompt: int
    n_tokens: int
    seconds: float
    speculation: Speculation | None


@dataclass(frozen=True)
class Standing:
    """What the turns of a contender come to.

    Attributes
    ----------
    contender : str
    tokens_per_second : float
    ratio, at_least : float
        Speed over that of plain decoding, and the least that is likely with other prompts (2.5 % quantile).
    tokens_per_step : float
    accepted : tuple of float
        Share of accepted tokens among those proposed at the first position, the second, ...
    drafting : float
        Share of time.
    """

    contender: str
    tokens_per_second: float
    ratio: float
    at_least: float
    tokens_per_step: float
    accepted: tuple[float, ...]
    drafting: float

    def line(self) -> str:
        """The standing in a line of a table."""
        shares = " ".join(f"{share:.2f}" for share in self.accepted[:8])
        return (
            f"{Path(self.contender).name:24} {self.tokens_per_second:6.0f} tokens/s, {self.ratio:.2f} of "
            f"plain (at least {self.at_least:.2f}), {self.tokens_per_step:.2f} tokens a step, "
            f"drafting {self.drafting:.1%}" + (f", accepted by position {shares}" if shares else "")
        )


def step_times(engine: Engine, n_context: int = 256, n_rounds: int = 9) -> dict[int, float]:
    """Median milliseconds of steps of some numbers of tokens, a chain each, which take turns."""
    most = engine.config.max_positions - max(STEP_SIZES) - 1
    if most < 1:
        raise ConfigError(f"a context of {engine.config.max_positions} tokens is too short to measure steps")
    cache = engine.new_cache()
    ids = np.random.default_rng(0).integers(engine.config.vocab_size, size=min(n_context, most)).tolist()
    engine.step(ids, cache, n_logits=1)
    found: dict[int, list[float]] = {n: [] for n in STEP_SIZES}
    for number in range(n_rounds + 1):
        for n in STEP_SIZES:
            begun = time.perf_counter()
            engine.step(ids[:1] * n, cache, list(range(-1, n - 1)))  # a tree, so the cache stays
            if number:
                found[n].append(1000 * (time.perf_counter() - begun))
    return {n: statistics.median(times) for n, times in found.items()}


def race(
    model: LanguageModel,
    prompts: Sequence[list[int]],
    contenders: Mapping[str, Speculate | None],
    *,
    max_tokens: int = 96,
    n_rounds: int = 2,
    after_turn: Callable[[], None] | None = None,
) -> list[Turn]:
    """Let contenders answer each prompt, greedy, in turn, so that they share what else the machine does.

    Parameters
    ----------
    model : LanguageModel
    prompts : sequence of list of int
    contenders : mapping
        From a name to what `speculate` means by it; None is plain decoding.
    max_tokens : int
        Of each answer.
    n_rounds : int
    after_turn : function, optional
        May show progress.

    Raises
    ------
    FullspanError
        If an answer differs from that of the first contender.
    """
    turns = []
    for number in range(n_rounds):
        for prompt, ids in enumerate(prompts):
            expected: tuple[int, ...] | None = None
            order = list(contenders)
            start = (number + prompt) % len(order)
            for name in order[start:] + order[:start]:
                turn, tokens = _turn(model, prompt, ids, name, contenders[name], max_tokens)
                turns.append(turn)
                if tokens != (expected := expected or tokens):
                    raise FullspanError(f"{name} changed the answer to prompt {prompt}: that is a defect")
                if after_turn is not None:
                    after_turn()
    return turns


def _turn(
    model: LanguageModel, prompt: int, ids: list[int], name: str, speculate: Speculate | None, max_tokens: int
) -> tuple[Turn, tuple[int, ...]]:
    times: list[float] = []
    [answer] = model.answer(
        [ids],
        GenerationOptions(max_tokens=max_tokens),
        after_token=lambda: times.append(time.perf_counter()),
        speculate=speculate,
    )
    n_tokens = len(answer.token_ids) - 1  # the prompt gave the first
    return Turn(name, prompt, n_tokens, times[-1] - times[0], answer.speculation), answer.token_ids


def standings(turns: Sequence[Turn]) -> list[Standing]:
    """What a race came to; plain decoding must have taken part."""
    return [_standing(name, turns) for name in dict.fromkeys(turn.contender for turn in turns)]


def fastest(found: Sequence[Standing]) -> Standing | None:
    """The fastest of those that are surely faster than plain decoding; None if there is none."""
    good = [each for each in found if each.contender != PLAIN and each.at_least > _MARGIN]
    return max(good, key=lambda each: each.ratio, default=None)


def _standing(name: str, turns: Sequence[Turn]) -> Standing:
    mine, plain = _seconds(name, turns), _seconds(PLAIN, turns)
    counts = [turn.speculation for turn in turns if turn.contender == name and turn.speculation is not None]
    n_tokens = sum(turn.n_tokens for turn in turns if turn.contender == name)
    depth = max((len(count.proposed) for count in counts), default=0)
    accepted = tuple(
        sum(count.accepted[i] for count in counts if len(count.accepted) > i)
        / sum(count.proposed[i] for count in counts if len(count.proposed) > i)
        for i in range(depth)
    )
    steps = sum(count.n_steps for count in counts)
    drafting = sum(count.draft_seconds for count in counts)
    seconds = max(float(mine.sum()), 1e-9)
    return Standing(
        name,
        n_tokens / seconds,
        float(plain.sum()) / seconds,
        _at_least(plain, mine),
        sum(count.n_tokens for count in counts) / steps if steps else 1.0,
        accepted,
        drafting / seconds,
    )


def _seconds(name: str, turns: Sequence[Turn]) -> np.ndarray:
    """Of a contender, [prompts, rounds]."""
    mine = [turn for turn in turns if turn.contender == name]
    by_prompt = [
        [turn.seconds for turn in mine if turn.prompt == p] for p in sorted({t.prompt for t in mine})
    ]
    return np.array(by_prompt)


def _at_least(plain: np.ndarray, mine: np.ndarray) -> float:
    """The 2.5 % quantile of the ratio of sums over resampled prompts and rounds (the bootstrap)."""
    generator = np.random.default_rng(0)
    n_prompts, n_rounds = plain.shape
    prompts = generator.integers(n_prompts, size=(_RESAMPLES, n_prompts, 1))
    rounds = generator.integers(n_rounds, size=(_RESAMPLES, n_prompts, n_rounds))
    sums = [times[prompts, rounds].sum(axis=(1, 2)) for times in (plain, mine)]
    return float(np.quantile(sums[0] / np.maximum(sums[1], 1e-9), 0.025))
