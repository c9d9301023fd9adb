"""What drafters learn from: texts, and the model's hidden states on them, by the engine that decodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fullspan.core.progress import progress
from fullspan.decoding.engine.engine import Engine, Segment, Taps
from fullspan.decoding.language_model import LanguageModel
from fullspan.decoding.options import GenerationOptions
from fullspan.text.packing import Encoded

# Texts that a step of the engine, or a batch of answers, takes at a time.
_TOGETHER = 8
# The greatest float16: some models have a few huge numbers at a text's first token.
_MOST = 65504


@dataclass(frozen=True, eq=False)
class Text:
    """A text as the model read it.

    Attributes
    ----------
    ids : ndarray of int64 [T]
    supervised : ndarray of bool [T]
        The tokens that a drafter should guess.
    hidden : ndarray of float16 [T, L, d_model]
        The residual stream behind the layers looked at.
    said : ndarray of int64 [T] or None
        The model's most likely token behind each, of held-out texts.
    """

    ids: NDArray[np.int64]
    supervised: NDArray[np.bool_]
    hidden: NDArray[np.float16]
    said: NDArray[np.int64] | None


def own_answers(model: LanguageModel, examples: Sequence[Encoded], max_tokens: int) -> list[Encoded]:
    """The model's greedy answers in place of the examples' last supervised pieces (self-distillation).

    Examples whose prompt leaves no room for an answer are left as they are.
    """
    prompts = [list(map(int, example.ids[: _last_answer(example)])) for example in examples]
    room = [0 < len(prompt) < model.config.max_positions for prompt in prompts]
    answers: list[Encoded] = []
    with progress(len(examples), "answering", unit="examples") as advance:
        for part in _parts(len(examples)):
            asked = [prompts[i] for i in part if room[i]]
            found = iter(model.answer(asked, GenerationOptions(max_tokens=max_tokens)))
            for i in part:
                if not room[i]:
                    answers.append(examples[i])
                    continue
                said = list(next(found).token_ids)
                mask = [False] * len(prompts[i]) + [True] * len(said)
                answers.append(Encoded(prompts[i] + said, mask))
                advance()
    return answers


def read_texts(
    engine: Engine, examples: Sequence[Encoded], layers: Sequence[int], *, with_choices: bool = False
) -> list[Text]:
    """Let the engine read the examples; `with_choices` also notes the most likely token behind each."""
    texts: list[Text] = []
    with progress(len(examples), "reading", unit="examples") as advance:
        for part in _parts(len(examples)):
            taps = [Taps(layers) for _ in part]
            segments = [
                Segment(
                    engine.new_cache(),
                    list(map(int, examples[i].ids)),
                    n_logits=None if with_choices else 0,
                    taps=tap,
                    is_prompt=True,
                )
                for i, tap in zip(part, taps, strict=True)
            ]
            found = engine.step_all(segments)
            for i, tap, logits in zip(part, taps, found, strict=True):
                ids = np.asarray(examples[i].ids, np.int64)
                said = logits.argmax(-1) if with_choices else None
                hidden = tap.take().clip(-_MOST, _MOST).astype(np.float16)
                texts.append(Text(ids, np.asarray(examples[i].supervised, bool), hidden, said))
                advance()
    return texts


def frequent_tokens(examples: Sequence[Encoded], n_tokens: int, always: Sequence[int]) -> NDArray[np.int64]:
    """The most frequent supervised tokens, ascending, `always` among them.

    Examples
    --------
    >>> frequent_tokens([Encoded([1, 5, 5, 9, 9, 9], [True] * 6)], 2, always=[7]).tolist()
    [7, 9]
    """
    said = np.concatenate([np.asarray(each.ids)[np.asarray(each.supervised, bool)] for each in examples])
    found, counts = np.unique(said, return_counts=True)
    order = found[np.argsort(-counts, kind="stable")]
    order = order[~np.isin(order, always)]
    kept: NDArray[np.int64] = np.concatenate([np.asarray(always, np.int64), order.astype(np.int64)])
    return np.unique(kept[:n_tokens])


def _last_answer(example: Encoded) -> int:
    """Where the last run of supervised tokens begins."""
    mask = np.asarray(example.supervised, bool)
    begins = np.flatnonzero(mask & ~np.concatenate(([False], mask[:-1])))
    return int(begins[-1]) if len(begins) else len(mask)


def _parts(n: int) -> Iterator[range]:
    return (range(start, min(n, start + _TOGETHER)) for start in range(0, n, _TOGETHER))
