"""The loss of supervised fine-tuning: arithmetic by hand, gradients, and the memory it must not take."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fullspan.objectives.sft import cross_entropy_sum, cross_entropy_sum_reference

# Three tokens to choose from, two dimensions: the logits are (h0, h1, h0 + h1).
HEAD = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])


def test_loss_equals_the_arithmetic_by_hand() -> None:
    hidden = torch.tensor([[1.0, 2.0], [5.0, 5.0], [0.0, -1.0]])
    labels = torch.tensor([2, -100, 0])
    first = -(3.0 - math.log(math.exp(1) + math.exp(2) + math.exp(3)))
    third = -(0.0 - math.log(math.exp(0) + math.exp(-1) + math.exp(-1)))
    loss, n_tokens = cross_entropy_sum(hidden, HEAD, labels)
    assert n_tokens == 2
    assert loss.item() == pytest.approx(first + third, rel=1e-6)


def test_gradient_equals_the_arithmetic_by_hand() -> None:
    """dL/dh = W^T (softmax - onehot) in supervised rows, zero elsewhere."""
    hidden = torch.tensor([[1.0, 2.0], [5.0, 5.0]], requires_grad=True)
    loss, _ = cross_entropy_sum(hidden, HEAD, torch.tensor([2, -100]))
    (loss / 4).backward()
    total = math.exp(1) + math.exp(2) + math.exp(3)
    p = [math.exp(1) / total, math.exp(2) / total, math.exp(3) / total - 1]
    expected = torch.tensor([[p[0] + p[2], p[1] + p[2]], [0.0, 0.0]]) / 4
    torch.testing.assert_close(hidden.grad, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("chunk_rows", [1, 3, 256])
@pytest.mark.parametrize("head_is_trained", [False, True])
def test_gradients_pass_finite_differences(chunk_rows: int, head_is_trained: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(2, 4, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    head = torch.randn(5, 3, dtype=torch.float64, generator=generator, requires_grad=head_is_trained)
    labels = torch.tensor([[0, -100, 4, 2], [1, 1, -100, 3]])
    assert torch.autograd.gradcheck(
        lambda *inputs: cross_entropy_sum(*inputs, labels, chunk_rows=chunk_rows)[0], (hidden, head)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equals_the_plain_reference(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(1)
    head = torch.randn(50, 16, generator=generator).to(dtype)
    labels = torch.randint(0, 50, (2, 300), generator=generator)
    labels[torch.rand(2, 300, generator=generator) < 0.5] = -100
    values = torch.randn(2, 300, 16, generator=generator).to(dtype)
    gradients = []
    for function in (cross_entropy_sum, cross_entropy_sum_reference):
        hidden = values.clone().requires_grad_()
        loss, n_tokens = function(hidden, head, labels)
        loss.backward()
        gradients.append((loss.detach(), n_tokens, hidden.grad))
    assert gradients[0][1] == gradients[1][1] == int((labels != -100).sum())
    torch.testing.assert_close(gradients[0][0], gradients[1][0], rtol=1e-5, atol=0)
    # In bfloat16 one rounding of the softmax is 2^-9 of its value; a sum over 50 tokens has many.
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    torch.testing.assert_close(gradients[0][2], gradients[1][2], rtol=tolerance, atol=tolerance)


def test_extreme_logits_stay_finite() -> None:
    hidden = torch.tensor([[1e4, -1e4]], requires_grad=True)
    loss, _ = cross_entropy_sum(hidden, HEAD, torch.tensor([1]))
    loss.backward()
    assert loss.item() == pytest.approx(2e4)
    assert hidden.grad is not None and hidden.grad.isfinite().all()


def test_no_supervised_rows_give_zero_loss_and_zero_gradient() -> None:
    hidden = torch.randn(3, 2, requires_grad=True)
    loss, n_tokens = cross_entropy_sum(hidden, HEAD, torch.full((3,), -100))
    loss.backward()
    assert (loss.item(), n_tokens) == (0.0, 0)
    assert hidden.grad is not None and not hidden.grad.any()


class _Largest(TorchDispatchMode):
    """Notes the largest tensor that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.numel())
        return out


def test_never_holds_the_logits_of_all_rows() -> None:
    rows, vocabulary = 512, 1000
    hidden = torch.randn(rows, 8, requires_grad=True)
    head, labels = torch.randn(vocabulary, 8), torch.zeros(rows, dtype=torch.long)
    with _Largest() as chunked:
        cross_entropy_sum(hidden, head, labels, chunk_rows=64)[0].backward()
    with _Largest() as plain:
        cross_entropy_sum_reference(hidden, head, labels)[0].backward()
    assert chunked.numel == 64 * vocabulary
    assert plain.numel == rows * vocabulary  # the measure sees what it should
