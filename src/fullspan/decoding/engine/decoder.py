"""The engine as a decoder of `fullspan.decoding.decoders`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fullspan.decoding.engine._layout import MOST_TOKENS
from fullspan.decoding.engine.cache import SequenceCache
from fullspan.decoding.engine.engine import Engine, Segment, Taps

if TYPE_CHECKING:
    from fullspan.models.llama import Llama, LlamaConfig


class EngineDecoder:
    """An engine that answers batches, and goes on from what its last batch's first row has in common.

    Parameters
    ----------
    engine : Engine
    load_model : function
        Loads the torch model of the same weights, for who asks for it.
    """

    def __init__(self, engine: Engine, load_model: Callable[[], Llama]) -> None:
        self.engine = engine
        self._load_model = load_model
        self._last: tuple[list[int], SequenceCache] = [], engine.new_cache()

    @property
    def config(self) -> LlamaConfig:
        """Sizes of the model."""
        return self.engine.config

    @functools.cached_property
    def model(self) -> Llama:
        """The torch model of the same weights, loaded when it is first asked for."""
        return self._load_model()

    def begin(
        self, prompts: Sequence[Sequence[int]], most_tokens: int, layers: Sequence[int] = ()
    ) -> EngineBatch:
        """Read prompts, equal ones and what the last batch has read only once.

        The batch keeps hidden states behind `layers` of what it reads.
        """
        places = {prompt: row for row, prompt in enumerate(dict.fromkeys(map(tuple, prompts)))}
        segments = []
        for prompt in places:
            cache, known = self._known(prompt)
            segments.append(Segment(cache, prompt[known:], n_logits=1, taps=_taps(layers), is_prompt=True))
        logits = np.concatenate(self.engine.step_all(segments))
        rows = [places[tuple(prompt)] for prompt in prompts]
        caches = [
            segments[row].cache if rows.index(row) == place else segments[row].cache.copy()
            for place, row in enumerate(rows)
        ]
        batch = EngineBatch(self.engine, [list(prompt) for prompt in prompts], caches, logits[rows], layers)
        found = _hidden(segments)
        batch.hidden = [found[row] for row in rows]
        self._last = batch.ids[0], batch.caches[0]
        return batch

    def read(self, ids: Sequence[int]) -> Iterator[np.ndarray]:
        """Logits of what follows each token of one text."""
        cache = self.engine.new_cache()
        for start in range(0, len(ids), MOST_TOKENS):
            yield self.engine.read(ids[start : start + MOST_TOKENS], cache)

    def _known(self, prompt: Sequence[int]) -> tuple[SequenceCache, int]:
        """A cache of as much of the prompt as is known, but its last token."""
        ids, cache = self._last
        most = min(len(prompt) - 1, len(ids), cache.length)
        known = next((i for i in range(most) if prompt[i] != ids[i]), most)
        cache = cache.copy()
        cache.truncate(known)
        return cache, known


class EngineBatch:
    """Rows that are answered together, each with its cache.

    Attributes
    ----------
    ids : list of list of int
        The tokens of each row.
    caches : list of SequenceCache
    logits : ndarray of float32 [B, V]
    hidden : list of ndarray of float32 [n, len(layers), d_model]
        Of the tokens that `begin` or the last `accept` put to each row: the residual stream behind the layers
        asked for. Their number is that of the tokens read.
    """

    def __init__(
        self,
        engine: Engine,
        ids: list[list[int]],
        caches: list[SequenceCache],
        logits: np.ndarray,
        layers: Sequence[int] = (),
    ) -> None:
        self._engine, self.ids, self.caches, self.logits = engine, ids, caches, logits
        self._layers, self.hidden = layers, [_NONE] * len(ids)
        self._proposed: list[Sequence[int]] = []

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows only."""
        self.ids = [self.ids[row] for row in rows]
        self.caches = [self.caches[row] for row in rows]
        self.logits = self.logits[list(rows)]
        self.hidden = [self.hidden[row] for row in rows]

    def append(self, tokens: Sequence[int]) -> None:
        """Put a token behind each row."""
        segments = [Segment(cache, [token]) for cache, token in zip(self.caches, tokens, strict=True)]
        self.logits = np.concatenate(self._engine.step_all(segments))
        for ids, token in zip(self.ids, tokens, strict=True):
            ids.append(token)

    def propose(self, trees: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[np.ndarray]:
        """Logits [n, V] of what follows each token of the tree behind each row.

        A tree is tokens and parents as in `Segment`. The rows stay what they are, until `accept`.
        """
        segments = [
            Segment(cache, tokens, parents, taps=_taps(self._layers))
            for cache, (tokens, parents) in zip(self.caches, trees, strict=True)
        ]
        found = self._engine.step_all(segments)
        self.hidden = _hidden(segments)
        self._proposed = [tokens for tokens, _ in trees]
        return found

    def accept(self, paths: Sequence[Sequence[int]]) -> None:
        """Put a path of each tree of the last `propose` behind its row: numbers of tokens, root first."""
        for ids, cache, tokens, path in zip(self.ids, self.caches, self._proposed, paths, strict=True):
            cache.keep(path)
            ids += [tokens[node] for node in path]
        if self._layers:
            self.hidden = [found[list(path)] for found, path in zip(self.hidden, paths, strict=True)]


_NONE = np.zeros((0, 0, 0), np.float32)


def _taps(layers: Sequence[int]) -> Taps | None:
    return Taps(layers) if layers else None


def _hidden(segments: Sequence[Segment]) -> list[np.ndarray]:
    return [_NONE if segment.taps is None else segment.taps.take() for segment in segments]
