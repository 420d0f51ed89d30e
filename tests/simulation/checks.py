"""What must hold of a run, read from what Kafka has committed and from nothing else.

At every cut, that is after each transaction of any partition: the fold of the ledger by the code of `credits verify`,
which shares none with the ledger, finds no difference; every unit adds up; the accounts in the changelog say what the
fold says; positions only grow. At the end: every record has ended once, every transfer has arrived or come back, every
hold that was granted was resolved once and nothing is held, no alert id stands twice and each line is crossed in epochs
1, 2, 3…
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from schemas.codec import decode_columns, rows_of
from schemas.topics import ALERT_TOPICS, BY_KEY
from streams.engine.accounts import Accounts
from streams.engine.internal_topics import changelog_topic
from streams.engine.positions import POSITION_KEY, PositionRecord, decode_position
from streams.ledger.account import Account, decode_account
from streams.verify.fold import LedgerFold
from tests.model.memory import TOPICS
from tests.simulation.listed import SCHEMAS
from tests.simulation.virtual_kafka import Commit, Record
from tests.simulation.world import PARTITIONS, World

Row = dict[str, Any]
Hold = tuple[str, str]
"""Org and hold."""
Source = tuple[str, int, int]
"""Topic, partition and offset of an input record."""

NOBODY = b"nobody"
PRICES = TOPICS.name("prices")

WITHOUT_EPOCHS = {
    "credit_free_expired",
    "credits_expiring",
    "credit_resolved",
    "credit_balance_restored",
    "credit_auto_recharge_triggered",
    "credit_purchase_failed",
    "credit_auto_recharge_capped",
}
"""Kinds of alert that tell of something that happens, not of a line that is crossed."""


class Cuts:
    """What is committed, transaction by transaction."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.changelog = changelog_topic(world.settings.app_id)
        self.fold = LedgerFold()
        self.accounts: dict[str, Account] = {}
        self.positions = {number: PositionRecord() for number in range(PARTITIONS)}
        self.entries: list[Row] = []
        self.alerts: list[Row] = []
        self.outcomes: dict[int, Counter[str]] = defaultdict(Counter)

    def follow(self) -> None:
        """Check every cut, then the end."""
        for commit in self.world.kafka.commits:
            self._cut(commit)
        self.fold.finish()
        self._no_differences()
        assert not list(self.fold.unfinished()), "a transfer has not ended"
        for org, account in self.accounts.items():
            assert not account.in_transit, f"{org} waits for the end of {account.in_transit}"
        self._check_inputs()
        check_holds(self.entries, self.accounts, self.fold)
        check_crossings(self.alerts)
        check_used_again(self.entries, self.world.used_again)

    def _cut(self, commit: Commit) -> None:
        ledger = commit.records.get(TOPICS.name("ledger"), ())
        if ledger:
            batch = decode_columns("entry", [record.value for record in ledger], SCHEMAS).batch
            self.fold.add(batch)
            self.entries += rows_of(batch)
        for key in dict.fromkeys(ALERT_TOPICS.values()):
            self.alerts += rows(key, commit.records.get(TOPICS.name(key), ()))
        for record in commit.records[self.changelog]:
            assert record.value is not None
            if record.key == POSITION_KEY:
                self._position(commit.partition, decode_position(record.value))
            else:
                account = account_in(record)
                self._account(account.org_id, account)
        self._no_differences()
        for unit in self.fold.conservation():
            assert not unit.left_over, f"{unit.left_over} nano-units too many: {unit}"

    def _no_differences(self) -> None:
        found = [str(each) for each in self.fold.differences.kept]
        assert not found, found

    def _account(self, org: str, account: Account) -> None:
        """The state in the changelog is what the ledger says."""
        self.accounts[org] = account
        folded = self.fold.orgs[org]
        assert account.seq == folded.seq, f"{org}: the account is of entry {account.seq}, the ledger of {folded.seq}"
        for unit, wallet in account.wallets.items():
            known = folded.wallets.get(unit)
            there = (0, 0) if known is None else (known.settled, known.held)
            assert (wallet.settled, wallet.held) == there, f"{org} {unit}: {wallet.settled}, {wallet.held} for {there}"

    def _position(self, number: int, position: PositionRecord) -> None:
        before, self.positions[number] = self.positions[number], position
        assert position.commit == before.commit + 1, f"transaction {position.commit} follows {before.commit}"
        assert position.clock_at >= before.clock_at
        for topic, offset in before.next_offsets.items():
            assert position.next_offsets[topic] >= offset, f"the position in {topic}/{number} goes back to {offset}"

    def _check_inputs(self) -> None:
        """Every record is one of entry, rejected entry, dead letter, exact duplicate; and is counted as that."""
        sources = self._sources()
        for topic in self.world.workers[0].processor.inputs:
            for number in range(PARTITIONS):
                log = self.world.kafka.logs[topic, number]
                assert not any(log[self.positions[number].next_offsets.get(topic, 0) :]), (
                    f"{topic}/{number} is not read to its end"
                )
                ended: Counter[str] = Counter()
                booked: set[bytes | None] = set()
                for offset, record in enumerate(log):
                    if record is None:
                        continue
                    position = topic, number, offset
                    ends = [name for name, places in sources.items() for _ in range(places[position])]
                    assert len(ends) <= 1, f"{position} ended as {ends}"
                    if ends:
                        ended[ends[0]] += 1
                        booked.add(record.value)
                    elif topic == PRICES:  # prices are the worker's to know, and no org's
                        ended["entries"] += 1
                    elif (
                        record.key == NOBODY and record.value not in booked
                    ):  # credits go back, and leave no entry here
                        ended["entries"] += 1
                        booked.add(record.value)
                    else:
                        assert record.value in booked, f"{position} ended as nothing"
                        ended["duplicates"] += 1
                counted = self.positions[number].counters.get(topic, {})
                assert ended == Counter(counted), f"{topic}/{number}: {dict(ended)}, counted as {counted}"
                self.outcomes[number].update({f"{topic} {name}": count for name, count in ended.items()})

    def _sources(self) -> dict[str, Counter[Any]]:
        """How often the place of a record is the source of something, by what it ended as."""
        entries: Counter[Any] = Counter()
        rejected: Counter[Any] = Counter()
        for row in self.entries:
            if row["source_topic"]:
                position = row["source_topic"], row["source_partition"], row["source_offset"]
                (rejected if row["kind"] == "rejected" else entries)[position] += 1
        dead: Counter[Any] = Counter()
        for letter in self.world.kafka.committed(TOPICS.name("dead_letters")):
            position = source_in(letter)
            dead[position] += 1
            record = self.world.kafka.logs[position[0], position[1]][position[2]]
            assert record is not None
            assert (record.key, record.value) == (letter.key, letter.value), (
                f"{position} is not what the dead letter holds"
            )
        return {"entries": entries, "rejected": rejected, "dead_letters": dead}


def account_in(record: Record) -> Account:
    """The account in a record of the changelog."""
    assert record.key is not None
    assert record.value is not None
    org = record.key.decode()
    state = Accounts({org: record.value}).get(org)
    assert state is not None
    return decode_account(state)


def source_in(letter: Record) -> Source:
    """The place of the record that a dead letter is of."""
    headers = {name.removeprefix("__streams.errors."): text.decode() for name, text in letter.headers}
    return headers["topic"], int(headers["partition"]), int(headers["offset"])


def rows(key: str, records: Sequence[Record]) -> list[Row]:
    """Records of the topic that the catalogue calls `key`, decoded."""
    name = BY_KEY[key].record
    assert name is not None
    if not records:
        return []
    decoded = decode_columns(name, [record.value for record in records], SCHEMAS)
    assert not decoded.failures
    return rows_of(decoded.batch)


def check_holds(entries: Sequence[Row], accounts: Mapping[str, Account], fold: LedgerFold) -> None:
    """No hold leaks: each that was granted was resolved exactly once, and 25 hours after the last nothing is held."""
    granted: set[Hold] = set()
    resolved: Counter[Hold] = Counter()
    aside: dict[Hold, tuple[str, int]] = {}
    for row in entries:
        hold = row["org_id"], row["hold_id"]
        match row["kind"]:
            case "hold":
                assert hold not in granted, f"{hold} was granted twice"
                granted.add(hold)
                aside[hold] = row["wallet"], json.loads(row["details"])["amount_nanos"]
            case "hold_release":
                resolved[hold] += 1
                aside.pop(hold, None)
            case "usage" if row["amount_nanos"] and hold in aside and aside[hold][0] == row["wallet"]:
                left = aside[hold][1] + row["amount_nanos"]
                aside[hold] = row["wallet"], left
                if left <= 0:  # all of it was taken, and there is nothing to release
                    resolved[hold] += 1
                    del aside[hold]
    leaked = granted - resolved.keys()
    assert not leaked, f"granted and never resolved: {leaked}"
    assert resolved.keys() <= granted
    assert max(resolved.values(), default=1) == 1, f"resolved more than once: {resolved - Counter(granted)}"
    for org, account in accounts.items():
        assert not account.holds, f"{org} has holds: {list(account.holds)}"
        assert not account.hold_ends, f"{org} waits for the end of holds: {account.hold_ends}"
        assert not any(wallet.held for wallet in account.wallets.values()), f"{org} has something held"
    for org, folded in fold.orgs.items():
        assert not folded.holds
        assert not any(wallet.held for wallet in folded.wallets.values()), f"{org} has something held"


def check_used_again(entries: Sequence[Row], names: set[str]) -> None:
    """A purchase's id that was used again after its window was decided again: booked, or refused by a rule."""
    decided = Counter(row["event_id"] for row in entries if row["kind"] == "purchase" or row["reason"])
    once = {name for name in names if decided[name] < 2}
    assert not once, f"used again, and not decided again: {once}"


def check_crossings(alerts: Sequence[Row]) -> None:
    """Each crossing once, none left out; depletion and restoration take turns."""
    ids = Counter(alert["alert_id"] for alert in alerts)
    assert max(ids.values(), default=0) <= 1, f"alerts that stand twice: {[name for name, n in ids.items() if n > 1]}"
    epochs: Counter[tuple[Any, ...]] = Counter()
    depleted: dict[tuple[str, str], bool] = {}
    for alert in sorted(alerts, key=lambda alert: (alert["org_id"], alert["entry_seq"])):
        where = alert["org_id"], alert["wallet"]
        if alert["kind"] not in WITHOUT_EPOCHS:
            line = *where, alert["kind"], alert["rule_id"], alert["rule_version"]
            epochs[line] += 1
            assert alert["epoch"] == epochs[line], f"{line}: epoch {alert['epoch']} follows {epochs[line] - 1}"
        if alert["kind"] in ("credit_balance_depleted", "credit_balance_restored"):
            empty = alert["kind"] == "credit_balance_depleted"
            assert depleted.get(where, False) is not empty, f"{where}: {alert['kind']} twice"
            depleted[where] = empty
