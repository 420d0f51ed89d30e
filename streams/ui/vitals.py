"""The status line on top of every page: is everything right?

The rules of this file:
1. A page never waits for it: it shows what was found last. Asking for it begins the next look, in a thread, when the
   last one is older than `FRESH_S`; so nothing is asked while nobody looks.
2. Green is said only of what was looked at within `BELIEVED_S`, and of nothing that failed. Before that it is grey.
3. The ledger's lag is the records of all input topics that no worker has committed; the projection's is the records of
   the ledger topic that ClickHouse does not have.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import structlog
from clickhouse_connect.driver.exceptions import ClickHouseError
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from projections import queries
from projections.queries import Query
from projections.reads import Reads, TooWideError
from schemas.enums import InputKind
from schemas.topics import INPUT_TOPICS, Topics
from streams.errors import OperatorError
from streams.kafka.clients import admin_config
from streams.kafka.reader import committed_ends
from streams.ui.shown import ago, count, moment

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

    from streams.settings import Settings

log = structlog.get_logger(__name__)

FRESH_S: Final = 4.0
BELIEVED_S: Final = 30.0
BEHIND_MAX: Final = 10_000
"""Records behind at which a lag is worth a look; a busy ledger is some hundreds behind at any time."""
ANSWER_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Look:
    """What was found, and when (monotonic seconds). None: it could not be asked."""

    at_s: float = -1e9
    ledger_behind: int | None = None
    projection_behind: int | None = None
    projection_as_of: int | None = None
    open_letters: int | None = None


@dataclass(frozen=True, slots=True)
class Verified:
    """The last verification that was run from the pages."""

    at: datetime
    ok: bool
    entries: int
    differences: int


def open_letters() -> Query:
    """How many dead letters were neither sent again, nor are older than the view."""
    return Query("SELECT count() AS open FROM v_dead_letters WHERE state = 'open'", {})


class Vitals:
    """Looks when it is asked, and is asked from the event loop and from threads."""

    def __init__(self, settings: Settings, client: Client) -> None:
        self._settings = settings
        topics = Topics(settings.namespace)
        self._ledger = topics.name("ledger")
        self._inputs = [topics.name(key) for kind, key in INPUT_TOPICS.items() if kind is not InputKind.PRICE]
        self._reads = Reads(client, self._ledger)
        self._looking = threading.Lock()
        self._found = Look()
        self._verified: Verified | None = None

    def keep(self, verified: Verified) -> None:
        """Show this verification from now on."""
        self._verified = verified

    @property
    def found(self) -> Look:
        """What was found last; begins to look again when that is due."""
        if time.monotonic() - self._found.at_s > FRESH_S and self._looking.acquire(blocking=False):
            threading.Thread(target=self._look_once, name="status line", daemon=True).start()
        return self._found

    def shown(self) -> Mapping[str, Any]:
        """The parts of the line, each with its colour, icon, text and where it leads."""
        return {"lines": lines_of(self.found, self._verified, time.monotonic(), datetime.now(UTC))}

    def look(self) -> Look:
        """Look now. Blocks; what cannot be asked is None."""
        found = Look(time.monotonic())
        for step in (self._kafka, self._clickhouse):
            try:
                found = step(found)
            except (KafkaException, OperatorError, ClickHouseError, TooWideError) as error:
                log.debug("a part of the status line is not known", error=str(error))
        return found

    def _look_once(self) -> None:
        try:
            self._found = self.look()
        finally:
            self._looking.release()

    def _kafka(self, found: Look) -> Look:
        ends = committed_ends(self._settings, self._inputs)
        admin = AdminClient({**admin_config(self._settings), "log_level": 0})
        wanted = ConsumerGroupTopicPartitions(
            self._settings.app_id, [TopicPartition(topic, partition) for topic, partition in ends]
        )
        answer = admin.list_consumer_group_offsets([wanted], request_timeout=ANSWER_S)
        group = answer[self._settings.app_id].result(ANSWER_S)
        done = {(each.topic, each.partition): each.offset for each in group.topic_partitions}
        behind = sum(max(0, end - max(0, done.get(place, 0))) for place, end in ends.items())
        return replace(found, ledger_behind=behind)

    def _clickhouse(self, found: Look) -> Look:
        rows = [row for row in self._reads.rows(queries.positions()) if row["topic"] == self._ledger]
        [letters] = self._reads.rows(open_letters())
        found = replace(found, open_letters=letters["open"])
        ends = committed_ends(self._settings, [self._ledger])
        done = {row["partition"]: row["position"] for row in rows}
        behind = sum(max(0, end - done.get(partition, 0)) for (_, partition), end in ends.items())
        as_of = max((row["as_of"] for row in rows), default=None)
        return replace(found, projection_behind=behind, projection_as_of=as_of)


Line = dict[str, str]


def lines_of(found: Look, verified: Verified | None, now_s: float, now: datetime) -> list[Line]:
    """The line's parts. Green, orange and red each have an icon and words of their own."""
    believed = now_s - found.at_s <= BELIEVED_S
    return [
        _lag("ledger", found.ledger_behind, believed, "records that producers sent and no worker has booked yet"),
        _projection(found, believed),
        _letters(found.open_letters, believed),
        _verification(verified, now),
    ]


def _line(colour: str, text: str, means: str, address: str = "/ui/status") -> Line:
    icon = {"good": "✓", "warn": "▲", "bad": "✕", "soft": "…"}[colour]
    return {"colour": colour, "icon": icon, "text": text, "means": means, "address": address}


def _lag(name: str, behind: int | None, believed: bool, means: str) -> Line:
    if behind is None or not believed:
        return _line("soft", f"{name} lag not known", means)
    if behind == 0:
        return _line("good", f"{name} up to date", means)
    return _line("warn" if behind > BEHIND_MAX else "good", f"{name} {count(behind)} behind", means)


def _projection(found: Look, believed: bool) -> Line:
    means = "entries of the ledger that tables and charts do not show yet; balances do not wait for it"
    line = _lag("projection", found.projection_behind, believed, means)
    if found.projection_as_of is not None and line["colour"] != "soft":
        line["text"] += f", as of {moment(found.projection_as_of)[11:]} UTC"
        line["means"] = f"{means}; newest entry {moment(found.projection_as_of)} UTC"
    return line


def _letters(letters: int | None, believed: bool) -> Line:
    means = "records that could not be booked and were not sent again"
    if letters is None or not believed:
        return _line("soft", "dead letters not known", means, "/ui/dead-letters")
    text = "no dead letters open" if letters == 0 else f"{count(letters)} dead letter{'s' if letters > 1 else ''} open"
    return _line("good" if letters == 0 else "warn", text, means, "/ui/dead-letters?state=open")


def _verification(verified: Verified | None, now: datetime) -> Line:
    means = "the whole ledger counted again by other code, and compared with balances and ClickHouse"
    if verified is None:
        return _line("soft", "not verified since the start", means)
    when = f"{ago(verified.at, now)} ago"
    if verified.ok:
        return _line("good", f"verified {when}", means)
    return _line(
        "bad", f"{count(verified.differences)} difference{'s' if verified.differences > 1 else ''}, {when}", means
    )
