"""No field that the code never reads, and no option that it never sets: tests alone are no users.

By name, and by who is asked: in `partition.counters` the receiver names the class `Partition`, so that is no use of
`PositionRecord.counters`; what a parameter is comes from its annotation. Where the receiver names no class that has the
field, the use counts for all that have it.
Looked at are dataclasses and structs. A struct is written out whole, so all of its fields are read.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

from tests.tidy.source import modules

USERS = ("schemas", "streams", "projections", "docs")
MUTATING = {"add", "append", "clear", "extend", "insert", "pop", "remove", "setdefault", "update"}

READ_OTHERWISE = {
    "AccountMerge.open_holds": "`credits accounts merge --json` writes the whole out",
    "Field.choices": "streams/ui/templates/fields.html shows it",
    "Field.means": "streams/ui/templates/fields.html shows it",
    "Parsed.line_no": "says which line was read, as `BadLine` does",
    "SplitAccount.balances": "`credits verify --json` writes the whole out",
    "UnitSum.moved": "`credits verify --json` writes the whole out",
}
"""Fields that nothing reads by their names, and who does."""

SET_OTHERWISE = {
    "Account.corrected": "`evolve` fills it through a local name",
    "LeaseTerms.events_max": "tests make it small",
    "LeaseTerms.margin_s": "tests make it short",
    "LeaseTerms.scope": "programs outside set it",
    "Limits.buckets_max": "tests make it small",
    "Limits.present_offsets_max": "tests make it small",
    "Options.latency_workers": "shown beside the figures; one value so far",
    "Options.live_per_second": "tests make it small",
    "Pace.interval_s": "tests make it short",
    "Pace.queue_bytes_max": "tests make it small",
    "Pace.queue_rows_max": "tests make it small",
    "Pace.retry_first_s": "tests make it short",
    "Pace.retry_max_s": "tests make it short",
    "Pace.rows_max": "tests make it small",
    "PositionRecord.version": "each program writes its own version",
    "Wallet.depletion": "`evolve` fills it through a local name",
    "Wallet.ended": "`grants` fills it by `insort`",
    "WalletFold.grants": "the fold fills it through a local name",
    "_Failure.failure_reason": "decoded from the body of a setting",
    "_Folder.data_dir": "the settings' port asks for it; a folder that is given needs none",
    "_PurchaseDetails.failure_reason": "decoded from the details of a purchase",
}
"""Fields that nothing sets by their names, and who does."""


@dataclass
class Uses:
    """Of every field, by its name: who is asked for it, and who gets it."""

    read: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    stored: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    given: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """By the name of a class, the fields that its constructor gets; under "replace" those of copies."""


@dataclass(frozen=True)
class Scope:
    """Where a use stands: `inside` which class, and under which `annotations` of parameters."""

    inside: str
    annotations: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Owner:
    """A class with fields. `optional`: those with a default that its constructor may replace."""

    name: str
    fields: tuple[str, ...]
    optional: frozenset[str]
    is_struct: bool


def owners(tree: ast.AST) -> Iterator[Owner]:
    """The dataclasses and structs of a module."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef):
            continue
        bases = {ast.unparse(each).rpartition(".")[2].partition("[")[0] for each in node.bases}
        decorators = {ast.unparse(each).partition("(")[0].rpartition(".")[2] for each in node.decorator_list}
        if "dataclass" in decorators or "Struct" in bases:
            found = [
                each for each in node.body if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
            ]
            found = [each for each in found if "ClassVar" not in ast.unparse(each.annotation)]
            names = tuple(ast.unparse(each.target) for each in found)
            optional = frozenset(
                ast.unparse(each.target)
                for each in found
                if each.value is not None and "init=False" not in ast.unparse(each.value)
            )
            yield Owner(node.name, names, optional, "Struct" in bases)


def annotated(function: ast.FunctionDef | ast.AsyncFunctionDef) -> dict[str, str]:
    """The annotations of the parameters."""
    given = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return {each.arg: ast.unparse(each.annotation) for each in given if each.annotation is not None}


def receiver(node: ast.expr, scope: Scope) -> str:
    """What the object before the dot is called: the class itself for `self`, the annotation of a parameter."""
    while isinstance(node, ast.Call | ast.Subscript):
        node = node.func if isinstance(node, ast.Call) else node.value
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    if isinstance(node, ast.Name) and name in scope.annotations:
        return f"{scope.annotations[name]} {name}"
    return scope.inside if name in ("self", "cls") else name.strip("_")


def note(node: ast.AST, uses: Uses, scope: Scope, fields: dict[str, tuple[str, ...]]) -> None:
    """Note every use in a tree."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Attribute):
            kept = uses.stored if isinstance(child.ctx, ast.Store) else uses.read
            kept[child.attr].add(receiver(child.value, scope))
        elif isinstance(child, ast.Call):
            called = receiver(child.func, scope)
            names = [keyword.arg for keyword in child.keywords if keyword.arg is not None]
            uses.given[called].update(names, fields.get(called, ())[: len(child.args)])
            if any(keyword.arg is None for keyword in child.keywords) or any(
                isinstance(argument, ast.Starred) for argument in child.args
            ):
                uses.given[called].update(fields.get(called, ()))
            if isinstance(child.func, ast.Attribute) and child.func.attr in MUTATING:
                _note_stored(child.func.value, uses, scope)
        elif isinstance(child, ast.Subscript) and isinstance(child.ctx, ast.Store):
            _note_stored(child.value, uses, scope)
        elif isinstance(child, ast.AugAssign):
            _note_stored(child.target, uses, scope)
        within = scope
        if isinstance(child, ast.ClassDef):
            within = Scope(child.name)
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            within = Scope(scope.inside, {**scope.annotations, **annotated(child)})
        note(child, uses, within, fields)


def _note_stored(node: ast.expr, uses: Uses, scope: Scope) -> None:
    if isinstance(node, ast.Attribute):
        uses.stored[node.attr].add(receiver(node.value, scope))


def is_used(owner: Owner, name: str, receivers: set[str], having: dict[str, set[str]]) -> bool:
    """Whether one of these receivers is this class, as far as its name says."""
    for each in receivers:
        typed, _, called = each.rpartition(" ")
        named = having[name] & set(re.findall(r"\w+", typed))
        named = named or {other for other in having[name] if called and called.lower() in other.lower()}
        if not named or owner.name in named:
            return True
    return False


def dead(trees: list[ast.Module]) -> tuple[set[str], set[str]]:
    """Fields that nothing reads; and fields with a default that nothing sets."""
    found = [owner for tree in trees for owner in owners(tree)]
    having: dict[str, set[str]] = defaultdict(set)
    for owner in found:
        for name in owner.fields:
            having[name].add(owner.name)
    uses = Uses()
    for tree in trees:
        note(tree, uses, Scope(""), {owner.name: owner.fields for owner in found})
    unread, unset = set(), set()
    for owner in found:
        for name in owner.fields:
            if not owner.is_struct and not is_used(owner, name, uses.read[name], having):
                unread.add(f"{owner.name}.{name}")
            given = name in uses.given[owner.name] | uses.given["cls"] | uses.given["replace"]
            if name in owner.optional and not given and not is_used(owner, name, uses.stored[name], having):
                unset.add(f"{owner.name}.{name}")
    return unread, unset


@cache
def of_the_code() -> tuple[set[str], set[str]]:
    """As `dead`, of the project."""
    return dead([module.tree for module in modules(*USERS)])


def test_every_field_is_read() -> None:
    unread, _ = of_the_code()
    assert unread == READ_OTHERWISE.keys(), f"nothing reads {sorted(unread ^ READ_OTHERWISE.keys())}"


def test_every_option_is_set() -> None:
    _, unset = of_the_code()
    assert unset == SET_OTHERWISE.keys(), f"nothing sets {sorted(unset ^ SET_OTHERWISE.keys())}"


EXAMPLE = """
@dataclass
class Partition:
    number: int
    counters: dict = field(default_factory=dict)

@dataclass
class Output:
    at: int
    memory: dict = field(default_factory=dict)

@dataclass
class Outcome:
    legs: list

@dataclass
class Sides:
    legs: list

class PositionRecord(Struct):
    counters: dict = {}
    memory: dict = {}

def install(partition, position, output):
    partition.counters = position.counters
    position.memory = output.memory
    print(partition.number, output.at, Output(1), Partition(2))
    position.counters["usage"] = 1

def add(outcome: Outcome | Sides):
    print(outcome.legs, Outcome([]), Sides([]))
"""


def test_fields_that_are_only_handed_on_are_found() -> None:
    assert dead([ast.parse(EXAMPLE)]) == ({"Partition.counters"}, {"Output.memory"})
