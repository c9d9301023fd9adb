"""One row's way to its next token: its options, randomness, history and constraint.

Speculation asks the same object: `distributions` along a path of proposed tokens, `accept` and `rollback`
as they are taken or refused, `fork` where a tree of them branches.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fullspan.core.errors import CheckpointError, ConfigError
from fullspan.decoding.constraints import Constraint
from fullspan.decoding.options import Sampling
from fullspan.decoding.sampling import Ids, Logits, Row, choose, distribution
from fullspan.text.tokenizer import Tokenizer

Bias = tuple[Ids, NDArray[np.float32]]


class Sampler:
    """Chooses the tokens of one answer.

    Parameters
    ----------
    options : Sampling
    generator : numpy.random.Generator
        The row's own, so that what else is in a batch changes nothing.
    prompt_ids : sequence of int
    vocab_size : int
        Width of the logits.
    bias : tuple of ndarray, optional
        From `token_bias`.
    constraint : Constraint, optional
        A state of its own, not shared with another row.

    Examples
    --------
    >>> options = Sampling(temperature=1.0, presence_penalty=2.0)
    >>> sampler = Sampler(options, row_generator(seed=1), prompt_ids=[0], vocab_size=3)
    >>> sampler.accept(2)
    >>> sampler.distribution(np.float32([0, 0, 2])).round(2)
    array([0.33, 0.33, 0.33])
    """

    def __init__(
        self,
        options: Sampling,
        generator: np.random.Generator,
        *,
        prompt_ids: Sequence[int],
        vocab_size: int,
        bias: Bias | None = None,
        constraint: Constraint | None = None,
    ) -> None:
        self.options = options
        self.generator = generator
        self.constraint = constraint
        self._bias = bias
        penalised = options.repetition_penalty != 1 or options.presence_penalty or options.frequency_penalty
        self._history = _History(prompt_ids, vocab_size) if penalised else None

    @property
    def finished(self) -> bool:
        """Whether the constraint leaves nothing but the end."""
        return self.constraint is not None and self.constraint.finished

    def choose(self, logits: Logits) -> int:
        """The next token, greedy or drawn; the state stays until `accept`.

        Parameters
        ----------
        logits : ndarray of float32 [V]

        Raises
        ------
        CheckpointError
            If the logits are not finite.
        """
        row = self._row(self._allowed())
        if row is None and self.options.greedy:
            token = int(logits.argmax())  # of equals the lowest id
            _check_finite(logits[token])  # NaN wins every maximum
            return token
        _check_finite(logits.max())
        uniform = 0.0 if self.options.greedy else self.generator.random()
        return choose(logits, self.options, row or Row(), uniform)

    def distribution(self, logits: Logits) -> NDArray[np.float64]:
        """Probabilities [V] that the next token is drawn with, as `sampling.distribution`."""
        _check_finite(logits.max())
        return distribution(logits, self.options, self._row(self._allowed()) or Row())

    def distributions(self, logits: Logits, path: Sequence[int]) -> NDArray[np.float64]:
        """`distribution` at each position of a path of proposed tokens; the state is the same afterwards.

        Parameters
        ----------
        logits : ndarray of float32 [n + 1, V]
            Row i follows ``path[:i]``.
        path : sequence of int, length n

        Returns
        -------
        ndarray of float64 [m + 1, V]
            m is n, or the number of tokens before the first that the constraint does not allow: nothing can
            follow that one.
        """
        masks = None if self.constraint is None else self.constraint.masks(path)
        n = len(path) if masks is None else len(masks) - 1
        _check_finite(logits[: n + 1].max())
        rows, pushed = [], 0
        try:
            for at in range(n + 1):
                if at and self._history is not None:
                    self._history.push(path[at - 1])
                    pushed += 1
                row = self._row(None if masks is None else masks[at])
                rows.append(distribution(logits[at], self.options, row or Row()))
        finally:
            if self._history is not None:
                self._history.pop(pushed)
        return np.stack(rows)

    def n_allowed(self, path: Sequence[int]) -> int:
        """How many tokens of a path, from its start, the constraint allows; cheaper than its masks."""
        return len(path) if self.constraint is None else self.constraint.n_allowed(path)

    def accept(self, token: int) -> None:
        """Go on by one token."""
        if self.constraint is not None:
            self.constraint.accept(token)
        if self._history is not None:
            self._history.push(token)

    def rollback(self, n_tokens: int) -> None:
        """Take back the last `n_tokens` accepted."""
        if self.constraint is not None:
            self.constraint.rollback(n_tokens)
        if self._history is not None:
            self._history.pop(n_tokens)

    def fork(self) -> Sampler:
        """A copy that goes its own way; its draws come from the same generator."""
        twin = copy.copy(self)
        twin.constraint = None if self.constraint is None else self.constraint.fork()
        twin._history = None if self._history is None else self._history.copy()
        return twin

    def _row(self, allowed: NDArray[np.bool_] | None) -> Row | None:
        if self._bias is None and self._history is None and allowed is None:
            return None
        return Row(
            bias=self._bias,
            seen=None if self._history is None else self._history.seen,
            counts=None if self._history is None else self._history.counts,
            allowed=allowed,
        )

    def _allowed(self) -> NDArray[np.bool_] | None:
        return None if self.constraint is None else self.constraint.mask()


class _History:
    """What penalties look at: which tokens were seen, and how often each was generated."""

    def __init__(self, prompt_ids: Sequence[int], vocab_size: int) -> None:
        self._prompt = np.zeros(vocab_size, dtype=bool)
        self._prompt[np.asarray(prompt_ids, dtype=np.intp)] = True
        self._seen = self._prompt.copy()
        self._tokens: list[int] = []
        self.counts = np.zeros(vocab_size, dtype=np.int32)

    @property
    def seen(self) -> Ids:
        return np.flatnonzero(self._seen)

    def push(self, token: int) -> None:
        self._tokens.append(token)
        self.counts[token] += 1
        self._seen[token] = True

    def pop(self, n_tokens: int) -> None:
        for _ in range(n_tokens):
            token = self._tokens.pop()
            self.counts[token] -= 1
            self._seen[token] = self._prompt[token] or self.counts[token] > 0

    def copy(self) -> _History:
        twin = copy.copy(self)
        twin._seen, twin._tokens, twin.counts = self._seen.copy(), self._tokens.copy(), self.counts.copy()
        return twin


def row_generator(seed: int, sample: int = 0) -> np.random.Generator:
    """The randomness of one answer: of the prompt's seed, and of which of its samples it is.

    Examples
    --------
    >>> bool(row_generator(1).random() == row_generator(1).random() != row_generator(1, sample=1).random())
    True
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(sample,)))


def token_bias(logit_bias: Mapping[int | str, float], tokenizer: Tokenizer, vocab_size: int) -> Bias | None:
    """Ids and biases of the option `logit_bias`, None if it is empty.

    Raises
    ------
    ConfigError
        If an id is not in the vocabulary, a text is not exactly one token, or a token is named twice.
    """
    biases: dict[int, float] = {}
    for named, bias in logit_bias.items():
        token = _one_token(named, tokenizer) if isinstance(named, str) else named
        if not 0 <= token < vocab_size:
            raise ConfigError(
                f"logit_bias: the token id {token} is not in the vocabulary of {vocab_size} tokens"
            )
        if token in biases:
            raise ConfigError(f"logit_bias names token {token} ({tokenizer.token(token)!r}) more than once")
        biases[token] = bias
    if not biases:
        return None
    return np.array(list(biases), dtype=np.intp), np.array(list(biases.values()), dtype=np.float32)


def _one_token(text: str, tokenizer: Tokenizer) -> int:
    ids = tokenizer.encode(text)
    if len(ids) != 1:
        spelled = ", ".join(f"{index} ({tokenizer.token(index)!r})" for index in ids[:8])
        raise ConfigError(
            f"logit_bias: {text!r} is {len(ids)} tokens in this vocabulary, expected one",
            f"bias its tokens one by one: {spelled}" if ids else "",
        )
    return ids[0]


def _check_finite(largest: np.float32) -> None:
    if not np.isfinite(largest):
        raise CheckpointError(
            "the model's logits are not finite, so no token can be chosen",
            "its weights are broken, or outside the range of the dtype; try dtype=torch.float32",
        )
