"""The balance records of the accounts that a batch touched, as columns.

One record an org and batch, in the same transaction as the entries: the balance does not lag behind the ledger
(product rule 34). Written flat, a list a field, because a row at a time would cost more than booking.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from schemas.records import arrow_schema
from streams.ledger.account import Account
from streams.ledger.balances import health, status


def balance_columns(accounts: Sequence[Account], as_of: int) -> pa.RecordBatch:
    """One row an account; `as_of` in microseconds."""
    schema = arrow_schema("balance")
    wallets_type = schema.field("wallets").type
    offsets = np.zeros(len(accounts) + 1, np.int32)
    np.cumsum([len(account.wallets) for account in accounts], out=offsets[1:])
    owned = [(account, wallet) for account in accounts for wallet in account.wallets.values()]
    wallets = [wallet for _, wallet in owned]
    values = {
        "unit": [wallet.unit for wallet in wallets],
        "settled_nanos": [wallet.settled for wallet in wallets],
        "held_nanos": [wallet.held for wallet in wallets],
        "available_nanos": [wallet.settled - wallet.held for wallet in wallets],
        "allocation_nanos": [wallet.allocation for wallet in wallets],
        "month_spent_nanos": [wallet.used for wallet in wallets],
        "lifetime_added_nanos": [wallet.lifetime_added for wallet in wallets],
        "lifetime_spent_nanos": [wallet.lifetime_spent for wallet in wallets],
        "status": [status(account, wallet) for account, wallet in owned],
        "health": [health(wallet) for wallet in wallets],
        "on_the_way_nanos": [account.in_transit_nanos(wallet.unit) for account, wallet in owned],
    }
    fields = list(wallets_type.value_type)
    struct = pa.StructArray.from_arrays([pa.array(values[field.name], field.type) for field in fields], fields=fields)
    columns = {
        "org_id": pa.array([account.org_id for account in accounts], pa.string()),
        "seq": pa.array([account.seq for account in accounts], pa.int64()),
        "as_of": pa.array(np.full(len(accounts), as_of, np.int64)),
        "wallets": pa.ListArray.from_arrays(pa.array(offsets), struct, type=wallets_type),
    }
    return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)
