"""The organisations' accounts as the ledger has committed them, in memory, for answers before work.

The rules of this file:
1. The source is the ledger's own changelog, so the ledger does nothing more for it (decision 50, answers before
   work come from the accounts' changelog). A state stays bytes until somebody asks: 1,000,000 organisations are their
   bytes and a dict entry each.
2. Decoded accounts are kept while they are asked for, in two generations: when the younger one is full, it becomes the
   older one, and what was in that and not asked for meanwhile is forgotten. A decoded account belongs to one frame: the
   next one of the org makes it void.
3. What is due by the ledger's time is settled in the decoded account before it is asked, as the ledger will settle it.
   That changes nothing but this copy. The ledger's time is this host's clock, and never behind what a partition's
   clock already was (`CREDITS_CLOCK=log`: the partition's clock, and nothing else).
4. A state without a valid checksum, where there are checksums, is believed by nobody; nor is one that cannot be read.
   There is no answer for that org then, and the log says so. Nor for any org of a partition that is being rebuilt.
5. `look_up` belongs to one thread. Records are kept by the reading thread; a dict is replaced or read in one step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog
from confluent_kafka import Message

from schemas.partitioner import partition_of, partitions_of
from streams.engine.accounts import is_frame, state_of
from streams.engine.positions import POSITION_KEY, REBUILDING
from streams.errors import OperatorError
from streams.kafka.current import MIN_SEQ_WAIT_S, CurrentRecords
from streams.ledger.account import Account, decode_account, new_account
from streams.ledger.authorization import settled_until
from streams.seals import SealError, Seals, position_owner

if TYPE_CHECKING:
    from streams.settings import Settings

log = structlog.get_logger(__name__)

DECODED_MAX: Final = 16_384
"""Decoded accounts in a generation, about 3 KiB each with what is remembered of answers: 100 MiB in both."""
DECODED_BYTES_MAX: Final = 16 * 1024 * 1024
"""Encoded bytes of the accounts in a generation; decoded they take about eight times that."""
CLOCK_INTERVAL_S: Final = 1.0
"""How often the partitions' clocks are looked at: a host that is behind is behind by no more than that."""


class AccountUnreadableError(OperatorError):
    """An account's state is not one that the ledger wrote."""

    code = "account_unreadable"


class RebuildingError(OperatorError):
    """The accounts of a partition are being made again."""

    code = "rebuilding"


class DecodedAccount:
    """An account that is asked for, settled up to some instant."""

    __slots__ = ("account", "answers", "frame", "seq", "until")

    def __init__(self, frame: bytes | None, account: Account, until: int) -> None:
        self.frame = frame
        self.account = account
        """Settled: it may be ahead of what the ledger has written."""
        self.seq = account.seq
        """Number of the last entry that the ledger has committed."""
        self.until = until
        """From then on something is due again."""
        self.answers: dict[Any, Any] = {}
        """What was answered of it, for who asks (`streams.api.authorize`); forgotten when it changes."""


class AccountView(CurrentRecords):
    """Follows the accounts. Start it, start its checking, `look_up` from one thread, close it."""

    def __init__(self, settings: Settings, now_us: Callable[[], int] = lambda: time.time_ns() // 1_000) -> None:
        """`now_us`: this host's clock, in microseconds."""
        super().__init__(settings, "accounts")
        self._seals = Seals.of(settings)
        self._now_us = now_us
        self.by_log = settings.clock == "log"
        """Time is what the partition of an org says, and differs from one to the other."""
        self._frames: dict[bytes, bytes] = {}
        self._positions: dict[int, bytes | None] = {}
        self._clocks: dict[int, tuple[bytes | None, int]] = {}
        self._latest_clock = 0
        self._clocks_at_s = -CLOCK_INTERVAL_S
        self._rebuilding = False
        self._young: dict[bytes, DecodedAccount] = {}
        self._old: dict[bytes, DecodedAccount] = {}
        self._young_bytes = 0

    @property
    def orgs(self) -> int:
        """How many organisations have an account."""
        return len(self._frames)

    def now(self, org_id: str = "") -> int:
        """The ledger's time in microseconds; by the log it is of the org's partition."""
        if self.by_log:
            return self._clock_of(partition_of(org_id.encode(), self._partitions))
        self._look_at_clocks()
        return max(self._now_us(), self._latest_clock)

    def look_up(self, org_id: str, at: int) -> DecodedAccount:
        """The org's account, with what is due by `at` settled; an empty one of an org that the ledger does not know.

        Raises `AccountUnreadableError`, `RebuildingError`.
        """
        key = org_id.encode()
        frame = self._frames.get(key)
        known = self._young.get(key)
        if known is not None and known.frame is frame and at < known.until and not self._rebuilding:
            return known
        if self._rebuilding and self._positions.get(partition_of(key, self._partitions)) == REBUILDING:
            raise RebuildingError(f"the account of {org_id!r} is being rebuilt", "try again when that is done")
        if known is None:
            known = self._old.get(key)
        if known is None or known.frame is not frame:
            known = self._decoded(org_id, frame)
        if at >= known.until:
            known.until = settled_until(known.account, at)
            known.answers = {}
        self._remember(key, known)
        return known

    async def wait_until(self, org_id: str, min_seq: int, timeout_s: float = MIN_SEQ_WAIT_S) -> None:
        """Return when entry `min_seq` of the org is in memory. Raises `NotYetError`, and as `require_current`."""
        await self.require_current()
        if self._committed_seq(org_id) < min_seq:
            await self.wait_for(org_id, min_seq, lambda: self._committed_seq(org_id) >= min_seq, timeout_s)

    def _committed_seq(self, org_id: str) -> int:
        frame = self._frames.get(org_id.encode())
        return 0 if frame is None else _HEADS.decode(self._state(org_id, frame)).seq

    def _decoded(self, org_id: str, frame: bytes | None) -> DecodedAccount:
        if frame is None:
            return DecodedAccount(None, new_account(org_id), 0)
        try:
            account = decode_account(self._state(org_id, frame))
        except msgspec.DecodeError as error:
            raise self._unreadable(org_id, str(error)) from error
        return DecodedAccount(frame, account, 0)

    def _state(self, org_id: str, value: bytes) -> bytes:
        try:
            frame, _ = self._seals.open("account", org_id.encode(), value)
        except SealError as error:
            raise self._unreadable(org_id, str(error)) from error
        if not is_frame(frame):
            raise self._unreadable(org_id, "it is too short")
        return state_of(frame)

    def _unreadable(self, org_id: str, fault: str) -> AccountUnreadableError:
        log.error("an account cannot be read", topic=self._topic, org_id=org_id, error=fault)
        return AccountUnreadableError(
            f"the account of {org_id!r} cannot be read: {fault}",
            "set CREDITS_INTERNAL_KEY as the workers have it; else find out who wrote the record",
        )

    def _remember(self, key: bytes, known: DecodedAccount) -> None:
        if key not in self._young:
            size = len(known.frame or b"")
            if len(self._young) >= DECODED_MAX or self._young_bytes + size > DECODED_BYTES_MAX:
                self._old, self._young, self._young_bytes = self._young, {}, 0
            self._young_bytes += size
        self._young[key] = known

    def _look_at_clocks(self) -> None:
        now_s = time.monotonic()
        if now_s - self._clocks_at_s >= CLOCK_INTERVAL_S:
            self._clocks_at_s = now_s
            self._latest_clock = max((self._clock_of(number) for number in list(self._positions)), default=0)

    def _clock_of(self, partition: int) -> int:
        """The partition's clock as its last transaction left it; 0 where there was none."""
        value = self._positions.get(partition)
        known = self._clocks.get(partition)
        if known is not None and known[0] is value:
            return known[1]
        clock_at = 0
        if value is not None and value != REBUILDING:
            try:
                clock_at = _CLOCKS.decode(self._seals.open("position", position_owner(partition), value)[0]).clock_at
            except (SealError, msgspec.DecodeError) as error:  # the worker that owns it refuses it, too
                log.error("a partition's position cannot be read", partition=partition, error=str(error))
        self._clocks[partition] = (value, clock_at)
        return clock_at

    def _take(self, messages: Sequence[Message]) -> None:
        homes = partitions_of([message.key() or b"" for message in messages], self._partitions)
        for message, home in zip(messages, homes, strict=True):
            key = message.key()
            if key == POSITION_KEY:
                self._positions[message.partition()] = message.value()
                self._rebuilding = REBUILDING in self._positions.values()
            elif key and message.partition() == home:
                self._keep(message)

    def _keep(self, message: Message) -> None:
        key, value = message.key(), message.value()
        if value is None:
            self._frames.pop(key, None)
        else:
            self._frames[key] = value
        self._changed(key)


class _Head(msgspec.Struct, array_like=True):
    """The first fields of an `Account`."""

    org_id: str
    seq: int = 0


class _Clock(msgspec.Struct):
    """The clock in a `PositionRecord`."""

    clock_at: int = 0


_HEADS = msgspec.msgpack.Decoder(_Head)
_CLOCKS = msgspec.msgpack.Decoder(_Clock)
