"""Options of the server. Free of torch and FastAPI, for the sake of help."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from fullspan.core.config import InputPath
from fullspan.core.errors import ConfigError
from fullspan.decoding.engines import SPECULATE_HELP
from fullspan.decoding.limits import BatchLimits

KEY_VARIABLE = "FULLSPAN_API_KEY"
_SHORTEST_KEY = 16


class ServerSettings(BatchLimits):
    """Where the server listens, whom it answers, and how much it takes on."""

    host: str = Field(
        "127.0.0.1", description="address to listen on; one that others can reach needs API keys"
    )
    port: int = Field(8000, ge=0, le=65535, description="0 takes a free one")
    api_key_file: InputPath | None = Field(
        None, description=f"file with an API key a line; the variable {KEY_VARIABLE} may hold one too"
    )
    name: str | None = Field(None, description="what requests call the model; default: as it was given")
    speculate: str | None = Field(None, description=SPECULATE_HELP)
    max_answer_tokens: int = Field(1024, ge=1, description="most tokens of one answer")
    max_answers: int = Field(16, ge=1, description="most answers of one request: its prompts times its n")
    max_body_kib: int = Field(1024, ge=1, description="largest request")
    max_connections: int = Field(2000, ge=1, description="clients that are connected at the same time")
    request_seconds: float = Field(600.0, gt=0, description="longest time that one request may take")
    client_seconds: float = Field(
        30.0, gt=0, description="longest wait for a client that sends or reads too slowly"
    )
    shutdown_seconds: int = Field(
        60, ge=0, description="seconds that running requests have when the server stops"
    )
    embeddings: bool = Field(
        False, description="offer /v1/embeddings; holds the model's weights a second time, in float32"
    )
    log_prompts: bool = Field(False, description="put what is asked into the log")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address.

    Examples
    --------
    >>> [is_loopback(host) for host in ("localhost", "127.0.0.1", "::1", "0.0.0.0", "example.org")]
    [True, True, True, False, False]
    """
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class ApiKeys:
    """Knows whether a key is one of those that may be used; holds digests only.

    Examples
    --------
    >>> keys = ApiKeys(["a-key-of-the-server"])
    >>> keys.allow("a-key-of-the-server"), keys.allow("another"), ApiKeys([]).allow(None)
    (True, False, True)
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._digests = [_digest(key) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def allow(self, key: str | None) -> bool:
        """Whether `key` is known, in a time that says nothing about how much of it is right."""
        if not self._digests:
            return True
        given, known = _digest(key or ""), False
        for digest in self._digests:  # all of them, whichever matches
            known |= hmac.compare_digest(given, digest)
        return known


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def read_keys(settings: ServerSettings) -> ApiKeys:
    """The keys of the file and of the environment.

    Raises
    ------
    ConfigError
        If the file cannot be read, holds no key or a short one, or if there is no key and others than this
        machine can reach the server.
    """
    keys = [key] if (key := os.environ.get(KEY_VARIABLE, "").strip()) else []
    if settings.api_key_file is not None:
        keys += _keys_of(settings.api_key_file)
    for key in keys:
        if len(key) < _SHORTEST_KEY or not key.isascii() or not key.isprintable() or " " in key:
            raise ConfigError(
                f"an API key should be {_SHORTEST_KEY} or more printable ASCII characters without spaces",
                "make one with `openssl rand -hex 32`",
            )
    if not keys and not is_loopback(settings.host):
        raise ConfigError(
            f"at {settings.host} others can reach the server, and there is no API key",
            f"give --api-key-file or set {KEY_VARIABLE}, or listen on 127.0.0.1",
        )
    return ApiKeys(keys)


def _keys_of(file: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"cannot read the API keys in {file}: {reason}") from None
    keys = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not keys:
        raise ConfigError(f"{file} holds no API key", "put one on each line")
    return keys
