"""`credits keys create|list|revoke`: the API keys that HTTP asks for."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.fields import ID_CHARACTERS_MAX
from streams.cli.console import JsonFlag, describe, load_settings, note, print_json, print_table, say
from streams.errors import OperatorError
from streams.kafka.api_keys import (
    EVERY_ORGANISATION,
    NAME_CHARACTERS_MAX,
    ORGANISATIONS_MAX,
    RATE_MAX,
    ApiKey,
    KeyRole,
)

if TYPE_CHECKING:
    from streams.settings import Settings

app = typer.Typer(help="Create, list and revoke API keys.", no_args_is_help=True)

DURATION = re.compile(r"([1-9][0-9]{0,4})([mhd])", re.ASCII)
SECONDS = {"m": 60, "h": 3_600, "d": 86_400}


@app.callback()
def _keys() -> None:
    pass


@app.command()
def create(
    role: Annotated[list[KeyRole] | None, typer.Option("--role", help="What the holder may do; several times.")] = None,
    org: Annotated[list[str] | None, typer.Option("--org", help="An organisation it is for; several times.")] = None,
    every_org: Annotated[bool, typer.Option("--every-org", help="It is for every organisation.")] = False,
    name: Annotated[str | None, typer.Option("--name", help="Who holds it, for people.")] = None,
    expires: Annotated[str | None, typer.Option("--expires", help="Such as 90d, 12h, 30m, or an ISO time.")] = None,
    requests_per_s: Annotated[
        int | None,
        typer.Option(
            "--rate", "--requests-per-s", min=1, max=RATE_MAX, help="Requests per second; more are refused (429)."
        ),
    ] = None,
    like: Annotated[
        str | None, typer.Option("--like", help="Take roles, organisations, name and limit of this key: to rotate it.")
    ] = None,
    if_none: Annotated[bool, typer.Option("--if-none", help="Only when no key was ever made.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Make a key and show it once. The key is not kept anywhere, only its SHA-256: store it now.

    To rotate a key without a gap: create another one with --like, move its clients over, revoke the old one.
    """
    from streams.kafka import topics_admin
    from streams.kafka.key_topic import KeyTerms, create_key, read_keys

    settings = load_settings()
    now = time.time_ns() // 1_000
    topics_admin.apply(settings)
    keyring = read_keys(settings)
    if if_none and len(keyring):
        note("there are keys already; none was made")
        return
    fields = {} if like is None else terms_of(known(keyring.get(like), like))
    if requests_per_s is not None:
        fields["requests_per_s"] = requests_per_s
    if role:
        fields["roles"] = tuple(dict.fromkeys(role))
    if org or every_org:
        fields["organisations"] = organisations_of(org or [], every_org=every_org)
    if name is not None or "name" not in fields:
        fields["name"] = name_of(name or "")
    refuse_missing(fields)
    if expires is not None:
        fields["expires_at"] = end_of(expires, now)
    token, key = create_key(settings, KeyTerms(**fields), now)
    if as_json:
        print_json({"key": token, "record": key.encode().decode(), **shown(key, now)})
        return
    note(f"key {key.key_id} was made; it is shown here and nowhere else:")
    say(token)


@app.command("list")
def list_keys(as_json: JsonFlag = False) -> None:
    """Every key that was made: what it is for, and whether it is active, expired or revoked."""
    from streams.kafka.key_topic import read_keys

    keys = read_keys(load_settings()).keys()
    now = time.time_ns() // 1_000
    rows = [shown(key, now) for key in keys]
    if as_json:
        print_json({"keys": rows})
        return
    if not rows:
        say("there are no keys")
        return
    columns = ("key_id", "state", "roles", "organisations", "expires_at", "requests_per_s", "created_at", "name")
    print_table(columns, [[cell(row[column]) for column in columns] for row in rows])


@app.command()
def revoke(
    key_ids: Annotated[list[str], typer.Argument(help="The ids, as `credits keys list` shows them.")],
    as_json: JsonFlag = False,
) -> None:
    """Revoke keys, for good. Within a second no process lets them in."""
    from streams.kafka.key_topic import read_keys, write_keys

    settings: Settings = load_settings()
    keyring = read_keys(settings)
    now = time.time_ns() // 1_000
    revoked = [known(keyring.get(key_id), key_id).revoked(now) for key_id in dict.fromkeys(key_ids)]
    write_keys(settings, revoked)
    if as_json:
        print_json({"keys": [shown(key, now) for key in revoked]})
        return
    for key in revoked:
        describe({"revoked": key.key_id, "name": key.name or "–"})


def known(key: ApiKey | None, key_id: str) -> ApiKey:
    """The key itself; raises `OperatorError` when there is none."""
    if key is None:
        raise OperatorError(f"there is no key {key_id}", "see `credits keys list`")
    return key


def terms_of(model: ApiKey) -> dict[str, Any]:
    """What a key takes over from another one."""
    return {
        "roles": model.roles,
        "organisations": model.organisations,
        "name": model.name,
        "requests_per_s": model.requests_per_s,
    }


def refuse_missing(terms: dict[str, Any]) -> None:
    """Raise `OperatorError` where a key would be for nothing."""
    if "roles" not in terms:
        raise OperatorError("a key needs a role", f"give --role: {', '.join(KeyRole)}")
    if "organisations" not in terms:
        raise OperatorError("a key needs organisations", "give --org ORG (several times), or --every-org")


def organisations_of(orgs: list[str], *, every_org: bool) -> tuple[str, ...]:
    """What a key is for, from the options; raises `OperatorError`."""
    if orgs and every_org:
        raise OperatorError("--org and --every-org contradict each other", "give one of them")
    if len(orgs) > ORGANISATIONS_MAX:
        raise OperatorError(f"a key has at most {ORGANISATIONS_MAX:,} organisations", "use --every-org, or more keys")
    if every_org:
        return (EVERY_ORGANISATION,)
    if not all(0 < len(org) <= ID_CHARACTERS_MAX and org.isprintable() and org != EVERY_ORGANISATION for org in orgs):
        raise OperatorError(
            f"an organisation's id has 1 to {ID_CHARACTERS_MAX} printable characters", "see --org; all: --every-org"
        )
    return tuple(dict.fromkeys(orgs))


def name_of(name: str) -> str:
    """The name from the option; raises `OperatorError`."""
    if len(name) > NAME_CHARACTERS_MAX or not name.isprintable():
        raise OperatorError(f"a name has at most {NAME_CHARACTERS_MAX} printable characters", "shorten --name")
    return name


def end_of(text: str, now: int) -> int:
    """When a key expires, in microseconds, from `90d` or an ISO time; raises `OperatorError`."""
    from schemas.times import parse_time

    found = DURATION.fullmatch(text)
    if found is not None:
        return now + int(found.group(1)) * SECONDS[found.group(2)] * 1_000_000
    try:
        end = parse_time(text)
    except ValueError as error:
        raise OperatorError(f"--expires {text!r} is no time ({error})", "write 90d, 12h, 30m or an ISO time") from error
    if end <= now:
        raise OperatorError(f"--expires {text} has passed", "give a time to come")
    return end


def shown(key: ApiKey, now: int) -> dict[str, Any]:
    """A key for people and machines: everything but its hash."""
    from schemas.times import format_time

    def moment(micros: int | None) -> str | None:
        return None if micros is None else format_time(micros)

    return {
        "key_id": key.key_id,
        "name": key.name,
        "state": key.state(now),
        "roles": list(key.roles),
        "organisations": list(key.organisations),
        "created_at": moment(key.created_at),
        "expires_at": moment(key.expires_at),
        "revoked_at": moment(key.revoked_at),
        "requests_per_s": key.requests_per_s,
    }


def cell(value: object) -> str:
    """A value in a table; lists in short."""
    if isinstance(value, list):
        return ",".join(value[:3]) + (f" and {len(value) - 3} more" if len(value) > 3 else "")
    return "–" if value is None or value == "" else str(value)
