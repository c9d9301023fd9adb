"""What stands before every route: limits, keys, log and metrics."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import traceback
import uuid
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fullspan.serving.errors import ApiError, api_error
from fullspan.serving.metrics import Metrics
from fullspan.serving.settings import ApiKeys, ServerSettings, is_loopback

log = logging.getLogger("fullspan.serving")


@dataclass
class Record:
    """What the log says about one request."""

    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    status: int = 0
    facts: dict[str, Any] = field(default_factory=dict)


class Guard:
    """ASGI middleware: refuses what must not go on, and says in the log what became of each request.

    Parameters
    ----------
    app : ASGI application
    settings : ServerSettings
    keys : ApiKeys
    metrics : Metrics
    """

    def __init__(self, app: ASGIApp, settings: ServerSettings, keys: ApiKeys, metrics: Metrics) -> None:
        self._app, self._settings, self._keys, self._metrics = app, settings, keys, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record, started = Record(), time.perf_counter()
        scope.setdefault("state", {})["record"] = record

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", record.id.encode())]
            await send(message)

        try:
            await self._answer(scope, receive, sending, record)
        finally:
            self._report(scope, record, time.perf_counter() - started)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, record: Record) -> None:
        try:
            self._check(scope)
            body = await self._read_body(scope, receive)
            if self._settings.log_prompts:
                record.facts["body"] = body.decode("utf-8", "replace")
            await self._app(scope, _replay(body, receive), send)
        except ApiError as error:
            await error.response()(scope, receive, send)
        except Exception as error:
            # Not the message: it may hold what was asked.
            frames = "".join(traceback.format_tb(error.__traceback__))
            log.error("request %s failed with %s\n%s", record.id, type(error).__name__, frames)
            if not record.status:
                await api_error(error).response()(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        # A page in a browser can make its own name stand for 127.0.0.1, and so reach a server without keys.
        local = is_loopback(self._settings.host) and _is_local(headers.get("host") or "localhost")
        if not self._keys and not local:
            raise ApiError(403, "without API keys only requests to localhost are answered", code="wrong_host")
        if scope["path"] != "/health":
            scheme, _, key = headers.get("authorization", "").partition(" ")
            if not self._keys.allow(key.strip() if scheme.lower() == "bearer" else None):
                raise ApiError(
                    401,
                    "the API key is missing or wrong",
                    code="invalid_api_key",
                    headers={"WWW-Authenticate": "Bearer"},
                )

    async def _read_body(self, scope: Scope, receive: Receive) -> bytes:
        most, parts, size = self._settings.max_body_kib * 1024, [], 0
        try:
            async with asyncio.timeout(self._settings.client_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return b""
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > most:
                        raise ApiError(
                            413,
                            f"the request is larger than {self._settings.max_body_kib} KiB",
                            code="request_too_large",
                            headers={"Connection": "close"},
                        )
                    if not message.get("more_body"):
                        return b"".join(parts)
        except TimeoutError:
            raise ApiError(408, "the request came too slowly", headers={"Connection": "close"}) from None

    def _report(self, scope: Scope, record: Record, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "other")
        self._metrics.requests.labels(route, record.status).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        facts = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "id": record.id,
            "method": scope["method"],
            "route": route,
            "status": record.status,
            "seconds": round(seconds, 4),
        }
        log.info(json.dumps(facts | record.facts, ensure_ascii=True))


def _is_local(host: str) -> bool:
    """Whether a Host header names this machine."""
    try:
        return is_loopback(urlsplit(f"//{host}").hostname or "")
    except ValueError:
        return False


def _replay(body: bytes, receive: Receive) -> Receive:
    """First the body that was read already, then what comes."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return waiting.pop() if waiting else await receive()

    return replay
