"""How a command asks a running `serve`: ClickHouse in process has one owner, so the command does not open it itself."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any

from streams.errors import OperatorError
from streams.local.api_key import HEADER, local_key

if TYPE_CHECKING:
    from streams.settings import Settings

ANSWER_TIMEOUT_S = 60.0
EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class ServeAwayError(OperatorError):
    """No `serve` answers."""

    code = "serve_away"


class RefusedError(OperatorError):
    """`serve` answered with a problem; `code` is the problem's."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


def serve_address(settings: Settings) -> str:
    """Where `serve` listens, as a URL."""
    host = EVERY_ADDRESS.get(settings.http_host, settings.http_host)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.http_port}"


def org_path(org: str, *rest: object) -> str:
    """The path of something of an org, its parts escaped."""
    return "/".join(["/v1/orgs", *(encoded(str(part)) for part in (org, *rest))])


def encoded(part: str) -> str:
    """A part of a path, percent-encoded. Dots too where there is nothing else: a proxy takes `..` for a step up."""
    return urllib.parse.quote(part, safe="") if part.strip(".") else part.replace(".", "%2E")


def credentials(settings: Settings) -> dict[str, str]:
    """What a command presents: the API key of the settings, else the key in the data folder when `serve` uses it."""
    if settings.api_key is not None:
        return {"Authorization": f"Bearer {settings.api_key.get_secret_value()}"}
    local = local_key(settings.data_dir)
    return {} if local is None else {HEADER: local}


def get(settings: Settings, path: str, **query: object) -> bytes:
    """What `serve` answers at a path; a parameter that is None is left out. Raises `ServeAwayError`, `RefusedError`."""
    given = urllib.parse.urlencode({name: value for name, value in query.items() if value is not None})
    address = serve_address(settings)
    url = f"{address}{path}?{given}" if given else f"{address}{path}"
    return _answer(settings, urllib.request.Request(url, headers=credentials(settings)))


def post(settings: Settings, path: str, document: object, accept: str = "application/json") -> bytes:
    """What `serve` answers to a JSON document. Raises `ServeAwayError`, `RefusedError`."""
    headers = {**credentials(settings), "Content-Type": "application/json", "Accept": accept}
    body = json.dumps(document).encode()
    return _answer(settings, urllib.request.Request(f"{serve_address(settings)}{path}", body, headers, method="POST"))


def _answer(settings: Settings, request: urllib.request.Request) -> bytes:
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_TIMEOUT_S) as answer:
            content: bytes = answer.read()
            return content
    except urllib.error.HTTPError as error:
        raise _refused(error) from error
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        raise ServeAwayError(
            f"no `serve` answers at {serve_address(settings)} ({reason})",
            "start `credits up` or `credits serve`, or set CREDITS_HTTP_PORT",
        ) from error


def get_json(settings: Settings, path: str, **query: object) -> dict[str, Any]:
    """The JSON document at a path."""
    document: dict[str, Any] = json.loads(get(settings, path, **query))
    return document


def _refused(error: urllib.error.HTTPError) -> OperatorError:
    try:
        problem = json.loads(error.read())
        return RefusedError(str(problem["code"]), str(problem["detail"]))
    except (ValueError, KeyError, TypeError):
        return ServeAwayError(f"what answers is no `serve` (HTTP {error.code})", "set CREDITS_HTTP_PORT")
