"""The calls of `shem.yagna.api.YagnaApi`, each as one request.

Source: contract of the REST API, 3.1 to 3.4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, TypeVar

from shem.clock import Clock
from shem.config import NodeAddress
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
from shem.yagna.api import Sink, Source
from shem.yagna.http.answers import Answer
from shem.yagna.http.files import Files, Transfer
from shem.yagna.http.polls import Feeds
from shem.yagna.http.requests import ACTIVITY, MARKET, PAYMENT, body, path
from shem.yagna.http.transport import Transport
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

T = TypeVar("T")


class HttpNode:
    """A node, over HTTP. Satisfies `shem.yagna.api.YagnaApi`, whose docstrings say what each call does.

    Use it as ``async with HttpNode(address, clock=clock) as node``, or call `close` in the end. It opens its
    connections at the first call, in the loop that runs then, and may be used by any number of tasks of that
    loop at once.

    Every call raises `shem.errors.NodeError` and its kin when the node refuses, fails, cannot be reached,
    does not answer in time or answers nonsense. Arguments that have no form on the wire (a time without a
    zone, a property that is no JSON) are a `ConfigError`. A cancelled call is dropped with its connection.

    Args:
        address: where the node listens, and the app key. The key shows in no error, log or `repr`.
        clock: for ids of transfers and for jitter.
        call_timeout: limit on ordinary calls, in seconds; calls with a `timeout` of their own wait 5 s longer
            than the node was told to.

    Raises `ConfigError` where the address is no plain base URL, or the limit not more than 0.
    """

    def __init__(self, address: NodeAddress, *, clock: Clock, call_timeout: float = 30.0) -> None:
        self.address = address
        self._transport = Transport(address, call_timeout=call_timeout)
        self._feeds = Feeds(self._transport)
        self._files = Files(self._transport, clock, self.me)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {self.address.url}>"

    async def __aenter__(self) -> HttpNode:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Drop all connections. No call may follow; calls under way end at once with `NodeUnavailable`.

        Open transfers are withdrawn from the node first, which takes their bounded time at most. Harmless
        when called twice.
        """
        self._transport.interrupt()
        try:
            await self._files.close()
        finally:
            await self._transport.close()

    # --- identity -----------------------------------------------------------------------------------------

    async def version(self) -> NodeVersion:
        """What the node runs."""
        return await self._get("/version/get", NodeVersion)

    async def me(self) -> Identity:
        """Owner of the app key."""
        return await self._get("/me", Identity)

    # --- market -------------------------------------------------------------------------------------------

    async def subscribe(self, demand: DemandSpec) -> DemandId:
        """Publish a demand."""
        answer = await self._post(path(MARKET, "demands"), demand)
        return DemandId(answer.identifier())

    async def unsubscribe(self, demand_id: DemandId) -> None:
        """Withdraw a demand."""
        await self._delete(path(MARKET, "demands", demand_id))

    async def demand_events(
        self, demand_id: DemandId, *, timeout: float, max_events: int = 100
    ) -> Sequence[DemandEvent]:
        """Next events of a demand, each delivered once. Events that cannot be read are left out."""
        return await self._feeds.demand.poll(
            path(MARKET, "demands", demand_id, "events"), {"maxEvents": str(max_events)}, timeout=timeout
        )

    async def counter_proposal(
        self, demand_id: DemandId, proposal_id: ProposalId, demand: DemandSpec
    ) -> ProposalId:
        """Answer a provider's proposal."""
        answer = await self._post(path(MARKET, "demands", demand_id, "proposals", proposal_id), demand)
        return ProposalId(answer.identifier())

    async def reject_proposal(self, demand_id: DemandId, proposal_id: ProposalId, reason: Reason) -> None:
        """Refuse a provider's proposal."""
        await self._post(path(MARKET, "demands", demand_id, "proposals", proposal_id, "reject"), reason)

    async def create_agreement(self, proposal_id: ProposalId, valid_to: datetime) -> AgreementId:
        """Make an agreement of a provider's draft."""
        answer = await self._post(
            path(MARKET, "agreements"), {"proposalId": proposal_id, "validTo": valid_to}
        )
        return AgreementId(answer.identifier())

    async def agreement(self, agreement_id: AgreementId) -> AgreementDoc:
        """An agreement with both sides' properties."""
        return await self._get(path(MARKET, "agreements", agreement_id), AgreementDoc)

    async def confirm_agreement(self, agreement_id: AgreementId, app_session_id: AppSessionId) -> None:
        """Send an agreement to the provider, under our session id."""
        await self._post(
            path(MARKET, "agreements", agreement_id, "confirm"), query={"appSessionId": app_session_id}
        )

    async def wait_for_approval(self, agreement_id: AgreementId, *, timeout: float) -> None:
        """Return once approved."""
        await self._post(path(MARKET, "agreements", agreement_id, "wait"), wait=timeout)

    async def cancel_agreement(self, agreement_id: AgreementId, reason: Reason) -> None:
        """Take back an agreement that is not approved yet."""
        await self._post(path(MARKET, "agreements", agreement_id, "cancel"), reason)

    async def terminate_agreement(self, agreement_id: AgreementId, reason: Reason) -> None:
        """End an approved agreement."""
        await self._post(path(MARKET, "agreements", agreement_id, "terminate"), reason)

    async def agreement_events(
        self,
        *,
        after: datetime,
        timeout: float,
        app_session_id: AppSessionId,
        max_events: int = 100,
    ) -> Sequence[AgreementEvent]:
        """Events of this session's agreements. Those that cannot be read are left out."""
        return await self._feeds.agreement.poll(
            path(MARKET, "agreementEvents"),
            _session_query(app_session_id, max_events),
            timeout=timeout,
            after=after,
        )

    # --- activity -----------------------------------------------------------------------------------------

    async def create_activity(self, agreement_id: AgreementId, *, timeout: float) -> ActivityId:
        """Start an activity under an approved agreement."""
        answer = await self._post(path(ACTIVITY, "activity"), {"agreementId": agreement_id}, wait=timeout)
        # Old daemons answer with a bare string even to the object form.
        return ActivityId(answer.identifier("activityId"))

    async def destroy_activity(self, activity_id: ActivityId, *, timeout: float) -> None:
        """End an activity."""
        await self._delete(path(ACTIVITY, "activity", activity_id), wait=timeout)

    async def execute(self, activity_id: ActivityId, commands: Sequence[dict[str, Any]]) -> BatchId:
        """Queue commands as one batch and return at once."""
        script = {"text": body(list(commands)).decode()}
        answer = await self._post(path(ACTIVITY, "activity", activity_id, "exec"), script)
        return BatchId(answer.identifier())

    async def batch_results(
        self, activity_id: ActivityId, batch_id: BatchId, *, timeout: float
    ) -> Sequence[CommandOutcome]:
        """All results so far, from index 0."""
        where = path(ACTIVITY, "activity", activity_id, "exec", batch_id)
        answer = await self._transport.call("GET", where, wait=timeout)
        return [] if answer.empty else answer.value(list[CommandOutcome])

    async def activity_state(self, activity_id: ActivityId) -> ActivityStateDoc:
        """Where the activity is."""
        return await self._get(path(ACTIVITY, "activity", activity_id, "state"), ActivityStateDoc)

    async def activities_of(self, agreement_id: AgreementId) -> Sequence[ActivityId]:
        """Activities that were ever made under an agreement."""
        return await self._get(
            path(ACTIVITY, "activity"), list[ActivityId], query={"agreementId": agreement_id}
        )

    async def activity_usage(self, activity_id: ActivityId) -> ActivityUsage:
        """Counters used so far."""
        return await self._get(path(ACTIVITY, "activity", activity_id, "usage"), ActivityUsage)

    # --- payment ------------------------------------------------------------------------------------------

    async def create_allocation(self, allocation: NewAllocation) -> Allocation:
        """Set an amount aside."""
        return (await self._post(path(PAYMENT, "allocations"), allocation)).value(Allocation)

    async def allocation(self, allocation_id: AllocationId) -> Allocation:
        """Where an allocation stands."""
        return await self._get(path(PAYMENT, "allocations", allocation_id), Allocation)

    async def change_allocation(self, allocation_id: AllocationId, change: AllocationChange) -> Allocation:
        """Change amount or time-out of an allocation."""
        where = path(PAYMENT, "allocations", allocation_id)
        return (await self._transport.call("PUT", where, body=change)).value(Allocation)

    async def release_allocation(self, allocation_id: AllocationId) -> None:
        """Give back what is left."""
        await self._delete(path(PAYMENT, "allocations", allocation_id))

    async def demand_decorations(self, allocation_ids: Sequence[AllocationId]) -> DemandDecorations:
        """What a demand must say so that providers can be paid from these allocations."""
        return await self._get(
            path(PAYMENT, "demandDecorations"),
            DemandDecorations,
            # The daemon splits on commas and does not take the parameter twice (contract 1.2).
            query={"allocationIds": ",".join(allocation_ids)},
        )

    async def invoice_events(
        self,
        *,
        after: datetime,
        timeout: float,
        app_session_id: AppSessionId,
        max_events: int = 100,
    ) -> Sequence[InvoiceEvent]:
        """Invoice events. Those that cannot be read are left out."""
        return await self._feeds.invoice.poll(
            path(PAYMENT, "invoiceEvents"),
            _session_query(app_session_id, max_events),
            timeout=timeout,
            after=after,
        )

    async def debit_note_events(
        self,
        *,
        after: datetime,
        timeout: float,
        app_session_id: AppSessionId,
        max_events: int = 100,
    ) -> Sequence[DebitNoteEvent]:
        """Debit note events. Those that cannot be read are left out."""
        return await self._feeds.debit_note.poll(
            path(PAYMENT, "debitNoteEvents"),
            _session_query(app_session_id, max_events),
            timeout=timeout,
            after=after,
        )

    async def invoice(self, invoice_id: InvoiceId) -> Invoice:
        """One invoice."""
        return await self._get(path(PAYMENT, "invoices", invoice_id), Invoice)

    async def debit_note(self, debit_note_id: DebitNoteId) -> DebitNote:
        """One debit note."""
        return await self._get(path(PAYMENT, "debitNotes", debit_note_id), DebitNote)

    async def accept_invoice(self, invoice_id: InvoiceId, acceptance: Acceptance, *, timeout: float) -> None:
        """Accept an invoice."""
        await self._post(path(PAYMENT, "invoices", invoice_id, "accept"), acceptance, wait=timeout)

    async def reject_invoice(self, invoice_id: InvoiceId, rejection: Rejection, *, timeout: float) -> None:
        """Refuse an invoice."""
        await self._post(path(PAYMENT, "invoices", invoice_id, "reject"), rejection, wait=timeout)

    async def accept_debit_note(
        self, debit_note_id: DebitNoteId, acceptance: Acceptance, *, timeout: float
    ) -> None:
        """Accept a debit note."""
        await self._post(path(PAYMENT, "debitNotes", debit_note_id, "accept"), acceptance, wait=timeout)

    # --- files --------------------------------------------------------------------------------------------

    async def publish(self, source: Source) -> Transfer:
        """Serve bytes to a provider."""
        return await self._files.publish(source)

    async def receive(self, sink: Sink) -> Transfer:
        """Take bytes from a provider."""
        return await self._files.receive(sink)

    # ------------------------------------------------------------------------------------------------------

    async def _get(self, where: str, kind: type[T], *, query: Mapping[str, str] | None = None) -> T:
        return (await self._transport.call("GET", where, query=query)).value(kind)

    async def _post(
        self,
        where: str,
        content: object = None,
        *,
        query: Mapping[str, str] | None = None,
        wait: float | None = None,
    ) -> Answer:
        return await self._transport.call("POST", where, query=query, body=content, wait=wait)

    async def _delete(self, where: str, *, wait: float | None = None) -> Answer:
        return await self._transport.call("DELETE", where, wait=wait)


def _session_query(app_session_id: AppSessionId, max_events: int) -> dict[str, str]:
    return {"appSessionId": app_session_id, "maxEvents": str(max_events)}
