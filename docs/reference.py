"""Write `docs/reference.md` from the code: settings, topics, commands. Nothing in that page is typed by hand.

`make reference` writes it; `tests/deploy/test_reference.py` fails where the page and the code differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from streams.settings import Settings

PAGE = Path(__file__).with_name("reference.md")
HEAD = """# Reference

Written by `make reference` from the code; do not edit. The meaning of the records and the rules behind them:
[schemas/README.md](../schemas/README.md), [rules.md](rules.md).
"""


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A Markdown table; `|` inside a cell is escaped."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def default_of(field: FieldInfo) -> str:
    """A setting's default as one would write it in `.env`; empty where there is none."""
    value = field.default
    if value is None or value == "" or isinstance(value, SecretStr):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def bounds_of(field: FieldInfo) -> str:
    """The lowest and highest value that is taken, where there are any."""
    low = next((rule.ge for rule in field.metadata if hasattr(rule, "ge")), None)
    high = next((rule.le for rule in field.metadata if hasattr(rule, "le")), None)
    if low is None and high is None:
        return ""
    return f"{low} to {high}" if high is not None else f"at least {low}"


def settings_section() -> str:
    """Every setting: the variable, its default, its bounds, its meaning."""
    rows = [
        (f"`CREDITS_{name.upper()}`", default_of(field), bounds_of(field), field.description or "")
        for name, field in Settings.model_fields.items()
    ]
    return "## Settings\n\nEnvironment variables, or lines of a file `.env` in the working directory.\n\n" + table(
        ("variable", "default", "bounds", "meaning"), rows
    )


def page() -> str:
    """The whole page."""
    return "\n".join((HEAD, settings_section()))


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE.name}")


if __name__ == "__main__":
    main()
