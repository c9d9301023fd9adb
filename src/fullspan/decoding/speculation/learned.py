"""From a folder to the trained drafter in it."""

from __future__ import annotations

from pathlib import Path

from fullspan.core.errors import ConfigError
from fullspan.decoding.speculation.drafters import Drafter
from fullspan.decoding.speculation.eagle import EagleDrafter
from fullspan.decoding.speculation.medusa import MedusaDrafter
from fullspan.decoding.speculation.mtp import ParallelMtpDrafter, SequentialMtpDrafter
from fullspan.decoding.speculation.trained import DrafterFiles, is_drafter
from fullspan.decoding.speculation.typical import TypicalAcceptance

TYPICAL = "typical:"


def trained_drafter(named: str | Path) -> Drafter | None:
    """The drafter of a folder that `fullspan train` wrote; None if it is no such folder.

    Parameters
    ----------
    named : str or Path
        The folder; as a string with "typical:" before it for Medusa's typical acceptance.

    Raises
    ------
    CheckpointError
        If the drafter is broken.
    ConfigError
        If typical acceptance is asked of something else than Medusa's heads.
    """
    typical = str(named).startswith(TYPICAL)
    folder = Path(str(named).removeprefix(TYPICAL))
    files = DrafterFiles.load(folder) if is_drafter(folder) else None
    if typical and (files is None or files.about.kind != "medusa"):
        what = "no trained drafter" if files is None else f"a drafter of kind {files.about.kind}"
        raise ConfigError(f"{folder} holds {what}, and typical acceptance is Medusa's", "leave out typical:")
    if files is None:
        return None
    if files.about.kind == "medusa":
        return MedusaDrafter(files, typical=TypicalAcceptance() if typical else None)
    if files.about.kind == "eagle":
        return EagleDrafter(files)
    return ParallelMtpDrafter(files) if files.about.parallel else SequentialMtpDrafter(files)
