"""docs/faults.md lists every test that is marked as provoking a fault; `make faults` writes it."""

from __future__ import annotations

from tests.tidy.test_faults import PAGE, marked


def test_the_page_lists_every_marked_test() -> None:
    text = PAGE.read_text(encoding="utf-8")
    missing = [each.node_id for each in marked() if f"`{each.node_id}`" not in text]
    assert not missing, f"run `make faults` and commit the page: {missing}"
