"""The output records as models: what the ledger writes, for the readers of its topics.

Rules of this file: fields, order and defaults are those of the newest Avro record (a test holds them together). Facts
are read far more often than checked, so words stay closed sets and amounts stay whole numbers, but texts have no limit
here: what the ledger wrote is true.
"""

from __future__ import annotations

from pydantic import Field, StrictInt

from schemas.enums import (
    AlertKind,
    Channel,
    DecisionCode,
    EntryKind,
    EntryReason,
    GrantKind,
    Health,
    HoldAction,
    LegKind,
    RejectReason,
    TopupReason,
    WalletStatus,
)
from schemas.fields import Amount, Count, Flag, Priority, Record, SmallCount, Time, completed


class Slice(Record):
    """What one grant gave to an entry, or got back."""

    grant_id: str
    kind: GrantKind
    amount_nanos: Amount
    expires_at: Time | None = None


class Grant(Record):
    """One lot of credits, as it was added to a wallet (product rule 2)."""

    grant_id: str
    kind: GrantKind
    amount_nanos: Amount
    priority: Priority
    expires_at: Time | None = None
    price_paid_nanos: Amount | None = None
    currency: str | None = None


class Component(Record):
    """One part of what a usage costs: a quantity at a price (product rule 39)."""

    meter: str
    quantity_nanos: Amount
    unit_price_nanos: Amount
    billing_unit: str
    price_id: str
    amount_nanos: Amount


@completed("entry")
class Entry(Record):
    """One line of the ledger."""

    org_id: str
    seq: Count
    entry_id: str
    kind: EntryKind
    wallet: str
    amount_nanos: Amount
    balance_nanos: Amount
    available_nanos: Amount
    held_nanos: Amount
    occurred_at: Time
    recorded_at: Time
    event_id: str
    source_topic: str = ""
    source_partition: StrictInt = -1
    source_offset: StrictInt = -1
    slices: list[Slice] = Field(default_factory=list)
    grants: list[Grant] = Field(default_factory=list)
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
    input_tokens: Count | None = None
    output_tokens: Count | None = None
    quantity_nanos: Amount | None = None
    unit_of_measure: str | None = None
    replicas: SmallCount | None = None
    revision: SmallCount = 0
    hold_id: str | None = None
    unit_price_nanos: Amount | None = None
    output_unit_price_nanos: Amount | None = None
    billing_unit: str | None = None
    reason: RejectReason | EntryReason | None = None
    actor: str | None = None
    counterparty_org_id: str | None = None
    correlation_id: str | None = None
    details: str | None = None
    attributes: dict[str, str] = Field(default_factory=dict)
    cache_read_tokens: Count | None = None
    cache_write_tokens: Count | None = None
    cache_write_1h_tokens: Count | None = None
    output_reasoning_tokens: Count | None = None
    input_audio_tokens: Count | None = None
    output_audio_tokens: Count | None = None
    input_image_tokens: Count | None = None
    output_image_tokens: Count | None = None
    quantities: dict[str, StrictInt] = Field(default_factory=dict)
    service_tier: str | None = None
    components: list[Component] = Field(default_factory=list)


class Alert(Record):
    """A crossing of a line (product rules 25-28)."""

    alert_id: str
    org_id: str
    wallet: str
    kind: AlertKind
    rule_id: str | None = None
    rule_version: SmallCount = 0
    epoch: Count = 0
    level: str | None = None
    balance_nanos: Amount
    available_nanos: Amount
    used_percent: float | None = None
    previous_percent: float | None = None
    occurred_at: Time
    entry_seq: Count
    channels: list[Channel] = Field(default_factory=list)
    dismissable: Flag = False
    message: str = ""
    thresholds_left: list[str] = Field(default_factory=list)


class TopupRequest(Record):
    """Asks the payment service to buy credits (product rule 20)."""

    topup_request_id: str
    org_id: str
    wallet: str
    amount_nanos: Amount
    occurred_at: Time
    entry_seq: Count
    reason: TopupReason


class Decision(Record):
    """The answer to a hold (product rules 17 and 18)."""

    hold_id: str
    org_id: str
    action: HoldAction
    allowed: Flag
    code: DecisionCode
    http_status: SmallCount
    limit_id: str | None = None
    granted_nanos: Amount
    available_nanos: Amount
    expires_at: Time | None = None
    entry_seq: Count
    limit_window: str | None = None
    limit_ends_at: Time | None = None
    message: str | None = None


class WalletBalance(Record):
    """The balances of one wallet."""

    unit: str
    settled_nanos: Amount
    held_nanos: Amount
    available_nanos: Amount
    allocation_nanos: Amount
    month_spent_nanos: Amount
    lifetime_added_nanos: Amount
    lifetime_spent_nanos: Amount
    status: WalletStatus
    health: Health
    on_the_way_nanos: Amount = 0


BALANCE_AMOUNTS = (
    "settled",
    "held",
    "available",
    "on_the_way",
    "allocation",
    "month_spent",
    "lifetime_added",
    "lifetime_spent",
)
"""The amounts of a wallet's balance, by the names that people see and in the order in which they are shown; in the
record each ends in `_nanos`."""


class Balance(Record):
    """The latest balances of an organisation."""

    org_id: str
    seq: Count
    as_of: Time
    wallets: list[WalletBalance] = Field(default_factory=list)


class Leg(Record):
    """Internal: one half of a transfer on its way."""

    leg_id: str
    transfer_id: str
    kind: LegKind
    org_id: str
    source_org_id: str
    target_org_id: str
    wallet: str
    amount_nanos: Amount
    actor: str
    occurred_at: Time
    reason: str | None = None
    grants: list[Grant] = Field(default_factory=list)


FACTS: dict[str, type[Record]] = {
    "entry": Entry,
    "alert": Alert,
    "topup_request": TopupRequest,
    "decision": Decision,
    "balance": Balance,
    "leg": Leg,
}
"""The model of each output record, by the Avro record's name."""
