"""The ledger and the auditor, fed alike, one operation at a time; and the same commands again, in batches.

After every operation both must have said the same: entries, alerts, answers to holds, requests for credits, and what
each wallet shows. What the auditor leaves to the ledger (ids, which of several equal limits is named) is not compared.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from schemas.amounts import parse_amount
from schemas.codec import decode_columns, encode_one
from schemas.enums import ActorRole, AlertKind, DecisionCode, EntryKind, HoldAction, PurchaseKind, RefundTarget
from schemas.enums import SettingKind as Setting
from schemas.meters import NAMED_METERS
from schemas.records import bundled_id
from streams.ledger.account import Account, encode_account
from streams.ledger.balances import status as shown_status
from streams.ledger.budgets import all_budgets
from streams.ledger.commands import Purchase, Refund, Transfer, Usage
from streams.ledger.commands import Setting as SettingCommand
from streams.ledger.decide import Command
from streams.ledger.entry import Alert, Entry, HoldDecision, Leg, Outcome, TopupRequest
from streams.ledger.rating import Price, PriceList
from streams.ledger.refusals import DeadLetter
from streams.verify.audit import compare_balances
from streams.verify.fold import LedgerFold
from tests.model.audited import Scope, month_of, month_starts
from tests.model.audited_rates import Price as AuditedPrice
from tests.model.audited_rates import Rated, Work
from tests.model.auditor import Auditor, status
from tests.model.memory import SCHEMAS, TOPICS, FixedPrices, MemoryLedger, Sent, sent
from tests.model.predicted import (
    ARRIVED,
    NOTHING_LEFT,
    Alarm,
    Decision,
    Line,
    Request,
    Unbookable,
)
from tests.unit.ledger.world import DAY, World

REASONING = "output_reasoning_tokens"

PRICES: tuple[dict[str, Any], ...] = (
    {"price_id": "in", "unit_price_nanos": 2_500, "billing_unit": "token", "model": "gpt", "direction": "input"},
    {
        "price_id": "out",
        "unit_price_nanos": 7_001,
        "billing_unit": "1000_tokens",
        "model": "gpt",
        "direction": "output",
    },
    {"price_id": "any", "unit_price_nanos": 333, "billing_unit": "1000000_tokens", "model": "mini"},
    {"price_id": "pro", "unit_price_nanos": 111, "billing_unit": "1000000_tokens", "model": "mini", "tier": "pro"},
    {"price_id": "free", "unit_price_nanos": 0, "billing_unit": "token", "model": "gift", "free": True},
    {"price_id": "host", "unit_price_nanos": 10**9 + 1, "billing_unit": "gpu_hour", "operation": "deployment"},
    {
        "price_id": "read",
        "unit_price_nanos": 251,
        "billing_unit": "token",
        "model": "gpt",
        "meter": "cache_read_tokens",
    },
    {
        "price_id": "hour",
        "unit_price_nanos": 3_001_000_333,
        "billing_unit": "1000000_tokens",
        "model": "gpt",
        "meter": "cache_write_1h_tokens",
    },
    {"price_id": "reason", "unit_price_nanos": 5, "billing_unit": "token", "model": "gpt", "meter": REASONING},
    {
        "price_id": "long",
        "unit_price_nanos": 5_000,
        "billing_unit": "token",
        "model": "gpt",
        "direction": "input",
        "input_tokens_above": 999,
    },
    {"price_id": "flex", "unit_price_nanos": 77, "billing_unit": "token", "model": "mini", "service_tier": "flex"},
    {"price_id": "prefix", "unit_price_nanos": 9, "billing_unit": "1000000_tokens", "model": "gi*"},
    {
        "price_id": "images",
        "unit_price_nanos": 13_000_000,
        "billing_unit": "unit",
        "meter": "images",
        "free_quantity_nanos": 3 * 10**9,
        "tiers": [{"up_to_nanos": 9 * 10**9, "unit_price_nanos": 17_000_001}],
    },
    {
        "price_id": "pages",
        "unit_price_nanos": 1_000_000,
        "billing_unit": "1000_units",
        "meter": "pages",
        "package_size_nanos": 10 * 10**9,
        "minimum_nanos": 50_000,
    },
)
EXTRAS: tuple[Mapping[str, Any], ...] = (
    {"parts": {"cache_read_tokens": 500}},
    {"parts": {"cache_read_tokens": 1, "cache_write_tokens": 400, "cache_write_1h_tokens": 300, REASONING: 900}},
    {"parts": {"images": 4}},
    {"parts": {"images": 1, "pages": 11}},
    {"parts": {"searches": 1}},
    {"parts": {"searches": 0}},
    {"service_tier": "flex"},
    {"service_tier": "fleks"},
)
"""What work may say besides its tokens."""

LISTED = [{"operation": "chat", "wallet": "USD", "valid_from": 0, **price} for price in PRICES]

ONLY_NOTES = {EntryKind.ROLLOVER, EntryKind.SETTING, EntryKind.TRANSFER_OUT}
HTTP_STATUS = {"ok": 200, "credits_not_available": 402, "credits_held": 402, "limit_reached": 402}

FORGOTTEN_AFTER = 40 * DAY
"""An id is remembered for 35 days and 2 hours, and at most an eighth longer."""
MILLISECOND = 1_000
USED_AGAIN = ("buy again", "send again")
"""Operations with an instant of their own: grants of one instant go by their ids (rule 3), and how the ledger names a
grant whose id was used before is its own affair."""
NUMBERED = re.compile(r"^(purchase|transfer)@\d+/")
"""The id of a grant whose purchase or transfer has an id that was used before."""

Step = tuple[Any, ...]
Doing = Callable[[], object]


class Recorder(World):
    """A world that remembers what it was asked to do."""

    def __init__(self) -> None:
        super().__init__(PriceList(Price.from_record(price) for price in LISTED))
        self.asked: list[tuple[int, Command | None]] = []
        """What was done, and when; None: time passed."""
        self.used_at: dict[str, int] = {}
        """When an id of a purchase or transfer was last in a command."""

    def do(self, command: Command) -> Outcome:
        self.asked.append((self.at, command))
        if isinstance(command, Purchase):
            self.used_at[command.purchase_id] = self.at
        elif isinstance(command, Transfer | Leg):
            self.used_at[command.transfer_id] = self.at
        return super().do(command)

    def tick(self, micros: int) -> list[Entry]:
        entries = super().tick(micros)
        self.asked.append((self.at, None))
        return entries


class Both:
    """The ledger and the auditor."""

    def __init__(self) -> None:
        self.world = Recorder()
        self.auditor = Auditor(_audited(price) for price in LISTED)
        self.number = 0
        self.held: dict[str, list[str]] = {}
        self.revised: set[tuple[str, str, int]] = set()
        self.again: Counter[str] = Counter()
        """How many ids were used again long after their window, by kind."""
        self.over: Counter[str] = Counter()
        """How often budgets were reached, by each dimension that they are for."""
        self.refused: Counter[str] = Counter()
        """How often budgets refused a hold, by the same."""
        self._seen = {"alerts": 0, "decisions": 0, "requests": 0}

    def perform(self, step: Step) -> None:
        """One operation, and the comparison."""
        self.number += 1
        self.auditor.forget()
        before = {name: len(entries) for name, entries in self.world.entries.items()}
        if step[0] == "deliver":
            self._deliver()
        elif step[0] == "tick":
            self._tick(step[1])
        elif step[0] == "before the turn":
            at = self.world.at
            self._tick(max(0, month_starts(month_of(at, "UTC") + 1, "UTC") - at - step[1]))
        elif step[0] in USED_AGAIN:
            self._tick(MILLISECOND)
            self._compare_doing(step)
            self._tick(MILLISECOND)
        else:
            self._compare_doing(step)
        entries = [entry for name in self.world.entries for entry in self.world.entries[name][before.get(name, 0) :]]
        self._compare(step, entries)

    def _compare_doing(self, step: Step) -> None:
        effects = self._do(step, f"n{self.number}", self.world.at)
        if effects is not None:
            ledger, auditor = effects
            assert _dead_letter(ledger) == _dead_letter(auditor), step

    def finish(self) -> None:
        """Everything is delivered, every hold times out; then nothing is held, and what must always hold does."""
        self.perform(("deliver",))
        self.perform(("tick", DAY))
        for account in self.world.accounts.values():
            assert not account.holds
            assert not any(wallet.held for wallet in account.wallets.values())
        open_holds = Counter(entry.hold_id for entry in self._of(EntryKind.HOLD))
        closed = Counter(entry.hold_id for entry in self._of(EntryKind.HOLD_RELEASE))
        assert max(open_holds.values(), default=0) <= 1
        assert max(closed.values(), default=0) <= 1
        self.world.check()

    def _of(self, kind: EntryKind) -> Iterator[Entry]:
        return (entry for entries in self.world.entries.values() for entry in entries if entry.kind is kind)

    # --- operations

    def _tick(self, micros: int) -> None:
        self.world.tick(micros)
        for who in list(self.world.accounts):
            self.auditor.settle(who, self.world.at)

    def _do(self, step: Step, name: str, at: int) -> tuple[Doing, Doing] | None:
        """The operation for the ledger and for the auditor; None: there is nothing to do it to."""
        world, auditor = self.world, self.auditor
        match step:
            case ("use", who, where, much, scope, hold):
                named = None if hold is None else self._hold(who, hold)
                return (
                    lambda: world.use(much, who, where, event_id=name, hold_id=named, **scope),
                    lambda: auditor.use(who, name, where, parse_amount(much), at, _scope(scope), named),
                )
            case ("work", who, operation, model, tokens, replicas, *extra):
                work = Work(operation, model, tokens, tokens * 3, None, replicas, **(extra[0] if extra else {}))
                return (
                    lambda: world.do(_work(name, who, at, work)),
                    lambda: self._compare_components(auditor.work(who, name, work, at, _scope({"model": model})), name),
                )
            case ("buy", who, where, much, kind, days, priority, actor):
                ends_at = None if days is None else at + days * DAY
                more = {"expires_at": ends_at, "priority": priority, "actor": actor}
                bought = {"purchase_id": name, "kind": PurchaseKind(kind), **more}
                return (
                    lambda: world.buy(much, who, where, **bought),
                    lambda: auditor.buy(who, name, where, parse_amount(much), at, kind, **more),
                )
            case ("answer", who, where, failed, late):
                return self._answer(who, where, failed, late, name, at)
            case ("buy again", who, where, much, number):
                old = self._long_ago(who, EntryKind.PURCHASE, number)
                return None if old is None else self._do(("buy", who, where, much, "purchased", 20, 50, None), old, at)
            case ("send again", source, target, where, much, number):
                old = self._long_ago(source, EntryKind.TRANSFER_OUT, number)
                return None if old is None else self._do(("send", source, target, where, much, "alice"), old, at)
            case ("send", source, target, where, much, actor):
                transfer = Transfer(name, source, target, at, where, parse_amount(much), actor)
                return (
                    lambda: world.do(transfer),
                    lambda: auditor.send(name, source, target, where, parse_amount(much), actor, at),
                )
            case ("set", who, kind, body, actor, role):
                text = msgspec.json.encode(body).decode()
                setting = SettingCommand(name, who, at, actor, ActorRole(role), Setting(kind), text)
                return lambda: world.do(setting), lambda: auditor.change(who, kind, body, actor, role, at)
            case _:
                return self._refer(step, name, at)

    def _compare_components(self, rated: Rated, event_id: str) -> None:
        """The components of the usage that was just booked: of each meter what is charged, and the sum."""
        (entry,) = (entry for entry in self._of(EntryKind.USAGE) if entry.event_id == event_id)
        charged: Counter[str] = Counter()
        for part in entry.components:
            if part.meter != "minimum":
                charged[part.meter] += part.quantity_nanos
        assert charged == rated.charged
        assert sum(part.amount_nanos for part in entry.components) == rated.cost

    def _refer(self, step: Step, name: str, at: int) -> tuple[Doing, Doing] | None:
        """Operations on something that was there before."""
        world, auditor = self.world, self.auditor
        match step:
            case ("refund purchase", who, number, much):
                bought = self._nth(who, EntryKind.PURCHASE, number)
                refund = Refund(name, who, at, RefundTarget.PURCHASE, bought, parse_amount(much))
                return lambda: world.do(refund), lambda: auditor.refund_purchase(who, bought, parse_amount(much), at)
            case ("refund usage", who, number, much, actor):
                used = self._nth(who, EntryKind.USAGE, number)
                refund = Refund(name, who, at, RefundTarget.USAGE, used, parse_amount(much), actor)
                return (
                    lambda: world.do(refund),
                    lambda: auditor.refund_usage(who, used, parse_amount(much), at, actor),
                )
            case ("correct", who, number, revision, where, much, scope):
                used = self._nth(who, EntryKind.USAGE, number)
                if (who, used, revision) in self.revised:  # the engine's to find
                    return None
                self.revised.add((who, used, revision))
                cost = None if much is None else parse_amount(much)
                fields = {"wallet": where, "revision": revision, "voided": cost is None, "cost_nanos": cost, **scope}
                usage = msgspec.convert(
                    {"event_id": used, "org_id": who, "occurred_at": at, "operation": "chat", **fields}, Usage
                )
                return (
                    lambda: world.do(usage),
                    lambda: auditor.correct(who, used, revision, where, cost, at, _scope(scope)),
                )
            case ("place", who, where, much, scope, operation, on_shortage, minutes):
                self.held.setdefault(who, []).append(name)
                ends_at = None if minutes is None else at + minutes * 60_000_000
                words = {"operation": operation, "on_shortage": on_shortage, "expires_at": ends_at, **scope}
                return (
                    lambda: world.hold(HoldAction.PLACE, name, much, who, where, **words),
                    lambda: auditor.place(
                        who, name, where, parse_amount(much), at, _scope(scope), operation, on_shortage, ends_at
                    ),
                )
            case ("capture", who, number, where, much):
                hold = self._hold(who, number)
                if not self._once(who, hold, "capture"):
                    return None
                return (
                    lambda: world.hold(HoldAction.CAPTURE, hold, much, who, where),
                    lambda: auditor.capture(who, hold, where, parse_amount(much), at),
                )
            case ("release", who, number, where):
                hold = self._hold(who, number)
                if not self._once(who, hold, "release"):
                    return None
                return (
                    lambda: world.hold(HoldAction.RELEASE, hold, "0", who, where),
                    lambda: auditor.release(who, hold, where, at),
                )
            case _:
                raise AssertionError(step)

    def _answer(self, who: str, where: str, failed: bool, late: bool, name: str, at: int) -> tuple[Doing, Doing] | None:
        """A purchase that answers the latest request of a wallet, or (`late`) the first."""
        asked = [each for each in self.world.topup_requests if (each.org_id, each.wallet) == (who, where)]
        if not asked:
            return None
        number = 1 if late else len(asked)
        request = asked[number - 1]
        purchase = msgspec.convert(
            {
                "purchase_id": name,
                "org_id": who,
                "occurred_at": at,
                "wallet": where,
                "amount_nanos": request.amount_nanos,
                "status": "failed" if failed else "completed",
                "topup_request_id": request.topup_request_id,
            },
            Purchase,
        )
        return (
            lambda: self.world.do(purchase),
            lambda: self.auditor.buy(who, name, where, request.amount_nanos, at, answers=number, failed=failed),
        )

    def _deliver(self) -> None:
        """Hand on legs until none travels; the auditor follows each."""
        world, auditor = self.world, self.auditor
        while world.legs:
            leg: Leg = world.legs.pop(0)
            answers = len(world.legs)
            world.do(leg)
            match leg.kind.value:
                case "credit":
                    taken = auditor.arrive(leg.transfer_id, world.at)
                    answer = world.legs[answers]
                    assert answer.kind.value == ("acknowledge" if taken else "return")
                case "return":
                    auditor.come_back(leg.transfer_id, world.at)
                case _:
                    auditor.acknowledged(leg.source_org_id, world.at)

    def _nth(self, who: str, kind: EntryKind, number: int) -> str:
        ids = [entry.event_id for entry in self.world.entries[who] if entry.kind is kind and entry.amount_nanos]
        return ids[number % len(ids)] if ids else "nothing"

    def _long_ago(self, who: str, kind: EntryKind, number: int) -> str | None:
        """An id that was used so long ago that nothing remembers it: it stands for something of its own now."""
        ids = dict.fromkeys(entry.event_id for entry in self.world.entries[who] if entry.kind is kind)
        old = [name for name in ids if self.world.used_at[name] + FORGOTTEN_AFTER <= self.world.at]
        if not old or old[number % len(old)] in self.auditor.parcels:
            return None
        self.again[kind.value] += 1
        return old[number % len(old)]

    def _hold(self, who: str, number: int) -> str:
        ids = self.held.get(who)
        return ids[-1 - number % len(ids)] if ids else "nothing"

    def _once(self, who: str, hold: str, action: str) -> bool:
        """Whether this is the first record of its kind about a hold; the second is the engine's to find."""
        key = (who, f"{action} {hold}", 0)
        first = key not in self.revised
        self.revised.add(key)
        return first

    # --- the comparison

    def _compare(self, step: Step, entries: Sequence[Entry]) -> None:
        world, auditor = self.world, self.auditor
        alerts, decisions = self._new("alerts", world.alerts), self._new("decisions", world.decisions)
        effects = Effects(entries, alerts, decisions, self._new("requests", world.topup_requests))
        compare(auditor, effects, step)
        for alarm in auditor.alarms:
            if alarm.kind == "budget_reached":
                found = auditor.org(alarm.org).budget(alarm.rule or "")
                self.over.update(() if found is None else (name for name, _ in found[1].scope))
        for decision in decisions:
            found = None if decision.limit_id is None else auditor.org(decision.org_id).budget(decision.limit_id)
            self.refused.update(() if found is None else (name for name, _ in found[1].scope))
        for who in {entry.org_id for entry in entries}:
            compare_wallets(auditor, world.accounts[who], step)

    def _new(self, page: str, everything: list[Any]) -> list[Any]:
        new = everything[self._seen[page] :]
        self._seen[page] = len(everything)
        return new

    # --- in batches

    def replay(self, sizes: Sequence[int]) -> MemoryLedger:
        """The same commands through the processor, in batches of these sizes (in turn); it must come to the same."""
        book = MemoryLedger(FixedPrices(LISTED))
        batch: list[Sent] = []
        full = 0
        for at, command in self.world.asked:
            if command is not None:
                batch.append(_sent(command, at))
            if batch and (command is None or len(batch) >= sizes[full % len(sizes)]):
                _forget(book, batch[0].at)
                book.feed(batch)
                batch, full = [], full + 1
            if command is None:
                book.tick(at)
        if batch:
            _forget(book, batch[0].at)
            book.feed(batch)
        self._compare_books(book)
        self.verify(book)
        return book

    def verify(self, book: MemoryLedger) -> None:
        """What `credits verify` makes of the ledger: no difference, the published balances, the auditor's wallets."""
        values = [value for _, value, _ in book.written.get(TOPICS.name("ledger"), [])]
        entries = decode_columns("entry", values, SCHEMAS).batch
        balances = book.rows("balances")
        for end in (len(balances) // 2, len(balances)):  # half-way credits are on the way that have an end at the end
            published = {row["org_id"]: row for row in balances[:end]}
            fold = LedgerFold({who: row["seq"] for who, row in published.items()})
            fold.add(entries)
            fold.finish()
            booked = {who: org.seq for who, org in fold.orgs.items()} if end == len(balances) else {}
            compare_balances(fold, published, booked, fold.differences)
            found = [str(each) for each in fold.differences.kept]
            assert not found, found
        for who, folded in fold.orgs.items():
            for unit, wallet in folded.wallets.items():
                known = self.auditor.look(who, unit)
                got = (wallet.settled, wallet.held, wallet.lifetime_added, wallet.lifetime_spent)
                assert got == (known.balance, known.held, known.added, known.spent), (who, unit)

    def _compare_books(self, book: MemoryLedger) -> None:
        world = self.world
        entries = book.rows("ledger")
        for who, alone in world.entries.items():
            batched = [_unplaced(row) for row in entries if row["org_id"] == who]
            assert batched == [_unplaced(entry.to_record()) for entry in alone], who
        alerts = [row["alert_id"] for key in ("threshold", "depletion", "topup") for row in book.rows(f"alerts_{key}")]
        assert Counter(alerts) == Counter(alert.alert_id for alert in world.alerts)
        requested = [row["topup_request_id"] for row in book.rows("topup_requests")]
        assert Counter(requested) == Counter(request.topup_request_id for request in world.topup_requests)
        decided = Counter((row["org_id"], row["hold_id"], row["code"]) for row in book.rows("decisions"))
        assert decided == Counter((each.org_id, each.hold_id, each.code.value) for each in world.decisions)
        for who, account in world.accounts.items():
            if account.seq:
                assert encode_account(book.account(who)) == encode_account(account), who


@dataclasses.dataclass(frozen=True, slots=True)
class Effects:
    """What the ledger said, in its order."""

    entries: Sequence[Entry]
    alerts: Sequence[Alert]
    decisions: Sequence[HoldDecision]
    requests: Sequence[TopupRequest]


def compare(auditor: Auditor, effects: Effects, about: object) -> None:
    """The ledger said what stands on the auditor's page; `about`: named when it did not."""
    booked = Counter(line for entry in effects.entries if (line := _line(entry)) is not None)
    predicted = Counter(auditor.lines)
    if any(line.reason == NOTHING_LEFT for line in auditor.lines):
        booked, predicted = (Counter(map(_nothing_left, lines.elements())) for lines in (booked, predicted))
    assert booked == predicted, (about, booked - predicted, predicted - booked)
    alarms = Counter(map(_alarm, effects.alerts))
    raised = Counter(auditor.alarms)
    assert alarms == raised, (about, alarms - raised, raised - alarms)
    for decision, answer in zip(effects.decisions, auditor.decisions, strict=True):
        assert _answered(decision, answer), (about, decision, answer)
    assert Counter(map(_request, effects.requests)) == Counter(auditor.requests), about


def compare_wallets(auditor: Auditor, account: Account, about: object) -> None:
    """What an account shows of its wallets and budgets is what the auditor has of them."""
    org = auditor.org(account.org_id)
    assert account.wallets.keys() == org.wallets.keys(), about
    for unit, wallet in account.wallets.items():
        known = org.wallets[unit]
        got = (
            wallet.settled,
            wallet.held,
            wallet.allocation,
            wallet.used,
            wallet.lifetime_added,
            wallet.lifetime_spent,
            shown_status(account, wallet).value,
        )
        expected = (
            known.balance,
            known.held,
            known.allocation,
            known.used,
            known.added,
            known.spent,
            status(org, known),
        )
        assert got == expected, (about, account.org_id, unit, got, expected)
        budgets = [] if wallet.budgets is None else list(all_budgets(wallet.budgets))
        spent = {budget.budget_id: (budget.spent, budget.alert_state.crossed) for budget in budgets}
        assert spent == {name: (each.spent, each.crossed) for name, each in known.budgets.items()}, (
            about,
            account.org_id,
            unit,
        )


def _dead_letter(doing: Doing) -> str | None:
    try:
        doing()
    except DeadLetter as letter:
        return letter.code.value
    except Unbookable as unbookable:
        return str(unbookable)
    return None


def _audited(price: Mapping[str, Any]) -> AuditedPrice:
    names = {"price_id": "name", "unit_price_nanos": "unit_price", "input_tokens_above": "above"}
    names |= {f"{name}_nanos": name for name in ("free_quantity", "minimum")} | {"package_size_nanos": "package"}
    fields = {names.get(name, name): value for name, value in price.items()}
    fields["tiers"] = tuple((tier["up_to_nanos"], tier["unit_price_nanos"]) for tier in fields.get("tiers", ()))
    return AuditedPrice(**fields)


def _scope(words: Mapping[str, str | None]) -> Scope:
    return frozenset((name, value) for name, value in words.items() if value is not None)


def _work(name: str, who: str, at: int, work: Work) -> Usage:
    return Usage(
        name,
        who,
        at,
        work.operation,
        model=work.model,
        input_tokens=work.input_tokens,
        output_tokens=work.output_tokens,
        replicas=work.replicas,
        service_tier=work.service_tier,
        quantities={name: count * 10**9 for name, count in work.parts.items() if name not in NAMED_METERS},
        **{name: count for name, count in work.parts.items() if name in NAMED_METERS},  # type: ignore[arg-type]
    )


def _sent(command: Command, at: int) -> Sent:
    if isinstance(command, Leg):
        value = encode_one("leg", command.to_record(), bundled_id("leg"))
        return Sent(TOPICS.name("transfer_legs"), command.org_id.encode(), value, at)
    return sent(type(command).__name__.lower(), msgspec.to_builtins(command), at)


def _unplaced(row: Mapping[str, Any]) -> dict[str, Any]:
    """An entry without its place in the log; lists and words as in JSON."""
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(row))
    return {name: value for name, value in plain.items() if not name.startswith("source_")}


def _line(entry: Entry) -> Line | None:
    """The entry as the auditor would say it; None for one that only notes something."""
    if not entry.amount_nanos and entry.kind in ONLY_NOTES:
        return None
    drawn: Counter[str] = Counter()
    if entry.amount_nanos < 0 and entry.kind is not EntryKind.EXPIRY:
        for part in entry.slices:
            drawn[part.kind.value] += part.amount_nanos
    effects = entry.kind in (EntryKind.REJECTED, EntryKind.EXPIRY, EntryKind.HOLD_RELEASE)
    return Line(
        entry.org_id,
        entry.kind.value,
        entry.wallet,
        entry.amount_nanos,
        entry.balance_nanos,
        entry.held_nanos,
        str(entry.reason) if effects else None,
        tuple(sorted(drawn.items())),
    )


def _nothing_left(line: Line) -> Line:
    either = line.reason in NOTHING_LEFT.split(" or ") if line.reason else False
    return dataclasses.replace(line, unit="", balance=0, held=0, reason=NOTHING_LEFT) if either else line


def _forget(book: MemoryLedger, at: int) -> None:
    """Ids whose window has passed are known no more."""
    for memory in book.partition.seen.values():
        memory.expire(at)  # type: ignore[attr-defined]


def _alarm(alert: Alert) -> Alarm:
    rule = None if alert.rule_id is None else NUMBERED.sub(r"\1/", alert.rule_id)
    rule = ARRIVED if rule is not None and rule.startswith(ARRIVED) else rule
    if alert.kind is AlertKind.AUTO_RECHARGE_TRIGGERED:  # the rule is the request's id
        rule = None
    return Alarm(alert.org_id, alert.wallet, alert.kind.value, rule, frozenset(alert.thresholds_left))


def _answered(decision: HoldDecision, predicted: Decision) -> bool:
    code = decision.code.value
    decided = (decision.org_id, decision.hold_id, decision.action.value, code)
    named = {decision.limit_id} if decision.limit_id is not None else set()
    return (
        decided == (predicted.org, predicted.hold, predicted.action, predicted.code)
        and (decision.granted_nanos, decision.available_nanos) == (predicted.granted, predicted.available)
        and decision.allowed is (decision.code is DecisionCode.OK)
        and bool(named) is bool(predicted.limits)
        and named <= predicted.limits
        and decision.http_status == HTTP_STATUS.get(code, decision.http_status)
    )


def _request(request: TopupRequest) -> Request:
    return Request(request.org_id, request.wallet, request.amount_nanos, request.reason.value == "retry")
