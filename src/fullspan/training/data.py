"""From an example file to micro-batches, the same ones in the same order for the same seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fullspan.core.errors import ConfigError, DataError
from fullspan.core.progress import progress
from fullspan.text.chat import encode_chat
from fullspan.text.examples import Example, read_examples
from fullspan.text.packing import Batch, Encoded, fit_lengths, pack, packed_batch, padded_batch
from fullspan.text.tokenizer import Tokenizer
from fullspan.training.config import TrainConfig

DEFAULT_TOKENS_PER_BATCH = 2048
DEFAULT_BATCH_SIZE = 8
DEFAULT_EVAL_FRACTION = 0.05


class Batches:
    """Micro-batches over any number of epochs; each epoch is packed anew in an order of its own.

    The order follows from (seed, epoch) alone, so a resumed run needs only the index of its next batch.

    Parameters
    ----------
    examples : sequence of Encoded
        None longer than `tokens_per_batch`.
    seed : int
    tokens_per_batch : int or None
        Capacity of a packed batch; None: padded batches.
    batch_size : int
        Examples of a padded batch.
    shuffle : bool
        Off for evaluation.

    Attributes
    ----------
    per_epoch : int
        Batches of an epoch; the same in every epoch.

    Examples
    --------
    >>> examples = [Encoded([1, 2, 3], [False, True, True])] * 4
    >>> batches = Batches(examples, seed=0, tokens_per_batch=6)
    >>> batches.per_epoch, batches[5].ids.tolist()
    (2, [[1, 2, 3, 1, 2, 3]])
    """

    def __init__(
        self,
        examples: Sequence[Encoded],
        *,
        seed: int,
        tokens_per_batch: int | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE,
        shuffle: bool = True,
    ) -> None:
        self.examples = examples
        self.seed = seed
        self.tokens_per_batch = tokens_per_batch
        self.batch_size = batch_size
        self.shuffle = shuffle
        self._epoch = 0
        self._groups = self._plan(0)
        self.per_epoch = len(self._groups)

    def __getitem__(self, index: int) -> Batch:
        """Micro-batch `index`, counted over all epochs."""
        epoch, place = divmod(index, self.per_epoch)
        if epoch != self._epoch:
            self._epoch, self._groups = epoch, self._plan(epoch)
        chosen = [self.examples[i] for i in self._groups[place]]
        return padded_batch(chosen) if self.tokens_per_batch is None else packed_batch(chosen)

    def _plan(self, epoch: int) -> list[list[int]]:
        """Which examples share a batch, for the batches of one epoch in order."""
        rng = np.random.default_rng([self.seed, epoch])
        n = len(self.examples)
        order = rng.permutation(n) if self.shuffle else np.arange(n)
        if self.tokens_per_batch is None:
            shuffled = order.tolist()
            return [shuffled[i : i + self.batch_size] for i in range(0, n, self.batch_size)]
        # Best-fit decreasing breaks ties of length by the order given, so a shuffled order mixes
        # the bins anew; their number depends on the lengths alone.
        bins = pack([len(self.examples[i].ids) for i in order], self.tokens_per_batch)
        groups = [[int(order[i]) for i in group] for group in bins]
        return [groups[i] for i in rng.permutation(len(groups))] if self.shuffle else groups


@dataclass(frozen=True)
class TrainingData:
    """Tokenised examples, set apart.

    Attributes
    ----------
    train, held_out : list of Encoded
    truncated, skipped : int
        Examples that were too long.
    """

    train: list[Encoded]
    held_out: list[Encoded]
    truncated: int
    skipped: int

    def batches(self, config: TrainConfig) -> Batches:
        """Micro-batches to train on."""
        return _batches(self.train, config, shuffle=True)

    def eval_batches(self, config: TrainConfig) -> list[Batch]:
        """Batches of the held-out examples, always the same."""
        if not self.held_out:
            return []
        batches = _batches(self.held_out, config, shuffle=False)
        return [batches[i] for i in range(batches.per_epoch)]


def _batches(examples: Sequence[Encoded], config: TrainConfig, *, shuffle: bool) -> Batches:
    if config.packing:
        capacity = config.tokens_per_batch or DEFAULT_TOKENS_PER_BATCH
        return Batches(examples, seed=config.seed, shuffle=shuffle, tokens_per_batch=capacity)
    size = config.batch_size or DEFAULT_BATCH_SIZE
    return Batches(examples, seed=config.seed, shuffle=shuffle, batch_size=size)


def read_files(config: TrainConfig) -> tuple[list[Example], list[Example]]:
    """Examples to train on and held-out examples, from their files.

    Without `eval_data`, the held-out share is drawn from `data` by the seed.

    Raises
    ------
    DataError
        If a file is missing, empty or wrong, or `data` is too small for the share asked for.
    """
    examples = read_examples(config.data)
    if config.eval_data is not None:
        return examples, read_examples(config.eval_data)
    fraction = DEFAULT_EVAL_FRACTION if config.eval_fraction is None else config.eval_fraction
    if fraction == 0:
        return examples, []
    if len(examples) == 1:
        if config.eval_fraction is None and config.patience is None:
            return examples, []  # one example is trained on; the trainer says that nothing is held out
        raise DataError(f"{config.data} has one example: none can be held out", "give eval_data")
    n_held_out = min(max(1, round(fraction * len(examples))), len(examples) - 1)
    order = np.random.default_rng(config.seed).permutation(len(examples)).tolist()
    held_out = set(order[:n_held_out])
    return [e for i, e in enumerate(examples) if i not in held_out], [examples[i] for i in sorted(held_out)]


def prepare(
    config: TrainConfig, tokenizer: Tokenizer, train: list[Example], held_out: list[Example], context: int
) -> TrainingData:
    """Tokenise and cut to length.

    Parameters
    ----------
    context : int
        The model's longest sequence.

    Raises
    ------
    ConfigError
        If `max_length` exceeds a batch or the model's context.
    DataError
        If an example is too long, or has no supervised tokens.
    """
    limit = longest(config, context)
    with progress(len(train) + len(held_out), "tokenising", unit="examples") as advance:

        def encode(examples: list[Example]) -> list[Encoded]:
            encoded = []
            for number, example in enumerate(examples, start=1):
                encoded.append(_encode(tokenizer, example, number))
                advance()
            return encoded

        parts = [encode(examples) for examples in (train, held_out) if examples]
    fitted = [fit_lengths(part, limit, config.long_examples) for part in parts]
    return TrainingData(
        train=fitted[0].examples,
        held_out=fitted[1].examples if len(fitted) > 1 else [],
        truncated=sum(len(part.truncated) for part in fitted),
        skipped=sum(len(part.skipped) for part in fitted),
    )


def longest(config: TrainConfig, context: int) -> int:
    """Tokens of the longest example that is let in."""
    capacity = (config.tokens_per_batch or DEFAULT_TOKENS_PER_BATCH) if config.packing else context
    if config.max_length is None:
        return min(capacity, context)
    if config.max_length > context:
        raise ConfigError(f"--max-length is {config.max_length}, but the model's context is {context} tokens")
    if config.max_length > capacity:
        raise ConfigError(
            f"--max-length is {config.max_length}, but --tokens-per-batch is {capacity}",
            "raise --tokens-per-batch to hold the longest example",
        )
    return config.max_length


def _encode(tokenizer: Tokenizer, example: Example, number: int) -> Encoded:
    try:
        return encode_chat(tokenizer, example.messages)
    except DataError as error:
        raise DataError(f"example {number}: {error.message}", error.hint) from None


def total_steps(config: TrainConfig, batches_per_epoch: int) -> tuple[int, int]:
    """Optimiser steps and micro-batches of the whole training.

    Micro-batches flow over the ends of epochs, so that only the very last step may have fewer.

    Examples
    --------
    >>> config = TrainConfig(model="m", data="d.jsonl", epochs=2, accumulation=4)
    >>> total_steps(config, batches_per_epoch=7)
    (4, 14)
    """
    if config.max_steps is not None:
        return config.max_steps, config.max_steps * config.accumulation
    n_batches = max(1, round((config.epochs or 1.0) * batches_per_epoch))
    return math.ceil(n_batches / config.accumulation), n_batches
