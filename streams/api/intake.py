"""Records on their way into Kafka: handed over by a request, and answered when Kafka has acknowledged them.

The rules of this file:
1. `send` returns when every record is acknowledged by all in-sync copies, and raises otherwise. A caller that got an
   error sends the same again: ids make that safe, whether Kafka has taken some of the records or not.
2. Nothing waits without an end: a record that is not acknowledged within `DELIVERY_TIMEOUT_MS` is given up by the
   client, so that it does not arrive long after its sender was told that it had failed.
3. What waits is bounded: beyond `QUEUE_RECORDS_MAX` or `QUEUE_KIB_MAX` a request is told to come again (503).
4. One producer and one thread for its acknowledgements serve all requests; requests wait on the event loop, and hold no
   thread meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import KafkaException, Producer

from schemas.enums import InputKind
from schemas.fields import Record
from streams.api.problems import ProblemError
from streams.client.producer import Outgoing, RecordEncoder
from streams.errors import KafkaUnavailableError
from streams.kafka.clients import producer_config

if TYPE_CHECKING:
    from streams.api.usage_columns import UsageBatch
    from streams.kafka.registry import Registry
    from streams.settings import Settings

DELIVERY_TIMEOUT_MS: Final = 5_000
ACKNOWLEDGED_TIMEOUT_S: Final = DELIVERY_TIMEOUT_MS / 1_000 + 2
"""The client's own time-out is told by then."""
LINGER_MS: Final = 2
QUEUE_RECORDS_MAX: Final = 100_000
QUEUE_KIB_MAX: Final = 128 * 1024
POLL_S: Final = 0.1
FLUSH_TIMEOUT_S: Final = 5.0

KindAndRecord = tuple[InputKind, Record]


class BusyError(ProblemError):
    """503: more records wait for Kafka than may."""

    def __init__(self) -> None:
        super().__init__(503, "busy", "too many records wait for Kafka: try again")


class _Delivery:
    """The acknowledgements that one request waits for. Counted by the producer's thread, awaited on the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, records: int) -> None:
        self._loop = loop
        self._left = records
        self.problem: str | None = None
        self.place = (0, 0)
        """Partition and offset of the last one."""
        self.done = loop.create_future()

    def acknowledged(self, error: Any, message: Any) -> None:
        """One record has arrived, or has not."""
        if error is None:
            self.place = (message.partition(), message.offset())
        elif self.problem is None:
            self.problem = str(error.str())
        self._left -= 1
        if not self._left:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


class Intake:
    """Sends records for requests. Start it, `send` from an event loop, close it."""

    def __init__(self, settings: Settings, registry: Registry) -> None:
        self._encoder = RecordEncoder(settings, registry)
        self._producer = Producer(
            producer_config(
                settings,
                linger_ms=LINGER_MS,
                message_timeout_ms=DELIVERY_TIMEOUT_MS,
                queue_buffering_max_messages=QUEUE_RECORDS_MAX,
                queue_buffering_max_kbytes=QUEUE_KIB_MAX,
            )
        )
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="acknowledgements", daemon=True)

    def start(self) -> None:
        """Begin to hear acknowledgements."""
        self._thread.start()

    def close(self) -> None:
        """Wait for what is on its way, as long as it may take."""
        self._producer.flush(FLUSH_TIMEOUT_S)
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(timeout=10)

    async def send(self, records: Sequence[KindAndRecord]) -> None:
        """Return when Kafka has all of them. Raises `KafkaUnavailableError` or `BusyError`: send the same again."""
        if records:
            await self._sent(await asyncio.to_thread(self.encode, records))

    async def send_usage(self, batch: UsageBatch) -> None:
        """The same, of usage in columns."""
        await self._sent(await asyncio.to_thread(self.encode_usage, batch))

    async def _sent(self, outgoing: Sequence[Outgoing]) -> None:
        delivery = _Delivery(asyncio.get_running_loop(), len(outgoing))
        self._hand_over(outgoing, delivery)
        await _all_acknowledged(delivery)

    async def append(self, topic: str, key: bytes, value: bytes) -> tuple[int, int]:
        """Partition and offset of a record that Kafka has acknowledged. Raises as `send`."""
        loop = asyncio.get_running_loop()
        delivery = _Delivery(loop, 1)
        self._hand_over([Outgoing(topic, key, value, [])], delivery)
        await _all_acknowledged(delivery)
        return delivery.place

    def offer(self, topic: str, key: bytes, value: bytes) -> bool:
        """Hand a record over that no answer waits for; whether there was room. What Kafka does not take is lost."""
        try:
            self._producer.produce(topic, value=value, key=key)
        except (BufferError, KafkaException):
            return False
        return True

    def encode(self, records: Sequence[KindAndRecord]) -> list[Outgoing]:
        """The records as Kafka takes them."""
        return [self._encoder.encode(kind, record) for kind, record in records]

    def encode_usage(self, batch: UsageBatch) -> list[Outgoing]:
        """The same, of usage in columns; without headers, which would cost as much as everything else."""
        topic, values = self._encoder.topic(InputKind.USAGE), batch.encode(self._encoder.schema_id(InputKind.USAGE))
        return [Outgoing(topic, org.encode(), value, []) for org, value in zip(batch.orgs, values, strict=True)]

    def _hand_over(self, outgoing: Sequence[Outgoing], delivery: _Delivery) -> None:
        for out in outgoing:
            try:
                if out.headers:
                    self._producer.produce(
                        out.topic, value=out.value, key=out.key, headers=out.headers, on_delivery=delivery.acknowledged
                    )
                else:
                    self._producer.produce(out.topic, out.value, out.key, on_delivery=delivery.acknowledged)
            except BufferError:
                raise BusyError from None
            except KafkaException as error:
                raise not_taken(str(error.args[0].str())) from error

    def _poll(self) -> None:
        while not self._stopping.is_set():
            self._producer.poll(POLL_S)


async def _all_acknowledged(delivery: _Delivery) -> None:
    """Return when all of them have arrived. Raises `KafkaUnavailableError`."""
    try:
        async with asyncio.timeout(ACKNOWLEDGED_TIMEOUT_S):
            await delivery.done
    except TimeoutError:
        raise not_taken("no answer in time") from None
    if delivery.problem is not None:
        raise not_taken(delivery.problem)


def not_taken(reason: str) -> KafkaUnavailableError:
    """What a request is told whose records Kafka has not acknowledged."""
    return KafkaUnavailableError(
        f"Kafka has not acknowledged the records ({reason}); send the same again, ids make that safe",
        "see `credits doctor`",
    )
