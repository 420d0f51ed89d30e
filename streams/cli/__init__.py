"""The command `credits`.

The rules of this package:
1. One file a command, named after it, with `app`, a `typer.Typer`. It is imported when the command is run, not before:
   `credits --help` must not load Kafka's clients, ClickHouse and Faust.
2. A result goes to standard output, and nothing else; with `--json` it is one JSON document. Progress, notes and
   errors go to standard error.
3. Exit 0 only on success; 2 for a wrong call; 1 for everything else. An error is one line that says what to do.
   CREDITS_DEBUG=1 adds the traceback.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import typer
import typer.core

if TYPE_CHECKING:
    from typer._click.core import Command, Context


@dataclass(frozen=True)
class Listed:
    """A command as `credits --help` shows it; `module` is where its `app` is found."""

    name: str
    help: str
    panel: str

    @property
    def module(self) -> str:
        """The module of the command's `app`."""
        return f"streams.cli.{self.name.replace('-', '_')}"


RUN, EVENTS, READ, CARE = "Run", "Send events", "Read", "Look after"

COMMANDS: tuple[Listed, ...] = (
    Listed("up", "Run everything on this machine, in the foreground.", RUN),
    Listed("demo", "Send a realistic stream through a real system and show the verdict.", RUN),
    Listed("broker", "Run the local Kafka broker.", RUN),
    Listed("worker", "Run one ledger worker.", RUN),
    Listed("serve", "Run the HTTP interface, the registry and the projection.", RUN),
    Listed("api", "Run the HTTP interface alone, as often as needed.", RUN),
    Listed("projector", "Run the projection alone; several share the partitions.", RUN),
    Listed("produce", "Send records of one kind from JSON lines.", EVENTS),
    Listed("trace", "Turn an LLM request trace into usage events.", EVENTS),
    Listed("prices", "Import the price list.", EVENTS),
    Listed("balance", "Show the balance of an organisation.", READ),
    Listed("statement", "Show the statement of an organisation.", READ),
    Listed("invoices", "List the invoices of an organisation, or write one as PDF.", READ),
    Listed("report", "Show usage over all organisations.", READ),
    Listed("sql", "Run one SELECT over the tables and views of the read side.", READ),
    Listed("tail", "Follow the ledger, alerts, dead letters, answers to holds or top-up requests.", READ),
    Listed("verify", "Recount the whole ledger and compare everything with it.", CARE),
    Listed("rerate", "Rate booked usage again by the prices of today, and correct it.", CARE),
    Listed("rebuild", "Drop the projection and fold it again from the ledger.", CARE),
    Listed("dead-letters", "List, show and replay what could not be booked.", CARE),
    Listed("accounts", "Merge second accounts of an organisation.", CARE),
    Listed("topics", "Create and check the topics.", CARE),
    Listed("keys", "Create, list and revoke API keys.", CARE),
    Listed("acl", "Write who may read and write what into Kafka.", CARE),
    Listed("schemas", "Check the schemas for compatibility.", CARE),
    Listed("asyncapi", "Print the AsyncAPI document of the topics.", CARE),
    Listed("bench", "Measure speed and size on this machine.", CARE),
    Listed("doctor", "Check what the system needs, and say what to do.", CARE),
    Listed("config", "Show the settings in force.", CARE),
)


class LazyCommands(typer.core.TyperGroup):
    """The commands of the table; only the one that is run is imported."""

    def __init__(self, **attrs: Any) -> None:
        super().__init__(**attrs)
        self.commands = {
            each.name: typer.core.TyperCommand(each.name, help=each.help, rich_help_panel=each.panel)
            for each in COMMANDS
            if importlib.util.find_spec(each.module) is not None
        }

    def resolve_command(self, ctx: Context, args: list[str]) -> tuple[str | None, Command | None, list[str]]:
        """The real command in place of the listed one."""
        name, _, rest = super().resolve_command(ctx, args)
        assert name is not None
        listed = next(each for each in COMMANDS if each.name == name)
        loaded: typer.Typer = importlib.import_module(listed.module).app
        loaded._add_completion = False  # completion is installed for `credits`, not for each command
        command = typer.main.get_command(loaded)
        command.name = name
        return name, command, rest


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(version("credits-ledger"))
        raise typer.Exit


app = typer.Typer(
    name="credits",
    cls=LazyCommands,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="An exact ledger of prepaid usage credits, on Kafka.",
)


@app.callback()
def _credits(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit with its status; every error is reported here, and nowhere else."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    # Typer's boxes are for people; a pipe gets plain text of a width that does not break lines.
    if not sys.stdout.isatty():
        os.environ.setdefault("NO_COLOR", "1")
    try:
        answer = typer.main.get_command(app).main(args=given, prog_name="credits", standalone_mode=False)
        status = answer if isinstance(answer, int) else 0
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the one place that turns errors into a line
        from streams.cli.failures import report

        status = report(error, as_json="--json" in given)
    sys.exit(status)
