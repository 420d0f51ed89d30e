"""docs/prices.md is true: each example, run through the ledger, says what the page shows."""

from __future__ import annotations

import json
import re
from typing import NamedTuple

import pytest

from schemas.amounts import format_amount
from schemas.enums import EntryKind, InputKind
from schemas.jsonl import parse_fields
from streams.cli.tail_lines import how_it_came
from streams.ledger.commands import Usage
from streams.ledger.rating import Price, PriceList
from streams.ledger.refusals import DeadLetter
from tests.tidy.source import ROOT
from tests.unit.ledger.world import START, World

PAGE = ROOT / "docs" / "prices.md"
BLOCK = re.compile(r"```(json prices|json usage|text)\n(.*?)```", re.DOTALL)


class Example(NamedTuple):
    """A section of the page that has one."""

    title: str
    prices: list[str]
    usage: list[str]
    shown: list[str]


def examples() -> list[Example]:
    found = []
    for section in PAGE.read_text(encoding="utf-8").split("\n## ")[1:]:
        blocks = {kind: text.splitlines() for kind, text in BLOCK.findall(section)}
        if blocks:
            found.append(
                Example(section.partition("\n")[0], blocks["json prices"], blocks["json usage"], blocks["text"])
            )
    return found


def said(world: World, line: str) -> str:
    fields = {"org_id": "acme", "occurred_at": START, **json.loads(line)}
    usage = Usage.from_record(parse_fields(InputKind.USAGE, fields).to_record())
    try:
        outcome = world.do(usage)
    except DeadLetter as refusal:
        return f"{usage.event_id}: {refusal.code}: {refusal.message}"
    (entry,) = (entry for entry in outcome.entries if entry.kind in (EntryKind.USAGE, EntryKind.CORRECTION))
    components = entry.to_record()["components"]
    return f"{usage.event_id}: {format_amount(-entry.amount_nanos)} {how_it_came(components)}"


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.title)
def test_the_page_shows_what_the_ledger_says(example: Example) -> None:
    records = [
        parse_fields(InputKind.PRICE, {"wallet": "USD", "valid_from": START, **json.loads(line)})
        for line in example.prices
    ]
    world = World(PriceList(Price.from_record(record.to_record()) for record in records))
    world.buy("1000")
    assert [said(world, line) for line in example.usage] == example.shown


def test_every_rule_has_an_example() -> None:
    titles = re.findall(r"^## (.*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    without = titles[len(examples()) :]
    assert [example.title for example in examples()] == titles[: len(examples())]
    assert without[0] == "What is refused when it is published"
