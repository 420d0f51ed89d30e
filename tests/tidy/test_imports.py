"""Imports go one way.

`cli, app → agents → processing, api → engine, projections → kafka, ledger → schemas`. Each layer names what it may
import of ours; a new package must be given its place here before it may be imported or import. `LEAVES` are single
modules of `streams` that hold no logic of the domain: any shell may import them.
"""

from __future__ import annotations

import re

import pytest

from tests.tidy.source import PACKAGES, ROOT, Module, closure, modules, within

LEAVES = {
    "streams.settings",
    "streams.errors",
    "streams.text_safety",
    "streams.data_folder",
    "streams.logging",
    "streams.stopping",
    "streams.background",
    "streams.recent",
    "streams.seals",
    "streams.local.api_key",
    "streams.local.parent",
}
BELOW = {"schemas", *LEAVES}
# What every program around the ledger stands on.
TOOLS = {*BELOW, "streams.kafka", "streams.client", "streams.local"}
# The longest prefix that matches a module is its layer.
MAY_IMPORT: dict[str, set[str]] = {
    "schemas": set(),
    "streams": set(),
    "streams.settings": {"streams.text_safety"},
    "streams.text_safety": set(),
    "streams.data_folder": {"streams.errors"},
    "streams.metrics": {"streams.engine"},
    "streams.errors": set(),
    "streams.seals": {"streams.settings", "streams.errors"},
    "streams.logging": {"streams.settings", "streams.text_safety"},
    "streams.stopping": set(),
    "streams.background": set(),
    "streams.recent": set(),
    "streams.ledger": {"schemas"},
    "streams.kafka": BELOW,
    "streams.engine": {*BELOW, "streams.kafka"},
    "projections": {*BELOW, "streams.kafka", "streams.ledger"},
    "streams.processing": {*BELOW, "streams.kafka", "streams.ledger", "streams.engine"},
    "streams.agents": {*BELOW, "streams.kafka", "streams.ledger", "streams.engine", "streams.processing"},
    "streams.client": {*BELOW, "streams.kafka"},
    "streams.local": {*BELOW, "streams.kafka"},
    "streams.local.api_key": {"streams.errors"},
    "streams.local.parent": set(),
    "streams.local.doctor": TOOLS | {"projections.clickhouse"},
    "streams.verify": {*BELOW, "streams.kafka", "streams.client"},
    "streams.price_files": {"schemas"},
    "streams.rerating": {*BELOW, "streams.kafka", "streams.client", "streams.ledger", "streams.processing"},
    "streams.loadgen": TOOLS | {"streams.verify"},
    "streams.demo": TOOLS | {"streams.loadgen", "streams.verify"},
    "streams.bench": TOOLS | {"streams.loadgen", "streams.verify", "streams.engine", "streams.ledger", "streams.api"},
    "streams.api": TOOLS | {"streams.ledger", "streams.engine", "projections", "streams.verify", "streams.processing"},
    "streams.ui": {*BELOW, "streams.kafka", "streams.client", "streams.api", "projections"},
    # The pages are a layer above the routes, and both are put together here.
    "streams.api.http_parts": {"streams.api", "streams.ui", "schemas", *LEAVES, "streams.kafka", "streams.processing"},
    "streams.api.server": {"streams.api", *LEAVES, "streams.kafka"},
    "streams.app": BELOW | {"streams.kafka", "streams.metrics", "streams.engine"},
    "streams.cli": set(),  # the top: anything
    "streams.__main__": {"streams.cli"},
}


def layer(name: str) -> str | None:
    """The layer a module belongs to: the longest listed prefix."""
    return max((known for known in MAY_IMPORT if within(name, known)), key=len, default=None)


def ours(module: Module) -> set[str]:
    """What it imports of ours, as modules (an imported name of a module counts as that module)."""
    names = {known.name for known in modules()}
    found = set()
    for name in module.imports:
        while name and name not in names:
            name = name.rpartition(".")[0]
        if name in names:
            found.add(name)
    return found


def may_import(own: str, name: str) -> bool:
    """May a module of layer `own` import the module `name`? A package's own `__init__` gives nothing by itself."""
    if name in PACKAGES or within(name, own):
        return True
    if own == "streams.cli":
        return True
    return any(within(name, allowed) for allowed in MAY_IMPORT[own])


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.name)
def test_imports_go_one_way(module: Module) -> None:
    own = layer(module.name)
    assert own is not None, f"{module.shown}: give its package a place in MAY_IMPORT"
    assert own != "streams" or module.name == "streams", f"{module.shown}: give it a place in MAY_IMPORT"
    wrong = sorted(name for name in ours(module) if not may_import(own, name))
    assert not wrong, f"{module.shown} ({own}) must not import {', '.join(wrong)}"


def test_the_architecture_page_has_the_same_rules() -> None:
    """Its table of packages says of each what it may import."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    shown = {}
    for package, named in re.findall(r"^\| \[`([\w/]+)/`\]\S* \|.*\| ([^|]+) \|$", page, re.MULTILINE):
        shown[package.replace("/", ".")] = {
            name if name in PACKAGES else f"streams.{name}" for name in re.findall(r"`(\w+)`", named)
        }
    packages = [name for name in MAY_IMPORT if (ROOT / name.replace(".", "/") / "__init__.py").exists()]
    rules = {name: MAY_IMPORT[name] - LEAVES for name in packages if name != "streams"}
    assert shown == rules


@pytest.mark.parametrize("name", ["tests.model.auditor", "streams.verify"])
def test_the_checkers_do_not_share_code_with_what_they_check(name: str) -> None:
    """An auditor that calls the ledger's own fold would agree with its bugs."""
    known = modules(*PACKAGES, "tests")
    checkers = [module for module in known if within(module.name, name)]
    if not checkers:
        pytest.skip(f"{name} is not there yet")
    for checker in checkers:
        shared = sorted(
            other
            for other in closure(checker, known)
            if any(within(other, part) for part in ("streams.ledger", "streams.processing", "streams.engine"))
        )
        assert not shared, f"{checker.shown} reaches {', '.join(shared)}"


def test_no_import_in_a_circle() -> None:
    """A circle of packages has no top and no bottom: neither part can be read or tested alone."""
    edges: dict[str, set[str]] = {}
    for module in modules():
        own = layer(module.name) or module.name
        edges.setdefault(own, set()).update(layer(name) or name for name in ours(module))
    for start in edges:
        seen: set[str] = set()
        waiting = [other for other in edges[start] if other != start]
        while waiting:
            other = waiting.pop()
            assert other != start, f"{start} imports itself by way of {', '.join(sorted(seen))}"
            if other not in seen:
                seen.add(other)
                waiting.extend(further for further in edges.get(other, ()) if further != other)
