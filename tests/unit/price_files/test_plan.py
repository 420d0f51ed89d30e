"""What an import changes: new, changed, gone, and nothing the second time."""

from __future__ import annotations

from decimal import Decimal

from schemas.events import Price
from streams.price_files.offers import Offer, OfferedModel
from streams.price_files.plan import plan_import
from streams.price_files.price_records import Terms, price_records

DAY = 86_400_000_000
FIRST, SECOND = 20_000 * DAY, 20_010 * DAY
SOURCE = "litellm"


def prices(at: int, *given: tuple[str, str, str]) -> list[Price]:
    models = [OfferedModel(name, None, offers=[Offer(meter, Decimal(price))]) for name, meter, price in given]
    return price_records(models, Terms(SOURCE, "USD", at))


OLD = prices(FIRST, ("a", "input_tokens", "0.000001"), ("b", "input_tokens", "0.000002"))


def test_the_first_import_is_all_new() -> None:
    plan = plan_import(OLD, [], SOURCE, FIRST)
    assert (plan.new, plan.changed, plan.gone, plan.same, plan.changes) == (OLD, [], [], 0, 2)


def test_the_second_import_changes_nothing() -> None:
    later = prices(SECOND, ("a", "input_tokens", "0.000001"), ("b", "input_tokens", "0.000002"))
    for wanted, at in ((OLD, FIRST), (later, SECOND)):
        plan = plan_import(wanted, OLD, SOURCE, at)
        assert (plan.same, plan.changes, plan.gone) == (2, 0, [])


def test_a_changed_price_ends_where_the_new_one_begins() -> None:
    wanted = prices(SECOND, ("a", "input_tokens", "0.000003"), ("b", "input_tokens", "0.000002"))
    plan = plan_import(wanted, OLD, SOURCE, SECOND)
    assert [(each.price_id, each.valid_to) for each in plan.ended] == [(OLD[0].price_id, SECOND)]
    assert plan.changed == [(OLD[0], wanted[0])]
    assert (plan.new, plan.same, plan.changes, plan.withdrawn) == ([], 1, 2, [])
    assert wanted[0].price_id != OLD[0].price_id
    published = [*plan.ended, OLD[1], *plan.added]
    assert plan_import(wanted, published, SOURCE, SECOND).changes == 0


def test_a_price_that_was_wrong_from_the_start_is_replaced() -> None:
    wanted = prices(FIRST, ("a", "input_tokens", "0.000003"))
    plan = plan_import(wanted, OLD[:1], SOURCE, FIRST)
    assert (plan.ended, plan.withdrawn, plan.changed) == ([], [], [(OLD[0], wanted[0])])
    assert wanted[0].price_id == OLD[0].price_id, "the record takes the place of the wrong one"


def test_a_price_that_begins_before_the_wrong_one_withdraws_it() -> None:
    wanted = prices(FIRST - DAY, ("a", "input_tokens", "0.000003"))
    plan = plan_import(wanted, OLD[:1], SOURCE, FIRST - DAY)
    assert (plan.ended, plan.withdrawn) == ([], [OLD[0].price_id])


def test_what_the_file_no_longer_has_is_gone_and_ends_when_asked() -> None:
    wanted = prices(SECOND, ("a", "input_tokens", "0.000001"))
    plan = plan_import(wanted, OLD, SOURCE, SECOND)
    assert (plan.gone, plan.changes) == ([OLD[1]], 0)
    plan = plan_import(wanted, OLD, SOURCE, SECOND, end_gone=True)
    assert [(each.price_id, each.valid_to) for each in plan.ended] == [(OLD[1].price_id, SECOND)]


def test_prices_of_another_source_are_not_looked_at() -> None:
    other = [price.model_copy(update={"price_id": f"own-{price.price_id}"}) for price in OLD]
    plan = plan_import(OLD, other, SOURCE, FIRST)
    assert (len(plan.new), plan.gone) == (2, [])


def test_prices_that_have_ended_are_not_looked_at() -> None:
    ended = [price.model_copy(update={"valid_to": SECOND}) for price in OLD]
    plan = plan_import([], ended, SOURCE, SECOND)
    assert plan.gone == []


def test_prices_that_follow_on_each_other_are_compared_in_their_order() -> None:
    change = Offer("input_tokens", Decimal("0.000009"), valid_from=SECOND)
    base = Offer("input_tokens", Decimal("0.000001"), valid_to=SECOND)
    wanted = price_records([OfferedModel("a", None, offers=[base, change])], Terms(SOURCE, "USD", FIRST))
    plan = plan_import(wanted, OLD[:1], SOURCE, FIRST)
    assert {price.valid_from for price in plan.added} == {FIRST, SECOND}
    assert plan_import(wanted, wanted, SOURCE, FIRST).changes == 0
