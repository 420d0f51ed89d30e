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


# Rules of the ledger that no module, or no test, cites yet. Ratchets: only take numbers away.
WITHOUT_A_MODULE: set[int] = set()
WITHOUT_A_TEST = {11, 12, 13, 15}
LEDGER_RULES = range(1, 29)


def test_every_rule_of_the_ledger_has_a_module_and_a_test() -> None:
    code, tests = citations.where(citations.CODE), citations.where(citations.TESTS)
    assert {number for number in LEDGER_RULES if not code[number]} <= WITHOUT_A_MODULE
    bare = {number for number in LEDGER_RULES if not tests[number]}
    assert bare <= WITHOUT_A_TEST, "a test cites the rule that it shows: `product rule 7` in its docstring"
