"""Merging a second account of an org into its own (`credits accounts merge`), while no worker runs.

Rules of this file:
1. What an older version booked in a partition that is not the org's is worked out from the ledger topic
   (`streams.ledger.merges`), and shown before anything is written.
2. One transaction of that partition's own producer, which fences every worker, writes the closing entries, the closed
   account, and the records that move what counts: adjustments for credits, usage with its cost for what is owed. Either
   all of it is there or nothing, so that merging again after a crash is safe.
3. Those records are ordinary input under fixed ids, by murmur2. The org's own account books them when a worker runs.
4. The org's newest balance in that partition of the compacted balances topic is taken away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from schemas.codec import decode_columns, encode_one, rows_of
from schemas.enums import InputKind, PurchaseKind
from schemas.events import INPUTS
from schemas.partitioner import partition_of
from schemas.topics import INPUT_TOPICS, Topics
from streams.engine.failures import FencedError, PartitionLostError
from streams.engine.maintenance import book_output
from streams.engine.ports import Keyed, Output, Processor
from streams.engine.rebuild import WorkerAtWorkError, refuse_while_working
from streams.errors import KafkaUnavailableError, OperatorError
from streams.kafka.reader import committed_ends, read_range
from streams.kafka.registry import CachedRegistry, connect_registry
from streams.ledger.account import Account, encode_account, new_account
from streams.ledger.entry import Entry
from streams.ledger.evolve import evolve
from streams.ledger.merges import WalletMerge, close_second_account, closed, merge_id, merge_of
from streams.processing.outbound import Outbound
from streams.processing.state import PartitionState

if TYPE_CHECKING:
    from streams.settings import Settings

OPERATION = "account.merge"
"""The operation of usage that moves what a second account owes."""


@dataclass(frozen=True, slots=True)
class AccountMerge:
    """One second account of an org, and what its merge does."""

    org_id: str
    partition: int
    home: int
    entries: int
    wallets: list[WalletMerge]
    open_holds: int
    in_transit: int
    """Transfers that left it and whose answer it will never see."""


def find_second_accounts(settings: Settings, org_id: str) -> list[AccountMerge]:
    """The second accounts of an org that are not merged. Reads the whole ledger topic."""
    by_partition = _entries(settings, org_id)
    home = partition_of(org_id.encode(), settings.partitions)
    own = by_partition.get(home, [])
    found = []
    for partition, entries in sorted(by_partition.items()):
        if partition != home and not closed(entries):
            account = _folded(org_id, entries)
            wallets = merge_of(account, entries, own)
            own = [*own, *entries]  # what two second accounts have in common counts once, too
            second = AccountMerge(
                org_id=org_id,
                partition=partition,
                home=home,
                entries=len(entries),
                wallets=wallets,
                open_holds=len(account.holds),
                in_transit=len(account.in_transit),
            )
            found.append(second)
    return found


def merge(settings: Settings, processor: Processor[PartitionState, Any], second: AccountMerge, now: int) -> None:
    """Close one second account and send what moves; `now`: microseconds.

    Raises `WorkerAtWorkError` while a worker runs, `KafkaUnavailableError`: run it again.
    """
    refuse_while_working(settings)
    registry = connect_registry(settings)
    topics = Topics(settings.namespace)

    def decide(state: PartitionState) -> Output:
        account = state.account(second.org_id)
        if account.seq != second.entries:
            raise OperatorError(
                f"the second account has {account.seq} entries, {second.entries} were read", "run the command again"
            )
        outbound = Outbound(topics, registry)
        outbound.outcome(close_second_account(account, second.partition, state.clock_at))
        output = outbound.output(state.clock_at, None, state.seals)
        output.accounts = {second.org_id: (0, encode_account(account))}
        key = second.org_id.encode()
        output.keyed += [
            Keyed(topics.name(INPUT_TOPICS[kind]), key, _encoded(kind, fields, registry))
            for kind, fields in moving_records(second, now)
        ]
        output.records.append((topics.name("balances"), [{"key": key, "value": None}]))
        return output

    try:
        asyncio.run(book_output(settings, processor, second.partition, decide))
    except FencedError as error:
        raise WorkerAtWorkError(
            "a worker has started while the account was merged", "stop it, and run the command again"
        ) from error
    except PartitionLostError as error:
        raise KafkaUnavailableError(
            f"whether the merge went through is not known ({error})",
            "run the command again: it books what is not booked yet",
        ) from error


def moving_records(second: AccountMerge, now: int) -> list[tuple[InputKind, dict[str, Any]]]:
    """The input records that move what counts of a second account into the org's own."""
    records: list[tuple[InputKind, dict[str, Any]]] = []
    for wallet in second.wallets:
        name = f"{merge_id(second.partition)}/{wallet.unit}"
        common = {"org_id": second.org_id, "occurred_at": now, "wallet": wallet.unit}
        if wallet.moves < 0:
            usage = {"event_id": name, "operation": OPERATION, "cost_nanos": -wallet.moves}
            records.append((InputKind.USAGE, {**common, **usage}))
        for number, lot in enumerate(wallet.lots, 1):
            purchase = {
                "purchase_id": f"{name}/{number}",
                "amount_nanos": lot.amount_nanos,
                "kind": PurchaseKind.ADJUSTMENT.value,
                "priority": lot.priority,
                "expires_at": lot.expires_at,
            }
            records.append((InputKind.PURCHASE, {**common, **purchase}))
    return records


def _encoded(kind: InputKind, fields: Mapping[str, Any], registry: CachedRegistry) -> bytes:
    record = INPUTS[kind].from_record(dict(fields)).to_record()
    return encode_one(kind.value, record, registry.schema_id(INPUT_TOPICS[kind]))


def _entries(settings: Settings, org_id: str) -> dict[int, list[Entry]]:
    """The org's entries by partition, in order."""
    registry, key = connect_registry(settings), org_id.encode()
    by_partition: dict[int, list[Entry]] = {}
    for batch in read_range(settings, {}, committed_ends(settings, [Topics(settings.namespace).name("ledger")])):
        messages = [message for message in batch if message.key() == key]
        if not messages:
            continue
        decoded = decode_columns("entry", [message.value() for message in messages], registry)
        if decoded.failures:
            message = f"the ledger has entries that cannot be read ({decoded.failures[0].message})"
            raise OperatorError(message, "see `credits verify`")
        for message, row in zip(messages, rows_of(decoded.batch), strict=True):
            by_partition.setdefault(message.partition(), []).append(Entry.from_record(row))
    return by_partition


def _folded(org_id: str, entries: list[Entry]) -> Account:
    account = new_account(org_id)
    for entry in entries:
        evolve(account, entry)
    return account
