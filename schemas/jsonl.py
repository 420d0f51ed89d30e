"""JSON lines of input records, as `credits produce` takes them.

Rules of this file: a line carries the record's own fields; in place of `amount_nanos` (and every other field in nanos)
the same name without `_nanos` may stand as a decimal string; `quantities` are in whole units there, as numbers or
decimal strings (3 web searches are 3); the body of a setting may be a JSON object; null counts as
absent. A line that is not right is a `BadLine` that names the line and the field: nothing here raises for data, and
reading goes on, so that the caller can check all lines before it sends one. The field is named as the line spelled it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from schemas.amounts import format_amount
from schemas.enums import InputKind, SettingKind
from schemas.events import INPUTS, Setting
from schemas.fields import FieldError, Record, first_fault, parse_decimal_amount, parse_quantity
from schemas.settings_bodies import InvalidSettingError, load_json, parse_shape

LINE_BYTES_MAX = 1024 * 1024
"""A longer line is refused: no input topic would take the record."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """A line that is a good record."""

    line_no: int
    record: Record


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is not: which, which field (empty: the whole line), and a sentence why."""

    line_no: int
    field: str
    message: str

    def __str__(self) -> str:
        where = f"line {self.line_no}, {self.field}" if self.field else f"line {self.line_no}"
        return f"{where}: {self.message}"


def read_json_lines(kind: InputKind, lines: Iterable[str | bytes]) -> Iterator[Parsed | BadLine]:
    """Each line as a record of that kind or as what is wrong with it.

    Lines count from 1; blank ones are passed over.
    """
    for line_no, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield Parsed(line_no, parse_fields(kind, _fields(line)))
        except FieldError as error:
            yield BadLine(line_no, error.field, str(error))


def _fields(line: str | bytes) -> dict[str, Any]:
    if len(line) > LINE_BYTES_MAX:
        raise FieldError("", f"longer than {LINE_BYTES_MAX} bytes")
    try:
        fields = load_json(line.decode("utf-8-sig") if isinstance(line, bytes) else line.removeprefix("\ufeff"))
    except ValueError as error:
        raise FieldError("", f"not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise FieldError("", "not a JSON object")
    return fields


def parse_fields(kind: InputKind, fields: Mapping[str, Any]) -> Record:
    """The record of a JSON object's fields, as a line holds them; raises FieldError.

    The same rules serve the HTTP API: decimal names, body as an object, null as absent.
    """
    model = INPUTS[kind]
    plain = {name: value for name, value in fields.items() if value is not None}
    spelled: dict[str, str] = {}
    for name, short in short_names(kind).items():
        if short not in plain:
            continue
        if name in plain:
            raise FieldError(short, f"give {short} or {name}, not both")
        read = parse_quantity if name in _QUANTITIES else parse_decimal_amount
        plain[name] = _decimal(short, plain.pop(short), read)
        spelled[name] = short
    if "quantities" in plain:
        plain["quantities"] = _quantities(plain["quantities"])
    if "tiers" in plain:
        plain["tiers"] = _tiers(plain["tiers"])
    if model is Setting:
        plain = _with_body(plain)
    try:
        return model.model_validate(plain)
    except ValidationError as error:
        fault = first_fault(error)
        if fault.field not in spelled:
            raise FieldError(fault.field, fault.message) from error
        nanos = plain[fault.field]  # shown in whole units, as the line has it
        raise FieldError(spelled[fault.field], fault.message.replace(str(nanos), format_amount(nanos))) from error


@functools.cache
def short_names(kind: InputKind) -> Mapping[str, str]:
    """Of each field in nanos of that kind of record: the name under which a line may give whole units."""
    return {name: name.removesuffix("_nanos") for name in INPUTS[kind].model_fields if name.endswith("_nanos")}


_QUANTITIES = frozenset({"free_quantity_nanos", "package_size_nanos"})
"""Fields that may also be written as whole numbers, as quantities are."""


def _quantities(value: object) -> object:
    """The quantities of a usage, each a whole number or a decimal string, in nano-units."""
    if not isinstance(value, dict):
        return value  # the model says what is wrong
    return {meter: _decimal(f"quantities.{meter}", each, parse_quantity) for meter, each in value.items()}


def _tiers(value: object) -> object:
    """The tiers of a price with `up_to` and `unit_price` in nano-units."""
    if not isinstance(value, list):
        return value
    tiers = []
    for number, tier in enumerate(value):
        if isinstance(tier, dict):
            tier = {name: each for name, each in tier.items() if each is not None}
            for short, read in (("up_to", parse_quantity), ("unit_price", parse_decimal_amount)):
                if short in tier:
                    tier[f"{short}_nanos"] = _decimal(f"tiers.{number}.{short}", tier.pop(short), read)
        tiers.append(tier)
    return tiers


def _decimal(field: str, value: object, read: Callable[[object], int]) -> int:
    try:
        return read(value)
    except ValueError as error:
        raise FieldError(field, str(error)) from error


def _with_body(fields: dict[str, Any]) -> dict[str, Any]:
    """The setting's fields with the body as text, its shape checked."""
    body, kind = fields.get("body"), fields.get("kind")
    if body is None or kind not in set(SettingKind):
        return fields  # the model says what is missing
    if isinstance(body, dict):
        body = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    if not isinstance(body, str):
        raise FieldError("body", "must be a JSON object or a string that holds one")
    try:
        parse_shape(SettingKind(kind), body)
    except InvalidSettingError as error:
        raise FieldError("body", str(error)) from error
    return {**fields, "body": body}
