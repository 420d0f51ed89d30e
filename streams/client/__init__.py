"""What a program outside imports: a producer of input records, and readers of what the ledger says.

The rules of this package:
1. A producer cannot write a record that the contract refuses: models are checked before anything is sent.
2. A record that was not delivered is an error (`DeliveryError`), never a log line.
3. Readers see committed records only.
"""

from __future__ import annotations

from schemas.events import PURCHASE_PRESETS
from streams.client.follower import Fetch, Follower, PositionLostError
from streams.client.lease import HttpLeaseServer, Lease, LeaseNotReportedError
from streams.client.lease_state import LeaseRefusal, LeaseRefusedError, LeaseTerms
from streams.client.producer import CreditsProducer, DeliveryError
from streams.client.usage_blocks import READERS, UsageBlockError
from streams.kafka.reader import committed_ends, committed_starts, read_range

__all__ = [
    "PURCHASE_PRESETS",
    "READERS",
    "CreditsProducer",
    "DeliveryError",
    "Fetch",
    "Follower",
    "HttpLeaseServer",
    "Lease",
    "LeaseNotReportedError",
    "LeaseRefusal",
    "LeaseRefusedError",
    "LeaseTerms",
    "PositionLostError",
    "UsageBlockError",
    "committed_ends",
    "committed_starts",
    "read_range",
]
