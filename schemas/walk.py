"""A walk through an Avro body, number by number.

Rules of this file: fastavro and pyruhvro both keep 64 bits of a longer number and drop the rest without a word, so that
2⁶⁴ would be booked as 0. A body that is not encoded the usual way is therefore walked before it is believed; the usual
way (the same bytes come out when it is encoded again) needs no walk.
"""

from __future__ import annotations

from typing import Any

VARINT_BYTES_MAX = 10
"""Ten groups of seven bits hold 64 bits, with one bit left for the last."""

_FIXED_BYTES = {"null": 0, "boolean": 1, "float": 4, "double": 8}


def numbers_fit(schema: Any, body: bytes) -> bool:
    """Whether every number in the body of a plain schema fits 64 bits, and the body ends where the record does."""
    walk = _Walk(body)
    try:
        walk.value(schema)
    except (IndexError, OverflowError):
        return False
    return walk.place == len(body)


class _Walk:
    def __init__(self, body: bytes) -> None:
        self.body = body
        self.place = 0
        self.named: dict[str, Any] = {}

    def value(self, schema: Any) -> None:
        """Pass over one value; IndexError where the body ends too early, OverflowError where a number is too long."""
        if isinstance(schema, list):
            return self.value(schema[self.number()])
        kind = schema if isinstance(schema, str) else schema["type"]
        match kind:
            case "int" | "long" | "enum":
                self.number()
            case "string" | "bytes":
                self.skip(self.number())
            case "array" | "map":
                self.blocks(schema, keyed=kind == "map")
            case "record":
                self.named[schema["name"]] = schema
                for field in schema["fields"]:
                    self.value(field["type"])
            case "fixed":
                self.named[schema["name"]] = schema
                self.skip(schema["size"])
            case kind if kind in _FIXED_BYTES:
                self.skip(_FIXED_BYTES[kind])
            case name:
                self.value(self.named[name.rpartition(".")[2]])
        return None

    def blocks(self, schema: Any, *, keyed: bool) -> None:
        """The blocks of an array or a map; a count below 0 says that the block's bytes follow it."""
        while count := self.number():
            if count < 0:
                self.number()
            for _ in range(abs(count)):
                if keyed:
                    self.skip(self.number())
                self.value(schema["values"] if keyed else schema["items"])
                if self.place > len(self.body):
                    raise IndexError

    def number(self) -> int:
        """One zigzag varint of at most 64 bits."""
        coded = 0
        for group in range(VARINT_BYTES_MAX):
            octet = self.body[self.place]
            self.place += 1
            coded |= (octet & 0x7F) << (7 * group)
            if octet < 0x80:
                break
        if octet >= 0x80 or coded >= 2**64:
            raise OverflowError
        return (coded >> 1) ^ -(coded & 1)

    def skip(self, octets: int) -> None:
        """Pass over bytes."""
        if octets < 0:
            raise IndexError
        self.place += octets
        if self.place > len(self.body):
            raise IndexError
