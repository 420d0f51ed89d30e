"""Five products, each a month of its life by settings alone: the ledger says what the product's rules say.

What is expected was derived from the rules by hand (the README of each product shows how); nothing of it was taken from
what the ledger wrote.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from schemas.amounts import parse_amount
from schemas.enums import (
    ActorRole,
    AlertKind,
    BillingUnit,
    BudgetWindow,
    Channel,
    DecisionCode,
    EntryKind,
    Health,
    HoldAction,
    InputKind,
    MemberRole,
    OnShortage,
    RefundTarget,
    RejectReason,
    SettingKind,
    ThresholdType,
    WalletStatus,
)
from streams.client import PURCHASE_PRESETS
from tests.products import expectation, scenario
from tests.products.expectation import Expected
from tests.products.memory_port import MemoryPort
from tests.products.scenario import PRODUCTS, MonthRun, Row

WAYS = {
    "one by one": (1, False),
    "in sevens": (7, False),
    "all at once": (1_000, False),
    "timers first": (1, True),
}

LIMITS_OF_AN_ACCOUNT = {
    RejectReason.AMOUNT_OUT_OF_RANGE,
    RejectReason.TOO_MANY_WALLETS,
    RejectReason.TOO_MANY_GRANTS,
    RejectReason.TOO_MANY_TRANSFERS,
    RejectReason.TOO_MANY_REFUNDS,
    RejectReason.ACCOUNT_FULL,
}
"""A month in a product's life reaches none of them: `tests/unit/ledger/test_bounds.py` does."""

BEYOND_THE_PRODUCTS = {
    BillingUnit.THOUSAND_UNITS,
    BillingUnit.MILLION_UNITS,
    BillingUnit.BILLION_UNITS,
    RefundTarget.RERATED_USAGE,
}
"""None of the five products has them: `tests/unit/ledger` and `tests/contract` do."""
SAID, SENT = "expected.*", "[!e]*.jsonl"
"""The files of what comes out, and of what goes in."""
CLOSED_SETS: dict[type[StrEnum], tuple[str, tuple[str, ...]]] = {
    EntryKind: (SAID, ("kind", "booked")),
    AlertKind: (SAID, ("kind",)),
    DecisionCode: (SAID, ("code",)),
    RejectReason: (SAID, ("reason", "code")),
    WalletStatus: (SAID, ("status",)),
    Health: (SAID, ("health",)),
    SettingKind: (SENT, ("kind", "setting")),
    ActorRole: (SENT, ("actor_role",)),
    MemberRole: (SENT, ("role",)),
    BillingUnit: (SENT, ("billing_unit",)),
    HoldAction: (SENT, ("action",)),
    OnShortage: (SENT, ("on_shortage",)),
    RefundTarget: (SENT, ("target",)),
    BudgetWindow: (SENT, ("window",)),
    ThresholdType: (SENT, ("type",)),
    Channel: (SENT, ("channels",)),
}
"""Where a product's files speak of the members of each, and under which names."""


@cache
def month(product: str, way: str) -> MonthRun:
    """A product's month, run one way."""
    batch_records, timers_first = WAYS[way]
    return scenario.run(scenario.load(product), MemoryPort(batch_records, timers_first))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("product", PRODUCTS)
def test_a_month_goes_as_the_rules_say(product: str, way: str) -> None:
    found = expectation.differences(expectation.load(product), month(product, way))
    assert not found, "\n".join([f"{len(found)} differences:", *found])


@pytest.mark.parametrize("way", list(WAYS)[1:])
@pytest.mark.parametrize("product", PRODUCTS)
def test_every_way_writes_the_same(product: str, way: str) -> None:
    """Whatever the batches and the timers: the same entries and alerts under the same ids.

    Only when they were written may differ: `recorded_at`, and when an alert was raised.
    """

    def written(run: MonthRun) -> list[Row]:
        by_org = sorted(run.results.ledger, key=lambda row: (row["org_id"], row["seq"]))
        alerts = sorted(run.results.alerts, key=lambda row: (row["org_id"], row["entry_seq"], row["alert_id"]))
        return [{**row, "recorded_at": None} for row in by_org] + [{**alert, "occurred_at": None} for alert in alerts]

    assert written(month(product, way)) == written(month(product, "one by one"))


@pytest.mark.parametrize("product", PRODUCTS)
def test_an_expectation_that_is_not_met_is_told(product: str) -> None:
    """Each line counts: without it, or with an alert more, there is one difference more at least."""
    run = month(product, "one by one")
    whole = expectation.load(product)
    before = len(expectation.differences(whole, run))
    for org, lines in whole.lines.items():
        for place, line in enumerate(lines):
            extra = {**line, "alerts": [*line.get("alerts", []), {"kind": "credit_purchase_failed", "rule": "nobody"}]}
            for changed in ([], [extra]):
                other = {**whole.lines, org: [*lines[:place], *changed, *lines[place + 1 :]]}
                assert len(expectation.differences(Expected(other, whole.rest), run)) > before, (org, line)


def test_every_preset_is_bought_in_a_month() -> None:
    """What is offered is what rule 19 says, and each amount of it is one that an organisation buys."""
    lines = scenario.load("eur_platform").lines
    bought = [line.fields["amount"] for line in lines if line.kind == InputKind.PURCHASE]
    assert PURCHASE_PRESETS == (10, 50, 100, 300, 500, 1_000)
    assert {parse_amount(str(preset)) for preset in PURCHASE_PRESETS} <= {parse_amount(amount) for amount in bought}


@pytest.mark.parametrize("closed", CLOSED_SETS, ids=lambda closed: closed.__name__)
def test_nothing_of_a_closed_set_is_left_out(closed: type[StrEnum]) -> None:
    """Whatever the contract lists happens in one of the months."""
    files, names = CLOSED_SETS[closed]
    paths = [path for product in PRODUCTS for path in (scenario.HERE / product).glob(files)]
    shown = {word for path in paths for document in documents(path) for word in words(document, names)}
    assert set(closed) - shown <= LIMITS_OF_AN_ACCOUNT | BEYOND_THE_PRODUCTS


def documents(path: Path) -> Sequence[Any]:
    """What a file of JSON, or of JSON lines, says."""
    return scenario.json_lines(path) if path.suffix == ".jsonl" else [json.loads(path.read_text(encoding="utf-8"))]


def words(document: Any, names: Collection[str]) -> Iterator[str]:
    """The texts, and the texts in lists, that stand under these names anywhere in a document."""
    if isinstance(document, dict):
        for name, value in document.items():
            if name in names:
                yield from (text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str))
            yield from words(value, names)
    elif isinstance(document, list):
        for each in document:
            yield from words(each, names)
