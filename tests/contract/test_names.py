"""The names of the contract, typed from its text: none may be renamed or taken away; adding is free."""

from __future__ import annotations

from enum import StrEnum

import pytest

from schemas.enums import (
    ActorRole,
    AlertKind,
    BillingUnit,
    DeadLetterCode,
    DecisionCode,
    EntryKind,
    InputKind,
    RejectReason,
    SettingKind,
    WalletStatus,
)
from schemas.records import avro_schema, record_names
from schemas.topics import ALERT_TOPICS, BY_KEY, CATALOGUE, DAY_MS, Topics

FOR_EVER = None

# name, record, retention in days or FOR_EVER, compacted
TOPICS = [
    ("credits.usage.v1", "usage", 30, False),
    ("credits.purchases.v1", "purchase", FOR_EVER, False),
    ("credits.transfers.v1", "transfer", FOR_EVER, False),
    ("credits.refunds.v1", "refund", FOR_EVER, False),
    ("credits.holds.v1", "hold", 7, False),
    ("credits.settings.v1", "setting", FOR_EVER, False),
    ("credits.prices.v1", "price", FOR_EVER, True),
    ("credits.ledger.v1", "entry", FOR_EVER, False),
    ("credits.alerts.threshold.v1", "alert", 90, False),
    ("credits.alerts.depletion.v1", "alert", 90, False),
    ("credits.alerts.topup.v1", "alert", 90, False),
    ("credits.topup-requests.v1", "topup_request", 90, False),
    ("credits.decisions.v1", "decision", 7, False),
    ("credits.balances.v1", "balance", FOR_EVER, True),
    ("credits.dead-letters.v1", None, FOR_EVER, False),
]

# required fields; optional fields
INPUTS = {
    "usage": (
        "event_id org_id occurred_at operation",
        "source category project_id user_id team department model tool provider endpoint deployment input_tokens "
        "output_tokens quantity_nanos unit_of_measure replicas cost_nanos wallet revision voided hold_id attributes",
    ),
    "purchase": (
        "purchase_id org_id occurred_at wallet amount_nanos",
        "status kind expires_at priority price_paid_nanos currency topup_request_id actor failure_reason",
    ),
    "transfer": ("transfer_id org_id target_org_id occurred_at wallet amount_nanos actor", "reason"),
    "refund": ("refund_id org_id occurred_at target target_id amount_nanos", "actor reason"),
    "hold": (
        "hold_id org_id occurred_at action wallet amount_nanos",
        "expires_at user_id project_id model tool operation on_shortage",
    ),
    "price": (
        "price_id operation unit_price_nanos billing_unit wallet valid_from",
        "valid_to category model tool provider direction tier free org_id display_name",
    ),
    "setting": ("setting_id org_id occurred_at actor actor_role kind body", ""),
}

# fields added since; all optional
ADDED = {
    "usage": "cache_read_tokens cache_write_tokens cache_write_1h_tokens output_reasoning_tokens input_audio_tokens "
    "output_audio_tokens input_image_tokens output_image_tokens quantities service_tier",
    "refund": "target_recorded_at components",
    "hold": "team department category provider",
    "price": "meter service_tier input_tokens_above aliases tiers free_quantity_nanos package_size_nanos minimum_nanos "
    "factor_nanos",
}

OUTPUTS = {
    "entry": "org_id seq entry_id kind wallet amount_nanos balance_nanos available_nanos held_nanos occurred_at "
    "recorded_at event_id source_topic source_partition source_offset slices source category project_id user_id team "
    "department model tool provider endpoint deployment input_tokens output_tokens quantity_nanos unit_of_measure "
    "replicas unit_price_nanos billing_unit reason actor correlation_id details components",
    "alert": "alert_id org_id wallet kind rule_id rule_version epoch level balance_nanos available_nanos used_percent "
    "previous_percent occurred_at entry_seq channels dismissable message",
    "topup_request": "topup_request_id org_id wallet amount_nanos occurred_at entry_seq reason",
    "decision": "hold_id org_id action allowed code http_status limit_id granted_nanos available_nanos expires_at "
    "entry_seq",
    "balance": "org_id seq as_of wallets",
}

LONGS = ["input_tokens", "output_tokens", "quantity_nanos", "cost_nanos", "seq", "source_offset", "entry_seq"]

WORDS: dict[type[StrEnum], str] = {
    InputKind: "usage purchase transfer refund hold setting price",
    EntryKind: "usage purchase allowance rollover expiry transfer_out transfer_in transfer_return refund correction "
    "hold hold_release adjustment setting rejected",
    BillingUnit: "token 1000_tokens 1000000_tokens request minute hour gpu_hour unit",
    SettingKind: "org wallet budget thresholds month_limits auto_topup model_access member price_override",
    ActorRole: "system owner admin billing member",
    RejectReason: "not_authorized invalid_setting unknown_target exceeds_refundable insufficient_credits same_org "
    "amount_not_positive org_closed unknown_purchase unknown_usage unknown_org",
    DecisionCode: "ok credits_not_available credits_held limit_reached model_not_allowed not_authorized blocked "
    "unknown_hold already_resolved",
    WalletStatus: "ok low limit_reached depleted negative blocked",
    DeadLetterCode: "undecodable unknown_schema null_value invalid_field key_mismatch unknown_price too_old "
    "too_far_in_future duplicate_with_different_content amount_out_of_range wrong_partition "
    "invalid_checksum",
    AlertKind: "credit_threshold_crossed credit_balance_low credit_limit_alert credit_limit_reached budget_reached "
    "credit_free_expired credits_expiring credit_resolved credit_days_left credit_balance_depleted "
    "credit_negative_limit_crossed credit_balance_restored credit_auto_recharge_triggered credit_purchase_failed "
    "credit_auto_recharge_capped",
}

ALERTS = {
    "alerts_threshold": "credit_threshold_crossed credit_balance_low credit_limit_alert credit_limit_reached "
    "budget_reached credit_free_expired credits_expiring credit_resolved credit_days_left",
    "alerts_depletion": "credit_balance_depleted credit_negative_limit_crossed credit_balance_restored",
    "alerts_topup": "credit_auto_recharge_triggered credit_purchase_failed credit_auto_recharge_capped",
}


@pytest.mark.parametrize(("name", "record", "days", "compacted"), TOPICS)
def test_topics(name: str, record: str | None, days: int | None, compacted: bool) -> None:
    topic = Topics().topic(name)
    assert topic is not None
    assert topic.record == record
    assert topic.retention_ms == (None if days is None else days * DAY_MS)
    assert topic.cleanup == ("compact" if compacted else "delete")


def test_other_topics_are_internal() -> None:
    contracted = {name for name, *_ in TOPICS}
    for topic in CATALOGUE:
        prefixed = topic.name.startswith(("credits.internal.", "credits-ledger-"))
        assert topic.internal == prefixed == (topic.name not in contracted)


@pytest.mark.parametrize("record", INPUTS)
def test_fields_of_inputs(record: str) -> None:
    required, optional = (names.split() for names in INPUTS[record])
    optional += ADDED.get(record, "").split()
    fields = avro_schema(record)["fields"]
    assert [field["name"] for field in fields] == required + optional
    assert [field["name"] for field in fields if "default" not in field] == required
    for field in fields:
        assert field.get("default") in (None, 0, False, {}, []), f"{field['name']} defaults to neither null nor empty"


@pytest.mark.parametrize("record", OUTPUTS)
def test_fields_of_outputs(record: str) -> None:
    fields = [field["name"] for field in avro_schema(record)["fields"]]
    contracted = OUTPUTS[record].split()
    assert [name for name in fields if name in contracted] == contracted


def test_wallet_balances() -> None:
    wallets = next(field for field in avro_schema("balance")["fields"] if field["name"] == "wallets")
    names = [field["name"].removesuffix("_nanos") for field in wallets["type"]["items"]["fields"]]
    assert names == (
        [
            "unit",
            "settled",
            "held",
            "available",
            "allocation",
            "month_spent",
            "lifetime_added",
            "lifetime_spent",
            "status",
            "health",
            "on_the_way",  # added in v2
        ]
    )


def test_slices() -> None:
    slices = next(field for field in avro_schema("entry")["fields"] if field["name"] == "slices")
    names = [field["name"] for field in slices["type"]["items"]["fields"]]
    assert names[:4] == ["grant_id", "kind", "amount_nanos", "expires_at"]


def branches(field: dict[str, object]) -> list[object]:
    kind = field["type"]
    return [branch for branch in (kind if isinstance(kind, list) else [kind]) if branch != "null"]


@pytest.mark.parametrize("record", record_names())
def test_types_follow_the_names(record: str) -> None:
    """Amounts are long; times are timestamp-micros; ids are strings."""
    for field in avro_schema(record)["fields"]:
        name = field["name"]
        if name.endswith("_nanos") or name in LONGS:
            assert branches(field) == ["long"], name
        elif name.endswith(("_at", "_from", "_to")) or name == "as_of":
            assert branches(field) == [{"type": "long", "logicalType": "timestamp-micros"}], name
        elif name.endswith("_id"):
            assert branches(field) == ["string"], name


@pytest.mark.parametrize("record", record_names())
def test_every_field_says_what_it_means(record: str) -> None:
    schema = avro_schema(record)
    assert schema["doc"]
    assert all(field["doc"] for field in schema["fields"])


@pytest.mark.parametrize("words", WORDS)
def test_words(words: type[StrEnum]) -> None:
    assert set(WORDS[words].split()) <= {word.value for word in words}


def test_alerts_go_to_their_topics() -> None:
    found = {key: {kind.value for kind in AlertKind if ALERT_TOPICS[kind] == key} for key in ALERTS}
    assert found == {key: set(kinds.split()) for key, kinds in ALERTS.items()}


def test_subjects_are_topic_names() -> None:
    topics = Topics("two.")
    assert topics.subject("usage") == "two.credits.usage.v1-value"
    assert topics.subjects["two.credits.ledger.v1-value"] == "entry"
    assert set(topics.subjects.values()) == set(record_names())


def test_co_partitioned_inputs() -> None:
    inputs = [key for key, topic in BY_KEY.items() if topic.input]
    assert inputs == ["usage", "purchases", "transfers", "refunds", "holds", "settings", "prices", "transfer_legs"]
    assert not any(BY_KEY[key].single_partition for key in inputs)
    for key in inputs:
        assert BY_KEY[key].configuration()["message.timestamp.type"] == "LogAppendTime"


def test_a_dead_letter_fits_its_topic() -> None:
    """The largest input record and its headers."""
    largest = max(topic.record_bytes_max for topic in CATALOGUE if topic.input)
    assert BY_KEY["dead_letters"].record_bytes_max >= largest + 64 * 1024
