"""`POST …/authorize` over HTTP: the same bytes by the fast way and by the routes, and what is refused."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from pydantic import SecretStr

from schemas.codec import encode_one
from schemas.enums import HoldAction, SettingKind
from schemas.records import BundledSchemas, bundled_id
from streams.api.account_view import AccountView
from streams.api.app import build_api
from streams.api.authorize import ANSWERS_MAX, CHECKS_MAX, Authorizer, checks_of
from streams.api.authorize_routes import AuthorizeAnswer, ManyAnswers, RefusedAnswer, authorize_router
from streams.api.callers import SCOPE_NAME, Caller
from streams.api.fast_routes import FastRoutes
from streams.api.problems import ProblemError
from streams.engine.accounts import frame_account
from streams.engine.positions import POSITION_KEY, REBUILDING, PositionRecord
from streams.kafka.api_keys import KeyRole
from streams.kafka.balances import BalanceReader
from streams.ledger.account import encode_account
from streams.ledger.rating import PriceList
from streams.seals import Seals
from streams.settings import Settings
from tests.unit.ledger.world import DAY, PRICES, World
from tests.unit.platform.test_balance_shown import balance

AS_OF = "2026-05-01T00:00:00+00:00"


class Message:
    """A record of a topic, in partition 0."""

    def __init__(self, key: bytes, value: bytes | None) -> None:
        self._key, self._value = key, value

    def key(self) -> bytes:
        return self._key

    def value(self) -> bytes | None:
        return self._value

    def partition(self) -> int:
        return 0


class Listed:
    """The price list of the world."""

    in_force: PriceList = PRICES

    async def require_current(self) -> None:
        """It is."""


class Place:
    """A world whose accounts are in memory, and the application over it."""

    def __init__(self, **settings: Any) -> None:
        self.settings = Settings(_env_file=None, partitions=1, **settings)
        self.world = World()
        self.view = AccountView(self.settings, now_us=lambda: self.world.at)
        self.balances = BalanceReader(self.settings, BundledSchemas())
        self.caller = Caller("key:1", frozenset({KeyRole.GATEWAY}), frozenset({"acme", "beta"}))
        self.authorizer = Authorizer(self.view, Listed())
        self.current()
        router = authorize_router(self.authorizer)
        api = build_api(balances=self.balances, registry=None, live={}, ready={}, others=[router])
        self.slow = TestClient(self.let_in(api), raise_server_exceptions=False)
        fast = self.let_in(FastRoutes(api, self.authorizer, self.balances))
        self.fast = TestClient(fast, raise_server_exceptions=False)

    def let_in(self, app: Any) -> Any:
        async def layer(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, SCOPE_NAME: self.caller}, receive, send)

        return layer

    def current(self) -> None:
        self.view._current_at = self.balances._current_at = time.monotonic()

    def publish(self, *orgs: str, seals: Seals | None = None) -> None:
        for org_id in orgs or tuple(self.world.accounts):
            account = self.world.account(org_id)
            frame = frame_account(account.due_at or 0, encode_account(account), 1)
            if seals is not None:
                frame = seals.seal("account", org_id.encode(), frame)
            self.view._take([Message(org_id.encode(), frame)])

    def ask(self, org: str = "acme", **check: Any) -> Response:
        """By both ways, which must be one."""
        found = [each.post(f"/v1/orgs/{org}/authorize", json=check) for each in (self.slow, self.fast)]
        assert found[0].content == found[1].content
        assert found[0].status_code == found[1].status_code
        for name in ("content-type", "etag", "retry-after", "content-length"):
            assert found[0].headers.get(name) == found[1].headers.get(name)
        return found[0]


@pytest.fixture
def place() -> Place:
    made = Place()
    made.world.buy("100")
    made.publish()
    return made


def test_the_answer_has_the_fields_that_openapi_says(place: Place) -> None:
    answer = place.ask(amount="1")
    assert set(answer.json()) == set(AuthorizeAnswer.model_fields)
    AuthorizeAnswer.model_validate(answer.json())
    assert answer.json()["as_of"] == AS_OF
    place.world.set(SettingKind.BUDGET, {"budget_id": "b", "unit": "USD", "scope": {}, "window": "day", "limit": "5"})
    place.publish()
    refused = place.ask(amount="6")
    assert set(refused.json()) == set(RefusedAnswer.model_fields)
    RefusedAnswer.model_validate(refused.json())
    assert refused.headers["retry-after"] == "86400"


def test_a_limit_that_ends_in_a_moment_says_a_second(place: Place) -> None:
    place.world.set(SettingKind.BUDGET, {"budget_id": "b", "unit": "USD", "scope": {}, "window": "day", "limit": "5"})
    place.publish()
    place.world.at += DAY - 1
    assert place.ask(amount="6").headers["retry-after"] == "1"
    place.world.at += 1
    assert place.ask(amount="5").status_code == 200


def test_what_is_remembered_is_forgotten_with_the_account_and_with_time(place: Place) -> None:
    assert place.ask(amount="100").status_code == 200
    assert place.ask(amount="100.000000001").status_code == 402
    place.world.use("50")
    assert place.ask(amount="100").status_code == 200  # not published yet
    place.publish()
    assert place.ask(amount="100").status_code == 402
    place.world.give("20", expires_at=place.world.at + DAY)
    place.publish()
    assert place.ask(amount="70").json()["grantable"] == "70"
    place.world.at += DAY
    assert place.ask(amount="70").status_code == 402
    place.view._take([Message(b"acme", None)])
    assert place.ask(amount="1").json()["seq"] == 0


def test_more_answers_than_are_remembered(place: Place) -> None:
    for number in range(3 * ANSWERS_MAX):
        assert place.ask(amount="1", user_id=f"u{number}").status_code == 200
    assert len(place.view.look_up("acme", place.world.at).answers) <= ANSWERS_MAX


def test_an_amount_is_asked_for_or_priced_or_neither(place: Place) -> None:
    priced = place.ask(operation="chat", model="gpt", input_tokens=2_000_000, output_tokens=100_000)
    assert priced.json()["amount"] == "6"
    assert place.ask(operation="chat", model="gpt").json()["code"] == "invalid_field"
    assert place.ask(operation="chat", model="nope", input_tokens=1).json()["code"] == "unknown_price"
    assert place.ask(operation="chat", model="gpt", amount="7").json()["amount"] == "7"
    assert place.ask().json()["amount"] == "0"
    place.world.use("100")
    place.publish()
    assert place.ask().json()["code"] == "credits_not_available"
    assert place.ask(operation="chat", model="free", input_tokens=5).json()["allowed"] is True


@pytest.mark.parametrize(
    ("check", "status", "code"),
    [
        ({"amount": "x"}, 422, "invalid_field"),
        ({"amount": "-1"}, 422, "invalid_field"),
        ({"amount": 1}, 422, "invalid_field"),
        ({"amount": ["1"]}, 422, "invalid_field"),
        ({"amount": "99999999999"}, 422, "invalid_field"),
        ({"amount": "1", "colour": "red"}, 422, "invalid_field"),
        ({"amount": "1", "event_id": "e"}, 422, "invalid_field"),
        ({"amount": "1", "model": 5}, 422, "invalid_field"),
        ({"amount": "1", "model": ["gpt"]}, 422, "invalid_field"),
        ({"amount": "1", "model": "x" * 300}, 422, "invalid_field"),
        ({"amount": "1", "wallet": "x" * 129}, 422, "invalid_field"),
        ({"amount": "1", "wallet": ""}, 422, "invalid_field"),
        ({"operation": "chat", "model": "gpt", "input_tokens": -1}, 422, "invalid_field"),
        ({"operation": "chat", "model": "gpt", "input_tokens": 1.5}, 422, "invalid_field"),
    ],
)
def test_what_is_wrong_is_said(place: Place, check: dict[str, Any], status: int, code: str) -> None:
    answer = place.ask(**check)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("body", [b"", b"[]", b"nothing", b'{"amount": NaN}', b'{"amount":"1","amount":"100000"}'])
def test_what_is_no_check_is_refused(place: Place, body: bytes) -> None:
    for client in (place.slow, place.fast):
        answer = client.post("/v1/orgs/acme/authorize", content=body)
        assert answer.status_code == 400, answer.text


def test_spaces_change_nothing(place: Place) -> None:
    for body in (b'{"amount":"1","user_id":"u"}', b'{ "amount" : "1",\n"user_id"\t:\r"u" }'):
        for client in (place.slow, place.fast):
            assert client.post("/v1/orgs/acme/authorize", content=body).status_code == 200


def test_only_gateways_may_ask_and_for_their_organisations(place: Place) -> None:
    assert place.ask("gone", amount="1").json()["code"] == "not_authorized"
    checks = {"checks": [{"org_id": "acme", "amount": "1"}, {"org_id": "gone", "amount": "1"}]}
    assert place.fast.post("/v1/authorize", json=checks).status_code == 403
    place.caller = Caller("key:2", frozenset({KeyRole.PRODUCER}))
    assert place.ask(amount="1").status_code == 403
    assert place.fast.post("/v1/authorize", json=checks).status_code == 403


def test_ids_that_are_encoded_are_found(place: Place) -> None:
    place.caller = Caller("key:1", frozenset({KeyRole.GATEWAY}))
    place.world.buy("5", "a/b")
    place.publish("a/b")
    assert place.ask("a%2Fb", amount="5").status_code == 200


def test_many_are_answered_each_in_its_place(place: Place) -> None:
    checks: list[Any] = [
        {"org_id": "acme", "amount": "100"},
        {"org_id": "acme", "amount": "101"},
        {"org_id": "beta", "amount": "1"},
        {"amount": "1"},
        {"org_id": "acme", "amount": "1", "colour": "red"},
        {"org_id": "acme", "operation": "chat", "model": "nope", "input_tokens": 1},
        "x",
    ]
    answer = place.fast.post("/v1/authorize", json={"checks": checks})
    assert answer.status_code == 200
    told = ManyAnswers.model_validate(answer.json()).results
    assert [(each["allowed"], each["status"], each["code"]) for each in told] == [
        (True, 200, "ok"),
        (False, 402, "credits_not_available"),
        (False, 402, "credits_not_available"),
        (False, 422, "invalid_field"),
        (False, 422, "invalid_field"),
        (False, 422, "unknown_price"),
        (False, 422, "invalid_field"),
    ]
    single = place.ask(amount="101").json()
    assert told[1] | {"as_of": answer.json()["as_of"]} == single


@pytest.mark.parametrize(
    ("content", "status"),
    [({"checks": []}, 422), ({"checks": [{}] * (CHECKS_MAX + 1)}, 413), ([], 400), ({"checks": [], "more": 1}, 400)],
)
def test_calls_of_many_have_limits(content: Any, status: int) -> None:
    with pytest.raises(ProblemError) as refused:
        checks_of(msgspec.json.encode(content))
    assert refused.value.status == status


def test_a_name_that_comes_twice_is_refused_in_a_call_of_many() -> None:
    with pytest.raises(ProblemError) as refused:
        checks_of(b'{"checks":[{"org_id":"acme","amount":"1","amount":"2"}]}')
    assert refused.value.status == 400


def test_what_may_be_outdated_is_not_answered(place: Place) -> None:
    place.view._current_at = time.monotonic() - 60
    for client in (place.slow, place.fast):
        answer = client.post("/v1/orgs/acme/authorize", json={"amount": "1"})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert client.post("/v1/authorize", json={"checks": [{"org_id": "acme"}]}).status_code == 503


def test_nothing_is_answered_of_a_partition_that_is_being_rebuilt(place: Place) -> None:
    assert place.ask(amount="1").status_code == 200
    place.view._take([Message(POSITION_KEY, REBUILDING)])
    assert place.ask(amount="1").json()["code"] == "rebuilding"
    place.view._take([Message(POSITION_KEY, PositionRecord().encode())])
    assert place.ask(amount="1").status_code == 200


def test_the_time_is_never_behind_the_ledgers(place: Place) -> None:
    """The host's clock is a week behind: what has expired for the ledger has expired here."""
    place.world.give("20", expires_at=place.world.at + DAY)
    place.publish()
    assert place.ask(amount="120").status_code == 200
    ahead = place.world.at + 7 * DAY
    place.view._take([Message(POSITION_KEY, PositionRecord(clock_at=ahead).encode())])
    place.view._clocks_at_s = -60.0
    assert place.ask(amount="120").status_code == 402


KEY = "0123456789abcdef"


@pytest.mark.parametrize(
    ("reader", "writer", "read"), [(KEY, KEY, True), (KEY, None, False), (None, KEY, False), (KEY, KEY[::-1], False)]
)
def test_only_what_the_ledger_has_sealed_is_believed(reader: str | None, writer: str | None, read: bool) -> None:
    place = Place(internal_key=None if reader is None else SecretStr(reader))
    key = None if writer is None else SecretStr(writer)
    place.world.buy("100")
    place.publish(seals=Seals.of(place.settings.model_copy(update={"internal_key": key})))
    answer = place.ask(amount="1")
    assert (answer.status_code, answer.json()["code"]) == ((200, "ok") if read else (503, "account_unreadable"))


def test_a_balance_is_answered_alike_by_both_ways(place: Place) -> None:
    record = {**balance(USD=5), "org_id": "acme", "seq": 3}
    value = encode_one("balance", record, bundled_id("balance"))
    place.balances._keep(Message(b"acme", value))
    answers = [client.get("/v1/orgs/acme/balance") for client in (place.slow, place.fast)]
    assert answers[0].content == answers[1].content
    assert [(each.status_code, each.headers["etag"]) for each in answers] == [(200, '"3"')] * 2
    unchanged = place.fast.get("/v1/orgs/acme/balance", headers={"If-None-Match": '"3"'})
    assert unchanged.status_code == 304
    assert place.fast.get("/v1/orgs/beta/balance").status_code == 404


def test_the_fast_way_is_taken(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the comparisons above would compare the routes with themselves."""

    async def never(*_: Any) -> None:
        raise AssertionError("the routes are asked")

    monkeypatch.setattr(Authorizer, "one", never)
    assert place.fast.post("/v1/orgs/acme/authorize", content=b'{"amount":"1"}').status_code == 200
    assert place.fast.post("/v1/orgs/acme/authorize", content=b'{"amount":"1000"}').status_code == 402
    assert place.slow.post("/v1/orgs/acme/authorize", content=b'{"amount":"1"}').status_code == 500


def test_holds_count(place: Place) -> None:
    place.world.hold(HoldAction.PLACE, "h1", "60")
    place.publish()
    assert place.ask(amount="50").json()["code"] == "credits_held"
    assert place.ask(amount="40").json()["available"] == "40"
