"""Keys and values of the tokens that a model has already seen.

Shapes: B batch, H key/value heads, S slots in use, T new tokens, D head_dim.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fullspan.core.errors import ConfigError


class KVCache:
    """Preallocated keys and values of every layer; grows by doubling.

    A model's forward pass calls `reserve` once, `write` in each layer and `advance` at its end, so a pass
    that fails in between leaves the cache as it was.

    Parameters
    ----------
    n_layers : int
        Layers of the model.
    capacity : int
        Slots to allocate at first; give the final length where it is known.

    Attributes
    ----------
    length : int
        Slots in use, the same for every row of the batch; padded slots count.

    Examples
    --------
    >>> cache = KVCache(n_layers=1, capacity=2)
    >>> _ = cache.reserve(3)
    >>> keys, values = cache.write(0, torch.zeros(1, 2, 3, 4), torch.ones(1, 2, 3, 4))
    >>> cache.advance(3)
    >>> keys.shape, cache.length, cache.trim(1), cache.length
    (torch.Size([1, 2, 3, 4]), 3, None, 2)
    """

    def __init__(self, n_layers: int, capacity: int = 256) -> None:
        if capacity < 1:
            raise ConfigError(f"a cache needs a capacity of at least 1, got {capacity}")
        self.length = 0
        self._capacity = capacity
        self._keys: list[Tensor | None] = [None] * n_layers  # each [B, H, capacity, D]
        self._values: list[Tensor | None] = [None] * n_layers
        self._valid: Tensor | None = None  # [B, S] bool; None while no slot is padding

    @property
    def n_layers(self) -> int:
        """Layers that the cache was made for."""
        return len(self._keys)

    @property
    def capacity(self) -> int:
        """Slots allocated."""
        return self._capacity

    @property
    def batch_size(self) -> int | None:
        """Rows held, or None before the first tokens."""
        return None if self._keys[0] is None else self._keys[0].shape[0]

    @property
    def valid(self) -> Tensor | None:
        """Which slots hold tokens rather than padding, bool [B, S]; None when all do."""
        return self._valid

    def reserve(self, n_tokens: int) -> None:
        """Make room for `n_tokens` more in every layer."""
        needed = self.length + n_tokens
        if needed <= self._capacity:
            return
        while self._capacity < needed:
            self._capacity *= 2
        for buffers in (self._keys, self._values):
            for layer, old in enumerate(buffers):
                if old is not None:
                    new = old.new_empty((*old.shape[:2], self._capacity, old.shape[3]))
                    new[:, :, : self.length] = old[:, :, : self.length]
                    buffers[layer] = new

    def write(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Put `keys` and `values` [B, H, T, D] behind those of one layer.

        Returns
        -------
        tuple of Tensor [B, H, S + T, D]
            Views of everything the layer holds, the new tokens included.

        Raises
        ------
        ConfigError
            If the batch size differs from what the cache holds, or gradients are recorded.
        """
        if keys.requires_grad and torch.is_grad_enabled():
            raise ConfigError("a cache cannot carry gradients", "call the model under torch.no_grad()")
        stop = self.length + keys.shape[2]
        return (
            self._write(self._keys, layer, keys)[:, :, :stop],
            self._write(self._values, layer, values)[:, :, :stop],
        )

    def _write(self, buffers: list[Tensor | None], layer: int, new: Tensor) -> Tensor:
        batch, heads, n_tokens, head_dim = new.shape
        buffer = buffers[layer]
        if buffer is None:
            buffer = new.new_empty((batch, heads, self._capacity, head_dim))
            buffers[layer] = buffer
        if buffer.shape[0] != batch:
            raise ConfigError(f"the cache holds {buffer.shape[0]} rows, got a batch of {batch}")
        buffer[:, :, self.length : self.length + n_tokens] = new
        return buffer

    def advance(self, n_tokens: int, valid: Tensor | None = None) -> None:
        """Count the `n_tokens` just written as held; `valid` bool [B, T] is False where they are padding."""
        if valid is not None or self._valid is not None:
            self._valid = self.valid_with(n_tokens, valid)
        self.length += n_tokens

    def valid_with(self, n_tokens: int, valid: Tensor | None) -> Tensor | None:
        """`valid` [B, S + T] as it will be after `advance(n_tokens, valid)`."""
        if self._valid is None and valid is None:
            return None
        known = valid if valid is not None else self._valid
        assert known is not None
        rows = known.shape[0]
        past = self._valid if self._valid is not None else known.new_ones((rows, self.length))
        new = valid if valid is not None else known.new_ones((rows, n_tokens))
        return torch.cat((past, new), dim=1)

    def trim(self, n_tokens: int) -> None:
        """Forget the last `n_tokens`.

        Raises
        ------
        ConfigError
            If the cache holds fewer.
        """
        if not 0 <= n_tokens <= self.length:
            raise ConfigError(f"cannot trim {n_tokens} tokens from a cache that holds {self.length}")
        self.length -= n_tokens
        if self._valid is not None:
            self._valid = self._valid[:, : self.length]

    def select(self, rows: Tensor) -> None:
        """Keep the rows of the batch that `rows` int64 [N] names, in that order; a row may be repeated."""
        for buffers in (self._keys, self._values):
            for layer, old in enumerate(buffers):
                if old is not None:
                    new = old.new_empty((len(rows), *old.shape[1:]))
                    new[:, :, : self.length] = old[rows, :, : self.length]
                    buffers[layer] = new
        if self._valid is not None:
            self._valid = self._valid[rows]
