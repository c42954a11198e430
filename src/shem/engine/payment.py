"""Paying: one allocation per run, debit notes and invoices accepted as they come.

A document is accepted when its amount is what usage times agreed price comes to, within a tolerance, and only
for agreements of this run. What is not accepted is reported, never silently dropped. Each document has a task
of its own, so that none has to wait for another, nor for a node that fails on another.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial

from shem.bus import Bus
from shem.clock import Clock
from shem.config import PaymentSettings
from shem.engine.agreement import Agreement
from shem.engine.cleanup import make
from shem.engine.polling import PASSING, POLL_SECONDS, persist
from shem.engine.terms import Terms
from shem.errors import Gone, NodeError, PaymentError
from shem.events import (
    AllocationCreated,
    AllocationReleased,
    DebitNoteAccepted,
    InvoiceAccepted,
    PaymentRefused,
    StepSkipped,
)
from shem.ids import ActivityId, AgreementId, AllocationId, AppSessionId, DebitNoteId, InvoiceId
from shem.log import get_logger
from shem.yagna.api import YagnaApi
from shem.yagna.models import (
    Acceptance,
    Allocation,
    AllocationChange,
    DemandDecorations,
    DocumentStatus,
    NewAllocation,
    Rejection,
)

#: Seconds that one call to accept a document may take.
ACCEPT_SECONDS = 30.0
#: Seconds that `settle` waits for the invoice of an activity that perhaps never came to life.
UNSURE_SECONDS = 5.0
#: Seconds for refusing an invoice, with repetitions.
REJECT_SECONDS = 10.0
#: Seconds for giving the allocation back, with repetitions.
RELEASE_SECONDS = 10.0
#: How much longer than the run the allocation is kept, so that late invoices can still be paid.
ALLOCATION_SLACK = timedelta(days=1)

_log = get_logger("payment")

_RECEIVED = "ReceivedEvent"
_OPEN = (DocumentStatus.ISSUED, DocumentStatus.RECEIVED)
#: Accepted: by an earlier call, whose answer was lost.
_ACCEPTED = (DocumentStatus.ACCEPTED, DocumentStatus.SETTLED)


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far above usage times price a document may be: a share of it, and a fixed amount in GLM."""

    share: Decimal = Decimal("0.01")
    amount: Decimal = Decimal("1e-6")

    def allows(self, billed: Decimal, expected: Decimal) -> bool:
        """Whether the billed amount is near enough."""
        return billed <= expected * (1 + self.share) + self.amount


@dataclass(slots=True)
class Account:
    """What one agreement has cost, as far as is known. Amounts in GLM.

    `notes` holds the latest accepted amount of each activity, `invoiced` the accepted invoice's. `unsure`
    tells that some activity was asked for, but the answer was lost: it may never have come to life. `closed`
    is set once the invoice has been dealt with, one way or the other.
    """

    agreement: AgreementId
    provider: str
    terms: Terms
    activities: list[ActivityId] = field(default_factory=list)
    notes: dict[ActivityId, Decimal] = field(default_factory=dict)
    invoiced: Decimal | None = None
    refused: str = ""
    unsure: bool = False
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def accepted(self) -> Decimal:
        """What has been accepted so far."""
        return self.invoiced if self.invoiced is not None else sum(self.notes.values(), Decimal(0))

    def learn(self, *activities: ActivityId) -> None:
        """There are these activities under the agreement."""
        self.activities += [one for one in activities if one not in self.activities]


class Payments:
    """All payments of one run."""

    def __init__(
        self,
        api: YagnaApi,
        settings: PaymentSettings,
        session: AppSessionId,
        *,
        clock: Clock,
        bus: Bus,
        since: datetime,
        tolerance: Tolerance | None = None,
    ) -> None:
        self._api, self._settings, self._session = api, settings, session
        self._clock, self._bus, self._tolerance = clock, bus, tolerance or Tolerance()
        self._notes_after = self._invoices_after = since
        self._allocation: Allocation | None = None
        self._accounts: dict[AgreementId, Account] = {}
        self._seen: set[DebitNoteId | InvoiceId] = set()
        self._work: set[asyncio.Task[None]] = set()

    # --- the allocation

    async def open(self, address: str) -> DemandDecorations:
        """Set the budget aside; returns what demands must say. Raises `PaymentError` where it is refused."""
        wanted = NewAllocation(
            address=address,
            payment_platform=self._settings.platform,
            total_amount=self._settings.budget,
            timeout=self._clock.now() + ALLOCATION_SLACK,
        )
        try:
            # Never repeated: a call whose answer was lost would leave the budget set aside twice.
            self._allocation = await make(
                "set the budget aside",
                lambda: self._api.create_allocation(wanted),
                lambda made: self._api.release_allocation(made.allocation_id),
                within=RELEASE_SECONDS,
                clock=self._clock,
                bus=self._bus,
            )
        except NodeError as error:
            raise PaymentError(
                f"the node set no {self._settings.budget} GLM aside on {self._settings.platform}: {error}; "
                f"`yagna payment status` shows what the account holds"
            ) from error
        self._bus.emit(
            AllocationCreated(
                at=self._clock.now(),
                allocation=self._allocation.allocation_id,
                amount=self._allocation.total_amount,
                platform=self._settings.platform,
            )
        )
        return await self._api.demand_decorations([self.allocation_id])

    @property
    def platform(self) -> str:
        """The platform's name on the wire."""
        return self._settings.platform

    @property
    def allocation_id(self) -> AllocationId:
        """Id of the allocation; there is one between `open` and `close`."""
        if self._allocation is None:
            raise PaymentError("there is no allocation: the run has not started, or has ended")
        return self._allocation.allocation_id

    async def keep_until(self, expires: datetime) -> None:
        """See to it that the node does not release the allocation before a cluster's last invoice is paid."""
        if self._allocation is None or self._allocation.timeout is None:
            return
        wanted = expires + ALLOCATION_SLACK
        if self._allocation.timeout < wanted:
            change = AllocationChange(timeout=wanted)
            self._allocation = await self._api.change_allocation(self.allocation_id, change)

    async def close(self) -> None:
        """Deal with no document any more, and give back what is left.

        Idempotent. Raises `NodeError` where the node cannot be told.
        """
        work = list(self._work)
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        allocation, self._allocation = self._allocation, None
        if allocation is None:
            return
        spent = await self._spent(allocation.allocation_id)
        try:
            await persist(
                lambda: self._api.release_allocation(allocation.allocation_id),
                clock=self._clock,
                within=RELEASE_SECONDS,
            )
        except Gone:
            # The node released it by itself.
            pass
        self._bus.emit(
            AllocationReleased(at=self._clock.now(), allocation=allocation.allocation_id, spent=spent)
        )

    async def _spent(self, allocation_id: AllocationId) -> Decimal | None:
        try:
            return (await self._api.allocation(allocation_id)).spent_amount
        except NodeError:
            # Good to know, but no reason to keep the rest set aside.
            return None

    # --- accounts

    @property
    def accounts(self) -> Sequence[Account]:
        """One account per agreement of this run, in the order of signing."""
        return tuple(self._accounts.values())

    def account(self, agreement: Agreement) -> Account:
        """The account of an agreement; opened when first asked for."""
        name = agreement.provider_name or agreement.provider_id
        return self._accounts.setdefault(agreement.id, Account(agreement.id, name, agreement.terms))

    async def settle(self, within: float) -> Sequence[Account]:
        """Wait for the invoices of all agreements that had an activity; returns those whose did not come."""
        owing = [a for a in self._accounts.values() if a.activities and not a.closed.is_set()]
        unsure = [account for account in owing if account.unsure]
        sure = [account for account in owing if not account.unsure]
        await asyncio.gather(_closed(sure, within), _closed(unsure, min(within, UNSURE_SECONDS)))
        return [account for account in owing if not account.closed.is_set()]

    async def look_for_activities(self, account: Account) -> None:
        """Learn of activities whose making was asked for, but never answered. Raises `NodeError`."""
        account.unsure = True
        account.learn(*await self._api.activities_of(account.agreement))

    # --- documents

    async def poll_debit_notes(self) -> bool:
        """Take the next debit notes; whether there were any."""
        events = await self._api.debit_note_events(
            after=self._notes_after, timeout=POLL_SECONDS, app_session_id=self._session
        )
        for event in events:
            self._notes_after = max(self._notes_after, event.event_date)
            if event.event_type.endswith(_RECEIVED):
                self._take("debit note", event.debit_note_id, partial(self._take_note, event.debit_note_id))
        return bool(events)

    async def poll_invoices(self) -> bool:
        """Take the next invoices; whether there were any."""
        events = await self._api.invoice_events(
            after=self._invoices_after, timeout=POLL_SECONDS, app_session_id=self._session
        )
        for event in events:
            self._invoices_after = max(self._invoices_after, event.event_date)
            if event.event_type.endswith(_RECEIVED):
                self._take("invoice", event.invoice_id, partial(self._take_invoice, event.invoice_id))
        return bool(events)

    def _take(
        self, kind: str, document: DebitNoteId | InvoiceId, take: Callable[[], Awaitable[None]]
    ) -> None:
        """Deal with a document, in a task of its own that ends with the run at the latest."""
        if document in self._seen:
            return
        self._seen.add(document)
        task = asyncio.get_running_loop().create_task(
            self._deal_with(f"payment of {kind} {document}", take), name=f"{kind} {document}"
        )
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def _deal_with(self, step: str, take: Callable[[], Awaitable[None]]) -> None:
        try:
            # For as long as the run lasts: a node that is down now will be wanted to pay later.
            await persist(take, clock=self._clock, within=math.inf)
        except NodeError as error:
            self._bus.emit(StepSkipped(at=self._clock.now(), step=step, reason=str(error)))
        except Exception as error:  # a bug, or a document nobody thought of: the others are still to be paid
            _log.error("payment_failed_by_a_bug", step=step, error=repr(error), exc_info=True)
            self._bus.emit(StepSkipped(at=self._clock.now(), step=step, reason=repr(error)))

    async def _take_note(self, note_id: DebitNoteId) -> None:
        note = await self._api.debit_note(note_id)
        account = self._accounts.get(note.agreement_id)
        if account is None or note.status not in (*_OPEN, *_ACCEPTED):
            return
        amount = note.total_amount_due
        if note.status in _OPEN:
            if note.usage_counter_vector is not None:
                expected = account.terms.cost(note.usage_counter_vector)
            else:
                expected = await self._expected(account, note.activity_id)
            if objection := self._objection(amount, expected):
                self._refuse("debit note", account, amount, objection)
                return
            acceptance = Acceptance(total_amount_accepted=amount, allocation_id=self.allocation_id)
            if not await self._accept(
                "debit note",
                account,
                amount,
                lambda: self._api.accept_debit_note(note_id, acceptance, timeout=ACCEPT_SECONDS),
            ):
                return
        # Amounts are cumulative, and an earlier note may be accepted later.
        account.notes[note.activity_id] = max(amount, account.notes.get(note.activity_id, amount))
        self._bus.emit(
            DebitNoteAccepted(
                at=self._clock.now(), debit_note=note_id, activity=note.activity_id, amount=amount
            )
        )

    async def _take_invoice(self, invoice_id: InvoiceId) -> None:
        invoice = await self._api.invoice(invoice_id)
        account = self._accounts.get(invoice.agreement_id)
        if account is None or invoice.status not in (*_OPEN, *_ACCEPTED):
            return
        amount = invoice.amount
        if invoice.status in _OPEN:
            if not set(invoice.activity_ids) <= set(account.activities):
                account.learn(*await self._api.activities_of(account.agreement))
            expected = sum(
                [await self._expected(account, activity_id) for activity_id in account.activities], Decimal(0)
            )
            if objection := self._objection(amount, expected):
                self._refuse("invoice", account, amount, objection)
                await self._reject(invoice_id, objection)
                account.closed.set()
                return
            acceptance = Acceptance(total_amount_accepted=amount, allocation_id=self.allocation_id)
            if not await self._accept(
                "invoice",
                account,
                amount,
                lambda: self._api.accept_invoice(invoice_id, acceptance, timeout=ACCEPT_SECONDS),
            ):
                account.closed.set()
                return
        account.invoiced = amount
        account.closed.set()
        self._bus.emit(
            InvoiceAccepted(
                at=self._clock.now(), invoice=invoice_id, agreement=invoice.agreement_id, amount=amount
            )
        )

    async def _expected(self, account: Account, activity_id: ActivityId) -> Decimal:
        """What an activity may cost by what is known: its usage, and what was accepted of it before."""
        accepted = account.notes.get(activity_id, Decimal(0))
        try:
            usage = await self._api.activity_usage(activity_id)
        except PASSING:
            raise
        except NodeError:
            # The node does not know its usage any more: then the accepted notes are all that is known.
            return max(account.terms.start, accepted)
        return max(account.terms.cost(usage.current_usage or []), accepted)

    def _objection(self, amount: Decimal, expected: Decimal) -> str:
        if self._tolerance.allows(amount, expected):
            return ""
        return f"{amount} GLM billed, but usage times agreed price comes to {expected} GLM"

    async def _accept(
        self, document: str, account: Account, amount: Decimal, accept: Callable[[], Awaitable[None]]
    ) -> bool:
        """Accept a document; whether the node did. Raises its passing failures."""
        try:
            await accept()
        except PASSING:
            raise
        except NodeError as error:
            self._refuse(document, account, amount, f"the node refused: {error.message}")
            return False
        return True

    def _refuse(self, document: str, account: Account, amount: Decimal, reason: str) -> None:
        account.refused = reason
        self._bus.emit(
            PaymentRefused(
                at=self._clock.now(),
                document=document,
                agreement=account.agreement,
                amount=amount,
                reason=reason,
            )
        )

    async def _reject(self, invoice_id: InvoiceId, reason: str) -> None:
        rejection = Rejection(
            rejection_reason="INCORRECT_AMOUNT", total_amount_accepted=Decimal(0), message=reason
        )
        try:
            await persist(
                lambda: self._api.reject_invoice(invoice_id, rejection, timeout=ACCEPT_SECONDS),
                clock=self._clock,
                within=REJECT_SECONDS,
            )
        except NodeError:
            # A courtesy to the provider, who learns by it why it is not paid; some nodes cannot do it.
            return


async def _closed(accounts: Sequence[Account], within: float) -> None:
    """Wait until all accounts are closed, for at most so many seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within):
            for account in accounts:
                await account.closed.wait()
