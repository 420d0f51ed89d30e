"""Five products, each a month of its life by settings alone: the ledger says what the product's rules say.

What is expected was derived from the rules by hand (the README of each product shows how); nothing of it was taken from
what the ledger wrote.
"""

from __future__ import annotations

import pytest

from tests.products import expectation, scenario
from tests.products.memory_port import MemoryPort
from tests.products.scenario import PRODUCTS


@pytest.mark.parametrize("batch_records", [1, 7, 1_000])
@pytest.mark.parametrize("product", PRODUCTS)
def test_a_month_goes_as_the_rules_say(product: str, batch_records: int) -> None:
    told = scenario.run(scenario.load(product), MemoryPort(batch_records))
    found = expectation.differences(expectation.load(product), told)
    assert not found, "\n".join([f"{len(found)} differences:", *found])
