"""What is published in the price topic while usage goes on: dearer prices, planned changes, and what goes wrong.

A price that is to change at an instant is published with an end, and its successor with that beginning. Some prices tie
with what is in force, some are taken away and come back, some are of one org. They name what the auditor knows, too:
operation, model, direction, tier, category, provider.
"""

from __future__ import annotations

from random import Random
from typing import Any

MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US

Price = dict[str, Any]
Publication = tuple[str, Price | None]
"""Id and price; None: it is taken away."""

FIRST: tuple[Price, ...] = (
    {"price_id": "in", "model": "gpt", "direction": "input", "unit_price_nanos": 2_500, "billing_unit": "token"},
    {
        "price_id": "out",
        "model": "gpt",
        "direction": "output",
        "unit_price_nanos": 7_001,
        "billing_unit": "1000_tokens",
    },
    {"price_id": "mini", "model": "mini", "unit_price_nanos": 40_333, "billing_unit": "1000_tokens"},
    {"price_id": "pro", "model": "mini", "tier": "pro", "unit_price_nanos": 111, "billing_unit": "token"},
    {"price_id": "gift", "model": "gift", "unit_price_nanos": 0, "billing_unit": "token", "free": True},
    {"price_id": "any", "operation": "render", "unit_price_nanos": 1_000_000_001, "billing_unit": "request"},
    {"price_id": "lab", "operation": "render", "provider": "lab", "billing_unit": "request", "free": True},
    {
        "price_id": "draft",
        "operation": "render",
        "provider": "lab",
        "category": "draft",
        "unit_price_nanos": 500_000_000,
        "billing_unit": "minute",
        "wallet": "EUR",
    },
)
"""Rendering in the lab is free, but for drafts: who asks for a hold must say both."""


class Publisher:
    """Who publishes. Knows which price stands for which purpose now."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._number = 0
        self._current: dict[str, Price] = {
            price["price_id"]: {"operation": "chat", "wallet": "USD", "valid_from": 0, "unit_price_nanos": 0, **price}
            for price in FIRST
        }

    def first(self) -> list[Publication]:
        """The list at the beginning."""
        return [(price["price_id"], price) for price in self._current.values()]

    def change(self, at: int, org: str) -> list[Publication]:
        """One change, in its records. `org`: whose own price it may be."""
        self._number += 1
        purpose = self._random.choice(list(self._current))
        price = self._current[purpose]
        match self._random.randrange(7):
            case 0 | 1:
                self._current[purpose] = {**price, "unit_price_nanos": price["unit_price_nanos"] * 2 + 1}
                return [(price["price_id"], self._current[purpose])]
            case 2 | 3:
                return self._planned(purpose, at + self._random.choice((0, MINUTE_US, 2 * HOUR_US)))
            case 4:
                return self._wrong(price, at)
            case 5:
                return self._of_one_org(org, at)
            case _:
                new = {**self._current["gift"], "model": f"new {self._number}", "free": False, "unit_price_nanos": 77}
                return [(new["model"], {**new, "price_id": new["model"]})]

    def _planned(self, purpose: str, begins_at: int) -> list[Publication]:
        old = self._current[purpose]
        if begins_at <= old["valid_from"]:
            return [(old["price_id"], old)]
        dearer = old["unit_price_nanos"] * 3 + 7
        new = {**old, "price_id": f"{purpose} {self._number}", "valid_from": begins_at, "unit_price_nanos": dearer}
        self._current[purpose] = new
        return [(old["price_id"], {**old, "valid_to": begins_at}), (new["price_id"], new)]

    def _wrong(self, price: Price, at: int) -> list[Publication]:
        """A price that ties, or one that is gone for a moment."""
        if self._random.randrange(2):
            tie = {**price, "price_id": f"{price['price_id']}!", "valid_from": at}
            return [(tie["price_id"], tie)]
        return [(price["price_id"], None), (price["price_id"], price)]

    def _of_one_org(self, org: str, at: int) -> list[Publication]:
        own = {"model": "mini", "unit_price_nanos": 9_999, "billing_unit": "token", "valid_from": at}
        price_id = f"mini of {org}"
        return [(price_id, {"price_id": price_id, "operation": "chat", "wallet": "EUR", "org_id": org, **own})]
