"""Multi-token prediction: trained modules that are a layer each, one for each token ahead.

Parallel: layers beside each other on the model's last hidden state (Gloeckle et al. 2024, "Better & Faster
Large Language Models via Multi-token Prediction"). Sequential: each goes on from the hidden state of the one
before and the embedding of the token between (DeepSeek-AI 2024, "DeepSeek-V3 Technical Report", section 2.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fullspan.core.errors import ConfigError
from fullspan.decoding.engine.cache import SequenceCache
from fullspan.decoding.engine.engine import Segment, Taps
from fullspan.decoding.engine.unpacking import embeddings
from fullspan.decoding.speculation.drafters import DraftRow, Target
from fullspan.decoding.speculation.layer import Chooser, DraftLayer, layer_shapes
from fullspan.decoding.speculation.medusa import checked_shape
from fullspan.decoding.speculation.positions import depth_of, fill, ranked
from fullspan.decoding.speculation.trained import DrafterFiles, Floats, rms_norm
from fullspan.decoding.speculation.tree import Tree
from fullspan.decoding.speculation.typical import TypicalAcceptance


class _MtpDrafter:
    """What both kinds share: the modules, and the model's final norm before them."""

    acceptance: TypicalAcceptance | None = None

    def __init__(self, files: DrafterFiles) -> None:
        self.files, self.layers = files, tuple(files.about.layers)

    def check(self, target: Target) -> None:
        """Refuse a model that the modules were not trained for."""
        self.target = self.files.engine_of(target)
        config, n, joins = self.target.config, self.files.about.depth, not self.files.about.parallel
        self.tokens = self.files.vocabulary(config.vocab_size)
        shapes: dict[str, tuple[int, ...]] = {"tokens": self.tokens.shape, "norm.weight": (config.d_model,)}
        shapes["head.weight"] = len(self.tokens), config.d_model
        for number in range(n):
            shapes |= layer_shapes(config, number, joins=joins)
        tensors = self.files.taken(shapes)
        self._norm, self._eps = tensors["norm.weight"], config.rms_norm_eps
        self.modules = [DraftLayer(config, tensors, number) for number in range(n)]

    def normed(self, hidden: Floats) -> Floats:
        """The model's last hidden states [n, d_model] after its final norm."""
        return rms_norm(hidden[:, -1], self._norm, self._eps)


class ParallelMtpDrafter(_MtpDrafter):
    """Layers beside each other; a tree of a fixed shape as Medusa's, proposed for certain.

    Parameters
    ----------
    files : DrafterFiles
        From `fullspan train --objective mtp --mtp parallel`.
    n_nodes : int
    paths : sequence of sequence of int, optional
        As `MedusaDrafter`'s.
    """

    def __init__(
        self, files: DrafterFiles, n_nodes: int = 5, paths: Sequence[Sequence[int]] | None = None
    ) -> None:
        super().__init__(files)
        self.shape = checked_shape(files, n_nodes, paths)

    @classmethod
    def load(cls, folder: Path | str) -> ParallelMtpDrafter:
        """Of a folder that training wrote."""
        return cls(DrafterFiles.load(folder))

    def begin(self, n_rows: int) -> ParallelMtpDrafting:
        """Start on a batch."""
        return ParallelMtpDrafting(self, n_rows)


class ParallelMtpDrafting:
    """Parallel modules' work on one batch."""

    def __init__(self, drafter: ParallelMtpDrafter, n_rows: int) -> None:
        self._drafter = drafter
        depth, self._n_ranks = depth_of(drafter.shape)
        self._modules = drafter.modules[:depth]
        self._caches = [[module.engine.new_cache() for _ in range(n_rows)] for module in self._modules]

    def propose(self, rows: Sequence[DraftRow]) -> list[Tree]:
        """A tree for each row."""
        vectors = [self._drafter.normed(row.hidden) for row in rows]
        guesses = []
        for module, caches in zip(self._modules, self._caches, strict=True):
            segments = [
                Segment(cache, [0] * len(given), n_logits=1, vectors=given)
                for cache, given in zip(caches, vectors, strict=True)
            ]
            logits = np.concatenate(module.engine.step_all(segments))  # [B, W]
            guesses.append(self._drafter.tokens[ranked(logits, self._n_ranks)])
        return [
            fill(self._drafter.shape, row, found)
            for row, found in zip(rows, np.stack(guesses, axis=1), strict=True)
        ]

    def keep(self, places: Sequence[int]) -> None:
        """Go on with these rows only."""
        self._caches = [[caches[place] for place in places] for caches in self._caches]


class SequentialMtpDrafter(_MtpDrafter):
    """Modules one after the other; a chain, drawn under the row's options where tokens are sampled.

    Parameters
    ----------
    files : DrafterFiles
        From `fullspan train --objective mtp`.
    n_tokens : int, optional
        Tokens to propose, one for each module by default.
    least : float
        The chain ends where its tokens together are less likely than this.

    Raises
    ------
    ConfigError
        If there are not as many modules.
    """

    def __init__(self, files: DrafterFiles, n_tokens: int | None = None, least: float = 0.1) -> None:
        super().__init__(files)
        self.n_tokens = files.about.depth if n_tokens is None else n_tokens
        if not 1 <= self.n_tokens <= files.about.depth:
            raise ConfigError(f"{self.n_tokens} tokens of {files.about.depth} modules for one token each")
        self.least = least

    @classmethod
    def load(cls, folder: Path | str) -> SequentialMtpDrafter:
        """Of a folder that training wrote."""
        return cls(DrafterFiles.load(folder))

    def begin(self, n_rows: int) -> SequentialMtpDrafting:
        """Start on a batch."""
        return SequentialMtpDrafting(self, n_rows)


@dataclass(eq=False)
class _Stage:
    """What a module has of a row: true tokens in its cache, and the hidden states that it goes on from.

    `true` are of the places behind those in the cache, `drafted` of those after them, good for one step.
    """

    cache: SequenceCache
    true: list[Floats] = field(default_factory=list)
    drafted: list[Floats] = field(default_factory=list)


class SequentialMtpDrafting:
    """Sequential modules' work on one batch; the rows of a module take a step together."""

    def __init__(self, drafter: SequentialMtpDrafter, n_rows: int) -> None:
        self._drafter, self._modules = drafter, drafter.modules[: drafter.n_tokens]
        self._rows = [[_Stage(module.engine.new_cache()) for module in self._modules] for _ in range(n_rows)]
        self._chooser = Chooser(drafter.tokens, drafter.target.config.vocab_size, drafter.least)

    def propose(self, rows: Sequence[DraftRow]) -> list[Tree]:
        """A chain for each row.

        Module k, counted from 0, reads at each place i the hidden state of the module before it there, and
        the token at i + k + 1. Of the last k places that token is a draft; so they are taken back, and read
        again with the true ones.
        """
        trees = [Tree(row.ids[-1]) for row in rows]
        likelihood = [1.0] * len(rows)
        for row, stages in zip(rows, self._rows, strict=True):
            stages[0].true += list(self._drafter.normed(row.hidden))
        for k in range(len(self._modules)):
            going = [
                place
                for place, (row, tree) in enumerate(zip(rows, trees, strict=True))
                if len(tree) == k + 1 and (row.room > k or k == 0)
            ]
            found = self._read(k, [(rows[place], trees[place], self._rows[place]) for place in going])
            for place, logits in zip(going, found, strict=True):
                row, tree = rows[place], trees[place]
                if row.room <= k:
                    continue
                chosen = self._chooser.choose(row, tree.path(k), logits, likelihood[place])
                if chosen is not None:
                    token, q, likelihood[place] = chosen
                    tree.add(k, token, q)
        return trees

    def keep(self, places: Sequence[int]) -> None:
        """Go on with these rows only."""
        self._rows = [self._rows[place] for place in places]

    def _read(self, k: int, going: Sequence[tuple[DraftRow, Tree, list[_Stage]]]) -> list[Floats]:
        """Logits behind the last place, by the module with number k from 0."""
        if not going:
            return []
        module, segments = self._modules[k], []
        for row, tree, stages in going:
            stage, text = stages[k], [*row.ids, *tree.path(k)]
            hidden = np.stack(stage.true + stage.drafted)
            ids = np.asarray(text[len(text) - len(hidden) :], np.int64)
            vectors = module.join(embeddings(self._drafter.target.packed, ids), hidden)
            segments.append(
                Segment(stage.cache, [0] * len(hidden), n_logits=1, taps=Taps((0,)), vectors=vectors)
            )
        logits = [found[0] for found in module.engine.step_all(segments)]
        for (_, _, stages), segment in zip(going, segments, strict=True):
            assert segment.taps is not None
            self._settle(k, stages, segment.taps.take()[:, 0])
        return logits

    @staticmethod
    def _settle(k: int, stages: list[_Stage], states: Floats) -> None:
        """Take back the places whose token was a draft; the next module goes on from all places."""
        stage, n_true = stages[k], max(0, len(states) - k)
        stage.cache.truncate(stage.cache.length - len(states) + n_true)
        del stage.true[:n_true]
        stage.drafted = []
        if k + 1 < len(stages):
            stages[k + 1].true += list(states[:n_true])
            stages[k + 1].drafted = list(states[n_true:])
