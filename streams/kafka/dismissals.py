"""Which alerts were dismissed lately, in memory; and the writing of a dismissal.

The rules of this file:
1. A dismissal is a record of the compacted topic `dismissals`, under the alert's id: every process that serves HTTP
   follows it, and the projection writes it into ClickHouse, where all of them are.
2. In memory are the last `KEPT_MAX`. They are what the projection may not have yet, so that an alert that was dismissed
   a moment ago does not come back on the next page view.
3. `dismiss` returns once Kafka has the record. A second dismissal of an alert writes nothing: the first one counts.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from confluent_kafka import KafkaException, Message, Producer

from schemas.dismissals import Dismissal, dismissal_of
from streams.errors import KafkaUnavailableError
from streams.kafka.clients import producer_config
from streams.kafka.latest import LatestRecords
from streams.recent import remember

if TYPE_CHECKING:
    from streams.settings import Settings

KEPT_MAX: Final = 10_000
"""About 300 bytes each."""
FETCH_WAIT_MS: Final = 500
WRITE_TIMEOUT_S: Final = 5.0


class Dismissals(LatestRecords):
    """Follows the dismissals. Start it, ask it from any thread, close it."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, "dismissals", fetch_wait_ms=FETCH_WAIT_MS)
        self._kept: OrderedDict[tuple[str, str], Dismissal] = OrderedDict()
        self._producer: Producer | None = None
        self._writing = threading.Lock()

    def find(self, org_id: str, alert_id: str) -> Dismissal | None:
        """The dismissal of an alert, if it was one of the last."""
        return self._kept.get((org_id, alert_id))

    def dismiss(self, wanted: Dismissal) -> Dismissal:
        """Write a dismissal, unless there is one; the one that counts. Blocks. Raises `KafkaUnavailableError`."""
        with self._writing:
            known = self.find(wanted.org_id, wanted.alert_id)
            if known is not None:
                return known
            self._write(wanted)
            self._remember(wanted)
        return wanted

    def _write(self, wanted: Dismissal) -> None:
        failures: list[str] = []
        if self._producer is None:
            self._producer = Producer(
                producer_config(self._settings, linger_ms=0, message_timeout_ms=int(WRITE_TIMEOUT_S * 1_000))
            )
        try:
            self._producer.produce(
                self._topic,
                key=wanted.alert_id.encode(),
                value=wanted.encode(),
                on_delivery=lambda error, _: failures.append(str(error)) if error is not None else None,
            )
        except (BufferError, KafkaException) as error:
            failures.append(str(error))
        if self._producer.flush(WRITE_TIMEOUT_S + 1) or failures:
            raise KafkaUnavailableError(
                f"Kafka has not taken the dismissal ({failures[0] if failures else 'no answer'}); send it again",
                "see `credits doctor`",
            )

    def _keep(self, message: Message) -> None:
        found = dismissal_of(message.key(), message.value())
        if found is not None:
            self._remember(found)

    def _remember(self, found: Dismissal) -> None:
        remember(self._kept, (found.org_id, found.alert_id), found, KEPT_MAX)
