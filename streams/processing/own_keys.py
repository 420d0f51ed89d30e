"""Which keys belong to a partition: an account is opened in the partition of its key by murmur2, and nowhere else.

A null key passes here: it is compared with its owner (`validation.refuse_key`).
"""

from __future__ import annotations

from schemas.enums import DeadLetterCode
from schemas.partitioner import KEY_BYTES_MAX, PartitionKeys, partition_of
from streams.ledger.refusals import DeadLetter


class OwnKeys(PartitionKeys):
    """The keys of one partition."""

    def refuse(self, key: bytes | None) -> DeadLetter | None:
        """`wrong_partition` for a key that belongs to another partition."""
        if key is None or key in self:
            return None
        home = partition_of(key, self.partitions)
        if home == self.number:
            self.remember([key])
            return None
        message = (
            f"by murmur2 the key {key[:KEY_BYTES_MAX]!r} belongs to partition {home} of {self.partitions}, "
            f"and the record is in {self.number}; set its producer's partitioner to murmur2"
        )
        return DeadLetter(DeadLetterCode.WRONG_PARTITION, message)
