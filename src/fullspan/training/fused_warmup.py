"""Compiles the fused step's kernels where the user can see it, once a machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from fullspan.adapters.lora import LoRAConfig, add_lora
from fullspan.core.device import has_fast_bfloat16
from fullspan.core.kernels import was_compiled
from fullspan.core.progress import progress
from fullspan.models.llama import Llama, LlamaConfig
from fullspan.text.packing import Encoded, packed_batch
from fullspan.training import _kernels
from fullspan.training.fused_buffers import Half, Rows

_TINY = LlamaConfig(
    vocab_size=8, d_model=32, n_layers=1, n_heads=2, n_kv_heads=1, head_dim=32, d_ff=32, max_positions=8
)
_N_KERNELS = 10


class _Announcing(Rows):
    """Tells after each new kernel."""

    def __init__(self, tell: Callable[..., None]) -> None:
        super().__init__()
        self.tell = tell
        self.seen: set[int] = set()

    def __call__(self, kernel: Callable[..., None], n: int, *arguments: Any) -> None:
        super().__call__(kernel, n, *arguments)
        if id(kernel) not in self.seen:
            self.seen.add(id(kernel))
            self.tell()


def warm_up(dtype: torch.dtype, head_dim: int) -> None:
    """Take a step with a tiny model, under a progress bar, if the kernels are not in Numba's disk cache.

    Parameters
    ----------
    dtype : torch.dtype
        Of the products; there are kernels for each.
    head_dim : int
        Decides between the two kinds of attention.
    """
    # The least of the kernels stands for all: they are compiled in one go and lie in one folder.
    table = Half(torch.zeros(1, 1, dtype=dtype))
    _kernels.embed(table.values, np.zeros(1, np.int64), np.zeros((1, 1), np.float32), 0, 1)
    if not was_compiled(_kernels.embed):
        return
    _take_a_step(dtype, head_dim)


def warm_up_all() -> None:
    """Compile the kernels of every type of products and kind of attention that this CPU runs."""
    _take_a_step(torch.float32, 32)
    if has_fast_bfloat16():
        _take_a_step(torch.bfloat16, 32)  # attention in tiles where there is AMX
        _take_a_step(torch.bfloat16, 16)


def _take_a_step(dtype: torch.dtype, head_dim: int) -> None:
    from fullspan.training.fused import FusedStep

    model = Llama(dataclasses.replace(_TINY, head_dim=head_dim)).to(dtype)
    add_lora(model, LoRAConfig(rank=1))
    batch = packed_batch([Encoded([1, 2, 3], [False, True, True])])
    with progress(_N_KERNELS, "compiling kernels (first run)", unit="kernels") as tell:
        FusedStep(model).run_alone(batch, _Announcing(tell))
