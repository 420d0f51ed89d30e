"""Purchases, gifts, adjustments, charges that failed, refunds of purchases (rules 4, 19 to 21)."""

from __future__ import annotations

from tests.model.audit_time import Time
from tests.model.audited import (
    NANOS,
    Draw,
    Lot,
    Wallet,
)
from tests.model.predicted import NOTHING_LEFT, Alarm


class MoneyRules(Time):
    """Money in and out."""

    def buy(
        self,
        name: str,
        purchase_id: str,
        unit: str,
        amount: int,
        at: int,
        kind: str = "purchased",
        expires_at: int | None = None,
        priority: int = 50,
        actor: str | None = None,
        answers: int | None = None,
        failed: bool = False,
    ) -> None:
        """Purchases of at least 1 unit, gifts, adjustments both ways; failed charges (rules 4, 19, 20).

        `answers`: the number of the wallet's request for credits that the purchase answers.
        """
        self.settle(name, at)
        org = self.org(name)
        refusal = self._refuse_purchase(name, unit, amount, kind, actor, failed)
        if refusal is None and amount > 0:
            refusal = self._limit_reason(name, unit, 0 if failed else 1)
        if refusal is not None:
            self._refuse(name, unit, refusal)
            return
        wallet = self._wallet(org, unit, at)
        if failed:
            self.alarms.append(Alarm(name, unit, "credit_purchase_failed", purchase_id))
            self._answer(name, wallet, answers, at, 0)
            self._line(name, "purchase", wallet, 0, at)
            self.settle(name, at)
            return
        wallet.touched = True
        entry_kind = "adjustment" if kind == "adjustment" else "purchase"
        if amount < 0:
            self._line(name, entry_kind, wallet, amount, at, draws=self._draw(wallet, -amount))
        else:
            lot = Lot(f"purchase/{purchase_id}", kind, amount, amount, priority, expires_at, at)
            wallet.allocation += amount
            wallet.added += amount
            if entry_kind == "purchase":
                self._answer(name, wallet, answers, at, amount)
            self._add(name, entry_kind, wallet, [lot], at)
        self.settle(name, at)

    def _refuse_purchase(
        self, name: str, unit: str, amount: int, kind: str, actor: str | None, failed: bool
    ) -> str | None:
        if not self._may_pay(name, actor):
            return "not_authorized"
        if failed:
            return None
        if kind == "adjustment" and amount < 0:
            return "insufficient_credits" if -amount > max(0, self.look(name, unit).available) else None
        return "amount_not_positive" if amount < (NANOS if kind == "purchased" else 1) else None

    def _answer(self, name: str, wallet: Wallet, number: int | None, at: int, amount: int) -> None:
        """Rule 20: the charge on its way has gone through, or has failed (0) and a back-off begins.

        One that goes through after its answer is one charge more of this month.
        """
        topup = wallet.topup
        if topup is None or number is None:
            return
        if topup.in_flight == number:
            topup.in_flight = None
            topup.retry_at = None if amount else at + topup.backoff
            self._again[name, wallet.unit] = not amount
            if not amount:
                topup.charged = max(0, topup.charged - topup.asked)
        elif amount:
            topup.charged += amount
        if amount:
            self.alarms.append(Alarm(name, wallet.unit, "credit_auto_recharge_triggered"))

    def refund_purchase(self, name: str, purchase_id: str, amount: int, at: int) -> None:
        """At most what is left of the purchase's own grant, and what is not held in its wallet (rules 18, 21)."""
        self.settle(name, at)
        found = [
            (wallet, lot)
            for wallet in self.org(name).wallets.values()
            for lot in wallet.lots
            if lot.name == f"purchase/{purchase_id}"
        ]
        if not found:
            self._refuse(name, "", "unknown_purchase")
            return
        wallet, lot = max(found, key=lambda each: each[1].created)  # an id used again is about the latest
        if not lot.left:  # whether an empty gift is still remembered is the ledger's affair
            self._refuse(name, "", NOTHING_LEFT)
            return
        if lot.over or amount > min(lot.left, max(0, wallet.available)):
            self._refuse(name, wallet.unit, "exceeds_refundable")
            return
        self._wallet(self.org(name), wallet.unit, at)
        lot.left -= amount
        self._line(name, "refund", wallet, -amount, at, draws=[Draw(lot, amount)])
        self.settle(name, at)
