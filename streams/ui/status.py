"""The status line by itself, for pages that stay open; and the page behind it, with the verification as a job.

The rules of this file:
1. The verification is `credits verify`, in a process of its own, because it reads the whole ledger. Pages do not wait
   for it. One runs at a time. It ends with the process that serves, and after `VERIFY_MAX_S`.
2. The page shows how many records it has read, and at its end what it found. Who may start it is an admin of all.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from projections import queries
from projections.reads import Reads
from streams.api.callers import EVERY_ROLE, READS_STATEMENTS, Caller, NotAuthorizedError, allowed
from streams.api.problems import ProblemError
from streams.kafka.api_keys import KeyRole
from streams.ui.doors import form_of
from streams.ui.parts import Parts
from streams.ui.shell import NOT_AUTHORIZED
from streams.ui.vitals import Verified

VERIFY_MAX_S: Final = 3_600.0
DIFFERENCES_SHOWN: Final = 20
OUTPUT_BYTES_MAX: Final = 64 * 1024 * 1024
_READ = re.compile(rb"reading: ([\d,]+)")

Anyone = Annotated[Caller, Depends(allowed(EVERY_ROLE))]
Reader = Annotated[Caller, Depends(allowed(READS_STATEMENTS))]


@dataclass(slots=True)
class Job:
    """One verification. `problem`: why it has no answer."""

    began_at: datetime
    records: str = "0"
    document: dict[str, Any] | None = None
    problem: str = ""
    task: Any = field(default=None, repr=False)

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self.document is None and not self.problem


def status_router(router: APIRouter, parts: Parts, command: Sequence[str] = ()) -> None:
    """Add the pages to `router`. `command`: runs the verification; for tests."""
    jobs: list[Job] = []
    run = list(command) or [sys.executable, "-m", "streams", "verify", "--json"]

    @router.get("/status/line")
    async def line(request: Request, _: Anyone) -> HTMLResponse:
        """The line as it is now."""
        return parts.shell.page(request, "vitals.html")

    @router.get("/status")
    async def status(request: Request, caller: Reader) -> HTMLResponse:
        """How far everything is, and the verification."""
        rows = await parts.desk.ask(_positions)
        return parts.shell.page(
            request,
            "status.html",
            rows=rows,
            job=jobs[-1] if jobs else None,
            may_verify=_may_verify(caller),
            differences_shown=DIFFERENCES_SHOWN,
            orgs=parts.balances.orgs,
        )

    @router.post("/status/verify")
    async def verify(request: Request, caller: Anyone) -> Response:
        """Begin a verification."""
        parts.shell.check_form(request, dict(await form_of(request)))
        if not _may_verify(caller):
            raise NotAuthorizedError(caller, NOT_AUTHORIZED.rstrip("."))
        if jobs and jobs[-1].runs:
            raise ProblemError(409, "verification_runs", "a verification runs already: it is on the status page")
        job = Job(datetime.now(UTC))
        job.task = asyncio.create_task(_verified(job, run, parts))
        jobs[:] = [job]
        return RedirectResponse("/ui/status", status_code=303)


def _may_verify(caller: Caller) -> bool:
    return caller.may(frozenset({KeyRole.ADMIN})) and caller.is_for_all


def _positions(reads: Reads) -> list[dict[str, Any]]:
    return reads.rows(queries.positions())


async def _verified(job: Job, command: Sequence[str], parts: Parts) -> None:
    """Run the command to its end, and keep what it says."""
    environment = {**os.environ, **_settings_of(parts)}
    process = await asyncio.create_subprocess_exec(
        *command,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=OUTPUT_BYTES_MAX,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    said: list[bytes] = []

    async def follow(lines: asyncio.StreamReader) -> None:
        async for line in lines:
            found = _READ.match(line)
            if found is not None:
                job.records = found[1].decode()
            said[:] = [*said[-4:], line]

    try:
        async with asyncio.timeout(VERIFY_MAX_S):
            following = asyncio.create_task(follow(process.stderr))
            text = await process.stdout.read()
            await following
            await process.wait()
        job.document = json.loads(text)
        found = Verified(
            datetime.now(UTC), bool(job.document["ok"]), job.document["entries"], len(job.document["differences"])
        )
        parts.verified(found)
    except TimeoutError:
        job.problem = f"it took longer than {VERIFY_MAX_S:,.0f} s and was ended: run `credits verify`"
    except (ValueError, KeyError, TypeError):
        last = b" ".join(said[-2:]).decode(errors="replace").strip()
        job.document = None
        job.problem = f"it ended without an answer: {last or 'run `credits verify` to see why'}"
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()


def _settings_of(parts: Parts) -> dict[str, str]:
    """Where the command finds the same installation."""
    named = ("kafka_bootstrap_servers", "namespace", "data_dir", "http_port", "http_host", "partitions")
    given = parts.settings.model_dump(include=set(named), exclude_none=True)
    return {f"CREDITS_{name.upper()}": str(value) for name, value in given.items()}
