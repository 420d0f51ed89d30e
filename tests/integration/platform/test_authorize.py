"""Answers before work from a process of HTTP alone, after what a real ledger has booked (product rule 17)."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from schemas.amounts import NANOS
from schemas.enums import InputKind
from streams.settings import Settings
from tests.brokers import free_port
from tests.integration.engine.workers import until
from tests.integration.ledger.events import PRICE_LIST, now_us, purchase, usage
from tests.integration.ledger.installation import LedgerInstallation
from tests.integration.platform.serving import Serve

SOON_S = 120.0
DAY_S = 86_400

SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("budget", {"budget_id": "u1", "unit": "USD", "scope": {"user_id": "u1"}, "window": "day", "limit": "5"}),
    ("member", {"user_id": "bob", "role": "none"}),
    ("model_access", {"allow": ["*"], "deny": ["secret-*"]}),
]


def setting(number: int, kind: str, body: dict[str, Any]) -> dict[str, Any]:
    actor = {"actor": "root", "actor_role": "system", "kind": kind, "body": json.dumps(body)}
    return {"setting_id": f"s{number}", "org_id": "acme", "occurred_at": now_us(), **actor}


@pytest.fixture
def sealed(settings: Settings) -> Settings:
    """The ledger's own records have checksums."""
    return settings.model_copy(update={"internal_key": SecretStr("0123456789abcdef"), "http_port": free_port()})


@pytest.fixture
def api(sealed: Settings, tmp_path: Path) -> Iterator[Serve]:
    """HTTP alone."""
    made = Serve(sealed, tmp_path / "api", "api")
    yield made
    made.process.kill()
    made.process.wait()


@pytest.fixture
def installation(sealed: Settings, tmp_path: Path) -> Iterator[LedgerInstallation]:
    """Credits, a price list and some limits, not booked yet."""
    with LedgerInstallation(sealed, tmp_path) as made:
        made.send(InputKind.PRICE, PRICE_LIST)
        made.send(InputKind.PURCHASE, [purchase("p1", "acme", 100 * NANOS)])
        made.send(InputKind.SETTING, [setting(number, *each) for number, each in enumerate(SETTINGS)])
        yield made


def ask(api: Serve, org: str = "acme", query: str = "", **check: Any) -> httpx.Response:
    return httpx.post(f"{api.address}/v1/orgs/{org}/authorize{query}", json=check, timeout=20, trust_env=False)


def last_seq(installation: LedgerInstallation, org: str = "acme") -> int:
    return max(int(row["seq"]) for row in installation.rows("ledger") if row["org_id"] == org)


def test_it_answers_as_the_ledger_decides(installation: LedgerInstallation, api: Serve) -> None:
    installation.ready_worker()
    installation.send(InputKind.USAGE, [usage("e1", "acme", wallet="USD", cost_nanos=10 * NANOS)])
    installation.wait_until_booked()
    until(lambda: api.get("/readyz")[0] == 200, SOON_S, "an api that is ready")

    seq = last_seq(installation)
    answer = ask(api, query=f"?min_seq={seq}", amount="40")
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["allowed"], told["code"], told["available"], told["grantable"]) == (True, "ok", "90", "90")
    assert (told["seq"], answer.headers["etag"], told["wallet"]) == (seq, f'"{seq}"', "USD")

    refusals: list[tuple[dict[str, Any], int, str, str | None]] = [
        ({"amount": "90.000000001"}, 402, "credits_not_available", None),
        ({"amount": "6", "user_id": "u1"}, 402, "limit_reached", "u1"),
        ({"amount": "1", "user_id": "bob"}, 403, "not_authorized", None),
        ({"amount": "1", "model": "secret-1"}, 403, "model_not_allowed", None),
    ]
    for check, status, code, limit in refusals:
        answer = ask(api, **check)
        assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json().get("limit_id") == limit
        if limit is not None:
            assert answer.json()["window"] == "day"
            assert 0 < int(answer.headers["retry-after"]) <= DAY_S
    assert ask(api, amount="5", user_id="u1").json()["grantable"] == "5"

    priced = ask(api, operation="chat", model="m1", input_tokens=2_000_000, output_tokens=500_000)
    assert (priced.status_code, priced.json()["amount"]) == (200, "8")
    assert ask(api, operation="chat", model="m1", input_tokens=90_000_000).json()["code"] == "credits_not_available"
    assert ask(api, operation="paint", model="m1").json()["code"] == "unknown_price"
    assert ask(api, org="nobody", amount="1").json()["code"] == "credits_not_available"
    assert ask(api, amount="1", colour="red").json()["code"] == "invalid_field"

    hold = {"hold_id": "h1", "org_id": "acme", "occurred_at": now_us(), "action": "place", "wallet": "USD"}
    installation.send(InputKind.HOLD, [hold | {"amount_nanos": 60 * NANOS}])
    installation.wait_until_booked()
    held = ask(api, query=f"?min_seq={last_seq(installation)}", amount="80")
    assert (held.status_code, held.json()["code"], held.json()["available"]) == (402, "credits_held", "30")

    checks = [{"org_id": "acme", "amount": amount} for amount in ("30", "31")] + [{"org_id": "nobody", "amount": "x"}]
    many = httpx.post(f"{api.address}/v1/authorize", json={"checks": checks}, timeout=20, trust_env=False)
    assert [(each["allowed"], each["code"]) for each in many.json()["results"]] == [
        (True, "ok"),
        (False, "credits_held"),
        (False, "invalid_field"),
    ]

    begun = time.monotonic()
    late = ask(api, query="?min_seq=1000", amount="1")
    assert (late.status_code, late.json()["code"]) == (503, "not_yet")
    assert time.monotonic() - begun >= 1.0
