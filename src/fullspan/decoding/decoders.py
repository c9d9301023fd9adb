"""What generation needs of a model: logits of what follows each row of a batch that grows.

`torch_decoder.TorchDecoder` runs a torch model, on any device; `engine.decoder.EngineDecoder` packed weights
on the CPU, without torch.

Shapes: B rows, T tokens, V vocab_size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np

if TYPE_CHECKING:
    from fullspan.models.llama import Llama, LlamaConfig


class Batch(Protocol):
    """Rows that are answered together.

    Attributes
    ----------
    logits : ndarray of float32 [B, V]
        Of what follows each row.
    """

    logits: np.ndarray

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows only, in this order."""

    def append(self, tokens: Sequence[int]) -> None:
        """Put a token behind each row; `logits` are then of what follows it."""


class Decoder(Protocol):
    """A model that can be asked what follows."""

    @property
    def config(self) -> LlamaConfig:
        """Sizes of the model."""

    @property
    def model(self) -> Llama:
        """The torch model of the same weights."""

    def begin(self, prompts: Sequence[Sequence[int]], most_tokens: int) -> Batch:
        """Read prompts, to each of which up to `most_tokens` will be appended."""

    def read(self, ids: Sequence[int]) -> Iterator[np.ndarray]:
        """Logits float32 [t, V] of what follows each token of one text, piece by piece."""


def decoder_of(model: Llama | Decoder) -> Decoder:
    """A torch model as a decoder; a decoder is one already."""
    if hasattr(model, "begin"):  # says it without torch, which a decoder may not need
        return cast("Decoder", model)
    from fullspan.decoding.torch_decoder import TorchDecoder

    return TorchDecoder(cast("Llama", model))
