"""docker-compose.yml as data, read once."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import yaml

from tests.tidy.source import ROOT

COMPOSE = ROOT / "docker-compose.yml"
# ${NAME} or ${NAME:-default}
SUBSTITUTION = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


@lru_cache
def compose() -> dict[str, Any]:
    """The file, with `${NAME:-default}` replaced by the default, as Docker does where nothing is set."""
    text = SUBSTITUTION.sub(lambda match: match[2] or "", COMPOSE.read_text(encoding="utf-8"))
    loaded = yaml.safe_load(text)
    assert isinstance(loaded, dict)
    return loaded


def services() -> dict[str, dict[str, Any]]:
    found = compose()["services"]
    assert isinstance(found, dict)
    return found


def ours() -> dict[str, dict[str, Any]]:
    """The services that run this project's own image."""
    return {name: service for name, service in services().items() if "build" in service}
