"""Write what schemas/ publishes from its code: the tables in `schemas/README.md` and `schemas/json/*.schema.json`.

`python -m docs.schemas_reference` writes them; `tests/contract/test_published.py` fails where they and the code differ.
Only the part of the README below `MARK` is written; what stands above is prose and typed by hand.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from schemas.enums import AlertKind, SettingKind
from schemas.events import PURCHASE_PRESETS
from schemas.records import avro_schema, bundled_id, versions
from schemas.settings_bodies import BODIES, Body, json_schema
from schemas.topics import ALERT_TOPICS, BY_KEY, CATALOGUE, DAY_MS, Topic

FOLDER = Path(__file__).parents[1] / "schemas"
README = FOLDER / "README.md"
MARK = "<!-- Below: written by `python -m docs.schemas_reference` from the code. Do not edit. -->\n"


def published() -> dict[Path, str]:
    """Every published file with the text it must have."""
    prose = README.read_text(encoding="utf-8").partition(MARK)[0]
    files = {README: prose + MARK + "\n" + tables()}
    for kind in SettingKind:
        text = json.dumps(json_schema(kind), indent=2, ensure_ascii=False) + "\n"
        files[FOLDER / "json" / f"{kind.value}.schema.json"] = text
    return files


def tables() -> str:
    """The generated part of the README."""
    parts = ["## Topics\n", _topics(), "\n## Alerts and their topics\n", _alerts(), "\n## Records\n"]
    parts += [_record(record) for record in dict.fromkeys(topic.record for topic in CATALOGUE) if record is not None]
    parts += ["## Bodies of settings\n", _BODIES]
    parts += [_body(kind, model) for kind, model in BODIES.items()]
    return "\n".join(parts)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def _topics() -> str:
    rows = [
        (
            f"`{topic.name}`",
            f"[{topic.record}](#{topic.record})" if topic.record else "not Avro",
            topic.written_by,
            topic.read_by,
            _kept(topic),
        )
        for topic in CATALOGUE
    ]
    return _table(("topic", "record", "written by", "read by", "kept"), rows)


def _kept(topic: Topic) -> str:
    if topic.cleanup == "compact":
        return "the latest of each key"
    return "permanently" if topic.retention_ms is None else f"{topic.retention_ms // DAY_MS} days"


def _alerts() -> str:
    rows = [(f"`{kind}`", f"`{BY_KEY[ALERT_TOPICS[kind]].name}`", ALERTS_WHEN[kind]) for kind in AlertKind]
    return _table(("kind", "topic", "when"), rows)


ALERTS_WHEN: Mapping[AlertKind, str] = {
    AlertKind.THRESHOLD_CROSSED: "the threshold of a rule is reached; again only after credits or a new month have "
    "cleared it",
    AlertKind.BALANCE_LOW: "available credits are at or below the threshold of auto top-up, or while that is off the "
    "wallet's low balance threshold",
    AlertKind.LIMIT_ALERT: "the month's alert threshold is used",
    AlertKind.LIMIT_REACHED: "the month's allowed limit is used: no more work is admitted",
    AlertKind.BUDGET_REACHED: "a budget is used in its window",
    AlertKind.FREE_EXPIRED: "promotional credits have expired with something left",
    AlertKind.EXPIRING: "credits expire in a week",
    AlertKind.RESOLVED: "one or more thresholds are cleared; lists them",
    AlertKind.DAYS_LEFT: "the credits last for no more days than a rule says",
    AlertKind.BALANCE_DEPLETED: "nothing is left",
    AlertKind.NEGATIVE_LIMIT_CROSSED: "the negative limit is reached: work must stop",
    AlertKind.BALANCE_RESTORED: "there are credits again after none were left",
    AlertKind.AUTO_RECHARGE_TRIGGERED: "a charge that auto top-up asked for has succeeded. The request itself is a "
    "record of `credits.topup-requests.v1`, not an alert",
    AlertKind.PURCHASE_FAILED: "a charge has failed",
    AlertKind.AUTO_RECHARGE_CAPPED: "auto top-up would ask for credits, and the month's cap does not allow it",
}
"""When each kind is raised, for people."""


def _record(record: str) -> str:
    schema = avro_schema(record)
    rows: list[tuple[str, ...]] = []
    for field in schema["fields"]:
        rows += _fields(field, "")
    newest = versions(record)[-1]
    head = f"### {record}\n\n{schema['doc']} Schema: [avro/{record}.v{newest}.avsc](avro/{record}.v{newest}.avsc), "
    head += f"id {bundled_id(record)} in the built-in registry.\n\n"
    return head + _table(("field", "type", "absent", "meaning"), rows) + _NOTES.get(record, "")


_NOTES = {
    "purchase": f"\nAmounts to offer, in units of the wallet: {', '.join(f'{each:,}' for each in PURCHASE_PRESETS)} "
    "(`streams.client.PURCHASE_PRESETS`); any other amount of at least 1 may be bought.\n",
    "hold": "\n`on_shortage` says what happens when there are not enough credits. `reject` (the default) refuses the "
    "hold. `cap` grants what there is; running work may go down to the negative limit. `overflow` grants all of "
    "it, below zero if necessary. At a month's limit or a budget, `cap` grants what is left, and the others are "
    "refused. The decision says how much was granted.\n\nA hold is resolved once. A capture that arrives after its "
    "time-out is `already_resolved` and books nothing: send what was used as usage.\n",
}
"""What a reader should know of a record besides its fields."""


def _fields(field: Mapping[str, Any], prefix: str) -> list[tuple[str, ...]]:
    absent = f"`{json.dumps(field['default'])}`" if "default" in field else "required"
    rows: list[tuple[str, ...]] = [(f"`{prefix}{field['name']}`", _type(field["type"]), absent, field["doc"])]
    items = field["type"].get("items") if isinstance(field["type"], dict) else None
    if isinstance(items, dict):
        for inner in items["fields"]:
            rows += _fields(inner, f"{prefix}{field['name']}[].")
    return rows


def _type(kind: Any) -> str:
    match kind:
        case ["null", branch]:
            return f"{_type(branch)} or null"
        case {"logicalType": logical}:
            return str(logical)
        case {"type": "array", "items": {"name": name}}:
            return f"list of {name}"
        case {"type": "array", "items": items}:
            return f"list of {_type(items)}"
        case {"type": "map", "values": values}:
            return f"map of {_type(values)}"
        case _:
            return str(kind)


_BODIES = "Amounts are decimal strings. Each body is also published as JSON Schema.\n"


def _body(kind: SettingKind, model: type[Body]) -> str:
    schema = json_schema(kind)
    link = f"[json/{kind.value}.schema.json](json/{kind.value}.schema.json)"
    doc = " ".join((model.__doc__ or "").split())
    return f"### Setting {kind.value}\n\n{doc} {link}\n\n" + _table(
        ("field", "type", "absent", "meaning"), _properties(schema, schema)
    )


def _properties(model: Mapping[str, Any], schema: Mapping[str, Any], prefix: str = "") -> list[tuple[str, ...]]:
    """A row for each field of a model, and after a list of objects for each field of those."""
    required = set(model.get("required", ()))
    rows: list[tuple[str, ...]] = []
    for name, field in model["properties"].items():
        absent = "required" if name in required else f"`{json.dumps(field.get('default'))}`"
        meaning = " ".join(field.get("description", "").split())
        items = field.get("items", {}).get("$ref", "").rpartition("/")[2]
        inner = schema["$defs"][items] if items else {}
        nested = "properties" in inner
        kind = f"list of {items}" if nested else _json_type(field, schema)
        rows.append((f"`{prefix}{name}`", kind, absent, meaning))
        if nested:
            rows += _properties(inner, schema, f"{prefix}{name}[].")
    return rows


def _json_type(field: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    if "$ref" in field:
        return _json_type(schema["$defs"][field["$ref"].rpartition("/")[2]], schema)
    if "anyOf" in field:
        return " or ".join(_json_type(branch, schema) for branch in field["anyOf"])
    if "enum" in field:
        return ", ".join(f"`{word}`" for word in field["enum"])
    if "pattern" in field:
        return "amount"
    if field.get("type") == "array":
        return f"list of ({_json_type(field['items'], schema)})"
    if field.get("type") == "object":
        return "object: " + ", ".join(f"`{name}`" for name in field.get("properties", {}))
    return str(field.get("format") or field.get("type"))


def main() -> None:
    """Write what differs, and say so."""
    for path, text in published().items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.relative_to(FOLDER.parent)}")


if __name__ == "__main__":
    main()
