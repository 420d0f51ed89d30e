"""Other people's clients read what the ledger publishes: what is committed, and in a form that they can unpack."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Producer

from schemas.topics import CATALOGUE, Topics
from streams.kafka import topics_admin
from streams.kafka.clients import producer_config
from streams.settings import Settings

CLIENTS = Path(__file__).parents[2] / "clients"
RECORDS = 50


def publish(settings: Settings, topic: str) -> list[str]:
    """Write as the ledger's workers do: a transaction that is committed and one that is not. Its keys."""
    producer = Producer(producer_config(settings, transactional_id=f"{settings.namespace}ledger"))
    producer.init_transactions(30)
    producer.begin_transaction()
    for number in range(RECORDS):
        producer.produce(topic, key=f"aborted-{number}", value=b"a" * 500)
    producer.flush(30)
    producer.abort_transaction(30)
    producer.begin_transaction()
    keys = [f"org-{number}" for number in range(RECORDS)]
    for key in keys:
        producer.produce(topic, key=key, value=b"c" * 500)  # packs well
    producer.commit_transaction(30)
    return keys


def test_what_others_read_is_stored_without_compression() -> None:
    plain = {topic.key for topic in CATALOGUE if topic.more.get("compression.type") == "uncompressed"}
    alerts = {"alerts_threshold", "alerts_depletion", "alerts_topup"}
    assert plain == alerts | {"decisions", "topup_requests", "balances", "dead_letters"}


@pytest.mark.fault(
    "subscriber-without-lz4",
    title="a subscriber whose client cannot unpack LZ4",
    provoked="kafkajs reads a committed and an aborted transaction of alerts and decisions",
    holds="it reads what was committed, and nothing else",
)
@pytest.mark.slow
@pytest.mark.parametrize("key", ["alerts_threshold", "decisions"])
def test_kafkajs_reads_what_was_committed(
    settings: Settings, tmp_path: Path, key: str, seen: Callable[[str], None]
) -> None:
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("needs Node.js and npm")
    folder = tmp_path / "node"
    shutil.copytree(CLIENTS / "node", folder)
    installed = subprocess.run([npm, "install", "--no-audit"], cwd=folder, capture_output=True, text=True, timeout=120)
    assert installed.returncode == 0, installed.stderr
    topics_admin.apply(settings)
    topic = Topics(settings.namespace).name(key)
    keys = publish(settings, topic)
    command = [node, "read.js", settings.bootstrap_servers, topic, str(RECORDS)]
    read = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert read.returncode == 0, read.stderr
    assert sorted(read.stdout.split()) == sorted(keys)
    seen("kafkajs read the 50 committed records of each topic and none of the aborted ones")
