"""Text from token ids as they come, never with half a character."""

from __future__ import annotations

import codecs
import functools
import json
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fullspan.text.tokenizer import Tokenizer


class TextStream:
    """Turns ids into text one by one; the pieces joined equal `Tokenizer.decode` of all ids.

    A character whose bytes are spread over several tokens appears when its last byte is there. With
    `at_start` False the ids go on from others, so that a space before the first word stays.
    """

    def __init__(self, tokenizer: Tokenizer, skip_special_tokens: bool, at_start: bool = True) -> None:
        self._tokenizer = tokenizer
        self._skipped = tokenizer.special_ids if skip_special_tokens else frozenset()
        decoder = json.loads(tokenizer.backend.decoder.__getstate__()) if tokenizer.backend.decoder else {}
        self._pieces: _BytePieces | _SentencePieces | _AnyPieces
        if decoder.get("type") == "ByteLevel":
            self._pieces = _BytePieces()
        elif [step["type"] for step in decoder.get("decoders", [])][:3] == [
            "Replace",
            "ByteFallback",
            "Fuse",
        ]:
            self._pieces = _SentencePieces(strips_space=at_start and len(decoder["decoders"]) > 3)
        else:
            self._pieces = _AnyPieces(tokenizer)

    def push(self, token_id: int) -> str:
        """The text that this token completes; often "" in the middle of a character."""
        if token_id in self._skipped:
            return ""
        return self._pieces.push(self._tokenizer.token(token_id), token_id)

    def finish(self) -> str:
        """What is left: bytes that never became a character, as U+FFFD."""
        return self._pieces.finish()


class _BytePieces:
    """Byte-level BPE: each character of a token stands for one byte."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: str, token_id: int) -> str:
        table = _byte_of_character()
        known = all(character in table for character in token)
        return self._decoder.decode(bytes(map(table.__getitem__, token)) if known else token.encode())

    def finish(self) -> str:
        return self._decoder.decode(b"", final=True)


class _SentencePieces:
    """SentencePiece: words with ▁ for space, and runs of single bytes such as <0xF0>."""

    def __init__(self, strips_space: bool) -> None:
        self._at_start = strips_space
        self._run = bytearray()

    def push(self, token: str, token_id: int) -> str:
        if byte := re.fullmatch(r"<0x([0-9A-Fa-f]{2})>", token):
            self._run.append(int(byte[1], 16))
            return ""
        return self._emit(self._end_run() + token.replace("▁", " "))

    def finish(self) -> str:
        return self._emit(self._end_run())

    def _end_run(self) -> str:
        # A run is text as a whole or not at all, so it must be complete before any of it is shown.
        run, self._run = bytes(self._run), bytearray()
        try:
            return run.decode("utf-8")
        except UnicodeDecodeError:
            return "\ufffd" * len(run)

    def _emit(self, text: str) -> str:
        if text and self._at_start:
            self._at_start = False
            return text.removeprefix(" ")
        return text


class _AnyPieces:
    """Any other decoder: decode all ids again and show what was added."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._shown = 0

    def push(self, token: str, token_id: int) -> str:
        self._ids.append(token_id)
        return self._more(self._tokenizer.decode(self._ids, skip_special_tokens=False).rstrip("\ufffd"))

    def finish(self) -> str:
        return self._more(self._tokenizer.decode(self._ids, skip_special_tokens=False))

    def _more(self, text: str) -> str:
        more = text[self._shown :]
        self._shown = max(self._shown, len(text))
        return more


@functools.cache
def _byte_of_character() -> dict[str, int]:
    """GPT-2's spelling of bytes: printable Latin-1 as itself, the others from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
