"""The types of fields that the models share, each with its limits; and the base of the models.

Rules of this file: a limit of a field is written once, here, as a marker (`TextLimit`, `NumberLimit`,
`AttributesLimit`, `QuantitiesLimit`) in the type; pydantic's validators and the check of whole columns
(schemas/checks.py) are both made from the marker. Models are frozen, refuse unknown fields, and convert nothing
silently: a number is not a string, a float is not a number.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Self, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    StrictBool,
    StrictInt,
    ValidationError,
    WithJsonSchema,
    create_model,
)

from schemas.amounts import AMOUNT_MAX, AmountOutOfRangeError, check_amount, format_amount, parse_amount
from schemas.enums import DeadLetterCode
from schemas.meters import RESERVED
from schemas.records import avro_schema
from schemas.times import TIME_DOUBTED_BELOW, TIME_MAX, parse_time

ID_CHARACTERS_MAX = 128
NAME_CHARACTERS_MAX = 256
TEXT_CHARACTERS_MAX = 2_000
BODY_CHARACTERS_MAX = 65_536
ATTRIBUTES_MAX = 64
ATTRIBUTE_VALUE_CHARACTERS_MAX = 1_024
QUANTITIES_MAX = 64
INT_MAX = 2**31 - 1


@dataclass(frozen=True, slots=True)
class TextLimit:
    """How many characters a text has, and whether all of them must be printable."""

    least: int
    most: int
    printable: bool

    def check(self, text: str) -> str:
        """The text itself; ValueError when it is outside the limit."""
        if not self.least <= len(text) <= self.most:
            raise ValueError(f"must have {self.least} to {self.most} characters, has {len(text)}")
        if self.printable and not text.isprintable():
            raise ValueError("must have printable characters only")
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise ValueError("must be text that UTF-8 can hold")
        return text


@dataclass(frozen=True, slots=True)
class NumberLimit:
    """The bounds of a whole number, both included."""

    least: int
    most: int
    amount: bool = False
    """An amount of nano-units: beyond ±`AMOUNT_MAX` it is out of range rather than an invalid field."""
    doubted_below: int = -(2**63)
    """Numbers below are for the model to judge: not all of them are right."""

    def check(self, number: int) -> int:
        """The number itself; ValueError outside the bounds, AmountOutOfRangeError for an amount out of range."""
        if self.amount:
            check_amount(number)
        if number < self.least:
            raise ValueError(f"must be at least {self.least}, is {number}")
        if number > self.most:
            raise ValueError(f"must be at most {self.most}, is {number}")
        return number


@dataclass(frozen=True, slots=True)
class AttributesLimit:
    """How many attributes, and how long their keys and values."""

    entries: int
    key: TextLimit
    value: TextLimit

    def check(self, attributes: dict[str, str]) -> dict[str, str]:
        """The attributes themselves; ValueError when there are too many or one is too long."""
        if len(attributes) > self.entries:
            raise ValueError(f"must have at most {self.entries} entries, has {len(attributes)}")
        for key, value in attributes.items():
            self.key.check(key)
            self.value.check(value)
        return attributes


@dataclass(frozen=True, slots=True)
class QuantitiesLimit:
    """How many quantities by name, how long the names are, and how large the quantities."""

    entries: int
    key: TextLimit
    value: NumberLimit

    def check(self, quantities: dict[str, int]) -> dict[str, int]:
        """The quantities themselves; ValueError when there are too many or one is out of its bounds."""
        if len(quantities) > self.entries:
            raise ValueError(f"must have at most {self.entries} entries, has {len(quantities)}")
        for meter, quantity in quantities.items():
            self.key.check(meter)
            if meter in RESERVED:
                raise ValueError(f"{meter} has a field of its own, or means something else")
            try:
                self.value.check(quantity)
            except ValueError as error:
                raise type(error)(f"{meter} {error}") from error
        return quantities


_ID = TextLimit(1, ID_CHARACTERS_MAX, printable=True)
_NAME = TextLimit(0, NAME_CHARACTERS_MAX, printable=False)
_TEXT = TextLimit(0, TEXT_CHARACTERS_MAX, printable=False)
_BODY = TextLimit(0, BODY_CHARACTERS_MAX, printable=False)
_AMOUNT = NumberLimit(-AMOUNT_MAX, AMOUNT_MAX, amount=True)
_AMOUNT_FROM_ZERO = NumberLimit(0, AMOUNT_MAX, amount=True)
_COUNT = NumberLimit(0, AMOUNT_MAX)
_SMALL_COUNT = NumberLimit(0, INT_MAX)
_PRIORITY = NumberLimit(0, 100)
_TIME = NumberLimit(0, TIME_MAX, doubted_below=TIME_DOUBTED_BELOW)
_QUANTITIES = QuantitiesLimit(QUANTITIES_MAX, _ID, _AMOUNT_FROM_ZERO)
_ATTRIBUTES = AttributesLimit(ATTRIBUTES_MAX, _ID, TextLimit(0, ATTRIBUTE_VALUE_CHARACTERS_MAX, printable=False))

Id = Annotated[str, _ID, AfterValidator(_ID.check)]
"""1 to 128 printable characters."""
Name = Annotated[str, _NAME, AfterValidator(_NAME.check)]
"""A dimension of usage: up to 256 characters."""
Text = Annotated[str, _TEXT, AfterValidator(_TEXT.check)]
"""Free text for people: up to 2,000 characters."""
BodyText = Annotated[str, _BODY, AfterValidator(_BODY.check)]
"""JSON of a setting: up to 65,536 characters."""
Amount = Annotated[StrictInt, _AMOUNT, AfterValidator(_AMOUNT.check)]
"""Nano-units within ±9·10¹⁸."""
AmountFromZero = Annotated[StrictInt, _AMOUNT_FROM_ZERO, AfterValidator(_AMOUNT_FROM_ZERO.check)]
"""Nano-units from 0 to 9·10¹⁸."""
Count = Annotated[StrictInt, _COUNT, AfterValidator(_COUNT.check)]
"""How many: at least 0."""
SmallCount = Annotated[StrictInt, _SMALL_COUNT, AfterValidator(_SMALL_COUNT.check)]
"""How many, in 32 bits: at least 0."""
Priority = Annotated[StrictInt, _PRIORITY, AfterValidator(_PRIORITY.check)]
"""Draw-down priority, 0 to 100, lower first (product rule 2)."""
Attributes = Annotated[dict[str, str], _ATTRIBUTES, AfterValidator(_ATTRIBUTES.check)]
"""Up to 64 texts by name."""
Quantities = Annotated[dict[str, StrictInt], _QUANTITIES, AfterValidator(_QUANTITIES.check)]
"""Up to 64 quantities by the name of their meter, in nano-units: at least 0."""
Time = Annotated[
    StrictInt,
    _TIME,
    BeforeValidator(parse_time),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "format": "date-time"},
                {"type": "integer", "minimum": 0, "maximum": TIME_MAX, "description": "microseconds since 1970"},
            ]
        }
    ),
]
"""Microseconds since 1970 UTC; accepts ISO 8601 with a zone and aware datetimes."""


def parse_quantity(value: object) -> int:
    """Nano-units of a quantity: whole units as a number, or a decimal string; a float is neither."""
    if type(value) is int:
        return parse_amount(value)
    if isinstance(value, str):
        return parse_amount(value)
    raise ValueError('write the quantity as a whole number or a decimal string, such as 3 or "2.5"')


def parse_decimal_amount(value: object) -> int:
    """Nano-units of an amount written as a decimal string; numbers are refused, so that no float slips in."""
    if not isinstance(value, str):
        raise ValueError('write the amount as a decimal string, such as "12.5"')
    return parse_amount(value)


_DECIMAL_JSON_SCHEMA = {"type": "string", "pattern": r"^[+-]?[0-9]+(\.[0-9]{1,9})?$", "examples": ["12.5"]}


DecimalAmount = Annotated[
    int,
    BeforeValidator(parse_decimal_amount),
    AfterValidator(_AMOUNT.check),
    PlainSerializer(format_amount, return_type=str, when_used="json"),
    WithJsonSchema(_DECIMAL_JSON_SCHEMA),
]
"""Nano-units, written as a decimal string."""

DecimalQuantity = Annotated[
    int,
    BeforeValidator(parse_quantity),
    AfterValidator(_AMOUNT.check),
    PlainSerializer(format_amount, return_type=str, when_used="json"),
    WithJsonSchema({"anyOf": [_DECIMAL_JSON_SCHEMA, {"type": "integer"}]}),
]
"""Nano-units, written as a whole number or as a decimal string."""

Limit = TextLimit | NumberLimit | AttributesLimit | QuantitiesLimit


class Model(BaseModel):
    """A frozen model that refuses unknown fields and converts nothing silently."""

    model_config = ConfigDict(frozen=True, extra="forbid")


FROM_LOG = "from_log"
"""Validation context of a record that was read from a topic.

What a client must not send but the ledger can answer with a `rejected` entry (an amount of zero) then passes.
"""


class Record(Model):
    """The model of an Avro record: the same fields, with the same defaults."""

    def to_record(self) -> dict[str, Any]:
        """The fields as the codec takes them: words as str, times as int microseconds, parts as dicts."""
        return {name: value if type(value) in _PLAIN else _plain(value) for name, value in self.__dict__.items()}

    @classmethod
    def from_record(cls, fields: dict[str, Any]) -> Self:
        """The model of decoded fields; raises pydantic's ValidationError, which is a ValueError."""
        return cls.model_validate(fields, context=FROM_LOG)


_Model = TypeVar("_Model", bound=Record)

_TYPES: dict[str, Any] = {"string": str, "long": int, "int": int, "double": float, "boolean": bool}


def completed(record: str) -> Callable[[type[_Model]], type[_Model]]:
    """A decorator: the model with the fields of the newest Avro record that it does not declare, by their plain types.

    For output records only: the fields of an input record have limits, and each limit must be chosen.
    """

    def complete(model: type[_Model]) -> type[_Model]:
        missing = [field for field in avro_schema(record)["fields"] if field["name"] not in model.model_fields]
        if not missing:
            return model
        fields: dict[str, Any] = {field["name"]: (_type(field["type"]), field["default"]) for field in missing}
        made: type[_Model] = create_model(model.__name__, __base__=model, __module__=model.__module__, **fields)
        return made

    return complete


def _type(avro: Any) -> Any:
    """The Python type of a field; KeyError for one that must be declared."""
    if isinstance(avro, list):
        return functools.reduce(operator.or_, (None if branch == "null" else _type(branch) for branch in avro))
    if isinstance(avro, dict) and avro["type"] == "map":
        return dict[str, _type(avro["values"])]  # type: ignore[misc]
    return _TYPES[avro["type"] if isinstance(avro, dict) else avro]


_PLAIN = frozenset({str, int, bool, type(None)})
"""Types whose values are as the codec takes them: most fields, so that they are asked about first."""


def _plain(value: Any) -> Any:
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, Record):
        return value.to_record()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


@functools.cache
def limits_of(model: type[Record]) -> dict[str, Limit | frozenset[str]]:
    """For each field with a limit the marker; for each closed set of words the words."""
    found: dict[str, Limit | frozenset[str]] = {}
    for name, field in model.model_fields.items():
        limit = _limit_in(field.metadata, field.annotation)
        if limit is not None:
            found[name] = limit
    return found


def _limit_in(metadata: Any, annotation: Any) -> Limit | frozenset[str] | None:
    for marker in metadata:
        if isinstance(marker, Limit):
            return marker
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return frozenset(word.value for word in annotation)
    for branch in get_args(annotation):
        if branch is not type(None):
            limit = _limit_in(getattr(branch, "__metadata__", ()), getattr(branch, "__origin__", branch))
            if limit is not None:
                return limit
    return None


class FieldError(ValueError):
    """A field that is not right, by name (empty: the whole record); the message is a sentence about it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True, slots=True)
class Fault:
    """The first thing wrong with a record: the field, a sentence, and the dead-letter code it goes under."""

    field: str
    message: str
    code: DeadLetterCode


def first_fault(error: ValidationError) -> Fault:
    """The first fault of a failed validation, without the value itself."""
    detail = error.errors(include_url=False, include_input=False)[0]
    cause = detail.get("ctx", {}).get("error")
    field = cause.field if isinstance(cause, FieldError) else ".".join(str(part) for part in detail["loc"])
    out_of_range = isinstance(cause, AmountOutOfRangeError)
    code = DeadLetterCode.AMOUNT_OUT_OF_RANGE if out_of_range else DeadLetterCode.INVALID_FIELD
    if cause is not None:
        message = str(cause)
    else:
        message = _MESSAGES.get(detail["type"]) or detail["msg"][:1].lower() + detail["msg"][1:]
    return Fault(field, message, code)


_MESSAGES = {
    "extra_forbidden": "there is no such field",
    "missing": "is required",
    "int_type": "must be a whole number",
    "string_type": "must be a string",
    "bool_type": "must be true or false",
    "dict_type": "must be an object",
}
"""Plain words for the commonest of pydantic's error types."""


Flag = StrictBool
"""true or false, and nothing that looks like it."""
