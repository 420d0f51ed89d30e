"""Every problem that the HTTP interface answers with: code, status, an example of its sentence. Pure.

The rules of this file:
1. A code is stable: it is added here, and never renamed. A test finds every code in the routes, and compares.
2. OpenAPI shows each problem of a route as an example (`streams.api.openapi`). A route names its codes in the
   descriptions of its answers; what the door, the guard and the framework answer is added to every route.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Example:
    """A problem as a client sees it."""

    status: int
    detail: str
    members: Mapping[str, Any] = field(default_factory=dict)


REFUSED_HOLD: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "org_id": "acme",
        "hold_id": "req-1",
        "action": "place",
        "allowed": False,
        "granted": "0",
        "available": "1",
        "expires_at": None,
        "entry_seq": 43,
        "limit_id": None,
        "window": None,
        "ends_at": None,
    }
)
"""What a hold's refusal says besides."""

PROBLEMS: Final[Mapping[str, Example]] = MappingProxyType(
    {
        "bad_request": Example(400, "the address is not UTF-8 in percent-encoding"),
        "not_json": Example(400, "the body is not JSON as it is taken here: Expecting value"),
        "not_a_check": Example(400, "a check is a JSON object"),
        "not_an_event": Example(400, "application/cloudevents+json is one JSON object; a list is …-batch+json"),
        "unauthorized": Example(401, "present an API key that is known here: `Authorization: Bearer credits_…`"),
        "key_expired": Example(401, "this API key has expired: `credits keys create` makes another one"),
        "key_revoked": Example(401, "this API key was revoked"),
        "credits_not_available": Example(402, "Not enough credits are available.", REFUSED_HOLD),
        "credits_held": Example(402, "The credits are held by other work.", REFUSED_HOLD),
        "limit_reached": Example(
            402,
            "Limit team-day of 10 USD a day is reached.",
            {**REFUSED_HOLD, "limit_id": "team-day", "window": "day", "ends_at": "2026-05-02T00:00:00Z"},
        ),
        "model_not_allowed": Example(403, "Model gpt-4 is not allowed.", REFUSED_HOLD),
        "blocked": Example(403, "The organisation is closed.", REFUSED_HOLD),
        "not_authorized": Example(403, "this needs a key with the role admin or payments"),
        "forbidden": Example(403, "for programs of this machine, with the key in the data folder"),
        "not_found": Example(404, "Not Found"),
        "unknown_org": Example(404, "the ledger has no entry of 'acme'"),
        "unknown_number": Example(404, "'acme' has no invoice 7"),
        "unknown_wallet": Example(404, "'acme' has no wallet 'EUR'"),
        "unknown_alert": Example(404, "'acme' has no alert '9f2c', or none yet: try again"),
        "month_to_come": Example(404, "2099-01 has not begun"),
        "unknown_setting": Example(404, "nobody has sent a setting wallet of that subject"),
        "unknown_setting_kind": Example(404, "kinds are org, wallet, budget, thresholds, month_limits, …"),
        "unknown_hold": Example(404, "No such hold is active."),
        "method_not_allowed": Example(405, "Method Not Allowed"),
        "request_timeout": Example(408, "the body did not come within 20 s"),
        "idempotency_key_in_use": Example(409, "the first request with this key is still being answered"),
        "hold_id_reused": Example(409, "a hold with this id was placed with other content: take another id"),
        "already_resolved": Example(409, "The hold was resolved before."),
        "not_dismissable": Example(409, "this alert stays until what it is about has changed"),
        "price_tie": Example(409, "price gpt-4o and price gpt-4o-new could match the same usage equally well"),
        "position_lost": Example(410, "alerts that follow this position are no longer in Kafka: begin without it"),
        "version_mismatch": Example(412, "the setting was changed since: read it again", {"etag": '"5f1b…"'}),
        "body_too_large": Example(413, "a body has at most 1048576 bytes"),
        "batch_too_large": Example(413, "a batch has at most 1,000 events, not 10,000"),
        "unsupported_media_type": Example(415, "send application/json"),
        "host_not_allowed": Example(421, "this name is not answered here: list it in CREDITS_HTTP_ALLOWED_HOSTS"),
        "invalid_field": Example(422, 'amount: write it as a decimal string, such as "12.5"', {"field": "amount"}),
        "too_wide": Example(422, "more than 10,000 rows: take a shorter range, fewer groups, or a filter"),
        "amount_out_of_range": Example(422, "amount: must be within ±9000000000", {"field": "amount"}),
        "empty_batch": Example(422, "the list holds no event"),
        "unknown_price": Example(422, "there is no price for operation chat, model gpt-9"),
        "query_refused": Example(422, "system.one: only the tables and views of the data dictionary are read"),
        "idempotency_key_reused": Example(422, "this Idempotency-Key was used with another body"),
        "invalid_idempotency_key": Example(422, "an Idempotency-Key has 1 to 128 printable ASCII characters"),
        "rate_limited": Example(429, "this key may make 100 requests a second"),
        "internal_error": Example(500, "an unexpected error; the server's log has the details"),
        "statement_broken": Example(500, "the movements of 2026-05 do not add up: run `credits verify`"),
        "busy": Example(503, "too many records wait for Kafka: try again"),
        "too_many_streams": Example(503, "200 streams are open here"),
        "kafka_unavailable": Example(503, "Kafka has not acknowledged the records; send the same again"),
        "no_progress": Example(503, "Kafka sent nothing new for 5 s"),
        "not_yet": Example(503, "entry 7 of 'acme' has not been read yet"),
        "account_unreadable": Example(503, "the account of 'acme' cannot be read: its checksum is not valid"),
        "rebuilding": Example(503, "the account of 'acme' is being rebuilt"),
        "clickhouse_unavailable": Example(503, "ClickHouse does not answer; try again"),
        "registry_unavailable": Example(503, "the schema registry cannot be asked: timed out"),
        "operator_error": Example(503, "a part that the answer needs is not there"),
    }
)  # fmt: skip

EVERYWHERE: Final[Mapping[int, tuple[str, ...]]] = MappingProxyType(
    {
        400: ("bad_request",),
        408: ("request_timeout",),
        413: ("body_too_large",),
        421: ("host_not_allowed",),
        503: ("busy",),
    }
)
"""What every call may be answered, by status: of the guard and of addresses."""

BEHIND_THE_DOOR: Final[Mapping[int, tuple[str, ...]]] = MappingProxyType(
    {
        401: ("unauthorized", "key_expired", "key_revoked"),
        403: ("not_authorized",),
        429: ("rate_limited",),
    }
)
"""What every call that needs a key may be answered."""
