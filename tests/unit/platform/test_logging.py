"""Logs stay readable while a broker is away, and nothing of ours is ever left out."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from datetime import datetime, timedelta

import pytest

from streams.logging import REPEAT_S, Telling


def record(name: str, message: str, at: float, level: int = logging.ERROR) -> logging.LogRecord:
    made = logging.LogRecord(name, level, __file__, 1, message, ("node",), None)
    made.created = at
    return made


def test_a_repeated_complaint_is_told_once_and_counted() -> None:
    telling = Telling()
    results = [telling.filter(record("aiokafka", "cannot reach %s", at=100 + n / 100)) for n in range(50)]
    assert results == [True] + [False] * 49
    next_one = record("aiokafka", "cannot reach %s", at=100 + REPEAT_S)
    assert telling.filter(next_one)
    assert next_one.getMessage() == "cannot reach node (and 49 more like it)"


def test_different_complaints_are_told() -> None:
    telling = Telling()
    assert telling.filter(record("aiokafka", "cannot reach %s", at=1))
    assert telling.filter(record("aiokafka", "no answer of %s", at=1))
    assert telling.filter(record("aiokafka.consumer", "cannot reach %s", at=1))


@pytest.mark.parametrize("name", ["streams.engine", "projections.projector", "streams"])
def test_ours_are_never_left_out(name: str) -> None:
    telling = Telling()
    assert all(telling.filter(record(name, "stopped %s", at=1)) for _ in range(5))


def test_announcements_of_services_are_not_told() -> None:
    telling = Telling()
    assert not telling.filter(record("streams.engine", "[^--Store]: Starting %s", at=1, level=logging.INFO))
    assert telling.filter(record("streams.engine", "ready %s", at=1, level=logging.INFO))


PROGRAM = """
import logging, sys, structlog
from streams.logging import configure_logging
configure_logging("info", as_json=sys.argv[1] == "json")
logging.getLogger("streams.engine").info("Partition %s restored", 3)
structlog.get_logger("streams.api").warning("waiting for ClickHouse", place="http://x", again_in_s=0.5)
logging.getLogger("uvicorn").error("not ours")
try:
    secret = "hidden"; raise ValueError("broken\\nin two lines")
except ValueError as error:
    logging.getLogger("streams.app").error("The worker stops: %r", error, exc_info=error)
if sys.argv[1] == "json":
    from streams.cli.failures import report
    from streams.errors import OperatorError
    sys.exit(report(OperatorError("no Kafka", "start it"), as_json=False))
"""


def lines_of(log_format: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, log_format], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_json_is_one_object_a_line_whoever_logs() -> None:
    lines = [json.loads(line) for line in lines_of("json")]
    assert [line["event"] for line in lines] == [
        "Partition 3 restored",
        "waiting for ClickHouse",
        "not ours",
        "The worker stops: ValueError('broken\\nin two lines')",
        "error: no Kafka: start it",
    ]
    assert [line["level"] for line in lines] == ["info", "warning", "error", "error", "error"]
    assert all(datetime.fromisoformat(line["timestamp"]).utcoffset() == timedelta(0) for line in lines)
    assert [line["logger"] for line in lines[:3]] == ["streams.engine", "streams.api", "uvicorn"]
    assert (lines[1]["place"], lines[1]["again_in_s"]) == ("http://x", 0.5)
    assert lines[3]["exception"].startswith("Traceback")
    assert "hidden" not in lines[3]["exception"].replace('secret = "hidden"', "")
    assert lines[4]["code"] == "operator_error"


def test_text_is_for_people() -> None:
    lines = lines_of("text")
    assert "Partition 3 restored" in lines[0]
    assert not lines[0].startswith("{")


HOSTILE = """
import logging, sys, structlog
from streams.logging import configure_logging
from streams.text_safety import conceal
configure_logging("info", as_json=sys.argv[1] == "json")
conceal(["correct horse battery"])
evil = "acme\\x1b[2J\\x9b31m\\u202e\\x7f\\n2026-01-01 [info] forged [red]x[/]"
logging.getLogger("streams.engine").warning("org %s", evil)
structlog.get_logger("streams.api").warning("org", org=evil, parts=[evil], password="short", n=1)
logging.getLogger("uvicorn").error("login %s failed", "http://u:p@ss@host/?api_key=hunter2")
logging.getLogger("aiokafka").error("sent correct horse battery")
try:
    raise ValueError(evil)
except ValueError as error:
    logging.getLogger("streams.app").error("The worker stops: %s", error, exc_info=error)
"""


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_what_comes_from_outside_writes_no_line_and_paints_nothing(log_format: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HOSTILE, log_format], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr.replace("\n", "").isprintable()
    for secret in ("short", "p@ss", "hunter2", "correct horse"):
        assert secret not in done.stderr
    lines = done.stderr.splitlines()
    assert not [line for line in lines if line.startswith("2026-01-01 [info] forged")]
    if log_format == "json":
        events = [json.loads(line) for line in lines]
        assert [event["level"] for event in events] == ["warning", "warning", "error", "error", "error"]
        assert events[0]["event"].endswith("forged [red]x[/]")
    else:
        assert len([line for line in lines if not line.startswith("| ")]) == 5
        assert "\\x1b[2J" in lines[0]
