"""What calls that read answer, for OpenAPI: each field's meaning, and an example of each answer.

Rules of this file: models describe documents that `projections` makes, and decide nothing; a test holds every answer to
its model, which allows no field that it does not name. Amounts are decimal strings, times ISO 8601 in UTC.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from schemas.enums import AlertKind, Channel, EntryKind, Health, MemberRole, WalletStatus

Amount = Annotated[str, Field(description="credits of the wallet's unit, a decimal string", examples=["12.5"])]
AsOf = Annotated[datetime, Field(description="everything that was booked before this time is in the answer")]
AsOfOrNone = Annotated[
    datetime | None,
    Field(description="everything booked before this time is in the answer; null: nothing is projected"),
]
Next = Annotated[str | None, Field(description="send it as `cursor` for the next page; null: this is the last one")]


class Answer(BaseModel):
    """Of every answer: no field without a description."""

    model_config = ConfigDict(extra="forbid")


def _example(**fields: Any) -> ConfigDict:
    return ConfigDict(extra="forbid", json_schema_extra={"examples": [fields]})


_T0 = "2026-05-01T12:00:00Z"
_SPAN: dict[str, Any] = {"time_zone": "Europe/Madrid", "from": "2026-04-30T22:00:00Z", "to": "2026-05-31T22:00:00Z"}
_MOVEMENT = {
    "seq": 17, "kind": "usage", "reason": None, "amount": "-0.25", "balance": "49.75", "recorded_at": _T0,
    "event_id": "req-1",
}  # fmt: skip


class Movement(Answer):
    """One of a wallet's latest movements."""

    seq: int = Field(description="number of the ledger entry")
    kind: EntryKind
    reason: str | None
    amount: Amount
    balance: Amount = Field(description="the settled balance after it")
    recorded_at: datetime
    event_id: str


class Card(Answer):
    """A wallet: balance, low badge, lifetime, latest movements."""

    unit: str
    settled: Amount
    held: Amount
    available: Amount
    lifetime_added: Amount
    lifetime_spent: Amount
    status: WalletStatus
    health: Health
    low: bool = Field(description="the balance is at or below its low threshold")
    movements: list[Movement] = Field(description="the five latest, newest first, as of `projected_as_of`")


class CardAnswer(Answer):
    """The balance card of each wallet. Balances are from memory and do not lag; movements are projected."""

    model_config = _example(
        org_id="acme", seq=17, as_of=_T0, projected_as_of=_T0,
        wallets=[
            {
                "unit": "USD", "settled": "49.75", "held": "0", "available": "49.75", "lifetime_added": "50",
                "lifetime_spent": "0.25", "status": "ok", "health": "green", "low": False, "movements": [_MOVEMENT],
            }
        ],
    )  # fmt: skip
    org_id: str
    seq: int = Field(description="number of the last entry that the balances include")
    as_of: datetime = Field(description="the ledger's time of that entry")
    projected_as_of: AsOfOrNone
    wallets: list[Card]


class GrantPart(Answer):
    """What one grant gave, or got back."""

    grant_id: str
    kind: str
    amount: Amount


class Transaction(Answer):
    """An entry of the ledger."""

    seq: int = Field(description="number of the ledger entry: 1, 2, 3… in each organisation")
    kind: EntryKind
    reason: str | None
    wallet: str | None
    amount: Amount
    balance: Amount = Field(description="the settled balance after it")
    available: Amount
    held: Amount
    occurred_at: datetime
    recorded_at: datetime = Field(description="when it was booked")
    event_id: str | None
    correlation_id: str | None
    hold_id: str | None
    counterparty_org_id: str | None
    actor: str | None
    operation: str | None
    category: str | None
    project_id: str | None
    user_id: str | None
    team: str | None
    department: str | None
    model: str | None
    tool: str | None
    provider: str | None
    endpoint: str | None
    deployment: str | None
    input_tokens: int
    output_tokens: int
    quantity: str | None
    billing_unit: str | None
    unit_price: str | None
    output_unit_price: str | None
    revision: int
    slices: list[GrantPart] = Field(description="the grants that it drew from, or gave back to")


_ENTRY: dict[str, Any] = dict.fromkeys(Transaction.model_fields) | _MOVEMENT | {
    "wallet": "USD", "available": "49.75", "held": "0", "occurred_at": _T0, "operation": "chat.completion",
    "model": "gpt-4o", "input_tokens": 1200, "output_tokens": 300, "revision": 0,
    "slices": [{"grant_id": "purchase/inv-1", "kind": "purchased", "amount": "-0.25"}],
}  # fmt: skip


class TransactionsAnswer(Answer):
    """A page of entries."""

    model_config = _example(org_id="acme", as_of=_T0, transactions=[_ENTRY], next_cursor=None)
    org_id: str
    as_of: AsOf
    transactions: list[Transaction]
    next_cursor: Next


class UsageRow(Answer):
    """The usage of one span of time and one combination of the groups."""

    start: datetime = Field(description="where the span begins, with the zone's offset")
    wallet: str
    org_id: str | None = None
    operation: str | None = Field(None, description="here and below: only where it is in `group_by`; empty: without it")
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
    billing_unit: str | None = None
    requests: int
    input_tokens: int
    output_tokens: int
    quantity: str | None = Field(None, description="in billing units; only where `billing_unit` is in `group_by`")
    cost: Amount = Field(description="net of corrections")
    refunded: Amount
    net_cost: Amount = Field(description="cost less what was refunded")


_USAGE: dict[str, Any] = {
    "as_of": _T0, "from": "2026-04-30T22:00:00Z", "to": "2026-05-02T22:00:00Z", "granularity": "day",
    "time_zone": "Europe/Madrid", "group_by": ["model"],
    "usage": [
        {
            "start": "2026-05-01T00:00:00+02:00", "wallet": "USD", "model": "gpt-4o", "requests": 12,
            "input_tokens": 14400, "output_tokens": 3600, "cost": "3", "refunded": "0.25", "net_cost": "2.75",
        }
    ],
}  # fmt: skip


class AllUsageAnswer(Answer):
    """Usage over organisations. Spans without usage have no row."""

    model_config = _example(**_USAGE)
    as_of: AsOfOrNone
    from_: datetime = Field(alias="from")
    to: datetime
    granularity: str
    time_zone: str
    group_by: list[str]
    usage: list[UsageRow]


class UsageAnswer(AllUsageAnswer):
    """The usage of an organisation. Spans without usage have no row."""

    model_config = _example(org_id="acme", **_USAGE)
    org_id: str


class BurnRate(Answer):
    """How fast a wallet is used up."""

    wallet: str
    available: Amount
    spent_last_day: Amount
    spent_last_week: Amount
    spent_per_day: Amount = Field(description="over the last seven days, or since the first usage in them")
    days_left: float | None = Field(description="at that rate; null: nothing is spent")
    depletes_at: datetime | None = Field(description="when it is used up at that rate, without top-ups or allowances")


class BurnRateAnswer(Answer):
    """Burn rate and forecast of depletion."""

    model_config = _example(
        org_id="acme", as_of=_T0,
        wallets=[
            {
                "wallet": "USD", "available": "49", "spent_last_day": "7.5", "spent_last_week": "49",
                "spent_per_day": "7", "days_left": 7.0, "depletes_at": "2026-05-08T12:00:00Z",
            }
        ],
    )  # fmt: skip
    org_id: str
    as_of: AsOf
    wallets: list[BurnRate]


class MonthWallet(Answer):
    """A wallet's month."""

    wallet: str
    used: Amount = Field(description="of the current month: as the ledger counts it for the limit")
    alert_threshold: str | None
    allowed_limit: str | None
    remaining: str | None = Field(description="up to the allowed limit; null: there is none")
    level: str = Field(description="`green`, `orange` from the alert threshold on, `red` from the limit on")


class MonthDay(Answer):
    """A local day of the month; days without usage are left out."""

    day: date
    used: Amount
    requests: int
    input_tokens: int
    output_tokens: int


class MonthWalletByDay(MonthWallet):
    """A wallet's month, day by day."""

    days: list[MonthDay]


class Month(Answer):
    """A month of the organisation's own time zone."""

    month: str
    time_zone: str
    from_: datetime = Field(alias="from")
    to: datetime
    wallets: list[MonthWallet]


_MONTH_WALLET = {
    "wallet": "EUR", "used": "85", "alert_threshold": "80", "allowed_limit": "100", "remaining": "15",
    "level": "orange",
}  # fmt: skip
_DAY = {"day": "2026-05-01", "used": "85", "requests": 12, "input_tokens": 14400, "output_tokens": 3600}


class MonthAnswer(Answer):
    """A month: used, alert threshold, allowed limit, remaining, and its days."""

    model_config = _example(
        org_id="acme", as_of=_T0, month="2026-05", **_SPAN, wallets=[{**_MONTH_WALLET, "days": [_DAY]}]
    )
    org_id: str
    as_of: AsOf
    month: str
    time_zone: str
    from_: datetime = Field(alias="from")
    to: datetime
    wallets: list[MonthWalletByDay]


class MonthsAnswer(Answer):
    """The months of an organisation, newest first."""

    model_config = _example(
        org_id="acme", as_of=_T0, months=[{"month": "2026-05", **_SPAN, "wallets": [_MONTH_WALLET]}]
    )
    org_id: str
    as_of: AsOf
    months: list[Month]


class Item(Answer):
    """One usage of a day."""

    seq: int
    occurred_at: datetime
    kind: EntryKind
    wallet: str
    category: str | None
    operation: str | None
    model: str | None
    tool: str | None
    user_id: str | None
    project_id: str | None
    input_tokens: int
    output_tokens: int
    quantity: str | None
    billing_unit: str | None
    unit_price: str | None
    output_unit_price: str | None
    cost: Amount
    event_id: str | None


_ITEM: dict[str, Any] = dict.fromkeys(Item.model_fields) | {
    "seq": 17, "occurred_at": _T0, "kind": "usage", "wallet": "USD", "operation": "chat.completion",
    "model": "gpt-4o", "input_tokens": 1200, "output_tokens": 300, "billing_unit": "1000000_tokens",
    "unit_price": "2.5", "output_unit_price": "10", "cost": "0.006", "event_id": "req-1",
}  # fmt: skip


class DayAnswer(Answer):
    """The items of a local day, in the order of booking."""

    model_config = _example(
        org_id="acme", as_of=_T0, day="2026-05-01", time_zone="UTC", items=[_ITEM], next_cursor=None,
        **{"from": "2026-05-01T00:00:00Z", "to": "2026-05-02T00:00:00Z"},
    )  # fmt: skip
    org_id: str
    as_of: AsOf
    day: date
    time_zone: str
    from_: datetime = Field(alias="from")
    to: datetime
    items: list[Item]
    next_cursor: Next


class AlertLine(Answer):
    """An alert, and whether it was dismissed."""

    occurred_at: datetime
    alert_id: str
    wallet: str | None
    kind: AlertKind
    rule_id: str | None
    rule_version: int
    epoch: int
    level: str | None
    balance: Amount
    available: Amount
    used_percent: float | None
    previous_percent: float | None
    entry_seq: int = Field(description="the entry that caused it")
    channels: list[Channel]
    dismissable: bool
    message: str | None
    thresholds_left: list[str]
    dismissed_at: datetime | None
    dismissed_by: str | None


_ALERT = {
    "occurred_at": _T0, "alert_id": "9f2c", "wallet": "USD", "kind": "credit_balance_low", "rule_id": None,
    "rule_version": 0, "epoch": 1, "level": "10", "balance": "9.5", "available": "9.5", "used_percent": 81.0,
    "previous_percent": 79.5, "entry_seq": 17, "channels": ["banner", "email"], "dismissable": True,
    "message": "The USD balance is low.", "thresholds_left": [], "dismissed_at": None, "dismissed_by": None,
}  # fmt: skip


class AlertsAnswer(Answer):
    """A page of alerts, newest first."""

    model_config = _example(org_id="acme", as_of=_T0, alerts=[_ALERT], next_cursor=None)
    org_id: str
    as_of: AsOf
    alerts: list[AlertLine]
    next_cursor: Next


class DismissedAnswer(Answer):
    """An alert that is dismissed, by this call or by the first one."""

    model_config = _example(org_id="acme", alert_id="9f2c", dismissed_at=_T0, dismissed_by="key:0123456789ab")
    org_id: str
    alert_id: str
    dismissed_at: datetime
    dismissed_by: str


class ActivityLine(Answer):
    """Something that was done, or a try that was refused."""

    recorded_at: datetime
    occurred_at: datetime
    seq: int = Field(description="the ledger entry; 0: a refused call, or the dismissal of an alert")
    actor: str | None
    action: str | None
    subject: str | None = Field(description="which budget, member, price, unit or alert it is about")
    wallet: str | None
    amount: Amount
    before: Any = Field(description="the balance before, or the setting; null: there was none")
    after: Any
    refused: bool
    reason: str | None
    counterparty_org_id: str | None
    event_id: str | None
    details: Any


_LINE = {
    "recorded_at": _T0, "occurred_at": _T0, "seq": 3, "actor": "alice", "action": "purchase", "subject": None,
    "wallet": "USD", "amount": "50", "before": "0", "after": "50", "refused": False, "reason": None,
    "counterparty_org_id": None, "event_id": "inv-1", "details": None,
}  # fmt: skip


class ActivityAnswer(Answer):
    """A page of the activity log, newest first."""

    model_config = _example(org_id="acme", as_of=_T0, activity=[_LINE], next_cursor=None)
    org_id: str
    as_of: AsOf
    activity: list[ActivityLine]
    next_cursor: Next


class SettingLine(Answer):
    """A setting in force."""

    kind: str
    subject: str
    body: dict[str, Any]
    actor: str | None
    occurred_at: datetime
    seq: int


class SettingsAnswer(Answer):
    """The settings in force, as the ledger has taken them."""

    model_config = _example(
        org_id="acme", as_of=_T0,
        settings=[
            {
                "kind": "wallet", "subject": "USD", "body": {"unit": "USD", "allowance": "100"}, "actor": "alice",
                "occurred_at": _T0, "seq": 1,
            }
        ],
    )  # fmt: skip
    org_id: str
    as_of: AsOf
    settings: list[SettingLine]


class Member(Answer):
    """A member."""

    user_id: str
    role: MemberRole
    since: datetime
    by: str | None


class MembersAnswer(Answer):
    """The members of an organisation."""

    model_config = _example(
        org_id="acme", as_of=_T0, members=[{"user_id": "bob", "role": "owner", "since": _T0, "by": "alice"}]
    )
    org_id: str
    as_of: AsOf
    members: list[Member]


class PriceLine(BaseModel):
    """A price, with all its fields."""

    model_config = ConfigDict(extra="allow")
    price_id: str
    display_name: str | None
    operation: str | None
    model: str | None
    wallet: str | None
    unit_price: Amount
    billing_unit: str | None
    free: bool
    org_id: str | None = Field(description="whose own price it is; null: of the list")
    valid_from: datetime
    valid_to: datetime | None


_PRICE = {
    "price_id": "gpt-4o-in", "display_name": "GPT-4o, input", "operation": "chat.completion", "model": "gpt-4o",
    "wallet": "USD", "unit_price": "2.5", "billing_unit": "1000000_tokens", "free": False, "org_id": None,
    "valid_from": "2026-01-01T00:00:00Z", "valid_to": None,
}  # fmt: skip


class PricesAnswer(Answer):
    """A page of the price list, by id."""

    model_config = _example(as_of=_T0, prices=[_PRICE], next_cursor=None)
    as_of: AsOfOrNone
    prices: list[PriceLine]
    next_cursor: Next


class OrgWallet(Answer):
    """A wallet in a list of organisations."""

    unit: str
    settled: Amount
    available: Amount
    status: WalletStatus
    health: Health


class OrgLine(Answer):
    """An organisation that has a wallet."""

    org_id: str
    seq: int
    as_of: datetime
    wallets: list[OrgWallet]


class OrgsAnswer(Answer):
    """A page of the organisations that the key is for, by id."""

    model_config = _example(
        as_of=_T0, next_cursor=None,
        orgs=[
            {
                "org_id": "acme", "seq": 17, "as_of": _T0,
                "wallets": [
                    {"unit": "USD", "settled": "49.75", "available": "49.75", "status": "ok", "health": "green"}
                ],
            }
        ],
    )  # fmt: skip
    as_of: AsOfOrNone
    orgs: list[OrgLine]
    next_cursor: Next


class CreditsData(Answer):
    """OpenRouter's figures of an organisation's wallet."""

    total_credits: float = Field(description="what was added, less what expired or was taken back")
    total_usage: float = Field(description="what was spent of it; the difference is the settled balance")


class CompatibleCredits(Answer):
    """As OpenRouter answers."""

    model_config = _example(data={"total_credits": 100.5, "total_usage": 25.75})
    data: CreditsData


class RateLimit(Answer):
    """How many requests the key may make; -1: no limit of its own."""

    requests: int
    interval: str
    note: str


class KeyData(Answer):
    """OpenRouter's figures of a key. Of bring-your-own-key usage there is none."""

    label: str = Field(description="the key's name")
    usage: float = Field(description="what the organisation has spent of anything but allowances")
    usage_daily: float = Field(description="of the current day, UTC")
    usage_weekly: float = Field(description="of the current week, from Monday, UTC")
    usage_monthly: float = Field(description="of the current month, UTC")
    byok_usage: float
    byok_usage_daily: float
    byok_usage_weekly: float
    byok_usage_monthly: float
    limit: float | None = Field(description="the month's allowed limit; null: none")
    limit_remaining: float | None
    limit_reset: str | None
    include_byok_in_limit: bool
    is_free_tier: bool = Field(description="no credits were bought yet")
    is_provisioning_key: bool
    is_management_key: bool
    rate_limit: RateLimit
    expires_at: datetime | None


class CompatibleKey(Answer):
    """As OpenRouter answers."""

    model_config = _example(
        data={
            "label": "gateway", "usage": 25.5, "usage_daily": 1.5, "usage_weekly": 5.5, "usage_monthly": 25.5,
            "byok_usage": 0, "byok_usage_daily": 0, "byok_usage_weekly": 0, "byok_usage_monthly": 0, "limit": 100.0,
            "limit_remaining": 74.5, "limit_reset": "monthly", "include_byok_in_limit": False, "is_free_tier": False,
            "is_provisioning_key": False, "is_management_key": False, "expires_at": None,
            "rate_limit": {"requests": -1, "interval": "1s", "note": "-1: no limit of its own"},
        }
    )  # fmt: skip
    data: KeyData


EXAMPLES: dict[str, Any] = {
    model.__name__: model.model_config["json_schema_extra"]["examples"][0]  # type: ignore[index]
    for model in list(globals().values())
    if isinstance(model, type) and issubclass(model, Answer) and "json_schema_extra" in model.model_config
}
"""The example of each answer, by the name of its model."""
