"""Usage, its corrections and its refunds (rules 7 to 11, 16, 21, 23)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from tests.model.audit_lines import Charge
from tests.model.audit_time import Time
from tests.model.audited import (
    Draw,
    Hold,
    Scope,
    Usage,
    Wallet,
    month_of,
)
from tests.model.audited_rates import Rated, Unrated, Work, rate
from tests.model.predicted import Unbookable

REFUND_WINDOW_US = 35 * 86_400 * 1_000_000

NOBODY: Scope = frozenset()


@dataclass
class Back:
    """What a correction gave back of a usage that was `first` booked then: what came to its lots, in the order it was
    drawn, and the budgets it was counted back in. Nothing, where the new revision is of another wallet."""

    first: int
    amount: int = 0
    pieces: list[Draw] = field(default_factory=list)
    charged: list[Charge] = field(default_factory=list)


class UsageRules(Time):
    """What is booked, and what is taken back of it."""

    def use(
        self,
        name: str,
        event_id: str,
        unit: str,
        cost: int,
        at: int,
        scope: Scope = NOBODY,
        hold: str | None = None,
    ) -> None:
        """Usage is always booked, into the negative if need be (rule 16); one that names a hold resolves it."""
        self.settle(name, at)
        org = self.org(name)
        if self._refuses_new_wallet(name, unit):
            raise Unbookable("invalid_field")
        found = None if hold is None else org.hold(hold)
        org.timed_out.pop(hold or "", None)
        self._book(name, event_id, unit, cost, at, scope, found)
        if found is not None:
            taken = cost if found[0].unit == unit else 0
            self._decide(name, found[1].name, "capture", "ok", found[0].unit, taken)
        self.settle(name, at)

    def work(self, name: str, event_id: str, work: Work, at: int, scope: Scope = NOBODY) -> Rated:
        """Usage that the price list rates (rules 7 to 10, 35 to 38)."""
        self.settle(name, at)
        org = self.org(name)
        month = max([month_of(at, org.zone), *(month for _, month in org.counted)])
        used = {price: count for (price, counted_in), count in org.counted.items() if counted_in == month}
        try:
            rated = rate([*self.prices, *org.prices.values()], at, work, org.tier, used)
        except Unrated as unrated:
            raise Unbookable(str(unrated)) from unrated
        self.use(name, event_id, rated.unit, rated.cost, at, scope)
        org.usages[event_id].counted, org.usages[event_id].counted_in = rated.counted, month
        for price, count in rated.counted.items():
            org.counted[price, month] += count
        return rated

    def correct(
        self,
        name: str,
        event_id: str,
        revision: int,
        unit: str,
        cost: int | None,
        at: int,
        scope: Scope = NOBODY,
    ) -> None:
        """Rule 23: what was booked is unwound, the new is booked; a `cost` of None voids."""
        self.settle(name, at)
        org = self.org(name)
        usage = org.usages.get(event_id)
        over_limit = cost is not None and self._refuses_new_wallet(name, unit)
        if usage is None and over_limit:
            raise Unbookable("invalid_field")
        if usage is None and cost is not None:
            self._book(name, event_id, unit, cost, at, scope, None, revision)
            self.settle(name, at)
            return
        if usage is None or usage.at + REFUND_WINDOW_US < at:
            self._refuse(name, unit, "unknown_usage")
            return
        if revision <= usage.revision:
            raise Unbookable("duplicate_with_different_content")
        if over_limit:
            raise Unbookable("invalid_field")
        if self._no_grants(name, _gone(usage.draws)):
            self._refuse(name, usage.unit, "too_many_grants")
            return
        rest = sum(draw.amount for draw in usage.draws) - usage.refunded
        # An amendment within one wallet is one change: lines are judged at its end, and it moves the difference. In
        # budgets it counts where the usage was first booked.
        once = bool(cost) and rest > 0 and unit == usage.unit
        back = self._unwind(name, usage, rest, at, "correction", judged=not once)
        org.usages[event_id] = Usage(usage.unit, at, usage.first, [], usage.scope, revision)
        if cost is not None:
            before = replace(back, amount=rest) if once else Back(usage.first)
            self._book(name, event_id, unit, cost, at, scope, None, revision, before)
        self.settle(name, at)

    def refund_usage(self, name: str, event_id: str, amount: int, at: int, actor: str | None = None) -> None:
        """The slices go back, the last drawn first; at most the usage, in parts (rule 21)."""
        self.settle(name, at)
        usage = self.org(name).usages.get(event_id)
        known = usage is not None and usage.at + REFUND_WINDOW_US >= at
        unit = usage.unit if usage is not None and known else ""
        if not self._may_pay(name, actor):
            self._refuse(name, unit, "not_authorized")
            return
        if usage is None or not known:
            self._refuse(name, "", "unknown_usage")
            return
        if usage.refunded + amount > sum(draw.amount for draw in usage.draws):
            self._refuse(name, unit, "exceeds_refundable")
            return
        if self._no_grants(name, _gone(_last_drawn(usage.draws, usage.refunded, amount))):
            self._refuse(name, unit, "too_many_grants")
            return
        self._unwind(name, usage, amount, at, "refund")
        usage.refunded += amount
        self.settle(name, at)

    def _book(
        self,
        name: str,
        event_id: str,
        unit: str,
        cost: int,
        at: int,
        scope: Scope,
        hold: tuple[Wallet, Hold] | None,
        revision: int = 0,
        before: Back | None = None,
    ) -> None:
        """The usage, which takes from the hold what is set aside there; then the rest of the hold comes free.

        `before`: what was given back of its last revision.
        """
        org = self.org(name)
        wallet = self._wallet(org, unit, at)
        kept = hold[1].kept if hold is not None and hold[0] is wallet else []
        draws = self._draw(wallet, cost, [*kept, *(() if before is None else before.pieces)])
        for piece, draw in itertools.product(kept, draws):
            if piece.lot is draw.lot:
                piece.amount -= min(piece.amount, draw.amount)
        kept[:] = [piece for piece in kept if piece.amount]
        first = at if before is None else before.first
        org.usages[event_id] = Usage(unit, at, first, draws, scope, revision)
        self._use_up(wallet, cost)
        wallet.spent += _paid(draws)
        wallet.touched = wallet.touched or bool(cost)
        if hold is not None and hold[0] is wallet and cost:
            hold[1].left -= min(cost, hold[1].left)
            if not hold[1].left:
                self._resolve(org, *hold)
        charged = self._charge(org, wallet, scope, cost, at, None if before is None else first) if cost else []
        replenished = before is not None and before.amount > cost
        if before is not None:
            charged = _together([*before.charged, *charged])
        self._line(name, "usage", wallet, -cost, at, replenished=replenished, draws=draws, charged=charged)
        if hold is not None and org.hold(hold[1].name) is not None:
            self._let_go(name, *hold, at, "hold_captured")

    def _unwind(self, name: str, usage: Usage, amount: int, at: int, kind: str, *, judged: bool = True) -> Back:
        """`amount` of a usage counts no longer: not as used, nor as spent, nor in budgets whose window is open."""
        org = self.org(name)
        wallet = self._wallet(org, usage.unit, at)
        cost = sum(draw.amount for draw in usage.draws)
        for price, count in usage.counted.items():  # a refund takes back its share, rounded down; all shares add up
            shares = [count * part // cost if cost else count for part in (usage.refunded, usage.refunded + amount)]
            org.counted[price, usage.counted_in] -= shares[1] - (shares[0] if cost else 0)
        back = _last_drawn(usage.draws, usage.refunded, amount)
        self._use_up(wallet, -amount)
        wallet.spent -= _paid(back)
        charged = self._charge(org, wallet, usage.scope, -amount, at, usage.first)
        if amount:
            wallet.touched = True
        come = self._give_back(wallet, back, at)
        self._say(name, kind, wallet, amount)
        if judged:
            self._watch(name, wallet, at, replenished=amount > 0, charged=charged)
        return Back(usage.first, amount, come[::-1], charged)


def _together(charged: Iterable[Charge]) -> list[Charge]:
    """Each budget once, with all that changed there."""
    sums: dict[str, Charge] = {}
    for budget, more in charged:
        sums[budget.name] = (budget, more + (sums[budget.name][1] if budget.name in sums else 0))
    return list(sums.values())


def _paid(draws: Iterable[Draw]) -> int:
    """What counts as spent over the wallet's life: all but what an allowance gave."""
    return sum(draw.amount for draw in draws if draw.lot is None or draw.lot.kind != "allowance")


def _gone(draws: Iterable[Draw]) -> int:
    """How many grants there would be more if these came back."""
    return sum(draw.lot is None or not draw.lot.left for draw in draws)


def _last_drawn(draws: Sequence[Draw], already: int, amount: int) -> list[Draw]:
    """The pieces of the next `amount` to give back, after `already`."""
    back = []
    for draw in reversed(draws):
        skipped = min(already, draw.amount)
        already -= skipped
        part = min(amount, draw.amount - skipped)
        amount -= part
        if part:
            back.append(Draw(draw.lot, part))
    return back
