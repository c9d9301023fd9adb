"""Requests that are made up from the server's own OpenAPI description."""

from __future__ import annotations

from typing import Any

import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from .conftest import KEY, NAME, Running

HEADERS = {"Authorization": f"Bearer {KEY}"}


def test_any_request_is_answered_as_described(running: Running) -> None:
    schema = schemathesis.openapi.from_url(f"{running.url}/openapi.json", headers=HEADERS)
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) == 9
    for operation in operations:
        modes = [operation.as_strategy(generation_mode=GenerationMode.POSITIVE)]
        if operation.method == "post":
            modes.append(operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))

        @settings(
            max_examples=10,
            derandomize=True,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=st.one_of(modes))
        def check(case: Any) -> None:
            if isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
                case.body["model"] = NAME  # others end at the door
                if case.path.endswith("completions") and case.body.get("max_tokens") is None:
                    case.body["max_tokens"] = 4
            # A description cannot say all that is wrong, such as a prompt that is too long.
            case.call_and_validate(headers=HEADERS, excluded_checks=[positive_data_acceptance])

        check()
