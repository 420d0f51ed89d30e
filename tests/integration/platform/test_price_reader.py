"""The price reader on a real broker: it follows the topic, and knows when it may have fallen behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from schemas.enums import InputKind
from schemas.events import INPUTS
from streams.client.producer import CreditsProducer
from streams.engine.ports import UnavailableError
from streams.kafka import topics_admin
from streams.kafka.registry import connect_registry
from streams.local.broker import LocalBroker
from streams.processing.prices import STALE_MAX_S, PriceReader
from streams.settings import Settings
from tests.brokers import test_settings
from tests.integration.engine.workers import until
from tests.integration.ledger.events import PRICE_LIST


def published(settings: Settings, unit_price_nanos: int) -> None:
    with CreditsProducer(settings) as producer:
        record = {**PRICE_LIST[0], "unit_price_nanos": unit_price_nanos}
        producer.produce(InputKind.PRICE, INPUTS[InputKind.PRICE].from_record(record))


def read(reader: PriceReader) -> set[int]:
    return {price.unit_price_nanos for price in reader.records.log.prices}


def caught_up(reader: PriceReader) -> bool:
    try:
        reader.catch_up()
    except UnavailableError:
        return False
    return True


def test_it_knows_when_it_may_have_fallen_behind(own_broker: Callable[..., LocalBroker], tmp_path: Path) -> None:
    broker = own_broker()
    broker.start()
    pid = broker.pid
    assert pid is not None
    settings = test_settings(tmp_path, kafka_bootstrap_servers=broker.bootstrap_servers, partitions=2)
    topics_admin.apply(settings)
    published(settings, 1)
    reader = PriceReader(settings, connect_registry(settings))
    assert not reader.current(), "nothing is read yet"
    try:
        reader.start()
        assert read(reader) == {1}
        assert reader.current()
        os.kill(pid, signal.SIGSTOP)
        until(lambda: not reader.current(), STALE_MAX_S + 5, "prices that may be out of date")
        with pytest.raises(UnavailableError):
            reader.catch_up()
        os.kill(pid, signal.SIGCONT)
        until(reader.current, 30, "current prices, without being asked for them")
        published(settings, 2)
        until(lambda: read(reader) == {2}, 30, "the price that was changed")
        until(lambda: caught_up(reader), 30, "an answer from any leader")
    finally:
        os.kill(pid, signal.SIGCONT)
        reader.stop()
