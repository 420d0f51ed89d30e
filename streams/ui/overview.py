"""The operator's list of organisations, and the overview of one (product rules 14, 29 to 31).

The rules of this file:
1. A balance comes from memory, as the API's: it does not lag behind the ledger. What is asked of ClickHouse says as of
   when it is true.
2. The list has a line for each wallet, the one that needs attention most first: `TROUBLE`, then what it spends a day.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse

from projections.months import Months
from projections.queries import Query as Sql
from projections.reads import Reads, page_of
from projections.transactions import Transactions
from schemas.enums import WalletStatus
from streams.api.callers import READS_STATEMENTS, Caller, allowed
from streams.api.paths import ORG, OrgId
from streams.api.problems import ProblemError
from streams.kafka.balances import balance_document
from streams.ui.parts import Parts, address
from streams.ui.shown import number_of, words

if TYPE_CHECKING:
    from streams.kafka.balances import BalanceReader

TROUBLE: Final = ("blocked", "negative", "depleted", "limit_reached", "low", "ok")
ROWS: Final = 100
PAGES_MAX: Final = 1_000
BURN_DAYS: Final = 7
BAR_WIDTH: Final = 1_000

Allowed = Annotated[Caller, Depends(allowed(READS_STATEMENTS))]
Search = Annotated[str, Query(max_length=128)]


def overview_router(router: APIRouter, parts: Parts) -> None:
    """Add the pages to `router`."""
    _add_list(router, parts)
    _add_overview(router, parts)


def _add_list(router: APIRouter, parts: Parts) -> None:
    @router.get("")
    async def home() -> RedirectResponse:
        """One address for the list."""
        return RedirectResponse("/ui/", status_code=308)

    @router.get("/")
    async def organisations(
        request: Request,
        caller: Allowed,
        q: Search = "",
        status: Annotated[str, Query(max_length=32)] = "",
        wallet: Search = "",
        page: Annotated[int, Query(ge=1, le=PAGES_MAX)] = 1,
    ) -> HTMLResponse:
        """Every organisation that the key is for, those in trouble first."""
        org_ids = None if caller.is_for_all else sorted(caller.organisations)
        query = needs_attention(q.strip(), status, wallet, org_ids, page)
        rows, more = page_of(await parts.desk.ask(lambda reads: reads.rows(query)), ROWS)
        given = {"q": q, "status": status, "wallet": wallet}
        return parts.shell.page(
            request,
            "orgs.html",
            rows=[await _with_balance(parts.balances, row) for row in rows],
            statuses=[each.value for each in WalletStatus],
            given=given,
            next=address("/ui/", given, page=page + 1) if more else "",
            first=address("/ui/", given) if page > 1 else "",
        )


def _add_overview(router: APIRouter, parts: Parts) -> None:
    @router.get(f"/orgs/{ORG}")
    async def organisation(request: Request, org: OrgId) -> RedirectResponse:
        """The overview's own address."""
        return RedirectResponse(f"{request.url.path}/", status_code=308)

    @router.get(f"/orgs/{ORG}/")
    async def overview(request: Request, org: OrgId, _: Allowed) -> HTMLResponse:
        """What one sees first of an organisation."""
        found = await parts.balances.latest(org)
        if found is None:
            raise ProblemError(404, "unknown_org", f"the ledger has no entry of {org!r}")
        balance = balance_document(found)
        now = time.time_ns() // 1_000
        month, burn, cards, zone = await parts.desk.ask(lambda reads: _past_of(reads, org, balance, now))
        wallets = [_wallet(each, month, burn, cards) for each in balance["wallets"]]
        return parts.shell.page(
            request,
            "overview.html",
            org=org,
            zone=zone,
            balance=balance,
            wallets=wallets,
            month=month,
            movements=sorted(
                ({**row, "unit": unit["unit"]} for unit in wallets for row in unit["movements"]),
                key=lambda row: -row["seq"],
            ),
        )


def needs_attention(search: str, status: str, wallet: str, org_ids: list[str] | None, page: int) -> Sql:
    """A page of wallets and what they spend a day: the net usage of the last `BURN_DAYS` days, today among them.

    It is divided by the days since the first usage in them, as on the overview (`Months.burn_rate`).
    """
    conditions = ["positionCaseInsensitiveUTF8(org_id, {search:String}) > 0"] if search else []
    conditions += ["status = {status:String}"] if status else []
    conditions += ["wallet = {wallet:String}"] if wallet else []
    conditions += ["org_id IN {orgs:Array(String)}"] if org_ids is not None else []
    order = ", ".join(f"'{each}'" for each in TROUBLE)
    return Sql(
        "SELECT org_id, wallet, available, settled, held, status, health, allocation, spent_per_day,"
        " if(spent_per_day > 0 AND available > 0, toFloat64(available) / toFloat64(spent_per_day), NULL) AS days_left"
        f" FROM (SELECT * FROM v_balances WHERE {' AND '.join(conditions) or 'true'}) AS balance LEFT JOIN ("
        f"SELECT org_id, wallet, toDecimal128(sum(cost - refunded)"
        f" / least({BURN_DAYS}, greatest(1, today() - minIf(day, cost > 0) + 1)), 9) AS spent_per_day"
        f" FROM usage_daily FINAL WHERE day > today() - {BURN_DAYS} GROUP BY org_id, wallet"
        ") AS spent USING (org_id, wallet)"
        f" ORDER BY transform(status, [{order}], range(1, {len(TROUBLE) + 1}), 0), spent_per_day DESC, org_id, wallet"
        " LIMIT {rows:UInt64} OFFSET {skipped:UInt64}",
        {
            "search": search,
            "status": status,
            "wallet": wallet,
            "orgs": org_ids or [],
            "rows": ROWS + 1,
            "skipped": (page - 1) * ROWS,
        },
    )


async def _with_balance(balances: BalanceReader, row: Mapping[str, Any]) -> dict[str, Any]:
    """A line with the balance that memory has, which is newer than what is projected."""
    found = await balances.latest(row["org_id"])
    if found is None:
        return dict(row)
    wallets = {each["unit"]: each for each in balance_document(found)["wallets"]}
    return {**row, **wallets.get(row["wallet"], {})}


def _past_of(reads: Reads, org: str, balance: Mapping[str, Any], now: int) -> tuple[Any, Any, Any, str]:
    """The month so far, the burn rate and the cards of an organisation; empty where none of it is projected yet."""
    months = Months(reads)
    month = months.month(org, now)
    if month is None:
        return {"wallets": [], "month": "", "as_of": None, "time_zone": "UTC"}, {}, {}, "UTC"
    burn = months.burn_rate(org, now) or {"wallets": []}
    cards = Transactions(reads).cards(org, balance)
    return (
        month,
        {each["wallet"]: each for each in burn["wallets"]},
        {each["unit"]: each for each in cards},
        month["time_zone"],
    )


def _wallet(
    balance: Mapping[str, Any], month: Mapping[str, Any], burn: Mapping[str, Any], cards: Mapping[str, Any]
) -> dict[str, Any]:
    unit = balance["unit"]
    of_month = next((each for each in month["wallets"] if each["wallet"] == unit), None)
    card = cards.get(unit, {"low": balance["status"] == "low", "movements": []})
    return {
        **balance,
        "low": card["low"],
        "movements": card["movements"],
        "burn": burn.get(unit),
        "month": of_month,
        "bar": None if of_month is None else month_bar(of_month, unit),
        "chart": None if of_month is None else day_chart(of_month["days"], unit, month["time_zone"]),
    }


def month_bar(of: Mapping[str, Any], unit: str) -> dict[str, Any] | None:
    """The month's bar (product rule 14) in thousandths of its width; None where nothing limits the month."""
    used, alert, limit = (number_of(of[name]) for name in ("used", "alert_threshold", "allowed_limit"))
    if used is None or (alert is None and limit is None):
        return None
    full = max(used, alert or Decimal(0), limit or Decimal(0)) * Decimal("1.04") or Decimal(1)

    def place(value: Decimal | None) -> int | None:
        return None if value is None else round(max(value, Decimal(0)) / full * BAR_WIDTH)

    colour = {"red": "red", "orange": "orange"}.get(of["level"], "used")
    said = {
        "red": "the allowed limit is reached",
        "orange": "above the alert threshold",
        "used": "below the alert threshold" if alert is not None else "below the allowed limit",
    }[colour]
    label = f"{words(of['used'])} {unit} used this month, {said}"
    tone = {"red": "bad", "orange": "warn", "used": "good"}[colour]
    return {
        "used": place(used),
        "alert": place(alert),
        "limit": place(limit),
        "colour": colour,
        "tone": tone,
        "said": said,
        "label": label,
    }


def day_chart(days: list[Mapping[str, Any]], unit: str, zone: str) -> dict[str, Any] | None:
    """What the browser draws of a month's days; None where three numbers say it as well."""
    if len(days) < 4:
        return None
    midnight = [datetime.fromisoformat(each["day"]).replace(tzinfo=UTC).timestamp() for each in days]
    return {
        "times": midnight,
        "series": [{"label": unit, "values": [float(each["used"]) for each in days]}],
        "unit": unit,
        "zone": "UTC",  # the days are local ones already, and drawn where their date is
        "grain": "day",
        "named": zone,
    }
