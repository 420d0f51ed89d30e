"""`credits schemas check`: released schemas against each other and the registry. `register`: one more, by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from streams.cli.console import JsonFlag, load_settings, print_json, print_table, say
from streams.errors import OperatorError, SettingRefusedError

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
        from streams.kafka.registry import connect_registry

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


@app.command()
def register(
    subject: Annotated[str, typer.Argument(help="The topic's name and -value, as a rule.")],
    file: Annotated[Path, typer.Option("--file", help="The schema, as JSON.", exists=True, dir_okay=False)],
    as_json: JsonFlag = False,
) -> None:
    """Register a schema with the built-in registry, which takes none over HTTP unless it is set to."""
    from streams.kafka.registry_topic import IncompatibleSchemaError, InvalidSchemaError, TopicRegistry

    settings = load_settings()
    if settings.schema_registry_url is not None:
        raise SettingRefusedError("CREDITS_SCHEMA_REGISTRY_URL names a registry", "register the schema there")
    registry = TopicRegistry(settings)
    try:
        registered = registry.register(subject, file.read_text(encoding="utf-8"))
    except InvalidSchemaError as error:
        raise OperatorError(f"{file} is no schema that is taken: {error}", "correct it") from error
    except IncompatibleSchemaError as error:
        raise OperatorError(f"{subject}: the schema {error}", "add fields with defaults; change none") from error
    except UnicodeDecodeError as error:
        raise OperatorError(f"{file} is no text in UTF-8", "correct it") from error
    finally:
        registry.close()
    if as_json:
        print_json({"subject": registered.subject, "version": registered.version, "id": registered.schema_id})
    else:
        say(f"{registered.subject} version {registered.version} has id {registered.schema_id}")


def released_differences() -> list[str]:
    """Why released versions of a record are not compatible; empty when all are."""
    from schemas.compatibility import full_differences
    from schemas.records import avro_schema, record_names, versions

    differences = []
    for record in record_names():
        released = [avro_schema(record, version) for version in versions(record)]
        for number, schema in enumerate(released):
            differences += [f"{record}.v{number + 1} {text}" for text in full_differences(schema, released[:number])]
    return differences
