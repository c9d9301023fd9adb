"""Typical acceptance (Cai et al. 2024, "Medusa", section 2.3.1): NOT lossless where answers are sampled.

A proposed token x is accepted behind a text if ``p(x) > min(epsilon, delta exp(-H(p)))``: if it is not
improbable as tokens go there. Of the tree the longest accepted path is taken (of equals the likelier), and
one token drawn behind it. More is accepted, and sampled answers are no longer distributed as the model's.
Where p is one-hot the rule accepts that token and nothing else, so greedy answers stay what they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fullspan.core.errors import ConfigError
from fullspan.decoding.sampler import Sampler
from fullspan.decoding.speculation.tree import Probabilities, Tree


@dataclass(frozen=True)
class TypicalAcceptance:
    """The rule's two numbers; not lossless.

    Attributes
    ----------
    epsilon : float
        A token at least this likely is always accepted.
    delta : float
        How far below exp(-entropy) a token may lie.

    Examples
    --------
    >>> TypicalAcceptance().accepts(np.array([0.5, 0.4, 0.1]), 2)
    True
    >>> TypicalAcceptance().accepts(np.array([0.97, 0.02, 0.01]), 1)
    False
    """

    epsilon: float = 0.09
    delta: float = 0.3

    def __post_init__(self) -> None:
        if not (0 < self.epsilon <= 1 and 0 < self.delta <= 1):
            raise ConfigError(
                f"typical acceptance with epsilon {self.epsilon} and delta {self.delta}, expected numbers "
                "above 0, up to 1"
            )

    def accepts(self, p: Probabilities, token: int) -> bool:
        """Whether a token is typical of p [V]."""
        some = p[p > 0]
        entropy = float(-(some * np.log(some)).sum())
        return bool(p[token] > min(self.epsilon, self.delta * math.exp(-entropy)))

    def walk(
        self,
        tree: Tree,
        logits: NDArray[np.float32],
        sampler: Sampler,
        choose: Callable[[int], int],
    ) -> Iterator[tuple[int, int]]:
        """As `verifier.walk`, by this rule.

        Parameters
        ----------
        tree : Tree
        logits : ndarray of float32 [len(tree), V]
        sampler : Sampler
            At the text's end; its caller goes on along the path that is yielded.
        choose : callable
            Draws the token behind a node.
        """
        path = self._best(tree, logits, sampler, 0)[2]
        node = 0
        for following in path:
            yield node, tree.tokens[following]
            node = following
        yield node, choose(node)

    def _best(
        self, tree: Tree, logits: NDArray[np.float32], sampler: Sampler, node: int
    ) -> tuple[int, float, list[int]]:
        """Length, log-likelihood and nodes of the best accepted path behind a node."""
        best: tuple[int, float, list[int]] = (0, 0.0, [])
        children = tree.children(node)
        if not children or sampler.finished:
            return best
        p = sampler.distribution(logits[node])
        for child in children:
            token = tree.tokens[child]
            if not self.accepts(p, token):
                continue
            length, likelihood, path = 0, 0.0, list[int]()
            if tree.children(child):  # none behind an end token, which samplers do not take
                sampler.accept(token)
                length, likelihood, path = self._best(tree, logits, sampler, child)
                sampler.rollback(1)
            best = max(best, (1 + length, likelihood + math.log(p[token]), [child, *path]))
        return best
