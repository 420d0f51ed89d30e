"""Signing in and out, the choice of colours, and the pages' own files.

The rules of this file:
1. The form takes an API key and gives a session for it (`streams.api.sessions`). A key that is not good is answered
   as everywhere: the refusal is counted, and what was presented is shown nowhere.
2. Where one is led after a form is an address of the pages, whatever the form says.
3. Files have an address that changes with their content, and may be kept for a year.
"""

from __future__ import annotations

import mimetypes
import time
from typing import Annotated, Any, Final
from urllib.parse import parse_qsl

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from streams.api.callers import EVERY_ROLE, Caller, allowed
from streams.api.door import DETAILS
from streams.api.problems import ProblemError
from streams.api.refusals import refusals
from streams.api.sessions import COOKIE, PAGES, SESSION_S, is_from_another_site
from streams.kafka.api_keys import KeyRefusal
from streams.ui.parts import Parts
from streams.ui.shell import HEADERS, STATIC, THEME

FIELDS_MAX: Final = 2_000
YEAR_S: Final = 365 * 86_400
TYPES: Final = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}


async def form_of(request: Request) -> list[tuple[str, str]]:
    """The fields of a form, in order; raises `ProblemError`."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise ProblemError(415, "unsupported_media_type", "send the form as a page does")
    try:
        return parse_qsl(
            (await request.body()).decode(), keep_blank_values=True, errors="strict", max_num_fields=FIELDS_MAX
        )
    except ValueError as error:
        raise ProblemError(400, "bad_request", "the form cannot be read") from error


def own_address(text: str) -> str:
    """An address of the pages to go on at; the list for anything else."""
    plain = text.split("#")[0]
    is_ours = (
        plain.startswith(f"{PAGES}/") and not any(each in plain for each in ("\\", "\n", "\r")) and "//" not in plain
    )
    return plain if is_ours and plain.isascii() else f"{PAGES}/"


def doors_router(router: APIRouter, parts: Parts) -> None:
    """Add the pages to `router`."""
    _add_sessions(router, parts)
    _add_theme(router, parts)
    _add_files(router)


def _add_sessions(router: APIRouter, parts: Parts) -> None:
    @router.get("/sign-in")
    async def sign_in_form(request: Request, next: Annotated[str, Query(max_length=4_000)] = "") -> HTMLResponse:
        """The form."""
        return parts.shell.page(request, "sign_in.html", next=own_address(next), fault="")

    @router.post("/sign-in")
    async def sign_in(request: Request) -> Response:
        """Begin a session with a key, or say why not."""
        fields = dict(await form_of(request))
        if is_from_another_site(request.headers):
            raise ProblemError(403, "form_outdated", "this form came from another site: open the page again")
        now_s = int(time.time())
        found = parts.keyring().find(fields.get("key", "").strip(), now_s * 1_000_000)
        if isinstance(found, KeyRefusal):
            refusals.add(found.value, "none", request.url.path)
            fault = DETAILS[found] if found is not KeyRefusal.UNKNOWN else "This is no API key that is known here."
            fault = f"{fault[:1].upper()}{fault[1:]}"
            back = own_address(fields.get("next", ""))
            return parts.shell.page(request, "sign_in.html", status=401, next=back, fault=fault)
        answer = RedirectResponse(own_address(fields.get("next", "")), status_code=303)
        _set(answer, COOKIE, parts.sessions.begin(found.key_id, now_s), SESSION_S, request, http_only=True)
        return answer

    @router.post("/sign-out")
    async def sign_out(request: Request, _: Annotated[Caller, Depends(allowed(EVERY_ROLE))]) -> Response:
        """End the session in this browser."""
        parts.shell.check_form(request, dict(await form_of(request)))
        answer = RedirectResponse(f"{PAGES}/sign-in", status_code=303)
        answer.delete_cookie(COOKIE, path=PAGES)
        return answer


def _add_theme(router: APIRouter, parts: Parts) -> None:
    @router.post("/theme")
    async def theme(request: Request) -> Response:
        """Dark, light, or as the system says, for this browser."""
        fields = dict(await form_of(request))
        parts.shell.check_form(request, fields)
        answer = RedirectResponse(own_address(fields.get("next", "")), status_code=303)
        chosen = fields.get("theme", "")
        if chosen in ("dark", "light"):
            _set(answer, THEME, chosen, YEAR_S, request, http_only=True)
        else:
            answer.delete_cookie(THEME, path=PAGES)
        return answer


def _add_files(router: APIRouter) -> None:
    @router.get("/static/{name:path}")
    def static(name: str) -> Response:
        """A script, a style or a licence of the pages."""
        path = (STATIC / name).resolve()
        if not path.is_file() or STATIC not in path.parents:
            raise ProblemError(404, "not_found", "there is no such file")
        kind = TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "text/plain; charset=utf-8"
        headers = {**HEADERS, "Cache-Control": f"public, max-age={YEAR_S}, immutable"}
        return Response(path.read_bytes(), media_type=kind, headers=headers)


def _set(answer: Any, name: str, value: str, max_age_s: int, request: Request, *, http_only: bool) -> None:
    """Set a cookie of the pages; `Secure` where the browser says that it came by HTTPS."""
    secure = request.headers.get("origin", "").startswith("https://")
    answer.set_cookie(name, value, max_age=max_age_s, path=PAGES, httponly=http_only, samesite="strict", secure=secure)
