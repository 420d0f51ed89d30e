"""Wrong amounts and repeated ids of every kind, straight from Kafka (faults 1, 5, 14, 15), in one run of one worker.

Time is the log's: each record arrives when its Kafka timestamp says so, and five weeks pass in seconds. Every case has
an org of its own, and a neighbour of the same kind behind it that must be booked.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from confluent_kafka import Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from schemas.amounts import AMOUNT_MAX, NANOS
from schemas.codec import encode_one
from schemas.enums import DeadLetterCode, InputKind, RejectReason
from schemas.records import bundled_id
from schemas.topics import INPUT_TOPICS
from streams.kafka.clients import admin_config, producer_config
from streams.verify.audit import Report
from tests.brokers import test_settings
from tests.integration.conftest import SharedBroker
from tests.integration.engine.workers import until
from tests.integration.ledger.broker_port import Progress
from tests.integration.ledger.installation import LedgerInstallation

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
BEGAN_AT = time.time_ns() // 1_000 - 37 * DAY_US
"""When the first record arrives: the last one is to arrive before now, or retention begins."""

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
Fields = dict[str, Any]
End = RejectReason | DeadLetterCode | None
"""How a record must end: refused by a rule, a dead letter, or None: booked (a duplicate leaves nothing)."""

NOT_POSITIVE, OUT_OF_RANGE = RejectReason.AMOUNT_NOT_POSITIVE, DeadLetterCode.AMOUNT_OUT_OF_RANGE
INVALID_FIELD, INVALID_SETTING = DeadLetterCode.INVALID_FIELD, RejectReason.INVALID_SETTING
BEYOND = {AMOUNT_MAX + 1: OUT_OF_RANGE, -AMOUNT_MAX - 1: OUT_OF_RANGE, INT64_MIN: OUT_OF_RANGE, INT64_MAX: OUT_OF_RANGE}

AMOUNTS: dict[InputKind, dict[int, End]] = {
    InputKind.USAGE: {0: None, -1: INVALID_FIELD, **BEYOND},
    InputKind.PURCHASE: {
        0: NOT_POSITIVE,
        -5 * NANOS: NOT_POSITIVE,
        NANOS - 1: NOT_POSITIVE,
        AMOUNT_MAX: OUT_OF_RANGE,  # with what is there already
        **BEYOND,
    },
    InputKind.REFUND: {0: NOT_POSITIVE, -1: NOT_POSITIVE, AMOUNT_MAX: RejectReason.EXCEEDS_REFUNDABLE, **BEYOND},
    InputKind.TRANSFER: {0: NOT_POSITIVE, -1: NOT_POSITIVE, AMOUNT_MAX: RejectReason.INSUFFICIENT_CREDITS, **BEYOND},
    InputKind.HOLD: {0: INVALID_FIELD, -1: INVALID_FIELD, **BEYOND},
}
"""Amounts of a record, in nanos, and how it must end (product rules 10, 16, 19, 21, 22)."""

TEXTS = ["-1", "NaN", "Infinity", "1e400", "1e3", "0x10", "1,5", "", " 1", "9000000001", "1.0000000001"]
BODIES = [*(f'{{"unit": "USD", "allowance": "{text}"}}' for text in TEXTS), '{"unit": "USD", "allowance": 0.1}']
BODIES += ['{"unit": "USD", "allowance": true}', '{"unit": "USD", "allowance": NaN}', '{"unit": "USD"', "[]"]
"""Bodies of a `wallet` setting whose amount is none: beyond nine decimals, no decimal string, out of bounds."""


@dataclass
class Case:
    """One record, when it arrives, and how it must end."""

    kind: InputKind
    fields: Fields
    end: End
    at: int = BEGAN_AT
    key: bytes | None = None
    value: bytes | None = field(default=None, repr=False)

    def encoded(self) -> bytes:
        """The Kafka value."""
        return encode_one(self.kind.value, self.fields, bundled_id(self.kind.value))


def record(kind: InputKind, name: str, org_id: str, amount: int, at: int = BEGAN_AT) -> Fields:
    """A record of `kind` whose id is `name`."""
    base = {"org_id": org_id, "occurred_at": at}
    match kind:
        case InputKind.USAGE:
            return {**base, "event_id": name, "operation": "chat", "cost_nanos": amount, "wallet": "USD"}
        case InputKind.PURCHASE:
            return {**base, "purchase_id": name, "wallet": "USD", "amount_nanos": amount}
        case InputKind.REFUND:
            target = {"target": "purchase", "target_id": f"{org_id}-credits"}
            return {**base, "refund_id": name, **target, "amount_nanos": amount}
        case InputKind.TRANSFER:
            target = {"target_org_id": "target", "actor": "alice"}
            return {**base, "transfer_id": name, "wallet": "USD", **target, "amount_nanos": amount}
        case InputKind.HOLD:
            whole = {**base, "hold_id": name, "action": "place", "wallet": "USD", "amount_nanos": amount}
            return {**whole, "expires_at": at + HOUR_US}
        case _:
            raise ValueError(kind)


def setting(name: str, org_id: str, kind: str, body: str, at: int = BEGAN_AT) -> Fields:
    """A setting by the system."""
    actor = {"actor": "root", "actor_role": "system", "kind": kind, "body": body}
    return {"setting_id": name, "org_id": org_id, "occurred_at": at, **actor}


def org(number: int) -> str:
    """Of the case of that number."""
    return f"org-{number}"


def wrong_amounts() -> list[Case]:
    """Every amount of the table, and every text."""
    cases = [
        Case(kind, record(kind, f"{kind}-{number}", "?", amount), end)
        for kind, amounts in AMOUNTS.items()
        for number, (amount, end) in enumerate(amounts.items())
    ]
    return cases + [
        Case(InputKind.SETTING, setting(f"text-{number}", "?", "wallet", body), INVALID_SETTING)
        for number, body in enumerate(BODIES)
    ]


def at_home(cases: list[Case]) -> list[Case]:
    """Each in an org of its own, with a neighbour that is right."""
    homes = []
    for number, case in enumerate(cases):
        case.fields["org_id"] = org(number)
        if case.kind is InputKind.REFUND:
            case.fields["target_id"] = f"{org(number)}-credits"
        neighbour = (
            Case(case.kind, setting(f"near-{number}", org(number), "wallet", '{"unit": "USD", "allowance": "1"}'), None)
            if case.kind is InputKind.SETTING
            else Case(case.kind, record(case.kind, f"near-{number}", org(number), NANOS), None)
        )
        homes += [case, neighbour]
    return homes


def repeats() -> list[Case]:
    """The same bytes days later: nothing within the window, too old beyond it (72 hours; 35 days for money)."""
    cases = []
    for kind, days in (
        (InputKind.USAGE, 3),
        (InputKind.PURCHASE, 35),
        (InputKind.REFUND, 35),
        (InputKind.TRANSFER, 35),
    ):
        fields = record(kind, f"again-{kind}", "again", 2 * NANOS)
        cases += [Case(kind, fields, None), Case(kind, fields, None, BEGAN_AT + days * DAY_US)]
        cases.append(Case(kind, fields, DeadLetterCode.TOO_OLD, BEGAN_AT + days * DAY_US + HOUR_US))
        cases.append(
            Case(kind, {**fields, **other(kind)}, DeadLetterCode.DUPLICATE_WITH_DIFFERENT_CONTENT, BEGAN_AT + DAY_US)
        )
    return cases


def other(kind: InputKind) -> Fields:
    """Another content."""
    return {"cost_nanos" if kind is InputKind.USAGE else "amount_nanos": 3 * NANOS}


def clocks() -> list[Case]:
    """Producers whose clocks are wrong, and events that come in the wrong order."""
    ends: dict[int, End] = {
        HOUR_US: None,
        -HOUR_US: None,
        -71 * HOUR_US: None,
        365 * DAY_US: DeadLetterCode.TOO_FAR_IN_FUTURE,
        3 * HOUR_US: DeadLetterCode.TOO_FAR_IN_FUTURE,
        -365 * DAY_US: DeadLetterCode.TOO_OLD,
        -73 * HOUR_US: DeadLetterCode.TOO_OLD,
    }
    return [
        Case(InputKind.USAGE, record(InputKind.USAGE, f"clock-{number}", "again", NANOS, BEGAN_AT + offset), end)
        for number, (offset, end) in enumerate(ends.items())
    ]


def unreadable() -> list[Case]:
    """Bytes that are no record, in every topic that carries money (what usage does with them: `test_bad_input`)."""
    cases = []
    for kind in (InputKind.PURCHASE, InputKind.REFUND, InputKind.TRANSFER, InputKind.HOLD):
        good = Case(kind, record(kind, f"bytes-{kind}", "again", NANOS), None)
        value = good.encoded()
        for wrong, code in {
            b"\x07\xff\x00random": DeadLetterCode.UNDECODABLE,
            value[:-3]: DeadLetterCode.UNDECODABLE,
            value + b"left over": DeadLetterCode.UNDECODABLE,
            b"\x01" + value[1:]: DeadLetterCode.UNDECODABLE,
            b"\0\0\0\x30\x39" + value[5:]: DeadLetterCode.UNKNOWN_SCHEMA,
        }.items():
            cases.append(Case(kind, good.fields, code, value=wrong))
        cases.append(Case(kind, good.fields, DeadLetterCode.KEY_MISMATCH, key=b"another"))
    return cases


@dataclass
class Outcome:
    """What was sent, and what the ledger made of it."""

    installation: LedgerInstallation
    cases: list[Case]
    report: Report
    rows: list[Fields]


@pytest.fixture(scope="module")
def outcome(broker: SharedBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    """Everything sent, booked, and read back."""
    folder = tmp_path_factory.mktemp("faults")
    namespace = f"{folder.name}-{time.time_ns()}."
    installation = LedgerInstallation(
        test_settings(
            folder,
            kafka_bootstrap_servers=broker.bootstrap_servers,
            namespace=namespace,
            partitions=1,
            clock="log",
            session_timeout_ms=6_000,
        ),
        folder,
    )
    homes = at_home(wrong_amounts())
    orgs = [*(org(number) for number in range(len(homes) // 2)), "again"]
    setup = [
        Case(InputKind.SETTING, setting(f"{name}-org", name, "org", ADMINISTRATORS), None) for name in (*orgs, "target")
    ]
    setup += [
        Case(InputKind.PURCHASE, record(InputKind.PURCHASE, f"{name}-credits", name, 500 * NANOS), None)
        for name in orgs
    ]
    cases = [*homes, *clocks(), *unreadable(), *repeats()]
    progress = Progress(installation)
    try:
        worker = installation.worker()
        ends: dict[str, int] = {}
        for some in (setup, sorted(cases, key=lambda case: case.at)):
            send(installation, some, ends)
            until(lambda: progress.dealt_with(ends) or worker.process.poll() is not None, 60, "everything booked")
            assert worker.process.poll() is None, worker.output
        yield Outcome(installation, cases, installation.report(), installation.rows("ledger"))
    finally:
        progress.close()
        installation.stop()


ADMINISTRATORS = '{"administrators": ["alice"]}'


def send(installation: LedgerInstallation, cases: list[Case], ends: dict[str, int]) -> None:
    """Each with the time of its arrival; `ends` gets the offsets after the last ones."""

    def delivered(error: Any, message: Message) -> None:
        assert error is None, error
        ends[str(message.topic())] = (message.offset() or 0) + 1

    producer = Producer(producer_config(installation.settings, linger_ms=5))
    for case in cases:
        producer.produce(
            installation.topics.name(INPUT_TOPICS[case.kind]),
            key=case.fields["org_id"].encode() if case.key is None else case.key,
            value=case.encoded() if case.value is None else case.value,
            timestamp=case.at // 1_000,
            on_delivery=delivered,
        )
    assert producer.flush(30) == 0


def name_of(case: Case) -> str:
    return next(str(value) for name, value in case.fields.items() if name.endswith("_id") and name != "org_id")


def test_every_record_ends_as_it_must(outcome: Outcome) -> None:
    assert outcome.report.ok, outcome.report.differences
    letters = {(letter.value, letter.key): letter for letter in outcome.installation.dead_letters()}
    rejected = {(row["org_id"], row["event_id"]): row["reason"] for row in outcome.rows if row["kind"] == "rejected"}
    booked = {(row["org_id"], row["event_id"]) for row in outcome.rows if row["kind"] != "rejected"}
    wrong = []
    for case in outcome.cases:
        value = case.encoded() if case.value is None else case.value
        key = case.fields["org_id"].encode() if case.key is None else case.key
        letter, name = letters.get((value, key)), (case.fields["org_id"], name_of(case))
        found = letter.code if letter is not None and isinstance(case.end, DeadLetterCode) else rejected.get(name)
        if found != case.end or (case.end is None and name not in booked):
            wrong.append((case, found))
    assert not wrong


def test_nothing_wrong_has_moved_a_balance(outcome: Outcome) -> None:
    """What moved is the credits that every org was given, and what its neighbour's record did; months aside."""
    did = {InputKind.USAGE: -1, InputKind.PURCHASE: 1, InputKind.REFUND: -1, InputKind.TRANSFER: -1}
    for number, case in enumerate(wrong_amounts()):
        mine = [row for row in outcome.rows if row["org_id"] == org(number) and row["kind"] != "allowance"]
        moved = sum(row["amount_nanos"] for row in mine if row["kind"] not in {"expiry", "hold", "hold_release"})
        assert moved == (500 + did.get(case.kind, 0)) * NANOS, (case, moved)


def test_what_came_again_within_its_window_has_no_effect(outcome: Outcome) -> None:
    kinds = {"usage", "purchase", "refund", "transfer_out"}
    mine = {f"again-{kind}" for kind in InputKind}
    sent_here = [row for row in outcome.rows if row["event_id"] in mine and "transfer-legs" not in row["source_topic"]]
    booked = [row["kind"] for row in sent_here if row["kind"] in kinds]
    assert sorted(booked) == sorted(kinds)
    assert outcome.report.duplicates == 4
    assert outcome.report.dead_letters[DeadLetterCode.TOO_OLD] == 4 + 2


def test_what_retention_deletes_is_no_difference(outcome: Outcome) -> None:
    """The last test of the module: the usage and some of the dead letters are gone after it."""
    installation = outcome.installation
    admin = AdminClient(admin_config(installation.settings))
    usage, letters = installation.topics.name("usage"), installation.topics.name("dead_letters")
    for future in admin.delete_records([TopicPartition(usage, 0, 20), TopicPartition(letters, 0, 15)]).values():
        future.result(30)
    report = installation.report()
    assert report.ok, report.differences
    assert report.inputs[usage].gone == 20
    for future in admin.delete_records([TopicPartition(usage, 0, -1), TopicPartition(letters, 0, -1)]).values():
        future.result(30)
    report = installation.report()
    assert report.ok, report.differences
    assert report.inputs[usage].records == 0
