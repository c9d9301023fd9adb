"""Statistics over parts of the data, in this process and in others."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

from fullspan.core.errors import FullspanError
from fullspan.core.partitions import LocalPartitions, ProcessPartitions, total


class Counter:
    """Counts its part's values, and remembers how often it was asked."""

    def __init__(self, part: Any, size: int) -> None:
        self.part = part
        self.size = size
        self.asked = 0

    def counts(self, shift: int) -> tuple[Any, int]:
        self.asked += 1
        return np.bincount(self.part + shift, minlength=self.size), self.asked

    def process(self) -> Any:
        return np.array([os.getpid()])

    def fail(self) -> None:
        raise ValueError("no such luck")

    def die(self) -> None:
        os._exit(3)


PARTS = [np.array([0, 1, 1]), np.array([2]), np.array([1, 0])]


@pytest.mark.parametrize("kind", [LocalPartitions, ProcessPartitions])
def test_rounds_of_sums(kind: Any) -> None:
    with kind(PARTS) as parts:
        parts.start(Counter, 4)
        assert [part.tolist() for part, _ in parts.call("counts", 0)] == [
            [1, 2, 0, 0],
            [0, 0, 1, 0],
            [1, 1, 0, 0],
        ]
        counts, asked = total(parts, "counts", 1)
        assert counts.tolist() == [0, 2, 3, 1]
        assert asked == 6  # each worker was there in the round before
        parts.start(Counter, 4)
        assert total(parts, "counts", 1)[1] == 3


def test_processes_are_others_and_end() -> None:
    with ProcessPartitions(PARTS) as parts:
        parts.start(Counter, 4)
        numbers = {int(answer[0]) for answer in parts.call("process")}
    assert len(numbers) == 3 and os.getpid() not in numbers
    for number in numbers:
        with pytest.raises(ProcessLookupError):
            os.kill(number, 0)


def test_errors_name_the_part() -> None:
    with ProcessPartitions(PARTS) as parts:
        parts.start(Counter, 4)
        with pytest.raises(FullspanError, match="part 0 of 3 failed: ValueError: no such luck"):
            parts.call("fail")
    with ProcessPartitions(PARTS) as parts:
        parts.start(Counter, 4)
        with pytest.raises(FullspanError, match="part 0 of 3 failed: its process ended"):
            parts.call("die")
    with pytest.raises(FullspanError, match="no parts"):
        LocalPartitions([])
