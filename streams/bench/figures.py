"""The figures of a run, the goals they are held against, and how both are shown. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

RATIO_LEAST = 15.0
RATE_LEAST = 80_000
P99_MOST_MS = 100.0
DECISION_MOST = 60.0
MEMORY_MOST_MIB = 600.0
READY_MOST_S = 15.0

LOOKUPS_LEAST = 1_000_000
CHECKS_MOST_MS = 100.0
VIEW_MOST_MIB = 1_536.0
VIEW_ORGS = 1_000_000
HTTP_RATE_LEAST = 20_000

HOLD_P99_MOST_MS = 60.0
SPEND_P99_MOST_US = 20.0
GOAL_HOLDS_PER_SECOND = 500
GOAL_EVENTS_PER_SECOND = 8_000
GOAL_ORGS = 100_000
GOAL_IDS = 5_000_000


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure with what it should be; `met` None where the run was too small to tell."""

    name: str
    value: str
    wanted: str
    met: bool | None


@dataclass(slots=True)
class Figures:
    """What was measured; None where it was not. Rates are events per second."""

    idiomatic_rate: float | None = None
    ledger_rate: float | None = None
    plain_rate: float | None = None
    events: int = 0
    latency_events_per_second: int = 0
    latency_workers: int = 0
    latency_p50_ms: float | None = None
    latency_p99_ms: float | None = None
    latency_max_ms: float | None = None
    memory_mib: float | None = None
    memory_orgs: int = 0
    memory_ids: int = 0
    ready_s: float | None = None
    decision_updates: float | None = None
    """Plain dict updates that one decision costs."""
    view: dict[str, float] | None = None
    """What the accounts' view takes by itself (`view_alone`)."""
    http_rate: float | None = None
    """Events over HTTP, in batches of 500, to one process on one core."""
    holds_per_second: int = 0
    """Calls: half of them placings, half captures."""
    hold_p50_ms: float | None = None
    hold_p99_ms: float | None = None
    hold_max_ms: float | None = None
    spend_p50_us: float | None = None
    """Of `Lease.spend`."""
    spend_p99_us: float | None = None
    quick: bool = False
    """A look at a tenth of the size: nothing is judged."""
    processors: int = 0
    notes: list[str] = field(default_factory=list)

    def goals(self) -> list[Goal]:
        """Every figure that has a goal, judged where the run was large enough."""
        judged = self._judged()
        return [replace(goal, met=None) for goal in judged] if self.quick else judged

    def _judged(self) -> list[Goal]:
        goals = []
        if self.ledger_rate is not None:
            rate = f"{self.ledger_rate:,.0f} events/s"
            goals.append(Goal("ledger, exactly once", rate, f"{RATE_LEAST:,} or more", self.ledger_rate >= RATE_LEAST))
            if self.idiomatic_rate:
                ratio = self.ledger_rate / self.idiomatic_rate
                wanted = f"{RATIO_LEAST:.0f} or more"
                goals.append(Goal("ledger / idiomatic agent", f"{ratio:.1f}", wanted, ratio >= RATIO_LEAST))
        if self.latency_p99_ms is not None:
            full = self.latency_events_per_second >= GOAL_EVENTS_PER_SECOND
            met = self.latency_p99_ms < P99_MOST_MS if full else None
            goals.append(
                Goal("p99 to committed entry", f"{self.latency_p99_ms:.0f} ms", f"< {P99_MOST_MS:.0f} ms", met)
            )
        goals += self._of_authorize()
        if self.http_rate is not None:
            rate, met = f"{self.http_rate:,.0f} events/s", self.http_rate >= HTTP_RATE_LEAST
            goals.append(Goal("HTTP, batches of 500, one core", rate, f"{HTTP_RATE_LEAST:,} or more", met))
        if self.hold_p99_ms is not None:
            met = self.hold_p99_ms <= HOLD_P99_MOST_MS if self.holds_per_second >= GOAL_HOLDS_PER_SECOND else None
            value, wanted = f"{self.hold_p99_ms:.0f} ms", f"{HOLD_P99_MOST_MS:.0f} ms or less"
            goals.append(Goal("p99 of a hold over HTTP", value, wanted, met))
        if self.spend_p99_us is not None:
            value, wanted = f"{self.spend_p99_us:.1f} µs", f"{SPEND_P99_MOST_US:.0f} µs or less"
            goals.append(Goal("p99 of spending a lease", value, wanted, self.spend_p99_us <= SPEND_P99_MOST_US))
        full_size = self.memory_orgs >= GOAL_ORGS and self.memory_ids >= GOAL_IDS
        if self.memory_mib is not None:
            met = self.memory_mib < MEMORY_MOST_MIB if full_size else None
            goals.append(Goal("worker memory", f"{self.memory_mib:.0f} MiB", f"< {MEMORY_MOST_MIB:.0f} MiB", met))
        if self.ready_s is not None:
            met = self.ready_s < READY_MOST_S if self.memory_orgs >= GOAL_ORGS else None
            goals.append(Goal("restart to ready", f"{self.ready_s:.1f} s", f"< {READY_MOST_S:.0f} s", met))
        if self.decision_updates is not None:
            met = self.decision_updates <= DECISION_MOST
            value = f"{self.decision_updates:.0f} dict updates"
            goals.append(Goal("one decision, pure core", value, f"{DECISION_MOST:.0f} or fewer", met))
        return goals

    def _of_authorize(self) -> list[Goal]:
        """Answers before work."""
        goals = []
        if self.view is not None:
            lookups, checks, memory = (self.view[name] for name in ("lookups_per_second", "checks_ms", "memory_mib"))
            full = self.view["orgs"] >= VIEW_ORGS
            wanted = f"{LOOKUPS_LEAST:,} or more"
            goals.append(Goal("accounts looked up, in process", f"{lookups:,.0f}/s", wanted, lookups >= LOOKUPS_LEAST))
            wanted = f"{CHECKS_MOST_MS:.0f} ms or less"
            goals.append(Goal("10,000 checks in one call", f"{checks:.0f} ms", wanted, checks <= CHECKS_MOST_MS))
            met = memory <= VIEW_MOST_MIB if full else None
            wanted = f"{VIEW_MOST_MIB:,.0f} MiB or less"
            goals.append(Goal(f"view of {self.view['orgs']:,.0f} orgs", f"{memory:,.0f} MiB", wanted, met))
        return goals

    @property
    def ok(self) -> bool:
        """No goal was missed."""
        return all(goal.met is not False for goal in self.goals())

    def document(self) -> dict[str, Any]:
        """Everything, for machines."""
        return {"ok": self.ok, **asdict(self), "goals": [asdict(goal) for goal in self.goals()]}
