"""`credits prices import --format litellm|genai-prices`: prices of others, compared with what is published.

Rules of this file:
- Everything is read, checked and compared before the first record leaves; a dry run stops there.
- Ends of old prices are published first, and are in Kafka before the new prices follow: a worker judges prices by the
  broker's time (`streams.ledger.price_log`), and would else find a tie.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from schemas.amounts import format_amount
from schemas.enums import Direction, InputKind
from schemas.events import Price
from schemas.times import parse_time
from streams.cli.console import load_settings, print_json, print_table, print_verdict, progress, say
from streams.errors import OperatorError
from streams.price_files.litellm import read_litellm
from streams.price_files.offers import OfferedModel, PriceFileError, Problem, counted
from streams.price_files.open_data import read_open_data
from streams.price_files.plan import ImportPlan, plan_import
from streams.price_files.price_records import Terms, price_records

if TYPE_CHECKING:
    from streams.client import CreditsProducer
    from streams.settings import Settings

LITELLM: Final = "litellm"
FILE_BYTES_MAX: Final = 256 * 1024 * 1024
"""The public file has 3.5 MB."""

FACTOR_MAX: Final = 1_000
"""As much as a factor of the price list may be."""

ROWS_SHOWN_MAX: Final = 20
PUBLISHED_AT_ONCE: Final = 500
"""Records between two polls of the producer."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What to import, as the command was told."""

    source: str
    file: Path | None
    providers: Sequence[str]
    models: Sequence[str]
    factor: str
    wallet: str
    valid_from: str | None
    end_gone: bool

    def terms(self) -> Terms:
        """The terms of all prices; raises `OperatorError` for what cannot be read."""
        try:
            factor = Decimal(self.factor)
        except InvalidOperation:
            factor = Decimal(0)
        if not factor.is_finite() or not 0 < factor <= FACTOR_MAX:
            raise OperatorError(f"--factor is {self.factor!r}", f"write a number above 0 and at most {FACTOR_MAX:,}")
        if self.valid_from is None:
            return Terms(self.source, self.wallet, time.time_ns() // 10**9 * 10**6, factor=factor)
        try:
            return Terms(self.source, self.wallet, parse_time(self.valid_from), factor=factor)
        except ValueError as error:
            raise OperatorError(f"--valid-from is {self.valid_from!r}", str(error)) from error

    def chosen(self, models: Iterable[OfferedModel]) -> list[OfferedModel]:
        """Those of a file that were asked for; raises `OperatorError` where there is none."""
        found = [
            model
            for model in models
            if (not self.providers or model.provider in self.providers)
            and (not self.models or any(_named(model.name, name) for name in self.models))
        ]
        if not found:
            raise OperatorError("no model of the file is meant", "look at --provider and --model")
        return found

    @property
    def partial(self) -> bool:
        """Not the whole file: what else is published of it is not gone."""
        return bool(self.providers or self.models)


def _named(name: str, wanted: str) -> bool:
    return name.startswith(wanted[:-1]) if wanted.endswith("*") else name == wanted


def import_file(choice: Choice, *, dry_run: bool, as_json: bool) -> None:
    """Read the file, show what it changes, and publish it unless this is a dry run."""
    from streams.kafka import topics_admin
    from streams.kafka.registry import connect_registry
    from streams.processing.price_ties import published_prices, refuse_ties_with

    terms = choice.terms()
    models = choice.chosen(_read(choice))
    wanted = price_records(models, terms)
    settings = load_settings()
    topics_admin.apply(settings)
    registry = connect_registry(settings)
    log = published_prices(settings, registry)
    names = {model.name for model in models}
    mine = [record for record in map(record_of, log.prices) if not choice.partial or (record.model in names)]
    plan = plan_import(wanted, mine, terms.source, terms.valid_from, end_gone=choice.end_gone)
    refuse_ties_with(log, plan.withdrawn, [*plan.ended, *plan.added])
    if not dry_run:
        _publish(settings, plan)
    problems = [problem for model in models for problem in model.problems]
    if as_json:
        print_json(_document(models, wanted, plan, problems, dry_run=dry_run))
    else:
        _show(models, wanted, plan, problems, choice, dry_run=dry_run)


def _read(choice: Choice) -> list[OfferedModel]:
    try:
        if choice.source != LITELLM:
            if choice.file is not None:
                raise OperatorError(f"{choice.source} takes no file", "leave it out: the installed package is read")
            return read_open_data()
        if choice.file is None or not choice.file.is_file():
            raise OperatorError(f"there is no file {choice.file or ''}".strip(), "name the downloaded price file")
        if choice.file.stat().st_size > FILE_BYTES_MAX:
            raise OperatorError(
                f"{choice.file} is larger than {FILE_BYTES_MAX >> 20} MiB", "name the price file itself"
            )
        return read_litellm(choice.file.read_bytes())
    except PriceFileError as error:
        step = "install it: pip install genai-prices" if choice.source != LITELLM else "name the price file as it is"
        raise OperatorError(str(error), step) from error


def record_of(price: Any) -> Price:
    """A price of the ledger's list as the record that it came from."""
    import msgspec

    fields = msgspec.to_builtins(price)
    return Price.model_validate(fields | {"direction": None if price.direction is Direction.ANY else price.direction})


def _publish(settings: Settings, plan: ImportPlan) -> None:
    """Send a plan, in three steps that each end in Kafka before the next begins:

    1. the ends of changed and gone prices;
    2. the withdrawals: records without a value;
    3. the new prices.

    A crash between them leaves usage of the changed models without a price, which is a dead letter; importing again
    goes on where it stopped, and `credits dead-letters replay` books it.
    """
    from streams.client import CreditsProducer

    with progress("publishing prices", plan.changes) as steps, CreditsProducer(settings) as producer:
        for price in plan.ended:  # 1
            producer.produce(InputKind.PRICE, price)
            steps.advance()
        for price_id in plan.withdrawn:  # 2
            producer.produce_raw(producer.topic(InputKind.PRICE), price_id.encode(), None)
            steps.advance()
        if plan.ended or plan.withdrawn:
            _settle(producer)
        for number, price in enumerate(plan.added):  # 3
            producer.produce(InputKind.PRICE, price)
            if number % PUBLISHED_AT_ONCE == 0:
                producer.poll()
            steps.advance()
        producer.flush()


def _settle(producer: CreditsProducer) -> None:
    """Wait until what was sent is in Kafka, and the next record has a later time there, in milliseconds."""
    producer.flush()
    reached_ms = time.time_ns() // 10**6
    while time.time_ns() // 10**6 <= reached_ms:
        time.sleep(0.001)


def _document(
    models: Sequence[OfferedModel],
    wanted: Sequence[Price],
    plan: ImportPlan,
    problems: Sequence[Problem],
    *,
    dry_run: bool,
) -> dict[str, Any]:
    return {
        "models": len(models),
        "whole": sum(model.whole for model in models),
        "prices": len(wanted),
        "new": len(plan.new),
        "changed": len(plan.changed),
        "gone": len(plan.gone),
        "ended": len(plan.ended),
        "withdrawn": len(plan.withdrawn),
        "same": plan.same,
        "published": 0 if dry_run else plan.changes,
        "problems": [
            {"reason": reason.name.lower(), "count": number, "models": examples}
            for reason, number, examples in counted(problems)
        ],
        "not_whole": [model.name for model in models if not model.whole],
    }


def _show(
    models: Sequence[OfferedModel],
    wanted: Sequence[Price],
    plan: ImportPlan,
    problems: Sequence[Problem],
    choice: Choice,
    *,
    dry_run: bool,
) -> None:
    rows = counted(problems)
    if rows:
        cells = [(f"{number:,}", reason.value, ", ".join(examples)) for reason, number, examples in rows]
        print_table(("times", "not as it is written", "for example"), cells, right=("times",))
        say()
    if plan.changed:
        print_table(("changed", "before", "after"), [_change(*each) for each in plan.changed[:ROWS_SHOWN_MAX]])
        if len(plan.changed) > ROWS_SHOWN_MAX:
            say(f"and {len(plan.changed) - ROWS_SHOWN_MAX:,} more")
        say()
    whole = sum(model.whole for model in models)
    left = len(plan.gone)
    gone_note = "" if not left else "ended" if choice.end_gone else "left as they are; --end-gone ends them"
    judged: list[tuple[bool | None, str, str, str]] = [
        (whole == len(models), "models", f"{len(models):,}", f"{whole:,} whole ({100 * whole / len(models):.2f} %)"),
        (None, "prices", f"{len(wanted):,}", f"in {choice.wallet}, times {choice.factor}"),
        (None, "new", f"{len(plan.new):,}", ""),
        (
            None,
            "changed",
            f"{len(plan.changed):,}",
            "the old ones end where the new ones begin" if plan.changed else "",
        ),
        (None, "gone", f"{left:,}", gone_note),
        (None, "same", f"{plan.same:,}", ""),
    ]
    print_verdict(f"Prices of {choice.source}", judged, _last(plan, dry_run=dry_run), ok=True)


def _last(plan: ImportPlan, *, dry_run: bool) -> str:
    if dry_run:
        return "Nothing was published. Run it without --dry-run to publish."
    if not plan.changes:
        return "All of it was published before: there was nothing to do."
    return f"{plan.changes:,} records are published. What they change for booked usage, credits rerate shows."


def _change(before: Price, after: Price) -> tuple[str, str, str]:
    name = ", ".join(each for each in (after.model, after.meter, after.service_tier) if each is not None)
    return name, _shown(before), _shown(after)


def _shown(price: Price) -> str:
    return f"{format_amount(price.unit_price_nanos)} per {price.billing_unit.value}"
