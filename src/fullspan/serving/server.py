"""Runs the application until it is told to stop."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

import uvicorn
from fastapi import FastAPI

from fullspan.decoding.language_model import LanguageModel
from fullspan.serving.app import create_app
from fullspan.serving.connections import ServerConfig
from fullspan.serving.guard import log
from fullspan.serving.settings import ApiKeys, ServerSettings

# Files and pipes that a process has open besides its connections.
_OTHER_FILES = 128


class Server(uvicorn.Server):
    """uvicorn's server, which says where it listens and ends a stop by signal as what it is, a success.

    Parameters
    ----------
    app : FastAPI
    settings : ServerSettings
    """

    def __init__(self, app: FastAPI, settings: ServerSettings) -> None:
        self.url = ""
        super().__init__(ServerConfig(app, settings))

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}"

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take SIGINT and SIGTERM as the wish to stop; a second SIGINT does not wait for requests."""
        if threading.current_thread() is not threading.main_thread():  # signals reach the main thread only
            yield
            return
        taken = {each: signal.signal(each, self.handle_exit) for each in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for each, handler in taken.items():
                signal.signal(each, handler)


class _Announcing(Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            print(f"listening on {self.url} (Ctrl-C stops, once running requests are done)", flush=True)


def serve(model: LanguageModel, settings: ServerSettings, keys: ApiKeys) -> None:
    """Serve a model until SIGINT or SIGTERM; requests that run then are finished.

    The log goes to standard error, one JSON object a request.
    """
    _log_to_stderr()
    raise_file_limit(settings.max_connections + _OTHER_FILES)
    _Announcing(create_app(model, settings, keys), settings).run()


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    for logger, level in ((log, logging.INFO), (logging.getLogger("uvicorn"), logging.WARNING)):
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False


def raise_file_limit(n_files: int) -> None:
    """Let the process have as many connections as it may accept; systems often allow 1,024 by default."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    limits: Any = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft, hard = limits
    wanted = n_files if hard == resource.RLIM_INFINITY else min(n_files, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
