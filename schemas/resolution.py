"""Whether one Avro schema can read what another wrote, by Apache Avro's own rules.

Rules of this file: subjects are FULL_TRANSITIVE: every version reads what every other version wrote. Add a field only
with a default; never rename, retype or remove one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import avro.errors
import avro.schema
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType

from schemas.foreign import fault_of
from schemas.records import AvroSchema, plain_schema


def read_differences(*, reader: AvroSchema, writer: AvroSchema) -> list[str]:
    """Why `reader` cannot read what `writer` wrote; empty when it can. A schema that is none is a difference too, and
    one that nobody should read (`schemas.foreign`)."""
    try:
        parsed_reader = avro.schema.parse(json.dumps(reader))
        parsed_writer = avro.schema.parse(json.dumps(writer))
    except avro.errors.AvroException as error:
        return [f"not an Avro schema: {error}"]
    result = ReaderWriterCompatibilityChecker().get_compatibility(parsed_reader, parsed_writer)
    if result.compatibility is SchemaCompatibilityType.compatible:
        fault = fault_of(plain_schema(writer))
        return [] if fault is None else [fault]
    return sorted(result.messages) or ["incompatible"]


def full_differences(new: AvroSchema, older: Sequence[AvroSchema]) -> list[str]:
    """Why `new` is not FULL_TRANSITIVE with every one of `older`; empty when it is."""
    differences = []
    for number, old in enumerate(older, start=1):
        for reader, writer, way in ((new, old, "cannot read"), (old, new, "cannot be read by")):
            reasons = read_differences(reader=reader, writer=writer)
            if reasons:
                differences.append(f"{way} version {number}: {'; '.join(reasons)}")
    return differences
