"""The table of faults is whole: each marked test says what it must, once, and stands in the page."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

from tests.faults.table import LIST, Fault, Run, fault_of, page
from tests.tidy.source import ROOT, Module, modules

PAGE = ROOT / "docs" / "faults.md"


@dataclass(frozen=True)
class Marked:
    """A test that is marked as provoking a fault."""

    node_id: str
    fault: Fault


def marked() -> Iterator[Marked]:
    for module in modules("tests"):
        for node, name in _tests(module):
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.fault":
                    named = {each.arg: ast.literal_eval(each.value) for each in mark.keywords if each.arg is not None}
                    positional = tuple(ast.literal_eval(each) for each in mark.args)
                    yield Marked(f"{module.shown}::{name}", fault_of(positional, named))


def _tests(module: Module) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, str]]:
    for node in module.tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node, node.name
        elif isinstance(node, ast.ClassDef):
            for each in node.body:
                if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield each, f"{node.name}::{each.name}"


def test_each_fault_has_one_name() -> None:
    slugs = [each.fault.slug for each in marked()]
    assert sorted(slugs) == sorted(set(slugs))


def test_a_marked_test_tells_what_it_saw() -> None:
    by_name = {f"{module.shown}::{name}": node for module in modules("tests") for node, name in _tests(module)}
    silent = [
        each.node_id
        for each in marked()
        if "seen" not in {argument.arg for argument in by_name[each.node_id].args.args}
    ]
    assert not silent, f"these take no fixture `seen`: {silent}"


def test_the_page_names_tests_that_exist() -> None:
    """`make faults` writes it."""
    named = set(re.findall(r"`(tests/[^`]+::[^`]+)`", PAGE.read_text(encoding="utf-8")))
    assert named <= {each.node_id for each in marked()}


def test_no_fault_failed_in_the_last_run() -> None:
    assert "**failed**" not in PAGE.read_text(encoding="utf-8")


def test_the_page_is_in_order_and_says_what_was_seen() -> None:
    one = Fault("b", "title b", "pulled | pushed", "holds", faults_row=2)
    two = Fault("a", "title a", "pulled", "holds")
    text = page(
        [
            Run(two, "tests/x.py::test_two", False),
            Run(one, "tests/x.py::test_one[1]", True, ("3 entries",)),
            Run(one, "tests/x.py::test_one[2]", True, ("3 entries", "no gap")),
        ]
    )
    rows = text.partition(LIST)[0].splitlines()[-2:]
    assert rows[0] == r"| 2 | **title b** | pulled \| pushed | holds | 3 entries; no gap | `tests/x.py::test_one` |"
    assert rows[1] == "|  | **title a** | pulled | holds | **failed** | `tests/x.py::test_two` |"
    listed = text.partition(LIST)[2].splitlines()
    assert listed[3].startswith("| 2 |")
    assert listed[3].endswith("| title b |")
    assert listed[2].endswith("| no test |")
