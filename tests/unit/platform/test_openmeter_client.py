"""OpenMeter's official Python SDK against our ingest, installed into an environment of its own (the long suite)."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import uvicorn

from tests.unit.platform.http_server import serving
from tests.unit.platform.test_api_keys import made
from tests.unit.platform.whole_api import WholeApi

CLIENT = Path(__file__).parents[2] / "clients" / "openmeter"
INSTALL_S = 600


@pytest.mark.slow
@pytest.mark.timeout(INSTALL_S + 120)
def test_the_official_client_sends_usage(tmp_path: Path) -> None:
    token, key = made(1)
    whole = WholeApi([key])
    folder = tmp_path / "venv"
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    install: list[str | Path] = [
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--require-hashes",
        "-r",
        CLIENT / "requirements.txt",
    ]
    done = subprocess.run(install, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    assert done.returncode == 0, done.stderr[-2_000:]
    with serving(uvicorn.Config(whole.app, log_config=None, lifespan="off")) as (host, port):
        script: list[str | Path] = [python, CLIENT / "send.py", f"http://{host}:{port}", token]
        done = subprocess.run(script, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-2_000:]
    refused = json.loads(done.stdout)
    assert (refused["status"], refused["body"]["code"], refused["body"]["index"]) == (422, "invalid_field", 1)
    sent = [record.to_record() for _, record in whole.intake.sent]
    names = ("event_id", "org_id", "operation", "model", "input_tokens", "output_tokens")
    assert [tuple(record[name] for name in names) for record in sent] == [
        ("e1", "acme", "prompt", "gpt-4o", 101, None),
        ("e2", "acme", "prompt", "gpt-4o", 102, None),
        ("e3", "acme", "prompt", None, 5, 10),
    ]
