"""No dead files: every module is reached from an entry point, every package says what it is for.

Entry points are the commands of `credits`, `python -m streams`, and what a program outside imports. A module counts
as reached when it is imported, or when its dotted name stands as text in a module that is.
"""

from __future__ import annotations

import ast

from streams.cli import COMMANDS
from tests.tidy.source import PACKAGES, ROOT, Module, modules

# What others import is a producer service's `streams.client`. Everything else hangs on the commands.
ENTRY_POINTS = ("streams.__main__", "streams.cli", "streams.client", *(command.module for command in COMMANDS))


def names_in(module: Module) -> set[str]:
    """Everything it imports or names as text."""
    texts = {
        node.value
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "." in node.value
    }
    return set(module.imports) | {text.partition(":")[0] for text in texts}


def test_every_module_is_reached() -> None:
    known = {module.name: module for module in modules()}
    reached: set[str] = set()
    waiting = [name for name in ENTRY_POINTS if name in known]
    while waiting:
        name = waiting.pop()
        if name in reached or name not in known:
            continue
        reached.add(name)
        waiting.extend(names_in(known[name]))
        waiting.extend(name.rsplit(".", n)[0] for n in range(1, name.count(".") + 1))
    dead = sorted(set(known) - reached - {name for name in known if not known[name].text.strip()})
    assert not dead, f"nothing reaches {dead}"


def test_every_package_has_a_readme() -> None:
    """Meaning, invariants, ownership, and what it is not."""
    folders = (*PACKAGES, "streams/ledger", "streams/engine", "streams/kafka", "streams/agents", "streams/processing")
    missing = [name for name in folders if (ROOT / name).is_dir() and not (ROOT / name / "README.md").is_file()]
    assert not missing, f"no README.md in {missing}"
