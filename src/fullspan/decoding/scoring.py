"""How likely a model finds a text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fullspan.core.errors import DataError
from fullspan.decoding.decoders import Decoder, decoder_of
from fullspan.objectives.perplexity import perplexity

if TYPE_CHECKING:
    from fullspan.models.llama import Llama


@dataclass(frozen=True)
class Score:
    """Log-probability of each token of a text given the tokens before it.

    Attributes
    ----------
    token_ids : tuple of int
    logprobs : tuple of float
        Natural logarithms for all tokens but the first, which nothing precedes.

    Examples
    --------
    >>> score = Score(token_ids=(5, 7, 9), logprobs=(math.log(0.5), math.log(0.125)))
    >>> round(score.total, 3), round(score.perplexity, 3)
    (-2.773, 4.0)
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]

    @property
    def total(self) -> float:
        """Log-probability of the text after its first token."""
        return math.fsum(self.logprobs)

    @property
    def perplexity(self) -> float:
        """exp of the mean negative log-probability."""
        return perplexity(-self.total / len(self.logprobs))


def score_tokens(model: Llama | Decoder, token_ids: Sequence[int]) -> Score:
    """Score one sequence of tokens.

    Raises
    ------
    DataError
        If there are fewer than two tokens, or more than the model's context holds.
    """
    decoder = decoder_of(model)
    context = decoder.config.max_positions
    if not 2 <= len(token_ids) <= context:
        raise DataError(
            f"a text to score needs from 2 to {context} tokens (the model's context), got {len(token_ids)}"
        )
    logprobs: list[float] = []
    for logits in decoder.read(token_ids[:-1]):  # [t, V]
        following = token_ids[len(logprobs) + 1 :][: len(logits)]
        most = logits.max(-1)
        total = np.exp(logits - most[:, None]).sum(-1, dtype=np.float64)
        logprobs += (logits[np.arange(len(logits)), following] - most - np.log(total)).tolist()
    return Score(tuple(token_ids), tuple(logprobs))
