"""Any sequence of operations, and a question at any time: the answer from memory is what the ledger would decide."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.amounts import format_amount, parse_amount
from schemas.enums import HoldAction, OnShortage
from streams.api.account_view import AccountView
from streams.api.authorize import Authorizer
from streams.engine.accounts import frame_account
from streams.ledger.account import Account, decode_account, encode_account, new_account
from streams.ledger.commands import Hold
from streams.ledger.decide import Context, Source, decide, settle_due
from streams.ledger.entry import HoldDecision, Outcome
from streams.ledger.rating import PriceList
from streams.ledger.refusals import DeadLetter
from streams.settings import Settings
from tests.laws import examples
from tests.property.test_ledger_sequences import model, operation, org, perform, run, unit, user
from tests.unit.ledger.world import DAY, PRICES, World

questions = st.fixed_dictionaries(
    {
        "org": org,
        "wallet": unit,
        "amounts": st.lists(
            st.sampled_from(("0.000000001", "1", "2.5", "10", "40", "100", "1000")), min_size=1, max_size=3
        ),
        "user_id": user,
        "model": st.one_of(model, st.just("free")),
        "operation": st.sampled_from((None, "chat", "deployment", "deployment.create")),
        "passed": st.sampled_from((0, 0, 1, DAY, 40 * DAY)),
    }
)
steps = st.lists(st.tuples(operation, st.lists(questions, max_size=1)), min_size=1, max_size=25)


class Record:
    """A record of the accounts' changelog."""

    def __init__(self, org_id: str, account: Account) -> None:
        self._org = org_id
        self._value = frame_account(account.due_at or 0, encode_account(account), 1)

    def key(self) -> bytes:
        return self._org.encode()

    def value(self) -> bytes:
        return self._value


class Listed:
    """The price list of the world."""

    in_force: PriceList = PRICES

    async def require_current(self) -> None:
        """It is."""


def decided(account: Account, hold: Hold, at: int) -> HoldDecision:
    """What the ledger decides on a hold at `at`. The account is a copy."""
    settle_due(account, at)
    outcome = decide(account, hold, Context(at, PRICES, Source("holds", 0, 1), {}))
    assert isinstance(outcome, Outcome)
    return outcome.decisions[-1]


def copy(world: World, org_id: str) -> Account:
    account = world.accounts.get(org_id)
    return new_account(org_id) if account is None else decode_account(encode_account(account))


def compare(world: World, authorizer: Authorizer, question: dict[str, Any], at: int) -> None:
    org_id = question["org"]
    asked = {name: question[name] for name in ("wallet", "user_id", "model", "operation") if question[name] is not None}
    for amount in question["amounts"]:
        found = authorizer.quickly(org_id, json.dumps({**asked, "amount": amount}).encode())
        assert found is not None
        answer = json.loads(found[0].document + b"}")
        fields = {**asked, "amount_nanos": parse_amount(amount)}
        hold = Hold("asked", org_id, at, HoldAction.PLACE, **fields, on_shortage=OnShortage.REJECT)
        wanted = decided(copy(world, org_id), hold, at)
        assert (answer["allowed"], answer["code"], answer["status"]) == (
            wanted.allowed,
            wanted.code.value,
            wanted.http_status,
        )
        if wanted.allowed:
            assert parse_amount(answer["available"]) - wanted.granted_nanos == wanted.available_nanos
        else:
            assert answer["available"] == format_amount(wanted.available_nanos)
            assert (answer.get("limit_id"), answer.get("window"), answer["detail"]) == (
                wanted.limit_id,
                wanted.limit_window,
                wanted.message or "",
            )
            ends_at = wanted.limit_ends_at
            assert found[0].ends_at == ends_at
            assert ("ends_at" in answer) == (ends_at is not None)
        capped = Hold("asked", org_id, at, HoldAction.PLACE, **fields, on_shortage=OnShortage.CAP)
        granted = decided(copy(world, org_id), capped, at)
        if granted.allowed and question["model"] != "free":
            assert min(parse_amount(amount), parse_amount(answer["grantable"])) == granted.granted_nanos
        assert answer["seq"] == copy(world, org_id).seq
        assert answer["amount"] == amount


@settings(max_examples=examples(150))
@given(steps)
def test_the_answer_is_what_the_ledger_decides_on_a_hold(taken: list[tuple[Any, list[dict[str, Any]]]]) -> None:
    """Whatever is due and not written yet, and however often it was asked before."""
    world = run([], World(timers=False))
    now = [world.at]
    view = AccountView(Settings(_env_file=None, partitions=1), now_us=lambda: now[0])
    view._current_at = time.monotonic()
    authorizer = Authorizer(view, Listed())
    known: dict[str, bytes] = {}
    for step, asked in taken:
        with contextlib.suppress(DeadLetter):
            perform(world, step)
        for org_id, account in world.accounts.items():
            if known.get(org_id) != encode_account(account):
                known[org_id] = encode_account(account)
                if account.seq:
                    view._keep(Record(org_id, account))
        for question in asked:
            view._current_at = time.monotonic()
            now[0] = max(now[0], world.at + question["passed"])
            compare(world, authorizer, question, now[0])
