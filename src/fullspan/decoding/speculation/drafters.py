"""What a drafter is: something that, of each row of a batch, guesses how it goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fullspan.decoding.engine._layout import MOST_TOKENS
from fullspan.decoding.sampler import Sampler
from fullspan.decoding.speculation.tree import Tree
from fullspan.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from fullspan.decoding.engine.engine import Engine
    from fullspan.decoding.speculation.typical import TypicalAcceptance

# Most tokens of a tree besides its root: a step of the engine takes no more.
MOST_PROPOSALS = MOST_TOKENS - 1


@dataclass(frozen=True)
class Target:
    """The model whose answers are sped up, as far as a drafter must know it."""

    name: str
    tokenizer: Tokenizer
    vocab_size: int
    engine: Engine


@dataclass(eq=False)
class DraftRow:
    """A row of a batch, as drafters see it.

    Attributes
    ----------
    ids : list of int
        Prompt and answer so far. It only grows.
    sampler : Sampler
        The row's own; its distribution is what the target draws from. A drafter leaves its state as it was.
    end_ids : frozenset of int
        Tokens behind which nothing follows.
    room : int
        Most tokens that a path may have.
    hidden : ndarray of float32 [n, layers, d_model]
        For a `Learned` drafter: hidden states of the n tokens before the last of `ids`, which are those that
        the target has read since the drafter was last asked.
    """

    ids: list[int]
    sampler: Sampler
    end_ids: frozenset[int]
    room: int = 0
    hidden: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0, 0), np.float32))


class Drafting(Protocol):
    """A drafter's work on one batch."""

    def propose(self, rows: Sequence[DraftRow]) -> list[Tree]:
        """A tree for each row, no deeper than its room; of the root alone where there is nothing to say."""

    def keep(self, places: Sequence[int]) -> None:
        """Go on with the rows of these places only."""


class Drafter(Protocol):
    """Proposes tokens that the target verifies; whatever it proposes, answers keep their distribution."""

    def check(self, target: Target) -> None:
        """Raise ConfigError if it does not fit the target."""

    def begin(self, n_rows: int) -> Drafting:
        """Start on a batch."""


@runtime_checkable
class Learned(Drafter, Protocol):
    """A drafter that looks at the target's hidden states.

    Attributes
    ----------
    layers : tuple of int
        The layers behind which it looks.
    acceptance : TypicalAcceptance or None
        A rule of acceptance that is not lossless, where one was asked for.
    """

    layers: tuple[int, ...]
    acceptance: TypicalAcceptance | None
