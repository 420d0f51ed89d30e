"""The project's own text and code, as the tidy tests look at it: read once, parsed once, nothing imported.

A module is named as Python names it (`streams.engine.store`). Imports are taken from the syntax tree, those inside
functions too, those under `if TYPE_CHECKING:` not: what is only a type for the checker is not loaded.
"""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("schemas", "streams", "projections")


@dataclass(frozen=True)
class Module:
    """One Python file: its dotted name, where it is, and its parsed text."""

    name: str
    path: Path
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, filename=str(self.path))

    @property
    def shown(self) -> str:
        """The path as an editor opens it from the repository's root."""
        return str(self.path.relative_to(ROOT))

    @cached_property
    def imports(self) -> frozenset[str]:
        """Dotted names of everything imported: modules, and `module.name` for `from module import name`."""
        found: set[str] = set()
        for node in _loaded(self.tree):
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                source = self._absolute(node)
                found.add(source)
                found.update(f"{source}.{alias.name}" for alias in node.names)
        return frozenset(found)

    def _absolute(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = self.name.split(".")
        package = parts if self.path.name == "__init__.py" else parts[:-1]
        package = package[: len(package) - node.level + 1]
        return ".".join([*package, node.module] if node.module else package)


def _loaded(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node that runs, so not those under `if TYPE_CHECKING:`."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield other
                yield from _loaded(other)
            continue
        yield child
        yield from _loaded(child)


@cache
def _module(path: Path) -> Module:
    """Read and parsed once, whichever folders a test asks for."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return Module(".".join(parts[:-1] if parts[-1] == "__init__" else parts), path, path.read_text(encoding="utf-8"))


@lru_cache
def modules(*folders: str) -> tuple[Module, ...]:
    """Every module under these folders of the repository (default: the three packages)."""
    tracked = files()
    return tuple(
        _module(path)
        for path in tracked
        if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in (folders or PACKAGES)
    )


@lru_cache
def files() -> tuple[Path, ...]:
    """Every file that belongs to the project: what git tracks or would track."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    paths = (ROOT / name for name in sorted(set(listed.split("\0"))) if name)
    return tuple(path for path in paths if path.is_file())


def texts() -> Iterator[tuple[Path, str]]:
    """Every file of the project that is text."""
    for path in files():
        content = path.read_bytes()
        if b"\0" in content:
            continue
        try:
            yield path, content.decode("utf-8")
        except UnicodeDecodeError:
            continue


def within(name: str, package: str) -> bool:
    """Is `name` this package or in it?"""
    return name == package or name.startswith(package + ".")


def closure(start: Module, known: tuple[Module, ...]) -> frozenset[str]:
    """Every module of ours that importing `start` loads, itself included, with the packages on the way."""
    by_name = {module.name: module for module in known}
    reached: set[str] = set()
    waiting = [start.name]
    while waiting:
        name = waiting.pop()
        if name in reached or name not in by_name:
            continue
        reached.add(name)
        waiting.extend(by_name[name].imports)
        waiting.extend(name.rsplit(".", n)[0] for n in range(1, name.count(".") + 1))
    return frozenset(reached)
