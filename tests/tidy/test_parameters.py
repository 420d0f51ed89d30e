"""How many things a call may say at once: six parameters, and six values without a name in a constructor.

More belongs into a dataclass, or is said with keywords: of seven values in a row nobody sees that two are swapped. The
options of a command are its parameters, and are not counted.
"""

from __future__ import annotations

import ast
from collections import Counter

from tests.tidy.source import Module, modules

PARAMETERS_MAX = 6
UNNAMED_MAX = 6

WIDE_SIGNATURES = {
    "streams/bench/load.py": 1,
    "streams/ledger/alerts.py": 3,
    "streams/ledger/budgets.py": 2,
    "streams/ledger/hold_decisions.py": 2,
    "streams/ledger/journal.py": 1,
    "streams/ledger/usage.py": 2,
    "streams/verify/fold.py": 4,
    "streams/verify/sources.py": 1,
}
"""How many each module still has. These numbers may only fall."""

UNNAMED_VALUES = {
    "streams/bench/deciding.py": 1,
    "streams/ledger/alerts.py": 7,
    "streams/ledger/budgets.py": 1,
    "streams/ledger/grants.py": 1,
    "streams/ledger/hold_decisions.py": 2,
    "streams/ledger/journal.py": 1,
    "streams/ledger/money.py": 1,
    "streams/ledger/reversals.py": 1,
    "streams/ledger/settings.py": 1,
    "streams/ledger/topups.py": 1,
    "streams/ledger/transfers.py": 4,
    "streams/ledger/usage.py": 2,
    "streams/verify/audit.py": 1,
}
"""How many such constructions each module still has. These numbers may only fall."""


def is_wide(node: ast.AST) -> bool:
    """Whether it is a function with too many parameters."""
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return False
    if any(".command(" in ast.unparse(each) for each in node.decorator_list):
        return False
    given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return len([each for each in given if each.arg not in ("self", "cls")]) > PARAMETERS_MAX


def is_unnamed(node: ast.AST, classes: set[str]) -> bool:
    """Whether it makes an object of one of these classes from too many values without names."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name | ast.Attribute):
        return False
    name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
    return name in classes and len(node.args) > UNNAMED_MAX


def counted() -> tuple[Counter[str], Counter[str]]:
    """Wide signatures and unnamed constructions of every module that has some."""
    every = modules("schemas", "streams", "projections", "docs")
    classes = {node.name for module in every for node in ast.walk(module.tree) if isinstance(node, ast.ClassDef)}

    def count(module: Module) -> tuple[int, int]:
        nodes = list(ast.walk(module.tree))
        return sum(map(is_wide, nodes)), sum(is_unnamed(node, classes) for node in nodes)

    found = {module.shown: count(module) for module in every}
    return (
        +Counter({name: wide for name, (wide, _) in found.items()}),
        +Counter({name: unnamed for name, (_, unnamed) in found.items()}),
    )


def test_no_call_says_too_much_at_once() -> None:
    wide, unnamed = counted()
    assert wide == WIDE_SIGNATURES, "put parameters into a dataclass, or lower the number"
    assert unnamed == UNNAMED_VALUES, "name the values, or lower the number"


def test_what_is_too_much_is_seen() -> None:
    seven = ", ".join("abcdefg")
    [function] = ast.parse(f"def function(self, {seven}): ...").body
    [command] = ast.parse(f"@app.command()\ndef command({seven}): ...").body
    [short] = ast.parse("def short(self, a, b, *, c): ...").body
    assert [is_wide(each) for each in (function, command, short)] == [True, False, False]
    made, called = ast.parse(f"Row({seven})", mode="eval").body, ast.parse(f"row({seven})", mode="eval").body
    assert [is_unnamed(each, {"Row"}) for each in (made, called)] == [True, False]
