"""A worker with a processor so small that its results can be checked by counting: one unit per record and org.

Each record adds 1 to its org's count and writes `<count>|<topic>|<offset>` to the output topic under the org's key.
Run as `python -m tests.integration.engine.counting` with CREDITS_… in the environment, it is a whole worker.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from streams.app import run_worker
from streams.engine.ports import EntrySource, Inbound, OutcomeName, Output, Partition, SeenWindow
from streams.engine.seen import contents, digests, repeats
from streams.logging import configure_logging
from streams.settings import Settings

DAY_US = 24 * 3600 * 1_000_000
POISON = b"poison"


def input_topics(settings: Settings) -> tuple[str, str]:
    """The two inputs."""
    return f"{settings.namespace}first", f"{settings.namespace}second"


def output_topic(settings: Settings) -> str:
    """What the processor writes."""
    return f"{settings.namespace}counts"


@dataclass
class CountingState:
    """Counts by org, decoded; what is not here is still bytes."""

    partition: Partition
    counts: dict[str, int] = field(default_factory=dict)

    def count(self, org: str) -> int:
        """The org's count so far."""
        if org not in self.counts:
            stored = self.partition.accounts.get(org)
            self.counts[org] = 0 if stored is None else struct.unpack(">Q", stored)[0]
        return self.counts[org]


class CountingProcessor:
    """Counts records per org; a value seen before is a duplicate, the value `poison` is a bug."""

    seen_windows = (SeenWindow("events", 3 * DAY_US),)

    def __init__(self, settings: Settings) -> None:
        self.inputs = input_topics(settings)
        self.witness = output_topic(settings)
        self.outputs = (self.witness,)

    async def start(self, entries: EntrySource) -> None:
        """Nothing to open."""

    async def stop(self) -> None:
        """Nothing to close."""

    def load(self, partition: Partition) -> CountingState:
        """See `Processor`."""
        return CountingState(partition)

    async def gather(self, state: CountingState, inbound: Sequence[Inbound]) -> None:
        """Nothing to fetch."""

    def step(self, state: CountingState, gathered: None, inbound: Sequence[Inbound]) -> Output:
        """See `Processor`."""
        output = Output(state.partition.clock_at)
        messages: list[dict[str, bytes]] = []
        changed: set[str] = set()
        for batch in inbound:
            ends: dict[OutcomeName, int] = {"entries": 0, "duplicates": 0}
            topic = batch.topic.rsplit(".", 1)[-1]
            values = [value or b"" for value in batch.values]
            ids = digests(values, state.partition.seed)
            known = state.partition.seen["events"].lookup(ids).known | repeats(ids)
            new = ~known
            hashes = contents(values, state.partition.seed)
            at = batch.timestamps_ms[-1] * 1000
            output.clock_at = max(output.clock_at, at)
            state.partition.seen["events"].add(ids[new], hashes[new], state.partition.ledger_end, output.clock_at)
            for key, value, offset, repeated in zip(batch.keys, values, batch.offsets, known.tolist(), strict=True):
                if value == POISON:
                    raise ValueError("poison")
                if repeated:
                    ends["duplicates"] += 1
                    continue
                assert key is not None
                org = key.decode()
                count = state.count(org) + 1
                state.counts[org] = count
                changed.add(org)
                messages.append({"key": key, "value": b"%d|%s|%d" % (count, topic.encode(), offset)})
                ends["entries"] += 1
            output.outcomes[batch.topic] = ends
        output.records.append((self.witness, messages))
        output.accounts.update({org: (0, struct.pack(">Q", state.counts[org])) for org in changed})
        return output

    def tick(self, state: CountingState, at: int, orgs: Sequence[str]) -> Output | None:
        """No account is ever due."""
        return None

    def committed(self, state: CountingState, output: Output) -> None:
        """Nothing to bound."""


def main() -> int:
    """Run a worker from the environment."""
    settings = Settings()
    configure_logging(settings.log_level)
    return run_worker(settings, CountingProcessor)


if __name__ == "__main__":
    sys.exit(main())
