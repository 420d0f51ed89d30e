"""The five products on the real broker: each month in virtual time, as the rules say and as without a broker."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from schemas.topics import Topics
from tests.integration.ledger.broker_port import BrokerPort
from tests.products import expectation, scenario
from tests.products.memory_port import MemoryPort
from tests.products.scenario import PRODUCTS, Results, Row

WRITTEN_AT = ("recorded_at", "as_of")
"""When it was written down: that moves with batches and timers, on a broker as without one."""


@pytest.mark.parametrize("product", PRODUCTS)
def test_a_month_on_the_broker_goes_as_the_rules_say(product: str, port: BrokerPort) -> None:
    month = scenario.load(product)
    run = scenario.run(month, port)
    found = expectation.differences(expectation.load(product), run)
    assert not found, "\n".join([f"{len(found)} differences:", *found])

    alone = scenario.run(month, MemoryPort(timers_first=True))
    assert comparable(run.results) == comparable(alone.results)
    assert run.looks.keys() == alone.looks.keys()
    for name, balances in run.looks.items():
        assert plain(balances.values()) == plain(alone.looks[name].values()), name

    last_at = max(line.at for line in month.lines)
    assert all(row["recorded_at"] <= last_at for row in run.results.ledger), "some time was not the log's"
    report = port.installation.report()
    assert report.ok, report.differences


def comparable(results: Results) -> Mapping[str, Any]:
    """All that is in the outputs but what may differ: where and when it was written."""
    return {
        "ledger": sorted(map(entry, results.ledger), key=lambda row: (row["org_id"], row["seq"])),
        "alerts": sorted(
            ({**alert, "occurred_at": None} for alert in results.alerts),
            key=lambda row: (row["org_id"], row["entry_seq"], row["alert_id"]),
        ),
        "decisions": plain(results.decisions),
        "topup_requests": plain(results.topup_requests),
        "dead_letters": list(results.dead_letters),
        "balances": plain(results.balances.values()),
    }


def entry(row: Row) -> Row:
    """An entry without its time and, of the legs (whose topic has transactions), without its offset."""
    leg = row["source_topic"] == Topics().name("transfer_legs")
    return {**row, "source_offset": None if leg else row["source_offset"], "recorded_at": None}


def plain(rows: Iterable[Row]) -> list[Row]:
    """Rows by organisation, each organisation's in their order, without the time of writing."""
    kept = [{name: value for name, value in row.items() if name not in WRITTEN_AT} for row in rows]
    return sorted(kept, key=lambda row: str(row["org_id"]))
