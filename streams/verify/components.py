"""How the ledger says that costs came to be, checked with arithmetic of its own (product rules 38 and 39).

Rules of this file:
1. The components of a usage add up to minus its amount. A usage that was rated upstream has none.
2. The components of a correction are below 0, and take back what the usage cost: refunds before it are no part of its
   amount, so they may be more than that. Those of one that re-rates a usage are what is due less what was booked: they
   add up to minus its amount.
3. A component is its quantity times its unit price, within a nano-unit for the one rounding of the entry; and within
   what the shown price is rounded by, where a factor makes it finer than a nano-unit.
4. What a usage says it counts towards graduated prices is what it is charged by them. What is taken back of a price in
   a month is never more than was counted.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.enums import BillingUnit, EntryKind, EntryReason
from schemas.meters import MINIMUM, QUANTITY

Report = Callable[[str, str, str], None]
"""Takes note of a difference: its code, the place, what it is."""

_PER: Final = {
    BillingUnit.THOUSAND_TOKENS: 1_000,
    BillingUnit.MILLION_TOKENS: 1_000_000,
    BillingUnit.THOUSAND_UNITS: 1_000,
    BillingUnit.MILLION_UNITS: 1_000_000,
    BillingUnit.BILLION_UNITS: 1_000_000_000,
    BillingUnit.MINUTE: 60,
    BillingUnit.HOUR: 3_600,
    BillingUnit.GPU_HOUR: 3_600,
}
"""How many of a meter a price is for; of all others one."""

_COUNTED: Final = "counted_nanos"
_UNCOUNTED: Final = "uncounted_nanos"

Int64s = npt.NDArray[np.int64]


class ComponentFold:
    """Checks the components of entries, and adds up what they count."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._counted: Counter[tuple[str, str, int]] = Counter()
        """By org, price and month what usage has counted, in nano-units of the meter."""

    def add(self, batch: pa.RecordBatch) -> None:
        """Check the entries of a batch, in the order of the ledger."""
        column = batch.column("components")
        offsets = column.offsets.to_numpy().astype(np.int64)
        first, last = int(offsets[0]), int(offsets[-1])
        if last > first:
            parts = column.values.slice(first, last - first)
            self._check_sums(batch, offsets - first, parts)
            self._check_products(batch, offsets - first, parts)
        details = batch.column("details")
        counts = pc.match_substring(details, _COUNTED)  # also what is no longer counted
        if pc.any(counts).as_py():
            self._count(batch.filter(pc.fill_null(counts, False)))

    def _check_sums(self, batch: pa.RecordBatch, offsets: Int64s, parts: pa.StructArray) -> None:
        amounts = _ints(parts.field("amount_nanos"))
        rows = np.flatnonzero(np.diff(offsets))
        sums = np.add.reduceat(amounts, offsets[:-1][rows])
        booked = _ints(batch.column("amount_nanos"))[rows]
        rerates = _is(pc.fill_null(batch.column("reason"), ""), EntryReason.USAGE_RERATED)[rows]
        corrects = _is(batch.column("kind"), EntryKind.CORRECTION)[rows] & ~rerates
        wrong = np.where(corrects, (sums > 0) | (-sums < booked), sums != -booked)
        for row, total in zip(rows[wrong].tolist(), sums[wrong].tolist(), strict=True):
            amount = batch.column("amount_nanos")[row].as_py()
            self._report("components", _place(batch, row), f"components of {total} for an amount of {amount}")

    def _check_products(self, batch: pa.RecordBatch, offsets: Int64s, parts: pa.StructArray) -> None:
        amounts, quantities = _ints(parts.field("amount_nanos")), _ints(parts.field("quantity_nanos"))
        per = _per(parts) * 1e9
        expected = quantities * _ints(parts.field("unit_price_nanos")).astype(np.float64) / per
        tolerance = 1.5 + np.abs(quantities) / (2 * per) + np.abs(expected) * 1e-12
        for part in np.flatnonzero(np.abs(amounts - expected) > tolerance).tolist():
            row = int(np.searchsorted(offsets, part, side="right")) - 1
            fields = parts[part].as_py()
            message = f"{fields['meter']}: {fields['quantity_nanos']} at {fields['unit_price_nanos']} a"
            message += f" {fields['billing_unit']} is not {fields['amount_nanos']}"
            self._report("component", _place(batch, row), message)

    def _count(self, batch: pa.RecordBatch) -> None:
        for row, fields in enumerate(batch.select(["org_id", "kind", "details", "components"]).to_pylist()):
            details = _object(fields["details"])
            match fields["kind"]:
                case EntryKind.USAGE if isinstance(details.get(_COUNTED), dict):
                    self._add(batch, row, fields["org_id"], details, fields["components"])
                case EntryKind.REFUND | EntryKind.CORRECTION if isinstance(details.get(_UNCOUNTED), dict):
                    for price_id, quantity in details[_UNCOUNTED].items():
                        counter = fields["org_id"], price_id, details["period"]
                        self._counted[counter] -= quantity
                        if self._counted[counter] < 0:
                            self._report(
                                "counter", _place(batch, row), f"more is taken back of {price_id} than counted"
                            )

    def _add(
        self, batch: pa.RecordBatch, row: int, org: str, details: dict[str, Any], components: list[dict[str, Any]]
    ) -> None:
        charged: Counter[str] = Counter()
        for part in components:
            if part["meter"] != MINIMUM:
                charged[part["price_id"]] += part["quantity_nanos"]
        for price_id, quantity in details[_COUNTED].items():
            self._counted[org, price_id, details["period"]] += quantity
            if charged[price_id] != quantity:
                message = f"{quantity} counted by {price_id}, {charged[price_id]} charged by it"
                self._report("counter", _place(batch, row), message)


def _per(parts: pa.StructArray) -> npt.NDArray[np.float64]:
    """How many of its meter each component's price is for."""
    units = parts.field("billing_unit").dictionary_encode()
    per = np.array([_PER.get(unit, 1) for unit in units.dictionary.to_pylist()], np.float64)
    found = per[units.indices.to_numpy(zero_copy_only=False)]
    return np.where(_is(parts.field("meter"), QUANTITY) | _is(parts.field("meter"), MINIMUM), 1.0, found)


def _is(column: pa.Array, value: str) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = pc.equal(column, value).to_numpy(zero_copy_only=False)
    return found


def _ints(column: pa.Array) -> Int64s:
    numbers: Int64s = column.to_numpy(zero_copy_only=False).astype(np.int64)
    return numbers


def _place(batch: pa.RecordBatch, row: int) -> str:
    return f"{batch.column('org_id')[row]}:{batch.column('seq')[row]}"


def _object(text: str) -> dict[str, Any]:
    found = json.loads(text)
    return found if isinstance(found, dict) else {}
