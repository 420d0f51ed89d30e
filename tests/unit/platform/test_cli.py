"""The command: lazy, one line an error, a status that tells."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from confluent_kafka import KafkaError, KafkaException

from projections.clickhouse import ClickHouseUnavailableError
from schemas.codec import RegistryUnavailableError
from schemas.enums import InputKind
from schemas.jsonl import short_names
from streams.cli import COMMANDS
from streams.cli.failures import explain
from streams.errors import OperatorError

ROOT = Path(__file__).parents[3]
HEAVY = ("confluent_kafka", "faust", "chdb", "clickhouse_connect", "pyarrow", "pydantic", "fastapi")
KEYS = {"CREDITS_API_KEYS_FILE": "keys.txt", "CREDITS_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "CREDITS_HTTP_PORT": "0"}


def credits(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user would, away from any `.env`."""
    return subprocess.run(
        [sys.executable, "-m", "streams", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT / "tests",
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )


def test_help_names_every_command_and_loads_none() -> None:
    code = (
        "import sys, streams.cli\n"
        "try: streams.cli.main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "[]"
    for each in COMMANDS:
        if importlib.util.find_spec(each.module) is not None:
            assert f" {each.name} " in done.stdout


@pytest.mark.parametrize("name", [each.name for each in COMMANDS if importlib.util.find_spec(each.module) is not None])
def test_every_command_explains_itself(name: str) -> None:
    listed = next(each for each in COMMANDS if each.name == name)
    assert isinstance(importlib.import_module(listed.module).app, typer.Typer)
    done = credits(name, "--help")
    assert done.returncode == 0, done.stderr
    assert f"credits {name}" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "environment", "status", "says"),
    [
        (["nosuch"], {}, 2, "No such command 'nosuch'"),
        (["doctr"], {}, 2, "Did you mean 'doctor'?"),
        (["config", "show", "--nosuch"], {}, 2, "`credits config show --help`"),
        (["config", "show"], {"CREDITS_PARTITIONS": "many"}, 1, "CREDITS_PARTITIONS is 'many'"),
        (["config", "show"], {"CREDITS_NAMESPACE": "a b"}, 1, "use letters, digits"),
        (
            ["serve"],
            {"CREDITS_CLICKHOUSE_URL": "ftp://a:b@c"},
            1,
            "CREDITS_CLICKHOUSE_URL is 'ftp://a:***@c': it must begin",
        ),
        (["serve"], KEYS, 1, "cannot read keys.txt (No such file or directory): set CREDITS_API_KEYS_FILE"),
        (["projector"], {}, 1, "run `credits serve`, which has HTTP and the projection in one"),
        (["projector"], {"CREDITS_CLICKHOUSE_URL": "chdb:///x"}, 1, "set CREDITS_CLICKHOUSE_URL=http://"),
        (["up"], KEYS, 1, "cannot read keys.txt (No such file or directory): set CREDITS_API_KEYS_FILE"),
        (["topics", "apply"], {"CREDITS_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}, 1, "no Kafka answers at 127.0.0.1:1"),
        (["topics", "apply"], {"CREDITS_KAFKA_SECURITY_PROTOCOL": "TLS"}, 1, "CREDITS_KAFKA_SECURITY_PROTOCOL"),
    ],
)
def test_an_error_is_one_line(arguments: list[str], environment: dict[str, str], status: int, says: str) -> None:
    done = credits(*arguments, **environment)
    assert done.returncode == status
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    assert says in lines[0]


def test_produce_lists_the_short_names_of_amounts() -> None:
    output = " ".join(credits("produce", "--help", COLUMNS="400").stdout.split())
    names = sorted({short for kind in InputKind for short in short_names(kind).values()})
    listed = ", ".join(names[:-1]) + f" or {names[-1]}"
    assert f"may give {listed}: whole units" in output


def test_produce_names_a_field_as_the_line_does(tmp_path: Path) -> None:
    file = tmp_path / "purchase.jsonl"
    line = {"purchase_id": "p", "org_id": "a", "occurred_at": "2026-01-01T00:00:00Z", "wallet": "USD", "amount": "0"}
    file.write_text(json.dumps(line))
    done = credits("produce", "purchase", "--file", str(file), "--dry-run")
    assert "line 1, amount: the amount must be above 0: nothing was sent" in done.stderr


def test_debug_adds_the_traceback() -> None:
    done = credits("config", "show", CREDITS_PARTITIONS="many", CREDITS_DEBUG="1")
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: CREDITS_PARTITIONS")


def test_an_error_is_json_too() -> None:
    done = credits("config", "show", "--json", CREDITS_PARTITIONS="many")
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["message"] == "CREDITS_PARTITIONS is 'many'"


def test_config_shows_origins_and_hides_secrets() -> None:
    secrets = {"CREDITS_KAFKA_SASL_PASSWORD": "hidden", "CREDITS_CLICKHOUSE_URL": "http://ann:hidden@ch:8123"}
    done = credits("config", "show", "--json", CREDITS_PARTITIONS="3", **secrets)
    document = json.loads(done.stdout)
    assert document["CREDITS_PARTITIONS"]["value"] == 3
    assert document["CREDITS_PARTITIONS"]["origin"] == "environment"
    assert document["CREDITS_HTTP_PORT"]["origin"] == "default"
    assert document["CREDITS_CLICKHOUSE_URL"]["value"] == "http://ann:***@ch:8123"
    assert "hidden" not in done.stdout


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (OperatorError("the port is taken", "set another"), "operator_error", "error: the port is taken: set another"),
        (KafkaException(KafkaError(KafkaError._TRANSPORT)), "kafka_unavailable", "credits up"),
        (KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)), "kafka_rights", "denies"),
        (KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)), "no_topics", "credits topics apply"),
        (FileNotFoundError(2, "No such file", "x.jsonl"), "system", "x.jsonl: No such file"),
        (KeyboardInterrupt(), "interrupted", "interrupted"),
        (RegistryUnavailableError("no answer"), "registry_unavailable", "CREDITS_SCHEMA_REGISTRY_URL"),
        (ClickHouseUnavailableError("no answer"), "clickhouse_unavailable", "CREDITS_CLICKHOUSE_URL"),
        (ValueError("odd\nand more"), "bug", "unexpected ValueError: odd: this is a bug"),
    ],
)
def test_errors_are_explained(error: BaseException, code: str, says: str) -> None:
    failure = explain(error)
    assert failure.code == code
    assert says in failure.line
    assert "\n" not in failure.line
    assert failure.status != 0


def test_released_schemas_are_compatible() -> None:
    document = json.loads(credits("schemas", "check", "--json").stdout)
    assert document["ok"] is True
    assert document["records"]["usage"] >= 1


def test_doctor_says_what_to_mend_and_fails(tmp_path: Path) -> None:
    away = {"CREDITS_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "CREDITS_DATA_DIR": str(tmp_path)}
    done = credits("doctor", "--json", **away)
    document = json.loads(done.stdout)
    failed = {each["name"]: each for each in document["checks"] if each["verdict"] == "failed"}
    assert (done.returncode, document["ok"]) == (1, False)
    assert failed.keys() == {"kafka"}
    assert "CREDITS_KAFKA_BOOTSTRAP_SERVERS" in failed["kafka"]["remedy"]
    assert list(tmp_path.iterdir()) == [], "a check changes nothing"


def test_doctor_tells_a_misspelt_setting(tmp_path: Path) -> None:
    done = credits("doctor", "--json", CREDITS_DATA_DIR=str(tmp_path), **{"CREDITS" + "_HTTP_PROT": "8081"})
    checks = {each["name"]: each for each in json.loads(done.stdout)["checks"]}
    assert checks["settings"]["verdict"] == "note"
    assert "_PROT (meant CREDITS_HTTP_PORT?)" in checks["settings"]["found"]
