"""What the routes share: the model, its scheduler, and requests on their way through it."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from functools import partial

import numpy as np

from fullspan.core.errors import ConfigError, FullspanError
from fullspan.decoding.batching import Scheduler
from fullspan.decoding.engine.decoder import EngineDecoder
from fullspan.decoding.generation import Answer
from fullspan.decoding.language_model import LanguageModel
from fullspan.decoding.options import GenerationOptions
from fullspan.decoding.requests import Request, Update
from fullspan.decoding.speculation.drafters import Learned
from fullspan.serving.errors import ApiError, api_error
from fullspan.serving.metrics import Metrics
from fullspan.serving.schemas import CachedTokens, Usage
from fullspan.serving.settings import ServerSettings


class Service:
    """A model that is served.

    Parameters
    ----------
    model : LanguageModel
        One that answers through the CPU engine.
    settings : ServerSettings

    Raises
    ------
    ConfigError
        If torch computes the model.
    """

    def __init__(self, model: LanguageModel, settings: ServerSettings) -> None:
        if not isinstance(model.decoder, EngineDecoder):
            raise ConfigError(
                "the server answers through fullspan's CPU engine, and torch computes this model",
                "load it with engine='cpu'",
            )
        drafter = None if settings.speculate is None else model.drafter(settings.speculate)
        if isinstance(drafter, Learned):
            raise ConfigError(
                f"{settings.speculate} looks at hidden states, which the server does not keep",
                "speculate with ngram, a datastore or a smaller model",
            )
        self.model, self.settings = model, settings
        self.name = settings.name or model.name
        self.created = int(time.time())
        self.mail = Mail()
        self.scheduler = Scheduler(
            model.decoder.engine,
            model.end_ids,
            settings,
            drafter=drafter,
            after_step=self.mail.send,
        )
        self.metrics = Metrics(self.scheduler)
        self._embedding = asyncio.Lock()
        if settings.embeddings:
            _ = model.model  # loaded now, not while somebody waits

    def check_model(self, name: str) -> None:
        """Refuse requests for another model."""
        if name != self.name:
            message = f"there is no model {name!r} here, only {self.name!r}"
            raise ApiError(404, message, param="model", code="model_not_found")

    def max_tokens(self, asked: int | None, fallback: int, param: str) -> int:
        """Tokens that an answer may have."""
        most = self.settings.max_answer_tokens
        if asked is not None and asked > most:
            raise ApiError(400, f"{param}: at most {most} are given", param=param, code="invalid_value")
        return min(most, fallback) if asked is None else asked

    def check_prompts(self, prompts: Sequence[Sequence[int]], n: int, param: str) -> None:
        """Refuse what is too long or too much."""
        context, most = self.model.config.max_positions, self.settings.max_answers
        longest = max(map(len, prompts))
        if longest >= context:
            message = f"{param}: {longest} tokens; the context holds {context}, prompt and answer together"
            raise ApiError(400, message, param=param, code="context_length_exceeded")
        if n * len(prompts) > most:
            message = f"{n * len(prompts)} answers are asked for, at most {most} are given to a request"
            raise ApiError(400, message, param="n", code="invalid_value")

    async def begin(
        self, prompts: list[list[int]], options: GenerationOptions, n: int, n_logprobs: int | None
    ) -> Run:
        """Put answers to each prompt into the queue.

        Raises
        ------
        ApiError
            If they are refused.
        """
        try:
            # A grammar may take a second to build.
            answers = await asyncio.to_thread(self.model.new_answers, prompts, options, n)
            run = Run(self, answers, n, options, n_logprobs)
            self.scheduler.submit(run.requests)
        except FullspanError as error:
            raise api_error(error) from error
        return run

    async def embed(self, texts: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Means of the hidden states of each text, with length 1: float32 [d_model].

        One request after the other: each waiting in a thread would leave none for what others need.
        """
        async with self._embedding:
            return await asyncio.to_thread(self._embed, texts)

    def _embed(self, texts: Sequence[Sequence[int]]) -> list[np.ndarray]:
        import torch

        found = []
        with torch.inference_mode():
            for ids in texts:
                hidden = self.model.model.hidden(torch.tensor([list(ids)]))[0].float()  # [T, d_model]
                mean = hidden.mean(0)
                found.append((mean / mean.norm().clamp_min(1e-12)).numpy())
        return found


class Mail:
    """Carries updates from the scheduler's thread to the event loop: once a step, as each time costs both."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Run, list[tuple[int, Update]]]] = deque()
        self.loop: asyncio.AbstractEventLoop | None = None

    def put(self, run: Run, updates: list[tuple[int, Update]]) -> None:
        """Give something to be carried."""
        self._waiting.append((run, updates))

    def send(self) -> None:
        """Carry it."""
        if self._waiting and self.loop is not None:
            self.loop.call_soon_threadsafe(self._arrive)

    def _arrive(self) -> None:
        while self._waiting:
            run, updates = self._waiting.popleft()
            run.arrived.put_nowait(updates)


class Run:
    """Answers of one HTTP request; iterate over their updates once.

    Attributes
    ----------
    answers : list of Answer
        Those of the first prompt, then those of the next.
    arrived : asyncio.Queue
        Updates of a step, each with the number of its answer; None when the time is over.
    """

    def __init__(
        self,
        service: Service,
        answers: list[Answer],
        n: int,
        options: GenerationOptions,
        n_logprobs: int | None,
    ) -> None:
        self.answers = answers
        self._service, self._started = service, time.perf_counter()
        service.mail.loop = loop = asyncio.get_running_loop()
        self.arrived: asyncio.Queue[list[tuple[int, Update]] | None] = asyncio.Queue()
        # One timer, as a limit on each wait would cost more than all else that a token needs here.
        self._timer = loop.call_later(service.settings.request_seconds, self.arrived.put_nowait, None)
        self.requests = [
            Request(
                answers[first : first + n],
                options.max_tokens,
                partial(self._take, first),
                n_logprobs,
                reproducible=options.seed is not None and not options.greedy,
            )
            for first in range(0, len(answers), n)
        ]
        self.first_token: float | None = None
        self._failure: str | None = None

    def _take(self, first: int, updates: list[Update]) -> None:
        """In the scheduler's thread."""
        self._service.mail.put(self, [(first + update.index, update) for update in updates])

    async def updates(self) -> AsyncIterator[list[tuple[int, Update]]]:
        """What each step brought: updates with the numbers of their answers.

        Raises
        ------
        ApiError
            If an answer fails, or they take too long.
        """
        n_open = len(self.answers)
        try:
            while n_open:
                found = await self.arrived.get()
                if found is None:
                    seconds = self._service.settings.request_seconds
                    raise ApiError(504, f"the request took longer than {seconds:g} s", code="timeout")
                if self.first_token is None:
                    self.first_token = time.perf_counter() - self._started
                    self._service.metrics.first_token.observe(self.first_token)
                for _, update in found:
                    if update.error is not None:
                        self._failure = type(update.error).__name__
                        raise api_error(update.error) from update.error
                    n_open -= update.is_last
                yield found
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Let go of what still grows."""
        self._timer.cancel()
        for request in self.requests:
            if any(answer.finish_reason is None for answer in request.answers):
                self._service.scheduler.cancel(request)

    @property
    def usage(self) -> Usage:
        """Tokens so far."""
        n_prompt = sum(len(request.prompt) for request in self.requests)
        n_answered = sum(len(answer.token_ids) for answer in self.answers)
        return Usage(
            prompt_tokens=n_prompt,
            completion_tokens=n_answered,
            total_tokens=n_prompt + n_answered,
            prompt_tokens_details=CachedTokens(cached_tokens=sum(each.n_reused for each in self.requests)),
        )

    @property
    def facts(self) -> dict[str, object]:
        """What the log says about it."""
        return {
            "prompt_tokens": self.usage.prompt_tokens,
            "reused_tokens": self.usage.prompt_tokens_details.cached_tokens,
            "answer_tokens": self.usage.completion_tokens,
            "first_token_seconds": None if self.first_token is None else round(self.first_token, 4),
            "finish_reasons": [answer.finish_reason or "cancelled" for answer in self.answers],
        } | ({} if self._failure is None else {"failure": self._failure})
