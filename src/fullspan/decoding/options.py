"""How an answer is generated: the options of `generate` and `chat`, in Python and on the command line.

This module stays free of torch, so that help and wrong options cost no seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, TypedDict

from pydantic import Field

from fullspan.core.config import Config


class Sampling(Config):
    """How the next token is chosen.

    Raises
    ------
    ConfigError
        From `build`, if a value is out of its range.

    Examples
    --------
    >>> Sampling(temperature=0.8, top_p=0.95).greedy
    False
    >>> Sampling.build({"top_p": 1.5})
    Traceback (most recent call last):
    ...
    fullspan.core.errors.ConfigError: top_p: input should be less than or equal to 1, got 1.5
    """

    temperature: float = Field(
        0.0,
        ge=0,
        description="0 takes the most likely token; 1 samples the model's own distribution",
    )
    top_k: int | None = Field(None, ge=1, description="sample among the K most likely tokens")
    top_p: float | None = Field(
        None, gt=0, le=1, description="sample among the most likely tokens that together have probability P"
    )
    min_p: float | None = Field(
        None, ge=0, le=1, description="sample among tokens at least P times as likely as the most likely one"
    )
    repetition_penalty: float = Field(1.0, gt=0, description="above 1: tokens seen before become less likely")

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is taken, so that nothing is random."""
        return self.temperature == 0


class GenerationOptions(Sampling):
    """How the next token is chosen, and when to stop."""

    max_tokens: int = Field(256, ge=1, description="most tokens to generate")
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        (), description="end the answer before this text; may be given several times"
    )
    seed: int | None = Field(
        None,
        ge=0,
        lt=2**63,
        description="same seed, same sample; the i-th prompt of a batch draws from seed + i",
    )


class Options(TypedDict, total=False):
    """The fields of `GenerationOptions` as keyword arguments, for type checkers."""

    temperature: float
    top_k: int | None
    top_p: float | None
    min_p: float | None
    repetition_penalty: float
    max_tokens: int
    stop: str | Sequence[str] | None
    seed: int | None


def options_from(keywords: Options) -> GenerationOptions:
    """Validate keyword arguments; one stop string may be given bare, and None is no stop string.

    Raises
    ------
    ConfigError
        If a name is unknown or a value out of its range.

    Examples
    --------
    >>> options_from({"stop": "END", "max_tokens": 8}).stop
    ('END',)
    """
    stop = keywords.get("stop")
    stops = (stop,) if isinstance(stop, str) else tuple(stop or ())
    return GenerationOptions.build({**keywords, "stop": stops})
