"""What a client may spend under its leases: laws over random sequences of everything that can happen to it."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.client.lease_state import (
    REPORT_EVENTS_MAX,
    LeaseRefusal,
    LeaseRefusedError,
    LeaseReport,
    LeaseRequest,
    LeaseState,
    LeaseTerms,
)

TERMS = LeaseTerms("USD", 100, duration_s=10, operation="chat", margin_s=0.5, events_max=8)
STEPS = st.one_of(
    st.tuples(st.just("spend"), st.integers(1, 130)),
    st.tuples(st.just("wait"), st.integers(1, 80)),
    st.tuples(st.just("granted"), st.integers(0, 100)),
    st.tuples(st.sampled_from(["asked", "refused", "unknown", "report", "reported", "unbookable", "end"]), st.just(0)),
)


class Client:
    """A state under a clock of tenths of a second, and what it must not exceed."""

    def __init__(self, terms: LeaseTerms = TERMS) -> None:
        self.tenths = 0
        self.woken = 0
        self.ids = 0
        self.state = LeaseState(terms, self._new_id, lambda: self.tenths / 10, wall_ns=lambda: 7_000, wake=self._wake)
        self.request: LeaseRequest | None = None
        self.report: LeaseReport | None = None
        self.granted: dict[str, int] = {}
        self.ends_at_s: dict[str, float] = {}
        self.spent: dict[str, int] = {}
        self.booked: Counter[str] = Counter()
        self.dropped: set[str] = set()
        self.final: Counter[str] = Counter()

    def _new_id(self) -> str:
        self.ids += 1
        return f"l{self.ids}"

    def _wake(self) -> None:
        self.woken += 1

    def grant(self, amount: int, spend_for_s: float = 10) -> str:
        """The next lease."""
        request = self.state.next_request()
        assert request is not None
        self.granted[request.lease_id] = amount
        self.ends_at_s[request.lease_id] = request.sent_at_s + spend_for_s
        self.state.granted(request, amount, spend_for_s)
        return request.lease_id

    def step(self, what: str, number: int) -> None:
        """One thing that happens; checks what must hold of it."""
        match what:
            case "spend":
                self._spend(number)
            case "wait":
                self.tenths += number
            case "asked":
                request = self.state.next_request()
                if request is not None and self.request is not None and request.lease_id == self.request.lease_id:
                    assert request == self.request, "repeated as it was"
                self.request = request or self.request
            case "granted" if self.state.next_request() is not None:
                self.grant(number)
            case "refused" if self.state.next_request() is not None:
                self.state.refused("credits_held")
            case "unknown" if self.state.next_request() is not None:
                self.state.unknown()
            case "report":
                report = self.state.next_report()
                assert self.report is None or report is self.report, "repeated as it was"
                self.report = report
            case "reported" if (report := self.state.next_report()) is not None:
                self._note(report)
            case "unbookable" if (report := self.state.next_report()) is not None and report.usage:
                self.dropped.add(self.state.unbookable(report, len(report.usage) - 1)["event_id"])
                self.report = None
            case "end":
                self.state.end()
            case _:
                pass

    def _spend(self, amount: int) -> None:
        left = self.state.left_nanos
        why, usage_id = None, ""
        try:
            usage_id = self.state.spend(amount)
        except LeaseRefusedError as refused:
            why = refused
        if why is not None:
            assert amount > left or self.state.unbooked >= TERMS.events_max
            assert why.refusal is not LeaseRefusal.SHORT or why.left_nanos == left
            return
        lease = usage_id.rpartition("/")[0]
        assert usage_id not in self.spent
        self.spent[usage_id] = amount
        assert sum(each for name, each in self.spent.items() if name.startswith(f"{lease}/")) <= self.granted[lease]
        assert self.tenths / 10 < self.ends_at_s[lease] - TERMS.margin_s
        assert self.state.unbooked <= TERMS.events_max

    def _note(self, report: LeaseReport) -> None:
        self.state.reported(report)
        self.report = None
        for usage in report.usage:
            self.booked[usage["event_id"]] += 1
            assert usage["cost_nanos"] == self.spent[usage["event_id"]]
            assert usage["event_id"].startswith(f"{report.lease_id}/")
        self.final[report.lease_id] += report.final

    def finish(self) -> None:
        """End it, and report all."""
        self.state.end()
        while (report := self.state.next_report()) is not None:
            self._note(report)


@given(st.lists(STEPS, max_size=60))
def test_no_sequence_spends_too_much_or_loses_anything(steps: list[tuple[str, int]]) -> None:
    client = Client()
    for what, number in steps:
        client.step(what, number)
    client.finish()
    assert client.state.is_done
    assert client.state.unbooked == 0
    assert client.booked == Counter(client.spent.keys() - client.dropped), "each once"
    assert client.final == Counter(client.granted.keys()), "each lease that was granted has ended once"


def refusal(client: Client, amount: int = 1, **fields: Any) -> LeaseRefusal:
    with pytest.raises(LeaseRefusedError) as refused:
        client.state.spend(amount, **fields)
    return refused.value.refusal


def test_the_end_counts_from_before_the_request_was_sent() -> None:
    client = Client()
    request = client.state.next_request()
    assert request is not None
    client.tenths = 90
    client.state.granted(request, 100, 10)
    client.state.spend(1)
    client.tenths = 95
    assert refusal(client) is LeaseRefusal.NONE


def test_a_lease_that_comes_too_late_is_given_back() -> None:
    client = Client()
    request = client.state.next_request()
    assert request is not None
    client.tenths = 200
    client.state.granted(request, 100, 10)
    assert client.state.next_report() == LeaseReport("l1", "USD", (), True)
    assert refusal(client) is LeaseRefusal.NONE


def test_the_next_lease_is_asked_for_in_time() -> None:
    """After half of the time, or below a quarter of the amount, and then at once."""
    client = Client()
    client.grant(100)
    assert client.state.next_request() is None
    client.tenths = 50
    assert client.state.next_request() is not None
    client.grant(100)
    client.woken = 0
    client.state.spend(75)
    assert (client.woken, client.state.next_request()) == (0, None)
    client.state.spend(1)
    client.state.spend(1)
    assert client.woken == 1
    assert client.state.next_request() is not None


def test_asking_again_and_again_pauses() -> None:
    client = Client()
    asked = 0
    for _ in range(200):
        if client.state.next_request() is not None:
            asked += 1
            client.state.refused("credits_not_available")
        refusal(client)
        client.tenths += 1
    assert 5 <= asked <= 12, "twenty seconds, at most five between two"


def test_more_than_a_lease_ever_has_does_not_ask_for_more() -> None:
    client = Client()
    client.grant(100)
    assert refusal(client, 101) is LeaseRefusal.SHORT
    assert (client.woken, client.state.next_request()) == (0, None)
    client.state.spend(10)
    assert refusal(client, 100) is LeaseRefusal.SHORT
    assert client.woken == 1


def test_the_refusal_says_what_the_ledger_said() -> None:
    client = Client()
    client.state.next_request()
    client.state.refused("credits_held")
    with pytest.raises(LeaseRefusedError, match=r"no_lease: 0 nano-units are left \(credits_held\)") as refused:
        client.state.spend(1)
    assert refused.value.code == "credits_held"


def test_a_lease_that_is_nearly_spent_goes_back_when_there_is_no_next_one() -> None:
    client = Client()
    client.grant(100)
    client.state.spend(90)
    assert client.state.next_request() is not None
    client.state.refused("credits_held")
    report = client.state.next_report()
    assert report is not None
    assert (report.final, len(report.usage)) == (True, 1)


def test_a_long_report_comes_in_parts_and_the_last_one_ends_the_lease() -> None:
    client = Client(LeaseTerms("USD", 10**6, operation="chat", scope={"team": "red"}))
    client.grant(10**6)
    for _ in range(2 * REPORT_EVENTS_MAX + 1):
        client.spent[client.state.spend(1, user_id="bob")] = 1
    client.state.end()
    sizes = []
    while (report := client.state.next_report()) is not None:
        sizes.append((len(report.usage), report.final))
        assert {usage["user_id"] + usage["team"] for usage in report.usage} == {"bobred"}
        client._note(report)
    assert sizes == [(REPORT_EVENTS_MAX, False), (REPORT_EVENTS_MAX, False), (1, True)]


@pytest.mark.parametrize(
    ("amount", "fields"), [(0, {}), (-1, {}), (1, {"hold_id": "h"}), (1, {"colour": "red"}), (1, {"cost_nanos": 2})]
)
def test_what_cannot_be_spent(amount: int, fields: dict[str, Any]) -> None:
    client = Client()
    client.grant(100)
    with pytest.raises(ValueError, match=r"amount_nanos|usage that is spent has no"):
        client.state.spend(amount, **fields)
    assert client.state.left_nanos == 100


def test_many_threads_spend_no_more_than_one() -> None:
    client = Client(LeaseTerms("USD", 1_000, operation="chat"))
    client.grant(1_000)
    spent: list[str] = []

    def spend() -> None:
        for _ in range(400):
            try:
                spent.append(client.state.spend(1))
            except LeaseRefusedError:
                return

    threads = [threading.Thread(target=spend) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(spent), len(set(spent)), client.state.left_nanos) == (1_000, 1_000, 0)
