"""The input records as models: what producers send, checked as the contract says.

Rules of this file: fields, order and defaults are those of the newest Avro record (a test holds them together). A model
made by a client is checked as strictly as the API does: an amount of a purchase, transfer, refund or placed hold must
be above 0. Read from a topic (`from_record`) the same amount passes, because the ledger answers it with a `rejected`
entry; everything else that fails here goes to the dead letters as `invalid_field` or `amount_out_of_range`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from schemas.enums import (
    ActorRole,
    BillingUnit,
    Direction,
    HoldAction,
    InputKind,
    OnShortage,
    PurchaseKind,
    PurchaseStatus,
    RefundTarget,
    SettingKind,
)
from schemas.fields import (
    FROM_LOG,
    Amount,
    AmountFromZero,
    Attributes,
    BodyText,
    Count,
    FieldError,
    Flag,
    Id,
    Name,
    Priority,
    Record,
    SmallCount,
    Text,
    Time,
)


class Usage(Record):
    """What an organisation has used (product rules 7-9)."""

    event_id: Id
    org_id: Id
    occurred_at: Time
    operation: Id
    source: Name | None = None
    category: Name | None = None
    project_id: Name | None = None
    user_id: Name | None = None
    team: Name | None = None
    department: Name | None = None
    model: Name | None = None
    tool: Name | None = None
    provider: Name | None = None
    endpoint: Name | None = None
    deployment: Name | None = None
    input_tokens: Count | None = None
    output_tokens: Count | None = None
    quantity_nanos: AmountFromZero | None = None
    unit_of_measure: Name | None = None
    replicas: SmallCount | None = None
    cost_nanos: AmountFromZero | None = None
    wallet: Id | None = None
    revision: SmallCount = 0
    voided: Flag = False
    hold_id: Id | None = None
    attributes: Attributes = Field(default_factory=dict)


PURCHASE_PRESETS: Final = (10, 50, 100, 300, 500, 1_000)
"""Amounts that a page for buying offers, in units of the wallet (product rule 19); any other of at least 1 will do."""


class Purchase(Record):
    """Credits bought, given or adjusted; also the answer to a top-up request (product rules 19 and 20)."""

    purchase_id: Id
    org_id: Id
    occurred_at: Time
    wallet: Id
    amount_nanos: Amount
    status: PurchaseStatus | None = None
    kind: PurchaseKind | None = None
    expires_at: Time | None = None
    priority: Priority | None = None
    price_paid_nanos: AmountFromZero | None = None
    currency: Id | None = None
    topup_request_id: Id | None = None
    actor: Id | None = None
    failure_reason: Text | None = None

    @model_validator(mode="after")
    def _amount_is_above_zero(self, info: ValidationInfo) -> Self:
        if self.kind is not PurchaseKind.ADJUSTMENT and self.status is not PurchaseStatus.FAILED:
            _above_zero(self.amount_nanos, info)
        return self


class Transfer(Record):
    """Credits moved to another organisation (product rule 22)."""

    transfer_id: Id
    org_id: Id
    target_org_id: Id
    occurred_at: Time
    wallet: Id
    amount_nanos: Amount
    actor: Id
    reason: Text | None = None

    @field_validator("amount_nanos")
    @classmethod
    def _amount_is_above_zero(cls, value: int, info: ValidationInfo) -> int:
        return _above_zero(value, info)


class Refund(Record):
    """A purchase taken back, or a usage given back (product rule 21)."""

    refund_id: Id
    org_id: Id
    occurred_at: Time
    target: RefundTarget
    target_id: Id
    amount_nanos: Amount
    actor: Id | None = None
    reason: Text | None = None
    target_recorded_at: Time | None = None
    """Of a usage: when its entry was recorded, or shortly before; so it is found however far back it lies."""

    @field_validator("amount_nanos")
    @classmethod
    def _amount_is_above_zero(cls, value: int, info: ValidationInfo) -> int:
        return _above_zero(value, info)


class Hold(Record):
    """Credits set aside, captured or released (product rule 18)."""

    hold_id: Id
    org_id: Id
    occurred_at: Time
    action: HoldAction
    wallet: Id
    amount_nanos: AmountFromZero
    expires_at: Time | None = None
    user_id: Name | None = None
    project_id: Name | None = None
    model: Name | None = None
    tool: Name | None = None
    operation: Id | None = None
    on_shortage: OnShortage | None = None
    team: Name | None = None
    department: Name | None = None
    category: Name | None = None
    provider: Name | None = None

    @model_validator(mode="after")
    def _placed_amount_is_above_zero(self, info: ValidationInfo) -> Self:
        if self.action is HoldAction.PLACE:
            _above_zero(self.amount_nanos, info)
        return self


class Setting(Record):
    """A change of settings; `body` is JSON, checked by schemas/settings_bodies.py (product rule 33)."""

    setting_id: Id
    org_id: Id
    occurred_at: Time
    actor: Id
    actor_role: ActorRole
    kind: SettingKind
    body: BodyText


class Price(Record):
    """One line of the price list (product rule 7)."""

    price_id: Id
    operation: Id
    unit_price_nanos: AmountFromZero
    billing_unit: BillingUnit
    wallet: Id
    valid_from: Time
    valid_to: Time | None = None
    category: Name | None = None
    model: Name | None = None
    tool: Name | None = None
    provider: Name | None = None
    direction: Direction | None = None
    tier: Name | None = None
    free: Flag = False
    org_id: Id | None = None
    display_name: Text | None = None

    @model_validator(mode="after")
    def _ends_after_it_begins(self) -> Self:
        if self.valid_to is not None and self.valid_to <= self.valid_from:
            raise FieldError("valid_to", "must be later than valid_from")
        return self


def _above_zero(amount_nanos: int, info: ValidationInfo) -> int:
    if amount_nanos <= 0 and info.context != FROM_LOG:
        raise FieldError("amount_nanos", "the amount must be above 0")
    return amount_nanos


INPUTS: Mapping[InputKind, type[Record]] = MappingProxyType(
    {
        InputKind.USAGE: Usage,
        InputKind.PURCHASE: Purchase,
        InputKind.TRANSFER: Transfer,
        InputKind.REFUND: Refund,
        InputKind.HOLD: Hold,
        InputKind.SETTING: Setting,
        InputKind.PRICE: Price,
    }
)
"""The model of each kind of input record; the kind is also the Avro record's name."""

ID_FIELDS: Mapping[InputKind, str] = MappingProxyType(
    {
        InputKind.USAGE: "event_id",
        InputKind.PURCHASE: "purchase_id",
        InputKind.TRANSFER: "transfer_id",
        InputKind.REFUND: "refund_id",
        InputKind.HOLD: "hold_id",
        InputKind.SETTING: "setting_id",
        InputKind.PRICE: "price_id",
    }
)
"""The field that identifies a record of each kind."""
