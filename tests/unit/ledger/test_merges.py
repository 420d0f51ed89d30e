"""A second account of an org: what counts of it, that closing takes it to nothing, and that what moves is the rest."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError, KafkaException
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.amounts import NANOS
from schemas.codec import batch_of
from schemas.enums import EntryReason
from streams.engine import rebuild
from streams.engine.failures import FencedError, PartitionLostError
from streams.engine.rebuild import WorkerAtWorkError
from streams.errors import KafkaUnavailableError, OperatorError
from streams.ledger.account import Account, new_account
from streams.ledger.entry import Entry, Outcome
from streams.ledger.evolve import evolve
from streams.ledger.merges import WalletMerge, close_second_account, closed, merge_of
from streams.processing import merging
from streams.processing.merging import AccountMerge, moving_records
from streams.verify.fold import Differences, LedgerFold
from tests.brokers import test_settings
from tests.model.memory import NOW_US, FixedPrices, MemoryLedger, Sent, sent
from tests.unit.processing.test_step import purchase, setting, usage

DAY_US = 86_400_000_000


def cost(event_id: str, nanos: int, wallet: str = "USD") -> Sent:
    return usage(event_id, cost_nanos=nanos, wallet=wallet)


def booked(*records: Sent) -> tuple[Account, list[Entry]]:
    """An account and its entries."""
    book = MemoryLedger(FixedPrices([]))
    if records:
        book.feed(records)
    entries = [Entry.from_record(row) for row in book.rows("ledger")]
    return (book.account("acme") if records else new_account("acme")), entries


def merged(there: list[Sent], home: list[Sent]) -> tuple[list[WalletMerge], Account, Outcome]:
    """What counts of the account of `there`, and the account closed."""
    account, entries = booked(*there)
    wallets = merge_of(account, entries, booked(*home)[1])
    return wallets, account, close_second_account(account, 5, NOW_US)


def moves(there: list[Sent], home: list[Sent]) -> dict[str, int]:
    return {wallet.unit: wallet.moves for wallet in merged(there, home)[0]}


def test_what_only_the_second_account_booked_moves() -> None:
    assert moves([purchase("p1"), cost("e1", 3 * NANOS)], []) == {"USD": 7 * NANOS}


def test_what_both_booked_counts_once() -> None:
    both = [purchase("p1"), cost("e1", 3 * NANOS)]
    assert moves([*both, cost("e2", NANOS)], both) == {"USD": -NANOS}


def test_the_same_id_of_another_kind_is_another_cause() -> None:
    assert moves([cost("x1", 2)], [purchase("x1")]) == {"USD": -2}


def test_an_allowance_that_both_were_granted_counts_once() -> None:
    allowance = setting("s1", "wallet", '{"unit": "USD", "default": true, "allowance": "100"}')
    assert moves([allowance, cost("e1", 5)], [allowance]) == {"USD": -5}
    assert moves([allowance, cost("e1", 5)], []) == {"USD": 100 * NANOS - 5}


def test_what_expired_of_a_grant_that_both_have_is_not_owed() -> None:
    gone = purchase("p1", kind="promotional", expires_at=NOW_US - 1)
    assert moves([gone, cost("e1", 5)], [gone]) == {"USD": -5}


def test_grants_move_with_their_expiry_and_only_as_far_as_they_count() -> None:
    end = NOW_US + 30 * DAY_US
    there = [purchase("p1", amount=4 * NANOS, expires_at=end), purchase("p2", amount=6 * NANOS), purchase("twice")]
    (wallet,), _, _ = merged(there, [purchase("twice")])
    assert wallet.moves == 10 * NANOS
    assert [(lot.amount_nanos, lot.expires_at) for lot in wallet.lots] == [(4 * NANOS, end), (6 * NANOS, None)]
    records = moving_records(AccountMerge("acme", 5, 1, 3, [wallet], 0, 0), NOW_US)
    assert [
        (kind, fields["purchase_id"], fields["amount_nanos"], fields["expires_at"]) for kind, fields in records
    ] == [
        ("purchase", "account-merge/5/USD/1", 4 * NANOS, end),
        ("purchase", "account-merge/5/USD/2", 6 * NANOS, None),
    ]


@pytest.mark.parametrize(
    "records",
    [
        [purchase("p1"), cost("e1", 3 * NANOS)],
        [cost("e1", 3 * NANOS)],
        [purchase("p1"), cost("e1", 3 * NANOS, "EUR")],
        [setting("s1", "org", '{"tier": "pro"}')],
        [
            purchase("p1"),
            sent("hold", {"hold_id": "h", "org_id": "acme", "action": "place", "wallet": "USD", "amount_nanos": NANOS}),
        ],
    ],
)
def test_closing_takes_every_wallet_to_nothing_and_says_so_last(records: list[Sent]) -> None:
    account, entries = booked(*records)
    outcome = close_second_account(account, 5, NOW_US)
    assert not any(wallet.settled or wallet.held or wallet.overdraft for wallet in account.wallets.values())
    assert not account.holds
    whole = [*entries, *outcome.entries]
    assert closed(whole)
    assert not closed(entries)
    assert {entry.reason for entry in outcome.entries} == {EntryReason.ACCOUNT_MERGED}
    assert not outcome.alerts
    assert not outcome.topup_requests
    folded = new_account("acme")
    for entry in whole:
        evolve(folded, entry)
    assert folded == account
    audit = LedgerFold()
    audit.differences = Differences()
    audit.add(batch_of("entry", [entry.to_record() for entry in whole]))
    audit.finish()
    assert audit.differences.kept == []


RECORDS = st.lists(
    st.one_of(
        st.builds(cost, st.sampled_from([f"e{n}" for n in range(9)]), st.integers(1, 3 * NANOS)),
        st.builds(purchase, st.sampled_from(["p1", "p2", "p3"]), amount=st.just(2 * NANOS)),
    ),
    max_size=12,
)


@settings(max_examples=20, deadline=None)
@given(RECORDS, RECORDS)
def test_home_and_what_moves_are_the_sum_of_each_cause_once(there: list[Sent], home: list[Sent]) -> None:
    """The balance after a merge is that of one account which booked every cause of both once."""
    _, at_home = booked(*home)
    causes: dict[tuple[str, str], int] = {}
    for entry in [*booked(*there)[1], *at_home]:  # where the contents differ the org's own account is right
        if entry.amount_nanos:
            causes[entry.kind, entry.event_id] = entry.amount_nanos
    moved = moves(there, home).get("USD", 0) if there else 0
    assert sum(entry.amount_nanos for entry in at_home) + moved == sum(causes.values())


def second_account() -> AccountMerge:
    return AccountMerge("acme", 1, 0, 3, [], 0, 0)


def run_merge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """A merge whose transaction ends so."""

    async def book_output(*_arguments: object) -> None:
        raise error

    monkeypatch.setattr(merging, "book_output", book_output)
    merging.merge(test_settings(tmp_path), None, second_account(), NOW_US)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("lost", "failure"),
    [
        (PartitionLostError("a commit took 5.1 s"), KafkaUnavailableError),
        (FencedError("another producer"), WorkerAtWorkError),
    ],
)
def test_a_merge_of_which_it_is_not_known_whether_it_went_through_is_to_be_run_again(
    lost: Exception, failure: type[OperatorError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "refuse_while_working", lambda _settings: None)
    with pytest.raises(failure) as told:
        run_merge(tmp_path, monkeypatch, lost)
    assert "run the command again" in told.value.remedy


def test_a_group_that_cannot_be_asked_for_is_not_taken_for_one_without_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer: Future[None] = Future()
    answer.set_exception(KafkaException(KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED)))
    admin = SimpleNamespace(describe_consumer_groups=lambda groups, **_options: dict.fromkeys(groups, answer))
    monkeypatch.setattr(rebuild, "AdminClient", lambda _config: admin)
    with pytest.raises(KafkaUnavailableError, match="cannot be asked for"):
        run_merge(tmp_path, monkeypatch, AssertionError("nothing may be written"))
