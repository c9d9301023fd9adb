"""A torch model as a decoder, on any device.

Shapes: B rows, T tokens, V vocab_size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from fullspan.models.llama import Llama, LlamaConfig
from fullspan.nn.kv_cache import KVCache

# Tokens, over all rows, that pass through the model at once while it reads prompts: bounds the
# memory of long prompts, and is enough to keep the cores busy.
_PREFILL_TOKENS = 4096
# Rows of logits held at once: 256 x 49,152 in float32 are 50 MB.
_LOGIT_ROWS = 256


class TorchDecoder:
    """A torch model as a `Decoder`; it is put into evaluation mode."""

    def __init__(self, model: Llama) -> None:
        self.model = model.eval()

    @property
    def config(self) -> LlamaConfig:
        """Sizes of the model."""
        return self.model.config

    @torch.inference_mode()
    def begin(self, prompts: Sequence[Sequence[int]], most_tokens: int) -> TorchBatch:
        """Read prompts into a cache, equal ones once."""
        longest = max(len(prompt) for prompt in prompts)
        cache = self.model.new_cache(min(longest + most_tokens, self.config.max_positions))
        places = {prompt: row for row, prompt in enumerate(dict.fromkeys(map(tuple, prompts)))}
        logits = _prefill(self.model, list(places), cache)
        if len(places) < len(prompts):
            rows = torch.tensor([places[tuple(prompt)] for prompt in prompts], device=logits.device)
            cache.select(rows)
            logits = logits[rows]
        return TorchBatch(self.model, cache, logits)

    @torch.inference_mode()
    def read(self, ids: Sequence[int]) -> Iterator[np.ndarray]:
        """Logits of what follows each token of one text."""
        tokens = torch.tensor(ids, device=next(self.model.parameters()).device)
        hidden = self.model.hidden(tokens[None])[0]  # [T, d_model]
        for start in range(0, len(hidden), _LOGIT_ROWS):
            yield self.model.logits(hidden[start : start + _LOGIT_ROWS]).float().cpu().numpy()


class TorchBatch:
    """The rows of a torch model's cache."""

    def __init__(self, model: Llama, cache: KVCache, logits: Tensor) -> None:
        self._model, self._cache, self._device = model, cache, logits.device
        self.logits: np.ndarray = logits.cpu().numpy()

    @torch.inference_mode()
    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows only."""
        self._cache.select(torch.tensor(rows, device=self._device))
        self.logits = self.logits[list(rows)]

    @torch.inference_mode()
    def append(self, tokens: Sequence[int]) -> None:
        """Put a token behind each row."""
        step = torch.tensor(tokens, device=self._device)[:, None]
        self.logits = self._model(step, cache=self._cache)[:, -1].float().cpu().numpy()


def _prefill(model: Llama, prompts: Sequence[Sequence[int]], cache: KVCache) -> Tensor:
    """Read the prompts into the cache; logits [B, V] of what follows each, in float32."""
    device = next(model.parameters()).device
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.zeros((len(prompts), longest), dtype=torch.long, device=device)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        # Padding stands on the left, so that every row's next token is in the same column.
        ids[row, longest - len(prompt) :] = torch.tensor(prompt, device=device)
        mask[row, longest - len(prompt) :] = 1
    step = max(1, _PREFILL_TOKENS // len(prompts))
    for start in range(0, longest, step):
        columns = slice(start, start + step)
        hidden = model.hidden(ids[:, columns], attention_mask=mask[:, columns], cache=cache)
    return model.logits(hidden[:, -1]).float()
