"""The whole HTTP application as `serve` has it, behind door and guard, on parts in memory: for tests of all routes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from clickhouse_connect.driver.exceptions import OperationalError
from confluent_kafka import KafkaError, KafkaException
from fastapi import FastAPI

from schemas.codec import RegistryUnavailableError, encode_one
from schemas.dismissals import Dismissal
from schemas.enums import BillingUnit, DecisionCode, HoldAction
from schemas.fields import Record
from schemas.records import BundledSchemas, bundled_id
from streams.api.account_view import AccountView
from streams.api.alert_stream import alert_stream_router
from streams.api.app import build_api, record_refused_calls
from streams.api.authorize import Authorizer
from streams.api.authorize_routes import authorize_router
from streams.api.compatible_routes import compatible_router
from streams.api.door import Door
from streams.api.finance import Desk
from streams.api.guard import Guard
from streams.api.history_routes import history_router
from streams.api.hold_routes import holds_router
from streams.api.holds import Holds
from streams.api.hosts import HostRule
from streams.api.idempotency import OwnLog
from streams.api.intake import not_taken
from streams.api.invoices import invoices_router
from streams.api.lease_routes import leases_router
from streams.api.listing_routes import listing_router
from streams.api.query_routes import QueryDesk, query_router
from streams.api.reading import ReadingDesk
from streams.api.refused_calls import RefusedCalls
from streams.api.setting_versions import Name, Version
from streams.api.statements import statements_router
from streams.api.write_routes import write_router
from streams.engine.accounts import frame_account
from streams.errors import KafkaUnavailableError
from streams.kafka.alert_feed import FeedAlert, Reader
from streams.kafka.api_keys import ApiKey, Keyring
from streams.kafka.decisions import DecisionKey, DecisionReader, key_of
from streams.kafka.registry_topic import Claims, Registered
from streams.ledger.account import encode_account
from streams.ledger.entry import HoldDecision
from streams.ledger.rating import ANY_OPERATION, Price, PriceList
from streams.settings import Settings
from tests.unit.ledger.world import World
from tests.unit.platform.test_api_keys import NOW
from tests.unit.platform.test_registry_routes import MemoryRegistry
from tests.unit.platform.test_write_routes import FakeIntake, FakeVersions

BODY_MAX = 1024 * 1024
WALLET: dict[str, Any] = {
    f"{name}_nanos": 50 * 10**9
    for name in ("settled", "held", "available", "on_the_way", "allocation", "month_spent", "lifetime_added")
}
BALANCE: dict[str, Any] = {
    "org_id": "acme",
    "seq": 2,
    "as_of": NOW,
    "wallets": [{**WALLET, "lifetime_spent_nanos": 0, "unit": "USD", "status": "ok", "health": "green"}],
}


class Balances:
    """Knows the balance of `acme`."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka

    async def latest(self, org: str, min_seq: int = 0) -> dict[str, Any] | None:
        self._kafka.check(KafkaUnavailableError("the balances may be outdated", "try again"))
        return BALANCE if org == "acme" else None


class Kafka:
    """There, or away."""

    away = False

    def check(self, error: Exception) -> None:
        """Raise what a part raises when Kafka is away."""
        if self.away:
            raise error


class Intake(FakeIntake):
    """Takes records while Kafka is there."""

    def __init__(self, kafka: Kafka) -> None:
        super().__init__()
        self._kafka = kafka

    async def send(self, records: Sequence[Any]) -> None:
        if records:
            self._kafka.check(not_taken("no answer in time"))
        await super().send(records)


class Decisions(DecisionReader):
    """One hold was granted; no ledger decides anything more."""

    def __init__(self, kafka: Kafka) -> None:
        super().__init__(Settings(_env_file=None), BundledSchemas())
        self._kafka = kafka
        decision = HoldDecision(
            hold_id="req-0",
            org_id="acme",
            action=HoldAction.PLACE,
            allowed=True,
            code=DecisionCode.OK,
            http_status=200,
            limit_id=None,
            granted_nanos=1,
            available_nanos=1,
            expires_at=None,
            entry_seq=1,
        ).to_record()
        self._remember(key_of(decision), encode_one("decision", decision, bundled_id("decision")), allowed=True)

    def wait_until_current(self, timeout_s: float = 0) -> None:
        self._kafka.check(KafkaUnavailableError("the decisions could not be read", "try again"))

    def search(self, key: DecisionKey) -> None:
        return None


class Accounts(AccountView):
    """Knows the account of `acme`."""

    def __init__(self, kafka: Kafka) -> None:
        super().__init__(Settings(_env_file=None), now_us=lambda: NOW)
        self._kafka = kafka
        world = World()
        world.buy("50")
        world.buy("50")
        self._frames[b"acme"] = frame_account(0, encode_account(world.account()))

    async def require_current(self) -> None:
        self._kafka.check(KafkaUnavailableError("the accounts may be outdated", "try again"))


class Listed:
    """A price list for everything that the examples ask about."""

    in_force = PriceList([Price("any", ANY_OPERATION, 1_000, BillingUnit.TOKEN, "USD", 0)])

    async def require_current(self) -> None:
        """It is."""


class Versions(FakeVersions):
    """Of the settings that the intake was given."""

    def __init__(self, kafka: Kafka, intake: FakeIntake) -> None:
        super().__init__(intake)
        self._kafka = kafka

    async def current(self, name: Name) -> Version | None:
        self._kafka.check(KafkaUnavailableError("the settings could not be read", "try again"))
        return await super().current(name)


class Registry(MemoryRegistry):
    """The released schemas; nothing else is registered."""

    def __init__(self, kafka: Kafka) -> None:
        super().__init__(read_only=True)
        self._kafka = kafka

    def read(self) -> Claims:
        self._kafka.check(RegistryUnavailableError("the topic could not be read"))
        return super().read()

    def register(self, subject: str, schema: str) -> Registered:
        self._kafka.check(RegistryUnavailableError("the topic could not be read"))
        return super().register(subject, schema)


class Feed:
    """Takes no readers while Kafka is away; else each of its streams ends at once."""

    readers = 0

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka

    async def join(self, *_: Any) -> Reader:
        self._kafka.check(KafkaUnavailableError("the alerts cannot be read now", "try again"))
        reader = Reader(lambda _: True, {})
        reader.end("shutting_down")
        return reader

    async def missed(self, _: Reader) -> AsyncIterator[list[FeedAlert]]:
        yield []

    def leave(self, _: Reader) -> None:
        """Nothing is kept of it."""

    def text_of(self, _: Any) -> str:
        return ""


class Dismissed:
    """The dismissals, while Kafka is there."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka

    def find(self, *_: str) -> None:
        """None is known."""

    def dismiss(self, wanted: Dismissal) -> Dismissal:
        self._kafka.check(KafkaUnavailableError("Kafka has not taken the dismissal", "send it again"))
        return wanted


class Connected:
    """Stands for a client: gets one for each question."""

    def __init__(self, clickhouse: Callable[[], Any]) -> None:
        self._clickhouse = clickhouse

    def __getattr__(self, name: str) -> Any:
        return getattr(self._clickhouse(), name)


class WholeApi:
    """The application. `clickhouse` gives a client, or raises what a server that is away raises."""

    def __init__(self, keys: Sequence[ApiKey] = (), clickhouse: Callable[[], Any] | None = None) -> None:
        self.kafka = Kafka()
        self.recorded: list[dict[str, Any]] = []
        self.intake = Intake(self.kafka)
        versions: Any = Versions(self.kafka, self.intake)
        intake: Any = self.intake
        balances: Any = Balances(self.kafka)
        registry: Any = Registry(self.kafka)
        decisions: Any = Decisions(self.kafka)
        holds = Holds(intake, decisions, wait_s=0.01)
        desk = Desk(clickhouse or clickhouse_away, "credits.ledger.v1", "Example Inc.")
        client: Any = Connected(clickhouse or clickhouse_away)
        reading = ReadingDesk([client], "credits.ledger.v1")
        feed: Any = Feed(self.kafka)
        dismissals: Any = Dismissed(self.kafka)
        others = [
            write_router(intake, versions, self._check_prices, OwnLog()),
            history_router(reading, balances),
            listing_router(reading, dismissals),
            alert_stream_router(feed, lambda _: None),
            compatible_router(intake, reading, balances, {key.key_id: key for key in keys}.get, clock=lambda: NOW),
            holds_router(holds),
            leases_router(holds, intake),
            query_router(QueryDesk(client)),
        ]
        self.api: FastAPI = build_api(
            balances=balances,
            registry=registry,
            live={"part": lambda: None},
            ready={},
            statements=[invoices_router(desk), statements_router(desk)],
            others=[*others, authorize_router(Authorizer(Accounts(self.kafka), Listed()))],
        )
        record_refused_calls(self.api, RefusedCalls(self._record))
        door = Door(lambda: Keyring(keys), "local", loopback=True, wall_us=lambda: NOW)
        self.app = Guard(self.api, HostRule("127.0.0.1", ["testserver"]), door, body_bytes_max=BODY_MAX)

    def _record(self, _: bytes, value: bytes) -> bool:
        self.recorded.append(json.loads(value))
        return True

    def _check_prices(self, _: Sequence[Record]) -> None:
        self.kafka.check(KafkaException(KafkaError(KafkaError._TRANSPORT)))


def clickhouse_away() -> Any:
    """What a client raises while its server is away."""
    raise OperationalError("ClickHouse has not answered yet")
