"""Five products, each a month of its life by settings alone: the ledger says what the product's rules say.

What is expected was derived from the rules by hand (the README of each product shows how); nothing of it was taken from
what the ledger wrote.
"""

from __future__ import annotations

from functools import cache

import pytest

from tests.products import expectation, scenario
from tests.products.expectation import Expected
from tests.products.memory_port import MemoryPort
from tests.products.scenario import PRODUCTS, Row, Told

WAYS = {
    "one by one": (1, False),
    "in sevens": (7, False),
    "all at once": (1_000, False),
    "timers first": (1, True),
}


@cache
def month(product: str, way: str) -> Told:
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

    def written(told: Told) -> list[Row]:
        by_org = sorted(told.results.ledger, key=lambda row: (row["org_id"], row["seq"]))
        alerts = sorted(told.results.alerts, key=lambda row: (row["org_id"], row["entry_seq"], row["alert_id"]))
        return [{**row, "recorded_at": None} for row in by_org] + [{**alert, "occurred_at": None} for alert in alerts]

    assert written(month(product, way)) == written(month(product, "one by one"))


@pytest.mark.parametrize("product", PRODUCTS)
def test_an_expectation_that_is_not_met_is_told(product: str) -> None:
    """Each line counts: without it, or with an alert more, there is one difference more at least."""
    told = month(product, "one by one")
    whole = expectation.load(product)
    before = len(expectation.differences(whole, told))
    for org, lines in whole.lines.items():
        for place, line in enumerate(lines):
            extra = {**line, "alerts": [*line.get("alerts", []), {"kind": "credit_purchase_failed", "rule": "nobody"}]}
            for changed in ([], [extra]):
                other = {**whole.lines, org: [*lines[:place], *changed, *lines[place + 1 :]]}
                assert len(expectation.differences(Expected(other, whole.rest), told)) > before, (org, line)
