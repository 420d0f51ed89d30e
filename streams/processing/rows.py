"""Commands other than usage, record by record: read, guard, decide.

A record passes the guards of `validation`; whether it is new, the memory of ids says last. What a rule refuses is an
entry `rejected`, which the ledger writes; what no rule can be asked about is a dead letter with its bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from schemas.codec import DecodedBatch, rows_of
from schemas.enums import DeadLetterCode, HoldAction, InputKind
from schemas.events import ID_FIELDS
from streams.engine.ports import SeenIds
from streams.engine.seen import contents, digests
from streams.kafka.inbound import Inbound
from streams.ledger import commands
from streams.ledger.decide import Command, decide
from streams.ledger.entry import Leg
from streams.ledger.price_log import PriceLog, Published
from streams.ledger.rating import Price, PriceList
from streams.ledger.refusals import DeadLetter, different_content
from streams.ledger.settle import hold_still_open, settle_due
from streams.ledger.source import Context, Source
from streams.processing.judged_prices import KeptPrices
from streams.processing.outbound import Outbound
from streams.processing.prices import PriceRecords
from streams.processing.references import References
from streams.processing.state import PartitionState
from streams.processing.validation import TimeWindow, deleted_price_id, read, refuse_key
from streams.seals import TAG_HEADER, SealError

COMMANDS: Final[
    Mapping[InputKind, type[commands.Purchase | commands.Transfer | commands.Refund | commands.Hold | commands.Setting]]
] = {
    InputKind.PURCHASE: commands.Purchase,
    InputKind.TRANSFER: commands.Transfer,
    InputKind.REFUND: commands.Refund,
    InputKind.HOLD: commands.Hold,
    InputKind.SETTING: commands.Setting,
}


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A record that may be decided, unless its id had an effect before."""

    row: int
    """Which record of the batch it is."""
    at: int
    """The partition's clock there."""
    record: dict[str, Any]
    content: bytes
    unique: bytes

    def command(self, kind: InputKind) -> Command:
        return COMMANDS[kind].from_record(self.record)

    def resolves_hold(self, kind: InputKind) -> bool:
        """A hold captured or released again, with whatever content, is answered by a decision (product rule 18)."""
        return kind is InputKind.HOLD and self.record["action"] != HoldAction.PLACE


def unique_id(kind: InputKind, record: Mapping[str, Any]) -> bytes:
    """What makes a record one: kind, org and id; a hold is placed and resolved under one id, so its action too."""
    return "\0".join((kind.value, record["org_id"], record[ID_FIELDS[kind]], record.get("action") or "")).encode()


def unique_leg(leg: Leg) -> bytes:
    """What makes a transfer leg one."""
    return "\0".join(("leg", leg.kind, leg.org_id, leg.leg_id)).encode()


MONEY_IDS: Final = "money"
"""The window that all records but usage are remembered for, transfer legs too."""


class RowBooking:
    """Decides the records of one inbound batch, one after the other."""

    def __init__(
        self, state: PartitionState, inbound: Inbound, outbound: Outbound, prices: PriceList, references: References
    ) -> None:
        self._state = state
        self._inbound = inbound
        self._outbound = outbound
        self._prices = prices
        self._references = references

    def book_commands(self, kind: InputKind, decoded: DecodedBatch, seen: SeenIds, window: TimeWindow) -> None:
        """Every record of an input topic of `kind`. The partition's clock moves with them."""
        candidates = self._candidates(kind, decoded, window)
        if not candidates:
            return
        seed = self._state.partition.seed
        ids = digests([candidate.unique for candidate in candidates], seed)
        hashes = contents([candidate.content for candidate in candidates], seed)
        found = seen.lookup(ids, self._arrived([candidate.row for candidate in candidates]))
        known = {ids[number].tobytes(): int(found.contents[number]) for number in np.flatnonzero(found.known).tolist()}
        new: list[int] = []
        for number, candidate in enumerate(candidates):
            digest, content = ids[number].tobytes(), int(hashes[number])
            earlier = known.get(digest)
            if earlier == content:
                self._outbound.count(self._inbound.topic, "duplicates")
                continue
            if earlier is not None and not candidate.resolves_hold(kind):
                self._refuse(candidate.row, different_content(usage=False))
                continue
            accepted = self._decide(candidate.record["org_id"], candidate.command(kind), candidate.row, candidate.at)
            if isinstance(accepted, DeadLetter):
                self._refuse(candidate.row, accepted)
            elif earlier is None and (accepted or not candidate.resolves_hold(kind)):
                # A refused capture has resolved nothing: sent again, it asks again.
                known[digest] = content
                new.append(number)
        if new:
            clocks = np.asarray([candidates[number].at for number in new], np.int64)
            seen.add(ids[new], hashes[new], self._state.partition.ledger_end, clocks)

    def _candidates(self, kind: InputKind, decoded: DecodedBatch, window: TimeWindow) -> list[_Candidate]:
        """The records that every guard lets pass."""
        content_of = dict(zip(self._rows(decoded), decoded.contents(), strict=True))
        inbound, own_keys, candidates = self._inbound, self._state.own_keys, []

        def take(row: int, at: int, fields: Mapping[str, Any]) -> DeadLetter | None:
            valid = read(kind, fields)
            if isinstance(valid, DeadLetter):
                return valid
            record = valid.to_record()
            refusal = refuse_key(own_keys, inbound.keys[row], record["org_id"]) or window.refuse(
                record["occurred_at"], inbound.timestamps_ms[row] * 1_000
            )
            if refusal is None:
                candidates.append(_Candidate(row, at, record, content_of[row], unique_id(kind, record)))
            return refusal

        self._each(decoded, take)
        return candidates

    def _each(
        self,
        decoded: DecodedBatch,
        take: Callable[[int, int, Mapping[str, Any]], DeadLetter | None],
        absent: Callable[[int], DeadLetter | None] | None = None,
    ) -> None:
        """Every record in order, the clock moving with it: `take` gets its row, the time and its fields.

        What cannot be decoded is a dead letter, and what `take` returns one for. `absent` gets the row of a record
        without a value, where that is allowed: in a compacted topic it deletes the record before it.
        """
        fields_of = dict(zip(self._rows(decoded), rows_of(decoded.batch), strict=True))
        failures = {failure.position: failure for failure in decoded.failures}
        for row in range(len(self._inbound)):
            at = self._advance_clock(row)
            if self._inbound.values[row] is None and absent is not None:
                refusal = absent(row)
            elif row in failures:
                refusal = DeadLetter(failures[row].code, failures[row].message)
            else:
                refusal = take(row, at, fields_of[row])
            if refusal is not None:
                self._refuse(row, refusal)

    def _refuse(self, row: int, refusal: DeadLetter) -> None:
        self._outbound.dead_letter(self._inbound, row, refusal.code, refusal.message)

    def _decide(self, org_id: str, command: Command, row: int, at: int) -> bool | DeadLetter:
        """Decide one command; whether no rule refused it, or why it cannot be booked."""
        inbound = self._inbound
        source = Source(inbound.topic, inbound.partition, inbound.offsets[row])
        references = self._references.of(command)
        account = self._state.account(org_id)
        arrived_at = inbound.timestamps_ms[row] * 1_000
        hold_id = command.hold_id if isinstance(command, commands.Hold) and command.action != HoldAction.PLACE else None
        with hold_still_open(account, hold_id, arrived_at, at):
            self._outbound.outcome(settle_due(account, at))
            outcome = decide(account, command, Context(at, self._prices, source, references, arrived_at))
        if isinstance(outcome, DeadLetter):
            return outcome
        self._outbound.outcome(outcome)
        self._references.note_entries(outcome.entries)
        self._outbound.count(inbound.topic, "rejected" if outcome.rejected else "entries")
        return not outcome.rejected

    def book_legs(self, decoded: DecodedBatch) -> None:
        """Transfer legs. Only ledgers write them; one that no ledger can have written is a dead letter all the same.

        It must not stop the other orgs of the partition, and its credits stay visible as in transit until it is sent
        again. That may be done twice, by hand, so the ids of legs are remembered like those of money.
        """
        seen, seed = self._state.partition.seen[MONEY_IDS], self._state.partition.seed

        def take(row: int, at: int, fields: Mapping[str, Any]) -> DeadLetter | None:
            refusal = self._refuse_seal(row)
            if refusal is not None:
                return refusal
            try:
                leg = Leg.from_record(fields)
            except msgspec.ValidationError as error:
                return DeadLetter(DeadLetterCode.INVALID_FIELD, str(error))
            refusal = self._refuse_key(row, leg.org_id)
            if refusal is not None:
                return refusal
            ids = digests([unique_leg(leg)], seed)
            if seen.lookup(ids, self._arrived([row])).known.any():
                self._outbound.count(self._inbound.topic, "duplicates")
                return None
            accepted = self._decide(leg.org_id, leg, row, at)
            if isinstance(accepted, DeadLetter):
                return accepted
            content = contents([self._inbound.values[row] or b""], seed)
            seen.add(ids, content, self._state.partition.ledger_end, np.asarray([at], np.int64))
            return None

        self._each(decoded, take)

    def judge_prices(self, decoded: DecodedBatch, log: PriceLog, known: PriceRecords) -> None:
        """Prices change no account. One that cannot be used is a dead letter, written once, by the partition's owner.

        What was judged is kept in the ledger's own topic, in the transaction of the position: accepted prices, those
        taken away, and that one was refused. `log` and `known` have every price of the batch.
        """
        inbound, kept = self._inbound, KeptPrices(known, self._inbound.partition)
        kept.judge_earlier(inbound.first_offset, log)
        kept.seal_again(self._state.own_keys)

        def take(row: int, at: int, fields: Mapping[str, Any]) -> DeadLetter | None:
            valid = read(InputKind.PRICE, fields)
            if isinstance(valid, DeadLetter):
                return valid
            record = valid.to_record()
            refusal = self._refuse_key(row, record["price_id"])
            if refusal is not None:
                return refusal
            published = self._published(row)
            tie = log.tie(Price.from_record(record), published)
            if tie is not None:
                kept.refuse(record["price_id"], published)
                message = f"price {record['price_id']} could tie with {tie.price_id}, which was published before it"
                return DeadLetter(DeadLetterCode.INVALID_FIELD, message)
            kept.accept(record["price_id"], published, inbound.values[row])
            self._outbound.count(inbound.topic, "entries")
            return None

        def take_away(row: int) -> DeadLetter | None:
            price_id = deleted_price_id(inbound.keys[row])
            if isinstance(price_id, DeadLetter):
                return price_id
            refusal = self._state.own_keys.refuse(inbound.keys[row])
            if refusal is None:
                kept.accept(price_id, self._published(row), None)
                self._outbound.count(inbound.topic, "entries")
            return refusal

        self._each(decoded, take, take_away)
        self._outbound.keep_prices(inbound.partition, kept.changes, self._state.seals)

    def _published(self, row: int) -> Published:
        inbound = self._inbound
        return Published(inbound.timestamps_ms[row], inbound.partition, inbound.offsets[row])

    def _refuse_key(self, row: int, owner: str) -> DeadLetter | None:
        return refuse_key(self._state.own_keys, self._inbound.keys[row], owner)

    def _refuse_seal(self, row: int) -> DeadLetter | None:
        """`invalid_checksum` for a leg that no ledger with our key has written."""
        inbound, seals = self._inbound, self._state.seals
        headers = inbound.headers[row] if inbound.headers else ()
        tag = next((value for name, value in headers if name == TAG_HEADER), None)
        try:
            seals.check("leg", inbound.keys[row] or b"", inbound.values[row] or b"", tag)
        except SealError as error:
            return DeadLetter(DeadLetterCode.INVALID_CHECKSUM, f"transfer leg: {error}")
        return None

    def _arrived(self, rows: list[int]) -> npt.NDArray[np.int64]:
        """When these records came into the log, microseconds."""
        return np.asarray(self._inbound.timestamps_ms, np.int64)[rows] * 1_000

    def _rows(self, decoded: DecodedBatch) -> list[int]:
        return list(range(len(self._inbound))) if decoded.positions is None else decoded.positions

    def _advance_clock(self, row: int) -> int:
        stamp = self._inbound.timestamps_ms[row] * 1_000
        if stamp > self._state.clock_at:
            self._state.clock_at = stamp
        return self._state.clock_at
