"""Answers before work: what a gateway asks, and what it is told (product rule 17). No HTTP here.

The rules of this file:
1. A check has `amount`, or is priced as usage of its fields would be; an unknown field is refused, as everywhere.
2. The answer is made by `streams.ledger.authorization` from the account in memory, and from nothing else.
3. What was answered is remembered with the decoded account, for the same fields and every amount up to what may be
   granted, until the account changes or something is due. So most answers are two look-ups and a comparison.
4. A check in a call of many is answered in its place, whatever is wrong with it.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from schemas.amounts import format_amount
from schemas.enums import InputKind
from schemas.events import INPUTS
from schemas.fields import ID_CHARACTERS_MAX, NAME_CHARACTERS_MAX, FieldError, parse_decimal_amount
from schemas.jsonl import parse_fields, short_names
from streams.api.account_view import AccountView, DecodedAccount
from streams.api.callers import Caller, require_org
from streams.api.cloud_events import json_of
from streams.api.problems import TYPE_PREFIX, ProblemError
from streams.errors import OperatorError
from streams.kafka.balances import iso_time
from streams.ledger.authorization import UNKNOWN_OPERATION, Authorization, Question, authorize
from streams.ledger.commands import Usage
from streams.ledger.rating import PriceList
from streams.ledger.refusals import DeadLetter

CHECKS_MAX: Final = 10_000
CHECKS_AT_ONCE: Final = 100
"""So many checks of a call are answered before others have their turn: a millisecond or two."""
ANSWERS_MAX: Final = 16
"""Answers remembered of an account, about 700 bytes each."""

AMOUNTS_MAX: Final = 16_384
"""Amounts remembered with their text, about 200 bytes each."""

_SPACE_AFTER_NAME: Final = (b'" ', b'"\n', b'"\t', b'"\r')
_CHECK_ID: Final = "check"
_OPERATION: Final = "operation"
_NOT_ASKED: Final = frozenset(
    {"event_id", "org_id", "occurred_at", "source", "revision", "voided", "hold_id", "cost_nanos", "wallet"}
)
_USAGE_FIELDS: Final = frozenset(INPUTS[InputKind.USAGE].model_fields) - _NOT_ASKED
USAGE_FIELDS: Final = _USAGE_FIELDS | {short_names(InputKind.USAGE).get(name, name) for name in _USAGE_FIELDS}
"""Fields of usage that a check may have."""
CHECK_FIELDS: Final = USAGE_FIELDS | {"wallet", "amount"}
_DIMENSIONS: Final = frozenset(
    field.name for field in msgspec.structs.fields(Usage) if field.type in (str, str | None)
).intersection(_USAGE_FIELDS)
_COUNTS: Final = frozenset({"input_tokens", "output_tokens"})
_COUNT_MAX: Final = 9 * 10**18

Fields = dict[str, Any]


class Prices(Protocol):
    """The price list as it is now."""

    @property
    def in_force(self) -> PriceList:
        """Raises `KafkaUnavailableError` while it may be outdated."""
        ...

    async def require_current(self) -> None:
        """Return when it is current. Raises `KafkaUnavailableError`."""
        ...


class Answer(NamedTuple):
    """What is told: a status, the document without its last brace and without `as_of`, and when the limit ends."""

    status: int
    document: bytes
    seq: int = 0
    ends_at: int | None = None


class Authorizer:
    """Answers checks. Belongs to one event loop."""

    def __init__(self, view: AccountView, prices: Prices) -> None:
        self._view = view
        self._prices = prices

    async def one(self, org_id: str, body: bytes, min_seq: int = 0) -> tuple[Answer, int]:
        """The answer to one check, and as of when. Raises `ProblemError`, `OperatorError`."""
        fields = json_of(body)
        if not isinstance(fields, dict):
            raise ProblemError(400, "not_a_check", "a check is a JSON object")
        await self._view.wait_until(org_id, min_seq)
        if fields.get(_OPERATION) is not None:
            await self._prices.require_current()
        at = self._view.now(org_id)
        try:
            return self.answer(org_id, fields, at), at
        except FieldError as error:
            raise _refused_field(error) from error
        except DeadLetter as error:
            raise ProblemError(422, error.code.value, error.message) from error

    def quickly(self, org_id: str, body: bytes) -> tuple[Answer, int] | None:
        """As `one`, where nothing needs to be waited for or explained; else None."""
        try:
            fields = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        if type(fields) is not dict or not is_plain(len(fields), body) or not self._view.is_current:
            return None
        at = self._view.now(org_id)
        try:
            return self.answer(org_id, fields, at), at
        except (FieldError, DeadLetter, OperatorError):
            return None

    async def many(self, body: bytes, caller: Caller) -> bytes:
        """The document with the answers to a list of checks. Raises `ProblemError`, `KafkaUnavailableError`."""
        checks = checks_of(body)
        if not caller.is_for_all:
            for check in checks:
                if isinstance(check, dict) and isinstance(check.get("org_id"), str):
                    require_org(caller, check["org_id"])
        await self._view.require_current()
        await self._prices.require_current()
        at = self._view.now()
        answers: list[bytes] = []
        for start in range(0, len(checks), CHECKS_AT_ONCE):
            answers += [self._in_its_place(check, at) for check in checks[start : start + CHECKS_AT_ONCE]]
            await asyncio.sleep(0)
        return b'{"as_of":"%b","results":[%b]}' % (iso_time(at).encode(), b",".join(answers))

    def answer(self, org_id: str, fields: Fields, at: int) -> Answer:
        """The answer to a check; `fields` is used up. Raises `FieldError`, `DeadLetter`, `OperatorError`."""
        known = self._view.look_up(org_id, at)
        text = fields.pop("amount", None)
        if text is None:
            return self._asked(known, org_id, fields, None, at)
        amount, told = _amount_of(text)
        name = tuple(fields.items())
        try:
            found = known.answers.get(name)
        except TypeError:  # a value that is no text
            found = None
        if found is not None and amount <= found[0]:
            return Answer(200, b'%b,"amount":"%b"' % (found[1], told), known.seq)
        return self._asked(known, org_id, fields, amount, at)

    def _asked(self, known: DecodedAccount, org_id: str, fields: Fields, amount: int | None, at: int) -> Answer:
        question = question_of(org_id, fields, amount, at)
        prices = self._prices.in_force if question.usage.operation else NO_PRICES
        given = authorize(known.account, question, prices, at)
        document = _document(org_id, known.seq, given)
        told = format_amount(given.request.amount).encode()
        if given.admission.allowed and amount is not None and not given.request.free and len(fields) == _texts(fields):
            if len(known.answers) >= ANSWERS_MAX:
                known.answers = {}
            known.answers[tuple(fields.items())] = (given.admission.grantable, document)
        refused = given.admission.refused
        ends_at = None if refused is None else refused.limit_ends_at
        return Answer(given.http_status, b'%b,"amount":"%b"' % (document, told), known.seq, ends_at)

    def _in_its_place(self, check: Any, at: int) -> bytes:
        try:
            if not isinstance(check, dict):
                raise FieldError("", "a check is a JSON object")
            org_id = check.pop("org_id", None)
            if not isinstance(org_id, str) or not 0 < len(org_id) <= ID_CHARACTERS_MAX:
                raise FieldError("org_id", f"must be a text of 1 to {ID_CHARACTERS_MAX} characters")
            at = self._view.now(org_id) if self._view.by_log else at
            return self.answer(org_id, check, at).document + b"}"
        except FieldError as error:
            return _fault(422, "invalid_field", str(error), error.field)
        except DeadLetter as error:
            return _fault(422, error.code.value, error.message)
        except OperatorError as error:
            return _fault(503, error.code, error.problem)


NO_PRICES: Final = PriceList(())


def question_of(org_id: str, fields: Fields, amount: int | None, at: int) -> Question:
    """The question of a check that begins at `at`. Raises `FieldError`."""
    unknown = fields.keys() - CHECK_FIELDS
    if unknown:
        raise FieldError(min(unknown), "is no field of a check")
    wallet = fields.get("wallet")
    if wallet is not None and (
        type(wallet) is not str or not 0 < len(wallet) <= ID_CHARACTERS_MAX or not wallet.isprintable()
    ):
        raise FieldError("wallet", f"must be a text of 1 to {ID_CHARACTERS_MAX} printable characters")
    dimensions = {}
    for name, value in fields.items():
        if value is None or name == "wallet":
            continue
        if not _is_simple(name, value):
            return Question(_parsed(org_id, fields, at), wallet, amount)
        dimensions[name] = value
    operation = dimensions.pop(_OPERATION, UNKNOWN_OPERATION)
    return Question(Usage(_CHECK_ID, org_id, at, operation, **dimensions), wallet, amount)


def _is_simple(name: str, value: object) -> bool:
    """Whether a value is right as it is; what is not simple is for the models to look at."""
    if name in _DIMENSIONS:
        return type(value) is str and len(value) <= NAME_CHARACTERS_MAX
    return name in _COUNTS and type(value) is int and 0 <= value <= _COUNT_MAX


def _parsed(org_id: str, fields: Fields, at: int) -> Usage:
    """The usage of a check by the models of records, which say what is wrong with a field."""
    usage = {name: value for name, value in fields.items() if name != "wallet"}
    usage |= {"event_id": _CHECK_ID, "org_id": org_id, "occurred_at": at}
    named = usage.get(_OPERATION) is not None
    record = parse_fields(InputKind.USAGE, usage if named else usage | {_OPERATION: _CHECK_ID})
    parsed = Usage.from_record(record.to_record())
    return parsed if named else msgspec.structs.replace(parsed, operation=UNKNOWN_OPERATION)


def checks_of(body: bytes) -> Sequence[Any]:
    """The checks of a call of many, not looked at yet. Raises `ProblemError`."""
    try:
        content = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        content = json_of(body)
    checks = content.get("checks") if isinstance(content, dict) and len(content) == 1 else None
    if not isinstance(checks, list):
        raise ProblemError(400, "not_a_check", 'send {"checks": [{"org_id": …, "amount": …}, …]}')
    if not checks:
        raise ProblemError(422, "empty_batch", "the list holds no check")
    if len(checks) > CHECKS_MAX:
        raise ProblemError(413, "batch_too_large", f"a call has at most {CHECKS_MAX:,} checks, not {len(checks):,}")
    names = 1 + sum([len(each) for each in checks if type(each) is dict])
    if not is_plain(names, body):
        checks = json_of(body)["checks"]  # which refuses a name that comes twice
    return checks


def is_plain(names: int, body: bytes) -> bool:
    """Whether a body can be seen to have no name twice in an object; `names`: how many are left when it is decoded.

    Each name ends in a quotation mark and a colon, where there is no space between them.
    """
    return body.count(b'":') == names and not any(space in body for space in _SPACE_AFTER_NAME)


def _texts(fields: Fields) -> int:
    return sum([type(value) is str for value in fields.values()])


def _amount_of(text: object) -> tuple[int, bytes]:
    """Nano-units of an amount, and how it is told."""
    try:
        return _parsed_amount(text)
    except (ValueError, TypeError) as error:
        message = str(error) if isinstance(error, ValueError) else "is a decimal string"
        raise FieldError("amount", message) from error


@functools.lru_cache(AMOUNTS_MAX)
def _parsed_amount(text: str) -> tuple[int, bytes]:
    amount = parse_decimal_amount(text)
    if amount < 0:
        raise ValueError("must not be below 0")
    return amount, format_amount(amount).encode()


def _document(org_id: str, seq: int, given: Authorization) -> bytes:
    """The document without its last brace: what it says of the account, but for the amount and the time."""
    code, refused = given.code.value, given.admission.refused
    members: dict[str, Any] = {"allowed": refused is None, "code": code}
    if refused is not None:
        members |= {"type": TYPE_PREFIX + code, "title": code.replace("_", " "), "detail": refused.message}
        if refused.limit_id is not None:
            members["limit_id"] = refused.limit_id
        if refused.limit_window is not None:
            members["window"] = refused.limit_window.value
        if refused.limit_ends_at is not None:
            members["ends_at"] = iso_time(refused.limit_ends_at)
    members |= {
        "status": given.http_status,
        "org_id": org_id,
        "wallet": given.request.wallet,
        "available": format_amount(given.available),
        "grantable": format_amount(given.admission.grantable),
        "seq": seq,
    }
    return msgspec.json.encode(members)[:-1]


def _fault(status: int, code: str, detail: str, field: str = "") -> bytes:
    document = {"type": TYPE_PREFIX + code, "title": code.replace("_", " "), "status": status, "detail": detail}
    document |= {"allowed": False, "code": code} | ({"field": field} if field else {})
    return msgspec.json.encode(document)


def _refused_field(error: FieldError) -> ProblemError:
    faults = [{"field": error.field, "message": str(error)}]
    return ProblemError(422, "invalid_field", f"{error.field}: {error}", errors=faults)
