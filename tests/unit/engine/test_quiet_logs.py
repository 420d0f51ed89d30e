"""Repeated sentences are logged seldom, different ones always."""

from __future__ import annotations

import logging

from streams.kafka.quiet_logs import RateLimitedLog


def record(sentence: str, *values: object) -> logging.LogRecord:
    return logging.LogRecord("client", logging.ERROR, "", 0, sentence, values, None)


def test_a_sentence_is_let_through_once_in_an_interval() -> None:
    now = [0.0]
    seldom = RateLimitedLog(10.0, lambda: now[0])
    assert seldom.filter(record("node %s is away", 1))
    assert not seldom.filter(record("node %s is away", 2))
    assert seldom.filter(record("another sentence"))
    now[0] = 10.0
    assert seldom.filter(record("node %s is away", 1))
