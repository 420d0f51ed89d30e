"""The verifier knows how costs come to be: true components pass, and each kind of false one is named."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.amounts import NANOS, parse_amount
from schemas.codec import batch_of
from schemas.enums import BillingUnit, RefundTarget
from streams.ledger.commands import Usage
from streams.ledger.rating import Price, PriceList, PriceTier
from streams.verify.fold import LedgerFold
from tests.unit.ledger.world import World

MILLION, UNIT = BillingUnit.MILLION_TOKENS, BillingUnit.UNIT
PRICES = PriceList(
    [
        Price("in", "chat", 1_400_000_001, MILLION, "USD", 0, meter="input_tokens", minimum_nanos=9),
        Price("out", "chat", 130_000, MILLION, "USD", 0, meter="output_tokens"),
        Price("read", "chat", 260_000_000, MILLION, "USD", 0, meter="cache_read_tokens"),
        Price("images", "image", NANOS, UNIT, "USD", 0, meter="images", tiers=(PriceTier(3 * NANOS, 2 * NANOS),)),
        Price("host", "host", 777, BillingUnit.HOUR, "USD", 0),
        Price("third", "*", 0, UNIT, "", 0, org_id="bolt", factor_nanos=333_333_333),
    ]
)
Row = dict[str, Any]


def true_ledger() -> list[Row]:
    world = World(PRICES)
    for org in ("acme", "bolt"):
        world.buy("1000", org)
        world.do(Usage("chat", org, world.at, "chat", input_tokens=1_001, cache_read_tokens=501, output_tokens=77))
        world.do(Usage("few", org, world.at, "chat", input_tokens=1))
        world.do(Usage("host", org, world.at, "host", quantity_nanos=NANOS // 3, replicas=2))
        world.do(Usage("image", org, world.at, "image", quantities={"images": 5 * NANOS}))
        world.refund(RefundTarget.USAGE, "image", "0.1", org)
        world.do(Usage("image", org, world.at, "image", quantities={"images": 2 * NANOS}, revision=1))
        world.do(Usage("image", org, world.at, "image", revision=2, voided=True))
    return [entry.to_record() for org in ("acme", "bolt") for entry in world.entries[org]]


def differences(rows: list[Row]) -> list[str]:
    fold = LedgerFold()
    for start in range(0, len(rows), 5):
        fold.add(batch_of("entry", rows[start : start + 5]))
    return [each.code for each in fold.differences.kept]


def test_a_true_ledger_passes() -> None:
    assert differences(true_ledger()) == []


def usage(rows: list[Row], event_id: str) -> Row:
    return next(row for row in rows if row["event_id"] == event_id and row["kind"] == "usage")


def _more(rows: list[Row]) -> None:
    usage(rows, "chat")["components"][0]["amount_nanos"] += 1


def _moved(rows: list[Row]) -> None:
    first, second = usage(rows, "chat")["components"][:2]
    first["amount_nanos"] += 5
    second["amount_nanos"] -= 5


def _other_quantity(rows: list[Row]) -> None:
    usage(rows, "host")["components"][0]["quantity_nanos"] *= 2


def _less_counted(rows: list[Row]) -> None:
    row = usage(rows, "image")
    row["details"] = row["details"].replace(str(5 * NANOS), str(4 * NANOS))


def _refunded_twice(rows: list[Row]) -> None:
    row = next(row for row in rows if row["kind"] == "correction")
    row["details"] = row["details"].replace('"images":', '"images":9')


def _correction_adds(rows: list[Row]) -> None:
    row = next(row for row in rows if row["kind"] == "correction")
    for part in row["components"]:
        part["amount_nanos"] *= -1
        part["quantity_nanos"] *= -1


@pytest.mark.parametrize(
    ("falsify", "code"),
    [
        (_more, "components"),
        (_moved, "component"),
        (_other_quantity, "component"),
        (_less_counted, "counter"),
        (_refunded_twice, "counter"),
        (_correction_adds, "components"),
    ],
)
def test_a_false_component_is_named(falsify: Any, code: str) -> None:
    rows = true_ledger()
    falsify(rows)
    assert code in differences(rows)


def test_a_factor_is_finer_than_its_unit_price_shows() -> None:
    price = usage([row for row in true_ledger() if row["org_id"] == "bolt"], "chat")["components"][0]
    assert price["unit_price_nanos"] == round(1_400_000_001 * 0.333333333)
    assert parse_amount("0.333333333") == 333_333_333
