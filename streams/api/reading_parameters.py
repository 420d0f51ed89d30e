"""What calls that read may be asked with: pages, ranges of time, filters. Unknown names are refused.

The rules of this file: a time is ISO 8601 with a zone, or a date, which is its local midnight in the organisation's
zone; the end of a range is not in it. What is wrong is 422 and names the parameter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from projections.listings import ActivityFilter, AlertFilter, PriceFilter
from projections.reads import PAGE, PAGE_MAX
from projections.spans import DAY_US, Granularity, begin, local_midnight
from projections.transactions import EntryFilter, Flow, Order
from projections.usage_reports import DIMENSIONS, UsageQuestion
from schemas.enums import AlertKind, Channel, EntryKind, WalletStatus
from schemas.settings_bodies import OrgBody
from schemas.times import parse_time
from streams.api.problems import ProblemError

VALUES_MAX: Final = 100
DEFAULT_DAYS: Final[Mapping[Granularity, int]] = {Granularity.HOUR: 2, Granularity.DAY: 30, Granularity.MONTH: 365}
"""How far back a report goes that does not say."""

_DATE: Final = re.compile(r"(\d{4})-(\d{2})-(\d{2})", re.ASCII)

TimeText = Annotated[str | None, Field(max_length=40, examples=["2026-05-01", "2026-05-01T00:00:00Z"])]
Value = Annotated[str, Field(max_length=512)]
Values = Annotated[list[Value], Field(max_length=VALUES_MAX)]
Wallet = Annotated[str | None, Field(min_length=1, max_length=128, description="only this wallet", examples=["USD"])]
Cursor = Annotated[str | None, Field(max_length=1_000, description="`next_cursor` of the page before")]
Limit = Annotated[int, Field(ge=1, le=PAGE_MAX, description="how many at most")]
Dimension = Literal[
    "wallet", "operation", "category", "project_id", "user_id", "team", "department", "model", "tool", "provider",
    "endpoint", "deployment", "billing_unit",
]  # fmt: skip


def _split(values: Any) -> Any:
    """`group_by=model,user_id` as well as the name twice."""
    listed = values if isinstance(values, list) else [values]
    return [part for each in listed for part in (each.split(",") if isinstance(each, str) else [each])]


class Parameters(BaseModel):
    """Of every call: unknown names are refused, so that a mistyped filter does not pass for none."""

    model_config = ConfigDict(extra="forbid")


class Page(Parameters):
    """One page of a list."""

    cursor: Cursor = None
    limit: Limit = PAGE


class Range(Parameters):
    """A range of time."""

    from_: TimeText = Field(None, alias="from", description="from this time on; a date is its local midnight")
    to: TimeText = Field(None, description="to before this time")

    def times(self, time_zone: str) -> tuple[int | None, int | None]:
        """Both as microseconds; raises `ProblemError`."""
        starts_at, ends_at = moment("from", self.from_, time_zone), moment("to", self.to, time_zone)
        if starts_at is not None and ends_at is not None and starts_at >= ends_at:
            raise ProblemError(422, "invalid_field", "to: is not after from", field="to")
        return starts_at, ends_at


class TransactionParameters(Range, Page):
    """Which entries of the ledger."""

    kind: Annotated[list[EntryKind], Field(max_length=VALUES_MAX, description="entries of these kinds")] = []
    wallet: Wallet = None
    direction: Annotated[Flow | None, Field(description="only what was added, or only what was taken")] = None
    order: Annotated[Order, Field(description="newest or oldest first")] = Order.NEWEST_FIRST

    def filter(self, time_zone: str) -> EntryFilter:
        """The filter of these parameters."""
        starts_at, ends_at = self.times(time_zone)
        kinds = [kind.value for kind in self.kind]
        return EntryFilter(kinds, self.wallet, self.direction, starts_at, ends_at, self.order)


class DayParameters(Page):
    """The items of a day."""


class UsageParameters(Range):
    """What a report of usage is to hold. A filter given several times allows each of its values; empty: without it."""

    granularity: Annotated[Granularity, Field(description="the length of a row's time")] = Granularity.DAY
    time_zone: Annotated[str | None, Field(max_length=64, description="else the organisation's")] = None
    wallet: Values = []
    operation: Values = []
    category: Values = []
    project_id: Values = []
    user_id: Values = []
    team: Values = []
    department: Values = []
    model: Values = []
    tool: Values = []
    provider: Values = []
    endpoint: Values = []
    deployment: Values = []
    billing_unit: Values = []

    def question(self, time_zone: str, now: int) -> UsageQuestion:
        """The question, with the range that is meant where none is given; raises `ProblemError`."""
        starts_at, ends_at = self.times(time_zone)
        ends_at = now if ends_at is None else ends_at
        if starts_at is None:
            back = max(0, ends_at - DEFAULT_DAYS[self.granularity] * DAY_US)
            starts_at = begin(self.granularity, back, time_zone)
        if starts_at >= ends_at:
            raise ProblemError(422, "invalid_field", "from: is not before to, or before now", field="from")
        return UsageQuestion(self.granularity, starts_at, ends_at, time_zone, self.groups(), self.filters())

    def groups(self) -> Sequence[str]:
        """The dimensions of a row."""
        raise NotImplementedError

    def filters(self) -> dict[str, Sequence[str]]:
        """The values that each dimension may have."""
        given = {name: getattr(self, name) for name in DIMENSIONS}
        return {name: values for name, values in given.items() if values}


class OrgUsageParameters(UsageParameters):
    """Of one organisation."""

    group_by: Annotated[
        list[Dimension], BeforeValidator(_split), Field(description="a row for each combination of these")
    ] = []

    def groups(self) -> Sequence[str]:
        """The dimensions of a row."""
        return tuple(self.group_by)


class AllUsageParameters(UsageParameters):
    """The same over all organisations that the key is for."""

    group_by: Annotated[
        list[Dimension | Literal["org_id"]],
        BeforeValidator(_split),
        Field(description="a row for each combination of these"),
    ] = []
    org_id: Annotated[Values, Field(description="only these organisations")] = []

    def groups(self) -> Sequence[str]:
        """The dimensions of a row."""
        return tuple(self.group_by)


class AlertParameters(Range, Page):
    """Which alerts."""

    kind: Annotated[list[AlertKind], Field(max_length=VALUES_MAX)] = []
    wallet: Wallet = None
    channel: Annotated[Channel | None, Field(description="only those for this channel")] = None
    dismissable: bool | None = None
    dismissed: Annotated[bool | None, Field(description="only those that were, or were not")] = None

    def filter(self, time_zone: str) -> AlertFilter:
        """The filter of these parameters."""
        starts_at, ends_at = self.times(time_zone)
        return AlertFilter(
            kinds=[kind.value for kind in self.kind],
            wallet=self.wallet,
            channel=None if self.channel is None else self.channel.value,
            dismissable=self.dismissable,
            dismissed=self.dismissed,
            starts_at=starts_at,
            ends_at=ends_at,
        )


class ActivityParameters(Range, Page):
    """Which lines of the activity log."""

    action: Annotated[Values, Field(description="purchase, refund, transfer_out, a kind of setting, …")] = []
    actor: Annotated[str | None, Field(max_length=512)] = None
    refused: Annotated[bool | None, Field(description="only tries that were refused, or only what was done")] = None

    def filter(self, time_zone: str) -> ActivityFilter:
        """The filter of these parameters."""
        return ActivityFilter(self.action, self.actor, self.refused, *self.times(time_zone))


class PriceParameters(Page):
    """Which prices."""

    search: Annotated[str, Field(max_length=128, description="a part of name, model, operation or id")] = ""
    at: Annotated[TimeText, Field(description="those that apply at this time; else all")] = None
    org_id: Annotated[str | None, Field(max_length=128, description="the list, and this organisation's own")] = None
    wallet: Wallet = None

    def filter(self) -> PriceFilter:
        """The filter of these parameters."""
        return PriceFilter(self.search, moment("at", self.at, "UTC"), self.org_id, self.wallet)


class OrgParameters(Page):
    """Which organisations."""

    search: Annotated[str, Field(max_length=128, description="a part of the id, in any case")] = ""
    status: Annotated[WalletStatus | None, Field(description="only those with a wallet in this state")] = None


class MonthsParameters(Parameters):
    """How long a history."""

    months: Annotated[int, Field(ge=1, le=24, description="how many months, the current one included")] = 12


def moment(name: str, text: str | None, time_zone: str) -> int | None:
    """A time of a parameter, in microseconds; raises `ProblemError`."""
    if text is None:
        return None
    try:
        match = _DATE.fullmatch(text)
        if match is not None:
            return parse_time(local_midnight(int(match[1]), int(match[2]), int(match[3]), time_zone))
        # A plus sign that was not encoded is a space to the server.
        return parse_time(text.replace(" ", "+"))
    except (ValueError, OverflowError) as error:
        raise ProblemError(422, "invalid_field", f"{name}: {error}", field=name) from error


def zone_of(text: str) -> str:
    """A time zone of a parameter; raises `ProblemError`."""
    try:
        return OrgBody.model_validate({"time_zone": text}).time_zone
    except ValueError:
        detail = f"time_zone: {text!r} is not a time zone of the IANA database, such as Europe/Madrid"
        raise ProblemError(422, "invalid_field", detail, field="time_zone") from None
