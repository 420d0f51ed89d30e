"""Re-rating against Kafka: read the ledger and the prices, send corrections, wait until they are booked.

Rules of this file:
- The ledger is read from its start up to an end that is fixed first: what an org was set to has no age.
- Nothing is sent before everything is worked out.
- A run that stops half-way is started again. It works out what is left: what is booked counts, what is sent and not
  booked yet comes again under the same id, and is dropped by the ledger.
- Once all is sent it waits for the ledger, so that the next run, or the verdict, sees what this one has changed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from schemas.codec import decode_columns, rows_of
from schemas.enums import EntryKind, InputKind
from schemas.events import Refund
from schemas.topics import Topics
from streams.client import CreditsProducer, committed_ends, read_range
from streams.errors import OperatorError
from streams.ledger.entry import Entry
from streams.processing.price_ties import published_prices
from streams.rerating.booked import BookedUsages, Filter
from streams.rerating.corrections import price_set

if TYPE_CHECKING:
    from streams.kafka.registry import Registry
    from streams.settings import Settings

Advance = Callable[[int], None]
"""Told how many more are done."""

KINDS: Final = pa.array([EntryKind.SETTING, EntryKind.USAGE, EntryKind.CORRECTION], pa.string())
DAY_US: Final = 86_400 * 10**6
ACCEPTED_US: Final = 30 * DAY_US
"""Younger than the 35 days after which the ledger refuses a record about money."""

BOOKED_WAIT_MAX_S: Final = 600.0
"""Without any correction booked for so long, the ledger is not running."""

LOOK_INTERVAL_S: Final = 0.2
POLL_EVERY: Final = 500


class NotBookedError(OperatorError):
    """Corrections were sent and the ledger has not booked them."""

    code = "not_booked"


@dataclass(frozen=True, slots=True)
class Found:
    """What re-rating comes to, before anything is sent."""

    usages: BookedUsages
    price_set: str
    occurred_at: int
    """Of the corrections: when the newest price was published, so that a second run sends the same bytes; where the
    ledger would find that too old, the start of the day."""
    ends: dict[tuple[str, int], int]
    """Of the ledger, as far as it was read."""
    balances: dict[str, dict[str, Any]]


def find(
    settings: Settings, registry: Registry, meant: Filter, at: int, advance: Advance = lambda _count: None
) -> Found:
    """Read prices, balances and the ledger; `at`: now. Raises KafkaException, `KafkaUnavailableError`."""
    topics = Topics(settings.namespace)
    log = published_prices(settings, registry)
    usages = BookedUsages(meant, log.prices)
    ends = committed_ends(settings, [topics.name("ledger")])
    for messages in read_range(settings, {}, ends):
        batch = decode_columns("entry", [message.value() for message in messages], registry).batch
        for row in rows_of(batch.filter(_wanted(batch, meant))):
            usages.add(Entry.from_record({name: value for name, value in row.items() if name != "entry_id"}))
        advance(len(messages))
    newest = log.newest_ms * 1_000
    return Found(
        usages,
        price_set(log.prices),
        newest if newest > at - ACCEPTED_US else at - at % DAY_US,
        dict(ends),
        _balances(settings, registry, topics),
    )


def _wanted(batch: pa.RecordBatch, meant: Filter) -> pa.Array:
    """Settings, and the usage and corrections of the time that is meant: a correction has its usage's time."""
    kinds = batch.column("kind")
    at = batch.column("occurred_at").cast(pa.int64())
    in_time = pc.and_(pc.greater_equal(at, meant.since), pc.less(at, meant.until))
    return pc.and_(pc.is_in(kinds, KINDS), pc.or_(in_time, pc.equal(kinds, EntryKind.SETTING)))


def _balances(settings: Settings, registry: Registry, topics: Topics) -> dict[str, dict[str, Any]]:
    newest: dict[bytes, bytes] = {}
    for messages in read_range(settings, {}, committed_ends(settings, [topics.name("balances")])):
        newest.update((message.key() or b"", message.value() or b"") for message in messages)
    return {row["org_id"]: row for row in rows_of(decode_columns("balance", list(newest.values()), registry).batch)}


def send(settings: Settings, registry: Registry, records: Iterable[Refund], advance: Advance) -> None:
    """Send corrections; returns when Kafka has them all. Raises `DeliveryError`."""
    with CreditsProducer(settings, registry=registry) as producer:
        for number, record in enumerate(records):
            producer.produce(InputKind.REFUND, record)
            if number % POLL_EVERY == 0:
                producer.poll()
            advance(1)
        producer.flush()


def wait_until_booked(
    settings: Settings, registry: Registry, found: Found, ids: Sequence[tuple[str, str]], advance: Advance
) -> int:
    """Wait until the ledger has an entry for each id (org, refund id); returns how many of them it has refused.

    Raises `NotBookedError` when nothing more is booked for `BOOKED_WAIT_MAX_S`.
    """
    topic = Topics(settings.namespace).name("ledger")
    missing, refused, starts = set(ids), 0, dict(found.ends)
    heard_at = time.monotonic()
    while missing:
        ends = committed_ends(settings, [topic])
        before = len(missing)
        for messages in read_range(settings, starts, ends):
            columns = decode_columns("entry", [message.value() for message in messages], registry).batch
            names = (columns.column(name).to_pylist() for name in ("org_id", "event_id", "kind"))
            for org_id, event_id, kind in zip(*names, strict=True):
                if (org_id, event_id) in missing:
                    missing.discard((org_id, event_id))
                    refused += kind == EntryKind.REJECTED
        starts = dict(ends)
        if len(missing) < before:
            advance(before - len(missing))
            heard_at = time.monotonic()
        elif time.monotonic() - heard_at > BOOKED_WAIT_MAX_S:
            raise NotBookedError(
                f"{len(missing):,} corrections are sent and not booked", "see that a worker runs, and run it again"
            )
        else:
            time.sleep(LOOK_INTERVAL_S)
    return refused
