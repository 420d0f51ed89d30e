"""A walk through an Avro body, number by number.

Rules of this file:
1. fastavro and pyruhvro both keep 64 bits of a longer number and drop the rest without a word, so that 2⁶⁴ would be
   booked as 0. A body that is not encoded the usual way is therefore walked before it is believed; the usual way (the
   same bytes come out when it is encoded again) needs no walk.
2. The walk counts values and ends at a limit, before anything is made of them: the time is that of the limit, whatever
   the counts in the body say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schemas.writer_safety import VALUES_MAX, named_types, short_name

VARINT_BYTES_MAX = 10
"""Ten groups of seven bits hold 64 bits, with one bit left for the last."""

_FIXED_BYTES = {"null": 0, "boolean": 1, "float": 4, "double": 8}

INT_LIMIT = 2**31


class _FaultError(Exception):
    """Ends the walk; the message says why."""


def body_fault(schema: Any, body: bytes, named: Mapping[str, Any] | None = None) -> str | None:
    """Why a body is not exactly one record of a plain schema, or holds more than is read; None when it may be read.

    `named`: the schema's `named_types`, when they are known.
    """
    walk = _Walk(body, named_types(schema) if named is None else named)
    try:
        walk.value(schema)
    except IndexError:
        return "the body ends too early, or points outside of its schema"
    except _FaultError as fault:
        return str(fault)
    return None if walk.offset == len(body) else f"{len(body) - walk.offset} bytes left over"


class _Walk:
    def __init__(self, body: bytes, named: Mapping[str, Any]) -> None:
        self.body = body
        self.offset = 0
        self.named = named
        self.values_left = VALUES_MAX

    def value(self, schema: Any) -> None:
        """Pass over one value; raises IndexError where the body ends too early, or `_FaultError`."""
        if isinstance(schema, list):
            return self.value(schema[self.index(schema)])
        self.count(1)
        kind = schema if isinstance(schema, str) else schema["type"]
        match kind:
            case "long":
                self.number()
            case "int":
                if not -INT_LIMIT <= self.number() < INT_LIMIT:
                    raise _FaultError("a number is longer than 32 bits")
            case "enum":
                self.index(schema["symbols"])
            case "string" | "bytes":
                self.skip(self.number())
            case "array" | "map":
                self.blocks(schema, keyed=kind == "map")
            case "record":
                for field in schema["fields"]:
                    self.value(field["type"])
            case "fixed":
                self.skip(schema["size"])
            case kind if kind in _FIXED_BYTES:
                self.skip(_FIXED_BYTES[kind])
            case name:
                self.value(self.named[short_name(name)])
        return None

    def count(self, values: int) -> None:
        """Count these values; raises when there are too many in all."""
        self.values_left -= values
        if self.values_left < 0:
            raise _FaultError(f"it holds more than {VALUES_MAX:,} values")

    def blocks(self, schema: Any, *, keyed: bool) -> None:
        """The blocks of an array or a map; a count below 0 says that the block's bytes follow it."""
        while count := self.number():
            if count < 0:
                self.number()
            for _ in range(abs(count)):
                if keyed:
                    self.count(1)
                    self.skip(self.number())
                self.value(schema["values"] if keyed else schema["items"])

    def index(self, choices: Any) -> int:
        """The number of a branch or a symbol; Python would take one below 0 from the end."""
        index = self.number()
        if not 0 <= index < len(choices):
            raise IndexError
        return index

    def number(self) -> int:
        """One zigzag varint of at most 64 bits."""
        coded = 0
        for group in range(VARINT_BYTES_MAX):
            octet = self.body[self.offset]
            self.offset += 1
            coded |= (octet & 0x7F) << (7 * group)
            if octet < 0x80:
                break
        if octet >= 0x80 or coded >= 2**64:
            raise _FaultError("a number is longer than 64 bits")
        return (coded >> 1) ^ -(coded & 1)

    def skip(self, octets: int) -> None:
        """Pass over bytes."""
        if octets < 0:
            raise IndexError
        self.offset += octets
        if self.offset > len(self.body):
            raise IndexError
