"""Write `docs/reference.md` from the code: commands, settings, metrics, dead letters. Nothing there is typed by hand.

`make reference` writes it; `tests/deploy/test_reference.py` fails where the page and the code differ.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer.main
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from pydantic.fields import FieldInfo

from docs import citations
from schemas.dead_letters import (
    DEAD_LETTER_HEADERS,
    HEADERS_KEPT_BYTES,
    KEY_KEPT_BYTES,
    VALUE_KEPT_BYTES,
    WHOLE_BYTES_MAX,
)
from schemas.enums import REJECTIONS, DeadLetterCode
from streams.cli import COMMANDS
from streams.metrics import PrometheusMetrics
from streams.settings import Settings

PAGE = Path(__file__).with_name("reference.md")
HEAD = """# Reference

`make reference` writes this page from the code; do not edit it. Two more references are elsewhere:

- [schemas/README.md](../schemas/README.md): topics, fields of the records, bodies of settings.
- [projections/README.md](../projections/README.md): tables and views in ClickHouse.
"""


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A Markdown table; `|` inside a cell is escaped."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def one_line(text: str | None) -> str:
    """The first paragraph of a help text, on one line."""
    return " ".join((text or "").split("\n\n")[0].replace("\f", "").split())


def options(command: Any) -> list[tuple[str, ...]]:
    """A row for every argument and option of a command, as one would type it."""
    rows: list[tuple[str, ...]] = []
    for param in command.params:
        if param.name in {"help", "install_completion", "show_completion"} or getattr(param, "hidden", False):
            continue
        if param.param_type_name == "argument":
            written = f"`{param.name.upper()}`" + ("" if param.required else " (optional)")
        else:
            written = ", ".join(f"`{name}`" for name in [*param.opts, *param.secondary_opts])
        default = param.default
        shown = (
            "" if default is None or isinstance(default, bool | tuple | list) or callable(default) else f"`{default}`"
        )
        rows.append((written, shown, one_line(getattr(param, "help", None))))
    return rows


def command_pages(name: str, command: Any) -> Iterator[str]:
    """A section for a command, and one for each of its subcommands."""
    subcommands = getattr(command, "commands", {})
    if not subcommands:
        arguments = [param for param in command.params if param.param_type_name == "argument"]
        usage = " ".join([name, *(param.name.upper() for param in arguments)])
        rows = options(command)
        listed = "\n" + table(("argument or option", "default", "meaning"), rows) if rows else ""
        yield f"### `{usage}`\n\n{one_line(command.help)}\n{listed}"
    for sub in sorted(subcommands):
        yield from command_pages(f"{name} {sub}", subcommands[sub])


def commands_section() -> str:
    """Every command that is there, with its arguments and options."""
    pages: list[str] = []
    for each in COMMANDS:
        if importlib.util.find_spec(each.module) is not None:
            loaded = typer.main.get_command(importlib.import_module(each.module).app)
            pages.extend(command_pages(f"credits {each.name}", loaded))
    return "## Commands\n\n`python -m streams` is the same as `credits`.\n\n" + "\n".join(pages)


def default_of(field: FieldInfo) -> str:
    """A setting's default as one would write it in `.env`; empty where there is none."""
    value = field.default
    if value is None or value == "":
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
    return (
        "## Settings\n\nEnvironment variables, or lines of a file `.env` in the working directory. "
        "`credits config show` prints those in force.\n\n" + table(("variable", "default", "bounds", "meaning"), rows)
    )


def topics_section() -> str:
    """Where the catalogue is; it stands beside the records."""
    return (
        "## Topics\n\n[schemas/README.md](../schemas/README.md#topics) lists them, each with its record, writers, "
        "readers and retention. `CREDITS_NAMESPACE` is put before every name.\n"
    )


def metrics() -> list[Metric]:
    """Every metric of a worker."""
    registry = CollectorRegistry()
    PrometheusMetrics(registry)
    return list(registry.collect())


def metrics_section() -> str:
    """Every metric of a worker, as Prometheus sees it."""
    rows = [
        (f"`{metric.name}{'_total' if metric.type == 'counter' else ''}`", metric.type, metric.documentation)
        for metric in metrics()
    ]
    return (
        "## Metrics of a worker\n\nAt `/metrics` on `CREDITS_WORKER_METRICS_PORT`, next to `/livez` and `/readyz`.\n\n"
        + table(("metric", "type", "meaning"), rows)
    )


def dead_letters_section() -> str:
    """The headers of a dead letter, its codes, and how large it may be."""
    rows = [(f"`{name}`", meaning) for name, meaning in DEAD_LETTER_HEADERS.items()]
    codes = ", ".join(f"`{code.value}`" for code in DeadLetterCode)
    return (
        "## Dead letters\n\nA dead letter has the value, key and headers of the record, unchanged, up to "
        f"{WHOLE_BYTES_MAX:,} bytes together. An input topic takes a larger record when it is compressed. Of that, the "
        f"first {VALUE_KEPT_BYTES:,} bytes of the value, {KEY_KEPT_BYTES:,} of the key and {HEADERS_KEPT_BYTES:,} of "
        "the headers are kept, and `credits dead-letters replay` does not send it again.\n\n"
        f"The codes are {codes}.\n\nAfter the record's own headers, the ledger adds these:\n\n"
        + table(("header", "meaning"), rows)
    )


def rejections_section() -> str:
    """Every reason of a rejected entry."""
    rows = [(f"`{reason}`", meaning) for reason, meaning in REJECTIONS.items()]
    return (
        "## Reasons of rejected entries\n\nA refusal by rule is an entry `rejected`, with one of these as its "
        "`reason`. [Decision 18, limits of an account](decisions.md#18-limits-of-an-account), says how many of each "
        "thing an organisation may have.\n\n" + table(("reason", "meaning"), rows)
    )


def page() -> str:
    """The whole page."""
    more = (rejections_section(), dead_letters_section(), metrics_section())
    sections = (commands_section(), settings_section(), topics_section(), *more)
    return "\n".join((HEAD, *sections))


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")
    citations.PAGE.write_text(citations.page(), encoding="utf-8")
    print(f"wrote {PAGE.name} and {citations.PAGE.name}")


if __name__ == "__main__":
    main()
