"""Balances and ClickHouse against the fold; input records against what names them."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from schemas.codec import batch_of, encode_one
from schemas.records import BundledSchemas, bundled_id
from schemas.topics import Topics
from streams.verify.audit import compare_balances
from streams.verify.clickhouse import compare
from streams.verify.fold import Differences, LedgerFold
from streams.verify.sources import InputCount, Positions, Retained, SourceOffsets, positions_of
from tests.unit.tools.test_fold import true_ledger

USAGE = Topics().name("usage")


def folded(watched: dict[str, int] | None = None) -> LedgerFold:
    fold = LedgerFold(watched)
    fold.add(batch_of("entry", true_ledger()))
    return fold


def published(**fields: Any) -> dict[str, Any]:
    wallet = {
        "unit": "USD",
        "settled_nanos": 0,
        "held_nanos": 0,
        "available_nanos": 0,
        "lifetime_added_nanos": 190,
        "lifetime_spent_nanos": 140,
    }
    return {"org_id": "acme", "seq": 12, "wallets": [{**wallet, **fields}]}


BETA = {
    "org_id": "beta",
    "seq": 1,
    "wallets": [
        {
            "unit": "USD",
            "settled_nanos": 10,
            "held_nanos": 0,
            "available_nanos": 10,
            "lifetime_added_nanos": 10,
            "lifetime_spent_nanos": 0,
        }
    ],
}


def balance_codes(acme: dict[str, Any] | None, before: dict[str, int] | None = None) -> list[str]:
    rows = {"beta": BETA} | ({} if acme is None else {"acme": acme})
    fold = folded({name: row["seq"] for name, row in rows.items()})
    differences = Differences()
    compare_balances(fold, rows, {"acme": 12, "beta": 1} if before is None else before, differences)
    return [each.code for each in differences.kept]


def test_balances_that_agree() -> None:
    assert balance_codes(published()) == []


@pytest.mark.parametrize("name", ["settled", "held", "available", "lifetime_added", "lifetime_spent", "on_the_way"])
def test_a_balance_that_differs_is_told(name: str) -> None:
    assert balance_codes(published(**{f"{name}_nanos": 1})) == ["balance_differs"]


def test_a_balance_that_was_not_published_or_not_in_time() -> None:
    assert balance_codes(None) == ["balance_missing"]
    late = {**published(), "seq": 11}
    assert balance_codes(late)[0] == "balance_behind"
    assert balance_codes({**published(), "seq": 13}) == ["balance_ahead"]


def test_a_ledger_that_goes_on_is_compared_where_the_balance_stands() -> None:
    """A worker at work: the balance was read before the entry that follows it."""
    held = published(settled_nanos=45, held_nanos=5, available_nanos=40, lifetime_spent_nanos=145)
    assert balance_codes({**held, "seq": 6}, before={"beta": 1}) == []


def test_what_is_on_the_way_is_compared_where_the_balance_stands() -> None:
    """After the entry that a transfer left with, and before the next."""
    moving = published(settled_nanos=35, available_nanos=35, lifetime_spent_nanos=145, on_the_way_nanos=10)
    assert balance_codes({**moving, "seq": 8}, before={"beta": 1}) == []
    forgotten = published(settled_nanos=35, available_nanos=35, lifetime_spent_nanos=145)
    assert balance_codes({**forgotten, "seq": 8}, before={"beta": 1}) == ["balance_differs"]


def page(entries: int = 13, **acme: Any) -> dict[str, Any]:
    ledger = {"balance_nanos": 0, "held_nanos": 0, "available_nanos": 0, "sum_nanos": 0, "entries": 11}
    beta = {"balance_nanos": 10, "held_nanos": 0, "available_nanos": 10, "sum_nanos": 10, "entries": 1}
    amounts = {"purchase": 190, "usage": -145, "refund": 5, "expiry": -40, "transfer_out": -10, "transfer_in": 10}
    kinds = {kind: {"entries": 1, "amount_nanos": nanos} for kind, nanos in amounts.items()}
    row = {"org_id": "acme", "entries": 12, "first_seq": 1, "last_seq": 12, "wallets": {"USD": {"ledger": ledger}}}
    return {
        "entries": entries,
        "kinds": {"USD": kinds},
        "usage": {"hourly": {"USD": {"cost_nanos": 145}}},
        "orgs": [
            {**row, **acme},
            {"org_id": "beta", "entries": 1, "first_seq": 1, "last_seq": 1, "wallets": {"USD": {"ledger": beta}}},
        ],
        "next_org": None,
    }


DIFFERS = {"clickhouse_published"}


def clickhouse_codes(answer: dict[str, Any]) -> set[str]:
    differences = Differences()
    compare(folded(), lambda _after, _most: answer, differences)
    return {each.code for each in differences.kept}


def test_a_projection_that_agrees() -> None:
    assert clickhouse_codes(page()) == set()


def test_a_projection_that_differs_is_told() -> None:
    wrong_sum = page()
    wrong_sum["kinds"]["USD"]["expiry"]["amount_nanos"] = -41
    assert clickhouse_codes(wrong_sum) == {"clickhouse_sum"}
    wrong_usage = page()
    wrong_usage["usage"]["hourly"]["USD"]["cost_nanos"] = 290  # as a doubled insert would say
    assert clickhouse_codes(wrong_usage) == {"clickhouse_usage"}
    assert clickhouse_codes(page(entries=13, last_seq=11)) == {"clickhouse_entries"}
    wrong_balance = page()
    wrong_balance["orgs"][0]["wallets"]["USD"]["ledger"]["balance_nanos"] = 1
    assert clickhouse_codes(wrong_balance) == {"clickhouse_balance"}
    for name, codes in {"": set(), "settled_nanos": DIFFERS, "on_the_way_nanos": DIFFERS}.items():
        published = {"seq": 12, "settled_nanos": 0, "on_the_way_nanos": 0, **({name: 1} if name else {})}
        wrong = page()
        wrong["orgs"][0]["wallets"]["USD"]["published"] = published
        assert clickhouse_codes(wrong) == codes
        published["seq"] = 11  # the balance of an entry before: it is not compared
        assert clickhouse_codes(wrong) == set()
    missing = page()
    del missing["orgs"][1]
    assert clickhouse_codes(missing) == {"clickhouse_missing"}
    strange = page()
    strange["orgs"].append({"org_id": "z", "entries": 1, "first_seq": 1, "last_seq": 1, "wallets": {}})
    assert clickhouse_codes(strange) == {"clickhouse_only"}


@dataclass
class Message:
    """A record of an input topic."""

    index: int
    body: bytes | None

    def offset(self) -> int:
        return self.index

    def value(self) -> bytes | None:
        return self.body


def usage(event_id: str, org: str = "acme") -> bytes:
    fields = {"event_id": event_id, "org_id": org, "occurred_at": 1, "operation": "chat"}
    return encode_one("usage", fields, bundled_id("usage"))


def count(
    values: Sequence[bytes | None],
    ledger: dict[int, str],
    dead: Sequence[int],
    counted: dict[str, int],
    first: int = 0,
    letters_deleted: int = 0,
) -> list[str]:
    """Differences of one partition: `ledger` names offsets and the event ids of their entries.

    The records before `first` were deleted by retention, and so many of the dead letters.
    """
    in_ledger, in_dead = SourceOffsets(), SourceOffsets()
    places = list(ledger)
    in_ledger.add_columns(
        pa.array([USAGE] * len(places)), pa.array([0] * len(places), pa.int32()), pa.array(places, pa.int64())
    )
    for offset in dead:
        in_dead.add(USAGE, 0, offset)
    causes = array("q", [hash(("acme", event_id)) for event_id in ledger.values()])
    differences = Differences()
    positions = {0: Positions({USAGE: len(values)}, {}, {USAGE: counted})}
    retained = Retained({(USAGE, 0): first}, {0: letters_deleted})
    counting = InputCount(Topics(), positions, in_ledger, in_dead, causes, BundledSchemas(), differences, retained)
    counting.scan(USAGE, 0, [Message(offset, value) for offset, value in enumerate(values) if offset >= first])
    counting.finish()
    return [each.code for each in differences.kept]


VALUES: list[bytes | None] = [usage("a"), usage("b"), None, usage("a")]
ENDS = {"entries": 2, "rejected": 0, "dead_letters": 1, "duplicates": 1}


def test_every_record_has_an_end() -> None:
    assert count(VALUES, {0: "a", 1: "b"}, [2], ENDS) == []


def test_a_record_that_was_dropped_is_told() -> None:
    lost = count(VALUES, {0: "a"}, [2], {"entries": 1, "rejected": 0, "dead_letters": 1, "duplicates": 2})
    assert lost == ["lost"]  # "b" has no entry, so the second duplicate is none
    nowhere = count(VALUES, {0: "a", 1: "b"}, [], {"entries": 2, "dead_letters": 0, "duplicates": 2})
    assert nowhere == ["lost"]  # a null value can be no duplicate


@pytest.mark.parametrize("first", range(len(VALUES) + 2))
def test_what_retention_has_deleted_is_no_difference(first: int) -> None:
    assert count(VALUES, {0: "a", 1: "b"}, [2], ENDS, first) == []


def test_what_retention_has_deleted_must_fit_the_counters() -> None:
    # Two of four are deleted, and both are named: there is room for no duplicate more than the one that is left.
    assert count(VALUES, {0: "a", 1: "b"}, [2], {**ENDS, "entries": 1, "duplicates": 2}, 2) == ["counters", "counters"]
    assert count(VALUES, {0: "a", 1: "b"}, [2], {**ENDS, "entries": 3, "duplicates": 0}, 2) == ["counters", "counters"]
    # A fifth record was never there.
    assert "records" in count(VALUES, {0: "a", 1: "b"}, [2], {**ENDS, "duplicates": 4}, 2)
    # Deleting explains nothing of what is still there.
    assert count(VALUES, {0: "a"}, [2], {"entries": 1, "dead_letters": 1, "duplicates": 2}, 1) == ["lost"]


def test_what_retention_has_deleted_of_the_dead_letters_is_no_difference() -> None:
    assert count(VALUES, {0: "a", 1: "b"}, [], ENDS, letters_deleted=1) == []
    # What repeats an id with other content is a dead letter too.
    changed = {"entries": 2, "rejected": 0, "dead_letters": 2, "duplicates": 0}
    assert count(VALUES, {0: "a", 1: "b"}, [], changed, letters_deleted=2) == []
    assert count(VALUES, {0: "a", 1: "b"}, [], changed, letters_deleted=1) == ["counters", "counters"]
    # One dead letter is missing, and explains one record, not two.
    assert count([*VALUES, None], {0: "a", 1: "b"}, [], {**ENDS, "duplicates": 2}, letters_deleted=1) == [
        "counters",
        "lost",
    ]


def test_a_record_with_two_ends_is_told() -> None:
    assert "two_ends" in count(VALUES, {0: "a", 1: "b"}, [1, 2], ENDS)


def test_counters_that_say_otherwise_are_told() -> None:
    assert count(VALUES, {0: "a", 1: "b"}, [2], {**ENDS, "entries": 3}) == ["records", "counters"]


@pytest.mark.parametrize(
    ("topic", "left", "codes"),
    [("prices", 2, []), ("prices", 3, []), ("prices", 4, ["records"]), ("transfer_legs", 2, ["records"])],
)
def test_only_a_compacted_topic_may_have_fewer_records_than_were_counted(
    topic: str, left: int, codes: list[str]
) -> None:
    topics, differences = Topics(), Differences()
    counted = {topics.name(topic): {"entries": 3}}
    positions = {0: Positions({}, {}, counted)}
    counting = InputCount(
        topics, positions, SourceOffsets(), SourceOffsets(), array("q"), BundledSchemas(), differences
    )
    counting.scan(topics.name(topic), 0, [Message(offset, b"") for offset in range(left)])
    counting.finish()
    assert sorted(each.code for each in differences.kept) == codes


def test_the_position_record_is_read_and_nothing_else_is() -> None:
    record = {"version": 1, "next_offsets": {USAGE: 7}, "starts": {}, "counters": {USAGE: {"entries": 7}}, "more": 1}
    positions = positions_of(msgspec.msgpack.encode(record))
    assert (positions.next_offsets, positions.counters) == ({USAGE: 7}, {USAGE: {"entries": 7}})
    for value in (b"", b"\xc1", msgspec.msgpack.encode([1])):
        with pytest.raises(ValueError, match="position record"):
            positions_of(value)
