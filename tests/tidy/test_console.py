"""Commands write through `streams.cli.console` alone: there control characters become codes, and secrets stars."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

COMMANDS = Path(__file__).parents[2] / "streams" / "cli"
WRITERS = ("console.py", "failures.py", "__init__.py")
BANNED = ("print", "echo", "secho", "confirm", "prompt", "pprint")


def writes(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Where a module writes to a terminal by itself."""
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "streams.cli.console"
        for alias in node.names
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in BANNED and name not in imported:
                yield node.lineno, name
        if isinstance(node, ast.Attribute) and node.attr in ("write", "buffer", "writelines"):
            inner = ast.unparse(node.value)
            if inner.startswith(("sys.stdout", "sys.stderr", "stdout", "stderr")):
                yield node.lineno, inner
        if isinstance(node, ast.Import | ast.ImportFrom) and "rich" in ast.unparse(node).replace(".", " ").split():
            yield node.lineno, "rich"


@pytest.mark.parametrize("path", sorted(COMMANDS.glob("*.py")), ids=lambda path: path.name)
def test_a_command_writes_through_the_console(path: Path) -> None:
    if path.name in WRITERS:
        return
    assert list(writes(ast.parse(path.read_text()))) == []


def test_each_way_of_writing_is_seen() -> None:
    for line in ("print(x)", "typer.echo(x)", "sys.stdout.write(x)", "sys.stdout.buffer.write(x)", "import rich.table"):
        assert list(writes(ast.parse(line))), line
    assert not list(writes(ast.parse("from streams.cli.console import confirm\nconfirm('x')")))
