"""The verifier's fold: silent on a true ledger, and each kind of lie has its own name."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from schemas.codec import batch_of
from streams.settings import Settings
from streams.verify.audit import windows_of
from streams.verify.fold import HOUR_US, LedgerFold, Windows

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
    assert fold.snapshots["acme"].wallets == {"USD": (45, 5, 190, 145, 0)}
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


USAGE_US, MONEY_US = 72 * HOUR_US, 35 * 24 * HOUR_US
USED, HELD, BOUGHT = "credits.usage.v1", "credits.holds.v1", "credits.purchases.v1"


def test_the_windows_are_those_of_the_settings() -> None:
    assert windows_of(Settings(_env_file=None)) == Windows()
    other = Settings(_env_file=None, namespace="eu.", usage_window_hours=2, money_window_days=3)
    assert windows_of(other) == Windows(2 * HOUR_US, 72 * HOUR_US, "eu.credits.usage.v1")


def folded_alike(rows: Rows, windows: Windows | None = None) -> set[str]:
    """What differs, which must be the same in every order in which the orgs' partitions may be read."""
    found = [_codes_in_order(rows, order, windows) for order in _orders(rows)]
    assert all(each == found[0] for each in found), found
    return found[0]


def _orders(rows: Rows) -> list[Rows]:
    """All ways to read the rows that keep the order of each org."""
    places = range(len(rows))
    orgs = sorted({row["org_id"] for row in rows})
    if len(orgs) == 1:
        return [rows]
    of = {org: [row for row in rows if row["org_id"] == org] for org in orgs}
    orders = []
    for chosen in itertools.combinations(places, len(of[orgs[0]])):
        left = {org: iter(each) for org, each in of.items()}
        orders.append([next(left[orgs[0] if place in chosen else orgs[1]]) for place in places])
    return orders


def _codes_in_order(rows: Rows, order: Rows, windows: Windows | None) -> set[str]:
    fold = LedgerFold(windows=windows)
    for row in order:
        fold.add(batch_of("entry", [row]))
    fold.finish()
    return {each.code for each in fold.differences.kept}


def used_at(*times: int, kind: str = "purchase", topic: str = BOUGHT) -> Rows:
    """An org that has credits, and one id with an effect at each of these times."""
    rows = [entry("acme", 1, "purchase", 100, 100, event_id="first")]
    for number, at in enumerate(times, 1):
        parts: dict[str, Any] = {} if kind == "purchase" else {"slices": [part("g1", "purchased", 1)]}
        amount = 1 if kind == "purchase" else -1
        fields = {"event_id": "again", "source_topic": topic, "recorded_at": at, **parts}
        rows.append(entry("acme", number + 1, kind, amount, 100 + number * amount, **fields))
    return rows


EFFECTS: dict[str, tuple[Rows, bool]] = {
    "usage inside its window": (used_at(1, USAGE_US, kind="usage", topic=USED), False),
    "usage after its window": (used_at(1, 1 + USAGE_US, kind="usage", topic=USED), True),
    "a capture is money, inside": (used_at(1, MONEY_US, kind="usage", topic=HELD), False),
    "a capture is money, after": (used_at(1, 1 + MONEY_US, kind="usage", topic=HELD), True),
    "a purchase inside its window": (used_at(1, MONEY_US), False),
    "a purchase after its window": (used_at(1, 1 + MONEY_US), True),
    "a third time, after each window": (used_at(1, 1 + MONEY_US, 1 + 2 * MONEY_US), True),
    "a third time, inside the window of the second": (used_at(1, 1 + MONEY_US, 2 * MONEY_US), False),
}


@pytest.mark.parametrize("case", EFFECTS)
def test_an_id_has_one_effect_within_its_window(case: str) -> None:
    rows, right = EFFECTS[case]
    assert folded_alike(rows) == (set() if right else {"effect_twice"})


def test_the_window_of_the_settings_decides() -> None:
    rows = used_at(1, 1 + USAGE_US, kind="usage", topic="eu.credits.usage.v1")
    assert folded_alike(rows, Windows(usage_topic="eu.credits.usage.v1")) == set()
    assert folded_alike(rows, Windows(USAGE_US + 1, MONEY_US, "eu.credits.usage.v1")) == {"effect_twice"}
    assert folded_alike(rows) == {"effect_twice"}  # of a topic that is not the one of usage


def moves(*steps: tuple[str, int, int]) -> Rows:
    """One transfer id of acme: what happens to it (`left`, `arrived`, `noted` or `back`), how much, and when."""
    balances, seqs = {"acme": 100, "beta": 0}, {"acme": 1, "beta": 0}
    rows = [entry("acme", 1, "purchase", 100, 100)]
    kinds = {"left": "transfer_out", "arrived": "transfer_in", "noted": "transfer_out", "back": "transfer_return"}
    for what, amount, at in steps:
        org, other = ("beta", "acme") if what == "arrived" else ("acme", "beta")
        signed = {"left": -amount, "noted": 0}.get(what, amount)
        balances[org] += signed
        seqs[org] += 1
        fields: dict[str, Any] = {"event_id": "t", "correlation_id": "t", "counterparty_org_id": other}
        if org == "acme":
            fields["slices"] = [part("g1", "purchased", -signed)] if signed else []
        rows.append(entry(org, seqs[org], kinds[what], signed, balances[org], recorded_at=at, **fields))
    return rows


DAY_US = 24 * HOUR_US
LATER = 1 + MONEY_US
FIRST = (("left", 10, 1), ("arrived", 10, 2), ("noted", 0, 3))
FIRST_BACK = (("left", 10, 1), ("back", 10, 3))
SECOND = (("left", 7, LATER), ("arrived", 7, LATER + 1), ("noted", 0, LATER + 2))
SECOND_BACK = (("left", 7, LATER), ("back", 7, LATER + 2))
THIRD = (("left", 5, 2 * LATER), ("arrived", 5, 2 * LATER + 1), ("noted", 0, 2 * LATER + 2))

TRANSFERS: dict[str, tuple[Rows, set[str]]] = {
    "it arrives both times": (moves(*FIRST, *SECOND), set()),
    "it comes back, then arrives": (moves(*FIRST_BACK, *SECOND), set()),
    "it arrives, then comes back": (moves(*FIRST, *SECOND_BACK), set()),
    "it comes back both times": (moves(*FIRST_BACK, *SECOND_BACK), set()),
    "three times": (moves(*FIRST, *SECOND_BACK, *THIRD), set()),
    "it is on the way for longer than the window": (
        moves(("left", 10, 1), ("arrived", 10, LATER + DAY_US), ("noted", 0, LATER + DAY_US)),
        set(),
    ),
    "it is on the way when the ledger ends": (moves(*FIRST, SECOND[0]), set()),
    "the clock of the target is behind": (
        moves(*FIRST, ("left", 7, LATER + 5), ("arrived", 7, LATER + 2), ("noted", 0, LATER + 7)),
        set(),
    ),
    "it leaves again inside the window": (
        moves(*FIRST, ("left", 10, MONEY_US)),
        {"effect_twice", "transfer_twice", "conservation"},
    ),
    "it arrives again inside the window": (
        moves(*FIRST, ("arrived", 10, MONEY_US)),
        {"effect_twice", "transfer_twice", "conservation"},
    ),
    "it arrives again after the window, and never left": (
        moves(*FIRST, ("arrived", 10, LATER + 1)),
        {"transfer_from_nowhere", "conservation"},
    ),
    "it came back, and arrives after the window": (
        moves(*FIRST_BACK, ("arrived", 10, LATER + 1)),
        {"transfer_from_nowhere", "conservation"},
    ),
    "it comes back twice": (
        moves(*FIRST_BACK, ("back", 10, LATER + 2)),
        {"transfer_twice", "conservation"},
    ),
    "it never left, arrives and comes back": (
        moves(("arrived", 10, 2), ("back", 10, 3)),
        {"transfer_from_nowhere", "conservation"},
    ),
    "the second time more arrives than left": (
        moves(*FIRST, SECOND[0], ("arrived", 8, LATER + 1)),
        {"transfer_amount", "conservation"},
    ),
    "the second time it arrives and comes back": (
        moves(*FIRST, *SECOND[:2], ("back", 7, LATER + 2)),
        {"transfer_twice", "conservation"},
    ),
    "the first time it arrives and comes back": (
        moves(*FIRST[:2], FIRST_BACK[1], *SECOND),
        {"transfer_twice", "conservation"},
    ),
}


@pytest.mark.parametrize("case", TRANSFERS)
def test_a_transfer_id_is_used_again_after_its_window(case: str) -> None:
    rows, lies = TRANSFERS[case]
    assert folded_alike(rows) == lies


def test_each_use_of_a_transfer_id_is_counted() -> None:
    for order in _orders(moves(*FIRST, *SECOND_BACK, THIRD[0])):
        fold = LedgerFold()
        fold.add(batch_of("entry", order))
        assert len(fold.transfers) == 3
        assert [(name, each.out_nanos) for name, each in fold.unfinished()] == [("acme/t", -5)]
        (row,) = fold.conservation()
        assert (row.on_the_way, row.left_over) == (5, 0)


SHOWN: dict[str, tuple[Rows, list[int]]] = {
    "arrived, and noted": (moves(*FIRST), [0, 10, 10, 0]),
    "come back": (moves(*FIRST_BACK), [0, 10, 0]),
    "left again after its window": (moves(*FIRST, SECOND[0]), [0, 10, 10, 0, 7]),
    "left again, and nobody has answered": (moves(FIRST[0], SECOND[0]), [0, 10, 7]),
}


@pytest.mark.parametrize("case", SHOWN)
def test_a_wallet_has_on_the_way_what_its_own_org_knows_no_end_of(case: str) -> None:
    rows, shown = SHOWN[case]
    fold = LedgerFold()
    for row, nanos in zip(rows, shown, strict=True):
        fold.add(batch_of("entry", [row]))
        assert fold.orgs["acme"].wallets["USD"].on_the_way == nanos
    assert all(
        wallet.on_the_way == 0 for org, each in fold.orgs.items() if org != "acme" for wallet in each.wallets.values()
    )


def test_an_arrival_ends_nothing_of_the_same_id_that_left() -> None:
    """Ids of transfers are of their source: two orgs may send each other credits under one."""
    back = {"event_id": "t", "correlation_id": "t", "counterparty_org_id": "beta"}
    rows = [*moves(("left", 10, 1)), entry("acme", 3, "transfer_in", 4, 94, **back)]
    fold = LedgerFold()
    fold.add(batch_of("entry", rows))
    assert fold.orgs["acme"].wallets["USD"].on_the_way == 10


def test_what_is_on_the_way_is_of_the_wallet_that_it_left() -> None:
    rows = moves(("left", 10, 1), ("noted", 0, 2))
    euros = entry("acme", 4, "purchase", 5, 5, wallet="EUR")
    left = {"event_id": "e", "correlation_id": "e", "counterparty_org_id": "beta", "wallet": "EUR"}
    rows += [euros, entry("acme", 5, "transfer_out", -2, 3, slices=[part("g4", "purchased", 2)], **left)]
    fold = LedgerFold({"acme": 5})
    fold.add(batch_of("entry", rows))
    fold.finish()
    assert not fold.differences.kept
    assert fold.snapshots["acme"].wallets == {"USD": (90, 0, 100, 0, 0), "EUR": (3, 0, 5, 0, 2)}


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
