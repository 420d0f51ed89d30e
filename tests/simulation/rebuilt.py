"""The state of every partition, made again from what was committed: equal to what the workers had.

Accounts to the byte; ids with their contents and times; positions, counters and clock but for duplicates at the end of
an input, which leave nothing to know them by and are read again. Then it is written, by a process that dies at any
effect: until the last one no worker may start, and the next try brings it to its end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import pytest

from streams.engine import rebuild as rebuild_module
from streams.engine import transaction as transaction_module
from streams.engine.failures import StateLostError
from streams.engine.internal_topics import changelog_topic
from streams.engine.ports import SeenWindow
from streams.engine.rebuild import RebuiltState, replace_state
from streams.engine.restore import OwnTopics, Restored, restore
from streams.engine.seen import SeenMemory
from streams.errors import KafkaUnavailableError
from streams.kafka import reader as reader_module
from streams.kafka.reader import CommittedReader
from streams.ledger import grants
from streams.processing.history import Log
from streams.processing.rebuild import remake
from tests.model.memory import SCHEMAS, TOPICS
from tests.simulation.checks import rows
from tests.simulation.crashes import CrashError, Faults
from tests.simulation.traffic import DAY_US
from tests.simulation.world import PARTITIONS, World

PRICES = TOPICS.name("prices")
TRIES_MAX = 2_000


def compare_rebuilt(world: World) -> Counter[str]:
    """Make every partition's state again, compare, write it while dying, and read it back. What was met."""
    met: Counter[str] = Counter()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader_module, "Consumer", world.kafka.consumer)
        patch.setattr(transaction_module, "Producer", world.kafka.producer)
        patch.setattr(rebuild_module, "AdminClient", world.kafka.admin)
        patch.setattr(grants, "EXHAUSTED_MAX", world.grants_remembered)
        for number in range(PARTITIONS):
            _compare_partition(world, number, met)
    return met


def _compare_partition(world: World, number: int, met: Counter[str]) -> None:
    processor = world.workers[0].processor
    topics = OwnTopics(processor.ledger_topic, processor.outputs, processor.seen_windows)

    def started() -> Restored:
        return restore(world.settings, number, topics, lambda: True)

    live = started()
    made = _made(world, number, live.position.seed)
    _same_state(world, number, live, made)
    _refuses_what_is_broken(world, number, made, met)
    changelog = changelog_topic(world.settings.app_id), number
    if world.random.random() < 0.5:  # some of what was there is lost
        log = world.kafka.logs[changelog]
        del log[world.random.randrange(len(log)) :]
        met["lost an end"] += 1
    _write_dying(world, number, made, started, met)
    again = started()
    _same_state(world, number, live, made)
    assert dict(_remembered(again.seen)) == dict(_remembered(_loaded(made, processor.seen_windows)))
    for org, (due_at, state) in made.accounts.items():
        assert (again.accounts.due_at(org), again.accounts.get(org)) == (due_at, state)
    assert len(again.accounts) == len(made.accounts)
    assert again.position.next_offsets == dict(made.next_offsets)
    assert again.position.counters == made.counters
    assert again.position.clock_at == made.clock_at


def _made(world: World, number: int, seed: int, *, accept_gaps: bool = False) -> RebuiltState:
    reader = CommittedReader(world.settings, "rebuild")
    log = Log(reader, number, PARTITIONS, SCHEMAS, lambda _offsets: None)
    return remake(log, TOPICS, world.workers[0].processor.seen_windows, {}, seed, accept_gaps=accept_gaps)[0]


def _same_state(world: World, number: int, live: Restored, made: RebuiltState) -> None:
    accounts = {org: (live.accounts.due_at(org), live.accounts.get(org)) for org in live.accounts._framed}
    assert dict(made.accounts) == accounts, f"partition {number}: the accounts differ"
    assert made.clock_at <= live.position.clock_at
    for topic, reached in live.position.next_offsets.items():
        mine = made.next_offsets[topic]
        assert mine <= reached, f"{topic}/{number} is taken up at {mine}, it was read to {reached}"
        later = [record for record in world.kafka.logs[topic, number][mine:reached] if record is not None]
        counted = Counter(made.counters.get(topic, {}))
        counted["entries" if topic == PRICES else "duplicates"] += len(later)
        assert +counted == +Counter(live.position.counters.get(topic, {})), f"{topic}/{number} is counted otherwise"
    loaded = _loaded(made, world.workers[0].processor.seen_windows)
    for name, memory in live.seen.items():
        kept, found = dict(_remembered({name: memory})), dict(_remembered({name: loaded[name]}))
        oldest = memory.oldest_bucket(made.clock_at)  # nothing that is still to come can ask for older ones
        missing = kept.keys() - found.keys()
        assert all(bucket < oldest for _, bucket, _ in missing), f"partition {number}: ids are missing in {name}"
        same = all(found[key] == value for key, value in kept.items() if key not in missing)
        assert same, f"partition {number}: other contents in {name}"
        forgotten = memory.oldest_bucket(live.position.clock_at)
        extra = found.keys() - kept.keys()
        assert all(bucket < forgotten for _, bucket, _ in extra), f"partition {number}: ids too many in {name}"


def _loaded(made: RebuiltState, windows: Sequence[SeenWindow]) -> dict[str, SeenMemory]:
    loaded = {}
    for window in windows:
        loaded[window.name] = SeenMemory(window.window_us)
        loaded[window.name].load(made.seen[window.name], 0)
    return loaded


def _remembered(seen: dict[str, SeenMemory]) -> Iterator[tuple[tuple[str, int, bytes], int]]:
    """(window, bucket, digest) of each id, and its content."""
    for name, memory in seen.items():
        memory._sort_added()
        for bucket, runs in memory._buckets.items():
            for run in runs:
                for row in range(len(run)):
                    yield (name, bucket, run.first[row].tobytes() + run.second[row].tobytes()), int(run.content[row])


def _write_dying(
    world: World, number: int, made: RebuiltState, started: Callable[[], Restored], met: Counter[str]
) -> None:
    """Write it, dying now and then; what is half done is refused."""
    faults = world.kafka.faults = Faults(world.random)
    faults.per_mille, faults.active = 150, True
    try:
        for _ in range(TRIES_MAX):
            try:
                replace_state(world.settings, number, CommittedReader(world.settings, "rebuild"), made)
                return
            except (CrashError, KafkaUnavailableError):
                pass
            faults.active = False
            met[_start(started)] += 1
            faults.active = True
        raise AssertionError("never written")
    finally:
        faults.active = False


def _start(started: Callable[[], Restored]) -> str:
    """What a worker that starts now does."""
    try:
        started()
    except StateLostError as error:
        refusal = str(error)
    else:
        return "served"
    if "credits rebuild --accounts" not in refusal:
        raise AssertionError(f"the refusal names no remedy: {refusal}")
    return "refused half done" if "not finished" in refusal else "refused as lost"


def _refuses_what_is_broken(world: World, number: int, made: RebuiltState, met: Counter[str]) -> None:
    """Holds that retention removed are remembered all the same; other inputs, a ledger without its end are refused."""
    kafka, ledger = world.kafka, world.kafka.logs[TOPICS.name("ledger"), number]
    holds = TOPICS.name("holds"), number
    kafka.firsts[holds] = made.next_offsets[holds[0]]  # those that were read; one that was not would be missed
    if made.next_offsets[holds[0]]:
        later = _made(world, number, made.seed, accept_gaps=True)
        windows = world.workers[0].processor.seen_windows
        assert dict(_remembered(_loaded(later, windows))).keys() == dict(_remembered(_loaded(made, windows))).keys()
        assert later.accounts == made.accounts
        met["holds without their records"] += 1
    kafka.firsts[holds] = 0

    usages = kafka.logs[TOPICS.name("usage"), number]
    booked = [row for row in rows("ledger", [record for record in ledger if record]) if row["kind"] == "usage"]
    recent = [row for row in booked if row["recorded_at"] > made.clock_at - 3 * DAY_US and row["revision"] == 0]
    places = [row["source_offset"] for row in recent if row["source_topic"] == TOPICS.name("usage")]
    if len(places) > 1:
        kept = usages[places[0]]
        usages[places[0]] = usages[places[1]]
        with pytest.raises(StateLostError, match="is not the one that the ledger has booked"):
            _made(world, number, made.seed)
        usages[places[0]] = kept
        met["another record in an input"] += 1

    last = max((place for place, record in enumerate(ledger) if record), default=None)
    if last is not None:
        end = ledger[last:]
        del ledger[last:]
        with pytest.raises(StateLostError, match="has lost its end"):
            _made(world, number, made.seed)
        ledger += end
        met["a ledger without its end"] += 1
