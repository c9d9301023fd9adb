"""Errors in OpenAI's form: a message, the parameter that is wrong, and a code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi.responses import JSONResponse

from fullspan.core.errors import ConfigError, DataError, FullspanError
from fullspan.decoding.requests import Closing, QueueFull

_TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
# What generation calls an option, and where a request has it.
_PARAMETERS = {"json_schema": "response_format"}


class ApiError(Exception):
    """A request that is refused or cannot be finished."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """The error as JSON."""
        fallback = "server_error" if self.status >= 500 else "invalid_request_error"
        return {
            "error": {
                "message": self.message,
                "type": _TYPES.get(self.status, fallback),
                "param": self.param,
                "code": self.code,
            }
        }

    def response(self) -> JSONResponse:
        """The error as an answer."""
        return JSONResponse(self.body, self.status, self.headers)


def api_error(error: Exception) -> ApiError:
    """What a client is told about an exception; nothing about those that nobody expected."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, QueueFull):
        headers = {"Retry-After": str(error.retry_after)}
        return ApiError(429, error.message, code="queue_full", headers=headers)
    if isinstance(error, Closing):
        return ApiError(503, error.message, code="closing", headers={"Retry-After": "60"})
    if isinstance(error, ConfigError | DataError):
        named = error.message.partition(":")[0]
        known = named if named.replace("_", "").isalpha() and named != error.message else None
        text = f"{error.message} ({error.hint})" if error.hint else error.message
        return ApiError(400, text, param=_PARAMETERS.get(known or "", known))
    if isinstance(error, FullspanError):
        return ApiError(500, error.message)
    return ApiError(500, "the server failed; its log says more", code="internal_error")


def validation_error(details: Sequence[Mapping[str, Any]]) -> ApiError:
    """What pydantic found wrong with a body, without the values: those may be private or long."""
    # Of the alternatives of a field, the one that went furthest is the one that was meant.
    alternatives = [each for each in details if each["loc"][:2] == details[0]["loc"][:2]]
    first = max(alternatives, key=lambda each: len(each["loc"]))
    if first["type"] == "json_invalid":
        return ApiError(400, "the body is not valid JSON", code="invalid_json")
    place = [part for part in first["loc"] if part != "body"]
    names = [str(part) for part in place if not _names_a_type(part)]
    param = ".".join(names) or None
    if first["type"] == "extra_forbidden":
        return ApiError(400, f"unknown parameter: {param!r}", param=param, code="unknown_parameter")
    message = str(first["msg"]).removeprefix("Value error, ")
    return ApiError(400, f"{param}: {message}" if param else message, param=param, code="invalid_value")


def _names_a_type(part: object) -> bool:
    """Whether a part of a place is a type: pydantic names each that did not fit."""
    name = str(part)
    return name in ("str", "int", "float", "bool") or "[" in name or name[:1].isupper()
