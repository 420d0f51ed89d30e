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
    from collections.abc import Callable, Container

    from streams.client.dead_letters import DeadLetter
    from streams.client.replays import LetterState, Replay
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
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many, the newest first.")] = LIMIT,
    every: Annotated[bool, typer.Option("--all", help="Those that were replayed, too.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """List dead letters that are open, the newest last, with how many there are of each code."""
    from streams.client.dead_letters import read_dead_letters
    from streams.client.replays import LetterState, read_replays, states_of

    settings = _settings()
    replays = read_replays(settings)
    letters = list(read_dead_letters(settings))
    states = states_of(letters, replays)
    chosen = list(filter(_choice(code, org), letters))
    found = [letter for letter in chosen if every or states[letter.name] is LetterState.OPEN]
    replayed = len(chosen) - sum(states[letter.name] is LetterState.OPEN for letter in chosen)
    found.sort(key=lambda letter: (letter.at_ms, letter.partition, letter.offset))
    codes = Counter(letter.code for letter in found)
    shown = found[-limit:]
    if as_json:
        documents = [_document(each, states[each.name], replays.get(each.name)) for each in shown]
        print_json({"count": len(found), "codes": dict(codes), "replayed": replayed, "dead_letters": documents})
        return
    if not found:
        say("no dead letters" if not replayed else f"no open dead letters ({replayed:,} were replayed: --all)")
        return
    headings = ["id", "time", "code", "topic", "key", "message", *(["state"] if every else [])]
    rows = [
        [each.name, _time(each.at_ms), each.code, each.topic, _text(each.key), each.message]
        + ([_state(states[each.name], replays.get(each.name))] if every else [])
        for each in shown
    ]
    print_table(headings, rows)
    counts = ", ".join(f"{count:,} {name}" for name, count in codes.most_common())
    note(f"{len(found):,} {'' if every else 'open '}dead letters: {counts}")
    if replayed and not every:
        note(f"{replayed:,} more were replayed: --all lists them, too")
    note("`credits dead-letters show ID` shows one; `credits dead-letters replay ID` sends it again")


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="ID", help="As `list` shows it: partition:offset.")],
    as_json: JsonFlag = False,
) -> None:
    """Show one dead letter: why, from where, how it stands, its bytes, and its fields where they can be read."""
    from streams.client.dead_letters import read_dead_letters
    from streams.client.replays import read_replays, states_of

    settings = _settings()
    letter = _named(settings, name)
    replay = read_replays(settings).get(letter.name)
    others = () if replay is None else read_dead_letters(settings)  # where it failed again, one of them says so
    state = states_of([letter, *others], {} if replay is None else {letter.name: replay})[letter.name]
    document = _document(letter, state, replay) | {"became": _became(settings, letter, state, replay)}
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
    import time

    from schemas.topics import Topics
    from streams.client import CreditsProducer
    from streams.client.dead_letters import newest_of_each, read_dead_letters
    from streams.client.replays import read_replays, replay_all

    settings = _settings()
    if bool(names) == bool(every or code or org):
        raise typer.BadParameter("name dead letters, or choose them with --all, --code or --org")
    older = 0
    if names:
        letters = [_named(settings, name) for name in names]
    else:
        # One that was replayed is not sent again by a choice of many: where it failed again, there is a newer letter.
        letters, older = newest_of_each(read_dead_letters(settings), _open(read_replays(settings), _choice(code, org)))
    refusals = [letter.refusal for letter in letters if letter.refusal is not None]
    if names and refusals:
        raise OperatorError(refusals[0], "have its producer send the record again")
    with CreditsProducer(settings) as producer:
        whole = [letter for letter in letters if letter.refusal is None]
        sent = replay_all(producer, whole, Topics(settings.namespace).name("replays"), time.time_ns() // 1_000_000)
    if as_json:
        print_json({"replayed": sent, "older": older, "left_out": refusals})
        return
    if older:
        note(f"left out: {older:,} older dead letters of records that have a newer one")
    for refusal in refusals:
        note(f"left out: {refusal}")
    say(f"sent {sent:,} records again")


def _settings() -> Settings:
    from streams.kafka import topics_admin

    settings = load_settings()
    topics_admin.connect(settings)
    return settings


def _choice(code: DeadLetterCode | None, org: str | None) -> Callable[[DeadLetter], bool]:
    """Whether a dead letter has this code and this key, as far as they are given."""
    key = None if org is None else org.encode()
    return lambda letter: (code is None or letter.code == code.value) and (key is None or letter.key == key)


def _open(replayed: Container[str], chosen: Callable[[DeadLetter], bool]) -> Callable[[DeadLetter], bool]:
    """Whether a dead letter is chosen and was not replayed."""
    return lambda letter: letter.name not in replayed and chosen(letter)


def _named(settings: Settings, name: str) -> DeadLetter:
    from streams.client.dead_letters import read_dead_letter

    partition, _, offset = name.partition(":")
    if not (partition.isdigit() and offset.isdigit()):
        raise typer.BadParameter(f"{name!r} is not partition:offset")
    letter = read_dead_letter(settings, int(partition), int(offset))
    if letter is None:
        raise OperatorError(f"there is no dead letter {name}", "`credits dead-letters list` shows which there are")
    return letter


def _state(state: LetterState, replay: Replay | None) -> str:
    if replay is None:
        return state.value
    return f"{state.value.replace('_', ' ')}, replayed {_time(replay.at_ms)}"


def _became(settings: Settings, letter: DeadLetter, state: LetterState, replay: Replay | None) -> str | None:
    """What a replayed record came to: for people; None where it was not replayed."""
    from streams.client.replays import LetterState, booked_as
    from streams.kafka.registry import connect_registry

    if replay is None:
        return None
    if state is LetterState.FAILED_AGAIN:
        return "a new dead letter"
    entry = booked_as(settings, letter, replay, connect_registry(settings))
    if entry is None:
        return "no entry yet"
    seq, before = entry
    return f"a duplicate of entry {seq}, which was booked before" if before else f"booked as entry {seq}"


def _document(letter: DeadLetter, state: LetterState, replay: Replay | None) -> dict[str, Any]:
    return {
        "id": letter.name,
        "state": state.value,
        "replayed_at": None if replay is None else _time(replay.at_ms),
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
    from streams.kafka.registry import connect_registry

    topic = Topics(settings.namespace).topic(letter.topic)
    if topic is None or topic.record is None or letter.cut:
        return None
    try:
        return decode_one(topic.record, letter.value, connect_registry(settings))
    except (UndecodableError, RegistryUnavailableError):
        return None


def _time(at_ms: int) -> str:
    from streams.kafka.balances import iso_time

    return iso_time(at_ms * 1_000)


def _text(key: bytes | None) -> str:
    return "" if key is None else key.decode(errors="backslashreplace")
