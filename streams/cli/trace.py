"""`credits trace FILE.csv --org O --model M`: a trace of LLM requests as usage events."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.enums import InputKind
from streams.cli.console import load_settings, note, print_json, progress, say, say_json
from streams.errors import OperatorError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streams.client.trace import Request
    from streams.settings import Settings

app = typer.Typer()

STEP_RECORDS = 1_000


@app.command()
def trace(
    file: Annotated[Path, typer.Argument(help="CSV with TIMESTAMP, ContextTokens, GeneratedTokens.")],
    org: Annotated[str, typer.Option("--org", help="Organisation that pays.")],
    model: Annotated[str, typer.Option("--model", help="Model that served the requests.")],
    provider: Annotated[str | None, typer.Option("--provider", help="Who runs the model.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="At most this many requests.")] = None,
    run: Annotated[str, typer.Option("--run", help="Part of the ids: the same trace once more, as other usage.")] = "",
    keep_times: Annotated[bool, typer.Option("--keep-times", help="Do not move the trace to end now.")] = False,
    send: Annotated[bool, typer.Option("--send", help="Send the events; else print them as JSON lines.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --send: print one JSON document.")] = False,
) -> None:
    """Turn a trace of LLM requests into usage events. The same file gives the same event ids, every time.

    Without --send, JSON lines for `credits produce usage` go to standard output. The times are moved so that the trace
    ends now: sent again it is refused, as the same ids with other times, unless --run gives it ids of its own.
    """
    from streams.client.trace import usage_records

    requests = requests_of(file, limit)
    shift_us = 0 if keep_times else shift_to_now_us(requests)
    records = list(usage_records(requests, org, model, shift_us=shift_us, provider=provider, run=run))
    if send:
        sent = _send(load_settings(), records)
        if as_json:
            print_json({"kind": InputKind.USAGE.value, "sent": sent, "org_id": org})
        else:
            say(f"sent {sent:,} usage records of {org}")
        return
    import orjson

    for record in records:
        say_json(orjson.dumps(record).decode())


def requests_of(file: Path, limit: int | None = None) -> list[Request]:
    """The requests in a trace file; raises `OperatorError` naming the line that is wrong."""
    from streams.client.trace import TraceError, read_trace

    if not file.is_file():
        raise OperatorError(f"there is no file {file}", "name a CSV with TIMESTAMP, ContextTokens, GeneratedTokens")
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            requests = list(read_trace(lines))[:limit]
    except (TraceError, UnicodeDecodeError) as error:
        raise OperatorError(f"{file}: {error}", "nothing was sent") from error
    if not requests:
        raise OperatorError(f"{file} holds no requests", "it needs a header and at least one row")
    return requests


def shift_to_now_us(requests: Sequence[Request]) -> int:
    """By how much a trace moves so that it ends now; microseconds."""
    return time.time_ns() // 1_000 - max(request.at for request in requests)


def _send(settings: Settings, records: Sequence[dict[str, Any]]) -> int:
    from pydantic import ValidationError

    from schemas.events import Usage
    from streams.client import CreditsProducer
    from streams.kafka import topics_admin

    try:
        models = [Usage.model_validate(record) for record in records]
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise OperatorError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}", "nothing was sent") from error
    topics_admin.apply(settings)
    with CreditsProducer(settings) as producer, progress("sending usage", len(models)) as steps:
        for number, model in enumerate(models, start=1):
            producer.produce(InputKind.USAGE, model)
            if number % STEP_RECORDS == 0:
                producer.poll()
                steps.advance(STEP_RECORDS)
        producer.flush()
        steps.advance(len(models) % STEP_RECORDS)
    note("the ledger books them as it reads them: see `credits tail ledger`; sent before, `credits dead-letters list`")
    return len(models)
