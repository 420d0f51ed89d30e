"""The rights of an installation in Kafka: written from the catalogue, and compared with it.

The rules of this file:
1. What a role may is decided in `schemas.rights` and nowhere else.
2. Applying twice is applying once. What is in Kafka and not in the plan is reported, and removed only on request.
3. Looked at, and removed, is only what is about this installation's own topics, groups and transactional ids, by their
   exact names. Rights on other names, patterns and hosts are other people's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from schemas.rights import Right, Role, rights
from streams.errors import OperatorError, SettingRefusedError
from streams.kafka import topics_admin

if TYPE_CHECKING:
    from concurrent.futures import Future

    from streams.settings import Settings

ANSWER_TIMEOUT_S = 30.0
EVERY_HOST = "*"


@dataclass(frozen=True)
class Applied:
    """What `apply` found and did, or would do."""

    created: list[Right] = field(default_factory=list)
    existing: list[Right] = field(default_factory=list)
    not_planned: list[Right] = field(default_factory=list)
    """In Kafka, about this installation, and not in the plan; still there."""
    removed: list[Right] = field(default_factory=list)


class RightsError(OperatorError):
    """Kafka keeps no rights, or not for us to change."""

    code = "rights_refused"


def apply(
    settings: Settings, principals: Mapping[Role, Iterable[str]], *, dry_run: bool = False, remove: bool = False
) -> Applied:
    """Write the rights of these principals; with `remove`, take away what the plan does not have.

    1. Ask what is there. 2. Write what is missing. 3. Remove what is too much. A crash between costs nothing: the next
    call goes on. Nothing is removed before all of the plan is there, so that no user loses a right he should have.

    Raises `KafkaUnavailableError`, and `RightsError` where Kafka has no authorizer or refuses.
    """
    admin = topics_admin.connect(settings)
    planned = rights(settings.namespace, settings.app_id, principals)
    own = {(each.kind, each.name, each.pattern) for each in _of_everybody(settings)}
    found = {right for right in _found(admin) if (right.kind, right.name, right.pattern) in own}
    missing = [right for right in planned if right not in found]
    too_much = sorted(found - set(planned))
    if not dry_run:
        _done(
            admin.create_acls([_binding(each) for each in missing], request_timeout=ANSWER_TIMEOUT_S) if missing else {}
        )
        if remove and too_much:
            _done(admin.delete_acls([_filter(each) for each in too_much], request_timeout=ANSWER_TIMEOUT_S))
    return Applied(
        created=missing,
        existing=[right for right in planned if right in found],
        not_planned=[] if remove else too_much,
        removed=too_much if remove else [],
    )


def parse_principals(texts: Iterable[str]) -> dict[Role, list[str]]:
    """The principals of each role from texts such as `worker=User:a,User:b`; raises `SettingRefusedError`."""
    found: dict[Role, list[str]] = {}
    for text in texts:
        role, _, names = text.partition("=")
        principals = [name.strip() for name in names.split(",") if name.strip()]
        if role not in set(Role):
            raise SettingRefusedError(f"unknown role {role!r}", f"name one of {', '.join(Role)}")
        if not principals or not all(name.partition(":")[2] for name in principals):
            raise SettingRefusedError(
                f"{text!r} names no principal", f"write --principals {role}=User:NAME, with commas between several"
            )
        if any(name.endswith(":*") for name in principals):
            raise SettingRefusedError(f"{text!r} names everybody", "name the users that have the role")
        found.setdefault(Role(role), []).extend(principals)
    return found


def _of_everybody(settings: Settings) -> list[Right]:
    return rights(settings.namespace, settings.app_id, {role: ["User:any"] for role in Role})


def _found(admin: AdminClient) -> set[Right]:
    every = AclBindingFilter(
        ResourceType.ANY, None, ResourcePatternType.ANY, None, None, AclOperation.ANY, AclPermissionType.ANY
    )
    bindings = _answer(admin.describe_acls(every, request_timeout=ANSWER_TIMEOUT_S))
    return {
        Right(
            each.principal,
            each.operation.name.lower(),
            _KINDS[each.restype],
            each.name,
            each.resource_pattern_type.name.lower(),
        )
        for each in bindings
        if each.restype in _KINDS and each.host == EVERY_HOST and each.permission_type == AclPermissionType.ALLOW
    }


_KINDS: Mapping[Any, Any] = {
    ResourceType.TOPIC: "topic",
    ResourceType.GROUP: "group",
    ResourceType.TRANSACTIONAL_ID: "transactional_id",
}


def _parts(right: Right) -> tuple[Any, ...]:
    return (
        ResourceType[right.kind.upper()],
        right.name,
        ResourcePatternType[right.pattern.upper()],
        right.principal,
        EVERY_HOST,
        AclOperation[right.operation.upper()],
        AclPermissionType.ALLOW,
    )


def _binding(right: Right) -> AclBinding:
    return AclBinding(*_parts(right))


def _filter(right: Right) -> AclBindingFilter:
    return AclBindingFilter(*_parts(right))


def _done(futures: Mapping[Any, Future[Any]]) -> None:
    for future in futures.values():
        _answer(future)


def _answer(future: Future[Any]) -> Any:
    try:
        return future.result(ANSWER_TIMEOUT_S)
    except KafkaException as failure:
        error = failure.args[0]
        if error.code() == KafkaError.SECURITY_DISABLED:
            raise RightsError(
                "Kafka keeps no rights: its brokers have no authorizer",
                "set authorizer.class.name on the brokers (docs/operations.md)",
            ) from failure
        raise RightsError(
            f"Kafka refuses to tell or change rights ({error.str()})",
            "run this as a user that may alter the cluster, such as one of super.users",
        ) from failure
