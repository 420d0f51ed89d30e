"""What holds for every route that there is, also for those that come later: described with examples, refused without a
right, and 503 with `Retry-After` while Kafka or ClickHouse is away."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from streams.api import app as api_package
from streams.api.openapi import calls, problem_example
from streams.api.problem_catalogue import PROBLEMS
from streams.api.problems import MEDIA_TYPE
from streams.kafka.api_keys import KeyRole
from tests.unit.platform.test_api_keys import NOW, made
from tests.unit.platform.whole_api import WholeApi

TOKEN, KEY = made(1)
EXPIRED_TOKEN, EXPIRED = made(3, expires_at=NOW)
OTHER_TOKEN, OTHER = made(2, KeyRole.ADMIN, organisations=("globex",))
WHOLE = WholeApi([KEY, OTHER, EXPIRED])
CLIENT = TestClient(WHOLE.app, raise_server_exceptions=False)
DESCRIBED = WHOLE.api.openapi()
CALLS = {f"{method.upper()} {path}": call for path, (method, call) in calls(DESCRIBED)}
OPEN = {"/livez", "/readyz", "/metrics"}
BINARY = ("application/pdf", "application/vnd.apache.parquet")
"""Forms of an answer that a text does not show."""
NEEDS_NEITHER = re.compile(
    r"GET /(livez|readyz|metrics|contexts|config.*|mode.*|schemas/types|v1/orgs/{org}/holds/{hold})$|"
    r"PUT /(config|mode).*|DELETE /"
)
"""Calls that ask neither Kafka nor ClickHouse: a decision on a hold that is remembered stays true."""


def request_of(name: str, org: str = "acme") -> tuple[str, str, dict[str, Any]]:
    """Method, address and arguments of a call, from its examples."""
    method, _, path = name.partition(" ")
    call = CALLS[name]
    arguments: dict[str, Any] = {"headers": {"Authorization": f"Bearer {TOKEN}"}, "params": {}}
    for parameter in call.get("parameters", ()):
        if parameter["in"] == "path":
            value = org if parameter["name"] == "org" else str(parameter["example"])
            path = path.replace("{" + parameter["name"] + "}", value)
        elif "example" in parameter and parameter["in"] == "query":
            arguments["params"][parameter["name"]] = parameter["example"]
    for media_type, content in call.get("requestBody", {}).get("content", {}).items():
        arguments["content"] = json.dumps(content["example"])
        arguments["headers"]["Content-Type"] = media_type
        break
    return method, path, arguments


def ask(name: str, client: TestClient = CLIENT, **changes: Any) -> Any:
    """The answer to a call's example, with other arguments where the test says so."""
    method, path, arguments = request_of(name)
    return client.request(method, path, **{**arguments, **changes})


@pytest.fixture
def whole() -> Iterator[WholeApi]:
    """The application, as if it had just been started."""
    WHOLE.intake.sent.clear()
    WHOLE.recorded.clear()
    yield WHOLE
    WHOLE.kafka.away = False


def test_there_are_calls() -> None:
    assert len(CALLS) >= 35


@pytest.mark.parametrize("name", CALLS)
def test_a_call_is_described_with_examples(name: str) -> None:
    """Of its body, of the values in its address, of its answer, and of each of its problems."""
    call = CALLS[name]
    assert call.get("summary")
    assert call.get("description"), "a docstring says what it does"
    for parameter in call.get("parameters", ()):
        assert "example" in parameter or parameter["in"] != "path", parameter["name"]
    for media_type, content in call.get("requestBody", {}).get("content", {}).items():
        assert "example" in content, media_type
    for status, answer in call["responses"].items():
        contents = answer.get("content", {})
        if status.startswith("2") and status != "204":
            assert contents, status
            for media_type, content in contents.items():
                shown = "example" in content or media_type in BINARY
                assert shown, f"{status} {media_type}: add it to streams/api/call_examples.py"
        for media_type, content in contents.items():
            if media_type == MEDIA_TYPE:
                for code, example in content["examples"].items():
                    assert example["value"] == problem_example(code)
                    assert str(PROBLEMS[code].status) == status, (code, status)


def codes_in_the_code() -> Iterator[tuple[str, str]]:
    """Where a problem's code stands in the package of the routes."""
    for file in Path(api_package.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            constants = [each.value for each in node.args if isinstance(each, ast.Constant)]
            status = next((each for each in constants if type(each) is int and 400 <= each < 600), None)
            code = next((each for each in constants if isinstance(each, str) and re.fullmatch("[a-z_]+", each)), None)
            if status is not None and code is not None:
                yield code, file.name


def test_every_code_is_in_the_catalogue() -> None:
    found = dict(codes_in_the_code())
    assert len(found) >= 20
    assert found.keys() <= PROBLEMS.keys(), {code: found[code] for code in found.keys() - PROBLEMS.keys()}


def test_every_problem_of_the_catalogue_is_an_example_of_some_call() -> None:
    shown = {
        code
        for call in CALLS.values()
        for answer in call["responses"].values()
        for code in answer.get("content", {}).get(MEDIA_TYPE, {}).get("examples", {})
    }
    elsewhere = {"forbidden", "not_found", "method_not_allowed", "internal_error", "operator_error"}
    assert shown | elsewhere == set(PROBLEMS)


@pytest.mark.parametrize("name", [name for name in CALLS if name.partition(" ")[2] not in OPEN])
def test_a_call_without_a_key_and_with_another_organisations_is_refused_and_recorded(
    whole: WholeApi, name: str
) -> None:
    answer = ask(name, headers={})
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    answer = ask(name, headers={"Authorization": f"Bearer {EXPIRED_TOKEN}"})
    assert (answer.status_code, answer.json()["code"]) == (401, "key_expired")
    if "{org}" not in name:
        return
    _, _, arguments = request_of(name)
    answer = ask(name, headers={**arguments["headers"], "Authorization": f"Bearer {OTHER_TOKEN}"})
    assert (answer.status_code, answer.json()["code"]) == (403, "not_authorized")
    assert [(found["org_id"], found["action"]) for found in whole.recorded] == [("acme", name)]
    assert whole.intake.sent == []


@pytest.mark.parametrize("name", CALLS)
def test_a_call_while_kafka_and_clickhouse_are_away(whole: WholeApi, name: str) -> None:
    """503 with `Retry-After` and a code, and nothing half done; what needs neither answers as ever."""
    whole.kafka.away = True
    answer = ask(name)
    if NEEDS_NEITHER.match(name):
        assert answer.status_code < 500
        return
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["Retry-After"]) >= 1
    document = answer.json()
    assert document.get("code") in PROBLEMS or document["error_code"] in (50001, 50002)
    assert whole.intake.sent == []


SENDING = [name for name in CALLS if name.partition(" ")[0] in ("POST", "PUT") and name != "POST /v1/query"]
"""Calls that bring something; SQL is asked where there is a ClickHouse (`unit/projections/test_openapi.py`)."""


@pytest.mark.parametrize("name", SENDING)
def test_the_examples_are_taken(whole: WholeApi, name: str) -> None:
    """Each body as it stands in the description, in each of its forms; the answer has the members of its example."""
    _, path, arguments = request_of(name)
    for media_type, content in CALLS[name].get("requestBody", {}).get("content", {}).items():
        whole.intake.sent.clear()
        headers = {**arguments["headers"], "Content-Type": media_type}
        answer = ask(name, headers=headers, content=json.dumps(content["example"]))
        assert answer.status_code < 300, answer.text
        if answer.status_code == 204:
            assert whole.intake.sent
            continue
        kind = answer.headers["content-type"].partition(";")[0]
        shown = CALLS[name]["responses"][str(answer.status_code)]["content"][kind]["example"]
        assert members(answer.json()) <= members(shown)
        if path.startswith("/v1/") and not path.endswith("/authorize"):
            assert whole.intake.sent, "it reached Kafka"


def members(document: Any) -> set[str]:
    """The names of a document's members."""
    return set(document) if isinstance(document, dict) else set()


WRITING = [
    name
    for name, call in CALLS.items()
    if "requestBody" in call and name.partition(" ")[2].startswith(("/v1/", "/api/v1/"))
]
NO_BODY_AT_ALL: dict[str, bytes] = {
    "not JSON": b"{",
    "not UTF-8": b"\xff{}",
    "NaN": b'{"amount": NaN}',
    "1e400 for an amount": b'{"amount": 1e400}',
    "a name twice": b'{"amount": "1", "amount": "2"}',
    "nested deeply": b"[" * 100_000,
    "a text": b'"x"',
    "null": b"null",
    "10 MiB": b" " * (10 * 1024 * 1024),
}


def check_refused(whole: WholeApi, name: str, answer: Any, *statuses: int) -> None:
    """A problem that the call is described with, and nothing of it in Kafka."""
    assert answer.status_code in statuses, answer.text
    code = answer.json()["code"]
    described = CALLS[name]["responses"][str(answer.status_code)]["content"][MEDIA_TYPE]["examples"]
    assert code in described, f"{code} is no example of {answer.status_code}"
    assert whole.intake.sent == []


@pytest.mark.parametrize("body", NO_BODY_AT_ALL.values(), ids=NO_BODY_AT_ALL)
@pytest.mark.parametrize("name", WRITING)
def test_a_body_that_is_none_at_every_call_that_writes(whole: WholeApi, name: str, body: bytes) -> None:
    check_refused(whole, name, ask(name, content=body), 413 if len(body) > 10**6 else 400, 422)


@pytest.mark.parametrize("name", WRITING)
def test_fields_that_are_wrong_at_every_call_that_writes(whole: WholeApi, name: str) -> None:
    """In place of each field of the example: something of another type, a control character, too long an id."""
    _, _, arguments = request_of(name)
    example = json.loads(arguments["content"])
    first = example[0] if isinstance(example, list) else example
    wrong = [{**first, "an unknown field": 1}] if "specversion" not in first else []  # CloudEvents may have more
    for field in first.keys() - {"data"}:
        wrong += [{**first, field: value} for value in ([1], {"a": 1}, "\x00", "x" * 129)]
    for changed in wrong:
        body = [changed] if isinstance(example, list) else changed
        answer = ask(name, content=json.dumps(body))
        if answer.status_code < 300:  # what may be any text may be this one
            whole.intake.sent.clear()
            continue
        check_refused(whole, name, answer, 400, 404, 409, 422)


REMEMBERING = [
    name
    for name in WRITING
    if "idempotency_key_reused" in CALLS[name]["responses"].get("422", {}).get("content", {})[MEDIA_TYPE]["examples"]
]


@pytest.mark.parametrize("name", REMEMBERING)
def test_a_used_key_with_another_body_and_with_the_same(whole: WholeApi, name: str) -> None:
    _, _, arguments = request_of(name)
    headers = {**arguments["headers"], "Idempotency-Key": f"used-at-{name}"}
    first = ask(name, headers=headers)
    assert first.status_code == 202, first.text
    sent = list(whole.intake.sent)
    again = ask(name, headers=headers)
    assert (again.status_code, again.json()) == (202, first.json())
    other = ask(name, headers=headers, content=arguments["content"] + " ")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert whole.intake.sent == sent


def test_the_calls_that_remember_keys() -> None:
    assert {name.rpartition("/")[2] for name in REMEMBERING} == {
        "purchases",
        "refunds",
        "transfers",
        "{kind}",
        "prices",
    }
