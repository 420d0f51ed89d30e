"""What the demonstration sends, and what must come of it, as data.

A wave is a run of records of one input topic, in columns, with the damage that is done to some of them on the way. A
phase is what may be sent side by side: nothing in one phase depends on the order between its waves, so the outcome is
the same however the ledger interleaves them. The next phase is sent when the one before is booked.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from schemas.enums import InputKind


class Damage(StrEnum):
    """What happens to a record's bytes, or to its key, on the way to the topic."""

    WRONG_MAGIC = "wrong_magic"
    TRUNCATED = "truncated"
    LEFT_OVER = "left_over"
    UNKNOWN_SCHEMA = "unknown_schema"
    NULL_VALUE = "null_value"
    WRONG_KEY = "wrong_key"


@dataclass(slots=True)
class Wave:
    """Records of one kind, in sending order: `columns[name][i]` is the field of record i.

    Fields without a column are null or have their default. `repeats`: position → the earlier position whose message
    is sent there once more, byte for byte. `damage`: position → what is done to it. `dense` waves fill every column.
    """

    kind: InputKind
    columns: dict[str, list[Any]]
    repeats: dict[int, int] = field(default_factory=dict)
    damage: dict[int, Damage] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))


def wave_of(kind: InputKind, records: list[dict[str, Any]]) -> Wave:
    """A wave of records that are given one by one."""
    names = list(dict.fromkeys(name for record in records for name in record))
    return Wave(kind, {name: [record.get(name) for record in records] for name in names})


@dataclass(slots=True)
class Expected:
    """What must come of the records, as far as the generator knows without any ledger.

    Counts are of input records. `usage_cost_nanos`: by wallet, what the booked usage costs. `added_nanos`: by wallet,
    what booked purchases and grants added. `refunded_nanos`: by wallet, usage given back. `taken_back_nanos`: by
    wallet, purchases taken back. `corrected_nanos`: by wallet, usage unwound by a correction. `entries`: how many of a
    kind there must be, of the kinds that are known. `at_work`: by line of the verdict, what the rules must have done,
    in the words of `tally`.
    """

    records: int = 0
    duplicates: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    dead_letters: Counter[str] = field(default_factory=Counter)
    usage_cost_nanos: Counter[str] = field(default_factory=Counter)
    added_nanos: Counter[str] = field(default_factory=Counter)
    refunded_nanos: Counter[str] = field(default_factory=Counter)
    taken_back_nanos: Counter[str] = field(default_factory=Counter)
    corrected_nanos: Counter[str] = field(default_factory=Counter)
    entries: Counter[str] = field(default_factory=Counter)
    at_work: dict[str, Counter[str]] = field(default_factory=dict)
    own_prices: int = 0
    """Usage records that were rated by a price of their organisation's own."""

    def works(self, line: str, **counts: int) -> None:
        """Expect so much more of a line of the verdict; a word's spaces are written as underscores."""
        row = self.at_work.setdefault(line, Counter())
        row.update({name.replace("_", " "): count for name, count in counts.items() if count})

    @property
    def applied(self) -> int:
        """Records that end as entries other than `rejected` (or, for prices, as part of the price list)."""
        return self.records - self.duplicates - self.rejected.total() - self.dead_letters.total()

    def add(self, other: Expected) -> None:
        """Count another phase's expectations in."""
        self.records += other.records
        self.duplicates += other.duplicates
        for name in (
            "rejected",
            "dead_letters",
            "usage_cost_nanos",
            "added_nanos",
            "refunded_nanos",
            "taken_back_nanos",
            "corrected_nanos",
            "entries",
        ):
            getattr(self, name).update(getattr(other, name))
        self.own_prices += other.own_prices
        for line, counts in other.at_work.items():
            self.at_work.setdefault(line, Counter()).update(counts)


@dataclass(slots=True)
class Phase:
    """What may be sent side by side, with a title for people. `paced`: at a steady rate, to measure latency.

    `settled`: at its end everything must be there that answers to the ledger have brought so far (`topups`).
    """

    name: str
    title: str
    waves: list[Wave]
    expected: Expected
    paced: bool = False
    settled: bool = False
