"""Where each rule of `docs/rules.md` lives: the modules and tests that cite it, as a table between two marks.

A file cites a rule by "product rule 21", "product rules 3, 8 and 16" or "product rules 7-10". `make reference` writes
the table; `tests/deploy/test_reference.py` fails where it names what is no longer so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "rules.md"
BEGIN, END = "<!-- rules: begin -->\n", "<!-- rules: end -->\n"
CITATION = re.compile(r"[Pp]roduct\s+rules?\s+(\d+(?:\s*(?:,|-|–|and|to)\s*\d+)*)")
CODE = ("streams", "projections")
TESTS = ("tests",)
SUFFIXES = (".py", ".sql")


def rules() -> list[int]:
    """The numbers of all rules on the page."""
    return [int(number) for number in re.findall(r"^(\d+)\. ", PAGE.read_text(encoding="utf-8"), re.MULTILINE)]


def cited(text: str) -> set[int]:
    """The rules that a text cites."""
    found: set[int] = set()
    for match in CITATION.finditer(text):
        for low, high in re.findall(r"(\d+)(?:\s*(?:-|–|to)\s*(\d+))?", match[1]):
            found.update(range(int(low), int(high or low) + 1))
    return found


def files(folders: tuple[str, ...]) -> Iterator[Path]:
    """Modules and migrations under these folders, without the tests of the tree, which only speak of citations."""
    for folder in folders:
        for path in sorted(path for path in (ROOT / folder).rglob("*") if path.suffix in SUFFIXES):
            if path.relative_to(ROOT).parts[:2] not in {("tests", "tidy"), ("tests", "deploy")}:
                yield path


def where(folders: tuple[str, ...]) -> dict[int, list[str]]:
    """For each rule the files that cite it, as paths from the root."""
    found: dict[int, list[str]] = {number: [] for number in rules()}
    for path in files(folders):
        for number in cited(path.read_text(encoding="utf-8")):
            found.setdefault(number, []).append(path.relative_to(ROOT).as_posix())
    return found


def links(paths: list[str]) -> str:
    """Links from the page to these files, shown without what all of them share."""
    shown = {path: path.removeprefix("streams/").removeprefix("tests/").rpartition(".")[0] for path in paths}
    return " ".join(f"[{shown[path]}](../{path})" for path in paths)


def table() -> str:
    """A row for every rule."""
    code, tests = where(CODE), where(TESTS)
    lines = ["| rule | modules | tests |", "|---|---|---|"]
    lines += [f"| {number} | {links(code[number])} | {links(tests[number])} |" for number in rules()]
    return "\n".join(lines) + "\n"


def page() -> str:
    """The page with the table of today."""
    text = PAGE.read_text(encoding="utf-8")
    return text[: text.index(BEGIN) + len(BEGIN)] + table() + text[text.index(END) :]
