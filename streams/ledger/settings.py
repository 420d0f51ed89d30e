"""Settings: how a body becomes an entry, and an entry what an account is set to (product rules 5, 11, 26, 33).

Rules of this file: a later body replaces the earlier one of the same kind and id, whole. The entry's `details` holds
kind, body and what was there before; folding it needs nothing else. A setting never moves credits: the allowance that
it grants at once is an entry of its own.
"""

from __future__ import annotations

from typing import Any

import msgspec

from schemas.amounts import format_amount
from schemas.enums import MemberRole, SettingKind
from schemas.settings_bodies import (
    Body,
    MemberBody,
    OrgBody,
    ThresholdsBody,
    WalletBody,
    load_json,
    parse_shape,
)
from streams.ledger.account import DEFAULT_TERMS, Account, OrgTerms, Rule, Wallet, WalletTerms, Watch
from streams.ledger.due import change_time_zone, enter_month, refresh_due
from streams.ledger.entry import Alert, Entry
from streams.ledger.lines import LOW_RULE_ID, distance, figures, watch_lines
from streams.ledger.refusals import BrokenLedger
from streams.ledger.usage import refresh_headroom, wallet_for


class Change(msgspec.Struct, frozen=True):
    """`details` of a setting entry."""

    kind: SettingKind
    body: dict[str, Any]
    before: dict[str, Any] | None = None
    """The body that was in force, as far as it differs from nothing set; for the activity log (product rule 32)."""


def details_of(account: Account, kind: SettingKind, text: str, body: Body) -> str:
    """The `details` of the entry for a body that was parsed from `text`."""
    return msgspec.json.encode(Change(kind, load_json(text), _before(account, body))).decode()


def unit_of(body: Body) -> str:
    """The wallet that a body is about; empty when it is about the org."""
    unit: str = getattr(body, "unit", "")
    return unit


def apply_setting(account: Account, entry: Entry) -> list[Alert]:
    """The fold of a setting entry; returns the alerts of lines that it crosses or takes away."""
    change = msgspec.json.decode(entry.details or "", type=Change)
    body = parse_shape(change.kind, msgspec.json.encode(change.body).decode())
    match body:
        case OrgBody():
            alerts = _set_org(account, body)
        case MemberBody():
            alerts = _set_member(account, body)
        case WalletBody():
            alerts = _set_wallet(account, body, entry)
        case ThresholdsBody():
            alerts = _set_thresholds(account, body, entry)
        case _:
            raise BrokenLedger(f"{entry.entry_id}: this ledger writes no settings of kind {change.kind}")
    refresh_due(account)
    return alerts


def _set_org(account: Account, body: OrgBody) -> list[Alert]:
    zone = account.time_zone
    account.org = OrgTerms(body.time_zone, body.closed, body.administrators, body.tier)
    if account.time_zone != zone:
        change_time_zone(account)
    return []


def _set_member(account: Account, body: MemberBody) -> list[Alert]:
    if body.role is MemberRole.NONE:
        account.members.pop(body.user_id, None)
    else:
        account.members[body.user_id] = body.role
    return []


def _wallet_of(account: Account, unit: str, at: int) -> Wallet:
    wallet = wallet_for(account, unit)
    account.wallets.setdefault(unit, wallet)
    enter_month(wallet, account.time_zone, at)
    return wallet


def _set_wallet(account: Account, body: WalletBody, entry: Entry) -> list[Alert]:
    wallet = _wallet_of(account, body.unit, entry.recorded_at)
    old = wallet.terms
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
    left: tuple[str, ...] = ()
    if wallet.terms.low_balance_threshold != old.low_balance_threshold:
        if wallet.low.crossed and wallet.available > wallet.terms.low_balance_threshold:
            left = (LOW_RULE_ID,)
        wallet.low = Watch(entry.seq)
    return _judge_again(account, wallet, entry, left)


def _set_thresholds(account: Account, body: ThresholdsBody, entry: Entry) -> list[Alert]:
    """New rules and new versions are judged at once; a rule that stays as it is keeps its watch (product rule 27)."""
    wallet = _wallet_of(account, body.unit, entry.recorded_at)
    old = {rule.rule_id: rule for rule in wallet.rules}
    now = figures(wallet)
    wallet.rules = []
    for wanted in body.rules:
        known = old.get(wanted.rule_id)
        same = known is not None and (known.type, known.level) == (wanted.type, wanted.level_nanos)
        watch = known.watch if known is not None and same else Watch(entry.seq)
        wallet.rules.append(
            Rule(wanted.rule_id, wanted.type, wanted.level_nanos, wanted.channels, wanted.dismissable, watch)
        )
    alarmed = {rule.rule_id for rule in wallet.rules if rule.watch.crossed or distance(rule.type, rule.level, now) <= 0}
    left = tuple(rule.rule_id for rule in old.values() if rule.watch.crossed and rule.rule_id not in alarmed)
    return _judge_again(account, wallet, entry, left)


def _judge_again(account: Account, wallet: Wallet, entry: Entry, left: tuple[str, ...]) -> list[Alert]:
    alerts = watch_lines(account, wallet, entry.recorded_at, figures(wallet), replenished=False, left=left)
    refresh_headroom(wallet)
    return alerts


def _before(account: Account, body: Body) -> dict[str, Any] | None:
    """What is in force where `body` is to go, in the words of a body; None when nothing was set."""
    match body:
        case OrgBody():
            return None if account.org is None else msgspec.structs.asdict(account.org)
        case MemberBody():
            role = account.members.get(body.user_id)
            return None if role is None else {"user_id": body.user_id, "role": role.value}
        case WalletBody():
            wallet = account.wallets.get(body.unit)
            return None if wallet is None or wallet.terms == DEFAULT_TERMS else _wallet_words(wallet)
        case ThresholdsBody():
            wallet = account.wallets.get(body.unit)
            return None if wallet is None or not wallet.rules else _rules_words(wallet)
        case _:
            return None


def _wallet_words(wallet: Wallet) -> dict[str, Any]:
    terms = wallet.terms
    return {
        "unit": wallet.unit,
        "default": terms.default,
        "allowance": format_amount(terms.allowance),
        "rollover_max": format_amount(terms.rollover_max),
        "low_balance_threshold": format_amount(terms.low_balance_threshold),
        "low_credit_limit": format_amount(terms.low_credit_limit),
        "negative_limit": format_amount(terms.negative_limit),
    }


def _rules_words(wallet: Wallet) -> dict[str, Any]:
    rules = [
        {
            "rule_id": rule.rule_id,
            "type": rule.type.value,
            "level": format_amount(rule.level),
            "channels": list(rule.channels),
            "dismissable": rule.dismissable,
        }
        for rule in wallet.rules
    ]
    return {"unit": wallet.unit, "rules": rules}
