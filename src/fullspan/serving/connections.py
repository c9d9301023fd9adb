"""HTTP/1.1 connections that do not wait forever for their client.

A client that connects and says nothing, or asks and does not read, would else hold its connection until the
server ends: enough of them would shut everybody out.
"""

from __future__ import annotations

import asyncio

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from fullspan.serving.settings import ServerSettings


class PatientProtocol(H11Protocol):
    """A connection that is cut when its client takes longer than `client_seconds` to send a request's head,
    or to read what it was sent.

    The time that a request's body may take is the middleware's to watch, as it can still say what was wrong.
    """

    config: ServerConfig
    _head_timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Wait for the first request."""
        super().connection_made(transport)
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        """Take what came; only a whole head stops the clock, not each byte of it."""
        super().data_received(data)
        self._watch_head()

    def on_response_complete(self) -> None:
        """Wait for what is on its way, and for the next request."""
        super().on_response_complete()
        if self.transport.get_write_buffer_size():
            self._watch_writing()

    def pause_writing(self) -> None:
        """The client reads more slowly than it is written to."""
        super().pause_writing()
        self._watch_writing()

    def resume_writing(self) -> None:
        """It has read most of it."""
        super().resume_writing()
        self._write_timer = _stop(self._write_timer)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._head_timer, self._write_timer = _stop(self._head_timer), _stop(self._write_timer)
        super().connection_lost(exc)

    def _watch_head(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            self._head_timer = _stop(self._head_timer)
        elif self._head_timer is None and self.timeout_keep_alive_task is None:
            self._head_timer = self.loop.call_later(self.config.client_seconds, self.transport.abort)

    def _watch_writing(self) -> None:
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(self.config.client_seconds, self._give_up_writing)

    def _give_up_writing(self) -> None:
        self._write_timer = None
        if self.transport.get_write_buffer_size():
            self.transport.abort()


class ServerConfig(uvicorn.Config):
    """uvicorn's options, from the server's.

    Parameters
    ----------
    app : FastAPI
    settings : ServerSettings
    """

    def __init__(self, app: FastAPI, settings: ServerSettings) -> None:
        self.client_seconds = settings.client_seconds
        super().__init__(
            app,
            host=settings.host,
            port=settings.port,
            http=PatientProtocol,
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=settings.max_connections,
            timeout_graceful_shutdown=settings.shutdown_seconds,
        )


def _stop(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """No timer any more."""
    if timer is not None:
        timer.cancel()
    return None
