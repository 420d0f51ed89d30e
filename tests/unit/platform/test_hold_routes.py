"""Holds over HTTP: the decision in the answer, the same answer again, and what is no good."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from schemas.amounts import NANOS
from schemas.codec import encode_one
from schemas.enums import EntryKind, HoldAction, InputKind
from schemas.fields import Record
from schemas.records import BundledSchemas, bundled_id
from streams.api.app import build_api
from streams.api.door import Door
from streams.api.guard import Guard
from streams.api.hold_routes import holds_router
from streams.api.holds import Holds, RequestTimes
from streams.api.hosts import HostRule
from streams.api.intake import KindAndRecord, not_taken
from streams.api.lease_routes import REPORT_GRACE_S, leases_router
from streams.kafka import decisions as decisions_module
from streams.kafka.api_keys import Keyring
from streams.kafka.decisions import DecisionKey, DecisionReader, TooManyWaitingError
from streams.ledger.entry import HoldDecision
from streams.settings import Settings
from tests.unit.platform.http_server import SeenBalances
from tests.unit.platform.memory_ledger import MemoryLedger

NOW = 1_777_636_800_000_000
"""2026-05-01T12:00:00Z."""
HOUR = 3_600_000_000
HOLD: dict[str, Any] = {"hold_id": "h1", "wallet": "USD", "amount": "2.5"}


class Message:
    """A decision as a record of the topic."""

    def __init__(self, decision: HoldDecision) -> None:
        self._value = encode_one("decision", decision.to_record(), bundled_id("decision"))

    def value(self) -> bytes:
        return self._value

    def offset(self) -> int:
        return 0


class FakeIntake:
    """Kafka and the ledger behind it: what is sent is decided at once, unless the ledger is away."""

    def __init__(self, ledger: MemoryLedger) -> None:
        self.ledger = ledger
        self.readers: list[DecisionReader] = []
        self.sent: list[Record] = []
        self.batches: list[int] = []
        self.waiting: list[KindAndRecord] = []
        self.fault: Exception | None = None
        self.away = False

    async def send(self, records: Sequence[KindAndRecord]) -> None:
        if self.fault is not None:
            raise self.fault
        self.sent += [record for _, record in records]
        self.batches.append(len(records))
        self.waiting += records
        if not self.away:
            await asyncio.to_thread(self.decide)

    def decide(self) -> None:
        """Let the ledger decide what waits; the readers run in threads, as they do in the product."""
        waiting, self.waiting = self.waiting, []
        for kind, record in waiting:
            for decision in self.ledger.take(kind, record.to_record()):
                for reader in self.readers:
                    reader._keep(Message(decision))


class Reader(DecisionReader):
    """What the test hands it is all that there is."""

    away = False

    def _search(self, key: DecisionKey) -> dict[str, Any] | None:
        return None

    def wait_until_current(self, timeout_s: float = 0) -> None:
        if self.away:
            raise not_taken("away")


class Gateway:
    """One process of the API, or several over the same ledger."""

    def __init__(self, intake: FakeIntake, now: list[int], **reader: Any) -> None:
        self.reader = Reader(Settings(_env_file=None), BundledSchemas(), **reader)
        intake.readers.append(self.reader)
        anything: Any = intake
        holds = Holds(anything, self.reader, wait_s=0.05, now_us=lambda: now[0])
        balances: Any = SeenBalances()
        routers = [holds_router(holds), leases_router(holds, anything)]
        self.api: FastAPI = build_api(balances=balances, registry=None, live={}, ready={}, others=routers)
        guarded = Guard(
            self.api, HostRule("127.0.0.1", ["testserver"]), Door(Keyring, "local", loopback=True), body_bytes_max=65536
        )
        self.client = TestClient(guarded, raise_server_exceptions=False)

    def post(self, path: str, body: Any = None, status: int = 200, **headers: str) -> dict[str, Any]:
        """The document of an answer with that status."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        content = b"" if body is None else json.dumps(body)
        answer = self.client.post(
            f"/v1/orgs/acme{path}", content=content, headers={"Content-Type": "application/json", **named}
        )
        assert answer.status_code == status, answer.text
        self.headers = answer.headers
        document: dict[str, Any] = answer.json()
        return document


class Place:
    """acme with 10 USD, and one process."""

    def __init__(self) -> None:
        self.now = [NOW]
        self.ledger = MemoryLedger(NOW)
        self.intake = FakeIntake(self.ledger)
        purchase = {"purchase_id": "p", "org_id": "acme", "occurred_at": NOW, "wallet": "USD"}
        self.ledger.take(InputKind.PURCHASE, {**purchase, "amount_nanos": 10 * NANOS})
        self.gateway = self.another()

    def another(self, **reader: Any) -> Gateway:
        """One more process."""
        return Gateway(self.intake, self.now, **reader)

    def limit(self, body: dict[str, Any]) -> None:
        """Set a budget."""
        setting = {"setting_id": "s", "org_id": "acme", "occurred_at": NOW, "actor": "root", "actor_role": "system"}
        self.ledger.take(InputKind.SETTING, {**setting, "kind": "budget", "body": json.dumps(body)})

    @property
    def held(self) -> int:
        return self.ledger.account("acme").wallets["USD"].held

    @property
    def settled(self) -> int:
        return self.ledger.account("acme").wallets["USD"].settled


@pytest.fixture
def place() -> Place:
    return Place()


def test_a_hold_is_placed_captured_and_over(place: Place) -> None:
    gateway = place.gateway
    placed = gateway.post("/holds", HOLD)
    assert (placed["code"], placed["granted"], placed["available"]) == ("ok", "2.5", "7.5")
    assert placed["expires_at"] == "2026-05-01T12:15:00Z"
    assert gateway.headers["etag"] == f'"{placed["entry_seq"]}"'
    assert gateway.client.get("/v1/orgs/acme/holds/h1").json()["state"] == "active"
    captured = gateway.post("/holds/h1/capture", {"amount": "1.75"})
    assert (captured["granted"], captured["available"], captured["expires_at"]) == ("1.75", "8.25", None)
    state = gateway.client.get("/v1/orgs/acme/holds/h1").json()
    assert (state["state"], sorted(state["decisions"])) == ("captured", ["capture", "place"])
    assert gateway.post("/holds/h1/release", status=409)["code"] == "already_resolved"
    assert place.held == 0


def test_a_release_needs_no_body(place: Place) -> None:
    place.gateway.post("/holds", HOLD)
    assert place.gateway.post("/holds/h1/release")["granted"] == "2.5"
    assert place.gateway.post("/holds/h1/release")["granted"] == "2.5", "the same again"
    assert place.held == 0
    assert place.gateway.client.get("/v1/orgs/acme/holds/h1").json()["state"] == "released"


@pytest.mark.parametrize("again", ["same", "other", "new"])
def test_the_same_again_has_the_same_answer_and_no_second_effect(place: Place, again: str) -> None:
    """Asked of the same process, of another one, and of one that has just read the topic's end."""
    placed = place.gateway.post("/holds", HOLD)
    captured = place.gateway.post("/holds/h1/capture", {"amount": "1.75"})
    gateway = place.gateway if again == "same" else place.another()
    if again == "new":
        gateway.reader._recent = place.gateway.reader._recent.copy()
    if again == "other":  # its reader has seen neither: as one that has forgotten them
        place.now[0] += 1
        sent = len(place.intake.sent)
        assert gateway.post("/holds", HOLD, status=202)["status"] == "pending"
        assert gateway.post("/holds/h1/capture", {"amount": "1.75"}, status=409)["code"] == "already_resolved"
        assert len(place.intake.sent) == sent + 2
    else:
        assert gateway.post("/holds", HOLD) == placed
        assert gateway.post("/holds/h1/capture", {"amount": "1.75"}) == captured
        assert len(place.intake.sent) == 2, "nothing was sent again"
    assert (place.held, place.settled) == (0, int(8.25 * NANOS))
    assert len(place.ledger.booked(EntryKind.USAGE)) == 1


def test_what_is_forgotten_is_searched(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    placed = place.gateway.post("/holds", HOLD)
    gateway, place.now[0] = place.another(), NOW + HOUR
    found = place.gateway.reader.known
    monkeypatch.setattr(gateway.reader, "_search", found)
    assert gateway.post("/holds", HOLD) == placed
    assert place.ledger.ended["duplicate_with_different_content"] == 1, "the ledger has dropped it"
    assert place.held == 2.5 * NANOS


def test_searches_are_few(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = place.gateway.reader
    asked: list[DecisionKey] = []
    monkeypatch.setattr(reader, "_search", asked.append)
    for _ in range(3):
        reader.search(DecisionKey("acme", "h", HoldAction.PLACE))
    assert len(asked) == 1


def test_another_hold_under_the_id_is_refused(place: Place) -> None:
    place.gateway.post("/holds", HOLD)
    assert place.gateway.post("/holds", {**HOLD, "amount": "3"}, status=409)["code"] == "hold_id_reused"
    other = place.another()
    other.reader._recent = place.gateway.reader._recent
    assert other.post("/holds", {**HOLD, "amount": "3"}, status=409)["code"] == "hold_id_reused"
    assert len(place.intake.sent) == 1


def test_a_capture_of_another_amount_is_not_the_same(place: Place) -> None:
    """A usage that names the hold has captured it; a capture of another amount must not be answered with that."""
    place.gateway.post("/holds", HOLD)
    usage = {"event_id": "u", "org_id": "acme", "occurred_at": NOW, "operation": "chat", "wallet": "USD"}
    [decision] = place.ledger.take(InputKind.USAGE, {**usage, "cost_nanos": NANOS, "hold_id": "h1"})
    place.gateway.reader._keep(Message(decision))
    refused = place.gateway.post("/holds/h1/capture", {"amount": "2"}, status=409)
    assert refused["code"] == "already_resolved"
    assert place.gateway.post("/holds/h1/capture", {"amount": "1"})["granted"] == "1"
    assert place.settled == 9 * NANOS


def test_refusals_say_why_and_until_when(place: Place) -> None:
    gateway = place.gateway
    refused = gateway.post("/holds", {**HOLD, "amount": "11"}, status=402)
    assert (refused["code"], refused["allowed"], refused["available"]) == ("credits_not_available", False, "10")
    assert gateway.post("/holds", {**HOLD, "amount": "11"}, status=402) == refused, "its id is used up"
    gateway.post("/holds", {**HOLD, "hold_id": "most", "amount": "9"})
    assert gateway.post("/holds", {**HOLD, "hold_id": "h2"}, status=402)["code"] == "credits_held"
    assert "retry-after" not in gateway.headers
    place.limit({"budget_id": "b", "unit": "USD", "scope": {"user_id": "eve"}, "window": "day", "limit": "0.5"})
    limited = gateway.post("/holds", {**HOLD, "hold_id": "h3", "amount": "0.6", "user_id": "eve"}, status=402)
    assert (limited["code"], limited["limit_id"], limited["window"]) == ("limit_reached", "b", "day")
    assert limited["ends_at"] == "2026-05-02T00:00:00Z"
    assert gateway.headers["retry-after"] == str(12 * 3600)
    assert gateway.post("/holds/none/capture", {"amount": "1"}, status=404)["code"] == "unknown_hold"
    assert gateway.client.get("/v1/orgs/acme/holds/h3").json()["state"] == "refused"


def test_a_refused_capture_asks_again(place: Place) -> None:
    """The hold is placed between two captures of it; the second is not answered with the first one's refusal."""
    gateway = place.gateway
    gateway.post("/holds/h1/capture", {"amount": "1"}, status=404)
    gateway.post("/holds", HOLD)
    assert gateway.post("/holds/h1/capture", {"amount": "1"})["granted"] == "1"


def test_capped_and_free_of_the_reused_check(place: Place) -> None:
    capped = {**HOLD, "amount": "50", "on_shortage": "cap"}
    assert place.gateway.post("/holds", capped)["granted"] == "10"
    assert place.gateway.post("/holds", capped)["granted"] == "10"


def test_the_ledger_is_away(place: Place) -> None:
    """202 with where to ask; sent again it is the same record; answered when the ledger is back."""
    gateway, place.intake.away = place.gateway, True
    pending = gateway.post("/holds", HOLD, status=202)
    assert (pending["ask"], gateway.headers["location"]) == ("/v1/orgs/acme/holds/h1",) * 2
    assert gateway.client.get(pending["ask"]).status_code == 404
    place.now[0] += HOUR
    gateway.post("/holds", HOLD, status=202)
    place.ledger.at = place.now[0]
    place.intake.decide()
    assert place.ledger.ended["duplicates"] == 1, "the same to the byte, an hour later"
    assert gateway.client.get(pending["ask"]).json()["state"] == "ended"
    assert gateway.post("/holds", HOLD)["granted"] == "2.5"


def test_kafka_is_away(place: Place) -> None:
    place.intake.fault = not_taken("away")
    assert place.gateway.post("/holds", HOLD, status=503)["code"] == "kafka_unavailable"
    assert place.gateway.headers["retry-after"] == "1"
    place.intake.fault = None
    assert place.gateway.post("/holds", HOLD)["granted"] == "2.5"


def test_a_hold_that_is_not_known_while_kafka_is_away(place: Place) -> None:
    """What is remembered is answered; of another hold it cannot be said that there is no decision."""
    gateway = place.gateway
    gateway.post("/holds", HOLD)
    gateway.reader.away = True
    assert gateway.client.get("/v1/orgs/acme/holds/h1").json()["state"] == "active"
    answer = gateway.client.get("/v1/orgs/acme/holds/h2")
    assert (answer.status_code, answer.json()["code"]) == (503, "kafka_unavailable")


def test_nothing_is_left_of_a_wait(place: Place) -> None:
    place.intake.away = True
    place.gateway.post("/holds", HOLD, status=202)
    place.intake.away = False
    place.gateway.post("/holds", {**HOLD, "hold_id": "h2"})
    assert place.gateway.reader._waiting == {}
    assert place.gateway.reader._waits == 0


def test_waits_are_bounded(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions_module, "WAITING_MAX", 0)
    assert place.gateway.post("/holds", HOLD, status=503)["code"] == TooManyWaitingError.code
    assert place.intake.sent == []


def test_what_is_remembered_is_bounded(place: Place) -> None:
    gateway = place.another(decisions_max=3)
    for number in range(5):
        gateway.post("/holds", {**HOLD, "hold_id": f"h{number}", "amount": "1"})
    assert [key.hold_id for key in gateway.reader._recent] == ["h2", "h3", "h4"]
    times = RequestTimes(2)
    for number in range(5):
        times.first(DecisionKey("acme", str(number), HoldAction.PLACE), b"", number)
    assert len(times._requests) == 2


def test_a_refusal_does_not_hide_what_was_done(place: Place) -> None:
    place.gateway.post("/holds", HOLD)
    first = place.gateway.post("/holds/h1/capture", {"amount": "1"})
    place.gateway.post("/holds/h1/capture", {"amount": "2"}, status=409)
    assert place.gateway.post("/holds/h1/capture", {"amount": "1"}) == first


def test_a_record_that_is_no_decision_is_passed_over(place: Place) -> None:
    class Junk(Message):
        def __init__(self) -> None:
            self._value = b"junk"

    place.gateway.reader._keep(Junk())
    assert place.gateway.post("/holds", HOLD)["granted"] == "2.5"


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({**HOLD, "amount": "0"}, "invalid_field", "amount"),
        ({**HOLD, "amount": 2.5}, "invalid_field", "amount"),
        ({**HOLD, "amount": "9999999999999"}, "amount_out_of_range", "amount"),
        ({"hold_id": "h", "wallet": "USD"}, "invalid_field", "amount_nanos"),
        ({"wallet": "USD", "amount": "1"}, "invalid_field", "hold_id"),
        ({**HOLD, "org_id": "other"}, "invalid_field", "org_id"),
        ({**HOLD, "action": "capture"}, "invalid_field", "action"),
        ({**HOLD, "expires_at": "2026-05-01T12:00:00Z"}, "invalid_field", "expires_at"),
        ({**HOLD, "occurred_at": "2026-05-01T13:00:01Z"}, "invalid_field", "occurred_at"),
        ({**HOLD, "colour": "red"}, "invalid_field", "colour"),
        ({**HOLD, "hold_id": "x" * 129}, "invalid_field", "hold_id"),
    ],
)
def test_what_is_no_hold(place: Place, body: dict[str, Any], code: str, field: str) -> None:
    refused = place.gateway.post("/holds", body, status=422)
    assert (refused["code"], refused["field"]) == (code, field)
    assert place.intake.sent == []


def test_the_key_is_the_id_where_the_body_has_none(place: Place) -> None:
    body = {"wallet": "USD", "amount": "1"}
    assert place.gateway.post("/holds", body, Idempotency_Key="k1")["hold_id"] == "k1"
    odd = place.gateway.post("/holds", {**HOLD, "hold_id": "a/b%c"})
    assert odd["hold_id"] == "a/b%c"
    assert place.gateway.post("/holds/a%2Fb%25c/capture", {"amount": "1"})["hold_id"] == "a/b%c"


# Leases


def usage(number: int, cost: str = "0.5") -> dict[str, Any]:
    return {"event_id": f"l1/{number}", "occurred_at": NOW + number, "operation": "chat", "cost": cost}


def test_a_lease_is_a_hold_and_its_last_usage_ends_it(place: Place) -> None:
    gateway = place.gateway
    lease = gateway.post("/leases", {"lease_id": "l1", "wallet": "USD", "amount": "4", "duration_s": 60})
    assert (lease["lease_id"], lease["granted"], lease["spend_for_s"]) == ("l1", "4", 60)
    assert lease["expires_at"] == f"2026-05-01T12:01:{REPORT_GRACE_S}Z"
    first = {"wallet": "USD", "usage": [usage(1), usage(2)]}
    assert gateway.post("/leases/l1/usage", first, status=202) == {"lease_id": "l1", "accepted": 2, "final": False}
    assert (place.held, place.settled) == (4 * NANOS, 9 * NANOS)
    last = {"wallet": "USD", "usage": [usage(3), usage(4)], "final": True}
    for _ in range(2):
        assert gateway.post("/leases/l1/usage", last, status=202)["final"] is True
    assert (place.held, place.settled) == (0, 8 * NANOS)
    assert place.intake.batches[-2:] == [1, 1], "the last record goes when the others are in Kafka"
    assert [entry.hold_id for entry in place.ledger.booked(EntryKind.USAGE)] == [None, None, None, "l1"]
    assert place.ledger.ended["duplicates"] == 2


def test_a_lease_takes_what_there_is(place: Place) -> None:
    body = {"lease_id": "l1", "wallet": "USD", "amount": "40"}
    assert place.gateway.post("/leases", body)["granted"] == "10"
    assert place.gateway.post("/leases", body)["granted"] == "10"
    other = {**body, "lease_id": "l2", "amount": "4"}
    assert place.gateway.post("/leases", other, status=402)["code"] == "credits_held"


def test_a_lease_without_usage_is_released(place: Place) -> None:
    place.gateway.post("/leases", {"lease_id": "l1", "wallet": "USD", "amount": "4"})
    place.gateway.post("/leases/l1/usage", {"wallet": "USD", "usage": [], "final": True}, status=202)
    assert place.held == 0


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({"wallet": "USD", "amount": "4"}, "invalid_field", "lease_id"),
        ({"lease_id": "l", "wallet": "USD", "amount": "4", "duration_s": 0}, "invalid_field", "duration_s"),
        ({"lease_id": "l", "wallet": "USD", "amount": "4", "duration_s": 3601}, "invalid_field", "duration_s"),
        ({"lease_id": "l", "wallet": "USD", "amount": "4", "expires_at": NOW}, "invalid_field", "expires_at"),
        ({"lease_id": "l", "wallet": "USD", "amount": "-4"}, "invalid_field", "amount"),
    ],
)
def test_what_is_no_lease(place: Place, body: dict[str, Any], code: str, field: str) -> None:
    refused = place.gateway.post("/leases", body, status=422)
    assert (refused["code"], refused["field"]) == (code, field)
    assert place.intake.sent == []


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({"usage": []}, "empty_batch", None),
        ({"usage": {}}, "invalid_field", "usage"),
        ({"usage": [usage(1)]}, "invalid_field", "wallet"),
        ({"wallet": "USD", "usage": [usage(1), usage(2, "-1")]}, "invalid_field", "cost"),
        ({"wallet": "USD", "usage": [{**usage(1), "hold_id": "h"}]}, "invalid_field", "hold_id"),
        ({"wallet": "USD", "usage": [{**usage(1), "org_id": "o"}]}, "invalid_field", "org_id"),
        ({"wallet": "USD", "usage": [usage(1)], "final": 1}, "invalid_field", "final"),
        ({"wallet": "USD", "usage": [usage(1)], "ended": True}, "invalid_field", "ended"),
    ],
)
def test_what_is_no_report(place: Place, body: dict[str, Any], code: str, field: str | None) -> None:
    refused = place.gateway.post("/leases/l1/usage", body, status=422)
    assert (refused["code"], refused.get("field")) == (code, field)
    assert place.intake.sent == []
    many = {"wallet": "USD", "usage": [usage(number) for number in range(1_001)]}
    assert place.gateway.post("/leases/l1/usage", many, status=413)["code"] in ("batch_too_large", "body_too_large")
