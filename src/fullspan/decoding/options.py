"""How an answer is generated: the options of `generate` and `chat`, in Python and on the command line.

This module stays free of torch, so that help and wrong options cost no seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self, TypedDict

from pydantic import Field, field_validator, model_validator

from fullspan.core.config import Config

# Most answers to one prompt: each holds a cache of its own.
MOST_SAMPLES = 128


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
    typical_p: float | None = Field(
        None,
        gt=0,
        le=1,
        description="sample among the tokens nearest the expected surprise that together have probability P",
    )
    repetition_penalty: float = Field(1.0, gt=0, description="above 1: tokens seen before become less likely")
    presence_penalty: float = Field(
        0.0, ge=-2, le=2, description="taken off the logit of each token that was generated before"
    )
    frequency_penalty: float = Field(
        0.0, ge=-2, le=2, description="taken off a token's logit each time that it was generated before"
    )
    logit_bias: dict[int | str, Annotated[float, Field(ge=-100, le=100)]] = Field(
        {},
        description="TOKEN=BIAS adds to a token's logit: the token's id, or text that is one token; "
        "may be given several times",
    )

    @field_validator("logit_bias", mode="before")
    @classmethod
    def _read_pairs(cls, value: Any) -> Any:
        """The command line's form: pairs of a token and its bias, joined by the last equals sign."""
        if not isinstance(value, list | tuple):
            return value
        pairs = [str(pair).rpartition("=") for pair in value]
        if not all(token and bias for token, _, bias in pairs):
            raise ValueError("should be TOKEN=BIAS, such as 42=-100")
        return {int(token) if token.isdecimal() else token: bias for token, _, bias in pairs}

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is taken, so that nothing is random."""
        return self.temperature == 0


class GenerationOptions(Sampling):
    """How the next token is chosen, what the answer must look like, and when to stop."""

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
    json_schema: str | dict[str, Any] | None = Field(
        None, description="the answer is JSON that obeys this schema: a file, or the schema itself from its {"
    )
    regex: str | None = Field(
        None, description="the answer as a whole matches this regular expression (Rust's syntax)"
    )
    grammar: Path | str | None = Field(
        None, description="the answer obeys the grammar of this file: Lark, or GBNF as llama.cpp reads it"
    )

    @model_validator(mode="after")
    def _one_constraint(self) -> Self:
        given = [name for name in ("json_schema", "regex", "grammar") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} are given; an answer obeys one of them")
        return self


class Options(TypedDict, total=False):
    """The fields of `GenerationOptions` as keyword arguments, for type checkers."""

    temperature: float
    top_k: int | None
    top_p: float | None
    min_p: float | None
    typical_p: float | None
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    logit_bias: Mapping[int | str, float] | Mapping[int, float] | Mapping[str, float] | None
    max_tokens: int
    stop: str | Sequence[str] | None
    seed: int | None
    json_schema: str | Mapping[str, Any] | None
    regex: str | None
    grammar: Path | str | None


def options_from(keywords: Options) -> GenerationOptions:
    """Validate keyword arguments; one stop string may be given bare, and None is no stop string and no bias.

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
    bias = keywords.get("logit_bias") or {}
    return GenerationOptions.build({**keywords, "stop": stops, "logit_bias": bias})
