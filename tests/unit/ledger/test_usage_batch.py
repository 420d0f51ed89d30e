"""Usage in columns: what each row is, and that a batch books what `decide` books record by record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.amounts import AMOUNT_MAX, NANOS
from schemas.codec import decode_columns
from schemas.encoding import batch_of, encode_columns, rows_of
from schemas.enums import DeadLetterCode, HoldAction, SettingKind
from schemas.records import BundledSchemas, bundled_id
from streams.ledger.account import encode_account
from streams.ledger.commands import Usage
from streams.ledger.decide import Context, Source, decide, settle_due
from streams.ledger.entry import Entry
from streams.ledger.refusals import DeadLetter
from streams.ledger.usage_batch import BookedUsage, Disposition, book_rows, classify
from streams.ledger.usage_batch_rating import rate_rows
from streams.ledger.usage_rows import UsageRows, split_at_corrections, take_rows
from tests.unit.ledger.world import START, World

SCHEMAS = BundledSchemas()


def rows_from(records: Sequence[Mapping[str, Any]], world: World) -> UsageRows:
    """Records as the processor hands them over; a record's content is everything it says."""
    whole = [{"org_id": "acme", "occurred_at": START, "operation": "chat", **record} for record in records]
    usages = batch_of("usage", whole)
    size = len(whole)
    names = [(row["org_id"], row["event_id"], row["revision"]) for row in rows_of(usages)]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    said = [repr(sorted(record.items())) for record in whole]
    return UsageRows(
        usages=usages,
        topic="topic",
        partition=0,
        offsets=np.arange(1, size + 1) + world.commands,
        inbound_rows=np.arange(size),
        keys=[row["org_id"].encode() for row in whole],
        orgs=[row["org_id"] for row in whole],
        arrived=np.full(size, world.at),
        clocks=np.full(size, world.at),
        ids=np.asarray([[numbers[name], 0] for name in names], np.uint64).reshape(-1, 2),
        contents=np.asarray([said.index(each) for each in said], np.uint64),
    )


class Written:
    """The entries of a world, as references."""

    def __init__(self, world: World) -> None:
        self._entries = [entry for entries in world.entries.values() for entry in entries]

    def of(self, command: object) -> Mapping[str, Entry]:
        if not isinstance(command, Usage) or not (command.revision or command.voided):
            return {}
        return {
            entry.event_id: entry
            for entry in self._entries
            if (entry.org_id, entry.event_id, entry.kind) == (command.org_id, command.event_id, "usage")
        }

    def note_entries(self, entries: Iterable[Entry]) -> None:
        self._entries += entries


def book(records: Sequence[Mapping[str, Any]], world: World) -> BookedUsage:
    rows = rows_from(records, world)
    accounts = {org: world.account(org) for org in rows.orgs}
    return book_rows(rows, accounts, world.prices, Written(world))


def entries_of(booked: BookedUsage, size: int) -> list[Entry]:
    """All entries of a batch, in the ledger's order."""
    values = encode_columns("entry", booked.entries, bundled_id("entry"))
    decoded = rows_of(decode_columns("entry", values, SCHEMAS).batch) if values else []
    own = dict(zip(booked.in_columns.tolist(), decoded, strict=True))
    entries = []
    for row in range(size):
        entries += booked.written.get(row, [])
        if row in own:
            entries.append(Entry.from_record(own[row]))
    return entries


def prepared() -> World:
    """Two orgs with credits of several grants, one with a hold, a budget and a corrected usage; a third with none."""
    world = World()
    for org in ("acme", "bolt"):
        world.buy("1", org)
        world.buy("5", org, kind="promotional")
        world.buy("2", org, unit="EUR")
    budget = {"budget_id": "b1", "unit": "USD", "scope": {"user_id": "ann"}, "window": "day", "limit": "3"}
    world.set(SettingKind.BUDGET, budget, "bolt")
    world.hold(HoldAction.PLACE, "h1", "2")
    world.use("0.5", event_id="old")
    world.use("0.25", event_id="old", revision=1)
    return world


CASES = [
    ({"event_id": "e", "cost_nanos": 1, "wallet": "USD"}, Disposition.BOOK),
    ({"event_id": "e", "model": "gpt", "input_tokens": 1}, Disposition.BOOK),
    ({"event_id": "e", "model": "unknown", "input_tokens": 1}, Disposition.DEAD_LETTER),
    ({"event_id": "e", "model": "gpt"}, Disposition.DEAD_LETTER),
    ({"event_id": "e", "cost_nanos": 1, "revision": 1}, Disposition.COMMAND),
    ({"event_id": "e", "voided": True}, Disposition.COMMAND),
    ({"event_id": "e", "cost_nanos": 1, "hold_id": "h"}, Disposition.COMMAND),
    ({"event_id": "old", "cost_nanos": 1}, Disposition.COMMAND),
    ({"event_id": "e", "cost_nanos": 1, "org_id": "new"}, Disposition.COMMAND),
    ({"event_id": "e", "cost_nanos": 1, "wallet": "USD", "org_id": "new"}, Disposition.BOOK),
]


@pytest.mark.parametrize(("record", "disposition"), CASES)
def test_a_row_is_classified_by_itself(record: Mapping[str, Any], disposition: Disposition) -> None:
    world = prepared()
    rows = rows_from([record], world)
    accounts = {org: world.account(org) for org in rows.orgs}
    ratings = rate_rows(rows.usages, rows.orgs, accounts, world.prices)
    assert classify(rows, accounts, ratings) == [disposition]


def test_of_rows_with_one_id_the_first_that_can_be_booked_counts() -> None:
    world = prepared()
    full = {"event_id": "e1", "cost_nanos": AMOUNT_MAX, "wallet": "USD"}
    fits = {"event_id": "e1", "cost_nanos": 7, "wallet": "USD"}
    booked = book([{"event_id": "e0", "cost_nanos": AMOUNT_MAX, "wallet": "USD"}, full, fits, full, fits], world)
    assert [code.code for code in booked.dead_letters.values()] == [
        DeadLetterCode.AMOUNT_OUT_OF_RANGE,
        DeadLetterCode.AMOUNT_OUT_OF_RANGE,
        DeadLetterCode.DUPLICATE_WITH_DIFFERENT_CONTENT,
    ]
    assert (booked.effective.tolist(), booked.duplicates) == ([2], 1)


RECORDS = st.lists(
    st.fixed_dictionaries(
        {
            "event_id": st.integers(0, 12).map("e{}".format) | st.just("old"),
            "org_id": st.sampled_from(["acme", "bolt", "new"]),
        },
        optional={
            "cost_nanos": st.integers(0, 3 * NANOS) | st.just(AMOUNT_MAX),
            "wallet": st.sampled_from(["USD", "EUR", "GBP"]),
            "model": st.sampled_from(["gpt", "free", "unknown"]),
            "input_tokens": st.integers(0, 400_000),
            "user_id": st.sampled_from(["ann", "bob"]),
            "hold_id": st.sampled_from(["h1", "h2"]),
            "revision": st.integers(0, 2),
            "attributes": st.just({"k": "v"}),
        },
    ),
    max_size=25,
)


@settings(max_examples=200, deadline=None)
@given(RECORDS)
def test_a_batch_books_what_single_records_book(records: list[dict[str, Any]]) -> None:
    alone, batched = prepared(), prepared()
    expected = one_by_one(records, alone)
    whole = rows_from(records, batched)
    entries: list[Entry] = []
    refused: list[int] = []
    duplicates, references = 0, Written(batched)
    had_effect: dict[bytes, Any] = {}
    for part in split_at_corrections(whole):
        new = [row for row in range(len(part)) if part.ids[row].tobytes() not in had_effect]
        for row in sorted(set(range(len(part))) - set(new)):
            same = had_effect[part.ids[row].tobytes()] == part.contents[row]
            duplicates += same
            refused += [] if same else [int(part.inbound_rows[row])]
        rows = take_rows(part, np.asarray(new, np.intp))
        booked = book_rows(rows, {org: batched.account(org) for org in rows.orgs}, batched.prices, references)
        for row in booked.effective.tolist():
            had_effect[rows.ids[row].tobytes()] = rows.contents[row]
        written = entries_of(booked, len(rows))
        references.note_entries(written)
        entries += written
        refused += [int(rows.inbound_rows[row]) for row in booked.dead_letters]
        duplicates += booked.duplicates
    assert (entries, sorted(refused), duplicates) == expected
    for org in {record["org_id"] for record in records}:
        assert encode_account(batched.account(org)) == encode_account(alone.account(org))


def one_by_one(records: Sequence[Mapping[str, Any]], world: World) -> tuple[list[Entry], list[int], int]:
    """Entries, rows that are dead letters, and the number of duplicates, each record decided by itself."""
    entries: list[Entry] = []
    refused: list[int] = []
    had_effect: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    duplicates, references = 0, Written(world)
    for row, record in enumerate(records):
        name = (record["org_id"], record["event_id"], record.get("revision", 0))
        if name in had_effect:
            same = had_effect[name] == record
            duplicates += same
            refused += [] if same else [row]
            continue
        usage = Usage.from_record({"occurred_at": START, "operation": "chat", **record})
        account = world.account(usage.org_id)
        entries += settle_due(account, world.at).entries
        source = Source("topic", 0, world.commands + row + 1)
        outcome = decide(account, usage, Context(world.at, world.prices, source, references.of(usage)))
        if isinstance(outcome, DeadLetter):
            refused.append(row)
            continue
        had_effect[name] = record
        references.note_entries(outcome.entries)
        entries += outcome.entries
    return entries, refused, duplicates
