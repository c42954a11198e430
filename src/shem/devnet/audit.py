"""What is left over on a node: everything that a requestor should have ended, paid or given back."""

from __future__ import annotations

from dataclasses import dataclass, fields

from shem.ids import ActivityId, AgreementId, AllocationId, DebitNoteId, DemandId, InvoiceId


@dataclass(frozen=True, slots=True)
class Audit:
    """What is left over; everything is empty after a clean run.

    Attributes:
        live_activities: not Terminated.
        open_agreements: not in a final state.
        open_debit_notes: not accepted, nor covered by an accepted invoice.
        open_invoices: neither accepted nor rejected.
        invoices_to_come: agreements that have ended and whose invoice the provider has still to send.
        open_allocations: not released.
        open_demands: still published.
    """

    live_activities: tuple[ActivityId, ...] = ()
    open_agreements: tuple[AgreementId, ...] = ()
    open_debit_notes: tuple[DebitNoteId, ...] = ()
    open_invoices: tuple[InvoiceId, ...] = ()
    invoices_to_come: tuple[AgreementId, ...] = ()
    open_allocations: tuple[AllocationId, ...] = ()
    open_demands: tuple[DemandId, ...] = ()

    @property
    def clean(self) -> bool:
        """Whether nothing is left over."""
        return not any(getattr(self, field.name) for field in fields(self))

    def __str__(self) -> str:
        left = [
            f"{field.name.replace('_', ' ')}: {', '.join(getattr(self, field.name))}"
            for field in fields(self)
            if getattr(self, field.name)
        ]
        return "; ".join(left) or "nothing left over"
