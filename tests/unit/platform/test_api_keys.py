"""API keys: what is one, whose is let in, and what each role may call. The topic is tested on a broker."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, Depends
from fastapi.testclient import TestClient

from schemas.enums import InputKind
from schemas.rights import Role, roles
from schemas.topics import BY_KEY, INPUT_TOPICS
from streams.api.callers import EVERY_ROLE, WRITES, allowed
from streams.api.door import Door
from streams.api.guard import Guard
from streams.api.hosts import HostRule
from streams.api.http_parts import check_keys
from streams.api.refusals import LOG_INTERVAL_S, RefusalLog
from streams.cli.keys import end_of, organisations_of
from streams.errors import NoApiKeysError, OperatorError
from streams.kafka.api_keys import ApiKey, KeyRefusal, Keyring, KeyRole, decode_key, digest_of, key_id_of, new_token
from streams.kafka.key_topic import KeysFileError, keys_in
from streams.local.api_key import HEADER
from tests.brokers import test_settings
from tests.unit.platform.http_server import seen_api

NOW = 1_800_000_000_000_000
SECOND = 1_000_000


def made(number: int, *roles: KeyRole, organisations: tuple[str, ...] = ("*",), **more: Any) -> tuple[str, ApiKey]:
    """A token, and the key that is written down for it."""
    token = new_token(bytes([number]) * 38)
    key_id = key_id_of(token)
    assert key_id is not None
    key = ApiKey(key_id, digest_of(token), f"key {number}", roles or (KeyRole.ADMIN,), organisations, NOW, **more)
    return token, key


# What a key is


def test_a_key_holds_256_random_bits_and_only_its_hash_is_written_down() -> None:
    token, key = made(7)
    secret = token.rpartition("_")[2] if token.count("_") == 2 else token.split("_", 2)[2]
    assert len(base64.urlsafe_b64decode(secret + "=")) * 8 == 256
    assert key.sha256 == hashlib.sha256(token.encode()).hexdigest()
    assert secret.encode() not in key.encode()
    assert decode_key(key.encode()) == key


@pytest.mark.parametrize(
    ("changes", "now", "found"),
    [
        ({}, NOW, None),
        ({"expires_at": NOW + SECOND}, NOW + SECOND - 1, None),
        ({"expires_at": NOW + SECOND}, NOW + SECOND, KeyRefusal.EXPIRED),
        ({"revoked_at": NOW}, NOW, KeyRefusal.REVOKED),
        ({"revoked_at": NOW, "expires_at": NOW}, NOW + SECOND, KeyRefusal.REVOKED),
    ],
)
def test_a_key_ends(changes: dict[str, Any], now: int, found: KeyRefusal | None) -> None:
    token, key = made(1)
    key = replace(key, **changes)
    assert Keyring([key]).find(token, now) == (found or key)


def test_what_is_no_key_is_unknown() -> None:
    token, key = made(1)
    ring = Keyring([key])
    other = new_token(bytes([1]) * 6 + bytes([2]) * 32)  # the id of a key, with another secret
    assert key_id_of(other) == key.key_id
    for wrong in ("", "credits", other, token[:-1], token + "x", token.upper(), f" {token}", "\ud800", "é" * 64):
        assert ring.find(wrong, NOW) is KeyRefusal.UNKNOWN, wrong


def test_two_keys_live_at_once_and_a_revoked_one_stays_revoked() -> None:
    (old_token, old), (new_token_, new) = made(1), made(2)
    ring = Keyring()
    assert all(ring.fold(key.encode()) for key in (old, new))
    assert (ring.find(old_token, NOW), ring.find(new_token_, NOW)) == (old, new)
    assert ring.fold(old.revoked(NOW).encode())
    assert (ring.find(old_token, NOW), ring.find(new_token_, NOW)) == (KeyRefusal.REVOKED, new)
    assert ring.fold(old.encode())
    assert ring.find(old_token, NOW) is KeyRefusal.REVOKED


BROKEN: dict[str, Any] = {
    "not JSON": b"{",
    "no object": b"[]",
    "deep": b"[" * 100_000,
    "an unknown role": {"roles": ["king"]},
    "no role": {"roles": []},
    "no organisation": {"organisations": []},
    "all and one": {"organisations": ["*", "acme"]},
    "a short hash": {"sha256": "ab"},
    "an id of another form": {"key_id": "x"},
    "a time that is a text": {"expires_at": "tomorrow"},
    "a limit below 0": {"requests_per_s": -1},
    "a name that is a number": {"name": 7},
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_what_cannot_be_read_is_no_key_and_takes_none_away(broken: Any) -> None:
    token, key = made(1)
    value = broken if isinstance(broken, bytes) else json.dumps(asdict(key) | broken).encode()
    ring = Keyring([key])
    assert decode_key(value) is None
    assert not ring.fold(value)
    assert ring.find(token, NOW) == key


def test_a_file_of_keys_is_read_whole_or_not_at_all(tmp_path: Path) -> None:
    (_, one), (_, two) = made(1), made(2)
    file = tmp_path / "keys.jsonl"
    file.write_bytes(one.encode() + b"\n\n" + two.encode() + b"\n")
    assert keys_in(file) == [one, two]
    file.write_bytes(one.encode() + b"\n{}\n")
    with pytest.raises(KeysFileError, match=r"line 2 of .*keys.jsonl is no key"):
        keys_in(file)


# The door


class Place:
    """The application behind the door, with a clock that the test moves."""

    def __init__(self, keys: list[ApiKey], *, loopback: bool = True, requests_per_s: int | None = None) -> None:
        self.ring = Keyring(keys)
        self.now_s = 0.0
        door = Door(
            lambda: self.ring,
            "local-key",
            loopback=loopback,
            requests_per_s=requests_per_s,
            wall_us=lambda: NOW + int(self.now_s * SECOND),
            clock_s=lambda: self.now_s,
        )
        routes = APIRouter(prefix="/v1")

        @routes.get("/for-producers", dependencies=[Depends(allowed(frozenset({KeyRole.PRODUCER})))])
        def for_producers() -> dict[str, bool]:
            """Only some may."""
            return {"ok": True}

        api = seen_api()
        api.include_router(routes)
        self.api = api
        self.client = TestClient(Guard(api, HostRule("127.0.0.1", ["testserver"]), door, body_bytes_max=1024))

    def get(self, path: str, token: str | None = None, **headers: str) -> tuple[int, str]:
        """Status and code."""
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        answer = self.client.get(path, headers=headers)
        document = answer.json() if "json" in answer.headers["content-type"] else {}
        return answer.status_code, document.get("code", "")


BALANCE = "/v1/orgs/acme/balance"
SEEN = (404, "seen")


@pytest.fixture(scope="module")
def expired() -> tuple[str, ApiKey]:
    return made(9, expires_at=NOW)


def test_without_keys_loopback_is_open_until_the_first_one_is_made() -> None:
    place = Place([])
    assert place.get(BALANCE) == SEEN
    assert place.get(BALANCE, "whatever") == SEEN
    token, key = made(1)
    place.ring = Keyring([key])
    assert place.get(BALANCE) == (401, "unauthorized")
    assert place.get(BALANCE, token) == SEEN
    place.ring = Keyring([key.revoked(NOW)])
    assert place.get(BALANCE) == (401, "unauthorized")
    assert place.get(BALANCE, token) == (401, "key_revoked")


def test_beyond_loopback_nobody_comes_in_without_a_key() -> None:
    place = Place([], loopback=False)
    assert place.get(BALANCE) == (401, "unauthorized")


def test_a_host_beyond_loopback_needs_a_key_to_start(tmp_path: Path) -> None:
    local, network = test_settings(tmp_path), test_settings(tmp_path, http_host="0.0.0.0")
    check_keys(local, Keyring())
    with pytest.raises(NoApiKeysError, match="credits keys create"):
        check_keys(network, Keyring())
    check_keys(network, Keyring([made(1)[1].revoked(NOW)]))  # nobody comes in, but it is no open door


def test_expired_wrong_and_missing_keys_are_told_apart(expired: tuple[str, ApiKey]) -> None:
    place = Place([expired[1]], loopback=False)
    assert place.get(BALANCE, expired[0]) == (401, "key_expired")
    assert place.get(BALANCE, expired[0][:-1] + "_") == (401, "unauthorized")
    answer = place.client.get(BALANCE)
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert answer.headers["content-type"] == "application/problem+json"


def test_the_key_may_be_the_password_of_basic_as_registry_clients_send_it() -> None:
    token, key = made(1, KeyRole.ANALYST)
    place = Place([key], loopback=False)
    basic = base64.b64encode(f"anything:{token}".encode()).decode()
    assert place.get(BALANCE, **{"Authorization": f"Basic {basic}"}) == SEEN
    for broken in ("Basic", "Basic !!!", "Basic /w==", "Digest x", token):
        assert place.get(BALANCE, **{"Authorization": broken}) == (401, "unauthorized")
    refused = place.client.get("/subjects").json()
    assert (refused["error_code"], refused["message"]) == (40101, refused["detail"])


def test_commands_of_this_machine_have_the_key_of_the_data_folder() -> None:
    place = Place([made(1)[1]])
    assert place.get(BALANCE, **{HEADER: "local-key"}) == SEEN
    assert place.get(BALANCE, **{HEADER: "local-kez"}) == (401, "unauthorized")


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/openapi.json", "/docs"])
def test_what_names_no_organisation_asks_for_no_key(path: str) -> None:
    assert Place([], loopback=False).get(path)[0] == 200


def test_a_body_of_a_caller_without_a_key_is_not_read() -> None:
    place = Place([], loopback=False)
    answer = place.client.post("/body", content=b"x" * 2048)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")


def test_every_route_of_an_organisation_asks_for_its_key() -> None:
    token, key = made(1, KeyRole.ADMIN, organisations=("acme", "a/b"))
    place = Place([key])
    paths = [path for path in place.api.openapi()["paths"] if "{org}" in path]
    assert len(paths) >= 8
    for path in paths:
        named = path.replace("{number}", "1")
        for org, wanted in (("acme", SEEN), ("a%2Fb", SEEN), ("%61cme", SEEN), ("other", (403, "not_authorized"))):
            assert place.get(named.replace("{org}", org), token) == wanted, (path, org)


@pytest.mark.parametrize(
    ("role", "balance", "statement", "produces"),
    [
        (KeyRole.ADMIN, True, True, True),
        (KeyRole.ANALYST, True, True, False),
        (KeyRole.PAYMENTS, True, True, False),
        (KeyRole.GATEWAY, True, False, False),
        (KeyRole.SUBSCRIBER, True, False, False),
        (KeyRole.PRODUCER, False, False, True),
    ],
)
def test_what_each_role_may_call(role: KeyRole, balance: bool, statement: bool, produces: bool) -> None:
    token, key = made(1, role)
    place = Place([key])
    no = (403, "not_authorized")
    assert place.get(BALANCE, token) == (SEEN if balance else no)
    assert place.get("/v1/orgs/acme/statement", token) == (SEEN if statement else no)
    assert place.get("/v1/orgs/acme/invoices/7.pdf", token) == (SEEN if statement else no)
    assert place.get("/v1/for-producers", token) == ((200, "") if produces else no)


def test_a_key_with_a_limit_has_two_seconds_of_requests_at_once() -> None:
    token, key = made(1, requests_per_s=5)
    free_token, free = made(2)
    place = Place([key, free])
    assert [place.get(BALANCE, token)[0] for _ in range(12)] == [404] * 10 + [429] * 2
    answer = place.client.get(BALANCE, headers={"Authorization": f"Bearer {token}"})
    assert (answer.json()["code"], answer.headers["Retry-After"]) == ("rate_limited", "1")
    assert place.get(BALANCE, free_token) == SEEN
    place.now_s = 0.2
    assert [place.get(BALANCE, token)[0] for _ in range(2)] == [404, 429]


def test_a_key_without_a_limit_of_its_own_has_the_installations() -> None:
    token, key = made(1)
    own_token, own = made(2, requests_per_s=2)
    place = Place([key, own], requests_per_s=1)
    assert [place.get(BALANCE, token)[0] for _ in range(3)] == [404, 404, 429]
    assert [place.get(BALANCE, own_token)[0] for _ in range(5)] == [404] * 4 + [429]
    place.now_s = 1.0
    assert place.get(BALANCE, token)[0] == 404
    assert place.get(BALANCE, **{HEADER: "local-key"}) == SEEN  # commands of this machine have none


def test_a_refused_key_is_in_the_log_now_and_then() -> None:
    times = iter([0.0, 1.0, 1.0, LOG_INTERVAL_S])
    log = RefusalLog(lambda: next(times))
    assert [log._is_due("not_authorized", caller) for caller in ("a", "a", "b", "a")] == [True, False, True, True]


def test_who_writes_what_is_as_kafka_has_it() -> None:
    for kind in InputKind:
        of_kafka = {role.value for role in roles(BY_KEY[INPUT_TOPICS[kind]].written_by)} - {
            Role.SERVE.value,
            Role.API.value,
        }
        assert WRITES[kind] == of_kafka, kind
    assert frozenset(KeyRole) == EVERY_ROLE


# The command's options


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("90d", NOW + 90 * 86_400 * SECOND),
        ("12h", NOW + 43_200 * SECOND),
        ("2100-01-01T00:00:00Z", 4_102_444_800 * SECOND),
    ],
)
def test_when_a_key_expires(text: str, end: int) -> None:
    assert end_of(text, NOW) == end


@pytest.mark.parametrize("text", ["", "0d", "tomorrow", "90", "-1d", "2020-01-01T00:00:00Z", "2100-01-01"])
def test_an_end_that_is_none(text: str) -> None:
    with pytest.raises(OperatorError):
        end_of(text, NOW)


def test_what_a_key_is_for() -> None:
    assert organisations_of(["a", "b", "a"], every_org=False) == ("a", "b")
    assert organisations_of([], every_org=True) == ("*",)
    for orgs, every in ((["a"], True), (["*"], False), (["x" * 129], False), ([""], False)):
        with pytest.raises(OperatorError):
            organisations_of(orgs, every_org=every)
