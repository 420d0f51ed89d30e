"""`credits serve`, `api` or `projector` as a process of a test's own, and what it answers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

from streams.local.api_key import HEADER, local_key
from streams.settings import Settings


class Serve:
    """The command, its lines in a file."""

    def __init__(self, settings: Settings, folder: Path, command: str = "serve") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.address = f"http://127.0.0.1:{settings.http_port}"
        self.metrics_port = settings.worker_metrics_port
        named = (
            "kafka_bootstrap_servers",
            "namespace",
            "partitions",
            "session_timeout_ms",
            "clickhouse_url",
            "http_port",
            "worker_metrics_port",
        )
        given = settings.model_dump(include=set(named), exclude_none=True)
        environment = {f"CREDITS_{name.upper()}": str(value) for name, value in given.items()}
        if settings.internal_key is not None:
            environment["CREDITS_INTERNAL_KEY"] = settings.internal_key.get_secret_value()
        self._log = folder / f"{command}.log"
        with self._log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "streams", command],
                env={**os.environ, **environment, "CREDITS_DATA_DIR": str(folder)},
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    @property
    def output(self) -> str:
        """Everything it has said."""
        return self._log.read_text()

    def get(self, path: str) -> tuple[int, Any]:
        """Status and document; 0 when it does not answer."""
        headers = {HEADER: local_key(self._log.parent) or ""}
        try:
            answer = httpx.get(f"{self.address}{path}", headers=headers, timeout=20, trust_env=False)
        except httpx.TransportError:
            return 0, None
        return answer.status_code, answer.json()

    def waits_for(self, part: str) -> str:
        """What `/readyz` says of a part."""
        _, document = self.get("/readyz")
        return str(document["parts"][part]) if document else "does not answer"


def projected(serve: Serve) -> int:
    """How many entries ClickHouse has; 0 when it cannot be asked."""
    status, document = serve.get("/internal/clickhouse/audit")
    return int(document["entries"]) if status == 200 else 0
