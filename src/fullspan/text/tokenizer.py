"""Tokenizers read from GGUF metadata or from a Hugging Face folder."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from fullspan.core.errors import CheckpointError, DataError
from fullspan.core.files import replacing
from fullspan.text.gguf_vocabulary import read_vocabulary, write_vocabulary
from fullspan.text.streaming import TextStream

# Names of tokens that end a turn. Llama 3.1 stops at three of them, and files name only one.
_END_OF_TURN = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>")


class Tokenizer:
    """Text to token ids and back.

    Build one with `from_gguf` or `from_folder`.

    Attributes
    ----------
    backend : tokenizers.Tokenizer
        The tokenizer of the `tokenizers` library that does the work.
    bos_id, pad_id : int or None
        The token that begins a text and the one that fills up a batch.
    eos_ids : tuple of int
        Every token that ends a reply: end of text, end of turn, end of message.
    chat_template : str or None
        Jinja source that turns messages into text.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        bos_id: int | None = None,
        eos_ids: Sequence[int] = (),
        pad_id: int | None = None,
        chat_template: str | None = None,
    ) -> None:
        backend.no_truncation()
        backend.no_padding()
        self.backend = backend
        self.bos_id = bos_id
        self.pad_id = pad_id
        self.chat_template = chat_template
        self._texts: dict[int, str] = {}
        added = backend.get_added_tokens_decoder()
        self.special_ids = frozenset(index for index, token in added.items() if token.special)
        by_name = (backend.token_to_id(name) for name in _END_OF_TURN)
        named = [index for index in by_name if index in self.special_ids]
        self.eos_ids = tuple(dict.fromkeys([*eos_ids, *named]))

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any]) -> Tokenizer:
        """Build the tokenizer that a GGUF file's metadata describes.

        Raises
        ------
        CheckpointError
            If keys are missing or contradict each other, or the kind of tokenizer is unknown.
        """
        found = read_vocabulary(metadata)
        return cls(
            found.backend,
            bos_id=found.bos_id,
            eos_ids=found.eos_ids,
            pad_id=found.pad_id,
            chat_template=found.chat_template,
        )

    @classmethod
    def from_folder(cls, folder: Path | str) -> Tokenizer:
        """Read tokenizer.json and the settings beside it, as in a Hugging Face folder.

        Raises
        ------
        CheckpointError
            If tokenizer.json is missing or broken, or if a special token is not in the vocabulary.
        """
        folder = Path(folder)
        file = folder / "tokenizer.json"
        if not file.is_file():
            raise CheckpointError(f"no tokenizer.json in {folder}", _other_tokenizer_hint(folder))
        try:
            backend = tokenizers.Tokenizer.from_file(str(file))
        except Exception as error:
            # The library raises plain Exception for anything wrong with the file.
            raise CheckpointError(f"{file} is not a valid tokenizer: {error}") from None
        config = _read_json(folder / "tokenizer_config.json")
        ids = {name: _special_id(backend, config, name, folder) for name in ("bos", "eos", "pad")}
        generation = _read_json(folder / "generation_config.json").get("eos_token_id")
        more = generation if isinstance(generation, list) else [generation]
        return cls(
            backend,
            bos_id=ids["bos"],
            eos_ids=[index for index in (ids["eos"], *more) if isinstance(index, int)],
            pad_id=ids["pad"],
            chat_template=_read_template(folder, config),
        )

    @property
    def vocab_size(self) -> int:
        """Number of tokens, added ones included."""
        return int(self.backend.get_vocab_size())

    def token(self, index: int) -> str:
        """Spelling of one token in the vocabulary.

        Raises
        ------
        DataError
            If there is no such token.
        """
        spelling = self.backend.id_to_token(index) if index >= 0 else None
        if spelling is None:
            raise DataError(f"the token id {index} is not in the vocabulary of {self.vocab_size} tokens")
        return str(spelling)

    def token_text(self, index: int) -> str:
        """Text of one token inside an answer; bytes that are no whole character are U+FFFD.

        Raises
        ------
        DataError
            If there is no such token.
        """
        if index not in self._texts:
            stream = TextStream(self, skip_special_tokens=False, at_start=False)
            self._texts[index] = stream.push(index) + stream.finish()
        return self._texts[index]

    @property
    def bos_token(self) -> str:
        """Text of the token that begins a text, "" if there is none."""
        return "" if self.bos_id is None else self.token(self.bos_id)

    @property
    def eos_token(self) -> str:
        """Text of the first token that ends a reply, "" if there is none."""
        return self.token(self.eos_ids[0]) if self.eos_ids else ""

    def encode(self, text: str, *, add_special_tokens: bool = False, allow_special: bool = True) -> list[int]:
        """Token ids of `text`.

        Bytes that the vocabulary lacks are left out, as in every tokenizer of this kind: SmolLM2 has no
        token for six control characters and for the unassigned planes above U+3FFFF.

        Parameters
        ----------
        text
            Any text that can be written as UTF-8.
        add_special_tokens
            Put the begin-of-text token first where the model expects one. Rendered chat templates
            have it already.
        allow_special
            Whether the spelling of a special token, such as ``<|im_end|>``, becomes that token, as in
            other tokenizers. False makes it ordinary text: a stranger's text cannot end a turn.

        Raises
        ------
        DataError
            If `text` has half a surrogate pair, which no encoding can write, or if it spells a special
            token that is not allowed and cannot be written otherwise.
        """
        return list(self.encoding(text, add_special_tokens, allow_special).ids)

    def encoding(
        self, text: str, add_special_tokens: bool = False, allow_special: bool = True
    ) -> tokenizers.Encoding:
        """As `encode`, with the characters that each token stands for (`.offsets`)."""
        backend = self.backend if allow_special else self._backend_of_plain_text
        try:
            encoding = backend.encode(text, add_special_tokens=add_special_tokens)
        except (UnicodeEncodeError, TypeError):
            at = next((i for i, character in enumerate(text) if "\ud800" <= character <= "\udfff"), None)
            if at is None:
                raise
            raise DataError(
                f"the text has half a surrogate pair, {text[at]!r}, at character {at + 1}",
                "decode the text with errors='replace'",
            ) from None
        if not allow_special:
            # A special token of one character has no other spelling than itself.
            for spelling in map(self.token, self.special_ids.intersection(encoding.ids)):
                if spelling in text:
                    raise DataError(f"{spelling!r} cannot be written as plain text in this vocabulary")
        return encoding

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Text of token ids; bytes that are not UTF-8 become U+FFFD.

        Raises
        ------
        DataError
            If an id is not in the vocabulary.
        """
        size = self.vocab_size
        for index in ids:
            if not 0 <= index < size:
                raise DataError(f"the token id {index} is not in the vocabulary of {size} tokens")
        return str(self.backend.decode(ids, skip_special_tokens=skip_special_tokens))

    def stream(self, skip_special_tokens: bool = True) -> TextStream:
        """A detokeniser that takes one id at a time."""
        return TextStream(self, skip_special_tokens)

    def files(self) -> dict[str, str]:
        """Name and content of the files that `save` writes."""
        config: dict[str, Any] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
        }
        named = {"bos_token": self.bos_id, "eos_token": self.eos_ids[:1], "pad_token": self.pad_id}
        for name, index in named.items():
            index = index[0] if isinstance(index, tuple) and index else index
            if isinstance(index, int):
                config[name] = self.backend.id_to_token(index)
        if self.chat_template is not None:
            config["chat_template"] = self.chat_template
        return {
            "tokenizer.json": self.backend.to_str(),
            "tokenizer_config.json": json.dumps(config, ensure_ascii=False, indent=2),
        }

    def save(self, folder: Path | str) -> None:
        """Write tokenizer.json and tokenizer_config.json, as Hugging Face's libraries read them."""
        for name, content in self.files().items():
            with replacing(Path(folder) / name) as beside:
                beside.write_text(content, encoding="utf-8")

    def to_gguf_metadata(self) -> dict[str, Any]:
        """The `tokenizer.*` keys for a GGUF file.

        Raises
        ------
        CheckpointError
            If GGUF has no way to say how this tokenizer works.
        """
        metadata = write_vocabulary(self.backend)
        text_ids = self.encode("a", add_special_tokens=True)
        metadata["tokenizer.ggml.add_bos_token"] = self.bos_id is not None and text_ids[0] == self.bos_id
        if self.bos_id is not None:
            metadata["tokenizer.ggml.bos_token_id"] = self.bos_id
        # A file names one token of each kind; the others are known by their spelling.
        for key, index in zip(("eos", "eot", "eom"), self.eos_ids, strict=False):
            metadata[f"tokenizer.ggml.{key}_token_id"] = index
        if self.pad_id is not None:
            metadata["tokenizer.ggml.padding_token_id"] = self.pad_id
        if self.chat_template is not None:
            metadata["tokenizer.chat_template"] = self.chat_template
        return metadata

    @functools.cached_property
    def _backend_of_plain_text(self) -> tokenizers.Tokenizer:
        backend = copy.deepcopy(self.backend)
        backend.encode_special_tokens = True
        return backend


def _read_json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} should hold a JSON object, it holds a {type(content).__name__}")
    return content


def _special_id(
    backend: tokenizers.Tokenizer, config: Mapping[str, Any], name: str, folder: Path
) -> int | None:
    token = config.get(f"{name}_token")
    if isinstance(token, dict):
        token = token.get("content")
    if token is None:
        return None
    index = backend.token_to_id(token) if isinstance(token, str) else None
    if index is None:
        raise CheckpointError(f"{folder}: the {name}_token {token!r} is not in the vocabulary")
    return int(index)


def _read_template(folder: Path, config: Mapping[str, Any]) -> str | None:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    template = config.get("chat_template")
    if isinstance(template, list):
        named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
        template = named.get("default")
    if template is not None and not isinstance(template, str):
        raise CheckpointError(f"{folder}: the chat template is a {type(template).__name__}, expected a text")
    return template


def _other_tokenizer_hint(folder: Path) -> str:
    if (folder / "tokenizer.model").is_file():
        return "there is a SentencePiece tokenizer.model; convert it with transformers' save_pretrained"
    return "give the folder of a Hugging Face model, or a GGUF file"
