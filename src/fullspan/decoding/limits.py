"""Limits of a scheduler. Free of torch, for the sake of the command line's help."""

from __future__ import annotations

from pydantic import Field

from fullspan.core.config import Config
from fullspan.decoding.engine._layout import PAGE


class BatchLimits(Config):
    """How much a scheduler takes on at a time."""

    max_running: int = Field(32, ge=1, le=1024, description="answers that grow at the same time")
    max_waiting: int = Field(128, ge=0, description="answers that wait for their turn; more are refused")
    cache_tokens: int | None = Field(
        None,
        ge=PAGE,
        description="tokens in memory, of all answers and kept prompts; default: by free memory",
    )
    step_ms: float = Field(
        30.0, gt=0, description="milliseconds that a step may take for the sake of reading prompts"
    )
