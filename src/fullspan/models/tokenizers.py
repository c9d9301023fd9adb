"""The tokenizer that belongs to a model on disk."""

from __future__ import annotations

from pathlib import Path

from fullspan.core.errors import CheckpointError
from fullspan.text.tokenizer import Tokenizer


def load_tokenizer(path: Path | str) -> Tokenizer:
    """Read the tokenizer of a GGUF file or of a Hugging Face folder.

    Raises
    ------
    CheckpointError
        If nothing is at `path`, or the tokenizer is missing, broken or of an unknown kind.
    """
    path = Path(path)
    if path.is_dir():
        return Tokenizer.from_folder(path)
    if not path.exists():
        raise CheckpointError(f"no such file or folder: {path}", "give a GGUF file or a Hugging Face folder")
    from fullspan.checkpoints.gguf_file import GGUFFile

    return Tokenizer.from_gguf(GGUFFile(path).metadata)
