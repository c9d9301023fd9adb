"""The tokenizer inside a GGUF file's metadata, to and from the `tokenizers` library.

GGUF names the way text is cut before byte-pair merging (`tokenizer.ggml.pre`) but does not say what it
is. The cuts below are those of the models' own tokenizer.json files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from fullspan.core.errors import CheckpointError, did_you_mean

# Token types of llama.cpp.
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6

_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class _Cut:
    """How one family of byte-level vocabularies cuts text into words."""

    pre_tokenizer: Callable[[], Any]
    nfc: bool = False
    ignore_merges: bool = False  # a word that is a token as a whole is never merged up to
    adds_bos: bool = False


def _words_of_gpt2() -> Any:
    return pre_tokenizers.ByteLevel(add_prefix_space=False)


def _digits_then_words() -> Any:
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _words_of_gpt2()])


def _by_regex(pattern: str) -> Callable[[], Any]:
    return lambda: pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


_CUTS = {
    "gpt-2": _Cut(_words_of_gpt2),
    "smollm": _Cut(_digits_then_words),
    "llama-bpe": _Cut(_by_regex(_LLAMA3), ignore_merges=True, adds_bos=True),
    "qwen2": _Cut(_by_regex(_QWEN2), nfc=True),
    "tekken": _Cut(_by_regex(_TEKKEN), ignore_merges=True, adds_bos=True),
}
# Other names that files give to the same cuts.
_SAME_CUT = {
    "default": "gpt-2",
    "phi-2": "gpt-2",
    "starcoder": "smollm",
    "refact": "smollm",
    "command-r": "smollm",
    "codeshell": "smollm",
    "llama3": "llama-bpe",
    "llama-v3": "llama-bpe",
    "deepseek-r1-qwen": "qwen2",
}


@dataclass(frozen=True)
class Vocabulary:
    """What a GGUF file says about its tokenizer."""

    backend: tokenizers.Tokenizer
    bos_id: int | None
    eos_ids: tuple[int, ...]
    pad_id: int | None
    chat_template: str | None


def read_vocabulary(metadata: Mapping[str, Any]) -> Vocabulary:
    """Build the tokenizer that GGUF metadata describes.

    Raises
    ------
    CheckpointError
        If keys are missing or contradict each other, or if the tokenizer's kind or its cut is unknown.
    """
    model = metadata.get("tokenizer.ggml.model")
    if model not in ("gpt2", "llama"):
        raise CheckpointError(
            f"the tokenizer model {model!r} is not supported, expected 'gpt2' (byte-level BPE) or 'llama'"
        )
    tokens = _strings(metadata, "tokenizer.ggml.tokens")
    types = _token_types(metadata, len(tokens))
    vocab = {token: index for index, token in enumerate(tokens)}
    if len(vocab) != len(tokens):
        twice = next(token for index, token in enumerate(tokens) if vocab[token] != index)
        raise CheckpointError(f"the vocabulary holds the token {twice!r} twice")
    ids = {
        name: _token_id(metadata, f"tokenizer.ggml.{key}_token_id", len(tokens))
        for name, key in [("bos", "bos"), ("eos", "eos"), ("eot", "eot"), ("eom", "eom"), ("pad", "padding")]
    }
    try:
        if model == "gpt2":
            backend, adds_bos = _byte_level(metadata, vocab)
        else:
            backend, adds_bos = _sentencepiece(metadata, vocab, tokens, types), True
    except CheckpointError:
        raise
    except Exception as error:
        # The tokenizers library raises plain Exception, for one where a merge names a missing token.
        raise CheckpointError(f"the tokenizer cannot be built: {error}") from None
    _add_tokens(backend, tokens, types)
    adds_bos = bool(metadata.get("tokenizer.ggml.add_bos_token", adds_bos)) and ids["bos"] is not None
    adds_eos = bool(metadata.get("tokenizer.ggml.add_eos_token", False)) and ids["eos"] is not None
    _frame(backend, ids["bos"] if adds_bos else None, ids["eos"] if adds_eos else None)
    template = metadata.get("tokenizer.chat_template")
    return Vocabulary(
        backend,
        bos_id=ids["bos"],
        eos_ids=tuple(dict.fromkeys(i for i in (ids["eos"], ids["eot"], ids["eom"]) if i is not None)),
        pad_id=ids["pad"],
        chat_template=template if isinstance(template, str) else None,
    )


def _byte_level(metadata: Mapping[str, Any], vocab: dict[str, int]) -> tuple[tokenizers.Tokenizer, bool]:
    name = str(metadata.get("tokenizer.ggml.pre", "default"))
    cut = _CUTS.get(_SAME_CUT.get(name, name))
    if cut is None:
        raise CheckpointError(
            f"the pre-tokenizer {name!r} of this GGUF file is not known",
            did_you_mean(name, [*_CUTS, *_SAME_CUT]),
        )
    merges = list(map(_pair, _strings(metadata, "tokenizer.ggml.merges")))
    backend = tokenizers.Tokenizer(models.BPE(vocab, merges, ignore_merges=cut.ignore_merges))
    backend.pre_tokenizer = cut.pre_tokenizer()
    if cut.nfc:
        backend.normalizer = normalizers.NFC()
    backend.decoder = decoders.ByteLevel()
    return backend, cut.adds_bos


def _pair(merge: str) -> tuple[str, str]:
    left, _, right = merge.partition(" ")
    return left, right


def _sentencepiece(
    metadata: Mapping[str, Any], vocab: dict[str, int], tokens: list[str], types: list[int]
) -> tokenizers.Tokenizer:
    scores = _numbers(metadata, "tokenizer.ggml.scores", len(tokens)).tolist()
    unknown = _token_id(metadata, "tokenizer.ggml.unknown_token_id", len(tokens))
    merges = _merges_from_scores(vocab, scores, types)
    backend = tokenizers.Tokenizer(
        models.BPE(
            vocab,
            merges,
            unk_token=tokens[unknown] if unknown is not None else None,
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    prefix = bool(metadata.get("tokenizer.ggml.add_space_prefix", True))
    steps: list[Any] = [normalizers.Prepend("▁")] if prefix else []
    backend.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    undo: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*undo, decoders.Strip(" ", 1, 0)] if prefix else undo)
    return backend


def _merges_from_scores(
    vocab: Mapping[str, int], scores: Sequence[float], types: Sequence[int]
) -> list[tuple[str, str]]:
    """Every way to put a token together from two others, best score of the result first.

    SentencePiece joins the two neighbours whose union scores best, so the scores are the merge ranks.
    Control tokens take no part: no text may merge into one.
    """
    normal = {token for token, index in vocab.items() if types[index] in (_NORMAL, _USER_DEFINED)}
    found: list[tuple[float, int, int, int, str, str]] = []
    for token in normal:
        for at in range(1, len(token)):
            left, right = token[:at], token[at:]
            if left in normal and right in normal:
                found.append((-scores[vocab[token]], -at, vocab[left], vocab[right], left, right))
    found.sort()
    return [(left, right) for *_, left, right in found]


def _add_tokens(backend: tokenizers.Tokenizer, tokens: list[str], types: list[int]) -> None:
    control = [
        AddedToken(tokens[i], special=True, normalized=False)
        for i, kind in enumerate(types)
        if kind == _CONTROL or (kind == _UNKNOWN and tokens[i])
    ]
    user_defined = [
        AddedToken(tokens[i], special=False, normalized=False)
        for i, kind in enumerate(types)
        if kind == _USER_DEFINED and tokens[i]
    ]
    backend.add_special_tokens(control)
    backend.add_tokens(user_defined)


def _frame(backend: tokenizers.Tokenizer, bos_id: int | None, eos_id: int | None) -> None:
    if bos_id is None and eos_id is None:
        return
    before = [(backend.id_to_token(bos_id), bos_id)] if bos_id is not None else []
    after = [(backend.id_to_token(eos_id), eos_id)] if eos_id is not None else []
    backend.post_processor = processors.TemplateProcessing(
        single=[*(token for token, _ in before), "$A", *(token for token, _ in after)],
        pair=[*(token for token, _ in before), "$A", "$B:1", *(f"{token}:1" for token, _ in after)],
        special_tokens=list(dict.fromkeys([*before, *after])),
    )


def _strings(metadata: Mapping[str, Any], key: str) -> list[str]:
    values = metadata.get(key)
    if not isinstance(values, list | tuple):
        raise CheckpointError(f"the GGUF metadata has no list {key!r}", "the file may lack its tokenizer")
    if not all(isinstance(value, str) for value in values):
        raise CheckpointError(f"the GGUF metadata {key!r} should be a list of texts")
    return list(values)


def _numbers(metadata: Mapping[str, Any], key: str, length: int) -> NDArray[np.float64]:
    try:
        values = np.asarray(metadata.get(key))
    except ValueError:  # lists of unequal length inside
        values = np.empty(0)
    if values.shape != (length,) or values.dtype.kind not in "iuf":
        raise CheckpointError(f"the GGUF metadata {key!r} should be a list of {length} numbers")
    if not np.isfinite(values).all():
        raise CheckpointError(f"the GGUF metadata {key!r} should be finite numbers")
    return values.astype(np.float64)


def _token_types(metadata: Mapping[str, Any], length: int) -> list[int]:
    if "tokenizer.ggml.token_type" not in metadata:
        return [_NORMAL] * length
    return [int(kind) for kind in _numbers(metadata, "tokenizer.ggml.token_type", length).tolist()]


def _token_id(metadata: Mapping[str, Any], key: str, n_tokens: int) -> int | None:
    value = metadata.get(key)
    if value is None:
        return None
    if not isinstance(value, int | np.integer) or not 0 <= value < n_tokens:
        raise CheckpointError(f"the GGUF metadata {key!r} is {value!r}, the vocabulary has {n_tokens} tokens")
    return int(value)


def write_vocabulary(backend: tokenizers.Tokenizer) -> dict[str, Any]:
    """The `tokenizer.ggml.*` keys from which `read_vocabulary` builds the same tokenizer.

    Raises
    ------
    CheckpointError
        If GGUF has no way to say how this tokenizer works.
    """
    state = json.loads(backend.to_str())
    if state["model"]["type"] != "BPE":
        raise CheckpointError(f"GGUF cannot hold a tokenizer of type {state['model']['type']}, expected BPE")
    size = backend.get_vocab_size()
    tokens = [backend.id_to_token(index) or f"[PAD{index}]" for index in range(size)]
    added = backend.get_added_tokens_decoder()
    types = [_UNUSED if backend.id_to_token(index) is None else _NORMAL for index in range(size)]
    for index, token in added.items():
        types[index] = _CONTROL if token.special else _USER_DEFINED
    metadata: dict[str, Any] = {"tokenizer.ggml.tokens": tokens}
    merges = [tuple(merge) if isinstance(merge, list) else _pair(merge) for merge in state["model"]["merges"]]
    if state["model"].get("byte_fallback"):
        metadata |= _sentencepiece_keys(state, tokens, types, merges)
    else:
        metadata |= {
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": _name_of_cut(state),
            "tokenizer.ggml.merges": [f"{left} {right}" for left, right in merges],
        }
    return metadata | {"tokenizer.ggml.token_type": types}


def _name_of_cut(state: Mapping[str, Any]) -> str:
    for name, cut in _CUTS.items():
        probe = tokenizers.Tokenizer(models.BPE())
        probe.pre_tokenizer = cut.pre_tokenizer()
        if cut.nfc:
            probe.normalizer = normalizers.NFC()
        known = json.loads(probe.to_str())
        same = all(_plain(known[part]) == _plain(state[part]) for part in ("pre_tokenizer", "normalizer"))
        if same and cut.ignore_merges == bool(state["model"].get("ignore_merges")):
            return name
    raise CheckpointError(
        "GGUF has no name for the way this tokenizer cuts text",
        "save the model as a Hugging Face folder instead",
    )


def _plain(part: Any) -> Any:
    """Without what changes offsets only, so that equal cuts compare equal."""
    if isinstance(part, dict):
        return {key: _plain(value) for key, value in part.items() if key != "trim_offsets"}
    return [_plain(value) for value in part] if isinstance(part, list) else part


def _sentencepiece_keys(
    state: Mapping[str, Any], tokens: list[str], types: list[int], merges: list[tuple[str, str]]
) -> dict[str, Any]:
    vocab = {token: index for index, token in enumerate(tokens)}
    for byte in range(256):
        if (index := vocab.get(f"<0x{byte:02X}>")) is not None:
            types[index] = _BYTE
    unknown = vocab.get(state["model"].get("unk_token") or "")
    if unknown is not None:
        types[unknown] = _UNKNOWN
    ranks: dict[str, int] = {}
    for left, right in merges:
        ranks.setdefault(left + right, len(ranks))
    # Tokens that no merge makes come last; their order is of no account.
    scores = [
        -float(ranks.get(token, len(ranks))) if types[vocab[token]] == _NORMAL else 0.0 for token in tokens
    ]
    if _merges_from_scores(vocab, scores, types) != merges:
        raise CheckpointError(
            "GGUF keeps one score a token, and this tokenizer's merges cannot be written that way",
            "save the model as a Hugging Face folder instead",
        )
    steps = (state["normalizer"] or {}).get("normalizers", [])
    prefix = any(step["type"] == "Prepend" for step in steps)
    if state["pre_tokenizer"] is not None or not steps:
        raise CheckpointError(
            "GGUF has no name for the way this tokenizer cuts text",
            "save the model as a Hugging Face folder instead",
        )
    keys = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.add_space_prefix": prefix,
    }
    return keys | ({"tokenizer.ggml.unknown_token_id": unknown} if unknown is not None else {})
