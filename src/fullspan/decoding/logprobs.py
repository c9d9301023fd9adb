"""How likely the model found each token of an answer, and what else it thought likely."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fullspan.decoding.sampling import Logits


@dataclass(frozen=True)
class TopToken:
    """One of the most likely tokens at a place of an answer.

    Attributes
    ----------
    token_id : int
    logprob : float
        Natural logarithm of the probability.
    text : str
        Of the token alone; bytes that are no whole character are U+FFFD.
    """

    token_id: int
    logprob: float
    text: str


@dataclass(frozen=True)
class TokenLogprob(TopToken):
    """The token that was chosen; as the model has it, before all options of sampling and constraints.

    Attributes
    ----------
    token_id : int
    logprob : float
        Natural logarithm of the probability.
    text : str
        Of the token alone; bytes that are no whole character are U+FFFD.
    top : tuple of TopToken
        The most likely tokens, most likely first.
    """

    top: tuple[TopToken, ...] = ()


def token_logprob(logits: Logits, token: int, n_top: int, text_of: Callable[[int], str]) -> TokenLogprob:
    """Log-probability of a token, with the `n_top` most likely ones.

    Parameters
    ----------
    logits : ndarray of float32 [V]
    token : int
    n_top : int
    text_of : callable
        From a token to its text.

    Examples
    --------
    >>> found = token_logprob(np.log(np.float32([0.25, 0.5, 0.25])), token=2, n_top=1, text_of=str)
    >>> round(found.logprob, 3), found.top[0].text
    (-1.386, '1')
    """
    most = logits.max()
    total = float(most) + float(np.log(np.exp(logits - most).sum(dtype=np.float64)))
    n_top = min(n_top, len(logits))
    top = np.argpartition(logits, len(logits) - n_top)[len(logits) - n_top :] if n_top else np.empty(0, int)
    top = top[np.lexsort((top, -logits[top]))]  # of equals the lowest id first
    return TokenLogprob(
        token,
        float(logits[token]) - total,
        text_of(token),
        tuple(TopToken(index, float(logits[index]) - total, text_of(index)) for index in top.tolist()),
    )
