"""Ids, keys and operations full of control characters, through worker and commands: none reaches a terminal."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from schemas.amounts import NANOS
from schemas.codec import encode_one
from schemas.enums import InputKind
from streams.cli import main
from tests.integration.ledger.events import PRICE_LIST, purchase, usage
from tests.integration.ledger.installation import LedgerInstallation, schema_id

EVIL = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202e\u2028\x7f\n2026-01-01 [info] forged [red]x[/]"
COMMANDS = (
    ["dead-letters", "list"],
    ["dead-letters", "show", "NAME"],
    ["tail", "dead-letters", "--no-follow"],
    ["tail", "ledger", "--no-follow"],
    ["verify", "--no-clickhouse"],
    ["balance", EVIL],
    ["balance", "acme"],
    ["doctor"],
)


@pytest.mark.slow
@pytest.mark.fault(
    "terminal-escapes",
    title="Control characters in ids, keys, operations and messages",
    provoked="records whose key, id and operation hold escape sequences, C1 codes, bidirectional overrides and line "
    "ends; then every command that shows them, with and without --json",
    holds="each output and each log line holds printable characters only, and no line that an id has made",
)
def test_nothing_from_outside_paints_a_terminal(
    installation: LedgerInstallation,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    seen: Callable[[str], None],
) -> None:
    installation.send(InputKind.PRICE, PRICE_LIST)
    installation.send(InputKind.PURCHASE, [purchase("p1", "acme", NANOS)])
    for fields in (
        {**usage("x1", "acme", model="m1", input_tokens=1), "event_id": EVIL},
        {**usage("x2", "acme", model="m1", input_tokens=1), "operation": EVIL},
        usage("x3", "acme", model="[red]unheard of[/]", input_tokens=1),
    ):
        installation.send_bytes("usage", b"acme", encode_one("usage", fields, schema_id(InputKind.USAGE)))
    installation.send_bytes("usage", EVIL.encode(), b"no record")
    installation.send_bytes("purchases", b"\xff\x1b", EVIL.encode())
    worker = installation.ready_worker()
    installation.wait_until_booked()
    letters = installation.dead_letters()
    assert len(letters) == 5

    for name, value in installation.environment().items():
        if name.startswith("CREDITS_"):
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("CREDITS_DATA_DIR", str(installation.folder / "nothing"))
    shown = 0
    for command in COMMANDS:
        arguments = [letters[0].name if each == "NAME" else each for each in command]
        for as_json in (False, True):
            with pytest.raises(SystemExit):
                main([*arguments, "--json"] if as_json else arguments)
            captured = capsys.readouterr()
            for text in (captured.out, captured.err):
                assert text.replace("\n", "").isprintable(), (command, text)
                assert not [line for line in text.splitlines() if line.startswith("2026-01-01 [info] forged")]
            if as_json and command[0] not in ("tail",):
                json.loads(captured.out)
            shown += 1
    with pytest.raises(SystemExit):
        main(["dead-letters", "list"])
    listed = capsys.readouterr().out
    assert "\\x1b[2J" in listed
    assert "[red]unheard of[/]" in listed
    assert worker.output.replace("\n", "").isprintable()
    seen(f"{shown} outputs and the worker's log: all printable; an id reads \\x1b[2J in the list of dead letters")
