"""Who may do what (product rules 22, 33).

Rules of this file: `system` may do all. A setting needs the role of an owner or an admin, or `billing` where money is
meant; where the org has members recorded, the actor must also hold such a role there. A purchase or refund without an
actor comes from the payment service and counts as `system`. A transfer needs an administrator of both orgs.
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


def _holds(account: Account, actor: str, permitted: frozenset[str]) -> bool:
    return not account.members or account.members.get(actor) in permitted
