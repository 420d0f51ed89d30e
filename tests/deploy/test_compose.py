"""docker-compose.yml, checked by its parts: there is no Docker where these tests run.

What a typing error could break is looked at: that the file parses, that every variable of ours is a setting with a
value that the settings take, that what is mounted exists, that images have a version, that every service says when
it is healthy and waits for what it needs, that hosts and ports named between services agree.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from prometheus_client import CollectorRegistry

from streams.api.projector import check_server
from streams.cli import COMMANDS
from streams.metrics import PrometheusMetrics
from streams.settings import Settings
from tests.deploy.compose import COMPOSE, SUBSTITUTION, compose, ours, services
from tests.tidy.source import ROOT

EACH = pytest.mark.parametrize("name", services())
VERSION = re.compile(r"\d+\.\d+\.\d+")


def environment(name: str) -> dict[str, str]:
    return {key: str(value) for key, value in services()[name].get("environment", {}).items()}


def container_ports(name: str) -> set[int]:
    """Ports this service listens on: the ones it publishes, and the ones its own environment names."""
    published = {int(str(port).rsplit(":", 1)[1]) for port in services()[name].get("ports", [])}
    named = {int(port) for value in environment(name).values() for port in re.findall(r"//[\w.]*:(\d+)", value)}
    own = {int(value) for key, value in environment(name).items() if key.endswith("_PORT") and value.isdigit()}
    return published | named | own


def test_the_parts_are_there() -> None:
    assert {"kafka", "schema-registry", "clickhouse", "worker", "api", "projector", "grafana"} <= set(services())
    assert set(ours()) == {"worker", "api", "projector"}


def test_http_and_the_projection_ask_one_clickhouse_server() -> None:
    """A folder of chDB would belong to one of them (`streams.api.projector.check_server`)."""
    given = {environment(name)["CREDITS_CLICKHOUSE_URL"] for name in ("api", "projector")}
    assert len(given) == 1
    check_server(Settings.model_validate({"clickhouse_url": given.pop()}))


@EACH
def test_images_have_a_version(name: str) -> None:
    image = services()[name]["image"]
    assert VERSION.search(image.partition(":")[2]), f"{name}: {image} is not pinned"


def test_the_broker_is_the_one_that_the_local_broker_runs() -> None:
    pom = (ROOT / "streams" / "local" / "pom.xml").read_text(encoding="utf-8")
    version = VERSION.search(services()["kafka"]["image"])
    assert version is not None
    assert f">{version.group()}<" in pom


def test_the_own_image_has_the_project_s_version() -> None:
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert version is not None
    assert {service["image"] for service in ours().values()} == {f"credits-ledger:{version[1]}"}


@EACH
def test_every_service_says_when_it_is_healthy(name: str) -> None:
    check = services()[name]["healthcheck"]
    assert check["test"][0] in {"CMD", "CMD-SHELL"}
    assert len(check["test"]) > 1
    assert {"interval", "timeout", "retries"} <= set(check)


@EACH
def test_what_it_waits_for_exists_and_is_waited_for_until_healthy(name: str) -> None:
    for other, how in services()[name].get("depends_on", {}).items():
        assert other in services()
        assert how == {"condition": "service_healthy"}


@EACH
def test_nothing_is_open_to_the_network(name: str) -> None:
    for port in services()[name].get("ports", []):
        assert str(port).startswith("127.0.0.1:"), f"{name} publishes {port} on every interface"


@EACH
def test_mounted_files_exist(name: str) -> None:
    for volume in services()[name].get("volumes", []):
        source, target, *mode = volume.split(":")
        if source.startswith("."):
            assert (ROOT / source).exists(), f"{name} mounts {source}, which is not there"
            assert mode == ["ro"], f"{name} could write to {source}"
        else:
            assert source in compose()["volumes"], f"{name}: volume {source} is not declared"
        assert target.startswith("/")


@pytest.mark.parametrize("name", ours())
def test_every_variable_of_ours_is_a_setting_and_its_value_is_taken(name: str) -> None:
    given = {key.removeprefix("CREDITS_").lower(): value for key, value in environment(name).items()}
    assert all(key.startswith("CREDITS_") for key in environment(name))
    assert set(given) <= set(Settings.model_fields)
    settings = Settings.model_validate(given)
    assert settings.kafka_bootstrap_servers, f"{name} would look for Java to start a broker of its own"
    assert settings.schema_registry_url


@pytest.mark.parametrize("name", ours())
def test_what_it_says_can_be_collected_and_it_has_the_time_to_stop(name: str) -> None:
    given = {key.removeprefix("CREDITS_").lower(): value for key, value in environment(name).items()}
    settings = Settings.model_validate(given)
    assert settings.log_format == "json"
    grace = re.fullmatch(r"(\d+)s", services()[name]["stop_grace_period"])
    assert grace is not None
    assert int(grace[1]) > settings.stop_grace_s


def test_variables_of_the_host_that_are_ours_are_settings() -> None:
    named = {match[1] for match in SUBSTITUTION.finditer(COMPOSE.read_text(encoding="utf-8"))}
    for variable in named:
        if variable.startswith("CREDITS_"):
            assert variable.removeprefix("CREDITS_").lower() in Settings.model_fields


@pytest.mark.parametrize("name", ours())
def test_commands_of_ours_exist(name: str) -> None:
    assert services()[name]["command"][0] in {command.name for command in COMMANDS}


def test_hosts_and_ports_between_services_agree() -> None:
    """A URL that names a service names a port on which that service listens."""
    for name in services():
        for key, value in environment(name).items():
            for part in value.split(","):
                host, port = host_and_port(part)
                if host in services() and host != name:
                    assert port in container_ports(host), f"{name}: {key}={value}, but {host} does not listen there"


def host_and_port(value: str) -> tuple[str | None, int | None]:
    try:
        url = urlsplit(value if "://" in value else f"//{value}")
        return url.hostname, url.port
    except ValueError:
        return None, None


def test_the_broker_keeps_the_promises_that_the_ledger_needs() -> None:
    kafka = environment("kafka")
    assert kafka["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"
    assert any(str(volume).endswith(kafka["KAFKA_LOG_DIRS"]) for volume in services()["kafka"]["volumes"])
    assert environment("schema-registry")["SCHEMA_REGISTRY_SCHEMA_COMPATIBILITY_LEVEL"] == "full_transitive"


@pytest.mark.parametrize("path", sorted((ROOT / "deploy" / "clickhouse").glob("*.xml")), ids=lambda path: path.name)
def test_files_of_clickhouse_parse(path: Path) -> None:
    assert ElementTree.parse(path).getroot().tag == "clickhouse"


def test_dashboards_read_as_a_user_who_cannot_write() -> None:
    source = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/credits.yml").read_text(encoding="utf-8"))
    clickhouse = next(one for one in source["datasources"] if one["type"] == "grafana-clickhouse-datasource")[
        "jsonData"
    ]
    users = ElementTree.parse(ROOT / "deploy/clickhouse/reader.xml").getroot()
    reader = users.find(f"users/{clickhouse['username']}")
    assert reader is not None
    profile = reader.findtext("profile")
    assert users.findtext(f"profiles/{profile}/readonly") == "2"
    assert [grant.text for grant in reader.iterfind("grants/query")] == [
        f"GRANT SELECT ON {clickhouse['defaultDatabase']}.*"
    ]
    assert clickhouse["port"] in container_ports(clickhouse["host"])


def test_prometheus_asks_services_that_exist() -> None:
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text(encoding="utf-8"))
    jobs: dict[str, dict[str, Any]] = {job["job_name"]: job for job in config["scrape_configs"]}
    assert set(jobs) == set(ours())
    for name in ("worker", "projector"):
        found = jobs[name]["dns_sd_configs"][0]
        assert found["names"] == [name]
        assert found["port"] == int(environment(name)["CREDITS_WORKER_METRICS_PORT"])
    assert jobs["api"]["static_configs"][0]["targets"] == [f"api:{environment('api')['CREDITS_HTTP_PORT']}"]


def test_the_alerts_name_metrics_that_there_are_and_are_read_by_prometheus() -> None:
    folder = ROOT / "deploy" / "prometheus"
    groups = yaml.safe_load((folder / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    rules = {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"]}
    assert "CreditsOldIds" in rules
    registry = CollectorRegistry()
    PrometheusMetrics(registry)
    # A counter's name is kept without its ending.
    known = {name for metric in registry.collect() for name in (metric.name, f"{metric.name}_total")}
    for expression in rules.values():
        named = set(re.findall(r"credits_\w+", expression))
        assert named
        assert named <= known
    read = yaml.safe_load((folder / "prometheus.yml").read_text(encoding="utf-8"))["rule_files"]
    mounted = {str(volume).split(":")[1] for volume in services()["prometheus"]["volumes"]}
    assert {f"/etc/prometheus/{name}" for name in read} <= mounted
