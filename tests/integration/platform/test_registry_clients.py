"""Three of Confluent's own clients against the built-in registry: Python, JavaScript, Go. All see the same.

The two that are not Python's are fetched by npm and go, so they belong to the long suite, and skip where there is
neither. Their programs are in tests/clients/registry. Java's client is in a repository of Confluent's own, not on Maven
Central; it speaks the same calls.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from schemas.records import avro_schema, avro_text, bundled_id, versions
from schemas.topics import Topics
from streams.kafka import topics_admin
from streams.kafka.registry_topic import TopicRegistry
from streams.settings import Settings
from tests.integration.registry_server import RegistryServer

CLIENTS = Path(__file__).parents[2] / "clients" / "registry"
INSTALL_S = 300


@pytest.fixture(params=[True, False], ids=["read-only", "open"])
def given(request: pytest.FixtureRequest, settings: Settings) -> Iterator[dict[str, str]]:
    """What a scenario is told: where the registry is, and three schemas."""
    topics_admin.apply(settings)
    registry = TopicRegistry(settings.model_copy(update={"registry_read_only": request.param}))
    server = RegistryServer(registry)
    server.start()
    newer, millis = avro_schema("hold"), avro_schema("hold")
    newer["fields"].append({"name": "note", "type": ["null", "string"], "default": None})
    at = next(field for field in millis["fields"] if field["name"] == "occurred_at")
    at["type"] = {"type": "long", "logicalType": "timestamp-millis"}
    yield {
        "url": server.url,
        "subject": Topics(settings.namespace).subject("holds"),
        "schema": avro_text("hold"),
        "newer": json.dumps(newer),
        "millis": json.dumps(millis),
        "mode": "read-only" if request.param else "open",
    }
    server.stop()
    registry.close()


def expected(given: dict[str, str], settings: Settings) -> dict[str, Any]:
    """What every client sees; errors by Confluent's codes."""
    read_only = given["mode"] == "read-only"
    newest = bundled_id("hold")
    return {
        "subjects": sorted(Topics(settings.namespace).subjects),
        "versions": list(versions("hold")),
        "latest": [versions("hold")[-1], newest],
        "by_id": avro_schema("hold"),
        "looked_up": newest,
        "registered": newest,
        "level": "FULL_TRANSITIVE",
        "newer_fits": True,
        "millis_fit": False,
        "unknown_subject": 40401,
        "unknown_version": 40402,
        "unknown_id": 40403,
        "unknown_schema": 40403,
        "no_schema": 42201,
        "newer": 42205 if read_only else 0,
        "millis": 42205 if read_only else 409,
        "deleted": 42205,
        "level_changed": 42205,
    }


def run(command: list[str], folder: Path, given: dict[str, str]) -> dict[str, Any]:
    """The JSON that a scenario prints."""
    done = subprocess.run(
        command, cwd=folder, input=json.dumps(given), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def fetched(tool: str, command: list[str], folder: Path) -> None:
    """Have the tool fetch the client; skip where it is not there, or cannot."""
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    if done.returncode != 0:
        pytest.skip(f"{tool} cannot fetch the client: {done.stderr.strip()[-200:]}")


def test_python(given: dict[str, str], settings: Settings) -> None:
    client = SchemaRegistryClient({"url": given["url"], "max.retries": 0})
    subject = given["subject"]

    def refused(call: Any, *arguments: Any) -> int:
        try:
            call(*arguments)
        except SchemaRegistryError as error:
            return int(error.error_code)
        return 0

    latest = client.get_latest_version(subject)
    newer, millis = Schema(given["newer"], "AVRO"), Schema(given["millis"], "AVRO")
    assert {
        "subjects": client.get_subjects(),
        "versions": client.get_versions(subject),
        "latest": [latest.version, latest.schema_id],
        "by_id": json.loads(client.get_schema(latest.schema_id).schema_str or ""),
        "looked_up": client.lookup_schema(subject, Schema(given["schema"], "AVRO")).schema_id,
        "registered": client.register_schema(subject, Schema(given["schema"], "AVRO")),
        "level": client.get_compatibility(),
        "newer_fits": client.test_compatibility(subject, newer),
        "millis_fit": client.test_compatibility(subject, millis),
        "unknown_subject": refused(client.get_versions, "nosuch-value"),
        "unknown_version": refused(client.get_version, subject, 77),
        "unknown_id": refused(client.get_schema, 12_345),
        "unknown_schema": refused(client.lookup_schema, subject, newer),
        "no_schema": refused(client.register_schema, subject, Schema("{", "AVRO")),
        "newer": refused(client.register_schema, subject, newer),
        "millis": refused(client.register_schema, subject, millis),
        "deleted": refused(client.delete_subject, subject),
        "level_changed": refused(client.set_compatibility, None, "NONE"),
    } == expected(given, settings)


@pytest.mark.slow
def test_javascript(given: dict[str, str], settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp() / "registry-node"
    if not folder.exists():
        shutil.copytree(CLIENTS / "node", folder)
    command = ["npm", "install", "--no-package-lock", "--no-audit", "--ignore-scripts"]
    fetched("npm", command, folder)
    assert run(["node", "scenario.js"], folder, given) == expected(given, settings)


@pytest.mark.slow
def test_go(given: dict[str, str], settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp() / "registry-go"
    if not folder.exists():
        shutil.copytree(CLIENTS / "go", folder)
    fetched("go", ["go", "build", "-o", "scenario", "."], folder)
    assert run(["./scenario"], folder, given) == expected(given, settings)
