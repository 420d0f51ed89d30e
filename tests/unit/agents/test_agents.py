"""Every input topic has one agent, and what its records cause goes where its page says."""

from __future__ import annotations

import pytest

from schemas.amounts import NANOS
from schemas.topics import BY_KEY, INPUT_TOPICS
from streams.agents.agent import Agent
from streams.agents.money import AGENT as MONEY
from streams.agents.prices import AGENT as PRICES
from streams.agents.processor import AGENTS
from streams.agents.settings import AGENT as SETTINGS
from streams.agents.transfer_legs import AGENT as TRANSFER_LEGS
from streams.agents.usage import AGENT as USAGE
from tests.model.memory import TOPICS, FixedPrices, MemoryLedger, Sent, legs, sent
from tests.unit.processing.test_step import PRICE_LIST, purchase, setting, usage

KEY_OF = {TOPICS.name(key): key for key in BY_KEY}
ADMINISTRATORS = '{"administrators": ["ann"]}'
HOLD = {"hold_id": "h", "org_id": "acme", "wallet": "USD", "amount_nanos": NANOS, "action": "place"}
TRANSFER = {"transfer_id": "t", "org_id": "acme", "target_org_id": "bolt", "wallet": "USD", "amount_nanos": NANOS}
REFUND = {"refund_id": "r", "org_id": "acme", "target": "purchase", "target_id": "p", "amount_nanos": NANOS}
EVENTS = {
    USAGE: [usage("e", cost_nanos=1)],
    MONEY: [
        purchase("p"),
        sent("hold", HOLD),
        sent("transfer", {**TRANSFER, "actor": "ann"}),
        sent("refund", REFUND),
    ],
    SETTINGS: [setting("s", "org", '{"tier": "pro"}')],
    PRICES: [sent("price", PRICE_LIST[0])],
}


def a_ledger() -> MemoryLedger:
    """A ledger in which Ann may move credits from acme to bolt."""
    ledger = MemoryLedger(FixedPrices(PRICE_LIST))
    ledger.feed([setting(f"s-{org}", "org", ADMINISTRATORS, org) for org in ("acme", "bolt")])
    return ledger


def written_by(ledger: MemoryLedger, agent: Agent, records: list[Sent]) -> set[str]:
    """The keys of the topics that these records, and one that cannot be read on each topic, have written to."""
    before = {topic: len(found) for topic, found in ledger.written.items()}
    broken = [Sent(TOPICS.name(key), b"acme", b"\x07no record", ledger.partition.clock_at) for key in agent.inputs]
    ledger.feed([*records, *broken])
    return {KEY_OF[topic] for topic, found in ledger.written.items() if len(found) > before.get(topic, 0)}


def test_every_input_topic_has_one_agent() -> None:
    taken = [key for agent in AGENTS for key in agent.inputs]
    assert sorted(taken) == sorted([*INPUT_TOPICS.values(), "transfer_legs"])
    inputs = MemoryLedger(FixedPrices([])).processor.inputs
    assert inputs == {TOPICS.name(key): agent.name for agent in AGENTS for key in agent.inputs}
    assert len({agent.name for agent in AGENTS}) == len(AGENTS)


@pytest.mark.parametrize("agent", EVENTS, ids=lambda agent: agent.name)
def test_records_go_where_their_page_says(agent: Agent) -> None:
    written = written_by(a_ledger(), agent, EVENTS[agent])
    certain = {"ledger", "balances"} if "ledger" in agent.outputs else set()
    assert {"dead_letters", *certain} <= written <= set(agent.outputs)


def test_prices_are_kept_and_change_no_account() -> None:
    ledger = a_ledger()
    assert written_by(ledger, PRICES, EVENTS[PRICES]) == {"kept_prices", "dead_letters"}


def test_a_leg_and_its_answer_go_where_their_page_says() -> None:
    ledger = a_ledger()
    ledger.feed([purchase("p"), sent("transfer", {**TRANSFER, "actor": "ann"})])
    written = written_by(ledger, TRANSFER_LEGS, legs(ledger))
    assert {"ledger", "balances", "transfer_legs", "dead_letters"} <= written <= set(TRANSFER_LEGS.outputs)
