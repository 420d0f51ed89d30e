"""What falls due, in its order (rules 4, 5, 11, 18, 20)."""

from __future__ import annotations

from tests.model.audit_grants import Grants, known_as
from tests.model.audit_lines import leaves, wants
from tests.model.audited import (
    Draw,
    Lot,
    Org,
    Wallet,
    month_starts,
    window_starts,
)
from tests.model.predicted import Alarm


class Time(Grants):
    """Every operation settles the org first, as the ledger must (time is the log's)."""

    def settle(self, name: str, at: int) -> None:
        """Everything due at or before `at`, in order of time.

        At one instant: the month turns, grants expire, grants that end in a week are told of, holds time out, windows
        end, days end, a back-off is over.
        """
        org = self.org(name)
        while True:
            due = [
                (month_starts(wallet.month + 1, org.zone), 0, wallet.unit, "")
                for wallet in org.wallets.values()
                if wallet.turns() or leaves(wallet)
            ]
            due += [
                (lot.expires_at, 1, wallet.unit, "")
                for wallet in org.wallets.values()
                for lot in wallet.lots
                if lot.expires_at is not None
                and (wallet.loose(lot) if lot.over else lot.left and not self._lapses(org, wallet, lot))
            ]
            due += [
                (lot.tells_at, 2, wallet.unit, "")
                for wallet in org.wallets.values()
                for lot in wallet.lots
                if lot.left and lot.tells_at is not None
            ]
            due += [(hold.ends_at, 3, wallet.unit, hold.name) for wallet, hold in org.holds()]
            due += [
                (budget.ends_at(org.zone), 4, wallet.unit, "")
                for wallet in org.wallets.values()
                for budget in wallet.budgets.values()
                if budget.crossed and budget.limit
            ]
            due += [
                (window_starts("day", wallet.pace.day + 1, org.zone), 5, wallet.unit, "")
                for wallet in org.wallets.values()
                if wallet.pace is not None and not wallet.pace.idle
            ]
            due += [
                (wallet.topup.retry_at, 6, wallet.unit, "")
                for wallet in org.wallets.values()
                if wallet.topup is not None and wallet.topup.retry_at is not None and wants(org, wallet)
            ]
            due = [each for each in due if each[0] <= at]
            if not due:
                return
            when, what, unit, subject = min(due)
            self._happens(name, org.wallets[unit], when, what, subject)

    def _happens(self, name: str, wallet: Wallet, when: int, what: int, subject: str) -> None:
        if what:  # a turn that changes nothing is caught up with
            self._wallet(self.org(name), wallet.unit, when)
        match what:
            case 0:
                self._turn(name, self.org(name), wallet)
            case 1:
                self._expire(name, wallet, when)
            case 2:
                lot = next(lot for lot in wallet.order() if lot.tells_at == when)
                lot.notified = True
                self.alarms.append(Alarm(name, wallet.unit, "credits_expiring", known_as(lot)))
                self._watch(name, wallet, when)
            case 3:
                hold = wallet.holds[subject]
                self._let_go(name, wallet, hold, when, "hold_timed_out")
                self.org(name).timed_out[subject] = wallet, hold
            case 4:
                self._end_windows(name, wallet, when)
            case 5:
                assert wallet.pace is not None
                wallet.pace.end_day()
                self._watch(name, wallet, when)
            case _:
                assert wallet.topup is not None
                wallet.topup.retry_at = None
                self._ask(name, wallet, when)

    def _end_windows(self, name: str, wallet: Wallet, when: int) -> None:
        """Of all budgets at once that are reached, but for those of 0: they are reached whatever the window."""
        zone = self.org(name).zone
        over = [each for each in wallet.budgets.values() if each.crossed and each.limit and each.ends_at(zone) <= when]
        for budget in over:
            budget.begin(budget.number + 1, zone)
            budget.crossed = False
        self._watch(name, wallet, when, left=[budget.name for budget in over])

    def _lapses(self, org: Org, wallet: Wallet, lot: Lot) -> bool:
        return lot.monthly and lot.expires_at == month_starts(wallet.month + 1, org.zone)

    def _turn(self, name: str, org: Org, wallet: Wallet) -> None:
        """Rule 5: the roll-over up to its limit, the rest lapses, the new allowance; then lines are judged."""
        turned_at = month_starts(wallet.month + 1, org.zone)
        month = wallet.month + 1
        old = [lot for lot in wallet.order() if lot.monthly and (lot.expires_at or 0) <= turned_at]
        wallet.month = month
        keep, carried = wallet.rollover_max, 0
        for lot in reversed(old):
            part = min(keep, lot.left)
            lot.left -= part
            keep -= part
            carried += part
        if carried:
            ends_at = month_starts(month + 1, org.zone)
            wallet.lots.append(
                Lot(f"rolled/{wallet.unit}/{month}", "allowance", carried, carried, 50, ends_at, turned_at, True)
            )
        wallet.used = 0
        self._keep(wallet, old)
        for lot in wallet.lots:
            lot.current = False
        wallet.allocation = wallet.balance - wallet.gone(turned_at)
        if wallet.topup is not None:
            wallet.topup.charged, wallet.topup.asked, wallet.topup.capped = 0, 0, False
        lapses = [(lot, wallet.loose(lot)) for lot in old]
        lapsed = sum(part for _, part in lapses)
        for lot, part in lapses:
            lot.left -= part
        if lapsed:
            self._say(name, "expiry", wallet, -lapsed, "allowance_lapsed")
        if wallet.allowance:
            self._grant_allowance(name, wallet, month, turned_at, turned_at)
        else:
            self._watch(name, wallet, turned_at, replenished=True)

    def _grant_allowance(self, name: str, wallet: Wallet, month: int, created: int, at: int) -> None:
        ends_at = month_starts(month + 1, self.org(name).zone)
        amount = wallet.allowance
        lot = Lot(f"allowance/{wallet.unit}/{month}", "allowance", amount, amount, 50, ends_at, created, True, True)
        wallet.granted_month = month
        wallet.allocation += wallet.allowance
        wallet.touched = True
        self._add(name, "allowance", wallet, [lot], at)

    def _expire(self, name: str, wallet: Wallet, when: int) -> None:
        """Rule 4; several at one instant go in draw-down order, each by itself."""
        org = self.org(name)
        over = wallet.sorted(lot for lot in wallet.lots if lot.over and lot.expires_at == when and wallet.loose(lot))
        if not over:
            lot = next(lot for lot in wallet.order() if lot.expires_at == when and not self._lapses(org, wallet, lot))
            self._keep(wallet, [lot])
            over = [lot]
        amount = wallet.loose(over[0])
        if amount:
            self._end(name, wallet, Draw(over[0], amount))
            self._line(name, "expiry", wallet, -amount, when, reason="grant_expired")
