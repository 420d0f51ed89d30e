"""The list of faults that the design was made for: number, fault, what is expected.

A test names its row with `faults_row`. The page says which rows no test shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Row(NamedTuple):
    """A fault and what is expected of the system."""

    fault: str
    expected: str


ROWS: Mapping[int, Row] = {
    1: Row(
        "random bytes, truncated Avro, wrong magic byte, null value, null key, key that is not the organisation",
        "dead letter with all bytes; neighbours unaffected; too many dead letters stop what they come from",
    ),
    2: Row("unknown schema id; registry down", "the first is a dead letter; the second waits"),
    3: Row("newer compatible writer schema", "applied"),
    4: Row("one organisation with 90 % of the load", "correct; the others' delay bounded"),
    5: Row(
        "clocks wrong by an hour, a year; late and out-of-order events",
        "balance right; too old and too far in the future refused; rollup bucket corrected",
    ),
    6: Row(
        "broker stopped and started five times, gently and with kill -9", "goes on by itself, nothing lost or doubled"
    ),
    7: Row("a produce that fails", "no commit; retry or stop"),
    8: Row(
        "ClickHouse away; an insert done whose answer was lost; another batch boundary on the replay",
        "the ledger unaffected; backlog stays in Kafka; sums equal afterwards",
    ),
    9: Row(
        "disk full under Kafka, ClickHouse, the data folder", "stops without committing; goes on when there is room"
    ),
    10: Row("kill -9 at each step, and at random", "final state equals the model"),
    11: Row("workers joining and leaving every few seconds during transfers", "no skip, no double, conservation"),
    12: Row("a worker stopped (SIGSTOP) past its session, then continued", "fenced: its late writes have no effect"),
    13: Row(
        "changelog compacted, empty, truncated; local folder lost or restored from an old copy",
        "restored right, or refused; never a silent zero",
    ),
    14: Row(
        "the same event id in one batch, from two producers, later, after its window; with other content; in two orgs",
        "once; once; once; too old; dead letter; both",
    ),
    15: Row(
        'amounts: negative, zero, NaN, 1e400, beyond int64, "0.1" as float, "1e3", true',
        "refused with a clear error at the client and the API; dead letter from Kafka",
    ),
    16: Row(
        "two usages in one batch that together exceed the balance; holds that race",
        "in ledger order, the same at every batch size",
    ),
    17: Row(
        "refund twice, more than the original, before the purchase, of something unknown, after the grant expired",
        "once; refused; parked or refused the same way each time; refused; expires at once",
    ),
    18: Row(
        "transfer to itself, of zero, crossing, to an unknown or closed organisation, by someone who manages only one",
        "refused or conserved; no deadlock",
    ),
    19: Row(
        "a balance that flutters about a line; two lines in one event; top-up and depletion in one batch; restart",
        "each crossing once, in order",
    ),
    20: Row("retention passed a stopped worker's position", "stops, names the gap"),
    21: Row(
        "a producer without rights; an API key of another organisation; settings by a plain member",
        "refused, and recorded",
    ),
    22: Row(
        "partition count changed; input topics that disagree; wrong driver or unsafe client settings",
        "refuses to start, names the setting",
    ),
    23: Row("slow ClickHouse, full buffers", "memory bounded, nothing dropped, the ledger keeps its pace"),
    24: Row("150 ms of delay and 10 % loss between worker and broker", "goes on by itself, nothing lost or doubled"),
    25: Row("a worker that lives but makes no progress", "`/livez` turns red; metrics show it"),
    26: Row("two installations on one broker", "do not fence or read each other"),
    27: Row("1,000 s at 70 % of full load", "flat memory, flat lag"),
    28: Row("everything replayed into an empty cluster from the ledger", "equal balances, alerts' ids and rollups"),
    29: Row(
        "a delayed end-of-transaction (or produce) request arrives during a later transaction",
        "no effect; nothing torn",
    ),
    30: Row(
        "a record in a partition that is not its key's",
        "dead letter, replayed to where it belongs; never a second account",
    ),
    31: Row(
        "schemas that expand without bound, records nested without end",
        "dead letter in bounded time and memory; other partitions not delayed",
    ),
    32: Row(
        "a producer's transaction left open for 15 minutes", "seen, told; timers wait; nothing booked out of order"
    ),
    33: Row(
        "changelog, ledger or seen ids restored from copies of different age",
        "refused, or rebuilt from the ledger; never booked twice",
    ),
    34: Row("rubbish under the key of a good price, then compaction and restart", "the good price stays in force"),
    35: Row("corrupt ClickHouse folder, dying `serve`, flood of dead letters", "the ledger goes on"),
}
