"""LoRA training of a Llama on the CPU without autograd: the fast path of `fullspan train`.

The step is written out by hand, which saves what autograd cannot know is not needed: gradients of frozen
weights, copies between operations, logits of unsupervised rows, scores between strangers in a packed batch.
Whole segments are dealt to threads (`fused_plan`), each of which goes through the model on its own, so the
threads meet once a step. Within a thread, matrix products are torch's (oneDNN) and everything else is one
pass of a Numba kernel (`_kernels`).

Products take bfloat16 or float32 operands, whichever the model's weights have; the residual stream, norms,
softmax, losses and accumulated gradients are float32.

Shapes: M rows of a shard, N supervised rows, D d_model, V vocab_size.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from fullspan.adapters.lora import LoRALinear, lora_layers
from fullspan.core.device import has_fast_bfloat16
from fullspan.core.errors import ConfigError
from fullspan.models.llama import Block, Llama
from fullspan.text.packing import Batch
from fullspan.training import _kernels
from fullspan.training.fused_attention import make_attention
from fullspan.training.fused_buffers import Arena, Half, Rows
from fullspan.training.fused_layers import (
    FusedBlock,
    Gradients,
    Lane,
    Norm,
    Rotation,
    SavedAttention,
    SavedFeedForward,
    Scratch,
)
from fullspan.training.fused_plan import ROW_MULTIPLE, Shard, split
from fullspan.training.fused_warmup import warm_up

_MOST_LANES = 4  # Python runs one thread at a time between kernels: more threads go into the products
_HEAD_ROWS = 256  # supervised rows whose logits exist at a time


def unsupported_reason(model: nn.Module) -> str | None:
    """Why `FusedStep` cannot train this model, or None when it can."""
    if not isinstance(model, Llama):
        return f"the fused step knows Llama, not {type(model).__name__}"
    weight = model.model.embed_tokens.weight
    if weight.device.type != "cpu":
        return f"the fused step runs on the CPU, the model is on {weight.device}"
    if weight.dtype not in (torch.bfloat16, torch.float32):
        return f"the fused step takes weights in bfloat16 or float32, not {weight.dtype}"
    if weight.dtype == torch.bfloat16 and not has_fast_bfloat16():
        return "this CPU has no bfloat16 products"
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            if module.bias is not None:
                return f"{name} has a bias"
            if module.weight.dtype != weight.dtype:
                return f"{name} is {module.weight.dtype}, the embeddings are {weight.dtype}"
            if module.weight.requires_grad:
                return f"{name} is not frozen; the fused step trains LoRA parameters only"
    layers = list(lora_layers(model))
    if not layers:
        return "the model has no LoRA layers"
    for name, layer in layers:
        if layer.magnitude is not None:
            return "DoRA is trained with autograd"
        if layer.dropout:
            return "LoRA dropout is trained with autograd"
        if not layer.enabled:
            return f"the adapter of {name} is disabled"
    if isinstance(model.lm_head, LoRALinear):
        return "the head has an adapter"
    return None


@dataclass
class _Result:
    loss: float
    gradients: list[list[Gradients]]  # by block: qkv, o, gate_up, down


class FusedStep:
    """Losses and LoRA gradients of batches, the same engine interface as `training.steps.AutogradStep`.

    The linear layers' weights become views of larger matrices, so that they exist once; the model goes on
    working for evaluation, generation and saving. The LoRA parameters stay the model's own.

    Results are the same bits for the same batch, parameters and number of threads (`torch.get_num_threads`).

    Parameters
    ----------
    model : Llama
        With LoRA layers, in bfloat16 or float32, on the CPU.

    Raises
    ------
    ConfigError
        If `unsupported_reason` gives one.

    Examples
    --------
    >>> from fullspan.adapters.lora import LoRAConfig, add_lora
    >>> from fullspan.models.llama import Llama, LlamaConfig
    >>> from fullspan.text.packing import Encoded, packed_batch
    >>> config = LlamaConfig(vocab_size=50, d_model=16, n_layers=1, n_heads=2, n_kv_heads=1, head_dim=8,
    ...                      d_ff=32, max_positions=64)
    >>> model = Llama(config)
    >>> _ = add_lora(model, LoRAConfig(rank=2))
    >>> batch = packed_batch([Encoded([1, 2, 3], [0, 1, 1])])
    >>> loss = FusedStep(model).loss_and_grads(batch, normaliser=batch.n_supervised)
    >>> model.model.layers[0].mlp.down_proj.lora_B.grad.shape
    torch.Size([16, 2])
    """

    def __init__(self, model: Llama) -> None:
        if reason := unsupported_reason(model):
            raise ConfigError(f"fused training is not possible: {reason}", "use the autograd engine")
        self.model = model
        self._adopt()
        self._threads = 0
        self._pool: ThreadPoolExecutor | None = None
        self._lanes: list[Lane] = []

    unsupported_reason = staticmethod(unsupported_reason)

    def loss_and_grads(self, batch: Batch, normaliser: float) -> float:
        """Add the gradients of ``loss_sum / normaliser`` to the LoRA parameters' ``.grad``.

        Parameters
        ----------
        batch : Batch
        normaliser : float
            Number of supervised tokens of the whole optimiser step.

        Returns
        -------
        float
            The batch's summed loss, not divided.

        Raises
        ------
        DataError
            If an id lies outside the vocabulary or a segment is not contiguous.
        """
        if not normaliser > 0:
            raise ConfigError(f"normaliser is {normaliser}, expected a positive number of tokens")
        results = self._run(batch, backward=True)
        found = [result.gradients for result in results if result.gradients]
        if found:
            with torch.no_grad():
                for index, block in enumerate(self._blocks):
                    for which, linear in enumerate(block.linears):
                        linear.add_gradients([shard[index][which] for shard in found], 1 / normaliser)
        return sum(result.loss for result in results)

    def loss(self, batch: Batch) -> float:
        """The batch's summed loss, without gradients."""
        return sum(result.loss for result in self._run(batch, backward=False))

    def _adopt(self) -> None:
        """Read the model; its linear weights move into the blocks' tables."""
        trunk = self.model.model
        with torch.no_grad():
            self._blocks = [FusedBlock(cast(Block, block)) for block in trunk.layers]
        self._norm = Norm(trunk.norm)
        self._dtype = trunk.embed_tokens.weight.dtype

    def _run(self, batch: Batch, *, backward: bool) -> list[_Result]:
        with torch.no_grad():
            if not all(linear.owns_weights() for block in self._blocks for linear in block.linears):
                self._adopt()
            for block in self._blocks:
                for linear in block.linears:
                    linear.refresh()
        self._prepare_lanes()
        shards = split(batch, len(self._lanes), self.model.config.vocab_size)
        rotations = self._rotations(shards)
        with _bfloat16_inside(self._dtype == torch.bfloat16):
            if self._pool is None or len(shards) == 1:
                # One shard has all of torch's threads, and its kernels run on the pool's.
                lane = self._lane(self._lanes[0].arena, Rows(self._pool, self._threads))
                return [self._shard(shards[0], rotations[0], lane, backward)]
            waiting = [
                self._pool.submit(self._shard, shard, rotation, lane, backward)
                for shard, rotation, lane in zip(shards, rotations, self._lanes, strict=False)
            ]
            return [result.result() for result in waiting]

    def _rotations(self, shards: list[Shard]) -> list[Rotation]:
        # All positions at once: dynamic scaling looks at the longest sequence of the batch.
        positions = torch.from_numpy(np.concatenate([shard.positions for shard in shards]))[None]
        cos, sin = (
            table.reshape(len(positions[0]), -1).numpy()
            for table in self.model.rope.tables(positions, torch.float32)
        )
        bounds = np.cumsum([0] + [len(shard.ids) for shard in shards])
        return [
            Rotation(cos[first:last], sin[first:last], -sin[first:last])
            for first, last in itertools.pairwise(bounds)
        ]

    def run_alone(self, batch: Batch, rows: Rows) -> None:
        """A step in this thread that leaves nothing behind; `rows` sees each kernel (see `fused_warmup`)."""
        shards = split(batch, 1, self.model.config.vocab_size)
        self._shard(shards[0], self._rotations(shards)[0], self._lane(Arena(self._dtype), rows), True)

    def _prepare_lanes(self) -> None:
        """A thread for each lane, and torch's threads divided among them."""
        n_threads = torch.get_num_threads()
        if n_threads == self._threads:
            return
        warm_up(self._dtype, self.model.config.head_dim)
        if self._pool is not None:
            self._pool.shutdown()
        self._pool = None
        self._threads = n_threads
        n_lanes = min(n_threads, _MOST_LANES)
        if n_lanes > 1:
            self._pool = ThreadPoolExecutor(n_lanes, "fused")
            everyone = threading.Barrier(n_lanes)

            def set_threads() -> None:
                everyone.wait()  # so that each of the pool's threads comes here once
                torch.set_num_threads(n_threads // n_lanes)

            for done in [self._pool.submit(set_threads) for _ in range(n_lanes)]:
                done.result()
            torch.set_num_threads(n_threads)  # torch also keeps the last number as that of new threads
        self._lanes = [self._lane(Arena(self._dtype), Rows()) for _ in range(n_lanes)]

    def _lane(self, arena: Arena, rows: Rows) -> Lane:
        config = self.model.config
        attention = make_attention(config.n_heads, config.n_kv_heads, config.head_dim, rows, arena)
        return Lane(arena, attention, rows)

    @torch.inference_mode()
    def _shard(self, shard: Shard, rotation: Rotation, lane: Lane, backward: bool) -> _Result:
        """Loss of a shard, and its gradients where `backward`."""
        if not len(shard.rows):
            return _Result(0.0, [])
        walk = _Walk(self._blocks, shard, rotation, lane, keep=backward)
        x = walk.forward(Half(self.model.model.embed_tokens.weight.detach()))
        n = len(shard.rows)
        saved, normed, d_normed = (lane.arena.half(f"head {name}", len(x), x.shape[1]) for name in "abc")
        scales = lane.arena.floats("head scales", len(x)).numpy()
        self._norm.forward(lane.rows, x, walk.last_scratch.branch, saved, scales, normed)
        loss = self._head(lane, normed.tensor[:n], d_normed.tensor, shard.targets, backward)
        if not backward:
            return _Result(loss, [])
        x.zero_()  # the residual stream is done: its memory takes its gradient
        self._norm.backward(lane.rows, saved, scales, d_normed, x, walk.last_scratch.d_branch)
        return _Result(loss, walk.backward(x))

    def _head(
        self, lane: Lane, hidden: Tensor, d_hidden: Tensor, targets: np.ndarray, backward: bool
    ) -> float:
        """Cross-entropy of `hidden` [N, D] in chunks; d_hidden [>= N, D] gets its gradient."""
        weight = self.model.lm_head.weight.detach()  # [V, D]
        losses = np.empty(len(hidden), np.float32)
        for start in range(0, len(hidden), _HEAD_ROWS):
            chunk = slice(start, min(start + _HEAD_ROWS, len(hidden)))
            n = chunk.stop - start
            logits = lane.arena.half("logits", n, len(weight))
            torch.mm(hidden[chunk], weight.T, out=logits.tensor)
            lane.rows(_kernels.cross_entropy, n, logits.values, targets[chunk], losses[chunk], backward)
            if backward:
                torch.mm(logits.tensor, weight, out=d_hidden[chunk])
        d_hidden[len(hidden) :].zero_()
        return float(losses.sum(dtype=np.float64))


class _Walk:
    """One shard through the blocks and back.

    The last block's second half, and all after it, has the supervised rows only.
    """

    def __init__(
        self, blocks: list[FusedBlock], shard: Shard, rotation: Rotation, lane: Lane, *, keep: bool
    ) -> None:
        self.blocks, self.shard, self.rotation, self.lane = blocks, shard, rotation, lane
        n_rows, n_chosen = len(shard.ids), len(shard.rows) + -len(shard.rows) % ROW_MULTIPLE
        self.chosen = torch.from_numpy(shard.rows)
        self.attention: list[SavedAttention] = []
        self.feed_forward: list[SavedFeedForward] = []
        for index, block in enumerate(blocks):
            key = str(index) if keep else ""
            rows = n_chosen if block is blocks[-1] else n_rows
            self.attention.append(SavedAttention(block, lane.arena, key, n_rows))
            self.feed_forward.append(SavedFeedForward(block, lane.arena, key, rows))
        self.scratches = [Scratch(block, lane.arena, n_rows) for block in blocks]
        self.last_scratch = Scratch(blocks[-1], lane.arena, n_chosen)
        self.x = lane.arena.floats("x", n_rows, blocks[0].d_model)
        self.last_x = lane.arena.floats("last x", n_chosen, blocks[0].d_model)

    def forward(self, embeddings: Half) -> Tensor:
        """The residual stream [N padded, D]; what is yet to be added to it is in last_scratch.branch."""
        lane, x = self.lane, self.x
        lane.rows(_kernels.embed, len(x), embeddings.values, self.shard.ids, x.numpy())
        branch: Half | None = None
        for index, (block, scratch) in enumerate(zip(self.blocks, self.scratches, strict=True)):
            saved = self.feed_forward[index]
            last = block is self.blocks[-1]
            out = lane.arena.half("last attended full", len(x), block.o.n_in) if last else saved.attended
            block.attend(lane, x, branch, self.shard, self.rotation, self.attention[index], scratch, out)
            if last:
                self._choose(out.tensor, saved.attended.tensor[:, : block.o.n_in])
                self._choose(x, self.last_x)
                x, scratch = self.last_x, self.last_scratch
            block.feed_forward(lane, x, saved, scratch)
            branch = scratch.branch
        return x

    def backward(self, d_x: Tensor) -> list[list[Gradients]]:
        """Gradients of each block's linears from that of `forward`'s result; see there for the other half.

        d_x [N padded, D] must be in last_scratch.d_branch too.
        """
        lane, found = self.lane, []
        for index in reversed(range(len(self.blocks))):
            block, scratch = self.blocks[index], self.scratches[index]
            last = index == len(self.blocks) - 1
            d_attended = lane.arena.half("d_attended", len(self.x), block.o.n_in)
            some = lane.arena.half("last d_attended", len(d_x), block.o.n_in) if last else d_attended
            gradients = block.feed_forward_backward(
                lane, d_x, self.feed_forward[index], self.last_scratch if last else scratch, some
            )
            if last:
                self._put_back(some.tensor, d_attended.tensor)
                self._put_back(d_x, self.x)
                d_x = self.x
            first = block.attend_backward(
                lane,
                d_attended,
                d_x if index else None,
                self.shard,
                self.rotation,
                self.attention[index],
                scratch,
            )
            found.append([first, *gradients])
        return found[::-1]

    def _choose(self, every: Tensor, chosen: Tensor) -> None:
        n = len(self.chosen)
        chosen[:n] = every[self.chosen]
        chosen[n:].zero_()

    def _put_back(self, chosen: Tensor, every: Tensor) -> None:
        every.zero_()
        every[self.chosen] = chosen[: len(self.chosen)]


@contextlib.contextmanager
def _bfloat16_inside(allowed: bool) -> Iterator[None]:
    """Let float32 products round their operands to bfloat16 (where the CPU multiplies that faster).

    Attention then keeps float32 scores. torch has one such setting for the whole process: it is restored.
    """
    settings: Any = getattr(torch.backends.mkldnn, "matmul", None)
    if settings is None:  # torch before 2.9
        yield
        return
    before = settings.fp32_precision
    settings.fp32_precision = "bf16" if allowed else "ieee"
    try:
        yield
    finally:
        settings.fp32_precision = before
