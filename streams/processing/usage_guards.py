"""Which usage events of a batch may be booked: every guard that needs no account, over whole columns.

The guards in order: readable, under its own key, in its key's partition, valid, inside its window, new. A row that a
guard stops is a dead letter or an exact duplicate, and is counted as that; the others go on in the order of the log.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.checks import invalid_rows
from schemas.codec import DecodedBatch
from streams.engine.ports import SeenIds
from streams.engine.seen import contents, digests, repeats
from streams.kafka.inbound import Inbound
from streams.ledger.refusals import DeadLetter
from streams.processing.outbound import Outbound
from streams.processing.references import revisions, usage_ids
from streams.processing.state import PartitionState
from streams.processing.validation import FUTURE_TOLERANCE_US, check_key, check_window, different_content

Int64s = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(slots=True)
class UsageRows:
    """Usage events that passed every guard that needs no account, in the order of the log."""

    batch: pa.RecordBatch
    places: Int64s
    """Index of each row in the inbound batch."""
    keys: list[bytes]
    orgs: list[str]
    arrived: Int64s
    """When each row came into the log, microseconds."""
    clocks: Int64s
    """The partition's clock at each row, microseconds."""
    digests: npt.NDArray[np.uint64]
    contents: npt.NDArray[np.uint64]
    repeated: Mask
    """The same id stands in an earlier row."""

    def __len__(self) -> int:
        return len(self.keys)


class UsageGuards:
    """Takes the rows of a decoded batch that may be booked, and says what becomes of the others."""

    def __init__(self, state: PartitionState, inbound: Inbound, outbound: Outbound, window_us: int) -> None:
        self._state = state
        self._inbound = inbound
        self._outbound = outbound
        self._window_us = window_us

    def admit(self, decoded: DecodedBatch) -> UsageRows:
        """The rows that may be booked if they are new. The partition's clock moves to that of the last record."""
        inbound = self._inbound
        for failure in decoded.failures:
            self._outbound.dead_letter(inbound, failure.position, failure.code, failure.message)
        stamps = np.asarray(inbound.timestamps_ms, np.int64) * 1_000
        clocks = np.maximum.accumulate(np.maximum(stamps, self._state.clock_at))
        self._state.clock_at = int(clocks[-1])
        places = (
            np.arange(len(inbound), dtype=np.int64)
            if decoded.positions is None
            else np.asarray(decoded.positions, np.int64)
        )
        good = self._valid(decoded.batch, places, stamps)
        said = decoded.contents()
        batch = decoded.batch
        if not good.all():
            kept = np.flatnonzero(good)
            batch, places, said = batch.take(pa.array(kept)), places[kept], [said[row] for row in kept.tolist()]
        keys = self._keys(places)
        seed = self._state.partition.seed
        ids = digests(usage_ids(keys, batch), seed)
        return UsageRows(
            batch=batch,
            places=places,
            keys=keys,
            orgs=batch.column("org_id").to_pylist(),
            arrived=stamps[places],
            clocks=clocks[places],
            digests=ids,
            contents=contents(said, seed),
            repeated=repeats(ids),
        )

    def _keys(self, places: Int64s) -> list[bytes]:
        keys = self._inbound.keys
        if len(places) != len(keys):
            keys = [keys[place] for place in places.tolist()]
        return keys  # type: ignore[return-value]  # a missing key is a mismatch, and was taken out

    def _valid(self, batch: pa.RecordBatch, places: Int64s, stamps: Int64s) -> Mask:
        """False for rows that are dead letters: wrong key or partition, a bad field, outside the window."""
        good = np.ones(len(places), np.bool_)
        self._check_keys(batch, places, good)
        self._check_partition(places, good)
        for invalid in invalid_rows("usage", batch):
            if good[invalid.row]:
                self._refuse(invalid.row, places, good, DeadLetter(invalid.code, f"{invalid.field}: {invalid.message}"))
        occurred = batch.column("occurred_at").to_numpy(zero_copy_only=False)
        arrived = stamps[places]
        for row in np.flatnonzero(good & outside_window(occurred, arrived, self._window_us)).tolist():
            check = partial(check_window, int(occurred[row]), int(arrived[row]), self._window_us)
            self._judge(row, places, good, check)
        return good

    def _check_keys(self, batch: pa.RecordBatch, places: Int64s, good: Mask) -> None:
        own = batch.column("org_id").cast(pa.binary()).to_pylist()
        keys = self._keys(places)
        if own == keys:
            return
        for row, (org, key) in enumerate(zip(batch.column("org_id").to_pylist(), keys, strict=True)):
            self._judge(row, places, good, partial(check_key, key, org))

    def _check_partition(self, places: Int64s, good: Mask) -> None:
        keys, own_keys = self._keys(places), self._state.own_keys
        foreign = own_keys.foreign(keys)
        if not foreign:
            return
        for row, key in enumerate(keys):
            if key in foreign and good[row]:
                self._refuse(row, places, good, own_keys.refusal(key))

    def _judge(self, row: int, places: Int64s, good: Mask, check: Callable[[], object]) -> None:
        """Look at one row; what is refused is a dead letter."""
        try:
            check()
        except DeadLetter as refusal:
            self._refuse(row, places, good, refusal)

    def _refuse(self, row: int, places: Int64s, good: Mask, refusal: DeadLetter) -> None:
        good[row] = False
        self._outbound.dead_letter(self._inbound, int(places[row]), refusal.code, refusal.message)

    def new(self, rows: UsageRows, seen: SeenIds) -> UsageRows:
        """The rows whose id had no effect yet; exact duplicates are counted, others with that id are dead letters."""
        known = seen.lookup(rows.digests, rows.arrived)
        if not known.known.any():
            return rows
        same = known.known & (known.contents == rows.contents)
        self._outbound.count(self._inbound.topic, "duplicates", int(same.sum()))
        for row in np.flatnonzero(known.known & ~same).tolist():
            self._outbound.dead_letter(self._inbound, int(rows.places[row]), *different_content(usage=True))
        return taken(rows, np.flatnonzero(~known.known))


def outside_window(occurred: Int64s, arrived: Int64s, window_us: int) -> Mask:
    """True where an event came too late, or from too far ahead (see `judgement.window_fault`)."""
    outside: Mask = (occurred < arrived - window_us) | (occurred > arrived + FUTURE_TOLERANCE_US)
    return outside


def taken(rows: UsageRows, kept: npt.NDArray[np.intp]) -> UsageRows:
    """Some of the rows, in order."""
    places = kept.tolist()
    return UsageRows(
        batch=rows.batch.take(pa.array(kept)),
        places=rows.places[kept],
        keys=[rows.keys[row] for row in places],
        orgs=[rows.orgs[row] for row in places],
        arrived=rows.arrived[kept],
        clocks=rows.clocks[kept],
        digests=rows.digests[kept],
        contents=rows.contents[kept],
        repeated=repeats(rows.digests[kept]),
    )


def segments(rows: UsageRows) -> list[UsageRows]:
    """The rows in parts such that a correction stands in a later part than the usage it corrects.

    What a usage drew is told by its entry, so it must be written before it is corrected. As a rule one part.
    """
    revised = revisions(rows.batch)
    if not pc.any(revised).as_py():
        return [rows]
    parts, begin = [], 0
    latest: dict[tuple[str, str], int] = {}
    names = zip(rows.orgs, rows.batch.column("event_id").to_pylist(), strict=True)
    for row, (name, corrects) in enumerate(zip(names, revised.to_pylist(), strict=True)):
        if corrects and latest.get(name, -1) >= begin:
            parts.append(taken(rows, np.arange(begin, row)))
            begin = row
        latest[name] = row
    parts.append(taken(rows, np.arange(begin, len(rows))))
    return parts
