"""What can be written over HTTP, and everything that is no good: status, code, and what reaches Kafka."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from fastapi.testclient import TestClient

from schemas.amounts import NANOS
from schemas.codec import decode_one
from schemas.enums import InputKind
from schemas.events import Usage
from schemas.fields import Record
from schemas.records import BundledSchemas, bundled_id
from streams.api.app import build_api, record_refused_calls
from streams.api.cloud_events import BATCH, EVENTS_MAX, KINDS, ONE, PLAIN
from streams.api.door import Door
from streams.api.guard import Guard
from streams.api.hosts import HostRule
from streams.api.idempotency import OwnLog
from streams.api.intake import BusyError, KindAndRecord, not_taken
from streams.api.problems import ProblemError
from streams.api.refused_calls import RefusedCalls
from streams.api.setting_versions import Name, Version, check_version, name_of, tag_of
from streams.api.usage_columns import UsageBatch
from streams.api.write_routes import COLUMNS_LEAST, PRICES_MAX, write_router
from streams.kafka.api_keys import ApiKey, Keyring, KeyRole
from streams.processing.price_ties import PriceTieError
from tests.unit.platform.http_server import SeenBalances
from tests.unit.platform.test_api_keys import NOW, made

TIME = "2026-05-01T12:00:00Z"
USAGE: dict[str, Any] = {"event_id": "e1", "org_id": "acme", "occurred_at": TIME, "operation": "chat", "cost": "1.5"}
PURCHASE: dict[str, Any] = {"purchase_id": "p1", "occurred_at": TIME, "wallet": "USD", "amount": "12.5"}
REFUND: dict[str, Any] = {
    "refund_id": "r1", "occurred_at": TIME, "target": "purchase", "target_id": "p1", "amount": "1",
}  # fmt: skip
TRANSFER: dict[str, Any] = {
    "transfer_id": "t1", "target_org_id": "globex", "occurred_at": TIME, "wallet": "USD", "amount": "1", "actor": "al",
}  # fmt: skip
PRICE: dict[str, Any] = {
    "price_id": "m", "operation": "chat", "unit_price": "0.1", "billing_unit": "request", "wallet": "USD",
    "valid_from": TIME,
}  # fmt: skip
EVENT: dict[str, Any] = {
    "specversion": "1.0",
    "type": "credits.usage.v1",
    "id": "e1",
    "source": "gateway",
    "subject": "acme",
    "time": TIME,
    "data": {"operation": "chat", "cost": "1.5"},
}
WALLET: dict[str, Any] = {"unit": "USD", "allowance": "100"}
BODY_MAX = 256 * 1024


class FakeIntake:
    """Keeps what it is given; or is as Kafka that is away."""

    def __init__(self) -> None:
        self.sent: list[tuple[InputKind, Record]] = []
        self.fault: Exception | None = None
        self.held: asyncio.Event | None = None

    async def send(self, records: Sequence[KindAndRecord]) -> None:
        if self.fault is not None and records:
            raise self.fault
        self.sent.extend(records)

    async def send_usage(self, batch: UsageBatch) -> None:
        """As columns are read by the ledger: each record decoded from its bytes."""
        decoded = [decode_one("usage", value, BundledSchemas()) for value in batch.encode(bundled_id("usage"))]
        await self.send([(InputKind.USAGE, Usage.from_record(fields)) for fields in decoded])


class FakeVersions:
    """The versions of what the intake was given."""

    def __init__(self, intake: FakeIntake) -> None:
        self._intake = intake
        self.writing = asyncio.Lock()

    async def current(self, name: Name) -> Version | None:
        found = None
        for offset, (kind, record) in enumerate(self._intake.sent):
            fields = record.to_record()
            if kind is InputKind.SETTING and name_of(fields) == name:
                found = Version(tag_of(fields), 0, offset)
        return found

    def record(self, version: Version) -> dict[str, Any]:
        return self._intake.sent[version.offset][1].to_record()


class Place:
    """The application behind the door."""

    def __init__(self, keys: Sequence[ApiKey] = ()) -> None:
        self.intake = FakeIntake()
        self.ties: list[Exception] = []
        anything: Any = self.intake
        versions: Any = FakeVersions(self.intake)
        balances: Any = SeenBalances()
        router = write_router(anything, versions, self._check_prices, OwnLog())
        self.recorded: list[dict[str, Any]] = []
        calls = RefusedCalls(self._record)
        api = build_api(balances=balances, registry=None, live={}, ready={}, others=[router])
        record_refused_calls(api, calls)
        door = Door(lambda: Keyring(keys), "local", loopback=True, wall_us=lambda: NOW)
        guarded = Guard(api, HostRule("127.0.0.1", ["testserver"]), door, body_bytes_max=BODY_MAX)
        self.client = TestClient(guarded, raise_server_exceptions=False)

    def _record(self, _: bytes, value: bytes) -> bool:
        self.recorded.append(json.loads(value))
        return True

    def _check_prices(self, _: Sequence[Record]) -> None:
        if self.ties:
            raise self.ties.pop()

    def call(self, method: str, path: str, body: Any, content_type: str = PLAIN, **headers: str) -> Any:
        """The answer; a body that is no text or bytes is sent as JSON."""
        content = body if isinstance(body, str | bytes) else json.dumps(body)
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.request(method, path, content=content, headers={"Content-Type": content_type, **headers})

    @property
    def ids(self) -> list[str]:
        """Of the records that Kafka has."""
        found = []
        for kind, record in self.intake.sent:
            fields = record.to_record()
            found.append(fields[{InputKind.USAGE: "event_id"}.get(kind, f"{kind.value}_id")])
        return found


@pytest.fixture
def place() -> Place:
    return Place()


# Events


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (ONE, EVENT),
        (BATCH, [EVENT]),
        (PLAIN, EVENT),
        (PLAIN, [EVENT]),
        (PLAIN, USAGE | {"source": "gateway"}),
        (PLAIN, [USAGE | {"source": "gateway"}]),
        (f"{PLAIN}; charset=utf-8", USAGE | {"source": "gateway"}),
        (ONE, {**EVENT, "partitionkey": "x", "traceparent": "00-1-2-00", "data": {**USAGE, "source": "gateway"}}),
        (ONE, {**EVENT, "datacontenttype": "application/json", "dataschema": "https://example.com/x"}),
    ],
)
def test_an_event_in_each_form_is_the_same_record(place: Place, content_type: str, body: Any) -> None:
    answer = place.call("POST", "/v1/events", body, content_type)
    assert answer.status_code == 202, answer.text
    result = {"index": 0, "status": "accepted", "record": "usage", "id": "e1"}
    assert answer.json() == {"accepted": 1, "refused": 0, "results": [result]}
    [(kind, record)] = place.intake.sent
    fields = {name: value for name, value in record.to_record().items() if value}
    assert (kind, fields.pop("occurred_at")) == (InputKind.USAGE, 1_777_636_800_000_000)
    assert fields == {
        "event_id": "e1", "org_id": "acme", "operation": "chat", "cost_nanos": 3 * NANOS // 2, "source": "gateway",
    }  # fmt: skip


def test_every_kind_but_prices_is_an_event(place: Place) -> None:
    records = {
        InputKind.USAGE: USAGE,
        InputKind.PURCHASE: PURCHASE,
        InputKind.REFUND: REFUND,
        InputKind.TRANSFER: TRANSFER,
        InputKind.HOLD: {"hold_id": "h1", "action": "place", "wallet": "USD", "amount": "1", "occurred_at": TIME},
        InputKind.SETTING: {
            "setting_id": "s1", "actor": "a", "actor_role": "system", "kind": "wallet", "body": WALLET,
            "occurred_at": TIME,
        },
    }  # fmt: skip
    assert set(KINDS.values()) == set(records) == set(InputKind) - {InputKind.PRICE}
    named = {"usage": "event_id"}
    events = [
        {**EVENT, "type": f"credits.{kind}.v1", "id": record[named.get(kind, f"{kind}_id")], "data": record}
        for kind, record in records.items()
    ]
    answer = place.call("POST", "/v1/events", events, BATCH).json()
    assert (answer["accepted"], answer["refused"]) == (len(records), 0), answer
    assert [kind for kind, _ in place.intake.sent] == list(records)


def test_of_a_batch_the_good_are_taken_and_each_has_its_result(place: Place) -> None:
    batch = [USAGE, {**USAGE, "event_id": "e2", "cost": "-1"}, 7, {**USAGE, "event_id": "e3"}]
    answer = place.call("POST", "/v1/events", batch)
    assert answer.status_code == 202
    document = answer.json()
    assert (document["accepted"], document["refused"]) == (2, 2)
    assert [each["status"] for each in document["results"]] == ["accepted", "refused", "refused", "accepted"]
    assert [each["index"] for each in document["results"]] == [0, 1, 2, 3]
    wrong = document["results"][1]
    assert (wrong["id"], wrong["code"], wrong["field"]) == ("e2", "invalid_field", "cost")
    assert place.ids == ["e1", "e3"]


def test_a_batch_in_columns_is_taken_or_refused_as_one_by_one(place: Place) -> None:
    """A key's organisations count, an event with a fault is told in its place, and the others are the same records."""
    batch = [{**USAGE, "event_id": str(number)} for number in range(COLUMNS_LEAST)]
    answer = place.call("POST", "/v1/events", batch).json()
    assert [each["id"] for each in answer["results"]] == [str(number) for number in range(COLUMNS_LEAST)]
    in_columns = [record.to_record() for _, record in place.intake.sent]
    place.intake.sent.clear()
    for event in batch:
        assert place.call("POST", "/v1/events", event).status_code == 202
    assert [record.to_record() for _, record in place.intake.sent] == in_columns
    place.intake.sent.clear()
    wrong = place.call("POST", "/v1/events", [*batch, {**USAGE, "cost": "-1"}]).json()
    assert (wrong["accepted"], wrong["results"][-1]["code"]) == (COLUMNS_LEAST, "invalid_field")
    token, key = made(1, KeyRole.PRODUCER, organisations=("globex",))
    other = Place([key])
    refused = other.call("POST", "/v1/events", batch, Authorization=f"Bearer {token}")
    assert (refused.status_code, refused.json()["code"]) == (403, "not_authorized")
    assert other.intake.sent == []


def test_the_largest_batch_is_taken(place: Place) -> None:
    batch = [{**USAGE, "event_id": str(number)} for number in range(EVENTS_MAX)]
    assert place.call("POST", "/v1/events", batch).json()["accepted"] == EVENTS_MAX
    assert len(place.intake.sent) == EVENTS_MAX


# Calls of an organisation


@pytest.mark.parametrize(
    ("path", "body", "kind", "record_id"),
    [
        ("purchases", PURCHASE, InputKind.PURCHASE, "p1"),
        ("refunds", REFUND, InputKind.REFUND, "r1"),
        ("transfers", TRANSFER, InputKind.TRANSFER, "t1"),
        ("purchases", {**PURCHASE, "org_id": "a/b"}, InputKind.PURCHASE, "p1"),
    ],
)
def test_one_record_of_an_organisation(
    place: Place, path: str, body: dict[str, Any], kind: InputKind, record_id: str
) -> None:
    answer = place.call("POST", f"/v1/orgs/a%2Fb/{path}", body)
    assert answer.status_code == 202, answer.text
    assert answer.json() == {"status": "accepted", "record": kind.value, "id": record_id}
    [(sent, record)] = place.intake.sent
    assert (sent, record.to_record()["org_id"]) == (kind, "a/b")


def test_prices_are_published_all_or_none(place: Place) -> None:
    assert place.call("POST", "/v1/prices", [PRICE, {**PRICE, "price_id": "n"}]).json()["accepted"] == 2
    wrong = place.call("POST", "/v1/prices", [{**PRICE, "price_id": "o"}, {**PRICE, "unit_price": 1}])
    assert (wrong.status_code, wrong.json()["code"], wrong.json()["index"]) == (422, "invalid_field", 1)
    place.ties.append(PriceTieError("price x and price y could match the same usage equally well"))
    tie = place.call("POST", "/v1/prices", {**PRICE, "price_id": "x"}, Idempotency_Key="k")
    assert (tie.status_code, tie.json()["code"]) == (409, "price_tie")
    assert place.call("POST", "/v1/prices", {**PRICE, "price_id": "x"}, Idempotency_Key="k").status_code == 202
    assert place.ids == ["m", "n", "x"]


# Settings


SETTING = "/v1/orgs/acme/settings/wallet"


def test_a_setting_is_put_and_read_with_its_version(place: Place) -> None:
    answer = place.call("PUT", SETTING, WALLET, Credits_Actor="al%C3%ADce", Credits_Actor_Role="owner")
    assert answer.status_code == 202, answer.text
    [(_, record)] = place.intake.sent
    fields = record.to_record()
    assert (fields["actor"], fields["actor_role"], fields["kind"]) == ("alíce", "owner", "wallet")
    assert json.loads(fields["body"]) == WALLET
    read = place.client.get(f"{SETTING}?subject=USD")
    assert (read.json()["body"], read.json()["actor"]) == (WALLET, "alíce")
    assert read.headers["ETag"] == answer.headers["ETag"] == answer.json()["etag"]
    assert place.client.get(f"{SETTING}?subject=EUR").json()["code"] == "unknown_setting"


def test_a_setting_that_was_changed_since_is_not_overwritten(place: Place) -> None:
    """If-Match and If-None-Match as RFC 9110 has them."""
    first = place.call("PUT", SETTING, WALLET, If_None_Match="*")
    assert first.status_code == 202
    again = place.call("PUT", SETTING, WALLET, If_None_Match="*")
    assert (again.status_code, again.json()["code"]) == (412, "version_mismatch")
    second = place.call("PUT", SETTING, {**WALLET, "allowance": "5"}, If_Match=first.headers["ETag"])
    assert second.status_code == 202
    lost = place.call("PUT", SETTING, WALLET, If_Match=first.headers["ETag"])
    assert (lost.status_code, lost.json()["etag"]) == (412, second.headers["ETag"])
    assert place.call("PUT", SETTING, WALLET, If_Match='"x"').status_code == 412
    other_unit = {"unit": "EUR"}
    assert place.call("PUT", SETTING, other_unit, If_Match=second.headers["ETag"]).status_code == 412
    assert place.call("PUT", SETTING, WALLET, If_Match=f'"x", {second.headers["ETag"]}').status_code == 202
    assert len(place.intake.sent) == 3


@pytest.mark.parametrize(
    ("tag", "if_match", "if_none_match", "passes"),
    [
        (None, None, None, True),
        (None, "*", None, False),
        (None, None, "*", True),
        ("a", "*", None, True),
        ("a", '"a"', None, True),
        ("a", 'W/"a"', None, False),
        ("a", "a", None, False),
        ("a", '"a"', "*", False),
    ],
)
def test_versions(tag: str | None, if_match: str | None, if_none_match: str | None, passes: bool) -> None:
    found = None if tag is None else Version(tag, 0, 0)
    if passes:
        check_version(found, if_match, if_none_match)
        return
    with pytest.raises(ProblemError) as raised:
        check_version(found, if_match, if_none_match)
    assert raised.value.status == 412


# Idempotency keys


def test_the_key_is_the_id_where_there_is_none(place: Place) -> None:
    body = {name: value for name, value in PURCHASE.items() if name != "purchase_id"}
    first = place.call("POST", "/v1/orgs/acme/purchases", body, Idempotency_Key="k1")
    assert (first.status_code, first.json()["id"]) == (202, "k1")
    again = place.call("POST", "/v1/orgs/acme/purchases", body, Idempotency_Key="k1")
    assert (again.status_code, again.json()) == (202, first.json())
    assert place.ids == ["k1"]
    other = place.call("POST", "/v1/orgs/acme/purchases", {**body, "amount": "13"}, Idempotency_Key="k1")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    elsewhere = place.call("POST", "/v1/orgs/globex/purchases", body, Idempotency_Key="k1")
    assert elsewhere.status_code == 202
    assert place.ids == ["k1", "k1"]


def test_a_setting_with_a_key_is_set_once(place: Place) -> None:
    answers = [place.call("PUT", SETTING, WALLET, Idempotency_Key="s1") for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    assert place.ids == ["s1"]


def test_after_a_failure_the_key_may_be_used_again(place: Place) -> None:
    place.intake.fault = not_taken("nobody answers")
    refused = place.call("POST", "/v1/orgs/acme/purchases", PURCHASE, Idempotency_Key="k1")
    assert (refused.status_code, refused.json()["code"], refused.headers["Retry-After"]) == (
        503, "kafka_unavailable", "1",
    )  # fmt: skip
    assert place.ids == []
    place.intake.fault = None
    assert place.call("POST", "/v1/orgs/acme/purchases", PURCHASE, Idempotency_Key="k1").status_code == 202
    assert place.ids == ["p1"]


# Keys


def test_a_key_writes_what_its_roles_allow_and_where() -> None:
    token, key = made(1, KeyRole.PRODUCER, organisations=("acme",))
    place = Place([key])
    bearer = {"Authorization": f"Bearer {token}"}
    purchase = {**EVENT, "type": "credits.purchase.v1", "id": "p1", "data": PURCHASE}
    answer = place.call("POST", "/v1/events", [EVENT, {**EVENT, "subject": "globex"}, purchase], BATCH, **bearer)
    assert answer.status_code == 202
    assert [each.get("code") for each in answer.json()["results"]] == [None, "not_authorized", "not_authorized"]
    assert place.ids == ["e1"]
    for method, path, body in [
        ("POST", "/v1/events", purchase),
        ("POST", "/v1/events", {**EVENT, "subject": "globex"}),
        ("POST", "/v1/orgs/acme/purchases", PURCHASE),
        ("POST", "/v1/orgs/acme/refunds", REFUND),
        ("POST", "/v1/orgs/acme/transfers", TRANSFER),
        ("POST", "/v1/prices", PRICE),
        ("GET", "/v1/orgs/acme/settings/wallet", ""),
    ]:
        refused = place.call(method, path, body, **bearer)
        assert (refused.status_code, refused.json()["code"]) == (403, "not_authorized"), path
    assert place.ids == ["e1"]


def test_each_call_without_the_right_is_recorded_for_the_activity_log() -> None:
    """Product rule 33: who, what, when; for the organisation that was named. Kafka away changes no answer."""
    token, key = made(1, KeyRole.ANALYST, organisations=("acme",))
    place = Place([key])
    bearer = {"Authorization": f"Bearer {token}"}
    events = [{**EVENT, "subject": org, "id": f"{org}-{number}"} for org in ("acme", "globex") for number in range(2)]
    calls: list[tuple[str, str, Any, str, str]] = [
        ("PUT", SETTING, WALLET, "acme", "PUT /v1/orgs/{org}/settings/{kind}"),
        ("PUT", "/v1/orgs/glo%2Fbex/settings/wallet", "{", "glo/bex", "PUT /v1/orgs/{org}/settings/{kind}"),
        ("GET", SETTING, "", "acme", "GET /v1/orgs/{org}/settings/{kind}"),
        ("POST", "/v1/orgs/acme/purchases", PURCHASE, "acme", "POST /v1/orgs/{org}/purchases"),
        ("POST", "/v1/orgs/acme/refunds", REFUND, "acme", "POST /v1/orgs/{org}/refunds"),
        ("POST", "/v1/orgs/acme/transfers", TRANSFER, "acme", "POST /v1/orgs/{org}/transfers"),
        ("GET", "/v1/orgs/globex/balance", "", "globex", "GET /v1/orgs/{org}/balance"),
        ("POST", "/v1/prices", PRICE, "", "POST /v1/prices"),
        ("POST", "/v1/events", events, "", "POST /v1/events"),
    ]
    for method, path, body, org, action in calls:
        place.recorded.clear()
        answer = place.call(method, path, body, Credits_Actor="al", Credits_Actor_Role="system", **bearer)
        assert (answer.status_code, answer.json()["code"]) == (403, "not_authorized"), path
        [found] = place.recorded
        assert (found["actor"], found["org_id"], found["action"]) == (f"key:{key.key_id}", org, action)
    assert place.intake.sent == []
    producer_token, producer = made(2, KeyRole.PRODUCER, organisations=("acme",))
    place = Place([producer])
    place.call("POST", "/v1/events", events, **{"Authorization": f"Bearer {producer_token}"})
    assert [(found["org_id"], found["action"]) for found in place.recorded] == [("globex", "POST /v1/events")]
    assert place.ids == ["acme-0", "acme-1"]


def test_a_key_of_one_organisation_publishes_prices_for_it_alone() -> None:
    token, key = made(1, KeyRole.ADMIN, organisations=("acme",))
    place = Place([key])
    bearer = {"Authorization": f"Bearer {token}"}
    assert place.call("POST", "/v1/prices", {**PRICE, "org_id": "acme"}, **bearer).status_code == 202
    for price in (PRICE, {**PRICE, "org_id": "globex"}):
        assert place.call("POST", "/v1/prices", price, **bearer).status_code == 403
    assert place.ids == ["m"]


# Bad input: each has a status and a code, and nothing of it reaches Kafka

P = "/v1/orgs/acme/purchases"
WRONG_EVERYWHERE: dict[str, tuple[str | bytes, int, str]] = {
    "empty": ("", 400, "not_json"),
    "not JSON": ("{", 400, "not_json"),
    "not UTF-8": (b"\xff{}", 400, "not_json"),
    "NaN": ('{"amount": NaN}', 400, "not_json"),
    "infinity": ('{"amount": -Infinity}', 400, "not_json"),
    "a name twice": ('{"a": 1, "a": 2}', 400, "not_json"),
    "nested deeply": ("[" * 100_000, 400, "not_json"),
    "a number of 5,000 digits": ('{"a": ' + "9" * 5_000 + "}", 400, "not_json"),
    "a text": ('"x"', 422, "invalid_field"),
    "null": ("null", 422, "invalid_field"),
    "no fields": ("{}", 422, "invalid_field"),
    "10 MiB": (b" " * (10 * 1024 * 1024), 413, "body_too_large"),
}
WRONG_FIELDS: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown field": ({"colour": "red"}, "invalid_field"),
    "a number for a text": ({"wallet": 7}, "invalid_field"),
    "a number for an amount": ({"amount": 12.5}, "invalid_field"),
    "ten decimals": ({"amount": "1.0000000001"}, "invalid_field"),
    "an exponent": ({"amount": "1e3"}, "invalid_field"),
    "an amount of words": ({"amount": "NaN"}, "invalid_field"),
    "too much": ({"amount": "9000000000.000000001"}, "amount_out_of_range"),
    "too many nano-units": ({"amount": None, "amount_nanos": 10**19}, "amount_out_of_range"),
    "nothing": ({"amount": "0"}, "invalid_field"),
    "less than nothing": ({"amount": "-1"}, "invalid_field"),
    "both forms": ({"amount_nanos": 1}, "invalid_field"),
    "an id of 129 characters": ({"purchase_id": "x" * 129}, "invalid_field"),
    "an empty id": ({"purchase_id": ""}, "invalid_field"),
    "control characters": ({"purchase_id": "a\nb"}, "invalid_field"),
    "half a character": ({"purchase_id": "\ud800"}, "invalid_field"),
    "another organisation": ({"org_id": "globex"}, "invalid_field"),
    "no zone": ({"occurred_at": "2026-05-01T12:00:00"}, "invalid_field"),
    "seconds for microseconds": ({"occurred_at": 1_777_000_000}, "invalid_field"),
    "a kind that is none": ({"kind": "gift"}, "invalid_field"),
    "a list": ({"wallet": ["USD"]}, "invalid_field"),
}


@pytest.mark.parametrize("path", ["/v1/events", P, "/v1/orgs/acme/transfers", SETTING, "/v1/prices"])
@pytest.mark.parametrize(("body", "status", "code"), WRONG_EVERYWHERE.values(), ids=WRONG_EVERYWHERE)
def test_a_body_that_is_none(place: Place, path: str, body: str | bytes, status: int, code: str) -> None:
    answer = place.call("PUT" if path == SETTING else "POST", path, body)
    document = answer.json()
    assert (answer.status_code, document["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert document["detail"]
    assert place.intake.sent == []


@pytest.mark.parametrize(("changes", "code"), WRONG_FIELDS.values(), ids=WRONG_FIELDS)
def test_a_field_that_is_wrong(place: Place, changes: dict[str, Any], code: str) -> None:
    """The same as one record, and as the data of an event among good ones."""
    body = {name: value for name, value in {**PURCHASE, **changes}.items() if value is not None}
    answer = place.call("POST", P, body)
    assert (answer.status_code, answer.json()["code"]) == (422, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert place.intake.sent == []
    event = {**EVENT, "type": "credits.purchase.v1", "data": {"org_id": "acme", **body}}
    event["id"] = body["purchase_id"] or "x"
    event["subject"] = "acme"
    among = place.call("POST", "/v1/events", [USAGE, event])
    assert among.status_code == 202
    assert among.json()["results"][1]["code"] == code, among.text
    assert place.ids == ["e1"]


def usage(**changes: Any) -> dict[str, Any]:
    return {**USAGE, **changes}


@pytest.mark.parametrize(
    ("content_type", "body", "status", "code"),
    [
        (PLAIN, "[]", 422, "empty_batch"),
        (PLAIN, [7], 422, "invalid_field"),
        (PLAIN, '{"event_id": "e", "org_id": "a", "input_tokens": 1e400}', 422, "invalid_field"),
        (PLAIN, json.dumps([{}] * (EVENTS_MAX + 1)), 413, "batch_too_large"),
        (PLAIN, json.dumps([{}] * 10_000), 413, "batch_too_large"),
        (PLAIN, [usage(input_tokens=1.0)], 422, "invalid_field"),
        (PLAIN, [usage(input_tokens=-1)], 422, "invalid_field"),
        (PLAIN, [usage(attributes={"a": 1})], 422, "invalid_field"),
        (PLAIN, [usage(occurred_at=None)], 422, "invalid_field"),
        (PLAIN, [usage(event_id="\x00")], 422, "invalid_field"),
        (PLAIN, usage(event_id="\ud800"), 422, "invalid_field"),
        (ONE, [EVENT], 400, "not_an_event"),
        (BATCH, EVENT, 400, "not_an_event"),
        (ONE, USAGE, 422, "invalid_field"),
        (ONE, {**EVENT, "specversion": "0.3"}, 422, "invalid_field"),
        (ONE, {**EVENT, "specversion": 1.0}, 422, "invalid_field"),
        (ONE, {**EVENT, "type": "credits.price.v1"}, 422, "invalid_field"),
        (ONE, {**EVENT, "type": "com.example.order"}, 422, "invalid_field"),
        (ONE, {**EVENT, "source": ""}, 422, "invalid_field"),
        (ONE, {**EVENT, "data": None}, 422, "invalid_field"),
        (ONE, {**EVENT, "data": "x", "datacontenttype": "text/plain"}, 422, "invalid_field"),
        (ONE, {**EVENT, "data_base64": "e30=", "data": None}, 422, "invalid_field"),
        (ONE, {**EVENT, "data": {**EVENT["data"], "event_id": "other"}}, 422, "invalid_field"),
        (ONE, {**EVENT, "data": {**EVENT["data"], "org_id": "other"}}, 422, "invalid_field"),
        (ONE, {**EVENT, "subject": None}, 422, "invalid_field"),
        (ONE, {**EVENT, "time": None}, 422, "invalid_field"),
        ("text/csv", "a,b", 415, "unsupported_media_type"),
        ("application/json; charset=utf-16", "{}", 415, "unsupported_media_type"),
    ],
)
def test_events_that_are_none(place: Place, content_type: str, body: Any, status: int, code: str) -> None:
    answer = place.call("POST", "/v1/events", body, content_type)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert place.intake.sent == []


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        (SETTING, {"unit": "USD", "colour": "red"}, 422, "invalid_field"),
        (SETTING, {"unit": "USD", "allowance": 100}, 422, "invalid_field"),
        (SETTING, {"unit": "USD", "allowance": "1.0000000001"}, 422, "invalid_field"),
        (SETTING, '{"unit": "USD", "allowance": 1e400}', 422, "invalid_field"),
        (SETTING, {}, 422, "invalid_field"),
        (SETTING, [], 422, "invalid_field"),
        (SETTING.replace("wallet", "colour"), WALLET, 404, "unknown_setting_kind"),
        (SETTING.replace("acme", "x" * 129), WALLET, 422, "invalid_field"),
    ],
)
def test_settings_that_are_none(place: Place, path: str, body: Any, status: int, code: str) -> None:
    answer = place.call("PUT", path, body)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert place.intake.sent == []


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Credits_Actor": "al"}, "invalid_field"),
        ({"Credits_Actor_Role": "owner"}, "invalid_field"),
        ({"Credits_Actor": "al", "Credits_Actor_Role": "king"}, "invalid_field"),
        ({"Credits_Actor": "%00", "Credits_Actor_Role": "owner"}, "invalid_field"),
        ({"Idempotency_Key": "x" * 129}, "invalid_idempotency_key"),
        ({"Idempotency_Key": ""}, "invalid_idempotency_key"),
        ({"If_None_Match": '"x"'}, "invalid_field"),
    ],
)
def test_headers_that_are_wrong(place: Place, headers: dict[str, str], code: str) -> None:
    answer = place.call("PUT", SETTING, WALLET, **headers)
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert place.intake.sent == []


def test_a_purchase_has_an_id_or_a_key(place: Place) -> None:
    body = {name: value for name, value in PURCHASE.items() if name != "purchase_id"}
    answer = place.call("POST", P, body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_field")
    assert "purchase_id" in answer.json()["detail"]


def test_prices_while_kafka_cannot_be_asked(place: Place) -> None:
    """The published prices are read first: what the client raises then is no error of this program."""
    place.ties.append(KafkaException(KafkaError(KafkaError._TRANSPORT)))
    answer = place.call("POST", "/v1/prices", PRICE)
    assert (answer.status_code, answer.json()["code"], answer.headers["Retry-After"]) == (503, "kafka_unavailable", "1")
    assert place.intake.sent == []


def test_too_many_prices(place: Place) -> None:
    answer = place.call("POST", "/v1/prices", [{}] * (PRICES_MAX + 1))
    assert (answer.status_code, answer.json()["code"]) == (413, "batch_too_large")


CALLS: list[tuple[str, str, Any]] = [
    ("POST", "/v1/events", [USAGE]),
    ("POST", P, PURCHASE),
    ("POST", "/v1/orgs/acme/refunds", REFUND),
    ("POST", "/v1/orgs/acme/transfers", TRANSFER),
    ("PUT", SETTING, WALLET),
    ("POST", "/v1/prices", PRICE),
]


@pytest.mark.parametrize(("method", "path", "body"), CALLS)
@pytest.mark.parametrize(
    ("fault", "code"), [(lambda: not_taken("no answer"), "kafka_unavailable"), (lambda: BusyError(), "busy")]
)
def test_kafka_away_is_503_and_says_when_to_come_again(
    place: Place, method: str, path: str, body: Any, fault: Callable[[], Exception], code: str
) -> None:
    place.intake.fault = fault()
    answer = place.call(method, path, body)
    assert (answer.status_code, answer.json()["code"]) == (503, code)
    assert int(answer.headers["Retry-After"]) >= 1
    place.intake.fault = None
    assert place.call(method, path, body).status_code == 202
    assert len(place.intake.sent) == 1


def test_every_call_that_writes_is_described_with_an_example(place: Place) -> None:
    described = place.client.get("/openapi.json").json()["paths"]
    for path in ("/v1/events", "/v1/orgs/{org}/purchases", "/v1/orgs/{org}/refunds", "/v1/prices"):
        call = described[path]["post"]
        for content in call["requestBody"]["content"].values():
            assert content["example"]
        assert {"202", "401", "403", "413", "422", "503"} <= set(call["responses"])


def test_the_examples_are_taken(place: Place) -> None:
    described = place.client.get("/openapi.json").json()["paths"]
    number = 0
    for path, calls in described.items():
        for content_type, content in calls.get("post", {}).get("requestBody", {}).get("content", {}).items():
            if "example" in content:
                answer = place.call("POST", path.replace("{org}", "acme"), content["example"], content_type)
                assert answer.status_code == 202, (path, answer.text)
                number += 1
    assert number == 7
