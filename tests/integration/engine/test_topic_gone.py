"""A topic is deleted, or deleted and created again, under a running worker: it stops and says so (fault 25)."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Callable

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from streams.engine.failures import TopicGoneError
from streams.engine.topic_watch import TopicWatch
from streams.kafka.clients import admin_config
from tests.brokers import free_port
from tests.integration.engine.workers import Installation, until, wait_for_counts

SECONDS_MAX = 15
"""Two looks, some seconds apart, on a machine that has other work."""


def delete(installation: Installation, topic: str) -> None:
    admin = AdminClient(admin_config(installation.settings))
    for future in admin.delete_topics([topic]).values():
        future.result(30)


def livez(port: int) -> int | None:
    """The status of `/livez`; None when nobody answers any more."""
    try:
        return int(urllib.request.urlopen(f"http://127.0.0.1:{port}/livez", timeout=5).status)
    except urllib.error.HTTPError as refused:
        return refused.code
    except OSError:
        return None


@pytest.mark.fault(
    "topic-deleted",
    title="An input topic is deleted under a running worker",
    provoked="the topic is deleted by an admin client",
    holds="/livez is no longer green within seconds; the worker stops, exit status 1, and says what to do",
    faults_row=25,
)
def test_a_worker_whose_topic_is_deleted_stops_within_seconds(
    installation: Installation, seen: Callable[[str], None]
) -> None:
    installation.create_topics()
    port = free_port()
    worker = installation.ready_worker(CREDITS_WORKER_METRICS_PORT=str(port))
    installation.send(100)
    wait_for_counts(installation, 100)
    assert livez(port) == 200
    delete(installation, installation.inputs[1])
    deleted_s = time.monotonic()
    until(lambda: livez(port) != 200, SECONDS_MAX, "a red /livez")
    red_after_s = time.monotonic() - deleted_s
    assert worker.ends_with(30) == 1
    assert f"The worker stops: topic {installation.inputs[1]} was deleted while the worker ran" in worker.output
    assert "restore it from a copy" in worker.output
    assert red_after_s < SECONDS_MAX
    seen(f"/livez no longer green within {SECONDS_MAX} s, exit status 1, the topic named")


def test_a_topic_that_was_made_again_is_another(installation: Installation) -> None:
    installation.create_topics()
    topic = installation.inputs[0]
    watch = TopicWatch(installation.settings, [*installation.inputs, installation.output])
    watch.look()
    watch.look()
    delete(installation, topic)
    admin = AdminClient(admin_config(installation.settings))
    for future in admin.create_topics([NewTopic(topic, installation.settings.partitions, 1)]).values():
        future.result(30)
    admin.list_topics(topic, timeout=30)
    with pytest.raises(TopicGoneError, match=f"{topic} was deleted"):
        look_often(watch)


def look_often(watch: TopicWatch) -> None:
    """A broker that has just made a topic may not know it for a moment: one look is not enough."""
    for _ in range(20):
        watch.look()
