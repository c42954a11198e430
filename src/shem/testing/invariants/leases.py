"""What holds of all that is rented: it is given back, once, and paid as owed; and of the end of it all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from decimal import Decimal
from typing import Final

from shem.errors import PaymentError
from shem.events import ActivityCreated, InvoiceAccepted, PaymentRefused
from shem.ids import AgreementId
from shem.lifecycle import AgreementState
from shem.service.driver import LAST_WORDS
from shem.testing.invariants.reading import TOLERANCE, lied, reliable, skips
from shem.testing.life import Life
from shem.testing.limits import Limits
from shem.testing.verify import faults_of_events
from shem.yagna.models import DocumentStatus

_PAID: Final = (DocumentStatus.ACCEPTED, DocumentStatus.SETTLED)
#: Fields of `Audit` that hold what the provider sent, or will send, to be paid.
_BILLS: Final = ("open_debit_notes", "open_invoices", "invoices_to_come")
#: What a bill may be above what it should be (see `shem.engine.payment.Tolerance`).
_SHARE, _AMOUNT = Decimal("1.01"), Decimal("1e-6")


def leases_end_once(life: Life, _limits: Limits) -> Iterator[str]:
    """Every agreement and activity that began has ended, and is ended by the requestor at most once."""
    skipped = skips(life)
    yield from (
        found for found in faults_of_events(life.events) if not any(word in skipped for word in found.split())
    )
    if not reliable(life):
        # Where an answer may be lost, asking again is right.
        return
    for name in ("destroy_activity", "terminate_agreement"):
        counts = Counter(call.about for call in life.done if call.name == name)
        yield from (f"{name} had an effect {n} times on {one}" for one, n in counts.items() if n > 1)


def everything_is_given_back(life: Life, _limits: Limits) -> Iterator[str]:
    """What is left over on the node in the end was reported as skipped, or the node lied about it."""
    skipped = skips(life)
    lied_about = {call.about for call in life.lies} | {call.name for call in life.lies}
    agreement_of: dict[str, str] = {one.id: one.agreement for one in life.activities}
    agreement_of.update(life.bills)
    refused = {event.agreement for event in life.events if isinstance(event, PaymentRefused)}
    for field in fields(life.audit):
        for left in getattr(life.audit, field.name):
            about = {left, agreement_of.get(left, left)}
            if field.name in _BILLS and about & refused:
                continue
            if about & lied_about or any(one in skipped for one in about):
                continue
            if _excused(life, field.name, left):
                continue
            yield f"{field.name.replace('_', ' ')}: {left}"


def bills_are_paid_as_owed(life: Life, _limits: Limits) -> Iterator[str]:
    """An invoice is accepted, once, exactly if it is right; what is not accepted is reported."""
    accepted = Counter(event.invoice for event in life.events if isinstance(event, InvoiceAccepted))
    amounts = {event.invoice: event.amount for event in life.events if isinstance(event, InvoiceAccepted)}
    refused = {event.agreement for event in life.events if isinstance(event, PaymentRefused)}
    skipped = skips(life)
    for invoice in life.invoices:
        right = invoice.amount <= invoice.owed * _SHARE + _AMOUNT
        paid = invoice.status in _PAID
        if accepted[invoice.id] > 1:
            yield f"invoice {invoice.id} was accepted {accepted[invoice.id]} times"
        if paid and not right:
            yield f"invoice {invoice.id} of {invoice.amount} was paid, though {invoice.owed} was owed"
        if invoice.id in amounts and (not paid or amounts[invoice.id] != invoice.amount):
            yield f"invoice {invoice.id} is said to be accepted, but it is {invoice.status.value}"
        reported = invoice.agreement in refused or invoice.agreement in skipped or invoice.id in skipped
        if not paid and not reported and not lied(life, invoice.id, invoice.agreement):
            yield f"invoice {invoice.id} of {invoice.amount} was not paid, and nobody was told"


def exit_is_bounded(life: Life, limits: Limits) -> Iterator[str]:
    """Leaving the context of the Golem takes no longer than its time budgets add up to."""
    if life.left_at is None:
        return
    if life.ended_at is None:
        yield f"the context was left at {life.left_at:g} s, and that never ended"
    elif life.ended_at - life.left_at > (allowed := limits.exit + _hooks(life, limits)) + TOLERANCE:
        yield f"leaving the context took {life.ended_at - life.left_at:g} s, more than {allowed:g} s"


def stops_are_bounded(life: Life, limits: Limits) -> Iterator[str]:
    """A stop takes no longer than the time budgets of the steps it is made of."""
    allowed = limits.end_of_instance + _hooks(life, limits)
    for stop in life.stops:
        if stop.ended_at is None:
            yield f"{stop.what} was stopped at {stop.at:g} s, and that never ended"
        elif stop.ended_at - stop.at > allowed + TOLERANCE:
            yield f"stopping {stop.what} took {stop.ended_at - stop.at:g} s, more than {allowed:g} s"


def _hooks(life: Life, limits: Limits) -> float:
    """How long the user's hooks may hold up the end, if they do what the plan says, in seconds."""
    wrong = sum(one.times for one in life.plan.handlers if one.handler.startswith("on_"))
    return wrong * (limits.budgets.hook + LAST_WORDS)


def nothing_is_noticed(life: Life, _limits: Limits) -> Iterator[str]:
    """No state is untrue for longer than finding out takes; no bug, task, or exception goes unhandled."""
    yield from life.noticed


def _excused(life: Life, field: str, left: str) -> bool:
    """Whether something could not but be left over, at nobody's cost, or was reported in other words."""
    match field:
        case "open_demands":
            # Its withdrawal is a courtesy: the node drops it by itself, and nobody answers its offers.
            return not reliable(life)
        case "open_agreements":
            # The answer to its making was lost. It was never sent to the provider, and expires by itself.
            states = {one.id: one.state for one in life.agreements}
            return not reliable(life) and states.get(AgreementId(left)) == AgreementState.PROPOSAL.value
        case "open_allocations":
            # The answer to its making was lost, and the program was told so.
            lost = isinstance(life.refused, PaymentError)
            return lost or "release the allocation" in skips(life)
        case "invoices_to_come":
            # Nobody ever heard that an activity was made, so nobody waits for a bill.
            heard_of = {event.agreement for event in life.events if isinstance(event, ActivityCreated)}
            return left not in heard_of
    return False
