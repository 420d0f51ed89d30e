"""docs/reference.md, and the table in docs/rules.md, are what the code says today."""

from __future__ import annotations

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


def test_the_table_of_rules_is_up_to_date() -> None:
    assert citations.PAGE.read_text(encoding="utf-8") == citations.page(), "run `make reference` and commit the page"


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
WITHOUT_A_MODULE = {12, 13, 17, 24}
WITHOUT_A_TEST = {1, 6, *range(11, 16), 17, 18, 20, *range(22, 29)}
LEDGER_RULES = range(1, 29)


def test_every_rule_of_the_ledger_has_a_module_and_a_test() -> None:
    code, tests = citations.where(citations.CODE), citations.where(citations.TESTS)
    assert {number for number in LEDGER_RULES if not code[number]} <= WITHOUT_A_MODULE
    bare = {number for number in LEDGER_RULES if not tests[number]}
    assert bare <= WITHOUT_A_TEST, "a test cites the rule that it shows: `product rule 7` in its docstring"
