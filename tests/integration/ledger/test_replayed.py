"""Dead letters that were replayed say so (cases 24), by the commands, on the real broker."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from schemas.amounts import NANOS
from schemas.enums import InputKind
from streams.client.replays import LetterState, booked_as, read_replays, replay_all, states_of
from tests.integration.ledger.events import PRICE_LIST, purchase, usage
from tests.integration.ledger.installation import LedgerInstallation
from tests.integration.ledger.test_partitioners import credits


@pytest.mark.slow
@pytest.mark.fault(
    "replayed-dead-letter",
    title="dead letters that were replayed",
    provoked="one whose price came later, one that repeats it, one that fails again; replayed one by one, then all",
    holds="the list shows the open ones; each says when it was replayed and which entry it became",
)
def test_a_dead_letter_that_was_replayed_is_no_longer_listed_and_says_what_it_became(
    installation: LedgerInstallation, seen: Callable[[str], None]
) -> None:
    new = {**PRICE_LIST[0], "price_id": "new", "model": "new"}
    settings, topic = installation.settings, installation.topics.name("replays")
    installation.send(InputKind.PRICE, PRICE_LIST)
    installation.send(InputKind.PURCHASE, [purchase("p1", "acme", 100 * NANOS)])
    unpriced = usage("e1", "acme", model="new", input_tokens=1_000_000)
    never = usage("e2", "acme", model="never", input_tokens=1)
    installation.send(InputKind.USAGE, [unpriced, unpriced, never])
    installation.ready_worker()
    installation.wait_until_booked()
    letters = installation.dead_letters()
    first, second, other = letters = sorted(letters, key=lambda letter: letter.source_offset)
    assert states_of(letters, read_replays(settings)) == dict.fromkeys(
        (letter.name for letter in letters), LetterState.OPEN
    )

    installation.send(InputKind.PRICE, [new])
    for letter in letters:
        assert replay_all(installation.producer, [letter], topic, 1_000) == 1
        installation.sent += 1
        installation.wait_until_booked()

    replays = read_replays(settings)
    letters = installation.dead_letters()
    again = next(letter for letter in letters if letter.name not in replays)
    assert states_of(letters, replays) == {
        first.name: LetterState.REPLAYED,
        second.name: LetterState.REPLAYED,
        other.name: LetterState.FAILED_AGAIN,
        again.name: LetterState.OPEN,
    }
    became = [booked_as(settings, each, replays[each.name], installation.registry) for each in (first, second, other)]
    assert became == [(2, False), (2, True), None]
    listed = credits(installation, "dead-letters", "list")
    assert (listed["count"], listed["replayed"]) == (1, 3)
    assert [letter["id"] for letter in listed["dead_letters"]] == [again.name]
    shown = credits(installation, "dead-letters", "show", first.name)
    assert (shown["state"], shown["became"]) == ("replayed", "booked as entry 2")
    assert shown["replayed_at"] == "1970-01-01T00:00:01+00:00"
    # A choice of many sends what is open, and nothing that was sent already.
    assert credits(installation, "dead-letters", "replay", "--all")["replayed"] == 1
    installation.sent += 1
    installation.wait_until_booked()
    assert installation.report().ok
    seen("booked as entry 2; a duplicate of entry 2; a new dead letter, which alone is listed as open")
