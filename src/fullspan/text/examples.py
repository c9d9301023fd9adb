"""Example files: Messages, Alpaca, ShareGPT and prompt/completion, in JSONL, JSON or Parquet."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from fullspan.core.errors import DataError, did_you_mean

_BOM = b"\xef\xbb\xbf"
MAX_LINE_BYTES = 64 * 1024 * 1024
_ROLES = {"system": "system", "user": "user", "assistant": "assistant"}
_SHAREGPT_ROLES = {**_ROLES, "human": "user", "gpt": "assistant"}


@dataclass(frozen=True)
class Message:
    """One turn of a conversation; `role` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True)
class Example:
    """A conversation to learn from; it has at least one turn of the assistant."""

    messages: list[Message]


class _RowError(Exception):
    """What is wrong with one row; the caller knows the file and the row's number."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def read_examples(path: Path | str) -> list[Example]:
    """Read all examples of a file; see `iter_examples`.

    Raises
    ------
    DataError
        If the file is missing or empty, or if a row is wrong; the message names the row.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "train.jsonl"
    >>> _ = file.write_text('{"instruction": "Say hi.", "output": "Hi!"}')
    >>> read_examples(file)[0].messages[1]
    Message(role='assistant', content='Hi!')
    """
    return list(iter_examples(path))


def iter_examples(path: Path | str) -> Iterator[Example]:
    """Read examples one by one; JSONL and Parquet are never held in memory whole.

    The format is found from the first row and must be the same in every row:

    - Messages: `{"messages": [{"role": "user", "content": "..."}, ...]}`
    - Alpaca: `{"instruction": "...", "input": "...", "output": "..."}`, `input` may be missing or empty
    - ShareGPT: `{"conversations": [{"from": "human", "value": "..."}, ...]}`
    - prompt and completion: `{"prompt": "...", "completion": "..."}`

    The last three may have a `system` text. Other keys are ignored.

    Raises
    ------
    DataError
        If the file is missing or empty, or if a row is wrong; the message names the row.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"no such file: {path}", "give a JSONL, JSON or Parquet file of examples")
    expected: str | None = None
    for where, row in _rows(path):
        try:
            format_ = _format_of(row)
            expected = expected or format_
            if format_ != expected:
                raise _RowError(f"is {format_}, the file began as {expected}", "keep one format to a file")
            yield _checked(_READERS[format_](row))
        except _RowError as error:
            raise DataError(f"{path}, {where}: {error}", error.hint) from None
    if expected is None:
        raise DataError(f"{path} holds no examples", "each line should be one JSON object")


def _format_of(row: Any) -> str:
    if not isinstance(row, dict):
        raise _RowError(f"is a JSON {_json_type(row)}, expected an object")
    for format_, key in _KEYS.items():
        if key in row:
            return format_
    near = ((key, did_you_mean(key, _KEYS.values())) for key in row)
    hints = [f"{key!r}: {hint}" for key, hint in near if hint.startswith("did")]
    expected = ", ".join(map(repr, _KEYS.values()))
    found = ", ".join(repr(key) for key in list(row)[:8]) or "none"
    raise _RowError(f"has none of the keys {expected}; its keys: {found}", hints[0] if hints else "")


def _from_messages(row: Mapping[str, Any]) -> list[Message]:
    return [
        Message(_role(turn, "role", _ROLES, number), _text(turn, "content", number))
        for number, turn in _turns(row, "messages")
    ]


def _from_sharegpt(row: Mapping[str, Any]) -> list[Message]:
    turns = [
        Message(_role(turn, "from", _SHAREGPT_ROLES, number), _text(turn, "value", number))
        for number, turn in _turns(row, "conversations")
    ]
    return _system(row) + turns


def _from_alpaca(row: Mapping[str, Any]) -> list[Message]:
    instruction, output = _text(row, "instruction"), _text(row, "output")
    if row.get("input"):
        instruction += "\n\n" + _text(row, "input")
    return [*_system(row), Message("user", instruction), Message("assistant", output)]


def _from_completion(row: Mapping[str, Any]) -> list[Message]:
    prompt, completion = _text(row, "prompt"), _text(row, "completion")
    return [*_system(row), Message("user", prompt), Message("assistant", completion)]


# The key by which each format is known.
_KEYS = {
    "Messages": "messages",
    "ShareGPT": "conversations",
    "Alpaca": "instruction",
    "prompt/completion": "prompt",
}
_READERS: dict[str, Callable[[Mapping[str, Any]], list[Message]]] = {
    "Messages": _from_messages,
    "ShareGPT": _from_sharegpt,
    "Alpaca": _from_alpaca,
    "prompt/completion": _from_completion,
}


def _system(row: Mapping[str, Any]) -> list[Message]:
    return [Message("system", _text(row, "system"))] if row.get("system") else []


def _turns(row: Mapping[str, Any], key: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    turns = row[key]
    if not isinstance(turns, list):
        raise _RowError(f"{key!r} is a {_json_type(turns)}, expected a list of turns")
    for number, turn in enumerate(turns, start=1):
        if not isinstance(turn, dict):
            raise _RowError(f"turn {number} is a {_json_type(turn)}, expected an object")
        if turn.get("tool_calls"):
            raise _RowError(f"turn {number} has tool calls, which are not read", "write them in the content")
        yield number, turn


def _role(turn: Mapping[str, Any], key: str, names: Mapping[str, str], number: int) -> str:
    name = _text(turn, key, number)
    if name not in names:
        raise _RowError(f"turn {number} has the unknown role {name!r}", did_you_mean(name, names))
    return names[name]


def _text(row: Mapping[str, Any], key: str, turn: int | None = None) -> str:
    of_turn = f"turn {turn}: " if turn else ""
    if key not in row:
        near = did_you_mean(key, row)
        raise _RowError(f"{of_turn}the key {key!r} is missing", near if near.startswith("did") else "")
    value = row[key]
    if not isinstance(value, str):
        raise _RowError(f"{of_turn}{key!r} is a {_json_type(value)}, expected a text")
    if not value.strip():
        raise _RowError(f"{of_turn}{key!r} is empty")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise _RowError(f"{of_turn}{key!r} has half a surrogate pair (character {error.start + 1})") from None
    return value


def _checked(messages: list[Message]) -> Example:
    roles = [message.role for message in messages]
    if "assistant" not in roles:
        raise _RowError("has no turn of the assistant, so there is nothing to learn")
    spoken = [role for role in roles if role != "system"]
    if spoken[0] == "assistant":
        raise _RowError("begins with a turn of the assistant, expected the user's")
    if "system" in roles[1:]:
        raise _RowError("has a system turn that is not the first one")
    return Example(messages)


def _json_type(value: Any) -> str:
    if value is None:
        return "null"
    names = {bool: "boolean", int: "number", float: "number", str: "text", list: "list", dict: "object"}
    return names.get(type(value), type(value).__name__)


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    with path.open("rb") as handle:
        magic = handle.read(4)
        if magic == b"PAR1" or path.suffix == ".parquet":
            yield from _parquet_rows(path)
            return
        handle.seek(0)
        if _first_character(handle) == b"[":
            yield from _array_rows(path)
            return
        handle.seek(0)
        yield from _jsonl_rows(path, handle)


def _first_character(handle: BinaryIO) -> bytes:
    while block := handle.read(4096):
        if stripped := block.removeprefix(_BOM).lstrip():
            return stripped[:1]
    return b""


def _jsonl_rows(path: Path, handle: BinaryIO) -> Iterator[tuple[str, Any]]:
    number = 0
    while line := handle.readline(MAX_LINE_BYTES + 1):
        number += 1
        line = line.removeprefix(_BOM) if number == 1 else line
        if len(line) > MAX_LINE_BYTES:
            raise DataError(
                f"{path}, line {number}: is longer than {MAX_LINE_BYTES // 2**20} MiB",
                "JSONL has one example a line; is this a JSON Lines file?",
            )
        if line.strip():
            yield f"line {number}", _parse(line, f"{path}, line {number}")


def _array_rows(path: Path) -> Iterator[tuple[str, Any]]:
    for number, row in enumerate(_parse(path.read_bytes(), str(path)), start=1):
        yield f"item {number}", row


def _parse(data: bytes, where: str) -> Any:
    try:
        return json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}: is not UTF-8 at byte {error.start + 1}", "save the file as UTF-8"
        ) from None
    except RecursionError:
        raise DataError(f"{where}: is nested too deeply") from None
    except ValueError as error:
        raise DataError(f"{where}: is not JSON: {error}") from None


def _parquet_rows(path: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield f"row {number}", row
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"{path} cannot be read as Parquet after row {number}: {reason}") from None
