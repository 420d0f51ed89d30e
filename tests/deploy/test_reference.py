"""docs/reference.md is what the code says today."""

from __future__ import annotations

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
