"""docs/reference.md, and the table in docs/rules.md, are what the code says today."""

from __future__ import annotations

import re

import pytest

from docs import citations
from docs.reference import PAGE, page
from streams.settings import Settings


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `make reference` and commit the page"


def test_every_setting_says_what_it_means() -> None:
    silent = [
        name
        for name, field in Settings.model_fields.items()
        if not field.description and name not in {"http_port", "partitions"}
    ]
    assert not silent


def test_the_table_of_rules_says_nothing_stale() -> None:
    """Every file that it links to is there and still cites the rule; a new citation may wait for `make reference`."""
    code, tests = citations.where(citations.CODE), citations.where(citations.TESTS)
    text = citations.PAGE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (.*) \| (.*) \|$", text[text.index(citations.BEGIN) :], re.MULTILINE)
    assert [int(number) for number, _, _ in rows] == citations.rules()
    for number, in_code, in_tests in rows:
        for cell, found in ((in_code, code), (in_tests, tests)):
            linked = set(re.findall(r"\(\.\./([^)]+)\)", cell))
            assert linked <= set(found[int(number)]), f"rule {number}: run `make reference` and commit the page"
            assert linked or not found[int(number)], f"rule {number}: run `make reference` and commit the page"


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("product rule 21", {21}),
        ("Product rules 3, 8 and 16.", {3, 8, 16}),
        ("product rules 7-10, 12", {7, 8, 9, 10, 12}),
        ("product rules 25–28", {25, 26, 27, 28}),
        ("rule 3", set()),
    ],
)
def test_citations_are_read(text: str, numbers: set[int]) -> None:
    assert citations.cited(text) == numbers


def test_every_rule_has_a_module_and_a_test() -> None:
    code, tests = citations.where(citations.CODE), citations.where(citations.TESTS)
    assert not [number for number in citations.rules() if not code[number]], "`product rule 7` in a module's docstring"
    bare = [number for number in citations.rules() if not any(map(citations.is_test, tests[number]))]
    assert not bare, "a test cites the rule that it shows: `product rule 7` in its docstring"


def test_what_tests_are_made_of_is_no_test() -> None:
    tests = citations.where(citations.TESTS)
    assert "tests/model/auditor.py" in tests[13]
    assert not citations.is_test("tests/model/auditor.py")


def test_the_products_show_rules() -> None:
    shown = citations.shown_by_products()
    assert "tests/products/gateway/README.md" in shown[13]
    assert all(path.startswith("tests/products/") for pages in shown.values() for path in pages)
