"""The dead letter of a record: all its bytes, and why. What no topic would take is cut (`schemas.dead_letters`)."""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from schemas.dead_letters import (
    CODE_HEADER,
    EXCEPTION_HEADER,
    HEADERS_KEPT_BYTES,
    HEADERS_PREFIX,
    KEY_KEPT_BYTES,
    KEY_PREFIX,
    MESSAGE_HEADER,
    OFFSET_HEADER,
    PARTITION_HEADER,
    TOPIC_HEADER,
    VALUE_KEPT_BYTES,
    VALUE_PREFIX,
    WHOLE_BYTES_MAX,
    header_bytes,
    record_bytes,
)
from schemas.enums import DeadLetterCode
from streams.engine.ports import Keyed
from streams.kafka.inbound import Headers, Inbound

MESSAGE_CHARACTERS_MAX: Final = 500
"""Of the sentence in a dead letter's header."""

ErrorHeaders = dict[str, str]
"""Headers that the ledger adds."""


def dead_letter(topic: str, inbound: Inbound, index: int, code: DeadLetterCode, message: str) -> Keyed:
    """What goes to `topic`, the dead letters', for record `index` of a batch that could not be booked."""
    key, value = inbound.keys[index], inbound.values[index]
    headers = inbound.headers[index] if inbound.headers else ()
    error_headers = {
        TOPIC_HEADER: inbound.topic,
        PARTITION_HEADER: str(inbound.partition),
        OFFSET_HEADER: str(inbound.offsets[index]),
        EXCEPTION_HEADER: code.value,
        MESSAGE_HEADER: message[:MESSAGE_CHARACTERS_MAX],
        CODE_HEADER: code.value,
    }
    if record_bytes(key, value, headers) > WHOLE_BYTES_MAX:
        value = _cut(value, VALUE_KEPT_BYTES, VALUE_PREFIX, error_headers)
        key = _cut(key, KEY_KEPT_BYTES, KEY_PREFIX, error_headers)
        headers = _first(headers, error_headers)
    added = [(name, text.encode()) for name, text in error_headers.items()]
    return Keyed(topic=topic, key=key, value=value, headers=[*headers, *added], partition=inbound.partition)


def _cut(part: bytes | None, kept: int, prefix: str, error_headers: ErrorHeaders) -> bytes | None:
    """The first `kept` bytes; tells what the whole was, when that is less."""
    if part is None or len(part) <= kept:
        return part
    error_headers[f"{prefix}bytes"] = str(len(part))
    error_headers[f"{prefix}sha256"] = sha256(part).hexdigest()
    return part[:kept]


def _first(headers: Headers, error_headers: ErrorHeaders) -> Headers:
    """The headers for which there is room; tells how many there are more."""
    kept: list[tuple[str, bytes]] = []
    size = 0
    for header in headers:
        size += header_bytes(*header)
        if size > HEADERS_KEPT_BYTES:
            break
        kept.append(header)
    if len(kept) < len(headers):
        error_headers[f"{HEADERS_PREFIX}bytes"] = str(record_bytes(None, None, headers))
        error_headers[f"{HEADERS_PREFIX}left_out"] = str(len(headers) - len(kept))
    return kept
