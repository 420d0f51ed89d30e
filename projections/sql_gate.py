"""Which SQL people may run: one SELECT over the published tables and views. Pure, but for the engine's own parser.

The rules of this file:
1. The text is parsed by the engine that runs it (`EXPLAIN AST`), so that it cannot mean one thing here and another
   thing there.
2. Before that: no `;` but a last one (a second statement would run, already when the text is parsed), and the text
   begins with SELECT, WITH or a bracket (else it might be options of EXPLAIN).
3. What is read is a published name, or one that the text itself defines in WITH. Table functions, other databases,
   `SETTINGS`, `FORMAT` and `INTO OUTFILE` are refused, and so is what is read in the place of a list (`IN name`).
4. Functions are listed (`functions.txt`): those that compute. What is not listed is refused, a new function of a new
   version of the engine too: there are functions that read files, ask other servers, or tell of the machine.
5. What runs is bounded in time, memory, rows and bytes (`LIMITS`), and may write nothing (`readonly`).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PUBLISHED: Final = frozenset(
    {
        "ledger", "usage_hourly", "usage_daily", "usage_monthly", "usage_meters_daily", "balances", "alerts",
        "dead_letters", "prices", "activity", "purchases",
        "v_ledger", "v_usage_hourly", "v_usage_daily", "v_usage_monthly", "v_balances", "v_balance_cards", "v_alerts",
        "v_dead_letters", "v_prices", "v_activity", "v_settings", "v_purchases", "v_invoices", "v_credit_notes",
        "v_statement_monthly", "v_movements", "v_entries_hourly", "v_burn_rate", "v_month_so_far", "v_on_the_way",
        "v_freshness", "v_usage_meters_daily", "v_cache_savings",
    }
)  # fmt: skip
"""The tables and views of the contract, and those that projections/README.md documents."""

TEXT_CHARACTERS_MAX: Final = 50_000
SECONDS_MAX: Final = 15
MEMORY_BYTES_MAX: Final = 1024 * 1024 * 1024
ROWS_MAX: Final = 10_000
BYTES_MAX: Final = 64 * 1024 * 1024

LIMITS: Final = {
    "max_execution_time": SECONDS_MAX,
    "max_memory_usage": MEMORY_BYTES_MAX,
    "max_result_rows": ROWS_MAX + 1,
    "max_result_bytes": BYTES_MAX,
    "result_overflow_mode": "break",
    "readonly": 2,
}
"""`break` ends an answer at the first block beyond the limit; what is beyond is cut off by who asked."""

_BEGINS = re.compile(r"\s*(?:SELECT|WITH|\()", re.IGNORECASE)
_DEFINES = re.compile(r"(?:`([^`]+)`|\b([A-Za-z_]\w*))\s+AS\s*\(", re.IGNORECASE)
_NODE = re.compile(r"( *)(\w+)(?: (.*?))??(?: \(children \d+\))?$")
_ALIAS = re.compile(r" \(alias (.+)\)$")
_IN = re.compile(r"(?:global)?(?:not)?(?:null)?in(?:ignoreset)?")
COMBINATORS: Final = (
    "simplestate", "ordefault", "distinct", "resample", "foreach", "argmax", "argmin", "ornull", "tuple", "merge",
    "state", "array", "null", "map", "if",
)  # fmt: skip
"""What the name of an aggregate function may end in: `sumIf` is a sum."""
_FORMAT: Final = "Native"
"""What the client itself asks for."""
_REFUSED_NODES: Final = {
    "Set": "SETTINGS are not taken: time, memory and rows are limited",
    "InsertQuery": "only SELECT is run",
    "ExplainQuery": "only SELECT is run",
    "TableFunction": "table functions are not run",
    "ColumnsApplyTransformer": "APPLY is not taken: write the function for each column",
}


class SqlRefusedError(Exception):
    """The text is not run; the message says what to write instead."""


@dataclass(frozen=True, slots=True)
class Node:
    """A line of `EXPLAIN AST`: how deep it is, what it is, and its name."""

    depth: int
    kind: str
    name: str


_BELOW_ROOT: Final = (Node(1, "ExpressionList", ""), Node(1, "Identifier", _FORMAT))


@functools.cache
def functions() -> frozenset[str]:
    """The functions that may be called, in lower case."""
    text = (Path(__file__).parent / "functions.txt").read_text(encoding="ascii")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return frozenset(" ".join(lines).split())


def is_listed(name: str) -> bool:
    """Whether a function may be called; an aggregate function with combinators counts as itself."""
    name = name.lower()
    while name not in functions():
        ending = next((each for each in COMBINATORS if name.endswith(each)), None)
        if ending is None:
            return False
        name = name.removesuffix(ending)
    return True


def single_select(text: str) -> str:
    """The text without a last `;`; raises `SqlRefusedError` for what cannot be one SELECT (rule 2)."""
    stripped = text.strip()
    stripped = stripped.removesuffix(";").rstrip()
    if not stripped:
        raise SqlRefusedError("write a SELECT")
    if len(stripped) > TEXT_CHARACTERS_MAX:
        raise SqlRefusedError(f"a query has at most {TEXT_CHARACTERS_MAX:,} characters")
    if ";" in stripped:
        raise SqlRefusedError("one statement at a time, and no `;` inside it: write char(59) in a text")
    if "\0" in stripped or not _BEGINS.match(stripped):
        raise SqlRefusedError("a query begins with SELECT or WITH")
    return stripped


def parse_question(text: str) -> str:
    """What the engine is asked, to parse a text that `single_select` has passed."""
    return f"EXPLAIN AST\n{text}\n"


def nodes_of(lines: Iterable[str]) -> list[Node]:
    """The answer's lines."""
    return list(_nodes(lines))


def names_in_with(text: str) -> frozenset[str]:
    """Names that a text may define in WITH: the engine's parser does not say them.

    A text that only looks as if it defined a name reads a table of the installation that is not published, at most.
    """
    return frozenset(found[1] or found[2] for found in _DEFINES.finditer(text))


def check(nodes: list[Node], database: str, named: frozenset[str] = frozenset()) -> None:
    """Raise `SqlRefusedError` for what may not run (rules 3 and 4).

    `database`: of the installation; `named`: by `names_in_with`.
    """
    if not nodes or nodes[0].kind != "SelectWithUnionQuery":
        raise SqlRefusedError("only SELECT is run")
    known = PUBLISHED | named
    for place, node in enumerate(nodes):
        refusal = _REFUSED_NODES.get(node.kind)
        if refusal is not None:
            raise SqlRefusedError(refusal)
        if (
            node.depth == 1
            and node.kind not in ("ExpressionList",)
            and (node.kind, node.name) != ("Identifier", "Native")
        ):
            raise SqlRefusedError("FORMAT and INTO OUTFILE are not taken: say how the answer is to come when you ask")
        if node.kind == "TableIdentifier":
            _check_table(node.name, known, database)
        if node.kind == "Function":
            _check_function(nodes, place, known, database)


def _nodes(lines: Iterable[str]) -> Iterator[Node]:
    for line in lines:
        found = _NODE.match(line)
        if found is None:
            raise SqlRefusedError("the query cannot be read")
        name = _ALIAS.sub("", found[3] or "")
        yield Node(len(found[1]), found[2], name)


def _check_table(name: str, known: frozenset[str], database: str) -> None:
    own, dot, table = name.rpartition(".")
    if dot and own.strip("`") != database:
        raise SqlRefusedError(f"{name}: only the tables and views of the data dictionary are read")
    if table.strip("`") not in (PUBLISHED if dot else known):
        raise SqlRefusedError(f"{name}: there is no such table in the data dictionary")


def _check_function(nodes: list[Node], place: int, known: frozenset[str], database: str) -> None:
    node = nodes[place]
    if place and nodes[place - 1].kind == "TableExpression" and nodes[place - 1].depth == node.depth - 1:
        raise SqlRefusedError(f"{node.name}: table functions are not run, only tables and views are read")
    if not is_listed(node.name):
        raise SqlRefusedError(f"{node.name}: this function is not run here")
    if _IN.fullmatch(node.name.lower()):
        arguments = [each for each in _inside(nodes, place) if each.depth == node.depth + 2]
        if arguments and arguments[-1].kind in ("Identifier", "TableIdentifier"):
            _check_table(arguments[-1].name, known, database)


def _inside(nodes: list[Node], place: int) -> Iterator[Node]:
    depth = nodes[place].depth
    for node in nodes[place + 1 :]:
        if node.depth <= depth:
            return
        yield node
