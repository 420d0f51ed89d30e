"""The closed sets of words that travel in records. The contract's names, exactly.

Rules of this file: a leaf that everyone may import; a word is never renamed or taken away; a `match` over a set ends in
`assert_never`. In Avro the words are strings, so that adding one does not break a reader of an older schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

OVERDRAFT_GRANT_ID = "overdraft"
"""Grant id of the slice that no grant covered (the wallet's negative balance)."""

MERGE_PREFIX = "account-merge/"
"""How the ids begin of what moves a second account of an org into its own."""


class InputKind(StrEnum):
    """The kinds of input record, as `credits produce KIND` names them."""

    USAGE = "usage"
    PURCHASE = "purchase"
    TRANSFER = "transfer"
    REFUND = "refund"
    HOLD = "hold"
    SETTING = "setting"
    PRICE = "price"


class EntryKind(StrEnum):
    """What a ledger entry tells."""

    USAGE = "usage"
    PURCHASE = "purchase"
    ALLOWANCE = "allowance"
    ROLLOVER = "rollover"
    EXPIRY = "expiry"
    TRANSFER_OUT = "transfer_out"
    TRANSFER_IN = "transfer_in"
    TRANSFER_RETURN = "transfer_return"
    REFUND = "refund"
    CORRECTION = "correction"
    HOLD = "hold"
    HOLD_RELEASE = "hold_release"
    ADJUSTMENT = "adjustment"
    SETTING = "setting"
    REJECTED = "rejected"


class GrantKind(StrEnum):
    """Kinds of grant (product rule 2), and `overdraft`, the kind of the slice that no grant covered."""

    ALLOWANCE = "allowance"
    PROMOTIONAL = "promotional"
    PURCHASED = "purchased"
    TRANSFERRED = "transferred"
    ADJUSTMENT = "adjustment"
    OVERDRAFT = "overdraft"


class PurchaseStatus(StrEnum):
    """Whether a charge went through; absent means `completed`."""

    COMPLETED = "completed"
    FAILED = "failed"


class PurchaseKind(StrEnum):
    """What a purchase record adds; absent means `purchased`."""

    PURCHASED = "purchased"
    PROMOTIONAL = "promotional"
    ADJUSTMENT = "adjustment"


class RefundTarget(StrEnum):
    """What a refund refers to (product rule 21)."""

    PURCHASE = "purchase"
    USAGE = "usage"
    RERATED_USAGE = "rerated_usage"
    """The difference that a price correction makes for it: above 0 it is given back, below 0 it is charged."""


class HoldAction(StrEnum):
    """What a hold record asks for (product rule 18)."""

    PLACE = "place"
    CAPTURE = "capture"
    RELEASE = "release"


class OnShortage(StrEnum):
    """What to do when less is available than a hold asks for; absent means `reject`."""

    REJECT = "reject"
    CAP = "cap"
    OVERFLOW = "overflow"


class BillingUnit(StrEnum):
    """What a price is the price of one of (product rule 7)."""

    TOKEN = "token"
    THOUSAND_TOKENS = "1000_tokens"
    MILLION_TOKENS = "1000000_tokens"
    REQUEST = "request"
    MINUTE = "minute"
    HOUR = "hour"
    GPU_HOUR = "gpu_hour"
    UNIT = "unit"
    THOUSAND_UNITS = "1000_units"
    MILLION_UNITS = "1000000_units"
    BILLION_UNITS = "1000000000_units"


class Direction(StrEnum):
    """Which tokens a price is for; absent means `any`."""

    INPUT = "input"
    OUTPUT = "output"
    ANY = "any"


class SettingKind(StrEnum):
    """Kinds of setting; each has its own model of `body`."""

    ORG = "org"
    WALLET = "wallet"
    BUDGET = "budget"
    THRESHOLDS = "thresholds"
    MONTH_LIMITS = "month_limits"
    AUTO_TOPUP = "auto_topup"
    MODEL_ACCESS = "model_access"
    MEMBER = "member"
    PRICE_OVERRIDE = "price_override"


class ActorRole(StrEnum):
    """What the writer of a setting vouches for (product rule 33)."""

    SYSTEM = "system"
    OWNER = "owner"
    ADMIN = "admin"
    BILLING = "billing"
    MEMBER = "member"


class MemberRole(StrEnum):
    """The role recorded for a member of an org; `none` takes the member off."""

    OWNER = "owner"
    ADMIN = "admin"
    BILLING = "billing"
    MEMBER = "member"
    NONE = "none"


class BudgetWindow(StrEnum):
    """Window of a budget, in the org's time zone; weeks begin on Monday (product rule 11)."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"


class ThresholdType(StrEnum):
    """What a threshold rule compares its level with (product rule 26)."""

    BALANCE_AT_OR_BELOW = "balance_at_or_below"
    USED_PERCENT = "used_percent"
    LEFT_PERCENT = "left_percent"
    MONTH_SPEND_ABOVE = "month_spend_above"
    DAYS_LEFT_BELOW = "days_left_below"


class Channel(StrEnum):
    """Where an alert is to be shown (product rule 25)."""

    BANNER = "banner"
    EMAIL = "email"
    WEBHOOK = "webhook"


class RejectReason(StrEnum):
    """Why a rule refused a record: the `reason` of a `rejected` entry. `REJECTIONS` says what each means.

    Those up to `unknown_org` are the contract's, and are used wherever one of them fits; a hold's decision says more.
    """

    NOT_AUTHORIZED = "not_authorized"
    INVALID_SETTING = "invalid_setting"
    UNKNOWN_TARGET = "unknown_target"
    EXCEEDS_REFUNDABLE = "exceeds_refundable"
    INSUFFICIENT_CREDITS = "insufficient_credits"
    SAME_ORG = "same_org"
    AMOUNT_NOT_POSITIVE = "amount_not_positive"
    ORG_CLOSED = "org_closed"
    UNKNOWN_PURCHASE = "unknown_purchase"
    UNKNOWN_USAGE = "unknown_usage"
    UNKNOWN_ORG = "unknown_org"
    CREDITS_HELD = "credits_held"
    LIMIT_REACHED = "limit_reached"
    MODEL_NOT_ALLOWED = "model_not_allowed"
    BLOCKED = "blocked"
    UNKNOWN_HOLD = "unknown_hold"
    ALREADY_RESOLVED = "already_resolved"
    AMOUNT_OUT_OF_RANGE = "amount_out_of_range"
    TOO_MANY_WALLETS = "too_many_wallets"
    TOO_MANY_GRANTS = "too_many_grants"
    TOO_MANY_TRANSFERS = "too_many_transfers"
    TOO_MANY_REFUNDS = "too_many_refunds"
    ACCOUNT_FULL = "account_full"


REJECTIONS: Mapping[RejectReason, str] = MappingProxyType(
    {
        RejectReason.NOT_AUTHORIZED: "the actor may not do this: not an owner, admin or billing, or no administrator",
        RejectReason.INVALID_SETTING: "the body is not of its shape, breaks a rule, or is beyond a limit",
        RejectReason.UNKNOWN_TARGET: "the organisation that credits were sent to does not exist; they come back",
        RejectReason.EXCEEDS_REFUNDABLE: "more than is left to refund of the purchase or the usage",
        RejectReason.INSUFFICIENT_CREDITS: "more than is available, for a transfer, an adjustment or a hold",
        RejectReason.SAME_ORG: "a transfer from an organisation to itself",
        RejectReason.AMOUNT_NOT_POSITIVE: "nothing, or less than can be bought",
        RejectReason.ORG_CLOSED: "the organisation is closed, for transfers and holds",
        RejectReason.UNKNOWN_PURCHASE: "no purchase of that id, or one that is used up and forgotten",
        RejectReason.UNKNOWN_USAGE: "no usage of that id, or one of more than 35 days ago; "
        "after 72 hours a refund should name `target_recorded_at`",
        RejectReason.UNKNOWN_ORG: "a transfer out of an organisation that was never set up",
        RejectReason.CREDITS_HELD: "a hold for which there is enough, but held by other work",
        RejectReason.LIMIT_REACHED: "a hold over a limit; `correlation_id` names it",
        RejectReason.MODEL_NOT_ALLOWED: "a hold for a model that the organisation may not use",
        RejectReason.BLOCKED: "a hold in a wallet that is at its negative limit",
        RejectReason.UNKNOWN_HOLD: "a capture or release of a hold that is not active",
        RejectReason.ALREADY_RESOLVED: "a hold that was captured, released or timed out before",
        RejectReason.AMOUNT_OUT_OF_RANGE: "a transfer for which the target's numbers have no room; it comes back",
        RejectReason.TOO_MANY_WALLETS: "the credits are for one wallet more than an organisation may have",
        RejectReason.TOO_MANY_GRANTS: "one grant more than an organisation may have with something left; "
        "a purchase refused so was paid: return the money, or send it again under a new id when a grant is used up",
        RejectReason.TOO_MANY_TRANSFERS: "one transfer more than may be in transit",
        RejectReason.TOO_MANY_REFUNDS: "refunds of one usage more than are remembered in 35 days",
        RejectReason.ACCOUNT_FULL: "what is open in the organisation has the size that it may have",
    }
)
"""What each reason means, for people."""


class EntryReason(StrEnum):
    """The `reason` of entries that are not `rejected`."""

    GRANT_EXPIRED = "grant_expired"
    ALLOWANCE_LAPSED = "allowance_lapsed"
    PURCHASE_FAILED = "purchase_failed"
    PURCHASE_REFUNDED = "purchase_refunded"
    USAGE_REFUNDED = "usage_refunded"
    USAGE_AMENDED = "usage_amended"
    USAGE_VOIDED = "usage_voided"
    USAGE_RERATED = "usage_rerated"
    GRANT_EXPIRING = "grant_expiring"
    GRANT_HELD = "grant_held"
    DAY_ENDED = "day_ended"
    BUDGET_WINDOW_ENDED = "budget_window_ended"
    TOPUP_RETRY_DUE = "topup_retry_due"
    HOLD_CAPTURED = "hold_captured"
    HOLD_RELEASED = "hold_released"
    HOLD_TIMED_OUT = "hold_timed_out"
    ACCOUNT_MERGED = "account_merged"


class AlertKind(StrEnum):
    """Kinds of alert (product rule 25); `schemas.topics.ALERT_TOPICS` says which topic each goes to."""

    THRESHOLD_CROSSED = "credit_threshold_crossed"
    BALANCE_LOW = "credit_balance_low"
    LIMIT_ALERT = "credit_limit_alert"
    LIMIT_REACHED = "credit_limit_reached"
    BUDGET_REACHED = "budget_reached"
    FREE_EXPIRED = "credit_free_expired"
    EXPIRING = "credits_expiring"
    RESOLVED = "credit_resolved"
    DAYS_LEFT = "credit_days_left"
    BALANCE_DEPLETED = "credit_balance_depleted"
    NEGATIVE_LIMIT_CROSSED = "credit_negative_limit_crossed"
    BALANCE_RESTORED = "credit_balance_restored"
    AUTO_RECHARGE_TRIGGERED = "credit_auto_recharge_triggered"
    PURCHASE_FAILED = "credit_purchase_failed"
    AUTO_RECHARGE_CAPPED = "credit_auto_recharge_capped"


class TopupReason(StrEnum):
    """Why the ledger asks for credits: the first try at a crossing, or again after a failed charge."""

    BELOW_THRESHOLD = "below_threshold"
    RETRY = "retry"


class DecisionCode(StrEnum):
    """The answer to a hold or an authorisation (product rules 17 and 18)."""

    OK = "ok"
    CREDITS_NOT_AVAILABLE = "credits_not_available"
    CREDITS_HELD = "credits_held"
    LIMIT_REACHED = "limit_reached"
    MODEL_NOT_ALLOWED = "model_not_allowed"
    NOT_AUTHORIZED = "not_authorized"
    BLOCKED = "blocked"
    UNKNOWN_HOLD = "unknown_hold"
    ALREADY_RESOLVED = "already_resolved"


class WalletStatus(StrEnum):
    """Status of a wallet (product rule 14), the worst last."""

    OK = "ok"
    LOW = "low"
    DEPLETED = "depleted"
    NEGATIVE = "negative"
    LIMIT_REACHED = "limit_reached"
    BLOCKED = "blocked"


class Health(StrEnum):
    """Health as people see it (product rule 14); `orange` only for wallets with an alert threshold of the month."""

    GREEN = "green"
    YELLOW = "yellow"
    ORANGE = "orange"
    RED = "red"
    TRIANGLE = "triangle"


class DeadLetterCode(StrEnum):
    """Why a record could not be booked at all: header `credits.error.code` of a dead letter."""

    UNDECODABLE = "undecodable"
    UNKNOWN_SCHEMA = "unknown_schema"
    NULL_VALUE = "null_value"
    INVALID_FIELD = "invalid_field"
    KEY_MISMATCH = "key_mismatch"
    UNKNOWN_PRICE = "unknown_price"
    TOO_OLD = "too_old"
    TOO_FAR_IN_FUTURE = "too_far_in_future"
    DUPLICATE_WITH_DIFFERENT_CONTENT = "duplicate_with_different_content"
    AMOUNT_OUT_OF_RANGE = "amount_out_of_range"
    WRONG_PARTITION = "wrong_partition"
    INVALID_CHECKSUM = "invalid_checksum"


class LegKind(StrEnum):
    """Kinds of transfer leg: to the target, and the two answers to the source."""

    CREDIT = "credit"
    ACKNOWLEDGE = "acknowledge"
    RETURN = "return"
