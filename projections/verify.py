"""What ClickHouse holds, as plain data: for `credits verify` and for audits from outside.

Rules of this file: it reads, folds nothing and decides nothing; amounts are integers of nano-credits; an answer is
bounded, the rest is asked for by page. Rows that are there twice (before a merge) are counted once, and reported
under `tables`.
"""

from __future__ import annotations

from typing import Any

from clickhouse_connect.driver.client import Client

from projections import queries
from projections.buckets import LEVELS
from schemas.facts import BALANCE_AMOUNTS

ORGS_MAX = 10_000
"""Orgs in one page: about 5 MB of JSON."""

TABLES = (
    "ledger",
    "activity",
    "purchases",
    "usage_hourly",
    "usage_daily",
    "usage_monthly",
    "usage_meters_daily",
    "balances",
    "alerts",
    "dead_letters",
    "prices",
)

_LEDGER_FIELDS = ("balance_nanos", "held_nanos", "available_nanos", "sum_nanos")
_PUBLISHED_FIELDS = tuple(f"{name}_nanos" for name in BALANCE_AMOUNTS)


def clickhouse_audit(client: Client, *, after_org: str = "", orgs_max: int = ORGS_MAX) -> dict[str, Any]:
    """One page of what is projected, ready for JSON.

    - `positions`: topic → partition (text) → `position` (offset after the last projected record) and `as_of`
      (microseconds, time of the newest record).
    - `orgs`: by org id, at most `orgs_max` after `after_org`: `org_id`, `entries`, `first_seq`, `last_seq`, and
      `wallets`: unit → `ledger` (after the wallet's last entry: `balance_nanos`, `held_nanos`, `available_nanos`; the
      sum of its amounts: `sum_nanos`; `entries`; null where no entry names the wallet) and `published` (the balances
      topic's newest: `seq`, `status`, `health` and amounts; null where there is none).
    - `next_org`: what to give as `after_org` for the next page, null on the last.
    - On the first page (`after_org` empty) also `entries`, `kinds` (unit → kind → `entries`, `amount_nanos`), `usage`
      (level → unit → `entries`, `requests`, `cost_nanos`, `refunded_nanos`), `alerts` (kind → number), `dead_letters`
      (code → number), `tables` (rows as stored); else these are absent.

    A projection at work moves between two pages: compare at rest, or up to `positions`.
    """
    page: dict[str, Any] = {"positions": _positions(client)} if after_org else _totals(client)
    seqs = _rows(client, queries.audit_orgs(after_org, orgs_max))
    full = len(seqs) == orgs_max
    last_org = seqs[-1][0] if full else None
    orgs: dict[str, dict[str, Any]] = {
        org_id: {"org_id": org_id, "entries": entries, "first_seq": first, "last_seq": last, "wallets": {}}
        for org_id, entries, first, last in seqs
    }
    for org_id, wallet, *amounts, entries in _rows(client, queries.audit_ledger_wallets(after_org, last_org)):
        totals = dict(zip(_LEDGER_FIELDS, map(int, amounts), strict=True))
        _wallet(orgs, org_id, wallet)["ledger"] = {**totals, "entries": entries}
    for org_id, wallet, seq, *amounts, status, health in _rows(client, queries.audit_balances(after_org, last_org)):
        totals = dict(zip(_PUBLISHED_FIELDS, map(int, amounts), strict=True))
        _wallet(orgs, org_id, wallet)["published"] = {"seq": seq, "status": status, "health": health, **totals}
    page["orgs"] = [orgs[org_id] for org_id in sorted(orgs)]
    page["next_org"] = last_org
    return page


def _totals(client: Client) -> dict[str, Any]:
    kinds: dict[str, dict[str, Any]] = {}
    for wallet, kind, entries, nanos in _rows(client, queries.audit_totals()):
        kinds.setdefault(wallet, {})[kind] = {"entries": entries, "amount_nanos": int(nanos)}
    usage: dict[str, dict[str, Any]] = {}
    for level in LEVELS:
        usage[level.name] = {
            wallet: {
                "entries": entries,
                "requests": requests,
                "cost_nanos": int(cost),
                "refunded_nanos": int(refunded),
            }
            for wallet, entries, requests, cost, refunded in _rows(client, queries.audit_usage(level))
        }
    return {
        "positions": _positions(client),
        "entries": sum(totals["entries"] for by_kind in kinds.values() for totals in by_kind.values()),
        "kinds": kinds,
        "usage": usage,
        "alerts": dict(_rows(client, queries.audit_alerts())),
        "dead_letters": dict(_rows(client, queries.audit_dead_letters())),
        "tables": dict(_rows(client, queries.audit_tables(TABLES))),
    }


def _positions(client: Client) -> dict[str, dict[str, dict[str, int]]]:
    positions: dict[str, dict[str, dict[str, int]]] = {}
    for topic, partition, position, as_of in _rows(client, queries.positions()):
        positions.setdefault(topic, {})[str(partition)] = {"position": position, "as_of": as_of}
    return positions


def _wallet(orgs: dict[str, dict[str, Any]], org_id: str, wallet: str) -> dict[str, Any]:
    unknown = {"org_id": org_id, "entries": 0, "first_seq": 0, "last_seq": 0, "wallets": {}}
    wallets: dict[str, dict[str, Any]] = orgs.setdefault(org_id, unknown)["wallets"]
    return wallets.setdefault(wallet, {"ledger": None, "published": None})


def _rows(client: Client, query: queries.Query) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in client.query(query.sql, parameters=query.parameters).result_rows]
