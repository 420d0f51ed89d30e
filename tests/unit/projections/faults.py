"""A ClickHouse that fails on purpose, around a real one."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import Any

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import OperationalError


class Faulty:
    """The client of another, whose inserts fail as planned: `lost` before anything happened, `full` as no
    room is left on the disk, `unanswered` after it was done.

    The plan has a word for each insert to come; when it is used up, inserts succeed.
    """

    def __init__(self, client: Client, plan: Iterable[str] = ()) -> None:
        self._client = client
        self._plan = iter(plan)
        self.inserts = 0

    def insert_arrow(self, table: str, rows: Any, **options: Any) -> Any:
        """As the client's own, or not."""
        fate = next(self._plan, "done")
        self.inserts += 1
        if fate == "lost":
            raise OperationalError("connection refused")
        if fate == "full":
            raise OSError(errno.ENOSPC, "No space left on device")
        answer = self._client.insert_arrow(table, rows, **options)
        if fate == "unanswered":
            raise OperationalError("connection reset")
        return answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)
