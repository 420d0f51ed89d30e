"""Commands other than usage, record by record: read, guard, decide.

The guards in order: readable, valid, under its own key, in its key's partition, inside its window, new. What a rule
refuses is the ledger's to write (`rejected`); what no rule can be asked about is a dead letter with its bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
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
from streams.ledger.refusals import DeadLetter
from streams.ledger.settle import hold_still_open, settle_due
from streams.ledger.source import Context, Source
from streams.processing.judged_prices import KeptPrices
from streams.processing.outbound import Outbound
from streams.processing.prices import PriceRecords
from streams.processing.references import References
from streams.processing.state import PartitionState
from streams.processing.validation import check_key, check_window, different_content, read
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
    """A record that may be decided: its place in the batch, the clock there, what it says and what makes it one."""

    index: int
    at: int
    record: dict[str, Any]
    said: bytes
    unique: bytes

    def command(self, kind: InputKind) -> Command:
        return COMMANDS[kind].from_record(self.record)

    def resolves_hold(self, kind: InputKind) -> bool:
        """Whoever captures or releases a hold again, in whatever words, waits for a decision (product rule 18)."""
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

    def book_commands(self, kind: InputKind, decoded: DecodedBatch, seen: SeenIds, window_us: int) -> None:
        """Every record of an input topic of `kind`. The partition's clock moves with them."""
        candidates = self._candidates(kind, decoded, window_us)
        if not candidates:
            return
        seed = self._state.partition.seed
        ids = digests([candidate.unique for candidate in candidates], seed)
        hashes = contents([candidate.said for candidate in candidates], seed)
        known = seen.lookup(ids, self._arrived([candidate.index for candidate in candidates]))
        told = {ids[place].tobytes(): int(known.contents[place]) for place in np.flatnonzero(known.known).tolist()}
        new: list[int] = []
        for place, candidate in enumerate(candidates):
            try:
                digest, said = ids[place].tobytes(), int(hashes[place])
                if digest not in told:
                    booked = self._decide(
                        candidate.record["org_id"], candidate.command(kind), candidate.index, candidate.at
                    )
                    # A refused capture has resolved nothing: sent again, it asks again.
                    if booked or not candidate.resolves_hold(kind):
                        told[digest] = said
                        new.append(place)
                elif told[digest] == said:
                    self._outbound.count(self._inbound.topic, "duplicates")
                elif candidate.resolves_hold(kind):  # the ledger answers that it is resolved already
                    self._decide(candidate.record["org_id"], candidate.command(kind), candidate.index, candidate.at)
                else:
                    raise DeadLetter(*different_content(usage=False))
            except DeadLetter as refusal:
                self._outbound.dead_letter(self._inbound, candidate.index, refusal.code, refusal.message)
        if new:
            clocks = np.asarray([candidates[place].at for place in new], np.int64)
            seen.add(ids[new], hashes[new], self._state.partition.ledger_end, clocks)

    def _candidates(self, kind: InputKind, decoded: DecodedBatch, window_us: int) -> list[_Candidate]:
        """The records that are readable, valid, under their own key, in its partition, and inside their window."""
        said = dict(zip(self._positions(decoded), decoded.contents(), strict=True))
        inbound, candidates = self._inbound, []

        def take(index: int, at: int, fields: Mapping[str, Any]) -> None:
            record = read(kind, fields).to_record()
            self._check_key(index, record["org_id"])
            check_window(record["occurred_at"], inbound.timestamps_ms[index] * 1_000, window_us)
            candidates.append(_Candidate(index, at, record, said[index], unique_id(kind, record)))

        self._each(decoded, take)
        return candidates

    def _each(
        self,
        decoded: DecodedBatch,
        take: Callable[[int, int, Mapping[str, Any]], None],
        absent: Callable[[int], None] | None = None,
    ) -> None:
        """Every record in order, the clock moving with it: `take` gets its place, the time and its fields.

        What cannot be decoded, and what `take` raises a `DeadLetter` for, is one. `absent` gets the place of a record
        without a value, where that is nothing wrong: in a compacted topic it takes the one before it away.
        """
        rows = dict(zip(self._positions(decoded), rows_of(decoded.batch), strict=True))
        failures = {failure.position: failure for failure in decoded.failures}
        for index in range(len(self._inbound)):
            at = self._advance_clock(index)
            if self._inbound.values[index] is None and absent is not None:
                absent(index)
                continue
            try:
                if index in failures:
                    raise DeadLetter(failures[index].code, failures[index].message)
                take(index, at, rows[index])
            except DeadLetter as refusal:
                self._outbound.dead_letter(self._inbound, index, refusal.code, refusal.message)

    def _decide(self, org_id: str, command: Command, index: int, at: int) -> bool:
        """Decide one command; whether no rule refused it."""
        inbound = self._inbound
        source = Source(inbound.topic, inbound.partition, inbound.offsets[index])
        references = self._references.of(command)
        account = self._state.account(org_id)
        arrived_at = inbound.timestamps_ms[index] * 1_000
        hold_id = command.hold_id if isinstance(command, commands.Hold) and command.action != HoldAction.PLACE else None
        with nullcontext() if hold_id is None else hold_still_open(account, hold_id, arrived_at, at):
            self._outbound.outcome(settle_due(account, at))
            outcome = decide(account, command, Context(at, self._prices, source, references))
        self._outbound.outcome(outcome)
        self._references.note_entries(outcome.entries)
        self._outbound.count(inbound.topic, "rejected" if outcome.rejected else "entries")
        return not outcome.rejected

    def book_legs(self, decoded: DecodedBatch) -> None:
        """Transfer legs. Ledgers alone write them; one that none can have written is a dead letter all the same.

        For it must not stop the orgs beside it, and its credits stay visible as on the way until it is sent again; by
        hand perhaps twice, so that their ids are remembered like those of money.
        """
        seen, seed = self._state.partition.seen[MONEY_IDS], self._state.partition.seed

        def take(index: int, at: int, fields: Mapping[str, Any]) -> None:
            self._check_seal(index)
            try:
                leg = Leg.from_record(fields)
            except msgspec.ValidationError as error:
                raise DeadLetter(DeadLetterCode.INVALID_FIELD, str(error)) from error
            self._check_key(index, leg.org_id)
            ids = digests([unique_leg(leg)], seed)
            if seen.lookup(ids, self._arrived([index])).known.any():
                self._outbound.count(self._inbound.topic, "duplicates")
                return
            self._decide(leg.org_id, leg, index, at)
            said = contents([self._inbound.values[index] or b""], seed)
            seen.add(ids, said, self._state.partition.ledger_end, np.asarray([at], np.int64))

        self._each(decoded, take)

    def judge_prices(self, decoded: DecodedBatch, log: PriceLog, known: PriceRecords) -> None:
        """Prices change no account. One that cannot be used is a dead letter, written once, by the partition's owner.

        What was judged is kept in the ledger's own topic, in the transaction of the position: accepted prices, those
        taken away, and that one was refused. `log` and `known` have every price of the batch.
        """
        inbound, kept = self._inbound, KeptPrices(known, self._inbound.partition)
        kept.judge_earlier(inbound.first_offset, log)

        def take(index: int, at: int, fields: Mapping[str, Any]) -> None:
            record = read(InputKind.PRICE, fields).to_record()
            self._check_key(index, record["price_id"])
            published = self._published(index)
            tie = log.tie(Price.from_record(record), published)
            if tie is not None:
                kept.refuse(record["price_id"], published)
                message = f"price {record['price_id']} could tie with {tie.price_id}, which was published before it"
                raise DeadLetter(DeadLetterCode.INVALID_FIELD, message)
            kept.accept(record["price_id"], published, inbound.values[index])
            self._outbound.count(inbound.topic, "entries")

        def take_away(index: int) -> None:
            key = inbound.keys[index]
            if key is not None and key not in self._state.own_keys.foreign([key]):
                kept.accept(key.decode("utf-8", "replace"), self._published(index), None)
            self._outbound.count(inbound.topic, "entries")

        self._each(decoded, take, take_away)
        self._outbound.keep_prices(inbound.partition, kept.changes)

    def _published(self, index: int) -> Published:
        inbound = self._inbound
        return Published(inbound.timestamps_ms[index], inbound.partition, inbound.offsets[index])

    def _check_key(self, index: int, owner: str) -> None:
        """Raise `DeadLetter` unless the record is under the key of its owner, in the partition of that key."""
        key = self._inbound.keys[index]
        check_key(key, owner)
        self._state.own_keys.check(key)

    def _check_seal(self, index: int) -> None:
        """Raise `DeadLetter` `invalid_checksum` for a leg that no ledger with our key has written."""
        inbound, seals = self._inbound, self._state.seals
        headers = inbound.headers[index] if inbound.headers else ()
        tag = next((value for name, value in headers if name == TAG_HEADER), None)
        try:
            seals.check("leg", inbound.keys[index] or b"", inbound.values[index] or b"", tag)
        except SealError as error:
            raise DeadLetter(DeadLetterCode.INVALID_CHECKSUM, f"transfer leg: {error}") from error

    def _arrived(self, indexes: list[int]) -> npt.NDArray[np.int64]:
        """When these records came into the log, microseconds."""
        return np.asarray(self._inbound.timestamps_ms, np.int64)[indexes] * 1_000

    def _positions(self, decoded: DecodedBatch) -> list[int]:
        return list(range(len(self._inbound))) if decoded.positions is None else decoded.positions

    def _advance_clock(self, index: int) -> int:
        stamp = self._inbound.timestamps_ms[index] * 1_000
        if stamp > self._state.clock_at:
            self._state.clock_at = stamp
        return self._state.clock_at
