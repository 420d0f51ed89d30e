"""The independent auditor (tests/model/auditor.py) judges what the ledger has committed, transaction by transaction.

Rules of this file: the auditor is given what the ledger took, in the order in which it was decided, at the partition's
clock of that record; after each transaction both must have said the same (`tests.model.both.compare`). What the auditor
leaves to others it is not asked: whether a record can be read, is in its window and has a new id. Of what is refused
before an account is asked, it judges `unknown_price` and prices that tie.

Prices are those of the price topic as far as the worker had read them, worked out anew (`listed`), and an org's own by
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
from tests.model.both import Told, compare, compare_wallets
from tests.model.memory import TOPICS
from tests.simulation.checks import NOBODY, PRICES, Row, Source, account_in, rows, source_in
from tests.simulation.dated_auditor import DatedAuditor, Fields, scope
from tests.simulation.listed import SCHEMAS, Listed, Place, in_force, read
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
        self._lists: dict[Ends, tuple[list[Listed], set[Place]]] = {}

    def follow(self) -> None:
        """Every transaction, in the order in which they were committed."""
        for number, commit in enumerate(self.world.kafka.commits):
            self._transaction(number, commit)

    def _transaction(self, number: int, commit: Commit) -> None:
        auditor, cause = self.auditor, commit.cause
        told = told_in(commit)
        auditor.forget()
        match cause:
            case Ticked():
                self._clocks[commit.partition] = max(self._clocks[commit.partition], cause.at)
                for org in cause.orgs:
                    auditor.settle(org, cause.at)
            case Decided():
                self._decided(commit, cause, told)
            case _:
                raise AssertionError(f"a transaction of {cause}")
        about = f"transaction {number}, of {cause.records if isinstance(cause, Decided) else cause}"
        compare(auditor, told, about)
        for record in commit.records[self._changelog]:
            if record.key != POSITION_KEY:
                compare_wallets(auditor, account_in(record), about)
        for request in told.requests:
            self._asked.setdefault((request.org_id, request.wallet), []).append(request.topup_request_id)

    def _decided(self, commit: Commit, cause: Decided, told: Told) -> None:
        """Give every record that the ledger took to the auditor."""
        number = commit.partition
        taken = {source_of(entry) for entry in told.entries if entry.source_topic}
        settled = {(entry.org_id, entry.recorded_at) for entry in told.entries if not entry.source_topic}
        dead = dead_letters(commit)
        listed = self._listed(cause.prices_read)
        for topic, offset in cause.records:
            place = topic, number, offset
            record = self.world.kafka.logs[topic, number][offset]
            assert record is not None
            at = self._clocks[number] = max(self._clocks[number], record.at)
            if place in taken or (topic == LEGS and record.key == NOBODY and record.value not in self._legs):
                fields = decode_one(KINDS[topic], record.value, SCHEMAS)
                self.auditor.tell(fields, listed, record.at)
                self._take(KINDS[topic], fields, at)
            elif topic == PRICES:
                self._check_price(record, place, dead.get(place), cause)
            else:
                org = (record.key or b"").decode()
                if (org, at) in settled:  # what was due came before it was refused
                    self.auditor.settle(org, at)
                if dead.get(place) == "unknown_price":
                    self._check_unknown_price(record, cause, listed)
            if topic == LEGS:
                self._legs.add(record.value)

    # Prices.

    def _listed(self, ends: Ends) -> list[Listed]:
        return self._judged(ends)[0]

    def _judged(self, ends: Ends) -> tuple[list[Listed], set[Place]]:
        if ends not in self._lists:
            logs = self.world.kafka.logs
            read, kept = ends[:PARTITIONS], ends[PARTITIONS:]
            self._lists[ends] = in_force(
                [logs[PRICES, number][:end] for number, end in enumerate(read)],
                [logs[KEPT, number][:end] for number, end in enumerate(kept)],
            )
        return self._lists[ends]

    def _check_price(self, record: Record, place: Source, code: str | None, cause: Decided) -> None:
        """A price is a dead letter when it ties with one that was in force when it was published."""
        price = None if record.value is None else read(record, *place[1:])
        if price is None:
            return
        refused = price.place in self._judged(cause.prices_read)[1]
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

    def _usage(self, said: Fields, at: int) -> None:
        with self.auditor.not_ended(said["org_id"], said["hold_id"], at):
            self._book_usage(said, at)

    def _book_usage(self, said: Fields, at: int) -> None:
        org, event_id = said["org_id"], said["event_id"]
        self.auditor.settle(org, at)
        if said["voided"]:
            self.auditor.correct(org, event_id, said["revision"], said["wallet"] or "", None, at, scope(said))
            return
        rated = self.auditor.rated()
        assert rated is not None, f"booked, and nobody priced it: {said}"
        cost, unit = rated
        if said["revision"]:
            self._note_correction(org, event_id, at)
            usage = self.auditor.org(org).usages.get(event_id)
            if usage is not None and usage.at + REFUND_WINDOW_US < at:  # refused before anything is rated
                unit = said["wallet"] or ""
            self.auditor.correct(org, event_id, said["revision"], unit, cost, at, scope(said))
        else:
            self._note_rating(said, rated)
            self.auditor.use(org, event_id, unit, cost, at, scope(said), said["hold_id"])

    def _purchase(self, said: Fields, at: int) -> None:
        asked = self._asked.get((said["org_id"], said["wallet"]), [])
        request = said["topup_request_id"]
        self.auditor.buy(
            said["org_id"],
            said["purchase_id"],
            said["wallet"],
            said["amount_nanos"],
            at,
            said["kind"] or "purchased",
            said["expires_at"],
            50 if said["priority"] is None else said["priority"],
            said["actor"],
            asked.index(request) + 1 if request in asked else None,
            said["status"] == "failed",
        )

    def _transfer(self, said: Fields, at: int) -> None:
        names = said["transfer_id"], said["org_id"], said["target_org_id"], said["wallet"]
        self.auditor.send(*names, said["amount_nanos"], said["actor"], at)

    def _refund(self, said: Fields, at: int) -> None:
        org, target, amount = said["org_id"], said["target_id"], said["amount_nanos"]
        if said["target"] == "usage":
            self._note_refund(said, at)
            self.auditor.refund_usage(org, target, amount, at, said["actor"])
        else:
            self.auditor.refund_purchase(org, target, amount, at)

    def _hold(self, said: Fields, at: int) -> None:
        org, hold, unit, amount = said["org_id"], said["hold_id"], said["wallet"], said["amount_nanos"]
        match said["action"]:
            case "place":
                terms = said["operation"], said["on_shortage"] or "reject", said["expires_at"]
                self.auditor.place(org, hold, unit, amount, at, scope(said), *terms)
            case "capture":
                self.auditor.capture(org, hold, unit, amount, at)
            case _:
                self.auditor.release(org, hold, unit, at)

    def _setting(self, said: Fields, at: int) -> None:
        body = json.loads(said["body"])
        self.auditor.change(said["org_id"], said["kind"], body, said["actor"], said["actor_role"], at)

    def _leg(self, said: Fields, at: int) -> None:
        match said["kind"]:
            case "credit":
                self.auditor.arrive(said["transfer_id"], at)
            case "return":
                self.auditor.come_back(said["transfer_id"], at)
            case _:
                self.auditor.acknowledged(said["org_id"], at)

    # What the run came to.

    def _note_rating(self, said: Fields, rated: tuple[int, str]) -> None:
        """By which price a usage was rated: was it an own one, and would it have been another one now."""
        org = said["org_id"]
        if said["cost_nanos"] is not None:
            return
        self.met["usage rated by the list"] += 1
        auditor = self.auditor
        auditor.record = {**said, "occurred_at": self.world.kafka.at}
        self.met["usage rated as of another price's time"] += auditor.rated() != rated
        auditor.record = said
        if auditor.org(org).prices:
            prices, auditor.org(org).prices = auditor.org(org).prices, {}
            self.met["usage rated by an org's own price"] += auditor.rated() != rated
            auditor.org(org).prices = prices

    def _note_refund(self, said: Fields, at: int) -> None:
        usage = self.auditor.org(said["org_id"]).usages.get(said["target_id"])
        if usage is not None and at - usage.at > 2 * REMEMBERED_US:
            named = "its time" if said["target_recorded_at"] is not None else "a look at the end"
            self.met[f"a refund of forgotten usage by {named}"] += 1
            self.met["a refund of usage far back"] += lies_far(said["target_id"])

    def _note_correction(self, org: str, event_id: str, at: int) -> None:
        usage = self.auditor.org(org).usages.get(event_id)
        if usage is not None:
            zone = self.auditor.org(org).zone
            for window in ("day", "week", "month"):
                ended = window_of(window, usage.first, zone) != window_of(window, at, zone)
                self.met[f"a correction in another {window}"] += ended


def told_in(commit: Commit) -> Told:
    """What the ledger said in a transaction."""

    def told(key: str) -> list[Row]:
        return rows(key, commit.records.get(TOPICS.name(key), ()))

    alerts = [row for key in dict.fromkeys(ALERT_TOPICS.values()) for row in told(key)]
    unsaid = {"used_percent": None, "previous_percent": None}
    return Told(
        [Entry.from_record(row) for row in told("ledger")],
        [msgspec.convert({**row, **unsaid}, Alert) for row in alerts],
        [msgspec.convert(row, HoldDecision) for row in told("decisions")],
        [msgspec.convert(row, TopupRequest) for row in told("topup_requests")],
    )


def source_of(entry: Entry) -> Source:
    """The place of the record that an entry is of."""
    return entry.source_topic, entry.source_partition, entry.source_offset


def dead_letters(commit: Commit) -> dict[Source, str]:
    """The codes of a transaction's dead letters, by the place of the record."""
    letters = commit.records.get(TOPICS.name("dead_letters"), ())
    return {source_in(letter): dict(letter.headers)["credits.error.code"].decode() for letter in letters}
