"""The failures that stop the engine, or restart a partition. None of them commits anything.

`PartitionLostError` costs a restore of one partition from Kafka. Everything else here stops the worker: a person has
to look, and the sentence says at what.
"""

from __future__ import annotations

from streams.errors import OperatorError


class PartitionLostError(Exception):
    """The partition's transaction did not go through, or it is not known whether it did: restore it from Kafka."""


class FencedError(PartitionLostError):
    """Another producer with the same transactional id has started: the partition has another owner now."""


class StateLostError(OperatorError):
    """What Kafka holds of the state contradicts itself: going on would lose or double something."""

    code = "state_lost"


class RetentionGapError(OperatorError):
    """Records that were never read are gone from an input topic."""

    code = "retention_gap"


class PositionBeyondEndError(OperatorError):
    """The state has read further than the input topic reaches: the topic was recreated or truncated."""

    code = "position_beyond_end"


class TopicGoneError(OperatorError):
    """A topic was deleted, or deleted and created again, while the worker ran."""

    code = "topic_gone"


def topic_deleted(topic: str) -> TopicGoneError:
    """The failure of a worker whose topic is gone."""
    return TopicGoneError(
        f"topic {topic} was deleted while the worker ran",
        "restore it from a copy, then start the worker; a new, empty topic is refused where its records were read "
        "already",
    )


class CommitRefusedError(OperatorError):
    """Kafka refuses what the ledger must write, and will again."""

    code = "commit_refused"


class TooManyDeadLettersError(OperatorError):
    """More records are unreadable than can be an accident."""

    code = "too_many_dead_letters"


class ContractError(AssertionError):
    """The processor broke the port's rules: a bug of ours, found before anything was committed."""
