"""Who computes: names that loading and the command line share. Free of torch, for the sake of help."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from fullspan.core.errors import CheckpointError

EngineName = Literal["auto", "cpu", "torch"]
Weights = Literal["q4", "q8", "bf16", "f32"]

ENGINE_HELP = (
    "cpu: fullspan's own kernels; auto takes them for GGUF files on a CPU, and where weights are given"
)
WEIGHTS_HELP = "kind of the cpu engine's weights; by default those of the file, or q8"
SPECULATE_HELP = (
    "draft several tokens a step, which never changes what is likely: ngram copies from the prompt and the "
    "answer; a datastore's file copies from its texts; a smaller model of the same vocabulary runs ahead; "
    "early-exit:N asks the model's own first N layers; auto is what `fullspan bench decode --tune` chose; "
    "the folder of a trained drafter looks at hidden states (typical:FOLDER, of Medusa's heads, accepts "
    "what is typical of the model, which is NOT lossless: sampled answers change)"
)


def check_speculate(speculate: str | None) -> None:
    """Refuse what can be no drafter before a model takes its time to load; a drafter's fit is checked later.

    Raises
    ------
    CheckpointError
        If it is no word for a drafter, no file and no model of the store.
    """
    from fullspan.checkpoints.store import find_model

    if speculate is None or speculate in ("ngram", "auto") or ":" in speculate or Path(speculate).exists():
        return
    try:
        find_model(speculate)
    except CheckpointError as error:
        meant = "speculate takes ngram, auto, a drafter's file or folder, or a smaller model"
        raise CheckpointError(f"speculate: {error.message}", meant) from None
