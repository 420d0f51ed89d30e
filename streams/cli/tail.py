"""`credits tail ledger|alerts|dead-letters|decisions|topup-requests`: the last, and what comes after, until Ctrl-C."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from streams.cli.console import load_settings, note, say, say_json
from streams.cli.tail_lines import LINES as LINE_OF
from streams.cli.tail_lines import Row, What

if TYPE_CHECKING:
    from confluent_kafka import Message

    from streams.kafka.consume import Offsets
    from streams.kafka.registry import Registry
    from streams.settings import Settings

app = typer.Typer()

LINES = 10
WAIT_S = 0.5
# Offsets are taken by records and by markers of transactions, one for each batch: reading back twice as far as
# wanted, and some, finds enough in a ledger whose batches hold at least one entry each.
MARKERS_PER_RECORD = 2
FURTHER = 16


@app.command()
def tail(
    what: Annotated[
        What, typer.Argument(help="ledger, alerts, dead-letters, decisions (the answers to holds) or topup-requests.")
    ],
    org: Annotated[str | None, typer.Option("--org", help="Only this organisation.")] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the last to begin with.")] = LINES,
    everything: Annotated[bool, typer.Option("--from-beginning", help="Begin with the first.")] = False,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", help="Wait for more, until Ctrl-C.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document a line.")] = False,
) -> None:
    """Show the last ones, then follow. Committed records only."""
    from streams.client import Fetch, Follower, committed_ends, committed_starts, read_range
    from streams.kafka import topics_admin
    from streams.kafka.registry import connect_registry

    settings = load_settings()
    topics_admin.connect(settings)
    topics = _topics(settings, what)
    rows_of = _decoder(what, connect_registry(settings))
    ends = committed_ends(settings, topics)
    first = committed_starts(settings, topics)
    key = None if org is None else org.encode()

    def show(row: Row) -> None:
        if as_json:
            say_json(_json_line(row))
        else:
            say(LINE_OF[what](row))

    def read(starts: Offsets) -> list[Row]:
        found: list[Row] = []
        for batch in read_range(settings, starts, ends):
            found += rows_of([message for message in batch if key is None or message.key() == key])
            found = found if everything else found[-max(lines, 1) * 100 :]
        return found

    past = read(first) if everything else _last(read, first, ends, lines)
    past.sort(key=lambda row: (row["recorded_at"], row["partition"], row["offset"]))
    for row in past if everything else past[max(0, len(past) - lines) :]:
        show(row)
    if not past and (lines or everything):
        note(f"none yet{'' if org is None else f' of {org}'}" + ("; waiting, Ctrl-C ends it" if follow else ""))
    if not follow:
        return
    sys.stdout.flush()
    try:
        with Follower(settings, topics, begin=ends, fetch=Fetch(silence_max_s=settings.read_timeout_s)) as follower:
            while True:
                messages = follower.next(WAIT_S)
                for row in rows_of([message for message in messages if key is None or message.key() == key]):
                    show(row)
                sys.stdout.flush()
    except KeyboardInterrupt:  # how a tail is meant to end
        return


def _topics(settings: Settings, what: What) -> list[str]:
    from schemas.topics import Topics

    topics = Topics(settings.namespace)
    return [topics.name(key) for key in _keys(what)]


def _keys(what: What) -> list[str]:
    """The topics of it, as the catalogue calls them; all are of one record."""
    from schemas.topics import ALERT_TOPICS

    return list(dict.fromkeys(ALERT_TOPICS.values())) if what is What.ALERTS else [what.replace("-", "_")]


def _last(read: Callable[[Offsets], list[Row]], first: Offsets, ends: Offsets, lines: int) -> list[Row]:
    """At least the last `lines` of all partitions together. Those of one org may lie far back: looks ever further."""
    back = MARKERS_PER_RECORD * lines + 100
    while lines:
        starts = {topic_partition: max(first[topic_partition], end - back) for topic_partition, end in ends.items()}
        found = read(starts)
        if len(found) >= lines or starts == first:
            return found
        back *= FURTHER
    return []


def _decoder(what: What, registry: Registry) -> Callable[[Sequence[Message]], list[Row]]:
    from schemas.codec import decode_columns, rows_of
    from schemas.topics import BY_KEY
    from streams.client.dead_letters import dead_letter_of

    def letters(messages: Sequence[Message]) -> list[Row]:
        rows = []
        for message in messages:
            letter = dead_letter_of(message)
            rows.append(
                {
                    "id": letter.name,
                    "code": letter.code,
                    "message": letter.message,
                    "topic": letter.topic,
                    "org_id": (letter.key or b"").decode(errors="backslashreplace"),
                    "recorded_at": letter.at_ms * 1_000,
                }
            )
        return rows

    def records(messages: Sequence[Message]) -> list[Row]:
        record = BY_KEY[_keys(what)[0]].record
        assert record is not None, "dead letters are read apart"
        decoded = decode_columns(record, [message.value() for message in messages], registry)
        return rows_of(decoded.batch)

    def placed(messages: Sequence[Message]) -> list[Row]:
        rows = letters(messages) if what is What.DEAD_LETTERS else records(messages)
        for row, message in zip(rows, messages, strict=True):
            # A decision says no time of its own: Kafka's is when the ledger wrote it.
            written_at = message.timestamp()[1] * 1_000
            row["recorded_at"] = row.get("recorded_at", row.get("occurred_at", written_at))
            row["partition"], row["offset"] = message.partition(), message.offset()
        return rows

    return placed


def _json_line(row: Row) -> str:
    import orjson

    from streams.kafka.balances import iso_time

    times = {name: iso_time(value) for name, value in row.items() if name.endswith("_at") and isinstance(value, int)}
    return orjson.dumps({**row, **times}, default=str).decode()
