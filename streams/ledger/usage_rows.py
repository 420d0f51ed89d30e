"""Usage in columns: the rows of one input batch that may be booked, and how they are cut.

Rules of this file: plain data, in the order of the log. A row has passed every guard that needs no account, and its id
has had no effect before this batch (the caller asks the memory of ids). Two rows of one batch may have the same id.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Int64s = npt.NDArray[np.int64]
UInt64s = npt.NDArray[np.uint64]
RowNumbers = npt.NDArray[np.intp]


@dataclass(slots=True)
class UsageRows:
    """Usage events of one topic and partition."""

    usages: pa.RecordBatch
    """Columns of the usage record."""
    topic: str
    partition: int
    offsets: Int64s
    inbound_rows: Int64s
    """Which record of the input batch each row is."""
    keys: list[bytes]
    orgs: list[str]
    arrived: Int64s
    """When each row came into the log, microseconds."""
    clocks: Int64s
    """The partition's clock at each row, microseconds: the ledger's time, `recorded_at`."""
    ids: UInt64s
    """128 bits a row: equal where org, event id and revision are equal."""
    contents: UInt64s
    """Equal where two records of one id say the same."""

    def __len__(self) -> int:
        return len(self.orgs)


def take_rows(rows: UsageRows, kept: RowNumbers) -> UsageRows:
    """Some of the rows, in order."""
    numbers = kept.tolist()
    return UsageRows(
        usages=rows.usages.take(pa.array(kept)),
        topic=rows.topic,
        partition=rows.partition,
        offsets=rows.offsets[kept],
        inbound_rows=rows.inbound_rows[kept],
        keys=[rows.keys[row] for row in numbers],
        orgs=[rows.orgs[row] for row in numbers],
        arrived=rows.arrived[kept],
        clocks=rows.clocks[kept],
        ids=rows.ids[kept],
        contents=rows.contents[kept],
    )


def split_at_corrections(rows: UsageRows) -> list[UsageRows]:
    """The rows in parts such that a correction stands in a later part than the usage it corrects.

    The entry of a usage says what it drew, so it must be written before the usage is corrected. As a rule one part.
    """
    revised = revisions(rows.usages)
    if not pc.any(revised).as_py():
        return [rows]
    parts, begin = [], 0
    latest: dict[tuple[str, str], int] = {}
    names = zip(rows.orgs, rows.usages.column("event_id").to_pylist(), strict=True)
    for row, (name, corrects) in enumerate(zip(names, revised.to_pylist(), strict=True)):
        if corrects and latest.get(name, -1) >= begin:
            parts.append(take_rows(rows, np.arange(begin, row)))
            begin = row
        latest[name] = row
    parts.append(take_rows(rows, np.arange(begin, len(rows))))
    return parts


def revisions(usages: pa.RecordBatch) -> pa.BooleanArray:
    """True for the rows that correct an earlier usage: a revision, or a void."""
    return pc.or_(pc.not_equal(usages.column("revision"), 0), usages.column("voided"))


def shared_ids(rows: UsageRows) -> dict[int, bytes]:
    """The rows whose id stands in another row too, with that id."""
    halves = np.sort(rows.ids[:, 0])
    if not (halves[1:] == halves[:-1]).any():
        return {}
    ids = [each.tobytes() for each in rows.ids]
    count = Counter(ids)
    return {row: each for row, each in enumerate(ids) if count[each] > 1}
