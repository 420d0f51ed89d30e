"""Streams of alerts: a client that comes and goes gets each alert once, whichever process it comes to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.partitioner import partition_of
from schemas.records import BundledSchemas
from streams.api import alert_stream
from streams.api.alert_stream import AlertStream
from streams.kafka import alert_feed
from streams.kafka.alert_feed import AlertFeed, FeedAlert, PositionError, PositionLostError, TooManyReadersError
from tests.brokers import test_settings

ORGS = ("acme", "bolt", "côté")
TOPICS = ("credits.alerts.threshold.v1", "credits.alerts.depletion.v1", "credits.alerts.topup.v1")
PARTITIONS = 2
Place = tuple[str, int]


class Log:
    """The alert topics, in memory: each alert at an even offset, as if each had its own transaction."""

    def __init__(self) -> None:
        self.alerts: dict[Place, list[FeedAlert]] = {(topic, p): [] for topic in TOPICS for p in range(PARTITIONS)}
        self.starts = dict.fromkeys(self.alerts, 0)

    def append(self, topic: str, org: str) -> FeedAlert:
        place = (topic, partition_of(org.encode(), PARTITIONS))
        number = len(self.alerts[place])
        alert = FeedAlert(place, 2 * number, org, {"alert_id": f"{topic}-{place[1]}-{number}", "org_id": org})
        self.alerts[place].append(alert)
        return alert

    def ends(self, *_: object) -> dict[Place, int]:
        return {place: 2 * len(alerts) for place, alerts in self.alerts.items()}

    def read(self, _: object, starts: Mapping[Place, int], ends: Mapping[Place, int]) -> Iterator[list[FeedAlert]]:
        for place, end in ends.items():
            found = [each for each in self.alerts[place] if starts.get(place, 0) <= each.offset < end]
            yield from ([each] for each in found)


class Process:
    """The feed of one process, which has read the log as far as the test says."""

    def __init__(self, log: Log, folder: Path) -> None:
        self.log = log
        self.feed = AlertFeed(test_settings(folder, partitions=PARTITIONS), BundledSchemas())
        self.feed._is_reading = True
        self.feed._dispatched = log.ends()

    async def read(self, most: int = 1_000) -> None:
        for place, end in self.log.ends().items():
            at = self.feed._dispatched[place]
            found = [each for each in self.log.alerts[place] if at <= each.offset < end][:most]
            if found:
                await self.feed._dispatch(found, {place: found[-1].offset + 1})


class Client:
    """Follows one org, or all; remembers the last id as a browser does."""

    def __init__(self, org: str | None) -> None:
        self.org = org
        self.last_id: str | None = None
        self.got: list[str] = []
        self.stream: Any = None
        self.answer: AlertStream | None = None
        self.end: str | None = None
        self.refusal: str | None = None

    async def come(self, process: Process) -> None:
        wants = (lambda each: each == self.org) if self.org else (lambda _: True)
        reader = await process.feed.join(wants, self.org, self.last_id)
        self.answer = AlertStream(process.feed, reader, lambda: self.refusal, heartbeat_s=0.01)
        self.stream = self.answer._events()

    async def take(self, most: int = 1_000) -> None:
        """Events until a heartbeat says that there are no more, or `most` of them."""
        while self.stream is not None and most:
            try:
                event = parsed(await anext(self.stream))
            except StopAsyncIteration:
                await self.go()
                return
            self.last_id = event.get("id", self.last_id)
            if event.get("event") == "alert":
                self.got.append(json.loads(event["data"])["alert_id"])
                most -= 1
            elif event.get("event") == "end":
                self.end = json.loads(event["data"])["code"]
            elif "retry" not in event:
                return

    async def go(self) -> None:
        if self.stream is not None:
            await self.stream.aclose()
            assert self.answer is not None
            self.answer._feed.leave(self.answer._reader)
        self.stream = None


def parsed(event: bytes) -> dict[str, str]:
    assert event.endswith(b"\n\n")
    lines = [line.partition(": ") for line in event.decode().splitlines() if line]
    return {name: value for name, _, value in lines}


@pytest.fixture(autouse=True)
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    made = Log()
    use(made, monkeypatch)
    return made


def use(log: Log, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(alert_feed, "read_range", log.read)
    patch.setattr(alert_feed, "committed_starts", lambda *_: log.starts)
    patch.setattr(alert_feed, "committed_ends", log.ends)
    patch.setattr(AlertFeed, "_decoded", lambda _, batch: list(batch))


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("alert"), st.sampled_from(TOPICS), st.sampled_from(ORGS)),
        st.tuples(st.just("alert"), st.sampled_from(TOPICS), st.just("acme")),
        st.tuples(st.just("read"), st.integers(0, 1), st.integers(1, 3)),
        st.tuples(st.just("come"), st.integers(0, 1), st.just(0)),
        st.tuples(st.just("take"), st.integers(1, 4), st.just(0)),
        st.tuples(st.just("go"), st.just(0), st.just(0)),
    ),
    min_size=15,
    max_size=60,
)


@given(steps=STEPS, org=st.sampled_from([None, "acme"]))
def test_no_alert_is_lost_and_none_comes_twice(
    tmp_path_factory: pytest.TempPathFactory, steps: Sequence[tuple[Any, Any, Any]], org: str | None
) -> None:
    """Two processes that read at their own speed, a client between them; it breaks off after any number of alerts."""
    folder = tmp_path_factory.getbasetemp()
    log, patch = Log(), pytest.MonkeyPatch()
    use(log, patch)

    async def run() -> Client:
        processes, client = [Process(log, folder), Process(log, folder)], Client(org)
        await client.come(processes[0])
        await client.take()
        for what, first, second in steps:
            match what:
                case "alert":
                    log.append(first, second)
                case "read":
                    await processes[first].read(second)
                case "come":
                    await client.go()
                    await client.come(processes[first])
                case "take":
                    await client.take(first)
                case "go":
                    await client.go()
        await client.go()
        for process in processes:
            await process.read()
        await client.come(processes[0])
        await client.take()
        await client.go()
        return client

    try:
        client = asyncio.run(run())
    finally:
        patch.undo()
    wanted = [each for alerts in log.alerts.values() for each in alerts if org in (None, each.org_id)]
    ids = [str(each.document["alert_id"]) for each in wanted]
    assert sorted(client.got) == sorted(ids)
    for alerts in log.alerts.values():
        mine = [str(each.document["alert_id"]) for each in alerts if org in (None, each.org_id)]
        assert [each for each in client.got if each in mine] == mine, "in the order of their partition"


def test_what_came_while_a_client_was_away(log: Log, tmp_path: Path) -> None:
    async def run() -> list[str]:
        process, client = Process(log, tmp_path), Client("acme")
        await client.come(process)
        await client.take()
        await client.go()
        for topic in TOPICS * 2:
            log.append(topic, "acme")
            log.append(topic, "bolt")
        await process.read()
        await client.come(process)
        await client.take(1)
        log.append(TOPICS[0], "acme")
        await process.read()
        await client.take()
        await client.go()
        return client.got

    got = asyncio.run(run())
    wanted = [
        str(each.document["alert_id"]) for alerts in log.alerts.values() for each in alerts if each.org_id == "acme"
    ]
    assert sorted(got) == sorted(wanted)
    assert len(got) == 7


def test_a_process_that_lags_behind_gives_nothing_twice(log: Log, tmp_path: Path) -> None:
    async def run() -> list[str]:
        ahead, behind, client = Process(log, tmp_path), Process(log, tmp_path), Client("acme")
        await client.come(ahead)
        await client.take()
        for _ in range(3):
            log.append(TOPICS[0], "acme")
        await ahead.read()
        await client.take(2)
        await client.go()
        await client.come(behind)
        await client.take()
        await behind.read()
        await client.take()
        await client.go()
        return client.got

    assert asyncio.run(run()) == [str(each.document["alert_id"]) for alerts in log.alerts.values() for each in alerts]


def test_a_slow_client_is_dropped_and_comes_back_without_loss(
    log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alert_feed, "WAITING_MAX", 3)

    async def run() -> Client:
        process, client = Process(log, tmp_path), Client("acme")
        await client.come(process)
        await client.take()
        for _ in range(5):
            log.append(TOPICS[0], "acme")
        await process.read()
        assert client.answer is not None
        assert client.answer._reader.waiting.qsize() == 1, "what waited is let go"
        await client.take()
        assert (client.end, client.got, process.feed.readers) == ("too_slow", [], 0)
        await client.come(process)
        await client.take()
        await client.go()
        return client

    assert len(asyncio.run(run()).got) == 5


def test_a_revoked_key_ends_the_stream(log: Log, tmp_path: Path) -> None:
    async def run() -> str | None:
        process, client = Process(log, tmp_path), Client(None)
        await client.come(process)
        await client.take()
        client.refusal = "key_revoked"
        await client.take()
        return client.end

    assert asyncio.run(run()) == "key_revoked"


def test_the_end_of_the_process_ends_streams(log: Log, tmp_path: Path) -> None:
    async def run() -> str | None:
        process, client = Process(log, tmp_path), Client(None)
        await client.come(process)
        process.feed.end_readers("shutting_down")
        await client.take()
        return client.end

    assert asyncio.run(run()) == "shutting_down"


@pytest.mark.parametrize(
    ("position", "org", "error"),
    [
        ("x", "acme", PositionError),
        ("t0=1", "acme", PositionError),
        ("t0=1,d0=1,u0=1,t1=-1", None, PositionError),
        ("t0=1,d0=1,u0=01,t1=0,d1=0,u1=0", None, PositionError),
        ("t0=0,d0=0,u0=0,t1=0,d1=0,u1=0", "acme", None),
        ("t0=0, d0=0, u0=0, t1=0, d1=0, u1=0", None, None),
        ("t0=99,d0=0,u0=0,t1=99,d1=0,u1=0", "acme", PositionLostError),
    ],
)
def test_positions(log: Log, tmp_path: Path, position: str, org: str | None, error: type[Exception] | None) -> None:
    async def join() -> None:
        process = Process(log, tmp_path)
        try:
            await process.feed.join(lambda _: True, org, position)
        finally:
            assert process.feed.readers == (error is None)

    if error is None:
        asyncio.run(join())
        return
    with pytest.raises(error):
        asyncio.run(join())


def test_a_position_that_kafka_no_longer_has(log: Log, tmp_path: Path) -> None:
    for _ in range(3):
        log.append(TOPICS[0], "acme")
    log.starts = {place: 2 if place[0] == TOPICS[0] else 0 for place in log.starts}

    async def join() -> None:
        await Process(log, tmp_path).feed.join(lambda _: True, None, "t0=0,d0=0,u0=0,t1=0,d1=0,u1=0")

    with pytest.raises(PositionLostError, match="no longer in Kafka"):
        asyncio.run(join())


def test_streams_are_bounded(log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alert_feed, "READERS_MAX", 2)

    async def run() -> None:
        process = Process(log, tmp_path)
        for _ in range(2):
            await Client(None).come(process)
        with pytest.raises(TooManyReadersError):
            await Client(None).come(process)

    asyncio.run(run())


def test_a_client_that_is_gone_leaves_nothing(log: Log, tmp_path: Path) -> None:
    """Also one that went before the first byte: the answer is given up by cancelling it."""

    async def run() -> int:
        process = Process(log, tmp_path)
        reader = await process.feed.join(lambda _: True, None, None)
        answer = AlertStream(process.feed, reader, lambda: None, heartbeat_s=60)
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            return {"type": "http.disconnect"}

        scope = {"type": "http", "asgi": {"spec_version": "2.3"}, "headers": []}
        await asyncio.wait_for(answer(scope, receive, send), 10)
        return process.feed.readers

    assert asyncio.run(run()) == 0
    assert alert_stream.STREAMS._value.get() == 0
