"""EAGLE: one layer that drafts the model's next hidden states, token by token, as a tree.

Li et al. 2024, "EAGLE"; the tree grows by cumulative probability as in "EAGLE-2"; the layer looks at low,
middle and high hidden states and has a reduced vocabulary as in "EAGLE-3" (Li et al. 2025).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fullspan.core.errors import ConfigError
from fullspan.decoding.engine.cache import SequenceCache
from fullspan.decoding.engine.engine import Engine, Segment, Taps
from fullspan.decoding.engine.unpacking import embeddings
from fullspan.decoding.speculation.drafters import MOST_PROPOSALS, DraftRow, Target
from fullspan.decoding.speculation.layer import Chooser, DraftLayer, layer_shapes
from fullspan.decoding.speculation.positions import ranked
from fullspan.decoding.speculation.trained import DrafterFiles, Floats
from fullspan.decoding.speculation.tree import Probabilities, Tree
from fullspan.decoding.speculation.typical import TypicalAcceptance


class EagleDrafter:
    """A trained layer that runs ahead.

    Where the model is greedy it proposes for certain the tokens of a dynamic tree: at each level the `width`
    likeliest nodes are gone on from, and of all nodes the `n_nodes` likeliest are proposed. Where tokens are
    sampled, or a grammar decides, it proposes a chain that it draws under the row's options.

    Parameters
    ----------
    files : DrafterFiles
        From `fullspan train --objective eagle`.
    depth : int
        Levels of the tree, or tokens of the chain.
    width : int
        Nodes of a level that are gone on from.
    n_nodes : int
        Most proposals.
    least : float
        Nodes whose path is less likely than this are not proposed: they would cost more than they bring.

    Raises
    ------
    ConfigError
        If a number is out of its range.
    """

    acceptance: TypicalAcceptance | None = None

    def __init__(
        self, files: DrafterFiles, depth: int = 3, width: int = 2, n_nodes: int = 5, least: float = 0.1
    ) -> None:
        read = 1 + width * (depth - 1)
        if not (depth >= 1 and width >= 1 and 1 <= n_nodes <= MOST_PROPOSALS and read <= MOST_PROPOSALS):
            raise ConfigError(
                f"a tree of depth {depth}, width {width} and {n_nodes} proposals, expected 1 and more of "
                f"each, and at most {MOST_PROPOSALS} nodes"
            )
        if not 0 <= least < 1:
            raise ConfigError(f"least must be from 0 to below 1, got {least}")
        self.files, self.layers = files, tuple(files.about.layers)
        self.depth, self.width, self.n_nodes, self.least = depth, width, n_nodes, least

    @classmethod
    def load(cls, folder: Path | str) -> EagleDrafter:
        """Of a folder that training wrote."""
        return cls(DrafterFiles.load(folder))

    def check(self, target: Target) -> None:
        """Refuse a model that the layer was not trained for."""
        engine = self.files.engine_of(target)
        config, tokens = engine.config, self.files.vocabulary(engine.config.vocab_size)
        d, shapes = config.d_model, {"tokens": tokens.shape, "head.weight": (len(tokens), config.d_model)}
        shapes |= layer_shapes(config, 0) | {"fuse.weight": (d, len(self.layers) * d)}
        tensors = self.files.taken(shapes)
        self._work = EagleWork(engine, DraftLayer(config, tensors, 0), tensors["fuse.weight"], tokens)

    def begin(self, n_rows: int) -> EagleDrafting:
        """Start on a batch."""
        return EagleDrafting(self, self._work, n_rows)


@dataclass(frozen=True, eq=False)
class EagleWork:
    """What the layer computes with.

    Attributes
    ----------
    target : Engine
        Has the embeddings.
    layer : DraftLayer
    fuse : ndarray of float32 [d_model, layers * d_model]
        From the hidden states of a token to one vector.
    tokens : ndarray of int64 [W]
        The draft vocabulary.
    """

    target: Engine
    layer: DraftLayer
    fuse: Floats
    tokens: NDArray[np.int64]

    def vectors(self, ids: Sequence[int], hidden: Floats) -> Floats:
        """The layer's input for tokens and the drafted hidden states [n, d_model] before them."""
        return self.layer.join(embeddings(self.target.packed, np.asarray(ids, np.int64)), hidden)

    def fused(self, hidden: Floats) -> Floats:
        """[n, d_model] of the model's hidden states [n, layers, d_model]."""
        found: Floats = hidden.reshape(len(hidden), -1) @ self.fuse.T
        return found


@dataclass(eq=False)
class _Growth:
    """A row's draft while it grows.

    `likelihood`, `state` and `read` are by node of `tree`: of its path; the hidden state and the logits
    behind it, once the layer has read it; and its place in the step's tree.
    """

    row: DraftRow
    cache: SequenceCache
    tree: Tree
    likelihood: list[float] = field(default_factory=lambda: [1.0])
    state: dict[int, tuple[Floats, Floats]] = field(default_factory=dict)
    read: dict[int, int] = field(default_factory=dict)
    parents: list[int] = field(default_factory=list)
    frontier: list[int] = field(default_factory=list)

    def add(self, parent: int, token: int, q: Probabilities | None, likelihood: float) -> None:
        self.frontier.append(self.tree.add(parent, token, q))
        self.likelihood.append(likelihood)


class EagleDrafting:
    """The layer's work on one batch; all rows take a step together."""

    def __init__(self, drafter: EagleDrafter, work: EagleWork, n_rows: int) -> None:
        self._drafter, self._work = drafter, work
        self._caches = [work.layer.engine.new_cache() for _ in range(n_rows)]
        self._chooser = Chooser(work.tokens, work.target.config.vocab_size, drafter.least)

    def propose(self, rows: Sequence[DraftRow]) -> list[Tree]:
        """A tree for each row, no deeper than its room."""
        grown = [
            _Growth(row, cache, Tree(row.ids[-1])) for row, cache in zip(rows, self._caches, strict=True)
        ]
        self._read_what_is_known(grown)
        for level in range(self._drafter.depth):
            going = [growth for growth in grown if growth.row.room > level]
            for growth in going:
                nodes, growth.frontier = (growth.frontier if level else [0]), []
                for node in nodes:
                    self._branch(growth, node)
            if level + 1 < self._drafter.depth:
                self._go_on([growth for growth in going if growth.row.room > level + 1])
        return [self._pruned(growth) for growth in grown]

    def keep(self, places: Sequence[int]) -> None:
        """Go on with these rows only."""
        self._caches = [self._caches[place] for place in places]

    def _read_what_is_known(self, grown: Sequence[_Growth]) -> None:
        """Tokens that the target has read, with its own hidden states."""
        segments = []
        for growth in grown:
            hidden, ids = growth.row.hidden, growth.row.ids
            vectors = self._work.vectors(ids[len(ids) - len(hidden) :], self._work.fused(hidden))
            zeros = [0] * len(hidden)
            segments.append(Segment(growth.cache, zeros, n_logits=1, taps=Taps((0,)), vectors=vectors))
        for growth, segment, logits in zip(
            grown, segments, self._work.layer.engine.step_all(segments), strict=True
        ):
            assert segment.taps is not None
            growth.state[0] = segment.taps.take()[-1, 0], logits[0]

    def _branch(self, growth: _Growth, node: int) -> None:
        """Propose what may follow a node."""
        row, drafter, (_, logits) = growth.row, self._drafter, growth.state[node]
        before = growth.likelihood[node]
        if not row.sampler.options.greedy or row.sampler.constraint is not None:
            chosen = self._chooser.choose(row, growth.tree.path(node), logits, before)
            if chosen is not None:
                growth.add(node, *chosen)
            return
        shares = np.exp(logits - logits.max())
        shares *= before / shares.sum()
        for place in ranked(logits, drafter.width)[: drafter.n_nodes].tolist():
            if shares[place] >= drafter.least:
                growth.add(node, int(self._work.tokens[place]), None, float(shares[place]))

    def _go_on(self, grown: Sequence[_Growth]) -> None:
        """Read the likeliest nodes of the last level."""
        steps: list[tuple[_Growth, Segment]] = []
        for growth in grown:
            ends, likelihood, tree = growth.row.end_ids, growth.likelihood, growth.tree
            live = [node for node in growth.frontier if tree.tokens[node] not in ends]
            live = sorted(live, key=lambda node, by=likelihood: -by[node])[: self._drafter.width]  # type: ignore[misc]
            growth.frontier = sorted(live)
            if not live:
                continue
            n_read = len(growth.parents)
            for node in growth.frontier:
                growth.read[node] = len(growth.parents)
                growth.parents.append(growth.read.get(tree.parents[node], -1))
            hidden = np.stack([growth.state[tree.parents[node]][0] for node in growth.frontier])
            vectors = self._work.vectors([tree.tokens[node] for node in growth.frontier], hidden)
            zeros = [0] * len(growth.parents)
            taps = Taps((0,))
            steps.append(
                (growth, Segment(growth.cache, zeros, list(growth.parents), None, n_read, taps, vectors))
            )
        if not steps:
            return
        found = self._work.layer.engine.step_all([segment for _, segment in steps])
        for (growth, segment), logits in zip(steps, found, strict=True):
            assert segment.taps is not None
            states = segment.taps.take()[:, 0]
            for node, state, row in zip(growth.frontier, states, logits, strict=True):
                growth.state[node] = state, row

    def _pruned(self, growth: _Growth) -> Tree:
        """The likeliest nodes; a node is never likelier than its parent, so these are a tree."""
        tree, likelihood = growth.tree, growth.likelihood
        if len(tree) - 1 <= self._drafter.n_nodes:
            return tree
        best = sorted(range(1, len(tree)), key=lambda node: (-likelihood[node], node))[
            : self._drafter.n_nodes
        ]
        pruned, numbers = Tree(tree.tokens[0]), {0: 0}
        for node in sorted(best):
            numbers[node] = pruned.add(numbers[tree.parents[node]], tree.tokens[node], tree.drawn_from[node])
        return pruned
