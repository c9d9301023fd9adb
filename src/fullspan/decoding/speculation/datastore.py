"""An index over the user's own texts, to find how a few tokens went on there."""

from __future__ import annotations

import hashlib
import json
import zipfile
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fullspan.core.errors import DataError
from fullspan.core.files import replacing
from fullspan.text.tokenizer import Tokenizer

# Suffixes are sorted by so many tokens, which bounds the work on texts that repeat themselves.
SORTED_TOKENS = 32
_BORDER = -1  # stands behind each text


class Datastore:
    """Texts as tokens, with their suffixes in order: a suffix array (Manber and Myers 1990).

    Parameters
    ----------
    tokens : ndarray of int32 [n]
        Each text with -1 behind it.
    order : ndarray of int32 [n]
        Where suffixes begin, sorted by their first 32 tokens.
    vocabulary : str
        Which tokenizer the tokens are of, from `vocabulary_key`.

    Examples
    --------
    >>> tokens = np.int32([5, 6, 7, 5, 6, 8, -1])
    >>> store = Datastore(tokens, sort_suffixes(tokens), vocabulary="")
    >>> sorted(store.after([5, 6]).tolist()), store.after([6, 6]).tolist()
    ([2, 5], [])
    """

    def __init__(self, tokens: NDArray[np.int32], order: NDArray[np.int32], vocabulary: str) -> None:
        self.tokens, self.order, self.vocabulary = tokens, order, vocabulary

    @classmethod
    def build(cls, texts: Iterable[str], tokenizer: Tokenizer) -> Datastore:
        """Index some texts.

        Raises
        ------
        DataError
            If they hold no token.
        """
        parts = [[*tokenizer.encode(text), _BORDER] for text in texts]
        tokens = np.array([token for part in parts for token in part], np.int32)
        if not (tokens != _BORDER).any():
            raise DataError("the texts of a datastore are empty")
        return cls(tokens, sort_suffixes(tokens), vocabulary_key(tokenizer))

    def save(self, path: Path | str) -> None:
        """Write it to a file."""
        with replacing(path) as beside, beside.open("wb") as file:
            np.savez(file, tokens=self.tokens, order=self.order, vocabulary=np.array(self.vocabulary))

    @classmethod
    def load(cls, path: Path | str) -> Datastore:
        """Read what `save` wrote.

        Raises
        ------
        DataError
            If the file is missing, or is not a whole datastore.
        """
        try:
            with Path(path).open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                tokens, order, vocabulary = (file[name] for name in ("tokens", "order", "vocabulary"))
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(f"{path} is not a datastore: {error}") from None
        n = len(tokens) if tokens.ndim == 1 else 0
        if not n or tokens.dtype != np.int32 or order.dtype != np.int32 or tokens[-1] != _BORDER:
            raise DataError(f"{path} is not a datastore: its arrays are of another kind")
        if order.shape != (n,) or (np.sort(order) != np.arange(n)).any() or tokens.min() < _BORDER:
            raise DataError(f"{path} is not a datastore: its index does not fit its tokens")
        return cls(tokens, order, str(vocabulary))

    def after(self, gram: Sequence[int]) -> NDArray[np.int32]:
        """Places in `tokens` right behind every occurrence of up to 32 tokens, ordered by what follows."""
        low, high = 0, len(self.order)
        for i, token in enumerate(gram):
            # Within the suffixes that begin with gram[:i], the next tokens ascend. None runs out of the
            # array: one that is as short as i ended with a border, which no gram holds.
            def next_token(begin: int, i: int = i) -> int:
                return int(self.tokens[begin + i])

            low = bisect_left(self.order, token, low, high, key=next_token)
            high = bisect_right(self.order, token, low, high, key=next_token)
        places: NDArray[np.int32] = self.order[low:high] + np.int32(len(gram))
        return places


def sort_suffixes(tokens: NDArray[np.int32]) -> NDArray[np.int32]:
    """Where suffixes begin, sorted by their first 32 tokens; a shorter suffix comes first.

    Ranks by k tokens give ranks by 2 k (prefix doubling, Manber and Myers 1990, section 3).

    Examples
    --------
    >>> sort_suffixes(np.int32([2, 1, 2, 1, -1]))
    array([4, 3, 1, 2, 0], dtype=int32)
    """
    n, k = len(tokens), 1
    ranks = np.unique(tokens, return_inverse=True)[1].astype(np.int64) + 1  # 0: behind the end
    order = np.argsort(ranks, kind="stable")
    while k < SORTED_TOKENS and ranks.max() < n:
        pairs = ranks * (n + 1)
        pairs[:-k] += ranks[k:] if k < n else 0
        order = np.argsort(pairs, kind="stable")
        ranks[order] = np.cumsum(np.diff(pairs[order], prepend=-1) != 0)
        k *= 2
    return order.astype(np.int32)


def vocabulary_key(tokenizer: Tokenizer) -> str:
    """A hash that tokenizers share if they give the same numbers to the same tokens."""
    vocabulary = sorted(tokenizer.backend.get_vocab().items())
    return hashlib.sha256(json.dumps(vocabulary).encode()).hexdigest()
