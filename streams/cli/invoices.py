"""`credits invoices ORG`: its invoices and credit notes; one of them as PDF (product rule 24)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.cli.console import JsonFlag, load_settings, note, print_json, print_table, say

if TYPE_CHECKING:
    from streams.settings import Settings

app = typer.Typer()

PAGE = 1_000
CREDIT_NOTES = "credit-notes"


@app.command()
def invoices(
    org: Annotated[str, typer.Argument(help="The organisation's id.")],
    pdf: Annotated[int | None, typer.Option("--pdf", min=1, help="Write the invoice of this number as PDF.")] = None,
    credit_note: Annotated[
        int | None, typer.Option("--credit-note", min=1, help="Write the credit note of this number as PDF.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", help="The file to write; else invoice-N.pdf or credit-note-N.pdf.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """List the invoices and credit notes of an organisation, or write one as PDF."""
    if pdf is not None and credit_note is not None and output is not None:
        raise typer.BadParameter("one file cannot hold two documents; leave --output out", param_hint="--output")
    settings = load_settings()
    written = [
        write(settings, org, what, number, output)
        for what, number in (("invoices", pdf), (CREDIT_NOTES, credit_note))
        if number is not None
    ]
    if written:
        if as_json:
            print_json({"written": [str(path) for path in written]})
        return
    bills = every(settings, org, "invoices")
    notes = every(settings, org, CREDIT_NOTES)
    if as_json:
        print_json({**bills, "credit_notes": notes["credit_notes"]})
    else:
        show(bills, notes)


def write(settings: Settings, org: str, what: str, number: int, output: Path | None) -> Path:
    """Write one document as PDF; the file."""
    from streams.cli.http_client import get, org_path

    content = get(settings, org_path(org, what, f"{number}.pdf"))
    path = output or Path(f"{what.removesuffix('s')}-{number}.pdf")
    path.write_bytes(content)
    note(f"written: {path}")
    return path


def every(settings: Settings, org: str, what: str) -> dict[str, Any]:
    """All pages of a list, as one document."""
    from streams.cli.http_client import get_json, org_path

    name = what.replace("-", "_")
    rows: list[dict[str, Any]] = []
    after: int | None = 0
    while after is not None:
        page = get_json(settings, org_path(org, what), after=after, limit=PAGE)
        rows += page[name]
        after = page["next_after"]
    return {"org_id": org, "as_of": page["as_of"], name: rows}


def show(bills: dict[str, Any], notes: dict[str, Any]) -> None:
    """Print both lists for people."""
    say(f"{bills['org_id']}, as of {bills['as_of']}")
    if not bills["invoices"]:
        say("no invoice yet: nothing was bought")
        return
    say()
    numbers = ["number", "credits", "total", "refunded"]
    rows = [[bill["number"], *_shared(bill), bill["purchase_id"], bill["refunded"]] for bill in bills["invoices"]]
    print_table(["number", "issued", "wallet", "credits", "total", "purchase", "refunded"], rows, numbers)
    if notes["credit_notes"]:
        say()
        rows = [
            [each["number"], *_shared(each), each["refund_id"], each["invoice_number"]]
            for each in notes["credit_notes"]
        ]
        columns = ["credit note", "issued", "wallet", "credits", "total", "refund", "of invoice"]
        print_table(columns, rows, ["credit note", "credits", "total", "of invoice"])


def _shared(document: dict[str, Any]) -> list[str]:
    """The columns that both kinds have: day of issue, wallet, credits, what was paid."""
    total = "not reported" if document["total"] is None else f"{document['total']} {document['currency'] or ''}".strip()
    return [document["issued_at"][:10], document["wallet"], document["credits"], total]
