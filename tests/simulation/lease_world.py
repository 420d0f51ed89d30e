"""Clients with leases, two processes of the API and the ledger, in one virtual time that follows from a seed.

Real are: what a client may spend (`LeaseState`), the records that calls make (`hold_routes`, `lease_routes`), and the
ledger's rules. Replaced are the network, Kafka and the clocks: requests and answers are late, lost or come twice; each
topic is read with a delay of its own; the clocks of client, server and ledger differ. Clients die, stop for a while,
and come back late. `World.check_spend` looks at the ledger at the very moment of each spending.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from schemas.amounts import NANOS, format_amount
from schemas.enums import EntryKind, HoldAction, InputKind
from schemas.fields import Record
from streams.api.hold_routes import hold_of
from streams.api.holds import Holds, stands
from streams.api.lease_routes import lease_fields, usage_of
from streams.client.lease_state import LeaseRefusedError, LeaseReport, LeaseRequest, LeaseState, LeaseTerms
from streams.kafka.decisions import Decision, DecisionKey
from tests.unit.platform.memory_ledger import MemoryLedger

BEGIN_US = 1_777_636_800_000_000
ORG = "acme"
CREDITS = 60
WAIT_S = 5.0
"""How long a server waits for a decision."""
CALL_TIMEOUT_S = 10.0
"""How long a client waits for a server."""
LAST_S = 240.0
"""Until then clients spend."""
OVER_S = 600.0
"""By then everything has ended."""


class BrokenLeaseError(AssertionError):
    """What must never be."""


@dataclass(frozen=True)
class Guards:
    """What keeps clients from spending too much; a test takes one out and sees it missed."""

    counts_from_sending: bool = True
    last_goes_last: bool = True
    stops_at_the_end: bool = True


@dataclass
class Spent:
    """What was spent under one lease."""

    amounts: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return sum(self.amounts.values())


class World:
    """Everything, and what must hold."""

    def __init__(self, seed: int, guards: Guards | None = None, clients: int = 3) -> None:
        self.random = random.Random(seed)
        self.guards = guards or Guards()
        self.now_s = 0.0
        self.seen: Counter[str] = Counter()
        """What happened, by name."""
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self.ledger = MemoryLedger(BEGIN_US)
        purchase = {"purchase_id": "p", "org_id": ORG, "occurred_at": BEGIN_US, "wallet": "USD"}
        self.ledger.take(InputKind.PURCHASE, {**purchase, "amount_nanos": CREDITS * NANOS})
        self.kafka = Kafka(self)
        self.servers = [Server(self, self.random.uniform(-2, 2)) for _ in range(2)]
        self.clients = [Client(self, f"client{number}") for number in range(clients)]
        self.spent: dict[str, Spent] = defaultdict(Spent)
        self.reported: set[str] = set()

    def at(self, time_s: float, action: Callable[[], None]) -> None:
        """Do something at a time; what is for the same time is done in the order in which it was asked for."""
        self._number += 1
        heapq.heappush(self._events, (time_s, self._number, action))

    def after(self, wait_s: float, action: Callable[[], None]) -> None:
        """Do something after a wait."""
        self.at(self.now_s + wait_s, action)

    def run(self) -> None:
        """From the first to the last, and then the end of all holds."""
        while self._events and self._events[0][0] < OVER_S:
            self.now_s, _, action = heapq.heappop(self._events)
            action()
        self.now_s = OVER_S
        self.kafka.drain()
        self.ledger.advance(self.ledger_us() + 3_600_000_000)
        self.check_end()

    def ledger_us(self) -> int:
        """The ledger's clock."""
        return BEGIN_US + int(self.now_s * 1e6)

    def late(self, usual_s: float, worst_s: float) -> float:
        """A delay: mostly short, now and then very long."""
        return self.random.uniform(0, worst_s if self.random.random() < 0.06 else usual_s)

    def check_spend(self, usage_id: str, amount: int) -> None:
        """At the moment of a spending its hold is active in the ledger, and covers all that was spent under it."""
        lease = usage_id.rpartition("/")[0]
        self.spent[lease].amounts[usage_id] = amount
        self.ledger.advance(self.ledger_us())
        hold = self.ledger.account(ORG).holds.get(lease)
        if hold is None:
            raise BrokenLeaseError(f"{usage_id} is spent at {self.now_s:.3f} s, and its hold is not active")
        if self.spent[lease].total > hold.amount:
            raise BrokenLeaseError(f"{lease} has spent {self.spent[lease].total} of {hold.amount}")

    def check_resolved(self, lease: str) -> None:
        """A hold that a report or a release has resolved has nothing spent under it that is not booked."""
        booked = {entry.event_id for entry in self.ledger.booked(EntryKind.USAGE)}
        missing = self.spent[lease].amounts.keys() - booked
        if missing:
            raise BrokenLeaseError(f"{lease} is resolved, and {sorted(missing)} are not booked")

    def check_end(self) -> None:
        """Reported usage is booked once and at its amount, nothing is held, and the credits add up."""
        booked = Counter(entry.event_id for entry in self.ledger.booked(EntryKind.USAGE))
        amounts = {name: amount for each in self.spent.values() for name, amount in each.amounts.items()}
        for name, times in booked.items():
            assert times == 1, f"{name} is booked {times} times"
        for entry in self.ledger.booked(EntryKind.USAGE):
            assert -entry.amount_nanos == amounts[entry.event_id], "at its amount"
        assert self.reported <= booked.keys(), "everything reported is booked"
        for client in self.clients:
            if not client.died:
                assert client.state.is_done, f"{client.name} has something left"
                assert client.mine() <= booked.keys(), "a client that lives has reported everything"
        wallet = self.ledger.account(ORG).wallets["USD"]
        assert (wallet.held, self.ledger.account(ORG).holds) == (0, {}), "nothing is held"
        assert wallet.settled == CREDITS * NANOS - sum(amounts[name] for name in booked), "no credit is lost or made"
        overspent = self.kafka.booked_late
        assert wallet.settled >= -overspent, (
            f"below zero by more than the {overspent} that came after their holds' ends"
        )


class Kafka:
    """The two input topics, each read by the ledger with a delay of its own, and the decisions."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._topics: dict[InputKind, deque[tuple[Record, int]]] = {kind: deque() for kind in InputKind}
        self._readable_at_s: dict[InputKind, float] = defaultdict(float)
        self.decisions: dict[DecisionKey, Decision] = {}
        self.booked_late = 0
        """Nano-units of usage that were booked when its hold had timed out."""

    def send(self, kind: InputKind, record: Record) -> None:
        """A record is in its topic, and the ledger gets to it, in order."""
        world = self._world
        self._topics[kind].append((record, world.ledger_us()))
        if kind is InputKind.USAGE:
            world.reported.add(str(record.to_record()["event_id"]))
        at_s = max(self._readable_at_s[kind], world.now_s + world.late(0.1, 12))
        self._readable_at_s[kind] = at_s
        world.at(at_s, lambda: self._decide(kind))

    def drain(self) -> None:
        """Read everything."""
        for kind, waiting in self._topics.items():
            while waiting:
                self._decide(kind)

    def _decide(self, kind: InputKind) -> None:
        if not self._topics[kind]:
            return
        world, (record, arrived_us) = self._world, self._topics[kind].popleft()
        world.ledger.advance(world.ledger_us())
        active = set(world.ledger.account(ORG).holds)
        fields = record.to_record()
        decisions = world.ledger.take(kind, fields, arrived_us)
        if kind is InputKind.USAGE and str(fields["event_id"]).rpartition("/")[0] not in active:
            self.booked_late += fields["cost_nanos"]
            world.seen["booked after its hold's end"] += 1
        for decision in decisions:
            key = DecisionKey(ORG, decision.hold_id, decision.action)
            if decision.allowed or key not in self.decisions:
                self.decisions[key] = decision.to_record()
        for lease in active - set(world.ledger.account(ORG).holds):
            world.check_resolved(lease)


class Server:
    """One process of the API: its clock, and what it remembers of requests."""

    def __init__(self, world: World, clock_off_s: float) -> None:
        self._world = world
        self._clock_off_s = clock_off_s
        self.forget()

    def forget(self) -> None:
        """It is started again."""
        anything: Any = _NoReader()
        self._holds = Holds(anything, anything, now_us=self._now_us)

    def _now_us(self) -> int:
        return self._world.ledger_us() + int(self._clock_off_s * 1e6)

    def place(self, body: dict[str, Any], answer: Callable[[Any], None]) -> None:
        """Answer with the lease, a refusal, or nothing known."""
        world, content = self._world, repr(sorted(body.items())).encode()
        fields, duration_s = lease_fields(self._holds, {**body, "org_id": ORG}, content, None)
        hold = hold_of(self._holds, HoldAction.PLACE, fields, content)
        key = DecisionKey(ORG, hold.hold_id, HoldAction.PLACE)
        known = world.kafka.decisions.get(key)
        if known is None:
            world.kafka.send(InputKind.HOLD, hold)
        else:
            world.seen["answered from memory"] += 1
        until_s = world.now_s + WAIT_S

        def look() -> None:
            decision = world.kafka.decisions.get(key)
            if decision is not None:
                assert stands(hold, decision)
                granted = decision["granted_nanos"]
                answer((granted, float(duration_s)) if decision["allowed"] else decision["code"])
            elif world.now_s < until_s:
                world.after(0.02, look)
            else:
                world.seen["pending"] += 1
                answer(None)

        look()

    def report(self, lease: str, body: dict[str, Any], answer: Callable[[Any], None]) -> None:
        """Take all of the usage, or none. It may die in the middle."""
        world, final = self._world, bool(body["final"])
        given = {"wallet": body["wallet"], "usage": list(body["usage"])}
        records = usage_of(given, ORG, lease, final=final)
        if final and not self._world.guards.last_goes_last:
            records.reverse()
        for number, record in enumerate(records):
            if number and world.random.random() < 0.01:
                world.seen["server died in a report"] += 1
                self.forget()
                return
            world.kafka.send(InputKind.USAGE, record)
        if final and not records:
            fields = {"org_id": ORG, "hold_id": lease}
            world.kafka.send(InputKind.HOLD, hold_of(self._holds, HoldAction.RELEASE, fields, b""))
        answer(True)


class _NoReader:
    """Stands where the intake and the reader of decisions are; nothing is asked of them."""

    def wait_until_current(self) -> None:
        """Nothing is followed."""


class Client:
    """A gateway: spends by chance, asks for leases, reports; dies or stops for a while."""

    def __init__(self, world: World, name: str) -> None:
        self._world = world
        self.name = name
        self.died = False
        self._leases = 0
        self._stopped_until_s = 0.0
        self._talking = False
        self._reporting_at_s = 0.0
        self._clock_rate = world.random.uniform(0.9999, 1.0001)
        terms = LeaseTerms("USD", world.random.choice((2, 5, 20)) * NANOS, world.random.choice((3, 10, 30)), "chat")
        self._terms = terms
        self.state = LeaseState(terms, self._new_id, self._clock_s, wall_ns=lambda: world.ledger_us() * 1_000)
        if not world.guards.stops_at_the_end:
            self.state._clock_s = lambda: 0.0
        world.after(world.random.uniform(0, 2), self._spend)
        world.after(0, self._turn)
        if world.random.random() < 0.4:
            world.at(world.random.uniform(20, LAST_S), self._die)
        for _ in range(world.random.randrange(3)):
            world.at(world.random.uniform(5, LAST_S), self._stop)

    def mine(self) -> set[str]:
        """All that this client has spent."""
        return {
            name
            for lease, each in self._world.spent.items()
            if lease.startswith(f"{self.name}-")
            for name in each.amounts
        }

    def _new_id(self) -> str:
        self._leases += 1
        return f"{self.name}-{self._leases}"

    def _clock_s(self) -> float:
        return self._world.now_s * self._clock_rate

    def _die(self) -> None:
        self.died = True
        self._world.seen["client died"] += 1

    def _stop(self) -> None:
        """Neither of its threads runs for a while, which may be longer than its lease."""
        self._stopped_until_s = self._world.now_s + self._world.random.uniform(1, 90)
        self._world.seen["client stopped"] += 1

    def _asleep(self, again: Callable[[], None]) -> bool:
        """Whether this client cannot run now; it goes on when it can."""
        if self.died:
            return True
        if self._world.now_s < self._stopped_until_s:
            self._world.at(self._stopped_until_s, again)
            return True
        return False

    def _spend(self) -> None:
        world = self._world
        if self._asleep(self._spend):
            return
        if world.now_s > LAST_S:
            self.state.end()
            return
        amount = world.random.randint(1, NANOS)
        try:
            usage_id = self.state.spend(amount, user_id="bob")
        except LeaseRefusedError as refused:
            world.seen[f"refused: {refused.refusal.value}"] += 1
        else:
            world.seen["spent"] += 1
            world.check_spend(usage_id, amount)
        world.after(world.random.expovariate(1 / 0.7), self._spend)

    def _turn(self) -> None:
        """One turn of the thread that talks to the server."""
        world = self._world
        if self._asleep(self._turn) or self.state.is_done:
            return
        request = self.state.next_request()
        if request is not None:
            self._place(request)
            return
        report = self.state.next_report() if world.now_s >= self._reporting_at_s else None
        if report is not None:
            self._report(report)
            return
        world.after(0.1, self._turn)

    def _place(self, request: LeaseRequest) -> None:
        body = {"lease_id": request.lease_id, "wallet": "USD", "amount": format_amount(self._terms.amount_nanos)}
        body |= {"duration_s": self._terms.duration_s}  # type: ignore[dict-item]  # JSON

        def answered(outcome: Any) -> None:
            if isinstance(outcome, tuple):
                self._world.seen["granted"] += 1
                counted = request
                if not self._world.guards.counts_from_sending:
                    counted = LeaseRequest(request.lease_id, self._clock_s())
                self.state.granted(counted, *outcome)
            elif isinstance(outcome, str):
                self._world.seen[f"lease refused: {outcome}"] += 1
                self.state.refused(outcome)
            else:
                self.state.unknown()

        self._call(lambda server, answer: server.place(dict(body), answer), answered)

    def _report(self, report: LeaseReport) -> None:
        body = {"wallet": report.wallet, "usage": report.usage, "final": report.final}

        def answered(outcome: Any) -> None:
            if outcome:
                self.state.reported(report)
            else:
                self._reporting_at_s = self._world.now_s + 1.0

        self._call(lambda server, answer: server.report(report.lease_id, body, answer), answered)

    def _call(self, call: Callable[[Server, Callable[[Any], None]], None], answered: Callable[[Any], None]) -> None:
        """A call over a network that loses, delays and repeats; one outcome, None where nothing is known."""
        world, open_until_s = self._world, self._world.now_s + CALL_TIMEOUT_S
        done = [False]

        def end(outcome: Any) -> None:
            if done[0]:
                return
            if self._asleep(lambda: end(outcome)):
                return
            done[0] = True
            answered(outcome)
            world.after(0.001, self._turn)

        def answer(outcome: Any) -> None:
            if world.random.random() < 0.05:
                world.seen["answer lost"] += 1
                return
            arrives_s = world.now_s + world.late(0.05, 15)
            if arrives_s < open_until_s:
                world.at(arrives_s, lambda: end(outcome))

        def arrive(times: int) -> None:
            server = world.random.choice(world.servers)
            if world.random.random() < 0.02:
                server.forget()
                world.seen["server restarted"] += 1
            call(server, answer if times == 1 else lambda _: None)

        if world.random.random() < 0.05:
            world.seen["request lost"] += 1
        else:
            world.after(world.late(0.05, 8), lambda: arrive(1))
        if world.random.random() < 0.05:
            world.seen["request repeated"] += 1
            world.after(world.late(1, 120), lambda: arrive(2))
        world.at(open_until_s, lambda: end(None))
