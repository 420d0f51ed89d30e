"""What the documents name exists: variables, files they link to, headings, targets of make.

A newcomer who copies a line from a document must not be the one who finds out that it is stale.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path

import pytest

from streams.cli import COMMANDS
from streams.settings import Settings
from tests.tidy.source import ROOT, files, texts

DOCUMENTS = tuple(path for path in files() if path.suffix == ".md")
VARIABLES = {f"CREDITS_{name.upper()}" for name in Settings.model_fields}
VARIABLE = re.compile(r"\bCREDITS_[A-Z][A-Z0-9_]*[A-Z0-9]\b")
# Steer the tests only; conftest.py lets them through.
FOR_TESTS = "CREDITS_TEST_"
# Not for people: `credits up` tells the processes that it starts whom they belong to.
BETWEEN_PROCESSES = {"CREDITS_PARENT_PID"}
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
# At the beginning of a line of code or of `code`: what one would type.
COMMAND = re.compile(r"^(?:[A-Z_]+=\S+ )*credits ([a-z][a-z-]+)(?![\w./-])", re.MULTILINE)
FILE = re.compile(r"`((?:schemas|streams|projections|tests|docs|deploy)/[\w./-]*[\w/])`")
TARGET = re.compile(r"\bmake ((?:[a-z]+-)*[a-z]+)\b")


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def fenced_or_ticked(text: str) -> str:
    """Only what stands as code: fenced blocks and `ticks`."""
    return "\n".join(found.strip("`") for found in re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL))


def readable(path: Path, text: str) -> str:
    """What a file says: all of its text; of Python the strings (an enum's member may look like a variable)."""
    if path.suffix != ".py":
        return text
    constants = (node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant))
    return "\n".join(value for value in constants if isinstance(value, str))


def test_every_variable_that_is_named_exists() -> None:
    unknown = {
        f"{shown(path)}: {name}"
        for path, text in texts()
        for name in VARIABLE.findall(readable(path, text))
        if name not in VARIABLES | BETWEEN_PROCESSES and not f"{name}_".startswith(FOR_TESTS)
    }
    assert not unknown, sorted(unknown)


@pytest.mark.parametrize("path", DOCUMENTS, ids=shown)
def test_links_lead_somewhere(path: Path) -> None:
    for link in LINK.findall(path.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, heading = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), f"{shown(path)} links to {link}"
        if heading and target.suffix == ".md":
            assert heading in headings(target), f"{shown(path)} links to {link}: no such heading"


def headings(path: Path) -> set[str]:
    """The anchors that a renderer makes of the headings."""
    lines = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).strip().replace(" ", "-") for line in lines}


@pytest.mark.parametrize("path", DOCUMENTS, ids=shown)
def test_targets_of_make_exist(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(TARGET.findall(fenced_or_ticked(path.read_text(encoding="utf-8"))))
    assert named <= targets, f"{shown(path)} names {sorted(named - targets)}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=shown)
def test_commands_exist(path: Path) -> None:
    there = {command.name for command in COMMANDS if importlib.util.find_spec(command.module) is not None}
    named = set(COMMAND.findall(fenced_or_ticked(path.read_text(encoding="utf-8"))))
    assert named <= there, f"{shown(path)} names {sorted(named - there)}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=shown)
def test_files_exist(path: Path) -> None:
    """What is written like a path of the tree is one: from the root, or from the document's own folder."""
    for name in FILE.findall(path.read_text(encoding="utf-8")):
        assert (ROOT / name).exists() or (path.parent / name).exists(), f"{shown(path)} names {name}"


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if path.name == "README.md"], ids=shown)
def test_tables_of_files_name_files(path: Path) -> None:
    """The first column of a package's table of files names what lies beside the page."""
    for cell in re.findall(r"^\| (`[^|]+\.py`[^|]*) \|", path.read_text(encoding="utf-8"), re.MULTILINE):
        for name in re.findall(r"`([\w/]+\.py)`", cell):
            assert (path.parent / name).exists(), f"{shown(path)} names {name}"


CITED = (
    ("rules.md", re.compile(r"product rules? (\d+)"), re.compile(r"^(\d+)\. ", re.MULTILINE)),
    ("decisions.md", re.compile(r"\bdecision (\d+), "), re.compile(r"^## (\d+)\. ", re.MULTILINE)),
)


@pytest.mark.parametrize(("page", "citation", "numbered"), CITED, ids=[page for page, _, _ in CITED])
def test_cited_numbers_exist(page: str, citation: re.Pattern[str], numbered: re.Pattern[str]) -> None:
    there = numbered.findall((ROOT / "docs" / page).read_text(encoding="utf-8"))
    assert there == [str(number) for number in range(1, len(there) + 1)], f"docs/{page} is not numbered in order"
    wrong = [
        f"{shown(path)}: {found}" for path, text in texts() for found in citation.findall(text) if found not in there
    ]
    assert not wrong, f"not in docs/{page}: {wrong}"


def test_decisions_are_cited_by_number_and_title() -> None:
    """A bare number makes a reader look it up; and a title that has changed shows which citations to read again."""
    decisions = (ROOT / "docs" / "decisions.md").read_text(encoding="utf-8")
    titles = dict(re.findall(r"^## (\d+)\. (.+)$", decisions, re.MULTILINE))
    cited = 0
    for path, text in texts():
        if path == Path(__file__):
            continue
        plain = re.sub(r"\s+(?:# )?", " ", text)
        for found in re.finditer(r"\b(?:decision|design,) (\d+)(.{0,120})", plain):
            cited += 1
            title = titles[found[1]]
            matches = found[2].casefold().startswith(f", {title}".casefold())
            assert matches, f"{shown(path)}: decision {found[1]}, {title}"
    assert cited > 10


def test_every_page_is_linked() -> None:
    """A page of docs/ that nothing links to is not found by anybody."""
    linked = {
        (path.parent / link.partition("#")[0]).resolve()
        for path in DOCUMENTS
        for link in LINK.findall(path.read_text(encoding="utf-8"))
        if not re.match(r"[a-z]+:", link)
    }
    lost = [shown(path) for path in DOCUMENTS if path.parent == ROOT / "docs" and path not in linked]
    assert not lost
