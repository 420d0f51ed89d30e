"""The HTTP interface of a running `serve` against its own description, on a real broker: the long form.

Whatever is sent, an answer comes in time, is a described one, and is no server's error; and what was taken is booked or
a dead letter, once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import schemathesis

from schemas.enums import InputKind
from schemas.topics import INPUT_TOPICS
from streams.kafka.reader import committed_ends, read_range
from streams.local.api_key import HEADER, local_key
from streams.settings import Settings
from tests.brokers import free_port
from tests.integration.engine.workers import until
from tests.integration.ledger.installation import LedgerInstallation
from tests.integration.platform.serving import Serve
from tests.unit.platform.conformance import try_every_call

EXAMPLES = 20
ANSWERED_S = 30.0


@pytest.mark.slow
@pytest.mark.timeout(3_600)
def test_every_answer_is_described_and_what_was_taken_is_booked(settings: Settings, tmp_path: Path) -> None:
    settings = settings.model_copy(update={"http_port": free_port()})
    serve = Serve(settings, tmp_path)
    with LedgerInstallation(settings, tmp_path) as installation:
        try:
            until(lambda: serve.get("/readyz")[0] == 200 or serve.process.poll() is not None, 180, "a ready serve")
            assert serve.get("/readyz")[0] == 200, serve.output
            installation.ready_worker()
            schema = schemathesis.openapi.from_url(f"{serve.address}/openapi.json")
            key = {HEADER: local_key(tmp_path) or ""}

            def ask(case: Any) -> Any:
                return case.call(headers=key, timeout=ANSWERED_S)

            statuses = try_every_call(schema, ask, EXAMPLES)
            assert len(statuses) >= 35
            assert statuses["POST /v1/orgs/{org}/purchases"][202] > 0
            topics = [installation.topics.name(INPUT_TOPICS[kind]) for kind in InputKind if kind is not InputKind.PRICE]
            batches = read_range(settings, {}, committed_ends(settings, topics))
            installation.sent = sum(len(records) for records in batches)
            installation.wait_until_booked()
            report = installation.report()
            assert report.ok, report.differences
            assert serve.get("/livez")[0] == 200
            assert "Traceback" not in serve.output
        finally:
            serve.process.kill()
