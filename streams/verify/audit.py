"""The audit of an installation: reads its topics, folds the ledger, and compares.

Rules of this file: everything is read up to an end that is fixed first, in an order that makes the cuts fit while
workers go on: (1) the ledger's end E₀, (2) positions and published balances, (3) the ledger's end E₁. What (2) says was
committed with entries below E₁, so the fold passes every published state; and every entry below E₀ was committed with a
balance that (2) sees. Inputs are read up to the positions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from confluent_kafka import Message

from schemas.codec import decode_columns, rows_of
from schemas.dead_letters import CODE_HEADER, OFFSET_HEADER, PARTITION_HEADER, TOPIC_HEADER
from schemas.partitioner import partitions_of
from schemas.topics import ALERT_TOPICS, Topics
from streams.kafka.consume import Offsets
from streams.kafka.reader import committed_ends, committed_starts, read_range
from streams.kafka.registry import Registry, connect_registry
from streams.verify.clickhouse import AskPage, compare
from streams.verify.fold import HOUR_US, Difference, Differences, LedgerFold, UnitSum, Windows, added_up
from streams.verify.misplaced import Misplaced, SplitAccount
from streams.verify.sources import (
    POSITION_KEY,
    InputCount,
    Positions,
    Retained,
    SourceOffsets,
    TopicCount,
    positions_of,
)

if TYPE_CHECKING:
    from streams.settings import Settings

Advance = Callable[[str, int], None]
"""Called with what is being read, and the number of further records that were."""


@dataclass(slots=True)
class Report:
    """What the audit found. `differences` are the first of `differences_count`; `totals` by wallet and kind, in nanos
    (refunds of purchases as `refund_purchase`)."""

    entries: int = 0
    orgs: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    rejected: dict[str, int] = field(default_factory=dict)
    dead_letters: dict[str, int] = field(default_factory=dict)
    alerts: dict[str, int] = field(default_factory=dict)
    inputs: dict[str, TopicCount] = field(default_factory=dict)
    units: list[UnitSum] = field(default_factory=list)
    totals: dict[tuple[str, str], int] = field(default_factory=dict)
    transfers: int = 0
    transfers_on_the_way: int = 0
    clickhouse_compared: bool = False
    split_accounts: list[SplitAccount] = field(default_factory=list)
    """Second accounts of orgs, in a partition that is not theirs: known, where they are merged."""
    differences: list[Difference] = field(default_factory=list)
    differences_count: int = 0

    @property
    def ok(self) -> bool:
        """Nothing differs."""
        return self.differences_count == 0

    @property
    def duplicates(self) -> int:
        """Input records that were dropped as exact duplicates."""
        return sum(count.duplicates for count in self.inputs.values())


def audit(
    settings: Settings,
    *,
    advance: Advance = lambda _what, _count: None,
    clickhouse: AskPage | None = None,
) -> Report:
    """Audit the installation of these settings.

    `clickhouse` gives what ClickHouse holds; None leaves it out. Raises KafkaException when a topic is missing or
    Kafka does not answer, and `ClickHouseUnknownError`.
    """
    return _Audit(settings, advance).run(clickhouse)


class _Audit:
    def __init__(self, settings: Settings, advance: Advance) -> None:
        self.settings = settings
        self.topics = Topics(settings.namespace)
        self.registry: Registry = connect_registry(settings)
        self.advance = advance
        self.differences = Differences()
        self.report = Report()
        self.ledger_sources = SourceOffsets()
        self.dead_sources = SourceOffsets()

    def run(self, clickhouse: AskPage | None) -> Report:
        """1. ledger end; 2. positions, balances; 3. ledger; 4. dead letters, alerts; 5. inputs; 6. ClickHouse."""
        ledger = [self.topics.name("ledger")]
        first_ends = committed_ends(self.settings, ledger)
        self.misplaced = Misplaced(len(first_ends), windows_of(self.settings), self.differences)
        positions = self._positions()
        published = self._balances()
        last_ends = committed_ends(self.settings, ledger)
        watched = {org_id: row["seq"] for org_id, row in published.items()}
        fold = LedgerFold(watched, windows_of(self.settings))
        fold.differences = self.differences
        self._fold(fold, {}, first_ends)
        before = {org_id: org.seq for org_id, org in fold.orgs.items()}
        self._fold(fold, first_ends, last_ends)
        self._late_departures(fold, last_ends)
        fold.finish()
        self.report.split_accounts = self.misplaced.finish(self.differences)
        compare_balances(fold, published, before, self.differences)
        self._dead_letters()
        self._alerts(fold)
        self._inputs(positions, fold)
        if clickhouse is not None:
            compare(fold, clickhouse, self.differences)
            self.report.clickhouse_compared = True
        return self._finished(fold)

    def _finished(self, fold: LedgerFold) -> Report:
        report = self.report
        aside = self.misplaced.fold
        report.entries, report.orgs = fold.entries + aside.entries, len(fold.orgs)
        report.kinds, report.rejected = dict(fold.kinds + aside.kinds), dict(fold.rejected + aside.rejected)
        report.units = added_up([*fold.conservation(), *aside.conservation()])
        report.totals = dict(fold.totals)
        for name, nanos in aside.totals.items():
            report.totals[name] = report.totals.get(name, 0) + nanos
        report.transfers = len(fold.transfers)
        report.transfers_on_the_way = sum(1 for _ in fold.unfinished())
        report.differences, report.differences_count = self.differences.kept, self.differences.count
        return report

    def _read(self, what: str, starts: Offsets, ends: Offsets) -> Iterator[list[Message]]:
        for batch in read_range(self.settings, starts, ends):
            self.advance(what, len(batch))
            yield batch

    def _ends(self, key: str) -> Offsets:
        return committed_ends(self.settings, [self.topics.name(key)])

    def _positions(self) -> dict[int, Positions]:
        found: dict[int, bytes] = {}
        for batch in self._read("positions", {}, self._ends("accounts")):
            for message in batch:
                if message.key() == POSITION_KEY and message.value() is not None:
                    found[message.partition()] = message.value()
        return {partition: positions_of(value) for partition, value in found.items()}

    def _balances(self) -> dict[str, dict[str, Any]]:
        newest: dict[bytes, bytes] = {}
        for batch in self._read("balances", {}, self._ends("balances")):
            homes = partitions_of([message.key() or b"" for message in batch], self.misplaced.partitions)
            own = [message for message, home in zip(batch, homes, strict=True) if message.partition() == home]
            newest.update((message.key(), message.value()) for message in own)
        decoded = decode_columns("balance", list(newest.values()), self.registry)
        for failure in decoded.failures:
            self.differences.add("undecodable", self.topics.name("balances"), failure.message)
        return {row["org_id"]: row for row in rows_of(decoded.batch)}

    def _fold(self, fold: LedgerFold, starts: Offsets, ends: Offsets) -> None:
        for messages in self._read("ledger", starts, ends):
            decoded = decode_columns("entry", [message.value() for message in messages], self.registry)
            for failure in decoded.failures:
                place = messages[failure.position]
                self.differences.add(
                    "undecodable", f"{place.topic()}[{place.partition()}]@{place.offset()}", failure.message
                )
            batch = decoded.batch
            rows = range(len(messages)) if decoded.positions is None else decoded.positions
            fold.add(self.misplaced.take(batch, [messages[row].partition() for row in rows], fold.causes))
            self.ledger_sources.add_columns(
                batch.column("source_topic"), batch.column("source_partition"), batch.column("source_offset")
            )

    def _late_departures(self, fold: LedgerFold, ends: Offsets) -> None:
        """Partitions are cut one after another: a credit may be in the cut and its debit, committed before it, not.

        For such transfers the debit is looked up beyond the cut; the entries there are not folded.
        """
        lost = {name: each for name, each in fold.transfers if each.out_nanos is None}
        if not lost:
            return
        for messages in self._read("ledger", ends, self._ends("ledger")):
            decoded = decode_columns("entry", [message.value() for message in messages], self.registry)
            for row in rows_of(decoded.batch):
                transfer = lost.get(f"{row['org_id']}/{row['correlation_id'] or row['event_id']}")
                if row["kind"] == "transfer_out" and transfer is not None and transfer.out_nanos is None:
                    fold.late_departure(transfer, row["amount_nanos"])

    def _dead_letters(self) -> None:
        codes: Counter[str] = Counter()
        for batch in self._read("dead letters", {}, self._ends("dead_letters")):
            for message in batch:
                headers = {name: value.decode(errors="replace") for name, value in message.headers() or []}
                codes[headers.get(CODE_HEADER, "")] += 1
                partition, offset = headers.get(PARTITION_HEADER, ""), headers.get(OFFSET_HEADER, "")
                if partition.isdigit() and offset.isdigit():
                    self.dead_sources.add(headers.get(TOPIC_HEADER, ""), int(partition), int(offset))
                else:
                    self.differences.add("dead_letter_without_source", _place(message), "headers name no record")
        for topic in self.topics.inputs:
            if self.dead_sources.repeated(topic):
                self.differences.add("dead_letter_twice", topic, f"{self.dead_sources.repeated(topic)} too many")
        self.report.dead_letters = dict(codes)

    def _alerts(self, fold: LedgerFold) -> None:
        """Each crossing once: no alert id twice in a partition. (A second account has crossings of its own.)"""
        kinds: Counter[str] = Counter()
        seen: set[tuple[int, str]] = set()
        for key in dict.fromkeys(ALERT_TOPICS.values()):
            for messages in self._read("alerts", {}, self._ends(key)):
                decoded = decode_columns("alert", [message.value() for message in messages], self.registry)
                places = range(len(messages)) if decoded.positions is None else decoded.positions
                for place, row in zip(places, rows_of(decoded.batch), strict=True):
                    kinds[row["kind"]] += 1
                    alert = messages[place].partition(), row["alert_id"]
                    if alert in seen:
                        self.differences.add("alert_twice", row["org_id"], f"{row['kind']} {row['alert_id']}")
                    seen.add(alert)
        self.report.alerts = dict(kinds)

    def _retained(self, starts: Offsets) -> Retained:
        dead_letters = committed_starts(self.settings, [self.topics.name("dead_letters")])
        return Retained(starts, {partition: offset for (_, partition), offset in dead_letters.items()})

    def _inputs(self, positions: Mapping[int, Positions], fold: LedgerFold) -> None:
        inputs = self.topics.inputs
        starts = committed_starts(self.settings, inputs)
        count = InputCount(
            self.topics,
            positions,
            self.ledger_sources,
            self.dead_sources,
            fold.causes,
            self.registry,
            self.differences,
            self._retained(starts),
        )
        ends = {
            (topic, partition): positions[partition].next_offsets.get(topic, 0)
            for topic, partition in committed_ends(self.settings, inputs)
            if partition in positions
        }
        for batch in self._read("inputs", {place: starts[place] for place in ends}, ends):
            by_place: dict[tuple[str, int], list[Message]] = {}
            for message in batch:
                by_place.setdefault((message.topic(), message.partition()), []).append(message)
            for (topic, partition), messages in by_place.items():
                count.scan(topic, partition, messages)
        count.finish()
        self.report.inputs = count.topics


def windows_of(settings: Settings) -> Windows:
    """How long the ledger of these settings remembers ids."""
    return Windows(
        usage_us=settings.usage_window_hours * HOUR_US,
        money_us=settings.money_window_days * 24 * HOUR_US,
        usage_topic=Topics(settings.namespace).name("usage"),
    )


def compare_balances(
    fold: LedgerFold, published: Mapping[str, Mapping[str, Any]], before: Mapping[str, int], differences: Differences
) -> None:
    """Published balances against the fold at the same `seq`; `before`: the least `seq` that must be published."""
    for org_id, row in published.items():
        snapshot = fold.snapshots.get(org_id)
        if snapshot is None:
            seq = fold.orgs[org_id].seq if org_id in fold.orgs else 0
            differences.add("balance_ahead", org_id, f"published up to entry {row['seq']}, the ledger has {seq}")
            continue
        if row["seq"] < before.get(org_id, 0):
            differences.add("balance_behind", org_id, f"published up to {row['seq']}, {before[org_id]} were booked")
        found = {wallet["unit"]: wallet for wallet in row["wallets"]}
        for unit in found.keys() | snapshot.wallets.keys():
            settled, held, added, spent, on_the_way = snapshot.wallets.get(unit, (0, 0, 0, 0, 0))
            wanted = {
                "settled_nanos": settled,
                "held_nanos": held,
                "available_nanos": settled - held,
                "lifetime_added_nanos": added,
                "lifetime_spent_nanos": spent,
                "on_the_way_nanos": on_the_way,
            }
            wallet = found.get(unit, {})
            for name, nanos in wanted.items():
                if wallet.get(name, 0) != nanos:
                    message = f"{name} published {wallet.get(name)}, folded {nanos} (entry {row['seq']})"
                    differences.add("balance_differs", f"{org_id} {unit}", message)
    for org_id, seq in before.items():
        if org_id not in published:
            differences.add("balance_missing", org_id, f"{seq} entries, and no published balance")


def _place(message: Message) -> str:
    return f"{message.topic()}[{message.partition()}]@{message.offset()}"
