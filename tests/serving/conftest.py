"""A real server on a free port, with the tiny chat model."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from openai import OpenAI

import fullspan
from fullspan.decoding.language_model import LanguageModel
from fullspan.serving.app import create_app
from fullspan.serving.server import Server
from fullspan.serving.service import Service
from fullspan.serving.settings import ApiKeys, ServerSettings

KEY = "the-key-of-these-tests"
NAME = "smollm2-135m-instruct"  # as the page in docs/ calls its model


class Running:
    """A server in a thread."""

    def __init__(self, model: LanguageModel, settings: ServerSettings, keys: ApiKeys) -> None:
        self.app = create_app(model, settings, keys)
        self.service: Service = self.app.state.service
        self.server = Server(self.app, settings)
        self._thread = threading.Thread(target=self.server.run, daemon=True)
        self._thread.start()
        wait_for(lambda: bool(self.server.url))
        self.url = self.server.url
        self.client = OpenAI(base_url=f"{self.url}/v1", api_key=KEY, max_retries=0, timeout=60)

    def post(self, path: str, body: Any) -> Any:
        """For what OpenAI's client does not know."""
        return httpx2.post(self.url + path, json=body, headers={"Authorization": f"Bearer {KEY}"}).json()

    @property
    def idle(self) -> bool:
        return not (self.service.scheduler.n_running or self.service.scheduler.n_waiting)

    def stop(self) -> None:
        self.client.close()
        self.server.should_exit = True
        self._thread.join(60)
        assert not self._thread.is_alive()


def wait_for(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture(scope="session")
def served_folder(tiny_chat_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a context that has room for tools."""
    folder = tmp_path_factory.mktemp("served") / "tiny"
    shutil.copytree(tiny_chat_model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 1024}))
    return folder


@pytest.fixture(scope="session")
def model(served_folder: Path) -> LanguageModel:
    return fullspan.load(served_folder, engine="cpu")


@pytest.fixture(scope="session")
def start(model: LanguageModel) -> Callable[..., Any]:
    """Context manager that starts a server of its own."""

    @contextmanager
    def start(keys: ApiKeys | None = None, **settings: Any) -> Iterator[Running]:
        values = {"port": 0, "name": NAME, "max_answer_tokens": 900, "shutdown_seconds": 5} | settings
        running = Running(model, ServerSettings.build(values), ApiKeys([KEY]) if keys is None else keys)
        try:
            yield running
        finally:
            running.stop()

    return start


@pytest.fixture(scope="session")
def running(start: Callable[..., Any]) -> Iterator[Running]:
    with start(embeddings=True, max_running=8, max_waiting=1000) as found:
        yield found


@pytest.fixture
def client(running: Running) -> OpenAI:
    return running.client
