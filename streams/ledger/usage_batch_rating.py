"""What the usage of a batch costs: prices looked up once per kind of usage, not once per event.

Rules of this file:
- `pricing` says by which price a usage goes. Here events of one kind (`Work`) share its plan, and a plan's tariff is
  looked up again only when an event is outside its time.
- A row that cannot be priced is refused by itself; the others are not held up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.enums import DeadLetterCode
from streams.ledger.account import Account
from streams.ledger.pricing import has_own_plans, plan_for, shared_plan, upstream_unit
from streams.ledger.rating import PriceList, RatingPlan, Tariff, Work
from streams.ledger.refusals import DeadLetter


@dataclass(slots=True)
class Ratings:
    """Cost, wallet and tariff of each row. A row in `refused` has none of them."""

    costs: list[int]
    units: list[str]
    tariffs: list[Tariff | None]
    """None: rated upstream."""
    refused: dict[int, DeadLetter]


@dataclass(frozen=True, slots=True)
class Kinds:
    """The kinds of usage in a batch: for each row the number of its kind, and the kinds by number."""

    batch: pa.RecordBatch
    numbers: npt.NDArray[np.int64]
    kinds: list[Work]


def kinds_of(batch: pa.RecordBatch) -> Kinds:
    """Find the kinds of usage in a batch."""
    codes = np.zeros(batch.num_rows, np.int64)
    values: list[list[str | None]] = []
    for name in Work._fields:
        encoded = batch.column(name).dictionary_encode(null_encoding="encode")
        values.append(encoded.dictionary.to_pylist())
        codes = codes * len(values[-1]) + encoded.indices.to_numpy(zero_copy_only=False)
    present, numbers = np.unique(codes, return_inverse=True)
    kinds = []
    for code in present.tolist():
        parts: list[str | None] = []
        for column in reversed(values):
            code, number = divmod(code, len(column))
            parts.append(column[number])
        kinds.append(Work(*reversed(parts)))  # type: ignore[arg-type]  # an operation is never null
    return Kinds(batch, numbers, kinds)


def unpriced(found: Kinds, prices: PriceList, account: Callable[[str], Account] | None = None) -> bool:
    """Whether some usage in the batch has no price: time to read the price topic on.

    A look at the kinds, and at the rows of those that have no general price: their orgs may have one of their own.
    Without `account` those count as unpriced. `rate_rows` decides.
    """
    batch = found.batch
    if batch.column("cost_nanos").null_count < batch.num_rows:
        batch = batch.filter(batch.column("cost_nanos").is_null())
        found = kinds_of(batch)
    if not batch.num_rows:
        return False
    times = batch.column("occurred_at").to_numpy(zero_copy_only=False)
    span = (int(times.min()), int(times.max()))
    numbers, kinds = found.numbers, found.kinds
    tokens = [
        set(numbers[pc.fill_null(pc.greater(batch.column(name), 0), False).to_numpy(zero_copy_only=False)].tolist())
        for name in ("input_tokens", "output_tokens")
    ]
    left = [
        number
        for number, kind in enumerate(kinds)
        if any(not _priced(shared_plan(prices, kind), at, *(int(number in some) for some in tokens)) for at in span)
    ]
    if not left or account is None:
        return bool(left)
    rows = np.flatnonzero(np.isin(numbers, left))
    owned = dict.fromkeys(
        zip(batch.column("org_id").take(pa.array(rows)).to_pylist(), numbers[rows].tolist(), strict=True)
    )
    for org, number in owned:
        plan = plan_for(account(org), prices, kinds[number])
        if any(not _priced(plan, at, *(int(number in some) for some in tokens)) for at in span):
            return True
    return False


def _priced(plan: RatingPlan, at: int, input_tokens: int, output_tokens: int) -> bool:
    try:
        plan.tariff(at).cost(input_tokens, output_tokens, None, None)
    except DeadLetter as refusal:
        return refusal.code is not DeadLetterCode.UNKNOWN_PRICE
    return True


def rate_rows(
    batch: pa.RecordBatch,
    orgs: Sequence[str],
    accounts: Mapping[str, Account],
    prices: PriceList,
    found: Kinds | None = None,
) -> Ratings:
    """Rate every row. `accounts` has the account of every org: its tier and its default wallet count.

    `found`: the kinds of usage in this batch, where they are known; those of another batch are not used.
    """
    size = batch.num_rows
    ratings = Ratings([0] * size, [""] * size, [None] * size, {})
    rows: npt.NDArray[np.intp] = np.arange(size)
    given = batch.column("cost_nanos")
    if given.null_count < size:
        upstream = given.is_valid().to_numpy(zero_copy_only=False)
        _take_upstream(batch, orgs, accounts, np.flatnonzero(upstream).tolist(), ratings)
        rows = np.flatnonzero(~upstream)
    if len(rows):
        known = found if found is not None and found.batch is batch else kinds_of(batch)
        _rate_by_list(known, orgs, accounts, prices, rows, ratings)
    return ratings


def _take_upstream(
    batch: pa.RecordBatch, orgs: Sequence[str], accounts: Mapping[str, Account], rows: list[int], ratings: Ratings
) -> None:
    costs = batch.column("cost_nanos").to_pylist()
    units = batch.column("wallet").to_pylist()
    for row in rows:
        ratings.costs[row] = costs[row]
        ratings.units[row] = upstream_unit(accounts[orgs[row]], units[row])


def _rate_by_list(
    found: Kinds,
    orgs: Sequence[str],
    accounts: Mapping[str, Account],
    prices: PriceList,
    rows: npt.NDArray[np.intp],
    ratings: Ratings,
) -> None:
    batch, numbers, kinds = found.batch, found.numbers, found.kinds
    apart = {org for org, account in accounts.items() if has_own_plans(account, prices)}
    tariffs: list[Tariff | None] = [None] * len(kinds)
    occurred = batch.column("occurred_at").to_pylist()
    input_tokens = batch.column("input_tokens").to_pylist()
    output_tokens = batch.column("output_tokens").to_pylist()
    quantities = batch.column("quantity_nanos").to_pylist()
    replicas = batch.column("replicas").to_pylist()
    number_of = numbers.tolist()
    costs, units, used = ratings.costs, ratings.units, ratings.tariffs
    for row in rows.tolist():
        org, number, at = orgs[row], number_of[row], occurred[row]
        try:
            tariff = tariffs[number]
            if org in apart:
                tariff = plan_for(accounts[org], prices, kinds[number]).tariff(at)
            elif tariff is None or not tariff.valid_from <= at < tariff.valid_to:
                tariff = tariffs[number] = shared_plan(prices, kinds[number]).tariff(at)
            costs[row] = tariff.cost(input_tokens[row], output_tokens[row], quantities[row], replicas[row])
        except DeadLetter as refusal:
            ratings.refused[row] = refusal
            continue
        units[row] = tariff.wallet
        used[row] = tariff
