"""Holds, and whether work may begin (rules 11 to 13, 15, 17, 18)."""

from __future__ import annotations

from fnmatch import fnmatchcase

from tests.model.audit_usage import NOBODY, UsageRules
from tests.model.audited import (
    Hold,
    Org,
    Scope,
    Wallet,
    window_of,
)
from tests.model.audited_rates import Work
from tests.model.predicted import Unbookable

HOLD_MAX_US = 86_400 * 1_000_000

REFUSED_HOLDS = {"credits_not_available": "insufficient_credits"}
"""What the ledger says where the answer to a hold has another word."""

LOW_CREDIT = frozenset({"low_credit_limit"})


class HoldRules(UsageRules):
    """What is set aside, captured and let go."""

    def place(
        self,
        name: str,
        hold: str,
        unit: str,
        amount: int,
        at: int,
        scope: Scope = NOBODY,
        operation: str | None = None,
        on_shortage: str = "reject",
        ends_at: int | None = None,
    ) -> None:
        """Rules 17, 18: credits are set aside, or the first limit in the way is named."""
        self.settle(name, at)
        org = self.org(name)
        if org.hold(hold) is not None:
            raise Unbookable("duplicate_with_different_content")
        if amount <= 0:
            raise Unbookable("invalid_field")
        if hold in org.resolved:
            self._refuse_hold(name, hold, "place", unit, "already_resolved")
            return
        code, room, limits = self._admit(name, unit, amount, at, scope, operation)
        granted: int | None = 0 if code == "free" else amount
        if code not in ("ok", "free"):
            short = code in ("credits_held", "credits_not_available") and not limits
            if on_shortage == "overflow" and short:
                granted = amount
            elif on_shortage == "cap" and (short or code == "limit_reached") and room > 0:
                granted = room
            else:
                granted = None
        if granted is not None and self._refuses_new_wallet(name, unit):
            code, limits, granted = "limit_reached", frozenset({"too_many_wallets"}), None
        if granted is None:
            self._refuse_hold(name, hold, "place", unit, code, limits)
            return
        latest = at + HOLD_MAX_US
        wallet = self._wallet(org, unit, at)
        wallet.holds[hold] = Hold(hold, granted, latest if ends_at is None else min(latest, ends_at), scope)
        self._line(name, "hold", wallet, 0, at)
        self._decide(name, hold, "place", "ok", unit, granted)
        self.settle(name, at)

    def capture(self, name: str, hold: str, unit: str, amount: int, at: int) -> None:
        """Less, as much, or more than held; in the hold's wallet, whatever the record names.

        One that arrived in time, whose hold has timed out all the same, is booked, with nothing set aside for it.
        """
        self.settle(name, at)
        org = self.org(name)
        late = org.timed_out.get(hold)
        if late is not None and not self.arrived_before(late[1].ends_at):
            late = None
        found = late or self._to_resolve(name, hold, "capture", unit)
        if found is None:
            return
        if amount < 0:
            raise Unbookable("invalid_field")
        wallet, held = found
        org.timed_out.pop(hold, None)
        self._book(name, hold, wallet.unit, amount, at, held.scope, None if late else found)
        self._decide(name, hold, "capture", "ok", wallet.unit, amount)
        self.settle(name, at)

    def release(self, name: str, hold: str, unit: str, at: int) -> None:
        """All of it comes free."""
        self.settle(name, at)
        found = self._to_resolve(name, hold, "release", unit)
        if found is None:
            return
        wallet, held = found
        released = held.left
        self._let_go(name, wallet, held, at, "hold_released")
        self._decide(name, hold, "release", "ok", wallet.unit, released)
        self.settle(name, at)

    def arrived_before(self, ends_at: int) -> bool:
        """Whether the record at hand came before that time, which has passed; here all come when they are decided."""
        return False

    def _to_resolve(self, name: str, hold: str, action: str, unit: str) -> tuple[Wallet, Hold] | None:
        org = self.org(name)
        found = org.hold(hold)
        if found is None:
            code = "already_resolved" if hold in org.resolved else "unknown_hold"
            self._refuse_hold(name, hold, action, unit, code)
        return found

    def _refuse_hold(
        self, name: str, hold: str, action: str, unit: str, code: str, limits: frozenset[str] = frozenset()
    ) -> None:
        closed = code == "blocked" and self.org(name).closed
        self._refuse(name, unit, "org_closed" if closed else REFUSED_HOLDS.get(code, code))
        self._decide(name, hold, action, code, unit, 0, limits)

    def _admit(
        self, name: str, unit: str, amount: int, at: int, scope: Scope, operation: str | None
    ) -> tuple[str, int, frozenset[str]]:
        """Rules 11 to 13, 15, 17: (code, what could be granted, the limits of which one is named)."""
        org, wallet = self.org(name), self.look(name, unit)
        model = dict(scope).get("model")
        if org.closed:
            return "blocked", 0, frozenset()
        if org.members.get(dict(scope).get("user_id") or "") == "none":
            return "not_authorized", 0, frozenset()
        if model is not None and not _allowed(org, model):
            return "model_not_allowed", 0, frozenset()
        if operation is not None and self._is_free(org, Work(operation, model), at):
            return "free", 0, frozenset()
        if wallet.stopped:
            return "blocked", 0, frozenset({"negative_limit"})
        new_work = operation is not None and operation.split(".")[0] == "deployment"
        spendable = wallet.available + (0 if new_work else wallet.negative)
        left = []  # of each limit, in the order in which they decide
        allowed = wallet.limits["allowed_limit"].level
        if allowed is not None:
            left.append(("allowed_limit", 0, allowed - wallet.used - wallet.held))
        for budget in wallet.about(scope):
            spent = budget.spent if budget.number >= window_of(budget.window, at, org.zone) else 0
            aside = sum(hold.left for hold in wallet.holds.values() if budget.scope <= hold.scope)
            left.append((budget.name, 2 if budget.scope else 1, budget.limit - spent - aside))
        low = new_work and wallet.available <= wallet.low_credit
        room = 0 if low else max(0, min([spendable, *(rest for _, _, rest in left)]))
        hit = [(rank, limit) for limit, rank, rest in left if rest <= 0 or amount > rest]
        if hit:
            first = min(hit)[0]
            return "limit_reached", room, frozenset(limit for rank, limit in hit if rank == first)
        if low:
            held = wallet.held and wallet.balance > wallet.low_credit and wallet.balance >= amount
            return "credits_held" if held else "credits_not_available", 0, LOW_CREDIT
        if spendable <= 0 or amount > spendable:
            enough = wallet.held and spendable + wallet.held >= max(1, amount)
            return "credits_held" if enough else "credits_not_available", room, frozenset()
        return "ok", room, frozenset()

    def _is_free(self, org: Org, work: Work, at: int) -> bool:
        fitting = [price for price in (*self.prices, *org.prices.values()) if price.fits(at, work, org.tier)]
        fitting = [price for price in fitting if price.meter is None]
        return bool(fitting) and max(fitting, key=lambda price: price.rank).free


def _allowed(org: Org, model: str) -> bool:
    """Rule 11: what `allow` matches and `deny` does not."""
    return any(fnmatchcase(model, each) for each in org.allow) and not any(
        fnmatchcase(model, each) for each in org.deny
    )
