"""Who may do what in Kafka: the roles of an installation, and the rights that each needs and no others.

The rules of this file:
1. What a role reads and writes is what the catalogue's `read_by` and `written_by` say; `PARTIES` says which role each
   of their words is. A topic that names none of them is an error, not a topic without rights.
2. Only workers write what the ledger says, and its internal topics. Only workers may create, change or delete a topic,
   and only where its name begins with their own app id.
3. Every role may see that the topics are there and how they are set, for commands check them at their start, and where
   its groups are kept, for every consumer asks for that. Joining a group and moving its position is another right.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Literal

from schemas.topics import CATALOGUE


class Role(StrEnum):
    """What a program is to the ledger. API keys use the first five (`streams.kafka.api_keys`)."""

    PRODUCER = "producer"
    """A service that reports usage."""
    GATEWAY = "gateway"
    """Places holds, reads the answers and the balances."""
    PAYMENTS = "payments"
    """The payment service: purchases, refunds, answers to top-up requests."""
    ADMIN = "admin"
    """Tools of people: settings, prices, transfers, refunds by support."""
    SUBSCRIBER = "subscriber"
    """Sends alerts on, or follows the ledger."""
    WORKER = "worker"
    """The ledger; also `rebuild --accounts` and `accounts merge`, which write in its place."""
    SERVE = "serve"
    """HTTP, the built-in registry, the projection: `api` and `projector` in one."""
    API = "api"
    """HTTP and the built-in registry."""
    PROJECTOR = "projector"
    """The projection."""
    OPERATOR = "operator"
    """`verify`, `dead-letters`, `rebuild`, `tail`: reads everything, and sends input records again.

    Not `rebuild --accounts` and `accounts merge`: who may write the state of the ledger is a worker."""


Kind = Literal["topic", "group", "transactional_id"]
Pattern = Literal["literal", "prefixed"]
Operation = Literal["read", "write", "create", "delete", "describe", "describe_configs"]

EVERY_ROLE = frozenset(Role)

OF_OWN_TOPICS: tuple[Operation, ...] = ("create", "read", "write", "delete", "describe_configs")

PARTIES: Mapping[str, frozenset[Role]] = MappingProxyType(
    {
        "producer services": frozenset({Role.PRODUCER}),
        "payment service": frozenset({Role.PAYMENTS}),
        "support": frozenset({Role.ADMIN}),
        "admin tools": frozenset({Role.ADMIN}),
        "gateways": frozenset({Role.GATEWAY}),
        "the HTTP API": frozenset({Role.SERVE, Role.API}),
        "projections": frozenset({Role.SERVE, Role.PROJECTOR}),
        "the built-in schema registry": frozenset({Role.SERVE, Role.API}),
        "the ledger": frozenset({Role.WORKER}),
        "the ledger at its start": frozenset({Role.WORKER}),
        "every worker": frozenset({Role.WORKER}),
        "notifiers": frozenset({Role.SUBSCRIBER}),
        "subscribers": frozenset({Role.SUBSCRIBER}),
        "verify": frozenset({Role.OPERATOR}),
        "`credits dead-letters`": frozenset({Role.OPERATOR}),
        "`credits dead-letters replay`": frozenset({Role.OPERATOR}),
        "`credits keys`": frozenset({Role.OPERATOR}),
        "everybody who decodes": EVERY_ROLE,
    }
)
"""The roles behind the words of the catalogue."""

FOLLOWERS = frozenset({Role.GATEWAY, Role.PAYMENTS, Role.SUBSCRIBER, Role.OPERATOR})
"""Keep positions by name (`streams.client.Follower`)."""


@dataclass(frozen=True, slots=True, order=True)
class Right:
    """One operation on one resource that a principal is allowed, from every host."""

    principal: str
    """Such as `User:ledger`."""
    operation: Operation
    kind: Kind
    name: str
    pattern: Pattern = "literal"


def roles(parties: str) -> frozenset[Role]:
    """The roles that a text such as "payment service, support" names; what follows a `;` is a remark. KeyError."""
    words = parties.partition(";")[0].split(",")
    return frozenset().union(*(PARTIES[word.strip()] for word in words))


def rights(namespace: str, app_id: str, principals: Mapping[Role, Iterable[str]]) -> list[Right]:
    """Every right of these principals, in order. `app_id`: of the ledger (`Settings.app_id`)."""
    of_roles = [(role, name) for role, names in principals.items() for name in names]
    return sorted({right for role, name in of_roles for right in _of(role, name, namespace, app_id)})


def _of(role: Role, principal: str, namespace: str, app_id: str) -> Iterator[Right]:
    for topic in CATALOGUE:
        name, writers = f"{namespace}{topic.name}", roles(topic.written_by)
        yield Right(principal, "describe", "topic", name)
        yield Right(principal, "describe_configs", "topic", name)
        # A worker reads its own outputs back: where they end says which commit was the last.
        if role in roles(topic.read_by) or role is Role.OPERATOR or (role is Role.WORKER and role in writers):
            yield Right(principal, "read", "topic", name)
        if role in writers or (role is Role.OPERATOR and topic.input and not topic.internal):
            yield Right(principal, "write", "topic", name)
    yield Right(principal, "describe", "group", f"{namespace}credits-", "prefixed")
    if role in FOLLOWERS:
        yield Right(principal, "read", "group", f"{namespace}credits-follower-", "prefixed")
    if role in (Role.SERVE, Role.PROJECTOR):
        yield Right(principal, "read", "group", f"{namespace}credits-projection", "prefixed")
    if role is Role.OPERATOR:
        # `verify` reads what the workers remember; `rebuild` makes the projection's positions again.
        yield Right(principal, "read", "topic", f"{app_id}-", "prefixed")
        yield Right(principal, "read", "group", f"{namespace}credits-projection", "prefixed")
    if role is Role.WORKER:
        yield Right(principal, "read", "group", app_id)
        yield Right(principal, "write", "transactional_id", f"{app_id}-", "prefixed")
        yield Right(principal, "describe", "transactional_id", f"{app_id}-", "prefixed")
        # Accounts, seen ids, the clock: made by the first worker, and trimmed (`delete` is for records, too).
        for operation in OF_OWN_TOPICS:
            yield Right(principal, operation, "topic", f"{app_id}-", "prefixed")
