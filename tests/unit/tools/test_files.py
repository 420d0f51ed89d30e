"""Files given to `produce` and `prices import`: every line is checked before anything is sent."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from schemas.amounts import parse_amount
from schemas.enums import InputKind
from schemas.events import Price, Usage
from streams.cli.prices import read_prices
from streams.cli.records import BadLinesError, read_records
from streams.errors import OperatorError

GOOD = {"event_id": "u1", "org_id": "acme", "occurred_at": "2026-06-01T00:00:00Z", "operation": "chat"}
NOBODY = "127.0.0.1:1"
"""An address at which no broker answers."""


def lines(tmp_path: Path, *records: object) -> Path:
    file = tmp_path / "records.jsonl"
    file.write_text("\n".join(each if isinstance(each, str) else json.dumps(each) for each in records) + "\n")
    return file


def test_good_lines_are_records(tmp_path: Path) -> None:
    first, second = read_records(InputKind.USAGE, lines(tmp_path, GOOD, "", {**GOOD, "cost": "0.5"}))
    assert isinstance(first, Usage)
    assert isinstance(second, Usage)
    assert second.cost_nanos == parse_amount("0.5")


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ("{", "line 2: not JSON"),
        ({**GOOD, "cost": "1e3"}, "line 2, cost"),
        ({**GOOD, "cost": 0.1}, "line 2, cost"),
        ({**GOOD, "cost": True}, "line 2, cost"),
        ({**GOOD, "cost_nanos": 10**19}, "line 2, cost_nanos"),
        ({**GOOD, "input_tokens": -1}, "line 2, input_tokens"),
        ({**GOOD, "occurred_at": "2026-06-01T00:00:00"}, "line 2, occurred_at"),
        ({**GOOD, "modell": "gpt"}, "line 2, modell"),
        ({"org_id": "acme"}, "line 2, event_id"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_sent(tmp_path: Path, bad: object, named: str) -> None:
    with pytest.raises(BadLinesError) as refused:
        read_records(InputKind.USAGE, lines(tmp_path, GOOD, bad, GOOD))
    assert named in refused.value.problem
    assert "nothing was sent" in refused.value.remedy


def test_the_command_says_so_in_one_line_and_fails(tmp_path: Path) -> None:
    """No broker is needed to find out: it is not even asked."""
    file = lines(tmp_path, GOOD, {**GOOD, "input_tokens": "many"}, {**GOOD, "output_tokens": 1.5})
    done = subprocess.run(
        [sys.executable, "-m", "streams", "produce", "usage", "--file", str(file)],
        capture_output=True,
        text=True,
        env={"CREDITS_KAFKA_BOOTSTRAP_SERVERS": NOBODY, "PATH": "/usr/bin"},
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "line 2, input_tokens" in errors[0]
    assert "2 lines are wrong" in errors[0]
    assert "line 3, output_tokens" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_that_is_empty_or_not_there(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="holds no records"):
        read_records(InputKind.USAGE, lines(tmp_path, ""))
    with pytest.raises(OperatorError, match="there is no file"):
        read_records(InputKind.USAGE, tmp_path / "nothing.jsonl")


def test_prices_as_csv(tmp_path: Path) -> None:
    file = tmp_path / "prices.csv"
    file.write_text(
        "price_id,operation,model,direction,unit_price,billing_unit,wallet,valid_from,free\n"
        "in,chat,gpt,input,2.5,1000000_tokens,USD,2026-01-01T00:00:00Z,\n"
        "free,chat,llama,,0,token,USD,2026-01-01T00:00:00Z,yes\n"
    )
    paid, free = read_prices(file)
    assert isinstance(paid, Price)
    assert isinstance(free, Price)
    assert (paid.unit_price_nanos, paid.direction, paid.free) == (2_500_000_000, "input", False)
    assert (free.model, free.free) == ("llama", True)


def test_a_bad_line_of_a_csv_has_its_number(tmp_path: Path) -> None:
    file = tmp_path / "prices.csv"
    file.write_text(
        "price_id,operation,unit_price,billing_unit,wallet,valid_from\n"
        "a,chat,1,token,USD,2026-01-01T00:00:00Z\n"
        "b,chat,one,token,USD,2026-01-01T00:00:00Z\n"
    )
    with pytest.raises(BadLinesError, match="line 3, unit_price"):
        read_prices(file)
