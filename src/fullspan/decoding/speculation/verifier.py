"""The verifier: from the target's distribution and a drafter's proposals to a token of exactly the former.

For one proposal this is speculative sampling (Leviathan et al. 2023, algorithm 1 and appendix A.1; Chen et
al. 2023, algorithm 2): x drawn from q is accepted with probability ``min(1, p(x) / q(x))``; if it is not, the
token is drawn from ``norm(max(0, p - q))``. For several proposals behind one text it is repeated with what
was left of p (SpecInfer, Miao et al. 2024, algorithm 2; EAGLE, Li et al. 2024), each with the q that it was
drawn from *given* those before: the same q for draws with replacement, `without` those for draws without.

A token that was proposed for certain has a one-hot q. The rule then comes down to drawing from p and looking
whether the token was proposed: no randomness is spent on proposals, so that the answer is the one of plain
decoding with the same seed. Greedy decoding is the limit where p is one-hot: what the target finds most
likely, the lowest id of equals, is accepted, and nothing else.

In every case the token's distribution is p, whatever was proposed; that is why a tree may be verified one
node after the other, and why a grammar or a penalty may change p with every token of the path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np

from fullspan.decoding.sampling import draw
from fullspan.decoding.speculation.tree import Probabilities, Tree


class Chance(Protocol):
    """What is random, in two operations, so that a test can go through all that may happen."""

    def coin(self, probability: float) -> bool:
        """True with this probability."""

    def draw(self, probabilities: Probabilities) -> int:
        """A token of this distribution [V]."""


class GeneratorChance:
    """Randomness from a generator, one number for each decision.

    Parameters
    ----------
    generator : numpy.random.Generator
    """

    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator

    def coin(self, probability: float) -> bool:
        """True with this probability: always for 1 and more, never for 0."""
        return self._generator.random() < probability

    def draw(self, probabilities: Probabilities) -> int:
        """A token of this distribution [V]."""
        return draw(probabilities, self._generator.random())


def residual(p: Probabilities, q: Probabilities) -> Probabilities:
    """``norm(max(0, p - q))``, what a token is drawn from after a draw from q was refused.

    Where nothing is left p equals q, nothing is ever refused but by rounding, and p itself is as good.

    Parameters
    ----------
    p, q : ndarray of float64 [V]

    Examples
    --------
    >>> residual(np.array([0.5, 0.5, 0.0]), np.array([0.25, 0.0, 0.75]))
    array([0.33333333, 0.66666667, 0.        ])
    """
    left = np.maximum(p - q, 0.0)
    total = left.sum()
    return left / total if total > 0 else p


def without(q: Probabilities, token: int) -> Probabilities | None:
    """q given that it is not `token`, for a draw without replacement; None if nothing else is possible.

    Examples
    --------
    >>> without(np.array([0.5, 0.25, 0.25]), 0)
    array([0. , 0.5, 0.5])
    """
    left = q.copy()
    left[token] = 0.0
    total = left.sum()
    return left / total if total > 0 else None


def choose_token(p: Probabilities, drawn: Sequence[tuple[int, Probabilities]], chance: Chance) -> int:
    """A token of distribution p that is one of those drawn as often as can be.

    Parameters
    ----------
    p : ndarray of float64 [V]
        The target's processed distribution: after penalties, constraint, temperature and truncation.
    drawn : sequence of (int, ndarray of float64 [V])
        Proposed tokens in the order of their draws, each with the distribution it was drawn from.
    chance : Chance

    Examples
    --------
    >>> p, q = np.array([0.5, 0.5]), np.array([0.25, 0.75])
    >>> choose_token(p, [(0, q)], GeneratorChance(np.random.default_rng(0)))  # p(0) > q(0): accepted
    0
    """
    for token, q in drawn:
        if chance.coin(p[token] / q[token]):
            return token
        p = residual(p, q)
    return chance.draw(p)


def walk(tree: Tree, choose: Callable[[int], int]) -> Iterator[tuple[int, int]]:
    """Go down a tree as far as its tokens are chosen, and one token further.

    Parameters
    ----------
    tree : Tree
    choose : callable
        From a node to the token that follows it.

    Yields
    ------
    node, token : int
        A node of the path and what was chosen behind it: the next node's token, but for the last.
    """
    node: int | None = 0
    while node is not None:
        token = choose(node)
        yield node, token
        node = tree.child(node, token)
