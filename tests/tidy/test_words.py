"""Names, and lengths of modules: one word per thing, no drawer for odds and ends, one subject a module."""

from __future__ import annotations

import ast
import re

from tests.tidy.source import modules

BANNED = re.compile(r"(^|_)(utils?|helpers?|managers?|base|common|misc|stuff)(_|$)")
BANNED_CLASS = re.compile(r"(Utils?|Helpers?|Manager|Base)$")
MODULE_LINES_MAX = 700


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
