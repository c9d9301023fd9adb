"""From logits to a token: penalties, truncations and the draw, as pure functions.

The order is that of transformers: repetition penalty, temperature, top-k, top-p, min-p. Each function
takes logits ``[..., V]`` and returns new ones of the same shape; what must not be drawn is -inf.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from fullspan.core.errors import ConfigError


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Parameters
    ----------
    temperature : float
        0 takes the most likely token (of equals the lowest id); 1 samples the model's own distribution.
    top_k : int, optional
        Keep the `top_k` most likely tokens (and those tied with the last of them).
    top_p : float, optional
        Keep the smallest set of tokens whose probabilities sum to `top_p` (nucleus sampling, Holtzman et
        al. 2020).
    min_p : float, optional
        Keep tokens at least `min_p` times as likely as the most likely one (Nguyen et al. 2024).
    repetition_penalty : float
        Divides positive and multiplies negative logits of tokens in the prompt or the answer (CTRL, Keskar
        et al. 2019, section 4.1). 1 changes nothing.

    Raises
    ------
    ConfigError
        If a value is out of its range.

    Examples
    --------
    >>> Sampling(temperature=0.8, top_p=0.95).greedy
    False
    >>> Sampling(top_p=1.5)
    Traceback (most recent call last):
    ...
    fullspan.core.errors.ConfigError: top_p must be above 0 and at most 1, got 1.5
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            optional = field.default is None
            if not (value is None and optional):
                _check(field.name, value)

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is taken, so that nothing is random."""
        return self.temperature == 0


_RANGES: dict[str, tuple[str, Callable[[float], bool]]] = {
    "temperature": ("0 or more", lambda value: value >= 0),
    "top_k": ("a whole number of 1 or more", lambda value: isinstance(value, int) and value >= 1),
    "top_p": ("above 0 and at most 1", lambda value: 0 < value <= 1),
    "min_p": ("from 0 to 1", lambda value: 0 <= value <= 1),
    "repetition_penalty": ("above 0", lambda value: value > 0),
}


def _check(name: str, value: object) -> None:
    expected, holds = _RANGES[name]
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not (is_number and holds(value)):  # type: ignore[arg-type]  # is_number says so
        raise ConfigError(f"{name} must be {expected}, got {value!r}")


def penalise_repetition(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Make tokens that were seen less likely (for penalties above 1).

    Parameters
    ----------
    logits : Tensor [..., V]
    seen : Tensor of bool [..., V]
        True for tokens of the prompt and of the answer so far.
    penalty : float

    Examples
    --------
    >>> logits = torch.tensor([2.0, -2.0, 1.0])
    >>> penalise_repetition(logits, torch.tensor([True, True, False]), 2.0)
    tensor([ 1., -4.,  1.])
    """
    return torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Keep the `k` largest logits and those equal to the k-th.

    Examples
    --------
    >>> keep_top_k(torch.tensor([1.0, 3.0, 2.0]), 2)
    tensor([-inf, 3., 2.])
    """
    kth = torch.topk(logits, min(k, logits.shape[-1])).values[..., -1:]
    return logits.masked_fill(logits < kth, -torch.inf)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Keep the most likely tokens until their probabilities reach `p`; of equals the lowest ids stay.

    Examples
    --------
    >>> keep_top_p(torch.tensor([0.5, 0.3, 0.2]).log(), 0.7).exp()
    tensor([0.5000, 0.3000, 0.0000])
    """
    if p >= 1:
        return logits
    # Ascending, so that the tail is summed before the head: small probabilities keep their digits.
    ordered, index = (part.flip(-1) for part in torch.sort(logits, descending=True, stable=True))
    drop = ordered.softmax(-1).cumsum(-1) <= 1 - p
    drop[..., -1] = False  # the most likely token stays, however small p is
    return logits.masked_fill(drop.scatter(-1, index, drop), -torch.inf)


def keep_min_p(logits: Tensor, p: float) -> Tensor:
    """Keep tokens whose probability is at least `p` times the largest.

    Examples
    --------
    >>> keep_min_p(torch.tensor([0.5, 0.3, 0.2]).log(), 0.5).exp()
    tensor([0.5000, 0.3000, 0.0000])
    """
    probabilities = logits.softmax(-1)
    threshold = p * probabilities.amax(-1, keepdim=True)
    return logits.masked_fill(probabilities < threshold, -torch.inf)


def process(logits: Tensor, options: Sampling, seen: Tensor | None = None) -> Tensor:
    """Logits of the distribution that is sampled from; under greedy options, that is maximised.

    Parameters
    ----------
    logits : Tensor [..., V]
    options : Sampling
    seen : Tensor of bool [..., V], optional
        Needed when `options.repetition_penalty` is not 1.

    Examples
    --------
    >>> process(torch.tensor([1.0, 3.0, 2.0]), Sampling(temperature=0.5, top_k=2))
    tensor([-inf, 6., 4.])
    """
    if options.repetition_penalty != 1 and seen is not None:
        logits = penalise_repetition(logits, seen, options.repetition_penalty)
    if options.greedy:
        return logits
    if options.temperature != 1:
        logits = logits / options.temperature
    if options.top_k is not None:
        logits = keep_top_k(logits, options.top_k)
    if options.top_p is not None:
        logits = keep_top_p(logits, options.top_p)
    if options.min_p is not None:
        logits = keep_min_p(logits, options.min_p)
    return logits


def draw(logits: Tensor, options: Sampling, generators: Sequence[torch.Generator]) -> Tensor:
    """Choose one token a row from processed logits.

    Parameters
    ----------
    logits : Tensor [B, V]
    options : Sampling
    generators : sequence of torch.Generator, length B
        One a row, so that a row's draw does not depend on its neighbours. Unused when greedy.

    Returns
    -------
    Tensor of int64 [B]

    Examples
    --------
    >>> draw(torch.tensor([[0.0, 2.0, 2.0]]), Sampling(), [])  # equals: the lowest id
    tensor([1])
    """
    if options.greedy:
        # argmax leaves open which of equals it returns; the first True is well defined.
        return (logits == logits.amax(-1, keepdim=True)).int().argmax(-1)
    probabilities = logits.softmax(-1)  # [B, V]
    rows = [
        torch.multinomial(row, 1, generator=generator)
        for row, generator in zip(probabilities, generators, strict=True)
    ]
    return torch.cat(rows)
