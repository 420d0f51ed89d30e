"""The account table as Faust knows it: its store is the engine, which restores and owns the partitions itself.

What is Faust's and what is ours:
1. Faust makes the table's changelog part of the assignment, next to the inputs, and tells the store of each rebalance
   before it would recover (`AccountStore.on_rebalance`). The engine loads there.
2. Faust's own recovery never starts: `LedgerConsumer.highwaters` answers for a changelog what the store says to have.
   (It would never end on a changelog written in transactions, whose markers take the last offsets.)
3. The agent does not write the table: accounts change by the partition's transaction only.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Protocol

from faust.stores.memory import Store
from faust.tables.table import Table
from faust.types import TP

from streams.kafka.transport import BatchConsumer


class PartitionOwner(Protocol):
    """The engine, as the table's store sees it."""

    async def rebalanced(self, assignment: Collection[TP]) -> None:
        """These are ours now: restore what is new, drop what is gone. Nothing is fetched before this returns."""
        ...

    def changelog_end(self, partition: int) -> int | None:
        """The offset after the last one that was read of the partition's changelog; None when it is not owned."""
        ...


class AccountStore(Store):
    """The store of the account table; tells the engine of rebalances."""

    owner: PartitionOwner

    def persisted_offset(self, tp: TP) -> int | None:
        """The last changelog offset that the state contains."""
        end = self.owner.changelog_end(tp.partition)
        return end - 1 if end else None

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0
    ) -> None:
        """Awaited by Faust after each rebalance, before anything is fetched."""
        await self.owner.rebalanced(self.app.consumer.assignment())


class AccountTable(Table):
    """Faust's table with our store."""

    owner: PartitionOwner

    def _new_store_by_url(self, url: Any) -> AccountStore:
        store = AccountStore(url, self.app, self, key_type=self.key_type, value_type=self.value_type, loop=self.loop)
        store.owner = self.owner
        return store


class LedgerConsumer(BatchConsumer):
    """The batch consumer of an app whose tables restore themselves."""

    async def highwaters(self, *partitions: TP) -> Mapping[TP, int]:
        """The ends of the logs; for a changelog, what its table has: there is nothing for Faust to recover."""
        changelogs = self.app.tables._changelogs
        asked = [tp for tp in partitions if tp.topic not in changelogs]
        ends = dict(await super().highwaters(*asked)) if asked else {}
        for tp in partitions:
            if tp.topic in changelogs:
                persisted = changelogs[tp.topic].persisted_offset(TP(tp.topic, tp.partition))
                ends[tp] = 0 if persisted is None else persisted + 1
        return ends

    async def earliest_offsets(self, *partitions: TP) -> Mapping[TP, int]:
        """The beginnings of the logs; a changelog is never read, so any number will do."""
        changelogs = self.app.tables.changelog_topics
        asked = [tp for tp in partitions if tp.topic not in changelogs]
        firsts = dict(await super().earliest_offsets(*asked)) if asked else {}
        return {**firsts, **{tp: 0 for tp in partitions if tp.topic in changelogs}}


def account_table(app: Any, owner: PartitionOwner, partitions: int) -> AccountTable:
    """The table `accounts` of an app, owned by the engine. Call it once, before the app starts."""
    bound = type("BoundAccountTable", (AccountTable,), {"owner": owner})
    table: AccountTable = bound(
        app, name="accounts", default=bytes, partitions=partitions, key_type=bytes, value_type=bytes
    )
    app.tables.add(table)
    return table
