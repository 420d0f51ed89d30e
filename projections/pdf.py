"""Invoices, credit notes and statements as PDF (product rule 24). Pure: a document of JSON in, bytes out.

Rules of this file:
1. The same document makes the same bytes: its dates are the document's, the letters come with the package.
2. The letters cover Latin, Greek, Cyrillic, Armenian and Georgian. Another character is printed as its Unicode
   number, such as [U+682A], with a note that says so: nothing is left out, or replaced by a letter that looks alike.
3. Amounts are printed as they are, never rounded: with two decimals at least where money was paid, with more where
   there are more.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from fpdf import FPDF
from fpdf.enums import MethodReturnValue, XPos, YPos
from fpdf.fonts import TTFFont

from projections.statements import MOVEMENT_NAMES
from schemas.times import parse_time, to_datetime

FONTS = Path(__file__).parent / "fonts"
FAMILY = "letters"

MARGIN_MM = 20.0
WIDTH_MM = 170.0
LINE_MM = 5.0
LABEL_MM = 34.0
COLUMN_GAP_MM = 6.0

INK = (28, 32, 40)
GREY = (110, 116, 126)
RULE = (206, 210, 216)
SHADE = (244, 246, 248)

MISSING_NOTE = "Characters that cannot be printed here are shown by their Unicode numbers."


def invoice_pdf(invoice: dict[str, Any], issuer: Sequence[str], time_zone: str) -> bytes:
    """An invoice on paper. `issuer`: the lines of who sells, name first; dates are in the customer's `time_zone`."""
    paper = _Paper(f"Invoice {invoice['invoice_id']}", invoice["issued_at"])
    paper.head("Invoice", invoice["invoice_id"], issuer)
    paper.parties(
        "Billed to",
        [invoice["org_id"]],
        [
            ("Invoice number", invoice["invoice_id"]),
            ("Date of issue", _date(invoice["issued_at"], time_zone)),
            ("Date of purchase", _date(invoice["purchased_at"], time_zone)),
            ("Purchase", invoice["purchase_id"]),
            *([("Bought by", invoice["actor"])] if invoice["actor"] else []),
            *([("Top-up request", invoice["topup_request_id"])] if invoice["topup_request_id"] else []),
        ],
    )
    expiry = invoice["expires_at"]
    described = f"Prepaid credits, wallet {invoice['wallet']}"
    described += f"\nvalid until {_moment(expiry, time_zone)}" if expiry else "\nwithout expiry"
    paper.lines(
        ("Description", "Credits", "Amount"),
        [(described, _grouped(invoice["credits"]), _money(invoice["total"], invoice["currency"]))],
    )
    paper.total("Total", _money(invoice["total"], invoice["currency"]))
    paper.remark("Paid in full: the credits were booked when the payment was reported.")
    if invoice["total"] is None:
        paper.remark("The price was not reported to the ledger; see the receipt of the payment.")
    paper.remark(
        f"Entry {invoice['seq']} of the ledger of {invoice['org_id']}. Credits that are taken back are the matter of a"
        " credit note that names this invoice."
    )
    return paper.finished()


def credit_note_pdf(note: dict[str, Any], issuer: Sequence[str], time_zone: str) -> bytes:
    """A credit note on paper; it names its invoice."""
    paper = _Paper(f"Credit note {note['credit_note_id']}", note["issued_at"])
    paper.head("Credit note", note["credit_note_id"], issuer)
    paper.parties(
        "Credited to",
        [note["org_id"]],
        [
            ("Credit note number", note["credit_note_id"]),
            ("For invoice", note["invoice_id"]),
            ("Date of issue", _date(note["issued_at"], time_zone)),
            ("Date of refund", _date(note["refunded_at"], time_zone)),
            ("Refund", note["refund_id"]),
            ("Purchase", note["purchase_id"]),
            *([("Refunded by", note["actor"])] if note["actor"] else []),
        ],
    )
    credits, total = Decimal(note["credits"]), note["total"]
    back = None if total is None else f"-{total}" if Decimal(total) else total
    described = f"Refund of prepaid credits, wallet {note['wallet']}\nof invoice {note['invoice_id']}"
    paper.lines(
        ("Description", "Credits", "Amount"),
        [(described, _grouped(str(-credits)), _money(back, note["currency"]))],
    )
    paper.total("Total credited", _money(total, note["currency"]))
    paper.remark(f"Entry {note['seq']} of the ledger of {note['org_id']}.")
    return paper.finished()


def statement_pdf(statement: dict[str, Any], issuer: Sequence[str]) -> bytes:
    """A monthly statement on paper, a table for each wallet."""
    zone = statement["time_zone"]
    paper = _Paper(f"Statement {statement['month']} of {statement['org_id']}", statement["as_of"])
    paper.head("Statement", f"{_month(statement['month'])}", issuer)
    paper.parties(
        "Account",
        [statement["org_id"]],
        [
            ("Month", statement["month"]),
            ("From", _moment(statement["from"], zone)),
            ("To", f"{_moment(statement['to'], zone)} (excluded)"),
            ("As of", _moment(statement["as_of"], zone)),
        ],
    )
    for wallet in statement["wallets"]:
        paper.section(f"Wallet {wallet['wallet']}")
        amounts = [wallet["opening"], *(each["amount"] for each in wallet["movements"]), wallet["closing"]]
        opening, *moved, closing = _aligned(amounts)
        movements = [
            (MOVEMENT_NAMES.get(each["kind"], each["kind"]), f"{each['entries']:,}", amount)
            for each, amount in zip(wallet["movements"], moved, strict=True)
        ]
        head = ("Movement", "Entries", f"Credits ({wallet['wallet']})")
        paper.lines(head, [("Opening balance", "", opening), *movements])
        paper.total("Closing balance", closing)
    if not statement["wallets"]:
        paper.remark("There was no wallet yet.")
    paper.remark(
        "Settled balances: credits on hold are still in them. Entries are in the month in which they were booked."
        " Usage of free models moves nothing and is not listed."
    )
    return paper.finished()


class _Paper(FPDF):
    """An A4 page after the other, with the few shapes that these documents are made of."""

    def __init__(self, title: str, dated: str) -> None:
        super().__init__(format="A4", unit="mm")
        self._title = title
        self._lacking = False
        at = to_datetime(parse_time(dated)).replace(microsecond=0)
        self.set_creation_date(at)
        self.set_title(title)
        self.set_lang("en")
        self.add_font(FAMILY, "", FONTS / "DejaVuSans.ttf")
        self.add_font(FAMILY, "B", FONTS / "DejaVuSans-Bold.ttf")
        regular, bold = (self.fonts[name] for name in (FAMILY, f"{FAMILY}B"))
        assert isinstance(regular, TTFFont)
        assert isinstance(bold, TTFFont)
        self._letters = regular.cmap.keys() & bold.cmap.keys()
        self.set_margins(MARGIN_MM, MARGIN_MM, MARGIN_MM)
        self.set_auto_page_break(True, margin=24.0)
        self.set_draw_color(*RULE)
        self.alias_nb_pages()
        self.add_page()

    def footer(self) -> None:
        """The title and the page's number at the foot of every page."""
        self.set_y(-16)
        self._write(8, GREY)
        self.cell(WIDTH_MM - 30, LINE_MM, self._fitting(self._known(self._title), WIDTH_MM - 32))
        self.cell(30, LINE_MM, f"page {self.page_no()} of {{nb}}", align="R")

    def head(self, what: str, number: str, issuer: Sequence[str]) -> None:
        """Who issues on the left, what this is on the right."""
        top = self.get_y()
        width = WIDTH_MM / 2 - COLUMN_GAP_MM
        for index, line in enumerate(issuer):
            self._write(11 if index == 0 else 8.5, INK if index == 0 else GREY, bold=index == 0)
            self._block(line, width, LINE_MM if index == 0 else 4.2)
        bottom = self.get_y()
        self.set_xy(MARGIN_MM + WIDTH_MM / 2, top)
        self._write(20, INK, bold=True)
        self._block(what, WIDTH_MM / 2, 9, align="R")
        self.set_x(MARGIN_MM + WIDTH_MM / 2)
        self._write(10, GREY)
        self._block(number, WIDTH_MM / 2, LINE_MM, align="R")
        self.set_y(max(bottom, self.get_y()) + 8)
        self.line(MARGIN_MM, self.get_y(), MARGIN_MM + WIDTH_MM, self.get_y())
        self.ln(8)

    def parties(self, label: str, lines: Sequence[str], facts: Sequence[tuple[str, str]]) -> None:
        """Whom it is for on the left, what is known of it on the right."""
        top = self.get_y()
        left = WIDTH_MM * 0.42
        self._write(8.5, GREY)
        self._block(label, left, LINE_MM)
        self._write(11, INK, bold=True)
        for line in lines:
            self._block(line, left, 5.5)
        bottom = self.get_y()
        start = MARGIN_MM + left + COLUMN_GAP_MM
        self.set_y(top)
        for name, value in facts:
            row = self.get_y()
            self._write(8.5, GREY)
            self.set_x(start)
            self.cell(LABEL_MM, LINE_MM, name)
            self._write(8.5, INK)
            self.set_xy(start + LABEL_MM, row)
            self._block(value, WIDTH_MM - left - COLUMN_GAP_MM - LABEL_MM, LINE_MM)
        self.set_y(max(bottom, self.get_y()) + 8)

    def section(self, title: str) -> None:
        """The title of a table, on the same page as the first of its lines."""
        if self.will_page_break(40):
            self.add_page()
        self._write(11, INK, bold=True)
        self._block(title, WIDTH_MM, 7)
        self.ln(1)

    def lines(self, columns: tuple[str, str, str], rows: Sequence[tuple[str, str, str]]) -> None:
        """A table: a text that may be long, and two numbers. Its head stands again on every page."""
        widths = (WIDTH_MM - 80, 36.0, 44.0)
        self._columns(columns, widths)
        for row in rows:
            text = self._known(row[0])
            self._write(9, INK)
            wrapped = self.multi_cell(widths[0] - 4, LINE_MM, text, dry_run=True, output=MethodReturnValue.LINES)
            assert isinstance(wrapped, list)
            height = LINE_MM * len(wrapped) + 3
            if self.will_page_break(height):
                self.add_page()
                self._columns(columns, widths)
            self._row(row, widths, height)
            self.line(MARGIN_MM, self.get_y(), MARGIN_MM + WIDTH_MM, self.get_y())

    def total(self, label: str, amount: str) -> None:
        """The last line of a table."""
        if self.will_page_break(12):
            self.add_page()
        self.ln(1.5)
        self._write(10, INK, bold=True)
        self.cell(WIDTH_MM - 70, 7, label, align="L")
        self.cell(70, 7, amount, align="R", new_x=XPos.LMARGIN, new_y=YPos.NEXT)
        self.ln(7)

    def remark(self, text: str) -> None:
        """A sentence in small letters, whole on one page."""
        self._write(8.5, GREY)
        text = self._known(text)
        wrapped = self.multi_cell(WIDTH_MM, 4.4, text, dry_run=True, output=MethodReturnValue.LINES)
        assert isinstance(wrapped, list)
        if self.will_page_break(4.4 * len(wrapped)):
            self.add_page()
            self._write(8.5, GREY)
        self._block(text, WIDTH_MM, 4.4)
        self.ln(1.2)

    def finished(self) -> bytes:
        """The bytes of the document."""
        if self._lacking:
            self.remark(MISSING_NOTE)
        return bytes(self.output())

    def _columns(self, names: tuple[str, str, str], widths: tuple[float, float, float]) -> None:
        self.set_fill_color(*SHADE)
        self._write(8.5, GREY)
        for name, width, align, next_x in zip(
            names, widths, "LRR", (XPos.RIGHT, XPos.RIGHT, XPos.LMARGIN), strict=True
        ):
            new_y = YPos.NEXT if next_x is XPos.LMARGIN else YPos.TOP
            text = self._fitting(self._known(name), width - 2)
            self.cell(width, 7, text, align=align, fill=True, new_x=next_x, new_y=new_y)

    def _row(self, row: tuple[str, str, str], widths: tuple[float, float, float], height: float) -> None:
        top = self.get_y() + 1.5
        self._write(9, INK)
        self.set_xy(MARGIN_MM, top)
        self._block(row[0], widths[0] - 4, LINE_MM)
        left = MARGIN_MM + widths[0]
        for text, width in zip(row[1:], widths[1:], strict=True):
            self.set_xy(left, top)
            self.cell(width, LINE_MM, self._known(text), align="R")
            left += width
        self.set_xy(MARGIN_MM, top - 1.5 + height)

    def _block(self, text: str, width: float, line: float, *, align: str = "L") -> None:
        """Text in as many lines as it needs, broken inside a word where the word is too long for a line."""
        self.multi_cell(width, line, self._known(text), align=align, new_x=XPos.LMARGIN, new_y=YPos.NEXT, padding=0)

    def _fitting(self, text: str, width: float) -> str:
        """The text, cut with three dots where it is wider."""
        if self.get_string_width(text) <= width:
            return text
        while text and self.get_string_width(text + "…") > width:
            text = text[:-1]
        return text + "…"

    def _known(self, text: str) -> str:
        """The text with what the letters lack as Unicode numbers."""
        known = self._letters
        if all(ord(each) in known or each == "\n" for each in text):
            return text
        self._lacking = True
        return "".join(each if ord(each) in known or each == "\n" else f"[U+{ord(each):04X}]" for each in text)

    def _write(self, points: float, color: tuple[int, int, int], *, bold: bool = False) -> None:
        self.set_font(FAMILY, "B" if bold else "", points)
        self.set_text_color(*color)


def _grouped(amount: str) -> str:
    """A decimal text with its thousands apart: "1234.5" → "1,234.5"."""
    return f"{Decimal(amount):,f}"


def _aligned(amounts: Sequence[str]) -> list[str]:
    """Decimal texts with as many decimals as the longest of them, so that the points stand one below the other."""
    decimals = max(len(amount.partition(".")[2]) for amount in amounts)
    return [f"{Decimal(amount):,.{decimals}f}" for amount in amounts]


def _money(total: str | None, currency: str | None) -> str:
    """What was paid, with two decimals at least: "1,234.50 USD"."""
    if total is None:
        return "not reported"
    amount = Decimal(total)
    exponent = amount.as_tuple().exponent
    shown = f"{amount:,.2f}" if isinstance(exponent, int) and exponent > -2 else f"{amount:,f}"
    return f"{shown} {currency}" if currency else shown


def _local(time: str, time_zone: str) -> datetime:
    return to_datetime(parse_time(time)).astimezone(ZoneInfo(time_zone))


def _date(time: str, time_zone: str) -> str:
    at = _local(time, time_zone)
    return f"{at.day} {at:%B %Y}"


def _moment(time: str, time_zone: str) -> str:
    at = _local(time, time_zone)
    return f"{at.day} {at:%B %Y, %H:%M} {time_zone}"


def _month(month: str) -> str:
    return f"{datetime.strptime(month, '%Y-%m'):%B %Y}"
