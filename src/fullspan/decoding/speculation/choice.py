"""From what a user says to a drafter."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from fullspan.core.errors import CheckpointError, ConfigError
from fullspan.decoding.speculation.datastore import Datastore
from fullspan.decoding.speculation.draft_model import ModelDrafter
from fullspan.decoding.speculation.drafters import Drafter
from fullspan.decoding.speculation.early_exit import EarlyExitDrafter
from fullspan.decoding.speculation.learned import trained_drafter
from fullspan.decoding.speculation.ngram import NGramDrafter
from fullspan.decoding.speculation.pace import TYPICAL, StepCosts
from fullspan.decoding.speculation.retrieval import RetrievalDrafter
from fullspan.decoding.speculation.tuned import Source, load_tuned

if TYPE_CHECKING:
    from fullspan.decoding.language_model import LanguageModel

    Speculate: TypeAlias = str | Path | LanguageModel | Datastore | Drafter


_EARLY_EXIT = "early-exit:"


def drafter_for(speculate: Speculate, source: Source | None) -> Drafter | None:
    """As `drafter_of`, where "auto" is what `fullspan bench decode --tune` chose; None is plain decoding.

    Where nothing was chosen for the model on this machine, "auto" is "ngram", which costs next to nothing.

    Parameters
    ----------
    speculate : str, Path, LanguageModel, Datastore or Drafter
    source : Source or None
        What the target was loaded from, if it was.
    """
    if speculate != "auto":
        return drafter_of(speculate)
    tuned = None if source is None else load_tuned(source)
    if tuned is None:
        return NGramDrafter()
    if tuned.speculate is None:
        return None
    return drafter_of(tuned.speculate, StepCosts.between(tuned.times))


def drafter_of(speculate: Speculate, costs: StepCosts = TYPICAL) -> Drafter:
    """The drafter that is meant.

    Parameters
    ----------
    speculate : str, Path, LanguageModel, Datastore or Drafter
        "ngram", "early-exit:N" for the model's own first N layers, the file of a datastore, the folder of a
        trained drafter ("typical:FOLDER": Medusa's with typical acceptance, not lossless), the name or path
        of a smaller model, or one of these things itself.
    costs : StepCosts
        Of the target's steps, for drafters that weigh them.

    Raises
    ------
    CheckpointError, DataError
        If there is no such model or file, or it is broken.
    """
    from fullspan.decoding.language_model import LanguageModel
    from fullspan.decoding.loading import load

    if speculate == "ngram":
        return NGramDrafter(costs=costs)
    if isinstance(speculate, str) and speculate.startswith(_EARLY_EXIT):
        return _early_exit(speculate)
    if isinstance(speculate, str | Path):
        trained = trained_drafter(speculate)
        if trained is not None:
            return trained
        if Datastore.is_at(speculate):
            return RetrievalDrafter(Datastore.load(speculate), costs=costs)
        try:
            return ModelDrafter(load(speculate, engine="cpu"))
        except CheckpointError as error:
            meant = (
                "speculate takes auto, ngram, early-exit:N, the file of a datastore, the folder of a trained "
                "drafter, or a smaller model"
            )
            raise CheckpointError(f"speculate: {error.message}", meant) from None
    if isinstance(speculate, Datastore):
        return RetrievalDrafter(speculate, costs=costs)
    return ModelDrafter(speculate) if isinstance(speculate, LanguageModel) else speculate


def _early_exit(speculate: str) -> EarlyExitDrafter:
    n_layers = speculate.removeprefix(_EARLY_EXIT)
    if not n_layers.isdecimal():
        raise ConfigError(f"speculate: {speculate!r} names no number of layers", "write early-exit:8")
    return EarlyExitDrafter(int(n_layers))
