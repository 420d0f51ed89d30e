"""The fold of transfers: what left arrives once or returns once (rule 6 of `fold`).

Rules of this file:
1. A transfer's name is its source org and its id. An id may be used again when the ledger has forgotten it (decision 7,
   exact memory of ids), so one name may stand for several transfers: two entries of one kind, recorded a window or
   more apart, are of two.
2. Partitions are read in any order, so an arrival may be folded before or after all that the source wrote. What the
   source wrote is in order: an answer is to the last departure before it.
3. An arrival is of the last departure before it, but not of one that came back a window ago.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from schemas.enums import EntryKind

CLOCKS_APART_US = 3_600_000_000
"""An hour: as much later than its arrival a departure may seem to be, for two partitions have two clocks."""


@dataclass(slots=True)
class TransferFold:
    """What is known of one transfer. Nano-units; microseconds as recorded."""

    wallet: str
    out_nanos: int | None = None
    out_at: int = 0
    in_nanos: int | None = None
    in_at: int = 0
    return_nanos: int | None = None
    acknowledged: bool = False
    before: TransferFold | None = None
    """The one of the same name before it."""

    @property
    def on_the_way(self) -> bool:
        """It left and has neither arrived nor come back."""
        return self.out_nanos is not None and self.in_nanos is None and self.return_nanos is None


class Transfers:
    """All transfers by name."""

    def __init__(self, window_us: int) -> None:
        """`window_us`: how long the ledger remembers a transfer's id, in microseconds."""
        self._window_us = window_us
        self._last: dict[str, TransferFold] = {}

    def __iter__(self) -> Iterator[tuple[str, TransferFold]]:
        for name, last in self._last.items():
            for each in _back_from(last):
                yield name, each

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def add(self, name: str, unit: str, kind: str, amount: int, at: int) -> bool:
        """Fold an entry of a transfer, recorded `at`; False when the transfer has one of its kind already."""
        last = self._last.get(name)
        if last is None:
            last = self._last[name] = TransferFold(unit)
        match kind:
            case EntryKind.TRANSFER_OUT if not amount:
                transfer = _last_left(last)
                once, transfer.acknowledged = not transfer.acknowledged, True
            case EntryKind.TRANSFER_OUT:
                once = self._depart(name, unit, amount, at)
            case EntryKind.TRANSFER_IN:
                once = self._arrive(name, unit, amount, at)
            case _:
                transfer = _last_left(last)
                once, transfer.return_nanos = transfer.return_nanos is None, amount
        self._pair(name)
        return once

    def _depart(self, name: str, unit: str, amount: int, at: int) -> bool:
        last = _last_left(self._last[name])
        once = last.out_nanos is None
        if once or at - last.out_at < self._window_us:
            last.out_nanos, last.out_at = amount, at
            return once
        self._last[name] = TransferFold(unit, out_nanos=amount, out_at=at, before=self._last[name])
        return True

    def _arrive(self, name: str, unit: str, amount: int, at: int) -> bool:
        last = self._last[name]
        for each in _back_from(last):
            if each.in_nanos is not None and abs(at - each.in_at) < self._window_us:
                each.in_nanos = amount
                return False
        if last.in_nanos is not None:
            last = self._last[name] = TransferFold(unit, before=last)
        last.in_nanos, last.in_at = amount, at
        return True

    def _pair(self, name: str) -> None:
        """Rule 3, where it is not plain which departure an arrival is of."""
        last = self._last[name]
        if last.before is None and (last.in_nanos is None or last.return_nanos is None):
            return
        known = list(_back_from(last))[::-1]
        arrivals = sorted((each.in_at, each.in_nanos, each.wallet) for each in known if each.in_nanos is not None)
        known = [each for each in known if each.out_nanos is not None]
        for each in known:
            each.in_nanos = None
        for at, nanos, unit in arrivals:
            transfer = next((each for each in reversed(known) if self._may_be_of(each, at)), None)
            if transfer is None:
                transfer = TransferFold(unit)
                known.append(transfer)
            transfer.in_nanos, transfer.in_at = nanos, at
        before = None
        for each in known:
            each.before, before = before, each
        self._last[name] = known[-1]

    def _may_be_of(self, transfer: TransferFold, at: int) -> bool:
        """Whether what arrived `at` may have left with this transfer."""
        if transfer.in_nanos is not None or transfer.out_at > at + CLOCKS_APART_US:
            return False
        return transfer.return_nanos is None or at - transfer.out_at < self._window_us


def _back_from(last: TransferFold) -> Iterator[TransferFold]:
    """The transfers of one name, the last first."""
    each: TransferFold | None = last
    while each is not None:
        yield each
        each = each.before


def _last_left(last: TransferFold) -> TransferFold:
    """The last that is known to have left; the last of all, where none is."""
    return next((each for each in _back_from(last) if each.out_nanos is not None), last)
