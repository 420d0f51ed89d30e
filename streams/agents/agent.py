"""What an agent of the ledger is: some input topics, what decides their records, and where the results go.

The rules of this file:
1. Each is a Faust agent of the worker (`Engine.bind`). It puts what Faust fetched into the queue of the partition.
2. The pump of the partition takes batches of all agents off the queue, gathers for them together (`processor`), calls
   `decide` for one after the other, and commits everything that they caused in one transaction.
3. An agent keeps nothing between two batches. What lasts is in the state of the partition.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from schemas.codec import DecodedBatch
from streams.kafka.inbound import Inbound
from streams.ledger.account import Account
from streams.ledger.price_log import PriceLog
from streams.ledger.usage_batch_rating import Kinds
from streams.processing.outbound import Outbound
from streams.processing.prices import PriceRecords
from streams.processing.references import Gathered
from streams.processing.state import PartitionState, Windows

ACCOUNT_OUTPUTS: Final = (
    "ledger",
    "alerts_threshold",
    "alerts_depletion",
    "alerts_topup",
    "topup_requests",
    "decisions",
    "balances",
    "transfer_legs",
)
"""Where a change of an account goes. Before every command the account settles what fell due, so each agent that decides
commands may write to all of these."""

DEAD_LETTERS: Final = "dead_letters"


@dataclass(frozen=True, slots=True)
class Batch:
    """Records of one input topic, with what was gathered for them. Their agent decides them into `outbound`."""

    inbound: Inbound
    decoded: DecodedBatch
    usage_kinds: Kinds | None
    """The kinds of usage in it; None for other records."""
    gathered: Gathered
    prices: PriceRecords
    state: PartitionState
    windows: Windows
    outbound: Outbound


@dataclass(frozen=True, slots=True)
class PricesAtHand:
    """The prices that a worker knows, without asking for newer ones."""

    log: PriceLog
    current: bool
    """Whether everything published until some seconds ago is in `log`."""
    account: Callable[[str], Account] | None
    """Accounts, for prices of an org's own; None where the same batch may change them."""


def never(usage: Kinds | None, known: PricesAtHand) -> bool:
    """The prices at hand will do."""
    return False


@dataclass(frozen=True, slots=True)
class Agent:
    """One agent. Topics are named by their keys in the catalogue (`schemas.topics`)."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    decide: Callable[[Batch], None]
    """Decides the records in order, changes accounts in place, and puts everything that leaves into the outbound."""
    needs_newer_prices: Callable[[Kinds | None, PricesAtHand], bool] = never
    """Whether the price topic must be read to its end before `decide`; it is asked with the kinds of usage, if any."""
