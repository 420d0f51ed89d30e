"""The state of one organisation: its wallets with their grants, its settings, and what is in transit.

Rules of this file: data only, with what can be read off it without a decision. Only `evolve` and what it calls change
an account, so that folding the ledger from an empty account gives the same bytes. Amounts are nano-units, times are
microseconds UTC. Encoded by position (msgspec, MessagePack arrays): a field is only ever added at the end, with a
default.

A wallet's `settled` is the sum of `remaining` over `grants` and `ended`, less its `overdraft`; a grant in either has
`remaining` above 0; while there is an overdraft there is nothing in `grants`.
"""

from __future__ import annotations

import msgspec

from schemas.amounts import NANOS
from schemas.enums import BillingUnit, BudgetWindow, GrantKind, MemberRole, ThresholdType
from streams.ledger.entry import Component, Slice
from streams.ledger.price import Overrides

LOW_BALANCE_THRESHOLD_DEFAULT_NANOS = 10 * NANOS
"""The threshold of `credit_balance_low` of a wallet without settings (contract, `wallet`)."""

TIME_ZONE_DEFAULT = "UTC"


class Grant(msgspec.Struct, array_like=True):
    """One lot of credits (product rule 2)."""

    grant_id: str
    kind: GrantKind
    amount: int
    """What it was given as; above 0."""
    remaining: int
    """What is left of it; from 0 to `amount`."""
    priority: int
    expires_at: int | None
    created_at: int
    price_paid: int | None = None
    currency: str | None = None
    current: bool = False
    """The allowance of the current month, which is drawn before all else."""
    noticed: bool = False
    """`credits_expiring` was raised for it, or is out of place: it was empty, and filled again in its last week."""
    kept: int = 0
    """What holds keep of it past its end (product rule 18); the sum of `ActiveHold.kept` under its `end_number`."""
    end_number: int = 0
    """Its number among those in `Wallet.ended` that holds keep; 0: it is none of them."""


class AlertState(msgspec.Struct, array_like=True):
    """Where one line stands: whether it is crossed, and how often it was armed (product rule 27)."""

    version: int = 0
    """`seq` of the setting entry that defined the line; 0 for a default."""
    epoch: int = 1
    crossed: bool = False


class Rule(msgspec.Struct, array_like=True):
    """A threshold rule of a wallet (product rule 26) and where it stands."""

    rule_id: str
    type: ThresholdType
    level: int
    """Nano-units of what the type compares: credits, percent or days."""
    channels: tuple[str, ...]
    dismissable: bool
    alert_state: AlertState


class WalletTerms(msgspec.Struct, array_like=True, frozen=True):
    """What the `wallet` setting says (product rules 4, 5, 15, 28)."""

    default: bool = False
    allowance: int = 0
    rollover_max: int = 0
    low_balance_threshold: int = LOW_BALANCE_THRESHOLD_DEFAULT_NANOS
    low_credit_limit: int = 0
    negative_limit: int = 0


DEFAULT_TERMS = WalletTerms()


class MonthLimits(msgspec.Struct, array_like=True):
    """Alert threshold and allowed limit of a wallet's month (product rule 12), and where they stand. None: no such."""

    alert_threshold: int | None
    allowed_limit: int | None
    alert: AlertState
    reached: AlertState


class Budget(msgspec.Struct, array_like=True):
    """A limit on what a part of the org spends in a window (product rule 11), and where it stands."""

    budget_id: str
    scope: tuple[str | None, ...]
    """Values of `budgets.Scope`; None: any. All None: the whole org."""
    window: BudgetWindow
    limit: int
    alert_state: AlertState
    number: int
    """Which window it is in (`windows.window_of`)."""
    ends_at: int
    """When that window ends; from then on `spent` is of the past."""
    spent: int = 0
    """Usage booked in the window, net of what was given back; may fall below 0."""
    held: int = 0
    """What active holds of its scope set aside."""
    multi_field: bool = False
    """It names more fields than the one it is filed under."""
    began_at: int = 0
    """Since when usage has been counted in `spent`: what is given back of earlier usage is not."""


class BudgetBook(msgspec.Struct, array_like=True):
    """The budgets of a wallet, found by the usage they are about."""

    by_field: dict[int, dict[str, list[Budget]]] = msgspec.field(default_factory=dict)
    """By the index in `budgets.Scope` of the first field that they name, and its value."""
    org_wide: list[Budget] = msgspec.field(default_factory=list)
    count: int = 0
    alerting_count: int = 0
    """How many of them are crossed."""


class Topup(msgspec.Struct, array_like=True):
    """Auto top-up of a wallet (product rule 20): its terms, and the charge in flight."""

    enabled: bool
    threshold: int
    amount: int
    monthly_cap: int | None
    backoff_micros: int
    requests: int = 0
    """How many were made; the number of the last one."""
    requested_seq: int = 0
    """`seq` of the entry that caused the last request."""
    in_flight: str | None = None
    """Id of the request that has no answer yet."""
    in_flight_amount: int = 0
    """What of `charged` is that request's: 0 from the next month on."""
    charged: int = 0
    """Requested in the month, less what failed: what the cap is held against."""
    retry_at: int | None = None
    """After a failed charge: not before."""
    retrying: bool = False
    """The last charge failed."""
    capped: bool = False
    """The month's cap stands in the way, and the alert of it is out."""
    caps: int = 0
    """How often the cap stood in the way."""


class Burn(msgspec.Struct, array_like=True):
    """Usage of the last complete days, of a wallet whose rules ask for it (product rule 26)."""

    day: int
    """Which day it is (`windows.window_of`)."""
    ends_at: int
    mark: int
    """`Wallet.used` as the day began."""
    days: list[int] = msgspec.field(default_factory=list)
    """Usage of the days before, oldest first; at most `burn.DAYS_MAX`."""


class Wallet(msgspec.Struct, array_like=True):
    """One balance of an org in one unit (product rules 1, 2, 6).

    `fast_path_limit` opens the fast path: booking a usage with `0 < cost < fast_path_limit` draws on `grants[0]` alone,
    crosses no threshold, and changes neither status nor due time. `streams.ledger.usage.advance_fast` is its whole
    effect.
    """

    unit: str
    settled: int = 0
    held: int = 0
    used: int = 0
    """Usage booked in the calendar month (org's time zone), net of refunds and corrections in it: may be below 0."""
    lifetime_spent: int = 0
    """Usage ever drawn from anything but an allowance, net of refunds."""
    fast_path_limit: int = 0
    allowance_first: bool = False
    """`grants[0]` is an allowance: what is drawn on it does not count as `lifetime_spent`."""
    grants: list[Grant] = msgspec.field(default_factory=list)
    """In draw-down order."""
    overdraft: int = 0
    """What was used beyond all grants; paid by the next credits added."""
    allocation: int = 0
    """Settled balance at the start of the month, and all credits added in it."""
    lifetime_added: int = 0
    opened: bool = False
    """An amount was ever booked."""
    funded: bool = False
    """Credits were ever added that had not expired on arrival; before that no line of credits is watched."""
    exhausted: list[Grant] = msgspec.field(default_factory=list)
    """Grants with nothing left that a refund may still refer to, oldest first; see `grants.EXHAUSTED_MAX`."""
    terms: WalletTerms = DEFAULT_TERMS
    month: int = 0
    """The calendar month the wallet is in (`months.month_of`)."""
    month_ends_at: int = 0
    """When it ends, in the org's time zone; 0: before the first entry."""
    allowance_month: int = 0
    """Month (`months.month_of`) of the last allowance granted; 0: none ever."""
    low: AlertState = msgspec.field(default_factory=AlertState)
    depletion: AlertState = msgspec.field(default_factory=AlertState)
    rules: list[Rule] = msgspec.field(default_factory=list)
    resolved: int = 0
    """How many `credit_resolved` alerts were raised."""
    negative: AlertState = msgspec.field(default_factory=AlertState)
    """The negative limit (product rule 15)."""
    limits: MonthLimits | None = None
    topup: Topup | None = None
    burn: Burn | None = None
    """None: no rule asks for it."""
    budgets: BudgetBook | None = None
    """None: the wallet has no budgets."""
    budgeted_fast_path_limit: int = 0
    """What `fast_path_limit` would be if the wallet had no budgets; 0 when it has none. See `usage.advance`."""
    ended: list[Grant] = msgspec.field(default_factory=list)
    """Grants past their end with something left, in draw-down order: what holds keep. All else expires at once."""

    @property
    def available(self) -> int:
        """Settled less active holds (product rule 6)."""
        return self.settled - self.held


class OrgTerms(msgspec.Struct, array_like=True, frozen=True):
    """What the `org` setting says."""

    time_zone: str = TIME_ZONE_DEFAULT
    closed: bool = False
    administrators: tuple[str, ...] = ()
    tier: str | None = None


class TransferInTransit(msgspec.Struct, array_like=True):
    """Credits that left for another org and were neither acknowledged nor returned yet (product rule 22)."""

    wallet: str
    amount: int
    target_org_id: str
    departed_at: int
    month: int
    lots: int = 0
    """How many grants they were drawn from, and may come back to."""


class ModelAccess(msgspec.Struct, array_like=True, frozen=True):
    """Which models may be used: what a pattern of `allow` matches and none of `deny` (product rule 11)."""

    allow: tuple[str, ...] = ("*",)
    deny: tuple[str, ...] = ()


class ActiveHold(msgspec.Struct, array_like=True):
    """Credits set aside for work in progress (product rule 18)."""

    hold_id: str
    wallet: str
    amount: int
    """What is still set aside; 0 for free work."""
    expires_at: int
    scope: tuple[str | None, ...]
    operation: str | None = None
    category: str | None = None
    provider: str | None = None
    kept: dict[int, int] = msgspec.field(default_factory=dict)
    """Part of `amount`: what it keeps of grants that have ended, by their `end_number`, in the order they ended."""


class CorrectedUsage(msgspec.Struct, array_like=True):
    """The latest revision of a usage that was corrected, or came as a revision at first (product rule 23)."""

    revision: int
    recorded_at: int
    wallet: str
    slices: tuple[Slice, ...]
    """What it drew; none: it was voided, or cost nothing."""
    voided: bool
    carried: dict[str, str | int]
    """Dimensions and quantities, as in its entry."""
    occurred_at: int = 0
    billing_unit: BillingUnit | None = None
    rebooking: int = 0
    """What a correction has given back, when the next entry is the new revision and evaluates alerts for both."""
    first_recorded_at: int = 0
    """When its first booking was recorded, which a correction does not change; 0: this is the first."""
    components: tuple[Component, ...] = ()
    """How its cost came to be, as in its entry."""
    quantities: dict[str, int] = msgspec.field(default_factory=dict)
    counted: dict[str, int] = msgspec.field(default_factory=dict)
    """What it counted towards graduated prices (`volume`)."""
    period: int = 0
    """The month in which it did."""

    @property
    def counted_at(self) -> int:
        """The time whose budget windows it counts in: that of its first booking (product rule 23)."""
        return self.first_recorded_at or self.recorded_at


class RefundedUsage(msgspec.Struct, array_like=True):
    """How much of a usage event was refunded so far; remembered as long as it can be refunded."""

    amount: int
    usage_recorded_at: int


class Counter(msgspec.Struct, array_like=True):
    """What an org has used by one graduated price in a month, and in the one before (product rule 38)."""

    period: int
    used: int = 0
    """Nano-units of the price's meter."""
    used_before: int = 0


class Account(msgspec.Struct, array_like=True):
    """Everything the ledger knows about one org. A function of the org's ledger entries."""

    org_id: str
    seq: int = 0
    """Number of the last entry; 0: none yet."""
    due_at: int | None = None
    """The earliest time at which something happens without a command; None: nothing will."""
    wallets: dict[str, Wallet] = msgspec.field(default_factory=dict)
    org: OrgTerms | None = None
    """None: never set."""
    members: dict[str, MemberRole] = msgspec.field(default_factory=dict)
    """Everybody that a setting named; one of role `none` is no member, and may not spend either."""
    in_transit: dict[str, TransferInTransit] = msgspec.field(default_factory=dict)
    refunded: dict[str, RefundedUsage] = msgspec.field(default_factory=dict)
    access: ModelAccess | None = None
    """None: every model may be used."""
    holds: dict[str, ActiveHold] = msgspec.field(default_factory=dict)
    hold_ends: list[tuple[int, str]] = msgspec.field(default_factory=list)
    """When active holds time out, and their ids, sorted."""
    holds_resolved: list[int] = msgspec.field(default_factory=list)
    """Digests of the holds resolved last, oldest first; see `holds.RESOLVED_MAX`."""
    corrected: dict[str, CorrectedUsage] = msgspec.field(default_factory=dict)
    """By event id, the latest last, as long as a usage can be refunded."""
    overrides: Overrides | None = None
    """Prices of its own, by setting; None: none (product rules 7, 9)."""
    size_bound_bytes: int = 0
    """What the account takes at most when encoded, in bytes (`bounds.raise_size_bound`)."""
    remeasure_after_seq: int = 0
    """Not measured again before this `seq`."""
    holds_timed_out: dict[str, ActiveHold] = msgspec.field(default_factory=dict)
    """Holds that timed out last, oldest first: a capture that arrived before the end may be read after it."""
    counters: dict[str, Counter] = msgspec.field(default_factory=dict)
    """Usage by graduated prices, by price (`volume`)."""

    @property
    def time_zone(self) -> str:
        return TIME_ZONE_DEFAULT if self.org is None else self.org.time_zone

    @property
    def tier(self) -> str | None:
        return None if self.org is None else self.org.tier

    @property
    def closed(self) -> bool:
        return self.org is not None and self.org.closed

    @property
    def known(self) -> bool:
        """The org was set up, or had credits or usage; a refused command alone does not make an org known."""
        return self.org is not None or bool(self.wallets) or bool(self.members)

    def in_transit_nanos(self, unit: str) -> int:
        """Credits that left one wallet for other orgs and were not answered yet, in nano-units; not part of settled."""
        if not self.in_transit:  # nearly always; this is asked of every wallet that a batch touches
            return 0
        return sum(transit.amount for transit in self.in_transit.values() if transit.wallet == unit)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Account)


def new_account(org_id: str) -> Account:
    """An org of which nothing is known."""
    return Account(org_id=org_id)


def encode_account(account: Account) -> bytes:
    """The account as bytes; equal accounts have equal bytes."""
    return _encoder.encode(account)


def decode_account(data: bytes) -> Account:
    """The inverse of `encode_account`; raises msgspec.ValidationError for bytes that are no account."""
    return _decoder.decode(data)
