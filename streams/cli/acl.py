"""`credits acl apply`: write the rights of docs/operations.md into Kafka."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from streams.cli.console import JsonFlag, load_settings, note, print_json, say

app = typer.Typer(help="Write who may read and write what into Kafka.", no_args_is_help=True)


@app.callback()
def _acl() -> None:
    pass


@app.command()
def apply(
    principals: Annotated[
        list[str],
        typer.Option(
            "--principals",
            metavar="ROLE=User:NAME,…",
            help="Who has a role: producer, gateway, payments, admin, subscriber, worker, serve, api, projector, "
            "operator. Repeat it.",
        ),
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    remove: Annotated[
        bool,
        typer.Option("--remove", help="Remove rights on this installation's names that no role has: name them all."),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Write the rights that are missing; say, and with --remove take away, those that are not in the plan."""
    from streams.kafka import acl_admin

    settings = load_settings()
    done = acl_admin.apply(settings, acl_admin.parse_principals(principals), dry_run=dry_run, remove=remove)
    if as_json:
        print_json({**asdict(done), "dry_run": dry_run, "namespace": settings.namespace})
        return
    for word, found in (("created", done.created), ("removed", done.removed), ("not planned", done.not_planned)):
        for right in found:
            where = f"{right.kind} {right.name}{'*' if right.pattern == 'prefixed' else ''}"
            say(f"{word:<12} {right.principal} {right.operation} {where}")
    say(
        f"{len(done.created)} {'to create' if dry_run else 'created'}, {len(done.existing)} there already, "
        f"{len(done.removed)} {'to remove' if dry_run else 'removed'}, {len(done.not_planned)} not planned"
    )
    if done.not_planned:
        note("`--remove` takes away what is not planned; name the principals of every role with it")
