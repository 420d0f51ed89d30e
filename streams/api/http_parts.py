"""What a process that serves HTTP reads from Kafka and writes to it, and the routes over that.

The rules of this file:
1. Nothing here is state of the process: all of it is read from Kafka at the start, and followed. So there may be as
   many such processes as one likes.
2. What the routes need is made here, once, and handed to them. What they ask ClickHouse goes through clients that
   `clickhouse` lends, one for each use.
"""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING

import structlog

from schemas.topics import Topics
from streams.api.account_view import AccountView
from streams.api.app import build_api, record_refused_calls
from streams.api.audit_routes import audit_router
from streams.api.authorize import Authorizer
from streams.api.authorize_routes import authorize_router
from streams.api.compatible_routes import compatible_router
from streams.api.fast_routes import FastRoutes
from streams.api.finance import Desk
from streams.api.hold_routes import holds_router
from streams.api.holds import Holds
from streams.api.idempotency_log import IdempotencyLog
from streams.api.intake import Intake
from streams.api.invoices import invoices_router
from streams.api.lease_routes import leases_router
from streams.api.price_list import FollowedPrices
from streams.api.query_routes import QueryDesk, query_router
from streams.api.reading import CLIENTS, ReadingDesk
from streams.api.reading_service import ReadingService
from streams.api.refused_calls import RefusedCalls
from streams.api.setting_versions import SettingVersions
from streams.api.statements import statements_router
from streams.api.write_routes import write_router
from streams.errors import KafkaUnavailableError, NoApiKeysError
from streams.kafka.balances import BalanceReader
from streams.kafka.current import CurrentRecords
from streams.kafka.decisions import DecisionReader
from streams.kafka.key_topic import KeyReader
from streams.kafka.latest import ASK_TIMEOUT_S
from streams.kafka.registry import connect_registry
from streams.kafka.registry_topic import TopicRegistry
from streams.processing.price_ties import refuse_ties
from streams.ui.parts import Parts
from streams.ui.router import ui_router
from streams.ui.shell import Shell
from streams.ui.vitals import Vitals

if TYPE_CHECKING:
    from fastapi import APIRouter
    from starlette.types import ASGIApp

    from streams.api.alert_stream import Readmit
    from streams.api.clickhouse_clients import ClickHousePart
    from streams.api.health import Check
    from streams.api.sessions import Sessions
    from streams.kafka.api_keys import Keyring
    from streams.settings import Settings

log = structlog.get_logger(__name__)

READER_IDLE_MAX_S = 30.0
KEYS_TIMEOUT_S = 30.0


class HttpParts:
    """Start them, build the routes, close them. `clickhouse` runs beside them, and is the caller's."""

    def __init__(self, settings: Settings, clickhouse: ClickHousePart) -> None:
        self._settings = settings
        self._clickhouse = clickhouse
        self.keys = KeyReader(settings)
        self._registry = None if settings.schema_registry_url else TopicRegistry(settings)
        self._schemas = connect_registry(settings)
        self._balances = BalanceReader(settings, self._schemas)
        self._versions = SettingVersions(settings, self._schemas)
        self._intake = Intake(settings, self._schemas)
        self._used_keys = IdempotencyLog(settings, self._intake)
        self._decisions = DecisionReader(settings, self._schemas)
        self._past = ReadingService(settings, self._schemas)
        self.end_streams = self._past.end_streams
        self._accounts = AccountView(settings)
        self._prices = FollowedPrices(settings, self._schemas)
        self._authorizer = Authorizer(self._accounts, self._prices)

    async def start(self) -> None:
        """Begin to read; returns when the API keys are known, and the newest decisions on holds.

        Raises `NoApiKeysError` where others than this machine could ask and no key was ever made.
        """
        self.keys.start()
        await asyncio.to_thread(self.keys.wait_until_current, KEYS_TIMEOUT_S)
        check_keys(self._settings, self.keys.keyring)
        followed = (self._balances, self._accounts, self._prices, self._versions, self._used_keys, self._decisions)
        for each in (*followed, self._intake, self._past):
            each.start()
        await asyncio.to_thread(self._used_keys.wait_until_current, KEYS_TIMEOUT_S)
        await asyncio.to_thread(self._decisions.wait_until_current, KEYS_TIMEOUT_S)
        for checked in (self._balances, self._accounts):
            checked.start_checking()

    async def close(self) -> None:
        """Stop reading, and wait for what is on its way to Kafka."""
        followed = (self._versions, self._past, self._prices, self._accounts, self._balances, self._decisions)
        for part in (self._intake, self._used_keys, self.keys, *followed):
            await asyncio.to_thread(part.close)
        if self._registry is not None:
            self._registry.close()

    def build(self, audit_key: str | None, readmit: Readmit, sessions: Sessions) -> ASGIApp:
        """The application. `audit_key`: what commands of this machine present to `/internal`; None: it is not here.

        `readmit`: why a request that goes on would be refused by now; `sessions`: of the pages, as the door knows them.
        """
        people = self._clickhouse.client()
        topics = Topics(self._settings.namespace)
        desk = Desk(lambda: people, topics.name("ledger"), self._settings.invoice_issuer)
        reading = self._settings.model_copy(update={"read_timeout_s": ASK_TIMEOUT_S})
        check_prices = functools.partial(refuse_ties, reading, self._schemas)
        holds = Holds(self._intake, self._decisions)
        others: list[APIRouter] = [
            authorize_router(self._authorizer),
            write_router(self._intake, self._versions, check_prices, self._used_keys),
            holds_router(holds),
            leases_router(holds, self._intake),
        ]
        past = ReadingDesk([self._clickhouse.client() for _ in range(CLIENTS)], topics.name("ledger"))
        others += self._past.routers(past, self._balances, readmit)
        others.append(compatible_router(self._intake, past, self._balances, lambda each: self.keys.keyring.get(each)))
        queries = QueryDesk(self._clickhouse.client())
        others += [query_router(queries), ui_router(self._pages(past, desk, sessions, queries))]
        if audit_key is not None:
            others.append(audit_router(self._clickhouse.client(), audit_key))
        live, ready = checks(self._balances, self._accounts, self._clickhouse)
        api = build_api(
            balances=self._balances,
            registry=self._registry,
            live=live,
            ready=ready,
            statements=[invoices_router(desk), statements_router(desk)],
            others=others,
        )
        record_refused_calls(api, RefusedCalls(functools.partial(self._intake.offer, topics.name("refused_calls"))))
        return FastRoutes(api, self._authorizer, self._balances)

    def _pages(self, past: ReadingDesk, desk: Desk, sessions: Sessions, queries: QueryDesk) -> Parts:
        """What the pages ask and write through."""
        vitals = Vitals(self._settings, self._clickhouse.client())
        return Parts(
            settings=self._settings,
            shell=Shell(sessions, vitals.shown),
            sessions=sessions,
            keyring=lambda: self.keys.keyring,
            balances=self._balances,
            desk=past,
            finance=desk,
            queries=queries,
            intake=self._intake,
            versions=self._versions,
            verified=vitals.keep,
        )


def check_keys(settings: Settings, keyring: Keyring) -> None:
    """Refuse to listen beyond this machine while no key was ever made; say it where nobody is asked for one."""
    if len(keyring):
        return
    if not settings.http_on_loopback:
        raise NoApiKeysError(settings.http_host)
    log.warning("nobody is asked for an API key, until `credits keys create` makes one", host=settings.http_host)


def checks(
    balances: BalanceReader, accounts: AccountView, clickhouse: ClickHousePart
) -> tuple[dict[str, Check], dict[str, Check]]:
    """What `/livez` and `/readyz` look at."""

    def reading(reader: CurrentRecords, name: str) -> str | None:
        idle = reader.idle_s()
        return None if idle < READER_IDLE_MAX_S else f"the {name} reader has not moved for {idle:.0f} s"

    def accounts_current() -> str | None:
        return None if accounts.is_current else "the accounts have not been read to the end of their topic"

    def current() -> str | None:
        try:
            balances.wait_until_current()
        except KafkaUnavailableError as error:
            return error.problem
        return None

    live: dict[str, Check] = {
        "balances": functools.partial(reading, balances, "balances"),
        "accounts": functools.partial(reading, accounts, "accounts"),
    }
    return {**live, **clickhouse.live}, {"kafka": current, "authorize": accounts_current, **clickhouse.ready}
