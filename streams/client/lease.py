"""Leases for a gateway in Python: `spend` answers in microseconds, a thread asks for leases and reports what was spent.

The rules of this file:
1. `spend` does no I/O (`streams.client.lease_state`). One thread talks to the server, one call at a time.
2. A call that has no certain outcome (no answer, 202, 429, 5xx) is repeated as it was: ids make that safe.
3. What was spent and is not reported when the process dies is lost: at most what its leases were granted. Their holds
   end by themselves. `close` reports all, or raises.
4. A record that the server calls wrong is dropped, with a line in the log, so that the others are booked.
"""

from __future__ import annotations

import functools
import http.client
import json
import logging
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, assert_never
from urllib.parse import quote, urlsplit

from schemas.amounts import format_amount, parse_amount
from streams.client.lease_state import LeaseReport, LeaseRequest, LeaseState, LeaseTerms
from streams.errors import OperatorError

log = logging.getLogger(__name__)

CALL_TIMEOUT_S: Final = 10.0
FIRST_TIMEOUT_S: Final = 10.0
CLOSE_TIMEOUT_S: Final = 30.0
POLL_S: Final = 0.1
REPORT_PAUSE_S: Final = 1.0
boot_time_s: Final = functools.partial(time.clock_gettime, getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
"""Seconds since this machine was started, with those in which it was suspended, where the system counts them."""


@dataclass(frozen=True, slots=True)
class Granted:
    """A lease."""

    granted_nanos: int
    spend_for_s: float


@dataclass(frozen=True, slots=True)
class Refused:
    """No lease, by the ledger's rules or the server's."""

    code: str
    retry_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Unknown:
    """No outcome: send the same again."""

    reason: str
    retry_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Booked:
    """The server has the report."""


@dataclass(frozen=True, slots=True)
class Unbookable:
    """A record of the report is wrong, and none was taken."""

    index: int
    reason: str


class LeaseServer(Protocol):
    """What answers a client of leases. Neither call raises for what the network does."""

    def place(self, request: LeaseRequest, terms: LeaseTerms) -> Granted | Refused | Unknown:
        """Ask for a lease."""
        ...

    def report(self, report: LeaseReport) -> Booked | Unbookable | Unknown:
        """Send usage."""
        ...


class LeaseNotReportedError(OperatorError):
    """`close` could not report everything that was spent."""

    code = "lease_not_reported"


class HttpLeaseServer:
    """The HTTP API at `url`, for one organisation. One call at a time, on one connection."""

    def __init__(self, url: str, org_id: str, api_key: str | None = None, timeout_s: float = CALL_TIMEOUT_S) -> None:
        self._url = urlsplit(url)
        if self._url.scheme not in ("http", "https") or not self._url.hostname:
            raise ValueError(f"{url!r} is no address: http://host:port")
        self._path = f"{self._url.path.rstrip('/')}/v1/orgs/{_segment(org_id)}/leases"
        self._timeout_s = timeout_s
        self._headers = {"Content-Type": "application/json"}
        if api_key is not None:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._connection: http.client.HTTPConnection | None = None

    def place(self, request: LeaseRequest, terms: LeaseTerms) -> Granted | Refused | Unknown:
        """See `LeaseServer`."""
        body = {
            **terms.scope,
            "lease_id": request.lease_id,
            "wallet": terms.wallet,
            "amount": format_amount(terms.amount_nanos),
            "duration_s": terms.duration_s,
        }
        answer = self._post(self._path, body)
        if isinstance(answer, Unknown):
            return answer
        status, document, retry_s = answer
        if status == 200:
            try:
                return Granted(parse_amount(str(document["granted"])), float(document["spend_for_s"]))
            except (KeyError, ValueError, TypeError) as error:
                return Unknown(f"an answer that is no lease: {error!r}")
        code = str(document.get("code", status))
        if status == 202 or status == 429 or status >= 500:
            return Unknown(code, retry_s)
        if status not in (402, 403, 409):
            log.warning("The server takes no such lease: %s", document.get("detail", status))
        return Refused(code, retry_s=retry_s)

    def report(self, report: LeaseReport) -> Booked | Unbookable | Unknown:
        """See `LeaseServer`."""
        body = {"wallet": report.wallet, "usage": report.usage, "final": report.final}
        answer = self._post(f"{self._path}/{_segment(report.lease_id)}/usage", body)
        if isinstance(answer, Unknown):
            return answer
        status, document, retry_s = answer
        if status == 202:
            return Booked()
        reason = str(document.get("detail", status))
        if status == 422 and isinstance(document.get("index"), int):
            return Unbookable(document["index"], reason)
        return Unknown(reason, retry_s)

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _post(self, path: str, body: Mapping[str, Any]) -> tuple[int, dict[str, Any], float] | Unknown:
        """Status, document, and the seconds of `Retry-After`."""
        try:
            connection = self._connection or self._connect()
            self._connection = connection
            connection.request("POST", path, json.dumps(body), self._headers)
            answer = connection.getresponse()
            document = json.loads(answer.read())
            retry = answer.headers.get("Retry-After", "0")
            return answer.status, dict(document), float(retry) if retry.isdigit() else 0.0
        except (OSError, http.client.HTTPException, ValueError, TypeError) as error:
            self.close()
            return Unknown(f"{type(error).__name__}: {error}")

    def _connect(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._url.scheme == "https" else http.client.HTTPConnection
        assert self._url.hostname is not None
        return kind(self._url.hostname, self._url.port, timeout=self._timeout_s)


class Lease:
    """Credits that this process spends by itself. Use it as a context manager; `spend` is safe in any thread.

    `server` is an `HttpLeaseServer`, or what stands in for one. `client_id` begins the ids of leases, and with them
    those of usage: no other client may use it.
    """

    def __init__(self, server: LeaseServer, terms: LeaseTerms, *, client_id: str | None = None) -> None:
        self._server = server
        self._terms = terms
        self._prefix = client_id or uuid.uuid4().hex
        self._leases = 0
        self._woken = threading.Event()
        self._answered = threading.Event()
        self._stopping = threading.Event()
        self._report_at_s = 0.0
        self._state = LeaseState(terms, self._new_id, boot_time_s, wake=self._woken.set)
        self.spend = self._state.spend
        """See `LeaseState.spend`."""
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)

    def __enter__(self) -> Lease:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, timeout_s: float = FIRST_TIMEOUT_S) -> None:
        """Ask for the first lease, and wait until it is granted or refused, or the time is over."""
        self._thread.start()
        self._answered.wait(timeout_s)

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Spend no more, report what was spent, give back the rest. Raises `LeaseNotReportedError`."""
        self._state.end()
        self._woken.set()
        self._thread.join(timeout_s)
        self._stopping.set()
        left = self._state.unbooked
        if left:
            raise LeaseNotReportedError(
                f"{left:,} records of usage under leases could not be reported within {timeout_s:g} s",
                "their holds end by themselves; send the usage by other means if it is to be booked",
            )

    @property
    def left_nanos(self) -> int:
        """What can be spent now."""
        return self._state.left_nanos

    def _new_id(self) -> str:
        self._leases += 1
        return f"{self._prefix}-{self._leases}"

    def _run(self) -> None:
        while not (self._state.is_done or self._stopping.is_set()):
            self._woken.clear()
            placed, reported = self._place(), self._report()
            if not placed and not reported:
                self._woken.wait(POLL_S)

    def _place(self) -> bool:
        request = self._state.next_request()
        if request is None:
            return False
        outcome = self._server.place(request, self._terms)
        match outcome:
            case Granted():
                self._state.granted(request, outcome.granted_nanos, outcome.spend_for_s)
            case Refused():
                self._state.refused(outcome.code, outcome.retry_s)
            case Unknown():
                log.info("No answer to a lease yet: %s", outcome.reason)
                self._state.unknown(outcome.retry_s)
            case _:
                assert_never(outcome)
        if not isinstance(outcome, Unknown):
            self._answered.set()
        return True

    def _report(self) -> bool:
        report = self._state.next_report() if time.monotonic() >= self._report_at_s else None
        if report is None:
            return False
        outcome = self._server.report(report)
        match outcome:
            case Booked():
                self._state.reported(report)
            case Unbookable():
                dropped = self._state.unbookable(report, outcome.index)
                log.error("Usage %s is wrong and was dropped: %s", dropped["event_id"], outcome.reason)
            case Unknown():
                log.warning("Usage under a lease is not booked yet: %s", outcome.reason)
                self._report_at_s = time.monotonic() + max(REPORT_PAUSE_S, outcome.retry_s)
            case _:
                assert_never(outcome)
        return True


def _segment(part: str) -> str:
    return quote(part, safe="") if part.strip(".") else part.replace(".", "%2E")
