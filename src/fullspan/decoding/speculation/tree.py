"""A tree of proposed tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from numpy import float64
from numpy.typing import NDArray

Probabilities = NDArray[float64]


class Tree:
    """Tokens that may follow a text, several for a place where the drafter is in two minds.

    Node 0, the root, is the last token of the text itself, which the model has not read yet: logits behind it
    say what follows. Parents come before children.

    Parameters
    ----------
    root : int
        The text's last token.

    Attributes
    ----------
    tokens : list of int
    parents : list of int
        -1 for the root.
    drawn_from : list of (ndarray of float64 [V] or None)
        q, the distribution that each token was drawn from given its older siblings; None for a token that
        was proposed for certain, whose q is one-hot, and for the root.
    depths : list of int
        Tokens between the text and each, itself counted; 0 for the root.

    Examples
    --------
    >>> tree = Tree(7)
    >>> tree.add(tree.add(0, 8), 9), tree.add(0, 5)
    (2, 3)
    >>> tree.parents, tree.depths, tree.child(0, 5), tree.child(0, 9)
    ([-1, 0, 1, 0], [0, 1, 2, 1], 3, None)
    """

    def __init__(self, root: int) -> None:
        self.tokens = [root]
        self.parents = [-1]
        self.depths = [0]
        self.drawn_from: list[Probabilities | None] = [None]
        self._children: list[list[int]] = [[]]

    def __len__(self) -> int:
        """Number of nodes, the root counted."""
        return len(self.tokens)

    @property
    def depth(self) -> int:
        """Proposals on the longest path."""
        return max(self.depths)

    def add(self, parent: int, token: int, drawn_from: Probabilities | None = None) -> int:
        """Propose a token behind a node; the number of its node."""
        self.tokens.append(token)
        self.parents.append(parent)
        self.depths.append(self.depths[parent] + 1)
        self.drawn_from.append(drawn_from)
        self._children.append([])
        node = len(self.tokens) - 1
        self._children[parent].append(node)
        return node

    def child(self, node: int, token: int) -> int | None:
        """The node of a token behind another, if it was proposed."""
        return next((child for child in self._children[node] if self.tokens[child] == token), None)

    def children(self, node: int) -> list[int]:
        """The nodes of what was proposed behind a node, in the order of the proposals."""
        return self._children[node]

    def drawn(self, node: int) -> list[tuple[int, Probabilities]]:
        """The tokens that were drawn behind a node and the q of each, in the order of the draws."""
        return [
            (self.tokens[child], q)
            for child in self._children[node]
            if (q := self.drawn_from[child]) is not None
        ]

    def path(self, node: int) -> list[int]:
        """Tokens from the root, which is left out, to a node."""
        tokens = []
        while node > 0:
            tokens.append(self.tokens[node])
            node = self.parents[node]
        return tokens[::-1]

    def pruned(self, n_allowed: Callable[[Sequence[int]], int]) -> Tree:
        """The tree without the certain proposals that cannot come, and what stands behind them.

        A token that was drawn stays as long as its parent does: where only some draws were offered, those
        would not have the distribution q that acceptance counts with.

        Parameters
        ----------
        n_allowed : callable
            From a path of tokens to how many of them, from its start, may come.

        Examples
        --------
        >>> tree = Tree(7)
        >>> tree.add(tree.add(0, 8), 9), tree.add(tree.add(0, 5), 6)
        (2, 4)
        >>> tree.pruned(lambda path: 0 if path[0] == 8 else 1).tokens
        [7, 5]
        """
        leaves = [node for node in range(1, len(self)) if not self._children[node]]
        allowed = set()
        for leaf in leaves:
            node = leaf
            for _ in range(self.depths[leaf] - n_allowed(self.path(leaf))):
                node = self.parents[node]
            while node:
                allowed.add(node)
                node = self.parents[node]
        if len(allowed) == len(self) - 1:
            return self
        left, places = Tree(self.tokens[0]), {0: 0}
        for node in range(1, len(self)):
            q, parent = self.drawn_from[node], self.parents[node]
            if parent in places and (node in allowed or q is not None):
                places[node] = left.add(places[parent], self.tokens[node], q)
        return left
