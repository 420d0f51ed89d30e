"""The verifier's fold: silent on a true ledger, and each kind of lie has its own name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from schemas.codec import batch_of
from streams.verify.fold import LedgerFold

Rows = list[dict[str, Any]]


def entry(org: str, seq: int, kind: str, amount: int, balance: int, **fields: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "org_id": org,
        "seq": seq,
        "entry_id": f"{org}:{seq}",
        "kind": kind,
        "wallet": "USD",
        "amount_nanos": amount,
        "balance_nanos": balance,
        "available_nanos": balance,
        "held_nanos": 0,
        "occurred_at": 1,
        "recorded_at": 1,
        "event_id": f"{kind}-{org}-{seq}",
    }
    if amount > 0 and "grants" not in fields and "slices" not in fields:
        fields["grants"] = [grant(f"g{seq}", "purchased", amount)]
    row.update(fields)
    return row


def part(grant_id: str, kind: str, amount: int) -> dict[str, Any]:
    return {"grant_id": grant_id, "kind": kind, "amount_nanos": amount, "expires_at": None}


def grant(grant_id: str, kind: str, amount: int) -> dict[str, Any]:
    return {**part(grant_id, kind, amount), "priority": 50, "price_paid_nanos": None, "currency": None}


def true_ledger() -> Rows:
    """Purchase, usage into the negative, a purchase that pays it, hold and capture, a transfer, an expiry, a refund."""
    moved = {"correlation_id": "t1", "event_id": "t1"}
    left = {**moved, "counterparty_org_id": "beta"}
    return [
        entry("acme", 1, "setting", 0, 0, wallet=""),
        entry("acme", 2, "purchase", 100, 100),
        entry("acme", 3, "usage", -130, -30, slices=[part("g2", "purchased", 100), part("overdraft", "overdraft", 30)]),
        entry(
            "acme",
            4,
            "purchase",
            90,
            60,
            grants=[grant("g4", "promotional", 90)],
            slices=[part("g4", "promotional", 30), part("overdraft", "overdraft", -30)],
        ),
        entry("acme", 5, "hold", 0, 60, held_nanos=20, available_nanos=40, hold_id="h"),
        entry(
            "acme",
            6,
            "usage",
            -15,
            45,
            slices=[part("g4", "promotional", 15)],
            held_nanos=5,
            available_nanos=40,
            hold_id="h",
        ),
        entry("acme", 7, "hold_release", 0, 45, hold_id="h"),
        entry(
            "acme",
            8,
            "transfer_out",
            -10,
            35,
            slices=[part("g4", "promotional", 10)],
            counterparty_org_id="beta",
            **moved,
        ),
        entry("beta", 1, "transfer_in", 10, 10, counterparty_org_id="acme", **moved),
        entry("acme", 9, "transfer_out", 0, 35, **left),
        entry("acme", 10, "refund", 5, 40, slices=[part("g4", "promotional", -5)], event_id="r1"),
        entry("acme", 11, "expiry", -40, 0, slices=[part("g4", "promotional", 40)]),
        entry("acme", 12, "rejected", 0, 0, reason="insufficient_credits"),
    ]


def codes(rows: Rows) -> set[str]:
    fold = LedgerFold()
    # In two batches: what is known must be kept from one to the next.
    for half in (rows[: len(rows) // 2], rows[len(rows) // 2 :]):
        if half:
            fold.add(batch_of("entry", half))
    fold.finish()
    return {each.code for each in fold.differences.kept}


def test_a_true_ledger_is_true() -> None:
    assert codes(true_ledger()) == set()


def test_what_is_folded() -> None:
    fold = LedgerFold({"acme": 6})
    fold.add(batch_of("entry", true_ledger()))
    wallet = fold.orgs["acme"].wallets["USD"]
    assert (wallet.settled, wallet.held, wallet.lifetime_added, wallet.lifetime_spent) == (0, 0, 190, 140)
    assert fold.snapshots["acme"].wallets == {"USD": (45, 5, 190, 145)}
    assert fold.rejected == {"insufficient_credits": 1}
    (row,) = fold.conservation()
    assert (row.added, row.spent, row.expired, row.moved, row.balances) == (190, -140, -40, 0, 10)
    assert row.left_over == 0


def test_credits_on_the_way_are_seen_and_conserved() -> None:
    rows = list(true_ledger()[:8])
    fold = LedgerFold()
    fold.add(batch_of("entry", rows))
    fold.finish()
    assert not fold.differences.kept
    assert [name for name, _ in fold.unfinished()] == ["acme/t1"]
    (row,) = fold.conservation()
    assert row.on_the_way == 10


def change(place: int, **fields: Any) -> Callable[[Rows], None]:
    return lambda rows: rows[place].update(fields)


def drop(place: int) -> Callable[[Rows], None]:
    return lambda rows: rows.__delitem__(place)


def add(**fields: Any) -> Callable[[Rows], None]:
    def put(rows: Rows) -> None:
        rows.append(entry("acme", 13, **{"kind": "usage", "amount": 0, "balance": 0, **fields}))

    return put


LIES: dict[str, tuple[str, Callable[[Rows], None]]] = {
    "an entry is missing": ("seq_gap", drop(11)),
    "an entry stands twice": ("seq_repeated", lambda rows: rows.insert(3, dict(rows[2]))),
    "a balance is one too high": ("balance", change(6, balance_nanos=46, available_nanos=46)),
    "available forgets the hold": ("available", change(4, available_nanos=60)),
    "usage without a hold changes what is held": ("held", change(5, hold_id=None)),
    "a purchase changes what is held": ("held", change(1, held_nanos=5, available_nanos=95)),
    "held below zero": ("held_negative", change(4, held_nanos=-1, available_nanos=61)),
    "a hold that never ends": ("held", change(6, kind="setting", held_nanos=0, available_nanos=45)),
    "a hold of more than its terms": ("held", change(4, details='{"amount_nanos": 19}')),
    "a hold released twice": ("hold_released_twice", add(kind="hold_release", hold_id="h")),
    "a hold placed while it is open": (
        "hold_twice",
        change(6, kind="hold", hold_id="h", held_nanos=5, available_nanos=40),
    ),
    "usage that takes less from its hold than it costs": ("held", change(5, held_nanos=6, available_nanos=39)),
    "more counted as spent than comes back": ("spent", change(10, details='{"spent_nanos": 6}')),
    "slices that do not make the amount": ("slices", change(2, slices=[part("g2", "purchased", 129)])),
    "a grant drawn below zero": ("grant_negative", change(2, slices=[part("g2", "purchased", 130)])),
    "an overdraft paid that was not there": (
        "overdraft_negative",
        change(
            3,
            slices=[part("g4", "promotional", 40), part("overdraft", "overdraft", -40)],
        ),
    ),
    "a hold that moves credits": (
        "amount_of_kind",
        change(4, amount_nanos=-1, balance_nanos=59, slices=[part("g4", "promotional", 1)], available_nanos=39),
    ),
    "credits without a wallet": ("amount_without_wallet", change(0, amount_nanos=1)),
    "one cause, two effects": ("effect_twice", add(event_id="purchase-acme-2", kind="purchase", amount=1, balance=1)),
    "credits arrive that never left": ("transfer_from_nowhere", change(8, counterparty_org_id="nobody")),
    "more arrives than left": (
        "transfer_amount",
        change(8, amount_nanos=11, balance_nanos=11, available_nanos=11, grants=[grant("g", "purchased", 11)]),
    ),
    "credits arrive twice": (
        "transfer_twice",
        lambda rows: rows.append(
            {**rows[8], "seq": 2, "entry_id": "beta:2", "balance_nanos": 20, "available_nanos": 20}
        ),
    ),
    "credits arrive and return": (
        "transfer_twice",
        add(
            kind="transfer_return",
            amount=10,
            balance=10,
            event_id="t1",
            correlation_id="t1",
            slices=[part("g4", "promotional", -10)],
        ),
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_found(lie: str) -> None:
    code, tell = LIES[lie]
    rows = true_ledger()
    tell(rows)
    assert code in codes(rows)


def test_a_second_revision_of_a_usage_is_no_second_effect() -> None:
    rows = true_ledger()
    add(event_id="usage-acme-3", kind="usage", amount=0, balance=0, revision=1)(rows)
    assert "effect_twice" not in codes(rows)


def test_a_hold_and_a_usage_may_have_one_id() -> None:
    rows = true_ledger()
    rows[5].update(event_id="usage-acme-3", source_topic="credits.holds.v1")
    rows[2].update(source_topic="credits.usage.v1")
    assert codes(rows) == set()


def test_what_comes_back_says_how_much_of_it_was_spent() -> None:
    """3 of 5 were an allowance's, and pay a debt: the grants that they go to do not tell."""
    rows = true_ledger()
    rows[10].update(details='{"spent_nanos": 2}')
    fold = LedgerFold()
    fold.add(batch_of("entry", rows))
    fold.finish()
    assert not fold.differences.kept
    assert fold.orgs["acme"].wallets["USD"].lifetime_spent == 143


def test_amounts_near_the_bound_do_not_overflow() -> None:
    most = 9 * 10**18
    rows = [
        entry("acme", 1, "purchase", most, most),
        entry("beta", 1, "purchase", most, most),
    ]
    fold = LedgerFold()
    fold.add(batch_of("entry", rows))
    fold.finish()
    assert not fold.differences.kept
    assert fold.conservation()[0].balances == 2 * most
