"""Header names that are not UTF-8: the record and its neighbours are read all the same."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy

from streams.kafka.header_decoding import RereadableRecords


class RawName(str):
    """A header name that goes over the wire as bytes that are not UTF-8."""

    __slots__ = ()

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        """What aiokafka's builder asks for."""
        return b"\xff\xfe" + super().encode()


def kafka_batch(base_offset: int, *headers: list[tuple[str, bytes]], compression: int = 0) -> bytes:
    builder = _DefaultRecordBatchBuilderPy(2, compression, 0, -1, -1, -1, 1 << 20)
    for number, each in enumerate(headers):
        builder.append(number, 1_000 + number, b"key", b"value %d" % number, each)
    return base_offset.to_bytes(8, "big") + bytes(builder.build())[8:]


def read(raw: bytes) -> list[tuple[int, int, bytes, bytes, list[Any]]]:
    kept = RereadableRecords(raw)
    found = []
    while kept.has_next():
        batch = kept.next_batch()
        assert batch.validate_crc()
        found += [(each.offset, each.timestamp, each.key, each.value, each.headers) for each in kept.records_of(batch)]
    return found


@pytest.mark.parametrize("compression", [0, 1])
def test_a_name_that_is_not_utf_8_is_escaped_and_nothing_is_lost(compression: int) -> None:
    bad = kafka_batch(1, [("a", b"1")], [(RawName("x"), b"2"), ("ä", b"3")], [], compression=compression)
    raw = kafka_batch(0, []) + bad + kafka_batch(4, [("b", b"4")])
    assert read(raw) == [
        (0, 1_000, b"key", b"value 0", []),
        (1, 1_000, b"key", b"value 0", [("a", b"1")]),
        (2, 1_001, b"key", b"value 1", [("\\xff\\xfex", b"2"), ("ä", b"3")]),
        (3, 1_002, b"key", b"value 2", []),
        (4, 1_000, b"key", b"value 0", [("b", b"4")]),
    ]


def test_a_batch_that_is_really_broken_is_still_an_error() -> None:
    raw = bytearray(kafka_batch(0, [(RawName("x"), b"1")]))
    raw[-1] = 0xFF
    kept = RereadableRecords(bytes(raw))
    batch = kept.next_batch()
    assert not batch.validate_crc()
    truncated = bytearray(kafka_batch(0, [("a", b"1")]))
    truncated[61] = 0x02  # the length of the first record
    kept = RereadableRecords(bytes(truncated))
    with pytest.raises(CorruptRecordException):
        kept.records_of(kept.next_batch())
