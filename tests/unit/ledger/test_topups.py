"""Auto top-up: asked for once, answered once, capped, backed off (product rules 19, 20, 28)."""

from __future__ import annotations

import pytest

from schemas.amounts import NANOS
from schemas.enums import ActorRole, AlertKind, EntryKind, PurchaseStatus, RejectReason, SettingKind, TopupReason
from streams.ledger.entry import Outcome, TopupRequest
from streams.ledger.topups import ANSWERED_MAX
from tests.unit.ledger.world import DAY, FAILED, World

SECOND = 1_000_000


def topup(world: World, threshold: str = "10", amount: str = "50", cap: str | None = None, **more: object) -> Outcome:
    body = {"unit": "USD", "enabled": True, "threshold": threshold, "purchase_amount": amount, "monthly_cap": cap}
    return world.set(SettingKind.AUTO_TOPUP, body | more)


def ready(cap: str | None = None) -> World:
    world = World()
    world.buy("100")
    topup(world, cap=cap)
    return world


def answer(world: World, request: TopupRequest, status: PurchaseStatus = PurchaseStatus.COMPLETED) -> Outcome:
    return world.buy("50", status=status, topup_request_id=request.topup_request_id)


def alerts_of(outcome: Outcome) -> list[AlertKind]:
    return [alert.kind for alert in outcome.alerts]


def test_it_asks_once_at_the_threshold_and_waits_for_the_answer() -> None:
    world = ready()
    assert world.use("89.999999999").topup_requests == ()
    outcome = world.use("0.000000001")
    (request,) = outcome.topup_requests
    assert (request.amount_nanos, request.wallet, request.reason) == (50 * NANOS, "USD", TopupReason.BELOW_THRESHOLD)
    assert (request.entry_seq, request.occurred_at) == (outcome.entries[0].seq, world.at)
    assert alerts_of(outcome) == [AlertKind.BALANCE_LOW]
    assert world.use("5").topup_requests == ()
    assert world.use("50").topup_requests == ()
    booked = answer(world, request)
    assert AlertKind.AUTO_RECHARGE_TRIGGERED in alerts_of(booked)
    assert booked.topup_requests != ()  # at 5 again: below the threshold still
    assert booked.topup_requests[0].topup_request_id != request.topup_request_id
    world.check()


def test_the_line_of_a_low_balance_is_the_thresholds_while_it_is_on() -> None:
    world = World()
    world.buy("100")
    topup(world, threshold="40")
    assert alerts_of(world.use("60")) == [AlertKind.BALANCE_LOW]
    off = topup(world, enabled=False)
    assert [alert.thresholds_left for alert in off.alerts] == [("low",)]
    assert alerts_of(world.use("25")) == []
    assert alerts_of(world.use("5")) == [AlertKind.BALANCE_LOW]
    world.check()


def test_it_asks_when_it_is_turned_on_below_the_threshold() -> None:
    world = World()
    assert len(topup(world, threshold="0").topup_requests) == 1


def test_a_hold_may_bring_it_there() -> None:
    world = ready()
    assert len(world.hold("place", "h", "95").topup_requests) == 1  # type: ignore[arg-type]
    world.check()


def test_a_failed_charge_backs_off_and_wakes_up_by_itself() -> None:
    world = ready()
    (first,) = world.use("95").topup_requests
    failed = answer(world, first, PurchaseStatus.FAILED)
    assert alerts_of(failed) == [AlertKind.PURCHASE_FAILED]
    assert failed.topup_requests == ()
    assert world.use("1").topup_requests == ()
    before = len(world.topup_requests)
    world.tick(3600 * SECOND - 1)
    assert len(world.topup_requests) == before
    (entry,) = world.tick(1)
    assert (entry.kind, entry.reason, entry.amount_nanos) == (EntryKind.ROLLOVER, "topup_retry_due", 0)
    retry = world.topup_requests[-1]
    assert (retry.reason, len(world.topup_requests)) == (TopupReason.RETRY, before + 1)
    assert retry.topup_request_id != first.topup_request_id
    assert AlertKind.AUTO_RECHARGE_TRIGGERED in alerts_of(answer(world, retry))
    world.check()


def test_nothing_wakes_up_where_credits_came_meanwhile() -> None:
    world = ready()
    (first,) = world.use("95").topup_requests
    answer(world, first, PurchaseStatus.FAILED)
    world.buy("100")
    assert world.tick(3600 * SECOND) == []
    assert len(world.use("100").topup_requests) == 1
    world.check()


def test_the_monthly_cap_stops_it_with_one_alert_until_the_next_month() -> None:
    world = ready(cap="120")
    for _ in range(2):
        (request,) = world.use(str(world.account().wallets["USD"].settled // NANOS - 5)).topup_requests
        answer(world, request)
    world.use("50")
    assert [alert.kind for alert in world.alerts].count(AlertKind.AUTO_RECHARGE_CAPPED) == 1
    assert world.use("1").topup_requests == ()
    before = len(world.topup_requests)
    world.tick(31 * DAY)
    assert len(world.topup_requests) == before + 1
    world.check()


def test_the_cap_is_told_again_only_when_it_or_the_amount_changes() -> None:
    world = ready(cap="40")
    assert AlertKind.AUTO_RECHARGE_CAPPED in alerts_of(world.use("95"))
    assert alerts_of(topup(world, cap="40")) == []
    assert alerts_of(topup(world, cap="40", enabled=False)) == []
    assert alerts_of(topup(world, cap="40", threshold="12")) == [AlertKind.BALANCE_LOW]
    assert alerts_of(topup(world, cap="40", threshold="12", amount="45")) == [AlertKind.AUTO_RECHARGE_CAPPED]
    assert alerts_of(topup(world, cap="41", threshold="12", amount="45")) == [AlertKind.AUTO_RECHARGE_CAPPED]
    assert len(topup(world, cap="45", threshold="12", amount="45").topup_requests) == 1
    world.check()


def test_a_failed_charge_does_not_count_towards_the_cap() -> None:
    world = ready(cap="50")
    (first,) = world.use("95").topup_requests
    answer(world, first, PurchaseStatus.FAILED)
    world.tick(3600 * SECOND)
    assert len(world.topup_requests) == 2
    world.check()


def test_a_charge_that_comes_after_its_failure_counts_and_is_told() -> None:
    world = ready(cap="50")
    (first,) = world.use("95").topup_requests
    answer(world, first, PurchaseStatus.FAILED)
    assert AlertKind.AUTO_RECHARGE_TRIGGERED in alerts_of(answer(world, first))
    outcome = world.use("50")
    world.tick(3600 * SECOND)
    assert len(world.topup_requests) == 1
    assert [alert.kind for alert in world.alerts].count(AlertKind.AUTO_RECHARGE_CAPPED) == 1
    assert outcome.topup_requests == ()
    world.tick(31 * DAY)
    assert len(world.topup_requests) == 2
    world.check()


def test_a_second_charge_for_one_request_counts_too() -> None:
    world = ready(cap="100")
    (request,) = world.use("95").topup_requests
    for _ in range(2):
        assert AlertKind.AUTO_RECHARGE_TRIGGERED in alerts_of(answer(world, request))
    world.use("100")
    assert len(world.topup_requests) == 1
    assert answer(world, request, PurchaseStatus.FAILED).topup_requests == ()  # a failure takes no second charge back
    world.check()


def test_a_late_charge_leaves_the_request_in_flight_alone() -> None:
    world = ready(cap="100")
    (first,) = world.use("95").topup_requests
    answer(world, first, PurchaseStatus.FAILED)
    world.tick(3600 * SECOND)
    second = world.topup_requests[-1]
    answer(world, first)
    assert world.use("50").topup_requests == ()
    assert AlertKind.AUTO_RECHARGE_TRIGGERED in alerts_of(answer(world, second))
    assert world.use("50").topup_requests == ()
    assert world.account().wallets["USD"].topup.charged == 100 * NANOS  # type: ignore[union-attr]
    world.check()


@pytest.mark.parametrize(("after", "known"), [(ANSWERED_MAX, True), (ANSWERED_MAX + 1, False)])
def test_requests_long_past_are_forgotten(after: int, known: bool) -> None:
    world = ready()
    world.use("95")
    for _ in range(after - 1):
        answer(world, world.topup_requests[-1])
        world.use("50")
    assert len(world.topup_requests) == after
    answer(world, world.topup_requests[-1])
    assert (AlertKind.AUTO_RECHARGE_TRIGGERED in alerts_of(answer(world, world.topup_requests[0]))) is known


def test_a_purchase_that_names_nobodys_request_is_no_top_up() -> None:
    world = ready()
    (request,) = world.use("95").topup_requests
    answer(world, request)
    others = world.buy("50", unit="EUR", topup_request_id=request.topup_request_id)
    assert alerts_of(world.buy("50", topup_request_id="topup-else")) == alerts_of(others) == []
    world.check()


def test_a_closed_org_asks_for_nothing_until_it_opens_again() -> None:
    world = ready()
    world.set(SettingKind.ORG, {"closed": True})
    assert world.use("95").topup_requests == ()
    assert len(world.set(SettingKind.ORG, {"closed": False}).topup_requests) == 1
    world.check()


@pytest.mark.parametrize(
    ("body", "refused"),
    [
        ({"threshold": "50", "purchase_amount": "50"}, False),
        ({"threshold": "50.1", "purchase_amount": "50"}, True),
        ({"threshold": "0", "purchase_amount": "100000"}, False),
        ({"threshold": "0", "purchase_amount": "100000.1"}, True),
        ({"threshold": "0", "purchase_amount": "0.9"}, True),
    ],
)
def test_what_terms_are_taken(body: dict[str, str], refused: bool) -> None:
    assert World().set(SettingKind.AUTO_TOPUP, {"unit": "USD", "enabled": True, **body}).rejected is refused


@pytest.mark.parametrize(
    ("role", "kind", "body", "allowed"),
    [
        (ActorRole.BILLING, SettingKind.AUTO_TOPUP, {"unit": "USD"}, True),
        (ActorRole.MEMBER, SettingKind.AUTO_TOPUP, {"unit": "USD"}, False),
        (ActorRole.BILLING, SettingKind.MONTH_LIMITS, {"unit": "USD"}, False),
        (ActorRole.ADMIN, SettingKind.MONTH_LIMITS, {"unit": "USD"}, True),
        (ActorRole.MEMBER, SettingKind.MODEL_ACCESS, {}, False),
        (
            ActorRole.BILLING,
            SettingKind.BUDGET,
            {"budget_id": "b", "unit": "USD", "window": "day", "limit": "1"},
            False,
        ),
    ],
)
def test_who_may_change_it(role: ActorRole, kind: SettingKind, body: dict[str, object], allowed: bool) -> None:
    outcome = World().set(kind, body, actor="bob", role=role)
    assert outcome.rejected is not allowed
    if not allowed:
        assert outcome.entries[0].reason == RejectReason.NOT_AUTHORIZED


def test_a_member_who_was_taken_off_may_buy_no_more() -> None:
    world = World()
    world.set(SettingKind.MEMBER, {"user_id": "ann", "role": "owner"})
    world.set(SettingKind.MEMBER, {"user_id": "bob", "role": "billing"})
    assert not world.buy("10", actor="bob").rejected
    world.set(SettingKind.MEMBER, {"user_id": "bob", "role": "none"})
    assert world.buy("10", actor="bob").entries[0].reason == RejectReason.NOT_AUTHORIZED
    world.check()


def test_the_failure_of_a_charge_of_last_month_frees_nothing_of_this_months_cap() -> None:
    world = World()
    world.buy("100")
    world.tick(29 * DAY)
    topup(world, cap="50")
    (first,) = world.use("95").topup_requests
    answer(world, first, FAILED)
    world.tick(2 * 3_600 * SECOND)
    second = world.topup_requests[-1]
    world.tick(2 * DAY)  # June
    answer(world, first)  # it went through after all: June's 50
    answer(world, second, FAILED)
    world.tick(2 * 3_600 * SECOND)
    assert alerts_of(world.use("50")) == [AlertKind.BALANCE_LOW, AlertKind.AUTO_RECHARGE_CAPPED]
    assert len(world.topup_requests) == 2
    world.check()
