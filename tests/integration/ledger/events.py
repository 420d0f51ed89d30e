"""Seeded events of a few orgs, as fields of the input records."""

from __future__ import annotations

import random
import time
from typing import Any

from schemas.amounts import NANOS

Fields = dict[str, Any]

PRICES: list[Fields] = [
    {"price_id": "m1-in", "model": "m1", "direction": "input", "unit_price_nanos": 2 * NANOS},
    {"price_id": "m1-out", "model": "m1", "direction": "output", "unit_price_nanos": 8 * NANOS},
    {"price_id": "m2", "model": "m2", "unit_price_nanos": NANOS // 3},
]
PRICE_LIST = [
    {"operation": "chat", "billing_unit": "1000000_tokens", "wallet": "USD", "valid_from": 0, **price}
    for price in PRICES
]


def now_us() -> int:
    """The wall clock."""
    return time.time_ns() // 1_000


def usage(event_id: str, org_id: str, **fields: Any) -> Fields:
    """A usage event that happened just now."""
    return {"event_id": event_id, "org_id": org_id, "occurred_at": now_us(), "operation": "chat", **fields}


def purchase(purchase_id: str, org_id: str, amount: int, **fields: Any) -> Fields:
    """A purchase of `amount` nano-units of USD."""
    whole = {"purchase_id": purchase_id, "org_id": org_id, "occurred_at": now_us(), "wallet": "USD"}
    return {**whole, "amount_nanos": amount, **fields}


def administrators(setting_id: str, org_id: str, *names: str) -> Fields:
    """Who may move credits out of and into the org."""
    body = '{"administrators": [' + ", ".join(f'"{name}"' for name in names) + "]}"
    actor = {"actor": "root", "actor_role": "system", "kind": "org", "body": body}
    return {"setting_id": setting_id, "org_id": org_id, "occurred_at": now_us(), **actor}


class Traffic:
    """An endless seeded mixture: mostly usage, some purchases, refunds, transfers, and repeats of all of them."""

    def __init__(self, seed: int, orgs: int = 12) -> None:
        self._random = random.Random(seed)
        self.orgs = [f"org-{number}" for number in range(orgs)]
        self._number = 0

    def usages(self, count: int) -> list[Fields]:
        """New usage events, a tenth of them sent twice."""
        made = [self._usage() for _ in range(count)]
        return made + self._random.choices(made, k=count // 10)

    def transfers(self, count: int) -> list[Fields]:
        """Transfers between random orgs; some cannot be done."""
        return [self._transfer() for _ in range(count)]

    def purchases(self, count: int) -> list[Fields]:
        """Purchases of 1 to 50 USD, some of them promotional."""
        return [
            purchase(
                self._id("p"),
                self._random.choice(self.orgs),
                self._random.randint(1, 50) * NANOS,
                kind=self._random.choice(["purchased", "promotional"]),
            )
            for _ in range(count)
        ]

    def refunds(self, usages: list[Fields]) -> list[Fields]:
        """Refunds of one nano-unit of each usage."""
        return [
            {
                "refund_id": self._id("r"),
                "org_id": used["org_id"],
                "occurred_at": now_us(),
                "target": "usage",
                "target_id": used["event_id"],
                "amount_nanos": 1,
            }
            for used in usages
        ]

    def _usage(self) -> Fields:
        return usage(
            self._id("e"),
            self._random.choice(self.orgs),
            model=self._random.choice(["m1", "m2"]),
            input_tokens=self._random.randint(1, 100_000),
            output_tokens=self._random.randint(1, 10_000),
        )

    def _transfer(self) -> Fields:
        source, target = self._random.sample(self.orgs, 2)
        return {
            "transfer_id": self._id("t"),
            "org_id": source,
            "target_org_id": self._random.choice([target, target, "nobody"]),
            "occurred_at": now_us(),
            "wallet": "USD",
            "amount_nanos": self._random.randint(1, 5) * NANOS,
            "actor": "ann",
        }

    def _id(self, prefix: str) -> str:
        self._number += 1
        return f"{prefix}{self._number}"
