"""`credits rebuild --accounts`: the state of every partition, made again from the ledger and the inputs.

A partition is read (`history`, `remembered`) and then written (`engine.rebuild`), by itself: one that is refused keeps
what it has, the others are rebuilt. Partitions run side by side in processes, for folding is Python's work alone.
"""

from __future__ import annotations

import multiprocessing
import os
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing.queues import Queue
from queue import Empty
from typing import Any, Final

from confluent_kafka import Consumer, KafkaException, TopicPartition

from schemas.codec import WriterSchemas
from schemas.topics import Topics
from streams.engine.internal_topics import prepare_topics
from streams.engine.ports import Processor, SeenWindow
from streams.engine.positions import OutputEnd, record_digest
from streams.engine.rebuild import COMMIT, RebuiltState, fence, replace_state
from streams.errors import KafkaUnavailableError, OperatorError
from streams.kafka.clients import consumer_config
from streams.kafka.reader import CommittedReader
from streams.kafka.registry import connect_registry
from streams.local.parent import PARENT_VARIABLE, stop_with_parent
from streams.processing.history import Advance, History, Log, key_of, offset_of, read_history, value_of
from streams.processing.remembered import find_positions, remember
from streams.seals import Seals
from streams.settings import Settings

ANSWER_TIMEOUT_S: Final = 30.0
LOOK_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What became of one partition. `refused`: why it was not rebuilt; `notes`: what could not be had exactly."""

    partition: int
    entries: int = 0
    accounts: int = 0
    ids: int = 0
    seconds: float = 0.0
    notes: Sequence[str] = ()
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be rebuilt. `shown`: offsets of the consumer group, by partition and topic."""

    settings: Settings
    windows: Sequence[SeenWindow]
    shown: Mapping[int, Mapping[str, int]]
    accept_gaps: bool


def remake(
    log: Log,
    topics: Topics,
    windows: Sequence[SeenWindow],
    shown: Mapping[str, int],
    seed: int,
    *,
    accept_gaps: bool = False,
) -> tuple[RebuiltState, History]:
    """The state of a partition as its logs say; writes nothing. Raises `StateLostError`, `RetentionGapError`,
    `PositionBeyondEndError`."""
    history = read_history(log, topics)
    reached = find_positions(log, topics, history, shown, accept_gaps=accept_gaps)
    remembered = remember(log, topics, history, reached, windows, seed)
    outputs = {
        topic: OutputEnd(offset_of(last), record_digest(key_of(last), value_of(last)), COMMIT)
        for topic, last in history.last_records.items()
    }
    counters = {
        topic: {str(name): n for name, n in ends.items()} for topic, ends in remembered.counters.items() if ends
    }
    state = RebuiltState(
        accounts=history.accounts,
        seen=remembered.seen,
        next_offsets=reached.next_offsets,
        starts=reached.starts,
        clock_at=remembered.clock_at,
        seed=seed,
        counters=counters,
        outputs=outputs,
    )
    return state, history


def rebuild_partition(order: Order, number: int, writers: WriterSchemas, advance: Advance) -> Rebuilt:
    """Read and write one partition."""
    started = time.monotonic()
    settings = order.settings
    reader = CommittedReader(settings, "rebuild")
    try:
        log = Log(reader, number, settings.partitions, writers, advance, Seals.of(settings))
        shown = order.shown.get(number, {})
        state, history = remake(
            log,
            Topics(settings.namespace),
            order.windows,
            shown,
            secrets.randbits(63),
            accept_gaps=order.accept_gaps,
        )
        replace_state(settings, number, reader, state)
    except OperatorError as error:
        return Rebuilt(number, seconds=time.monotonic() - started, refused=str(error))
    finally:
        reader.close()
    ids = sum(len(blob.contents) for blobs in state.seen.values() for blob in blobs)
    seconds = time.monotonic() - started
    return Rebuilt(number, history.entries, len(state.accounts), ids, seconds, tuple(history.notes))


def rebuild_accounts(
    settings: Settings,
    processor: Processor[Any, Any],
    numbers: Sequence[int],
    *,
    accept_gaps: bool = False,
    progress: Callable[[int], Advance],
) -> list[Rebuilt]:
    """Rebuild these partitions of a processor; no worker may run (`engine.rebuild.refuse_while_working`).

    1. Create the engine's topics where they are missing. 2. Fence. 3. Each partition by itself. `progress` gets
    the number of offsets, and returns what to call with those that were read.
    """
    windows = tuple(processor.seen_windows)
    prepare_topics(settings, processor.inputs, processor.outputs, windows)
    fence(settings)
    order = Order(settings, windows, shown_offsets(settings, processor.inputs), accept_gaps)
    total = offsets_to_read(settings, numbers)
    processes = min(len(numbers), os.cpu_count() or 1)
    context = multiprocessing.get_context("spawn")
    steps: Queue[int] = context.Queue()
    advance = progress(total)
    with ProcessPoolExecutor(processes, context, _begin, (order, steps)) as pool:
        futures: list[Future[Rebuilt]] = [pool.submit(_rebuild, number) for number in numbers]
        pending = set(futures)
        while pending:
            pending = wait(pending, LOOK_S).not_done
            _tell(steps, advance)
    return [future.result() for future in futures]


def _tell(steps: Queue[int], advance: Advance) -> None:
    while True:
        try:
            advance(steps.get_nowait())
        except Empty:
            return


_order: Order
_steps: Queue[int]
_writers: WriterSchemas


def _begin(order: Order, steps: Queue[int]) -> None:
    """In a process of the pool: once."""
    global _order, _steps, _writers
    os.environ[PARENT_VARIABLE] = str(os.getppid())  # a pool's process does not end with the one that made it
    stop_with_parent()
    _order, _steps, _writers = order, steps, connect_registry(order.settings)


def _rebuild(number: int) -> Rebuilt:
    return rebuild_partition(_order, number, _writers, _steps.put)


def shown_offsets(settings: Settings, inputs: Iterable[str]) -> dict[int, dict[str, int]]:
    """What the workers' consumer group shows as read, by partition and topic; what it does not show is left out."""
    consumer = Consumer({**consumer_config(settings, settings.app_id), "log_level": 0})
    asked = [TopicPartition(topic, number) for topic in inputs for number in range(settings.partitions)]
    try:
        answers = consumer.committed(asked, timeout=ANSWER_TIMEOUT_S)
    except KafkaException as failure:
        raise KafkaUnavailableError(
            f"the offsets of the group {settings.app_id} cannot be read: {failure.args[0].str()}"
        ) from failure
    finally:
        consumer.close()
    shown: dict[int, dict[str, int]] = {}
    for each in answers:
        if each.offset is not None and each.offset >= 0:
            shown.setdefault(each.partition, {})[each.topic] = each.offset
    return shown


def offsets_to_read(settings: Settings, numbers: Sequence[int]) -> int:
    """About how many offsets a rebuild reads: the ledger is read once more, as far as ids are remembered."""
    topics = Topics(settings.namespace)
    reader = CommittedReader(settings, "rebuild")
    names = [*topics.inputs, *(topics.name(key) for key in ("ledger", "dead_letters", "balances", "kept_prices"))]
    try:
        ranges = [reader.ends(name, number) for name in names for number in numbers]
    finally:
        reader.close()
    return sum(high - low for low, high in ranges)
