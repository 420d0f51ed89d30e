"""What is asked of the ledger, already decoded and valid in itself.

Rules of this file: the fields are those of the Avro record of the same name (a test holds them together); what the
contract lets default is filled in here, so that a decision never meets an absent value that means something.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import msgspec

from schemas.enums import ActorRole, HoldAction, OnShortage, PurchaseKind, PurchaseStatus, RefundTarget, SettingKind
from streams.ledger.avro_fields import completed
from streams.ledger.entry import Component, Leg

PRIORITY_DEFAULT = 50
"""Draw-down priority of a grant that names none (product rule 2)."""


class InputRecord(msgspec.Struct, frozen=True):
    """A record of an input topic."""

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """From a decoded Avro record; fields this ledger does not know are left out, absent ones take their default.

        Raises msgspec.ValidationError when a field has a wrong type or an unknown word.
        """
        return msgspec.convert({name: value for name, value in record.items() if value is not None}, cls)


@completed("usage")
class Usage(InputRecord, frozen=True):
    """Work that was done (product rules 7-9)."""

    event_id: str
    org_id: str
    occurred_at: int
    operation: str
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
    cost_nanos: int | None = None
    wallet: str | None = None
    revision: int = 0
    voided: bool = False
    hold_id: str | None = None
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


@completed("purchase")
class Purchase(InputRecord, frozen=True):
    """Credits bought or given, or a charge that failed (product rule 19)."""

    purchase_id: str
    org_id: str
    occurred_at: int
    wallet: str
    amount_nanos: int
    status: PurchaseStatus = PurchaseStatus.COMPLETED
    kind: PurchaseKind = PurchaseKind.PURCHASED
    expires_at: int | None = None
    priority: int = PRIORITY_DEFAULT
    price_paid_nanos: int | None = None
    currency: str | None = None
    topup_request_id: str | None = None
    actor: str | None = None
    failure_reason: str | None = None


@completed("transfer")
class Transfer(InputRecord, frozen=True):
    """Credits to be moved to another org (product rule 22)."""

    transfer_id: str
    org_id: str
    target_org_id: str
    occurred_at: int
    wallet: str
    amount_nanos: int
    actor: str
    reason: str | None = None


@completed("refund")
class Refund(InputRecord, frozen=True):
    """Credits of a purchase to be taken back, or of a usage to be given back (product rule 21)."""

    refund_id: str
    org_id: str
    occurred_at: int
    target: RefundTarget
    target_id: str
    amount_nanos: int
    actor: str | None = None
    reason: str | None = None
    target_recorded_at: int | None = None
    components: tuple[Component, ...] = ()


@completed("hold")
class Hold(InputRecord, frozen=True):
    """Credits to be set aside, taken or let go (product rule 18)."""

    hold_id: str
    org_id: str
    occurred_at: int
    action: HoldAction
    wallet: str
    amount_nanos: int
    expires_at: int | None = None
    user_id: str | None = None
    project_id: str | None = None
    model: str | None = None
    tool: str | None = None
    operation: str | None = None
    on_shortage: OnShortage = OnShortage.REJECT
    team: str | None = None
    department: str | None = None
    category: str | None = None
    provider: str | None = None


@completed("setting")
class Setting(InputRecord, frozen=True):
    """A change of what an org may do and how (product rule 33); `body` is JSON."""

    setting_id: str
    org_id: str
    occurred_at: int
    actor: str
    actor_role: ActorRole
    kind: SettingKind
    body: str


Command = Usage | Purchase | Transfer | Refund | Hold | Setting | Leg
"""All that the ledger decides."""

for _command in (Usage, Purchase, Transfer, Refund, Hold, Setting):
    msgspec.json.Decoder(_command)  # see the end of `entry`: not for two threads at once
