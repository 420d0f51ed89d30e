"""The input records as models: what producers send, checked as the contract says.

Rules of this file: fields, order and defaults are those of the newest Avro record (a test holds them together). A model
made by a client is checked as strictly as the API does: an amount of a purchase, transfer, refund or placed hold must
be above 0. Read from a topic (`from_record`) the same amount passes, because the ledger answers it with a `rejected`
entry; everything else that fails here goes to the dead letters as `invalid_field` or `amount_out_of_range`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Final, Protocol, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from schemas.amounts import NANOS
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
from schemas.facts import Component
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
    Quantities,
    Record,
    SmallCount,
    Text,
    Time,
)
from schemas.meters import MINIMUM, QUANTITY, TOTALS, dimensions_of


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
    cache_read_tokens: Count | None = None
    cache_write_tokens: Count | None = None
    cache_write_1h_tokens: Count | None = None
    output_reasoning_tokens: Count | None = None
    input_audio_tokens: Count | None = None
    output_audio_tokens: Count | None = None
    input_image_tokens: Count | None = None
    output_image_tokens: Count | None = None
    quantities: Quantities = Field(default_factory=dict)
    service_tier: Name | None = None

    @model_validator(mode="after")
    def _no_part_exceeds_its_total(self) -> Self:
        for part, totals in TOTALS.items():
            count = getattr(self, part)
            for total in totals if count else ():
                whole = getattr(self, total)
                if whole is not None and count > whole:
                    raise FieldError(part, f"{part} ({count}) is part of {total}, which is {whole}")
        return self


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


COMPONENTS_MAX: Final = 256
"""Of one correction. A usage has up to 76 quantities, each booked and due at most once."""


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
    """Of a usage: when its entry was recorded, or shortly before; so it is found, however long ago that was."""
    components: Annotated[list[Component], Field(max_length=COMPONENTS_MAX)] = Field(default_factory=list)
    """Of a usage that is rated again: what is due less what is booked, by price."""

    @model_validator(mode="after")
    def _amount_goes_with_the_target(self, info: ValidationInfo) -> Self:
        rerated = self.target is RefundTarget.RERATED_USAGE
        if not rerated:
            _above_zero(self.amount_nanos, info)
        if self.components and not rerated:
            raise FieldError("components", "only a usage that is rated again has them")
        if self.components and sum(part.amount_nanos for part in self.components) != -self.amount_nanos:
            raise FieldError("components", "must add up to minus the amount")
        return self


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


class PriceTier(Record):
    """A part of what an organisation uses in a period, and its price (product rule 38)."""

    up_to_nanos: AmountFromZero | None = None
    unit_price_nanos: AmountFromZero


PRICE_TIERS_MAX: Final = 32
ALIASES_MAX: Final = 64
FACTOR_MAX_NANOS: Final = 1_000 * NANOS
"""A factor beyond a thousand is a slip of the pen."""


class TierTerms(Protocol):
    """A tier, wherever it is said."""

    @property
    def up_to_nanos(self) -> int | None: ...


class PriceTerms(Protocol):
    """What a price says, wherever it is said."""

    @property
    def model(self) -> str | None: ...
    @property
    def direction(self) -> Direction | None: ...
    @property
    def free(self) -> bool: ...
    @property
    def meter(self) -> str | None: ...
    @property
    def aliases(self) -> Sequence[str]: ...
    @property
    def tiers(self) -> Sequence[TierTerms]: ...
    @property
    def free_quantity_nanos(self) -> int | None: ...
    @property
    def package_size_nanos(self) -> int | None: ...
    @property
    def minimum_nanos(self) -> int | None: ...
    @property
    def factor_nanos(self) -> int | None: ...


class Price(Record):
    """One line of the price list (product rules 7, 36-39)."""

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
    meter: Id | None = None
    service_tier: Name | None = None
    input_tokens_above: Count | None = None
    aliases: Annotated[list[Name], Field(max_length=ALIASES_MAX)] = Field(default_factory=list)
    tiers: Annotated[list[PriceTier], Field(max_length=PRICE_TIERS_MAX)] = Field(default_factory=list)
    free_quantity_nanos: AmountFromZero | None = None
    package_size_nanos: AmountFromZero | None = None
    minimum_nanos: AmountFromZero | None = None
    factor_nanos: AmountFromZero | None = None

    @model_validator(mode="after")
    def _is_one_price(self) -> Self:
        if self.valid_to is not None and self.valid_to <= self.valid_from:
            raise FieldError("valid_to", "must be later than valid_from")
        if self.factor_nanos is not None and self.org_id is None and self.tier is None:
            raise FieldError("factor_nanos", "a factor is for an organisation or a plan tier: name org_id or tier")
        check_price_terms(self)
        return self


def check_price_terms(price: PriceTerms) -> None:
    """Raise FieldError where what a price says does not go together. `price`: of the list, or of a setting."""
    direction = dimensions_of(price.meter or "").get("direction")
    if price.meter is not None and price.direction not in (None, Direction.ANY, direction):
        raise FieldError("direction", f"{price.meter} is not {price.direction}; leave direction out")
    if price.meter in (QUANTITY, MINIMUM):
        raise FieldError("meter", f"{price.meter} is no quantity; leave meter out for the work as a whole")
    if price.aliases and price.model is None:
        raise FieldError("aliases", "they are further names of a model; name it")
    for name in (price.model or "", *price.aliases):
        if "*" in name[:-1]:
            raise FieldError("model", "* may stand at the end of a name only")
    if price.package_size_nanos == 0:
        raise FieldError("package_size_nanos", "must be above 0")
    _check_tiers(price.tiers)
    if price.factor_nanos is not None and not 0 < price.factor_nanos <= FACTOR_MAX_NANOS:
        raise FieldError("factor_nanos", f"must be above 0 and at most {FACTOR_MAX_NANOS // NANOS}")


def _check_tiers(tiers: Sequence[TierTerms]) -> None:
    """Tiers end one after the other, and only the last may be open."""
    reached = 0
    for number, tier in enumerate(tiers):
        if tier.up_to_nanos is None:
            if number < len(tiers) - 1:
                raise FieldError("tiers", "only the last tier may be without up_to")
        elif tier.up_to_nanos <= reached:
            raise FieldError("tiers", "each tier must end after the one before it")
        else:
            reached = tier.up_to_nanos


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
