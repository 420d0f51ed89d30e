"""A product's month: read from its folder, and sent through a port; what is at the other end does not matter here.

Rules of this file: time is virtual: each line says when its record arrives, and a record occurred when it arrived
unless it says otherwise. Lines are sent in their order; `advance` lets time pass without a record; `look` keeps the
balances as of then. `$topup N` in a record stands for the id of the N-th top-up request of its organisation.
Nothing but the port knows whether there is a broker.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from schemas.enums import InputKind
from schemas.events import INPUTS
from schemas.jsonl import BadLine, parse_fields, read_json_lines
from schemas.times import parse_time

HERE = Path(__file__).parent
PRODUCTS = ("gateway", "eur_platform", "credits_card", "image_api", "agent_platform")

Row = dict[str, Any]


@dataclass(frozen=True)
class Results:
    """What the ledger has written so far: records as in Avro, times in microseconds."""

    ledger: Sequence[Row]
    alerts: Sequence[Row]
    """Of all three topics; each topic in its order."""
    decisions: Sequence[Row]
    topup_requests: Sequence[Row]
    dead_letters: Sequence[tuple[str, str]]
    """Code, and the id of the record."""
    balances: Mapping[str, Row]
    """The latest of each organisation."""


class Port(Protocol):
    """The way to a ledger, whatever it runs on.

    Records arrive in the order in which they are sent, over all topics and organisations; a transfer has come to its
    end (arrived and acknowledged, or returned) before the next record is taken.
    """

    def send(self, kind: InputKind, record: Row, at: int) -> None:
        """Let a record (as in Avro) arrive at `at`, microseconds; prices are known from then on."""
        ...

    def advance(self, at: int) -> None:
        """Let time pass until `at`, and what is due happen."""
        ...

    def results(self) -> Results:
        """Everything written, once all that was sent is dealt with, transfers between organisations included."""
        ...


@dataclass(frozen=True)
class Line:
    """One step of a scenario: a record that arrives, or `advance`, or `look`."""

    kind: str
    at: int
    fields: Row
    unchecked: bool = False
    """The record is one that a client would not send; it is sent as it stands, as in Avro."""


@dataclass(frozen=True)
class Scenario:
    """Everything that goes in."""

    name: str
    prices: Sequence[Row]
    settings: Sequence[Row]
    lines: Sequence[Line]


@dataclass(frozen=True)
class MonthRun:
    """What came out: at the end, and the balances at each `look`."""

    results: Results
    looks: Mapping[str, Mapping[str, Row]] = field(default_factory=dict)


def load(name: str) -> Scenario:
    """The scenario of a product; every line is checked as `credits produce` checks it. Raises ValueError."""
    folder = HERE / name
    lines = [_line(fields) for fields in json_lines(folder / "scenario.jsonl")]
    order = [line.at for line in lines]
    if order != sorted(order):
        late = next(index for index in range(1, len(order)) if order[index] < order[index - 1])
        raise ValueError(f"{name}: line {late + 1} of the scenario arrives before the one above it")
    return Scenario(
        name,
        _records(InputKind.PRICE, folder / "prices.jsonl"),
        _records(InputKind.SETTING, folder / "settings.jsonl"),
        lines,
    )


def run(scenario: Scenario, port: Port) -> MonthRun:
    """Send prices, settings and the month's lines through the port."""
    begin = min(setting["occurred_at"] for setting in scenario.settings)
    for price in scenario.prices:
        port.send(InputKind.PRICE, price, begin)
    for setting in scenario.settings:
        port.send(InputKind.SETTING, setting, setting["occurred_at"])
    looks: dict[str, Mapping[str, Row]] = {}
    for line in scenario.lines:
        if line.kind == "advance":
            port.advance(line.at)
        elif line.kind == "look":
            looks[line.fields["name"]] = port.results().balances
        else:
            port.send(InputKind(line.kind), _record(line, port), line.at)
    return MonthRun(port.results(), looks)


def json_lines(path: Path) -> list[Row]:
    """The objects of a file of JSON lines; blank lines are passed over."""
    texts = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(text) for text in texts if text.strip()]


def _records(kind: InputKind, path: Path) -> list[Row]:
    found: list[Row] = []
    for parsed in read_json_lines(kind, path.read_text(encoding="utf-8").splitlines()):
        if isinstance(parsed, BadLine):
            raise ValueError(f"{path.parent.name}/{path.name}: {parsed}")
        found.append(parsed.record.to_record())
    return found


def _line(fields: Row) -> Line:
    plain = {name: value for name, value in fields.items() if name not in ("kind", "at", "unchecked", "grant_kind")}
    if "grant_kind" in fields:
        plain["kind"] = fields["grant_kind"]
    if "setting" in fields:
        plain["kind"] = plain.pop("setting")
    at = parse_time(fields["at"])
    return Line(fields["kind"], at, plain, bool(fields.get("unchecked")))


def _record(line: Line, port: Port) -> Row:
    fields: Row = {"occurred_at": line.at, **line.fields}
    if line.kind == InputKind.PRICE:
        del fields["occurred_at"]
    for name, value in fields.items():
        if isinstance(value, str) and value.startswith("$topup "):
            fields[name] = _topup_request_id(int(value.split()[1]), fields["org_id"], port.results())
    kind = InputKind(line.kind)
    if line.unchecked:
        return INPUTS[kind].from_record(fields).to_record()
    return parse_fields(kind, fields).to_record()


def _topup_request_id(number: int, org_id: str, results: Results) -> str:
    own = [row["topup_request_id"] for row in results.topup_requests if row["org_id"] == org_id]
    if len(own) < number:
        return f"no request {number} was made"  # the comparison tells; the month goes on
    return str(own[number - 1])
