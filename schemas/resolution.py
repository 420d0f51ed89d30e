"""Whether one Avro schema can read what another wrote: by Apache Avro's own rules, and with logical types.

Rules of this file:
1. Subjects are FULL_TRANSITIVE: every version reads what every other version wrote. Add a field only with a default;
   never rename, retype or remove one.
2. A logical type is part of the type. Between versions it must be the same. A foreign writer that states none is read
   (a plain `long` may well hold microseconds, and values that do not look like it are refused); one that states
   another, such as `timestamp-millis`, is not.
3. A schema that could hurt its readers (`schemas.writer_safety`) is refused before any library parses it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import avro.errors
import avro.schema
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType

from schemas.differences import logical_differences, shape_differences
from schemas.records import AvroSchema
from schemas.writer_safety import fault_of

NO_SCHEMA = (avro.errors.AvroException, ValueError, TypeError, LookupError, AttributeError, RecursionError)
"""What Avro's libraries raise for a document that is not quite a schema (seen by fuzzing)."""


def read_differences(*, reader: AvroSchema, writer: AvroSchema) -> list[str]:
    """Why `reader` cannot read what `writer` wrote, one sentence each; empty when it can.

    A schema that is none is a difference too, and one whose records are not read.
    """
    return _differences(reader, writer) or logical_differences(reader, writer, exact=False)


def _differences(reader: Any, writer: Any) -> list[str]:
    """By Avro's rules alone."""
    for schema in (reader, writer):
        fault = fault_of(schema)
        if fault is not None:
            return [fault]
    try:
        parsed_reader = avro.schema.parse(json.dumps(reader))
        parsed_writer = avro.schema.parse(json.dumps(writer))
    except NO_SCHEMA as error:
        return [f"not an Avro schema: {error}"]
    result = ReaderWriterCompatibilityChecker().get_compatibility(parsed_reader, parsed_writer)
    if result.compatibility is SchemaCompatibilityType.compatible:
        return []
    return shape_differences(reader, writer) or sorted(result.messages) or ["incompatible"]


def full_differences(new: AvroSchema, older: Sequence[AvroSchema]) -> list[str]:
    """Why `new` is not FULL_TRANSITIVE with every one of `older`; empty when it is."""
    fault = fault_of(new)
    if fault is not None:
        return [fault]
    differences = []
    for number, old in enumerate(older, start=1):
        for reader, writer, way in ((new, old, "cannot read"), (old, new, "cannot be read by")):
            reasons = _differences(reader, writer)
            if reasons:
                differences.append(f"{way} version {number}: {'; '.join(reasons)}")
        logical = logical_differences(old, new, exact=True)
        if logical:
            differences.append(f"has other logical types than version {number}: {'; '.join(logical)}")
    return differences
