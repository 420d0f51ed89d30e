"""The usage of a span of time as it is booked, with what the price list of today makes of it.

Rules of this file:
- Pure: entries and prices in, usages out. Entries of an org come in the order of its ledger.
- A usage is its latest revision. What is booked of it is the sum of all its entries: revisions, what corrections took
  back, earlier re-ratings. Refunds are no part of it: they are a decision of their own.
- It is rated as it was when it was booked: by the plan tier and the prices of its own that the org had then, at the
  prices of the list that hold for its time. A usage that was voided should cost nothing.
- Not rated again (`Skipped`): what was rated upstream, captures of holds among it; what the list has no price for any
  more; what the list would book in another wallet; what has a graduated price or a free quantity, for it depends on all
  other usage of its month.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import msgspec

from schemas.amounts import parse_amount
from schemas.enums import EntryKind, EntryReason, SettingKind
from streams.ledger.account import Account, new_account
from streams.ledger.avro_fields import SHARED
from streams.ledger.commands import Usage
from streams.ledger.entry import Component, Entry
from streams.ledger.pricing import rate
from streams.ledger.rating import PriceList, Rated
from streams.ledger.refusals import DeadLetter
from streams.ledger.settings import Change, apply_setting

ID_FAMILY: Final = "rerate"
"""Ids of corrections begin with it: `rerate:<price set>:<number of the usage's entry>`."""

PRICING_SETTINGS: Final = frozenset({SettingKind.ORG, SettingKind.PRICE_OVERRIDE})
"""Settings that a price depends on."""

LIMIT_SETTINGS: Final = {SettingKind.MONTH_LIMITS: ("allowed_limit",), SettingKind.WALLET: ("negative_limit",)}
"""Settings with limits that a correction may cross, and the names of these."""


class Skipped(StrEnum):
    """Why a usage is not rated again."""

    UPSTREAM = "rated upstream"
    NO_PRICE = "no price holds for it any more"
    OTHER_WALLET = "its price is in another wallet"
    BY_VOLUME = "its price depends on what else was used"


class Filter(msgspec.Struct, frozen=True):
    """Which usage is meant: `since <= occurred_at < until`, of these orgs and models (None: all)."""

    since: int
    until: int
    orgs: frozenset[str] | None = None
    models: frozenset[str] | None = None

    def takes(self, entry: Entry) -> bool:
        return (
            self.since <= entry.occurred_at < self.until
            and (self.orgs is None or entry.org_id in self.orgs)
            and (self.models is None or entry.model in self.models)
        )


@dataclass(slots=True)
class BookedUsage:
    """One usage: its latest revision, what is booked of it, and what it would cost now. Nano-units."""

    entry: Entry
    """Of the latest revision."""
    rated: Rated | None
    """By the prices of today; None: not rated (`skipped`)."""
    skipped: Skipped | None
    booked: int = 0
    parts: Counter[tuple[str, str, str, int]] = field(default_factory=Counter)
    """What is booked, by meter, price id, billing unit and unit price."""
    quantities: Counter[tuple[str, str, str, int]] = field(default_factory=Counter)
    itemised: bool = True
    """Its entries have components."""
    voided: bool = False

    @property
    def due(self) -> int:
        """What it should have cost."""
        return 0 if self.voided or self.rated is None else self.rated.cost

    @property
    def difference(self) -> int:
        """What is to be charged (above 0) or given back (below 0)."""
        return 0 if self.skipped is not None else self.due - self.booked

    def difference_parts(self) -> tuple[Component, ...]:
        """The difference by meter and price: what is due less what is booked; it adds up to `difference`."""
        if not self.itemised:
            return ()
        amounts, quantities = Counter(self.parts), Counter(self.quantities)
        amounts.update({key: -2 * nanos for key, nanos in self.parts.items()})
        quantities.update({key: -2 * nanos for key, nanos in self.quantities.items()})
        for part in () if self.voided or self.rated is None else self.rated.components:
            amounts[_key(part)] += part.amount_nanos
            quantities[_key(part)] += part.quantity_nanos
        keys = [key for key in amounts.keys() | quantities.keys() if amounts[key] or quantities[key]]
        return tuple(
            Component(meter, quantities[key], unit_price, unit, price_id, amounts[key])  # type: ignore[arg-type]
            for key in sorted(keys)
            for meter, price_id, unit, unit_price in (key,)
        )


def _key(part: Component) -> tuple[str, str, str, int]:
    return part.meter, part.price_id, str(part.billing_unit), part.unit_price_nanos


class BookedUsages:
    """Folds the entries of a ledger to the usages that are meant."""

    def __init__(self, meant: Filter, prices: PriceList) -> None:
        self._meant = meant
        self._prices = prices
        self._accounts: dict[str, Account] = {}
        """With the settings alone that prices depend on."""
        self._latest: dict[tuple[str, str], BookedUsage] = {}
        self._by_seq: dict[tuple[str, int], BookedUsage] = {}
        self._usages: list[BookedUsage] = []
        self.limits: dict[tuple[str, str], dict[str, int]] = {}
        """By org and wallet, in nano-units; 0: none."""

    def __iter__(self) -> Iterator[BookedUsage]:
        return iter(self._usages)

    def __len__(self) -> int:
        return len(self._usages)

    def add(self, entry: Entry) -> None:
        """The next entry of its org: a setting, a usage or a correction; others are passed over."""
        match entry.kind:
            case EntryKind.SETTING:
                self._set(entry)
            case EntryKind.USAGE:
                self._book(entry)
            case EntryKind.CORRECTION if entry.reason == EntryReason.USAGE_RERATED:
                self._rerate(entry)
            case EntryKind.CORRECTION:
                self._correct(entry)
            case _:
                pass

    def _set(self, entry: Entry) -> None:
        change = msgspec.json.decode(entry.details or "", type=Change)
        if change.kind in LIMIT_SETTINGS:
            limits = self.limits.setdefault((entry.org_id, change.body["unit"]), {})
            for name in LIMIT_SETTINGS[change.kind]:
                limits[name] = parse_amount(change.body.get(name) or "0")
        if change.kind not in PRICING_SETTINGS:
            return
        account = self._accounts.get(entry.org_id)
        if account is None:
            account = self._accounts[entry.org_id] = new_account(entry.org_id)
        account.seq = entry.seq
        apply_setting(account, entry)

    def _book(self, entry: Entry) -> None:
        known = self._latest.get((entry.org_id, entry.event_id)) if entry.revision else None
        if known is None:
            if not self._meant.takes(entry):
                return
            known = BookedUsage(entry, None, None)
            self._usages.append(known)
            self._latest[entry.org_id, entry.event_id] = known
        self._by_seq[entry.org_id, entry.seq] = known
        known.entry, known.voided = entry, False
        known.rated, known.skipped = self._rate(entry)
        _count(known, entry, 1)

    def _correct(self, entry: Entry) -> None:
        known = self._latest.get((entry.org_id, entry.event_id))
        if known is not None:
            # It takes back what the latest revision has booked, less what a refund has given back before.
            known.voided = entry.reason == EntryReason.USAGE_VOIDED
            _count(known, known.entry, -1)

    def _rerate(self, entry: Entry) -> None:
        number = entry.event_id.rpartition(":")[2]
        known = self._by_seq.get((entry.org_id, int(number))) if number.isdigit() else None
        if known is not None:
            _count(known, entry, 1)

    def _rate(self, entry: Entry) -> tuple[Rated | None, Skipped | None]:
        if entry.billing_unit is None and not entry.components:
            return None, Skipped.UPSTREAM
        account = self._accounts.get(entry.org_id) or new_account(entry.org_id)
        try:
            rated = rate(account, usage_of(entry), self._prices, entry.recorded_at)
        except DeadLetter:
            return None, Skipped.NO_PRICE
        if rated.counted:
            return None, Skipped.BY_VOLUME
        return rated, None if rated.wallet == entry.wallet else Skipped.OTHER_WALLET


def _count(known: BookedUsage, entry: Entry, sign: int) -> None:
    known.booked -= sign * entry.amount_nanos
    if entry.amount_nanos and not entry.components:
        known.itemised = False
    for part in entry.components:
        known.parts[_key(part)] += sign * part.amount_nanos
        known.quantities[_key(part)] += sign * part.quantity_nanos


def usage_of(entry: Entry) -> Usage:
    """The usage of an entry, as it was asked to be rated."""
    return Usage(org_id=entry.org_id, **{name: getattr(entry, name) for name in SHARED})
