"""An organisation's id in an address: every id in every route, and never the id of somebody else."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.events import Usage
from streams.api.paths import SegmentConvertor, _segment
from streams.api.server import server_config
from streams.cli.http_client import org_path
from tests.brokers import test_settings
from tests.laws import examples
from tests.tidy.source import ROOT
from tests.unit.platform.http_server import open_door, seen_api, serving

DOCUMENTED = "GET /v1/orgs/{org}/"

IDS = [
    "".join(chr(each) for each in range(32, 127)),
    *"/%?#",
    " ",
    ".",
    "..",
    "...",
    "../acme",
    "a/b",
    "/a",
    "a/",
    "a//b",
    "a%2Fb",
    "a%252Fb",
    "%",
    "%zz",
    "a?b=c",
    "a#b",
    "a;b=c",
    "balance",
    "a/balance",
    "übung 東京 🙂",
    "+1 555",
    "x" * 128,
]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    with serving(server_config(seen_api(), test_settings(tmp_path_factory.mktemp("serve")), open_door())) as found:
        yield found


def org_paths() -> list[str]:
    """What comes after the organisation in each route that names one."""
    return [path.removeprefix("/v1/orgs/{org}") for path in seen_api().openapi()["paths"] if "{org}" in path]


def test_every_route_that_names_an_organisation_is_written_with_org() -> None:
    assert len(org_paths()) >= 9
    for path in (ROOT / "streams" / "api").rglob("*.py"):
        assert "orgs/{org}" not in path.read_text(encoding="utf-8").replace(DOCUMENTED, ""), f"{path}: write ORG"


@pytest.mark.fault(
    "org-addresses",
    title="Organisation ids that look like addresses",
    provoked="every printable character, slashes, dots, percent signs, %2F, unicode, in every route",
    holds="the handler is asked for that id",
)
@pytest.mark.parametrize("org", IDS)
def test_the_handler_is_asked_for_the_id_that_was_meant(
    address: tuple[str, int], org: str, seen: Callable[[str], None]
) -> None:
    Usage.model_validate({"event_id": "e", "org_id": org, "occurred_at": 0, "operation": "chat"})  # the ledger takes it
    client = http.client.HTTPConnection(*address, timeout=10)
    for rest in org_paths():
        path = org_path(org) + rest.replace("{number}", "1")
        client.request("GET", path)
        document = json.load(client.getresponse())
        assert (document["code"], document.get("org")) == ("seen", org), path
    client.close()
    seen(f"{len(org_paths())} routes asked for each of {len(IDS)} ids")


@settings(max_examples=examples(15))
@given(org=st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=40))
def test_no_two_ids_share_an_address(org: str) -> None:
    assert SegmentConvertor().convert(_segment(org_path(org).rpartition("/")[2].encode())) == org


@pytest.mark.parametrize("path", ["/v1/orgs/%FF/balance", "/v1/orgs/%ED%A0%80/balance"])
def test_what_is_not_utf8_names_nobody(address: tuple[str, int], path: str) -> None:
    client = http.client.HTTPConnection(*address, timeout=10)
    client.request("GET", path)
    answer = client.getresponse()
    assert (answer.status, json.load(answer)["code"]) == (400, "bad_request")
    client.close()


@pytest.mark.parametrize("path", ["/v1/orgs//balance", "/v1/orgs/a/b/balance", "/v1/orgs/acme/balance/"])
def test_a_slash_that_is_not_encoded_is_no_part_of_an_id(address: tuple[str, int], path: str) -> None:
    client = http.client.HTTPConnection(*address, timeout=10)
    client.request("GET", path)
    assert client.getresponse().status == 404
    client.close()
