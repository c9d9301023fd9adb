"""Proposals that are looked up in the user's own texts."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fullspan.core.errors import ConfigError
from fullspan.decoding.speculation.datastore import SORTED_TOKENS, Datastore, vocabulary_key
from fullspan.decoding.speculation.drafters import MOST_PROPOSALS, DraftRow, Target
from fullspan.decoding.speculation.tree import Tree

# Occurrences that are looked at, evenly spread over all: enough to tell what is frequent from what is rare.
_MOST_PLACES = 512


class RetrievalDrafter:
    """Proposes how the last few tokens went on in a datastore (REST, He et al. 2024).

    Of all n-grams that end the text the longest that the datastore holds counts. What followed its
    occurrences is a trie; its most frequent nodes are the tree (section 3.2 there).

    Parameters
    ----------
    datastore : Datastore
    n_tokens : int
        Nodes of a tree.
    longest, shortest : int
        Lengths of the n-grams that are looked for.

    Raises
    ------
    ConfigError
        If a number is out of its range.
    """

    def __init__(self, datastore: Datastore, n_tokens: int = 3, longest: int = 16, shortest: int = 2) -> None:
        if not 1 <= n_tokens <= MOST_PROPOSALS:
            raise ConfigError(f"n_tokens of a draft must be 1 to {MOST_PROPOSALS}, got {n_tokens}")
        if not 1 <= shortest <= longest <= SORTED_TOKENS:
            raise ConfigError(
                f"n-grams of {shortest} to {longest} tokens cannot be looked for",
                f"they may have 1 to {SORTED_TOKENS}",
            )
        self.datastore, self.n_tokens, self.longest, self.shortest = datastore, n_tokens, longest, shortest

    def check(self, target: Target) -> None:
        """Refuse a target whose tokens have other numbers."""
        if vocabulary_key(target.tokenizer) != self.datastore.vocabulary:
            raise ConfigError(
                f"the datastore holds tokens of another vocabulary than that of {target.name}",
                "build it again with this model's tokenizer",
            )

    def begin(self, n_rows: int) -> RetrievalDrafter:
        """Start on a batch; nothing is remembered of its rows."""
        return self

    def keep(self, places: Sequence[int]) -> None:
        """Go on with these rows only."""

    def propose(self, rows: Sequence[DraftRow]) -> list[Tree]:
        """A tree for each row."""
        return [self._tree(row) for row in rows]

    def _tree(self, row: DraftRow) -> Tree:
        tree = Tree(row.ids[-1])
        for length in range(min(self.longest, len(row.ids)), self.shortest - 1, -1):
            places = self.datastore.after(row.ids[-length:])
            if len(places) and _grow(tree, self.datastore.tokens, places, self.n_tokens, row.room):
                break
        return tree


def _grow(tree: Tree, tokens: NDArray[np.int32], places: NDArray[np.int32], n_tokens: int, room: int) -> bool:
    """Add the nodes of the trie of what stands at `places` that most of these pass through."""
    places = places[:: -(-len(places) // _MOST_PLACES)]
    waiting: list[tuple[int, int, int, int, NDArray[np.int32]]] = []
    order = 0

    def offer(node: int, places: NDArray[np.int32]) -> None:
        nonlocal order
        places = places[tokens[places] >= 0]  # a text ends here
        found, which, counts = np.unique(tokens[places], return_inverse=True, return_counts=True)
        for kind in np.argsort(-counts, kind="stable")[:n_tokens].tolist():
            behind = places[which == kind] + 1
            heapq.heappush(waiting, (-int(counts[kind]), order, node, int(found[kind]), behind))
            order += 1  # of equals the first offered, and no arrays are compared

    if room:
        offer(0, places)
    while waiting and len(tree) <= n_tokens:
        _, _, parent, token, behind = heapq.heappop(waiting)
        node = tree.add(parent, token)
        if tree.depths[node] < room:
            offer(node, behind)
    return len(tree) > 1
