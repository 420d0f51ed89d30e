"""What `serve` answers from ClickHouse before its tables are there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from clickhouse_connect.driver.exceptions import OperationalError

from streams.api import clickhouse_clients, projection
from tests.brokers import test_settings


def test_a_question_before_the_migrations_are_done_is_answered_as_by_a_server_that_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = projection.Projection(test_settings(tmp_path))
    asking = made.client()
    answers: list[Any] = []

    class Client:
        """Answers everything."""

        def query(self, sql: str) -> str:
            """As the real one."""
            return f"rows of {sql}"

    def migrate(_: Client) -> list[int]:
        with pytest.raises(OperationalError, match="has not answered yet"):
            asking.query("SELECT 1")
        answers.append("refused")
        return []

    for module in (projection, clickhouse_clients):
        monkeypatch.setattr(module, "connect", lambda _, create=True: Client())
    monkeypatch.setattr(projection, "migrate", migrate)
    assert made._connect() is None
    assert answers == ["refused"]
    assert str(asking.query("SELECT 1")) == "rows of SELECT 1"
