"""Every question to a broker or a server names how long it waits: a default that is endless hangs a command."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.tidy.source import Module, modules

TIMED = {
    "list_topics": "timeout",
    "get_watermark_offsets": "timeout",
    "list_offsets": "request_timeout",
    "describe_configs": "request_timeout",
    "describe_consumer_groups": "request_timeout",
    "urlopen": "timeout",
}
CONSUMERS = ("consume", "poll", "flush")


def endless(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Calls that may wait without end."""
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        name, receiver = node.func.attr, ast.unparse(node.func.value)
        given = {keyword.arg for keyword in node.keywords}
        if (
            name in TIMED and TIMED[name] not in given and not (name == "get_watermark_offsets" and len(node.args) > 1)
        ) or (
            name in CONSUMERS
            and receiver.endswith(("consumer", "_producer"))
            and "timeout" not in given
            and len(node.args) < (2 if name == "consume" else 1)
        ):
            yield node.lineno, f"{receiver}.{name}"


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.name)
def test_every_wait_has_an_end(module: Module) -> None:
    assert list(endless(module.tree)) == []


def test_endless_waits_are_seen() -> None:
    for line in (
        "admin.list_topics()",
        "urllib.request.urlopen(url)",
        "self._consumer.consume(10)",
        "self._producer.flush()",
    ):
        assert list(endless(ast.parse(line))), line
    assert not list(
        endless(ast.parse("admin.list_topics(timeout=3); consumer.consume(10, 0.1); self._producer.flush(5)"))
    )
