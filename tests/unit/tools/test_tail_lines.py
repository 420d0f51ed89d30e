"""What a tail shows of each record: the columns that mean something, the sentence, and the id."""

from __future__ import annotations

import json
from typing import Any

import pytest

from schemas.facts import Decision, Entry, TopupRequest
from streams.cli.tail_lines import LINES, What, decision_line, entry_line, request_line

AT = 1_769_860_800_000_000
NANOS = 10**9


def entry(kind: str, **fields: Any) -> str:
    details = fields.pop("details", None)
    row = {
        "org_id": "acme",
        "seq": 7,
        "entry_id": "acme:7",
        "kind": kind,
        "wallet": "USD",
        "amount_nanos": 0,
        "balance_nanos": 100 * NANOS,
        "available_nanos": 100 * NANOS,
        "held_nanos": 0,
        "occurred_at": AT,
        "recorded_at": AT,
        "event_id": "e-1",
        "details": None if details is None else json.dumps(details),
        **fields,
    }
    return entry_line(Entry.model_validate(row).to_record())


def decision(**fields: Any) -> str:
    row = {
        "hold_id": "h-1",
        "org_id": "acme",
        "action": "place",
        "allowed": True,
        "code": "ok",
        "http_status": 200,
        "granted_nanos": 40 * NANOS,
        "available_nanos": 60 * NANOS,
        "entry_seq": 7,
        **fields,
    }
    return decision_line({**Decision.model_validate(row).to_record(), "recorded_at": AT})


HELD = {"held_nanos": 40 * NANOS, "available_nanos": 60 * NANOS}
PLACED = {"amount_nanos": 40 * NANOS, "asked_nanos": 50 * NANOS}
REFUSED = {"action": "place", "message": "The credits are held by other work."}
NOT_MALLORY = {"kind": "wallet", "message": "You are not authorized.", "body": "{}"}
TRANSFER = {"counterparty_org_id": "labs"}


@pytest.mark.parametrize(
    ("line", "ends"),
    [
        (entry("hold", model="gpt-4o", details=PLACED, **HELD), "for 40, held 40, available 60; gpt-4o e-1"),
        (entry("hold_release", reason="hold_released"), "held 0, available 100; hold_released e-1"),
        (
            entry("rejected", reason="credits_held", details=REFUSED, **HELD),
            "held 40, available 60; credits_held: The credits are held by other work. e-1",
        ),
        (entry("rejected", reason="same_org"), "  same_org e-1"),
        (
            entry("rejected", wallet="", reason="not_authorized", actor="mallory", details=NOT_MALLORY),
            "wallet by mallory: not_authorized: You are not authorized. e-1",
        ),
        (entry("setting", actor="alice", details={"kind": "budget", "body": {}}), "  budget by alice e-1"),
        (entry("transfer_out", amount_nanos=-5 * NANOS, **TRANSFER), "  to labs e-1"),
        (entry("transfer_out", details={"acknowledged": True}, **TRANSFER), "  arrived at labs e-1"),
        (entry("transfer_in", amount_nanos=5 * NANOS, **TRANSFER), "  from labs e-1"),
        (
            entry("transfer_return", amount_nanos=5 * NANOS, reason="unknown_target", **TRANSFER),
            "  back from labs: unknown_target e-1",
        ),
        (
            entry("purchase", reason="purchase_failed", details={"failure_reason": "card_declined"}),
            "  purchase_failed: card_declined e-1",
        ),
        (entry("usage", amount_nanos=-1, operation="chat", model="gpt-4o"), "  chat gpt-4o e-1"),
        (entry("expiry", amount_nanos=-1, reason="grant_expired"), "  grant_expired e-1"),
    ],
)
def test_an_entry_says_what_happened(line: str, ends: str) -> None:
    assert line.startswith("2026-01-31 12:00:00  acme                   7  ")
    assert line.endswith(ends)
    assert "\n" not in line


def test_an_entry_about_no_wallet_has_no_balance_and_stays_aligned() -> None:
    setting = {"actor": "alice", "details": {"kind": "org", "body": {}}}
    about_none, about_one = entry("setting", wallet="", balance_nanos=0, **setting), entry("setting", **setting)
    assert "balance" not in about_none
    assert " 0 " not in about_none
    assert "balance            100  org by alice" in about_one
    assert about_none.index("org by") == about_one.index("org by")


def test_a_decision_says_the_answer_the_limit_and_the_amounts() -> None:
    allowed, refused = (
        decision(),
        decision(
            allowed=False, code="limit_reached", http_status=402, granted_nanos=0, limit_id="intern", message="No."
        ),
    )
    line = "2026-01-31 12:00:00  acme             place   allowed 200               granted             40 available"
    assert allowed.startswith(line)
    assert allowed.endswith("60  h-1")
    assert refused.index("granted") == allowed.index("granted")
    assert "place   limit_reached 402" in refused
    assert refused.endswith("available             60  limit intern: No. h-1")
    named = decision(allowed=False, code="limit_reached", limit_id="intern", message="Limit intern is reached.")
    assert named.endswith("60  Limit intern is reached. h-1")


def test_a_request_says_who_is_to_pay_how_much_and_why() -> None:
    row = TopupRequest.model_validate(
        {
            "topup_request_id": "topup-1",
            "org_id": "acme",
            "wallet": "USD",
            "amount_nanos": 50 * NANOS,
            "occurred_at": AT,
            "entry_seq": 7,
            "reason": "retry",
        }
    )
    words = request_line({**row.to_record(), "recorded_at": AT}).split()
    assert words == ["2026-01-31", "12:00:00", "acme", "USD", "50", "retry", "topup-1"]


def test_all_that_can_be_followed_has_a_line() -> None:
    assert LINES.keys() == set(What)
