"""Files of prompts: a question a line, or examples whose last answer is left out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fullspan.core.errors import DataError
from fullspan.text.examples import Message, iter_examples

_TEXTS = (".txt", ".md")
_LONGEST_FILE = 256 * 1024 * 1024


def is_text(path: Path | str) -> bool:
    """Whether a file is plain text, by its name."""
    return Path(path).suffix.lower() in _TEXTS


def read_text(path: Path | str) -> str:
    """A text file in UTF-8.

    Raises
    ------
    DataError
        If it is missing, not UTF-8, or larger than 256 MiB.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _LONGEST_FILE:
            raise DataError(f"{path} is larger than 256 MiB", "split it")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"no such file: {path}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: {error.reason} at byte {error.start}") from None


def iter_prompts(path: Path | str) -> Iterator[list[Message]]:
    """Conversations that wait for an answer.

    Parameters
    ----------
    path : Path or str
        A .txt or .md file has a question on each line; others are read as examples, whose turns before the
        last of the assistant are the prompt.

    Raises
    ------
    DataError
        If the file is missing, empty or wrong.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "questions.txt"
    >>> _ = file.write_text("What is a tree?")
    >>> list(iter_prompts(file))
    [[Message(role='user', content='What is a tree?')]]
    """
    if not is_text(path):
        for example in iter_examples(path):
            last = max(i for i, turn in enumerate(example.messages) if turn.role == "assistant")
            if last:
                yield example.messages[:last]
        return
    lines = [line.strip() for line in read_text(path).splitlines()]
    if not any(lines):
        raise DataError(f"{path} holds no questions", "write one on each line")
    for line in lines:
        if line:
            yield [Message("user", line)]
