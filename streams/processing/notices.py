"""What an operator should know of a partition's records, in the log: a line a minute at most for each.

The metrics count every record (`streams.metrics`); a line names the likely cause and what to do. A producer with
another partitioner sends thousands of such records a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from logging import Logger
from typing import Final, assert_never

from schemas.partitioner import REMEDY
from streams.engine.ports import NoticeName
from streams.logging import OncePerInterval

LINE_INTERVAL_S: Final = 60.0


class NoticeLog:
    """Writes the lines. It remembers the last line of each topic, partition and notice: the catalogue bounds them."""

    def __init__(self, log: Logger, usage_window_hours: int) -> None:
        self._log = log
        self._usage_window_hours = usage_window_hours
        self._logged = OncePerInterval(LINE_INTERVAL_S)
        self._unlogged: dict[tuple[str, int, NoticeName], int] = {}

    def committed(self, partition: int, notices: Mapping[str, Mapping[NoticeName, int]], now_s: float) -> None:
        """Count the notices of one committed batch at the monotonic time `now_s`; write the lines that are due."""
        for topic, counts in notices.items():
            for notice, count in counts.items():
                name = (topic, partition, notice)
                records = self._unlogged.pop(name, 0) + count
                if self._logged.is_due(name, now_s):
                    self._write(topic, partition, notice, records)
                else:
                    self._unlogged[name] = records

    def _write(self, topic: str, partition: int, notice: NoticeName, records: int) -> None:
        match notice:
            case "wrong_partition":
                self._log.warning(
                    "%s partition %s: %s records lie in a partition that is not their key's (dead letters "
                    "wrong_partition); most likely %s; then `credits dead-letters replay --code wrong_partition`",
                    topic,
                    partition,
                    records,
                    REMEDY,
                )
            case "old_id":
                self._log.warning(
                    "%s partition %s: %s usage events were booked under ids made more than %s hours before they "
                    "arrived; ids that old are forgotten, so what was booked then is booked twice; send usage again "
                    "with its first occurred_at, or raise CREDITS_USAGE_WINDOW_HOURS",
                    topic,
                    partition,
                    records,
                    self._usage_window_hours,
                )
            case _:
                assert_never(notice)
