"""Alerts, the activity log, the price list and dead letters (product rules 25, 27, 30, 32).

The rules of this file:
1. A page of a list goes on behind a cursor in its address (`projections.listings`).
2. A dead letter's bytes are shown as they are, in hexadecimal and as text; what could be a control character is a dot.
3. Sending a dead letter again needs the role of an admin for all organisations, as its record may be of any.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import BaseModel, Field

from projections.listings import ActivityFilter, Listings, PriceFilter
from projections.queries import Query as Sql
from projections.reads import Reads, page_of
from schemas.codec import RegistryUnavailableError, UndecodableError, decode_one
from schemas.enums import DeadLetterCode
from schemas.topics import Topics
from streams.api.callers import READS_BALANCES, READS_STATEMENTS, Caller, NotAuthorizedError, allowed
from streams.api.paths import ORG, OrgId
from streams.api.problems import ProblemError
from streams.client.dead_letters import DeadLetter, read_dead_letter
from streams.client.producer import CreditsProducer
from streams.client.replays import replay_all
from streams.kafka.api_keys import KeyRole
from streams.kafka.registry import connect_registry
from streams.ui.doors import form_of
from streams.ui.history import CSV_ROWS_MAX, ROWS
from streams.ui.parts import Parts, address
from streams.ui.shell import NOT_AUTHORIZED
from streams.ui.shown import segment
from streams.ui.tables import Csv, csv_answer

BYTES_SHOWN: Final = 4_096
LINE_BYTES: Final = 16


class ActivityParameters(BaseModel):
    """Which lines of the activity log an address asks for."""

    refused: str = Field("", max_length=3)
    actor: str = Field("", max_length=128)
    cursor: str = Field("", max_length=512)


Allowed = Annotated[Caller, Depends(allowed(READS_STATEMENTS))]
Reader = Annotated[Caller, Depends(allowed(READS_BALANCES))]
Cursor = Annotated[str, Query(max_length=512)]
Text = Annotated[str, Query(max_length=128)]
Format = Annotated[str, Query(max_length=8)]


def listings_router(router: APIRouter, parts: Parts) -> None:
    """Add the pages to `router`."""
    _add_alerts(router, parts)
    _add_activity(router, parts)
    _add_prices(router, parts)
    _add_letters(router, parts)
    _add_letter(router, parts)


def _add_alerts(router: APIRouter, parts: Parts) -> None:
    @router.get(f"/orgs/{ORG}/alerts")
    async def alerts_of(request: Request, org: OrgId, _: Reader, before: Text = "", format: Format = "") -> Response:
        """The alerts of an organisation, newest first."""
        return await show(request, org, None, before, format)

    @router.get("/alerts")
    async def alerts(request: Request, caller: Reader, before: Text = "", format: Format = "") -> Response:
        """The alerts of all organisations that the key is for."""
        return await show(request, None, None if caller.is_for_all else sorted(caller.organisations), before, format)

    async def show(request: Request, org: str | None, org_ids: list[str] | None, before: str, kind: str) -> Response:
        orgs = [org] if org is not None else org_ids
        rows_max = CSV_ROWS_MAX if kind == "csv" else ROWS

        def question(reads: Reads) -> dict[str, Any]:
            rows, more = page_of(reads.rows(newest_alerts(orgs, _before(before), rows_max + 1)), rows_max)
            return {"rows": rows, "more": more, "zone": "UTC" if org is None else reads.zone(org)}

        found = await parts.desk.ask(question)
        if kind == "csv":
            return csv_answer(ALERTS_CSV, found["rows"], f"{org or 'all'}-alerts")
        path = request.url.path if org is None else f"/ui/orgs/{segment(org)}/alerts"
        last = found["rows"][-1] if found["more"] else None
        return parts.shell.page(
            request,
            "alerts.html",
            org=org,
            rows=found["rows"],
            zone=found["zone"],
            next="" if last is None else address(path, {}, before=f"{last['occurred_at_us']}.{last['alert_id']}"),
            first=path if before else "",
            csv=address(path, {}, format="csv"),
        )


def _add_activity(router: APIRouter, parts: Parts) -> None:
    @router.get(f"/orgs/{ORG}/activity")
    async def activity(
        request: Request, org: OrgId, _: Allowed, asked: Annotated[ActivityParameters, Query()], format: Format = ""
    ) -> Response:
        """Who did what, when, before and after; refused tries, too."""
        refused, actor, cursor = asked.refused, asked.actor, asked.cursor
        wanted = ActivityFilter(actor=actor or None, refused={"yes": True, "no": False}.get(refused))
        rows_max = 1_000 if format == "csv" else ROWS

        def question(reads: Reads) -> dict[str, Any] | None:
            found = Listings(reads).activity(org, wanted, cursor or None, rows_max)
            return None if found is None else {**found, "zone": reads.zone(org)}

        found = await parts.desk.about(org, question)
        if format == "csv":
            return csv_answer(ACTIVITY_CSV, found["activity"], f"{org}-activity")
        given = {"refused": refused, "actor": actor}
        path = f"/ui/orgs/{segment(org)}/activity"
        return parts.shell.page(
            request,
            "activity.html",
            org=org,
            zone=found["zone"],
            rows=[{**row, "changes": changes(row)} for row in found["activity"]],
            given=given,
            next=address(path, given, cursor=found["next_cursor"]) if found["next_cursor"] else "",
            first=address(path, given) if cursor else "",
            csv=address(path, given, format="csv"),
        )


def _add_prices(router: APIRouter, parts: Parts) -> None:
    @router.get("/prices")
    async def prices(
        request: Request, caller: Reader, q: Text = "", cursor: Cursor = "", format: Format = ""
    ) -> Response:
        """The price list, by a part of any name."""
        org_ids = None if caller.is_for_all else sorted(caller.organisations)
        wanted = PriceFilter(search=q.strip())
        rows_max = 1_000 if format == "csv" else ROWS
        found = await parts.desk.ask(lambda reads: Listings(reads).prices(wanted, org_ids, cursor or None, rows_max))
        if format == "csv":
            return csv_answer(PRICES_CSV, found["prices"], "prices")
        given = {"q": q}
        return parts.shell.page(
            request,
            "prices.html",
            rows=found["prices"],
            given=given,
            next=address("/ui/prices", given, cursor=found["next_cursor"]) if found["next_cursor"] else "",
            first=address("/ui/prices", given) if cursor else "",
            csv=address("/ui/prices", given, format="csv"),
        )


def _add_letters(router: APIRouter, parts: Parts) -> None:
    @router.get("/dead-letters")
    async def letters(
        request: Request,
        caller: Allowed,
        code: Text = "",
        state: Text = "",
        page: Annotated[int, Query(ge=1, le=1_000)] = 1,
        format: Format = "",
    ) -> Response:
        """What could not be booked, newest first."""
        org_ids = None if caller.is_for_all else sorted(caller.organisations)
        rows_max = CSV_ROWS_MAX if format == "csv" else ROWS
        query = dead_letters(code, state, org_ids, (page - 1) * ROWS, rows_max + 1)
        rows, more = page_of(await parts.desk.ask(lambda reads: reads.rows(query)), rows_max)
        if format == "csv":
            return csv_answer(LETTERS_CSV, rows, "dead-letters")
        given = {"code": code, "state": state}
        return parts.shell.page(
            request,
            "dead_letters.html",
            rows=rows,
            given=given,
            codes=[each.value for each in DeadLetterCode],
            next=address("/ui/dead-letters", given, page=page + 1) if more else "",
            first=address("/ui/dead-letters", given) if page > 1 else "",
            csv=address("/ui/dead-letters", given, format="csv"),
        )


def _add_letter(router: APIRouter, parts: Parts) -> None:
    @router.get("/dead-letters/{partition:int}:{offset:int}")
    async def letter(request: Request, partition: int, offset: int, caller: Allowed, sent: Text = "") -> HTMLResponse:
        """One dead letter with its bytes."""
        found = await asyncio.to_thread(_letter, parts, partition, offset)
        _require(caller, found)
        name = found.name
        rows = await parts.desk.ask(lambda reads: reads.rows(state_of(name)))
        return parts.shell.page(
            request,
            "dead_letter.html",
            letter=found,
            at=found.at_ms * 1_000,
            key=(found.key or b"").decode(errors="backslashreplace"),
            state=rows[0]["state"] if rows else "open",
            fields=await asyncio.to_thread(_fields, parts, found),
            value=hex_lines(found.value or b"")[: BYTES_SHOWN // LINE_BYTES],
            bytes=len(found.value or b""),
            sent=sent == "again",
            may_replay=may_replay(caller),
        )

    @router.post("/dead-letters/{partition:int}:{offset:int}/replay")
    async def replay(request: Request, partition: int, offset: int, caller: Allowed) -> Response:
        """Send the record again, as it came."""
        parts.shell.check_form(request, dict(await form_of(request)))
        if not may_replay(caller):
            raise NotAuthorizedError(caller, NOT_AUTHORIZED.rstrip("."))
        found = await asyncio.to_thread(_letter, parts, partition, offset)
        if found.refusal is not None:
            raise ProblemError(409, "not_replayable", f"{found.refusal}: have its producer send the record again")
        await asyncio.to_thread(_send_again, parts, found)
        return RedirectResponse(f"/ui/dead-letters/{found.name}?sent=again", status_code=303)


def may_replay(caller: Caller) -> bool:
    """Whether the caller may send dead letters again."""
    return caller.may(frozenset({KeyRole.ADMIN})) and caller.is_for_all


def newest_alerts(orgs: list[str] | None, before: tuple[int, str] | None, rows_max: int) -> Sql:
    """A page of alerts by time and id, the newest first; `dismissed_by` is empty where it was not dismissed."""
    conditions = ["org_id IN {orgs:Array(String)}"] if orgs is not None else []
    parameters: dict[str, Any] = {"rows": rows_max} | ({} if orgs is None else {"orgs": orgs})
    if before is not None:
        conditions.append("(occurred_at, alert_id) < (fromUnixTimestamp64Micro({at:Int64}, 'UTC'), {id:String})")
        parameters |= {"at": before[0], "id": before[1]}
    return Sql(
        "SELECT toUnixTimestamp64Micro(occurred_at) AS occurred_at_us, org_id, alert_id, wallet, kind, level, balance,"
        " available, used_percent, entry_seq, channels, dismissable, message, thresholds_left, dismissed_by"
        f" FROM (SELECT * FROM v_alerts WHERE {' AND '.join(conditions) or 'true'}) AS alert"
        " LEFT JOIN (SELECT org_id, alert_id, argMax(actor, version) AS dismissed_by FROM dismissals"
        " GROUP BY org_id, alert_id) AS dismissed USING (org_id, alert_id)"
        " ORDER BY occurred_at DESC, alert_id DESC LIMIT {rows:UInt64}",
        parameters,
    )


def dead_letters(code: str, state: str, org_ids: list[str] | None, skipped: int, rows_max: int) -> Sql:
    """A page of dead letters, newest first."""
    conditions = [
        *(["code = {code:String}"] if code else []),
        *(["state = {state:String}"] if state else []),
        *(["org_id IN {orgs:Array(String)}"] if org_ids is not None else []),
    ]
    return Sql(
        "SELECT toUnixTimestamp64Micro(recorded_at) AS recorded_at_us, code, source_topic, source_partition,"
        f" source_offset, org_id, message, value_bytes, letter_id, state FROM v_dead_letters"
        f" WHERE {' AND '.join(conditions) or 'true'} ORDER BY recorded_at DESC, letter_id"
        " LIMIT {rows:UInt64} OFFSET {skipped:UInt64}",
        {"code": code, "state": state, "orgs": org_ids or [], "rows": rows_max, "skipped": skipped},
    )


def state_of(name: str) -> Sql:
    """`open`, `replayed` or `failed_again`, of a letter."""
    return Sql("SELECT state FROM v_dead_letters WHERE letter_id = {name:String}", {"name": name})


def changes(row: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """What a setting changed: field, before, after; for other lines the balance before and after."""
    before, after = row["before"], row["after"]
    if isinstance(after, dict):
        old = before if isinstance(before, dict) else {}
        names = dict.fromkeys([*old, *after])
        return [(name, old.get(name), after.get(name)) for name in names if old.get(name) != after.get(name)]
    return [("balance", before, after)] if row["wallet"] and before != after else []


def hex_lines(value: bytes) -> list[tuple[str, str, str]]:
    """Offset, bytes in hexadecimal, and text, 16 bytes a line."""
    lines = []
    for start in range(0, min(len(value), BYTES_SHOWN), LINE_BYTES):
        part = value[start : start + LINE_BYTES]
        text = "".join(chr(each) if 32 <= each < 127 else "." for each in part)
        lines.append((f"{start:06x}", part.hex(" "), text))
    return lines


def _letter(parts: Parts, partition: int, offset: int) -> DeadLetter:
    found = read_dead_letter(parts.settings, partition, offset)
    if found is None:
        raise ProblemError(404, "unknown_dead_letter", f"there is no dead letter {partition}:{offset}")
    return found


def _require(caller: Caller, letter: DeadLetter) -> None:
    key = (letter.key or b"").decode(errors="replace")
    if not caller.is_for(key):
        raise NotAuthorizedError(caller, "this key is not for that organisation")


def _send_again(parts: Parts, letter: DeadLetter) -> None:
    with CreditsProducer(parts.settings) as producer:
        replay_all(producer, [letter], Topics(parts.settings.namespace).name("replays"), time.time_ns() // 1_000_000)


def _fields(parts: Parts, letter: DeadLetter) -> list[tuple[str, Any]] | None:
    """The record's fields; None where the bytes are no record."""
    topic = Topics(parts.settings.namespace).topic(letter.topic)
    if topic is None or topic.record is None or letter.cut or letter.value is None:
        return None
    try:
        fields = decode_one(topic.record, letter.value, connect_registry(parts.settings))
    except (UndecodableError, RegistryUnavailableError):
        return None
    return [(name, value) for name, value in fields.items() if value not in (None, "", [], {})]


def _before(text: str) -> tuple[int, str] | None:
    at, _, alert_id = text.partition(".")
    return (int(at), alert_id) if at.isascii() and at.isdigit() and len(at) < 19 else None


ALERTS_CSV: Final[Csv] = [
    (name, name)
    for name in (
        "occurred_at", "org_id", "wallet", "kind", "level", "balance", "available", "used_percent", "entry_seq",
        "channels", "dismissable", "dismissed_by", "message", "alert_id",
    )
]  # fmt: skip
ACTIVITY_CSV: Final[Csv] = [
    (name, name)
    for name in (
        "recorded_at", "seq", "actor", "action", "subject", "wallet", "amount", "before", "after", "refused", "reason",
        "counterparty_org_id", "event_id",
    )
]  # fmt: skip
PRICES_CSV: Final[Csv] = [
    (name, name)
    for name in (
        "price_id", "display_name", "operation", "category", "model", "tool", "provider", "direction", "tier", "org_id",
        "wallet", "unit_price", "billing_unit", "free", "valid_from", "valid_to",
    )
]  # fmt: skip
LETTERS_CSV: Final[Csv] = [
    (name, name)
    for name in (
        "recorded_at", "code", "source_topic", "source_partition", "source_offset", "org_id", "message", "value_bytes",
        "letter_id", "state",
    )
]  # fmt: skip
