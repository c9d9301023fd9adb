"""A drafter's body and head while they are trained: losses of a batch, and how often its guesses are right.

Shapes: B texts, T tokens, L layers looked at, D d_model, W draft vocabulary, N supervised places.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fullspan.decoding.engine.engine import Engine
from fullspan.decoding.engine.unpacking import embeddings, unpack_rows
from fullspan.nn.norms import RMSNorm
from fullspan.objectives.distillation import soft_cross_entropy
from fullspan.training.drafters.modules import Ahead
from fullspan.training.drafters.texts import Text

# Ranks of a guess that accuracies are kept for: trees on a CPU have no use for more.
RANKS = 6


@dataclass(frozen=True, eq=False)
class Padded:
    """Texts as one batch, filled up at the right.

    Attributes
    ----------
    ids : Tensor int64 [B, T]
    supervised : Tensor bool [B, T]
    hidden : Tensor float32 [B, T, L, D]
    said : Tensor int64 [B, T]
        The model's most likely token behind each; -1 where it is not known.
    """

    ids: Tensor
    supervised: Tensor
    hidden: Tensor
    said: Tensor

    @classmethod
    def of(cls, texts: Sequence[Text]) -> Padded:
        """Of these texts."""
        shape = len(texts), max(len(text.ids) for text in texts)
        ids, said = np.zeros(shape, np.int64), np.full(shape, -1)
        supervised = np.zeros(shape, bool)
        hidden = np.zeros((*shape, *texts[0].hidden.shape[1:]), np.float32)
        for row, text in enumerate(texts):
            n = len(text.ids)
            ids[row, :n], supervised[row, :n], hidden[row, :n] = text.ids, text.supervised, text.hidden
            if text.said is not None:
                said[row, :n] = text.said
        return cls(*(torch.from_numpy(array) for array in (ids, supervised, hidden, said)))


class Learner(nn.Module):
    """A body with its head, and the frozen parts of the model that it learns from.

    Parameters
    ----------
    body : nn.Module and Ahead
    engine : Engine
        Of the model.
    tokens : ndarray of int64 [W]
        The draft vocabulary.
    loss : callable
        From the cross-entropies of each token ahead to the loss: an objective.
    first : int
        How far ahead the body's first states look: 1, or 0 for a model of its own.
    """

    def __init__(
        self,
        body: nn.Module,
        engine: Engine,
        tokens: NDArray[np.int64],
        loss: Callable[[list[Tensor]], Tensor],
        first: int = 1,
    ) -> None:
        super().__init__()
        config, packed = engine.config, engine.packed
        self.body, self._loss, self._first, self._engine = body, loss, first, engine
        self.tokens = tokens
        rows = torch.from_numpy(unpack_rows(packed, -2, tokens)[:, : config.d_model].copy())
        self.wanted_head = rows
        self.head = nn.Parameter(rows.clone())
        self.norm = RMSNorm(config.d_model, config.rms_norm_eps).requires_grad_(False)
        self.norm.weight.copy_(torch.from_numpy(packed.norms[-1, : config.d_model].copy()))

    def losses(self, batch: Padded) -> list[Tensor]:
        """Cross-entropies [N_k] to the model's distribution of each token ahead."""
        normed, states = self._states(batch)
        found = []
        for k, state in enumerate(states, start=self._first):
            rows = self._places(batch, k)
            with torch.no_grad():
                wanted = normed[:, k:][rows] @ self.wanted_head.T  # [N, W]
            found.append(soft_cross_entropy(state[:, : state.shape[1] - k][rows] @ self.head.T, wanted))
        return found

    def loss(self, batch: Padded) -> Tensor:
        """The objective's value []."""
        return self._loss(self.losses(batch))

    @torch.no_grad()
    def right(self, batch: Padded) -> list[tuple[Tensor, int]]:
        """Of each token ahead: how many guesses of each rank [RANKS] are the model's choice, and of how many.

        The model's choice is its most likely token after the text's own tokens up to there.
        """
        _, states = self._states(batch)
        found = []
        for k, state in enumerate(states, start=self._first):
            rows = self._places(batch, k)
            logits = state[:, : state.shape[1] - k][rows] @ self.head.T
            guesses = torch.from_numpy(self.tokens)[logits.topk(min(RANKS, logits.shape[1])).indices]
            hits = guesses == batch.said[:, k:][rows][:, None]
            found.append((hits.sum(0), len(hits)))
        return found

    def _states(self, batch: Padded) -> tuple[Tensor, list[Tensor]]:
        with torch.no_grad():
            normed = self.norm(batch.hidden[:, :, -1])
            some, places = np.unique(batch.ids.numpy(), return_inverse=True)
            table = torch.from_numpy(embeddings(self._engine.packed, some).copy())
            embedded = table[torch.from_numpy(places).view(batch.ids.shape)]
        body: Ahead = self.body  # type: ignore[assignment]
        return normed, body(normed, batch.hidden, embedded)

    @staticmethod
    def _places(batch: Padded, k: int) -> Tensor:
        """bool [B, T - k]: the places from which the token k + 1 on is supervised."""
        wanted = torch.zeros_like(batch.supervised[:, k:])
        wanted[:, :-1] = batch.supervised[:, k + 1 :]
        return wanted
