"""From logits to a token: penalties, truncations and the draw, as pure functions.

The order is that of transformers: repetition penalty, temperature, top-k, top-p, min-p. Each function
takes logits ``[..., V]`` and returns new ones of the same shape; what must not be drawn is -inf.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fullspan.decoding.options import Sampling


def penalise_repetition(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Make tokens that were seen less likely, for penalties above 1 (CTRL, Keskar et al. 2019, section 4.1).

    Positive logits are divided by the penalty, negative ones multiplied.

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

    Nucleus sampling (Holtzman et al. 2020, section 3.1).

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
    """Keep tokens whose probability is at least `p` times the largest (min-p, Nguyen et al. 2024).

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
