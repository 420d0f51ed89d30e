"""What moves in a wallet: draws, what is given back, budgets that are charged, holds that come free (rules 1 to 3, 18).

And how many wallets and grants an org may have: that many, and none more (docs/decisions.md, 18).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tests.model.audit_lines import Charge, Lines
from tests.model.audited import (
    WEEK_US,
    Budget,
    Draw,
    Hold,
    Lot,
    Org,
    Pace,
    Scope,
    Wallet,
    month_of,
    window_of,
    window_starts,
)
from tests.model.predicted import ARRIVED, Alarm

WALLETS_MAX = 64
GRANTS_MAX = 500


class Grants(Lines):
    """The parts that every operation is made of."""

    def _refuses_new_wallet(self, name: str, unit: str) -> bool:
        """It would be a wallet too many."""
        wallets = self.org(name).wallets
        return unit not in wallets and len(wallets) >= WALLETS_MAX

    def _no_grants(self, name: str, more: int) -> bool:
        """So many more would be too many, with those that are on their way."""
        there = sum(lot.left > 0 for wallet in self.org(name).wallets.values() for lot in wallet.lots)
        away = sum(len(parcel.pieces) for parcel in self.parcels.values() if parcel.source == name)
        return there + away + more > GRANTS_MAX

    def _limit_reason(self, name: str, unit: str, lots: int) -> str | None:
        """Why the org can take no more of them."""
        if self._refuses_new_wallet(name, unit):
            return "too_many_wallets"
        return "too_many_grants" if self._no_grants(name, lots) else None

    def _wallet(self, org: Org, unit: str, at: int) -> Wallet:
        """The wallet, in the month of `at` (what a turn changes has been settled before)."""
        wallet = org.wallets.get(unit)
        if wallet is None:
            wallet = org.wallets[unit] = Wallet(unit, month_of(at, org.zone))
        wallet.month = max(wallet.month, month_of(at, org.zone))
        pace = wallet.pace
        if pace is not None and pace.idle and at >= window_starts("day", pace.day + 1, org.zone):
            wallet.pace = Pace(window_of("day", at, org.zone))
        return wallet

    def _use_up(self, wallet: Wallet, amount: int) -> None:
        """So much more is used this month and today; below 0: less."""
        wallet.used += amount
        if wallet.pace is not None:
            wallet.pace.today += amount

    def _draw(self, wallet: Wallet, amount: int, first: Sequence[Draw] = ()) -> list[Draw]:
        """What `amount` takes: of `first` before all else, then by the order; a lot after itself is one piece."""
        draws: list[Draw] = []
        for lot, most in [*((piece.lot, piece.amount) for piece in first), *((lot, None) for lot in wallet.order())]:
            assert lot is not None
            part = min(amount, lot.left, lot.left if most is None else most)
            if part:
                lot.left -= part
                amount -= part
                if draws and draws[-1].lot is lot:
                    draws[-1].amount += part
                else:
                    draws.append(Draw(lot, part))
        if amount:
            wallet.debt += amount
            draws.append(Draw(None, amount))
        return draws

    def _add(self, name: str, kind: str, wallet: Wallet, lots: Sequence[Lot], at: int) -> None:
        """New credits pay the debt first, the first lot first; what has expired on its way pays nothing."""
        amount = sum(lot.amount for lot in lots)
        for lot in lots:
            wallet.lots.append(lot)
            lot.over = lot.expires_at is not None and lot.expires_at <= at
            wallet.funded = wallet.funded or not lot.over
            paid = 0 if lot.expires_at is not None and lot.expires_at <= at else min(wallet.debt, lot.left)
            lot.left -= paid
            wallet.debt -= paid
        self._line(name, kind, wallet, amount, at, replenished=True)

    def _give_back(self, wallet: Wallet, pieces: Iterable[Draw], at: int) -> list[Draw]:
        """Each piece to its lot; what is still alive pays the debt first, what has expired stays to expire.

        Returns what came to the lots, piece by piece.
        """
        come = []
        for piece in pieces:
            lot = piece.lot
            paid = min(wallet.debt, piece.amount) if lot is None or lot.expires_at is None or lot.expires_at > at else 0
            wallet.debt -= paid
            rest = piece.amount - paid
            if lot is not None:
                lot.notified = lot.notified or bool(
                    rest and not lot.left and lot.expires_at and lot.expires_at - WEEK_US <= at
                )
                lot.left += rest
                lot.over = lot.over or bool(rest and lot.expires_at is not None and lot.expires_at <= at)
            elif rest:
                lot = Lot(f"refund/{len(wallet.lots)}", "adjustment", rest, rest, 50, None, at)
                wallet.lots.append(lot)
            come.append(Draw(lot, rest))
        return [piece for piece in come if piece.amount]

    def _enter(self, org: Org, budget: Budget, at: int) -> None:
        """A new window begins with nothing spent; one that ends while it is reached has been settled before."""
        number = window_of(budget.window, at, org.zone)
        if number > budget.number and not (budget.crossed and budget.limit):
            budget.begin(number, org.zone)

    def _charge(
        self, org: Org, wallet: Wallet, scope: Scope, cost: int, at: int, first: int | None = None
    ) -> list[Charge]:
        """What is booked at `at` counts in the open windows; what was booked `first` before, in those of that time."""
        charged = []
        for budget in wallet.about(scope):
            self._enter(org, budget, at)
            if first is None or first >= budget.since:
                budget.spent += cost
                charged.append((budget, cost))
        return charged

    def _let_go(self, name: str, wallet: Wallet, hold: Hold, at: int, reason: str) -> None:
        self._resolve(self.org(name), wallet, hold)
        self._line(name, "hold_release", wallet, 0, at, reason=reason)
        if hold.kept:  # rule 18: it was there for this hold alone
            for piece in hold.kept:
                self._end(name, wallet, piece)
            going = sum(piece.amount for piece in hold.kept)
            self._line(name, "expiry", wallet, -going, at, reason="grant_expired")

    def _end(self, name: str, wallet: Wallet, piece: Draw) -> None:
        """Credits are lost for their time has passed."""
        lot = piece.lot
        assert lot is not None
        lot.left -= piece.amount
        if lot.kind == "promotional":
            self.alarms.append(Alarm(name, wallet.unit, "credit_free_expired", known_as(lot)))

    def _keep(self, wallet: Wallet, ends: Sequence[Lot]) -> None:
        """Rule 18: these lots end; what holds cover of them stays for those holds."""
        for hold, lot, part in wallet.cover():
            if any(lot is each for each in ends):
                hold.kept.append(Draw(lot, part))
                lot.over = True

    def _resolve(self, org: Org, wallet: Wallet, hold: Hold) -> None:
        del wallet.holds[hold.name]
        org.resolved.add(hold.name)


def known_as(lot: Lot) -> str:
    """The name of a lot as alerts are compared by it."""
    return lot.name.partition(ARRIVED)[1] or lot.name
