"""The columnar step: the same ledger as record by record, whatever the batches; every kind of bad input told apart."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.amounts import AMOUNT_MAX, NANOS
from schemas.enums import DeadLetterCode
from tests.laws import examples
from tests.model.memory import NOW_US, FixedPrices, MemoryLedger, Sent, legs, sent

HOUR_US = 3_600_000_000
PRICES = [
    {"price_id": "in", "operation": "chat", "model": "m1", "direction": "input", "unit_price_nanos": 3 * NANOS},
    {"price_id": "out", "operation": "chat", "model": "m1", "direction": "output", "unit_price_nanos": 7 * NANOS},
    {
        "price_id": "pro",
        "operation": "chat",
        "model": "m1",
        "tier": "pro",
        "direction": "input",
        "unit_price_nanos": NANOS,
    },
    {"price_id": "free", "operation": "chat", "model": "m0", "unit_price_nanos": 0, "free": True},
]
PRICE_LIST = [{"billing_unit": "1000_tokens", "wallet": "USD", "valid_from": 0, **price} for price in PRICES]


def ledger() -> MemoryLedger:
    return MemoryLedger(FixedPrices(PRICE_LIST))


def usage(event_id: str, org_id: str = "acme", at: int = NOW_US, **fields: Any) -> Sent:
    return sent("usage", {"event_id": event_id, "org_id": org_id, "operation": "chat", **fields}, at)


def purchase(purchase_id: str, org_id: str = "acme", amount: int = 10 * NANOS, at: int = NOW_US, **more: Any) -> Sent:
    fields = {"purchase_id": purchase_id, "org_id": org_id, "wallet": "USD", "amount_nanos": amount, **more}
    return sent("purchase", fields, at)


def setting(setting_id: str, kind: str, body: str, org_id: str = "acme", at: int = NOW_US) -> Sent:
    fields = {"setting_id": setting_id, "org_id": org_id, "actor": "root", "actor_role": "system", "kind": kind}
    return sent("setting", {**fields, "body": body}, at)


ORGS = st.sampled_from(["acme", "bolt", "core"])
SMALL_IDS = st.integers(0, 30).map("e{}".format)
USAGES = st.builds(
    lambda event_id, org, model, tokens, cost, wallet: usage(
        event_id, org, model=model, input_tokens=tokens, output_tokens=tokens // 2, cost_nanos=cost, wallet=wallet
    ),
    SMALL_IDS,
    ORGS,
    st.sampled_from(["m1", "m0", "unknown"]),
    st.integers(0, 2_000),
    st.none() | st.integers(0, 5 * NANOS),
    st.sampled_from([None, None, "EUR"]),
)
PURCHASES = st.builds(
    lambda purchase_id, org, units, kind: purchase(purchase_id, org, units * NANOS, kind=kind),
    SMALL_IDS,
    ORGS,
    st.integers(1, 20),
    st.sampled_from(["purchased", "promotional"]),
)
SETTINGS = st.builds(
    lambda setting_id, org, tier: setting(setting_id, "org", f'{{"tier": "{tier}"}}', org),
    SMALL_IDS,
    ORGS,
    st.sampled_from(["pro", "basic"]),
)
REFUNDS = st.builds(
    lambda refund_id, org, target, units: sent(
        "refund",
        {"refund_id": refund_id, "org_id": org, "target": "usage", "target_id": target, "amount_nanos": units},
    ),
    SMALL_IDS,
    ORGS,
    SMALL_IDS,
    st.integers(1, NANOS),
)
BROKEN = st.builds(
    lambda value, org: Sent("credits.usage.v1", org.encode(), value, NOW_US), st.binary(max_size=30), ORGS
)
RECORDS = st.lists(USAGES | USAGES | USAGES | PURCHASES | SETTINGS | REFUNDS | BROKEN, max_size=60)


@settings(max_examples=examples(40), deadline=None)
@given(RECORDS, st.data())
def test_batches_do_not_matter(records: list[Sent], data: st.DataObject) -> None:
    alone, batched = ledger(), ledger()
    for record in records:
        alone.feed([record])
    rest = records
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        batched.feed(rest[:size])
        rest = rest[size:]
    for topic in ("ledger", "alerts_threshold", "alerts_depletion"):
        assert alone.rows(topic) == batched.rows(topic)
    assert sorted(map(repr, alone.dead_letters())) == sorted(map(repr, batched.dead_letters()))
    assert alone.outcomes == batched.outcomes
    assert alone.accounts == batched.accounts


@settings(max_examples=examples(25), deadline=None)
@given(RECORDS)
def test_every_record_ends_in_exactly_one_way(records: list[Sent]) -> None:
    book = ledger()
    book.feed(records) if records else None
    ended = sum(sum(counts.values()) for counts in book.outcomes.values())
    assert ended == len(records)
    caused = [(row["source_topic"], row["source_offset"]) for row in book.rows("ledger") if row["source_topic"]]
    assert len(caused) == len(set(caused))
    booked = sum(counts.get("entries", 0) + counts.get("rejected", 0) for counts in book.outcomes.values())
    assert len(caused) == booked
    for org in book.accounts:
        seqs = [row["seq"] for row in book.rows("ledger") if row["org_id"] == org]
        assert seqs == list(range(1, len(seqs) + 1))


def test_a_usage_is_rated_drawn_and_numbered() -> None:
    book = ledger()
    book.feed([purchase("p1"), usage("e1", model="m1", input_tokens=1_000, output_tokens=100, user_id="u1")])
    bought, used = book.rows("ledger")
    assert (bought["seq"], bought["kind"], bought["balance_nanos"]) == (1, "purchase", 10 * NANOS)
    assert used["amount_nanos"] == -(3 * NANOS + 7 * NANOS // 10)
    assert used["balance_nanos"] == 10 * NANOS - 3 * NANOS - 7 * NANOS // 10
    assert used["slices"] == [
        {"grant_id": "purchase/p1", "kind": "purchased", "amount_nanos": -used["amount_nanos"], "expires_at": None}
    ]
    assert (used["entry_id"], used["user_id"], used["billing_unit"]) == ("acme:2", "u1", "1000_tokens")
    assert (used["unit_price_nanos"], used["output_unit_price_nanos"]) == (3 * NANOS, 7 * NANOS)
    [latest] = book.rows("balances")[-1:]
    assert latest["wallets"][0]["settled_nanos"] == used["balance_nanos"]


BAD = [
    (Sent("credits.usage.v1", b"acme", None, NOW_US), DeadLetterCode.NULL_VALUE),
    (Sent("credits.usage.v1", b"acme", b"", NOW_US), DeadLetterCode.UNDECODABLE),
    (Sent("credits.usage.v1", b"acme", b"\x01garbage", NOW_US), DeadLetterCode.UNDECODABLE),
    (Sent("credits.usage.v1", b"acme", b"\0\0\0\x27\x0fabc", NOW_US), DeadLetterCode.UNKNOWN_SCHEMA),
    (usage("x", model="m1", input_tokens=-1), DeadLetterCode.INVALID_FIELD),
    (usage("", model="m1"), DeadLetterCode.INVALID_FIELD),
    (usage("x" * 129, model="m1"), DeadLetterCode.INVALID_FIELD),
    (usage("x", cost_nanos=AMOUNT_MAX + 1), DeadLetterCode.AMOUNT_OUT_OF_RANGE),
    (usage("x", model="m1", input_tokens=AMOUNT_MAX), DeadLetterCode.AMOUNT_OUT_OF_RANGE),
    (usage("x", model="nobody", input_tokens=1), DeadLetterCode.UNKNOWN_PRICE),
    (usage("x", model="m1", occurred_at=NOW_US - 73 * HOUR_US), DeadLetterCode.TOO_OLD),
    (usage("x", model="m1", occurred_at=NOW_US + 3 * HOUR_US), DeadLetterCode.TOO_FAR_IN_FUTURE),
    (sent("usage", {"event_id": "x", "org_id": "acme", "operation": "chat"}, key="bolt"), DeadLetterCode.KEY_MISMATCH),
    (usage("e1", model="m1", input_tokens=2), DeadLetterCode.DUPLICATE_WITH_DIFFERENT_CONTENT),
    (purchase("p0", occurred_at=NOW_US - 36 * 24 * HOUR_US), DeadLetterCode.TOO_OLD),
    (purchase("p0", priority=101), DeadLetterCode.INVALID_FIELD),
    (sent("price", {**PRICE_LIST[0], "billing_unit": "furlong"}), DeadLetterCode.INVALID_FIELD),
]


@pytest.mark.parametrize(("bad", "code"), BAD)
def test_bad_input_is_a_dead_letter_and_its_neighbours_are_booked(bad: Sent, code: DeadLetterCode) -> None:
    book = ledger()
    book.feed([purchase("p1"), usage("e1", model="m1", input_tokens=1), bad, usage("e2", model="m1", input_tokens=1)])
    assert book.dead_letters() == [(code, bad.value)]
    assert [row["event_id"] for row in book.rows("ledger")] == ["p1", "e1", "e2"]


def test_a_dead_letter_may_be_sent_again() -> None:
    later = {**PRICE_LIST[0], "price_id": "new", "model": "new"}
    book = MemoryLedger(FixedPrices(PRICE_LIST))
    book.feed([usage("e1", model="new", input_tokens=1)])
    assert [code for code, _ in book.dead_letters()] == [DeadLetterCode.UNKNOWN_PRICE]
    book.prices.records = FixedPrices([*PRICE_LIST, later]).records
    book.feed([usage("e1", model="new", input_tokens=1)])
    assert [row["event_id"] for row in book.rows("ledger")] == ["e1"]


def test_an_unknown_price_is_looked_for_once_more() -> None:
    book = MemoryLedger(FixedPrices(PRICE_LIST, later=[{**PRICE_LIST[0], "price_id": "new", "model": "new"}]))
    book.feed([usage("e1", model="new", input_tokens=1_000)])
    assert book.prices.caught_up == 1
    assert [row["amount_nanos"] for row in book.rows("ledger")] == [-3 * NANOS]


def test_duplicates_leave_no_record() -> None:
    book = ledger()
    twice = usage("e1", model="m1", input_tokens=1)
    book.feed([twice, twice])
    book.feed([twice, purchase("p1"), purchase("p1")])
    assert [row["event_id"] for row in book.rows("ledger")] == ["e1", "p1"]
    assert book.outcomes["credits.usage.v1"] == {"entries": 1, "duplicates": 2}
    assert book.outcomes["credits.purchases.v1"] == {"entries": 1, "duplicates": 1}


def test_the_same_id_in_two_orgs_is_two_events() -> None:
    book = ledger()
    book.feed([usage("e1", "acme", model="m0"), usage("e1", "bolt", model="m0")])
    assert [row["org_id"] for row in book.rows("ledger")] == ["acme", "bolt"]


def test_what_is_due_comes_before_the_usage() -> None:
    book = ledger()
    soon = NOW_US + HOUR_US
    book.feed([purchase("p1", kind="promotional", expires_at=soon), purchase("p2")])
    book.feed([usage("e1", at=NOW_US + 2 * HOUR_US, model="m1", input_tokens=1_000)])
    assert [row["kind"] for row in book.rows("ledger")] == ["purchase", "purchase", "expiry", "usage"]
    assert book.rows("ledger")[-1]["slices"][0]["grant_id"] == "purchase/p2"
    assert [alert["kind"] for alert in book.rows("alerts_threshold")].count("credit_free_expired") == 1


def test_time_alone_makes_entries() -> None:
    book = ledger()
    book.feed([purchase("p1", expires_at=NOW_US + HOUR_US)])
    book.tick(NOW_US + HOUR_US - 1)
    assert len(book.rows("ledger")) == 1
    book.tick(NOW_US + HOUR_US)
    assert book.rows("ledger")[-1]["kind"] == "expiry"
    assert book.account("acme").wallets["USD"].settled == 0


def test_a_transfer_arrives_or_returns() -> None:
    book = ledger()
    both = '{"administrators": ["ann"]}'
    book.feed([purchase("p1"), setting("s1", "org", both), setting("s2", "org", both, "bolt")])
    move = {"org_id": "acme", "wallet": "USD", "amount_nanos": 4 * NANOS, "actor": "ann"}
    book.feed([sent("transfer", {**move, "transfer_id": "t1", "target_org_id": "bolt"})])
    book.feed([sent("transfer", {**move, "transfer_id": "t2", "target_org_id": "nobody"})])
    done = 0
    while len(todo := legs(book)) > done:
        book.feed(todo[done:])
        done = len(todo)
    assert book.account("bolt").wallets["USD"].settled == 4 * NANOS
    assert book.account("acme").wallets["USD"].settled == 6 * NANOS
    assert not book.account("acme").in_transit


@pytest.mark.parametrize("together", [True, False])
def test_a_refund_finds_the_usage_in_the_ledger_or_in_its_own_batch(together: bool) -> None:
    book = ledger()
    first = [purchase("p1"), usage("e1", model="m1", input_tokens=1_000)]
    refund = sent(
        "refund",
        {"refund_id": "r1", "org_id": "acme", "target": "usage", "target_id": "e1", "amount_nanos": NANOS},
    )
    if together:
        book.feed([*first, refund])
    else:
        book.feed(first)
        book.feed([refund])
    last = book.rows("ledger")[-1]
    assert (last["kind"], last["amount_nanos"], last["balance_nanos"]) == ("refund", NANOS, 8 * NANOS)


@pytest.mark.parametrize("together", [True, False])
def test_a_correction_finds_what_was_booked(together: bool) -> None:
    book = ledger()
    first = [purchase("p1"), usage("e1", model="m1", input_tokens=1_000)]
    amended = usage("e1", model="m1", input_tokens=2_000, revision=1)
    voided = usage("e1", revision=2, voided=True)
    if together:
        book.feed([*first, amended, voided])
    else:
        for record in [*first, amended, voided]:
            book.feed([record])
    booked = [(row["kind"], row["amount_nanos"] // NANOS, row["balance_nanos"] // NANOS) for row in book.rows("ledger")]
    assert booked == [
        ("purchase", 10, 10),
        ("usage", -3, 7),
        ("correction", 3, 10),
        ("usage", -6, 4),
        ("correction", 6, 10),
    ]
    assert not book.dead_letters()


@pytest.mark.parametrize("together", [True, False])
def test_a_revision_that_comes_first_is_booked_and_its_original_refused(together: bool) -> None:
    book = ledger()
    records = [
        purchase("p1"),
        usage("e1", model="m1", input_tokens=2_000, revision=1),
        usage("e2", cost_nanos=NANOS),
        usage("e1", model="m1", input_tokens=1_000),
        usage("e1", "bolt", model="m1", input_tokens=1_000),
    ]
    for part in [records] if together else [[record] for record in records]:
        book.feed(part)
    booked = [
        (row["org_id"], row["kind"], row["amount_nanos"] // NANOS, row["revision"]) for row in book.rows("ledger")
    ]
    assert booked == [
        ("acme", "purchase", 10, 0),
        ("acme", "usage", -6, 1),
        ("acme", "usage", -1, 0),
        ("bolt", "usage", -3, 0),
    ]
    assert [code for code, _ in book.dead_letters()] == [DeadLetterCode.DUPLICATE_WITH_DIFFERENT_CONTENT]


def test_a_usage_that_captures_a_hold_is_corrected_in_its_own_batch() -> None:
    book = ledger()
    held = {"hold_id": "h1", "org_id": "acme", "wallet": "USD", "action": "place", "amount_nanos": 4 * NANOS}
    book.feed([purchase("p1"), sent("hold", held)])
    captured = usage("e1", cost_nanos=3 * NANOS, wallet="USD", hold_id="h1")
    book.feed([captured, usage("e1", cost_nanos=NANOS, wallet="USD", revision=1)])
    assert [row["kind"] for row in book.rows("ledger")][2:] == ["usage", "hold_release", "correction", "usage"]
    assert book.account("acme").wallets["USD"].available == 9 * NANOS


def test_a_hold_is_placed_captured_and_resolved_once() -> None:
    book = ledger()
    held = {"hold_id": "h1", "org_id": "acme", "wallet": "USD"}
    book.feed([purchase("p1"), sent("hold", {**held, "action": "place", "amount_nanos": 4 * NANOS})])
    assert book.account("acme").wallets["USD"].available == 6 * NANOS
    capture = {**held, "action": "capture", "amount_nanos": 3 * NANOS}
    book.feed([sent("hold", capture), sent("hold", capture)])
    book.feed([sent("hold", {**capture, "amount_nanos": NANOS})])
    assert [(row["action"], row["code"]) for row in book.rows("decisions")] == [
        ("place", "ok"),
        ("capture", "ok"),
        ("capture", "already_resolved"),
    ]
    assert book.account("acme").wallets["USD"].available == 7 * NANOS
    assert book.outcomes["credits.holds.v1"]["duplicates"] == 1


def test_a_repeat_of_what_could_not_be_booked_is_judged_by_itself() -> None:
    whole, cut = ledger(), ledger()
    full = usage("e0", cost_nanos=AMOUNT_MAX)
    too_much = usage("e1", cost_nanos=AMOUNT_MAX)
    records = [full, too_much, too_much, usage("e1", cost_nanos=0), usage("e1", cost_nanos=0)]
    whole.feed(records)
    for record in records:
        cut.feed([record])
    assert whole.outcomes == cut.outcomes == {"credits.usage.v1": {"entries": 2, "dead_letters": 2, "duplicates": 1}}
    assert whole.rows("ledger") == cut.rows("ledger")


def test_whether_an_id_was_booked_comes_before_its_price() -> None:
    priced, unknown = usage("e0", model="m1", input_tokens=10), usage("e0", model="unknown", input_tokens=10)
    book = ledger()
    book.feed([priced, unknown, unknown])
    assert [code for code, _ in book.dead_letters()] == ["duplicate_with_different_content"] * 2
    book = ledger()
    book.feed([unknown, priced, unknown, priced])
    assert [code for code, _ in book.dead_letters()] == ["unknown_price", "duplicate_with_different_content"]
    assert book.outcomes == {"credits.usage.v1": {"entries": 1, "dead_letters": 2, "duplicates": 1}}


def test_a_refused_capture_may_be_sent_again() -> None:
    book = ledger()
    held = {"hold_id": "h1", "org_id": "acme", "wallet": "USD"}
    capture = sent("hold", {**held, "action": "capture", "amount_nanos": 3 * NANOS})
    book.feed([purchase("p1"), capture, sent("hold", {**held, "action": "place", "amount_nanos": 4 * NANOS}), capture])
    assert [row["code"] for row in book.rows("decisions")] == ["unknown_hold", "ok", "ok"]
    assert book.account("acme").wallets["USD"].settled == 7 * NANOS


def test_both_directions_are_looked_for_before_a_price_is_unknown() -> None:
    later = {**PRICE_LIST[1], "price_id": "late-out", "model": "new"}
    now = {**PRICE_LIST[0], "price_id": "now-in", "model": "new"}
    book = MemoryLedger(FixedPrices([now], later=[later]))
    book.feed([usage("e1", model="new", input_tokens=1_000, output_tokens=1_000)])
    assert [row["amount_nanos"] for row in book.rows("ledger")] == [-10 * NANOS]
