"""Forged legs and accounts, and the change of a key, on a real ledger with `CREDITS_INTERNAL_KEY`."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from confluent_kafka import Message
from pydantic import SecretStr

from schemas.amounts import NANOS
from schemas.enums import InputKind
from streams.engine.accounts import frame_account
from streams.engine.positions import POSITION_KEY
from streams.kafka.reader import committed_ends, read_range
from streams.seals import SealError, Seals, unsealed
from tests.integration.engine.workers import until
from tests.integration.ledger.events import administrators, purchase
from tests.integration.ledger.installation import LedgerInstallation

FIRST, SECOND = "the-first-key-of-the-test", "the-second-key-of-the-test"
TRANSFER = {"target_org_id": "bolt", "wallet": "USD", "amount_nanos": 5 * NANOS, "actor": "ann"}


def newest(installation: LedgerInstallation) -> dict[bytes, Message]:
    """The last record of each account."""
    topic = installation.topics.name("accounts")
    found: dict[bytes, Message] = {}
    for batch in read_range(installation.settings, {}, committed_ends(installation.settings, [topic])):
        found |= {key: each for each in batch if (key := each.key()) not in (None, POSITION_KEY)}
    return found


def all_sealed_by(installation: LedgerInstallation, key: str) -> bool:
    """Whether every account is sealed with this key."""
    seals = Seals.of(installation.settings.model_copy(update={"internal_key": SecretStr(key)}))
    try:
        return all(seals.open("account", org, each.value() or b"")[1] for org, each in newest(installation).items())
    except SealError:
        return False


@pytest.mark.slow
@pytest.mark.fault(
    "forged-internal-records",
    title="A forged transfer leg, and a forged account, where CREDITS_INTERNAL_KEY is set",
    provoked="a leg like a true one was written without its checksum, and an account's state under another's key",
    holds="the leg is a dead letter `invalid_checksum` and gives no credits; a restore refuses the account and names "
    "its topic, partition and offset",
)
def test_forged_records_are_refused_and_keys_can_be_changed(
    installation: LedgerInstallation, seen: Callable[[str], None]
) -> None:
    worker = installation.ready_worker(CREDITS_INTERNAL_KEY=FIRST)
    installation.send(InputKind.SETTING, [administrators("s1", "acme", "ann"), administrators("s2", "bolt", "ann")])
    installation.send(InputKind.PURCHASE, [purchase("p1", "acme", 100 * NANOS)])
    installation.wait_until_booked()
    transfer = {"transfer_id": "t1", "org_id": "acme", "occurred_at": time.time_ns() // 1_000, **TRANSFER}
    installation.send(InputKind.TRANSFER, [transfer])
    installation.wait_until_booked()
    topic = installation.topics.name("transfer_legs")
    batches = read_range(installation.settings, {}, committed_ends(installation.settings, [topic]))
    legs = [each for batch in batches for each in batch]
    to_bolt = next(each for each in legs if each.key() == b"bolt")
    installation.producer.produce_raw(topic, to_bolt.key(), to_bolt.value())
    installation.producer.flush()
    until(lambda: installation.codes() == {"invalid_checksum": 1}, 30, "the forged leg as a dead letter")
    rows = {row["org_id"]: row for row in installation.rows("balances")}  # the last one of each
    settled = {org: [each["settled_nanos"] for each in row["wallets"]] for org, row in rows.items()}
    assert settled == {"acme": [95 * NANOS], "bolt": [5 * NANOS]}
    worker.kill()
    # The key is changed: with both every account is written again, then the new one is enough.
    worker = installation.ready_worker(CREDITS_INTERNAL_KEY=f"{SECOND},{FIRST}")
    until(lambda: all_sealed_by(installation, SECOND), 30, "every account sealed with the new key")
    worker.kill()
    installation.ready_worker(CREDITS_INTERNAL_KEY=SECOND).kill()
    assert installation.report().ok
    # A forged account: first without a checksum, then with the checksum of another.
    acme = newest(installation)[b"acme"]
    changelog = installation.topics.name("accounts")
    forged = frame_account(0, unsealed(acme.value() or b"")[16:], 10)
    installation.producer.produce_raw(changelog, b"acme", forged)
    installation.producer.flush()
    worker = installation.worker(CREDITS_INTERNAL_KEY=SECOND)
    assert worker.ends_with(60) == 1, worker.output
    assert f"{changelog}/{acme.partition()} at offset {newest(installation)[b'acme'].offset()}" in worker.output
    assert "account 'acme' is refused, it has no checksum" in worker.output
    assert SECOND not in worker.output
    seen("the leg became a dead letter and moved no credits; the worker refused the account with its place")
