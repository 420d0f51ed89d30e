"""What is installed with the system: one version and hashes for everything, known licences, an audit that says so."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from docs import audit, licences
from docs.audit import LOCKS, images, jars, lock_faults, missing, vulnerable
from docs.licences import Package, faults, is_free, locked, packages, page
from tests.tidy.source import ROOT

PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
HASH = "--hash=sha256:" + "0" * 64


def test_the_list_of_licences_is_up_to_date() -> None:
    found = packages()
    assert not faults(found)
    assert licences.PAGE.read_text(encoding="utf-8") == page(found), "run `make licences`"


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_every_package_has_one_version_and_hashes(lock: Path) -> None:
    assert not lock_faults(lock)
    assert len(locked(lock)) > 80
    assert "://" not in lock.read_text(encoding="utf-8"), "a lock names no index: whose is the operator's choice"


def test_the_locks_have_what_the_project_asks_for() -> None:
    run, dev = LOCKS
    assert not missing(PROJECT, run)
    assert not missing(PROJECT, dev, "dev")
    both = {(name, version) for name, version, _ in locked(run)}
    assert both <= {(name, version) for name, version, _ in locked(dev)}


def test_images_and_jars_have_versions() -> None:
    assert images()[0] == []
    assert jars() == []


@pytest.mark.fault(
    "open-lock",
    title="a lock of packages that lets something else in",
    provoked="lines without a version, without a hash, with an address, with a weak hash",
    holds="the audit names the line",
)
@pytest.mark.parametrize(
    ("line", "fault_text"),
    [
        (f"fastavro>=1 \\\n    {HASH}\n", "no single version"),
        ("fastavro @ https://example.org/fastavro.whl\n", "no single version"),
        ("fastavro==1.13.1\n", "no hash"),
        ("fastavro==1.13.1 \\\n    --hash=md5:0\n", "no hash"),
    ],
)
def test_a_lock_that_lets_something_else_in_is_a_fault(
    tmp_path: Path, line: str, fault_text: str, seen: Callable[[str], None]
) -> None:
    lock = tmp_path / "run.txt"
    lock.write_text(f"aiohttp==3.14.5 ; python_version < '4' \\\n    {HASH}\n{line}")
    (fault,) = lock_faults(lock)
    assert fault_text in fault
    seen("each line was named as a fault of the lock")


def test_a_dependency_that_is_not_locked_is_a_fault() -> None:
    more = PROJECT.replace("dependencies = [", 'dependencies = [\n    "no-such-package==1.0",\n    "fastavro==0.1",', 1)
    assert [fault.split(": ")[1] for fault in missing(more, LOCKS[0])] == [
        "no-such-package==1.0 is not in it",
        "fastavro==0.1 is not in it",
    ]


@pytest.mark.parametrize(
    ("licence", "free"),
    [
        ("MIT", True),
        ("Apache-2.0 AND MIT", True),
        ("Apache-2.0 OR GPL-3.0-only", True),
        ("MPL-2.0 AND (Apache-2.0 OR MIT)", False),
        ("LGPL-3.0-only", False),
        ("", False),
    ],
)
def test_a_licence_that_asks_for_more_needs_a_reason(licence: str, free: bool) -> None:
    assert is_free(licence) is free
    assert bool(faults([Package("unheard-of", "1.0", licence)])) is not free


class Osv(BaseHTTPRequestHandler):
    """Knows of one vulnerable package."""

    def do_POST(self) -> None:
        """Answer as OSV's batch query does."""
        queries = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["queries"]
        found = [{"vulns": [{"id": "X-1"}]} if each["package"]["name"] == "h11" else {} for each in queries]
        body = json.dumps({"results": found}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def osv() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Osv)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def test_a_known_vulnerability_fails_the_audit(
    osv: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (finding,) = vulnerable(osv)
    assert finding.startswith("h11 ")
    assert finding.endswith(": X-1")
    monkeypatch.setattr(audit, "offline_faults", list)
    monkeypatch.setattr(audit, "vulnerable", lambda: vulnerable(osv))
    assert audit.main([]) == 1
    assert finding in capsys.readouterr().out


def test_what_could_not_be_asked_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(audit, "offline_faults", list)
    monkeypatch.setattr(audit, "vulnerable", lambda: vulnerable("http://127.0.0.1:9/"))
    assert audit.main([]) == 0
    assert "known vulnerabilities: OSV cannot be asked" in capsys.readouterr().out
    assert audit.main(["--offline"]) == 0
    assert "not by digest: apache/kafka" in capsys.readouterr().out


def test_a_fault_found_offline_fails_the_audit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "offline_faults", lambda: ["something"])
    assert audit.main(["--offline"]) == 1
