"""Which keys belong to a partition: an account is opened in the partition of its key by murmur2, and nowhere else.

A null key is judged by those who compare it with its owner (`judgement.check_key`).
"""

from __future__ import annotations

from schemas.enums import DeadLetterCode
from schemas.partitioner import KEY_BYTES_MAX, PartitionKeys, partition_of
from streams.ledger.refusals import DeadLetter


class OwnKeys(PartitionKeys):
    """The keys of one partition, and what is said of a record under another."""

    def check(self, key: bytes | None) -> None:
        """Raise `DeadLetter` `wrong_partition` for a key that belongs to another partition."""
        if key is None or key in self:
            return
        home = partition_of(key, self.partitions)
        if home != self.number:
            raise self.refusal(key, home)
        self.remember([key])

    def refusal(self, key: bytes, home: int | None = None) -> DeadLetter:
        """The dead letter of a record whose key belongs elsewhere."""
        home = partition_of(key, self.partitions) if home is None else home
        message = (
            f"by murmur2 the key {key[:KEY_BYTES_MAX]!r} belongs to partition {home} of {self.partitions}, "
            f"and the record lies in {self.number}; set its producer's partitioner to murmur2"
        )
        return DeadLetter(DeadLetterCode.WRONG_PARTITION, message)
