"""The load of `credits bench holds`: every call gets a decision, and the first seconds are not counted."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from schemas.amounts import NANOS
from schemas.enums import EntryKind, InputKind
from streams.api.server import server_config
from streams.bench import holds
from streams.bench.holds import calls, latencies, spending_us
from streams.bench.load import org_name
from streams.errors import OperatorError
from streams.settings import Settings
from tests.unit.platform.http_server import open_door, serving
from tests.unit.platform.test_hold_routes import NOW, Place

RATE = 40


def measured(place: Place, **more: Any) -> Any:
    """The latencies of a second of calls to one process."""
    settings = Settings(_env_file=None)
    with serving(server_config(place.gateway.api, settings, open_door())) as (_, port):
        served = settings.model_copy(update={"http_port": port})
        return asyncio.run(latencies(served, calls(RATE, 1, orgs=3), **more))


def test_half_are_placings_and_half_are_captures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holds, "PLACED_AGO", 4)
    place = Place()
    for number in range(3):
        purchase = {"purchase_id": "p", "org_id": org_name(number), "occurred_at": NOW, "wallet": "USD"}
        place.ledger.take(InputKind.PURCHASE, {**purchase, "amount_nanos": 100 * NANOS})
    found = measured(place, warm_s=0.5)
    assert (len(place.ledger.booked(EntryKind.HOLD)), len(place.ledger.booked(EntryKind.USAGE))) == (20, 16)
    assert len(found) == RATE / 2
    assert min(found) > 0


def test_a_refusal_ends_it() -> None:
    """None of these organisations has credits."""
    with pytest.raises(BaseExceptionGroup) as failed:
        measured(Place(), warm_s=0.0)
    assert failed.value.subgroup(OperatorError) is not None


def test_each_spending_is_measured() -> None:
    found = spending_us(50)
    assert len(found) == 50
    assert min(found) > 0
