"""What the organisations do, drawn from the seed: everything the contract allows, and much that it does not.

Holds come most often, and are resolved late, twice, for less and for more. What is referred to (a usage to refund, a
hold to capture) was sent before, whether or not it has had an effect yet. Credits that are asked for are answered by a
payment service that reads the requests as anybody would: committed ones only.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from schemas.amounts import NANOS
from schemas.codec import decode_one
from schemas.topics import INPUT_TOPICS
from tests.model.memory import TOPICS, FixedSchemas, Sent, sent
from tests.simulation.virtual_kafka import VirtualKafka

ORGS = ("acme", "bolt", "core", "dune", "echo", "flux")
"""In all three partitions. `nobody` is one that has nothing but what it is sent."""
AMOUNTS = (1, NANOS // 2, NANOS, 5 * NANOS // 2, 7 * NANOS, 10 * NANOS, 20 * NANOS - 1, 40 * NANOS)
PRICES: list[dict[str, Any]] = [
    {"price_id": "in", "model": "gpt", "direction": "input", "unit_price_nanos": 2_500, "billing_unit": "token"},
    {
        "price_id": "out",
        "model": "gpt",
        "direction": "output",
        "unit_price_nanos": 7_001,
        "billing_unit": "1000_tokens",
    },
    {"price_id": "gift", "model": "gift", "unit_price_nanos": 0, "billing_unit": "token", "free": True},
]
LISTED = [{"operation": "chat", "wallet": "USD", "valid_from": 0, **price} for price in PRICES]
MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US
DAY_US = 86_400_000_000
SURELY_KNOWN_US = DAY_US - HOUR_US
REUSED_AFTER_US = 40 * DAY_US
"""An id is forgotten 35 days and 2 hours after its use, or up to an eighth of that later."""


class Traffic:
    """Draws one record after the other."""

    def __init__(self, random: Random, kafka: VirtualKafka) -> None:
        self.random = random
        self.kafka = kafka
        self.number = 0
        self.sent: list[Sent] = []
        self.holds: dict[str, list[tuple[str, int]]] = {org: [] for org in ORGS}
        self.usages: dict[str, list[str]] = {org: [] for org in ORGS}
        self.named_at: dict[str, int] = {}
        self.purchases: dict[str, list[tuple[str, int]]] = {org: [] for org in ORGS}
        self.answered: set[str] = set()
        self.ways: list[Callable[[str], Sent]] = [
            *[self._place] * 11,
            *[self._capture] * 7,
            *[self._release] * 3,
            *[self._use_held] * 3,
            *[self._use] * 8,
            *[self._work] * 2,
            *[self._buy] * 4,
            *[self._adjust] * 1,
            *[self._send] * 5,
            *[self._refund_usage] * 3,
            *[self._refund_purchase] * 2,
            *[self._correct] * 3,
            *[self._set] * 4,
            *[self._answer] * 4,
            *[self._again] * 4,
            *[self._forged] * 2,
            *[self._leg_again] * 2,
        ]

    def beginning(self) -> list[Sent]:
        """The settings of every org, and its first credits."""
        records = []
        for org in ORGS:
            terms = {"administrators": ["ann"], "time_zone": self.random.choice(("UTC", "Asia/Tokyo"))}
            records.append(self._setting(org, "org", terms))
            records += [self._set(org) for _ in range(3)]
            records.append(self._buy(org))
        return records

    def next(self) -> Sent:
        """One record more."""
        return self.random.choice(self.ways)(self.random.choice(ORGS))

    def long_ago(self, org: str) -> list[str]:
        """Ids of purchases that were used so long ago that nothing remembers them."""
        return [name for name, at in self.purchases[org] if self.kafka.at - at >= REUSED_AFTER_US][:2]

    def buy_again(self, org: str, name: str) -> Sent:
        """An id that was used long ago: a purchase of its own now."""
        return self._record("purchase", org, purchase_id=name, wallet="USD", amount_nanos=self._amount() + NANOS)

    # Records of each kind.

    def _record(self, record: str, org: str, /, **fields: Any) -> Sent:
        late = self.random.choice((0, 0, 0, 1_000, MINUTE_US, -MINUTE_US))
        made = sent(record, {"org_id": org, "occurred_at": self.kafka.at - late, **fields}, self.kafka.at)
        self.sent.append(made)
        return made

    def _name(self, prefix: str) -> str:
        self.number += 1
        name = f"{prefix}{self.number}"
        self.named_at[name] = self.kafka.at
        return name

    def _fresh(self, names: Sequence[str]) -> list[str]:
        """The last few that are surely remembered.

        Whether an id is known a while after its window depends on when its partition forgot it: none is used then.
        """
        return [name for name in names[-8:] if self.kafka.at - self.named_at[name] < SURELY_KNOWN_US]

    def _unit(self) -> str:
        return self.random.choice(("USD", "USD", "USD", "EUR"))

    def _amount(self) -> int:
        return self.random.choice(AMOUNTS)

    def _place(self, org: str) -> Sent:
        name, amount = self._name("h"), self._amount()
        known = self._fresh([each for each, _ in self.holds[org]])
        if known and not self.random.randrange(12):
            name = self.random.choice(known)
        self.holds[org].append((name, amount))
        minutes = self.random.choice((None, 0, 1, 30, 600, 3_000))
        ends_at = None if minutes is None else self.kafka.at + minutes * MINUTE_US
        return self._record(
            "hold",
            org,
            hold_id=name,
            action="place",
            wallet=self._unit(),
            amount_nanos=amount,
            expires_at=ends_at,
            on_shortage=self.random.choice(("reject", "cap", "overflow")),
            user_id=self.random.choice((None, "u1")),
            model=self.random.choice((None, "gpt", "gift")),
            operation=self.random.choice((None, "chat", "deployment")),
        )

    def _held(self, org: str) -> tuple[str, int]:
        """A hold of the last few; now and then one that never was."""
        recent = self.holds[org][-6:]
        return self.random.choice(recent) if recent and self.random.randrange(15) else ("no hold", NANOS)

    def _capture(self, org: str) -> Sent:
        name, held = self._held(org)
        amount = self.random.choice((0, 1, held // 2, held, held, held + 1, held * 2))
        return self._record("hold", org, hold_id=name, action="capture", wallet="USD", amount_nanos=amount)

    def _release(self, org: str) -> Sent:
        name, _ = self._held(org)
        return self._record("hold", org, hold_id=name, action="release", wallet="USD", amount_nanos=0)

    def _use_held(self, org: str) -> Sent:
        return self._use(org, self._held(org)[0])

    def _use(self, org: str, hold: str | None = None) -> Sent:
        name = self._name("u")
        self.usages[org].append(name)
        return self._usage(org, name, hold_id=hold, wallet=self._unit(), cost_nanos=self._amount() // 2)

    def _usage(self, org: str, name: str, **fields: Any) -> Sent:
        people = {"user_id": self.random.choice((None, "u1", "u2")), "team": self.random.choice((None, "red"))}
        return self._record("usage", org, event_id=name, operation="chat", **people, **fields)

    def _work(self, org: str) -> Sent:
        name = self._name("u")
        self.usages[org].append(name)
        model = self.random.choice(("gpt", "gpt", "gift", "unpriced"))
        tokens = self.random.choice((0, 1, 999, 123_457))
        return self._usage(org, name, model=model, input_tokens=tokens, output_tokens=3 * tokens)

    def _buy(self, org: str) -> Sent:
        name = self._name("p")
        self.purchases[org].append((name, self.kafka.at))
        days = self.random.choice((None, None, 0, 1, 9, 40))
        return self._record(
            "purchase",
            org,
            purchase_id=name,
            wallet=self._unit(),
            amount_nanos=self._amount() * self.random.choice((1, 3)),
            kind=self.random.choice(("purchased", "purchased", "promotional")),
            expires_at=None if days is None else self.kafka.at + days * DAY_US,
            priority=self.random.choice((0, 50, 50)),
            status=self.random.choice(("completed",) * 9 + ("failed",)),
        )

    def _adjust(self, org: str) -> Sent:
        amount = self._amount() * self.random.choice((1, -1))
        return self._record(
            "purchase", org, purchase_id=self._name("a"), wallet="USD", amount_nanos=amount, kind="adjustment"
        )

    def _send(self, org: str) -> Sent:
        target = self.random.choice((*ORGS, "nobody"))
        actor = self.random.choice(("ann",) * 6 + ("eve",))
        name = self._name("t")
        return self._record(
            "transfer",
            org,
            transfer_id=name,
            target_org_id=target,
            wallet=self._unit(),
            amount_nanos=self._amount(),
            actor=actor,
        )

    def _refund_usage(self, org: str) -> Sent:
        target = self.random.choice(self.usages[org][-8:] or ["no usage"])
        return self._refund(org, "usage", target)

    def _refund_purchase(self, org: str) -> Sent:
        target = self.random.choice(self.purchases[org][-8:] or [("no purchase", 0)])[0]
        return self._refund(org, "purchase", target)

    def _refund(self, org: str, target: str, target_id: str) -> Sent:
        name, amount = self._name("r"), self._amount() // 2 + 1
        return self._record("refund", org, refund_id=name, target=target, target_id=target_id, amount_nanos=amount)

    def _correct(self, org: str) -> Sent:
        name = self.random.choice(self._fresh(self.usages[org]) or [self._name("u")])
        voided = not self.random.randrange(4)
        return self._usage(
            org,
            name,
            revision=self.random.randint(1, 3),
            voided=voided,
            wallet=self._unit(),
            cost_nanos=0 if voided else self._amount(),
        )

    def _set(self, org: str) -> Sent:
        random, unit = self.random, self._unit()
        level = random.choice(("0", "5", "20", "50"))
        kind, body = random.choice(
            (
                (
                    "wallet",
                    {
                        "unit": unit,
                        "allowance": random.choice(("0", "10", "50")),
                        "rollover_max": random.choice(("0", "5")),
                        "low_balance_threshold": level,
                        "negative_limit": random.choice(("0", "20")),
                    },
                ),
                (
                    "thresholds",
                    {
                        "unit": unit,
                        "rules": [
                            {"rule_id": "r1", "type": "balance_at_or_below", "level": level},
                            {"rule_id": "r2", "type": "used_percent", "level": "50"},
                            {"rule_id": "r3", "type": "days_left_below", "level": "5"},
                        ],
                    },
                ),
                ("month_limits", {"unit": unit, "alert_threshold": level, "allowed_limit": "60"}),
                (
                    "budget",
                    {
                        "budget_id": random.choice(("b1", "b2")),
                        "unit": unit,
                        "scope": random.choice(({}, {"user_id": "u1"}, {"team": "red"})),
                        "window": random.choice(("day", "week", "month")),
                        "limit": random.choice(("7", "50")),
                    },
                ),
                (
                    "auto_topup",
                    {
                        "unit": unit,
                        "enabled": random.choice((True, True, False)),
                        "threshold": random.choice(("5", "20")),
                        "purchase_amount": "20",
                        "monthly_cap": random.choice((None, "60")),
                        "backoff_seconds": random.choice((60, 3_600)),
                    },
                ),
                (
                    "org",
                    {
                        "administrators": ["ann"],
                        "closed": not random.randrange(5),
                        "time_zone": random.choice(("UTC", "Pacific/Kiritimati")),
                    },
                ),
            )
        )
        return self._setting(org, kind, body)

    def _setting(self, org: str, kind: str, body: dict[str, Any]) -> Sent:
        role = self.random.choice(("system",) * 9 + ("member",)) if self.sent else "system"
        fields = {"setting_id": self._name("s"), "actor": "root", "actor_role": role}
        return self._record("setting", org, kind=kind, body=json.dumps(body), **fields)

    def _answer(self, org: str) -> Sent:
        """The payment service charges for the oldest request that it has not answered."""
        for record in self.kafka.committed(TOPICS.name("topup_requests")):
            assert record.value is not None
            asked = decode_one("topup_request", record.value, FixedSchemas())
            if asked["topup_request_id"] not in self.answered:
                self.answered.add(asked["topup_request_id"])
                return self._record(
                    "purchase",
                    asked["org_id"],
                    purchase_id=self._name("p"),
                    wallet=asked["wallet"],
                    amount_nanos=asked["amount_nanos"],
                    topup_request_id=asked["topup_request_id"],
                    status=self.random.choice(("completed", "completed", "failed")),
                )
        return self._place(org)

    def _again(self, org: str) -> Sent:
        """What was sent before is sent once more, as it was."""
        recent = [each for each in self.sent[-40:] if self.kafka.at - each.at < 2 * DAY_US]
        return self.random.choice(recent) if recent else self._use(org)

    def _leg_again(self, org: str) -> Sent:
        """Somebody sends a leg again that was thought lost, while its id is remembered."""
        topic = TOPICS.name("transfer_legs")
        first = {leg.value: leg for leg in reversed(self.kafka.committed(topic))}
        legs = [leg for leg in first.values() if self.kafka.at - leg.at < 10 * DAY_US]
        leg = self.random.choice(legs) if legs else None
        return self._send(org) if leg is None else Sent(topic, leg.key, leg.value, 0)

    def _forged(self, org: str) -> Sent:
        """What no record may be: bytes, another org's key, an id with other content, long ago, far ahead."""
        topic = TOPICS.name(INPUT_TOPICS[self.random.choice(list(INPUT_TOPICS)[:6])])
        known = self.random.choice(self._fresh(self.usages[org]) or [self._name("u")])
        wrongs: list[Callable[[], Sent]] = [
            lambda: Sent(topic, org.encode(), self.random.randbytes(self.random.randint(0, 30)), 0),
            lambda: Sent(topic, org.encode(), None, 0),
            lambda: Sent(topic, b"elsewhere", self.random.choice(self.sent).value, 0),
            lambda: self._usage(org, known, cost_nanos=self._amount()),
            lambda: self._usage(org, self._name("u"), cost_nanos=1, occurred_at=self.kafka.at - 4 * DAY_US),
            lambda: self._usage(org, self._name("u"), cost_nanos=1, occurred_at=self.kafka.at + DAY_US),
            lambda: self._usage(org, self._name("u"), cost_nanos=-1),
        ]
        return self.random.choice(wrongs)()
