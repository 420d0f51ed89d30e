"""What people change on the pages: settings, purchases, transfers (product rules 19, 22, 33).

The rules of this file:
1. A change is the same record as over HTTP, of the same checks, and the ledger decides. Saving waits for the entry that
   says so, `ENTRY_WAIT_S` at most, and shows it: booked, or refused and why.
2. A setting is saved only if it is still as the form has shown it; else the form says so, with what was entered.
3. A caller without the right to change sees the form disabled, with the sentence of rule 33. What is sent all the same
   is refused, and the try of a setting is in the activity log.
4. Sent twice, a form is booked once: it carries the id of its record.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse

from projections.queries import Query as Sql
from projections.reads import Reads
from schemas.enums import ActorRole, InputKind, SettingKind
from schemas.fields import Record
from schemas.settings_bodies import BODIES, json_schema
from streams.api.callers import EVERY_ROLE, READS_STATEMENTS, WRITES, Caller, allowed, caller_of, require_role
from streams.api.cloud_events import json_of
from streams.api.paths import ORG, OrgId
from streams.api.problems import ProblemError
from streams.api.setting_versions import SUBJECTS, check_version, name_of
from streams.api.write_routes import checked, setting_kind
from streams.ui.doors import form_of
from streams.ui.forms import Field, body_of, fields_of, given_of, place_fault
from streams.ui.parts import Parts
from streams.ui.shown import words

ENTRY_WAIT_S: Final = 6.0
ENTRY_PAUSE_S: Final = 0.2
PRESETS: Final = ("10", "50", "100", "300", "500", "1000")
"""Product rule 19."""
MEANS: Final = {
    SettingKind.ORG: "Time zone, administrators, plan",
    SettingKind.WALLET: "Allowance, rollover, what counts as low, limits below zero",
    SettingKind.BUDGET: "What a user, project, model, tool or team may spend",
    SettingKind.THRESHOLDS: "When alerts are raised",
    SettingKind.MONTH_LIMITS: "Alert threshold and allowed limit of the month",
    SettingKind.AUTO_TOPUP: "Buying credits by itself",
    SettingKind.MODEL_ACCESS: "Which models may be used",
    SettingKind.MEMBER: "Who may change what",
    SettingKind.PRICE_OVERRIDE: "Prices of this organisation alone",
}

Reader = Annotated[Caller, Depends(allowed(READS_STATEMENTS))]
Anyone = Annotated[Caller, Depends(allowed(EVERY_ROLE))]
Subject = Annotated[str, Query(max_length=128)]


def changes_router(router: APIRouter, parts: Parts) -> None:
    """Add the pages to `router`."""
    _add_settings(router, parts)
    _add_setting(router, parts)
    _add_saving(router, parts)
    _add_money(router, parts, "buy", InputKind.PURCHASE)
    _add_money(router, parts, "transfer", InputKind.TRANSFER)


def _add_settings(router: APIRouter, parts: Parts) -> None:
    @router.get(f"/orgs/{ORG}/settings")
    async def settings(request: Request, org: OrgId, caller: Reader) -> HTMLResponse:
        """Every setting in force, by kind."""

        def question(reads: Reads) -> dict[str, Any] | None:
            rows = reads.rows(settings_of(org))
            if not rows and reads.freshness(org) is None:
                return None
            return {"rows": rows, "zone": reads.zone(org)}

        found = await parts.desk.about(org, question)
        return parts.shell.page(
            request,
            "settings.html",
            org=org,
            zone=found["zone"],
            kinds=[
                {
                    "kind": kind.value,
                    "means": means,
                    "single": SUBJECTS[kind] is None,
                    "rows": [row for row in found["rows"] if row["kind"] == kind],
                }
                for kind, means in MEANS.items()
            ],
            may_change=caller.may(WRITES[InputKind.SETTING]),
        )


def _add_setting(router: APIRouter, parts: Parts) -> None:
    @router.get(f"/orgs/{ORG}/settings/{{kind}}")
    async def form(request: Request, org: OrgId, kind: str, _: Reader, subject: Subject = "") -> HTMLResponse:
        """One setting as a form, with today's values."""
        of = setting_kind(kind)
        body, tag = await current(parts, org, of, subject)
        if not body and SUBJECTS[of] is not None and subject:
            body = {str(SUBJECTS[of]): subject}
        fields = fields_of(json_schema(of), body)
        return _show(parts, request, org, of, fields, subject=subject, tag=tag, is_new=not tag)


def _add_saving(router: APIRouter, parts: Parts) -> None:
    @router.post(f"/orgs/{ORG}/settings/{{kind}}")
    async def save(request: Request, org: OrgId, kind: str, caller: Anyone, subject: Subject = "") -> HTMLResponse:
        """Send the setting, and show what the ledger says of it."""
        given = given_of(await form_of(request))
        parts.shell.check_form(request, {name: values[-1] for name, values in given.items()})
        of = setting_kind(kind)
        schema = json_schema(of)
        body = body_of(schema, given)
        fields = fields_of(schema, body)
        tag = _one(given, "tag")
        shows: dict[str, Any] = {"subject": subject, "tag": tag, "is_new": not tag}
        try:
            record = setting_record(org, of, body, caller, _one(given, "record_id"))
            if not caller.may(WRITES[InputKind.SETTING]):
                await report_try(parts, record, caller)
                require_role(caller, WRITES[InputKind.SETTING])
            await send_setting(parts, record, tag)
        except ProblemError as error:
            if error.status not in (412, 422):
                raise
            fault = error.detail if error.status == 422 else "It was changed since this page was opened: open it again"
            shows["fault"] = place(fields, error, fault)
            return _show(parts, request, org, of, fields, status=error.status, **shows)
        entry = await entry_of(parts, org, str(getattr(record, "setting_id", "")))
        if entry is not None and entry["kind"] != "rejected":
            name = name_of(record.to_record())
            shows["subject"] = name[2] if name is not None else subject
            shows["is_new"] = False
            _, shows["tag"] = await current(parts, org, of, shows["subject"])
        return _show(parts, request, org, of, fields, saved=True, entry=entry, **shows)


def _show(
    parts: Parts,
    request: Request,
    org: str,
    of: SettingKind,
    fields: Sequence[Field],
    **shows: Any,
) -> HTMLResponse:
    """The form of a setting."""
    caller = caller_of(request)
    given = {"fault": "", "saved": False, "entry": None, **shows}
    return parts.shell.page(
        request,
        "setting.html",
        org=org,
        kind=of.value,
        means=(BODIES[of].__doc__ or "").splitlines()[0],
        fields=fields,
        record_id=str(uuid.uuid4()),
        may_change=caller.may(WRITES[InputKind.SETTING]),
        **given,
    )


def _add_money(router: APIRouter, parts: Parts, name: str, kind: InputKind) -> None:
    @router.get(f"/orgs/{ORG}/{name}")
    async def form(request: Request, org: OrgId, caller: Reader) -> HTMLResponse:
        """The form."""
        return await show(request, org, caller, {})

    @router.post(f"/orgs/{ORG}/{name}")
    async def send(request: Request, org: OrgId, caller: Anyone) -> HTMLResponse:
        """Send it, and show what the ledger says."""
        given = {name: value.strip() for name, value in await form_of(request)}
        parts.shell.check_form(request, given)
        require_role(caller, WRITES[kind])
        try:
            record = money_record(kind, org, given, caller)
        except ProblemError as error:
            if error.status != 422:
                raise
            field = str(error.members.get("field") or "")
            fault = error.detail.removeprefix(f"{field}: ")
            return await show(request, org, caller, given, status=422, faults={field or "form": fault})
        await parts.intake.send([(kind, record)])
        entry = await entry_of(parts, org, given["record_id"])
        return await show(request, org, caller, given, saved=True, entry=entry)

    async def show(
        request: Request, org: str, caller: Caller, given: Mapping[str, str], *, status: int = 200, **shows: Any
    ) -> HTMLResponse:
        balance = await parts.balances.latest(org)
        if balance is None and kind is InputKind.TRANSFER:
            raise ProblemError(404, "unknown_org", f"the ledger has no entry of {org!r}")
        return parts.shell.page(
            request,
            f"{name}.html",
            status=status,
            org=org,
            units=[each["unit"] for each in balance["wallets"]] if balance else [],
            given=given,
            presets=PRESETS,
            record_id=str(uuid.uuid4()),
            may_change=caller.may(WRITES[kind]),
            **{"faults": {}, "saved": False, "entry": None, **shows},
        )


def settings_of(org: str) -> Sql:
    """The settings in force."""
    return Sql(
        "SELECT kind, subject, body, actor, seq, toUnixTimestamp64Micro(occurred_at) AS occurred_at_us FROM v_settings"
        " WHERE org_id = {org:String} ORDER BY kind, subject LIMIT 2000",
        {"org": org},
    )


def entry_by_cause(org: str, event_id: str) -> Sql:
    """The entry that a record came to."""
    return Sql(
        "SELECT seq, kind, reason, wallet, amount, balance, details FROM ledger WHERE org_id = {org:String}"
        " AND event_id = {id:String} ORDER BY seq LIMIT 1",
        {"org": org, "id": event_id},
    )


async def entry_of(parts: Parts, org: str, event_id: str) -> dict[str, Any] | None:
    """The entry that a record came to, once it is there; None when that takes too long."""
    deadline_s = time.monotonic() + ENTRY_WAIT_S
    while True:
        rows = await parts.desk.ask(lambda reads: reads.rows(entry_by_cause(org, event_id)))
        if rows or time.monotonic() > deadline_s:
            return rows[0] if rows else None
        await asyncio.sleep(ENTRY_PAUSE_S)


async def current(parts: Parts, org: str, kind: SettingKind, subject: str) -> tuple[dict[str, Any], str]:
    """The body that was sent last and its tag; empty where there is none."""
    found = await parts.versions.current((org, kind.value, subject))
    if found is None:
        return {}, ""
    record = await asyncio.to_thread(parts.versions.record, found)
    body = json_of(record["body"].encode())
    return (body if isinstance(body, dict) else {}), found.tag


def setting_record(org: str, kind: SettingKind, body: Mapping[str, Any], caller: Caller, record_id: str) -> Record:
    """The record of a setting; raises `ProblemError` (422)."""
    fields = {
        "setting_id": record_id or str(uuid.uuid4()),
        "org_id": org,
        "occurred_at": time.time_ns() // 1_000,
        "actor": caller.name,
        "actor_role": ActorRole.SYSTEM.value,
        "kind": kind.value,
        "body": dict(body),
    }
    return checked(InputKind.SETTING, fields)


async def send_setting(parts: Parts, record: Record, tag: str) -> None:
    """Send a setting that is still at the version `tag`; empty: that is not there yet. Raises `ProblemError`."""
    name = name_of(record.to_record())
    assert name is not None, "the body's shape was checked"
    async with parts.versions.writing:
        found = await parts.versions.current(name)
        check_version(found, f'"{tag}"' if tag else None, None if tag else "*")
        await parts.intake.send([(InputKind.SETTING, record)])


async def report_try(parts: Parts, record: Record, caller: Caller) -> None:
    """Send a try as a member's, which the ledger refuses: it stands in the activity log (product rule 33)."""
    update = {"actor": caller.name, "actor_role": ActorRole.MEMBER}
    await parts.intake.send([(InputKind.SETTING, record.model_copy(update=update))])


def money_record(kind: InputKind, org: str, given: Mapping[str, str], caller: Caller) -> Record:
    """The record of a purchase or a transfer; raises `ProblemError` (422) that names the field."""
    fields: dict[str, Any] = {
        "org_id": org,
        "occurred_at": time.time_ns() // 1_000,
        "wallet": given.get("wallet", ""),
        "amount": given.get("amount", ""),
    }
    if kind is InputKind.PURCHASE:
        fields |= {"purchase_id": given.get("record_id", ""), "actor": given.get("actor") or None}
        paid = {"price_paid": given.get("price_paid"), "currency": given.get("currency")}
        fields |= {name: value for name, value in paid.items() if value}
    else:
        fields |= {
            "transfer_id": given.get("record_id", ""),
            "target_org_id": given.get("target_org_id", ""),
            "actor": given.get("actor") or caller.name,
            "reason": given.get("reason") or None,
        }
    return checked(kind, fields)


def place(fields: Sequence[Field], error: ProblemError, fault: str) -> str:
    """Put a refusal at its field; what stands above the form, where there is none."""
    text = fault.removeprefix("body: ")
    name, colon, message = text.partition(": ")
    if colon and place_fault(fields, name, message):
        return "Something is not right yet: see the field below."
    return text[:1].upper() + words(text[1:]) if error.status == 412 else f"{text[:1].upper()}{text[1:]}"


def _one(given: Mapping[str, Sequence[str]], name: str) -> str:
    return given[name][-1] if given.get(name) else ""
