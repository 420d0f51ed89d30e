"""Usage in columns against the same events one by one: the same bytes, or no columns at all."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import encode_one
from schemas.enums import InputKind
from schemas.jsonl import short_names
from schemas.records import arrow_schema, bundled_id
from streams.api.cloud_events import Given, parse_event
from streams.api.usage_columns import usage_batch

USAGE = InputKind.USAGE
GOOD: dict[str, Any] = {"event_id": "e", "org_id": "acme", "occurred_at": "2026-05-01T12:00:00Z", "operation": "chat"}
EVENT: dict[str, Any] = {
    "specversion": "1.0", "type": "credits.usage.v1", "id": "e", "source": "s", "subject": "acme",
    "time": "2026-05-01T12:00:00Z", "data": {"operation": "chat", "cost": "1.5"},
}  # fmt: skip
NAMES = [*arrow_schema("usage").names, *short_names(USAGE).values(), "colour", "specversion"]
VALUES = st.one_of(
    st.sampled_from(
        [None, "", "x", "a" * 129, "a" * 257, "\x00", "\ud800", "é", "1.5", "-1", "1e3", "1.0000000001", "9999999999"]
    ),
    st.sampled_from([0, 1, -1, 2**31, 2**63, 10**19, 1.0, 1.5, float("inf"), True, False, [], {}, ["x"]]),
    st.sampled_from([{"a": "b"}, {"a": 1}, {"": "b"}, {"a": None}, {"a" * 129: "b"}, {"\ud800": "b"}, {"n": "1.5"}]),
    st.sampled_from(["2026-05-01T12:00:00Z", "2026-05-01T12:00:00", 1_777_000_000, 1_777_636_800_000_000]),
    st.sampled_from(
        ["2026-05-01T12:00:00.5Z", "2026-05-01T12:00:00.123Z", "2026-05-01T12:00:00.123456Z", "1970-01-01"]
    ),
    st.sampled_from(["1970-01-01T00:00:00Z", "1970-01-12T00:00:00Z", "2299-12-31T23:59:59.999999Z"]),
    st.sampled_from(["2026-02-30T12:00:00Z", "2026-05-01T24:00:00Z", "2026-05-01T12:00:60Z", "2026-13-01T12:00:00Z"]),
    st.sampled_from(
        ["2026-05-01T12:00:00+02:00", "2026-05-01 12:00:00Z", "2300-01-01T00:00:00Z", "0001-01-01T00:00:00Z"]
    ),
)
EVENTS = st.one_of(
    st.builds(lambda more: GOOD | more, st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=4)),
    st.builds(lambda at: GOOD | {"occurred_at": at}, VALUES),
    st.builds(lambda more: EVENT | more, st.dictionaries(st.sampled_from(list(EVENT)), VALUES, max_size=2)),
    st.builds(
        lambda more: EVENT | {"data": EVENT["data"] | more},
        st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=3),
    ),
    st.sampled_from([7, None, [], "x", {}]),
)


@given(events=st.lists(EVENTS, min_size=1, max_size=3), must=st.booleans())
def test_the_same_records_or_no_columns(events: list[Any], must: bool) -> None:
    one_by_one = [parse_event(event, must_be_cloud_event=must) for event in events]
    batch = usage_batch(events, must_be_cloud_events=must)
    if batch is None:
        return
    given_ = [each for each in one_by_one if isinstance(each, Given) and each.kind is USAGE]
    assert len(given_) == len(events), [each for each in one_by_one if not isinstance(each, Given)]
    schema_id = bundled_id("usage")
    assert batch.encode(schema_id) == [encode_one("usage", each.record.to_record(), schema_id) for each in given_]
    assert batch.ids == [each.record_id for each in given_]


@pytest.mark.parametrize("event", [GOOD, EVENT, GOOD | {"attributes": {"a": "b"}, "cost": "1.5", "voided": True}])
def test_a_usual_batch_is_in_columns(event: dict[str, Any]) -> None:
    """Else the test above would hold for nothing."""
    batch = usage_batch([event, event | {"source": "t"}], must_be_cloud_events="specversion" in event)
    assert batch is not None
    assert len(batch) == 2
