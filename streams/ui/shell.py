"""What every page has: its frame, its headers, and what it says when it cannot answer.

The rules of this file:
1. A page is HTML made here, and needs no script to be read. Scripts, styles and pictures are files of this package;
   the content security policy lets in nothing else, and no script or style inside a page.
2. What comes from outside is escaped by the templates, all of it and always.
3. What cannot be answered is a page, too, with the same status and code as the API's problem, and says what to do.
4. A form counts only with the token of its session, and never when the browser says that another site has sent it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import jinja2
from clickhouse_connect.driver.exceptions import ClickHouseError
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute

from projections.clickhouse import first_line, is_passing
from schemas.codec import RegistryUnavailableError
from streams.api.callers import SCOPE_NAME, Caller, NotAuthorizedError
from streams.api.problems import TRY_AGAIN, ProblemError
from streams.api.refused_calls import add_refused
from streams.api.sessions import Sessions, cookie_of, is_from_another_site
from streams.errors import OperatorError
from streams.ui import shown

if TYPE_CHECKING:
    from fastapi import Request, Response

HERE: Final = Path(__file__).parent
STATIC: Final = HERE / "static"
THEME: Final = "credits_theme"
FORM_TOKEN: Final = "form_token"
NOT_AUTHORIZED: Final = "You are not authorized to make changes. Ask an owner or an admin of this organisation."
"""Product rule 33."""

HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
}

WHAT_TO_DO: Final = {
    400: "Check the address.",
    401: "Sign in with an API key.",
    403: "Ask an operator for a key that may see this.",
    404: "Check the address, or go back to the list. What was just booked may take a second to be shown.",
    413: "Send less at once.",
    422: "Change what was entered, and try again.",
    503: "Balances and bookings go on meanwhile. Try again in a moment.",
}


def _version(name: str) -> str:
    """A few digits of a file's content: an address that changes with it may be kept by browsers."""
    return hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:10]


class Shell:
    """Renders templates with what every page shows."""

    def __init__(self, sessions: Sessions, vitals: Callable[[], Mapping[str, Any]]) -> None:
        self._sessions = sessions
        self._vitals = vitals
        self._templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        versions = {path.relative_to(STATIC).as_posix(): "" for path in STATIC.rglob("*") if path.is_file()}
        versions = {name: _version(name) for name in versions}
        self._templates.globals.update(
            static=lambda name: f"/ui/static/{name}?v={versions[name]}",
            exact=shown.exact,
            STATUS=shown.STATUS,
            health_of=shown.health_of,
            NOT_AUTHORIZED=NOT_AUTHORIZED,
        )
        self._templates.filters.update(
            amount=shown.amount,
            count=shown.count,
            words=shown.words,
            setting_text=shown.setting_text,
            moment=shown.moment,
            day=shown.day,
            segment=shown.segment,
            ago=lambda value: shown.ago(value, datetime.now(UTC)),
        )

    def page(
        self,
        request: Request,
        template: str,
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        **shows: Any,
    ) -> HTMLResponse:
        """A page, or with `partial` in the template's name a part of one."""
        caller = request.scope.get(SCOPE_NAME)
        given = {
            "request": request,
            "path": request.url.path,
            "caller": caller,
            "signed_in": isinstance(caller, Caller) and caller.name.startswith("key:"),
            "theme": theme_of(request),
            "form_token": self._sessions.form_token(session_of(request)),
            "vitals": self._vitals(),
            "org": None,
            "zone": "UTC",
        }
        text = self._templates.get_template(template).render(given | shows)
        return HTMLResponse(text, status_code=status, headers={**HEADERS, **(headers or {})})

    def problem(self, request: Request, error: ProblemError) -> HTMLResponse:
        """The page that says why there is no answer."""
        headers = {"Retry-After": "1"} if error.status in TRY_AGAIN else None
        to_do = WHAT_TO_DO.get(error.status, "Try again; if it stays so, the log of the server says more.")
        return self.page(request, "problem.html", status=error.status, headers=headers, problem=error, to_do=to_do)

    def check_form(self, request: Request, fields: Mapping[str, str]) -> None:
        """Raise `ProblemError` (403) unless a form comes from a page of the same session."""
        token = fields.get(FORM_TOKEN, "")
        if is_from_another_site(request.headers) or not self._sessions.is_form_token(token, session_of(request)):
            raise ProblemError(403, "form_outdated", "this form is not of your session any more: open the page again")


def session_of(request: Request) -> str | None:
    """The cookie of the session; None: there is none."""
    return cookie_of(request.headers.get("cookie", "").encode("latin-1", "replace"))


def theme_of(request: Request) -> str:
    """`dark`, `light`, or empty for what the system says."""
    chosen = request.cookies.get(THEME, "")
    return chosen if chosen in ("dark", "light") else ""


def page_route(shell: Shell) -> type[APIRoute]:
    """The class of the pages' routes: every error is answered as a page."""

    class PageRoute(APIRoute):
        """A route whose refusals are pages."""

        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            """The handler, with its errors turned into pages."""
            handler = super().get_route_handler()

            async def handle(request: Request) -> Response:
                try:
                    return await handler(request)
                except REFUSED as error:
                    found = _problem_of(error)
                    if found is None:
                        raise
                    if isinstance(found, NotAuthorizedError):
                        add_refused(request, found.caller.name, request.path_params.get("org", ""), found.detail)
                    return shell.problem(request, found)

            return handle

    return PageRoute


REFUSED: Final = (ProblemError, OperatorError, RegistryUnavailableError, RequestValidationError, ClickHouseError)


def _problem_of(error: Exception) -> ProblemError | None:
    """What the page says of an error, with the API's statuses and codes; None: it is a bug, and the API answers."""
    match error:
        case ProblemError():
            return error
        case OperatorError():
            return ProblemError(503, error.code, error.problem)
        case RegistryUnavailableError():
            return ProblemError(503, "registry_unavailable", f"the schema registry cannot be asked: {error}")
        case RequestValidationError():
            first = error.errors()[0]
            return ProblemError(422, "invalid_field", f"{first['loc'][-1]}: {first['msg']}")
        case ClickHouseError() if is_passing(error):
            return ProblemError(503, "clickhouse_unavailable", f"ClickHouse cannot answer now: {first_line(error)}")
    return None
