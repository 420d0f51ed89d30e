"""What schemas/ publishes is what its code says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from docs.schemas_reference import published
from schemas.enums import SettingKind
from schemas.settings_bodies import BODIES, json_schema, parse_shape
from tests.unit.schemas.bodies import GOOD


@pytest.mark.parametrize("path", published(), ids=lambda path: path.name)
def test_published_files_are_up_to_date(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == published()[path], "run `python -m docs.schemas_reference`"


@pytest.mark.parametrize("kind", SettingKind)
def test_json_schemas_name_the_fields_of_the_models(kind: SettingKind) -> None:
    schema = json_schema(kind)
    model = BODIES[kind]
    assert set(schema["properties"]) == {name.removesuffix("_nanos") for name in model.model_fields}
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize("kind", SettingKind)
def test_defaults_in_json_schemas_are_bodies(kind: SettingKind) -> None:
    """The schema's own defaults, written out, are a body that the model reads as if they were absent."""
    good = next(body for each, body in GOOD if each is kind)
    defaults = {name: field["default"] for name, field in json_schema(kind)["properties"].items() if "default" in field}
    chosen = [name for name in good if defaults.get(name, ...) is None]  # one of several fields may be required
    required = {name: good[name] for name in (*json_schema(kind).get("required", ()), *chosen)}
    written_out = parse_shape(kind, json.dumps({**defaults, **required}))
    assert written_out == parse_shape(kind, json.dumps(required))
