"""The payment service of the demonstration: answers the ledger's top-up requests with purchases.

Rules of this file: a thread of its own, outside the ledger as a real service is. It reads committed requests and sends
what became of the charge, with the request's id. An answer depends on the request alone. It declines the first charge
of some cards, and reports some charges twice.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from confluent_kafka import OFFSET_BEGINNING

from schemas.codec import decode_one
from schemas.enums import InputKind, PurchaseKind, PurchaseStatus, TopupReason
from schemas.topics import Topics
from streams.client.follower import Fetch, Follower
from streams.demo.organisations import org_id
from streams.demo.topups import ANSWERED_TWICE, DECLINED
from streams.loadgen.sender import Sender
from streams.loadgen.tally import TOPUPS, Tally
from streams.loadgen.waves import wave_of

if TYPE_CHECKING:
    from streams.kafka.registry import Registry
    from streams.settings import Settings

POLL_S = 0.05
FETCH_WAIT_MS = 20

DECLINES = frozenset(org_id(number) for number in DECLINED)
REPEATS = frozenset(org_id(number) for number in ANSWERED_TWICE)


def answers(request: dict[str, Any], first: bool) -> list[dict[str, Any]]:
    """What is sent for a request; `first`: it is its organisation's first."""
    answer = {
        "purchase_id": f"pay-{request['topup_request_id']}",
        "org_id": request["org_id"],
        "occurred_at": request["occurred_at"],
        "wallet": request["wallet"],
        "amount_nanos": request["amount_nanos"],
        "status": PurchaseStatus.COMPLETED.value,
        "kind": PurchaseKind.PURCHASED.value,
        "price_paid_nanos": request["amount_nanos"],
        "currency": request["wallet"],
        "topup_request_id": request["topup_request_id"],
    }
    if first and request["org_id"] in DECLINES:
        answer |= {"status": PurchaseStatus.FAILED.value, "failure_reason": "card_declined", "price_paid_nanos": None}
    return [answer] * (2 if request["org_id"] in REPEATS else 1)


class Payments:
    """The service. Use as a context manager."""

    def __init__(self, settings: Settings, registry: Registry, tally: Tally) -> None:
        """`tally` notes what the ledger asks for."""
        topic = Topics(settings.namespace).name("topup_requests")
        self._follower = Follower(settings, [topic], begin=OFFSET_BEGINNING, fetch=Fetch(wait_ms=FETCH_WAIT_MS))
        self._registry = registry
        self._sender = Sender(settings, registry)
        self._tally = tally
        self._asked: set[str] = set()
        self._stopping = threading.Event()
        self._pool = ThreadPoolExecutor(1, "payments")

    def __enter__(self) -> Payments:
        self._serving = self._pool.submit(self._serve)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._pool.shutdown()

    def next_offsets(self) -> dict[tuple[str, int], int]:
        """One beyond the last answer that Kafka has, by topic and partition; raises what ended the service."""
        if self._serving.done():
            self._serving.result()
        return dict(self._sender.next_offsets)

    def _serve(self) -> None:
        with self._follower as follower:
            while not self._stopping.is_set():
                records = []
                for message in follower.next(POLL_S):
                    records += self._answer(decode_one("topup_request", message.value(), self._registry))
                if records:
                    self._sender.send(self._sender.encode(wave_of(InputKind.PURCHASE, records)), lambda _: None)

    def _answer(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        self._tally.count(TOPUPS, "asked for")
        if request["reason"] == TopupReason.RETRY:
            self._tally.count(TOPUPS, "asked again")
        first = request["org_id"] not in self._asked
        self._asked.add(request["org_id"])
        return answers(request, first)
