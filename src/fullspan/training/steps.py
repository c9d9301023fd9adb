"""What the trainer asks of an engine, and the plain torch engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, Protocol

import torch
from torch import Tensor

from fullspan.core.errors import ConfigError
from fullspan.models.llama import Llama
from fullspan.objectives.sft import cross_entropy_sum
from fullspan.text.packing import Batch


class StepFunction(Protocol):
    """An engine: computes losses of batches and adds up the gradients of the LoRA parameters."""

    def loss_and_grads(self, batch: Batch, normaliser: float) -> float:
        """Add the gradients of ``loss_sum / normaliser`` to the LoRA parameters' ``.grad``.

        `normaliser` is the number of supervised tokens of the whole optimiser step. The parameters may
        have changed since the last call. Returns the batch's summed loss, not divided.
        """

    def loss(self, batch: Batch) -> float:
        """The batch's summed loss, without gradients and without dropout."""


class AutogradStep:
    """The plain path: the model as it stands, torch's autograd, autocast for bfloat16 weights.

    Parameters
    ----------
    model : Llama
        With adapters; the base in float32 or bfloat16.
    """

    def __init__(self, model: Llama) -> None:
        self.model = model

    def loss_and_grads(self, batch: Batch, normaliser: float) -> float:
        self.model.train()
        with mixed_precision(self.model):
            loss, _ = self._loss(batch)
        (loss / normaliser).backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    @torch.no_grad()
    def loss(self, batch: Batch) -> float:
        self.model.eval()
        with mixed_precision(self.model):
            return float(self._loss(batch)[0])

    def _loss(self, batch: Batch) -> tuple[Tensor, int]:
        device = self.model.lm_head.weight.device
        ids, positions, segments, labels = (
            torch.as_tensor(array).to(device)
            for array in (batch.ids, batch.positions, batch.segments, batch.labels)
        )
        hidden = self.model.hidden(ids, positions=positions, segments=segments)  # [B, T, D]
        return cross_entropy_sum(hidden, self.model.lm_head.weight, labels)


@contextmanager
def mixed_precision(model: Llama) -> Iterator[None]:
    """Autocast for a bfloat16 base: products in bfloat16; residual stream, norms and updates in float32.

    A model in float32 or float64 runs as it is.
    """
    embedding = model.model.embed_tokens
    weight = embedding.weight
    if weight.dtype not in (torch.bfloat16, torch.float16):
        yield
        return
    # With the embeddings widened, the sums of the residual stream are float32, as autocast has
    # them for float32 weights, while the frozen weights are held once in bfloat16.
    widen = embedding.register_forward_hook(lambda _module, _inputs, output: output.float())
    try:
        with torch.autocast(weight.device.type, weight.dtype):
            yield
    finally:
        widen.remove()


def choose_engine(model: Llama, engine: Literal["auto", "autograd", "fused"]) -> StepFunction:
    """The engine asked for; "auto" takes the fused one wherever it supports the model.

    Raises
    ------
    ConfigError
        If "fused" was asked for and does not support the model.
    """
    if engine == "autograd":
        return AutogradStep(model)
    from fullspan.training.fused import FusedStep, unsupported_reason

    reason = unsupported_reason(model)
    if reason is None:
        return FusedStep(model)
    if engine == "fused":
        raise ConfigError(f"the fused engine cannot train this: {reason}", "use --engine autograd")
    return AutogradStep(model)
