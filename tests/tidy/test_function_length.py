"""How long a function is: never longer than the longest one there is. A ratchet, which may only fall.

Counted are the lines of a function from `def` to its end without its docstring: once without the functions inside it,
and once with them.
"""

from __future__ import annotations

import ast
from collections.abc import Callable

import pytest

from tests.tidy.source import modules

LINES_MAX = 47
"""`streams.engine.restore.restore`. Splitting the longest function lowers this."""

WHOLE_LINES_MAX = 53
"""With the functions inside it: `streams.cli.tail.tail`."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def lines_of(function: Function) -> int:
    """Lines of the function itself."""
    assert function.end_lineno is not None
    lines = function.end_lineno - function.lineno + 1
    first = function.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        lines -= (first.end_lineno or 0) - first.lineno + 1
    return lines - sum(spanned(each) for each in inner(function))


def whole_of(function: Function) -> int:
    """Lines of the function and of those inside it."""
    return lines_of(function) + sum(spanned(each) for each in inner(function))


def inner(node: ast.AST) -> list[Function]:
    """The functions directly inside it."""
    found: list[Function] = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            found.append(child)
        else:
            found += inner(child)
    return found


def spanned(function: Function) -> int:
    """All lines from its first decorator to its end."""
    first = min([function.lineno, *(each.lineno for each in function.decorator_list)])
    return (function.end_lineno or 0) - first + 1


def lengths(measure: Callable[[Function], int]) -> dict[str, int]:
    """The lines of every function, by module and name."""
    found = {}
    for module in modules():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                found[f"{module.shown}:{node.lineno} {node.name}"] = measure(node)
    return found


@pytest.mark.parametrize(("measure", "lines_max"), [(lines_of, LINES_MAX), (whole_of, WHOLE_LINES_MAX)])
def test_no_function_is_longer_than_the_longest_was(measure: Callable[[Function], int], lines_max: int) -> None:
    longer = {name: lines for name, lines in lengths(measure).items() if lines > lines_max}
    assert not longer, f"split them: {longer}"


@pytest.mark.parametrize(("measure", "lines_max"), [(lines_of, LINES_MAX), (whole_of, WHOLE_LINES_MAX)])
def test_the_ratchet_falls_with_the_longest(measure: Callable[[Function], int], lines_max: int) -> None:
    longest = max(lengths(measure).values())
    assert longest == lines_max, f"the longest function has {longest} lines: lower the number to it"


def test_lines_are_those_of_the_function_itself() -> None:
    text = (
        'def outer():\n    """Two\n    lines."""\n    @cached\n    def within():\n        return 1\n    return within'
    )
    [outer] = inner(ast.parse(text))
    assert (lines_of(outer), whole_of(outer)) == (2, 5)
