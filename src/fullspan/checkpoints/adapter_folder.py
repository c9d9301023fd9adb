"""What an adapter's folder says about the model that it belongs to."""

from __future__ import annotations

import json
from pathlib import Path

from fullspan.checkpoints.store import find_model
from fullspan.core.errors import CheckpointError

ADAPTER_CONFIG = "adapter_config.json"


def base_and_adapter(name_or_path: str | Path, adapter: str | Path | None = None) -> tuple[str, Path | None]:
    """Tell apart the model and its adapter; `name_or_path` may be the adapter itself.

    Raises
    ------
    CheckpointError
        If it is an adapter that does not name the model it belongs to.
    """
    given = Path(name_or_path)
    if adapter is None and (given / ADAPTER_CONFIG).is_file() and find_model(name_or_path) == given:
        base = base_of_adapter(given)
        if not base:
            raise CheckpointError(
                f"{given / ADAPTER_CONFIG} does not name the model it belongs to",
                "name it: give the model, and this folder as the adapter",
            )
        return base, given
    return str(name_or_path), Path(adapter) if adapter is not None else None


def base_of_adapter(folder: Path) -> str:
    """The model that an adapter in PEFT's format says it was trained on; empty if it does not say."""
    try:
        content = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        base = content["base_model_name_or_path"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return base if isinstance(base, str) else ""
