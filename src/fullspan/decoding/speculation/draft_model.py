"""Proposals of a smaller model with the same vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from fullspan.core.errors import ConfigError, DataError
from fullspan.decoding.engine.cache import SequenceCache
from fullspan.decoding.engine.decoder import EngineDecoder
from fullspan.decoding.engine.engine import Engine, Segment
from fullspan.decoding.sampling import Logits, draw
from fullspan.decoding.speculation.drafters import MOST_PROPOSALS, DraftRow, Target
from fullspan.decoding.speculation.tree import Tree
from fullspan.decoding.speculation.verifier import without

if TYPE_CHECKING:
    from fullspan.decoding.language_model import LanguageModel


class ModelDrafter:
    """Lets a smaller model run ahead (Leviathan et al. 2023; trees as in SpecInfer, Miao et al. 2024).

    Where tokens are sampled it draws from its own distribution under the row's options, several children of a
    node without replacement; where the target is greedy it proposes its most likely tokens for certain.

    Parameters
    ----------
    model : LanguageModel
        On the CPU engine.
    widths : sequence of int
        Children of each node, level by level; their number is the depth. All ones make a chain.

    Raises
    ------
    ConfigError
        If the model runs on torch, whose cache takes nothing back, or the tree is empty or too large.
    """

    def __init__(self, model: LanguageModel, widths: Sequence[int] = (1, 1, 1)) -> None:
        if not isinstance(model.decoder, EngineDecoder):
            raise ConfigError(f"the draft model {model.name} runs on torch", "load it with engine='cpu'")
        tree_size(widths)
        self.name, self.tokenizer, self.widths = model.name, model.tokenizer, tuple(widths)
        self._engine = model.decoder.engine

    def check(self, target: Target) -> None:
        """Refuse a target whose tokens have other numbers."""
        same = self.tokenizer.backend.get_vocab() == target.tokenizer.backend.get_vocab()
        if not same or self._engine.config.vocab_size != target.vocab_size:
            raise ConfigError(
                f"{self.name} cannot draft for {target.name}: their vocabularies differ "
                f"({self._engine.config.vocab_size} and {target.vocab_size} tokens)",
                "take a smaller model of the same family",
            )

    def begin(self, n_rows: int) -> ModelDrafting:
        """Start on a batch."""
        return ModelDrafting(self._engine, self.widths, n_rows)


def tree_size(widths: Sequence[int]) -> int:
    """Proposals of a tree with so many children of each node, level by level.

    Raises
    ------
    ConfigError
        If it has none, or more than a step can take.

    Examples
    --------
    >>> tree_size((3, 2))
    9
    """
    size = int(np.cumprod(widths).sum()) if len(widths) and min(widths) >= 1 else 0
    if not 1 <= size <= MOST_PROPOSALS:
        raise ConfigError(
            f"a tree with widths {tuple(widths)} has {size} proposals, expected 1 to {MOST_PROPOSALS}"
        )
    return size


@dataclass(eq=False)
class _Memory:
    """What the draft model has read of a row: true tokens, then drafts that may be wrong."""

    cache: SequenceCache
    ids: list[int] = field(default_factory=list)
    n_true: int = 0

    def missing(self, ids: list[int]) -> list[int]:
        """Forget what turned out otherwise; what is to be read, the last token in any case."""
        most = min(len(self.ids), len(ids) - 1)
        known = next((i for i in range(self.n_true, most) if self.ids[i] != ids[i]), most)
        self.cache.truncate(known)
        self.ids, self.n_true = ids[:], len(ids)
        return ids[known:]


@dataclass(eq=False)
class _Leaf:
    """A node that the draft model goes on from."""

    row: DraftRow
    tree: Tree
    node: int
    memory: _Memory
    logits: Logits


class ModelDrafting:
    """A draft model's work on one batch; all rows and branches take a step together."""

    def __init__(self, engine: Engine, widths: tuple[int, ...], n_rows: int) -> None:
        self._engine, self._widths = engine, widths
        self._memories = [_Memory(engine.new_cache()) for _ in range(n_rows)]

    def propose(self, rows: Sequence[DraftRow]) -> list[Tree]:
        """A tree for each row: level by level, as deep as its room and the draft model's context allow."""
        trees = [Tree(row.ids[-1]) for row in rows]
        # A cache that drafts go into is the row's own, so the first branch costs no copy of it.
        begun = [
            (row, tree, memory)
            for row, tree, memory in zip(rows, trees, self._memories, strict=True)
            if row.room and len(row.ids) + len(self._widths) <= self._engine.config.max_positions
        ]
        texts = [memory.missing(row.ids) for row, _, memory in begun]
        logits = self._read([memory for _, _, memory in begun], texts)
        leaves = [
            _Leaf(row, tree, 0, memory, found)
            for (row, tree, memory), found in zip(begun, logits, strict=True)
        ]
        for level, width in enumerate(self._widths):
            leaves = [leaf for leaf in leaves if leaf.row.room > level]
            grown = [branch for leaf in leaves for branch in _branches(leaf, width)]
            if level + 1 == len(self._widths):
                break
            leaves = self._go_on(leaves, grown)
        return trees

    def keep(self, places: Sequence[int]) -> None:
        """Go on with these rows only."""
        self._memories = [self._memories[place] for place in places]

    def _go_on(self, leaves: Sequence[_Leaf], grown: Sequence[tuple[_Leaf, int]]) -> list[_Leaf]:
        """Read the new nodes, the first behind each leaf into the leaf's memory, others into copies."""
        first = {leaf: branch for leaf, branch in reversed(grown)}
        branches = [
            _Leaf(
                leaf.row,
                leaf.tree,
                branch,
                leaf.memory if first[leaf] == branch else _Memory(leaf.memory.cache.copy()),
                leaf.logits,
            )
            for leaf, branch in grown
        ]
        tokens = [branch.tree.tokens[branch.node] for branch in branches]
        for branch, token in zip(branches, tokens, strict=True):
            branch.memory.ids.append(token)
        logits = self._read([branch.memory for branch in branches], [[token] for token in tokens])
        for branch, found in zip(branches, logits, strict=True):
            branch.logits = found
        return branches

    def _read(self, memories: Sequence[_Memory], texts: Sequence[Sequence[int]]) -> list[Logits]:
        """Logits [V] of what follows each text behind what each memory holds."""
        if not memories:
            return []
        steps = [
            Segment(memory.cache, text, n_logits=1) for memory, text in zip(memories, texts, strict=True)
        ]
        return [logits[0] for logits in self._engine.step_all(steps)]


def _branches(leaf: _Leaf, width: int) -> list[tuple[_Leaf, int]]:
    """Add up to `width` tokens behind a leaf; those that something may follow."""
    row, tree, sampler = leaf.row, leaf.tree, leaf.row.sampler
    path = tree.path(leaf.node)
    for token in path:
        sampler.accept(token)
    try:
        if sampler.finished:
            return []
        nodes = _add_likely(leaf, width) if sampler.options.greedy else _add_drawn(leaf, width)
    except DataError:
        return []  # a grammar's dead end, on a path that the target need not take
    finally:
        sampler.rollback(len(path))
    return [(leaf, node) for node in nodes if tree.tokens[node] not in row.end_ids]


def _add_likely(leaf: _Leaf, width: int) -> list[int]:
    """The most likely tokens under the row's penalties and constraint."""
    nodes, logits = [], leaf.logits.copy()
    for _ in range(width):
        token = leaf.row.sampler.choose(logits)
        if logits[token] == -np.inf:  # nothing else is allowed
            break
        nodes.append(leaf.tree.add(leaf.node, token))
        logits[token] = -np.inf
    return nodes


def _add_drawn(leaf: _Leaf, width: int) -> list[int]:
    """Draws without replacement from the distribution under the row's options."""
    nodes: list[int] = []
    sampler, q = leaf.row.sampler, leaf.row.sampler.distribution(leaf.logits)
    for _ in range(width):
        token = draw(q, sampler.generator.random())
        nodes.append(leaf.tree.add(leaf.node, token, q))
        left = without(q, token)
        if left is None:
            break
        q = left
    return nodes
