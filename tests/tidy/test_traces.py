"""Nothing in the tree knows where it was made: no path of a machine, no registry's host, no key.

The patterns are put together from parts so that this file does not hold what it looks for.
"""

from __future__ import annotations

import re

import pytest

from tests.tidy.source import ROOT, files, texts

TRACES = {
    "a path of a machine": re.compile(
        "|".join(
            (
                r"(?<![\w.])/" + "root/",
                r"(?<![\w.])/" + r"home/\w",
                r"(?<![\w.])/" + "work/",
                "/" + "farm/",
                "/tmp/" + "plan",
            )
        )
    ),
    "a registry's host": re.compile(
        "|".join(("index-" + "url", "find-" + "links", r"<repositor" + r"(y|ies)>", "trusted-" + "host"))
    ),
    "a private key": re.compile("-----BEGIN " + r"[A-Z ]*PRIVATE KEY"),
    "a conflict": re.compile(r"^(<{7} |>{7} )", re.MULTILINE),
}


@pytest.mark.parametrize("trace", TRACES)
def test_the_tree_holds_none(trace: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, match.start()) + 1}: {match.group()}"
        for path, text in texts()
        for match in TRACES[trace].finditer(text)
    ]
    assert not found, f"{trace}: {found[:10]}"


def test_no_large_file() -> None:
    """Data belongs beside the project, not in it."""
    size_bytes_max = 512 * 1024
    vendored = {"tests/vendor/axe.min.js"}
    large = {str(path.relative_to(ROOT)) for path in files() if path.stat().st_size > size_bytes_max}
    assert large <= vendored
