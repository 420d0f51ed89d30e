"""Examples for the description of the interface: values in addresses, and answers (`call_examples.json`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

VALUES: Final[Mapping[str | tuple[str, str], Any]] = MappingProxyType(
    {
        "org": "acme",
        "hold": "req-1",
        "lease": "lease-1",
        "number": 1,
        "kind": "wallet",
        "subject": "credits.holds.v1-value",
        "version": "latest",
        "schema_id": "1",
        "month": "2026-05",
        "day": "2026-05-01",
        "alert_id": "9f2c",
        "wallet": "USD",
        ("GET /v1/orgs/{org}/holds/{hold}", "hold"): "req-0",
        ("GET /v1/orgs/{org}/settings/{kind}", "subject"): "USD",
        ("GET /v1/orgs/{org}/transactions", "kind"): ["usage"],
        ("GET /v1/orgs/{org}/alerts", "kind"): ["credit_balance_low"],
    }
)
"""Of parameters by name; of one call's, by call and name."""

ANSWERS: Final[Mapping[str, Mapping[str, Any]]] = json.loads(
    Path(__file__).with_suffix(".json").read_text(encoding="utf-8")
)
"""Of a call: status and media type, and an answer. Tests compare them with what is answered."""
