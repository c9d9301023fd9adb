"""The schedule by its numbers, AdamW by hand, clipping by its norm."""

from __future__ import annotations

import math

import pytest
import torch

from fullspan.core.errors import ConfigError
from fullspan.training.optim import clip_gradients, learning_rate_at, make_adamw, warmup_steps


def test_cosine_schedule_by_its_numbers() -> None:
    rates = [
        learning_rate_at(step, 6, peak=2.0, warmup=2, schedule="cosine", floor=0.1) for step in range(1, 7)
    ]
    # After the warm-up: floor + (1 - floor) (1 + cos(pi k / 4)) / 2 for k = 0, 1, 2, 3, times the peak.
    half_root = math.sqrt(0.5)
    shapes = [1.0, (1 + half_root) / 2, 0.5, (1 - half_root) / 2]
    assert rates == pytest.approx([1.0, 2.0, *(2 * (0.1 + 0.9 * shape) for shape in shapes)])


def test_constant_schedule_keeps_the_peak() -> None:
    rates = [learning_rate_at(step, 4, peak=0.5, warmup=1, schedule="constant") for step in range(1, 5)]
    assert rates == [0.5, 0.5, 0.5, 0.5]


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_no_step_is_wasted_on_a_rate_of_zero(schedule: str) -> None:
    rates = [
        learning_rate_at(step, 10, peak=1.0, warmup=3, schedule=schedule)  # type: ignore[arg-type]
        for step in range(1, 11)
    ]
    assert min(rates) > 0
    assert max(rates) == 1.0
    assert rates[3:] == sorted(rates[3:], reverse=True)


def test_warmup_longer_than_the_training_is_refused() -> None:
    with pytest.raises(ConfigError, match="warmup is 10 steps, but the training has 10 in all"):
        warmup_steps(10, 10)


def test_adamw_follows_the_equations() -> None:
    """Loshchilov & Hutter 2019, algorithm 2, two steps by hand; float32 rounding decides the tolerance."""
    parameter = torch.nn.Parameter(torch.tensor([1.0]))
    optimizer = make_adamw([parameter], learning_rate=0.1, beta1=0.9, beta2=0.99, eps=1e-8, weight_decay=0.5)
    value, m, v = 1.0, 0.0, 0.0
    for step, gradient in enumerate([2.0, -1.0], start=1):
        parameter.grad = torch.tensor([gradient])
        optimizer.step()
        m, v = 0.9 * m + 0.1 * gradient, 0.99 * v + 0.01 * gradient**2
        value -= 0.1 * 0.5 * value
        value -= 0.1 * (m / (1 - 0.9**step)) / (math.sqrt(v / (1 - 0.99**step)) + 1e-8)
    assert parameter.item() == pytest.approx(value, rel=1e-6)


def test_clipping_reports_the_norm_before_and_leaves_it_at_the_limit() -> None:
    parameters = [torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(1))]
    parameters[0].grad, parameters[1].grad = torch.tensor([2.0, 3.0]), torch.tensor([6.0])
    assert clip_gradients(parameters, 0.0) == 7.0
    assert clip_gradients(parameters, 10.0) == 7.0
    assert parameters[1].grad.item() == 6.0
    assert clip_gradients(parameters, 1.0) == 7.0
    # torch divides by norm + 1e-6
    assert clip_gradients(parameters, 0.0) == pytest.approx(1.0, rel=1e-5)
