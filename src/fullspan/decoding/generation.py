"""The loop that turns prompts into answers, one token a row and step.

Shapes: B rows still being answered, T tokens, V vocab_size.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fullspan.core.errors import DataError
from fullspan.decoding.decoders import Decoder, decoder_of
from fullspan.decoding.logprobs import TokenLogprob, token_logprob
from fullspan.decoding.options import GenerationOptions
from fullspan.decoding.sampler import Sampler
from fullspan.decoding.speculation.statistics import Speculation
from fullspan.decoding.stopping import AnswerText

if TYPE_CHECKING:
    from fullspan.models.llama import Llama


@dataclass(eq=False)
class Answer:
    """One row of a batch while it grows.

    Attributes
    ----------
    prompt_ids : list of int
    text : AnswerText
    sampler : Sampler
        Chooses the row's tokens, from its own randomness, history and constraint.
    token_text : callable
        From a token to its text, for log-probabilities.
    limit : int
        Most tokens to generate; set when the batch starts.
    token_ids : list of int
        What was generated, the closing end-of-turn token included.
    logprobs : list of TokenLogprob
    finish_reason : {"stop", "length"} or None
        "stop" for an end token, a stop string or the end of a constraint; None while growing.
    seconds : float
        From the start of the batch to this row's last token.
    speculation : Speculation or None
        What drafts brought, where there were any.
    """

    prompt_ids: list[int]
    text: AnswerText
    sampler: Sampler
    token_text: Callable[[int], str] = str
    limit: int = 0
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish_reason: str | None = None
    seconds: float = 0.0
    speculation: Speculation | None = None

    def accept(self, token: int, end_ids: frozenset[int]) -> str:
        """Append `token`; return the text that can be shown now."""
        self.token_ids.append(token)
        if token in end_ids:
            self.finish_reason = "stop"
            return self.text.finish()
        piece = self.text.push(token)
        self.sampler.accept(token)
        if self.text.stopped:
            self.finish_reason = "stop"
        elif self.sampler.finished:
            self.finish_reason = "stop"
            piece += self.text.finish()
        elif len(self.token_ids) >= self.limit:
            self.finish_reason = "length"
            piece += self.text.finish()
        return piece


def generate(
    model: Llama | Decoder,
    answers: Sequence[Answer],
    options: GenerationOptions,
    *,
    end_ids: frozenset[int],
    n_logprobs: int | None = None,
) -> Iterator[tuple[Answer, str]]:
    """Answer every prompt; rows that are done leave the batch.

    Parameters
    ----------
    model : Llama or Decoder
    answers : sequence of Answer
        Filled in place.
    options : GenerationOptions
    end_ids : frozenset of int
        Tokens that end an answer.
    n_logprobs : int, optional
        Record each token's log-probability and this many of the most likely alternatives.

    Yields
    ------
    (Answer, str)
        After each token: the row and the text that it released, which may be empty.

    Raises
    ------
    DataError
        If a prompt is empty or leaves no room for an answer, or no token fits the constraint any more.
    CheckpointError
        If the model computes what is no number.
    """
    decoder = decoder_of(model)
    set_limits(answers, options, decoder.config.max_positions)
    started = time.perf_counter()
    live = list(answers)
    batch = decoder.begin([answer.prompt_ids for answer in live], options.max_tokens)
    while True:
        rows = batch.logits  # [B, V]
        tokens = [answer.sampler.choose(row) for answer, row in zip(live, rows, strict=True)]
        for answer, row, token in zip(live, rows, tokens, strict=True):
            if n_logprobs is not None:
                answer.logprobs.append(token_logprob(row, token, n_logprobs, answer.token_text))
            piece = answer.accept(token, end_ids)
            answer.seconds = time.perf_counter() - started
            yield answer, piece
        keep = [row for row, answer in enumerate(live) if answer.finish_reason is None]
        if not keep:
            return
        if len(keep) < len(live):
            live, tokens = [live[row] for row in keep], [tokens[row] for row in keep]
            batch.keep(keep)
        batch.append(tokens)


def set_limits(answers: Sequence[Answer], options: GenerationOptions, context: int) -> None:
    """Say of each answer how long it may become.

    Raises
    ------
    DataError
        If a prompt is empty or leaves no room.
    """
    for answer in answers:
        check_length(len(answer.prompt_ids), context)
        answer.limit = min(options.max_tokens, context - len(answer.prompt_ids))


def check_length(n_tokens: int, context: int) -> None:
    """Refuse a prompt of so many tokens if it is empty or leaves no room for an answer."""
    if n_tokens == 0:
        raise DataError("the prompt is empty", "give some text to go on from")
    if n_tokens >= context:
        raise DataError(
            f"the prompt has {n_tokens} tokens, and the model's context holds {context}, "
            "prompt and answer together",
            "shorten the prompt",
        )
