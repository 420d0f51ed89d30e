"""Write golden records for released versions that have none yet: `python -m tests.contract.golden`.

An existing file is never written again: what it holds was released.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import fastavro

from schemas.records import avro_schema, plain_schema, record_names, versions
from tests.contract.samples import extreme, full, minimal

FOLDER = Path(__file__).parents[2] / "schemas" / "golden"


def main() -> None:
    """Write what is missing, and say so."""
    for record in record_names():
        newest = versions(record)[-1]
        path = FOLDER / f"{record}.v{newest}.jsonl"
        if path.exists():
            continue
        schema = plain_schema(avro_schema(record, newest))
        lines = []
        for name, fields in (("minimal", minimal(record)), ("full", full(record)), ("extreme", extreme(record))):
            stream = io.BytesIO()
            fastavro.schemaless_writer(stream, schema, fields)
            lines.append(json.dumps({"name": name, "fields": fields, "body": stream.getvalue().hex()}))
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"wrote {path.name}")


if __name__ == "__main__":
    main()
