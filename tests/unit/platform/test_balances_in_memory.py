"""Balances from memory: what was read last, with a wait for an entry by its number, and no outdated answer."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from schemas.codec import encode_one
from schemas.records import BundledSchemas, bundled_id
from streams.api.balance_routes import balance_router
from streams.api.problems import install_problems
from streams.errors import KafkaUnavailableError
from streams.kafka.balances import BalanceReader
from streams.kafka.current import CURRENT_WITHIN_S, NotYetError
from streams.settings import Settings
from tests.unit.platform.test_balance_shown import balance


class Message:
    """A record of the topic."""

    def __init__(self, org: str, seq: int) -> None:
        self._org = org
        self._value = encode_one("balance", {**balance(USD=0), "org_id": org, "seq": seq}, bundled_id("balance"))

    def key(self) -> bytes:
        return self._org.encode()

    def value(self) -> bytes:
        return self._value


@pytest.fixture
def reader() -> BalanceReader:
    """Knows entry 7 of acme, and is current."""
    made = BalanceReader(Settings(_env_file=None), BundledSchemas())
    made._keep(Message("acme", 7))
    made._current_at = time.monotonic()
    return made


def seq_of(reader: BalanceReader, org: str, min_seq: int = 0, **more: Any) -> int | None:
    found = asyncio.run(reader.latest(org, min_seq, **more))
    return None if found is None else int(found["seq"])


def test_the_answer_is_what_was_read_last(reader: BalanceReader) -> None:
    assert seq_of(reader, "acme") == 7
    assert seq_of(reader, "acme", 7) == 7
    assert seq_of(reader, "nobody") is None
    reader._keep(Message("acme", 8))
    assert seq_of(reader, "acme") == 8


def test_it_waits_for_an_entry_and_no_longer(reader: BalanceReader) -> None:
    """Many wait for different entries of one organisation; each is answered when its entry is there."""

    async def ask() -> list[Any]:
        waiting = [asyncio.create_task(reader.latest("acme", wanted, 10)) for wanted in (8, 9, 9, 8)]
        new = asyncio.create_task(reader.latest("new", 1, 10))
        while len(reader._waiting.get(b"acme", ())) < 4 or b"new" not in reader._waiting:
            await asyncio.sleep(0)
        for org, seq in (("other", 1), ("acme", 8), ("new", 1), ("acme", 9)):
            thread = threading.Thread(target=reader._keep, args=(Message(org, seq),))
            thread.start()
            await asyncio.to_thread(thread.join)
        return [found["seq"] for found in await asyncio.gather(*waiting, new) if found is not None]

    found = asyncio.run(ask())
    assert [have >= wanted for have, wanted in zip(found, (8, 9, 9, 8, 1), strict=True)] == [True] * 5
    assert reader._waiting == {}
    with pytest.raises(NotYetError, match="entry 10 of 'acme'"):
        seq_of(reader, "acme", 10, timeout_s=0.01)
    assert reader._waiting == {}


def test_an_outdated_balance_is_no_answer(reader: BalanceReader) -> None:
    reader._current_at = time.monotonic() - CURRENT_WITHIN_S - 1
    with pytest.raises(KafkaUnavailableError):
        seq_of(reader, "acme")


def test_over_http_the_version_is_the_etag(reader: BalanceReader) -> None:
    api = FastAPI()
    install_problems(api)
    api.include_router(balance_router(reader))
    client = TestClient(api)
    answer = client.get("/v1/orgs/acme/balance")
    assert (answer.json()["seq"], answer.headers["etag"]) == (7, '"7"')
    assert client.get("/v1/orgs/acme/balance", headers={"If-None-Match": '"7"'}).status_code == 304
    assert client.get("/v1/orgs/acme/balance", headers={"If-None-Match": '"6"'}).status_code == 200
    assert client.get("/v1/orgs/acme/balance?min_seq=7").status_code == 200
    late = client.get("/v1/orgs/acme/balance?min_seq=8")
    assert (late.status_code, late.json()["code"], late.headers["retry-after"]) == (503, "not_yet", "1")
    for wrong in ("-1", "x", str(2**63)):
        assert client.get(f"/v1/orgs/acme/balance?min_seq={wrong}").status_code == 422
    assert client.get("/v1/orgs/nobody/balance").json()["code"] == "unknown_org"
