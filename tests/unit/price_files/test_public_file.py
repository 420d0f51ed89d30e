"""The public price file as it ships: how much of it is expressed, and the sizes of what it comes to.

The file comes out of the wheel of litellm, which is fetched for this test and no dependency of anything.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile

import pytest

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
