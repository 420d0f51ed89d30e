"""`credits doctor`: what the system needs, whether it is there, and what to do where it is not."""

from __future__ import annotations

import sys
from dataclasses import asdict

import typer

from streams.cli.console import JsonFlag, load_settings, print_json

app = typer.Typer()

MARKS = {"ok": ("✓", "32"), "note": ("!", "33"), "failed": ("✗", "31"), "skipped": ("–", "90")}


@app.command()
def doctor(as_json: JsonFlag = False) -> None:
    """Check Java, Maven, Kafka, topics, registry, ClickHouse, ports and disk; exit 1 when something is wrong."""
    settings = load_settings()

    from streams.doctor import Check, Verdict, examine

    checks: list[Check] = []
    for check in examine(settings):
        checks.append(check)
        if not as_json:
            print(_line(check), flush=True)
    failed = [check for check in checks if check.verdict is Verdict.FAILED]
    verdict = _verdict(len(failed), any(c.name == "kafka" and c.verdict is Verdict.OK for c in checks))
    if as_json:
        print_json({"ok": not failed, "verdict": verdict, "checks": [asdict(check) for check in checks]})
    else:
        print(verdict)
    if failed:
        raise typer.Exit(1)


def _verdict(failed: int, running: bool) -> str:
    if failed:
        return f"{failed} thing{'s' if failed > 1 else ''} to mend first"
    return "all well" if running else "all well; `credits up` starts the system, `credits demo` shows it"


def _line(check: object) -> str:
    from streams.doctor import Check

    assert isinstance(check, Check)
    mark, colour = MARKS[check.verdict]
    if sys.stdout.isatty():
        mark = f"\x1b[{colour}m{mark}\x1b[0m"
    remedy = f" – {check.remedy}" if check.remedy else ""
    return f"{mark} {check.name.ljust(11)}  {check.found}{remedy}"
