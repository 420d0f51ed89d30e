"""`credits tail ledger|alerts|dead-letters`: the last ones, and what comes after them, until Ctrl-C."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.cli.console import load_settings, note

if TYPE_CHECKING:
    from confluent_kafka import Message

    from streams.client.reader import Offsets
    from streams.registry import Registry
    from streams.settings import Settings

app = typer.Typer()

LINES = 10
WAIT_S = 0.5
# Offsets are taken by records and by markers of transactions, one for each batch: reading back twice as far as
# wanted, and some, finds enough in a ledger whose batches hold at least one entry each.
MARKERS_PER_RECORD = 2
FURTHER = 16

Row = dict[str, Any]


class What(StrEnum):
    """What can be followed."""

    LEDGER = "ledger"
    ALERTS = "alerts"
    DEAD_LETTERS = "dead-letters"


@app.command()
def tail(
    what: Annotated[What, typer.Argument(help="ledger, alerts or dead-letters.")],
    org: Annotated[str | None, typer.Option("--org", help="Only this organisation.")] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="Begin with the last so many.")] = LINES,
    everything: Annotated[bool, typer.Option("--from-beginning", help="Begin with the first.")] = False,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", help="Wait for more, until Ctrl-C.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document a line.")] = False,
) -> None:
    """Show the last ones, then follow. Committed records only."""
    from streams import topics_admin
    from streams.client import Follower, committed_ends, committed_starts, read_range
    from streams.registry import connect_registry

    settings = load_settings()
    topics_admin.connect(settings)
    topics = _topics(settings, what)
    rows_of = _decoder(what, connect_registry(settings))
    ends = committed_ends(settings, topics)
    first = committed_starts(settings, topics)
    key = None if org is None else org.encode()
    write = _json_line if as_json else _LINES[what]

    def read(starts: Offsets) -> list[Row]:
        found: list[Row] = []
        for batch in read_range(settings, starts, ends):
            found += rows_of([message for message in batch if key is None or message.key() == key])
            found = found if everything else found[-max(lines, 1) * 100 :]
        return found

    past = read(first) if everything else _last(read, first, ends, lines)
    past.sort(key=lambda row: (row["recorded_at"], row["partition"], row["offset"]))
    for row in past if everything else past[max(0, len(past) - lines) :]:
        print(write(row))
    if not past and (lines or everything):
        note(f"none yet{'' if org is None else f' of {org}'}" + ("; waiting, Ctrl-C ends it" if follow else ""))
    if not follow:
        return
    sys.stdout.flush()
    try:
        with Follower(settings, topics, starts=ends) as follower:
            while True:
                messages = follower.next(WAIT_S)
                for row in rows_of([message for message in messages if key is None or message.key() == key]):
                    print(write(row))
                sys.stdout.flush()
    except KeyboardInterrupt:  # how a tail is meant to end
        return


def _topics(settings: Settings, what: What) -> list[str]:
    from schemas.topics import ALERT_TOPICS, Topics

    topics = Topics(settings.namespace)
    match what:
        case What.LEDGER:
            keys = ["ledger"]
        case What.ALERTS:
            keys = list(dict.fromkeys(ALERT_TOPICS.values()))
        case What.DEAD_LETTERS:
            keys = ["dead_letters"]
    return [topics.name(key) for key in keys]


def _last(read: Callable[[Offsets], list[Row]], first: Offsets, ends: Offsets, lines: int) -> list[Row]:
    """At least the last `lines` of all partitions together. Those of one org may lie far back: looks ever further."""
    back = MARKERS_PER_RECORD * lines + 100
    while lines:
        starts = {place: max(first[place], end - back) for place, end in ends.items()}
        found = read(starts)
        if len(found) >= lines or starts == first:
            return found
        back *= FURTHER
    return []


def _decoder(what: What, registry: Registry) -> Callable[[Sequence[Message]], list[Row]]:
    from schemas.codec import decode_columns, rows_of
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
        decoded = decode_columns("entry" if what is What.LEDGER else "alert", [m.value() for m in messages], registry)
        return rows_of(decoded.batch)

    def placed(messages: Sequence[Message]) -> list[Row]:
        rows = letters(messages) if what is What.DEAD_LETTERS else records(messages)
        for row, message in zip(rows, messages, strict=True):
            row["recorded_at"] = row.get("recorded_at", row.get("occurred_at"))
            row["partition"], row["offset"] = message.partition(), message.offset()
        return rows

    return placed


def _json_line(row: Row) -> str:
    import orjson

    from streams.balances import iso_time

    times = {name: iso_time(value) for name, value in row.items() if name.endswith("_at") and isinstance(value, int)}
    return orjson.dumps({**row, **times}, default=str).decode()


def _amount(nanos: int) -> str:
    from schemas.amounts import format_amount

    return format_amount(nanos)


def _clock(micros: int) -> str:
    from streams.balances import iso_time

    return iso_time(micros)[:19].replace("T", " ")


def _entry_line(row: Row) -> str:
    what = [row[name] for name in ("operation", "model", "tool", "reason") if row[name]]
    money = f"{_amount(row['amount_nanos']):>14} {row['wallet']:<13} balance {_amount(row['balance_nanos']):>14}"
    head = f"{_clock(row['recorded_at'])}  {row['org_id']:<16} {row['seq']:>7}  {row['kind']:<15}"
    return f"{head} {money}  {' '.join(what)} {row['event_id']}".rstrip()


def _alert_line(row: Row) -> str:
    level = f" at {row['level']}" if row["level"] else ""
    head = f"{_clock(row['recorded_at'])}  {row['org_id']:<16} {row['wallet']:<13} {row['kind']}{level}"
    return f"{head}  available {_amount(row['available_nanos'])}  {row['message']}".rstrip()


def _letter_line(row: Row) -> str:
    head = f"{_clock(row['recorded_at'])}  {row['id']:<10} {row['code']:<34} {row['topic']}"
    return f"{head}  {row['org_id']}  {row['message']}".rstrip()


_LINES: dict[What, Callable[[Row], str]] = {
    What.LEDGER: _entry_line,
    What.ALERTS: _alert_line,
    What.DEAD_LETTERS: _letter_line,
}
