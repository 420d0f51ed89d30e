"""What the organisations do, drawn from the seed: everything the contract allows, and much that it does not.

Holds come most often, and are resolved late, twice, for less and for more. What is referred to (a usage to refund, a
hold to capture) was sent before, whether or not it has had an effect yet. Credits that are asked for are answered by a
payment service that reads the requests as anybody would: committed ones only. Prices change meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from schemas.amounts import NANOS
from schemas.codec import decode_one
from schemas.topics import INPUT_TOPICS
from tests.model.memory import TOPICS, Sent, sent
from tests.simulation.listed import SCHEMAS
from tests.simulation.price_list import HOUR_US, MINUTE_US, Publication, Publisher
from tests.simulation.terms import drawn
from tests.simulation.virtual_kafka import VirtualKafka
from tests.simulation.world import FAR, lies_far

ORGS = ("acme", "bolt", "core", "dune", "echo", "flux")
"""In all three partitions. `nobody` is one that has nothing but what it is sent."""
AMOUNTS = (1, NANOS // 2, NANOS, 5 * NANOS // 2, 7 * NANOS, 10 * NANOS, 20 * NANOS - 1, 40 * NANOS)
DAY_US = 86_400_000_000
SURELY_KNOWN_US = DAY_US - HOUR_US
SURELY_FORGOTTEN_US = 4 * DAY_US
CORRECTED_FOR_US = 30 * DAY_US
"""Usage can be refunded and corrected for 35 days."""
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
        self.publisher = Publisher(random)
        self.following: list[Sent] = []
        """What must come next."""
        self.begun: list[tuple[str, str]] = []
        """Org and hold of work that was begun: most of it ends soon."""
        self.ways: list[Callable[[str], Sent]] = [
            *[self._place] * 13,
            *[self._capture] * 4,
            *[self._release] * 2,
            *[self._use_held] * 2,
            *[self._use] * 8,
            *[self._work] * 5,
            *[self._buy] * 4,
            *[self._adjust] * 1,
            *[self._send] * 5,
            *[self._refund_usage] * 4,
            *[self._refund_purchase] * 2,
            *[self._correct] * 4,
            *[self._amend_after_gift] * 1,
            *[self._end_under_a_hold] * 3,
            *[self._set] * 5,
            *[self._publish] * 4,
            *[self._answer] * 4,
            *[self._again] * 4,
            *[self._forged] * 2,
            *[self._leg_again] * 2,
        ]

    def beginning(self) -> list[Sent]:
        """The first prices, the settings of every org, and its first credits."""
        records = [self._publication(each) for each in self.publisher.first()]
        for org in ORGS:
            zone = self.random.choice(("UTC", "Asia/Tokyo"))
            terms = {"administrators": ["ann"], "time_zone": zone, "closed": False}
            records.append(self._setting(org, "org", terms))
            records += [self._set(org) for _ in range(3)]
            records.append(self._buy(org))
        return records

    def next(self) -> Sent:
        """One record more."""
        if self.following:
            return self.following.pop(0)
        if self.begun and not self.random.randrange(2):
            return self._end_work(*self.begun.pop(0))
        return self.random.choice(self.ways)(self.random.choice(ORGS))

    def long_ago(self, org: str) -> list[str]:
        """Ids of purchases that were used so long ago that nothing remembers them."""
        return [name for name, at in self.purchases[org] if self.kafka.at - at >= REUSED_AFTER_US][:2]

    def buy_again(self, org: str, name: str) -> Sent:
        """An id that was used long ago: a purchase of its own now."""
        return self._record("purchase", org, purchase_id=name, wallet="USD", amount_nanos=self._amount() + NANOS)

    def short_hold(self, org: str, name: str) -> Sent:
        """A hold that ends in a minute, granted whatever there is."""
        terms = {"expires_at": self.kafka.at + MINUTE_US, "on_shortage": "overflow"}
        return self._record("hold", org, hold_id=name, action="place", wallet="USD", amount_nanos=NANOS, **terms)

    def resolve(self, org: str, name: str, by_usage: bool) -> Sent:
        """What the hold was for has happened."""
        if by_usage:
            return self._usage(org, self._name("u"), hold_id=name, wallet="USD", cost_nanos=NANOS)
        return self._captured(org, name, NANOS)

    def plain(self, org: str, by_purchase: bool) -> Sent:
        """A record that resolves nothing."""
        return self._buy(org) if by_purchase else self._use(org)

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
        if self.random.randrange(3):
            self.begun.append((org, name))
        minutes = self.random.choice((None, None, 0, 1, 30, 600, 3_000))
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
            user_id=self.random.choice((None, "u1", "u2")),
            model=self.random.choice((None, "gpt", "gift")),
            operation=self.random.choice((None, "chat", "deployment", "render", "render")),
            category=self.random.choice((None, None, "draft")),
            provider=self.random.choice((None, "lab")),
            **self._group(),
        )

    def _end_work(self, org: str, hold: str) -> Sent:
        """What a hold was for has happened, or will not."""
        held = dict(self.holds[org])[hold]
        ends = (self._captured, self._captured, self._used, self._released)
        return self.random.choice(ends)(org, hold, held)

    def _held(self, org: str) -> tuple[str, int]:
        """A hold of the last few; now and then one that never was."""
        recent = self.holds[org][-6:]
        return self.random.choice(recent) if recent and self.random.randrange(15) else ("no hold", NANOS)

    def _capture(self, org: str) -> Sent:
        return self._captured(org, *self._held(org))

    def _release(self, org: str) -> Sent:
        return self._released(org, *self._held(org))

    def _captured(self, org: str, name: str, held: int) -> Sent:
        amount = self.random.choice((0, 1, held // 2, held, held, held + 1, held * 2))
        return self._record("hold", org, hold_id=name, action="capture", wallet="USD", amount_nanos=amount)

    def _released(self, org: str, name: str, held: int) -> Sent:
        return self._record("hold", org, hold_id=name, action="release", wallet="USD", amount_nanos=0)

    def _used(self, org: str, name: str, held: int) -> Sent:
        return self._use(org, name)

    def _use_held(self, org: str) -> Sent:
        return self._use(org, self._held(org)[0])

    def _use(self, org: str, hold: str | None = None) -> Sent:
        name = self._name(self.random.choice(("u", "u", "u", FAR)))
        self.usages[org].append(name)
        return self._usage(org, name, hold_id=hold, wallet=self._unit(), cost_nanos=self._amount() // 2)

    def _usage(self, org: str, name: str, **fields: Any) -> Sent:
        user = self.random.choice((None, "u1", "u2"))
        return self._record(
            "usage", org, **{"event_id": name, "operation": "chat", "user_id": user, **self._group(), **fields}
        )

    def _group(self) -> dict[str, str | None]:
        return {"team": self.random.choice((None, "red")), "department": self.random.choice((None, "sales"))}

    def _work(self, org: str) -> Sent:
        """Usage that the price list rates; some of it comes late."""
        late = self.random.choice((0, 0, MINUTE_US, 3 * HOUR_US, 2 * DAY_US))
        return self._worked(org, self.kafka.at - late, self._done())

    def _worked(self, org: str, occurred_at: int, done: dict[str, Any]) -> Sent:
        name = self._name(self.random.choice(("u", "u", FAR)))
        self.usages[org].append(name)
        return self._usage(org, name, occurred_at=occurred_at, **done)

    def _work_around(self, org: str, price: dict[str, Any]) -> Sent:
        """Usage of what a price is about, at the instant from which it holds or around it."""
        begins_at = price.get("valid_from") or self.kafka.at
        at = self.random.choice((self.kafka.at, begins_at - 1, begins_at, begins_at - HOUR_US))
        named = {name: price[name] for name in ("operation", "model", "category", "provider") if price.get(name)}
        return self._worked(org, at, {"input_tokens": 1_000_001, "output_tokens": 77, "quantity_nanos": NANOS, **named})

    def _done(self) -> dict[str, Any]:
        """What was done, in words that prices know."""
        if not self.random.randrange(3):
            place = {"category": self.random.choice((None, "draft")), "provider": self.random.choice((None, "lab"))}
            return {"operation": "render", "quantity_nanos": self._amount(), **place}
        tokens = self.random.choice((0, 1, 999, 123_457))
        model = self.random.choice(("gpt", "gpt", "mini", "mini", "gift", "unpriced"))
        return {"model": model, "input_tokens": tokens, "output_tokens": 3 * tokens}

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
        """Of usage of these days or of weeks ago; what lies far back is found by the time at which it was recorded.

        A record is recorded when the broker takes it, or later.
        """
        known = self.usages[org]
        old = [name for name in known if self.kafka.at - self.named_at[name] >= SURELY_FORGOTTEN_US]
        captured = [name for name, _ in self.holds[org]]
        target = self.random.choice(self.random.choice((known[-8:], known[-8:], old, captured[-8:])) or ["no usage"])
        sent_at = self.named_at.get(target, self.kafka.at)
        times: list[int | None] = [sent_at, sent_at - HOUR_US]
        if not lies_far(target):  # without the time, or with a wrong one, it is found all the same
            times += [None, None, sent_at + DAY_US]
        return self._refund(org, "usage", target, target_recorded_at=self.random.choice(times))

    def _refund_purchase(self, org: str) -> Sent:
        target = self.random.choice(self.purchases[org][-8:] or [("no purchase", 0)])[0]
        return self._refund(org, "purchase", target)

    def _refund(self, org: str, target: str, target_id: str, **more: Any) -> Sent:
        fields = {"refund_id": self._name("r"), "target": target, "target_id": target_id, **more}
        return self._record("refund", org, amount_nanos=self.random.choice((1, self._amount() // 2)) + 1, **fields)

    def _correct(self, org: str) -> Sent:
        """A new revision, or a void; now or weeks later, when days and months have ended."""
        near = [name for name in self.usages[org] if not lies_far(name)]
        old = [name for name in near if self.kafka.at - self.named_at[name] < CORRECTED_FOR_US]
        name = self.random.choice(self.random.choice((self._fresh(near), old)) or [self._name("u")])
        voided = not self.random.randrange(4)
        new = {"wallet": self._unit(), "cost_nanos": 0 if voided else self._amount()}
        if not voided and not self.random.randrange(3):
            new = self._done()
        return self._usage(org, name, revision=self.random.randint(1, 4), voided=voided, **new)

    def _amend_after_gift(self, org: str) -> Sent:
        """An amendment draws what it gave back, not the gift that is first in the order by now."""
        name, cost = self._name("u"), 7 * NANOS
        self.usages[org].append(name)
        bought, given = (self._credits(org, kind) for kind in ("purchased", "promotional"))
        revisions = ({"cost_nanos": cost}, {"cost_nanos": cost + self._amount(), "revision": 5})
        used, amended = (self._usage(org, name, wallet="USD", **fields) for fields in revisions)
        self.following += [used, given, amended]
        return bought

    def _end_under_a_hold(self, org: str) -> Sent:
        """A gift ends within a second of being held; then it is asked back, and other usage comes, or neither."""
        given = self._credits(org, "promotional", expires_at=self.kafka.at + 1_000_000)
        name, amount = self._name("h"), self._amount()
        self.holds[org].append((name, amount))
        self.begun.append((org, name))
        fields = {"hold_id": name, "action": "place", "wallet": "USD", "on_shortage": "cap"}
        placed = self._record("hold", org, amount_nanos=amount, expires_at=self.kafka.at + HOUR_US, **fields)
        between = [self._usage(org, self._name("u"), wallet="USD", cost_nanos=1), self._refund_purchase(org)]
        self.following += [placed, *between[self.random.randrange(3) :]]
        return given

    def _credits(self, org: str, kind: str, **more: Any) -> Sent:
        fields = {"purchase_id": self._name("p"), "kind": kind, "priority": 0, "amount_nanos": 50 * NANOS, **more}
        return self._record("purchase", org, wallet="USD", **fields)

    def _set(self, org: str) -> Sent:
        kind, body = drawn(self.random, self.kafka.at)
        setting = self._setting(org, kind, body)
        if kind == "price_override":
            self._again_dearer(org, body)
        return setting

    def _again_dearer(self, org: str, body: dict[str, Any]) -> None:
        """The next version of an org's own price, and usage of the time of either."""
        dearer = {**body, "unit_price": "0.000007", "free": False, "valid_from": self.kafka.at}
        about = {"model": "gpt", **body, "valid_from": self.kafka.at}
        self.following += [self._setting(org, "price_override", dearer)] * self.random.randrange(2)
        self.following += [self._work_around(org, about) for _ in range(2)]

    def _publish(self, org: str) -> Sent:
        """A price changes; what belongs together comes at once, and then what it is about."""
        published = self.publisher.change(self.kafka.at, org)
        first, *rest = map(self._publication, published)
        price = published[-1][1]
        assert price is not None
        self.following += [*rest, *(self._work_around(org, price) for _ in range(2))]
        return first

    def _publication(self, published: Publication) -> Sent:
        price_id, price = published
        if price is None:
            return Sent(TOPICS.name("prices"), price_id.encode(), None, self.kafka.at)
        return sent("price", price, self.kafka.at)

    def _setting(self, org: str, kind: str, body: dict[str, Any]) -> Sent:
        role = self.random.choice(("system",) * 9 + ("member",)) if self.sent else "system"
        fields = {"setting_id": self._name("s"), "actor": "root", "actor_role": role}
        return self._record("setting", org, kind=kind, body=json.dumps(body), **fields)

    def _answer(self, org: str) -> Sent:
        """The payment service charges for the oldest request that it has not answered."""
        for record in self.kafka.committed(TOPICS.name("topup_requests")):
            assert record.value is not None
            asked = decode_one("topup_request", record.value, SCHEMAS)
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
        topic = TOPICS.name(INPUT_TOPICS[self.random.choice(list(INPUT_TOPICS))])
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
