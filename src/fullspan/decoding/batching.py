"""Continuous batching: answers to many requests grow together, and requests join and leave between two steps.

A step does one token of each answer that grows, and with what is left of its time it reads a piece of the
prompts that wait. So an answer that streams never waits for a whole prompt. The engine's logits do not depend
on what else a step does, and each answer draws from its own randomness: it is the same as if it were alone.

Where few answers grow, and so reading the weights is most of a step, a drafter may propose tokens for each.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np
import psutil

from fullspan.core.errors import ConfigError, DataError
from fullspan.decoding.engine._layout import CHUNK, MOST_TOKENS, PAGE
from fullspan.decoding.engine.cache import SequenceCache
from fullspan.decoding.engine.engine import Engine, Segment
from fullspan.decoding.generation import check_length
from fullspan.decoding.growing import Growing, Reading
from fullspan.decoding.limits import BatchLimits
from fullspan.decoding.prefix_cache import PrefixCache, common_prefix
from fullspan.decoding.requests import BatchCounts, Closing, QueueFull, Request, Update
from fullspan.decoding.speculation.drafters import Drafter

# Tokens of prompts that a step reads at least, so that prompts are read whatever the machine's speed is.
_LEAST_CHUNK = 8
# Where a few answers grow together, a step with proposals for all of them reads at most so many tokens: up to
# there each costs little (a step of 4 takes 1.3 times as long as one of a single token, of 8 it is 2.2).
_MOST_DRAFTED = 6
# Weight of the newest measurement in running means.
_NEW = 0.2


class Scheduler:
    """A thread that answers requests together.

    Parameters
    ----------
    engine : Engine
    end_ids : frozenset of int
        Tokens that end an answer.
    limits : BatchLimits, optional
    drafter : Drafter, optional
        That fits the model. It changes no greedy answer, and of a sampled one only which sample it is.
    after_step : callable, optional
        Called in the scheduler's thread once all requests of a step were told; it must not block. If it
        raises, all that run are cancelled.

    Attributes
    ----------
    counts : BatchCounts
    cache_tokens : int
        Tokens that there is memory for.

    Examples
    --------
    >>> model = load("smollm2-135m-instruct", engine="cpu")  # doctest: +SKIP
    >>> scheduler = Scheduler(model.decoder.engine, model.end_ids)  # doctest: +SKIP
    """

    def __init__(
        self,
        engine: Engine,
        end_ids: frozenset[int],
        limits: BatchLimits | None = None,
        *,
        drafter: Drafter | None = None,
        after_step: Callable[[], None] | None = None,
    ) -> None:
        self.engine = engine
        self.limits = limits or BatchLimits()
        self.counts = BatchCounts()
        self.cache_tokens = self.limits.cache_tokens or _affordable_tokens(engine)
        self._end_ids, self._drafter, self._after_step = end_ids, drafter, after_step
        self._waiting: deque[Request] = deque()
        self._reading: list[Reading] = []
        self._growing: list[Growing] = []
        self._kept = PrefixCache()
        self._changed = threading.Condition()
        self._closing = False
        self._turn = 0
        self._base_seconds, self._token_seconds = 0.0, 0.0
        self._seconds_between, self._last_end = 1.0, time.perf_counter()
        self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)
        self._thread.start()

    @property
    def n_running(self) -> int:
        """Answers that grow or whose prompt is being read."""
        return len(self._growing) + sum(len(reading.request.answers) for reading in list(self._reading))

    @property
    def n_waiting(self) -> int:
        """Answers that have not begun."""
        return sum(len(request.answers) for request in list(self._waiting))

    @property
    def n_kept_tokens(self) -> int:
        """Tokens of prompts and answers that are kept for later requests."""
        return self._kept.n_tokens

    def submit(self, requests: Sequence[Request]) -> None:
        """Take requests, all or none.

        Raises
        ------
        QueueFull
            If more would wait than the limits allow.
        Closing
            If `close` was called.
        DataError
            If a prompt is empty or too long, or a token is not in the vocabulary.
        ConfigError
            If a request asks for more answers than may run, or needs more memory than there is.
        """
        context = self.engine.config.max_positions
        for request in requests:
            check_length(len(request.prompt), context)
            if min(request.prompt) < 0 or max(request.prompt) >= self.engine.config.vocab_size:
                raise DataError(
                    f"the prompt has a token outside the vocabulary of {self.engine.config.vocab_size}",
                    "was the text encoded with another model's tokenizer?",
                )
            for answer in request.answers:
                answer.limit = min(request.max_tokens, context - len(request.prompt))
            if len(request.answers) > self.limits.max_running:
                raise ConfigError(f"at most {self.limits.max_running} answers run at a time")
            if request.most_tokens > self.cache_tokens:
                raise ConfigError(
                    f"the request may need memory for {request.most_tokens} tokens, and there is some for "
                    f"{self.cache_tokens}",
                    "ask for fewer tokens or answers, or shorten the prompt",
                )
        n_new = sum(len(request.answers) for request in requests)
        most = self.limits.max_running + self.limits.max_waiting
        if n_new > most:
            raise ConfigError(f"{n_new} answers at once are asked for, and there is room for {most}")
        with self._changed:
            if self._closing:
                raise Closing()
            if self.n_running + self.n_waiting + n_new > most:
                self.counts.refused += n_new
                raise QueueFull(self.n_waiting, min(60, int(self._seconds_between) + 1))
            for request in requests:
                request.submitted = time.perf_counter()
                self._waiting.append(request)
            self._changed.notify()

    def cancel(self, request: Request) -> None:
        """Let a request go before the next step; nothing happens if it is done."""
        with self._changed:
            request.cancelled = True
            self._changed.notify()

    def close(self, timeout: float | None = None) -> None:
        """Take no more requests, finish those that are there, end the thread.

        Parameters
        ----------
        timeout : float, optional
            Seconds after which what still runs is cancelled.
        """
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout)
        if self._thread.is_alive():
            with self._changed:
                for request in [*self._waiting, *self._current()]:
                    request.cancelled = True
                self._changed.notify()
            self._thread.join()

    # In the scheduler's thread --------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                self._drop_cancelled()
                self._admit()
                if not (self._growing or self._reading):
                    if self._closing and not self._waiting:
                        return
                    if not self._waiting:
                        self._changed.wait()
                        self._last_end = time.perf_counter()
                    continue
            try:
                self._step()
            except Exception as error:  # the thread must live on, or all would wait forever
                self._fail([*self._growing, *self._reading], error)
            self._end_step()

    def _end_step(self) -> None:
        if self._after_step is None:
            return
        try:
            self._after_step()
        except Exception:  # nobody is there any more, such as a closed event loop
            for request in self._current():
                request.cancelled = True

    def _current(self) -> list[Request]:
        """The requests that run, each once."""
        running: list[Reading | Growing] = [*self._reading, *self._growing]
        return list(dict.fromkeys(each.request for each in running))

    def _drop_cancelled(self) -> None:
        for request in [*self._waiting, *self._current()]:
            if request.cancelled:
                self.counts.cancelled += 1
        self._waiting = deque(request for request in self._waiting if not request.cancelled)
        for reading in [each for each in self._reading if each.request.cancelled]:
            self._reading.remove(reading)
            if reading.cache is not None and reading.cache.length:
                self._kept.put(reading.request.prompt[: reading.cache.length], reading.cache)
        for growing in [each for each in self._growing if each.request.cancelled]:
            self._leave(growing)

    def _admit(self) -> None:
        reserved = sum(request.most_tokens for request in self._current())
        while self._waiting:
            request = self._waiting[0]
            has_place = self.n_running + len(request.answers) <= self.limits.max_running
            if not has_place or reserved + request.most_tokens > self.cache_tokens:
                break
            reserved += request.most_tokens
            self._reading.append(Reading(self._waiting.popleft()))
        self._kept.shrink(self.cache_tokens - reserved)

    def _step(self) -> None:
        growing = self._drafted()
        segments = [each.segment for each in growing]
        readings: list[Reading] = []
        room = self._room(len(growing))
        while room > 0 and (reading := self._next_reading(readings)) is not None:
            cache = self._begun(reading)
            part = reading.request.prompt[cache.length : cache.length + room]
            room -= len(part)
            readings.append(reading)
            wanted = 1 if len(part) == reading.n_left else 0
            segments.append(Segment(cache, part, n_logits=wanted, is_prompt=True))
        self._turn += 1
        started = time.perf_counter()
        try:
            logits = self.engine.step_all(segments)
        except Exception as error:  # of the caller's making, such as no memory; the next ones may succeed
            self._fail([*growing, *readings], error)
            return
        n_read = sum(len(segment) for segment in segments[len(growing) :])
        if growing:
            self._measure(n_read, time.perf_counter() - started)
        self.counts.steps += 1
        updates: dict[Request, list[Update]] = {}
        for each, rows in zip(growing, logits, strict=False):
            updates.setdefault(each.request, []).extend(self._grow(each, rows))
        for reading, segment, rows in zip(
            readings, segments[len(growing) :], logits[len(growing) :], strict=True
        ):
            self.counts.prompt_tokens += len(segment.tokens)
            if len(rows):
                updates[reading.request] = self._start(reading, rows)
        for request, found in updates.items():
            self._tell(request, found)

    def _drafted(self) -> list[Growing]:
        """What grows in the next step, with proposals where they cost little."""
        n = len(self._growing)
        most = MOST_TOKENS if n == 1 else 0 if n == 0 else _MOST_DRAFTED // n - 1
        if self._reading:  # a step that reads prompts is full
            most = 0
        for each in list(self._growing):
            try:
                each.propose(most)
            except Exception as error:  # the drafter's; the others go on
                self._leave(each)
                self._tell(each.request, [Update(each.index, error=error)])
        return list(self._growing)

    def _room(self, n_growing: int) -> int:
        """Tokens of prompts that this step may read."""
        if not n_growing:
            return CHUNK
        most = MOST_TOKENS - n_growing % MOST_TOKENS
        left = self.limits.step_ms / 1000 - self._base_seconds
        affordable = left / self._token_seconds if self._token_seconds else 0
        return min(most, max(_LEAST_CHUNK, int(affordable)))

    def _next_reading(self, taken: Sequence[Reading]) -> Reading | None:
        """Turn about the one that came first, which never starves, and the shortest, which need not wait."""
        left = [each for each in self._reading if each not in taken]
        if not left:
            return None
        if self._turn % 2 and not taken:
            return left[0]
        return min(left, key=lambda each: each.n_left)

    def _begun(self, reading: Reading) -> SequenceCache:
        """The cache of a prompt; the first time with what others have read of it."""
        if reading.cache is None:
            prompt = reading.request.prompt
            known, cache = self._known(prompt)
            reading.cache = self.engine.new_cache() if cache is None else cache.copy()
            known = min(known, len(prompt) - 1)  # the last token is read for its logits
            reading.cache.truncate(known)
            reading.request.n_reused = known
            self.counts.reused_tokens += known
        return reading.cache

    def _known(self, prompt: list[int]) -> tuple[int, SequenceCache | None]:
        """As `PrefixCache.find`, also among what runs."""
        best, found = self._kept.find(prompt)
        for ids, cache in self._held():
            common = common_prefix(ids, prompt)
            if common > best:
                best, found = common, cache
        return best, found

    def _held(self) -> list[tuple[list[int], SequenceCache]]:
        held = [(each.known, each.cache) for each in self._growing]
        return held + [
            (each.request.prompt[: each.cache.length], each.cache)
            for each in self._reading
            if each.cache is not None
        ]

    def _start(self, reading: Reading, logits: np.ndarray) -> list[Update]:
        """The prompt is read: the first token of each answer."""
        self._reading.remove(reading)
        cache = reading.cache
        assert cache is not None
        n = len(reading.request.answers)
        starting = [
            Growing(
                reading.request,
                index,
                cache.copy() if index < n - 1 else cache,
                self._end_ids,
                self._drafter,
            )
            for index in range(n)
        ]
        self._growing += starting
        return [update for each in starting for update in self._grow(each, logits)]

    def _grow(self, growing: Growing, logits: np.ndarray) -> list[Update]:
        """Put tokens behind an answer, and let it go if that was its end."""
        updates = growing.grow(logits)
        self.counts.answer_tokens += sum(update.error is None for update in updates)
        self.counts.proposed_tokens += len(growing.tree) - 1
        self.counts.accepted_tokens += growing.n_accepted
        if updates[-1].is_last:
            self._leave(growing)
        return updates

    def _leave(self, growing: Growing) -> None:
        self._growing.remove(growing)
        now = time.perf_counter()
        self._seconds_between += _NEW * (min(60.0, now - self._last_end) - self._seconds_between)
        self._last_end = now
        if growing.index == 0:  # the others have the same prompt
            self._kept.put(growing.known, growing.cache)

    def _fail(self, failed: Sequence[Growing | Reading], error: Exception) -> None:
        for request in dict.fromkeys(each.request for each in failed):
            open_ = [i for i, answer in enumerate(request.answers) if answer.finish_reason is None]
            self._tell(request, [Update(index, error=error) for index in open_])
        self._reading = [each for each in self._reading if each not in failed]
        self._growing = [each for each in self._growing if each not in failed]

    def _tell(self, request: Request, updates: list[Update]) -> None:
        try:
            request.on_update(updates)
        except Exception:  # nobody is there any more, such as a closed event loop
            request.cancelled = True

    def _measure(self, n_read: int, seconds: float) -> None:
        """Learn how long a step takes for what grows, and what each token of a prompt adds to that."""
        if n_read == 0:
            weight = _NEW if self._base_seconds else 1.0
            self._base_seconds += weight * (seconds - self._base_seconds)
            return
        weight, each = _NEW if self._token_seconds else 1.0, max(seconds - self._base_seconds, 0.0) / n_read
        self._token_seconds += weight * (each - self._token_seconds)


def _affordable_tokens(engine: Engine) -> int:
    """As many tokens as fit into a quarter of the free memory; at least one context and an answer."""
    fitting = psutil.virtual_memory().available // 4 // engine.token_bytes
    return max(int(fitting), 2 * engine.config.max_positions + 2 * PAGE)
