"""Where each rule of `docs/rules.md` lives: the modules and tests that cite it, as a table between two marks.

A file cites a rule by "product rule 21", "product rules 3, 8 and 16" or "product rules 7-10". The months of whole
products show rules too: which, says the table in `tests/products/README.md`. `make reference` writes the page's table;
`tests/deploy/test_reference.py` fails where it names what is no longer so, and for a rule without a module or a test.
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
PRODUCTS = ROOT / "tests" / "products"
SHOWN = re.compile(r"^\| (\d+) [^|]*\| (.*) \|$", re.MULTILINE)
"""A line of the table in the products' README: a rule, and by what of which product it is shown."""


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


def shown_by_products() -> dict[int, list[str]]:
    """For each rule the pages of the products whose months show it, as paths from the root."""
    products = sorted(path.parent.name for path in PRODUCTS.glob("*/README.md"))
    found: dict[int, list[str]] = {}
    for number, shown in SHOWN.findall((PRODUCTS / "README.md").read_text(encoding="utf-8")):
        named = [f"tests/products/{product}/README.md" for product in products if product in shown]
        found[int(number)] = named or ["tests/products/README.md"]
    return found


def where(folders: tuple[str, ...]) -> dict[int, list[str]]:
    """For each rule the files that cite it, as paths from the root."""
    found: dict[int, list[str]] = {number: [] for number in rules()}
    for path in files(folders):
        for number in cited(path.read_text(encoding="utf-8")):
            found.setdefault(number, []).append(path.relative_to(ROOT).as_posix())
    if folders == TESTS:
        for number, pages in shown_by_products().items():
            found[number] += pages
    return found


def is_test(path: str) -> bool:
    """Whether a file of `where(TESTS)` is run by itself: not what tests are made of, such as the auditor."""
    return Path(path).name.startswith("test_") or path.startswith("tests/products/")


def links(paths: list[str]) -> str:
    """Links from the page to these files, shown without what all of them share."""
    shown = {path: path.removeprefix("streams/").removeprefix("tests/").rpartition(".")[0] for path in paths}
    shown = {path: name.removesuffix("/README") for path, name in shown.items()}
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
