"""What a client may spend under its leases, and what it has to do next. No I/O, no thread and no clock of its own.

The rules of this file:
1. A lease is a hold of the ledger. What is spent under it never exceeds what was granted, and nothing is spent after
   its end. The end counts from before the request was sent, less a margin, so it comes before the end of the hold
   however long the answer took.
2. A lease is spent, then closed, then reported. The last record of its report names the hold, which ends it; so a lease
   is reported as a whole, and closed early enough: when half of its time has passed or little is left of it, the next
   one is asked for, and takes its place.
3. A request or a report whose outcome is not known is repeated as it was, under the same ids, until it is known.
4. A request that is not answered while its lease would last is given up. Its hold, if there is one, ends by itself.
5. Everything is bounded: `events_max` records that are not booked yet. Beyond that nothing can be spent.

`spend` may be called from any thread. All else belongs to the one thread that talks to the server.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from schemas.events import Usage

DURATION_S: Final = 30
MARGIN_S: Final = 0.5
"""How long before its end a lease is no longer spent: a thread may be stopped between its look at the clock and what it
does next, and two clocks never run equally fast."""
RENEW_AFTER: Final = 0.5
"""Part of a lease's time after which the next one is asked for."""
RENEW_BELOW: Final = 0.25
"""Part of a lease's amount, below which the next one is asked for."""
REPORT_EVENTS_MAX: Final = 500
EVENTS_MAX: Final = 20_000
"""Records not booked yet, about 500 bytes each: 10 MB."""
PAUSE_S: Final = 0.2
PAUSE_MAX_S: Final = 5.0
SPEND_FIELDS: Final = frozenset(Usage.model_fields) - {
    *("event_id", "org_id", "occurred_at", "operation", "cost_nanos", "wallet", "revision", "voided", "hold_id")
}
"""What usage that is spent may say of itself."""


class LeaseRefusal(StrEnum):
    """Why nothing was spent."""

    SHORT = "short"
    """Less is left of the lease than was asked for; the next one may have it."""
    NONE = "no_lease"
    """There is no lease: none was granted yet, or it has ended."""
    FULL = "not_reported"
    """Too much is not booked yet: the server cannot be reached."""
    CLOSED = "closed"


class LeaseRefusedError(Exception):
    """Nothing was spent. `refusal` says why; `code` is what the ledger has answered, where it has refused a lease."""

    def __init__(self, refusal: LeaseRefusal, left_nanos: int, code: str | None) -> None:
        super().__init__(f"{refusal.value}: {left_nanos} nano-units are left{f' ({code})' if code else ''}")
        self.refusal = refusal
        self.left_nanos = left_nanos
        self.code = code


@dataclass(frozen=True, slots=True)
class LeaseTerms:
    """What is asked for, again and again."""

    wallet: str
    amount_nanos: int
    """Of each lease: what a client that dies keeps from others until its lease ends."""
    duration_s: int = DURATION_S
    operation: str | None = None
    """Of usage that names none."""
    scope: Mapping[str, str] = field(default_factory=dict)
    """`user_id`, `project_id`, `model`, …: by what the hold counts in budgets."""
    margin_s: float = MARGIN_S
    events_max: int = EVENTS_MAX


@dataclass(frozen=True, slots=True)
class LeaseRequest:
    """A lease that is asked for. Repeated, it keeps its id and the time at which it was first sent."""

    lease_id: str
    sent_at_s: float
    """By the client's own clock, before it was sent."""


@dataclass(frozen=True, slots=True)
class LeaseReport:
    """Usage that is to be booked. Repeated, it is the same."""

    lease_id: str
    wallet: str
    usage: tuple[dict[str, Any], ...]
    final: bool
    """The last record ends the lease; without a record it is released."""


_Spent = tuple[int, int, int, str, dict[str, Any]]
"""Number, when (nanoseconds since 1970), nano-units, operation, further fields."""


class _Lease:
    """A lease that was granted, and what was spent under it."""

    __slots__ = ("ends_at_s", "lease_id", "left_nanos", "renew_at_s", "renew_below_nanos", "spent")

    def __init__(self, request: LeaseRequest, granted_nanos: int, spend_for_s: float, margin_s: float) -> None:
        self.lease_id = request.lease_id
        self.left_nanos = granted_nanos
        self.renew_below_nanos = int(granted_nanos * RENEW_BELOW)
        self.renew_at_s = request.sent_at_s + spend_for_s * RENEW_AFTER
        self.ends_at_s = request.sent_at_s + spend_for_s - margin_s
        self.spent: list[_Spent] = []


class LeaseState:
    """The leases of one client. `clock_s` never goes back and does not stop; `wall_ns` is for `occurred_at`."""

    def __init__(
        self,
        terms: LeaseTerms,
        new_id: Callable[[], str],
        clock_s: Callable[[], float],
        *,
        wall_ns: Callable[[], int] = time.time_ns,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        """`wake` is called when there is something to do at once; it must not block."""
        self._terms = terms
        self._new_id = new_id
        self._clock_s = clock_s
        self._wall_ns = wall_ns
        self._wake = wake
        self._lock = threading.Lock()
        self._lease: _Lease | None = None
        self._closed: deque[_Lease] = deque()
        """No longer spent, and not reported yet; oldest first."""
        self._request: LeaseRequest | None = None
        self._report: LeaseReport | None = None
        self._unbooked = 0
        self._number = 0
        self._waiting = False
        """`wake` was called, and a lease was not granted since."""
        self._code: str | None = None
        self._not_before_s = clock_s()
        self._pause_s = PAUSE_S
        self._ended = False

    def spend(self, amount_nanos: int, operation: str | None = None, **fields: Any) -> str:
        """Spend so much; the id of the usage, which is booked within the lease's time. `fields` are those of usage.

        Raises `LeaseRefusedError`; `ValueError` for an amount that is not above 0, and for an unknown field.
        """
        if amount_nanos <= 0:
            raise ValueError("amount_nanos: must be above 0")
        if not fields.keys() <= SPEND_FIELDS:
            raise ValueError(f"usage that is spent has no {', '.join(sorted(fields.keys() - SPEND_FIELDS))}")
        operation = operation or self._terms.operation
        if operation is None:
            raise ValueError("operation: name it here or in the terms")
        with self._lock:
            lease = self._lease
            if lease is None or self._clock_s() >= lease.ends_at_s:
                raise self._refused(LeaseRefusal.CLOSED if self._ended else LeaseRefusal.NONE, 0)
            if self._unbooked >= self._terms.events_max:
                raise self._refused(LeaseRefusal.FULL, lease.left_nanos)
            left_nanos = lease.left_nanos - amount_nanos
            if left_nanos < 0:
                # The next lease of the same amount has more than this one only where some of this is spent.
                raise self._refused(LeaseRefusal.SHORT, lease.left_nanos, renew=bool(lease.spent))
            lease.left_nanos = left_nanos
            self._unbooked += 1
            self._number = number = self._number + 1
            lease.spent.append((number, self._wall_ns(), amount_nanos, operation, fields))
            if left_nanos < lease.renew_below_nanos and not self._waiting:
                self._waiting = True
                self._wake()
            return f"{lease.lease_id}/{number}"

    def _refused(self, refusal: LeaseRefusal, left_nanos: int, *, renew: bool = True) -> LeaseRefusedError:
        if renew and not self._waiting:
            self._waiting = True
            self._wake()
        return LeaseRefusedError(refusal, left_nanos, self._code)

    @property
    def left_nanos(self) -> int:
        """What can be spent now."""
        with self._lock:
            lease = self._lease
            return 0 if lease is None or self._clock_s() >= lease.ends_at_s else lease.left_nanos

    @property
    def unbooked(self) -> int:
        """Records that are not known to be booked."""
        return self._unbooked

    @property
    def is_done(self) -> bool:
        """Ended, and everything is reported."""
        return self._ended and self._lease is None and not self._closed and self._report is None

    def end(self) -> None:
        """Nothing is spent any more; what was spent is to be reported."""
        with self._lock:
            self._ended = True
            self._close()

    # For the thread that talks to the server.

    def next_request(self) -> LeaseRequest | None:
        """The lease to ask for now; the same until its outcome is known."""
        now_s = self._clock_s()
        with self._lock:
            lease = self._lease
            if lease is not None and now_s >= lease.ends_at_s:
                self._close()
                lease = None
            if self._request is not None and now_s >= self._request.sent_at_s + self._terms.duration_s:
                self._request = None  # an answer would be of no use any more
            if self._ended or now_s < self._not_before_s:
                return None
            if self._request is None and self._is_due(lease, now_s):
                self._request = LeaseRequest(self._new_id(), now_s)
            return self._request

    def _is_due(self, lease: _Lease | None, now_s: float) -> bool:
        if lease is None:
            return True
        return self._waiting or now_s >= lease.renew_at_s or lease.left_nanos < lease.renew_below_nanos

    def granted(self, request: LeaseRequest, granted_nanos: int, spend_for_s: float) -> None:
        """The lease is there; the one before is closed. One that is no longer wanted is given back."""
        lease = _Lease(request, granted_nanos, spend_for_s, self._terms.margin_s)
        with self._lock:
            self._request, self._code, self._pause_s, self._waiting = None, None, PAUSE_S, False
            if self._ended or self._clock_s() >= lease.ends_at_s:
                self._closed.append(lease)
                return
            self._close()
            self._lease = lease

    def refused(self, code: str, retry_s: float = 0.0) -> None:
        """The ledger has refused the lease; the next one is asked for after a pause, of `retry_s` where that is longer.

        A lease that is nearly spent is closed: what is left of it may be all that there is for the next one.
        """
        with self._lock:
            self._request, self._code, self._waiting = None, code, False
            self._pause(retry_s)
            lease = self._lease
            if lease is not None and lease.left_nanos < lease.renew_below_nanos:
                self._close()

    def unknown(self, retry_s: float = 0.0) -> None:
        """A request has no outcome yet: it is repeated after a pause."""
        with self._lock:
            self._pause(retry_s)

    def _pause(self, retry_s: float) -> None:
        self._not_before_s = self._clock_s() + max(self._pause_s, min(retry_s, PAUSE_MAX_S))
        self._pause_s = min(2 * self._pause_s, PAUSE_MAX_S)

    def next_report(self) -> LeaseReport | None:
        """The usage to send now; the same until it is known to be booked."""
        with self._lock:
            if self._report is None and self._closed:
                self._report = self._report_of(self._closed[0])
            return self._report

    def _report_of(self, lease: _Lease) -> LeaseReport:
        usage = tuple(self._record(lease, each) for each in lease.spent[:REPORT_EVENTS_MAX])
        return LeaseReport(lease.lease_id, self._terms.wallet, usage, len(usage) == len(lease.spent))

    def _record(self, lease: _Lease, spent: _Spent) -> dict[str, Any]:
        number, at_ns, amount_nanos, operation, fields = spent
        usage = {"event_id": f"{lease.lease_id}/{number}", "occurred_at": at_ns // 1_000, "operation": operation}
        return {**self._terms.scope, **fields, **usage, "cost_nanos": amount_nanos, "wallet": self._terms.wallet}

    def reported(self, report: LeaseReport) -> None:
        """The server has the report."""
        with self._lock:
            lease = self._closed[0]
            del lease.spent[: len(report.usage)]
            self._unbooked -= len(report.usage)
            self._report = None
            if report.final:
                self._closed.popleft()

    def unbookable(self, report: LeaseReport, index: int) -> dict[str, Any]:
        """A record of the report is wrong, so that the server has taken none of it: go on without that one."""
        with self._lock:
            del self._closed[0].spent[index]
            self._unbooked -= 1
            self._report = None
        return report.usage[index]

    def _close(self) -> None:
        if self._lease is not None:
            self._closed.append(self._lease)
            self._lease = None
