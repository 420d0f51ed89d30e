"""By which price a usage goes: the cost it came with, a price of its org, or the list's (product rules 7-9).

Rules of this file, for single records and for columns:
- A cost given upstream is taken as it is, and the price list is not asked. It goes to the wallet that the usage names,
  else to that of the hold or booking it is about, else to the org's default wallet.
- An org with a tier, or with prices of its own by setting or in the list, has plans of its own. All others share the
  list's, whatever org asks for them.
"""

from __future__ import annotations

from typing import Final

import msgspec

from schemas.enums import DeadLetterCode
from streams.ledger.account import Account, CorrectedUsage
from streams.ledger.commands import Usage
from streams.ledger.rating import PriceList, Rated, RatingPlan, Work, rate_by
from streams.ledger.refusals import DeadLetter, refuse_range
from streams.ledger.volume import check_countable, period_at, used_in

DEFAULT_UNIT: Final = "USD"


def rate(
    account: Account,
    usage: Usage,
    prices: PriceList,
    at: int,
    unit: str | None = None,
    booked: CorrectedUsage | None = None,
) -> Rated:
    """What a usage costs and in which wallet, booked at `at`. Raises DeadLetter as `Tariff.charge`.

    `unit`: the wallet of the hold or booking that the usage is about, for one that names its cost and no wallet.
    `booked`: what is booked of the usage and will be replaced.
    """
    if usage.cost_nanos is not None:
        out_of_range = refuse_range(usage.cost_nanos)
        if out_of_range is not None:
            raise out_of_range
        if usage.cost_nanos < 0:
            raise DeadLetter(DeadLetterCode.INVALID_FIELD, "cost_nanos must not be below 0")
        return Rated(usage.cost_nanos, upstream_unit(account, usage.wallet, unit))
    work = (usage.operation, usage.category, usage.model, usage.tool, usage.provider, usage.service_tier)
    plan = plan_for(account, prices, work)  # type: ignore[arg-type]  # a plain tuple is made in a third of the time
    tariff = plan.tariff(usage.occurred_at, usage.input_tokens)
    if not tariff.counted:
        return rate_by(tariff, usage)
    period = booked.period if booked is not None and booked.counted else period_at(account, at)
    rated = rate_by(tariff, usage, used_in(account, period, booked))
    check_countable(account, rated.counted, period)
    return msgspec.structs.replace(rated, period=period)


def upstream_unit(account: Account, named: str | None, unit: str | None = None) -> str:
    """The wallet of a usage that names its cost: the one it names, else `unit`, else the org's default one."""
    return named or unit or default_unit(account)


def default_unit(account: Account) -> str:
    """The org's default wallet, else the first there was, else USD."""
    for wallet in account.wallets.values():
        if wallet.terms.default:
            return wallet.unit
    return next(iter(account.wallets), DEFAULT_UNIT)


def plan_for(account: Account, prices: PriceList, work: Work) -> RatingPlan:
    """The prices that count for work of an org."""
    return prices.plan(account.org_id, account.tier, work, account.overrides)


def has_own_plans(account: Account, prices: PriceList) -> bool:
    """Whether the org's plans may differ from those of `shared_plan`."""
    return account.tier is not None or account.overrides is not None or account.org_id in prices.overridden


def shared_plan(prices: PriceList, work: Work) -> RatingPlan:
    """The prices that count for work of every org without plans of its own."""
    return prices.plan("", None, work)


def is_free(account: Account, prices: PriceList, work: Work, at: int) -> bool:
    """Whether work that begins at `at` is priced as free of charge; work without a price is not."""
    try:
        return plan_for(account, prices, work).tariff(at).free
    except DeadLetter:
        return False
