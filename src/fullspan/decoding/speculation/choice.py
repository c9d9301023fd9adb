"""From what a user says to a drafter."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from fullspan.core.errors import CheckpointError
from fullspan.decoding.speculation.datastore import Datastore
from fullspan.decoding.speculation.draft_model import ModelDrafter
from fullspan.decoding.speculation.drafters import Drafter
from fullspan.decoding.speculation.ngram import NGramDrafter
from fullspan.decoding.speculation.retrieval import RetrievalDrafter

if TYPE_CHECKING:
    from fullspan.decoding.language_model import LanguageModel

    Speculate: TypeAlias = str | Path | LanguageModel | Datastore | Drafter


def drafter_of(speculate: Speculate) -> Drafter:
    """The drafter that is meant.

    Parameters
    ----------
    speculate : str, Path, LanguageModel, Datastore or Drafter
        "ngram", the file of a datastore, the name or path of a smaller model, or one of these things itself.

    Raises
    ------
    CheckpointError, DataError
        If there is no such model or file, or it is broken.
    """
    from fullspan.decoding.language_model import LanguageModel
    from fullspan.decoding.loading import load

    if speculate == "ngram":
        return NGramDrafter()
    if isinstance(speculate, str | Path):
        if Datastore.is_at(speculate):
            return RetrievalDrafter(Datastore.load(speculate))
        try:
            return ModelDrafter(load(speculate, engine="cpu"))
        except CheckpointError as error:
            meant = "speculate takes ngram, the file of a datastore, or a smaller model"
            raise CheckpointError(f"speculate: {error.message}", meant) from None
    if isinstance(speculate, Datastore):
        return RetrievalDrafter(speculate)
    return ModelDrafter(speculate) if isinstance(speculate, LanguageModel) else speculate
