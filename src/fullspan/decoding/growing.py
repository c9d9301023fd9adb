"""Answers while a scheduler works on them: first their prompt is read, then they grow."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fullspan.decoding.engine.cache import SequenceCache
from fullspan.decoding.engine.engine import Segment
from fullspan.decoding.generation import Answer
from fullspan.decoding.logprobs import token_logprob
from fullspan.decoding.requests import Request, Update
from fullspan.decoding.speculation.drafters import Drafter, DraftRow
from fullspan.decoding.speculation.tree import Tree
from fullspan.decoding.speculation.verifier import GeneratorChance, choose_token, walk


@dataclass(eq=False)
class Reading:
    """A request whose prompt is being read."""

    request: Request
    cache: SequenceCache | None = None  # none until it has its first turn

    @property
    def n_left(self) -> int:
        """Tokens of the prompt to be read."""
        return len(self.request.prompt) - (0 if self.cache is None else self.cache.length)


class Growing:
    """An answer that grows; its last token is not in its cache yet.

    Parameters
    ----------
    request : Request
    index : int
        Which of the request's answers.
    cache : SequenceCache
        Of the prompt; the answer's own.
    end_ids : frozenset of int
    drafter : Drafter, optional

    Attributes
    ----------
    ids : list of int
        Prompt and answer.
    tree : Tree
        What the next step reads: the last token, and what is proposed to follow it.
    n_accepted : int
        Proposals that the last step accepted.
    """

    def __init__(
        self,
        request: Request,
        index: int,
        cache: SequenceCache,
        end_ids: frozenset[int],
        drafter: Drafter | None = None,
    ) -> None:
        self.request, self.index, self.cache = request, index, cache
        self.ids = list(request.prompt)
        self.tree, self.n_accepted = Tree(self.ids[-1]), 0
        self._end_ids = end_ids
        self._draft = DraftRow(self.ids, self.answer.sampler, end_ids)
        self._drafting = None if drafter is None or request.reproducible else drafter.begin(1)

    @property
    def answer(self) -> Answer:
        """What grows."""
        return self.request.answers[self.index]

    @property
    def known(self) -> list[int]:
        """Tokens in the cache."""
        return self.ids[: self.cache.length]

    def propose(self, most: int) -> None:
        """Settle what the next step reads, with up to `most` proposals behind each other."""
        # A step gives one token more than it accepts proposals.
        self._draft.room = min(most, self.answer.limit - len(self.answer.token_ids) - 1)
        if self._drafting is None or self._draft.room < 1:
            self.tree = Tree(self.ids[-1])
            return
        [tree] = self._drafting.propose([self._draft])
        sampler = self.answer.sampler
        self.tree = tree if sampler.constraint is None else tree.pruned(sampler.n_allowed)

    @property
    def segment(self) -> Segment:
        """Its part of the next step."""
        if len(self.tree) == 1:
            return Segment(self.cache, self.tree.tokens, n_logits=1)
        return Segment(self.cache, self.tree.tokens, self.tree.parents)

    def grow(self, logits: NDArray[np.float32]) -> list[Update]:
        """Choose tokens, as many as the tree has and one more, and put them behind the answer.

        Parameters
        ----------
        logits : ndarray of float32 [n, V]
            Of what follows each node of the tree.

        Returns
        -------
        list of Update
            One a token; the last has the error if the answer cannot go on.
        """
        tree, updates, path = self.tree, list[Update](), list[int]()
        try:
            for node, token in walk(tree, lambda node: self._choose(node, logits[node])):
                path.append(node)
                updates.append(self._accept(token, logits[node]))
                if updates[-1].is_last:
                    break
        except Exception as error:  # this answer's constraint or weights; the others go on
            updates.append(Update(self.index, error=error))
        if len(tree) > 1:
            self.cache.keep(path)
        self.n_accepted = max(0, len(path) - 1)
        return updates

    def _choose(self, node: int, logits: NDArray[np.float32]) -> int:
        sampler, drawn = self.answer.sampler, self.tree.drawn(node)
        if not drawn:
            return sampler.choose(logits)
        return choose_token(sampler.distribution(logits), drawn, GeneratorChance(sampler.generator))

    def _accept(self, token: int, logits: NDArray[np.float32]) -> Update:
        request, answer = self.request, self.answer
        logprob = None
        if request.n_logprobs is not None:
            logprob = token_logprob(logits, token, request.n_logprobs, answer.token_text)
            answer.logprobs.append(logprob)
        self.ids.append(token)
        piece = answer.accept(token, self._end_ids)
        answer.seconds = time.perf_counter() - request.submitted
        return Update(self.index, piece, logprob, answer.finish_reason)
