"""Bad input on the real broker (faults 1, 2, 3, 5, 14, 15): told apart, nothing lost, the neighbours booked."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from confluent_kafka import Producer

from schemas.amounts import AMOUNT_MAX, NANOS
from schemas.codec import encode_one
from schemas.dead_letters import VALUE_KEPT_BYTES
from schemas.enums import DeadLetterCode, InputKind
from schemas.events import INPUTS
from schemas.records import avro_schema
from streams.cli import main
from streams.client.producer import CreditsProducer
from streams.kafka import topics_admin
from streams.kafka.clients import producer_config
from streams.kafka.reader import committed_ends
from streams.kafka.registry_topic import TopicRegistry
from streams.settings import Settings
from tests.brokers import free_port
from tests.integration.engine.workers import REPOSITORY, until
from tests.integration.ledger.events import PRICE_LIST, now_us, purchase, usage
from tests.integration.ledger.installation import READY, LedgerInstallation, schema_id
from tests.integration.registry_server import RegistryServer
from tests.unit.schemas.test_writer_safety import doubling, nested, record

HOUR_US = 3_600_000_000


def encoded(fields: dict[str, Any]) -> bytes:
    return encode_one("usage", fields, schema_id(InputKind.USAGE))


@pytest.mark.fault(
    "bad-record",
    title="Records that cannot be booked",
    provoked="random bytes, cut and longer values, a wrong first byte, no value, no key, another's key, a field, an "
    "amount or a time outside its limits, each between two good ones",
    holds="each is a dead letter with all its bytes and its code; the neighbours are booked",
    faults_row=1,
)
def test_every_kind_of_bad_usage_is_a_dead_letter_with_its_bytes(
    installation: LedgerInstallation, seen: Callable[[str], None]
) -> None:
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
    seen(
        f"{len(letters)} bad records, {len(letters)} dead letters with their bytes, {len(neighbours)} neighbours booked"
    )


@pytest.mark.fault(
    "same-id-again",
    title="the same event id again, with the same and with other content",
    provoked="twice in a batch, from two producers, after kill -9, with other content, in two orgs",
    holds="one effect in each organisation; other content is a dead letter",
    faults_row=14,
)
def test_one_id_has_one_effect_whoever_sends_it_and_when(
    installation: LedgerInstallation, seen: Callable[[str], None]
) -> None:
    installation.send(InputKind.PRICE, PRICE_LIST)
    installation.send(InputKind.PURCHASE, [purchase("p1", "acme", 100 * NANOS)])
    once = usage("e1", "acme", model="m1", input_tokens=1_000_000)
    elsewhere = {**once, "org_id": "bolt"}
    changed = {**once, "input_tokens": 2}
    worker = installation.ready_worker()
    installation.send(InputKind.USAGE, [once, once, elsewhere, changed])
    with CreditsProducer(installation.settings) as another:
        another.produce(InputKind.USAGE, INPUTS[InputKind.USAGE].from_record(once))
    installation.sent += 1
    installation.wait_until_booked()
    worker.kill()
    installation.ready_worker()  # the memory of ids comes back with the state
    installation.send(InputKind.USAGE, [once, changed])
    installation.wait_until_booked()
    rows = [(row["org_id"], row["event_id"]) for row in installation.rows("ledger") if row["kind"] == "usage"]
    assert sorted(rows) == [("acme", "e1"), ("bolt", "e1")]
    assert installation.codes() == {DeadLetterCode.DUPLICATE_WITH_DIFFERENT_CONTENT: 2}
    assert installation.report().duplicates == 3
    assert installation.report().ok
    seen("one entry in each of two organisations, 3 duplicates counted, 2 dead letters for other content")


@pytest.mark.slow
@pytest.mark.fault(
    "newer-writer",
    title="A newer, compatible schema of a producer",
    provoked="a version of usage with two fields more, one of them a decimal, was registered and written with",
    holds="the record is booked",
    faults_row=3,
)
def test_a_newer_compatible_writer_is_applied(installation: LedgerInstallation, seen: Callable[[str], None]) -> None:
    newer = avro_schema("usage")
    more = (("datacentre", "string"), ("list_price", {"type": "bytes", "logicalType": "decimal", "precision": 9}))
    newer["fields"] = [*newer["fields"], *({"name": n, "type": ["null", t], "default": None} for n, t in more)]
    registry = TopicRegistry(installation.settings)
    newer_id = registry.register(installation.topics.subject("usage"), json.dumps(newer)).schema_id
    value = encoded(usage("e1", "acme", model="m1", input_tokens=1_000_000))
    installation.send(InputKind.PRICE, PRICE_LIST)
    installation.send_bytes(
        "usage", b"acme", b"\0" + newer_id.to_bytes(4, "big") + value[5:] + b"\x02\x04eu" + b"\x02\x04\x01\x02"
    )
    installation.ready_worker()
    installation.wait_until_booked()
    assert [row["event_id"] for row in installation.rows("ledger")] == ["e1"]
    assert not installation.dead_letters()
    seen("booked, no dead letter")


def test_a_record_that_is_too_large_once_it_is_unpacked_stops_nothing(installation: LedgerInstallation) -> None:
    """Kafka measures a batch when it is compressed: 20 MB of zeros pass every limit of the input topic."""
    producer = Producer(producer_config(installation.settings, message_max_bytes=64 * 1024 * 1024))
    topic = installation.topics.name("usage")
    whole, huge = bytes(5_000_000), bytes(20_000_000)
    installation.send(InputKind.PRICE, PRICE_LIST)
    installation.send(InputKind.USAGE, [usage("before", "acme", model="m1", input_tokens=1_000)])
    for key, value in ((b"acme", whole), (b"acme", huge), (huge, b"x")):
        producer.produce(topic, key=key, value=value, partition=0)
        installation.sent += 1
    assert producer.flush(30) == 0
    for place in range(20):  # every partition has neighbours
        installation.send(InputKind.USAGE, [usage(f"n{place}", f"org{place}", model="m1", input_tokens=1_000)])
    installation.ready_worker()
    installation.wait_until_booked()
    assert len(installation.rows("ledger")) == 21

    letters = {letter.source_offset: letter for letter in installation.dead_letters()}
    assert len(letters) == 3
    first, second, third = (letters[offset] for offset in sorted(letters))
    assert (first.value, first.cut) == (whole, {})
    assert second.value == huge[:VALUE_KEPT_BYTES]
    assert second.cut["credits.value.bytes"] == "20000000"
    assert third.cut["credits.key.bytes"] == "20000000"
    unknown = DeadLetterCode.UNKNOWN_SCHEMA  # zeros name schema 0
    assert [each.code for each in (first, second, third)] == [unknown, unknown, DeadLetterCode.UNDECODABLE]
    assert installation.report().ok

    shown = command(installation, "dead-letters", "show", second.name)
    assert "cut: it holds the first 1,048,576 of 20,000,000 bytes of the value" in shown.stdout
    refused = command(installation, "dead-letters", "replay", second.name)
    assert refused.returncode == 1
    assert "holds only a part of its record" in refused.stderr
    assert "Traceback" not in refused.stderr


def command(installation: LedgerInstallation, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command on the installation."""
    environment = {
        "PATH": "/usr/bin:/bin",
        "CREDITS_KAFKA_BOOTSTRAP_SERVERS": installation.settings.bootstrap_servers,
        "CREDITS_NAMESPACE": installation.settings.namespace,
        "CREDITS_PARTITIONS": str(installation.settings.partitions),
    }
    return subprocess.run(
        [sys.executable, "-m", "streams", *arguments],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


AMOUNTS = ['"-0.5"', '"0"', '"NaN"', '"1e400"', '"10000000000"', "0.1", '"1e3"', "true", '"1.0000000001"']


@pytest.mark.fault(
    "wrong-amounts",
    title="amounts that are none",
    provoked="JSON lines with amounts below 0, of 0, NaN, beyond the bound, as floats, with exponents, as booleans",
    holds="refused with the line's number; nothing is sent",
    faults_row=15,
)
def test_wrong_amounts_are_refused_by_the_client_and_nothing_is_sent(
    installation: LedgerInstallation,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    seen: Callable[[str], None],
) -> None:
    good = {"purchase_id": "p1", "org_id": "acme", "occurred_at": now_us(), "wallet": "USD", "amount": "5"}
    for place, amount in enumerate(AMOUNTS):
        bad = json.dumps({**good, "purchase_id": "p2"}).replace('"5"', amount)
        (tmp_path / f"{place}.jsonl").write_text(f"{json.dumps(good)}\n{bad}\n")
    for name, value in installation.environment().items():
        monkeypatch.setenv(name, value)
    for place, amount in enumerate(AMOUNTS):
        with pytest.raises(SystemExit) as ended:
            main(["produce", "purchase", "--file", str(tmp_path / f"{place}.jsonl")])
        assert ended.value.code == 1, amount
        error = capsys.readouterr().err
        assert "line 2" in error, amount
        assert "amount" in error, amount
        assert "Traceback" not in error, amount
    ends = committed_ends(installation.settings, [installation.topics.name("purchases")])
    assert sum(ends.values()) == 0
    seen("every file was refused with line 2 named; the topic is empty")


@pytest.mark.slow
def test_more_dead_letters_than_can_be_an_accident_stop_the_worker(installation: LedgerInstallation) -> None:
    worker = installation.ready_worker(CREDITS_DEAD_LETTERS_PER_MINUTE_MAX="5", CREDITS_DEAD_LETTER_FLOOD="stop")
    for _ in range(20):
        installation.send_bytes("usage", b"acme", b"no record")
    assert worker.ends_with(30) == 1
    assert "dead letters" in worker.output
    assert "CREDITS_DEAD_LETTERS_PER_MINUTE_MAX" in worker.output
    assert "Traceback" not in worker.output
    assert len(installation.dead_letters()) <= 5
    installation.ready_worker()  # told that they are expected
    installation.wait_until_booked()
    assert len(installation.dead_letters()) == 20
    assert installation.report().ok


@pytest.mark.fault(
    "dead-letter-flood",
    title="A flood of dead letters",
    provoked="more unreadable records in the usage topic than CREDITS_DEAD_LETTERS_PER_MINUTE_MAX allows",
    holds="that partition of the usage topic is paused, with a line, a metric and a red `/readyz`; money records of "
    "the same organisation are booked meanwhile",
    faults_row=35,
)
def test_a_flood_of_dead_letters_pauses_its_topic_alone(
    installation: LedgerInstallation, seen: Callable[[str], None]
) -> None:
    port = free_port()
    worker = installation.ready_worker(CREDITS_DEAD_LETTERS_PER_MINUTE_MAX="5", CREDITS_WORKER_METRICS_PORT=str(port))
    for _ in range(20):
        installation.send_bytes("usage", b"acme", b"no record")
    within = time.monotonic() + 30
    while "is paused for" not in worker.output:
        assert time.monotonic() < within, worker.output
        time.sleep(0.05)
    ready = httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False)
    assert ready.status_code == 503
    assert "paused for a flood of dead letters: " in ready.text
    metrics = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
    assert [line for line in metrics.splitlines() if line.startswith("credits_input_paused{") and line.endswith(" 1.0")]
    installation.send(InputKind.PURCHASE, [purchase("p1", "acme", NANOS)])
    while not [row for row in installation.rows("ledger") if row["event_id"] == "p1"]:
        assert time.monotonic() < within, worker.output
        time.sleep(0.2)
    line = next(line for line in worker.output.splitlines() if "is paused for" in line)
    resumed_line = line[line.index("Partition") :][:140]
    seen(f"a purchase of the same organisation was booked during the pause; said: {resumed_line}")


def asked_in_vain(url: str, times: int) -> None:
    """Wait until somebody has asked there so often; each is hung up on."""
    with socket.create_server(("127.0.0.1", int(url.rpartition(":")[2]))) as listener:
        listener.settimeout(30)
        for _ in range(times):
            listener.accept()[0].close()


@contextmanager
def registry_of_its_own(
    settings: Settings, tmp_path: Path
) -> Iterator[tuple[LedgerInstallation, TopicRegistry, RegistryServer]]:
    """An installation whose registry can be stopped and started."""
    topics_admin.apply(settings)
    registry = TopicRegistry(settings)
    server = RegistryServer(registry)
    server.start()
    installation = LedgerInstallation(settings.model_copy(update={"schema_registry_url": server.url}), tmp_path)
    try:
        yield installation, registry, server
    finally:
        installation.stop()
        server.stop()
        registry.close()


@pytest.mark.slow
@pytest.mark.fault(
    "registry-away",
    title="The schema registry is away",
    provoked="a record of a new version, while the registry was stopped, and one that it does not know",
    holds="the first waits, and what is behind it; only an id that the registry does not have is a dead letter",
    faults_row=2,
)
def test_a_registry_that_is_away_is_waited_for(settings: Settings, tmp_path: Path, seen: Callable[[str], None]) -> None:
    """A schema id that nobody can be asked for is not an unknown one: no dead letter, and nothing behind it passes."""
    with registry_of_its_own(settings, tmp_path) as (installation, registry, server):
        installation.send(InputKind.PRICE, PRICE_LIST)
        worker = installation.ready_worker()
        installation.send(InputKind.USAGE, [usage("before", "acme", model="m1", input_tokens=1_000)])
        installation.wait_until_booked()
        assert [row["event_id"] for row in installation.rows("ledger")] == ["before"]  # the test, too, knows its schema
        newer = avro_schema("usage")
        newer["fields"] = [*newer["fields"], {"name": "datacentre", "type": ["null", "string"], "default": None}]
        newer_id = registry.register(installation.topics.subject("usage"), json.dumps(newer)).schema_id
        server.stop()
        value = encoded(usage("waits", "acme", model="m1", input_tokens=1_000_000))
        installation.send_bytes("usage", b"acme", b"\0" + newer_id.to_bytes(4, "big") + value[5:] + b"\x02\x04eu")
        installation.send(InputKind.USAGE, [usage("behind", "acme", model="m1", input_tokens=1_000)])
        until(lambda: "waits: " in worker.output, 30, "its waiting")
        asked_in_vain(server.url, 3)
        assert worker.process.poll() is None, worker.output
        assert not installation.dead_letters()
        assert [row["event_id"] for row in installation.rows("ledger")] == ["before"]
        server.start()
        installation.wait_until_booked()
        assert [row["event_id"] for row in installation.rows("ledger")] == ["before", "waits", "behind"]
        assert not installation.dead_letters()
        installation.send_bytes("usage", b"acme", b"\0\0\0\x30\x39" + value[5:])
        installation.wait_until_booked()
        assert installation.codes() == {DeadLetterCode.UNKNOWN_SCHEMA: 1}
        seen("no dead letter while it was away, all booked in order when it was back; the unknown id is a dead letter")


def test_a_worker_started_while_the_registry_is_away_serves_when_it_is_back(settings: Settings, tmp_path: Path) -> None:
    with registry_of_its_own(settings, tmp_path) as (installation, _, server):
        installation.send(InputKind.PRICE, PRICE_LIST)
        installation.send(InputKind.PURCHASE, [purchase("p1", "acme", 100 * NANOS)])
        sent = [usage(f"e{number}", "acme", model="m1", input_tokens=1_000) for number in range(20)]
        installation.send(InputKind.USAGE, sent)
        server.stop()
        worker = installation.worker()
        until(lambda: "The worker waits: " in worker.output, 30, "its waiting")
        assert worker.process.poll() is None, worker.output
        assert READY not in worker.output
        server.start()
        until(lambda: READY in worker.output or worker.process.poll() is not None, 30, "a ready worker")
        assert READY in worker.output, worker.output
        installation.wait_until_booked()
        booked = [row["event_id"] for row in installation.rows("ledger")]
        assert sorted(booked) == sorted(["p1", *(each["event_id"] for each in sent)])
        assert not installation.dead_letters()
        assert installation.report().ok


class AnyRegistry:
    """A registry of somebody else's: it gives whatever was put into it, under ids from 1 on, and takes everything."""

    def __init__(self) -> None:
        self.documents: list[Any] = []
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                number = int(self.path.partition("?")[0].rpartition("/")[2])
                known = 0 < number <= len(registry.documents)
                self.answer(200 if known else 404, registry.documents[number - 1] if known else {"error_code": 40403})

            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self.answer(200, {"id": registry.put({"schema": asked["schema"]})})

            def answer(self, status: int, document: Any) -> None:
                body = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def put(self, document: Any) -> int:
        """The id of an answer."""
        if document not in self.documents:
            self.documents.append(document)
        return self.documents.index(document) + 1

    def stop(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()


def with_field(type_: Any) -> dict[str, Any]:
    """The usage schema with a field more, as a registry answers it."""
    schema = avro_schema("usage")
    schema["fields"].append({"name": "more", "type": type_})
    return {"schema": json.dumps(schema)}


@pytest.mark.slow
@pytest.mark.fault(
    "schema-bomb",
    title="Schemas that expand without bound, and records nested without end",
    provoked="an external registry gave: a record of two records of two records, 40 deep; a list of one boolean and "
    "1,000 nulls; a list of nulls; records nested 200 and 2,000 deep; a record in itself; NaN; 5,000 digits; Protobuf",
    holds="each record is a dead letter that says why, its neighbours and the other partitions are booked, and the "
    "worker goes on",
    faults_row=31,
)
def test_schemas_that_expand_without_bound_are_dead_letters(
    settings: Settings, tmp_path: Path, seen: Callable[[str], None]
) -> None:
    topics_admin.apply(settings)
    registry = AnyRegistry()
    installation = LedgerInstallation(settings.model_copy(update={"schema_registry_url": registry.url}), tmp_path)
    bombs = {
        "more than 4,000 values": with_field(doubling(40)),
        "can stand for 1,002 values": with_field(
            {"type": "array", "items": record("item", "boolean", *["null"] * 1_000)}
        ),
        "no bound": with_field({"type": "array", "items": "null"}),
        "nested more than 96 levels": with_field(nested(200)),
        "nested more than": {"schema": with_field("boolean")["schema"].replace('"boolean"', "[" * 2_000 + "]" * 2_000)},
        "inside itself": with_field(record("tree", ["null", "tree"])),
        "NaN is no JSON value": {"schema": '{"type": "record", "name": "usage", "fields": [], "doc": NaN}'},
        "not JSON": {"schema": '{"type": ' + "9" * 5_000 + "}"},
        "of type PROTOBUF": {"schema": "message usage {}", "schemaType": "PROTOBUF"},
    }
    try:
        installation.send(InputKind.PRICE, PRICE_LIST)
        body = encoded(usage("bomb", "acme", model="m1", input_tokens=1_000))[5:]
        for place, document in enumerate(bombs.values()):
            installation.send(InputKind.USAGE, [usage(f"n{place}", "acme", model="m1", input_tokens=1_000)])
            value = b"\0" + registry.put(document).to_bytes(4, "big") + body + b"\xfe\xff\xff\xff\x0f" * 10
            installation.send_bytes("usage", b"acme", value)
            installation.send(InputKind.USAGE, [usage(f"o{place}", f"org{place}", model="m1", input_tokens=1_000)])
        worker = installation.ready_worker()
        installation.wait_until_booked()
        assert worker.process.poll() is None
        letters = installation.dead_letters()
        for expected, letter in zip(bombs, sorted(letters, key=lambda letter: letter.source_offset), strict=True):
            assert expected in letter.message, letter.message
            assert letter.code == DeadLetterCode.UNDECODABLE
        assert len(installation.rows("ledger")) == 2 * len(bombs)
        assert installation.report().ok
    finally:
        installation.stop()
        registry.stop()
    seen(f"{len(bombs)} dead letters that say why, {2 * len(bombs)} neighbours booked")
