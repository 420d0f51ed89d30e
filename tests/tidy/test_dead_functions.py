"""No function that only tests use: what is public has a user in the code itself, or stands below with a reason.

By name: a name that is used anywhere but where it is defined counts as used, so this finds what nobody mentions, not
every dead method with a common name. Methods that a framework calls, or that fill in a protocol, are used by it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from functools import cache

from tests.tidy.source import Module, modules

USERS = ("schemas", "streams", "projections", "docs")

ALLOWED = {
    "projections.pdf._Paper.footer": "fpdf calls it for every page",
    "projections.projector.Projector.on_stop": "mode calls it when the service ends",
    "projections.projector.Projector.queued_rows": "a test holds the queue to its bound",
    "streams.api.paths.SegmentConvertor.to_string": "an abstract method of Starlette's; called to make an address",
    "streams.api.server._Server.capture_signals": "uvicorn calls it around serving",
    "streams.engine.health.BoundedServer.service_actions": "socketserver calls it between two connections",
    "streams.engine.seen.SeenMemory.memory_bytes": "a test holds the memory to 32 bytes an id",
    "streams.engine.table.AccountStore.on_rebalance": "Faust calls it before it would recover a table",
    "streams.kafka.transport.BatchConsumer.verify_event_path": "Faust calls it to look for consumers that hang",
    "streams.kafka.transport.BatchSchema.loads_key": "Faust calls it for each message",
    "streams.kafka.transport.BatchSchema.loads_value": "Faust calls it for each message",
}
"""What nothing of ours but tests mentions, and why it is there all the same."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def public_functions(module: Module) -> Iterator[tuple[str, Function]]:
    """Functions of the module and methods of its classes: dotted name and node; not those under a decorator that
    registers them, nor of a protocol."""
    for node in module.tree.body:
        if not isinstance(node, ast.ClassDef):
            yield from ((f"{module.name}.{each.name}", each) for each in public([node]))
        elif not any("Protocol" in ast.unparse(each) for each in node.bases):
            yield from ((f"{module.name}.{node.name}.{each.name}", each) for each in public(node.body))


def public(nodes: Sequence[ast.stmt]) -> Iterator[Function]:
    """The functions among these that others may call by their names."""
    for node in nodes:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or node.name.startswith("_"):
            continue
        if all(ast.unparse(each).partition("(")[0] in KEEP_THE_NAME for each in node.decorator_list):
            yield node


KEEP_THE_NAME = {"property", "cached_property", "functools.cache", "functools.cached_property", "cache", "lru_cache"}
KEEP_THE_NAME |= {"functools.lru_cache", "staticmethod", "classmethod", "contextlib.contextmanager", "contextmanager"}
KEEP_THE_NAME |= {"override", "typing.override"}
"""Decorators under which a function is still called by its name; all others hand it to somebody."""


def mentions(module: Module) -> Iterator[str]:
    """Every name that the module uses: read, imported, or written as a text, such as `module:function`."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.ImportFrom):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value.rpartition(":")[2]


@cache
def unused() -> set[str]:
    """Public functions whose name no module mentions."""
    used = {name for module in modules(*USERS) for name in mentions(module)}
    return {name for module in modules() for name, node in public_functions(module) if node.name not in used}


def test_every_public_function_has_a_user_besides_tests() -> None:
    dead = sorted(unused() - ALLOWED.keys())
    assert not dead, f"only tests use {', '.join(dead)}: delete it, or give a reason in ALLOWED"


def test_what_is_allowed_is_still_needed() -> None:
    assert not ALLOWED.keys() - unused()


def test_what_only_tests_mention_is_found() -> None:
    """The guard sees what it is for: the allowed ones are found by it, and a function with a user is not."""
    found = unused()
    assert "streams.engine.seen.SeenMemory.memory_bytes" in found
    assert "streams.engine.seen.SeenMemory.lookup" not in found
