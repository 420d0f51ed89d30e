"""What is read over HTTP, from ClickHouse in process: every answer is as its model says, as of when, page by page."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import OperationalError
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import BaseModel
from starlette.types import ASGIApp, Receive, Scope, Send

from projections.reads import read_cursor, write_cursor
from projections.sink import Sink
from schemas.dismissals import Dismissal
from schemas.records import BundledSchemas
from schemas.times import format_time
from streams.api import reading
from streams.api import reading_models as models
from streams.api.app import build_api
from streams.api.callers import SCOPE_NAME, Caller
from streams.api.compatible_routes import compatible_router
from streams.api.history_routes import history_router
from streams.api.listing_routes import listing_router
from streams.api.problems import ProblemError
from streams.api.reading import ReadingDesk
from streams.kafka.api_keys import KeyRole
from tests.unit.platform.test_api_keys import made
from tests.unit.platform.test_write_routes import FakeIntake
from tests.unit.projections.entries import HOUR, LEDGER, NOON, TOPICS, Row, entry, inbound

DAY = 24 * HOUR
SETTINGS, REFUNDS, PURCHASES = TOPICS.name("settings"), TOPICS.name("refunds"), TOPICS.name("purchases")
WALLETS = ("settled", "held", "available", "on_the_way", "allocation", "month_spent", "lifetime_added",
           "lifetime_spent")  # fmt: skip
ANALYST = Caller("key:a", frozenset({KeyRole.ANALYST}))
ADMIN = Caller("key:admin", frozenset({KeyRole.ADMIN}))


def setting(seq: int, kind: str, body: dict[str, Any], org: str = "acme") -> Row:
    details = json.dumps({"kind": kind, "body": body, "before": None})
    return entry(org, seq, 0, kind="setting", wallet="", source_topic=SETTINGS, actor="ann", details=details)


def balance(org: str, seq: int, available: int, **amounts: int) -> Row:
    wallet: Row = {f"{name}_nanos": amounts.get(name, available) * 10**9 for name in WALLETS}
    wallets = [wallet | {"unit": "USD", "status": "limit_reached", "health": "green"}]
    return {"org_id": org, "seq": seq, "as_of": NOON, "wallets": wallets}


def alert(number: int, org: str = "acme", **fields: Any) -> Row:
    given = {
        "alert_id": f"alert-{number}", "org_id": org, "wallet": "USD", "kind": "credit_balance_low",
        "balance_nanos": 5, "available_nanos": 5, "occurred_at": NOON + number, "entry_seq": number,
        "channels": ["banner"], "dismissable": True, "message": "low", "used_percent": 91.5,
    }  # fmt: skip
    return given | fields


STORY = [
    setting(1, "org", {"time_zone": "Asia/Kolkata"}) | {"recorded_at": NOON - 90 * DAY},
    setting(2, "member", {"user_id": "bob", "role": "owner"}),
    setting(3, "member", {"user_id": "eve", "role": "none"}),
    setting(4, "month_limits", {"unit": "USD", "alert_threshold": "5", "allowed_limit": "100"}),
    setting(5, "wallet", {"unit": "USD", "low_balance_threshold": "60"}),
    entry("acme", 6, 70 * 10**9, kind="purchase", event_id="p1", source_topic=PURCHASES, actor="ann",
          balance_nanos=70 * 10**9, details='{"kind":"purchased","status":"completed","amount_nanos":70000000000}'),
    *(entry("acme", seq, -(10**9), operation="chat", model="gpt-4o", user_id=f"u{seq % 2}", input_tokens=100,
            output_tokens=10, balance_nanos=(76 - seq) * 10**9, occurred_at=NOON - (seq - 7) * 2 * HOUR,
            slices=[{"grant_id": "purchase/p1", "kind": "purchased", "amount_nanos": -(10**9)}])
      for seq in range(7, 17)),
    entry("acme", 17, 0, kind="rejected", wallet="", source_topic=SETTINGS, actor="eve", reason="not_authorized",
          details='{"kind":"member","message":"no","body":"{}"}'),
]  # fmt: skip


class Balances:
    """In place of the reader: balances that the test gives."""

    def __init__(self) -> None:
        self.rows = {"acme": balance("acme", 17, 60, settled=60, lifetime_added=70, lifetime_spent=10)}

    async def latest(self, org: str, min_seq: int = 0) -> Row | None:
        return self.rows.get(org)


class Dismissed:
    """In place of the topic: what was dismissed, in memory."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, str], Dismissal] = {}

    def find(self, org: str, alert_id: str) -> Dismissal | None:
        return self.known.get((org, alert_id))

    def dismiss(self, wanted: Dismissal) -> Dismissal:
        return self.known.setdefault((wanted.org_id, wanted.alert_id), wanted)


class As:
    """Lets every request in as one caller."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.caller = ADMIN

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope[SCOPE_NAME] = self.caller
        await self.app(scope, receive, send)


class Http:
    """Asks, and holds answers to their models."""

    def __init__(self, client: Client) -> None:
        self.balances, self.dismissed, self.clickhouse = Balances(), Dismissed(), client
        desk = ReadingDesk([client], LEDGER)
        followed: Any = self.dismissed
        reader: Any = self.balances
        routers = [history_router(desk, reader, clock=lambda: NOON), listing_router(desk, followed, clock=lambda: NOON)]
        intake: Any = FakeIntake()
        self.key = made(1, KeyRole.ANALYST, expires_at=NOON + DAY, requests_per_s=5)[1]
        find = {self.key.key_id: self.key}.get
        routers.append(compatible_router(intake, desk, reader, find, clock=lambda: NOON + 1))
        self.api: FastAPI = build_api(balances=reader, registry=None, live={}, ready={}, others=routers)
        self.door = As(self.api)
        self.client = TestClient(self.door, raise_server_exceptions=False)

    def get(self, path: str, model: type[BaseModel] | None = None, status: int = 200, **params: Any) -> Any:
        answer = self.client.get(
            path if path.startswith("/api/") else f"/v1{path}",
            params={name.rstrip("_"): each for name, each in params.items()},
        )
        assert answer.status_code == status, answer.text
        document = answer.json()
        if model is not None:
            model.model_validate(document)
        return document


@pytest.fixture
def http(client: Client) -> Http:
    sink = Sink(client, TOPICS, BundledSchemas())
    sink.apply([inbound(STORY, 0)])
    sink.apply([inbound([balance("acme", 17, 60), balance("bolt", 1, 3)], 0, topic=TOPICS.name("balances"),
                        record="balance")])  # fmt: skip
    alerts = [alert(7), alert(8, dismissable=False), alert(9, kind="credit_limit_reached"), alert(9, org="bolt")]
    sink.apply([inbound(alerts, 0, topic=TOPICS.name("alerts_threshold"), record="alert")])
    return Http(client)


def test_the_card(http: Http) -> None:
    """Product rule 29; the status says something worse, and the badge still says that the balance is low."""
    card = http.get("/orgs/acme", models.CardAnswer)
    assert card["projected_as_of"].startswith("2026-05-29T12:00:00")
    (wallet,) = card["wallets"]
    assert (wallet["settled"], wallet["low"], wallet["lifetime_added"]) == ("60", True, "70")
    assert [(each["seq"], each["amount"], each["balance"]) for each in wallet["movements"]] == [
        (seq, "-1", str(76 - seq)) for seq in range(16, 11, -1)
    ]
    http.balances.rows["acme"] = balance("acme", 17, 61)
    assert http.get("/orgs/acme")["wallets"][0]["low"] is False
    assert http.get("/orgs/nobody", status=404)["code"] == "unknown_org"


def pages(http: Http, path: str, name: str, **params: Any) -> Iterator[list[Row]]:
    cursor: dict[str, Any] = {}
    while True:
        page = http.get(path, **params, **cursor)
        yield page[name]
        if page["next_cursor"] is None:
            return
        cursor = {"cursor": page["next_cursor"]}


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_pages_are_stable_while_entries_come(http: Http, order: str) -> None:
    """Each entry that was there at the start is met once, in order, whatever is booked between two pages."""
    met: list[int] = []
    late = iter(range(18, 40))
    for page in pages(http, "/orgs/acme/transactions", "transactions", order=order, limit=3):
        met += [each["seq"] for each in page]
        seqs = [next(late), next(late)]
        if seqs[-1] < 30:
            Sink(http.clickhouse, TOPICS, BundledSchemas()).apply([
                inbound([entry("acme", seq, -1) for seq in seqs], 2 * (seqs[0] - 1))
            ])  # fmt: skip
    there = list(range(6, 17))
    assert [seq for seq in met if seq <= 17] == (there if order == "asc" else there[::-1])
    assert met == sorted(met, reverse=order == "desc")
    assert len(met) == len(set(met))
    assert (met[-1] >= 18) is (order == "asc")


def test_transactions_by_filter(http: Http) -> None:
    def seqs(**params: Any) -> list[int]:
        return [each["seq"] for each in http.get("/orgs/acme/transactions", models.TransactionsAnswer, **params)[
            "transactions"]]  # fmt: skip

    assert seqs(direction="in") == [6]
    assert seqs(kind=["setting", "rejected"]) == [17, 5, 4, 3, 2, 1]
    assert seqs(wallet="EUR") == []
    assert seqs(from_=format_time(NOON + 8), to=format_time(NOON + 10)) == [9, 8]
    assert seqs(from_="2026-05-30") == []
    assert len(seqs(from_="2026-05-29", to="2026-05-30")) == 11
    first = http.get("/orgs/acme/transactions", limit=1)["transactions"][0]
    assert (first["model"], first["tool"], first["slices"][0]["amount"]) == ("gpt-4o", None, "-1")


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("/orgs/acme/transactions", {"cursor": "x"}, "cursor"),
    ("/orgs/acme/transactions", {"cursor": write_cursor("prices", "a")}, "cursor"),
    ("/orgs/acme/transactions", {"cursor": write_cursor("transactions-asc", 3)}, "cursor"),
    ("/orgs/acme/transactions", {"limit": 1_001}, ""),
    ("/orgs/acme/transactions", {"limit": 0}, ""),
    ("/orgs/acme/transactions", {"kind": "none"}, ""),
    ("/orgs/acme/transactions", {"kindd": "usage"}, ""),
    ("/orgs/acme/transactions", {"from": "2026-05-01T00:00:00"}, "from"),
    ("/orgs/acme/transactions", {"from": "2026-02-30"}, "from"),
    ("/orgs/acme/transactions", {"from": "0000-01-01"}, "from"),
    ("/orgs/acme/transactions", {"from": "2026-05-02", "to": "2026-05-02"}, "to"),
    ("/orgs/acme/usage", {"group_by": "org_id"}, ""),
    ("/orgs/acme/usage", {"group_by": "model; DROP TABLE ledger"}, ""),
    ("/orgs/acme/usage", {"granularity": "week"}, ""),
    ("/orgs/acme/usage", {"time_zone": "Mars/Base"}, "time_zone"),
    ("/orgs/acme/usage", {"from": "2027-01-01"}, "from"),
    ("/orgs/acme/usage", {"from": "1970-01-02", "to": "2299-12-31"}, ""),
    ("/orgs/acme/days/2026-5-1", {}, "day"),
    ("/orgs/acme/days/2026-05-32", {}, "day"),
    ("/orgs/acme/months/2026-13", {}, "month"),
    ("/orgs/acme/months", {"months": 25}, ""),
    ("/orgs", {"status_": "none"}, ""),
    ("/prices", {"at": "now"}, "at"),
    ("/prices", {"search": "x" * 129}, ""),
]
"""Path, parameters, and the field that the problem names where the framework does not name it itself."""


def test_what_is_wrong_is_named(http: Http) -> None:
    for path, params, field in WRONG:
        problem = http.get(path, status=422, **params)
        assert problem["code"] in ("invalid_field", "too_wide")
        assert problem.get("field", "") == field, (path, params)


def test_usage_in_the_organisations_zone(http: Http) -> None:
    """Half an hour off: 29 May begins in Kolkata at 18:30 UTC of the 28th."""
    report = http.get("/orgs/acme/usage", models.UsageAnswer, from_="2026-05-28", to="2026-05-30", group_by="user_id")
    assert report["time_zone"] == "Asia/Kolkata"
    found = {(row["start"], row["user_id"]): (row["requests"], row["net_cost"]) for row in report["usage"]}
    # At noon UTC and every two hours before: nine of ten at or after 18:30 UTC of the day before.
    assert found == {
        ("2026-05-28T00:00:00+05:30", "u0"): (1, "1"),
        ("2026-05-29T00:00:00+05:30", "u0"): (4, "4"),
        ("2026-05-29T00:00:00+05:30", "u1"): (5, "5"),
    }
    whole = http.get("/orgs/acme/usage", models.UsageAnswer, granularity="month", time_zone="UTC")
    assert [row["input_tokens"] for row in whole["usage"]] == [900]  # now is noon, and the end is not in the range
    only = http.get("/orgs/acme/usage", from_="2026-05-28", to="2026-05-30", user_id="u1", granularity="month")
    assert [row["requests"] for row in only["usage"]] == [5]


def test_usage_over_all(http: Http) -> None:
    given: dict[str, Any] = {"from_": "2026-05-01", "to": "2026-06-01", "granularity": "month", "group_by": "org_id"}
    everything = http.get("/usage", models.AllUsageAnswer, **given)
    assert [(row["org_id"], row["requests"]) for row in everything["usage"]] == [("acme", 10)]
    http.door.caller = replace(ANALYST, organisations=frozenset({"bolt"}))
    assert http.get("/usage", models.AllUsageAnswer, **given)["usage"] == []
    assert http.get("/usage", models.AllUsageAnswer, **given, org_id="acme")["usage"] == []


def test_month_and_days(http: Http) -> None:
    """Product rule 30: used, alert threshold, allowed limit, remaining; per day; each item of a day."""
    month = http.get("/orgs/acme/months/2026-05", models.MonthAnswer)
    assert (month["time_zone"], month["from"]) == ("Asia/Kolkata", "2026-04-30T18:30:00Z")
    (wallet,) = month["wallets"]
    days = [(each["day"], each["used"]) for each in wallet.pop("days")]
    assert days == [("2026-05-28", "1"), ("2026-05-29", "9")]
    # The ledger's own count stands for the current month: it was given as 60.
    assert wallet == {"wallet": "USD", "used": "60", "alert_threshold": "5", "allowed_limit": "100",
                      "remaining": "40", "level": "orange"}  # fmt: skip
    history = http.get("/orgs/acme/months", models.MonthsAnswer, months=3)
    assert [each["month"] for each in history["months"]] == ["2026-05", "2026-04", "2026-03"]
    assert history["months"][1]["wallets"] == []
    items = [row for page in pages(http, "/orgs/acme/days/2026-05-29", "items", limit=4) for row in page]
    assert [(row["seq"], row["cost"]) for row in items] == [(seq, "1") for seq in range(7, 16)]
    day = http.get("/orgs/acme/days/2026-05-28", models.DayAnswer)
    assert ([row["seq"] for row in day["items"]], day["to"]) == ([16], "2026-05-28T18:30:00Z")


def test_burn_rate(http: Http) -> None:
    """Ten credits since 18 hours: a day or less counts as a day, so 60 last six days."""
    (wallet,) = http.get("/orgs/acme/burn-rate", models.BurnRateAnswer)["wallets"]
    assert (wallet["spent_last_week"], wallet["spent_per_day"], wallet["days_left"]) == ("10", "10", 6.0)
    assert wallet["depletes_at"] == format_time(NOON + 6 * DAY)


def test_alerts_and_dismissal(http: Http) -> None:
    """Product rule 25: only what may be dismissed; it is shown at once, with its author; once and for all."""
    listed = http.get("/orgs/acme/alerts", models.AlertsAnswer)["alerts"]
    assert [each["alert_id"] for each in listed] == ["alert-9", "alert-8", "alert-7"]
    paged = [row["alert_id"] for page in pages(http, "/orgs/acme/alerts", "alerts", limit=1) for row in page]
    assert paged == ["alert-9", "alert-8", "alert-7"]
    assert [each["alert_id"] for each in http.get("/orgs/acme/alerts", kind="credit_limit_reached")["alerts"]] == [
        "alert-9"
    ]
    dismiss = "/v1/orgs/acme/alerts/{}/dismiss"
    answer = http.client.post(dismiss.format("alert-7"), headers={"Credits-Actor": "bob%20b"})
    assert answer.status_code == 200
    assert models.DismissedAnswer.model_validate(answer.json()).dismissed_by == "bob b"
    assert http.client.post(dismiss.format("alert-7")).json() == answer.json()
    assert http.client.post(dismiss.format("alert-8")).json()["code"] == "not_dismissable"
    assert http.client.post(dismiss.format("alert-1")).json()["code"] == "unknown_alert"
    assert [each["alert_id"] for each in http.get("/orgs/acme/alerts", dismissed=False)["alerts"]] == [
        "alert-9", "alert-8"]  # fmt: skip
    note = http.dismissed.known.pop(("acme", "alert-7"))
    projected = inbound([], 0, topic=TOPICS.name("dismissals"))
    rows = replace(projected, next_offset=2, offsets=[0, 1], timestamps_ms=[NOON // 1_000] * 2,
                   keys=[b"alert-7", b"alert-9"], values=[note.encode(), note.encode()])  # fmt: skip
    Sink(http.clickhouse, TOPICS, BundledSchemas()).apply([rows])
    dismissed = http.get("/orgs/acme/alerts", models.AlertsAnswer, dismissed=True)["alerts"]
    assert [(each["alert_id"], each["dismissed_by"]) for each in dismissed] == [("alert-7", "bob b")]
    assert http.client.post(dismiss.format("alert-7")).json() == answer.json()
    log = http.get("/orgs/acme/activity", models.ActivityAnswer, action="alert_dismissed")["activity"]
    assert [(each["actor"], each["subject"]) for each in log] == [("bob b", "alert-7")]


def test_activity_settings_members(http: Http) -> None:
    """Product rules 32 and 33: refused tries, too."""
    log = http.get("/orgs/acme/activity", models.ActivityAnswer)["activity"]
    assert [each["seq"] for each in log] == [17, 6, 5, 4, 3, 2, 1]
    assert (log[0]["actor"], log[0]["refused"], log[0]["reason"]) == ("eve", True, "not_authorized")
    assert (log[1]["before"], log[1]["after"]) == ("0", "70")
    assert log[2]["after"] == {"unit": "USD", "low_balance_threshold": "60"}
    assert [each["seq"] for each in http.get("/orgs/acme/activity", actor="ann", action=["member"])["activity"]] == [
        3, 2]  # fmt: skip
    assert [each["seq"] for each in http.get("/orgs/acme/activity", refused=True)["activity"]] == [17]
    paged = [row["seq"] for page in pages(http, "/orgs/acme/activity", "activity", limit=2) for row in page]
    assert paged == [17, 6, 5, 4, 3, 2, 1]
    members = http.get("/orgs/acme/members", models.MembersAnswer)["members"]
    assert [(each["user_id"], each["role"], each["by"]) for each in members] == [("bob", "owner", "ann")]
    kinds = [each["kind"] for each in http.get("/orgs/acme/settings", models.SettingsAnswer)["settings"]]
    assert kinds == ["member", "member", "month_limits", "org", "wallet"]


def test_prices(http: Http) -> None:
    """Product rule 30: search by name; what applies at a time; another organisation's own prices are not shown."""

    def price(number: int, **fields: Any) -> Row:
        given = {"price_id": f"p{number}", "operation": "chat", "unit_price_nanos": 5, "billing_unit": "request",
                 "wallet": "USD", "valid_from": NOON, "display_name": f"Model {number}"}  # fmt: skip
        return given | fields

    rows = [price(1, model="gpt-4o"), price(2, valid_to=NOON + DAY), price(3, org_id="bolt"), price(4, org_id="acme")]
    Sink(http.clickhouse, TOPICS, BundledSchemas()).apply([
        inbound(rows, 0, topic=TOPICS.name("prices"), record="price")
    ])  # fmt: skip

    def ids(**params: Any) -> list[str]:
        return [each["price_id"] for each in http.get("/prices", models.PricesAnswer, **params)["prices"]]

    assert ids() == ["p1", "p2", "p3", "p4"]
    assert ids(search="GPT") == ["p1"]
    assert ids(search="model 2") == ["p2"]
    assert ids(at=format_time(NOON + DAY)) == ["p1", "p3", "p4"]
    assert ids(at=format_time(NOON - 1)) == []
    assert ids(org_id="bolt") == ["p1", "p2", "p3"]
    assert [row["price_id"] for page in pages(http, "/prices", "prices", limit=3) for row in page] == ids()
    http.door.caller = Caller("key:p", frozenset({KeyRole.PRODUCER}), frozenset({"acme"}))
    assert ids() == ["p1", "p2", "p4"]
    assert http.get("/prices", status=403, org_id="bolt")["code"] == "not_authorized"


def test_organisations(http: Http) -> None:
    def orgs(**params: Any) -> list[str]:
        return [each["org_id"] for each in http.get("/orgs", models.OrgsAnswer, **params)["orgs"]]

    assert orgs() == ["acme", "bolt"]
    assert orgs(search="OL") == ["bolt"]
    assert orgs(status_="ok") == []
    assert orgs(status_="limit_reached") == ["acme", "bolt"]
    assert [row["org_id"] for page in pages(http, "/orgs", "orgs", limit=1) for row in page] == ["acme", "bolt"]
    http.door.caller = replace(ANALYST, organisations=frozenset({"bolt", "none"}))
    assert orgs() == ["bolt"]


def test_openrouters_credits_and_key(http: Http) -> None:
    """What clients compute of them is the balance; the organisation is the key's own."""
    http.door.caller = Caller(f"key:{http.key.key_id}", frozenset(http.key.roles), frozenset({"acme"}))
    credits = http.get("/api/v1/credits", models.CompatibleCredits)["data"]
    assert credits == {"total_credits": 70.0, "total_usage": 10.0}
    key = http.get("/api/v1/key", models.CompatibleKey)["data"]
    assert key == http.get("/api/v1/auth/key", models.CompatibleKey)["data"]
    assert (key["label"], key["rate_limit"]["requests"]) == (http.key.name, 5)
    assert key["expires_at"] == format_time(NOON + DAY)
    # The 29th of May 2026 is a Friday: ten credits in the week and the month, of which seven since midnight UTC.
    spent = {"usage": 10.0, "usage_daily": 7.0, "usage_weekly": 10.0, "usage_monthly": 10.0}
    limits = {"limit": 100.0, "limit_remaining": 40.0, "limit_reset": "monthly"}
    assert {name: key[name] for name in (*spent, *limits)} == spent | limits
    http.get("/api/v1/credits", status=403, org="bolt")
    assert http.get("/api/v1/credits", status=404, wallet="EUR")["code"] == "unknown_wallet"
    http.door.caller = ANALYST
    assert http.get("/api/v1/credits", status=422)["field"] == "org"
    assert http.get("/api/v1/credits", org="acme")["data"] == credits
    assert http.get("/api/v1/key", status=404, org="nobody")["code"] == "unknown_org"


READS = [
    "/orgs/acme", "/orgs/acme/transactions", "/orgs/acme/usage", "/orgs/acme/burn-rate", "/orgs/acme/months",
    "/orgs/acme/months/2026-05", "/orgs/acme/days/2026-05-29", "/orgs/acme/alerts", "/orgs/acme/activity",
    "/orgs/acme/settings", "/orgs/acme/members", "/usage", "/prices", "/orgs",
]  # fmt: skip


@pytest.mark.parametrize("role", [KeyRole.PRODUCER, KeyRole.GATEWAY])
def test_who_only_writes_reads_no_history(http: Http, role: KeyRole) -> None:
    http.door.caller = Caller("key:g", frozenset({role}))
    for path in READS:
        http.get(path, status=200 if path == "/prices" else 403)


def test_a_key_of_another_organisation_reads_nothing(http: Http) -> None:
    http.door.caller = replace(ANALYST, organisations=frozenset({"bolt"}))
    for path in READS:
        if path.startswith("/orgs/"):
            http.get(path, status=403)
    assert http.client.post("/v1/orgs/acme/alerts/alert-7/dismiss").status_code == 403


def test_without_clickhouse_the_past_is_503(http: Http, monkeypatch: pytest.MonkeyPatch) -> None:
    """And balances still work."""

    def away(*_: Any, **__: Any) -> Any:
        raise OperationalError("connection refused")

    monkeypatch.setattr(http.clickhouse, "query", away)
    for path in READS:
        answer = http.client.get(f"/v1{path}")
        assert (answer.status_code, answer.json()["code"]) == (503, "clickhouse_unavailable"), path
        assert answer.headers["Retry-After"] == "1"
    http.get("/orgs/acme/balance")


def test_an_unknown_organisation_is_404(http: Http) -> None:
    for path in READS:
        if path.startswith("/orgs/"):
            problem = http.get(path.replace("acme", "nobody"), status=404)
            assert problem["code"] == "unknown_org"


def test_what_was_not_changed_is_304(http: Http) -> None:
    path = "/v1/orgs/acme/transactions"
    tag = http.client.get(path).headers["ETag"]
    assert http.client.get(path, headers={"If-None-Match": tag}).status_code == 304
    assert http.client.get(f"{path}?limit=2", headers={"If-None-Match": tag}).status_code == 200
    Sink(http.clickhouse, TOPICS, BundledSchemas()).apply([inbound([entry("acme", 18, -1)], 2 * len(STORY))])
    assert http.client.get(path, headers={"If-None-Match": tag}).status_code == 200


def test_examples_are_answers() -> None:
    """The example of each answer in OpenAPI is one that its model takes."""
    described = [
        each
        for each in vars(models).values()
        if isinstance(each, type) and issubclass(each, BaseModel) and "json_schema_extra" in each.model_config
    ]
    assert len(described) >= 14
    for model in described:
        schema: Any = model.model_config["json_schema_extra"]
        for example in schema["examples"]:
            model.model_validate(example)


def test_questions_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask() -> list[Any]:
        nothing: Any = None
        desk = ReadingDesk([nothing], LEDGER)
        started = asyncio.Event()
        gate = threading.Event()
        loop = asyncio.get_running_loop()

        def slow(_: Any) -> int:
            loop.call_soon_threadsafe(started.set)
            gate.wait(30)
            return 1

        asked = [asyncio.create_task(desk.ask(slow)) for _ in range(3)]
        await started.wait()
        refused = await asyncio.gather(desk.ask(lambda _: 2), return_exceptions=True)
        gate.set()
        return [*refused, *(await asyncio.gather(*asked))]

    monkeypatch.setattr(reading, "WAITING_MAX", 3)
    refused, *answered = asyncio.run(ask())
    assert isinstance(refused, ProblemError)
    assert (refused.status, refused.code) == (503, "busy")
    assert answered == [1, 1, 1]


@pytest.mark.parametrize("cursor", ["", "AAAA", "\x00", "e30", write_cursor("k", 2**70), write_cursor("k", "x"), "é"])
def test_a_cursor_of_nothing(cursor: str) -> None:
    with pytest.raises(ValueError, match="cursor"):
        read_cursor("k", cursor, int)


def test_a_cursor_comes_back() -> None:
    assert read_cursor("k", write_cursor("k", 5, "é\x00"), int, str) == [5, "é\x00"]
