"""Accounts in a partition that is not their org's: opened by a version that did not look at the partition.

Rules of this file:
1. An org's account is in the partition of its id by murmur2. Entries elsewhere are of a second account, with a `seq`
   and balances of its own: it is folded under a name of its own, so that no check takes the two for one.
2. Such an account is a difference (`wrong_partition`) until it is merged: until its last entry is that of a merge, and
   nothing is left or held in it. Then it is history, and reported as known.
3. Only the org's own account is compared with the published balances and with ClickHouse.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.enums import MERGE_PREFIX
from schemas.partitioner import partition_of, partitions_of
from streams.verify.fold import Differences, LedgerFold, OrgFold, Windows


@dataclass(frozen=True, slots=True)
class SplitAccount:
    """A second account of an org. `balances`: what is left in it, nano-units by unit."""

    org_id: str
    partition: int
    home: int
    """The partition that the org belongs to."""
    entries: int
    balances: dict[str, int]
    merged: bool

    def __str__(self) -> str:
        return f"{self.org_id} in partition {self.partition}"


class Misplaced:
    """Takes the entries that are not in their org's partition out of the fold, into one of their own."""

    def __init__(self, partitions: int, windows: Windows, differences: Differences) -> None:
        self.partitions = partitions
        self.fold = LedgerFold({}, windows)
        self.fold.differences = differences
        self._names: dict[tuple[str, int], str] = {}
        self._last_events: dict[str, str] = {}

    def take(self, batch: pa.RecordBatch, partitions: Sequence[int], causes: array[int]) -> pa.RecordBatch:
        """The entries in their own partition; the others are folded here, and their causes noted.

        `partitions`: where each row is.
        """
        orgs = batch.column("org_id").dictionary_encode()
        names = orgs.dictionary.to_pylist()
        homes = np.array(partitions_of([name.encode() for name in names], self.partitions), np.int64)
        found_in = np.asarray(partitions, np.int64)
        astray = homes[orgs.indices.to_numpy()] != found_in if len(names) else np.zeros(0, np.bool_)
        if not astray.any():
            return batch
        self._fold(batch.filter(pa.array(astray)), found_in[astray], causes)
        return batch.filter(pa.array(~astray))

    def _fold(self, batch: pa.RecordBatch, partitions: npt.NDArray[np.int64], causes: array[int]) -> None:
        orgs, events = batch.column("org_id").to_pylist(), batch.column("event_id").to_pylist()
        names = []
        for org_id, partition, event_id in zip(orgs, partitions.tolist(), events, strict=True):
            name = self._names.setdefault((org_id, partition), f"{org_id} in partition {partition}")
            names.append(name)
            self._last_events[name] = event_id
            causes.append(hash((org_id, event_id)))
        index = batch.schema.get_field_index("org_id")
        self.fold.add(batch.set_column(index, batch.schema.field(index), pa.array(names, pa.string())))

    def finish(self, differences: Differences) -> list[SplitAccount]:
        """The second accounts; those that are not merged are differences."""
        self.fold.finish()
        found = [self._account(org_id, partition, name) for (org_id, partition), name in sorted(self._names.items())]
        for account in found:
            if not account.merged:
                message = (
                    f"{account.entries} entries of a second account; by murmur2 the org belongs to partition "
                    f"{account.home}; `credits accounts merge {account.org_id}` moves what is left"
                )
                differences.add("wrong_partition", str(account), message)
        return found

    def _account(self, org_id: str, partition: int, name: str) -> SplitAccount:
        org = self.fold.orgs[name]
        merged = self._last_events[name].startswith(MERGE_PREFIX) and is_empty(org)
        balances = {unit: wallet.settled for unit, wallet in org.wallets.items()}
        home = partition_of(org_id.encode(), self.partitions)
        return SplitAccount(org_id, partition, home, org.seq, balances, merged)


def is_empty(org: OrgFold) -> bool:
    """Nothing is left, owed or held."""
    return not any(wallet.settled or wallet.held for wallet in org.wallets.values())
