"""The public price file as it ships: how much of it is expressed, and the sizes of what it comes to.

The file comes out of the wheel of litellm, which is fetched for this test and no dependency of anything.
"""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import zipfile
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import pytest

from schemas.amounts import NANOS
from streams.ledger.account import new_account
from streams.ledger.commands import Usage
from streams.ledger.price import Price
from streams.ledger.pricing import rate
from streams.ledger.rating import PriceList
from streams.price_files.litellm import read_litellm
from streams.price_files.offers import OfferedModel, Reason
from streams.price_files.price_records import Terms, price_records

VERSION = "1.110.2"
FILE = "litellm/model_prices_and_context_window_backup.json"
TERMS = Terms("litellm", "USD", 1_795_824_000_000_000)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The price file, out of the wheel; skips where no package index can be reached."""
    folder = tmp_path_factory.mktemp("litellm")
    fetched = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), f"litellm=={VERSION}"],
        capture_output=True,
        timeout=240,
        check=False,
    )
    if fetched.returncode:
        pytest.skip("litellm's wheel cannot be fetched")
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(FILE)


@pytest.fixture
def models(text: bytes) -> list[OfferedModel]:
    return read_litellm(text)


def test_at_least_99_percent_of_the_priced_models_are_whole(models: list[OfferedModel]) -> None:
    prices = price_records(models, TERMS)
    whole = sum(model.whole for model in models)
    assert whole >= 0.99 * len(models)
    assert len(models) > 4_600
    assert len(prices) > 19_000
    assert len({price.price_id for price in prices}) == len(prices)


def test_what_is_not_whole_has_one_of_these_reasons(models: list[OfferedModel]) -> None:
    price_records(models, TERMS)
    assert {problem.reason for model in models for problem in model.problems} == {
        Reason.OTHER_CURRENCY,
        Reason.NO_METER,
        Reason.NOISE,
        Reason.TOO_FINE,
        Reason.NUMBER_OF_RESULTS,
        Reason.LENGTH_OF_CLIP,
        Reason.NAME,
    }


def test_the_same_file_gives_the_same_records(text: bytes) -> None:
    assert price_records(read_litellm(text), TERMS) == price_records(read_litellm(text), TERMS)


FIELDS = {
    "input_tokens": "input_cost_per_token",
    "output_tokens": "output_cost_per_token",
    "cache_read_tokens": "cache_read_input_token_cost",
    "cache_write_tokens": "cache_creation_input_token_cost",
}
SAMPLE = 1_500


def own_price(entry: dict[str, Any], field: str, input_tokens: int) -> Decimal | None:
    """What a field says of a request: its highest threshold that is passed, else the field itself."""
    steps = {int(found[1]): name for name in entry if (found := re.fullmatch(rf"{field}_above_(\d+)k_tokens", name))}
    passed = [above for above in steps if input_tokens > 1_000 * above]
    price: Decimal | None = entry[steps[max(passed)]] if passed else entry.get(field)
    return price


def own_cost(entry: dict[str, Any], counts: dict[str, int]) -> int:
    """What an entry's own fields say that this costs, in nano-units, rounded once."""
    total, tokens = Decimal(entry.get("input_cost_per_request", 0)), counts["input_tokens"]
    rest = tokens - counts["cache_read_tokens"] - counts["cache_write_tokens"]
    for meter, count in {**counts, "input_tokens": rest}.items():
        price = own_price(entry, FIELDS[meter], tokens)
        if price is None:  # a part without a price of its own is charged with its total
            price = own_price(entry, FIELDS["input_tokens"], tokens)
        assert price is not None
        total += count * price
    return int((total * NANOS).quantize(Decimal(1), rounding=ROUND_HALF_UP))


def test_a_sample_of_models_costs_what_their_own_fields_say(text: bytes) -> None:
    models = {model.name: model for model in read_litellm(text)}
    prices = PriceList(Price.from_record(each.to_record()) for each in price_records(models.values(), TERMS))
    choice = random.Random(SAMPLE)
    entries = {
        name: entry
        for name, entry in json.loads(text, parse_float=Decimal, parse_int=Decimal).items()
        if entry.get("mode") == "chat" and {"input_cost_per_token", "output_cost_per_token"} <= entry.keys()
        if name in models and not models[name].problems and "tiered_pricing" not in entry
    }
    assert len(entries) > SAMPLE
    for name in choice.sample(sorted(entries), SAMPLE):
        total = choice.choice((1_000, 128_000, 128_001, 200_000, 200_001, 272_000, 272_001, 600_000))
        read, written = choice.randrange(total // 2), choice.randrange(total // 2)
        counts = {"input_tokens": total, "output_tokens": choice.randrange(5_000)}
        counts |= {"cache_read_tokens": read, "cache_write_tokens": written}
        usage = Usage("u", "acme", TERMS.valid_from, "chat", model=name, **counts)  # type: ignore[arg-type]
        assert rate(new_account("acme"), usage, prices, TERMS.valid_from).cost == own_cost(entries[name], counts), name
