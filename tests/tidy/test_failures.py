"""What fails, fails loudly: no handler on the way of money swallows what it does not know.

A handler for everything (`except Exception`, `except BaseException`, a bare `except`, `suppress(Exception)`) is
allowed only where it ends by raising again. The places outside the way of money that may do otherwise are listed with
their number: the number may only go down.
"""

from __future__ import annotations

import ast

from tests.tidy.source import Module, modules

EVERYTHING = {"Exception", "BaseException"}
# file: how many handlers for everything it may have. The edge of a program, where an error becomes a line for people.
ALLOWED = {
    "streams/cli/__init__.py": 1,
}


def names(node: ast.expr | None) -> set[str]:
    if node is None:
        return {"BaseException"}
    if isinstance(node, ast.Tuple):
        return set().union(*(names(element) for element in node.elts))
    return {node.id} if isinstance(node, ast.Name) else {node.attr} if isinstance(node, ast.Attribute) else set()


def swallowing(module: Module) -> list[int]:
    """Lines of the handlers for everything that do not end by raising."""
    lines = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ExceptHandler) and names(node.type) & EVERYTHING:
            if not isinstance(node.body[-1], ast.Raise):
                lines.append(node.lineno)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            called = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            if called == "suppress" and set().union(*map(names, node.args), set()) & EVERYTHING:
                lines.append(node.lineno)
    return lines


def test_no_handler_swallows_everything() -> None:
    found = {module.shown: lines for module in modules() if (lines := swallowing(module))}
    over = {shown: lines for shown, lines in found.items() if len(lines) > ALLOWED.get(shown, 0)}
    assert not over, "\n".join(f"{shown}: lines {lines} handle everything and go on" for shown, lines in over.items())
    loose = {shown: count for shown, count in ALLOWED.items() if len(found.get(shown, [])) < count}
    assert not loose, f"fewer than allowed: lower the numbers of {loose}"


def test_the_search_finds_what_it_looks_for() -> None:
    text = "try:\n    f()\nexcept (ValueError, Exception):\n    pass\nwith suppress(Exception):\n    f()\n"
    module = modules()[0]
    assert swallowing(Module("x", module.path, text)) == [3, 5]
    assert swallowing(Module("x", module.path, "try:\n    f()\nexcept BaseException:\n    g()\n    raise\n")) == []
