"""Requests made from the description, well-formed and not, sent to a running server.

What is checked: nothing crashes; every status, content type, header and body is one that the
description tells of; a method that is not described is refused as such. What is not: that whatever
breaks the description is refused. The API takes more than it tells, as its clients need (null
for what is absent, names in any case, numbers as durations), and some parameters exclude each
other, which OpenAPI can't say.

`make fuzz` runs the same with other seeds, for longer.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
import schemathesis
from schemathesis.checks import CheckFunction
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi import checks

from tests.cli.conftest import Dev
from tests.openapi.document import document

#: Ends the process, or never ends its answer.
LEFT_OUT = ("/v1/agent/leave", "/v1/agent/monitor", "/v1/agent/metrics/stream")
EXAMPLES = int(os.environ.get("RAFTREG_FUZZ_EXAMPLES", "12"))
SOON = "20ms"

_config = SchemathesisConfig.from_dict(
    {
        "generation": {
            "max-examples": EXAMPLES,
            "deterministic": "RAFTREG_FUZZ_EXAMPLES" not in os.environ,
            "no-shrink": True,
        },
        "phases": {"examples": {"enabled": False}, "stateful": {"enabled": False}},
    }
)
api = schemathesis.openapi.from_dict(document(), config=_config).exclude(path=list(LEFT_OUT))


@schemathesis.check
def no_crash(ctx: Any, response: schemathesis.Response, case: schemathesis.Case[Any]) -> None:
    """Whatever is sent, no handler ends by an exception that it did not foresee."""
    del ctx, case
    if response.status_code >= 500 and b"Internal error" in response.content:
        raise AssertionError(f"{response.status_code}: {response.content!r}")


@schemathesis.serializer("application/x-gzip")
def _bytes(ctx: Any, value: Any) -> bytes:
    del ctx
    return value if isinstance(value, bytes) else repr(value).encode()


CHECKS: list[CheckFunction] = [
    no_crash,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.unsupported_method,
]


@api.parametrize()
@pytest.mark.timeout(300)
def test_answers_are_as_described(case: schemathesis.Case[Any], dev: Dev) -> None:
    """What the description says of an endpoint holds, whatever is sent to it."""
    if (case.query and "wait" in case.path_parameters | case.query) or "index" in (
        case.query or {}
    ):
        case.query["wait"] = SOON  # or else it waits for minutes, as it is asked to
    case.call_and_validate(base_url=f"http://{dev.http}", checks=CHECKS, timeout=20)
