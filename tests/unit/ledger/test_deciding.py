"""What `credits bench decision` measures is what it says: the way of a usage with budgets, again and again."""

from __future__ import annotations

from streams.bench.deciding import AT, LEVELS, PRICES, SCOPES, UNITS, USAGE, benchmark_account
from streams.ledger.budgets import count_of
from streams.ledger.decide import Context, Source, decide
from streams.ledger.entry import Outcome


def test_the_account_has_what_the_figure_is_told_with() -> None:
    account = benchmark_account()
    rules = sum(len(wallet.rules) for wallet in account.wallets.values())
    assert (len(account.wallets), rules, count_of(account)) == (3, 10, 5) == (len(UNITS), 2 * len(LEVELS), len(SCOPES))


def test_deciding_again_and_again_stays_on_the_same_way() -> None:
    account = benchmark_account()
    before = account.seq
    for _ in range(20_000):
        outcome = decide(account, USAGE, Context(AT, PRICES, Source("topic", 0, 1)))
        assert isinstance(outcome, Outcome)
        assert not outcome.alerts
    assert account.seq == before + 20_000
    assert account.wallets["USD"].budgeted_fast_path_limit > 0
