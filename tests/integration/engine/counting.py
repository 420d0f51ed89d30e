"""A worker with a processor so small that its results can be checked by counting: one unit per record and org.

Each record adds 1 to its org's count and writes `<count>|<topic>|<offset>` to the output topic under the org's key; a
value seen before is a duplicate. Some values do more:
- `due:<seconds>`: the org is due that long after the record, and its tick writes `tick|<due time>|<tick time>`;
- `find:<value>`: writes `found|<what the output topic has for that earlier value>`, read by its hint;
- `huge`: writes a record that no topic takes; `poison`: a bug of the processor.
While the file named in COUNTING_WAIT_FILE exists, `gather` says that it cannot answer, and adds a byte to the file
beside it that ends in ASKED_SUFFIX. When the one named in COUNTING_DEATH_FILE exists, a thread of the processor dies;
where it does at the start, `start` waits for the thread without end. Run as
`python -m tests.integration.engine.counting` with CREDITS_… in the environment, it is a whole worker.
"""

from __future__ import annotations

import asyncio
import os
import struct
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from streams.app import run_worker
from streams.engine.ports import EntrySource, OutcomeName, Output, Partition, SeenWindow, UnavailableError
from streams.engine.seen import contents, digests, repeats
from streams.kafka.inbound import Inbound
from streams.logging import configure_logging
from streams.settings import Settings

DAY_US = 24 * 3600 * 1_000_000
POISON = b"poison"
HUGE = b"huge"
DUE = b"due:"
FIND = b"find:"
HUGE_BYTES = 3 * 1024 * 1024
ACCOUNT = struct.Struct(">QQ")
ASKED_SUFFIX = ".asked"


def input_topics(settings: Settings) -> tuple[str, str]:
    """The two inputs."""
    return f"{settings.namespace}first", f"{settings.namespace}second"


def output_topic(settings: Settings) -> str:
    """What the processor writes."""
    return f"{settings.namespace}counts"


@dataclass
class CountingState:
    """Counts and due times by org, decoded; what is not here is still bytes."""

    partition: Partition
    accounts: dict[str, tuple[int, int]] = field(default_factory=dict)

    def account(self, org: str) -> tuple[int, int]:
        """The org's (count, due time) so far."""
        if org not in self.accounts:
            stored = self.partition.accounts.get(org)
            self.accounts[org] = (0, 0) if stored is None else ACCOUNT.unpack(stored)
        return self.accounts[org]

    def changed(self, org: str) -> tuple[int, bytes]:
        """What the output says of a changed org."""
        count, due_at = self.accounts[org]
        return due_at, ACCOUNT.pack(count, due_at)


class CountingProcessor:
    """See the module's text."""

    seen_windows = (SeenWindow("events", 3 * DAY_US),)

    def __init__(self, settings: Settings) -> None:
        self.inputs = dict(zip(input_topics(settings), ("first", "second"), strict=True))
        self.ledger_topic = output_topic(settings)
        self.outputs = (self.ledger_topic,)
        self._wait_file = Path(os.environ.get("COUNTING_WAIT_FILE", os.devnull + ".none"))
        self._death_file = Path(os.environ.get("COUNTING_DEATH_FILE", os.devnull + ".none"))

    async def start(self, entries: EntrySource) -> None:
        """See `Processor`."""
        self._entries = entries
        threading.Thread(target=self._die_when_told, name="mortal", daemon=True).start()
        if self._death_file.exists():
            await asyncio.Event().wait()

    def _die_when_told(self) -> None:
        while not self._death_file.exists():
            time.sleep(0.05)
        raise ArithmeticError("the thread's own bug")

    async def stop(self) -> None:
        """Nothing to close."""

    def load(self, partition: Partition) -> CountingState:
        """See `Processor`."""
        return CountingState(partition)

    async def gather(self, state: CountingState, inbound: Sequence[Inbound]) -> dict[bytes, bytes]:
        """What earlier values led to, for the values that ask."""
        if self._wait_file.exists():
            with self._wait_file.with_suffix(ASKED_SUFFIX).open("ab") as asked:
                asked.write(b".")
            raise UnavailableError("the wait file exists")
        found = {}
        for batch in inbound:
            for key, value in zip(batch.keys, batch.values, strict=True):
                if value is not None and key is not None and value.startswith(FIND):
                    known = state.partition.seen["events"].lookup(digests([value[len(FIND) :]], state.partition.seed))
                    if known.known[0]:
                        hint = int(known.hints[0])
                        entry = await self._entries.find(state.partition.number, hint, key, lambda entry: True)
                        found[value] = b"none" if entry is None else entry
        return found

    def step(self, state: CountingState, gathered: dict[bytes, bytes], inbound: Sequence[Inbound]) -> Output:
        """See `Processor`."""
        output = Output(state.partition.clock_at)
        messages: list[dict[str, bytes]] = []
        changed: set[str] = set()
        for batch in inbound:
            ends: dict[OutcomeName, int] = {"entries": 0, "duplicates": 0}
            topic = batch.topic.rsplit(".", 1)[-1].encode()
            values = [value or b"" for value in batch.values]
            at = batch.timestamps_ms[-1] * 1000
            output.clock_at = max(output.clock_at, at)
            seen = state.partition.seen["events"]
            ids = digests(values, state.partition.seed)
            known = seen.lookup(ids).known | repeats(ids)
            hashes = contents(values, state.partition.seed)
            clocks = np.full(int((~known).sum()), output.clock_at)
            seen.add(ids[~known], hashes[~known], state.partition.ledger_end, clocks)
            for key, value, offset, repeated in zip(batch.keys, values, batch.offsets, known.tolist(), strict=True):
                if value == POISON:
                    raise ValueError("poison")
                if repeated:
                    ends["duplicates"] += 1
                    continue
                assert key is not None
                org = key.decode()
                count, due_at = state.account(org)
                if value.startswith(DUE):
                    due_at = at + int(float(value[len(DUE) :]) * 1_000_000)
                state.accounts[org] = (count + 1, due_at)
                changed.add(org)
                messages.append({"key": key, "value": b"%d|%s|%d" % (count + 1, topic, offset)})
                if value in gathered:
                    messages.append({"key": key, "value": b"found|" + gathered[value]})
                if value == HUGE:
                    messages.append({"key": key, "value": os.urandom(HUGE_BYTES)})
                ends["entries"] += 1
            output.outcomes[batch.topic] = ends
        output.records.append((self.ledger_topic, messages))
        output.accounts.update({org: state.changed(org) for org in changed})
        return output

    def tick(self, state: CountingState, at: int, orgs: Sequence[str]) -> Output | None:
        """See `Processor`."""
        messages = []
        for org in orgs:
            count, due_at = state.account(org)
            messages.append({"key": org.encode(), "value": b"tick|%d|%d" % (due_at, at)})
            state.accounts[org] = (count, 0)
        accounts = {org: state.changed(org) for org in orgs}
        return Output(max(state.partition.clock_at, at), records=[(self.ledger_topic, messages)], accounts=accounts)

    def committed(self, state: CountingState, output: Output) -> None:
        """Nothing to bound."""


def main() -> int:
    """Run a worker from the environment."""
    settings = Settings()
    configure_logging(settings.log_level)
    return run_worker(settings, CountingProcessor)


if __name__ == "__main__":
    sys.exit(main())
