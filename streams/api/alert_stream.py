"""Alerts as server-sent events: `GET /v1/orgs/{org}/alerts/stream` and `GET /v1/alerts/stream` (product rule 25).

The rules of this file:
1. Each event's `id` is a position (`streams.kafka.alert_feed`). A client that comes back with `Last-Event-ID`, to any
   process, gets every alert after it, and none twice. Without it, alerts begin with those to come.
2. A comment every `HEARTBEAT_S` shows that the connection lives, and moves the position on. The API key is looked at
   again then: a revoked one ends the stream.
3. A stream that the server ends says why in a last event `end`: `too_slow` (more alerts waited than one client may have
   waiting), `shutting_down`, `kafka_unavailable`, or the code of the key's refusal. The client comes back with its
   last id.
4. There are at most `READERS_MAX` streams in a process; one more is told to try again (503).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Header, Request
from fastapi.responses import StreamingResponse
from prometheus_client import Counter, Gauge
from starlette.types import Receive, Scope, Send

from streams.api.callers import READS_ALERTS, Caller, allowed
from streams.api.paths import ORG, OrgId
from streams.api.problems import ProblemError
from streams.errors import KafkaUnavailableError
from streams.kafka.alert_feed import AlertFeed, FeedAlert, PositionError, PositionLostError, Reader

EVENT_STREAM: Final = "text/event-stream"
HEARTBEAT_S: Final = 15.0
RETRY_MS: Final = 2_000
"""After how long a browser comes back."""

STREAMS = Gauge("credits_http_alert_streams", "Open streams of alerts.")
ENDED = Counter("credits_http_alert_streams_ended", "Streams of alerts that the server ended, by reason.", ["reason"])

Readmit = Callable[[Scope], str | None]
"""Why the key of a request is refused now; None while it is good."""

Allowed = Annotated[Caller, Depends(allowed(READS_ALERTS))]
LastEventId = Annotated[
    str | None,
    Header(alias="Last-Event-ID", max_length=8_000, description="the id of the last event that was received"),
]

_EXAMPLE: Final = (
    "id: d3=8,t3=121,u3=1\nevent: alert\n"
    'data: {"occurred_at":"2026-05-01T12:00:00Z","org_id":"acme","alert_id":"9f2c","kind":"credit_balance_low",…}\n\n'
)
_EVENT: Final = {
    "type": "object",
    "description": "an event of the stream",
    "properties": {
        "id": {"type": "string", "description": "send the last one as Last-Event-ID"},
        "event": {"type": "string", "enum": ["alert", "end"]},
        "data": {
            "type": "string",
            "description": "JSON: an alert as the list shows it, or `code`, why the stream ends",
        },
    },
}
STREAMED: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "server-sent events: `alert` with an alert as data; `end` with `code` when the server ends it",
        "content": {EVENT_STREAM: {"schema": _EVENT, "example": _EXAMPLE}},
    },
    410: {
        "description": "position_lost: Kafka has no longer all that follows Last-Event-ID",
        "content": {"application/problem+json": {}},
    },
    422: {"description": "invalid_field", "content": {"application/problem+json": {}}},
    503: {"description": "too_many_streams, kafka_unavailable", "content": {"application/problem+json": {}}},
}


def alert_stream_router(feed: AlertFeed, readmit: Readmit, heartbeat_s: float = HEARTBEAT_S) -> APIRouter:
    """The routes, over a feed that has been started."""
    router = APIRouter(prefix="/v1", tags=["alerts"])

    @router.get(f"/orgs/{ORG}/alerts/stream", response_class=StreamingResponse, responses=STREAMED)
    async def org_stream(
        request: Request, org: OrgId, _: Allowed, last_event_id: LastEventId = None
    ) -> StreamingResponse:
        """The alerts of an organisation as they come."""
        reader = await _join(feed, lambda each: each == org, org, last_event_id)
        return AlertStream(feed, reader, lambda: readmit(request.scope), heartbeat_s)

    @router.get("/alerts/stream", response_class=StreamingResponse, responses=STREAMED)
    async def stream(request: Request, caller: Allowed, last_event_id: LastEventId = None) -> StreamingResponse:
        """The alerts of all organisations that the key is for, as they come."""
        reader = await _join(feed, caller.is_for, None, last_event_id)
        return AlertStream(feed, reader, lambda: readmit(request.scope), heartbeat_s)

    return router


async def _join(feed: AlertFeed, wants: Callable[[str], bool], org: str | None, position: str | None) -> Reader:
    """A new reader; raises `ProblemError` for a position that is none of this stream."""
    try:
        return await feed.join(wants, org, position or None)
    except PositionError as error:
        raise ProblemError(422, "invalid_field", str(error), field="Last-Event-ID") from error
    except PositionLostError as error:
        raise ProblemError(410, error.code, f"{error.problem}: {error.remedy}") from error


class AlertStream(StreamingResponse):
    """The answer that goes on. The reader leaves the feed when either side ends it."""

    def __init__(self, feed: AlertFeed, reader: Reader, refusal: Callable[[], str | None], heartbeat_s: float) -> None:
        self._feed = feed
        self._reader = reader
        self._refusal = refusal
        self._heartbeat_s = heartbeat_s
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(self._events(), media_type=EVENT_STREAM, headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer until either side ends it."""
        STREAMS.set(self._feed.readers)
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._feed.leave(self._reader)
            STREAMS.set(self._feed.readers)

    async def _events(self) -> AsyncIterator[bytes]:
        """The bytes of the stream: where it begins, what was missed, then what comes."""
        reader = self._reader
        yield f"retry: {RETRY_MS}\nid: {self._feed.text_of(reader.positions)}\n\n".encode()
        try:
            async with contextlib.aclosing(self._feed.missed(reader)) as missed:  # type: ignore[type-var]
                async for alerts in missed:
                    for each in alerts:
                        if reader.end_reason is None:
                            yield self._event(each)
        except KafkaUnavailableError as error:
            reader.end(error.code)
        while reader.end_reason is None:
            alert = await _within(reader.waiting.get(), self._heartbeat_s)
            if alert is not None:
                if reader.is_due(alert):
                    yield self._event(alert)
            elif reader.end_reason is None:
                refusal = self._refusal()
                if refusal is not None:
                    reader.end(refusal)
                    continue
                self._feed.follow(reader)
                yield f": still here\nid: {self._feed.text_of(reader.positions)}\n\n".encode()
        ENDED.labels(reader.end_reason).inc()
        yield f'event: end\ndata: {{"code":"{reader.end_reason}"}}\n\n'.encode()

    def _event(self, alert: FeedAlert) -> bytes:
        self._reader.given(alert)
        data = json.dumps(alert.document, separators=(",", ":"))
        return f"id: {self._feed.text_of(self._reader.positions)}\nevent: alert\ndata: {data}\n\n".encode()


async def _within(coming: Awaitable[FeedAlert | None], timeout_s: float) -> FeedAlert | None:
    """What comes in time; None when nothing does, or when the reader has ended."""
    try:
        return await asyncio.wait_for(coming, timeout_s)
    except TimeoutError:
        return None
