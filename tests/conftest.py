"""Fixtures that several parts share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """The real SmolLM2-135M-Instruct, fetched into the model store on first use."""
    from fullspan.checkpoints.store import ModelStore

    store = ModelStore()
    store.pull("smollm2-135m-instruct")
    return store.path("smollm2-135m-instruct")


@pytest.fixture(autouse=True)
def _one_thread_pool_size() -> None:
    """Tests never depend on a thread count that an earlier test left behind."""
    import sys

    if "torch" in sys.modules:
        from fullspan.core.device import set_threads

        set_threads(None)
