"""What the ledger says: entries, and the records that leave with them.

Rules of this file: the fields of each struct are those of the Avro record of the same name, in the same order (a test
holds them together; an entry's id is made from two of its fields when it is asked for), so a record is made by
`to_record` and nothing else. Of every entry
`amount_nanos = sum(grants) - sum(slices)`: a slice above 0 was drawn from its grant, below 0 was given back; an
overdraft slice above 0 went deeper into the negative, below 0 paid it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from schemas.amounts import format_amount
from schemas.enums import (
    AlertKind,
    BillingUnit,
    DecisionCode,
    EntryKind,
    GrantKind,
    HoldAction,
    LegKind,
    TopupReason,
)
from streams.ledger.avro_fields import completed

PERCENT_STEP_NANOS = 10_000_000
"""Percentages are given with two decimals, rounded down: steps of 0.01 %, in nano-percent."""


class Slice(msgspec.Struct, frozen=True, gc=False):
    """What an entry took from one grant (above 0) or gave back to it (below 0)."""

    grant_id: str
    kind: GrantKind
    amount_nanos: int
    expires_at: int | None = None


class Lot(msgspec.Struct, frozen=True):
    """A grant as it is added to a wallet, or travels between two."""

    grant_id: str
    kind: GrantKind
    amount_nanos: int
    priority: int
    expires_at: int | None = None
    price_paid_nanos: int | None = None
    currency: str | None = None


class Component(msgspec.Struct, frozen=True, gc=False):
    """One part of what a usage costs: a quantity at a price (product rule 39)."""

    meter: str
    quantity_nanos: int
    unit_price_nanos: int
    billing_unit: BillingUnit
    price_id: str
    amount_nanos: int


@completed("entry")
class Entry(msgspec.Struct, frozen=True, gc=False):
    """One line of the ledger: the contract's `entry`."""

    org_id: str
    seq: int
    kind: EntryKind
    wallet: str
    amount_nanos: int
    balance_nanos: int
    available_nanos: int
    held_nanos: int
    occurred_at: int
    recorded_at: int
    event_id: str
    source_topic: str = ""
    source_partition: int = -1
    source_offset: int = -1
    slices: tuple[Slice, ...] = ()
    grants: tuple[Lot, ...] = ()
    operation: str | None = None
    source: str | None = None
    category: str | None = None
    project_id: str | None = None
    user_id: str | None = None
    team: str | None = None
    department: str | None = None
    model: str | None = None
    tool: str | None = None
    provider: str | None = None
    endpoint: str | None = None
    deployment: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    quantity_nanos: int | None = None
    unit_of_measure: str | None = None
    replicas: int | None = None
    revision: int = 0
    hold_id: str | None = None
    unit_price_nanos: int | None = None
    output_unit_price_nanos: int | None = None
    billing_unit: BillingUnit | None = None
    reason: str | None = None
    """A `RejectReason` on rejected entries, an `EntryReason` on others."""
    actor: str | None = None
    counterparty_org_id: str | None = None
    correlation_id: str | None = None
    details: str | None = None
    attributes: Mapping[str, str] = msgspec.field(default_factory=dict)
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_write_1h_tokens: int | None = None
    output_reasoning_tokens: int | None = None
    input_audio_tokens: int | None = None
    output_audio_tokens: int | None = None
    input_image_tokens: int | None = None
    output_image_tokens: int | None = None
    quantities: Mapping[str, int] = msgspec.field(default_factory=dict)
    service_tier: str | None = None
    components: tuple[Component, ...] = ()

    @property
    def entry_id(self) -> str:
        """Where it stands in the ledger of its org."""
        return f"{self.org_id}:{self.seq}"

    def to_record(self) -> dict[str, Any]:
        """The Avro record; times as microseconds."""
        return {**_record(self), "entry_id": self.entry_id}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Entry:
        """The inverse of `to_record`; raises msgspec.ValidationError for what no ledger wrote."""
        return msgspec.convert(record, cls)


class Alert(msgspec.Struct, frozen=True):
    """A line was crossed, or left: the contract's `alert`. Percentages here are nano-percent, in the record doubles."""

    alert_id: str
    org_id: str
    wallet: str
    kind: AlertKind
    rule_id: str | None
    rule_version: int
    epoch: int
    level: str | None
    balance_nanos: int
    available_nanos: int
    used_percent: int | None
    previous_percent: int | None
    occurred_at: int
    entry_seq: int
    channels: tuple[str, ...] = ()
    dismissable: bool = False
    message: str = ""
    thresholds_left: tuple[str, ...] = ()

    def to_record(self) -> dict[str, Any]:
        """The Avro record; times as microseconds, percentages as doubles with two decimals, rounded down."""
        record = _record(self)
        for name in ("used_percent", "previous_percent"):
            nanos = record[name]
            if nanos is not None:
                text = format_amount(nanos // PERCENT_STEP_NANOS * PERCENT_STEP_NANOS)
                record[name] = msgspec.json.decode(text, type=float)
        return record


class Leg(msgspec.Struct, frozen=True):
    """One half of a transfer in transit; also the command that the receiving org decides on."""

    leg_id: str
    transfer_id: str
    kind: LegKind
    org_id: str
    source_org_id: str
    target_org_id: str
    wallet: str
    amount_nanos: int
    actor: str
    occurred_at: int
    reason: str | None = None
    grants: tuple[Lot, ...] = ()

    def to_record(self) -> dict[str, Any]:
        return _record(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Leg:
        return msgspec.convert(record, cls)


class TopupRequest(msgspec.Struct, frozen=True):
    """The ledger asks the payment service for credits (product rule 20)."""

    topup_request_id: str
    org_id: str
    wallet: str
    amount_nanos: int
    occurred_at: int
    entry_seq: int
    reason: TopupReason

    def to_record(self) -> dict[str, Any]:
        return _record(self)


class HoldDecision(msgspec.Struct, frozen=True):
    """The answer to a hold (product rule 18): the contract's `decision`."""

    hold_id: str
    org_id: str
    action: HoldAction
    allowed: bool
    code: DecisionCode
    http_status: int
    limit_id: str | None
    granted_nanos: int
    available_nanos: int
    expires_at: int | None
    entry_seq: int
    limit_window: str | None = None
    limit_ends_at: int | None = None
    message: str | None = None

    def to_record(self) -> dict[str, Any]:
        return _record(self)


class Outcome(msgspec.Struct):
    """What came of a command, in order; grows while it is decided. Most commands have entries only: no list is made
    for the rest."""

    entries: list[Entry] = msgspec.field(default_factory=list)
    alerts: tuple[Alert, ...] = ()
    legs: tuple[Leg, ...] = ()
    topup_requests: tuple[TopupRequest, ...] = ()
    decisions: tuple[HoldDecision, ...] = ()

    @property
    def rejected(self) -> bool:
        """The command was refused by a rule."""
        return any(entry.kind is EntryKind.REJECTED for entry in self.entries)


def _record(struct: msgspec.Struct) -> dict[str, Any]:
    record: dict[str, Any] = msgspec.to_builtins(struct)
    return record


# msgspec works out how to read a struct when it first does, and two threads doing that at once crash the process
# (entries are read back from Kafka in threads). So it is done here, while the module is imported by one.
for _struct in (Entry, Leg):
    msgspec.json.Decoder(_struct)
