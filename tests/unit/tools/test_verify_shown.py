"""The table of `credits verify`: the ends of every row add up to its records, and what has no entry says why."""

from __future__ import annotations

import pytest

from streams.cli.verify import document, show_inputs
from streams.verify.audit import Report
from streams.verify.sources import TopicCount

USAGE = TopicCount(records=9, ledger=5, dead_letters=3, duplicates=1)
INPUTS = {
    "x-credits.usage.v1": USAGE,
    "x-credits.prices.v1": TopicCount(records=28, gone=2),
    "x-credits.internal.transfer-legs.v1": TopicCount(records=60, ledger=58),
}


def shown(capsys: pytest.CaptureFixture[str], inputs: dict[str, TopicCount]) -> list[str]:
    show_inputs(inputs)
    return capsys.readouterr().out.splitlines()


def test_every_row_adds_up(capsys: pytest.CaptureFixture[str]) -> None:
    head, *rows, why = shown(capsys, INPUTS)
    assert head.split("  ")[-2:] == ["no entry", "gone by retention"]
    for row in rows:
        records, *ends, _gone = map(int, row.split()[1:])
        assert records == sum(ends), row
    assert why == "no entry: prices change no account; a transfer to an unknown organisation goes back"


def test_only_what_is_there_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    head, row = shown(capsys, {"credits.usage.v1": USAGE})
    assert head.endswith("duplicates")
    assert row.split()[1:] == ["9", "5", "3", "1"]
    legs = {"credits.internal.transfer-legs.v1": TopicCount(records=2, ledger=1)}
    assert shown(capsys, legs)[-1] == "no entry: a transfer to an unknown organisation goes back"
    unnamed = {"credits.usage.v1": TopicCount(records=2, ledger=1)}
    assert shown(capsys, unnamed)[-1] == "no entry: the dead letters of others were deleted by retention"


def test_machines_read_what_they_read_before_and_what_has_no_entry() -> None:
    inputs = document(Report(inputs=INPUTS))["inputs"]
    assert inputs["x-credits.prices.v1"] == {
        "records": 28,
        "ledger": 0,
        "dead_letters": 0,
        "duplicates": 0,
        "no_entry": 28,
        "gone": 2,
    }
