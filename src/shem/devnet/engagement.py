"""What a provider does under one approved agreement: it watches deadlines and writes the bills.

Source: contract 4.6 (deadlines, debit notes, the one invoice), 4.5 (cost).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final, Protocol

from shem import props
from shem.devnet.activity import Activity
from shem.devnet.agreements import Agreement
from shem.devnet.background import Timer
from shem.devnet.money import rounded
from shem.devnet.negotiation import seconds_until
from shem.devnet.offers import cost
from shem.devnet.parts import NodeParts
from shem.ids import ActivityId, DebitNoteId
from shem.lifecycle import AgreementState
from shem.yagna import models as wire

#: When an invoice is due where no payment time-out was negotiated.
DEFAULT_PAYMENT_TIMEOUT: Final = 24 * 3600.0


class Biller(Protocol):
    """The provider, as its engagements see it."""

    @property
    def wallet(self) -> str:
        """The address that bills are to be paid to."""

    @property
    def reachable(self) -> bool:
        """Whether messages get through to the requestor."""

    @property
    def bill_factor(self) -> Decimal:
        """By what the cost is multiplied in bills; 1 for an honest provider."""

    @property
    def invoicing(self) -> bool:
        """Whether invoices are sent."""

    def when_reachable(self, callback: Callable[..., object], *args: Any) -> None:
        """Call something as soon as messages get through to the requestor."""


class Engagement:
    """One approved agreement, from the provider's side."""

    def __init__(self, parts: NodeParts, agreement: Agreement, biller: Biller) -> None:
        self.agreement = agreement
        self._parts, self._biller = parts, biller
        terms = agreement.draft.properties
        self._coeffs: list[float] = terms[props.LINEAR_COEFFS]
        self._interval = float(terms.get(props.DEBIT_NOTE_INTERVAL, parts.timings.debit_note_interval))
        self._accept_timeout: float | None = terms.get(props.DEBIT_NOTE_ACCEPT_TIMEOUT)
        self._payment_timeout: float | None = terms.get(props.PAYMENT_TIMEOUT)
        self._live: dict[ActivityId, Activity] = {}
        self._bills: dict[ActivityId, Decimal] = {}
        self._last_payable: dict[ActivityId, float] = {}
        self._note_timers: dict[ActivityId, Timer] = {}
        self._timers: list[Timer] = []
        self._idle: Timer | None = None
        self._over = False
        self._invoiced = False

    @property
    def owes_invoice(self) -> bool:
        """Whether its agreement has ended, something ran under it, and the invoice is still to come."""
        return self.agreement.ended and not self._invoiced and bool(self._bills or self._live)

    def begin(self) -> None:
        """The agreement was approved: watch its end, and whether it is used."""
        ahead = seconds_until(
            self.agreement.requestor_draft.properties.get(props.EXPIRATION), self._parts.clock.now()
        )
        if ahead is not None:
            self._after(ahead, self._terminate, "Agreement expired", "Expired")
        self._watch_idleness()

    def activity_requested(self, activity: Activity) -> None:
        """An activity is being made."""
        self._live[activity.id] = activity
        if self._idle is not None:
            self._idle.cancel()

    def activity_began(self, activity: Activity) -> None:
        """An activity counts its usage from now on."""
        self._bills[activity.id] = Decimal(0)
        self._last_payable[activity.id] = self._parts.clock.monotonic()
        self._arm_note(activity)

    def activity_ended(self, activity: Activity) -> None:
        """An activity has ended: bill it finally."""
        self._live.pop(activity.id, None)
        timer = self._note_timers.pop(activity.id, None)
        if timer is not None:
            timer.cancel()
        if activity.id in self._bills:
            self._biller.when_reachable(self._write_note, activity)
        if self._over:
            self._maybe_invoice()
        else:
            self._watch_idleness()

    def agreement_ended(self) -> None:
        """The agreement ended: end what runs under it, then write the invoice."""
        self._over = True
        for timer in (*self._timers, self._idle):
            if timer is not None:
                timer.cancel()
        for activity in list(self._live.values()):
            self._parts.activities.end(activity, "the agreement was terminated")
        self._maybe_invoice()

    # --- deadlines ------------------------------------------------------------------------------------

    def _after(self, delay: float, callback: Callable[..., None], *args: Any) -> Timer:
        timer = self._parts.background.later(delay, self._biller.when_reachable, callback, *args)
        self._timers.append(timer)
        return timer

    def _watch_idleness(self) -> None:
        if not self._live:
            self._idle = self._parts.background.later(
                self._parts.timings.no_activity,
                self._biller.when_reachable,
                self._terminate_if_idle,
            )

    def _terminate_if_idle(self) -> None:
        if not self._live:
            self._terminate(f"No activity for {self._parts.timings.no_activity:g} s", "NoActivity")

    def _check_accepted(self, note_id: DebitNoteId) -> None:
        if self._parts.documents.is_open(note_id):
            self._terminate(f"Debit note {note_id} was not accepted in time", "DebitNotesDeadline")

    def _terminate(self, message: str, code: str) -> None:
        self._parts.agreements.terminate_by_provider(
            self.agreement, wire.Reason(message=message, provider_code=code)
        )

    # --- bills ----------------------------------------------------------------------------------------

    def _arm_note(self, activity: Activity) -> None:
        self._note_timers[activity.id] = self._parts.background.later(
            self._interval, self._interval_passed, activity
        )

    def _interval_passed(self, activity: Activity) -> None:
        self._arm_note(activity)
        # What cannot be sent now is covered by the next note: they are cumulative.
        if self._biller.reachable:
            self._write_note(activity)

    def _write_note(self, activity: Activity) -> None:
        usage = activity.usage()
        cost_so_far = rounded(cost(self._coeffs, usage) * self._biller.bill_factor)
        amount = max(cost_so_far, self._bills[activity.id])
        self._bills[activity.id] = amount
        note = self._parts.documents.issue_note(
            self.agreement,
            activity.id,
            payee=self._biller.wallet,
            amount=amount,
            usage=usage,
            payment_due=self._due_date(activity),
        )
        if self._accept_timeout is not None and self.agreement.state is AgreementState.APPROVED:
            self._after(self._accept_timeout, self._check_accepted, note.debit_note_id)

    def _due_date(self, activity: Activity) -> datetime | None:
        """When a note must be paid; None for one that only informs."""
        now = self._parts.clock.monotonic()
        if self._payment_timeout is None or now - self._last_payable[activity.id] < self._payment_timeout:
            return None
        self._last_payable[activity.id] = now
        return self._parts.clock.now() + timedelta(seconds=self._payment_timeout)

    def _maybe_invoice(self) -> None:
        if not self._live and self._bills:
            self._parts.background.later(
                self._parts.timings.invoice, self._biller.when_reachable, self._write_invoice
            )

    def _write_invoice(self) -> None:
        if self._invoiced or not self._biller.invoicing:
            return
        self._invoiced = True
        due = self._payment_timeout or DEFAULT_PAYMENT_TIMEOUT
        self._parts.documents.issue_invoice(
            self.agreement,
            list(self._bills),
            payee=self._biller.wallet,
            amount=sum(self._bills.values(), Decimal(0)),
            payment_due=self._parts.clock.now() + timedelta(seconds=due),
        )
