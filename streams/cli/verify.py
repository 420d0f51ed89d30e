"""`credits verify`: fold the whole ledger with code of its own, and compare everything with it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.cli.console import JsonFlag, load_settings, note, print_json, print_table, progress, say

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streams.settings import Settings
    from streams.verify.audit import Report
    from streams.verify.clickhouse import AskPage
    from streams.verify.sources import TopicCount

app = typer.Typer()

DIFFERENCES_SHOWN_MAX = 20
ENDS = {"ledger": "in the ledger", "dead_letters": "dead letters", "duplicates": "duplicates"}
WITHOUT_ENTRY = {
    "prices": "prices change no account",
    "transfer_legs": "a transfer to an unknown organisation goes back",
}
"""Why a record of these topics ends well without an entry of its own (`streams.verify.sources`)."""
DEAD_LETTERS_GONE = "the dead letters of others were deleted by retention"


@app.command()
def verify(
    clickhouse: Annotated[bool, typer.Option("--clickhouse/--no-clickhouse", help="Compare ClickHouse, too.")] = True,
    as_json: JsonFlag = False,
) -> None:
    """Recount the ledger: fold = balances = ClickHouse, no gaps, nothing created or lost, no record unaccounted for."""
    from streams.kafka import topics_admin
    from streams.verify.audit import audit

    settings = load_settings()
    topics_admin.connect(settings)
    with progress("reading") as steps, _clickhouse(settings, clickhouse) as ask:
        report = audit(settings, advance=lambda _what, count: steps.advance(count), clickhouse=ask)
    if as_json:
        print_json(document(report))
    else:
        show(report)
    raise typer.Exit(0 if report.ok else 1)


class _clickhouse:  # noqa: N801 - used as a function
    """How to ask ClickHouse: a running `serve`, else the projection's own client; None when neither is there."""

    def __init__(self, settings: Settings, wanted: bool) -> None:
        self._settings = settings
        self._wanted = wanted
        self._client: Any = None

    def __enter__(self) -> AskPage | None:
        if not self._wanted:
            return None
        from streams.cli.http_client import serve_address
        from streams.verify.clickhouse import ClickHouseUnknownError, ask_serve

        ask = ask_serve(serve_address(self._settings), self._settings.data_dir)
        try:
            ask("", 1)
        except ClickHouseUnknownError:
            return self._direct()
        return ask

    def _direct(self) -> AskPage | None:
        from projections.clickhouse import ClickHouseUnavailableError, connect
        from projections.verify import clickhouse_audit

        if self._settings.clickhouse_url is None and not self._settings.data_dir.is_dir():
            note("there is no ClickHouse here: it is left out")
            return None
        try:
            self._client = connect(self._settings)
        except ClickHouseUnavailableError as error:
            from streams.verify.clickhouse import ClickHouseUnknownError

            raise ClickHouseUnknownError(
                f"ClickHouse cannot be asked ({error})", "start `credits serve`, or leave it out with --no-clickhouse"
            ) from error
        client = self._client
        return lambda after_org, orgs_max: clickhouse_audit(client, after_org=after_org, orgs_max=orgs_max)

    def __exit__(self, *_: object) -> None:
        if self._client is not None:
            self._client.close()


def document(report: Report) -> dict[str, Any]:
    """The report for machines; amounts as decimal strings."""
    from schemas.amounts import format_amount

    return {
        "ok": report.ok,
        "entries": report.entries,
        "orgs": report.orgs,
        "kinds": report.kinds,
        "rejected": report.rejected,
        "dead_letters": report.dead_letters,
        "duplicates": report.duplicates,
        "alerts": report.alerts,
        "transfers": report.transfers,
        "transfers_on_the_way": report.transfers_on_the_way,
        "units": [
            {name: value if name == "unit" else format_amount(value) for name, value in asdict(row).items()}
            for row in report.units
        ],
        "inputs": {
            topic: {name: getattr(count, name) for name in ("records", *ENDS, "no_entry", "gone")}
            for topic, count in sorted(report.inputs.items())
        },
        "clickhouse_compared": report.clickhouse_compared,
        "split_accounts": [asdict(each) for each in report.split_accounts],
        "differences_count": report.differences_count,
        "differences": [asdict(each) for each in report.differences],
    }


def show(report: Report) -> None:
    """The report for people."""
    from schemas.amounts import format_amount

    say(f"{report.entries:,} entries of {report.orgs:,} organisations")
    names = ("added", "spent", "expired", "taken_back", "balances", "on_the_way")
    rows = [[row.unit, *(format_amount(getattr(row, name)) for name in names), row.left_over] for row in report.units]
    headings = ["unit", "added", "spent", "expired", "taken back", "balances", "in transit", "left over"]
    print_table(headings, rows, headings[1:])
    show_inputs(report.inputs)
    for account in report.split_accounts:
        if account.merged:
            say(f"known    {account}: {account.entries} entries of a second account, merged into the org's own")
    for each in report.differences[:DIFFERENCES_SHOWN_MAX]:
        say(f"differs  {each}")
    if not report.ok:
        say(f"{report.differences_count:,} differences")
        return
    compared = "ledger = balances = ClickHouse" if report.clickhouse_compared else "ledger = balances"
    say(f"ok: {compared}; no gaps; every unit adds up to zero; every record is accounted for")


def show_inputs(inputs: Mapping[str, TopicCount]) -> None:
    """How the records of each input topic ended: the ends of a row add up to its records, without what is gone."""
    from schemas.topics import BY_KEY

    counts = [(topic, count) for topic, count in sorted(inputs.items()) if count.records or count.gone]
    columns = {"records": "records", **ENDS}
    if any(count.no_entry for _, count in counts):
        columns["no_entry"] = "no entry"
    if any(count.gone for _, count in counts):
        columns["gone"] = "gone by retention"
    rows = [[topic, *(getattr(count, name) for name in columns)] for topic, count in counts]
    print_table(["topic", *columns.values()], rows, list(columns.values()))
    without = [topic for topic, count in counts if count.no_entry]
    reasons = [why for key, why in WITHOUT_ENTRY.items() if any(topic.endswith(BY_KEY[key].name) for topic in without)]
    if len(reasons) < len(without):
        reasons.append(DEAD_LETTERS_GONE)
    if reasons:
        say(f"no entry: {'; '.join(reasons)}")
