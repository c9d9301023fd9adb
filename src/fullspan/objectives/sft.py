"""Supervised fine-tuning: cross-entropy of the supervised tokens, without the logits of a whole batch.

With hidden states h, head W and targets y over the supervised rows i,

    L = sum_i log sum_v exp(W_v . h_i) - W_{y_i} . h_i,    dL/dh_i = W^T (softmax(W h_i) - onehot(y_i)).

The gradient needs the same logits as the loss, so both are taken from one chunk of rows and the logits are
dropped before the next chunk: memory is [chunk, V] instead of [B, T, V] (Wijmans et al. 2024,
arXiv:2411.09009, describe the same idea as a GPU kernel).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

IGNORED = -100
CHUNK_ROWS = 256


def cross_entropy_sum(
    hidden: Tensor, head_weight: Tensor, labels: Tensor, *, chunk_rows: int = CHUNK_ROWS
) -> tuple[Tensor, int]:
    """Summed cross-entropy over the supervised rows, in float32 (float64 for float64 inputs).

    Parameters
    ----------
    hidden : Tensor [..., D]
        Hidden states after the final norm.
    head_weight : Tensor [V, D]
        Weight of the output head; the products run in its dtype.
    labels : Tensor [...], int64
        The token that each row must predict, already shifted; -100 where nothing is supervised.
    chunk_rows : int
        Rows whose logits exist at a time.

    Returns
    -------
    loss_sum : Tensor []
        Differentiable with respect to `hidden` and, where it requires a gradient, `head_weight`.
    n_tokens : int
        Number of supervised rows. Divide by the count of the whole optimiser step, not of one batch.

    Examples
    --------
    >>> loss, n = cross_entropy_sum(torch.zeros(3, 2), torch.zeros(4, 2), torch.tensor([1, -100, 3]))
    >>> n, round(loss.item() / n, 4)  # log 4
    (2, 1.3863)
    """
    flat_labels = labels.reshape(-1)
    rows = (flat_labels != IGNORED).nonzero().squeeze(1)  # [N]
    supervised = hidden.reshape(-1, hidden.shape[-1])[rows]  # [N, D]
    loss: Tensor = _ChunkedCrossEntropy.apply(  # type: ignore[no-untyped-call]
        supervised,
        head_weight,
        flat_labels[rows],
        chunk_rows,
        torch.is_grad_enabled(),
    )
    return loss, int(rows.numel())


def cross_entropy_sum_reference(hidden: Tensor, head_weight: Tensor, labels: Tensor) -> tuple[Tensor, int]:
    """What `cross_entropy_sum` computes, in three lines that hold all the logits at once."""
    logits = F.linear(hidden.to(head_weight.dtype), head_weight)  # [..., V]
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    loss = F.cross_entropy(logits.flatten(0, -2), labels.reshape(-1), ignore_index=IGNORED, reduction="sum")
    return loss, int((labels != IGNORED).sum())


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Takes the gradients in the forward pass, while a chunk's logits are there."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head_weight: Tensor, targets: Tensor, chunk_rows: int, grad_enabled: bool
    ) -> Tensor:
        # hidden [N, D], head_weight [V, D], targets [N]
        wants_hidden = grad_enabled and ctx.needs_input_grad[0]
        wants_head = grad_enabled and ctx.needs_input_grad[1]
        precise = torch.promote_types(head_weight.dtype, torch.float32)
        loss = torch.zeros((), dtype=precise, device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if wants_hidden else None
        grad_head = torch.zeros_like(head_weight, dtype=precise) if wants_head else None
        with torch.autocast(hidden.device.type, enabled=False):
            for start in range(0, len(targets), chunk_rows):
                chunk = slice(start, start + chunk_rows)
                h = hidden[chunk].to(head_weight.dtype)
                target = targets[chunk, None]
                logits = (h @ head_weight.T).to(precise)  # [chunk, V]
                normaliser = torch.logsumexp(logits, dim=1, keepdim=True)
                loss += (normaliser - logits.gather(1, target)).sum()
                if grad_hidden is None and grad_head is None:
                    continue
                error = logits.sub_(normaliser).exp_()  # softmax, in place of the logits
                error.scatter_add_(1, target, error.new_full(target.shape, -1.0))
                if grad_hidden is not None:
                    grad_hidden[chunk] = error.to(head_weight.dtype) @ head_weight
                if grad_head is not None:
                    grad_head += error.T @ h.to(precise)
        ctx.save_for_backward(grad_hidden, None if grad_head is None else grad_head.to(head_weight.dtype))
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        grad_hidden, grad_head = ctx.saved_tensors
        return (
            None if grad_hidden is None else grad_hidden * grad_loss.to(grad_hidden.dtype),
            None if grad_head is None else grad_head * grad_loss.to(grad_head.dtype),
            None,
            None,
            None,
        )
