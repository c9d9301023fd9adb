"""fullspan: the whole span of machine learning on an ordinary computer.

Examples
--------
>>> import fullspan
>>> model = fullspan.load("smollm2-135m-instruct")  # doctest: +SKIP
>>> model.chat("What is a kd-tree?")  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fullspan._version import __version__

if TYPE_CHECKING:
    from fullspan.decoding.loading import load

__all__ = ["__version__", "load"]


def __getattr__(name: str) -> object:
    # Only who loads a language model pays for what it needs.
    if name == "load":
        from fullspan.decoding.loading import load

        return load
    raise AttributeError(f"module 'fullspan' has no attribute {name!r}")
