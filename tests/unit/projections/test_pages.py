"""The pages over ClickHouse in process: what they show is what the ledger says, for those who may see it."""

from __future__ import annotations

import asyncio
import csv
import io
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client
from fastapi.testclient import TestClient

from projections.clickhouse import connect, migrate
from projections.sink import Sink
from schemas.enums import Health, InputKind
from schemas.records import BundledSchemas
from streams.api.app import build_api
from streams.api.door import Door
from streams.api.finance import Desk
from streams.api.query_routes import QueryDesk, query_router
from streams.api.reading import ReadingDesk
from streams.api.sessions import COOKIE, SESSION_S, Sessions, session_secret
from streams.kafka.api_keys import ApiKey, Keyring, KeyRole, digest_of, new_token
from streams.settings import Settings
from streams.ui.parts import Parts
from streams.ui.router import ui_router
from streams.ui.shell import NOT_AUTHORIZED, STATIC, Shell
from streams.ui.shown import HEALTH, health_of
from streams.ui.vitals import Look, Verified, lines_of
from tests.brokers import test_settings
from tests.unit.projections.conftest import Engine
from tests.unit.projections.entries import LEDGER, TOPICS, inbound
from tests.unit.projections.test_reading_routes import STORY, Balances, alert, balance

HTML = "text/html; charset=utf-8"
FIRST_PAGE_BYTES_MAX = 300_000


def key(name: str, *roles: KeyRole, orgs: tuple[str, ...] = ("*",), **fields: Any) -> tuple[str, ApiKey]:
    """A token and its key."""
    token = new_token(name.encode().ljust(38, b"."))
    return token, ApiKey(token.split("_")[1], digest_of(token), name, roles, orgs, 0, **fields)


ADMIN = key("admin", KeyRole.ADMIN)
ANALYST = key("nalyst", KeyRole.ANALYST)
OWN = key("own", KeyRole.ANALYST, orgs=("acme",))
PRODUCER = key("producer", KeyRole.PRODUCER)
OLD = key("old", KeyRole.ADMIN, expires_at=1)


class Sent:
    """In place of Kafka: what was sent."""

    def __init__(self) -> None:
        self.records: list[tuple[InputKind, Any]] = []

    async def send(self, records: list[tuple[InputKind, Any]]) -> None:
        self.records += records


class Unset:
    """In place of the settings topic: nothing was sent yet."""

    def __init__(self) -> None:
        self.writing = asyncio.Lock()

    async def current(self, _: Any) -> None:
        return None


class Known(Balances):
    """Balances, and how many."""

    orgs = 2


class Guarded:
    """The pages behind the door, as they are served."""

    def __init__(self, client: Client, keys: list[ApiKey]) -> None:
        self.sent = Sent()
        self.keyring = Keyring(keys)
        self.sessions = Sessions(b"secret")
        balances: Any = Known()
        intake: Any = self.sent
        versions: Any = Unset()
        shell = Shell(self.sessions, lambda: {"lines": []})
        queries = QueryDesk(client)
        parts = Parts(
            settings=Settings(), shell=shell, sessions=self.sessions, keyring=lambda: self.keyring, balances=balances,
            desk=ReadingDesk([client], LEDGER), finance=Desk(lambda: client, LEDGER), queries=queries, intake=intake,
            versions=versions, verified=lambda _: None,
        )  # fmt: skip
        api = build_api(
            balances=balances, registry=None, live={}, ready={}, others=[query_router(queries), ui_router(parts)]
        )
        door = Door(lambda: self.keyring, "local", loopback=True)
        door.sessions = self.sessions

        async def guarded(scope: Any, receive: Any, send: Any) -> None:
            refused = door.admit(scope) if scope["type"] == "http" else None
            await (refused or api)(scope, receive, send)

        self.client = TestClient(guarded, base_url="http://localhost", follow_redirects=False)

    def get(self, path: str, status: int = 200, **headers: str) -> str:
        answer = self.client.get(f"/ui{path}", headers=headers)
        assert answer.status_code == status, answer.text[:2_000]
        return answer.text

    def sign_in(self, token: str) -> None:
        self.client.cookies.clear()
        answer = self.client.post("/ui/sign-in", data={"key": token, "next": "/ui/orgs/acme/"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/ui/orgs/acme/")

    def post(self, path: str, status: int, form: dict[str, Any], **headers: str) -> str:
        answer = self.client.post(f"/ui{path}", data=form, headers=headers)
        assert answer.status_code == status, answer.text[:2_000]
        return answer.text


@pytest.fixture
def told(database: Client) -> Client:
    """The story is read only, so that one database does for all tests."""
    return database


@pytest.fixture(scope="module")
def database(engine: Engine) -> Iterator[Client]:
    """A client of a database with a story in it."""
    client = connect(test_settings(engine.data_dir, namespace="pages."))
    migrate(client)
    sink = Sink(client, TOPICS, BundledSchemas())
    sink.apply([inbound(STORY, 0)])
    balances = [balance("acme", 17, 60), balance("bolt", 1, 3)]
    sink.apply([inbound(balances, 0, topic=TOPICS.name("balances"), record="balance")])
    alerts = [alert(7), alert(9, org="bolt", message="<script>alert(1)</script>")]
    sink.apply([inbound(alerts, 0, topic=TOPICS.name("alerts_threshold"), record="alert")])
    yield client
    client.close()


@pytest.fixture
def pages(told: Client) -> Guarded:
    """Nobody is asked for a key."""
    return Guarded(told, [])


@pytest.fixture
def guarded(told: Client) -> Guarded:
    """A key is asked for."""
    return Guarded(told, [each for _, each in (ADMIN, ANALYST, OWN, PRODUCER, OLD)])


PATHS = (
    "/", "/?q=acm", "/?status=limit_reached", "/orgs/acme/", "/orgs/acme/ledger", "/orgs/acme/ledger?kind=all",
    "/orgs/acme/ledger?kind=rejected", "/orgs/acme/ledger/7", "/orgs/acme/ledger/6", "/orgs/acme/ledger/17",
    "/orgs/acme/usage?from=2026-05-01&to=2026-05-31", "/orgs/acme/usage?by=user_id&metric=requests",
    "/orgs/acme/usage?from=2026-05-29&to=2026-05-29&grain=hour&filter=model:gpt-4o&by=", "/orgs/acme/days/2026-05-29",
    "/orgs/acme/payments", "/orgs/acme/alerts", "/orgs/acme/activity", "/orgs/acme/activity?refused=yes",
    "/orgs/acme/settings", "/orgs/acme/settings/wallet", "/orgs/acme/settings/wallet?subject=USD",
    "/orgs/acme/settings/thresholds", "/orgs/acme/settings/budget", "/orgs/acme/settings/price_override",
    "/orgs/acme/settings/org", "/orgs/acme/settings/model_access", "/orgs/acme/settings/auto_topup",
    "/orgs/acme/settings/month_limits", "/orgs/acme/settings/member", "/orgs/acme/buy", "/orgs/acme/transfer",
    "/alerts", "/prices", "/prices?q=nosuch", "/dead-letters", "/dead-letters?state=open", "/sql", "/status",
    "/sql?q=SELECT+1", "/status/line", "/sign-in",
)  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_every_page_is_html_with_a_strict_policy(pages: Guarded, path: str) -> None:
    answer = pages.client.get(f"/ui{path}")
    assert answer.status_code == 200, answer.text[:2_000]
    assert answer.headers["content-type"] == HTML
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<script(?![^>]* src=)|<style|\son[a-z]+=|\sstyle=|javascript:", answer.text)
    for address in re.findall(r'(?:src|href|action)="([^"]*)"', answer.text):
        assert address.startswith(("/ui", "#", "data:,")), address
    if "<html" in answer.text:
        ids = re.findall(r'\sid="([^"]+)"', answer.text)
        assert len(ids) == len(set(ids))
        for form in re.findall(r'<form method="post".*?</form>', answer.text, re.DOTALL):
            assert 'name="form_token"' in form


def test_a_first_page_is_small(pages: Guarded) -> None:
    text = pages.get("/orgs/acme/usage?from=2026-05-01&to=2026-05-31")
    files = set(re.findall(r'(?:src|href)="(/ui/static/[^"]+)"', text))
    assert any("uPlot" in name for name in files)
    answers = [pages.client.get(name) for name in files]
    assert {each.status_code for each in answers} == {200}
    assert all("immutable" in each.headers["cache-control"] for each in answers)
    assert len(text.encode()) + sum(len(each.content) for each in answers) < FIRST_PAGE_BYTES_MAX
    assert pages.client.get("/ui/static/../shell.py").status_code == 404
    assert pages.client.get("/ui/static/%2e%2e/shell.py").status_code == 404
    assert {path.name for path in (STATIC / "vendor").iterdir()} >= {"htmx.LICENSE", "uplot.LICENSE"}


def test_numbers_are_the_ledgers(pages: Guarded) -> None:
    overview = pages.get("/orgs/acme/")
    assert 'title="60.000000000 USD">60.00' in overview
    assert "limit reached" in overview
    assert "Asia/Kolkata" in overview
    entry = pages.get("/orgs/acme/ledger/7")
    assert "−1.000000000 USD" in entry
    assert "purchase/p1" in entry
    assert '<a href="/ui/orgs/acme/ledger/6">6</a>, purchase' in entry or "–" in entry
    usage = pages.get("/orgs/acme/usage?from=2026-05-01&to=2026-05-31")
    assert 'title="10.000000000 USD">10.00' in usage
    rows = list(csv.DictReader(io.StringIO(pages.get("/orgs/acme/usage?from=2026-05-01&to=2026-05-31&format=csv"))))
    assert sum(Decimal(row["net_cost"]) for row in rows) == 10
    ledger = list(csv.DictReader(io.StringIO(pages.get("/orgs/acme/ledger?kind=all&format=csv"))))
    assert [int(row["seq"]) for row in ledger] == list(range(17, 0, -1))
    assert sum(Decimal(row["amount"]) for row in ledger) == 60


def test_lists_go_on(pages: Guarded) -> None:
    assert "/ui/orgs/acme/ledger/8" not in pages.get("/orgs/acme/ledger?before=8")
    assert "/ui/orgs/acme/ledger/7" in pages.get("/orgs/acme/ledger?before=8")


def test_what_comes_from_outside_is_escaped(pages: Guarded) -> None:
    text = pages.get("/alerts")
    assert "&lt;script&gt;alert(1)" in text
    assert "<script>alert" not in text
    text = pages.get("/?q=%22%3E%3Cscript%3Ealert(1)%3C/script%3E")
    assert "<script>alert" not in text


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/orgs/nosuch/", 404, "has no entry"),
        ("/orgs/nosuch/usage", 404, "is projected"),
        ("/orgs/acme/ledger/99", 404, "not projected yet"),
        ("/orgs/acme/days/2026-13-01", 404, "is no day"),
        ("/orgs/acme/settings/nosuch", 404, "kinds are"),
        ("/orgs/acme/usage?metric=nosuch", 422, "metric"),
        ("/orgs/acme/usage?from=2026-05-02&to=2026-05-01", 422, "must not be after"),
        ("/orgs/acme/usage?from=1900-01-01", 422, "a day such as"),
        ("/orgs/acme/usage?from=2001-01-01&grain=hour", 422, "shorter range"),
        ("/orgs/acme/usage?filter=nosuch:1", 422, "dimension:value"),
        ("/sql?q=SELECT+*+FROM+system.one", 422, "data dictionary"),
        ("/nosuch", 404, "no page"),
        ("/orgs/acme/invoices/7.pdf", 404, "no invoice 7"),
    ],
)
def test_what_cannot_be_answered_is_a_page(pages: Guarded, path: str, status: int, said: str) -> None:
    text = pages.get(path, status)
    assert said in text.lower()
    assert "<main" in text


def test_a_key_signs_in_and_out(guarded: Guarded) -> None:
    answer = guarded.client.get("/ui/orgs/acme/?x=1")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/ui/sign-in?next=%2Fui%2Forgs%2Facme%2F%3Fx%3D1"
    assert "Sign in" in guarded.get("/sign-in")
    guarded.sign_in(ADMIN[0])
    cookie = guarded.client.post("/ui/sign-in", data={"key": ADMIN[0]}).headers["set-cookie"]
    for part in ("HttpOnly", "SameSite=strict", "Path=/ui", f"Max-Age={SESSION_S}"):
        assert part in cookie
    assert ADMIN[0] not in cookie
    token = re.search(r'name="form_token" value="([0-9a-f]+)"', guarded.get("/orgs/acme/"))
    assert token is not None
    guarded.post("/sign-out", 403, {"form_token": "0" * 64})
    guarded.post("/sign-out", 303, {"form_token": token[1]})
    assert guarded.client.get("/ui/").status_code == 303


@pytest.mark.parametrize("token", [OLD[0], "credits_x", "", ADMIN[0][:-1], "é" * 50])
def test_what_is_no_key_does_not_sign_in(guarded: Guarded, token: str) -> None:
    text = guarded.post("/sign-in", 401, {"key": token})
    assert 'role="alert"' in text
    assert COOKIE not in guarded.client.cookies
    assert not token or token not in text


@pytest.mark.parametrize(
    "place", ["https://elsewhere.example/", "//elsewhere.example", "/ui//x", "/v1/x", "/ui/\\x", "x"]
)
def test_signing_in_leads_to_pages_only(guarded: Guarded, place: str) -> None:
    answer = guarded.client.post("/ui/sign-in", data={"key": ADMIN[0], "next": place})
    assert answer.headers["location"] == "/ui/"


def test_a_session_ends_with_its_key_and_its_time(guarded: Guarded) -> None:
    key_id = ADMIN[1].key_id
    assert guarded.sessions.key_id(guarded.sessions.begin(key_id, 1_000), 1_000 + SESSION_S - 1) == key_id
    assert guarded.sessions.key_id(guarded.sessions.begin(key_id, 1_000), 1_000 + SESSION_S) is None
    assert Sessions(b"another").key_id(guarded.sessions.begin(key_id, 1_000), 1_000) is None
    for torn in ("", "x", f"{key_id}.9999999999.x.y", "é", "." * 300):
        assert guarded.sessions.key_id(torn, 1_000) is None
    guarded.sign_in(ADMIN[0])
    guarded.keyring.fold(ADMIN[1].revoked(1).encode())
    assert guarded.client.get("/ui/").status_code == 303


def test_a_cookie_is_no_key_for_the_api(guarded: Guarded) -> None:
    guarded.sign_in(ADMIN[0])
    assert guarded.client.post("/v1/query", json={"query": "SELECT 1"}).status_code == 401
    headers = {"Authorization": f"Bearer {ANALYST[0]}"}
    answer = guarded.client.post("/v1/query", json={"query": "SELECT 1 AS one"}, headers=headers)
    assert answer.json()["rows"] == [[1]]
    assert answer.json()["columns"] == [{"name": "one", "type": "UInt8"}]
    for accept, begins in (("text/csv", b"one\r\n1"), ("application/vnd.apache.parquet", b"PAR1")):
        answer = guarded.client.post(
            "/v1/query", json={"query": "SELECT 1 AS one"}, headers={**headers, "Accept": accept}
        )
        assert answer.content.startswith(begins)
    answer = guarded.client.post("/v1/query", json={"query": "SELECT * FROM system.one"}, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "query_refused")
    own = {"Authorization": f"Bearer {OWN[0]}"}
    assert guarded.client.post("/v1/query", json={"query": "SELECT 1"}, headers=own).status_code == 403


def test_rights_are_those_of_the_key(guarded: Guarded) -> None:
    guarded.sign_in(OWN[0])
    assert "bolt" not in guarded.get("/")
    assert "bolt" not in guarded.get("/alerts")
    for path in (
        "/orgs/bolt/",
        "/orgs/bolt/ledger",
        "/orgs/bolt/usage",
        "/orgs/bolt/settings",
        "/orgs/bolt/buy",
        "/sql",
    ):
        assert "<main" in guarded.get(path, 403)
    guarded.sign_in(PRODUCER[0])
    guarded.get("/orgs/acme/", 403)


def token_of(pages: Guarded, path: str) -> dict[str, str]:
    """The hidden fields of a page's own form."""
    text = pages.get(path)
    return dict(re.findall(r'name="(form_token|record_id|tag)" value="([^"]*)"', text))


def test_who_may_not_change_sees_it_disabled_and_is_refused(guarded: Guarded) -> None:
    guarded.sign_in(OWN[0])
    for path in ("/orgs/acme/settings/wallet", "/orgs/acme/buy", "/orgs/acme/transfer"):
        text = guarded.get(path)
        assert NOT_AUTHORIZED in text
        assert not re.search(r"<(?:input|select|textarea)(?![^>]*(?:hidden|disabled))[^>]*id=\"f-", text)
        assert re.search(r"<button disabled", text)
    form = token_of(guarded, "/orgs/acme/settings/wallet")
    guarded.post("/orgs/acme/settings/wallet", 403, {**form, "unit": "USD"})
    [(kind, record)] = guarded.sent.records
    assert (kind, record.actor_role) == (InputKind.SETTING, "member"), "the try is for the activity log"
    guarded.post("/orgs/acme/buy", 403, {**token_of(guarded, "/orgs/acme/buy"), "wallet": "USD", "amount": "5"})
    guarded.post("/orgs/acme/transfer", 403, {**form, "wallet": "USD", "amount": "5", "target_org_id": "bolt"})
    assert len(guarded.sent.records) == 1


def test_forms_of_other_sites_do_not_count(pages: Guarded) -> None:
    form = {**token_of(pages, "/orgs/acme/buy"), "wallet": "USD", "amount": "5"}
    pages.post("/orgs/acme/buy", 403, {**form, "form_token": "0" * 64})
    pages.post("/orgs/acme/buy", 403, form, origin="https://elsewhere.example")
    pages.post("/orgs/acme/buy", 403, form, **{"sec-fetch-site": "cross-site"})
    pages.post("/orgs/acme/settings/org", 403, {"time_zone": "UTC"})
    pages.post("/theme", 403, {"theme": "dark"})
    pages.post("/dead-letters/0:1/replay", 403, {"a": "b"})
    pages.post("/status/verify", 403, {"a": "b"})
    answer = pages.client.post("/ui/orgs/acme/buy", json=form)
    assert answer.status_code == 415
    assert not pages.sent.records


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """No ledger answers here."""
    monkeypatch.setattr("streams.ui.changes.ENTRY_WAIT_S", 0.0)


def test_a_form_becomes_the_record(pages: Guarded) -> None:
    form = token_of(pages, "/orgs/acme/settings/thresholds")
    rows = {"rules.0.rule_id": "r1", "rules.0.type": "used_percent", "rules.0.level": "50", "rules.1.rule_id": " "}
    many = {**form, "unit": "USD", **rows, "rules.0.channels": ["banner", "email"], "rules.0.dismissable": "yes"}
    text = pages.post("/orgs/acme/settings/thresholds", 200, many)
    assert "has not shown an entry" in text
    [(kind, record)] = pages.sent.records
    assert (kind, record.setting_id, record.actor) == (InputKind.SETTING, form["record_id"], "anybody")
    assert record.body == (
        '{"unit":"USD","rules":[{"rule_id":"r1","type":"used_percent","level":"50",'
        '"channels":["banner","email"],"dismissable":true}]}'
    )
    form = token_of(pages, "/orgs/acme/transfer")
    pages.post(
        "/orgs/acme/transfer", 200, {**form, "target_org_id": "bolt", "wallet": "USD", "amount": "5", "actor": "ann"}
    )
    kind, record = pages.sent.records[-1]
    assert (kind, record.transfer_id, record.amount_nanos) == (InputKind.TRANSFER, form["record_id"], 5 * 10**9)


@pytest.mark.parametrize(
    ("path", "fields", "name", "said"),
    [
        ("/settings/wallet", {"unit": "USD", "allowance": "twelve"}, "allowance", "not an amount"),
        ("/settings/wallet", {"unit": "USD", "allowance": "-1"}, "allowance", "below 0"),
        ("/settings/wallet", {"unit": ""}, "unit", "required"),
        ("/settings/org", {"time_zone": "Mars/Olympus"}, "time_zone", "not a time zone"),
        ("/settings/budget", {"budget_id": "b", "unit": "USD", "window": "year", "limit": "5"}, "window", ""),
        ("/settings/auto_topup", {"unit": "USD", "backoff_seconds": "0"}, "backoff_seconds", ""),
        ("/buy", {"wallet": "USD", "amount": "many"}, "amount", "not an amount"),
        ("/transfer", {"wallet": "USD", "amount": "5", "target_org_id": ""}, "target_org_id", ""),
    ],
)
def test_a_refusal_is_beside_its_field(pages: Guarded, path: str, fields: dict[str, str], name: str, said: str) -> None:
    form = {**token_of(pages, f"/orgs/acme{path}"), **fields}
    text = pages.post(f"/orgs/acme{path}", 422, form)
    field = re.search(rf'<(?:input|select)[^>]*name="{name}"[^>]*>', text)
    assert field is not None
    assert 'aria-invalid="true"' in field[0]
    notes = re.search(rf'id="f-{name}-means"><p class="fault">✕ ([^<]+)</p>', text)
    assert notes is not None
    assert said in notes[1]
    for value in fields.values():
        assert not value or value in text, "what was entered is still there"
    assert not pages.sent.records


def test_the_choice_of_colours(pages: Guarded) -> None:
    assert "data-theme" not in pages.get("/")
    form = {**token_of(pages, "/"), "theme": "dark", "next": "/ui/prices?q=gpt"}
    answer = pages.client.post("/ui/theme", data=form)
    assert answer.headers["location"] == "/ui/prices?q=gpt"
    assert '<html lang="en" data-theme="dark">' in pages.get("/")


def test_the_secret_of_sessions_is_shared_where_the_installation_has_one() -> None:
    one, other = (session_secret(Settings(internal_key="s3cret,none").internal_key) for _ in range(2))
    assert one == other
    assert session_secret(Settings(internal_key="none").internal_key) != session_secret(None)


def test_the_status_line_is_green_only_when_it_was_checked() -> None:
    from datetime import UTC, datetime

    now = datetime(2026, 5, 1, tzinfo=UTC)

    def colours(look: Look, verified: Verified | None = None) -> list[str]:
        return [each["colour"] for each in lines_of(look, verified, 100.0, now)]

    assert colours(Look()) == ["soft"] * 4
    good = Look(90.0, 0, 0, 1, 0)
    assert colours(good, Verified(now, True, 5, 0)) == ["good"] * 4
    assert colours(Look(60.0, 0, 0, 1, 0)) == ["soft"] * 4, "too long ago"
    assert colours(Look(90.0, None, 20_000, 1, 3), Verified(now, False, 5, 2)) == ["soft", "warn", "warn", "bad"]


def test_every_health_has_words_and_red_says_why() -> None:
    assert set(HEALTH) == set(Health)
    wallet = {"health": "red", "available": "13.3", "allocation": "20"}
    assert health_of(wallet)[2] == "month limit reached"
    assert health_of(wallet | {"available": "4.9"})[2] == "less than 25 % left"
    assert health_of(wallet | {"available": "-1", "allocation": "0"})[2] == "less than 25 % left"
    assert health_of(wallet | {"health": "orange"})[2] == "above the alert threshold"
