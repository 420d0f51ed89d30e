"""What the usage of a batch costs: prices looked up once per kind of usage, not once per event.

Rules of this file:
- `pricing` says by which price a usage goes. Here events of one kind (`Work`) share its plan, and a plan's tariff is
  looked up again only when an event is outside its time.
- Events are charged in columns where their tariff is a sum of products; those whose tariffs price the same meters
  together, whatever their prices are (`_charge_shape`). A row that columns do not vouch for is charged alone, by
  `Tariff.charge`, which also says what is wrong with it. Both give the same cost and components; a property test
  compares them.
- What a graduated price costs depends on the rows before it: such a row is left to be decided as a command.
- A row that cannot be priced is refused by itself; the others are not held up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.amounts import AMOUNT_MAX, NANOS
from schemas.enums import DeadLetterCode
from schemas.meters import NAMED_METERS, QUANTITY
from schemas.records import arrow_schema
from streams.ledger.account import Account
from streams.ledger.entry import Component
from streams.ledger.pricing import has_own_plans, plan_for, shared_plan, upstream_unit
from streams.ledger.rating import PriceList, RatingPlan, Work
from streams.ledger.refusals import DeadLetter
from streams.ledger.tariff import Rate, Tariff

Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

PRODUCT_MAX: Final = 4 * 10**18
"""A sum of products beyond this is left to whole numbers without bounds: below 2⁶² there is room to round it."""

COUNT_MAX: Final = AMOUNT_MAX // NANOS
"""More of a meter than this an entry cannot tell in nano-units."""

COMPONENTS: Final = arrow_schema("entry").field("components").type


@dataclass(slots=True)
class Ratings:
    """Cost, wallet, tariff and components of each row. A row in `refused` has none of them."""

    costs: list[int]
    units: list[str]
    tariffs: list[Tariff | None]
    """None: rated upstream."""
    refused: dict[int, DeadLetter]
    by_command: set[int]
    """Rows whose cost depends on those before them: they are to be decided one by one."""
    components: pa.ListArray


@dataclass(frozen=True, slots=True)
class Kinds:
    """The kinds of usage in a batch: for each row the number of its kind, and the kinds by number."""

    batch: pa.RecordBatch
    numbers: Int64s
    kinds: list[Work]


def kinds_of(batch: pa.RecordBatch) -> Kinds:
    """Find the kinds of usage in a batch."""
    codes = np.zeros(batch.num_rows, np.int64)
    values: list[list[str | None]] = []
    for name in Work._fields:
        column = batch.column(name)
        if column.null_count == len(column):
            values.append([None])
            continue
        encoded = column.dictionary_encode(null_encoding="encode")
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


# --- is anything without a price? -----------------------------------------------------------------------------------


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
    meters = _meters_of(found)
    left = [
        number
        for number, kind in enumerate(kinds)
        if any(not _priced(shared_plan(prices, kind), at, meters[number]) for at in span)
    ]
    if not left or account is None:
        return bool(left)
    rows = np.flatnonzero(np.isin(numbers, left))
    owned = dict.fromkeys(
        zip(batch.column("org_id").take(pa.array(rows)).to_pylist(), numbers[rows].tolist(), strict=True)
    )
    for org, number in owned:
        plan = plan_for(account(org), prices, kinds[number])
        if any(not _priced(plan, at, meters[number]) for at in span):
            return True
    return False


def _meters_of(found: Kinds) -> list[set[str]]:
    """Of each kind the meters that some usage of it has more than 0 of; one that says none is of one `quantity`."""
    batch, numbers = found.batch, found.numbers
    says_none = np.ones(len(batch), np.bool_)
    meters: list[set[str]] = [set() for _ in found.kinds]
    for meter in NAMED_METERS:
        column = batch.column(meter)
        if column.null_count < len(column):
            used = pc.fill_null(pc.greater(column, 0), False).to_numpy(zero_copy_only=False)
            says_none &= ~used
            for number in np.unique(numbers[used]).tolist():
                meters[number].add(meter)
    lengths = _lengths(batch)
    for number in np.unique(numbers[says_none & (lengths == 0)]).tolist():
        meters[number].add(QUANTITY)
    for row in np.flatnonzero(lengths).tolist():
        meters[numbers[row]].update(meter for meter, quantity in batch.column("quantities")[row].as_py() if quantity)
    return meters


def _priced(plan: RatingPlan, at: int, meters: set[str]) -> bool:
    """Whether all of these have a price, in requests of any size."""
    try:
        tariffs = [plan.tariff(at, size) for size in (0, *(above + 1 for above in plan.thresholds))]
    except DeadLetter as refusal:
        return refusal.code is not DeadLetterCode.UNKNOWN_PRICE
    return all(tariff.prices(meter) for tariff in tariffs for meter in meters)


def _lengths(batch: pa.RecordBatch) -> Int64s:
    """How many quantities each row names beside those that have a field of their own."""
    lengths: Int64s = np.diff(batch.column("quantities").offsets.to_numpy()).astype(np.int64)
    return lengths


# --- rating ---------------------------------------------------------------------------------------------------------


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
    rating = _Rating(batch)
    rows: npt.NDArray[np.intp] = np.arange(size)
    given = batch.column("cost_nanos")
    units: dict[int, str] = {}
    if given.null_count < size:
        upstream = given.is_valid().to_numpy(zero_copy_only=False)
        rows = np.flatnonzero(~upstream)
        rating.costs[upstream] = given.drop_null().to_numpy(zero_copy_only=False)
        named = batch.column("wallet").to_pylist()
        units = {row: upstream_unit(accounts[orgs[row]], named[row]) for row in np.flatnonzero(upstream).tolist()}
    if len(rows):
        known = found if found is not None and found.batch is batch else kinds_of(batch)
        _find_tariffs(rating, known, orgs, accounts, prices, rows)
        rating.charge(rows)
    return rating.ratings(units)


def _find_tariffs(
    rating: _Rating,
    found: Kinds,
    orgs: Sequence[str],
    accounts: Mapping[str, Account],
    prices: PriceList,
    rows: npt.NDArray[np.intp],
) -> None:
    """The tariff of each row: of its kind, as far as its org has none of its own and it is inside the time."""
    numbers, kinds = found.numbers, found.kinds
    apart = {org for org, account in accounts.items() if has_own_plans(account, prices)}
    alone = np.zeros(len(numbers), np.bool_)
    if apart:
        alone[rows] = [orgs[row] in apart for row in rows.tolist()]
    shared = rows[~alone[rows]]
    first_rows = dict(zip(numbers[shared[::-1]].tolist(), shared[::-1].tolist(), strict=True))
    of_kind = np.full(len(kinds), _ALONE)
    spans = np.zeros((2, len(kinds)), np.int64)
    for number, row in first_rows.items():
        plan = shared_plan(prices, kinds[number])
        if plan.thresholds:
            continue
        try:
            tariff = plan.tariff(int(rating.occurred[row]))
        except DeadLetter:
            continue
        of_kind[number] = rating.number_of(tariff)
        spans[:, number] = tariff.valid_from, tariff.valid_to
    kind = numbers[shared]
    at = rating.occurred[shared]
    inside = (of_kind[kind] != _ALONE) & (spans[0][kind] <= at) & (at < spans[1][kind])
    rating.numbers[shared[inside]] = of_kind[kind[inside]]
    for row in np.concatenate((shared[~inside], rows[alone[rows]])).tolist():
        work = kinds[numbers[row]]
        plan = plan_for(accounts[orgs[row]], prices, work) if alone[row] else shared_plan(prices, work)
        try:
            tariff = plan.tariff(int(rating.occurred[row]), rating.input_tokens(row))
        except DeadLetter as refusal:
            rating.refused[row] = refusal
            continue
        rating.numbers[row] = rating.number_of(tariff)


_ALONE: Final = -1
"""Stands for the number of a tariff: there is none, or it is looked up for the row alone."""


@dataclass(slots=True)
class _Flat:
    """Components of many rows, end to end."""

    rows: list[Int64s] = field(default_factory=list)
    codes: list[Int64s] = field(default_factory=list)
    """Which component it is, of those that the batch's tariffs have."""
    quantities: list[Int64s] = field(default_factory=list)
    amounts: list[Int64s] = field(default_factory=list)


class _Rating:
    """The rows of a batch while they are rated."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self.batch = batch
        size = batch.num_rows
        self.costs = np.zeros(size, np.int64)
        self.numbers = np.full(size, _ALONE)
        """Of each row the number of its tariff."""
        self.refused: dict[int, DeadLetter] = {}
        self.by_command: set[int] = set()
        self.occurred: Int64s = batch.column("occurred_at").to_numpy(zero_copy_only=False)
        self._tariffs: list[Tariff] = []
        self._number_of: dict[int, int] = {}
        self._counts: dict[str, tuple[Int64s, Bools]] = {}
        self._flat = _Flat()
        self._descriptors: list[tuple[str, int, str, str]] = []
        """Of each component what every usage by its price has in common: meter, unit price, billing unit, price id."""

    def number_of(self, tariff: Tariff) -> int:
        """The number of a tariff in this batch."""
        number = self._number_of.get(id(tariff))
        if number is None:
            number = self._number_of[id(tariff)] = len(self._tariffs)
            self._tariffs.append(tariff)
        return number

    def input_tokens(self, row: int) -> int | None:
        counts, said = self._count("input_tokens")
        return int(counts[row]) if said[row] else None

    def _count(self, name: str) -> tuple[Int64s, Bools]:
        """A column of numbers, 0 where there is none; and where there is one."""
        known = self._counts.get(name)
        if known is None:
            column = self.batch.column(name)
            said = column.is_valid().to_numpy(zero_copy_only=False)
            counts = pc.fill_null(column, 0).to_numpy(zero_copy_only=False).astype(np.int64)
            known = self._counts[name] = (counts, said)
        return known

    def charge(self, rows: npt.NDArray[np.intp]) -> None:
        """Charge the rows by their tariffs: in columns as far as those vouch for them, else one by one."""
        alone = _lengths(self.batch) > 0
        shapes: dict[tuple[object, ...], list[int]] = {}
        for number, tariff in enumerate(self._tariffs):
            if not tariff.linear or max(tariff.scale, *(rate.scaled for rate in tariff.column_rates)) > PRODUCT_MAX:
                continue
            meters = tuple(rate.meter for rate in tariff.column_rates)
            if tariff.whole is None:
                shapes.setdefault((*meters, tariff.elsewhere), []).append(number)
            elif tariff.whole.rate.denominator == 1:
                shapes.setdefault((tariff.whole.price.billing_unit, *meters, tariff.elsewhere), []).append(number)
        of_shape = np.full(len(self._tariffs) + 1, _ALONE)
        for shape, numbers in enumerate(shapes.values()):
            of_shape[numbers] = shape
        row_shapes = of_shape[self.numbers[rows]]
        for shape, numbers in enumerate(shapes.values()):
            chosen = (
                rows[(row_shapes == shape) & ~alone[rows]] if len(shapes) > 1 or alone.any() else rows[row_shapes == 0]
            )
            if len(chosen):
                whole = self._tariffs[numbers[0]].whole is not None
                left = self._charge_whole(chosen, numbers) if whole else self._charge_shape(chosen, numbers)
                alone[left] = True
        self._charge_alone(rows[(alone[rows] | (row_shapes == _ALONE)) & (self.numbers[rows] != _ALONE)])

    def _charge_shape(self, rows: npt.NDArray[np.intp], numbers: Sequence[int]) -> npt.NDArray[np.intp]:
        """Charge rows whose tariffs price the same meters; returns those that columns do not vouch for.

        Of each meter: its share, after the priced meters in it have taken theirs; its products with the price; and what
        the rounded cost grows by with it.
        """
        tariffs = [self._tariffs[number] for number in numbers]
        rates = tariffs[0].column_rates
        place = self._places(rows, numbers)
        factors = np.array([[rate.scaled for rate in tariff.column_rates] for tariff in tariffs], np.int64)
        shares, bad = self._shares(rows, tariffs[0])
        for k, rate in enumerate(rates):
            bad |= shares[rate.meter] > PRODUCT_MAX // len(rates) // np.maximum(factors[place, k], 1)
        left = rows[bad]
        if len(left):
            rows, place = rows[~bad], place[~bad]
            shares = {meter: share[~bad] for meter, share in shares.items()}
        scales = np.array([tariff.scale for tariff in tariffs], np.int64)[place]
        starts = np.array([self._describe(tariff) for tariff in tariffs], np.int64)[place]
        total = np.zeros(len(rows), np.int64)
        charged = np.zeros(len(rows), np.int64)
        for k, rate in enumerate(rates):
            share = shares[rate.meter]
            total = total + share * factors[place, k]
            cost = (total + scales // 2) // scales
            self._note(rows, share, starts + k, share * NANOS, cost - charged)
            charged = cost
        self.costs[rows] = charged
        return left

    def _places(self, rows: npt.NDArray[np.intp], numbers: Sequence[int]) -> Int64s:
        """Of each row the place of its tariff among these."""
        places = np.zeros(len(self._tariffs), np.int64)
        places[numbers] = np.arange(len(numbers))
        found: Int64s = places[self.numbers[rows]]
        return found

    def _shares(self, rows: npt.NDArray[np.intp], tariff: Tariff) -> tuple[dict[str, Int64s], Bools]:
        """Of each meter what is left to charge at its price, and the rows that columns do not vouch for.

        Those are rows that say nothing that has a price, or something that has none, or parts beyond their total.
        """
        shares: dict[str, Int64s] = {}
        said = np.zeros(len(rows), np.bool_)
        bad = np.zeros(len(rows), np.bool_)
        for rate in tariff.by_depth:
            if rate in tariff.column_rates:
                counts, given = self._count(rate.meter)
                share, said = counts[rows], said | given[rows]
                for nested in rate.nested:
                    if nested in shares:
                        share = share - shares[nested]
                bad |= (share < 0) | (share > COUNT_MAX)
                shares[rate.meter] = share
        for meter in NAMED_METERS:
            if meter not in shares and not tariff.prices(meter):
                bad |= self._used(meter, rows)
        return shares, bad | ~said

    def _used(self, meter: str, rows: npt.NDArray[np.intp]) -> Bools:
        """Whether each row has used any of a meter."""
        if self.batch.column(meter).null_count == len(self.batch):
            return np.zeros(len(rows), np.bool_)
        used: Bools = self._count(meter)[0][rows] > 0
        return used

    def _charge_whole(self, rows: npt.NDArray[np.intp], numbers: Sequence[int]) -> npt.NDArray[np.intp]:
        """The same for work that is priced as a whole, where one unit costs whole nano-units."""
        tariffs = [self._tariffs[number] for number in numbers]
        rates = [tariff.whole.rate.numerator for tariff in tariffs if tariff.whole is not None]
        place = self._places(rows, numbers)
        most = PRODUCT_MAX // np.maximum(np.array(rates, np.int64)[place], 1)
        counts, given = self._count("quantity_nanos")
        quantity = np.where(given[rows], counts[rows], NANOS)
        if tariffs[0].timed:
            replicas, named = self._count("replicas")
            times = np.where(named[rows], replicas[rows], 1)
            too_many = quantity > AMOUNT_MAX // np.maximum(times, 1)
            quantity = np.where(too_many, 0, quantity * times)
        else:
            too_many = np.zeros(len(rows), np.bool_)
        units, rest = quantity // NANOS, quantity % NANOS
        bad = too_many | (units > most) | (rest > most)
        bad |= quantity > AMOUNT_MAX
        for meter in NAMED_METERS:
            if not tariffs[0].prices(meter):
                bad |= self._used(meter, rows)
        left, rows, place = rows[bad], rows[~bad], place[~bad]
        units, rest, quantity = units[~bad], rest[~bad], quantity[~bad]
        price = np.array(rates, np.int64)[place]
        cost = units * price + (rest * price + NANOS // 2) // NANOS
        whole = [rate is tariffs[0].whole for rate in tariffs[0].column_rates].index(True)
        starts = np.array([self._describe(tariff) for tariff in tariffs], np.int64)[place]
        self._note(rows, quantity, starts + whole, quantity, cost)
        self.costs[rows] = cost
        return left

    def _describe(self, tariff: Tariff) -> int:
        """Where the components of a tariff begin among those of the batch."""
        start = len(self._descriptors)
        self._descriptors += [_descriptor(rate) for rate in tariff.column_rates]
        return start

    def _note(
        self, rows: npt.NDArray[np.intp], share: Int64s, codes: Int64s, quantities: Int64s, amounts: Int64s
    ) -> None:
        """A component of each of the rows, where there is a share."""
        flat = self._flat
        if not share.all():
            there = share != 0
            rows, codes, quantities, amounts = rows[there], codes[there], quantities[there], amounts[there]
        flat.rows.append(rows)
        flat.codes.append(codes)
        flat.quantities.append(quantities)
        flat.amounts.append(amounts)

    def _charge_alone(self, rows: npt.NDArray[np.intp]) -> None:
        """Charge rows one by one."""
        if not len(rows):
            return
        names = (*NAMED_METERS, "quantity_nanos", "replicas")
        chosen = pa.array(rows)
        columns = [self.batch.column(name).take(chosen).to_pylist() for name in names]
        maps = self.batch.column("quantities").take(chosen).to_pylist()
        noted: list[tuple[int, Component]] = []
        for row, quantities, *values in zip(rows.tolist(), maps, *columns, strict=True):
            tariff = self._tariffs[self.numbers[row]]
            if tariff.counted:
                self.by_command.add(row)
                continue
            said = {name: value * NANOS for name, value in zip(NAMED_METERS, values, strict=False) if value is not None}
            said.update(quantities)
            quantity, replicas = values[-2:]
            if quantity is not None:
                said[QUANTITY] = quantity
            try:
                charge = tariff.charge(said, replicas)
            except DeadLetter as refusal:
                self.refused[row] = refusal
                continue
            self.costs[row] = charge.cost
            noted += ((row, component) for component in charge.components)
        self._note_alone(noted)

    def _note_alone(self, noted: Sequence[tuple[int, Component]]) -> None:
        flat, codes = self._flat, []
        for _, component in noted:
            codes.append(len(self._descriptors))
            self._descriptors.append(
                (component.meter, component.unit_price_nanos, component.billing_unit.value, component.price_id)
            )
        flat.rows.append(np.array([row for row, _ in noted], np.int64))
        flat.codes.append(np.array(codes, np.int64))
        flat.quantities.append(np.array([component.quantity_nanos for _, component in noted], np.int64))
        flat.amounts.append(np.array([component.amount_nanos for _, component in noted], np.int64))

    def ratings(self, units: Mapping[int, str]) -> Ratings:
        """What the rows came to. `units`: of rows that were rated upstream."""
        tariffs: list[Tariff | None] = [*self._tariffs, None]
        of_row = list(map(tariffs.__getitem__, self.numbers.tolist()))
        wallets = [*(tariff.wallet for tariff in self._tariffs), ""]
        wallet_of = list(map(wallets.__getitem__, self.numbers.tolist()))
        for row, unit in units.items():
            wallet_of[row] = unit
        return Ratings(self.costs.tolist(), wallet_of, of_row, self.refused, self.by_command, self._components())

    def _components(self) -> pa.ListArray:
        """The components of all rows, in the order of the rows and of their meters."""
        flat, size = self._flat, self.batch.num_rows
        rows = np.concatenate(flat.rows) if flat.rows else np.zeros(0, np.int64)
        offsets = np.zeros(size + 1, np.int32)
        np.cumsum(np.bincount(rows, minlength=size), out=offsets[1:])
        order = np.argsort(rows, kind="stable")
        meters, unit_prices, billing_units, price_ids = (
            zip(*self._descriptors, strict=True) if self._descriptors else ((),) * 4
        )
        table = pa.StructArray.from_arrays(
            [
                pa.array(meters, pa.string()),
                pa.array(unit_prices, pa.int64()),
                pa.array(billing_units, pa.string()),
                pa.array(price_ids, pa.string()),
            ],
            names=["meter", "unit_price_nanos", "billing_unit", "price_id"],
        )
        found = table.take(pa.array(_joined(flat.codes)[order]))
        values = {name: found.field(name) for name in ("meter", "unit_price_nanos", "billing_unit", "price_id")}
        values["quantity_nanos"] = pa.array(_joined(flat.quantities)[order])
        values["amount_nanos"] = pa.array(_joined(flat.amounts)[order])
        fields = list(COMPONENTS.value_type)
        struct = pa.StructArray.from_arrays([values[each.name] for each in fields], fields=fields)
        return pa.ListArray.from_arrays(pa.array(offsets), struct, type=COMPONENTS)


def _joined(parts: Sequence[Int64s]) -> Int64s:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def _descriptor(rate: Rate) -> tuple[str, int, str, str]:
    return rate.meter, rate.unit_price, rate.price.billing_unit.value, rate.price.price_id
