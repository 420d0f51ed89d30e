"""`credits doctor`: what the system needs, whether it is there, and what to do where it is not."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from streams.cli.console import JsonFlag, load_settings, print_json, say, say_marked

if TYPE_CHECKING:
    from streams.local.doctor import Check

app = typer.Typer()

MARKS = {"ok": ("✓", "32"), "note": ("!", "33"), "failed": ("✗", "31"), "skipped": ("–", "90")}


@app.command()
def doctor(as_json: JsonFlag = False) -> None:
    """Check Java, Maven, Kafka, topics, registry, ClickHouse, ports and disk; exit 1 when something is wrong."""
    settings = load_settings()

    from streams.local.doctor import Verdict, examine

    checks: list[Check] = []
    for check in examine(settings):
        checks.append(check)
        if not as_json:
            _show(check)
    failed = [check for check in checks if check.verdict is Verdict.FAILED]
    verdict = _verdict(len(failed), any(c.name == "kafka" and c.verdict is Verdict.OK for c in checks))
    if as_json:
        print_json({"ok": not failed, "verdict": verdict, "checks": [asdict(check) for check in checks]})
    else:
        say(verdict)
    if failed:
        raise typer.Exit(1)


def _verdict(failed: int, running: bool) -> str:
    if failed:
        return f"{failed} thing{'s' if failed > 1 else ''} to fix first"
    return "all well" if running else "all well; `credits up` starts the system, `credits demo` shows it"


def _show(check: Check) -> None:
    mark, colour = MARKS[check.verdict]
    remedy = f" – {check.remedy}" if check.remedy else ""
    say_marked(mark, colour, f"{check.name.ljust(11)}  {check.found}{remedy}")
