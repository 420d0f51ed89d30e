"""OpenMeter's events as usage: the rule of `streams.api.openmeter_events`, case by case."""

from __future__ import annotations

from typing import Any

import pytest

from streams.api.cloud_events import Given, Refused
from streams.api.openmeter_events import parse_openmeter_event

NOW = 1_780_056_000_000_000
EVENT: dict[str, Any] = {"specversion": "1.0", "id": "e1", "source": "my-app", "type": "prompt", "subject": "acme"}


def usage(data: Any = None, **changes: Any) -> dict[str, Any]:
    """The fields of the usage that an event becomes; those only that are set."""
    event = {name: value for name, value in {**EVENT, "data": data, **changes}.items() if value is not ...}
    parsed = parse_openmeter_event(event, NOW)
    assert isinstance(parsed, Given), parsed
    return {name: value for name, value in parsed.record.to_record().items() if value not in (None, {}, False, 0)}


BARE = {"event_id": "e1", "org_id": "acme", "operation": "prompt", "source": "my-app", "occurred_at": NOW}


@pytest.mark.parametrize(
    ("data", "fields"),
    [
        (None, {}),
        ({}, {}),
        ({"tokens": 100, "model": "gpt-4o", "type": "input"},
         {"input_tokens": 100, "model": "gpt-4o", "attributes": {"type": "input"}}),
        ({"tokens": "1234", "type": "output"}, {"output_tokens": 1234, "attributes": {"type": "output"}}),
        ({"tokens": 5, "type": "system"}, {"attributes": {"tokens": "5", "type": "system"}}),
        ({"tokens": 5}, {"attributes": {"tokens": "5"}}),
        ({"prompt_tokens": 5, "completion_tokens": 10.0, "total_tokens": 15},
         {"input_tokens": 5, "output_tokens": 10, "attributes": {"total_tokens": "15"}}),
        ({"prompt_tokens": 5, "input_tokens": 5}, {"input_tokens": 5, "attributes": {"input_tokens": "5"}}),
        ({"cost": "0.25", "wallet": "USD", "user_id": "u1"},
         {"cost_nanos": 25 * 10**7, "wallet": "USD", "user_id": "u1"}),
        ({"revision": 3, "voided": True, "org_id": "other", "source": "mine"},
         {"attributes": {"revision": "3", "voided": "true", "org_id": "other", "source": "mine"}}),
        ({"path": "/a", "nested": {"a": [1]}, "none": None, "ok": False},
         {"attributes": {"path": "/a", "nested": '{"a":[1]}', "ok": "false"}}),
    ],
)  # fmt: skip
def test_data_as_fields_of_usage(data: Any, fields: dict[str, Any]) -> None:
    assert usage(data) == {**BARE, **fields}


def test_the_time_is_the_events_own() -> None:
    assert usage(time="2026-05-01T12:00:00+02:00")["occurred_at"] == 1_777_629_600_000_000
    assert usage(specversion=...) == BARE


def test_the_ledgers_own_types_are_read_as_everywhere() -> None:
    data = {"operation": "chat", "input_tokens": 7, "occurred_at": NOW}
    assert usage(data, type="credits.usage.v1") == {**BARE, "operation": "chat", "input_tokens": 7}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"id": ...}, "id"),
        ({"id": ""}, "id"),
        ({"subject": ...}, "subject"),
        ({"subject": 7}, "subject"),
        ({"source": ...}, "source"),
        ({"type": ...}, "type"),
        ({"specversion": "2.0"}, "specversion"),
        ({"datacontenttype": "text/plain"}, "datacontenttype"),
        ({"data": [1]}, "data"),
        ({"data": "text"}, "data"),
        ({"data": {"model": 7}}, "model"),
        ({"data": {"input_tokens": -1}}, "input_tokens"),
        ({"data": {"input_tokens": 1.5}}, "input_tokens"),
        ({"data": {"cost": 0.1}}, "cost"),
        ({"data": {str(each): "x" for each in range(65)}}, "attributes"),
        ({"data": {"long": "x" * 5_000}}, "attributes"),
        ({"id": "x" * 129}, "event_id"),
        ({"time": "yesterday"}, "occurred_at"),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, Any], field: str) -> None:
    event = {name: value for name, value in {**EVENT, **changes}.items() if value is not ...}
    refused = parse_openmeter_event(event, NOW)
    assert isinstance(refused, Refused)
    assert refused.field.startswith(field), refused
    assert refused.code in ("invalid_field", "amount_out_of_range")


@pytest.mark.parametrize("event", [None, 7, "x", [], {}])
def test_what_is_no_event(event: Any) -> None:
    assert isinstance(parse_openmeter_event(event, NOW), Refused)
