"""Errors a person can act on: what was wrong, and what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LONGEST_LIST = 12


class FullspanError(Exception):
    """Base of every error that fullspan raises on purpose.

    Parameters
    ----------
    message : str
        Which value was wrong and what was expected.
    hint : str, optional
        What to do about it; shown on a line of its own.

    Examples
    --------
    >>> print(FullspanError("no model named 'smolm'", hint="see `fullspan models list`"))
    no model named 'smolm'
    hint: see `fullspan models list`
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message


class ConfigError(FullspanError):
    """An option, a config file or a recipe is wrong."""


class DataError(FullspanError):
    """A table, an example file or a text is wrong."""


class CheckpointError(FullspanError):
    """A weight file or a model folder is missing, broken or does not fit the model."""


class RunError(FullspanError):
    """A run directory is in use, incomplete or does not belong to this command."""


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Suggest the nearest of `choices`, or list the first few when none is near.

    Examples
    --------
    >>> did_you_mean("lerning_rate", ["learning_rate", "rank"])
    "did you mean 'learning_rate'?"
    >>> did_you_mean("zzz", ["rank", "alpha"])
    'choose from: alpha, rank'
    >>> did_you_mean("zzz", "abcdefghijklmnop")
    'choose from: a, b, c, d, e, f, g, h, i, j, k, l, …'
    >>> did_you_mean("AGE", ["age", "town"])
    "did you mean 'age'?"
    """
    known = sorted(choices)
    by_lower_case = {choice.lower(): choice for choice in known}
    near = difflib.get_close_matches(name.lower(), by_lower_case, n=1)
    if near:
        return f"did you mean {by_lower_case[near[0]]!r}?"
    shown = known[:_LONGEST_LIST] + (["…"] if len(known) > _LONGEST_LIST else [])
    return "choose from: " + ", ".join(shown) if known else ""
