"""The broker's time, asked of a real broker."""

from __future__ import annotations

import time

from confluent_kafka.admin import AdminClient, NewTopic

from streams.engine.clock import BrokerClock
from streams.engine.internal_topics import clock_config, clock_topic
from streams.kafka.clients import admin_config
from streams.settings import Settings

MINUTE_US = 60_000_000


def make(settings: Settings, **config: str) -> None:
    topic = NewTopic(clock_topic(settings.app_id), 2, 1, config={**clock_config(), **config})
    admin = AdminClient(admin_config(settings))
    for future in admin.create_topics([topic]).values():
        future.result(30)


def test_the_broker_tells_the_time(settings: Settings) -> None:
    make(settings)
    clock = BrokerClock(settings, monotonic=lambda: 0.0)
    assert clock.now() == 0
    clock.ask()
    assert abs(clock.now() - time.time_ns() // 1_000) < MINUTE_US  # it runs on this machine
    told_at = clock.now()
    clock.ask()
    assert told_at <= clock.now() < told_at + MINUTE_US


def test_timers_rest_when_the_topic_has_the_producers_time(settings: Settings) -> None:
    make(settings, **{"message.timestamp.type": "CreateTime"})
    clock = BrokerClock(settings)
    clock.ask()
    assert clock.now() == 0
