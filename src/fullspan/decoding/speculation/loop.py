"""The loop of `fullspan.decoding.generation` with several tokens a row and step."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fullspan.decoding.engine.decoder import EngineDecoder
from fullspan.decoding.generation import Answer, set_limits
from fullspan.decoding.logprobs import token_logprob
from fullspan.decoding.options import GenerationOptions
from fullspan.decoding.speculation.drafters import Drafter, DraftRow, Learned
from fullspan.decoding.speculation.statistics import Speculation
from fullspan.decoding.speculation.tree import Tree
from fullspan.decoding.speculation.typical import TypicalAcceptance
from fullspan.decoding.speculation.verifier import GeneratorChance, choose_token, walk


def speculate(
    decoder: EngineDecoder,
    answers: Sequence[Answer],
    options: GenerationOptions,
    drafter: Drafter,
    *,
    end_ids: frozenset[int],
    n_logprobs: int | None = None,
) -> Iterator[tuple[Answer, str]]:
    """Answer every prompt as `generation.generate`, with drafts; rows accept as many tokens as they can.

    The parameters, what is yielded, and the errors are those of `generate`. Each answer has the distribution
    that it has without drafts; if it is greedy, or the drafter proposes for certain, it is the same answer.

    Parameters
    ----------
    drafter : Drafter
        That fits the model.
    """
    set_limits(answers, options, decoder.config.max_positions)
    started = time.perf_counter()
    layers, typical = (drafter.layers, drafter.acceptance) if isinstance(drafter, Learned) else ((), None)
    batch = decoder.begin([answer.prompt_ids for answer in answers], options.max_tokens, layers)
    rows = [_Row.of(answer, end_ids, started, n_logprobs, typical) for answer in answers]
    for row, logits in zip(rows, batch.logits, strict=True):  # nobody drafts what follows the prompt
        yield from row.take(Tree(row.draft.ids[-1]), logits[None])
    drafting = drafter.begin(len(rows))
    while True:
        places = [place for place, row in enumerate(rows) if row.answer.finish_reason is None]
        if not places:
            return
        if len(places) < len(rows):
            rows = [rows[place] for place in places]
            batch.keep(places)
            drafting.keep(places)
        begun = time.perf_counter()
        for row, hidden in zip(rows, batch.hidden, strict=True):
            row.draft.hidden = hidden
            # A step gives one token more than it accepts proposals.
            row.draft.room = row.answer.limit - len(row.answer.token_ids) - 1
        trees = [
            tree if row.answer.sampler.constraint is None else tree.pruned(row.answer.sampler.n_allowed)
            for row, tree in zip(rows, drafting.propose([row.draft for row in rows]), strict=True)
        ]
        drafted = time.perf_counter()
        found = batch.propose([(tree.tokens, tree.parents) for tree in trees])
        verified = time.perf_counter()
        for row, tree, logits in zip(rows, trees, found, strict=True):
            yield from row.take(tree, logits)
            row.count(tree, drafted - begun, verified - drafted)
        batch.accept([row.path for row in rows])


@dataclass(eq=False)
class _Row:
    """A row, and the path that its last tree gave."""

    answer: Answer
    draft: DraftRow
    started: float
    n_logprobs: int | None
    typical: TypicalAcceptance | None = None
    path: list[int] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        answer: Answer,
        end_ids: frozenset[int],
        started: float,
        n_logprobs: int | None,
        typical: TypicalAcceptance | None,
    ) -> _Row:
        """At the start of an answer."""
        answer.speculation = Speculation(lossless=typical is None or answer.sampler.options.greedy)
        draft = DraftRow(list(answer.prompt_ids), answer.sampler, end_ids)
        return cls(answer, draft, started, n_logprobs, typical)

    def take(self, tree: Tree, logits: NDArray[np.float32]) -> Iterator[tuple[Answer, str]]:
        """Go down the tree as far as the target's choices do, token by token, unless the answer ends before.

        Parameters
        ----------
        tree : Tree
        logits : ndarray of float32 [len(tree), V]
            Of what follows each node.
        """
        answer = self.answer
        self.path = []
        for node, token in self._walk(tree, logits):
            self.path.append(node)
            if self.n_logprobs is not None:
                found = token_logprob(logits[node], token, self.n_logprobs, answer.token_text)
                answer.logprobs.append(found)
            self.draft.ids.append(token)
            piece = answer.accept(token, self.draft.end_ids)
            answer.seconds = time.perf_counter() - self.started
            yield answer, piece
            if answer.finish_reason is not None:
                return

    def count(self, tree: Tree, draft_seconds: float, verify_seconds: float) -> None:
        """Count the step that gave the path."""
        counts = self.answer.speculation
        assert counts is not None  # since `of`
        # The last token is the target's own, unless the answer ended with one that was proposed.
        n_own = tree.child(self.path[-1], self.draft.ids[-1]) is None
        counts.add(len(tree) - 1, tree.depth, len(self.path), len(self.path) - n_own)
        counts.draft_seconds += draft_seconds
        counts.verify_seconds += verify_seconds

    def _walk(self, tree: Tree, logits: NDArray[np.float32]) -> Iterator[tuple[int, int]]:
        sampler = self.answer.sampler
        if self.typical is not None:
            return self.typical.walk(tree, logits, sampler, lambda node: sampler.choose(logits[node]))
        return walk(tree, lambda node: self._choose(tree, node, logits[node]))

    def _choose(self, tree: Tree, node: int, logits: NDArray[np.float32]) -> int:
        """The token behind a node; the sampler's state is that of the node's path."""
        sampler, drawn = self.answer.sampler, tree.drawn(node)
        if not drawn:
            return sampler.choose(logits)
        return choose_token(sampler.distribution(logits), drawn, GeneratorChance(sampler.generator))
