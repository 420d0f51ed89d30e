"""Topics are made from the catalogue, once, and what contradicts it is refused."""

from __future__ import annotations

import pytest
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from schemas.topics import Topics
from streams.errors import SettingRefusedError
from streams.kafka import topics_admin
from streams.kafka.clients import admin_config
from streams.settings import Settings


def set_config(settings: Settings, topic: str, name: str, value: str) -> None:
    admin = AdminClient(admin_config(settings))
    entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(10)


def test_all_topics_are_created_as_the_catalogue_says_and_only_once(settings: Settings) -> None:
    names = Topics(settings.namespace).names
    first = topics_admin.apply(settings)
    assert sorted(first.created) == sorted(names)
    second = topics_admin.apply(settings)
    assert second.created == []
    assert second.existing == names
    assert second.differences == []
    counts = topics_admin.partition_counts(topics_admin.connect(settings))
    assert {name: counts[name] for name in names} == topics_admin.wanted_partitions(settings)


def test_another_number_of_partitions_is_refused_and_the_right_one_named(settings: Settings) -> None:
    topics_admin.apply(settings)
    changed = settings.model_copy(update={"partitions": settings.partitions + 1})
    with pytest.raises(SettingRefusedError, match=f"CREDITS_PARTITIONS={settings.partitions}"):
        topics_admin.apply(changed)


def test_inputs_that_disagree_are_refused(settings: Settings) -> None:
    topics_admin.apply(settings)
    admin = AdminClient(admin_config(settings))
    usage = Topics(settings.namespace).name("usage")
    admin.delete_topics([usage])[usage].result(10)
    fewer = settings.model_copy(update={"partitions": 2})
    with pytest.raises(SettingRefusedError):
        topics_admin.apply(fewer)


def test_a_compacted_ledger_is_refused_and_mended_on_request(settings: Settings) -> None:
    topics_admin.apply(settings)
    ledger = Topics(settings.namespace).name("ledger")
    set_config(settings, ledger, "cleanup.policy", "compact")
    with pytest.raises(SettingRefusedError, match="credits topics apply --change"):
        topics_admin.apply(settings)
    assert [each.topic for each in topics_admin.apply(settings, change=True).changed] == [ledger]
    assert topics_admin.apply(settings).differences == []


def test_another_retention_is_the_operators_choice_and_reported(settings: Settings) -> None:
    topics_admin.apply(settings)
    usage = Topics(settings.namespace).name("usage")
    set_config(settings, usage, "retention.ms", "60000")
    differences = topics_admin.apply(settings).differences
    assert [(each.topic, each.setting, each.found) for each in differences] == [(usage, "retention.ms", "60000")]


def test_more_copies_than_brokers_is_refused(settings: Settings) -> None:
    with pytest.raises(SettingRefusedError, match="CREDITS_REPLICATION_FACTOR"):
        topics_admin.apply(settings.model_copy(update={"replication_factor": 3}))
