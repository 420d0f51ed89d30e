"""Transfers between orgs (rule 22)."""

from __future__ import annotations

from tests.model.audit_time import Time
from tests.model.audited import (
    Lot,
    Parcel,
)
from tests.model.predicted import ARRIVED


class TransferRules(Time):
    """Credits that leave, arrive, come back."""

    def send(self, transfer_id: str, source: str, target: str, unit: str, amount: int, actor: str, at: int) -> None:
        """Credits leave the source (rule 22)."""
        self.settle(source, at)
        org = self.org(source)
        refusal = None
        if amount <= 0:
            refusal = "amount_not_positive"
        elif source == target:
            refusal = "same_org"
        elif not org.known:
            refusal = "unknown_org"
        elif actor not in org.administrators:
            refusal = "not_authorized"
        elif org.closed:
            refusal = "org_closed"
        elif amount > self.look(source, unit).available:
            refusal = "insufficient_credits"
        if refusal is not None:
            self._refuse(source, unit, refusal)
            return
        wallet = self._wallet(org, unit, at)
        draws = self._draw(wallet, amount)
        self.parcels[transfer_id] = Parcel(source, target, unit, actor, wallet.month, draws)
        self._line(source, "transfer_out", wallet, -amount, at, draws=draws)
        self.settle(source, at)

    def arrive(self, transfer_id: str, at: int) -> bool:
        """The target takes the parcel, or does not: then it must be returned. True when taken."""
        parcel = self.parcels[transfer_id]
        name = parcel.target
        self.settle(name, at)
        org = self.org(name)
        if not org.known:
            return False
        if parcel.actor not in org.administrators or org.closed:
            self._refuse(
                name, parcel.unit, "not_authorized" if parcel.actor not in org.administrators else "org_closed"
            )
            return False
        limit_reason = self._limit_reason(name, parcel.unit, len(parcel.pieces))
        if limit_reason is not None:
            self._refuse(name, parcel.unit, limit_reason)
            return False
        wallet = self._wallet(org, parcel.unit, at)
        lots = [
            Lot(
                f"{ARRIVED}{transfer_id}/{number}",
                lot.kind,
                piece.amount,
                piece.amount,
                lot.priority,
                lot.expires_at,
                at,
            )
            for number, piece in enumerate(parcel.pieces)
            if (lot := piece.lot) is not None
        ]
        wallet.touched = True
        wallet.allocation += parcel.amount
        wallet.added += parcel.amount
        self._add(name, "transfer_in", wallet, lots, at)
        del self.parcels[transfer_id]
        self.settle(name, at)
        return True

    def come_back(self, transfer_id: str, at: int) -> None:
        """The parcel returns to the lots that it came from."""
        parcel = self.parcels[transfer_id]
        self.settle(parcel.source, at)
        del self.parcels[transfer_id]
        wallet = self._wallet(self.org(parcel.source), parcel.unit, at)
        if wallet.month != parcel.month:
            wallet.allocation += parcel.amount
        self._give_back(wallet, parcel.pieces, at)
        self._line(parcel.source, "transfer_return", wallet, parcel.amount, at, replenished=True)
        self.settle(parcel.source, at)

    def acknowledged(self, source: str, at: int) -> None:
        """Only the source's clock moves: what fell due is settled."""
        self.settle(source, at)
