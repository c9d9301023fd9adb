"""An index over the user's own texts, to find how a few tokens went on there."""

from __future__ import annotations

import hashlib
import json
import weakref
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from fullspan.core.errors import DataError
from fullspan.core.files import replacing
from fullspan.text.tokenizer import Tokenizer

# Contexts are sorted by so many tokens, which bounds the work on texts that repeat themselves.
SORTED_TOKENS = 32
# Of texts in a store: an index over so many takes 400 MB on disk, and six times that while it is made.
MOST_STORED = 50_000_000
_BORDER = -1  # stands before and behind each text
_FORMAT = "fullspan datastore 2"


class Datastore:
    """Texts as tokens, and their places in the order of what stands before: a suffix array of the reverse.

    So the places with the longest context in common with a text lie side by side (suffix arrays: Manber and
    Myers 1990), and one search finds them.

    Parameters
    ----------
    tokens : ndarray of int32 [n]
        Each text with -1 before and behind it.
    order : ndarray of int32 [m]
        Places of tokens that another token stands before, sorted by up to 32 of these, the nearest first.
    vocabulary : str
        Which tokenizer the tokens are of, from `vocabulary_key`.

    Examples
    --------
    >>> store = Datastore.of([[5, 6, 7, 5, 6, 8]], vocabulary="")
    >>> length, places = store.longest([9, 5, 6])
    >>> length, sorted(store.tokens[places].tolist())
    (2, [7, 8])
    >>> store.longest([9])
    (0, array([], dtype=int32))
    """

    def __init__(self, tokens: NDArray[np.int32], order: NDArray[np.int32], vocabulary: str) -> None:
        self.tokens, self.order, self.vocabulary = tokens, order, vocabulary

    @classmethod
    def build(cls, texts: Iterable[str], tokenizer: Tokenizer) -> Datastore:
        """Index some texts.

        Raises
        ------
        DataError
            If they hold no token, or too many.
        """
        return cls.of((tokenizer.encode(text) for text in texts), vocabulary_key(tokenizer))

    @classmethod
    def of(cls, texts: Iterable[Sequence[int]], vocabulary: str) -> Datastore:
        """Index texts of tokens; errors as for `build`."""
        parts, n = [np.array([_BORDER], np.int32)], 1
        for text in texts:
            parts.append(np.array([*text, _BORDER], np.int32))
            n += len(parts[-1])
            if n > MOST_STORED:
                raise DataError(
                    f"the texts of a datastore have more than {MOST_STORED:,} tokens",
                    "take a sample of them",
                )
        tokens = np.concatenate(parts)
        if not (tokens != _BORDER).any():
            raise DataError("the texts of a datastore are empty")
        return cls(tokens, sort_contexts(tokens), vocabulary)

    def save(self, path: Path | str) -> None:
        """Write it to a file, in the format of safetensors."""
        with replacing(path) as beside:
            tensors = {"tokens": self.tokens, "order": self.order}
            save_file(tensors, beside, {"format": _FORMAT, "vocabulary": self.vocabulary})

    @staticmethod
    def is_at(path: Path | str) -> bool:
        """Whether a file says that it is a datastore."""
        try:
            with safe_open(path, "numpy") as file:
                return str((file.metadata() or {}).get("format", "")).startswith("fullspan datastore")
        except (OSError, SafetensorError):
            return False

    @classmethod
    def load(cls, path: Path | str) -> Datastore:
        """Read what `save` wrote.

        Raises
        ------
        DataError
            If the file is missing, or is not a whole datastore.
        """
        try:
            with safe_open(path, "numpy") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != _FORMAT:
                    raise DataError(
                        f"{path} is not a datastore of this version of fullspan", "build it again"
                    )
                tokens, order = file.get_tensor("tokens"), file.get_tensor("order")
                vocabulary = metadata["vocabulary"]
        except (OSError, SafetensorError, KeyError) as error:
            raise DataError(f"{path} is not a datastore: {error}") from None
        _check(path, tokens, order)
        return cls(tokens, order, vocabulary)

    def longest(self, ids: Sequence[int], most: int = SORTED_TOKENS) -> tuple[int, NDArray[np.int32]]:
        """Where the longest end of a text goes on: its length, up to `most`, and places in `tokens`."""
        wanted = list(ids[: -most - 1 : -1])
        length = n = len(wanted)

        def context(place: int) -> list[int]:
            found: list[int] = self.tokens[max(0, place - length) : place][::-1].tolist()
            return found

        at = bisect_left(self.order, wanted, key=context)
        neighbours = [context(place) for place in self.order[max(0, at - 1) : at + 1]]
        length = max((_agreement(wanted, found) for found in neighbours), default=0)
        if not length:
            return 0, self.order[:0]
        if length < n:
            del wanted[length:]
        low = bisect_left(self.order, wanted, 0, at, key=context)
        high = bisect_right(self.order, wanted, at, key=context)
        return length, self.order[low:high]


def _agreement(wanted: list[int], found: list[int]) -> int:
    n = 0
    for one, other in zip(wanted, found, strict=False):
        if one != other:
            break
        n += 1
    return n


def _check(path: Path | str, tokens: NDArray[np.int32], order: NDArray[np.int32]) -> None:
    fits = all(array.dtype == np.int32 and array.ndim == 1 for array in (tokens, order))
    if not fits or len(tokens) < 3 or tokens.min() < _BORDER:
        raise DataError(f"{path} is not a datastore: its arrays are of another kind")
    followers = _followers(tokens)
    there = np.zeros(len(tokens), bool)
    if len(order) and 0 <= order.min() and order.max() < len(tokens):
        there[order] = True
    if len(order) != len(followers) or not there[followers].all() or tokens[0] >= 0 or tokens[-1] >= 0:
        raise DataError(f"{path} is not a datastore: its index does not fit its tokens")


def _followers(tokens: NDArray[np.int32]) -> NDArray[np.intp]:
    """Places of tokens that another token stands before."""
    return np.flatnonzero((tokens[1:] >= 0) & (tokens[:-1] >= 0)) + 1


def sort_contexts(tokens: NDArray[np.int32]) -> NDArray[np.int32]:
    """Places of tokens that another stands before, sorted by up to 32 tokens before them, the nearest first.

    Ranks by k tokens give ranks by 2 k (prefix doubling, Manber and Myers 1990, section 3).

    Examples
    --------
    >>> sort_contexts(np.int32([-1, 2, 1, 2, 3, -1]))
    array([3, 2, 4], dtype=int32)
    """
    # ranks[i] is of the context that ends with token i.
    n, k = len(tokens), 1
    ranks = np.unique(tokens, return_inverse=True)[1].astype(np.int64) + 1  # 0: before the start
    while k < min(SORTED_TOKENS, n) and ranks.max() < n:
        pairs = ranks * (n + 1)
        pairs[k:] += ranks[:-k]
        order = np.argsort(pairs, kind="stable")
        ranks[order] = np.cumsum(np.diff(pairs[order], prepend=-1) != 0)
        k *= 2
    followers = _followers(tokens)
    found: NDArray[np.int32] = followers[np.argsort(ranks[followers - 1], kind="stable")].astype(np.int32)
    return found


_KEYS: weakref.WeakKeyDictionary[Tokenizer, str] = weakref.WeakKeyDictionary()


def vocabulary_key(tokenizer: Tokenizer) -> str:
    """A hash that tokenizers share if they give the same numbers to the same tokens."""
    if tokenizer not in _KEYS:
        vocabulary = sorted(tokenizer.backend.get_vocab().items())
        _KEYS[tokenizer] = hashlib.sha256(json.dumps(vocabulary).encode()).hexdigest()
    return _KEYS[tokenizer]
