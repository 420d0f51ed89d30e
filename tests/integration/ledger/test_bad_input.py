"""Bad input on the real broker (faults 1, 2, 3, 5, 14, 15): told apart, nothing lost, the neighbours booked."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from schemas.amounts import AMOUNT_MAX, NANOS
from schemas.codec import encode_one
from schemas.enums import DeadLetterCode, InputKind
from schemas.records import avro_schema
from streams.registry_topic import TopicRegistry
from tests.integration.engine.workers import REPOSITORY
from tests.integration.ledger.events import PRICE_LIST, now_us, purchase, usage
from tests.integration.ledger.installation import LedgerInstallation, schema_id

HOUR_US = 3_600_000_000


def encoded(fields: dict[str, Any]) -> bytes:
    return encode_one("usage", fields, schema_id(InputKind.USAGE))


def test_every_kind_of_bad_usage_is_a_dead_letter_with_its_bytes(installation: LedgerInstallation) -> None:
    good = encoded(usage("good", "acme", model="m1", input_tokens=1_000_000))
    bad: list[tuple[bytes | None, bytes | None, DeadLetterCode]] = [
        (b"acme", b"\x07\xff\x00random", DeadLetterCode.UNDECODABLE),
        (b"acme", good[:-3], DeadLetterCode.UNDECODABLE),
        (b"acme", good + b"left over", DeadLetterCode.UNDECODABLE),
        (b"acme", b"\x01" + good[1:], DeadLetterCode.UNDECODABLE),
        (b"acme", b"\0\0\0\x30\x39" + good[5:], DeadLetterCode.UNKNOWN_SCHEMA),
        (b"acme", None, DeadLetterCode.NULL_VALUE),
        (None, good, DeadLetterCode.KEY_MISMATCH),
        (b"other", good, DeadLetterCode.KEY_MISMATCH),
        (b"acme", encoded(usage("x1", "acme", model="m1", input_tokens=-5)), DeadLetterCode.INVALID_FIELD),
        (b"acme", encoded(usage("x2", "acme", cost_nanos=AMOUNT_MAX + 1)), DeadLetterCode.AMOUNT_OUT_OF_RANGE),
        (b"acme", encoded(usage("x3", "acme", model="unheard-of")), DeadLetterCode.UNKNOWN_PRICE),
        (b"acme", encoded({**usage("x4", "acme"), "occurred_at": now_us() - 73 * HOUR_US}), DeadLetterCode.TOO_OLD),
        (
            b"acme",
            encoded({**usage("x5", "acme"), "occurred_at": now_us() + 8_760 * HOUR_US}),
            DeadLetterCode.TOO_FAR_IN_FUTURE,
        ),
    ]
    installation.send(InputKind.PRICE, PRICE_LIST)
    installation.send(InputKind.PURCHASE, [purchase("p1", "acme", 100 * NANOS)])
    neighbours = [usage(f"n{place}", "acme", model="m1", input_tokens=1_000) for place in range(len(bad) + 1)]
    for (key, value, _), neighbour in zip(bad, neighbours, strict=False):
        installation.send(InputKind.USAGE, [neighbour])
        installation.send_bytes("usage", key, value)
    installation.send(InputKind.USAGE, neighbours[-1:])
    late = {**usage("late", "acme", model="m1", input_tokens=1_000), "occurred_at": now_us() - HOUR_US}
    installation.send(InputKind.USAGE, [late])
    installation.ready_worker()
    installation.wait_until_booked()

    letters = installation.dead_letters()
    expected = Counter((code.value, key, value) for key, value, code in bad)
    assert Counter((letter.code, letter.key, letter.value) for letter in letters) == expected
    assert all(letter.message for letter in letters)
    booked = {row["event_id"] for row in installation.rows("ledger")}
    assert booked == {"p1", "late", *(neighbour["event_id"] for neighbour in neighbours)}
    assert installation.report().ok


def test_one_id_has_one_effect_whoever_sends_it_and_when(installation: LedgerInstallation) -> None:
    installation.send(InputKind.PRICE, PRICE_LIST)
    installation.send(InputKind.PURCHASE, [purchase("p1", "acme", 100 * NANOS)])
    once = usage("e1", "acme", model="m1", input_tokens=1_000_000)
    elsewhere = {**once, "org_id": "bolt"}
    changed = {**once, "input_tokens": 2}
    worker = installation.ready_worker()
    installation.send(InputKind.USAGE, [once, once, elsewhere, changed])
    installation.wait_until_booked()
    worker.kill()
    installation.ready_worker()  # the memory of ids comes back with the state
    installation.send(InputKind.USAGE, [once, changed])
    installation.wait_until_booked()
    rows = [(row["org_id"], row["event_id"]) for row in installation.rows("ledger") if row["kind"] == "usage"]
    assert sorted(rows) == [("acme", "e1"), ("bolt", "e1")]
    assert installation.codes() == {DeadLetterCode.DUPLICATE_WITH_DIFFERENT_CONTENT: 2}
    assert installation.report().duplicates == 2
    assert installation.report().ok


def test_a_newer_compatible_writer_is_applied(installation: LedgerInstallation) -> None:
    newer = avro_schema("usage")
    newer["fields"] = [*newer["fields"], {"name": "datacentre", "type": ["null", "string"], "default": None}]
    registry = TopicRegistry(installation.settings)
    newer_id = registry.register(installation.topics.subject("usage"), json.dumps(newer)).schema_id
    value = encoded(usage("e1", "acme", model="m1", input_tokens=1_000_000))
    installation.send(InputKind.PRICE, PRICE_LIST)
    installation.send_bytes("usage", b"acme", b"\0" + newer_id.to_bytes(4, "big") + value[5:] + b"\x02\x04eu")
    installation.ready_worker()
    installation.wait_until_booked()
    assert [row["event_id"] for row in installation.rows("ledger")] == ["e1"]
    assert not installation.dead_letters()


AMOUNTS = ['"-0.5"', '"0"', '"NaN"', '"1e400"', '"10000000000"', "0.1", '"1e3"', "true", '"1.0000000001"']


@pytest.mark.parametrize("amount", AMOUNTS)
def test_a_wrong_amount_is_refused_by_the_client_and_nothing_is_sent(
    installation: LedgerInstallation, tmp_path: Path, amount: str
) -> None:
    good = {"purchase_id": "p1", "org_id": "acme", "occurred_at": now_us(), "wallet": "USD", "amount": "5"}
    bad = json.dumps({**good, "purchase_id": "p2"}).replace('"5"', amount)
    lines = tmp_path / "purchases.jsonl"
    lines.write_text(f"{json.dumps(good)}\n{bad}\n")
    environment = {
        "PATH": "/usr/bin:/bin",
        "CREDITS_KAFKA_BOOTSTRAP_SERVERS": installation.settings.bootstrap_servers,
        "CREDITS_NAMESPACE": installation.settings.namespace,
        "CREDITS_PARTITIONS": str(installation.settings.partitions),
    }
    done = subprocess.run(
        [sys.executable, "-m", "streams", "produce", "purchase", "--file", str(lines)],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "line 2" in done.stdout + done.stderr
    assert "amount" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    from streams.client.reader import committed_ends

    ends = committed_ends(installation.settings, [installation.topics.name("purchases")])
    assert sum(ends.values()) == 0
