"""Records as rows of the ClickHouse tables. Pure: decoded columns in, Arrow tables out.

Rules of this file: one function per table; a row is a function of its record and of where the record stood, so the
same record makes the same row whenever it is read again; names are the record's, `_nanos` taken off as amounts become
decimals.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from projections.columns import (
    MOMENT,
    Ints,
    amounts,
    constant,
    moments,
    numbers,
    struct_list,
    text,
)
from schemas.codec import batch_of
from schemas.dead_letters import (
    CODE_HEADER,
    EXCEPTION_HEADER,
    MESSAGE_HEADER,
    OFFSET_HEADER,
    PARTITION_HEADER,
    TOPIC_HEADER,
    VALUE_PREFIX,
)
from schemas.dismissals import dismissal_of
from schemas.enums import EntryKind, EntryReason
from schemas.facts import BALANCE_AMOUNTS
from schemas.records import arrow_schema
from schemas.times import TIME_MAX

DEAD_LETTER_VALUE_BYTES_MAX = 65_536
"""Bytes of a dead letter's value that its row holds; the topic holds them all."""

Conversion = Callable[[Any], Any]


def _as_is(column: Any) -> Any:
    return column


_DECLARED: tuple[tuple[str, str, Conversion], ...] = (
    ("org_id", "org_id", _as_is),
    ("seq", "seq", _as_is),
    ("entry_id", "entry_id", _as_is),
    ("kind", "kind", _as_is),
    ("wallet", "wallet", _as_is),
    ("amount", "amount_nanos", amounts),
    ("balance", "balance_nanos", amounts),
    ("available", "available_nanos", amounts),
    ("held", "held_nanos", amounts),
    ("occurred_at", "occurred_at", moments),
    ("recorded_at", "recorded_at", moments),
    ("event_id", "event_id", _as_is),
    ("source_topic", "source_topic", _as_is),
    ("source_partition", "source_partition", _as_is),
    ("source_offset", "source_offset", _as_is),
    ("operation", "operation", text),
    ("source", "source", text),
    ("category", "category", text),
    ("project_id", "project_id", text),
    ("user_id", "user_id", text),
    ("team", "team", text),
    ("department", "department", text),
    ("model", "model", text),
    ("tool", "tool", text),
    ("provider", "provider", text),
    ("endpoint", "endpoint", text),
    ("deployment", "deployment", text),
    ("input_tokens", "input_tokens", numbers),
    ("output_tokens", "output_tokens", numbers),
    ("quantity", "quantity_nanos", amounts),
    ("unit_of_measure", "unit_of_measure", text),
    ("replicas", "replicas", _as_is),
    ("revision", "revision", _as_is),
    ("hold_id", "hold_id", text),
    ("unit_price", "unit_price_nanos", amounts),
    ("output_unit_price", "output_unit_price_nanos", amounts),
    ("billing_unit", "billing_unit", text),
    ("reason", "reason", text),
    ("actor", "actor", text),
    ("counterparty_org_id", "counterparty_org_id", text),
    ("correlation_id", "correlation_id", text),
    ("details", "details", text),
    ("attributes", "attributes", _as_is),
)


def _by_type(field: pa.Field) -> tuple[str, str, Conversion]:
    """The column of a field of the entry that is not declared above."""
    if field.name.endswith("_nanos"):
        return field.name.removesuffix("_nanos"), field.name, amounts
    if pa.types.is_string(field.type):
        return field.name, field.name, text
    return field.name, field.name, numbers if pa.types.is_integer(field.type) else _as_is


_KNOWN = {"slices", "grants", "components", "quantities", *(source for _, source, _ in _DECLARED)}
_LEDGER = (*_DECLARED, *(_by_type(field) for field in arrow_schema("entry") if field.name not in _KNOWN))

_ACTIVITY_KINDS = (
    EntryKind.PURCHASE,
    EntryKind.TRANSFER_OUT,
    EntryKind.TRANSFER_IN,
    EntryKind.TRANSFER_RETURN,
    EntryKind.REFUND,
    EntryKind.ADJUSTMENT,
    EntryKind.SETTING,
)

# What a setting is about, by the fields of its body that tell two settings of the same kind apart.
_SUBJECT_FIELDS = ("budget_id", "user_id", "price_id", "unit")

_OPTIONAL_PRICE_FIELDS = (
    "category",
    "model",
    "tool",
    "provider",
    "direction",
    "tier",
    "org_id",
    "display_name",
    "meter",
    "service_tier",
)

_OPTIONAL_PRICE_AMOUNTS = ("free_quantity", "package_size", "minimum", "factor")


_REFUSED_TEXTS = ("org_id", "actor", "action", "path", "reason", "detail")


def ledger_rows(batch: Any, partition: int, offsets: Ints) -> Any:
    """Rows of `ledger`: every entry."""
    columns = {target: convert(batch.column(source)) for target, source, convert in _LEDGER}
    columns["slices"] = _slices(batch.column("slices"))
    columns["grants"] = _grants(batch.column("grants"))
    columns["components"] = _components(batch.column("components"))
    columns["quantities"] = _quantities(batch.column("quantities"))
    columns["ledger_partition"] = constant(partition, batch.num_rows, pa.uint32())
    columns["ledger_offset"] = pa.array(offsets)
    return pa.table(columns)


def activity_rows(batch: Any, tries: Mapping[str, str]) -> Any | None:
    """Rows of `activity`: changes to an org, by whom, and refused tries (product rule 32); None when there are none.

    `tries`: what a record of a source topic tries to do; refusals of other topics (usage, holds) are machines' work and
    no activity of people. The acknowledgement that ends a transfer is none either.
    """
    kinds = batch.column("kind")
    acted = pc.is_in(kinds, pa.array(_ACTIVITY_KINDS, pa.string()))
    ended = pc.and_(pc.equal(kinds, EntryKind.TRANSFER_OUT), pc.equal(batch.column("amount_nanos"), 0))
    tried = pc.is_in(batch.column("source_topic"), pa.array(list(tries), pa.string()))
    refused = pc.and_(pc.equal(kinds, EntryKind.REJECTED), tried)
    wanted = pc.or_(pc.and_not(acted, ended), refused)
    if not pc.any(wanted).as_py():
        return None
    batch = batch.filter(wanted)
    details = text(batch.column("details"))
    named = [
        _action(tries.get(topic, "") if kind == EntryKind.REJECTED else kind, detail)
        for kind, topic, detail in zip(
            batch.column("kind").to_pylist(), batch.column("source_topic").to_pylist(), details.to_pylist(), strict=True
        )
    ]
    return pa.table(
        {
            "org_id": batch.column("org_id"),
            "seq": batch.column("seq"),
            "kind": batch.column("kind"),
            "action": pa.array([action for action, _ in named], pa.string()),
            "subject": pa.array([subject for _, subject in named], pa.string()),
            "wallet": batch.column("wallet"),
            "amount": amounts(batch.column("amount_nanos")),
            "balance": amounts(batch.column("balance_nanos")),
            "occurred_at": moments(batch.column("occurred_at")),
            "recorded_at": moments(batch.column("recorded_at")),
            "actor": text(batch.column("actor")),
            "reason": text(batch.column("reason")),
            "event_id": batch.column("event_id"),
            "correlation_id": text(batch.column("correlation_id")),
            "counterparty_org_id": text(batch.column("counterparty_org_id")),
            "details": details,
        }
    )


def purchase_rows(batch: Any, purchases_topic: str) -> Any | None:
    """Rows of `purchases`: every entry that a purchase record caused; None when there are none."""
    wanted = pc.and_(
        pc.equal(batch.column("source_topic"), purchases_topic),
        pc.is_in(
            batch.column("kind"),
            pa.array([EntryKind.PURCHASE, EntryKind.ADJUSTMENT, EntryKind.REJECTED], pa.string()),
        ),
    )
    if not pc.any(wanted).as_py():
        return None
    batch = batch.filter(wanted)
    lots: list[Mapping[str, Any]] = [grants[0] if grants else {} for grants in batch.column("grants").to_pylist()]
    every_details = [_json_object(details) for details in text(batch.column("details")).to_pylist()]
    # Of a purchase that was not completed the entry says no amount, its details do.
    asked = [
        details.get("amount_nanos", amount)
        for details, amount in zip(every_details, batch.column("amount_nanos").to_pylist(), strict=True)
    ]
    statuses = [
        _purchase_status(kind, reason)
        for kind, reason in zip(batch.column("kind").to_pylist(), batch.column("reason").to_pylist(), strict=True)
    ]
    return pa.table(
        {
            "org_id": batch.column("org_id"),
            "seq": batch.column("seq"),
            "purchase_id": batch.column("event_id"),
            "status": pa.array(statuses, pa.string()),
            "wallet": batch.column("wallet"),
            "amount": amounts(pa.array(asked, pa.int64())),
            "grant_kind": pa.array([lot.get("kind") or "" for lot in lots], pa.string()),
            "price_paid": amounts(pa.array([lot.get("price_paid_nanos") for lot in lots], pa.int64())),
            "currency": pa.array([lot.get("currency") or "" for lot in lots], pa.string()),
            "expires_at": moments(pa.array([lot.get("expires_at") for lot in lots], pa.int64())),
            "balance": amounts(batch.column("balance_nanos")),
            "occurred_at": moments(batch.column("occurred_at")),
            "recorded_at": moments(batch.column("recorded_at")),
            "actor": text(batch.column("actor")),
            "reason": text(batch.column("reason")),
            "correlation_id": text(batch.column("correlation_id")),
            "failure_reason": pa.array([details.get("failure_reason") or "" for details in every_details], pa.string()),
        }
    )


def alert_rows(batch: Any, topic: str) -> Any:
    """Rows of `alerts`."""
    same = ("org_id", "alert_id", "wallet", "kind", "rule_version", "epoch", "used_percent", "previous_percent")
    return pa.table(
        {
            **{name: batch.column(name) for name in same},
            "rule_id": text(batch.column("rule_id")),
            "level": text(batch.column("level")),
            "balance": amounts(batch.column("balance_nanos")),
            "available": amounts(batch.column("available_nanos")),
            "occurred_at": moments(batch.column("occurred_at")),
            "entry_seq": batch.column("entry_seq"),
            "channels": batch.column("channels"),
            "dismissable": batch.column("dismissable"),
            "message": batch.column("message"),
            "thresholds_left": batch.column("thresholds_left"),
            "topic": constant(topic, batch.num_rows, pa.string()),
        }
    )


def balance_rows(batch: Any, offsets: Ints) -> Any:
    """Rows of `balances`: the wallets of the newest record of each org in the batch."""
    newest = {org_id: row for row, org_id in enumerate(batch.column("org_id").to_pylist())}
    picked = pa.array(sorted(newest.values()), pa.int64())
    batch = batch.take(picked)
    wallets = batch.column("wallets")
    parents = pc.list_parent_indices(wallets)
    each = wallets.flatten()
    return pa.table(
        {
            "org_id": batch.column("org_id").take(parents),
            "wallet": each.field("unit"),
            "seq": batch.column("seq").take(parents),
            "as_of": moments(batch.column("as_of").take(parents)),
            **{name: amounts(each.field(f"{name}_nanos")) for name in BALANCE_AMOUNTS},
            "status": each.field("status"),
            "health": each.field("health"),
            "version": pa.array(offsets).take(picked).take(parents),
        }
    )


def price_rows(batch: Any, offsets: Ints, deleted: bool = False) -> Any:
    """Rows of `prices` for published prices; `deleted`: for prices taken off the list."""
    return pa.table(
        {
            "price_id": batch.column("price_id"),
            "operation": batch.column("operation"),
            "unit_price": amounts(batch.column("unit_price_nanos")),
            "billing_unit": batch.column("billing_unit"),
            "wallet": batch.column("wallet"),
            "valid_from": moments(batch.column("valid_from")),
            "valid_to": moments(batch.column("valid_to")),
            **{name: text(batch.column(name)) for name in _OPTIONAL_PRICE_FIELDS},
            "free": batch.column("free"),
            "input_tokens_above": batch.column("input_tokens_above"),
            "aliases": batch.column("aliases"),
            "tiers": _price_tiers(batch.column("tiers")),
            **{name: amounts(batch.column(f"{name}_nanos")) for name in _OPTIONAL_PRICE_AMOUNTS},
            "deleted": constant(deleted, batch.num_rows, pa.bool_()),
            "version": pa.array(offsets),
        }
    )


def deleted_price_rows(price_ids: Sequence[str], offsets: Sequence[int]) -> Any:
    """Rows of `prices` for prices taken off the list (a null value in the compacted topic)."""
    nothing = {"operation": "", "unit_price_nanos": 0, "billing_unit": "", "wallet": "", "valid_from": 0}
    batch = batch_of("price", [{"price_id": price_id, **nothing} for price_id in price_ids])
    return price_rows(batch, np.asarray(offsets, np.int64), deleted=True)


def dead_letter_rows(
    partition: int,
    offsets: Sequence[int],
    timestamps_ms: Sequence[int],
    keys: Sequence[bytes | None],
    values: Sequence[bytes | None],
    headers: Sequence[Sequence[tuple[str, bytes]]],
) -> Any:
    """Rows of `dead_letters`, from the records as they are: their headers say where they came from and why."""
    said = [
        {name: value.decode("utf-8", "replace") for name, value in of_record if value is not None}
        for of_record in headers
    ]
    return pa.table(
        {
            "source_topic": [known.get(TOPIC_HEADER, "") for known in said],
            "source_partition": pa.array([_integer(known.get(PARTITION_HEADER)) for known in said], pa.int32()),
            "source_offset": pa.array([_integer(known.get(OFFSET_HEADER)) for known in said], pa.int64()),
            "code": [known.get(CODE_HEADER, "") for known in said],
            "org_id": ["" if key is None else key.decode("utf-8", "replace") for key in keys],
            "exception": [known.get(EXCEPTION_HEADER, "") for known in said],
            "message": [known.get(MESSAGE_HEADER, "") for known in said],
            "recorded_at": pa.array([stamp * 1_000 for stamp in timestamps_ms], pa.int64()).view(MOMENT),
            "value": pa.array(
                [None if value is None else value[:DEAD_LETTER_VALUE_BYTES_MAX] for value in values], pa.binary()
            ),
            "value_bytes": pa.array(
                [_value_bytes(known, value or b"") for known, value in zip(said, values, strict=True)], pa.uint64()
            ),
            "letter_partition": constant(partition, len(offsets), pa.uint32()),
            "letter_offset": pa.array(offsets, pa.int64()),
        }
    )


def refused_call_rows(
    partition: int, offsets: Sequence[int], timestamps_ms: Sequence[int], values: Sequence[bytes | None]
) -> Any:
    """Rows of `refused_calls`, from what the HTTP interface recorded; what is no such record is left out."""
    rows = []
    for offset, timestamp_ms, value in zip(offsets, timestamps_ms, values, strict=True):
        call = _json_object((value or b"").decode("utf-8", "replace"))
        try:
            texts = [str(call[name]).encode("utf-8", "replace").decode() for name in _REFUSED_TEXTS]
            occurred_at, repeated = int(call["occurred_at"]), int(call["repeated"])
        except (KeyError, TypeError, ValueError, OverflowError):
            continue
        if 0 <= occurred_at <= TIME_MAX and 0 <= repeated < 2**32:
            rows.append((*texts, occurred_at, timestamp_ms * 1_000, repeated, offset))
    columns = list(zip(*rows, strict=True)) or [()] * (len(_REFUSED_TEXTS) + 4)
    occurred, recorded, repetitions, places = columns[-4:]
    return pa.table(
        {name: pa.array(column, pa.string()) for name, column in zip(_REFUSED_TEXTS, columns[:-4], strict=True)}
        | {
            "occurred_at": pa.array(occurred, pa.int64()).view(MOMENT),
            "recorded_at": pa.array(recorded, pa.int64()).view(MOMENT),
            "repeated": pa.array(repetitions, pa.uint32()),
            "call_partition": constant(partition, len(rows), pa.uint32()),
            "call_offset": pa.array(places, pa.int64()),
        }
    )


def replay_rows(keys: Sequence[bytes | None], values: Sequence[bytes | None], offsets: Sequence[int]) -> Any:
    """Rows of `replays`, from the notes of `credits dead-letters replay`; what is no note is left out."""
    rows = []
    for key, value, offset in zip(keys, values, offsets, strict=True):
        partition, _, place = (key or b"").partition(b":")
        note = _json_object((value or b"").decode("utf-8", "replace"))
        try:
            letter = int(partition), int(place)
            rows.append(
                (*letter, int(note["at_ms"]), str(note["topic"]), int(note["partition"]), int(note["offset"]), offset)
            )
        except (KeyError, TypeError, ValueError):
            continue
    columns = list(zip(*rows, strict=True)) or [()] * 7
    return pa.table(
        {
            "letter_partition": pa.array(columns[0], pa.uint32()),
            "letter_offset": pa.array(columns[1], pa.int64()),
            "replayed_at": pa.array([at * 1_000 for at in columns[2]], pa.int64()).view(MOMENT),
            "topic": pa.array(columns[3], pa.string()),
            "partition": pa.array(columns[4], pa.int32()),
            "offset": pa.array(columns[5], pa.int64()),
            "version": pa.array(columns[6], pa.int64()),
        }
    )


def dismissal_rows(keys: Sequence[bytes | None], values: Sequence[bytes | None], offsets: Sequence[int]) -> Any:
    """Rows of `dismissals`, from the notes of the HTTP API; what is no note, or of another alert, is left out."""
    rows = []
    for key, value, offset in zip(keys, values, offsets, strict=True):
        note = dismissal_of(key, value)
        if note is not None:
            rows.append((note.org_id, note.alert_id, note.dismissed_at, note.actor, offset))
    columns = list(zip(*rows, strict=True)) or [()] * 5
    return pa.table(
        {
            "org_id": pa.array(columns[0], pa.string()),
            "alert_id": pa.array(columns[1], pa.string()),
            "dismissed_at": pa.array(columns[2], pa.int64()).view(MOMENT),
            "actor": pa.array(columns[3], pa.string()),
            "version": pa.array(columns[4], pa.int64()),
        }
    )


def position_rows(positions: Mapping[tuple[str, int], tuple[int, int]]) -> Any:
    """Rows of `positions`: (topic, partition) → (next offset, time of the newest record in microseconds)."""
    return pa.table(
        {
            "topic": pa.array([topic for topic, _ in positions], pa.string()),
            "partition": pa.array([partition for _, partition in positions], pa.uint32()),
            "position": pa.array([position for position, _ in positions.values()], pa.int64()),
            "as_of": pa.array([as_of for _, as_of in positions.values()], pa.int64()).view(MOMENT),
        }
    )


def _slices(column: Any) -> Any:
    each = column.flatten()
    fields = [
        ("grant_id", each.field("grant_id")),
        ("kind", each.field("kind")),
        ("amount", amounts(each.field("amount_nanos"))),
        ("expires_at", moments(each.field("expires_at"))),
    ]
    return struct_list(column, fields)


def _grants(column: Any) -> Any:
    each = column.flatten()
    fields = [
        ("grant_id", each.field("grant_id")),
        ("kind", each.field("kind")),
        ("amount", amounts(each.field("amount_nanos"))),
        ("priority", each.field("priority")),
        ("expires_at", moments(each.field("expires_at"))),
        ("price_paid", amounts(each.field("price_paid_nanos"))),
        ("currency", each.field("currency")),
    ]
    return struct_list(column, fields)


def _components(column: Any) -> Any:
    each = column.flatten()
    fields = [
        ("meter", each.field("meter")),
        ("quantity", amounts(each.field("quantity_nanos"))),
        ("unit_price", amounts(each.field("unit_price_nanos"))),
        ("billing_unit", each.field("billing_unit")),
        ("price_id", each.field("price_id")),
        ("amount", amounts(each.field("amount_nanos"))),
    ]
    return struct_list(column, fields)


def _quantities(column: Any) -> Any:
    """A map of quantities in nano-units as one of decimals."""
    offsets = column.offsets.to_numpy()
    start, count = int(offsets[0]), int(offsets[-1] - offsets[0])
    keys, items = column.keys.slice(start, count), amounts(column.items.slice(start, count))
    return pa.MapArray.from_arrays(pa.array(offsets - start, pa.int32()), keys, items)


def _price_tiers(column: Any) -> Any:
    each = column.flatten()
    fields = [("up_to", amounts(each.field("up_to_nanos"))), ("unit_price", amounts(each.field("unit_price_nanos")))]
    return struct_list(column, fields)


def _action(kind: str, details: str) -> tuple[str, str]:
    """What was done or tried, and for a setting what it is about, from its details (`{"kind": …, "body": {…}}`)."""
    if kind != EntryKind.SETTING:
        return kind, ""
    said = _json_object(details)
    body = said.get("body")
    if isinstance(body, str):  # of a refused setting: the text as it came
        body = _json_object(body)
    if not isinstance(body, dict):
        body = {}
    return str(said.get("kind", kind)), next((str(body[name]) for name in _SUBJECT_FIELDS if name in body), "")


def _json_object(details: str) -> Mapping[str, Any]:
    """The object that the details of an entry hold; empty when there is none."""
    try:
        said = json.loads(details)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _purchase_status(kind: str, reason: str | None) -> str:
    if reason == EntryReason.PURCHASE_FAILED:
        return "failed"
    return "refused" if kind == EntryKind.REJECTED else "completed"


def _value_bytes(said: Mapping[str, str], value: bytes) -> int:
    """How large the value was; it was cut when the ledger says that it was larger."""
    whole = _integer(said.get(f"{VALUE_PREFIX}bytes"))
    return whole if len(value) < whole < 2**63 else len(value)


def _integer(said: str | None) -> int:
    """A number of a header; -1 where it is absent or none."""
    try:
        return int(said or "")
    except ValueError:
        return -1
