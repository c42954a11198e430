"""What must hold at the end of every story, whatever happened in it.

The records of each instance are a path of the table, nothing that costs money is left over, and what was paid
is what was billed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import fields
from decimal import Decimal

from shem.devnet.audit import Audit
from shem.devnet.node import Node
from shem.events import (
    ActivityCreated,
    ActivityEnded,
    AgreementEnded,
    AgreementSigned,
    BusEvent,
    InvoiceAccepted,
)
from shem.lifecycle import SERVICE, Event, Record, State
from shem.yagna.models import DocumentStatus

_PAID = (DocumentStatus.ACCEPTED, DocumentStatus.SETTLED)


def faults_of_records(records: Sequence[Record[State, Event]]) -> list[str]:
    """What is wrong with the records of one instance: they must be a path of the table, from its beginning.

    Where it is over, its end must be Terminated; that is for the caller to ask.
    """
    faults = []
    state, last = SERVICE.initial, float("-inf")
    for number, record in enumerate(records, 1):
        about = f"instance {record.subject}, record {record.seq}"
        if record.seq != number:
            faults.append(f"{about}: should have number {number}")
        if record.source is not state:
            faults.append(f"{about}: begins in {record.source.value}, the one before ended in {state.value}")
        if not any(move.dest is record.dest for move in SERVICE.cell(record.source, record.event).moves):
            faults.append(f"{about}: the table has no such move: {record}")
        if record.cause.actor not in SERVICE.raised_by[record.event]:
            faults.append(f"{about}: {record.event.value} raised by {record.cause.actor.value}")
        if record.monotonic < last:
            faults.append(f"{about}: is earlier than the one before")
        state, last = record.dest, record.monotonic
    return faults


def faults_of_audit(audit: Audit, leftovers: Collection[str] = ()) -> list[str]:
    """What is left over on a node, but for the fields of `Audit` named in `leftovers`."""
    return [
        f"left over: {field.name.replace('_', ' ')} {', '.join(getattr(audit, field.name))}"
        for field in fields(audit)
        if getattr(audit, field.name) and field.name not in leftovers
    ]


def faults_of_events(events: Iterable[BusEvent]) -> list[str]:
    """Everything that began must have ended: signed agreements, created activities."""
    open_agreements: dict[str, None] = {}
    open_activities: dict[str, None] = {}
    for event in events:
        match event:
            case AgreementSigned():
                open_agreements[event.agreement] = None
            case AgreementEnded():
                open_agreements.pop(event.agreement, None)
            case ActivityCreated():
                open_activities[event.activity] = None
            case ActivityEnded():
                open_activities.pop(event.activity, None)
    return [
        *(f"agreement {one} was signed and never ended" for one in open_agreements),
        *(f"activity {one} was created and never ended" for one in open_activities),
    ]


def faults_of_payments(node: Node, events: Iterable[BusEvent]) -> list[str]:
    """The invoices accepted by the requestor must be those paid at the node, each once."""
    accepted = [(event.invoice, event.amount) for event in events if isinstance(event, InvoiceAccepted)]
    paid = {
        invoice.invoice_id: invoice.amount
        for invoice in node.documents.invoices(node.identity.identity)
        if invoice.status in _PAID
    }
    faults = []
    if len(accepted) != len(dict(accepted)):
        faults.append("an invoice was accepted more than once")
    if dict(accepted) != paid:
        total = sum((amount for _invoice, amount in accepted), Decimal(0))
        faults.append(f"invoices of {total} GLM were accepted, {sum(paid.values(), Decimal(0))} are paid")
    return faults
