"""Holds sent to the ledger, and what it decided: the part that all calls about holds share.

The rules of this file:
1. A hold is answered by its decision. When none comes within `DECISION_WAIT_S` the request ends as pending (202): the
   record is in Kafka, and the ledger decides it when it gets to it.
2. Nothing is booked twice. A placed hold is known by its id: the same request again gets the decision that there was,
   and is not sent. A request that is sent again under its id is the same record to the byte, which the ledger drops; so
   the time that a request came first is remembered (`RequestTimes`), where the request does not say its own.
3. A process that does not remember sends the record again, and hears nothing, since the ledger drops it. Then it
   searches the decisions' topic (`DecisionReader.search`).
4. A capture or release that was refused has done nothing, so it is asked again.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from fastapi.responses import JSONResponse

from schemas.amounts import format_amount
from schemas.enums import HoldAction, InputKind, OnShortage
from schemas.events import Hold
from schemas.times import format_time
from streams.api.problems import AsciiJson, ProblemError, problem, retry_after
from streams.api.shared_wait import SharedWait
from streams.kafka.decisions import Decision, DecisionKey, DecisionReader
from streams.recent import remember

if TYPE_CHECKING:
    from streams.api.intake import Intake

DECISION_WAIT_S: Final = 5.0
SEARCH_WAIT_S: Final = 3.0
REQUESTS_MAX: Final = 50_000
"""About 400 bytes each: 20 MB."""


def wall_us() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1_000


class ReusedHoldError(ProblemError):
    """409: the id belongs to another hold."""

    def __init__(self) -> None:
        super().__init__(409, "hold_id_reused", "a hold with this id was placed with other content: take another id")


class RequestTimes:
    """When requests came first. Belongs to one event loop."""

    def __init__(self, requests_max: int = REQUESTS_MAX) -> None:
        self._requests_max = requests_max
        self._requests: OrderedDict[DecisionKey, tuple[bytes, int]] = OrderedDict()

    def first(self, key: DecisionKey, body: bytes, now_us: int) -> int:
        """When this request came first. Raises `ReusedHoldError` for a placing that came with another body."""
        digest = hashlib.sha256(body).digest()
        known = self._requests.get(key)
        if known is not None and known[0] == digest:
            return known[1]
        if known is not None and key.action is HoldAction.PLACE:
            raise ReusedHoldError
        remember(self._requests, key, (digest, now_us), self._requests_max)
        return now_us


class Holds:
    """Sends holds and waits for their decisions. `now_us` is the wall clock, for tests."""

    def __init__(
        self,
        intake: Intake,
        decisions: DecisionReader,
        *,
        wait_s: float = DECISION_WAIT_S,
        now_us: Callable[[], int] = wall_us,
    ) -> None:
        self._intake = intake
        self._decisions = decisions
        self._wait_s = wait_s
        self._times = RequestTimes()
        self._current = SharedWait(decisions.wait_until_current)
        self.now_us = now_us

    def first_us(self, key: DecisionKey, body: bytes) -> int:
        """When this request came first: the time that its record carries where it does not say one."""
        return self._times.first(key, body, self.now_us())

    async def decide(self, hold: Hold) -> Decision | None:
        """Send the hold, unless it is decided already; what the ledger decided, or None: nothing in time.

        Raises `KafkaUnavailableError` where Kafka has not taken it, `ReusedHoldError`, and `TooManyWaitingError`.
        """
        key = DecisionKey(hold.org_id, hold.hold_id, hold.action)
        with self._decisions.expect(key) as arrived:
            known = self._decisions.known(key)
            if known is not None and stands(hold, known):
                return known
            await self._intake.send([(InputKind.HOLD, hold)])
            try:
                async with asyncio.timeout(self._wait_s):
                    while not answers(hold, decision := await arrived.get()):
                        continue
            except TimeoutError:
                found = await self._searched(key)
                return found if found is not None and stands(hold, found) else None
        stands(hold, decision)  # two requests may have named the same hold at the same time
        return decision

    async def _searched(self, key: DecisionKey) -> Decision | None:
        try:
            async with asyncio.timeout(SEARCH_WAIT_S):
                return await asyncio.to_thread(self._decisions.search, key)
        except TimeoutError:  # the search goes on, and what it finds is remembered
            return None

    async def look_up(self, org: str, hold_id: str) -> dict[HoldAction, Decision]:
        """As `known`; where nothing is, everything that is committed now has been read first.

        Raises `KafkaUnavailableError`.
        """
        known = self.known(org, hold_id)
        if known:
            return known
        await self._current()
        return self.known(org, hold_id)

    def known(self, org: str, hold_id: str) -> dict[HoldAction, Decision]:
        """The decisions on a hold that are remembered, by action."""
        found = {action: self._decisions.known(DecisionKey(org, hold_id, action)) for action in HoldAction}
        return {action: decision for action, decision in found.items() if decision is not None}


def stands(hold: Hold, decision: Decision) -> bool:
    """Whether an earlier decision is the answer to this hold. Raises `ReusedHoldError` where it was another hold's."""
    if hold.action is not HoldAction.PLACE:
        return decision["allowed"] and answers(hold, decision)
    if decision["allowed"] and not _may_be_granted(hold, decision["granted_nanos"]):
        raise ReusedHoldError
    return True


def answers(hold: Hold, decision: Decision) -> bool:
    """Whether a decision on the same hold and action is about this record.

    A usage that names a hold captures it too, and is answered the same way: its amount tells them apart.
    """
    captured = hold.action is HoldAction.CAPTURE and decision["allowed"]
    return not captured or decision["granted_nanos"] == hold.amount_nanos


def _may_be_granted(hold: Hold, granted_nanos: int) -> bool:
    """Nothing is set aside for free work, and less than asked for where `cap` says so."""
    if hold.on_shortage is OnShortage.CAP:
        return granted_nanos <= hold.amount_nanos
    return granted_nanos in (0, hold.amount_nanos)


def decision_document(decision: Decision) -> dict[str, Any]:
    """What is answered of a decision, allowed or not."""
    return {
        "org_id": decision["org_id"],
        "hold_id": decision["hold_id"],
        "action": decision["action"],
        "allowed": decision["allowed"],
        "code": decision["code"],
        "granted": format_amount(decision["granted_nanos"]),
        "available": format_amount(decision["available_nanos"]),
        "expires_at": time_or_none(decision["expires_at"]),
        "entry_seq": decision["entry_seq"],
    }


def decision_answer(decision: Decision, now_us: int, **members: Any) -> JSONResponse:
    """200 with the decision, or its refusal as a problem with the decision's own status; `members` are added."""
    document = decision_document(decision) | members
    if decision["allowed"]:
        answer: JSONResponse = AsciiJson(document)
    else:
        ends_at = decision["limit_ends_at"]
        code = document.pop("code")
        limit = {
            "limit_id": decision["limit_id"],
            "window": decision["limit_window"],
            "ends_at": time_or_none(ends_at),
        }
        detail = decision["message"] or f"the ledger refused it: {code}"
        answer = problem(decision["http_status"], code, detail, **document, **limit)
        if ends_at is not None:
            answer.headers["Retry-After"] = retry_after(ends_at, now_us)
    answer.headers["ETag"] = f'"{decision["entry_seq"]}"'
    return answer


def pending_answer(hold: Hold, path: str, **members: Any) -> JSONResponse:
    """202: Kafka has the hold, and the ledger has not decided it yet. `path`: where to ask."""
    document = {
        "status": "pending",
        "org_id": hold.org_id,
        "hold_id": hold.hold_id,
        "action": hold.action.value,
        "ask": path,
    }
    return AsciiJson(document | members, status_code=202, headers={"Location": path, "Retry-After": "1"})


def time_or_none(micros: int | None) -> str | None:
    """A time as text, where there is one."""
    return None if micros is None else format_time(micros)
