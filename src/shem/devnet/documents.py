"""Debit notes and invoices: issued by providers, accepted by requestors, settled after a while.

Amounts are GLM; a debit note's is cumulative for its activity, an invoice's is the sum of its agreement.

Source: contract 3.2.4, 3.2.5.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final

import msgspec

from shem import props
from shem.clock import Clock
from shem.devnet.agreements import Agreement, Agreements
from shem.devnet.allocations import ROOT, Allocations, dashed
from shem.devnet.background import Background
from shem.devnet.eventlog import EventLog, EventTimes
from shem.devnet.money import is_amount
from shem.devnet.refusals import bad_request, not_found
from shem.devnet.settings import Timings
from shem.ids import ActivityId, AgreementId, DebitNoteId, InvoiceId, NodeId
from shem.yagna import models as wire
from shem.yagna.models import DocumentStatus as Status

#: Kinds of events that a requestor is told unless it asks for others.
REQUESTOR_KINDS: Final = frozenset({"RECEIVED", "CANCELLED"})
#: Statuses in which a document asks nothing of the requestor any more.
CLOSED: Final = frozenset({Status.ACCEPTED, Status.SETTLED, Status.REJECTED, Status.CANCELLED})


class Documents:
    """All debit notes and invoices of one node."""

    def __init__(
        self,
        clock: Clock,
        times: EventTimes,
        background: Background,
        agreements: Agreements,
        allocations: Allocations,
        timings: Timings,
    ) -> None:
        self._clock, self._times, self._background = clock, times, background
        self._agreements, self._allocations, self._timings = agreements, allocations, timings
        self._notes: dict[DebitNoteId, wire.DebitNote] = {}
        self._invoices: dict[InvoiceId, wire.Invoice] = {}
        self._notes_of: dict[ActivityId, list[DebitNoteId]] = {}
        self._activities_of: dict[AgreementId, list[ActivityId]] = {}
        self._invoice_of: dict[AgreementId, InvoiceId] = {}
        self._accepted: dict[ActivityId, Decimal] = {}
        self._note_log: EventLog[wire.DebitNoteEvent] = EventLog()
        self._invoice_log: EventLog[wire.InvoiceEvent] = EventLog()

    # --- the requestor's side -------------------------------------------------------------------------

    def note(self, who: NodeId, note_id: DebitNoteId) -> wire.DebitNote:
        """One debit note. Raises `NotFound`."""
        return self._note(f"GET {ROOT}/debitNotes/{note_id}", who, note_id)

    def invoice(self, who: NodeId, invoice_id: InvoiceId) -> wire.Invoice:
        """One invoice. Raises `NotFound`."""
        return self._invoice(f"GET {ROOT}/invoices/{invoice_id}", who, invoice_id)

    def notes(self, who: NodeId) -> list[wire.DebitNote]:
        """All debit notes that a requestor got, oldest first."""
        return [note for note in self._notes.values() if note.recipient_id == who]

    def invoices(self, who: NodeId) -> list[wire.Invoice]:
        """All invoices that a requestor got, oldest first."""
        return [invoice for invoice in self._invoices.values() if invoice.recipient_id == who]

    def accept_note(self, who: NodeId, note_id: DebitNoteId, acceptance: wire.Acceptance) -> None:
        """Accept a debit note; harmless where it, or the invoice of its agreement, was accepted before.

        Raises `NotFound`, `BadRequest` for a wrong amount, an unknown allocation or one that is too small,
        and `Gone` where the allocation is released.
        """
        call = f"POST {ROOT}/debitNotes/{note_id}/accept"
        note = self._note(call, who, note_id)
        if note.status is not Status.RECEIVED or self._invoice_accepted(note.agreement_id):
            return
        _check_amount(call, note.total_amount_due, acceptance)
        accepted = self._accepted.get(note.activity_id, Decimal(0))
        due = max(note.total_amount_due - accepted, Decimal(0))
        self._allocations.charge(call, who, acceptance.allocation_id, due)
        self._accepted[note.activity_id] = accepted + due
        self._set_note(note_id, Status.ACCEPTED)
        if note.payment_due_date is not None:
            self._background.later(self._timings.settle, self._set_note, note_id, Status.SETTLED)

    def accept_invoice(self, who: NodeId, invoice_id: InvoiceId, acceptance: wire.Acceptance) -> None:
        """Accept an invoice, from then on it is paid; nothing happens where it was accepted before.

        Raises as `accept_note` does, and `BadRequest` for an invoice that was rejected or cancelled.
        """
        call = f"POST {ROOT}/invoices/{invoice_id}/accept"
        invoice = self._invoice(call, who, invoice_id)
        if invoice.status in (Status.ACCEPTED, Status.SETTLED):
            return
        if invoice.status is not Status.RECEIVED:
            raise bad_request(call, f"Invoice [{invoice_id}] is {invoice.status.value}")
        _check_amount(call, invoice.amount, acceptance)
        accepted = sum((self._accepted.get(one, Decimal(0)) for one in invoice.activity_ids), Decimal(0))
        self._allocations.charge(
            call, who, acceptance.allocation_id, max(invoice.amount - accepted, Decimal(0))
        )
        self._set_invoice(invoice_id, Status.ACCEPTED)
        self._background.later(self._timings.settle, self._settle, invoice_id)

    def reject_invoice(self, who: NodeId, invoice_id: InvoiceId) -> None:
        """Refuse an invoice. Raises `NotFound`, and `BadRequest` where it was accepted or settled."""
        call = f"POST {ROOT}/invoices/{invoice_id}/reject"
        invoice = self._invoice(call, who, invoice_id)
        if invoice.status not in (Status.RECEIVED, Status.REJECTED):
            raise bad_request(call, f"Invoice [{invoice_id}] is {invoice.status.value}")
        self._set_invoice(invoice_id, Status.REJECTED)

    async def note_events(
        self,
        who: NodeId,
        *,
        after: datetime | None,
        timeout: float,
        session: str | None = None,
        max_events: int | None = None,
        kinds: Collection[str] = REQUESTOR_KINDS,
    ) -> list[wire.DebitNoteEvent]:
        """Events of a requestor's debit notes strictly later than `after`."""

        def wanted(event: wire.DebitNoteEvent) -> bool:
            note = self._notes[event.debit_note_id]
            return (
                note.recipient_id == who
                and self._in_session(note.agreement_id, session)
                and _kind(event.event_type) in kinds
            )

        return await self._note_log.after(after, wanted, timeout=timeout, max_events=max_events)

    async def invoice_events(
        self,
        who: NodeId,
        *,
        after: datetime | None,
        timeout: float,
        session: str | None = None,
        max_events: int | None = None,
        kinds: Collection[str] = REQUESTOR_KINDS,
    ) -> list[wire.InvoiceEvent]:
        """Events of a requestor's invoices strictly later than `after`."""

        def wanted(event: wire.InvoiceEvent) -> bool:
            invoice = self._invoices[event.invoice_id]
            return (
                invoice.recipient_id == who
                and self._in_session(invoice.agreement_id, session)
                and _kind(event.event_type) in kinds
            )

        return await self._invoice_log.after(after, wanted, timeout=timeout, max_events=max_events)

    # --- the provider's side --------------------------------------------------------------------------

    def issue_note(
        self,
        agreement: Agreement,
        activity_id: ActivityId,
        *,
        payee: str,
        amount: Decimal,
        usage: Sequence[float],
        payment_due: datetime | None,
    ) -> wire.DebitNote:
        """Send a debit note to the requestor. `payee`: the provider's wallet."""
        earlier = self._notes_of.setdefault(activity_id, [])
        activities = self._activities_of.setdefault(agreement.id, [])
        if activity_id not in activities:
            activities.append(activity_id)
        note = wire.DebitNote(
            debit_note_id=DebitNoteId(dashed(self._clock.unique_id())),
            issuer_id=agreement.provider,
            recipient_id=agreement.requestor,
            payee_addr=payee,
            payer_addr=_payer(agreement),
            payment_platform=_platform(agreement),
            timestamp=self._clock.now(),
            agreement_id=agreement.id,
            activity_id=activity_id,
            total_amount_due=amount,
            status=Status.RECEIVED,
            usage_counter_vector=list(usage),
            previous_debit_note_id=earlier[-1] if earlier else None,
            payment_due_date=payment_due,
        )
        self._notes[note.debit_note_id] = note
        earlier.append(note.debit_note_id)
        self._tell_note(note)
        return note

    def issue_invoice(
        self,
        agreement: Agreement,
        activity_ids: Sequence[ActivityId],
        *,
        payee: str,
        amount: Decimal,
        payment_due: datetime,
    ) -> wire.Invoice:
        """Send the invoice of an agreement to the requestor."""
        invoice = wire.Invoice(
            invoice_id=InvoiceId(dashed(self._clock.unique_id())),
            issuer_id=agreement.provider,
            recipient_id=agreement.requestor,
            payee_addr=payee,
            payer_addr=_payer(agreement),
            payment_platform=_platform(agreement),
            timestamp=self._clock.now(),
            agreement_id=agreement.id,
            amount=amount,
            payment_due_date=payment_due,
            status=Status.RECEIVED,
            activity_ids=list(activity_ids),
        )
        self._invoices[invoice.invoice_id] = invoice
        self._invoice_of[agreement.id] = invoice.invoice_id
        self._tell_invoice(invoice)
        return invoice

    def is_open(self, note_id: DebitNoteId) -> bool:
        """Whether a debit note still waits for its acceptance."""
        note = self._notes[note_id]
        return note.status is Status.RECEIVED and not self._invoice_accepted(note.agreement_id)

    def close(self) -> None:
        """End the polls that wait for events."""
        self._note_log.close()
        self._invoice_log.close()

    # --- for the audit --------------------------------------------------------------------------------

    def open_notes(self) -> list[DebitNoteId]:
        """Debit notes that nobody has accepted, and whose agreement's invoice is not accepted either."""
        return [note_id for note_id in self._notes if self.is_open(note_id)]

    def open_invoices(self) -> list[InvoiceId]:
        """Invoices that are neither accepted nor rejected."""
        return [key for key, invoice in self._invoices.items() if invoice.status not in CLOSED]

    def settling(self) -> list[InvoiceId]:
        """Invoices that are accepted and not settled yet."""
        return [key for key, invoice in self._invoices.items() if invoice.status is Status.ACCEPTED]

    # --- inside ---------------------------------------------------------------------------------------

    def _note(self, call: str, who: NodeId, note_id: DebitNoteId) -> wire.DebitNote:
        note = self._notes.get(note_id)
        if note is None or note.recipient_id != who:
            raise not_found(call, f"Debit note [{note_id}] not found")
        return note

    def _invoice(self, call: str, who: NodeId, invoice_id: InvoiceId) -> wire.Invoice:
        invoice = self._invoices.get(invoice_id)
        if invoice is None or invoice.recipient_id != who:
            raise not_found(call, f"Invoice [{invoice_id}] not found")
        return invoice

    def _in_session(self, agreement_id: AgreementId, session: str | None) -> bool:
        if session is None:
            return True
        agreement = self._agreements.get(agreement_id)
        return agreement is not None and agreement.session == session

    def _invoice_accepted(self, agreement_id: AgreementId) -> bool:
        invoice_id = self._invoice_of.get(agreement_id)
        return invoice_id is not None and self._invoices[invoice_id].status in (
            Status.ACCEPTED,
            Status.SETTLED,
        )

    def _settle(self, invoice_id: InvoiceId) -> None:
        self._set_invoice(invoice_id, Status.SETTLED)
        # The invoice pays for everything under the agreement, so no debit note is left open beside it.
        for activity_id in self._activities_of.get(self._invoices[invoice_id].agreement_id, ()):
            for note_id in self._notes_of[activity_id]:
                self._set_note(note_id, Status.SETTLED)

    def _set_note(self, note_id: DebitNoteId, status: Status) -> None:
        if self._notes[note_id].status is not status:
            self._notes[note_id] = msgspec.structs.replace(self._notes[note_id], status=status)
            self._tell_note(self._notes[note_id])

    def _set_invoice(self, invoice_id: InvoiceId, status: Status) -> None:
        if self._invoices[invoice_id].status is not status:
            self._invoices[invoice_id] = msgspec.structs.replace(self._invoices[invoice_id], status=status)
            self._tell_invoice(self._invoices[invoice_id])

    def _tell_note(self, note: wire.DebitNote) -> None:
        self._note_log.append(
            wire.DebitNoteEvent(
                debit_note_id=note.debit_note_id,
                event_date=self._times.next(),
                event_type=f"DebitNote{note.status.value.capitalize()}Event",
            )
        )

    def _tell_invoice(self, invoice: wire.Invoice) -> None:
        self._invoice_log.append(
            wire.InvoiceEvent(
                invoice_id=invoice.invoice_id,
                event_date=self._times.next(),
                event_type=f"Invoice{invoice.status.value.capitalize()}Event",
            )
        )


def _check_amount(call: str, due: Decimal, acceptance: wire.Acceptance) -> None:
    accepted = acceptance.total_amount_accepted
    if not is_amount(accepted) or accepted != due:
        raise bad_request(call, f"Invalid amount accepted. Expected: {due:f} Actual: {accepted}")


def _kind(event_type: str) -> str:
    """``RECEIVED`` of ``InvoiceReceivedEvent`` and ``DebitNoteReceivedEvent``."""
    return event_type.removeprefix("Invoice").removeprefix("DebitNote").removesuffix("Event").upper()


def _platform(agreement: Agreement) -> str:
    return str(agreement.requestor_draft.properties.get(props.CHOSEN_PLATFORM, ""))


def _payer(agreement: Agreement) -> str:
    key = f"golem.com.payment.platform.{_platform(agreement)}.address"
    return str(agreement.requestor_draft.properties.get(key, agreement.requestor))
