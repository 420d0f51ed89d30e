"""Errors as RFC 9457 problem details, with a stable `code` beside the status."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from clickhouse_connect.driver.exceptions import ClickHouseError
from confluent_kafka import KafkaException
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from projections.clickhouse import first_line, is_passing
from schemas.codec import RegistryUnavailableError
from streams.errors import KafkaUnavailableError, OperatorError

if TYPE_CHECKING:
    from fastapi import FastAPI, Request

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:credits:problem:"

# Codes for what the web framework refuses by itself.
CODES = {400: "bad_request", 401: "unauthorized", 403: "forbidden", 404: "not_found", 405: "method_not_allowed"}

TRY_AGAIN = (429, 503)
"""What passes by itself: answered with `Retry-After`."""
RETRY_AFTER_S = 1


class AsciiJson(JSONResponse):
    """JSON in ASCII, so that there is nothing that UTF-8 cannot hold: what a caller sent may come back in it."""

    def render(self, content: object) -> bytes:
        """See `JSONResponse.render`."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


class ProblemError(Exception):
    """Ends a request with a problem document. `code` is stable; `detail` is one sentence for people."""

    def __init__(self, status: int, code: str, detail: str, **members: object) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.members = members


def retry_after(ends_at: int, now: int) -> str:
    """`Retry-After` of what ends at `ends_at`; both in microseconds."""
    return str(max(1, -((now - ends_at) // 1_000_000)))


def problem(status: int, code: str, detail: str, **members: object) -> JSONResponse:
    """The response for a problem; `members` are added to the document. What passes by itself has `Retry-After`."""
    document = {"type": TYPE_PREFIX + code, "title": code.replace("_", " "), "status": status, "detail": detail}
    headers = {"Retry-After": str(RETRY_AFTER_S)} if status in TRY_AGAIN else None
    return AsciiJson({**document, "code": code, **members}, status_code=status, headers=headers, media_type=MEDIA_TYPE)


def install_problems(api: FastAPI) -> None:
    """Have every error of `api` answered as a problem."""

    @api.exception_handler(ProblemError)
    async def _told(_: Request, error: ProblemError) -> JSONResponse:
        return problem(error.status, error.code, error.detail, **error.members)

    @api.exception_handler(KafkaException)
    async def _failing(_: Request, error: KafkaException) -> JSONResponse:
        return problem(503, KafkaUnavailableError.code, f"Kafka cannot be asked now: {error.args[0].str()}")

    @api.exception_handler(RegistryUnavailableError)
    async def _no_schemas(_: Request, error: RegistryUnavailableError) -> JSONResponse:
        return problem(503, "registry_unavailable", f"the schema registry cannot be asked: {error}")

    @api.exception_handler(OperatorError)
    async def _broken(_: Request, error: OperatorError) -> JSONResponse:
        return problem(503, error.code, error.problem)

    @api.exception_handler(ClickHouseError)
    async def _unprojected(_: Request, error: ClickHouseError) -> JSONResponse:
        if not is_passing(error):
            raise error
        answer = problem(503, "clickhouse_unavailable", f"ClickHouse cannot answer now: {first_line(error)}")
        answer.headers["Retry-After"] = "1"
        return answer

    @api.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        faults = [{"field": ".".join(str(part) for part in e["loc"]), "message": e["msg"]} for e in error.errors()]
        return problem(422, "invalid_field", f"{faults[0]['field']}: {faults[0]['message']}", errors=faults)

    @api.exception_handler(HTTPException)
    async def _http(_: Request, error: HTTPException) -> JSONResponse:
        answer = problem(error.status_code, CODES.get(error.status_code, "http_error"), str(error.detail))
        answer.headers.update(error.headers or {})  # which methods a path has (405)
        return answer

    @api.exception_handler(Exception)
    async def _bug(_: Request, error: Exception) -> JSONResponse:
        return problem(500, "internal_error", "an unexpected error; the server's log has the details")
