"""What an import changes: the prices of a file against those that are published.

Rules of this file:
- Only prices of the same source are compared, by what they are for (`subject`): model, provider, meter, service tier,
  threshold.
- A price that is the same already is left alone, so importing a file twice publishes nothing the second time.
- A changed price ends where the new one begins, and stays for the usage before it. Where the new one begins no later
  than the old one did, the old one is withdrawn, as if it had never been: so a wrong price is corrected for the past.
- A price that the file no longer has is gone; it ends only when that was asked for.
- Ends and withdrawals come first. A worker that reads the new price before the end of the old one would find a tie.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from schemas.events import Price

Subject = tuple[str, ...]

_APART = {"price_id", "valid_from", "valid_to"}


@dataclass(slots=True)
class ImportPlan:
    """What to publish, in order: `ended`, `withdrawn`, then `new` and `changed`."""

    new: list[Price] = field(default_factory=list)
    changed: list[tuple[Price, Price]] = field(default_factory=list)
    """The published one, and the one that takes its place."""
    same: int = 0
    gone: list[Price] = field(default_factory=list)
    """Published, and no longer in the file."""
    ended: list[Price] = field(default_factory=list)
    withdrawn: list[str] = field(default_factory=list)
    """Ids of prices that are taken away."""

    @property
    def added(self) -> list[Price]:
        """What is published last: the new prices, and the new versions of changed ones."""
        return [*self.new, *(after for _, after in self.changed)]

    @property
    def changes(self) -> int:
        """How many records the plan publishes."""
        return len(self.ended) + len(self.withdrawn) + len(self.new) + len(self.changed)


def subject(price: Price) -> Subject:
    """What a price is for: two of one subject never hold at one time."""
    named = (price.operation, price.wallet, price.model, price.provider, price.meter, price.service_tier)
    return tuple("" if each is None else str(each) for each in (*named, price.input_tokens_above))


def plan_import(
    wanted: Sequence[Price], published: Iterable[Price], source: str, valid_from: int, *, end_gone: bool = False
) -> ImportPlan:
    """Compare. `published`: all prices of the list; `valid_from`: since when the file's prices hold."""
    plan = ImportPlan()
    standing: dict[Subject, list[Price]] = {}
    for price in published:
        if price.price_id.startswith(f"{source}:") and (price.valid_to is None or price.valid_to > valid_from):
            standing.setdefault(subject(price), []).append(price)
    offered: dict[Subject, list[Price]] = {}
    for price in wanted:
        offered.setdefault(subject(price), []).append(price)
    for key, prices in offered.items():
        _compare(plan, prices, standing.pop(key, []))
    plan.gone = [price for prices in standing.values() for price in prices]
    if end_gone:
        for price in plan.gone:
            _end(plan, price, valid_from)
    return plan


def _compare(plan: ImportPlan, prices: list[Price], standing: list[Price]) -> None:
    """One subject: `prices` follow on each other in time."""
    prices = sorted(prices, key=lambda price: price.valid_from)
    for price in prices:
        kept = next((each for each in standing if _covers(each, price)), None)
        if kept is not None:
            standing.remove(kept)
            plan.same += 1
            continue
        before = [each for each in standing if price.valid_to is None or each.valid_from < price.valid_to]
        for each in before:
            standing.remove(each)
            if each.price_id != price.price_id:
                _end(plan, each, price.valid_from)
        if before:
            plan.changed.append((before[-1], price))
        else:
            plan.new.append(price)
    plan.gone += standing


def _covers(published: Price, price: Price) -> bool:
    """The published price says the same, for at least as long as the one of the file."""
    return (
        published.valid_from <= price.valid_from
        and published.valid_to == price.valid_to
        and _content(published) == _content(price)
    )


def _content(price: Price) -> dict[str, Any]:
    return {name: value for name, value in price.__dict__.items() if name not in _APART}


def _end(plan: ImportPlan, price: Price, at: int) -> None:
    if price.valid_from >= at:
        plan.withdrawn.append(price.price_id)
    else:
        plan.ended.append(price.model_copy(update={"valid_to": at}))
