"""Usage rated in columns has the cost, the components and the refusals of usage rated one by one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.encoding import batch_of, rows_of
from schemas.enums import BillingUnit
from schemas.meters import NAMED_METERS, TOTALS
from streams.ledger import usage_batch_rating
from streams.ledger.account import Account, OrgTerms, new_account
from streams.ledger.commands import Usage
from streams.ledger.pricing import rate
from streams.ledger.rating import Price, PriceList, PriceTier
from streams.ledger.refusals import DeadLetter
from streams.ledger.usage_batch_rating import kinds_of, rate_rows, unpriced

NANOS = 10**9
MILLION, UNIT, HOUR = BillingUnit.MILLION_TOKENS, BillingUnit.UNIT, BillingUnit.HOUR


def price(price_id: str, unit_price: int, unit: BillingUnit = MILLION, **more: Any) -> Price:
    return Price(price_id, more.pop("operation", "chat"), unit_price, unit, more.pop("wallet", "USD"), 0, **more)


PRICES = PriceList(
    [
        price("a-in", 2_500_000_000, model="a", meter="input_tokens"),
        price("a-out", 10_000_000_001, model="a", meter="output_tokens"),
        price("b-in", 130_000, model="b*", meter="input_tokens"),
        price("b-in-long", 77_777, model="b*", meter="input_tokens", input_tokens_above=1_000),
        price("b-out", 3, BillingUnit.THOUSAND_TOKENS, model="b*", meter="output_tokens"),
        price("b-read", 1_234, model="b*", meter="cache_read_tokens"),
        price("b-write", 99_999_999, model="b*", meter="cache_write_tokens"),
        price("b-flex", 1, BillingUnit.TOKEN, model="b*", service_tier="flex"),
        price("c", 4_000_000_000, BillingUnit.TOKEN, model="c"),
        price("d-in", 7, model="d", meter="input_tokens", valid_to=5),
        price("free", 0, BillingUnit.TOKEN, model="free", free=True),
        price("search", 10_000_001, UNIT, meter="web_searches", operation="*", service_tier="*"),
        price("minimum", 10, BillingUnit.TOKEN, model="e", minimum_nanos=100),
        price("host", 123_456_789, HOUR, operation="host"),
        price("tool", 5, BillingUnit.REQUEST, operation="tool"),
        price("dear", 8 * 10**18, UNIT, operation="dear"),
        price("volume", 2, UNIT, operation="volume", tiers=(PriceTier(10, 3),)),
        price("pro", 1_111, model="a", tier="pro", meter="input_tokens"),
        price("pro-factor", 0, operation="*", tier="pro", factor_nanos=333_333_333),
    ]
)

COUNTS = st.none() | st.sampled_from([0, 1, 999, 1_000, 1_001, 2_000, 10**9 * 9, 10**10, 9 * 10**18])
SMALL = st.none() | st.none() | st.integers(0, 600)

USAGES = st.fixed_dictionaries(
    {
        "event_id": st.just("e"),
        "org_id": st.sampled_from(["acme", "pro", "given"]),
        "occurred_at": st.integers(0, 9),
        "operation": st.sampled_from(["chat", "chat", "chat", "host", "tool", "dear", "volume", "unknown"]),
        "model": st.sampled_from([None, "a", "b1", "b2", "c", "d", "e", "free", "nobody"]),
        "service_tier": st.sampled_from([None, None, "standard", "flex", "fleks"]),
        "cost_nanos": st.sampled_from([None] * 5 + [7]),
        "quantity_nanos": st.none() | st.sampled_from([0, 1, NANOS // 2, NANOS, 60 * NANOS, 9 * 10**18]),
        "replicas": st.sampled_from([None, 0, 1, 2]),
        "quantities": st.sampled_from([{}, {}, {"web_searches": 3 * NANOS}, {"frames": 1}, {"frames": 0}]),
        "wallet": st.sampled_from([None, "EUR"]),
        **dict.fromkeys(("input_tokens", "output_tokens"), COUNTS),
        **dict.fromkeys(NAMED_METERS[2:], SMALL),
    }
)


def is_record(record: dict[str, Any]) -> bool:
    """Whether the ledger is asked about it at all: no part of it exceeds its total."""
    return all(
        record[total] is None or (record[part] or 0) <= record[total]
        for part, totals in TOTALS.items()
        for total in totals
    )


RECORDS = USAGES.filter(is_record)


def accounts() -> dict[str, Account]:
    found = {org: new_account(org) for org in ("acme", "pro", "given")}
    found["pro"].org = OrgTerms(tier="pro")
    return found


def alone(record: dict[str, Any]) -> Any:
    account = accounts()[record["org_id"]]
    try:
        rated = rate(account, Usage.from_record(record), PRICES, 10)
    except DeadLetter as refusal:
        return refusal.code, refusal.message
    components = [
        {**{name: getattr(part, name) for name in part.__struct_fields__}, "billing_unit": part.billing_unit.value}
        for part in rated.components
    ]
    return rated.cost, rated.wallet, rated.unit_price, rated.output_unit_price, rated.billing_unit, components


def in_columns(records: list[dict[str, Any]]) -> list[Any]:
    batch = batch_of("usage", records)
    ratings = rate_rows(batch, [record["org_id"] for record in records], accounts(), PRICES, kinds_of(batch))
    found: list[Any] = []
    for row, components in enumerate(ratings.components.to_pylist()):
        refusal, tariff = ratings.refused.get(row), ratings.tariffs[row]
        if refusal is not None:
            found.append((refusal.code, refusal.message))
        elif row in ratings.by_command:
            found.append("by command")
        else:
            prices = (tariff.unit_price, tariff.output_unit_price, tariff.billing_unit) if tariff else (None,) * 3
            found.append((ratings.costs[row], ratings.units[row], *prices, components))
    return found


@settings(max_examples=200, deadline=None)
@given(st.lists(RECORDS, min_size=1, max_size=12))
def test_columns_say_what_single_usages_say(records: list[dict[str, Any]]) -> None:
    for record, found in zip(records, in_columns(records), strict=True):
        if found == "by command":
            assert record["operation"] == "volume"
            continue
        assert found == alone(record)


@given(st.lists(RECORDS, min_size=1, max_size=6))
def test_what_has_no_price_is_looked_for(records: list[dict[str, Any]]) -> None:
    """Whether the price topic is to be read on, wherever a row is then refused for want of a price."""
    refused = [alone(record) for record in records]
    if any(code == "unknown_price" for code, *_ in refused):
        batch = batch_of("usage", records)
        assert unpriced(kinds_of(batch), PRICES, accounts().__getitem__)


ORDINARY: list[dict[str, Any]] = [
    {"model": "a", "input_tokens": 1_000, "output_tokens": 200},
    {"model": "b1", "input_tokens": 1_000, "output_tokens": 5, "cache_read_tokens": 700, "cache_write_tokens": 100},
    {"model": "free", "input_tokens": 10},
    {"operation": "tool", "model": "a"},
    {"operation": "host", "quantity_nanos": NANOS // 2, "replicas": 2},
]


def test_ordinary_usage_is_not_rated_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_batch_rating._Rating, "_charge_alone", lambda self, rows: _none_of(rows))
    filled = [
        {"event_id": "e", "org_id": "acme", "occurred_at": 1, "operation": "chat", **record} for record in ORDINARY * 9
    ]
    rows = rows_of(batch_of("usage", filled))
    assert in_columns(filled) == [alone(row) for row in rows]


def _none_of(rows: Any) -> None:
    assert not len(rows), f"rows {rows} are rated one by one"
