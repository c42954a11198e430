"""The seam to the node: what the engine needs of it, and nothing more.

Three worlds stand behind these protocols: a real node and the devnet, both over HTTP, and the test kit's
simulated node in virtual time. Every method raises `shem.errors.NodeError` and its kin, and nothing else;
`timeout` is always how long the node may wait before it answers, in seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol

from shem.errors import TransferError
from shem.ids import (
    ActivityId,
    AgreementId,
    AllocationId,
    AppSessionId,
    BatchId,
    DebitNoteId,
    DemandId,
    InvoiceId,
    ProposalId,
)
from shem.yagna.models import (
    Acceptance,
    ActivityStateDoc,
    ActivityUsage,
    AgreementDoc,
    AgreementEvent,
    Allocation,
    AllocationChange,
    CommandOutcome,
    DebitNote,
    DebitNoteEvent,
    DemandDecorations,
    DemandEvent,
    DemandSpec,
    Identity,
    Invoice,
    InvoiceEvent,
    NewAllocation,
    NodeVersion,
    Reason,
    Rejection,
)


class IdentityApi(Protocol):
    """Who we are on this node."""

    async def version(self) -> NodeVersion:
        """What the node runs; the only call that needs no app key."""

    async def me(self) -> Identity:
        """Owner of the app key."""


class MarketApi(Protocol):
    """Demands, proposals and agreements (contract 3.3)."""

    async def subscribe(self, demand: DemandSpec) -> DemandId:
        """Publish a demand. The node drops it by itself after an hour."""

    async def unsubscribe(self, demand_id: DemandId) -> None:
        """Withdraw a demand; a pending `demand_events` ends at once."""

    async def demand_events(
        self, demand_id: DemandId, *, timeout: float, max_events: int = 100
    ) -> Sequence[DemandEvent]:
        """Next events of a demand, each delivered once; waits up to `timeout` for the first.

        Raises `NotFound` once the demand is gone.
        """

    async def counter_proposal(
        self, demand_id: DemandId, proposal_id: ProposalId, demand: DemandSpec
    ) -> ProposalId:
        """Answer a provider's proposal; its reply comes as an event. Returns the id of our proposal."""

    async def reject_proposal(self, demand_id: DemandId, proposal_id: ProposalId, reason: Reason) -> None:
        """Refuse a provider's proposal."""

    async def create_agreement(self, proposal_id: ProposalId, valid_to: datetime) -> AgreementId:
        """Make an agreement of a provider's draft. `valid_to`: when it expires unless approved."""

    async def agreement(self, agreement_id: AgreementId) -> AgreementDoc:
        """An agreement with both sides' properties."""

    async def confirm_agreement(self, agreement_id: AgreementId, app_session_id: AppSessionId) -> None:
        """Send an agreement to the provider, under our session id."""

    async def wait_for_approval(self, agreement_id: AgreementId, *, timeout: float) -> None:
        """Return once approved. Raises `Gone` when it never will be, `RequestTimeout` when not yet."""

    async def cancel_agreement(self, agreement_id: AgreementId, reason: Reason) -> None:
        """Take back an agreement that is not approved yet. Raises `Gone` when it is too late."""

    async def terminate_agreement(self, agreement_id: AgreementId, reason: Reason) -> None:
        """End an approved agreement. Raises `Gone` where it has ended already."""

    async def agreement_events(
        self,
        *,
        after: datetime,
        timeout: float,
        app_session_id: AppSessionId,
        max_events: int = 100,
    ) -> Sequence[AgreementEvent]:
        """Events of this session's agreements strictly later than `after`; not consumed."""


class ActivityApi(Protocol):
    """Activities and the scripts that run in them (contract 3.4)."""

    async def create_activity(self, agreement_id: AgreementId, *, timeout: float) -> ActivityId:
        """Start an activity under an approved agreement."""

    async def destroy_activity(self, activity_id: ActivityId, *, timeout: float) -> None:
        """End an activity. Harmless where it has ended already."""

    async def activities_of(self, agreement_id: AgreementId) -> Sequence[ActivityId]:
        """Activities that were ever made under an agreement."""

    async def execute(self, activity_id: ActivityId, commands: Sequence[dict[str, Any]]) -> BatchId:
        """Queue commands as one batch and return at once."""

    async def batch_results(
        self, activity_id: ActivityId, batch_id: BatchId, *, timeout: float
    ) -> Sequence[CommandOutcome]:
        """All results so far, from index 0; waits up to `timeout` for the end of the batch."""

    async def activity_state(self, activity_id: ActivityId) -> ActivityStateDoc:
        """Where the activity is. A 200 alone says nothing: look at the value."""

    async def activity_usage(self, activity_id: ActivityId) -> ActivityUsage:
        """Counters used so far."""


class PaymentApi(Protocol):
    """Allocations, debit notes and invoices (contract 3.2)."""

    async def create_allocation(self, allocation: NewAllocation) -> Allocation:
        """Set an amount aside."""

    async def allocation(self, allocation_id: AllocationId) -> Allocation:
        """Where an allocation stands. Raises `Gone` once released."""

    async def change_allocation(self, allocation_id: AllocationId, change: AllocationChange) -> Allocation:
        """Change amount or time-out of an allocation."""

    async def release_allocation(self, allocation_id: AllocationId) -> None:
        """Give back what is left. Raises `Gone` where it was released already."""

    async def demand_decorations(self, allocation_ids: Sequence[AllocationId]) -> DemandDecorations:
        """What a demand must say so that providers can be paid from these allocations."""

    async def invoice_events(
        self,
        *,
        after: datetime,
        timeout: float,
        app_session_id: AppSessionId,
        max_events: int = 100,
    ) -> Sequence[InvoiceEvent]:
        """Invoice events strictly later than `after`; not consumed."""

    async def debit_note_events(
        self,
        *,
        after: datetime,
        timeout: float,
        app_session_id: AppSessionId,
        max_events: int = 100,
    ) -> Sequence[DebitNoteEvent]:
        """Debit note events strictly later than `after`; not consumed."""

    async def invoice(self, invoice_id: InvoiceId) -> Invoice:
        """One invoice."""

    async def debit_note(self, debit_note_id: DebitNoteId) -> DebitNote:
        """One debit note."""

    async def accept_invoice(self, invoice_id: InvoiceId, acceptance: Acceptance, *, timeout: float) -> None:
        """Accept an invoice: from now on it will be paid. Accepting twice is harmless."""

    async def reject_invoice(self, invoice_id: InvoiceId, rejection: Rejection, *, timeout: float) -> None:
        """Refuse an invoice, for a reason. Refusing twice is harmless."""

    async def accept_debit_note(
        self, debit_note_id: DebitNoteId, acceptance: Acceptance, *, timeout: float
    ) -> None:
        """Accept a debit note. Accepting twice is harmless."""


class Source(Protocol):
    """Bytes on the requestor's side, read by position."""

    @property
    def size(self) -> int:
        """How many bytes there are."""

    def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`."""


class Sink(Protocol):
    """Where bytes from the provider go on the requestor's side."""

    def write(self, offset: int, content: bytes) -> None:
        """Store a piece; pieces come in any order."""

    def finish(self) -> None:
        """All pieces are there and their hash, where one was sent, is right."""


class Channel(Protocol):
    """One open transfer. Its URL goes into a `transfer` command; closing it twice is harmless."""

    @property
    def url(self) -> str:
        """URL that the provider reads from or writes to."""

    @property
    def failure(self) -> TransferError | None:
        """What went wrong on the requestor's side, if anything did; the provider is not told."""

    async def close(self) -> None:
        """Stop serving it."""


class FilesApi(Protocol):
    """Moving bytes between requestor and provider (contract 3.6)."""

    async def publish(self, source: Source) -> Channel:
        """Serve bytes to a provider."""

    async def receive(self, sink: Sink) -> Channel:
        """Take bytes from a provider."""


class YagnaApi(IdentityApi, MarketApi, ActivityApi, PaymentApi, FilesApi, Protocol):
    """Everything a requestor needs of a node."""

    async def close(self) -> None:
        """Drop all connections. No call may follow."""
