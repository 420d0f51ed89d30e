"""What bytes are that are not in Confluent wire format, as far as they show it, and how to send such a thing.

Rules of this file: a look at the first and the last byte, no parsing. Whether a value is Avro without a frame is for
the codec to say, which can read it.
"""

from __future__ import annotations

from typing import Final

CONTAINER_FILE: Final = b"Obj\x01"
SINGLE_OBJECT: Final = b"\xc3\x01"
JSON_ENDS: Final = {b"{": b"}", b"[": b"]"}

AS_AVRO: Final = "use the Avro serializer of a schema registry client, which puts byte 0 and the schema id in front"
BARE_AVRO: Final = f"the value is Avro without the five bytes in front: {AS_AVRO}"


def hint(record: str, value: bytes) -> str | None:
    """What the value looks like, and what to do; None when it looks like nothing that is known."""
    start = value[:64].lstrip()[:1]
    if start in JSON_ENDS and value[-64:].rstrip()[-1:] == JSON_ENDS[start]:
        return f"the value is JSON, this topic takes Avro: send JSON with `credits produce {record}`, or {AS_AVRO}"
    if value.startswith(CONTAINER_FILE):
        return f"the value is an Avro file with a schema of its own, this topic takes single records: {AS_AVRO}"
    if value.startswith(SINGLE_OBJECT):
        return f"the value is in Avro's single-object encoding: {AS_AVRO}"
    return None
