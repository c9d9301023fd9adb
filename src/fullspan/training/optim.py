"""AdamW, the learning-rate schedule and gradient clipping."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import nn

from fullspan.core.errors import ConfigError

Schedule = Literal["cosine", "linear", "constant"]


def warmup_steps(warmup: float, total_steps: int) -> int:
    """Steps of warm-up: `warmup` itself from 1 on, below 1 that share of `total_steps`.

    Raises
    ------
    ConfigError
        If the warm-up is as long as the training.

    Examples
    --------
    >>> warmup_steps(0.1, 50), warmup_steps(20, 50), warmup_steps(0, 50)
    (5, 20, 0)
    """
    steps = round(warmup * total_steps) if warmup < 1 else int(warmup)
    if steps >= total_steps and steps > 0 and warmup >= 1:
        raise ConfigError(f"--warmup is {steps} steps, but the training has {total_steps} in all")
    return steps


def learning_rate_at(
    step: int, total_steps: int, *, peak: float, warmup: int, schedule: Schedule, floor: float = 0.0
) -> float:
    """Learning rate of one optimiser step.

    Parameters
    ----------
    step : int
        Counted from 1.
    total_steps : int
        Steps of the whole training.
    peak : float
        Highest learning rate, reached by the last step of the warm-up.
    warmup : int
        Steps of linear warm-up from ``peak / warmup``.
    schedule : {"cosine", "linear", "constant"}
        Shape of the fall after it.
    floor : float
        Where the fall ends, one step after the last, as a share of `peak`.

    Examples
    --------
    >>> rates = [learning_rate_at(s, 6, peak=1.0, warmup=2, schedule="linear") for s in range(1, 7)]
    >>> rates
    [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    """
    if step <= warmup:
        return peak * step / warmup
    progress = (step - 1 - warmup) / (total_steps - warmup)
    if schedule == "cosine":
        shape = 0.5 * (1.0 + math.cos(math.pi * progress))
    elif schedule == "linear":
        shape = 1.0 - progress
    else:
        return peak
    return peak * (floor + (1.0 - floor) * shape)


def make_adamw(
    parameters: Iterable[nn.Parameter],
    *,
    learning_rate: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) as one fused kernel."""
    return torch.optim.AdamW(
        parameters, lr=learning_rate, betas=(beta1, beta2), eps=eps, weight_decay=weight_decay, fused=True
    )


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> float:
    """Scale the gradients down to a joint norm of `max_norm`; 0 leaves them.

    Returns
    -------
    float
        The norm before clipping.
    """
    parameters = list(parameters)
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if max_norm > 0:
        torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    return float(norm)
