"""A small world for the pure core: accounts, a clock, and legs that travel. No Kafka, no engine.

Every command goes the way the agent takes it: settle what is due, decide, collect. `World.check` holds what must be
true after any of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import msgspec

from schemas.amounts import parse_amount
from schemas.enums import (
    ActorRole,
    BillingUnit,
    Direction,
    EntryKind,
    GrantKind,
    HoldAction,
    PurchaseKind,
    PurchaseStatus,
    RefundTarget,
    SettingKind,
)
from streams.ledger.account import Account, encode_account, new_account
from streams.ledger.budgets import Scope, all_budgets, covers
from streams.ledger.commands import Hold, Purchase, Refund, Setting, Transfer, Usage
from streams.ledger.decide import Command, Context, Source, decide, evolve, settle_due
from streams.ledger.entry import Alert, Entry, HoldDecision, Leg, Outcome, TopupRequest
from streams.ledger.rating import Price, PriceList
from streams.ledger.refusals import DeadLetter

DAY = 86_400 * 1_000_000
START = 1_777_593_600 * 1_000_000
"""2026-05-01T00:00:00Z."""

PRICES = PriceList(
    [
        Price("in", "chat", 2_500, BillingUnit.TOKEN, "USD", 0, model="gpt", direction=Direction.INPUT),
        Price("out", "chat", 10_000, BillingUnit.TOKEN, "USD", 0, model="gpt", direction=Direction.OUTPUT),
        Price("free", "chat", 0, BillingUnit.TOKEN, "USD", 0, model="free", free=True),
    ]
)


class World:
    """Orgs under one clock."""

    def __init__(self, prices: PriceList = PRICES, *, fast: bool = True, timers: bool = True) -> None:
        """`fast=False` closes the fast way of booking usage; `timers=False` leaves what is due to the next command."""
        self.fast = fast
        self.timers = timers
        self.at = START
        self.prices = prices
        self.accounts: dict[str, Account] = {}
        self.entries: dict[str, list[Entry]] = defaultdict(list)
        self.alerts: list[Alert] = []
        self.legs: list[Leg] = []
        self.topup_requests: list[TopupRequest] = []
        self.decisions: list[HoldDecision] = []
        self._offset = 0

    def account(self, org: str = "acme") -> Account:
        return self.accounts.setdefault(org, new_account(org))

    @property
    def commands(self) -> int:
        """How many commands were decided; grows with each."""
        return self._offset

    def settled(self, org: str = "acme", unit: str = "USD") -> int:
        return self.account(org).wallets[unit].settled

    def tick(self, micros: int) -> list[Entry]:
        """Let time pass, and the timers run."""
        self.at += micros
        if not self.timers:
            return []
        return [entry for org in list(self.accounts) for entry in self.settle(org).entries]

    def settle(self, org: str) -> Outcome:
        return self._collect(org, settle_due(self.account(org), self.at))

    def do(self, command: Command) -> Outcome:
        """Settle, decide; legs wait in `legs`. Returns what came of the command alone; raises a `DeadLetter`."""
        org = command.org_id
        self.settle(org)
        if not self.fast:
            for wallet in self.account(org).wallets.values():
                wallet.fast_path_limit = wallet.budgeted_fast_path_limit = 0
        self._offset += 1
        references = self._references(command)
        context = Context(self.at, self.prices, Source("topic", 0, self._offset), references)
        outcome = decide(self.account(org), command, context)
        if isinstance(outcome, DeadLetter):
            raise outcome
        return self._collect(org, outcome)

    def deliver(self) -> None:
        """Hand on legs until none travels."""
        while self.legs:
            self.do(self.legs.pop(0))

    def _references(self, command: Command) -> Mapping[str, Entry]:
        match command:
            case Refund(target=RefundTarget.USAGE | RefundTarget.RERATED_USAGE):
                wanted = command.target_id
            case Usage() if command.revision or command.voided:
                wanted = command.event_id
            case _:
                return {}
        booked = [entry for entry in self.entries[command.org_id] if entry.kind is EntryKind.USAGE]
        return {entry.event_id: entry for entry in booked if entry.event_id == wanted}

    def _collect(self, org: str, outcome: Outcome) -> Outcome:
        self.entries[org] += outcome.entries
        self.alerts += outcome.alerts
        self.legs += outcome.legs
        self.topup_requests += outcome.topup_requests
        self.decisions += outcome.decisions
        return outcome

    # Commands in few words; amounts as decimal text.

    def buy(self, amount: str, org: str = "acme", unit: str = "USD", **more: object) -> Outcome:
        fields = {"purchase_id": f"p{self._offset + 1}", **more}
        return self.do(
            msgspec.convert(
                {"org_id": org, "occurred_at": self.at, "wallet": unit, "amount_nanos": parse_amount(amount), **fields},
                Purchase,
            )
        )

    def give(self, amount: str, org: str = "acme", unit: str = "USD", **more: object) -> Outcome:
        return self.buy(amount, org, unit, kind=PurchaseKind.PROMOTIONAL, **more)

    def use(self, cost: str, org: str = "acme", unit: str | None = "USD", **more: object) -> Outcome:
        fields = {"event_id": f"u{self._offset + 1}", "operation": "chat", **more}
        return self.do(
            msgspec.convert(
                {"org_id": org, "occurred_at": self.at, "wallet": unit, "cost_nanos": parse_amount(cost), **fields},
                Usage,
            )
        )

    def refund(self, target: RefundTarget, target_id: str, amount: str, org: str = "acme", **more: object) -> Outcome:
        fields = {"refund_id": f"r{self._offset + 1}", **more}
        return self.do(
            msgspec.convert(
                {
                    "org_id": org,
                    "occurred_at": self.at,
                    "target": target,
                    "target_id": target_id,
                    "amount_nanos": parse_amount(amount),
                    **fields,
                },
                Refund,
            )
        )

    def send(self, amount: str, source: str, target: str, actor: str = "alice", unit: str = "USD") -> Outcome:
        return self.do(Transfer(f"t{self._offset + 1}", source, target, self.at, unit, parse_amount(amount), actor))

    def hold(
        self,
        action: HoldAction,
        hold_id: str,
        amount: str = "0",
        org: str = "acme",
        unit: str = "USD",
        **more: object,
    ) -> Outcome:
        fields = {"hold_id": hold_id, "org_id": org, "occurred_at": self.at, "action": action, "wallet": unit}
        return self.do(msgspec.convert({**fields, "amount_nanos": parse_amount(amount), **more}, Hold))

    def set(
        self,
        kind: SettingKind,
        body: Mapping[str, object],
        org: str = "acme",
        actor: str = "root",
        role: ActorRole = ActorRole.SYSTEM,
    ) -> Outcome:
        text = msgspec.json.encode(body).decode()
        return self.do(Setting(f"s{self._offset + 1}", org, self.at, actor, role, kind, text))

    # What must always hold.

    def check(self) -> None:
        for org, account in self.accounts.items():
            check_wallets(account)
            check_holds(account)
            check_entries(self.entries[org])
            folded, alerts = fold(org, self.entries[org])
            assert encode_account(folded) == encode_account(account), f"the fold of {org} differs"
            assert alerts == [alert for alert in self.alerts if alert.org_id == org]
        requested = [request.topup_request_id for request in self.topup_requests]
        assert len(requested) == len(set(requested)), "a topup request stands twice"
        ids = [alert.alert_id for alert in self.alerts]
        assert len(ids) == len(set(ids)), "an alert id stands twice"
        self._check_conservation()

    def _check_conservation(self) -> None:
        """Per unit: what came in is in balances, on the way, spent, expired or taken back."""
        sums: dict[str, int] = defaultdict(int)
        balances: dict[str, int] = defaultdict(int)
        for org, account in self.accounts.items():
            for unit, wallet in account.wallets.items():
                balances[unit] += wallet.settled + account.in_transit_nanos(unit)
            for entry in self.entries[org]:
                if entry.kind not in (EntryKind.TRANSFER_OUT, EntryKind.TRANSFER_IN, EntryKind.TRANSFER_RETURN):
                    sums[entry.wallet] += entry.amount_nanos
        for leg in self.legs:
            if leg.kind == "acknowledge":  # credits have arrived, and are still shown as on the way
                balances[leg.wallet] -= leg.amount_nanos
        for unit in {*sums, *balances}:
            assert sums[unit] == balances[unit], f"{unit}: in − out {sums[unit]}, there {balances[unit]}"


def fold(org: str, entries: list[Entry]) -> tuple[Account, list[Alert]]:
    """An account rebuilt from its ledger alone, as it would be read from Kafka."""
    account, alerts = new_account(org), []
    for entry in entries:
        read = Entry.from_record(entry.to_record())
        assert read == entry
        alerts += evolve(account, read)
    return account, alerts


def check_wallets(account: Account) -> None:
    for unit, wallet in account.wallets.items():
        assert wallet.unit == unit
        assert all(0 < grant.remaining <= grant.amount for grant in (*wallet.grants, *wallet.ended))
        assert not any(grant.kept for grant in wallet.grants)
        assert all(grant.remaining == 0 for grant in wallet.exhausted)
        assert wallet.overdraft >= 0
        assert not (wallet.overdraft and wallet.grants)
        assert wallet.settled == sum(grant.remaining for grant in (*wallet.grants, *wallet.ended)) - wallet.overdraft
        assert wallet.fast_path_limit >= 0
        ids = [grant.grant_id for grant in (*wallet.grants, *wallet.ended, *wallet.exhausted)]
        assert len(ids) == len(set(ids))


def check_holds(account: Account) -> None:
    """No hold leaks: what is held is what active holds set aside, and each of them has its time-out."""
    assert account.hold_ends == sorted((hold.expires_at, hold.hold_id) for hold in account.holds.values())
    for unit, wallet in account.wallets.items():
        holds = [hold for hold in account.holds.values() if hold.wallet == unit]
        assert wallet.held == sum(hold.amount for hold in holds)
        assert all(sum(hold.kept.values()) <= hold.amount and all(hold.kept.values()) for hold in holds)
        for grant in wallet.ended:
            assert grant.remaining == grant.kept, "what no hold keeps of an ended grant has expired"
            assert grant.kept == sum(hold.kept.get(grant.end_number, 0) for hold in holds)
        assert {number for hold in holds for number in hold.kept} == {grant.end_number for grant in wallet.ended}
        budgets = [] if wallet.budgets is None else list(all_budgets(wallet.budgets))
        for budget in budgets:
            assert budget.held == sum(hold.amount for hold in holds if covers(budget, Scope(*hold.scope)))
        if wallet.budgets is not None:
            assert wallet.budgets.count == len(budgets) > 0
            assert wallet.budgets.alerting_count == sum(budget.alert_state.crossed for budget in budgets)


def check_entries(entries: list[Entry]) -> None:
    balances: dict[str, int] = defaultdict(int)
    overdrafts: dict[str, int] = defaultdict(int)
    for number, entry in enumerate(entries, 1):
        assert entry.seq == number
        assert entry.amount_nanos == sum(lot.amount_nanos for lot in entry.grants) - sum(
            part.amount_nanos for part in entry.slices
        )
        if entry.kind is EntryKind.REJECTED:
            assert entry.amount_nanos == 0
            continue
        balances[entry.wallet] += entry.amount_nanos
        assert entry.balance_nanos == balances[entry.wallet]
        assert entry.available_nanos == entry.balance_nanos - entry.held_nanos
        overdrafts[entry.wallet] += sum(part.amount_nanos for part in entry.slices if part.kind is GrantKind.OVERDRAFT)
        assert overdrafts[entry.wallet] >= 0


FAILED = PurchaseStatus.FAILED
