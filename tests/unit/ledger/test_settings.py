"""Settings, who may change them, and what is kept of a refused try (product rule 33; contract, bodies)."""

from __future__ import annotations

import msgspec
import pytest

from schemas.enums import ActorRole, EntryKind, SettingKind
from streams.ledger.commands import Setting
from tests.unit.ledger.world import World

ORG, MEMBER, WALLET, THRESHOLDS = (
    SettingKind.ORG, SettingKind.MEMBER, SettingKind.WALLET, SettingKind.THRESHOLDS,
)  # fmt: skip
OWNER, ADMIN, BILLING, PLAIN, SYSTEM = (
    ActorRole.OWNER, ActorRole.ADMIN, ActorRole.BILLING, ActorRole.MEMBER, ActorRole.SYSTEM,
)  # fmt: skip


@pytest.mark.parametrize(
    ("role", "recorded", "allowed"),
    [
        (SYSTEM, None, True),
        (OWNER, None, True),
        (ADMIN, None, True),
        (BILLING, None, False),
        (PLAIN, None, False),
        (OWNER, "owner", True),
        (OWNER, "admin", True),
        (OWNER, "billing", False),
        (OWNER, "member", False),
        (OWNER, "other", False),
        (PLAIN, "owner", False),
        (SYSTEM, "other", True),
    ],
)
def test_who_may_change_a_wallet(role: ActorRole, recorded: str | None, allowed: bool) -> None:
    """`recorded`: bob's role among the recorded members; None: there are none; other: he is not among them."""
    world = World()
    if recorded is not None:
        member = {"user_id": "bob", "role": recorded} if recorded != "other" else {"user_id": "eve", "role": "owner"}
        world.set(MEMBER, member)
    (entry, *_) = world.set(WALLET, {"unit": "USD"}, actor="bob", role=role).entries
    assert entry.reason == (None if allowed else "not_authorized")
    assert ("USD" in world.account().wallets) == allowed
    world.check()


def test_a_refused_try_is_kept_with_who_and_what() -> None:
    world = World()
    (entry,) = world.set(WALLET, {"unit": "USD"}, actor="mallory", role=PLAIN).entries
    assert (entry.kind, entry.actor, entry.event_id) == (EntryKind.REJECTED, "mallory", "s1")
    assert "You are not authorized" in (entry.details or "")
    assert msgspec.json.decode(msgspec.json.decode(entry.details or "")["body"]) == {"unit": "USD"}


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (ORG, '{"time_zone": "Mars/Olympus"}'),
        (ORG, '{"colour": "red"}'),
        (ORG, "not json"),
        (ORG, "[]"),
        (WALLET, "{}"),
        (WALLET, '{"unit": "USD", "allowance": 1.5}'),
        (WALLET, '{"unit": "USD", "allowance": "-1"}'),
        (WALLET, '{"unit": "USD", "allowance": "1e3"}'),
        (MEMBER, '{"user_id": "bob", "role": "king"}'),
        (THRESHOLDS, '{"unit": "USD", "rules": [{"rule_id": "r", "type": "used_percent", "level": "-1"}]}'),
    ],
)
def test_invalid_settings_are_refused_with_the_reason(kind: SettingKind, body: str) -> None:
    world = World()
    (entry,) = world.do(Setting("s", "acme", world.at, "root", SYSTEM, kind, body)).entries
    assert (entry.kind, entry.reason) == (EntryKind.REJECTED, "invalid_setting")
    assert not world.account().known
    world.check()


def test_more_than_twenty_rules_are_refused() -> None:
    world = World()
    rules = [{"rule_id": str(n), "type": "month_spend_above", "level": "1"} for n in range(21)]
    assert world.set(THRESHOLDS, {"unit": "USD", "rules": rules}).entries[0].reason == "invalid_setting"
    assert world.set(THRESHOLDS, {"unit": "USD", "rules": rules[:20]}).entries[0].reason is None


def test_a_later_body_replaces_the_earlier_one_whole() -> None:
    world = World()
    world.set(ORG, {"time_zone": "Europe/Madrid", "administrators": ["alice"], "tier": "pro"})
    world.set(ORG, {"administrators": ["bob"]})
    account = world.account()
    assert account.org is not None
    assert (account.time_zone, account.tier, account.org.administrators) == ("UTC", None, ("bob",))
    world.check()


def test_an_entry_tells_what_was_before() -> None:
    world = World()
    assert '"before":null' in (world.set(WALLET, {"unit": "USD", "allowance": "5"}).entries[0].details or "")
    (entry, *_) = world.set(WALLET, {"unit": "USD", "allowance": "7"}).entries
    details = msgspec.json.decode(entry.details or "")
    assert (details["kind"], details["body"], details["before"]["allowance"]) == (
        "wallet", {"unit": "USD", "allowance": "7"}, "5",
    )  # fmt: skip
    (entry,) = world.set(MEMBER, {"user_id": "bob", "role": "owner"}).entries
    assert entry.wallet == ""
    (entry,) = world.set(MEMBER, {"user_id": "bob", "role": "none"}).entries
    assert msgspec.json.decode(entry.details or "")["before"] == {"user_id": "bob", "role": "owner"}
    assert world.account().members == {"bob": "none"}
    world.check()


def test_purchases_with_an_actor_need_a_paying_role_where_members_are_recorded() -> None:
    world = World()
    assert not world.buy("5", actor="anyone").rejected
    world.set(MEMBER, {"user_id": "bob", "role": "billing"})
    assert not world.buy("5", actor="bob").rejected
    assert not world.buy("5").rejected  # the payment service
    assert world.buy("5", actor="eve").entries[0].reason == "not_authorized"
    world.check()
