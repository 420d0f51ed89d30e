"""An LLM request trace as usage events: CSV with TIMESTAMP, ContextTokens, GeneratedTokens.

Rules of this file: pure; the id of an event is made from the org, the model, the row's number and its content, so that
the same file always gives the same events (the second sending is all duplicates), and a file that grew gives the old
events their old ids. Times are UTC. Moving times is an argument: `shift_us` is added to each.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
OPERATION = "chat.completion"
CATEGORY = "llm"
SOURCE = "trace"
TOKENS_MAX = 10**12


class TraceError(ValueError):
    """A line that is not a request; the message names line and column."""


@dataclass(frozen=True, slots=True)
class Request:
    """One row: when (microseconds, UTC), tokens read, tokens generated."""

    at: int
    context_tokens: int
    generated_tokens: int


def read_trace(lines: Iterable[str]) -> Iterator[Request]:
    """The rows of the CSV; raises `TraceError` at the first that is not a request."""
    rows = csv.reader(lines)
    header = [name.strip().removeprefix("\ufeff") for name in next(rows, [])]
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise TraceError(f"line 1: no column {', '.join(missing)}")
    indexes = [header.index(name) for name in COLUMNS]
    for line_no, row in enumerate(rows, start=2):
        if not row:
            continue
        if len(row) < len(header):
            raise TraceError(f"line {line_no}: {len(row)} columns, expected {len(header)}")
        at, context, generated = (row[index].strip() for index in indexes)
        yield Request(
            _time(at, line_no),
            _tokens(context, "ContextTokens", line_no),
            _tokens(generated, "GeneratedTokens", line_no),
        )


def usage_records(
    requests: Iterable[Request],
    org_id: str,
    model: str,
    *,
    shift_us: int = 0,
    provider: str | None = None,
    run: str = "",
) -> Iterator[dict[str, Any]]:
    """The requests as usage records, in order. `shift_us`: microseconds added to each time; `run`: part of the ids."""
    for number, request in enumerate(requests):
        content = f"{org_id}\n{model}\n{number}\n{request.at}\n{request.context_tokens}\n{request.generated_tokens}"
        content += f"\n{run}" if run else ""
        record: dict[str, Any] = {
            "event_id": f"trace-{hashlib.sha256(content.encode()).hexdigest()[:24]}",
            "org_id": org_id,
            "occurred_at": request.at + shift_us,
            "operation": OPERATION,
            "source": SOURCE,
            "category": CATEGORY,
            "model": model,
            "input_tokens": request.context_tokens,
            "output_tokens": request.generated_tokens,
        }
        if provider is not None:
            record["provider"] = provider
        yield record


def _time(text: str, line_no: int) -> int:
    """Microseconds of "2023-11-16 18:15:46.6805900" (any number of decimals, UTC when no zone is given)."""
    whole, point, rest = text.partition(".")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))] if point else ""
    zone = rest[len(digits) :] if point else ""
    try:
        moment = datetime.fromisoformat(whole + zone)
    except ValueError:
        raise TraceError(f"line {line_no}, TIMESTAMP: {text!r} is not a time") from None
    if point and not digits:
        raise TraceError(f"line {line_no}, TIMESTAMP: {text!r} is not a time")
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    span = moment - datetime(1970, 1, 1, tzinfo=UTC)
    seconds = span.days * 86_400 + span.seconds
    return seconds * 1_000_000 + int(digits[:6].ljust(6, "0") or "0")


def _tokens(text: str, column: str, line_no: int) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) > TOKENS_MAX:
        raise TraceError(f"line {line_no}, {column}: {text!r} is not a number of tokens")
    return int(text)
