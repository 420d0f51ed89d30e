"""Who may do what (product rules 17, 22, 33).

Rules of this file: `system` may do all. A setting needs the role of an owner or an admin, or `billing` where money is
meant; where the org has members recorded, the actor must also hold such a role there. A purchase or refund without an
actor comes from the payment service and counts as `system`. A transfer needs an administrator of both orgs. A
user recorded with the role `none` is no member, and may not begin work that costs. A user without a record may: Kafka
and the API decide who may ask in an org's name.
"""

from __future__ import annotations

from schemas.enums import ActorRole, MemberRole, SettingKind
from streams.ledger.account import Account

_GOVERNING = frozenset({MemberRole.OWNER.value, MemberRole.ADMIN.value})
_PAYING = _GOVERNING | {MemberRole.BILLING.value}


def may_set(account: Account, kind: SettingKind, actor: str, role: ActorRole) -> bool:
    """Whether `actor`, vouched for as `role`, may change a setting of this kind."""
    if role is ActorRole.SYSTEM:
        return True
    permitted = _PAYING if kind is SettingKind.AUTO_TOPUP else _GOVERNING
    return role.value in permitted and _holds(account, actor, permitted)


def may_pay(account: Account, actor: str | None) -> bool:
    """Whether `actor` may buy credits, or take a purchase or usage back."""
    return actor is None or _holds(account, actor, _PAYING)


def administers(account: Account, actor: str) -> bool:
    """Whether `actor` may move credits out of or into this org."""
    return account.org is not None and actor in account.org.administrators


def may_spend(account: Account, user_id: str | None) -> bool:
    """Whether work may begin for this user; None: no user is named."""
    return user_id is None or account.members.get(user_id) is not MemberRole.NONE


def _holds(account: Account, actor: str, permitted: frozenset[str]) -> bool:
    return account.members.get(actor) in permitted or not members_of(account)


def members_of(account: Account) -> list[str]:
    """Those recorded as members: with a role other than `none`."""
    return [user_id for user_id, role in account.members.items() if role is not MemberRole.NONE]
