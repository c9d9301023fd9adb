"""CART: growing, pruning, exporting and plotting single trees."""

from __future__ import annotations

import importlib
from typing import Any

# Where each public name lives; a module is imported when its first name is used.
_MODULES = {
    "DecisionTreeClassifier": "cart",
    "DecisionTreeRegressor": "cart",
    "Tree": "structure",
    "export_graphviz": "export",
    "export_text": "export",
    "plot_tree": "plotting",
}
__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
