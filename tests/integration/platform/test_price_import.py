"""Price files of others on a real broker: a dry run, an import, the same again, a change, a correction of the past."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from schemas.times import parse_time
from streams.kafka.registry import connect_registry
from streams.ledger.rating import Price
from streams.processing.price_ties import published_prices
from streams.settings import Settings

FIRST, SECOND, EARLIER = "2026-10-01T00:00:00Z", "2026-11-01T00:00:00Z", "2026-09-01T00:00:00Z"
FILE = {
    "a": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 1e-6, "output_cost_per_token": 4e-6},
    "b": {"litellm_provider": "acme", "mode": "chat", "input_cost_per_token": 2e-6, "input_cost_per_token_flex": 1e-6},
}


def run(settings: Settings, folder: Path, entries: dict[str, Any], *options: str) -> dict[str, Any]:
    """The document that `credits prices import` prints for a file of these entries."""
    file = folder / "prices.json"
    file.write_text(json.dumps(entries))
    done = subprocess.run(
        [sys.executable, "-m", "streams", "prices", "import", "--format", "litellm", str(file), "--json", *options],
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("CREDITS_")},
            "CREDITS_KAFKA_BOOTSTRAP_SERVERS": settings.bootstrap_servers,
            "CREDITS_NAMESPACE": settings.namespace,
            "CREDITS_PARTITIONS": str(settings.partitions),
            "CREDITS_DATA_DIR": str(folder),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def published(settings: Settings) -> list[tuple[str | None, int, int, int | None]]:
    """Model, price, begin and end of the published prices of input tokens of the standard tier."""
    prices: list[Price] = list(published_prices(settings, connect_registry(settings)).prices)
    of_input = [price for price in prices if price.meter == "input_tokens" and price.service_tier is None]
    return sorted((each.model, each.unit_price_nanos, each.valid_from, each.valid_to) for each in of_input)


def test_a_file_is_planned_published_and_followed(settings: Settings, tmp_path: Path) -> None:
    first, second, earlier = (parse_time(text) for text in (FIRST, SECOND, EARLIER))
    shown = run(settings, tmp_path, FILE, "--valid-from", FIRST, "--dry-run")
    assert (shown["models"], shown["whole"], shown["new"], shown["published"]) == (2, 2, 4, 0)
    assert published(settings) == []

    assert run(settings, tmp_path, FILE, "--valid-from", FIRST)["published"] == 4
    assert published(settings) == [("a", 10**9, first, None), ("b", 2 * 10**9, first, None)]

    again = run(settings, tmp_path, FILE, "--valid-from", SECOND)
    assert (again["same"], again["published"]) == (4, 0)

    dearer = {"a": {**FILE["a"], "input_cost_per_token": 3e-6}}
    changed = run(settings, tmp_path, dearer, "--valid-from", SECOND)
    assert (changed["changed"], changed["gone"], changed["ended"], changed["published"]) == (1, 2, 1, 2)
    assert published(settings) == [
        ("a", 10**9, first, second),
        ("a", 3 * 10**9, second, None),
        ("b", 2 * 10**9, first, None),
    ]

    past = {"a": {**FILE["a"], "input_cost_per_token": 5e-6}}
    corrected = run(settings, tmp_path, past, "--valid-from", EARLIER, "--model", "a")
    assert (corrected["gone"], corrected["changed"], corrected["withdrawn"]) == (0, 2, 3)
    assert published(settings) == [("a", 5 * 10**9, earlier, None), ("b", 2 * 10**9, first, None)]
