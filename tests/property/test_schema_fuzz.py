"""Random schemas and random bodies: no record takes long, none takes much, and none raises.

A schema is the usage record with a few fields more, of types made without regard for anybody: unions in unions, lists
of nearly nothing, records used many times over. Bodies are good ones of the schema, damaged ones, and noise.
`CREDITS_TEST_FUZZ_S` says for how many seconds the long one runs (600).
"""

from __future__ import annotations

import io
import os
import random
import time
from collections.abc import Iterator
from typing import Any

import pytest

from schemas.codec import FRAME_BYTES, decode_columns, encode_one, frame, rows_of
from schemas.records import AvroSchema, avro_schema, plain_schema
from schemas.writer_safety import fault_of, named_types
from tests.contract.samples import minimal

CPU_S_MAX = 1.0
"""Of the processor for one record; one at its limit takes 0.02 s on a free machine."""

GROWTH_BYTES_MAX = 200 * 1024 * 1024
"""Caches fill up to their limits: 1,000 readers of a schema of at most some 10 KB here."""


class One:
    """A registry with one schema under every id."""

    def __init__(self, schema: Any) -> None:
        self.schema = schema

    def writer(self, schema_id: int) -> Any:
        return self.schema


class Types:
    """Makes types; every named one may be used again."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.names: list[str] = []
        self.number = 0

    def any(self, depth: int) -> Any:
        kinds = ["primitive", "primitive", "named", "enum", "fixed"]
        if depth > 0:
            kinds += ["array", "map", "union", "record", "record", "nulls"]
        match self.chance.choice(kinds):
            case "primitive":
                return self.chance.choice(["null", "boolean", "int", "long", "float", "double", "string", "bytes"])
            case "named" if self.names:
                return self.chance.choice(self.names)
            case "array":
                return {"type": "array", "items": self.any(depth - 1)}
            case "map":
                return {"type": "map", "values": self.any(depth - 1)}
            case "union":
                return ["null", *(self.any(depth - 1) for _ in range(self.chance.randrange(1, 4)))]
            case "record":
                return self.record([self.any(depth - 1) for _ in range(self.chance.randrange(5))])
            case "nulls":
                return self.record(["boolean", *["null"] * self.chance.choice([3, 100, 250, 300, 1_000])])
            case "enum":
                return {"type": "enum", "name": self.name(), "symbols": ["a", "b"]}
            case _:
                return {"type": "fixed", "name": self.name(), "size": self.chance.choice([0, 1, 2, 1_000])}

    def record(self, types: list[Any]) -> AvroSchema:
        fields = [{"name": f"f{number}", "type": each} for number, each in enumerate(types)]
        return {"type": "record", "name": self.name(), "fields": fields}

    def name(self) -> str:
        self.number += 1
        self.names.append(f"t{self.number}")
        return self.names[-1]

    def doubling(self) -> AvroSchema:
        records = [self.record([])]
        depth = self.chance.choice([3, 8, 11, 12, 40])
        records += [self.record([self.names[-1], self.names[-1]]) for _ in range(depth)]
        return self.record(records)


def schema_of(chance: random.Random) -> AvroSchema:
    """The usage record with up to three fields more, at any place."""
    types, schema = Types(chance), avro_schema("usage")
    for number in range(chance.randrange(1, 4)):
        type_ = types.doubling() if chance.random() < 0.2 else types.any(chance.randrange(1, 6))
        place = chance.randrange(len(schema["fields"]) + 1) if number == 0 else len(schema["fields"])
        schema["fields"].insert(place, {"name": f"more{number}", "type": type_})
    return schema


def bodies_of(chance: random.Random, schema: AvroSchema) -> Iterator[bytes]:
    """A body that says what it likes within the schema, the same damaged, and noise."""
    out = io.BytesIO()
    plain = plain_schema(schema)
    Bodies(chance, out, named_types(plain)).of(plain)
    good = out.getvalue()
    yield good
    damaged = bytearray(good)
    for _ in range(chance.randrange(1, 4)):
        at = chance.randrange(len(damaged) + 1)
        match chance.randrange(3):
            case 0:
                damaged[at:] = b""
            case 1:
                damaged[at : at + 1] = bytes([chance.choice([0, 1, 2, 0x7F, 0x80, 0xFF])])
            case _:
                damaged[at:at] = bytes([chance.choice([0, 2, 0xFE, 0xFF])]) * chance.choice([1, 5, 9, 11, 200])
    yield bytes(damaged)
    yield chance.randbytes(chance.choice([10, 200, 4_000]))
    yield bytes([chance.choice([0, 1, 2, 3, 0xFE])]) * chance.choice([100, 2_000, 30_000])


class Bodies:
    """Writes values by the schema, without any library: long lists of what is short."""

    def __init__(self, chance: random.Random, out: io.BytesIO, named: dict[str, Any]) -> None:
        self.chance, self.out, self.named = chance, out, named
        self.left = 3_000

    def of(self, schema: Any) -> None:
        self.left -= 1
        if isinstance(schema, list):
            branch = self.chance.randrange(len(schema)) if self.left > 0 else 0
            self.number(branch)
            return self.of(schema[branch])
        kind = schema if isinstance(schema, str) else schema["type"]
        match kind:
            case "null":
                pass
            case "boolean":
                self.out.write(bytes([self.chance.randrange(2)]))
            case "int" | "long":
                self.number(self.chance.choice([0, 1, -1, 2**31 - 1]))
            case "float" | "double":
                self.out.write(self.chance.randbytes(4 if kind == "float" else 8))
            case "string" | "bytes":
                text = self.chance.choice([b"", b"a", b"id"])
                self.number(len(text))
                self.out.write(text)
            case "enum":
                self.number(self.chance.randrange(2))
            case "fixed":
                self.out.write(bytes(schema["size"]))
            case "array" | "map":
                count = self.chance.choice([0, 1, 3, 200]) if self.left > 0 else 0
                if count:
                    self.number(count)
                    for _ in range(count):
                        if kind == "map":
                            self.number(0)
                        self.of(schema["items" if kind == "array" else "values"])
                self.number(0)
            case "record":
                for field in schema["fields"]:
                    self.of(field["type"])
            case name:
                self.of(self.named[name])
        return None

    def number(self, number: int) -> None:
        coded = (number << 1) ^ (number >> 63)
        while coded >= 0x80:
            self.out.write(bytes([coded & 0x7F | 0x80]))
            coded >>= 7
        self.out.write(bytes([coded]))


def resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def attempt(seed: int) -> tuple[int, int]:
    """One schema and its bodies; how many records were read, and how many refused."""
    chance = random.Random(seed)
    schema = schema_of(chance)
    fault = fault_of(schema)
    own = encode_one("usage", minimal("usage"), seed)
    # An unsafe schema cannot be written by: any body will do, as it is not to be read.
    bodies = [own[FRAME_BYTES:]] * 4 if fault is not None else list(bodies_of(chance, schema))
    values = [frame(seed) + body for body in bodies if body]
    started = time.process_time()
    decoded = decode_columns("usage", values, One(schema))
    took = time.process_time() - started
    assert took < CPU_S_MAX * len(values), f"seed {seed}: {took:.1f} s for {len(values)} records"
    assert len(rows_of(decoded.batch)) + len(decoded.failures) == len(values), f"seed {seed}"
    if fault is not None:
        assert len(decoded.failures) == len(values), f"seed {seed}: {fault}"
    return decoded.batch.num_rows, len(decoded.failures)


def test_random_schemas_and_bodies_take_no_time_and_never_raise() -> None:
    read = refused = 0
    for seed in range(1, 250):
        some, others = attempt(seed)
        read, refused = read + some, refused + others
    assert read > 50, "good bodies are read"
    assert refused > 300


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_random_schemas_and_bodies_for_long() -> None:
    """No hang and no growth, for ten minutes."""
    seconds = float(os.environ.get("CREDITS_TEST_FUZZ_S", "600"))
    first = int(os.environ.get("CREDITS_TEST_FUZZ_SEED", "0")) or random.SystemRandom().randrange(1, 2**31 - 10**7)
    print(f"first seed {first}")
    until, seed, warm = time.monotonic() + seconds, first, 0
    longest, counted = 0.0, [0, 0]
    while time.monotonic() < until:
        started = time.process_time()
        some, others = attempt(seed)
        longest = max(longest, time.process_time() - started)
        counted = [counted[0] + some, counted[1] + others]
        seed += 1
        if seed - first == 2_000:  # the caches are full
            warm = resident_bytes()
    grown = resident_bytes() - warm if warm else 0
    print(
        f"{seed - first} schemas, {counted[0]} records read, {counted[1]} refused, longest {longest:.2f} s, "
        f"{grown / 1e6:.0f} MB more than after 2,000"
    )
    assert grown < GROWTH_BYTES_MAX


@pytest.mark.parametrize("seed", range(200))
def test_any_document_is_measured_or_refused(seed: int) -> None:
    """Also what is no schema at all, from a registry that gives anything."""
    chance = random.Random(seed)

    def document(depth: int) -> Any:
        if depth == 0 or chance.random() < 0.2:
            return chance.choice([None, True, 5, -1, 1.5, "", "int", "x", [], {}])
        if chance.random() < 0.3:
            return [document(depth - 1) for _ in range(chance.randrange(4))]
        keys = ["type", "name", "fields", "items", "values", "symbols", "size", "default", "namespace", "logicalType"]
        made = {key: document(depth - 1) for key in chance.sample(keys, chance.randrange(6))}
        if chance.random() < 0.7:
            made["type"] = chance.choice(["record", "array", "map", "enum", "fixed", "union", "error"])
        return made

    for _ in range(30):
        schema = document(6)
        assert fault_of(schema) != ""
        decoded = decode_columns("usage", [frame(seed) + b"body"], One(schema))
        assert [failure.position for failure in decoded.failures] == [0]
