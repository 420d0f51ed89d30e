"""Settings: how a body becomes an entry, and an entry what an account is set to (product rules 5, 11, 26, 33).

Rules of this file: a later body replaces the earlier one of the same kind and id, whole. The entry's `details` holds
kind, body and what was there before; folding it needs nothing else. A setting never moves credits: the allowance that
it grants at once is an entry of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from schemas.enums import BillingUnit, BudgetWindow, Direction, MemberRole, SettingKind, ThresholdType
from schemas.settings_bodies import (
    AutoTopupBody,
    Body,
    BudgetBody,
    MemberBody,
    ModelAccessBody,
    MonthLimitsBody,
    OrgBody,
    PriceOverrideBody,
    ThresholdsBody,
    WalletBody,
    load_json,
    parse_shape,
)
from streams.ledger.account import (
    Account,
    AlertState,
    ModelAccess,
    MonthLimits,
    OrgTerms,
    Rule,
    Topup,
    Wallet,
    WalletTerms,
)
from streams.ledger.alerts import (
    LIMIT_ALERT_RULE_ID,
    LIMIT_RULE_ID,
    LOW_RULE_ID,
    NEGATIVE_RULE_ID,
    distance,
    evaluate_alerts,
    figures,
    low_balance_level,
)
from streams.ledger.authority import members_of
from streams.ledger.bounds import BARRED_MAX, MEMBERS_MAX, refuse_full_account, refuse_new_wallet
from streams.ledger.budgets import (
    ANY_SCOPE,
    BUDGETS_MAX,
    BudgetCharge,
    Scope,
    add_budget,
    count_of,
    covers,
    enter_window,
    find_budget,
    new_budget,
    remove_budget,
)
from streams.ledger.burn import enter_day, follow
from streams.ledger.due import change_time_zone, enter_month, refresh_due
from streams.ledger.entry import Alert, Entry
from streams.ledger.months import month_starts_at
from streams.ledger.rating import Price, PriceTier, could_tie, overrides_of
from streams.ledger.refusals import BrokenLedger
from streams.ledger.setting_fields import MICROS_PER_SECOND, before
from streams.ledger.topups import consider_topup
from streams.ledger.usage import refresh_fast_path_limit, wallet_for

OVERRIDES_MAX = 256
"""Prices of its own an org may have by setting, about 200 bytes each."""


OVERRIDE_KEPT_MICROS = 35 * 86_400 * 1_000_000
"""How long a version of such a price is kept after its end, for usage of its time; at most `OVERRIDES_MAX` versions."""


class Change(msgspec.Struct, frozen=True):
    """`details` of a setting entry."""

    kind: SettingKind
    body: dict[str, Any]
    before: dict[str, Any] | None = None
    """The body that was in force, as far as it differs from nothing set; for the activity log (product rule 32)."""


def details_of(account: Account, kind: SettingKind, text: str, body: Body) -> str:
    """The `details` of the entry for a body that was parsed from `text`."""
    return msgspec.json.encode(Change(kind, load_json(text), before(account, body))).decode()


def unit_of(body: Body) -> str:
    """The wallet that a body is about; empty when it is about the org."""
    unit: str = getattr(body, "unit", "")
    return unit


def apply_setting(account: Account, entry: Entry) -> list[Alert]:
    """The fold of a setting entry; returns the alerts of thresholds that it crosses or removes."""
    change = msgspec.json.decode(entry.details or "", type=Change)
    body = parse_shape(change.kind, msgspec.json.encode(change.body).decode())
    match body:
        case OrgBody():
            alerts = _set_org(account, body, entry)
        case MemberBody():
            alerts = _set_member(account, body)
        case WalletBody():
            alerts = _set_wallet(account, body, entry)
        case ThresholdsBody():
            alerts = _set_thresholds(account, body, entry)
        case MonthLimitsBody():
            alerts = _set_month_limits(account, body, entry)
        case BudgetBody():
            alerts = _set_budget(account, body, entry)
        case AutoTopupBody():
            alerts = _set_topup(account, body, entry)
        case ModelAccessBody():
            account.access = ModelAccess(body.allow, body.deny)
            alerts = []
        case PriceOverrideBody():
            _set_override(account, body, entry)
            alerts = []
        case _:
            raise BrokenLedger(f"{entry.entry_id}: this ledger writes no settings of kind {change.kind}")
    refresh_due(account)
    return alerts


def refuse(account: Account, body: Body, occurred_at: int) -> str | None:
    """Why the account as it stands does not take a body that is right in itself; None when it does."""
    unit = unit_of(body)
    limit_refusal = (refuse_new_wallet(account, unit) if unit else None) or (
        refuse_full_account(account) if _adds(account, body) else None
    )
    if limit_refusal is not None:
        return limit_refusal.message
    match body:
        case MemberBody() if _joins(account, body) and len(members_of(account)) >= MEMBERS_MAX:
            return f"an organisation has at most {MEMBERS_MAX} members"
        case BudgetBody() if count_of(account) >= BUDGETS_MAX and find_budget(account, body.budget_id) is None:
            return f"an organisation has at most {BUDGETS_MAX} budgets"
        case PriceOverrideBody():
            known = {} if account.overrides is None else account.overrides.prices
            if body.price_id not in known and sum(key == each.price_id for key, each in known.items()) >= OVERRIDES_MAX:
                return f"an organisation has at most {OVERRIDES_MAX} prices of its own"
            price = _override_of(account, body, occurred_at)
            tie = next(
                (each for each in known.values() if each.price_id != price.price_id and could_tie(price, each)), None
            )
            return None if tie is None else f"price {price.price_id} could tie with {tie.price_id}"
        case _:
            return None


def _adds(account: Account, body: Body) -> bool:
    """The body is added to those of its kind; it replaces none of them."""
    match body:
        case MemberBody():
            return body.user_id not in account.members
        case BudgetBody():
            return find_budget(account, body.budget_id) is None
        case PriceOverrideBody():
            return True  # the version before it stays
        case _:
            return False


def _joins(account: Account, body: MemberBody) -> bool:
    """The body makes a user a member who was none."""
    none = MemberRole.NONE
    return body.role is not none and account.members.get(body.user_id, none) is none


def _set_org(account: Account, body: OrgBody, entry: Entry) -> list[Alert]:
    zone = account.time_zone
    account.org = OrgTerms(body.time_zone, body.closed, body.administrators, body.tier)
    if account.time_zone != zone:
        change_time_zone(account, entry.recorded_at)
    alerts: list[Alert] = []
    for wallet in account.wallets.values():  # an org that opens again may want credits
        alerts += consider_topup(account, wallet, entry.recorded_at)
        refresh_fast_path_limit(wallet)
    return alerts


def _set_member(account: Account, body: MemberBody) -> list[Alert]:
    members = account.members
    members.pop(body.user_id, None)
    members[body.user_id] = body.role  # `none` too: it says that the user may do nothing
    barred = [user_id for user_id, role in members.items() if role is MemberRole.NONE]
    for user_id in barred[: max(0, len(barred) - BARRED_MAX)]:
        del members[user_id]
    return []


def _wallet_of(account: Account, unit: str, at: int) -> Wallet:
    wallet = wallet_for(account, unit)
    account.wallets.setdefault(unit, wallet)
    enter_month(wallet, account.time_zone, at)
    return wallet


def _set_wallet(account: Account, body: WalletBody, entry: Entry) -> list[Alert]:
    wallet = _wallet_of(account, body.unit, entry.recorded_at)
    old, old_level = wallet.terms, low_balance_level(wallet)
    wallet.terms = WalletTerms(
        body.default,
        body.allowance_nanos,
        body.rollover_max_nanos,
        body.low_balance_threshold_nanos,
        body.low_credit_limit_nanos,
        body.negative_limit_nanos,
    )
    if body.default:
        for other in account.wallets.values():
            if other is not wallet and other.terms.default:
                other.terms = msgspec.structs.replace(other.terms, default=False)
    cleared = _reset_low_alert(wallet, old_level, entry)
    if wallet.terms.negative_limit != old.negative_limit:
        limit = wallet.terms.negative_limit
        if wallet.negative.crossed and (not limit or wallet.settled > -limit):
            cleared = (*cleared, NEGATIVE_RULE_ID)
        wallet.negative = AlertState(entry.seq)
    return _reevaluate_alerts(account, wallet, entry, cleared)


def _reset_low_alert(wallet: Wallet, old_level: int, entry: Entry) -> tuple[str, ...]:
    """Reset the low-balance alert if its threshold changed; returns it if it was crossed and no longer is."""
    if low_balance_level(wallet) == old_level:
        return ()
    cleared = (LOW_RULE_ID,) if wallet.low.crossed and wallet.available > low_balance_level(wallet) else ()
    wallet.low = AlertState(entry.seq)
    return cleared


def _set_month_limits(account: Account, body: MonthLimitsBody, entry: Entry) -> list[Alert]:
    """A limit that stays as it is keeps its watch."""
    wallet = _wallet_of(account, body.unit, entry.recorded_at)
    old = wallet.limits or MonthLimits(None, None, AlertState(entry.seq), AlertState(entry.seq))
    alert, allowed = body.alert_threshold_nanos, body.allowed_limit_nanos
    cleared = tuple(
        rule_id
        for rule_id, alert_state, level in (
            (LIMIT_ALERT_RULE_ID, old.alert, alert),
            (LIMIT_RULE_ID, old.reached, allowed),
        )
        if alert_state.crossed and (level is None or wallet.used < level)
    )
    new = MonthLimits(
        alert,
        allowed,
        old.alert if alert == old.alert_threshold else AlertState(entry.seq),
        old.reached if allowed == old.allowed_limit else AlertState(entry.seq),
    )
    wallet.limits = None if alert is None and allowed is None else new
    return _reevaluate_alerts(account, wallet, entry, cleared)


def _set_budget(account: Account, body: BudgetBody, entry: Entry) -> list[Alert]:
    """The same wallet, scope and window: what is spent goes on counting; the same limit too: so does its watch."""
    zone, at = account.time_zone, entry.recorded_at
    wallet = _wallet_of(account, body.unit, at)
    scope = Scope(**body.scope.model_dump())
    budget = new_budget(body.budget_id, scope, body.window, body.limit_nanos, entry.seq, zone, at)
    found = find_budget(account, body.budget_id)
    cleared: tuple[str, ...] = ()
    alerts: list[Alert] = []
    if scope == ANY_SCOPE and body.window is BudgetWindow.MONTH:
        budget.spent, budget.began_at = wallet.used, month_starts_at(budget.number, zone)
    if found is not None:
        old_wallet, old = found
        enter_window(old, zone, at)
        remove_budget(old_wallet, old)
        if (old_wallet.unit, old.scope, old.window) == (body.unit, budget.scope, budget.window):
            budget.spent, budget.number = old.spent, old.number
            budget.began_at, budget.ends_at = old.began_at, old.ends_at
            if old.limit == budget.limit:
                budget.alert_state = old.alert_state
        if old.alert_state.crossed and (old_wallet is not wallet or budget.spent < budget.limit):
            cleared = (old.budget_id,)
        if old_wallet is not wallet:
            alerts = _reevaluate_alerts(account, old_wallet, entry, cleared)
            cleared = ()
    held = (hold for hold in account.holds.values() if hold.wallet == body.unit)
    budget.held = sum(hold.amount for hold in held if covers(budget, Scope(*hold.scope)))
    add_budget(wallet, budget)
    charged = [BudgetCharge(budget, budget.limit - budget.spent)]
    return alerts + _reevaluate_alerts(account, wallet, entry, cleared, charged)


def _set_topup(account: Account, body: AutoTopupBody, entry: Entry) -> list[Alert]:
    """New terms; a charge in flight stays in flight, and what was charged this month counts.

    While amount and cap stay as they are, the alert about the cap is not repeated (product rule 27).
    """
    wallet = _wallet_of(account, body.unit, entry.recorded_at)
    old_level, old = low_balance_level(wallet), wallet.topup
    topup = Topup(
        body.enabled,
        body.threshold_nanos,
        body.purchase_amount_nanos,
        body.monthly_cap_nanos,
        body.backoff_seconds * MICROS_PER_SECOND,
    )
    if old is not None:
        topup.requests, topup.requested_seq = old.requests, old.requested_seq
        topup.in_flight, topup.in_flight_amount = old.in_flight, old.in_flight_amount
        topup.charged, topup.caps = old.charged, old.caps
        topup.retry_at, topup.retrying = old.retry_at, old.retrying
        topup.capped = old.capped and (topup.amount, topup.monthly_cap) == (old.amount, old.monthly_cap)
    wallet.topup = topup
    return _reevaluate_alerts(account, wallet, entry, _reset_low_alert(wallet, old_level, entry))


def _set_override(account: Account, body: PriceOverrideBody, entry: Entry) -> None:
    """A new version holds from its `valid_from`; for usage before that, the versions before it still do (rule 7).

    One that would begin only after that is gone: so a price that was planned is taken back.
    """
    known = {} if account.overrides is None else account.overrides.prices
    price = _override_of(account, body, entry.occurred_at)
    horizon = entry.recorded_at - OVERRIDE_KEPT_MICROS
    prices: dict[str, Price] = {}
    ended: list[tuple[str, Price]] = []
    for key, each in known.items():
        ends_at = each.valid_to
        if each.price_id == price.price_id:
            ends_at = price.valid_from if ends_at is None else min(ends_at, price.valid_from)
            key = f"{each.price_id}\0{each.valid_from}"
        if key == each.price_id:
            prices[key] = each
        elif ends_at is not None and ends_at > max(each.valid_from, horizon):
            ended.append((key, msgspec.structs.replace(each, valid_to=ends_at)))
    prices[price.price_id] = price
    account.overrides = overrides_of(prices | dict(ended[-OVERRIDES_MAX:]))


def _override_of(account: Account, body: PriceOverrideBody, occurred_at: int) -> Price:
    return Price(
        body.price_id,
        body.operation,
        body.unit_price_nanos or 0,
        body.billing_unit or BillingUnit.UNIT,
        body.wallet or "",
        occurred_at if body.valid_from is None else body.valid_from,
        body.valid_to,
        body.category,
        body.model,
        body.tool,
        body.provider,
        body.direction or Direction.ANY,
        body.tier,
        body.free,
        account.org_id,
        body.display_name,
        body.meter,
        body.service_tier,
        body.input_tokens_above,
        body.aliases,
        tuple(PriceTier(tier.up_to_nanos, tier.unit_price_nanos) for tier in body.tiers),
        body.free_quantity_nanos,
        body.package_size_nanos,
        body.minimum_nanos,
        body.factor_nanos,
    )


def _set_thresholds(account: Account, body: ThresholdsBody, entry: Entry) -> list[Alert]:
    """New rules and new versions are judged at once; a rule that stays as it is keeps its watch (product rule 27)."""
    wallet = _wallet_of(account, body.unit, entry.recorded_at)
    old = {rule.rule_id: rule for rule in wallet.rules}
    _follow_days(account, wallet, body, entry.recorded_at)
    now = figures(wallet)
    wallet.rules = []
    for wanted in body.rules:
        known = old.get(wanted.rule_id)
        same = known is not None and (known.type, known.level) == (wanted.type, wanted.level_nanos)
        alert_state = known.alert_state if known is not None and same else AlertState(entry.seq)
        wallet.rules.append(
            Rule(wanted.rule_id, wanted.type, wanted.level_nanos, wanted.channels, wanted.dismissable, alert_state)
        )
    alarmed = {
        rule.rule_id for rule in wallet.rules if rule.alert_state.crossed or distance(rule.type, rule.level, now) <= 0
    }
    cleared = tuple(rule.rule_id for rule in old.values() if rule.alert_state.crossed and rule.rule_id not in alarmed)
    return _reevaluate_alerts(account, wallet, entry, cleared)


def _follow_days(account: Account, wallet: Wallet, body: ThresholdsBody, at: int) -> None:
    """Days of usage are followed while some rule asks for them."""
    if not any(rule.type is ThresholdType.DAYS_LEFT_BELOW for rule in body.rules):
        wallet.burn = None
    elif wallet.burn is None:
        month_started_at = month_starts_at(wallet.month, account.time_zone)
        wallet.burn = follow(wallet, account.time_zone, at, month_started_at)
    else:
        enter_day(wallet, account.time_zone, at)


def _reevaluate_alerts(
    account: Account, wallet: Wallet, entry: Entry, cleared: tuple[str, ...], charged: Sequence[BudgetCharge] = ()
) -> list[Alert]:
    at = entry.recorded_at
    alerts = evaluate_alerts(account, wallet, at, figures(wallet), replenished=False, cleared=cleared, charged=charged)
    alerts += consider_topup(account, wallet, at)
    refresh_fast_path_limit(wallet)
    return alerts
