"""What a worker refuses or stops at, with nothing committed of it; on a real broker."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from confluent_kafka import Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from streams.engine.internal_topics import changelog_config, changelog_topic, seen_config, seen_topic
from streams.kafka.clients import admin_config, producer_config
from tests.integration.engine.counting import HUGE, POISON, CountingProcessor
from tests.integration.engine.workers import Installation, audit, until, wait_for_counts


def stopped_saying(installation: Installation, sentence: str, **environment: str) -> str:
    """Start a worker that must stop by itself with code 1, and what it says."""
    worker = installation.worker(**environment)
    assert worker.ends_with(60) == 1, worker.output
    assert sentence in worker.output
    return worker.output


@pytest.mark.fault(
    "wrong-partition-count",
    title="a wrong number of partitions",
    provoked="a worker is started with CREDITS_PARTITIONS=3 on topics of 4",
    holds="it refuses to start and names the setting",
    faults_row=22,
)
def test_a_wrong_number_of_partitions_refuses_and_names_the_setting(
    installation: Installation, seen: Callable[[str], None]
) -> None:
    installation.create_topics()
    output = stopped_saying(installation, "set CREDITS_PARTITIONS=4", CREDITS_PARTITIONS="3")
    assert "Traceback" not in output
    seen("the worker ended with code 1 and said: set CREDITS_PARTITIONS=4")


@pytest.mark.fault(
    "inputs-disagree",
    title="input topics that disagree",
    provoked="one input topic is given more partitions than the others",
    holds="the worker refuses to start and names the topic",
    faults_row=22,
)
def test_inputs_that_disagree_refuse(installation: Installation, seen: Callable[[str], None]) -> None:
    installation.create_topics()
    admin = AdminClient(admin_config(installation.settings))
    for future in admin.create_partitions([NewPartitions(installation.inputs[1], 6)]).values():
        future.result(30)
    stopped_saying(installation, f"topic {installation.inputs[1]} has 6 partitions, CREDITS_PARTITIONS says 4")
    seen("the worker ended with code 1 and named the topic with 6 partitions")


def test_a_topic_that_is_missing_refuses(installation: Installation) -> None:
    stopped_saying(installation, f"topic {installation.inputs[0]} does not exist: run `credits topics apply`")


def test_a_bug_stops_before_anything_of_the_batch_is_committed(installation: Installation) -> None:
    installation.create_topics()
    worker = installation.ready_worker()
    installation.send(500)
    wait_for_counts(installation, 500)
    installation.send_values([("o1", b"before", installation.inputs[0]), ("o1", POISON, installation.inputs[0])])
    assert worker.ends_with(30) == 1
    assert "ValueError: poison" in worker.output
    # And again: the record is still there, and still nothing of it gets through.
    stopped_saying(installation, "ValueError: poison")
    assert audit(installation).counted in (500, 501)  # `before` may have been in a batch of its own
    assert audit(installation).doubled == 0


@pytest.mark.fault(
    "produce-fails",
    title="a record that the broker does not take",
    provoked="an output record larger than its topic allows",
    holds="the worker stops and nothing is committed",
    faults_row=7,
)
def test_a_record_that_no_topic_takes_stops_and_is_not_skipped(
    installation: Installation, seen: Callable[[str], None]
) -> None:
    installation.create_topics(counts={"max.message.bytes": str(1024 * 1024)})
    worker = installation.ready_worker()
    installation.send_values([("o1", HUGE, installation.inputs[0])])
    assert worker.ends_with(30) == 1
    assert "MSG_SIZE_TOO_LARGE" in worker.output
    assert audit(installation).counted == 0
    seen("the worker ended with code 1 and MSG_SIZE_TOO_LARGE; nothing was committed")


@pytest.mark.slow
@pytest.mark.fault(
    "retention-passed",
    title="retention passed a stopped worker's position",
    provoked="records are deleted from an input while the worker is down",
    holds="the worker refuses to start and names the gap",
    faults_row=20,
)
def test_records_deleted_before_they_were_read_stop_the_worker(
    installation: Installation, seen: Callable[[str], None]
) -> None:
    installation.create_topics()
    worker = installation.ready_worker()
    installation.send(1_000)
    wait_for_counts(installation, 1_000)
    worker.kill()
    installation.send(1_000)
    topic = installation.inputs[0]
    admin = AdminClient(admin_config(installation.settings))
    for future in admin.delete_records([TopicPartition(topic, 2, -1)]).values():
        future.result(30)
    output = stopped_saying(installation, "are gone, but were never read")
    assert f"{topic}/2" in output
    seen("the worker ended with code 1 and named the topic and partition")


@pytest.mark.slow
def test_an_input_made_anew_stops_the_worker(installation: Installation) -> None:
    installation.create_topics()
    worker = installation.ready_worker()
    installation.send(1_000)
    wait_for_counts(installation, 1_000)
    worker.kill()
    remake(installation, installation.inputs[1], {"message.timestamp.type": "LogAppendTime"})
    stopped_saying(installation, "but the log ends at 0")


def test_a_lost_account_or_changelog_stops_the_worker(installation: Installation) -> None:
    installation.create_topics()
    worker = installation.ready_worker()
    installation.send(1_000)
    wait_for_counts(installation, 1_000)
    worker.kill()
    producer = Producer(producer_config(installation.settings))
    producer.produce(changelog_topic(installation.settings.app_id), key=b"o7", value=None)
    assert producer.flush(30) == 0
    stopped_saying(installation, "accounts, its position record says")
    remake(installation, changelog_topic(installation.settings.app_id), changelog_config())
    stopped_saying(installation, "but no position in its account changelog")
    assert audit(installation).counted == 1_000


@pytest.mark.slow
@pytest.mark.fault(
    "copies-of-different-age",
    title="The account changelog, or the ledger, is restored from an older copy",
    provoked="each topic was recreated with the records that it had 500 records before the worker was killed",
    holds="the worker refuses to start, says which topic is behind which, and names `credits rebuild --accounts`",
    faults_row=33,
)
def test_copies_of_different_age_stop_the_worker(installation: Installation, seen: Callable[[str], None]) -> None:
    installation.create_topics()
    changelog = changelog_topic(installation.settings.app_id)
    worker = installation.ready_worker()
    installation.send(500)
    wait_for_counts(installation, 500)
    old_changelog, old_output = installation.copy(changelog), installation.copy(installation.output)
    installation.send(500)
    wait_for_counts(installation, 1_000)
    worker.kill()
    new_changelog = installation.copy(changelog)
    put_back(installation, changelog, old_changelog, changelog_config())
    output = stopped_saying(installation, "the changelog is an older copy, or has lost its end")
    assert f"but {installation.output}/" in output
    assert "`credits rebuild --accounts`" in output
    put_back(installation, changelog, new_changelog, changelog_config())
    put_back(installation, installation.output, old_output, {})
    output = stopped_saying(installation, "it is an older copy, or has lost its end")
    assert f"{installation.output}/" in output
    assert "`credits rebuild --accounts`" in output
    assert audit(installation).counted == 500
    seen("both starts were refused with the name of the topic that is behind; nothing was written")


def put_back(
    installation: Installation, topic: str, records: Sequence[Sequence[Message]], config: dict[str, str]
) -> None:
    """Recreate a topic with these records, partition by partition."""
    remake(installation, topic, config)
    producer = Producer(producer_config(installation.settings))
    for number, partition in enumerate(records):
        for record in partition:
            producer.produce(topic, record.value(), record.key(), partition=number)
    assert producer.flush(30) == 0


@pytest.mark.slow
def test_lost_seen_ids_stop_the_worker(installation: Installation) -> None:
    installation.create_topics()
    worker = installation.ready_worker()
    installation.send(8_000)  # enough to have left the position records
    wait_for_counts(installation, 8_000)
    worker.kill()
    window = CountingProcessor.seen_windows[0]
    remake(installation, seen_topic(installation.settings.app_id, window.name), seen_config(window))
    stopped_saying(installation, "ids up to transaction 0, the state says")


def remake(installation: Installation, topic: str, config: dict[str, str]) -> None:
    """Delete a topic and create it empty."""
    admin = AdminClient(admin_config(installation.settings))
    for future in admin.delete_topics([topic]).values():
        future.result(30)
    until(lambda: topic not in admin.list_topics(timeout=10).topics, 20, f"{topic} to be gone")
    time.sleep(0.5)  # the broker deletes the folders a little after the name
    for future in admin.create_topics([NewTopic(topic, installation.settings.partitions, 1, config=config)]).values():
        future.result(30)


def test_a_thread_that_dies_stops_the_worker_with_its_error(installation: Installation, tmp_path: Path) -> None:
    installation.create_topics()
    death_file = tmp_path / "die"
    worker = installation.ready_worker(COUNTING_DEATH_FILE=str(death_file))
    death_file.touch()
    assert worker.ends_with(30) == 1, worker.output
    assert "Thread mortal has ended" in worker.output
    assert "ArithmeticError: the thread's own bug" in worker.output
    # Also while the worker starts, and waits for what the thread will never bring.
    stopped_saying(installation, "ArithmeticError: the thread's own bug", COUNTING_DEATH_FILE=str(death_file))
