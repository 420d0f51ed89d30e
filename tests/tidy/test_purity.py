"""The pure modules stay pure: the same arguments give the same answer, on every machine and at every time.

They import no client, no event loop, no clock, no source of chance, no system; neither do the modules that they
import. Time, ids and randomness are arguments.
"""

from __future__ import annotations

import ast
import sys

import pytest

from tests.tidy.source import Module, closure, modules, within

PURE = (
    "streams.ledger",
    "schemas.amounts",
    "schemas.enums",
    "schemas.events",
    "schemas.facts",
    "schemas.settings_bodies",
    "schemas.jsonl",
    "schemas.topics",
    "projections.rows",
    "projections.buckets",
    "projections.columns",
    "projections.queries",
    "projections.invoices",
    "projections.statements",
)
CLIENTS = {
    "aiokafka",
    "chdb",
    "clickhouse_connect",
    "clickhouse_migrations",
    "confluent_kafka",
    "fastapi",
    "faust",
    "httpx",
    "mode",
    "prometheus_client",
    "sqlite3",
    "typer",
    "uvicorn",
}
SYSTEM = {
    "asyncio",
    "logging",
    "multiprocessing",
    "os",
    "random",
    "secrets",
    "shutil",
    "signal",
    "socket",
    "structlog",
    "subprocess",
    "sys",
    "tempfile",
    "threading",
    "time",
    "uuid",
}
FORBIDDEN = CLIENTS | SYSTEM
IN_COLUMNS = {"streams.ledger.usage_batch", "streams.ledger.usage_batch_rating", "streams.ledger.usage_rows"}
"""The modules of the ledger that decide over columns."""
COLUMNS = {"numpy", "numpy.typing", "pyarrow", "pyarrow.compute"}
"""What they do it with. Other parts of these libraries read files, ask servers, or draw lots."""
FORBIDDEN_CALLS = frozenset({"now", "utcnow", "today", "open", "print", "input"})


def pure() -> list[Module]:
    return [module for module in modules() if any(within(module.name, name) for name in PURE)]


def about_amounts() -> list[Module]:
    return [module for module in pure() if within(module.name, "streams.ledger") or module.name == "schemas.amounts"]


@pytest.mark.parametrize("module", pure(), ids=lambda module: module.name)
def test_no_client_clock_or_chance_is_reached(module: Module) -> None:
    known = {other.name: other for other in modules()}
    for name in sorted(closure(module, modules())):
        impure = sorted({found.partition(".")[0] for found in known[name].imports} & FORBIDDEN)
        assert not impure, f"{module.shown} reaches {', '.join(impure)} by way of {known[name].shown}"


@pytest.mark.parametrize("module", pure(), ids=lambda module: module.name)
def test_nothing_asks_the_clock_or_the_disk(module: Module) -> None:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call):
            called = node.func
            name = (
                called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""
            )
            assert name not in FORBIDDEN_CALLS, f"{module.shown}:{node.lineno} calls {name}()"


@pytest.mark.parametrize(
    "module", [each for each in modules() if within(each.name, "streams.ledger")], ids=lambda module: module.name
)
def test_the_ledger_computes_over_columns_in_named_modules_only(module: Module) -> None:
    ours = {"schemas", "streams", "projections"} | sys.stdlib_module_names
    others = {name for name in module.imports if name.partition(".")[0] not in ours}
    assert others <= {"msgspec"} | (COLUMNS if module.name in IN_COLUMNS else set())


@pytest.mark.parametrize("module", about_amounts(), ids=lambda module: module.name)
def test_money_is_never_a_float(module: Module) -> None:
    """No float literal, no `float(...)`, no true division: 0.1 + 0.2 is not 0.3, and 2**53 is below our bounds."""
    for node in ast.walk(module.tree):
        where = f"{module.shown}:{getattr(node, 'lineno', 0)}"
        assert not (isinstance(node, ast.Constant) and isinstance(node.value, float)), f"{where} has a float"
        assert not isinstance(node, ast.BinOp | ast.AugAssign) or not isinstance(node.op, ast.Div), (
            f"{where} divides with /"
        )
        assert not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "float"), (
            f"{where} calls float()"
        )
