"""UBJSON as XGBoost writes it: big-endian, lengths as int64, arrays of numbers typed.

Nothing that a file says is believed before it has been held against the bytes that are left.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

_DEEPEST = 64
_NUMBERS = {"i": "b", "U": "B", "I": ">h", "l": ">i", "L": ">q", "d": ">f", "D": ">d"}
_MARKERS = {
    np.dtype(np.int8): "i",
    np.dtype(np.uint8): "U",
    np.dtype(np.int16): "I",
    np.dtype(np.int32): "l",
    np.dtype(np.int64): "L",
    np.dtype(np.float32): "d",
    np.dtype(np.float64): "D",
}


def decode(content: bytes) -> Any:
    """The value of a UBJSON document; typed arrays become NumPy arrays.

    Raises
    ------
    ValueError
        If the bytes are no such document.

    Examples
    --------
    >>> decode(encode({"a": [1, "x", None], "b": np.array([1.5, 2.5])}))
    {'a': [1, 'x', None], 'b': array([1.5, 2.5])}
    """
    reader = _Reader(content)
    value = reader.value(reader.marker(), 0)
    if reader.place != len(content):
        raise ValueError(f"{len(content) - reader.place} bytes are left over")
    return value


class _Reader:
    def __init__(self, content: bytes) -> None:
        self.content = content
        self.place = 0

    def take(self, count: int) -> bytes:
        if not 0 <= count <= len(self.content) - self.place:
            raise ValueError(
                f"{count} bytes are asked for at byte {self.place}, {len(self.content) - self.place} are left"
            )
        self.place += count
        return self.content[self.place - count : self.place]

    def marker(self) -> str:
        return self.take(1).decode("latin-1")

    def number(self, marker: str) -> int | float:
        code = _NUMBERS[marker]
        (value,) = struct.unpack(code, self.take(struct.calcsize(code)))
        return value  # type: ignore[no-any-return]

    def length(self) -> int:
        marker = self.marker()
        if marker not in "iUIlL":
            raise ValueError(f"a length begins with {marker!r} at byte {self.place - 1}")
        return int(self.number(marker))

    def text(self) -> str:
        return self.take(self.length()).decode("utf-8")

    def value(self, marker: str, depth: int) -> Any:
        if depth > _DEEPEST:
            raise ValueError(f"it is nested more than {_DEEPEST} levels deep")
        if marker in _NUMBERS:
            return self.number(marker)
        match marker:
            case "{":
                return self.object(depth)
            case "[":
                return self.array(depth)
            case "S":
                return self.text()
            case "C":
                return ord(self.marker())
            case "Z":
                return None
            case "T":
                return True
            case "F":
                return False
        raise ValueError(f"unknown marker {marker!r} at byte {self.place - 1}")

    def object(self, depth: int) -> dict[str, Any]:
        out = {}
        while self.content[self.place : self.place + 1] != b"}":
            key = self.text()
            out[key] = self.value(self.marker(), depth + 1)
        self.place += 1
        return out

    def array(self, depth: int) -> Any:
        marker = self.marker()
        if marker == "$":
            kind = self.marker()
            if kind not in _NUMBERS or self.marker() != "#":
                raise ValueError(f"a typed array of {kind!r} at byte {self.place} is not supported")
            code = np.dtype(_NUMBERS[kind])
            content = self.take(self.length() * code.itemsize)
            return np.frombuffer(content, code).astype(code.newbyteorder("="))
        if marker == "#":
            count = self.length()
            if count < 0:
                raise ValueError(f"an array of {count} values at byte {self.place}")
            out = []
            for _ in range(count):
                out.append(self.value(self.marker(), depth + 1))
            return out
        out = []
        while marker != "]":
            out.append(self.value(marker, depth + 1))
            marker = self.marker()
        return out


def encode(value: Any) -> bytes:
    """A UBJSON document; NumPy arrays become typed arrays."""
    out: list[bytes] = []
    _append(value, out)
    return b"".join(out)


def _text(value: str) -> bytes:
    content = value.encode()
    return b"L" + struct.pack(">q", len(content)) + content


def _append(value: Any, out: list[bytes]) -> None:
    if value is None:
        out.append(b"Z")
    elif isinstance(value, bool):
        out.append(b"T" if value else b"F")
    elif isinstance(value, int):
        out.append(b"L" + struct.pack(">q", value))
    elif isinstance(value, float):
        out.append(b"d" + struct.pack(">f", value))
    elif isinstance(value, str):
        out.append(b"S" + _text(value))
    elif isinstance(value, np.ndarray):
        out.append(b"[$" + _MARKERS[value.dtype].encode() + b"#L" + struct.pack(">q", len(value)))
        out.append(value.astype(value.dtype.newbyteorder(">")).tobytes())
    elif isinstance(value, dict):
        out.append(b"{")
        for key, item in value.items():
            out.append(_text(key))
            _append(item, out)
        out.append(b"}")
    else:
        out.append(b"[#L" + struct.pack(">q", len(value)))
        for item in value:
            _append(item, out)
