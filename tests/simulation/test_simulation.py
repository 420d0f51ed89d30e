"""Whole runs of the ledger with crashes at every effect, each from one seed.

A failure names its seed and the command that runs it again. `CREDITS_TEST_SIMULATION_SEED` runs one seed and no other;
the long run goes on from a seed that the clock gives, `CREDITS_TEST_SIMULATION_RUNS` of them.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import pytest

from tests.simulation.checks import Cuts
from tests.simulation.judge import Judge
from tests.simulation.rebuilt import compare_rebuilt
from tests.simulation.replay import compare
from tests.simulation.script import run
from tests.simulation.world import ALL_GRANTS

ONE_SEED = os.environ.get("CREDITS_TEST_SIMULATION_SEED")
SEEDS = range(20) if ONE_SEED is None else [int(ONE_SEED)]
DEFAULT_SEEDS = 8
"""How many of them the default run is sure to run; of the others as many as it takes to reach everything."""
LONG_RUNS = int(os.environ.get("CREDITS_TEST_SIMULATION_RUNS", "2000"))
AGAIN = "CREDITS_TEST_SIMULATION_SEED={seed} .venv/bin/python -m pytest tests/simulation"

HAPPENS = {
    *(f"crash {point}" for point in ("open", "begin", "produce", "before commit", "after commit")),
    *("lost before commit", "lost after commit", "crash while taking over", "restart", "moved", "fenced"),
    *("away", "held back", "fetched elsewhere"),
}
"""Every fault there is."""
WRITTEN = {
    *(
        "usage",
        "purchase",
        "allowance",
        "rollover",
        "expiry",
        "transfer_out",
        "transfer_in",
        "transfer_return",
        "refund",
    ),
    *("correction", "hold", "hold_release", "adjustment", "setting", "rejected"),
}
"""Every kind of entry."""
JUDGED = {
    *("usage rated by the list", "usage rated as of another price's time", "usage rated by an org's own price"),
    *("an unknown price", "a price that ties"),
    *("usage that names a hold, read after its end", "a capture in time whose hold has timed out"),
    *("a refund of forgotten usage by its time", "a refund of usage far back"),
    *(f"a correction in another {window}" for window in ("day", "week", "month")),
}
"""What the auditor must have judged."""
REBUILT = {
    *("lost an end", "refused half done", "refused as lost", "served"),
    *("holds without their records", "another record in an input", "a ledger without its end"),
}
"""What rebuilding must have met: a changelog cut short, and a worker that starts while a rebuild is broken off."""
ENDINGS = {"hold_captured", "hold_released", "hold_timed_out"}


@dataclass(frozen=True)
class Run:
    """One run that went well. `met`: what the auditor judged in it. `rebuilt`: what its rebuild met."""

    cuts: Cuts
    met: Counter[str]
    rebuilt: Counter[str]


def simulate(seed: int) -> Run:
    """One run, what must hold of it, what the auditor says of it, the same inputs once more, and its state rebuilt."""
    try:
        world = run(seed)
        cuts = Cuts(world)
        cuts.follow()
        judge = Judge(world)
        if world.grants_remembered == ALL_GRANTS:
            judge.follow()
        compare(world, cuts, Random(f"replay {seed}").choice((1, 7, 1_000)))
        rebuilt = compare_rebuilt(world)
    except Exception as error:
        raise AssertionError(f"seed {seed}: {error}\nagain: {AGAIN.format(seed=seed)}") from error
    return Run(cuts, judge.met, rebuilt)


@pytest.fixture(scope="module")
def runs() -> dict[int, Run]:
    """The runs so far, so that their sum can be looked at."""
    return {}


@pytest.mark.fault(
    "crash-at-every-step",
    title="crashes before and after every effect",
    provoked="seeded runs on a virtual broker: crashes, lost answers, rebalances, batches of any size",
    holds="the ledger, alerts and decisions are what the auditor says, whatever happened",
    faults_row=10,
)
@pytest.mark.parametrize(
    "seed", [*SEEDS[:DEFAULT_SEEDS], *(pytest.param(seed, marks=pytest.mark.slow) for seed in SEEDS[DEFAULT_SEEDS:])]
)
def test_nothing_is_lost_or_doubled(seed: int, runs: dict[int, Run], seen: Callable[[str], None]) -> None:
    runs[seed] = simulate(seed)
    seen("every seed agreed with the auditor and with the replay in other batches")


@pytest.mark.skipif(ONE_SEED is not None, reason="of all seeds together")
@pytest.mark.timeout(900)
def test_all_that_can_happen_has_happened(runs: dict[int, Run]) -> None:
    """Also where another process has run the seeds: what is missing for the sum is run here, seed by seed."""
    missing = everything()
    for seed in SEEDS:
        if not missing:
            break
        if seed not in runs:
            runs[seed] = simulate(seed)
        missing -= reached(runs[seed])
    assert not missing, missing


def everything() -> set[tuple[str, str]]:
    """What must be reached, each with its sort."""
    sorts = {"fault": HAPPENS, "kind": WRITTEN, "reason": ENDINGS, "judged": JUDGED, "rebuilt": REBUILT}
    return {(sort, name) for sort, names in sorts.items() for name in names}


def reached(run: Run) -> set[tuple[str, str]]:
    """What one run has reached of it."""
    entries = run.cuts.entries
    sorts = {
        "fault": +run.cuts.world.faults.happened,
        "kind": {row["kind"] for row in entries},
        "reason": {row["reason"] for row in entries if row["kind"] in ("hold_release", "rollover")},
        "judged": +run.met,
        "rebuilt": +run.rebuilt,
    }
    return {(sort, name) for sort, names in sorts.items() for name in names}


def test_a_seed_says_everything() -> None:
    first, second = run(3), run(3)
    assert [commit.records for commit in first.kafka.commits] == [commit.records for commit in second.kafka.commits]
    assert first.faults.happened == second.faults.happened


@pytest.mark.slow
@pytest.mark.timeout(14_400)
def test_nothing_is_lost_or_doubled_for_long() -> None:
    start = int(time.time()) * 1_000
    for seed in range(start, start + LONG_RUNS):
        simulate(seed)
