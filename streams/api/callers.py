"""Who asks, and what that caller may do.

The rules of this file:
1. Every route that names an organisation or writes something says which roles may call it (`allowed`). `admin` may call
   all of them. A route that is reached without a caller is refused.
2. A key that is not for the organisation gets the same answer whether that organisation exists or not.
3. Who may write which kind of record is what the topic catalogue says of Kafka's own rights (a test compares).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from fastapi import Request

from schemas.enums import InputKind
from streams.api.problems import ProblemError
from streams.kafka.api_keys import EVERY_ORGANISATION, KeyRole

SCOPE_NAME: Final = "credits.caller"
"""Under which name the caller stands in the ASGI scope."""

READS_BALANCES: Final = frozenset({KeyRole.GATEWAY, KeyRole.PAYMENTS, KeyRole.ANALYST, KeyRole.SUBSCRIBER})
READS_STATEMENTS: Final = frozenset({KeyRole.PAYMENTS, KeyRole.ANALYST})
READS_ALERTS: Final = frozenset({KeyRole.SUBSCRIBER, KeyRole.ANALYST})
AUTHORIZES: Final = frozenset({KeyRole.GATEWAY})
EVERY_ROLE: Final = frozenset(KeyRole)

WRITES: Final[Mapping[InputKind, frozenset[KeyRole]]] = MappingProxyType(
    {
        InputKind.USAGE: frozenset({KeyRole.PRODUCER}),
        InputKind.PURCHASE: frozenset({KeyRole.PAYMENTS}),
        InputKind.TRANSFER: frozenset({KeyRole.ADMIN}),
        InputKind.REFUND: frozenset({KeyRole.PAYMENTS, KeyRole.ADMIN}),
        InputKind.HOLD: frozenset({KeyRole.GATEWAY}),
        InputKind.SETTING: frozenset({KeyRole.ADMIN}),
        InputKind.PRICE: frozenset({KeyRole.ADMIN}),
    }
)
"""Who writes records of each kind, beside `admin`."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The sender of a request, as far as the API knows it."""

    name: str
    """`key:<id>`, `local` (a command of this machine) or `anybody` (no keys are asked for)."""
    roles: frozenset[KeyRole]
    organisations: frozenset[str] = frozenset({EVERY_ORGANISATION})

    def may(self, roles: frozenset[KeyRole]) -> bool:
        """Whether one of these roles is the caller's; an admin has all."""
        return KeyRole.ADMIN in self.roles or bool(roles & self.roles)

    def is_for(self, org_id: str) -> bool:
        """Whether the caller may name this organisation."""
        return self.is_for_all or org_id in self.organisations

    @property
    def is_for_all(self) -> bool:
        """Whether the caller may name every organisation."""
        return EVERY_ORGANISATION in self.organisations


ANYBODY: Final = Caller("anybody", frozenset({KeyRole.ADMIN}))
LOCAL: Final = Caller("local", frozenset({KeyRole.ADMIN}))


class NotAuthorizedError(ProblemError):
    """403: the caller is known, and has no right to this."""

    def __init__(self, caller: Caller, detail: str) -> None:
        super().__init__(403, "not_authorized", detail)
        self.caller = caller


def caller_of(request: Request) -> Caller:
    """Who sent this request; raises `ProblemError` when the door has let nobody in."""
    found = request.scope.get(SCOPE_NAME)
    if not isinstance(found, Caller):
        raise ProblemError(401, "unauthorized", "present an API key: `Authorization: Bearer credits_…`")
    return found


def allowed(roles: frozenset[KeyRole]) -> Callable[[Request], Awaitable[Caller]]:
    """A dependency of routes: who may call them, and for the organisation in the address, where there is one."""

    async def check(request: Request) -> Caller:
        caller = caller_of(request)
        require_role(caller, roles)
        org = request.path_params.get("org")
        if org is not None:
            require_org(caller, org)
        return caller

    return check


def require_role(caller: Caller, roles: frozenset[KeyRole]) -> None:
    """Raise `NotAuthorizedError` unless the caller has one of these roles."""
    if not caller.may(roles):
        names = " or ".join(sorted({*roles, KeyRole.ADMIN}))
        raise NotAuthorizedError(caller, f"this needs a key with the role {names}")


def require_org(caller: Caller, org_id: str) -> None:
    """Raise `NotAuthorizedError` unless the caller may name this organisation."""
    if not caller.is_for(org_id):
        raise NotAuthorizedError(caller, "this key is not for that organisation")
