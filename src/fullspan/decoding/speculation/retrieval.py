"""Proposals that are looked up in the user's own texts."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fullspan.core.errors import ConfigError
from fullspan.decoding.speculation.datastore import SORTED_TOKENS, Datastore, vocabulary_key
from fullspan.decoding.speculation.drafters import MOST_PROPOSALS, DraftRow, Target
from fullspan.decoding.speculation.ngram import NGramIndex, copy_kind, copy_rate
from fullspan.decoding.speculation.pace import TYPICAL, Guesses, StepCosts
from fullspan.decoding.speculation.tree import Tree

# Occurrences that are looked at, evenly spread over all: enough to tell what is frequent from what is rare.
_MOST_PLACES = 64
# Continuations of one context that are thought of, and searches for contexts, in one step.
_MOST_CHILDREN, _MOST_SEARCHES = 3, 4
_WORTH_A_SEARCH = 0.25  # chance of a guess; a search takes as long as the rest of the work on several
# How far to trust the share of a continuation, by the length of the context: seen with SmolLM2-135M.
_TRUST = (0.0, 0.3, 0.45, 0.6, 0.7, 0.75, 0.95)
_SHARES = 5
_FROM_STORE = 100  # kinds of guesses below are copies from the text itself


class RetrievalDrafter:
    """Proposes how the last few tokens went on in a datastore (REST, He et al. 2024), or in the text itself.

    The places with the longest context in common with the text make a trie of continuations (section 3.2
    there); beside it stands what `NGramDrafter` would copy. The likeliest nodes of both are the tree, as many
    as a step of more tokens pays for; how likely each kind of node is, the row's own steps teach.

    Parameters
    ----------
    datastore : Datastore
    n_tokens : int
        Most nodes of a tree.
    longest, shortest : int
        Lengths of the contexts that are looked for.
    costs : StepCosts
        Of the target's steps.

    Raises
    ------
    ConfigError
        If a number is out of its range.
    """

    def __init__(
        self,
        datastore: Datastore,
        n_tokens: int = 15,
        longest: int = 8,
        shortest: int = 2,
        costs: StepCosts = TYPICAL,
    ) -> None:
        if not 1 <= n_tokens <= MOST_PROPOSALS:
            raise ConfigError(f"n_tokens of a draft must be 1 to {MOST_PROPOSALS}, got {n_tokens}")
        if not 1 <= shortest <= longest <= SORTED_TOKENS:
            raise ConfigError(
                f"contexts of {shortest} to {longest} tokens cannot be looked for",
                f"they may have 1 to {SORTED_TOKENS}",
            )
        self.datastore, self.n_tokens, self.longest, self.shortest = datastore, n_tokens, longest, shortest
        self.costs = costs

    def check(self, target: Target) -> None:
        """Refuse a target whose tokens have other numbers."""
        if vocabulary_key(target.tokenizer) != self.datastore.vocabulary:
            raise ConfigError(
                f"the datastore holds tokens of another vocabulary than that of {target.name}",
                "build it again with this model's tokenizer",
            )

    def begin(self, n_rows: int) -> RetrievalDrafting:
        """Start on a batch."""
        return RetrievalDrafting(self, n_rows)


class RetrievalDrafting:
    """A datastore's drafts of one batch."""

    def __init__(self, drafter: RetrievalDrafter, n_rows: int) -> None:
        self._drafter = drafter
        self._rows = [(NGramIndex(), Guesses(_rate)) for _ in range(n_rows)]

    def propose(self, rows: Sequence[DraftRow]) -> list[Tree]:
        """A tree for each row."""
        trees = []
        for row, (index, guesses) in zip(rows, self._rows, strict=True):
            guesses.begin(row.ids)
            most = min(self._drafter.n_tokens, row.room)
            _Growth(self._drafter, row, guesses, *index.follow(row.ids, most)).grow()
            trees.append(guesses.tree(row.ids[-1], self._drafter.costs, len(rows)))
        return trees

    def keep(self, places: Sequence[int]) -> None:
        """Go on with these rows only."""
        self._rows = [self._rows[place] for place in places]


@dataclass(frozen=True)
class _Branch:
    """Where a guess, or the text itself, may go on: as the text did, and as places of the store did."""

    depth: int
    is_copy: bool
    length: int
    places: list[int]


class _Growth:
    """Guesses of one step, the likeliest first (best-first search over both tries)."""

    def __init__(
        self, drafter: RetrievalDrafter, row: DraftRow, guesses: Guesses, held: int, copied: list[int]
    ) -> None:
        self._drafter, self._row, self._guesses = drafter, row, guesses
        self._held, self._copied = held, copied
        self._waiting: list[tuple[float, int, int, int, int, _Branch]] = []
        self._n_offered, self._n_searches = 0, 0
        # No step gives less than a token, so a guess must be likelier than what one more token costs. Half of
        # that is thought of, to learn whether it is right more often than expected.
        self._least = drafter.costs.least / 2

    def grow(self) -> None:
        """Fill the guesses."""
        drafter, guesses, room = self._drafter, self._guesses, self._row.room
        if room:
            self._offer(-1, _Branch(0, True, 0, []))
        while self._waiting and len(guesses) < drafter.n_tokens:
            _, _, parent, token, kind, branch = heapq.heappop(self._waiting)
            guess = guesses.add(parent, token, kind)
            if branch.depth < room:
                self._offer(guess, branch)

    def _offer(self, parent: int, branch: _Branch) -> None:
        """Let what may follow a guess wait for its turn."""
        seen = None
        if branch.is_copy and branch.depth < len(self._copied):
            seen = self._copied[branch.depth]
            kind = copy_kind(self._held + branch.depth)
            self._wait(parent, seen, kind, _Branch(branch.depth + 1, True, 0, []))
        for token, kind, after in self._continuations(parent, branch):
            if token != seen:
                self._wait(parent, token, kind, after)

    def _wait(self, parent: int, token: int, kind: int, after: _Branch) -> None:
        self._n_offered += 1  # of equals the first offered
        chance = self._guesses.chance(parent, kind)
        if chance < self._least:
            return
        heapq.heappush(self._waiting, (-chance, self._n_offered, parent, token, kind, after))

    def _continuations(self, parent: int, branch: _Branch) -> Iterator[tuple[int, int, _Branch]]:
        """Tokens behind a guess in the store, with the kind of each and where it goes on."""
        tokens = self._drafter.datastore.tokens
        length, places = branch.length, branch.places
        if not places:
            length, places = self._search(parent)
        followers = tokens[places].tolist()
        for token, count in Counter(followers).most_common(_MOST_CHILDREN):
            kind = _kind(length, count / (len(places) + 1))
            behind = [place + 1 for place, found in zip(places, followers, strict=True) if found == token]
            behind = [place for place in behind if tokens[place] >= 0]  # a text may end here
            yield token, kind, _Branch(branch.depth + 1, False, length + 1, behind)

    def _search(self, parent: int) -> tuple[int, list[int]]:
        """The longest context that the store knows behind a guess, and its places."""
        drafter = self._drafter
        unlikely = parent >= 0 and self._guesses.chances[parent] < _WORTH_A_SEARCH
        if unlikely or self._n_searches == _MOST_SEARCHES:
            return 0, []
        self._n_searches += 1
        path = self._guesses.path(parent)
        context = [*self._row.ids[-drafter.longest :], *path]
        length, places = drafter.datastore.longest(context, drafter.longest)
        if length < drafter.shortest:
            return 0, []
        return length, places[:: -(-len(places) // _MOST_PLACES)].tolist()


def _kind(length: int, share: float) -> int:
    """The kind of a token by the length of its context and its share of the continuations, below 1."""
    return _FROM_STORE + _SHARES * min(length, len(_TRUST) - 1) + int(share * _SHARES)


def _rate(kind: int) -> float:
    """The chance of a guess before anything is known of the text."""
    if kind < _FROM_STORE:
        return copy_rate(kind)
    length, share = divmod(kind - _FROM_STORE, _SHARES)
    return _TRUST[length] * (share + 0.5) / _SHARES
