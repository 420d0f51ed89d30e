"""The auditor of tests/model, told of each record as the ledger's inputs tell it.

To the auditor, what happens does so when it is booked. Records have a time of their own: usage is rated as of that time
(product rule 7), the work that a hold is for is free as of it, and an org's own price begins with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from tests.model.audited import Org, Scope
from tests.model.audited_rates import Unrated, Work, rate
from tests.model.auditor import Auditor
from tests.simulation.listed import Listed, visible

Fields = Mapping[str, Any]
SCOPE = ("user_id", "project_id", "model", "tool", "team", "department")


class DatedAuditor(Auditor):
    """The auditor, who is told the time and the work that the record at hand says."""

    def __init__(self) -> None:
        super().__init__()
        self.listed: list[Listed] = []
        self.record: Fields = {}
        self.arrived_at = 0

    def tell(self, record: Fields, listed: list[Listed], arrived_at: int = 0) -> None:
        """What comes next, the prices of all that are known to who decides it, and when Kafka got the record."""
        self.record, self.listed, self.arrived_at = record, listed, arrived_at
        self.prices = visible(listed, record["org_id"])

    def rated(self) -> tuple[int, str] | None:
        """What the usage at hand costs, and in which wallet; None: nobody priced it."""
        fields, org = self.record, self.org(self.record["org_id"])
        if fields["cost_nanos"] is not None:
            return fields["cost_nanos"], fields["wallet"] or next(iter(org.wallets), "USD")
        tokens = fields["input_tokens"] or 0, fields["output_tokens"] or 0
        dimensions = fields["category"], fields["provider"]
        work = Work(
            fields["operation"], fields["model"], *tokens, fields["quantity_nanos"], fields["replicas"], *dimensions
        )
        try:
            rated = rate([*self.prices, *org.prices.values()], fields["occurred_at"], work, org.tier)
        except Unrated:
            return None
        return rated.cost, rated.unit

    def capture(self, name: str, hold: str, unit: str, amount: int, at: int) -> None:
        """As ever; one that arrived before the end of its hold comes before that end."""
        with self.not_ended(name, hold, at):
            super().capture(name, hold, unit, amount, at)

    def release(self, name: str, hold: str, unit: str, at: int) -> None:
        """As ever; the same."""
        with self.not_ended(name, hold, at):
            super().release(name, hold, unit, at)

    def arrived_before(self, ends_at: int) -> bool:
        """As the record at hand says."""
        return self.arrived_at < ends_at

    @contextmanager
    def not_ended(self, name: str, hold: str | None, at: int) -> Iterator[None]:
        """While this lasts, the hold that the record at hand resolves has not ended, if it arrived before that end."""
        found = None if hold is None else self.org(name).hold(hold)
        ends_at = 0 if found is None else found[1].ends_at
        if found is not None and self.arrived_at < ends_at <= at:
            found[1].ends_at = at + 1
        try:
            yield
        finally:
            if found is not None:
                found[1].ends_at = ends_at

    def change(self, name: str, kind: str, body: Mapping[str, Any], actor: str, role: str, at: int) -> None:
        """As ever; and an own price's new version ends those before it, which stay for usage of their time."""
        prices = self.org(name).prices
        before = dict(prices)
        if kind == "price_override":
            body = {
                **body,
                "valid_from": self.record["occurred_at"] if body["valid_from"] is None else body["valid_from"],
            }
        super().change(name, kind, body, actor, role, at)
        if prices == before:
            return
        new = prices[body["price_id"]]
        for key in [key for key, price in before.items() if price.name == new.name]:
            old = prices.pop(key) if key != new.name else before[key]
            ends_at = new.valid_from if old.valid_to is None else min(old.valid_to, new.valid_from)
            if ends_at > old.valid_from:
                prices[f"{old.name} of {old.valid_from}"] = replace(old, valid_to=ends_at)

    def _is_free(self, org: Org, work: Work, at: int) -> bool:
        fields = self.record
        whole = replace(work, category=fields["category"], provider=fields["provider"])
        return super()._is_free(org, whole, fields["occurred_at"])


def scope(fields: Fields) -> Scope:
    """The dimensions that budgets know."""
    return frozenset((name, fields[name]) for name in SCOPE if fields[name] is not None)
