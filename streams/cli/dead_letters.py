"""`credits dead-letters list|show|replay`: what could not be booked, and sending it again."""

from __future__ import annotations

import base64
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.enums import DeadLetterCode
from streams.cli.console import JsonFlag, describe, load_settings, note, print_json, print_table, say
from streams.errors import OperatorError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from streams.client.dead_letters import DeadLetter
    from streams.settings import Settings

app = typer.Typer(help="List, show and replay what could not be booked.", no_args_is_help=True)

LIMIT = 50
Code = Annotated[DeadLetterCode | None, typer.Option("--code", help="Only those with this code.")]
Org = Annotated[str | None, typer.Option("--org", help="Only those with this key.")]


@app.callback()
def _dead_letters() -> None:
    pass


@app.command("list")
def list_dead_letters(
    code: Code = None,
    org: Org = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="The newest so many.")] = LIMIT,
    as_json: JsonFlag = False,
) -> None:
    """List dead letters, the newest last, with how many there are of each code."""
    found = list(_chosen(_settings(), code, org))
    found.sort(key=lambda letter: (letter.at_ms, letter.partition, letter.offset))
    codes = Counter(letter.code for letter in found)
    shown = found[-limit:]
    if as_json:
        print_json({"count": len(found), "codes": dict(codes), "dead_letters": [_document(each) for each in shown]})
        return
    if not found:
        say("no dead letters")
        return
    rows = [[each.name, _time(each.at_ms), each.code, each.topic, _text(each.key), each.message] for each in shown]
    print_table(["id", "time", "code", "topic", "key", "message"], rows)
    counts = ", ".join(f"{count:,} {name}" for name, count in codes.most_common())
    note(f"{len(found):,} dead letters: {counts}")
    note("`credits dead-letters show ID` shows one; `credits dead-letters replay ID` sends it again")


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="ID", help="As `list` shows it: partition:offset.")],
    as_json: JsonFlag = False,
) -> None:
    """Show one dead letter: why, from where, its bytes, and its fields where they can be read."""
    settings = _settings()
    letter = _named(settings, name)
    document = _document(letter)
    fields = _fields(settings, letter)
    if as_json:
        print_json({**document, "fields": fields})
        return
    value = document.pop("value_base64")
    cut = document.pop("cut")
    describe({key: "" if each is None else each for key, each in document.items()})
    if fields is None:
        if cut:
            say(f"cut: it holds {letter.parts}")
            describe({f"  {name}": text for name, text in cut.items()})
        say(f"value, {len(letter.value or b'')} bytes, base64: {value}")
    else:
        say("fields:")
        describe({f"  {key}": each for key, each in fields.items() if each not in (None, {}, [])})


@app.command()
def replay(
    names: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Which, as `list` shows them.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All of them, or all that --code and --org leave.")] = False,
    code: Code = None,
    org: Org = None,
    as_json: JsonFlag = False,
) -> None:
    """Send dead letters again to where they came from, for example when a missing price has been published.

    What has been booked since is not booked twice. What fails again becomes a new dead letter; of those chosen by
    --all, --code or --org, each record is sent once, by its newest. A dead letter that holds only a part of its record,
    because that was too large, is not sent.
    """
    from streams.client import CreditsProducer
    from streams.client.dead_letters import newest_of_each, read_dead_letters
    from streams.client.dead_letters import replay as send_again

    settings = _settings()
    if bool(names) == bool(every or code or org):
        raise typer.BadParameter("name dead letters, or choose them with --all, --code or --org")
    older = 0
    if names:
        letters = [_named(settings, name) for name in names]
    else:
        letters, older = newest_of_each(read_dead_letters(settings), _choice(code, org))
    refusals = [letter.refusal for letter in letters if letter.refusal is not None]
    if names and refusals:
        raise OperatorError(refusals[0], "have its producer send the record again")
    with CreditsProducer(settings) as producer:
        for letter in letters:
            if letter.refusal is None:
                send_again(producer, letter)
    sent = len(letters) - len(refusals)
    if as_json:
        print_json({"replayed": sent, "older": older, "left_out": refusals})
        return
    if older:
        note(f"left out: {older:,} older dead letters of records that have a newer one")
    for refusal in refusals:
        note(f"left out: {refusal}")
    say(f"sent {sent:,} records again")


def _settings() -> Settings:
    from streams import topics_admin

    settings = load_settings()
    topics_admin.connect(settings)
    return settings


def _chosen(settings: Settings, code: DeadLetterCode | None, org: str | None) -> Iterable[DeadLetter]:
    from streams.client.dead_letters import read_dead_letters

    return filter(_choice(code, org), read_dead_letters(settings))


def _choice(code: DeadLetterCode | None, org: str | None) -> Callable[[DeadLetter], bool]:
    """Whether a dead letter has this code and this key, as far as they are given."""
    key = None if org is None else org.encode()
    return lambda letter: (code is None or letter.code == code.value) and (key is None or letter.key == key)


def _named(settings: Settings, name: str) -> DeadLetter:
    from streams.client.dead_letters import read_dead_letter

    partition, _, offset = name.partition(":")
    if not (partition.isdigit() and offset.isdigit()):
        raise typer.BadParameter(f"{name!r} is not partition:offset")
    letter = read_dead_letter(settings, int(partition), int(offset))
    if letter is None:
        raise OperatorError(f"there is no dead letter {name}", "`credits dead-letters list` shows which there are")
    return letter


def _document(letter: DeadLetter) -> dict[str, Any]:
    return {
        "id": letter.name,
        "time": _time(letter.at_ms),
        "code": letter.code,
        "message": letter.message,
        "topic": letter.topic,
        "partition": letter.source_partition,
        "offset": letter.source_offset,
        "key": _text(letter.key),
        "value_base64": None if letter.value is None else base64.b64encode(letter.value).decode(),
        "cut": dict(letter.cut),
    }


def _fields(settings: Settings, letter: DeadLetter) -> dict[str, Any] | None:
    """The record's fields; None where the bytes are no record."""
    from schemas.codec import RegistryUnavailableError, UndecodableError, decode_one
    from schemas.topics import Topics
    from streams.registry import connect_registry

    topic = Topics(settings.namespace).topic(letter.topic)
    if topic is None or topic.record is None or letter.cut:
        return None
    try:
        return decode_one(topic.record, letter.value, connect_registry(settings))
    except (UndecodableError, RegistryUnavailableError):
        return None


def _time(at_ms: int) -> str:
    from streams.balances import iso_time

    return iso_time(at_ms * 1_000)


def _text(key: bytes | None) -> str:
    return "" if key is None else key.decode(errors="backslashreplace")
