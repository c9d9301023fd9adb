"""From a run to an HTTP answer: whole, or as a stream of server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any, TypeVar

from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from fullspan.decoding.requests import Update
from fullspan.serving.choices import Choice
from fullspan.serving.errors import ApiError
from fullspan.serving.guard import Record
from fullspan.serving.service import Run

Answer = TypeVar("Answer")
_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_CLIENT_LEFT = 499  # as nginx has it in its log; nobody receives it


async def unless_gone(http: Request, run: Run, work: Coroutine[Any, Any, Answer]) -> Answer | Response:
    """The result of `work` on a run; both are stopped when the client leaves."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_disconnect(http.receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else Response(status_code=_CLIENT_LEFT)
    finally:
        task.cancel()
        gone.cancel()
        run.cancel()  # also where the client left before the task began


async def _disconnect(receive: Callable[[], Awaitable[Any]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def collect(run: Run, choices: list[Choice], record: Record) -> None:
    """Let all choices grow to their end."""
    try:
        async for updates in run.updates():
            for index, update in updates:
                choices[index].take(update)
    finally:
        record.facts |= run.facts


class EventStream(StreamingResponse):
    """Pieces of answers as server-sent events.

    Parameters
    ----------
    run : Run
    choices : list of Choice
    head : dict
        What all events have in common.
    piece_of : callable
        What there is to say of a choice now, if anything.
    with_usage : bool
        Whether an event with the usage comes last.
    opening : callable, optional
        What is said of each choice before its first token.
    record : Record
    """

    def __init__(
        self,
        run: Run,
        choices: list[Choice],
        head: dict[str, Any],
        piece_of: Callable[[Choice], dict[str, Any] | None],
        *,
        with_usage: bool,
        record: Record,
        opening: Callable[[Choice], dict[str, Any]] | None = None,
    ) -> None:
        self._run, self._choices, self._piece_of = run, choices, piece_of
        self._with_usage, self._record, self._opening = with_usage, record, opening
        # What all events have in common is written once.
        self._start = f'data: {_JSON(head)[:-1]},"choices":['
        self._end = ('],"usage":null}' if with_usage else "]}") + "\n\n"
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(self._events(), media_type="text/event-stream", headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events; what has not been generated when the client leaves never is."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._run.cancel()
            self._record.facts |= self._run.facts

    async def _events(self) -> AsyncIterator[str]:
        if self._opening is not None:
            yield "".join(self._event(self._opening(choice)) for choice in self._choices)
        try:
            async for updates in self._run.updates():
                if events := "".join(self._told(updates)):
                    yield events
        except ApiError as error:  # the status was sent long ago
            self._record.facts["error"] = error.code or error.status
            yield f"data: {_JSON(error.body)}\n\n"
            return
        if self._with_usage:
            yield f'{self._start}],"usage":{_JSON(self._run.usage.model_dump())}}}\n\n'
        yield "data: [DONE]\n\n"

    def _told(self, updates: list[tuple[int, Update]]) -> Iterator[str]:
        for index, update in updates:
            choice = self._choices[index]
            choice.take(update)
            if (piece := self._piece_of(choice)) is not None:
                yield self._event(piece)

    def _event(self, piece: dict[str, Any]) -> str:
        return f"{self._start}{_JSON(piece)}{self._end}"
