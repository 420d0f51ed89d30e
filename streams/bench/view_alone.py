"""What the accounts' view of `credits api` takes by itself: look-ups, answers, memory. A process of its own.

    python -m streams.bench.view_alone ORGS

The rules of this file: the accounts are given to the view as its reader would; each has one wallet with a purchase, a
month limit and a budget. Hot: those that were asked for before. Times are of the process's own processor time, the best
of `ROUNDS`.
"""

from __future__ import annotations

from streams.engine.memory import set_up_memory

set_up_memory()  # as `credits api` does, before anything large is imported

import asyncio  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from typing import Any, Final, cast  # noqa: E402

from confluent_kafka import Message  # noqa: E402

from schemas.amounts import NANOS  # noqa: E402
from schemas.enums import ActorRole, SettingKind  # noqa: E402
from streams.api.account_view import AccountView  # noqa: E402
from streams.api.authorize import NO_PRICES, Authorizer  # noqa: E402
from streams.api.callers import ANYBODY  # noqa: E402
from streams.bench.deciding import AT  # noqa: E402
from streams.bench.load import org_name  # noqa: E402
from streams.bench.workers import resident_mib  # noqa: E402
from streams.engine.accounts import frame_account  # noqa: E402
from streams.ledger.account import Account, encode_account, new_account  # noqa: E402
from streams.ledger.commands import Purchase, Setting  # noqa: E402
from streams.ledger.decide import Command, Context, Source, decide, settle_due  # noqa: E402
from streams.settings import Settings  # noqa: E402

ROUNDS: Final = 7
HOT: Final = 1_000
CHECKS: Final = 10_000
RECORDS: Final = 10_000
"""Of a poll of the reader."""


class _Record:
    """A record of the accounts' changelog."""

    def __init__(self, key: bytes, value: bytes) -> None:
        self._key, self._value = key, value

    def key(self) -> bytes:
        return self._key

    def value(self) -> bytes:
        return self._value

    def partition(self) -> int:
        return 0


class _NoPrices:
    """Nothing is priced here."""

    in_force = NO_PRICES

    async def require_current(self) -> None:
        """It is."""


class _CurrentView(AccountView):
    """Has no Kafka that it could be behind of."""

    is_current = True

    async def require_current(self) -> None:
        """It is."""


def account_of() -> Account:
    """Credits, a month limit and a budget."""
    account = new_account("org")
    limits = {"unit": "USD", "alert_threshold": "800000", "allowed_limit": "900000"}
    budget = {"budget_id": "b", "unit": "USD", "scope": {"user_id": "u1"}, "window": "month", "limit": "900000"}
    _do(account, Purchase("p", "org", AT, "USD", 10**6 * NANOS))
    for number, (kind, body) in enumerate(((SettingKind.MONTH_LIMITS, limits), (SettingKind.BUDGET, budget))):
        _do(
            account,
            Setting(f"s{number}", "org", AT, "bench", ActorRole.SYSTEM, kind=kind, body=json.dumps(body)),
        )
    return account


def _do(account: Account, command: Command) -> None:
    settle_due(account, AT)
    decide(account, command, Context(AT, NO_PRICES, Source("topic", 0, account.seq)))


def records(orgs: int) -> Iterator[list[_Record]]:
    """The changelog of so many organisations, in lists as the reader takes them."""
    account = account_of()
    for start in range(0, orgs, RECORDS):
        found = []
        for number in range(start, min(orgs, start + RECORDS)):
            account.org_id = org_name(number)
            frame = frame_account(account.due_at or 0, encode_account(account), 1)
            found.append(_Record(account.org_id.encode(), frame))
        yield found


def best(act: Callable[[], object]) -> float:
    """The shortest of `ROUNDS`, in seconds of this process's time."""
    found = []
    for _ in range(ROUNDS):
        begun = time.process_time()
        act()
        found.append(time.process_time() - begun)
    return min(found)


def measure(orgs: int) -> dict[str, float]:
    """The figures."""
    view = _CurrentView(Settings(_env_file=None, partitions=1), now_us=lambda: AT)
    authorizer = Authorizer(view, _NoPrices())
    before = resident_mib(os.getpid())
    for found in records(orgs):
        view._take(cast("list[Message]", found))
    filled = resident_mib(os.getpid())
    names = [org_name(number) for number in range(HOT)]
    fields: dict[str, Any] = {"wallet": "USD", "user_id": "u1", "model": "m1"}

    def look_up() -> None:
        for name in names:
            view.look_up(name, AT)

    def answer() -> None:
        for name in names:
            authorizer.answer(name, {**fields, "amount": "0.05"}, AT)

    checks = [{"org_id": org_name(number), **fields, "amount": "0.05"} for number in range(CHECKS)]
    body = json.dumps({"checks": checks}, separators=(",", ":")).encode()

    def ask_many() -> None:
        asyncio.run(authorizer.many(body, ANYBODY))

    begun = time.process_time()
    ask_many()
    cold = time.process_time() - begun
    look_up()
    answer()
    return {
        "orgs": orgs,
        "account_bytes": len(encode_account(account_of())),
        "memory_mib": filled,
        "memory_before_mib": before,
        "lookups_per_second": HOT / best(look_up),
        "answers_per_second": HOT / best(answer),
        "checks_ms": best(ask_many) * 1_000,
        "checks_cold_ms": cold * 1_000,
    }


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))
