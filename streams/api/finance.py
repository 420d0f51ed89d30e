"""What the routes of invoices and statements share: one question at a time, answers as problems, PDF beside JSON.

Rules of this file: the client of ClickHouse is used by nobody else and asked under a lock; what the projection does not
know is a problem with a stable code; a PDF is asked for by `.pdf` in the address or by `Accept: application/pdf`.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from clickhouse_connect.driver.exceptions import ClickHouseError
from fastapi import Request, Response

from projections.finance import Finance, MonthToComeError, UnknownNumberError, UnknownWalletError
from projections.statements import StatementBrokenError
from streams.api.problems import ProblemError

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

PDF = "application/pdf"
NO_ISSUER = "The issuer is not configured (CREDITS_INVOICE_ISSUER)"

Answer = TypeVar("Answer")


class Desk:
    """Asks for the routes.

    `client` gives the client of ClickHouse, or raises `ProblemError` while there is none; `ledger_topic`: its physical
    name; `issuer`: who sells, as CREDITS_INVOICE_ISSUER says it, lines separated by `|`.
    """

    def __init__(self, client: Callable[[], Client], ledger_topic: str, issuer: str = "") -> None:
        self._client = client
        self._ledger_topic = ledger_topic
        self._asking = threading.Lock()
        self.issuer = [line.strip() for line in issuer.split("|") if line.strip()] or [NO_ISSUER]

    def ask(self, org: str, question: Callable[[Finance], Answer | None]) -> Answer:
        """The answer to a question about an org; raises `ProblemError` where there is none."""
        with self._asking, _told():
            answer = question(Finance(self._client(), self._ledger_topic))
        if answer is None:
            raise ProblemError(404, "unknown_org", f"no entry of {org!r} is projected")
        return answer


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except UnknownNumberError as error:
        raise ProblemError(404, "unknown_number", str(error)) from error
    except UnknownWalletError as error:
        raise ProblemError(404, "unknown_wallet", str(error)) from error
    except MonthToComeError as error:
        raise ProblemError(404, "month_to_come", str(error)) from error
    except StatementBrokenError as error:
        raise ProblemError(500, "statement_broken", f"{error}: run `credits verify`") from error
    except ClickHouseError as error:
        raise ProblemError(503, "clickhouse_unavailable", "ClickHouse does not answer; try again") from error


def wants_pdf(request: Request) -> bool:
    """Whether `Accept` asks for PDF before JSON: the first of the two that it names."""
    kinds = [part.partition(";")[0].strip().lower() for part in request.headers.get("accept", "").split(",")]
    return next((kind for kind in kinds if kind in (PDF, "application/json")), "") == PDF


def pdf_answer(content: bytes, name: str) -> Response:
    """The response that carries a PDF; `name`: of the file, made safe for a header."""
    safe = "".join(each if each.isascii() and (each.isalnum() or each in "._-") else "_" for each in name)
    return Response(content, media_type=PDF, headers={"Content-Disposition": f'inline; filename="{safe}.pdf"'})


PDF_TOO: dict[int | str, dict[str, Any]] = {200: {"content": {PDF: {}}, "description": "JSON, or PDF when asked for"}}
"""What OpenAPI says of a route that answers both."""
