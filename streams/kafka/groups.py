"""Who is in a consumer group now.

Rules of this file: a group that was never joined has no members. A broker that has just started, or that never had a
group, needs a moment before it answers for one: it is asked again, and then it is `KafkaUnavailableError`.
"""

from __future__ import annotations

import time

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from streams.errors import KafkaUnavailableError

ANSWER_TIMEOUT_S = 30.0
ASK_PAUSE_S = 0.2
COORDINATOR_COMES = {
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.NOT_COORDINATOR,
}


def group_members(admin: AdminClient, group: str, timeout_s: float = ANSWER_TIMEOUT_S) -> list[str]:
    """The members of a group, as `client at host`. Blocks; raises `KafkaUnavailableError`."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        found = admin.describe_consumer_groups([group], request_timeout=timeout_s)
        try:
            members = found[group].result(timeout_s).members
        except KafkaException as failure:
            error = failure.args[0]
            if error.code() == KafkaError.GROUP_ID_NOT_FOUND:
                return []
            if error.code() not in COORDINATOR_COMES or time.monotonic() > deadline_s:
                raise KafkaUnavailableError(f"the group {group} cannot be asked for: {error.str()}") from failure
            time.sleep(ASK_PAUSE_S)
        else:
            return sorted(f"{each.client_id} at {each.host}" for each in members)
