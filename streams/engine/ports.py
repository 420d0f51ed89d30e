"""What the engine asks of the code that decides: the Processor port, and the data that crosses it.

Who calls what, when, in which thread. P is one partition; it has one pump, so for one P nothing below ever runs twice
at the same time.

1. `load` once for each assignment of P, on the event loop, after the previous owner is fenced and P's state is
   restored. What it returns is handed to every later call for P and is dropped when P is taken away, or when a commit
   of P fails.
2. `gather` for each batch of P, on the event loop, before `step`. I/O belongs here. `UnavailableError` (also
   `schemas.codec.RegistryUnavailableError` and `streams.errors.KafkaUnavailableError`) makes the engine wait and ask
   again with the same batch; nothing is lost and nothing is skipped.
3. `step` for each batch of P, on the event loop's thread, right after `gather`. No I/O, no clock, no awaiting. It may
   change the state in place: a commit that fails drops the state, and P is restored from Kafka.
4. The engine commits the `Output` as one transaction in a worker thread. Meanwhile `gather` and `step` of other
   partitions run; those of P wait.
5. `committed` on the event loop, when the transaction of an `Output` of P is in Kafka: caches are trimmed here.
6. `tick` on the event loop's thread, when accounts of P are due: at the time up to which all inputs of P were read, in
   turns with queued batches; at the broker's time when P is idle.

Guarantees: batches of one topic and partition arrive in offset order, no record twice, none left out, across restarts
and rebalances. Everything in one `Output` becomes visible to read_committed readers at once, or never.

Any other exception from any of these stops the worker before anything of that batch is committed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from streams.kafka.inbound import Headers, Inbound

OutcomeName = Literal["entries", "rejected", "dead_letters", "duplicates"]
"""The four ends of an input record; each record has exactly one."""

NoticeName = Literal["wrong_partition", "old_id"]
"""What an operator should know of an input record, whatever its end: it is in a partition that is not its key's; its
id was made longer ago than ids are remembered."""

UInt64s = npt.NDArray[np.uint64]
"""A column of unsigned 64-bit integers."""

Int64s = npt.NDArray[np.int64]
"""A column of signed 64-bit integers."""

Digests = npt.NDArray[np.uint64]
"""Digests of ids, shape (n, 2): row i is the 16 bytes of id i. Made by `streams.engine.seen.digests`."""

TimeOf = Callable[[bytes], int]
"""Reads the time in a record's value, microseconds."""

State = TypeVar("State")
Gathered = TypeVar("Gathered")


class UnavailableError(Exception):
    """`gather` cannot answer now (a registry is down): the same batch is asked for again, after a pause."""


class AccountBytes(Protocol):
    """The committed account states of one partition, by org id. The engine updates it after each commit."""

    def get(self, org_id: str) -> bytes | None:
        """The state as last handed over in `Output.accounts`; None when the org has none."""
        ...

    def __len__(self) -> int: ...


class Found(NamedTuple):
    """What a memory of ids knows of the ids asked for; element i answers id i.

    `known[i]`: remembered. `contents[i]` and `hints[i]` are what was given to `add`, 0 where not known.
    """

    known: npt.NDArray[np.bool_]
    contents: UInt64s
    hints: npt.NDArray[np.int64]


class SeenIds(Protocol):
    """The exact memory of the ids that had an effect, of one partition and window."""

    def lookup(self, digests: Digests, at: Int64s | None = None) -> Found:
        """Which of these ids are remembered. Ids added by the current step are included.

        `at`: for each id the time at which it is asked for, in microseconds: what was added more than a window before
        is not known, forgotten or not (to the width of a bucket). So the answer is the same whenever ids are forgotten.
        """
        ...

    def add(self, digests: Digests, contents: UInt64s, hint: int, at: Int64s) -> None:
        """Remember ids that are not yet remembered, each once (the caller looked them up).

        `contents`: 64-bit hashes of what the ids stood for (`streams.engine.seen.contents`). `hint`: an offset of the
        ledger at or before the entries of these ids, `Partition.ledger_end`. `at`: the clock at each id, in
        microseconds; it is remembered until the clock passes `at` + window. Persisted with this step's transaction.
        """
        ...

    def __len__(self) -> int: ...


@dataclass(slots=True)
class Partition:
    """What the engine keeps for one owned partition. The processor reads it; only `seen` has methods that change it.

    `clock_at`: the partition's clock in microseconds, as last committed. `seed`: secret of this partition for
    `seen.digests`, fixed at its first start. `ledger_end`: an offset of the ledger topic's partition. Everything
    produced from now on has this offset or a higher one: it is the hint stored with a seen id.
    """

    number: int
    accounts: AccountBytes
    seen: Mapping[str, SeenIds]
    clock_at: int = 0
    seed: int = 0
    ledger_end: int = 0


@dataclass(slots=True)
class Keyed:
    """One record that goes out by its key or with headers. `partition` None: murmur2 of the key, as every producer."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    partition: int | None = None


@dataclass(slots=True)
class Output:
    """Everything that one batch (or tick) causes; it becomes one transaction.

    `records`: (topic, messages) in order; each message is `{"key": bytes, "value": bytes}` for
    `Producer.produce_batch`, and goes to the partition being processed. `keyed`: records that need headers or another
    partition. `accounts`: org id → (due_at in microseconds or 0, state bytes) of every account that changed.
    `outcomes`: per input topic, how many records ended how; they must add up to the records given, or the worker stops.
    `notices`: per input topic, how many records an operator should know of, and why; for the metrics alone.
    `clock_at`: the partition's clock after this batch. New seen ids are not listed here: the engine takes what was
    added to `Partition.seen`.
    """

    clock_at: int
    records: list[tuple[str, list[dict[str, Any]]]] = field(default_factory=list)
    keyed: list[Keyed] = field(default_factory=list)
    accounts: MutableMapping[str, tuple[int, bytes]] = field(default_factory=dict)
    outcomes: dict[str, dict[OutcomeName, int]] = field(default_factory=dict)
    notices: dict[str, dict[NoticeName, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SeenWindow:
    """One memory of ids: kept for `window_us` microseconds (at least) after `SeenIds.add`."""

    name: str
    window_us: int


class EntrySource(Protocol):
    """Finds records of the ledger topic. Raises `UnavailableError` while the broker cannot be asked."""

    async def find(self, partition: int, hint: int, key: bytes, wanted: EntryMatch) -> bytes | None:
        """The value of the first committed record at or after offset `hint` with this key that `wanted` accepts.

        `hint` is what was remembered with a seen id. None when there is none within `ledger_lookup.PASS_RECORDS_MAX`.
        """
        ...

    async def find_recent(self, partition: int, wanted: Mapping[Any, tuple[bytes, EntryMatch]]) -> dict[Any, bytes]:
        """For each name in `wanted` (key, match) the value of the first such record among the partition's last ones.

        One pass over at most `ledger_lookup.PASS_RECORDS_MAX` records; a name without a record is left out, and may be
        left out for a while without being looked for again.
        """
        ...

    async def find_since(
        self, partition: int, at: int, time_of: TimeOf, wanted: Mapping[Any, tuple[bytes, EntryMatch]]
    ) -> dict[Any, bytes]:
        """The same, beginning with the first record whose time is `at` or later.

        `time_of` reads the time of a record's value; it must never fall within a partition.
        """
        ...


class EntryMatch(Protocol):
    """Says of a record's value whether it is the wanted one."""

    def __call__(self, value: bytes) -> bool: ...


class Processor(Protocol[State, Gathered]):
    """The code that decides. Implemented by `streams.processing`; the engine's tests have small ones."""

    @property
    def inputs(self) -> Mapping[str, str]:
        """Physical names of the input topics, each with the name of the Faust agent that takes it.

        Co-partitioned: the engine refuses to start when their counts differ."""
        ...

    @property
    def outputs(self) -> Sequence[str]:
        """Physical names of every topic that an `Output` may name; checked at the start, like the inputs."""
        ...

    @property
    def ledger_topic(self) -> str:
        """The output topic that proves earlier work (the ledger): when it has records and the state has none, the
        state is lost, and the engine refuses to start."""
        ...

    @property
    def seen_windows(self) -> Sequence[SeenWindow]:
        """The memories of ids to keep; `Partition.seen` has one of each name."""
        ...

    async def start(self, entries: EntrySource) -> None:
        """Once, on the event loop, before any partition is loaded (open caches, read prices)."""
        ...

    async def stop(self) -> None:
        """Once, at the end; also after a failure."""
        ...

    def load(self, partition: Partition) -> State:
        """The state to hand to `step` for this partition. `partition` is live: the same object all along."""
        ...

    async def gather(self, state: State, inbound: Sequence[Inbound]) -> Gathered:
        """Fetch what `step` needs that is not in the state. Must not change the state."""
        ...

    def step(self, state: State, gathered: Gathered, inbound: Sequence[Inbound]) -> Output:
        """Decide a whole batch, in the order given: topics by arrival, one `Inbound` each; records by offset."""
        ...

    def tick(self, state: State, at: int, orgs: Sequence[str]) -> Output | None:
        """Settle what is due at or before `at` (microseconds) for these orgs; None when nothing had to happen.

        `at` may lie before the partition's clock: up to it every input was read.

        An org named here whose account comes back without a changed due time is not named again until it changes."""
        ...

    def committed(self, state: State, output: Output) -> None:
        """The output's transaction is in Kafka; `partition.accounts` holds its account states.

        The lists in `output.records` are empty by now."""
        ...


class EngineMetrics:
    """Counters of the engine. These count nothing; `streams.metrics` overrides them for Prometheus."""

    def batch(self, partition: int, records: int, gather_s: float, step_s: float, commit_s: float) -> None:
        """One committed transaction."""

    def outcome(self, topic: str, outcome: OutcomeName, records: int) -> None:
        """Committed ends of input records."""

    def noticed(self, topic: str, partition: int, notice: NoticeName, records: int) -> None:
        """Committed records of an input topic and partition that an operator should know of."""

    def paused(self, topic: str, partition: int, paused: bool) -> None:
        """Whether an input is paused for its dead letters."""

    def partitions(self, owned: int) -> None:
        """How many partitions this worker serves."""

    def queued(self, partition: int, records: int) -> None:
        """Records waiting in a partition's queue."""

    def restored(self, partition: int, accounts: int, seen_ids: int, seconds: float) -> None:
        """One partition restored from Kafka."""

    def stalled(self, topic: str, partition: int, seconds: float) -> None:
        """How long records of an input have waited behind an open transaction; 0 when none waits."""
