"""Requests that are made up from the server's own OpenAPI description."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from .conftest import KEY, NAME, Running

description = schemathesis.pytest.from_fixture("made_description")


@pytest.fixture
def made_description(running: Running) -> Any:
    headers = {"Authorization": f"Bearer {KEY}"}
    schema = schemathesis.openapi.from_url(f"{running.url}/openapi.json", headers=headers)
    schema.config.phases.coverage.update(enabled=False)  # thousands of requests
    return schema


@description.parametrize()
@settings(
    max_examples=12, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
def test_any_request_is_answered_as_described(case: schemathesis.Case) -> None:
    if isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
        case.body["model"] = NAME  # others end at the door
        if case.path.endswith("completions") and case.body.get("max_tokens") is None:
            case.body["max_tokens"] = 4
    # A description cannot say all that is wrong, such as a prompt that is too long.
    case.call_and_validate(
        headers={"Authorization": f"Bearer {KEY}"}, excluded_checks=[positive_data_acceptance]
    )
