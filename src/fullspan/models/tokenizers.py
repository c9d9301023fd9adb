"""The tokenizer that belongs to a model on disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fullspan.core.errors import CheckpointError
from fullspan.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from fullspan.checkpoints.gguf_file import GGUFFile


def load_tokenizer(source: Path | str | GGUFFile) -> Tokenizer:
    """Read the tokenizer of a GGUF file, which may be open already, or of a Hugging Face folder.

    Raises
    ------
    CheckpointError
        If nothing is there, or the tokenizer is missing, broken or of an unknown kind.
    """
    if not isinstance(source, Path | str):
        return Tokenizer.from_gguf(source.metadata)
    path = Path(source)
    if path.is_dir():
        return Tokenizer.from_folder(path)
    if not path.exists():
        raise CheckpointError(f"no such file or folder: {path}", "give a GGUF file or a Hugging Face folder")
    from fullspan.checkpoints.gguf_file import GGUFFile

    return Tokenizer.from_gguf(GGUFFile(path).metadata)
