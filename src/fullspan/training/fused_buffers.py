"""Memory of the fused step, and how its row kernels are run."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

import torch
from torch import Tensor


class Half:
    """A tensor in the products' dtype with the array that kernels take: bfloat16 appears as uint16.

    Examples
    --------
    >>> Half(torch.ones(1, 1, dtype=torch.bfloat16)).values
    array([[16256]], dtype=uint16)
    """

    __slots__ = ("tensor", "values")

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.values = (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()

    def first(self, n: int) -> Half:
        """The first `n` rows."""
        return Half(self.tensor[:n])


class Rows:
    """Runs a kernel on rows ``0 .. n``, in parts on a pool's threads if there is one."""

    def __init__(self, pool: Executor | None = None, n_parts: int = 1) -> None:
        self.pool = pool
        self.n_parts = n_parts

    def __call__(self, kernel: Callable[..., None], n: int, *arguments: Any) -> None:
        if self.pool is None or n < self.n_parts:
            kernel(*arguments, 0, n)
            return
        bounds = [n * part // self.n_parts for part in range(self.n_parts + 1)]
        parts = [
            self.pool.submit(kernel, *arguments, first, last) for first, last in itertools.pairwise(bounds)
        ]
        for part in parts:
            part.result()


_SLACK = 64


class Arena:
    """Hands out arrays by name; the memory of a name is used again by the next call with that name.

    Parameters
    ----------
    dtype : torch.dtype
        Of the halves.

    Examples
    --------
    >>> arena = Arena(torch.bfloat16)
    >>> one, two = arena.floats("sums", 4), arena.floats("sums", 2, 1)
    >>> one.data_ptr() == two.data_ptr()
    True
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self._memory: dict[str, Tensor] = {}

    def half(self, name: str, *shape: int) -> Half:
        """An array in the products' dtype, its content finite but undefined."""
        return Half(self._take(name, shape, self.dtype))

    def floats(self, name: str, *shape: int) -> Tensor:
        """A float32 array, its content finite but undefined."""
        return self._take(name, shape, torch.float32)

    def _take(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        size = math.prod(shape)
        flat = self._memory.get(name)
        if flat is None or flat.numel() < size + _SLACK:
            self._memory.pop(name, None)  # freed before its successor is allocated
            # oneDNN's bfloat16 products read whole tiles: past the columns of an operand, at its end past
            # the operand. What is there is multiplied by 0, so it must not be NaN.
            flat = self._memory[name] = torch.zeros(size + _SLACK, dtype=dtype)
        return flat[:size].view(shape)
