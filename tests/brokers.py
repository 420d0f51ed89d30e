"""Real brokers for tests: one shared by a session, or one of a test's own that it may stop and kill."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path

from streams.local.broker import LocalBroker
from streams.settings import Settings

SHARED_BROKER_VARIABLE = "CREDITS_TEST_BOOTSTRAP"
HEAP_MIB = 512


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def given_bootstrap_servers() -> str | None:
    """The address of a broker that the caller of the tests provides."""
    return os.environ.get(SHARED_BROKER_VARIABLE) or None


def local_broker(data_dir: Path, properties: Mapping[str, str | int] | None = None) -> LocalBroker:
    """A broker, not yet started, with its data under `data_dir` and a port of its own."""
    settings = test_settings(data_dir, broker_port=free_port(), broker_heap_mib=HEAP_MIB, broker_jit="quick")
    return LocalBroker(settings, properties=properties, dies_with_parent=True)


def test_settings(data_dir: Path, **values: object) -> Settings:
    """Settings that depend on nothing around the test: no environment of the caller's, no `.env`."""
    return Settings(_env_file=None, data_dir=data_dir, **values)  # type: ignore[arg-type]


test_settings.__test__ = False  # type: ignore[attr-defined]
