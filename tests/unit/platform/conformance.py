"""Calls made from the interface's own description (schemathesis), and what their answers must hold to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from streams.api.call_examples import VALUES


def no_server_error(_context: Any, answer: Any, _case: Any) -> bool | None:
    """No 5xx, except that an entry which the caller waits for has not come yet."""
    if answer.status_code < 500:
        return None
    assert answer.json()["code"] == "not_yet", answer.text
    assert int(answer.headers["retry-after"][0]) >= 1
    return None


CHECKS: list[Any] = [
    no_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]
Ask = Callable[[Any], Any]
"""Makes the call of a case, and returns its answer."""


def try_every_call(schema: Any, ask: Ask, examples: int) -> dict[str, Counter[int]]:
    """Make so many calls of each kind, half of them in a form that the description does not allow.

    Returns the statuses of each call's answers. Raises for an answer that is not described, or is a server's error.
    """
    return {operation.label: _tried(operation, ask, examples) for operation in operations(schema)}


def operations(schema: Any) -> Iterator[Any]:
    """Every call of the description."""
    for found in schema.get_all_operations():
        yield found.ok()


def _tried(operation: Any, ask: Ask, examples: int) -> Counter[int]:
    statuses: Counter[int] = Counter()

    def run(mode: Any) -> None:
        @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        @given(case=operation.as_strategy(generation_mode=mode), known=st.booleans())
        def tried(case: Any, known: bool) -> None:
            if known:  # of something that is there: else most answers are 404
                for name in case.path_parameters or ():
                    case.path_parameters[name] = str(VALUES.get(name, case.path_parameters[name]))
            answer = ask(case)
            statuses[answer.status_code] += 1
            case.validate_response(answer, checks=CHECKS)

        tried()

    run(schemathesis.GenerationMode.POSITIVE)
    try:
        run(schemathesis.GenerationMode.NEGATIVE)
    except Unsatisfiable:
        assert not operation.path_parameters, "what takes nothing has no wrong form"
    return statuses
