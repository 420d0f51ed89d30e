"""Names and lengths: one word per thing, no drawer for odds and ends, functions that fit on a screen.

A function has at most `FUNCTION_LINES_MAX` lines of its own. The longer ones are listed with their
number, which may only go down; one that became short leaves the list.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tests.tidy.source import Module, modules

BANNED = re.compile(r"(^|_)(utils?|helpers?|managers?|base|common|misc|stuff)(_|$)")
BANNED_CLASS = re.compile(r"(Utils?|Helpers?|Manager|Base)$")
FUNCTION_LINES_MAX = 60
MODULE_LINES_MAX = 700
# "file::function": its lines. A ratchet: never raise a number, never add a line.
LONGER: dict[str, int] = {}


def functions(module: Module) -> Iterator[tuple[str, int]]:
    """Every function with its qualified name and its own lines of code: without docstring and inner functions."""

    def walk(node: ast.AST, prefix: str) -> Iterator[tuple[str, int]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                inner = sum(lines(other) for other in inner_functions(child))
                docstring = lines(child.body[0]) if ast.get_docstring(child, clean=False) is not None else 0
                yield prefix + child.name, lines(child) - docstring - inner
                yield from walk(child, f"{prefix}{child.name}.")
            elif isinstance(child, ast.ClassDef):
                yield from walk(child, f"{prefix}{child.name}.")
            else:
                yield from walk(child, prefix)

    return walk(module.tree, "")


def lines(node: ast.stmt) -> int:
    """From the first line of a statement to its last."""
    return (node.end_lineno or node.lineno) - node.lineno + 1


def inner_functions(node: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """The functions defined directly in this one, not those inside them."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child
        else:
            yield from inner_functions(child)


def test_no_name_says_nothing() -> None:
    every = modules("schemas", "streams", "projections", "tests", "docs")
    wrong = [module.shown for module in every if any(BANNED.search(part) for part in module.name.split("."))]
    wrong += [
        f"{module.shown}: class {node.name}"
        for module in every
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef) and BANNED_CLASS.search(node.name)
    ]
    assert not wrong, f"say what it is: {wrong}"


def test_functions_fit_on_a_screen() -> None:
    lengths = {f"{module.shown}::{name}": length for module in modules() for name, length in functions(module)}
    over = {name: length for name, length in lengths.items() if length > LONGER.get(name, FUNCTION_LINES_MAX)}
    assert not over, f"longer than {FUNCTION_LINES_MAX} lines: {over}"
    loose = {name: length for name, length in LONGER.items() if lengths.get(name, 0) < length}
    assert not loose, f"shorter than listed: lower or drop {loose}"


def test_modules_have_one_subject() -> None:
    over = {module.shown: length for module in modules() if (length := module.text.count("\n")) > MODULE_LINES_MAX}
    assert not over, f"longer than {MODULE_LINES_MAX} lines, split by subject: {over}"


def test_every_module_states_its_rules() -> None:
    silent = [
        module.shown
        for module in modules()
        if module.text.strip() and ast.get_docstring(module.tree, clean=False) is None
    ]
    assert not silent, f"no module docstring: {silent}"


def test_what_others_use_says_what_it_means() -> None:
    """Meaning, units, errors: every function and class of a module that is not private to it."""
    silent = [
        f"{module.shown}:{node.lineno} {node.name}"
        for module in modules()
        for node in module.tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and ast.get_docstring(node, clean=False) is None
    ]
    assert not silent, f"no docstring: {silent}"
