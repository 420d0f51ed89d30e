"""The bodies of settings: one model per kind, published as JSON Schema under schemas/json/.

Rules of this file: amounts are decimal strings and become nano-units (`*_nanos`); unknown fields are refused; an absent
field takes its default, because a later body replaces the earlier one whole. A body's *shape* is what the model says:
a client refuses to send another. Its *rules* over several fields (`refusal`) are the ledger's to judge: a body that
breaks one is booked as `rejected` with reason `invalid_setting`, as is a body of the wrong shape that came anyway.
"""

from __future__ import annotations

import functools
import json
import zoneinfo
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from schemas.amounts import NANOS, format_amount
from schemas.enums import BillingUnit, BudgetWindow, Channel, Direction, MemberRole, SettingKind, ThresholdType
from schemas.events import ALIASES_MAX, PRICE_TIERS_MAX, check_price_terms
from schemas.fields import (
    BODY_CHARACTERS_MAX,
    Count,
    DecimalAmount,
    DecimalQuantity,
    FieldError,
    Flag,
    Id,
    Model,
    Name,
    Text,
    Time,
    first_fault,
)

THRESHOLD_RULES_MAX = 20
"""Threshold rules per wallet (product rule 26)."""

ADMINISTRATORS_MAX = 1_000
MODEL_PATTERNS_MAX = 1_000

TOPUP_AMOUNT_MAX_NANOS = 100_000 * NANOS
"""The most one auto top-up buys (product rule 20)."""

BACKOFF_SECONDS_MAX = 30 * 24 * 3600


def _from_zero(nanos: int) -> int:
    if nanos < 0:
        raise ValueError("must not be below 0")
    return nanos


AmountFromZero = Annotated[DecimalAmount, AfterValidator(_from_zero)]
QuantityFromZero = Annotated[DecimalQuantity, AfterValidator(_from_zero)]
Depth = Annotated[DecimalAmount, AfterValidator(abs)]
"""How far below zero, with or without its minus sign."""


@functools.cache
def _time_zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())


def _known_time_zone(name: str) -> str:
    if name not in _time_zones():
        raise ValueError(f"{name[:64]!r} is not a time zone of the IANA database, such as Europe/Madrid")
    return name


TimeZone = Annotated[str, AfterValidator(_known_time_zone)]


class Body(Model):
    """A setting's body. Fields ending in `_nanos` stand in JSON without that ending, as decimal strings."""

    model_config = ConfigDict(
        alias_generator=lambda name: name.removesuffix("_nanos"),
        validate_by_name=False,
        validate_by_alias=True,
        use_attribute_docstrings=True,
    )

    def refusal(self) -> str | None:
        """Why the ledger refuses this body although its shape is right; None when it takes it."""
        return None


class OrgBody(Body):
    """The organisation itself: time zone of its days and months, whether it is closed, who may move credits."""

    time_zone: TimeZone = "UTC"
    """IANA name; months, weeks and days begin at its midnight."""
    closed: Flag = False
    """A closed organisation is let in to nothing, takes part in no transfer and asks for no credits; what it has used,
    and what was bought for it, is still booked."""
    administrators: Annotated[tuple[Id, ...], Field(max_length=ADMINISTRATORS_MAX)] = ()
    """Who may move credits to another organisation that lists them too."""
    tier: Id | None = None
    """Plan whose prices apply, such as overage rates."""


class MemberBody(Body):
    """The role of one member; `none` takes the member off."""

    user_id: Id
    role: MemberRole
    """`owner`, `admin`: every setting; `billing`: auto top-up and money; `member`: use only; `none`: not even that."""


class WalletBody(Body):
    """One wallet: allowance and rollover, alert line of a low balance, limits below zero (product rules 4, 5, 15)."""

    unit: Id
    default: Flag = False
    """It takes usage that names its cost and no wallet; the wallet that was it before is it no longer."""
    allowance_nanos: AmountFromZero = 0
    """Granted on the 1st of each month; in a month that had none, at once. A change counts from the next month."""
    rollover_max_nanos: AmountFromZero = 0
    """How much of an allowance that is left moves on into the next month; the rest lapses."""
    low_balance_threshold_nanos: AmountFromZero = 10 * NANOS
    """`credit_balance_low` and status `low` at or below it; while auto top-up is on, its threshold stands instead."""
    low_credit_limit_nanos: DecimalAmount = 0
    """At or below it no new work (operation `deployment`) is let in; running work goes on."""
    negative_limit_nanos: Depth = 0
    """How far below zero running work is let in; at that depth the wallet is `blocked` and a stop event is raised. 0:
    no such limit, so that admission ends at zero, and what is used all the same is booked without a stop event."""


class BudgetScope(Model):
    """What a budget is about: usage that has all the values named; nothing at all: the whole organisation."""

    user_id: Id | None = None
    project_id: Id | None = None
    model: Id | None = None
    tool: Id | None = None
    team: Id | None = None
    department: Id | None = None


class BudgetBody(Body):
    """A limit on what a part of the organisation spends in a window (product rule 11)."""

    budget_id: Id
    """Unique in the organisation; a refusal and `budget_reached` name it."""
    unit: Id
    scope: BudgetScope = BudgetScope()
    """Usage that has all the values named here; nothing: the whole organisation."""
    window: BudgetWindow
    """In the organisation's time zone; weeks begin on Monday."""
    limit_nanos: AmountFromZero
    """Reached when as much is spent; 0: nothing may be spent."""


class ThresholdRule(Body):
    """One line to watch: `level` is an amount, a percentage or a number of days (product rule 26)."""

    rule_id: Id
    """Unique in the wallet; one that stays as it is keeps its state when the rules are set again."""
    type: ThresholdType
    level_nanos: DecimalAmount
    """An amount, a percentage or days, by the type; on the line counts as crossed."""
    channels: tuple[Channel, ...] = ()
    """Where its alerts are to be shown or sent; handed on in them."""
    dismissable: Flag = True
    """Whether people may remove the banner; handed on in the alerts."""

    def refusal(self) -> str | None:
        """A level below 0 makes sense for a balance only."""
        if self.level_nanos < 0 and self.type is not ThresholdType.BALANCE_AT_OR_BELOW:
            return f"the level of rule {self.rule_id} must not be below 0"
        return None


class ThresholdsBody(Body):
    """The threshold rules of one wallet, all of them."""

    unit: Id
    rules: tuple[ThresholdRule, ...] = ()
    """At most 20, each with an id of its own; those left out end."""

    def refusal(self) -> str | None:
        """At most 20 rules, each with an id of its own (product rule 26)."""
        if len(self.rules) > THRESHOLD_RULES_MAX:
            return f"a wallet has at most {THRESHOLD_RULES_MAX} threshold rules, not {len(self.rules)}"
        if len({rule.rule_id for rule in self.rules}) < len(self.rules):
            return "two threshold rules have the same rule_id"
        return next((refusal for rule in self.rules if (refusal := rule.refusal()) is not None), None)


class MonthLimitsBody(Body):
    """Alert threshold and allowed limit of what is spent in a month; null: none (product rule 12)."""

    unit: Id
    alert_threshold_nanos: AmountFromZero | None = None
    """`credit_limit_alert` when as much is used in the month; at most the allowed limit."""
    allowed_limit_nanos: AmountFromZero | None = None
    """When as much is used in the month, `credit_limit_reached`, and nothing more is let in until it ends."""

    def refusal(self) -> str | None:
        """The alert threshold must not exceed the allowed limit (product rule 12)."""
        alert, allowed = self.alert_threshold_nanos, self.allowed_limit_nanos
        if alert is not None and allowed is not None and alert > allowed:
            return f"alert_threshold {format_amount(alert)} is above allowed_limit {format_amount(allowed)}"
        return None


class AutoTopupBody(Body):
    """Auto top-up of one wallet: off by default (product rule 20)."""

    unit: Id
    enabled: Flag = False
    threshold_nanos: AmountFromZero = 0
    """Credits are asked for when the available balance is at or below it; at most the purchase amount."""
    purchase_amount_nanos: AmountFromZero = 0
    """What is asked for each time, 1 to 100,000; never twice before the first is answered."""
    monthly_cap_nanos: AmountFromZero | None = None
    """What may be asked for in a month, failed charges not counted; null: no cap."""
    backoff_seconds: Annotated[int, Field(strict=True, ge=1, le=BACKOFF_SECONDS_MAX)] = 3600
    """How long after a failed charge it is tried again, by itself."""

    def refusal(self) -> str | None:
        """Purchase amount from 1 to 100,000, threshold at most the purchase amount; not asked while it is off."""
        if not self.enabled:
            return None
        amount = self.purchase_amount_nanos
        if not NANOS <= amount <= TOPUP_AMOUNT_MAX_NANOS:
            return f"purchase_amount {format_amount(amount)} does not lie between 1 and 100000"
        if self.threshold_nanos > amount:
            return f"threshold {format_amount(self.threshold_nanos)} is above purchase_amount {format_amount(amount)}"
        return None


Patterns = Annotated[tuple[Id, ...], Field(max_length=MODEL_PATTERNS_MAX)]


class ModelAccessBody(Body):
    """Which models may be used: what `allow` matches and `deny` does not; `*` stands for any characters."""

    allow: Patterns = ("*",)
    """Patterns of the models that may be used."""
    deny: Patterns = ()
    """Patterns of those that may not, whatever `allow` says."""


class PriceTierBody(Body):
    """A part of what the organisation uses in a calendar month, and its price."""

    up_to_nanos: QuantityFromZero | None = None
    """Where the part ends, counted since the month began; null: it does not end."""
    unit_price_nanos: AmountFromZero


class PriceOverrideBody(Body):
    """A price for this organisation only, or a factor on those of the list, which it precedes (product rules 7, 9)."""

    price_id: Id
    """Set again, it is the same price with other terms from `valid_from` on; usage before that keeps those before."""
    operation: Id
    """`*`: any."""
    unit_price_nanos: AmountFromZero | None = None
    """Of one billing unit. Required, like `billing_unit` and `wallet`, unless a factor is given."""
    billing_unit: BillingUnit | None = None
    wallet: Id | None = None
    """The unit that it is charged in; with a factor that of the list's price."""
    valid_from: Time | None = None
    """Null: from when the setting occurred. Terms that were to begin later are taken back by this."""
    valid_to: Time | None = None
    """Null: until it is set again. With a time that has passed the price is taken back."""
    category: Name | None = None
    model: Name | None = None
    tool: Name | None = None
    provider: Name | None = None
    direction: Direction | None = None
    """Of the tokens it prices; null: `any`."""
    tier: Name | None = None
    free: Flag = False
    """It costs nothing, and is counted."""
    display_name: Text | None = None
    meter: Id | None = None
    """The quantity that is priced, by its name; null: as `direction` and `billing_unit` say."""
    service_tier: Name | None = None
    """Null: `standard`; `*`: every tier that has no price of its own."""
    input_tokens_above: Count | None = None
    """Only requests with more input tokens than this, and then for the whole request."""
    aliases: Annotated[tuple[Name, ...], Field(max_length=ALIASES_MAX)] = ()
    """Further names of the model; like the model, each may end in `*`."""
    tiers: Annotated[tuple[PriceTierBody, ...], Field(max_length=PRICE_TIERS_MAX)] = ()
    """Graduated prices of a calendar month, in order; `unit_price` holds beyond the last one."""
    free_quantity_nanos: QuantityFromZero | None = None
    """What is free of charge in a calendar month; tiers count it."""
    package_size_nanos: QuantityFromZero | None = None
    """The quantity of each usage is rounded up to whole packages of this size."""
    minimum_nanos: AmountFromZero | None = None
    """The least that a usage costs which this price charges for."""
    factor_nanos: AmountFromZero | None = None
    """In place of a unit price: the list's times this, such as 0.8."""

    @model_validator(mode="after")
    def _is_one_price(self) -> Self:
        if self.valid_from is not None and self.valid_to is not None and self.valid_to <= self.valid_from:
            raise FieldError("valid_to", "must be later than valid_from")
        for name, value in (
            ("unit_price", self.unit_price_nanos),
            ("billing_unit", self.billing_unit),
            ("wallet", self.wallet),
        ):
            if value is None and self.factor_nanos is None:
                raise FieldError(name, "is required, unless a factor is given")
        if self.unit_price_nanos is not None and self.factor_nanos is not None:
            raise FieldError("factor", "give unit_price or factor, not both")
        check_price_terms(self)
        return self


BODIES: Mapping[SettingKind, type[Body]] = MappingProxyType(
    {
        SettingKind.ORG: OrgBody,
        SettingKind.WALLET: WalletBody,
        SettingKind.BUDGET: BudgetBody,
        SettingKind.THRESHOLDS: ThresholdsBody,
        SettingKind.MONTH_LIMITS: MonthLimitsBody,
        SettingKind.AUTO_TOPUP: AutoTopupBody,
        SettingKind.MODEL_ACCESS: ModelAccessBody,
        SettingKind.MEMBER: MemberBody,
        SettingKind.PRICE_OVERRIDE: PriceOverrideBody,
    }
)
"""The model of each kind's body."""


class InvalidSettingError(ValueError):
    """A body of the wrong shape, or one that breaks a rule; the message is a sentence that names the field."""


def load_json(text: str) -> Any:
    """JSON as the contract takes it: no NaN, no infinity, no name twice in one object. Raises ValueError."""
    try:
        return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a name stands twice in one object")
    return fields


def parse_shape(kind: SettingKind, text: str) -> Body:
    """The body of a setting, its shape checked; raises InvalidSettingError."""
    if len(text) > BODY_CHARACTERS_MAX:
        raise InvalidSettingError(f"the body has more than {BODY_CHARACTERS_MAX} characters")
    try:
        fields = load_json(text)
    except ValueError as error:
        raise InvalidSettingError(f"the body is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise InvalidSettingError("the body is not a JSON object")
    try:
        return BODIES[kind].model_validate(fields)
    except ValidationError as error:
        fault = first_fault(error)
        raise InvalidSettingError(f"{fault.field}: {fault.message}") from error


def parse_body(kind: SettingKind, text: str) -> Body:
    """The body of a setting, its shape and its rules checked; raises InvalidSettingError."""
    body = parse_shape(kind, text)
    refusal = body.refusal()
    if refusal is not None:
        raise InvalidSettingError(refusal)
    return body


def json_schema(kind: SettingKind) -> dict[str, Any]:
    """JSON Schema (2020-12) of a kind's body."""
    schema = BODIES[kind].model_json_schema(mode="validation")
    for model in (schema, *schema.get("$defs", {}).values()):
        for field in model.get("properties", {}).values():
            if "pattern" in field and isinstance(field.get("default"), int):
                field["default"] = format_amount(field["default"])
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": f"{kind.value} setting"}
