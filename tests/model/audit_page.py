"""The page that predictions are written on, and the orgs that they are about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from tests.model.audited import (
    Draw,
    Org,
    Parcel,
    Wallet,
)
from tests.model.audited_rates import Price
from tests.model.predicted import Alarm, Decision, Line, Request


class Page:
    """The orgs, and what must be said of the operation at hand."""

    def __init__(self, prices: Iterable[Price] = ()) -> None:
        self.prices = list(prices)
        self.orgs: dict[str, Org] = {}
        self.parcels: dict[str, Parcel] = {}
        self.lines: list[Line] = []
        self.alarms: list[Alarm] = []
        self.decisions: list[Decision] = []
        self.requests: list[Request] = []
        self._again: dict[tuple[str, str], bool] = {}
        """Whether the last charge of a wallet failed."""

    def forget(self) -> None:
        """Begin a new page of predictions."""
        for page in (self.lines, self.alarms, self.decisions, self.requests):
            page.clear()

    def org(self, name: str) -> Org:
        return self.orgs.setdefault(name, Org())

    def look(self, name: str, unit: str) -> Wallet:
        """The wallet, or what one that nobody has set up looks like."""
        return self.org(name).wallets.get(unit) or Wallet(unit, 0)

    def _say(
        self,
        name: str,
        kind: str,
        wallet: Wallet,
        amount: int,
        reason: str | None = None,
        draws: Sequence[Draw] = (),
    ) -> None:
        """An entry, before lines are judged."""
        drawn: Counter[str] = Counter()
        for draw in draws:
            drawn["overdraft" if draw.lot is None else draw.lot.kind] += draw.amount
        drawn_slices = tuple(sorted(drawn.items()))
        self.lines.append(Line(name, kind, wallet.unit, amount, wallet.balance, wallet.held, reason, drawn_slices))

    def _refuse(self, name: str, unit: str, reason: str) -> None:
        wallet = self.look(name, unit)
        self.lines.append(Line(name, "rejected", unit, 0, wallet.balance, wallet.held, reason))

    def _decide(
        self,
        name: str,
        hold: str,
        action: str,
        code: str,
        unit: str,
        granted: int,
        limits: frozenset[str] = frozenset(),
    ) -> None:
        available = self.look(name, unit).available
        self.decisions.append(Decision(name, hold, action, code, granted, available, limits))

    def _may_pay(self, name: str, actor: str | None) -> bool:
        """Nobody named: the payment service. Else an owner, an admin or billing, where members are recorded."""
        members = self.org(name).members
        return actor is None or set(members.values()) <= {"none"} or members.get(actor) in ("owner", "admin", "billing")
