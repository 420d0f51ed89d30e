"""API keys in their topic: every process knows them within a second, revocations too; no secret is written down."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import Producer

from schemas.topics import Topics
from streams.client import committed_ends, read_range
from streams.kafka import topics_admin
from streams.kafka.api_keys import ApiKey, KeyRefusal, KeyRole
from streams.kafka.clients import producer_config
from streams.kafka.key_topic import KeyReader, KeyTerms, create_key, first_admin_key, read_keys, write_keys
from streams.settings import Settings

SOON_S = 1.0
Credits = Callable[..., subprocess.CompletedProcess[str]]


def now() -> int:
    return time.time_ns() // 1_000


def within(seconds: float, true: Callable[[], bool]) -> None:
    """Wait until it is true; fails when it is not in time."""
    begun = time.monotonic()
    while not true():
        assert time.monotonic() - begun < seconds
        time.sleep(0.005)


@pytest.fixture
def credits(settings: Settings) -> Credits:
    """Runs `credits` on the installation of the test."""
    topics_admin.apply(settings)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CREDITS_")} | {
            "CREDITS_KAFKA_BOOTSTRAP_SERVERS": settings.bootstrap_servers,
            "CREDITS_NAMESPACE": settings.namespace,
            "CREDITS_PARTITIONS": str(settings.partitions),
            "CREDITS_DATA_DIR": str(settings.data_dir),
        }
        command = [sys.executable, "-m", "streams", "keys", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    return run


def test_every_process_knows_a_key_and_its_end_within_a_second(settings: Settings) -> None:
    """Two processes' readers; a key is made, rotated and revoked while they run."""
    topics_admin.apply(settings)
    readers = [KeyReader(settings), KeyReader(settings)]
    try:
        for each in readers:
            each.start()
            each.wait_until_current()
            assert len(each.keyring) == 0
        old_token, old = create_key(settings, KeyTerms("x", (KeyRole.PRODUCER,), ("acme",)), now())
        within(SOON_S, lambda: all(each.keyring.find(old_token, now()) == old for each in readers))
        token, key = create_key(settings, KeyTerms("x", old.roles, old.organisations), now())
        within(SOON_S, lambda: all(each.keyring.find(token, now()) == key for each in readers))
        assert all(each.keyring.find(old_token, now()) == old for each in readers)
        write_keys(settings, [old.revoked(now())])
        revoked = KeyRefusal.REVOKED
        within(SOON_S, lambda: all(each.keyring.find(old_token, now()) is revoked for each in readers))
        assert all(each.keyring.find(token, now()) == key for each in readers)
    finally:
        for each in readers:
            each.close()


def test_a_record_that_is_no_key_takes_none_away(settings: Settings) -> None:
    topics_admin.apply(settings)
    token, key = create_key(settings, KeyTerms("x", (KeyRole.ADMIN,)), now())
    producer = Producer(producer_config(settings))
    for value in (b"", b"{", None):
        producer.produce(Topics(settings.namespace).name("api_keys"), key=key.key_id.encode(), value=value)
    assert producer.flush(10) == 0
    assert read_keys(settings).find(token, now()) == key


def test_a_file_adds_keys_and_the_topic_can_revoke_them(settings: Settings, tmp_path: Any) -> None:
    topics_admin.apply(settings)
    token, key = create_key(settings.model_copy(), KeyTerms("file", (KeyRole.ANALYST,)), now())
    other = settings.model_copy(update={"namespace": f"{settings.namespace}other."})
    topics_admin.apply(other)
    file = tmp_path / "keys.jsonl"
    file.write_bytes(key.encode())
    reader = KeyReader(other.model_copy(update={"api_keys_file": file}))
    reader.start()
    try:
        reader.wait_until_current()
        assert reader.keyring.find(token, now()) == key
        file.write_bytes(b"{}")
        file.write_bytes(b"")
        within(3, lambda: reader.keyring.find(token, now()) is KeyRefusal.UNKNOWN)
        file.write_bytes(key.encode() + b"\n")
        within(3, lambda: reader.keyring.find(token, now()) == key)
        write_keys(other, [key.revoked(now())])
        within(3, lambda: reader.keyring.find(token, now()) is KeyRefusal.REVOKED)
    finally:
        reader.close()


def test_the_first_key_is_made_once(settings: Settings) -> None:
    topics_admin.apply(settings)
    token = first_admin_key(settings)
    assert token is not None
    found = read_keys(settings).find(token, now())
    assert isinstance(found, ApiKey)
    assert (found.roles, found.organisations) == ((KeyRole.ADMIN,), ("*",))
    assert first_admin_key(settings) is None
    write_keys(settings, [found.revoked(now())])
    assert first_admin_key(settings) is None


def test_the_command_creates_lists_rotates_and_revokes(credits: Credits, settings: Settings) -> None:
    made = credits("create", "--role", "producer", "--org", "acme", "--expires", "90d", "--name", "checkout")
    assert made.returncode == 0, made.stderr
    token = made.stdout.strip()
    key_id = token.split("_")[1]
    assert token not in made.stderr
    again = json.loads(credits("create", "--like", key_id, "--json").stdout)
    listed = json.loads(credits("list", "--json").stdout)["keys"]
    assert [each["key_id"] for each in listed] == [key_id, again["key_id"]]
    assert [each["state"] for each in listed] == ["active", "active"]
    assert {name: listed[0][name] for name in ("roles", "organisations", "name")} == {
        name: listed[1][name] for name in ("roles", "organisations", "name")
    }
    assert credits("revoke", key_id).returncode == 0
    ring = read_keys(settings)
    assert ring.find(token, now()) is KeyRefusal.REVOKED
    assert isinstance(ring.find(again["key"], now()), ApiKey)
    assert key_id in credits("list").stdout
    for wrong, says in [
        (("create", "--role", "admin"), "give --org ORG"),
        (("create", "--every-org"), "a key needs a role"),
        (("revoke", "nobody"), "there is no key nobody"),
    ]:
        refused = credits(*wrong)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert says in refused.stderr
    assert "none was made" in credits("create", "--if-none", "--role", "admin", "--every-org").stderr
    topic = Topics(settings.namespace).name("api_keys")
    stored = b"".join(
        message.value() for batch in read_range(settings, {}, committed_ends(settings, [topic])) for message in batch
    )
    for secret in (token, again["key"]):
        assert secret.split("_", 2)[2].encode() not in stored
