"""Writing over HTTP on a real broker: what was answered 202 is booked, once, whatever was sent again."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from schemas.codec import decode_one
from schemas.times import format_time
from schemas.topics import Topics
from streams.api.app import build_api, record_refused_calls
from streams.api.door import Door
from streams.api.idempotency_log import IdempotencyLog
from streams.api.intake import Intake
from streams.api.refused_calls import RefusedCalls
from streams.api.server import server_config
from streams.api.setting_versions import SettingVersions
from streams.api.write_routes import write_router
from streams.kafka import topics_admin
from streams.kafka.api_keys import KeyRole
from streams.kafka.balances import BalanceReader
from streams.kafka.key_topic import KeyReader, KeyTerms, create_key, write_keys
from streams.kafka.reader import committed_ends, read_range
from streams.kafka.registry import connect_registry
from streams.local.broker import LocalBroker
from streams.processing.price_ties import refuse_ties
from streams.settings import Settings
from tests.brokers import test_settings
from tests.integration.ledger.events import now_us
from tests.integration.ledger.installation import LedgerInstallation
from tests.unit.platform.http_server import serving

BATCH = 200
ANSWERED_S = 15.0


def at(micros: int) -> str:
    return format_time(micros)


class Served:
    """The application on a port of its own, as one process has it."""

    def __init__(self, settings: Settings, stack: ExitStack) -> None:
        registry = connect_registry(settings)
        self.keys = KeyReader(settings)
        balances = BalanceReader(settings, registry)
        versions, intake = SettingVersions(settings, registry), Intake(settings, registry)
        used_keys = IdempotencyLog(settings, intake)
        for part in (self.keys, balances, versions, intake, used_keys):
            part.start()
            stack.callback(part.close)
        self.keys.wait_until_current(20)
        used_keys.wait_until_current(20)
        router = write_router(intake, versions, partial(refuse_ties, settings, registry), used_keys)
        calls = RefusedCalls(partial(intake.offer, Topics(settings.namespace).name("refused_calls")))
        api = build_api(balances=balances, registry=None, live={}, ready={}, others=[router])
        record_refused_calls(api, calls)
        door = Door(lambda: self.keys.keyring, "local", loopback=True)
        host, port = stack.enter_context(serving(server_config(api, settings, door)))
        self.client = stack.enter_context(httpx.Client(base_url=f"http://{host}:{port}", timeout=30, trust_env=False))

    def write(self, method: str, path: str, body: Any, status: int = 202, **headers: Any) -> Any:
        """The document of an answer with that status."""
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = self.client.request(method, f"/v1{path}", json=body, headers=headers)
        assert answer.status_code == status, answer.text
        return answer.json()


@pytest.fixture
def serve() -> Iterator[Callable[[Settings], Served]]:
    """Starts applications; they end with the test."""
    with ExitStack() as stack:
        yield lambda settings: Served(settings, stack)


@pytest.fixture
def installation(settings: Settings, tmp_path: Path) -> Iterator[LedgerInstallation]:
    """Topics, and a ledger that the test starts."""
    with LedgerInstallation(settings, tmp_path) as made:
        yield made


def usage(number: int, org: str, occurred_at: str) -> dict[str, Any]:
    return {
        "event_id": f"{org}-{number}",
        "org_id": org,
        "occurred_at": occurred_at,
        "operation": "chat",
        "model": "m1",
        "input_tokens": 1_000_000,
    }


def test_what_was_answered_202_is_booked_once(
    installation: LedgerInstallation, serve: Callable[[Settings], Served]
) -> None:
    """Everything is sent twice: the ledger has each once, no dead letter, and its audit finds nothing."""
    served, now = serve(installation.settings), at(now_us())
    price = {"price_id": "m1", "operation": "chat", "model": "m1", "unit_price": "2", "billing_unit": "1000000_tokens"}
    price |= {"wallet": "USD", "valid_from": "2020-01-01T00:00:00Z"}
    served.write("POST", "/prices", price)
    tie = served.write("POST", "/prices", {**price, "price_id": "m1-again"}, status=409)
    assert tie["code"] == "price_tie"
    batch = [usage(number, org, now) for number in range(BATCH // 2) for org in ("acme", "glo/bex")]
    for _ in range(2):
        for org in ("acme", "glo%2Fbex"):
            purchase = {"occurred_at": now, "wallet": "USD", "amount": "1000"}
            served.write("POST", f"/orgs/{org}/purchases", purchase, Idempotency_Key=f"buy-{org}")
            served.write("PUT", f"/orgs/{org}/settings/org", {"administrators": ["al"]}, Idempotency_Key=f"set-{org}")
    installation.sent = 4  # what has a key was sent once
    installation.ready_worker()
    installation.wait_until_booked()  # what comes next refers to them, by other topics
    for _ in range(2):
        refund = {"refund_id": "r1", "occurred_at": now, "target": "purchase", "target_id": "buy-acme", "amount": "10"}
        transfer = {"transfer_id": "t1", "target_org_id": "glo/bex", "occurred_at": now, "wallet": "USD", "amount": "5"}
        served.write("POST", "/orgs/acme/refunds", refund)
        served.write("POST", "/orgs/acme/transfers", transfer | {"actor": "al"})
        assert served.write("POST", "/events", batch)["accepted"] == BATCH
    installation.sent += 2 * (2 + BATCH)
    installation.wait_until_booked()
    report = installation.report()
    assert report.ok, report.differences
    assert installation.codes() == {}
    entries = installation.rows("ledger")
    kinds = Counter(entry["kind"] for entry in entries)
    assert {kind: kinds[kind] for kind in ("usage", "purchase", "setting", "refund", "transfer_in", "rejected")} == {
        "usage": BATCH, "purchase": 2, "setting": 2, "refund": 1, "transfer_in": 1, "rejected": 0,
    }  # fmt: skip
    published = [row for row in installation.rows("balances") if row["wallets"]]  # a setting alone makes no wallet
    balances = {row["org_id"]: row["wallets"][0]["settled_nanos"] for row in published}
    assert balances == {"acme": (1000 - BATCH - 10 - 5) * 10**9, "glo/bex": (1000 - BATCH + 5) * 10**9}


def test_a_call_without_the_right_is_recorded_for_the_activity_log_and_the_ledger_has_no_part_in_it(
    settings: Settings, serve: Callable[[Settings], Served]
) -> None:
    topics_admin.apply(settings)
    token, key = create_key(settings, KeyTerms("x", (KeyRole.ANALYST,), ("acme",)), now_us())
    served = serve(settings)
    bearer: dict[str, Any] = {"Authorization": f"Bearer {token}"}
    for _ in range(20):
        for org in ("acme", "other"):
            served.write("PUT", f"/orgs/{org}/settings/wallet", {"unit": "USD"}, status=403, **bearer)
    topic = Topics(settings.namespace).name("refused_calls")

    def recorded() -> list[tuple[bytes, dict[str, Any]]]:
        batches = read_range(settings, {}, committed_ends(settings, [topic]))
        return [(message.key(), json.loads(message.value())) for records in batches for message in records]

    until(lambda: len(recorded()) >= 2, 10)
    found = {call.decode(): fields for call, fields in recorded()}
    assert set(found) == {"acme", "other"}
    assert len(recorded()) == 2
    assert {fields["actor"] for fields in found.values()} == {f"key:{key.key_id}"}
    settings_topic = Topics(settings.namespace).name("settings")
    assert sum(committed_ends(settings, [settings_topic]).values()) == 0


def test_two_processes_see_each_other_s_keys_and_settings(
    settings: Settings, serve: Callable[[Settings], Served]
) -> None:
    topics_admin.apply(settings)
    one, other = serve(settings), serve(settings)
    wallet = {"unit": "USD", "allowance": "1"}
    path = "/orgs/acme/settings/wallet"
    first = one.write("PUT", path, wallet, If_None_Match="*")
    assert other.write("PUT", path, wallet, status=412, If_None_Match="*")["code"] == "version_mismatch"
    second = other.write("PUT", path, {**wallet, "allowance": "2"}, If_Match=first["etag"])
    assert one.write("PUT", path, wallet, status=412, If_Match=first["etag"])["etag"] == second["etag"]
    read = one.client.get(f"/v1{path}?subject=USD")
    assert (read.json()["body"]["allowance"], read.headers["etag"]) == ("2", second["etag"])

    token, key = create_key(settings, KeyTerms("x", (KeyRole.ADMIN,)), now_us())
    bearer: dict[str, Any] = {"Authorization": f"Bearer {token}"}
    for served in (one, other):
        until(lambda served=served: served.client.get(f"/v1{path}").status_code == 401)  # type: ignore[misc]
        served.write("PUT", path, wallet, **bearer)
    write_keys(settings, [key.revoked(now_us())])
    for served in (one, other):
        until(lambda served=served: served.client.get(f"/v1{path}", headers=bearer).status_code == 401)  # type: ignore[misc]


def test_an_idempotency_key_counts_at_every_process(
    installation: LedgerInstallation, serve: Callable[[Settings], Served]
) -> None:
    """The same request at another process has the same answer; another body is refused there; one is booked."""
    settings = installation.settings
    one, other = serve(settings), serve(settings)
    body = {"occurred_at": at(now_us()), "wallet": "USD", "amount": "7", "purchase_id": "p1"}
    path = "/orgs/acme/purchases"
    first = one.write("POST", path, body, Idempotency_Key="k1")
    assert other.write("POST", path, body, Idempotency_Key="k1") == first
    other_id = {**body, "purchase_id": "p2"}
    refused = other.write("POST", path, other_id, status=422, Idempotency_Key="k1")
    assert refused["code"] == "idempotency_key_reused"
    assert serve(settings).write("POST", path, body, Idempotency_Key="k1") == first  # one that has just been started
    installation.sent = 1
    installation.ready_worker()
    installation.wait_until_booked()
    assert [entry["event_id"] for entry in installation.rows("ledger")] == ["p1"]


def until(true: Callable[[], bool], seconds: float = 1.0) -> None:
    """Wait until it is true; fails when it is not in time."""
    begun = time.monotonic()
    while not true():
        assert time.monotonic() - begun < seconds
        time.sleep(0.01)


def test_kafka_away_is_503_and_nothing_is_lost(
    own_broker: Callable[..., LocalBroker], tmp_path: Path, serve: Callable[[Settings], Served]
) -> None:
    """The broker is killed; a batch is refused in time; sent again when it is back, every event is there."""
    broker = own_broker()
    broker.start()
    settings = test_settings(tmp_path, kafka_bootstrap_servers=broker.bootstrap_servers, partitions=2)
    topics_admin.apply(settings)
    served, now = serve(settings), at(now_us())
    batch = [usage(number, "acme", now) for number in range(BATCH)]
    served.write("POST", "/events", batch[:1])
    broker.kill()
    begun = time.monotonic()
    answer = served.client.post("/v1/events", json=batch)
    assert (answer.status_code, answer.json()["code"]) == (503, "kafka_unavailable"), answer.text
    assert int(answer.headers["retry-after"]) >= 1
    assert time.monotonic() - begun < ANSWERED_S
    assert served.client.get("/livez").status_code == 200
    broker.start()
    deadline = time.monotonic() + 60
    while served.client.post("/v1/events", json=batch).status_code != 202:
        assert time.monotonic() < deadline
    topic = Topics(settings.namespace).name("usage")
    registry = connect_registry(settings)
    sent = [
        decode_one("usage", message.value(), registry)
        for records in read_range(settings, {}, committed_ends(settings, [topic]))
        for message in records
    ]
    assert {each["event_id"] for each in sent} == {each["event_id"] for each in batch}
    contents = {tuple(sorted((name, str(value)) for name, value in each.items())) for each in sent}
    assert len(contents) == BATCH, "what is there twice is the same, which the ledger drops"
