"""`credits topics apply`: create the topics of the catalogue, and check those that exist."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from streams.cli.console import JsonFlag, load_settings, note, print_json, say

app = typer.Typer(help="Create and check the topics.", no_args_is_help=True)


@app.callback()
def _topics() -> None:
    pass


@app.command()
def apply(
    change: Annotated[bool, typer.Option("--change", help="Set what differs from the catalogue.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Create what is missing; refuse a wrong number of partitions; report settings that differ."""
    from streams.kafka import topics_admin

    settings = load_settings()
    applied = topics_admin.apply(settings, change=change)
    if as_json:
        print_json({**asdict(applied), "partitions": settings.partitions, "namespace": settings.namespace})
        return
    for name in applied.created:
        say(f"created   {name}")
    for each in applied.changed:
        say(f"changed   {each.topic}: {each.setting} from {each.found} to {each.wanted}")
    for each in applied.differences:
        say(f"differs   {each.topic}: {each.setting} is {each.found}, the catalogue says {each.wanted}")
    say(f"{len(applied.created)} created, {len(applied.existing)} there already, {settings.partitions} partitions each")
    if applied.differences:
        note("`credits topics apply --change` sets what differs")
