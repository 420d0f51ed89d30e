"""The independent auditor (tests/model/auditor.py) judges what the ledger has committed, transaction by transaction.

Rules of this file: the auditor is given what the ledger took, in the order in which it was decided, at the partition's
clock of that record; after each transaction both must have said the same (`tests.model.both.compare`). What the auditor
leaves to others it is not asked: whether a record can be read, is in its window and has a new id. Of what is refused
before an account is asked, it judges `unknown_price` and prices that tie.

Prices are those of the price topic as far as the worker had read them, recomputed (`listed`), and an org's own by
its settings, with the versions before them; each usage by the price as of its own time (product rule 7). What a worker
had not read is looked at, too: nothing is `unknown_price` that was priced before it was sent.
"""

from __future__ import annotations

import json
from collections import Counter

import msgspec

from schemas.codec import decode_one
from schemas.topics import ALERT_TOPICS, INPUT_TOPICS
from streams.engine.internal_topics import changelog_topic
from streams.engine.positions import POSITION_KEY
from streams.ledger.entry import Alert, Entry, HoldDecision, TopupRequest
from tests.model.audit_usage import REFUND_WINDOW_US
from tests.model.audited import window_of
from tests.model.both import Effects, compare, compare_wallets
from tests.model.memory import TOPICS
from tests.simulation.checks import NOBODY, PRICES, Row, Source, account_in, rows, source_in
from tests.simulation.dated_auditor import DatedAuditor, Fields, scope
from tests.simulation.listed import SCHEMAS, Listed, LogPosition, in_force, read
from tests.simulation.price_topic import KEPT, Ends
from tests.simulation.virtual_kafka import Commit, Record
from tests.simulation.world import HOUR_US, PARTITIONS, START_US, Decided, Ticked, World, lies_far

LEGS = TOPICS.name("transfer_legs")
KINDS = {TOPICS.name(key): kind.value for kind, key in INPUT_TOPICS.items()} | {LEGS: "leg"}
REMEMBERED_US = 74 * HOUR_US
"""How long the id of a usage is remembered, at least."""


class Judge:
    """Judges one run."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.auditor = DatedAuditor()
        self.met: Counter[str] = Counter()
        """What the run came to, so that it can be shown that runs come to all of it."""
        self._changelog = changelog_topic(world.settings.app_id)
        self._clocks = [START_US] * PARTITIONS
        self._asked: dict[tuple[str, str], list[str]] = {}
        self._legs: set[bytes | None] = set()
        self._lists: dict[Ends, tuple[list[Listed], set[LogPosition]]] = {}

    def follow(self) -> None:
        """Every transaction, in the order in which they were committed."""
        for number, commit in enumerate(self.world.kafka.commits):
            self._transaction(number, commit)

    def _transaction(self, number: int, commit: Commit) -> None:
        auditor, cause = self.auditor, commit.cause
        published = told_in(commit)
        auditor.forget()
        match cause:
            case Ticked():
                self._clocks[commit.partition] = max(self._clocks[commit.partition], cause.at)
                for org in cause.orgs:
                    auditor.settle(org, cause.at)
            case Decided():
                self._decided(commit, cause, published)
            case _:
                raise AssertionError(f"a transaction of {cause}")
        about = f"transaction {number}, of {cause.records if isinstance(cause, Decided) else cause}"
        compare(auditor, published, about)
        for record in commit.records[self._changelog]:
            if record.key != POSITION_KEY:
                compare_wallets(auditor, account_in(record), about)
        for request in published.requests:
            self._asked.setdefault((request.org_id, request.wallet), []).append(request.topup_request_id)

    def _decided(self, commit: Commit, cause: Decided, published: Effects) -> None:
        """Give every record that the ledger took to the auditor."""
        number = commit.partition
        taken = {source_of(entry) for entry in published.entries if entry.source_topic}
        settled = {(entry.org_id, entry.recorded_at) for entry in published.entries if not entry.source_topic}
        dead = dead_letters(commit)
        listed = self._listed(cause.prices_read)
        for topic, offset in cause.records:
            position = topic, number, offset
            record = self.world.kafka.logs[topic, number][offset]
            assert record is not None
            at = self._clocks[number] = max(self._clocks[number], record.at)
            if position in taken or (topic == LEGS and record.key == NOBODY and record.value not in self._legs):
                fields = decode_one(KINDS[topic], record.value, SCHEMAS)
                self.auditor.tell(fields, listed, record.at)
                self._take(KINDS[topic], fields, at)
            elif topic == PRICES:
                self._check_price(record, position, dead.get(position), cause)
            else:
                org = (record.key or b"").decode()
                if (org, at) in settled:  # what was due came before it was refused
                    self.auditor.settle(org, at)
                if dead.get(position) == "unknown_price":
                    self._check_unknown_price(record, cause, listed)
            if topic == LEGS:
                self._legs.add(record.value)

    # Prices.

    def _listed(self, ends: Ends) -> list[Listed]:
        return self._judged(ends)[0]

    def _judged(self, ends: Ends) -> tuple[list[Listed], set[LogPosition]]:
        if ends not in self._lists:
            logs = self.world.kafka.logs
            read, kept = ends[:PARTITIONS], ends[PARTITIONS:]
            self._lists[ends] = in_force(
                [logs[PRICES, number][:end] for number, end in enumerate(read)],
                [logs[KEPT, number][:end] for number, end in enumerate(kept)],
            )
        return self._lists[ends]

    def _check_price(self, record: Record, position: Source, code: str | None, cause: Decided) -> None:
        """A price is a dead letter when it ties with one that was in force when it was published."""
        price = None if record.value is None else read(record, *position[1:])
        if price is None:
            return
        refused = price.position in self._judged(cause.prices_read)[1]
        self.met["a price that ties"] += refused
        assert code == ("invalid_field" if refused else None), (price, code)

    def _check_unknown_price(self, record: Record, cause: Decided, listed: list[Listed]) -> None:
        """Nobody has priced it, and every price that was published before was read."""
        fields = decode_one("usage", record.value, SCHEMAS)
        self.auditor.tell(fields, listed)
        assert self.auditor.rated() is None, f"priced, and refused: {fields}"
        for number, end in enumerate(cause.prices_read[:PARTITIONS]):
            unread = self.world.kafka.logs[PRICES, number][end:]
            assert all(price is None or price.at > record.at for price in unread), f"prices unread before {fields}"
        self.met["an unknown price"] += 1

    # Records, by kind.

    def _take(self, kind: str, fields: Fields, at: int) -> None:
        match kind:
            case "usage":
                self._usage(fields, at)
            case "purchase":
                self._purchase(fields, at)
            case "transfer":
                self._transfer(fields, at)
            case "refund":
                self._refund(fields, at)
            case "hold":
                self._hold(fields, at)
            case "setting":
                self._setting(fields, at)
            case "leg":
                self._leg(fields, at)
            case _:
                raise AssertionError(f"no org takes a {kind}")

    def _usage(self, fields: Fields, at: int) -> None:
        found = self.auditor.org(fields["org_id"]).hold(fields["hold_id"] or "")
        ended_unread = found is not None and self.auditor.arrived_before(found[1].ends_at) and found[1].ends_at <= at
        self.met["usage that names a hold, read after its end"] += ended_unread
        with self.auditor.not_ended(fields["org_id"], fields["hold_id"], at):
            self._book_usage(fields, at)

    def _book_usage(self, fields: Fields, at: int) -> None:
        org, event_id = fields["org_id"], fields["event_id"]
        self.auditor.settle(org, at)
        if fields["voided"]:
            self.auditor.correct(org, event_id, fields["revision"], fields["wallet"] or "", None, at, scope(fields))
            return
        rated = self.auditor.rated()
        assert rated is not None, f"booked, and nobody priced it: {fields}"
        cost, unit = rated
        if fields["revision"]:
            self._note_correction(org, event_id, at)
            usage = self.auditor.org(org).usages.get(event_id)
            if usage is not None and usage.at + REFUND_WINDOW_US < at:  # refused before anything is rated
                unit = fields["wallet"] or ""
            self.auditor.correct(org, event_id, fields["revision"], unit, cost, at, scope(fields))
        else:
            self._note_rating(fields, rated)
            self.auditor.use(org, event_id, unit, cost, at, scope(fields), fields["hold_id"])

    def _purchase(self, fields: Fields, at: int) -> None:
        asked = self._asked.get((fields["org_id"], fields["wallet"]), [])
        request = fields["topup_request_id"]
        self.auditor.buy(
            fields["org_id"],
            fields["purchase_id"],
            fields["wallet"],
            fields["amount_nanos"],
            at,
            fields["kind"] or "purchased",
            fields["expires_at"],
            50 if fields["priority"] is None else fields["priority"],
            fields["actor"],
            asked.index(request) + 1 if request in asked else None,
            fields["status"] == "failed",
        )

    def _transfer(self, fields: Fields, at: int) -> None:
        names = fields["transfer_id"], fields["org_id"], fields["target_org_id"], fields["wallet"]
        self.auditor.send(*names, fields["amount_nanos"], fields["actor"], at)

    def _refund(self, fields: Fields, at: int) -> None:
        org, target, amount = fields["org_id"], fields["target_id"], fields["amount_nanos"]
        if fields["target"] == "usage":
            self._note_refund(fields, at)
            self.auditor.refund_usage(org, target, amount, at, fields["actor"])
        else:
            self.auditor.refund_purchase(org, target, amount, at)

    def _hold(self, fields: Fields, at: int) -> None:
        org, hold, unit, amount = fields["org_id"], fields["hold_id"], fields["wallet"], fields["amount_nanos"]
        match fields["action"]:
            case "place":
                terms = fields["operation"], fields["on_shortage"] or "reject", fields["expires_at"]
                self.auditor.place(org, hold, unit, amount, at, scope(fields), *terms)
            case "capture":
                late = self.auditor.org(org).timed_out.get(hold)
                in_time = late is not None and self.auditor.arrived_before(late[1].ends_at)
                self.met["a capture in time whose hold has timed out"] += in_time
                self.auditor.capture(org, hold, unit, amount, at)
            case _:
                self.auditor.release(org, hold, unit, at)

    def _setting(self, fields: Fields, at: int) -> None:
        body = json.loads(fields["body"])
        self.auditor.change(fields["org_id"], fields["kind"], body, fields["actor"], fields["actor_role"], at)

    def _leg(self, fields: Fields, at: int) -> None:
        match fields["kind"]:
            case "credit":
                self.auditor.arrive(fields["transfer_id"], at)
            case "return":
                self.auditor.come_back(fields["transfer_id"], at)
            case _:
                self.auditor.acknowledged(fields["org_id"], at)

    # What the run came to.

    def _note_rating(self, fields: Fields, rated: tuple[int, str]) -> None:
        """By which price a usage was rated: was it an own one, and would it have been another one now."""
        org = fields["org_id"]
        if fields["cost_nanos"] is not None:
            return
        self.met["usage rated by the list"] += 1
        auditor = self.auditor
        auditor.record = {**fields, "occurred_at": self.world.kafka.at}
        self.met["usage rated as of another price's time"] += auditor.rated() != rated
        auditor.record = fields
        if auditor.org(org).prices:
            prices, auditor.org(org).prices = auditor.org(org).prices, {}
            self.met["usage rated by an org's own price"] += auditor.rated() != rated
            auditor.org(org).prices = prices

    def _note_refund(self, fields: Fields, at: int) -> None:
        usage = self.auditor.org(fields["org_id"]).usages.get(fields["target_id"])
        if usage is not None and at - usage.at > 2 * REMEMBERED_US:
            named = "its time" if fields["target_recorded_at"] is not None else "a look at the end"
            self.met[f"a refund of forgotten usage by {named}"] += 1
            self.met["a refund of usage far back"] += lies_far(fields["target_id"])

    def _note_correction(self, org: str, event_id: str, at: int) -> None:
        usage = self.auditor.org(org).usages.get(event_id)
        if usage is not None:
            zone = self.auditor.org(org).zone
            for window in ("day", "week", "month"):
                ended = window_of(window, usage.first, zone) != window_of(window, at, zone)
                self.met[f"a correction in another {window}"] += ended


def told_in(commit: Commit) -> Effects:
    """What the ledger said in a transaction."""

    def published(key: str) -> list[Row]:
        return rows(key, commit.records.get(TOPICS.name(key), ()))

    alerts = [row for key in dict.fromkeys(ALERT_TOPICS.values()) for row in published(key)]
    unsaid = {"used_percent": None, "previous_percent": None}
    return Effects(
        [Entry.from_record(row) for row in published("ledger")],
        [msgspec.convert({**row, **unsaid}, Alert) for row in alerts],
        [msgspec.convert(row, HoldDecision) for row in published("decisions")],
        [msgspec.convert(row, TopupRequest) for row in published("topup_requests")],
    )


def source_of(entry: Entry) -> Source:
    """The place of the record that an entry is of."""
    return entry.source_topic, entry.source_partition, entry.source_offset


def dead_letters(commit: Commit) -> dict[Source, str]:
    """The codes of a transaction's dead letters, by the place of the record."""
    letters = commit.records.get(TOPICS.name("dead_letters"), ())
    return {source_in(letter): dict(letter.headers)["credits.error.code"].decode() for letter in letters}
