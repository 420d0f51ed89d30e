"""A trace of requests as usage events: ids always the same, times to the microsecond, bad lines named."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.events import Usage
from streams.cli.trace import requests_of, shift_to_now_us
from streams.client.trace import TraceError, read_trace, usage_records
from streams.errors import OperatorError

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
AZURE = Path(__file__).parents[4] / "shared" / "data" / "AzureLLMInferenceTrace_conv.csv"


def trace(*rows: str) -> list[str]:
    return [HEADER, *(f"{row}\n" for row in rows)]


def test_a_row_becomes_an_event() -> None:
    requests = list(read_trace(trace("2023-11-16 18:15:46.6805900,374,44")))
    (event,) = usage_records(requests, "acme", "gpt-4o")
    assert event["occurred_at"] == 1_700_158_546_680_590
    assert (event["input_tokens"], event["output_tokens"]) == (374, 44)
    assert (event["org_id"], event["model"], event["operation"]) == ("acme", "gpt-4o", "chat.completion")
    Usage.model_validate(event)


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("2023-11-16 18:15:46", 1_700_158_546_000_000),
        ("2023-11-16 18:15:46.5", 1_700_158_546_500_000),
        ("2023-11-16T18:15:46.1234567", 1_700_158_546_123_456),
        ("2023-11-16 18:15:46.5+00:00", 1_700_158_546_500_000),
        ("2023-11-16 19:15:46+01:00", 1_700_158_546_000_000),
        ("2023-11-16T18:15:46.25Z", 1_700_158_546_250_000),
    ],
)
def test_times(text: str, micros: int) -> None:
    (request,) = read_trace(trace(f"{text},1,2"))
    assert request.at == micros


def test_the_same_file_gives_the_same_ids_and_no_two_rows_share_one() -> None:
    rows = trace(*["2023-11-16 18:15:46.68,374,44"] * 3, "2023-11-16 18:15:47,374,44")
    once = [event["event_id"] for event in usage_records(read_trace(rows), "acme", "gpt-4o")]
    moved = [event["event_id"] for event in usage_records(read_trace(rows), "acme", "gpt-4o", shift_us=5)]
    assert once == moved
    assert len(set(once)) == 4
    other = [event["event_id"] for event in usage_records(read_trace(rows), "beta", "gpt-4o")]
    assert not set(once) & set(other)


def test_a_file_that_grew_keeps_its_ids() -> None:
    rows = trace("2023-11-16 18:15:46.68,374,44", "2023-11-16 18:15:47,1,2")
    ids = [event["event_id"] for event in usage_records(read_trace(rows), "acme", "m")]
    grown = [
        event["event_id"] for event in usage_records(read_trace([*rows, "2023-11-16 18:15:48,3,4\n"]), "acme", "m")
    ]
    assert grown[:2] == ids


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["when,ContextTokens,GeneratedTokens\n"], "line 1: no column TIMESTAMP"),
        (trace("yesterday,1,2"), "line 2, TIMESTAMP"),
        (trace("2023-11-16 18:15:46.,1,2"), "line 2, TIMESTAMP"),
        (trace("2023-11-16 18:15:46,1,2", "2023-11-16 18:15:46,one,2"), "line 3, ContextTokens"),
        (trace("2023-11-16 18:15:46,1,-2"), "line 2, GeneratedTokens"),
        (trace("2023-11-16 18:15:46,1,²"), "line 2, GeneratedTokens"),
        (trace("2023-11-16 18:15:46,1"), "line 2: 2 columns"),
    ],
)
def test_a_bad_line_is_named(rows: list[str], message: str) -> None:
    with pytest.raises(TraceError, match=message):
        list(read_trace(rows))


def test_the_trace_ends_now_unless_told_otherwise(tmp_path: Path) -> None:
    import time

    file = tmp_path / "trace.csv"
    file.write_text("".join(trace("2023-11-16 18:15:47,1,2", "2023-11-16 18:15:46,1,2")))
    before = time.time_ns() // 1_000
    requests = requests_of(file)
    shift_us = shift_to_now_us(requests)
    first, second = usage_records(requests, "acme", "m", shift_us=shift_us)
    assert before <= first["occurred_at"] <= time.time_ns() // 1_000
    assert first["occurred_at"] - second["occurred_at"] == 1_000_000
    kept = list(usage_records(requests, "acme", "m"))
    assert kept[0]["occurred_at"] == 1_700_158_547_000_000
    assert [event["event_id"] for event in kept] == [first["event_id"], second["event_id"]]


def test_an_empty_or_missing_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text(HEADER)
    with pytest.raises(OperatorError, match="no requests"):
        requests_of(tmp_path / "empty.csv")
    with pytest.raises(OperatorError, match="no file"):
        requests_of(tmp_path / "nothing.csv")


@pytest.mark.skipif(not AZURE.exists(), reason="the Azure trace is not beside the project (../shared/data)")
def test_the_azure_trace() -> None:
    events = list(usage_records(requests_of(AZURE), "acme", "gpt-4o"))
    assert len(events) == 19_366
    assert len({event["event_id"] for event in events}) == 19_366
    assert sum(event["input_tokens"] for event in events) > 10**7


def test_a_run_of_its_own_has_ids_of_its_own() -> None:
    row = "2023-11-16 18:15:46.6805900,374,44"
    events = [next(usage_records(read_trace(trace(row)), "acme", "gpt-4o", run=run)) for run in ("", "a", "b", "a")]
    ids = [event["event_id"] for event in events]
    assert len(set(ids)) == 3
    assert ids[1] == ids[3]
