"""`credits schemas check`: every released schema against every other of its record, and against the registry."""

from __future__ import annotations

from typing import Annotated

import typer

from streams.cli.console import JsonFlag, load_settings, print_json, print_table, say

app = typer.Typer(help="Check the schemas for compatibility.", no_args_is_help=True)


@app.callback()
def _schemas() -> None:
    pass


@app.command()
def check(
    registered: Annotated[bool, typer.Option("--registered", help="Also ask the registry about its ids.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Check that all versions of every record read each other (FULL_TRANSITIVE); exit 1 when one does not."""
    from schemas.records import record_names, versions
    from schemas.topics import CATALOGUE

    settings = load_settings()
    differences = released_differences()
    rows = [(name, len(versions(name))) for name in record_names()]
    if registered:
        from streams.registry import connect_registry

        registry = connect_registry(settings)
        for topic in CATALOGUE:
            if topic.record is not None and registry.writer(registry.schema_id(topic.key)) is None:
                differences.append(f"{topic.name}: the registry does not know its schema")
    if as_json:
        print_json({"ok": not differences, "records": dict(rows), "differences": differences})
    else:
        print_table(("record", "versions"), rows, right=("versions",))
        for each in differences:
            say(f"differs  {each}")
        say("all compatible" if not differences else f"{len(differences)} differences")
    if differences:
        raise typer.Exit(1)


def released_differences() -> list[str]:
    """Why released versions of a record cannot stand beside each other; empty when all can."""
    from schemas.compatibility import full_differences
    from schemas.records import avro_schema, record_names, versions

    differences = []
    for record in record_names():
        released = [avro_schema(record, version) for version in versions(record)]
        for number, schema in enumerate(released):
            differences += [f"{record}.v{number + 1} {text}" for text in full_differences(schema, released[:number])]
    return differences
