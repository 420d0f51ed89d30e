"""Inputs whose committed records cannot be read, because a transaction before them is open.

A read_committed reader gets nothing beyond the last stable offset, and that stays before the first record of an open
transaction until it ends. A producer that hangs can keep it open for its whole `transaction.timeout.ms`.

Rules of this file:
1. A partition is stalled while its high watermark is beyond its last stable offset and that does not move.
2. `STALL_REPORTED_S` is longer than a transaction of the ledger can stay open (10 s, and the broker looks every 10 s
   for those whose time is up), so that a worker's own death is not reported.
3. A stall makes no worker unhealthy: a restart cannot end another producer's transaction. It is reported in the answer
   of `/livez`, in a metric, and in the log when it begins and ends.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import NamedTuple

from faust.types import TP

from streams.engine.ports import EngineMetrics
from streams.kafka.transport import FetchedEnds

log = logging.getLogger(__name__)

STALL_REPORTED_S = 20.0


class _Stall(NamedTuple):
    last_stable_offset: int
    since_s: float
    """Monotonic time."""


class StalledInputs:
    """What is stalled, and since when."""

    def __init__(self, metrics: EngineMetrics) -> None:
        self._metrics = metrics
        self._stalls: dict[TP, _Stall] = {}
        self._reported: set[TP] = set()

    def observe(self, ends: Mapping[TP, FetchedEnds | None], now_s: float) -> None:
        """Note the ends of all inputs that are owned now, at the monotonic time `now_s`.

        None: the broker has not answered for a while. That ends no stall.
        """
        for tp in self._stalls.keys() - ends.keys():
            self._over(tp)
        for tp, fetched in ends.items():
            if fetched is None:
                continue
            stable, high, _ = fetched
            stall = self._stalls.get(tp)
            if stable >= high:
                if stall is not None:
                    self._over(tp)
                continue
            if stall is None or stall.last_stable_offset != stable:
                stall = self._stalls[tp] = _Stall(stable, now_s)
            self._metrics.stalled(tp.topic, tp.partition, now_s - stall.since_s)
            if now_s - stall.since_s >= STALL_REPORTED_S and tp not in self._reported:
                self._reported.add(tp)
                log.warning(
                    "Records of %s/%s wait behind a transaction that is open since offset %s: find its producer with "
                    "kafka-transactions.sh find-hanging (docs/operations.md, open transactions)",
                    tp.topic,
                    tp.partition,
                    stable,
                )

    def sentences(self, now_s: float) -> list[str]:
        """One sentence for each input that is stalled for at least `STALL_REPORTED_S`."""
        return [
            f"{tp.topic}/{tp.partition} waits behind an open transaction at offset {stall.last_stable_offset} "
            f"since {now_s - stall.since_s:.0f} s"
            for tp, stall in sorted(self._stalls.items())
            if now_s - stall.since_s >= STALL_REPORTED_S
        ]

    def _over(self, tp: TP) -> None:
        del self._stalls[tp]
        self._metrics.stalled(tp.topic, tp.partition, 0.0)
        if tp in self._reported:
            self._reported.discard(tp)
            log.info("Records of %s/%s wait behind an open transaction no longer", *tp)
