"""Requests that are answered together: as if each were alone, none in the way of another."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import chi2

import fullspan
from fullspan.core.errors import CheckpointError, ConfigError, DataError
from fullspan.decoding.batching import Scheduler
from fullspan.decoding.engine._layout import PAGE
from fullspan.decoding.engine.decoder import EngineDecoder
from fullspan.decoding.language_model import LanguageModel
from fullspan.decoding.limits import BatchLimits
from fullspan.decoding.options import GenerationOptions
from fullspan.decoding.prefix_cache import PrefixCache
from fullspan.decoding.requests import Closing, QueueFull, Request, Update
from fullspan.decoding.sampling import distribution
from fullspan.decoding.speculation.draft_model import ModelDrafter
from fullspan.decoding.speculation.drafters import Drafter
from fullspan.decoding.speculation.ngram import NGramDrafter
from fullspan.decoding.speculation.tree import Tree

# No end of turn, so that answers have the length that was asked for.
ENDLESS = GenerationOptions(logit_bias={2: -100}, max_tokens=200)
OPTIONS = [
    ENDLESS.model_copy(update={"max_tokens": 30}),
    GenerationOptions(max_tokens=40, temperature=1.0, top_p=0.9, seed=1),
    GenerationOptions(max_tokens=25, temperature=0.7, seed=2, repetition_penalty=1.3),
    GenerationOptions(max_tokens=40, temperature=1.0, seed=3, regex="[a-f]{5,30}"),
]


@pytest.fixture(scope="module")
def model(tiny_chat_model: Path) -> LanguageModel:
    return fullspan.load(tiny_chat_model, engine="cpu")


class Caller:
    """Someone who waits for a request."""

    def __init__(self, model: LanguageModel, text: str, options: GenerationOptions, n: int = 1) -> None:
        self.updates: list[Update] = []
        self.done = threading.Event()
        self.begun = threading.Event()
        answers = model.new_answers([model.prompt_ids(text)], options, n)
        seeded = options.seed is not None and not options.greedy
        self.request = Request(answers, options.max_tokens, self.take, reproducible=seeded)

    def take(self, updates: list[Update]) -> None:
        self.updates += updates
        self.begun.set()
        if sum(update.is_last for update in self.updates) == len(self.request.answers):
            self.done.set()

    def wait(self) -> list[Update]:
        assert self.done.wait(60)
        return self.updates


@pytest.fixture
def scheduler(model: LanguageModel) -> Iterator[Scheduler]:
    made = new_scheduler(model)
    yield made
    made.close(timeout=0)


def new_scheduler(model: LanguageModel, drafter: Drafter | None = None, **limits: float) -> Scheduler:
    assert isinstance(model.decoder, EngineDecoder)
    return Scheduler(model.decoder.engine, model.end_ids, BatchLimits.build(limits), drafter=drafter)


def test_answers_are_the_same_as_alone(model: LanguageModel) -> None:
    texts = [f"{'a long beginning, ' * (number % 5)}number {number}" for number in range(12)]
    asked = [(text, OPTIONS[number % len(OPTIONS)]) for number, text in enumerate(texts)]
    alone = [model.answer([model.prompt_ids(text)], options, n=2) for text, options in asked]
    # Few places and little time for prompts: requests wait, join while others grow, and are read in pieces.
    scheduler = new_scheduler(model, max_running=6, step_ms=0.01)
    callers = [Caller(model, text, options, n=2) for text, options in asked]
    for caller in callers:
        scheduler.submit([caller.request])
    for caller, expected in zip(callers, alone, strict=True):
        caller.wait()
        for index, (answer, other) in enumerate(zip(caller.request.answers, expected, strict=True)):
            assert tuple(answer.token_ids) == other.token_ids
            assert (answer.text.text, answer.finish_reason) == (other.text, other.finish_reason)
            assert "".join(update.text for update in caller.updates if update.index == index) == other.text
    scheduler.close()
    assert scheduler.n_running == scheduler.n_waiting == 0


@pytest.mark.parametrize("kind", ["ngram", "model", "tree"])
def test_drafts_change_no_answer(model: LanguageModel, kind: str) -> None:
    """Greedy or with a seed: rows accept different numbers of proposals, join and leave meanwhile."""
    drafter: Drafter = {
        "ngram": lambda: NGramDrafter(n_tokens=5, longest=2),
        "model": lambda: ModelDrafter(model, widths=(1, 1, 1)),
        "tree": lambda: ModelDrafter(model, widths=(2, 2)),
    }[kind]()
    schema = GenerationOptions(max_tokens=40, json_schema={"enum": ["aaaaaaaaaaaaaaaa", "aaaaaaaaaaaaaaab"]})
    kinds = [ENDLESS, OPTIONS[1], OPTIONS[2].model_copy(update={"temperature": 0.0}), schema]
    asked = [(f"number {number} of the text, the text", kinds[number % len(kinds)]) for number in range(8)]
    scheduler = new_scheduler(model, drafter, max_running=3)
    callers = [Caller(model, text, options) for text, options in asked]
    scheduler.submit([caller.request for caller in callers])
    for caller, (text, options) in zip(callers, asked, strict=True):
        caller.wait()
        [expected] = model.answer([model.prompt_ids(text)], options)
        assert tuple(caller.request.answers[0].token_ids) == expected.token_ids
        assert "".join(update.text for update in caller.updates) == expected.text
        assert len(caller.updates) == len(expected.token_ids)
    scheduler.close()
    counts = scheduler.counts
    assert 0 < counts.accepted_tokens <= counts.proposed_tokens
    if kind == "model":  # the target itself drafts, and what is greedy is accepted; but not behind an end
        assert counts.accepted_tokens >= counts.proposed_tokens - len(callers)


def test_drafts_keep_the_distribution(model: LanguageModel) -> None:
    """Samples without a seed: the token that was drafted for is as likely as the model says (chi-square)."""
    prompt = model.prompt_ids("Hello")
    options = GenerationOptions(max_tokens=3, temperature=1.0, top_k=4)
    drafter = ModelDrafter(model, widths=(1,))
    scheduler = new_scheduler(model, drafter, max_running=2, max_waiting=200)
    counts: Counter[tuple[int, ...]] = Counter()
    for _ in range(2):
        callers = [Caller(model, "Hello", options, n=2) for _ in range(100)]
        scheduler.submit([caller.request for caller in callers])
        for caller in callers:
            caller.wait()
            counts.update(tuple(answer.token_ids[:2]) for answer in caller.request.answers)
    scheduler.close()
    assert scheduler.counts.proposed_tokens > 0
    total = counts.total()
    statistic, freedom = 0.0, -1
    for first, p in _probable(model, prompt, options):
        for second, q in (
            _probable(model, [*prompt, first], options) if first not in model.end_ids else [(-1, 1.0)]
        ):
            seen = counts.pop((first,) if second < 0 else (first, second), 0)
            statistic += (seen - total * p * q) ** 2 / (total * p * q)
            freedom += 1
    assert not counts
    assert chi2.sf(statistic, freedom) > 1e-5  # a right scheduler fails once in 100,000 runs


def _probable(model: LanguageModel, ids: list[int], options: GenerationOptions) -> list[tuple[int, float]]:
    logits = model.decoder.begin([ids], 1).logits[0]
    found = distribution(logits, options)
    return [(int(token), float(found[token])) for token in np.flatnonzero(found)]


def test_a_drafter_that_fails_ends_its_answers(model: LanguageModel) -> None:
    class Broken:
        def check(self, target: object) -> None: ...
        def begin(self, n_rows: int) -> Broken:
            return self

        def keep(self, places: object) -> None: ...
        def propose(self, rows: object) -> list[Tree]:
            raise RuntimeError("lost")

    scheduler = new_scheduler(model, Broken())
    caller = Caller(model, "a", OPTIONS[0])
    scheduler.submit([caller.request])
    assert isinstance(caller.wait()[-1].error, RuntimeError)
    scheduler.close()
    assert scheduler.n_running == 0


def test_prompts_are_read_once(model: LanguageModel, scheduler: Scheduler) -> None:
    first = Caller(model, "the same beginning, and one end", OPTIONS[0])
    scheduler.submit([first.request])
    first.wait()
    read = scheduler.counts.prompt_tokens
    assert (first.request.n_reused, read) == (0, len(first.request.prompt))
    again = Caller(model, "the same beginning, and one end", OPTIONS[0])
    other = Caller(model, "the same beginning, and another end", OPTIONS[0])
    for caller in (again, other):
        scheduler.submit([caller.request])
        caller.wait()
    assert again.request.n_reused == read - 1  # the last token is needed for its logits
    assert other.request.n_reused == len("the same beginning, and ") + len("one end") - len("ne end") - 1
    assert again.request.answers[0].token_ids == first.request.answers[0].token_ids


def test_a_long_prompt_holds_up_nobody(model: LanguageModel) -> None:
    scheduler = new_scheduler(model, step_ms=0.001)  # prompts are read 8 tokens a step
    running = Caller(model, "go", ENDLESS)
    scheduler.submit([running.request])
    assert running.begun.wait(60)
    begun: list[tuple[str, int]] = []
    # All their places are taken in one go; what they were before each begins is noted in its first update.
    long = Caller(model, "x" * 200, OPTIONS[0])
    short = Caller(model, "y" * 8, OPTIONS[0])
    for name, caller in (("long", long), ("short", short)):
        caller.request.on_update = lambda updates, name=name, take=caller.take: (
            begun.append((name, len(running.updates))),
            take(updates),
        )
    before = len(running.updates)
    scheduler.submit([long.request, short.request])
    long.wait()
    short.wait()
    at = dict(reversed(begun))  # the first of each
    # 25 pieces and each second one is for the prompt that came first: the running answer grew meanwhile.
    assert at["long"] - before >= 20
    assert at["short"] < at["long"]
    scheduler.close(timeout=0)


def test_cancelled_requests_leave(model: LanguageModel, scheduler: Scheduler) -> None:
    caller, other = (Caller(model, text, ENDLESS) for text in ("stop me", "not me"))
    scheduler.submit([caller.request, other.request])
    assert caller.begun.wait(60)
    scheduler.cancel(caller.request)
    other.wait()
    assert len(other.request.answers[0].token_ids) == 200 > len(caller.request.answers[0].token_ids)
    assert (scheduler.n_running, scheduler.counts.cancelled) == (0, 1)


def test_a_listener_that_fails_is_cancelled(model: LanguageModel, scheduler: Scheduler) -> None:
    def fail(updates: list[Update]) -> None:
        raise RuntimeError("the loop is closed")

    caller, other = (Caller(model, text, ENDLESS) for text in ("gone", "there"))
    caller.request.on_update = fail
    scheduler.submit([caller.request, other.request])
    other.wait()
    assert len(caller.request.answers[0].token_ids) == 1


def test_a_full_queue_says_so(model: LanguageModel) -> None:
    scheduler = new_scheduler(model, max_running=1, max_waiting=1)
    callers = [Caller(model, text, ENDLESS) for text in "abc"]
    scheduler.submit([callers[0].request])
    assert callers[0].begun.wait(60)
    scheduler.submit([callers[1].request])
    with pytest.raises(QueueFull, match="full: 1 answers") as caught:
        scheduler.submit([callers[2].request])
    assert 1 <= caught.value.retry_after <= 60
    callers[1].wait()
    scheduler.submit([callers[2].request])
    scheduler.close()  # finishes what is there
    assert callers[2].done.is_set()
    with pytest.raises(Closing, match="no more"):
        scheduler.submit([Caller(model, "late", ENDLESS).request])


def test_one_answer_that_fails_harms_no_other(
    model: LanguageModel, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = (Caller(model, text, ENDLESS) for text in ("good", "bad"))
    choose = bad.request.answers[0].sampler.choose
    monkeypatch.setattr(
        bad.request.answers[0].sampler, "choose", lambda logits: choose(np.full_like(logits, np.nan))
    )
    scheduler.submit([good.request, bad.request])
    assert isinstance(bad.wait()[0].error, CheckpointError)
    assert good.wait()[-1].finish_reason == "length"
    # A step that fails as a whole ends its requests, and the next ones are answered.
    with monkeypatch.context() as patch:
        patch.setattr(scheduler.engine, "step_all", lambda segments: 1 / 0)
        lost = Caller(model, "lost", ENDLESS)
        scheduler.submit([lost.request])
        assert isinstance(lost.wait()[0].error, ZeroDivisionError)
    after = Caller(model, "after", OPTIONS[0])
    scheduler.submit([after.request])
    assert after.wait()[-1].finish_reason == "length"


def test_a_scheduler_survives_itself(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong in its thread: those who wait are told, and the next ones are answered."""
    woken: list[int] = []
    assert isinstance(model.decoder, EngineDecoder)
    scheduler = Scheduler(model.decoder.engine, model.end_ids, after_step=lambda: woken.append(1))
    with monkeypatch.context() as patch:
        patch.setattr(scheduler.engine, "new_cache", lambda: 1 / 0)
        lost = Caller(model, "lost", ENDLESS)
        scheduler.submit([lost.request])
        assert isinstance(lost.wait()[0].error, ZeroDivisionError)
    after = Caller(model, "after", OPTIONS[0])
    scheduler.submit([after.request])
    assert after.wait()[-1].finish_reason == "length"
    scheduler.close()
    assert len(woken) >= 30  # once a step


def test_memory_is_bounded(model: LanguageModel) -> None:
    scheduler = new_scheduler(model, cache_tokens=600)
    callers = [Caller(model, f"{number}: " + "z" * 60, OPTIONS[0]) for number in range(12)]
    scheduler.submit([caller.request for caller in callers])
    for caller in callers:
        caller.wait()
    scheduler.close()
    assert 0 < scheduler.n_kept_tokens <= 600
    with pytest.raises(ConfigError, match="memory for"):
        scheduler.submit([Caller(model, "much", ENDLESS, n=4).request])


def test_wrong_prompts_are_refused(model: LanguageModel, scheduler: Scheduler) -> None:
    for text, match in (("", "empty"), ("x" * 300, "context holds 256")):
        with pytest.raises(DataError, match=match):
            scheduler.submit([Caller(model, text, ENDLESS).request])
    strange = Caller(model, "a", ENDLESS)
    strange.request.prompt.append(10**6)
    with pytest.raises(DataError, match="outside the vocabulary"):
        scheduler.submit([strange.request])
    with pytest.raises(ConfigError, match="at most 32 answers"):
        scheduler.submit([Caller(model, "many", OPTIONS[0], n=33).request])
    with pytest.raises(ConfigError, match="170 answers at once"):
        scheduler.submit([Caller(model, "many", OPTIONS[0], n=10).request for _ in range(17)])


def test_kept_prompts_are_found_and_forgotten(model: LanguageModel) -> None:
    assert isinstance(model.decoder, EngineDecoder)
    new, kept = model.decoder.engine.new_cache, PrefixCache()
    short, long, other = new(), new(), new()
    kept.put([1, 2], short)
    kept.put([1, 2, 3, 4], long)  # holds what `short` does
    kept.put([9, 9], other)
    assert len(kept) == 2 and kept.n_tokens == 2 * PAGE
    assert kept.find([1, 2, 3, 7]) == (3, long)
    assert kept.find([5]) == (0, None)
    kept.shrink(PAGE)  # `other` was used longer ago
    assert kept.find([9]) == (0, None)
    assert kept.find([1]) == (1, long)
