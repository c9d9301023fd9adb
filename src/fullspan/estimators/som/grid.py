"""Where a map's units lie, who is next to whom, and how learning rate and width fall over time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullspan.estimators.som._kernels import (
    BUBBLE,
    CHEBYSHEV,
    COSINE,
    EUCLIDEAN,
    GAUSSIAN,
    MANHATTAN,
    MEXICAN_HAT,
    TRIANGLE,
    fill_neighborhoods,
)
from fullspan.estimators.som._lane_kernels import BLOCK

NEIGHBORHOODS = {"gaussian": GAUSSIAN, "mexican_hat": MEXICAN_HAT, "bubble": BUBBLE, "triangle": TRIANGLE}
METRICS = {"euclidean": EUCLIDEAN, "cosine": COSINE, "manhattan": MANHATTAN, "chebyshev": CHEBYSHEV}
Decay = Callable[[float, Any, float], Any]
"""A value at the start, the time, the time at the end: the value at that time."""

_RECTANGULAR = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)]
_HEXAGONAL = [
    (-1, 0),
    (1, 0),
    (-1, -1),
    (0, -1),
    (-1, 1),
    (0, 1),
]  # of an even row; one to the right of an odd one


@dataclass(frozen=True)
class Grid:
    """The units of a map: x columns of y units, flat or joined at opposite edges."""

    x: int
    y: int
    hexagonal: bool
    periodic: bool

    @property
    def n_units(self) -> int:
        return self.x * self.y

    @property
    def shape(self) -> tuple[int, int, bool, bool]:
        """As the kernels take it."""
        return self.x, self.y, self.hexagonal, self.periodic

    def room(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What the kernels keep a neighbourhood's factors in."""
        return np.empty(2 * self.x), np.empty(2 * self.y)

    def positions(self) -> NDArray[np.float64]:
        """Of the units' centres, [n_units, 2]; odd rows of hexagons lie half a step to the right."""
        column, row = np.divmod(np.arange(self.n_units), self.y)
        if self.hexagonal:
            return np.column_stack([column + 0.5 * (row % 2), row * np.sqrt(0.75)])
        return np.column_stack([column, row]).astype(np.float64)

    def neighborhoods(self, kind: str, spread: float, units: range) -> NDArray[np.float64]:
        """How much every unit learns when one of `units` wins, [len(units), n_units]."""
        out = np.empty((len(units), self.n_units))
        fill_neighborhoods(units.start, float(spread), NEIGHBORHOODS[kind], self.shape, *self.room(), out)
        return out

    def neighbors(self) -> NDArray[np.int64]:
        """Of each unit, [n_units, 8 or 6]; -1 where the map ends."""
        column, row = np.divmod(np.arange(self.n_units), self.y)
        found = []
        for across, up in _HEXAGONAL if self.hexagonal else _RECTANGULAR:
            right = (row % 2) * (up != 0) if self.hexagonal else 0
            i, j = column + across + right, row + up
            inside = (i >= 0) & (i < self.x) & (j >= 0) & (j < self.y)
            unit = (i % self.x) * self.y + j % self.y
            # Around a narrow map a unit would meet itself.
            found.append(np.where((inside | self.periodic) & (unit != np.arange(self.n_units)), unit, -1))
        neighbors = np.stack(found, axis=1)
        if self.periodic:  # or another one twice
            for k in range(1, neighbors.shape[1]):
                twice = (neighbors[:, :k] == neighbors[:, k : k + 1]).any(axis=1)
                neighbors[twice, k] = -1
        return neighbors


def constant(value: float, t: Any, end: float) -> Any:
    return value + 0.0 * t


def asymptotic_decay(value: float, t: Any, end: float) -> Any:
    return value / (1 + t / (end / 2))


def inverse_decay_to_zero(value: float, t: Any, end: float) -> Any:
    return value * (end / 100) / (end / 100 + t)


def linear_decay_to_zero(value: float, t: Any, end: float) -> Any:
    return value * (1 - t / end)


def exponential_decay(value: float, t: Any, end: float) -> Any:
    return value * np.exp(-np.log(100) * t / end)


def inverse_decay_to_one(value: float, t: Any, end: float) -> Any:
    return value / (1 + t * (value - 1) / end)


def linear_decay_to_one(value: float, t: Any, end: float) -> Any:
    return value + t * (1 - value) / end


def exponential_decay_to_one(value: float, t: Any, end: float) -> Any:
    return value ** (1 - t / end)


RATE_DECAYS: dict[str, Decay] = {
    f.__name__: f
    for f in (constant, asymptotic_decay, inverse_decay_to_zero, linear_decay_to_zero, exponential_decay)
}
SPREAD_DECAYS: dict[str, Decay] = {
    f.__name__: f
    for f in (constant, asymptotic_decay, inverse_decay_to_one, linear_decay_to_one, exponential_decay_to_one)
}


def decayed(
    name: str | Decay, known: dict[str, Decay], value: float, t: NDArray[np.float64], end: float
) -> NDArray[np.float64]:
    """The values at times `t`; a function that was given is asked for each."""
    if callable(name):
        return np.array([float(name(value, each, end)) for each in t.tolist()])
    return np.asarray(known[name](value, t, end), dtype=np.float64)


def into_lanes(codebook: NDArray[np.float64]) -> NDArray[np.float32]:
    """Weights [n_units, n_features] as the kernels of lanes take them, [n_blocks, n_features, lanes]."""
    n_blocks = -(-len(codebook) // BLOCK)
    padded = np.zeros((n_blocks * BLOCK, codebook.shape[1]), np.float32)
    padded[: len(codebook)] = codebook
    return np.ascontiguousarray(padded.reshape(n_blocks, BLOCK, -1).transpose(0, 2, 1))


def from_lanes(lanes: NDArray[np.float32], n_units: int) -> NDArray[np.float32]:
    """The reverse."""
    return lanes.transpose(0, 2, 1).reshape(-1, lanes.shape[1])[:n_units]
