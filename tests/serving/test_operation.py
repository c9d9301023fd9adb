"""What a server meets: wrong requests, clients that leave, stall or come in crowds, and its own end."""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from openai import OpenAI

import fullspan
from fullspan.cli import generate, serve
from fullspan.core.errors import CheckpointError, ConfigError
from fullspan.serving.server import raise_file_limit
from fullspan.serving.service import Service
from fullspan.serving.settings import KEY_VARIABLE, ApiKeys, ServerSettings, read_keys

from .conftest import KEY, NAME, Running, wait_for

MESSAGES: list[Any] = [{"role": "user", "content": "a secret question"}]
HEADERS = {"Authorization": f"Bearer {KEY}"}
CROWD = 1000
ENDLESS: dict[str, Any] = {"max_tokens": 900, "logit_bias": {"2": -100}}


def head(path: str, *lines: str) -> bytes:
    """Of a request with a JSON body."""
    known = ["Host: localhost", f"Authorization: Bearer {KEY}", "Content-Type: application/json"]
    return ("\r\n".join([f"POST {path} HTTP/1.1", *known, *lines]) + "\r\n\r\n").encode()


async def connect(running: Running) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = running.url.removeprefix("http://").split(":")
    return await asyncio.open_connection(host, int(port))


def post(running: Running, path: str, **arguments: Any) -> httpx2.Response:
    return httpx2.post(running.url + path, headers=HEADERS | arguments.pop("headers", {}), **arguments)


@pytest.mark.parametrize(
    ("change", "status", "param", "says"),
    [
        ({"best_of": 2}, 400, "best_of", "unknown parameter"),
        ({"temperature": 3}, 400, "temperature", "less than or equal to 2"),
        ({"temperature": "1"}, 400, "temperature", "valid number"),
        ({"max_tokens": 10**9}, 400, "max_tokens", "at most 900"),
        ({"max_tokens": 0}, 400, "max_tokens", "greater than"),
        ({"n": 10**6}, 400, "n", "at most 16"),
        ({"seed": -1}, 400, "seed", "greater than"),
        ({"stop": [""]}, 400, "stop.0", "at least 1 character"),
        ({"logit_bias": {"a": 1}}, 400, "logit_bias", "token ids"),
        ({"logit_bias": {"999999": 1}}, 400, "logit_bias", "not in the vocabulary"),
        ({"messages": []}, 400, "messages", "at least 1 item"),
        ({"messages": [{"role": "king", "content": ""}]}, 400, "messages.0.role", "'system'"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "messages.0.content", ""),
        ({"messages": [{"role": "user", "content": "x" * 2000}]}, 400, "messages", "the context holds 1024"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, 400, None, "surrogate"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": []}}}},
         400, "response_format", "Unsatisfiable"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": "/etc/passwd"}}},
         400, "response_format", ""),
        ({"regex": "("}, 400, "regex", ""),
        ({"grammar": "start: nothing"}, 400, "grammar", "unknown name"),
        ({"grammar": "/etc/passwd"}, 400, "grammar", ""),
        ({"stream_options": {"include_usage": True}}, 400, "stream_options", "need stream"),
        ({"regex": "a", "grammar": "start: a"}, 400, None, "obeys one of them"),
        ({"tool_choice": "required"}, 400, "tool_choice", "needs tools"),
        ({"top_logprobs": 2}, 400, "top_logprobs", "needs logprobs"),
        ({"model": "other"}, 404, "model", "no model 'other'"),
    ],
)  # fmt: skip
def test_wrong_requests_are_refused_by_name(
    running: Running, change: dict[str, Any], status: int, param: str | None, says: str
) -> None:
    body = {"model": NAME, "messages": MESSAGES} | change
    answer = post(
        running,
        "/v1/chat/completions",
        content=json.dumps(body),
        headers={"Content-Type": "application/json"},
    )
    error = answer.json()["error"]
    assert answer.status_code == status, error
    assert says in error["message"] and (error["param"] or "").startswith(param or "")
    assert "secret" not in answer.text and running.idle


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"model": "\xff"}', b"[" * 100_000, b"null", b'{"temperature": NaN}']
)
def test_malformed_bodies_are_refused(running: Running, body: bytes) -> None:
    for path in ("/v1/chat/completions", "/tokenize"):
        answer = post(running, path, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400 and answer.json()["error"]["message"]


def test_who_may_ask(running: Running, start: Callable[..., Any]) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {KEY}"}):
        answer = httpx2.get(f"{running.url}/v1/models", headers=headers)
        assert answer.status_code == 401 and answer.json()["error"]["code"] == "invalid_api_key"
    assert httpx2.get(f"{running.url}/health").json() == {"status": "ok"}
    with start(keys=ApiKeys([])) as without_keys:
        url = f"{without_keys.url}/v1/models"
        assert httpx2.get(url).status_code == 200
        # A page whose name was made to stand for 127.0.0.1, and a form that a browser sends unasked.
        assert httpx2.get(url, headers={"Host": "evil.example"}).status_code == 403
        form = httpx2.post(
            f"{without_keys.url}/tokenize", content=b'{"prompt": "a"}', headers={"Content-Type": "text/plain"}
        )
        assert form.status_code == 400
        off = httpx2.post(f"{without_keys.url}/v1/embeddings", json={"model": NAME, "input": "a"})
        assert off.json()["error"]["code"] == "embeddings_off"


def test_keys_are_needed_where_others_can_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "keys"
    with pytest.raises(ConfigError, match="others can reach"):
        read_keys(ServerSettings(host="0.0.0.0"))
    for content, match in (
        ("# none\n", "no API key"),
        ("short\n", "16 or more"),
        ("a key with spaces\n", "16 or more"),
    ):
        file.write_text(content)
        with pytest.raises(ConfigError, match=match):
            read_keys(ServerSettings(api_key_file=file))
    with pytest.raises(ConfigError, match="cannot read"):
        read_keys(ServerSettings(api_key_file=tmp_path / "nothing"))
    file.write_text("# of the first team\nkey-of-the-first-team\n")
    monkeypatch.setenv(KEY_VARIABLE, "key-of-the-environment")
    keys = read_keys(ServerSettings(host="0.0.0.0", api_key_file=file))
    known = ["key-of-the-first-team", "key-of-the-environment"]
    assert all(map(keys.allow, known)) and not any(map(keys.allow, [None, "", "key-of-the-first-tea"]))
    assert not any(key in repr(vars(keys)) for key in known)


def test_keys_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them, each as a digest of one length by the function that is made for it, whatever matches."""
    compared: list[tuple[bytes, bytes]] = []
    compare = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append((a, b)) or compare(a, b))
    keys = ApiKeys([f"the-key-of-team-number-{number}" for number in range(3)])
    for given, known in (("the-key-of-team-number-0", True), ("x" * 10_000, False), (None, False)):
        compared.clear()
        assert keys.allow(given) is known
        assert len(compared) == 3 and {len(each) for pair in compared for each in pair} == {32}


def test_a_drafter_that_is_not_there_is_refused_before_the_model_loads(
    tiny_chat_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fullspan.decoding.loading.load", lambda *_, **__: pytest.fail("loads"))
    config = {"model": str(tiny_chat_model), "speculate": "nothing-there"}
    for command, made in ((serve.command, serve.ServeConfig), (generate.command, generate.GenerateConfig)):
        with pytest.raises(CheckpointError, match="speculate: no model named 'nothing-there'"):
            command(made.build(config | ({"prompt": "Hi"} if made is generate.GenerateConfig else {})))


def test_torch_models_are_refused(served_folder: Path) -> None:
    with pytest.raises(ConfigError, match="torch computes this model"):
        Service(fullspan.load(served_folder, engine="torch"), ServerSettings())


def test_a_client_that_leaves_frees_its_place(running: Running) -> None:
    counts = running.service.scheduler.counts
    before = counts.cancelled
    stream = running.client.chat.completions.create(
        model=NAME, messages=MESSAGES, stream=True, n=8, **ENDLESS
    )
    next(iter(stream))
    stream.close()
    wait_for(lambda: running.idle)
    assert counts.cancelled == before + 1
    with pytest.raises(openai.APITimeoutError):
        running.client.chat.completions.create(model=NAME, messages=MESSAGES, n=8, timeout=0.05, **ENDLESS)
    wait_for(lambda: running.idle)
    assert counts.cancelled == before + 2


def test_a_full_queue_and_a_late_answer(start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with start(max_running=1, max_waiting=1) as small:
        engine, gate = small.service.scheduler.engine, threading.Event()
        step = engine.step_all
        monkeypatch.setattr(engine, "step_all", lambda segments: gate.wait(60) and step(segments))
        ask = small.client.chat.completions.create
        streams = [ask(model=NAME, messages=MESSAGES, stream=True, **ENDLESS) for _ in range(2)]
        wait_for(lambda: small.service.scheduler.n_running == 1)
        with pytest.raises(openai.RateLimitError) as caught:
            ask(model=NAME, messages=MESSAGES)
        assert caught.value.code == "queue_full"
        assert 1 <= int(caught.value.response.headers["retry-after"]) <= 60
        gate.set()
        for stream in streams:
            stream.close()
        wait_for(lambda: small.idle)
        assert ask(model=NAME, messages=MESSAGES, max_tokens=1).usage.completion_tokens == 1
    with start(request_seconds=0.01) as hasty:
        with pytest.raises(openai.InternalServerError) as late:
            hasty.client.chat.completions.create(model=NAME, messages=MESSAGES, n=8, **ENDLESS)
        assert late.value.status_code == 504 and late.value.code == "timeout"
        wait_for(lambda: hasty.idle)


def test_slow_and_large_requests(start: Callable[..., Any]) -> None:
    async def send(running: Running, content: bytes) -> bytes:
        reader, writer = await connect(running)
        writer.write(content)
        answer = await reader.read()
        writer.close()
        return answer

    async def never_read(running: Running, content: bytes) -> None:
        _, writer = await connect(running)
        writer.write(content)
        await writer.drain()
        # The answer does not fit into what the system holds for a client that does not read.
        while running.server.server_state.connections:
            await asyncio.sleep(0.01)
        writer.close()

    with start(client_seconds=1, max_body_kib=2048) as strict:
        connections = strict.server.server_state.connections
        half = head("/tokenize", "Content-Length: 9") + b"{"
        assert b" 408 " in asyncio.run(send(strict, half))
        for too_little in (b"", half[:30], half[:-5]):  # not even a head
            assert asyncio.run(send(strict, too_little)) == b""
        answer = post(strict, "/tokenize", json={"prompt": "x" * 2**21})
        assert answer.status_code == 413 and answer.json()["error"]["code"] == "request_too_large"
        # A head that comes in time and a second one on the same connection.
        with httpx2.Client(headers=HEADERS) as one:
            assert [one.get(f"{strict.url}/v1/models").status_code for _ in range(2)] == [200, 200]
        wait_for(lambda: not connections)
        body = json.dumps({"prompt": "x" * 2_000_000}).encode()
        large = head("/tokenize", f"Content-Length: {len(body)}") + body
        asyncio.run(never_read(strict, large))


def test_no_request_is_taken_at_the_end(start: Callable[..., Any]) -> None:
    with start() as ending:
        ending.service.scheduler.close(timeout=0)
        with pytest.raises(openai.InternalServerError) as caught:
            ending.client.chat.completions.create(model=NAME, messages=MESSAGES)
        assert caught.value.status_code == 503 and caught.value.response.headers["retry-after"]


def test_drafts_change_no_answer(running: Running, start: Callable[..., Any]) -> None:
    with start(speculate="ngram") as drafted:
        for options in ({"temperature": 0, "n": 2}, {"seed": 4, "logprobs": True}):
            plain, fast = (
                each.client.chat.completions.create(
                    model=NAME, messages=MESSAGES, max_tokens=60, logit_bias={"2": -100}, **options
                )
                for each in (running, drafted)
            )
            assert fast.choices == plain.choices
        assert drafted.service.scheduler.counts.accepted_tokens > 0
    with pytest.raises(CheckpointError, match="speculate"):
        Service(running.service.model, ServerSettings(speculate="no-such-model"))


def test_a_thousand_slow_clients(running: Running) -> None:
    """They wait in the middle of their request and read slowly; others are answered meanwhile."""
    raise_file_limit(2 * CROWD + 200)  # of this process, which is both ends
    body = json.dumps({"model": NAME, "messages": MESSAGES, "max_tokens": 2, "stream": True}).encode()
    request = head("/v1/chat/completions", f"Content-Length: {len(body)}", "Connection: close") + body
    all_there, go = 0, asyncio.Event()

    async def slow() -> bytes:
        nonlocal all_there
        reader, writer = await connect(running)
        writer.write(request[:-20])
        await writer.drain()
        all_there += 1
        await go.wait()
        writer.write(request[-20:])
        answer = b"".join([piece async for piece in _bytes(reader)])
        writer.close()
        return answer

    async def all_of_them() -> list[bytes]:
        waiting = [asyncio.ensure_future(slow()) for _ in range(CROWD)]
        while all_there < CROWD:
            await asyncio.sleep(0.01)
        quick = await asyncio.to_thread(
            running.client.chat.completions.create, model=NAME, messages=MESSAGES, max_tokens=2
        )
        assert quick.usage is not None
        go.set()
        return await asyncio.gather(*waiting)

    answers = asyncio.run(all_of_them())
    assert all(b" 200 OK" in answer and b"data: [DONE]" in answer for answer in answers)
    wait_for(lambda: running.idle)


async def _bytes(reader: asyncio.StreamReader) -> Any:
    while piece := await reader.read(64):
        yield piece


def test_metrics(running: Running) -> None:
    def read() -> dict[str, float]:
        text = httpx2.get(f"{running.url}/metrics", headers=HEADERS).text
        return {name: float(value) for name, value in re.findall(r"^(\S+) (\S+)$", text, re.MULTILINE)}

    before = read()
    running.client.chat.completions.create(
        model=NAME, messages=MESSAGES, max_tokens=5, **{"logit_bias": {"2": -100}}
    )
    route = 'fullspan_requests_total{route="/v1/chat/completions",status="200"}'
    wait_for(lambda: read().get(route) == before.get(route, 0) + 1)  # counted once the answer is sent
    after = read()
    assert after["fullspan_answer_tokens_total"] == before["fullspan_answer_tokens_total"] + 5
    assert after["fullspan_running_answers"] == 0
    assert after["fullspan_first_token_seconds_count"] == before["fullspan_first_token_seconds_count"] + 1


@contextmanager
def process(folder: Path, port: int = 0) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-m", "fullspan", "serve", str(folder), "--port", str(port), "--name", NAME]
    environment = os.environ | {KEY_VARIABLE: KEY}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as server:
        try:
            assert server.stdout is not None
            found = re.search(r"http://\S+", server.stdout.readline())
            assert found, server.communicate()[1]
            yield server, found[0]
        finally:
            server.kill()


@pytest.mark.slow
def test_a_killed_server_starts_again_and_a_stopped_one_finishes(served_folder: Path) -> None:
    def stream(url: str) -> Iterator[Any]:
        with OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
            yield from client.chat.completions.create(model=NAME, messages=MESSAGES, stream=True, **ENDLESS)

    with process(served_folder) as (server, url):
        events = stream(url)
        next(events)
        server.kill()
        with pytest.raises((openai.APIError, httpx2.HTTPError)):
            list(events)
    with process(served_folder, port=int(url.rsplit(":", 1)[1])) as (server, again):
        assert again == url
        events = stream(url)
        next(events)
        server.send_signal(signal.SIGTERM)
        pieces = [event.choices[0] for event in events]
        assert pieces[-1].finish_reason == "length"
        _, errors = server.communicate(timeout=60)
        assert server.returncode == 0
        with pytest.raises(openai.APIConnectionError):
            next(stream(url))
    [line] = [line for line in errors.splitlines() if line.startswith("{")]
    facts = json.loads(line)
    assert (facts["route"], facts["status"], facts["answer_tokens"]) == ("/v1/chat/completions", 200, 900)
    assert facts["finish_reasons"] == ["length"] and facts["seconds"] > 0
    assert "secret" not in errors and KEY not in errors
    assert time.strptime(facts["time"], "%Y-%m-%dT%H:%M:%SZ")
