"""A requestor's view of a node in the same process: `YagnaApi` without a network between.

Calls can be intercepted, which is how the test kit adds latencies and faults.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from types import TracebackType
from typing import Any, TypeAlias

from shem.devnet.gsb import FILES, Service
from shem.devnet.node import Node
from shem.devnet.settings import YAGNA_VERSION
from shem.errors import NodeUnavailable, NotFound, TransferError
from shem.ids import (
    ActivityId,
    AgreementId,
    AllocationId,
    AppSessionId,
    BatchId,
    DebitNoteId,
    DemandId,
    InvoiceId,
    NodeId,
    ProposalId,
)
from shem.yagna import models as wire
from shem.yagna.api import Channel, Sink, Source
from shem.yagna.exchange import Exchange, Publication, Reception, failure

#: Called with the method's name and its arguments in order; may wait, and may raise instead of the call.
Hook: TypeAlias = Callable[[str, tuple[Any, ...]], Awaitable[None]]
#: Called with the method's name; entered when the node begins with the call, left when it is done with it.
During: TypeAlias = Callable[[str], AbstractContextManager[None]]


class LocalApi:
    """The whole `YagnaApi` of one identity on a node.

    Args:
        identity: whose calls these are; by default the node's own.
        before_call: awaited before each call has any effect.
        after_call: awaited after each call that succeeded; what it raises is what a caller sees whose
            connection was cut after the effect.
        during_call: what each call happens in; may turn a cancellation of the call into an error.
    """

    def __init__(
        self,
        node: Node,
        identity: wire.Identity | None = None,
        *,
        before_call: Hook | None = None,
        after_call: Hook | None = None,
        during_call: During | None = None,
    ) -> None:
        self.before_call, self.after_call, self.during_call = before_call, after_call, during_call
        self.node = node
        self._identity = identity or node.identity
        self._channels: dict[LocalChannel, None] = {}
        self._closed = False

    @property
    def _who(self) -> NodeId:
        return self._identity.identity

    def _call(self, name: str, *args: Any) -> _Call:
        return _Call(self, name, args)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    async def close(self) -> None:
        """Close all open transfers. Calls that follow raise `NodeUnavailable`."""
        self._closed = True
        for channel in list(self._channels):
            await channel.close()

    # --- identity and market --------------------------------------------------------------------------

    async def version(self) -> wire.NodeVersion:
        """See `IdentityApi.version`."""
        async with self._call("version"):
            return wire.NodeVersion(current=wire.Release(version=YAGNA_VERSION, name=wire.DEVNET_NAME))

    async def me(self) -> wire.Identity:
        """See `IdentityApi.me`."""
        async with self._call("me"):
            return self._identity

    async def subscribe(self, demand: wire.DemandSpec) -> DemandId:
        """See `MarketApi.subscribe`."""
        async with self._call("subscribe", demand):
            return self.node.market.subscribe(self._who, demand)

    async def unsubscribe(self, demand_id: DemandId) -> None:
        """See `MarketApi.unsubscribe`."""
        async with self._call("unsubscribe", demand_id):
            self.node.market.unsubscribe(self._who, demand_id)

    async def demand_events(
        self, demand_id: DemandId, *, timeout: float, max_events: int = 100
    ) -> Sequence[wire.DemandEvent]:
        """See `MarketApi.demand_events`."""
        async with self._call("demand_events", demand_id):
            return await self.node.market.demand_events(
                self._who, demand_id, timeout=timeout, max_events=max_events
            )

    async def counter_proposal(
        self, demand_id: DemandId, proposal_id: ProposalId, demand: wire.DemandSpec
    ) -> ProposalId:
        """See `MarketApi.counter_proposal`."""
        async with self._call("counter_proposal", demand_id, proposal_id, demand):
            return self.node.market.counter(self._who, demand_id, proposal_id, demand)

    async def reject_proposal(
        self, demand_id: DemandId, proposal_id: ProposalId, reason: wire.Reason
    ) -> None:
        """See `MarketApi.reject_proposal`."""
        async with self._call("reject_proposal", demand_id, proposal_id, reason):
            self.node.market.reject(self._who, demand_id, proposal_id)

    async def create_agreement(self, proposal_id: ProposalId, valid_to: datetime) -> AgreementId:
        """See `MarketApi.create_agreement`."""
        async with self._call("create_agreement", proposal_id, valid_to):
            return self.node.agreements.create(self._who, proposal_id, valid_to)

    async def agreement(self, agreement_id: AgreementId) -> wire.AgreementDoc:
        """See `MarketApi.agreement`."""
        async with self._call("agreement", agreement_id):
            return self.node.agreements.agreement(self._who, agreement_id)

    async def confirm_agreement(self, agreement_id: AgreementId, app_session_id: AppSessionId) -> None:
        """See `MarketApi.confirm_agreement`."""
        async with self._call("confirm_agreement", agreement_id, app_session_id):
            self.node.agreements.confirm(self._who, agreement_id, app_session_id)

    async def wait_for_approval(self, agreement_id: AgreementId, *, timeout: float) -> None:
        """See `MarketApi.wait_for_approval`."""
        async with self._call("wait_for_approval", agreement_id):
            await self.node.agreements.wait(self._who, agreement_id, timeout=timeout)

    async def cancel_agreement(self, agreement_id: AgreementId, reason: wire.Reason) -> None:
        """See `MarketApi.cancel_agreement`."""
        async with self._call("cancel_agreement", agreement_id, reason):
            self.node.agreements.cancel(self._who, agreement_id, reason)

    async def terminate_agreement(self, agreement_id: AgreementId, reason: wire.Reason) -> None:
        """See `MarketApi.terminate_agreement`."""
        async with self._call("terminate_agreement", agreement_id, reason):
            self.node.agreements.terminate(self._who, agreement_id, reason)

    async def agreement_events(
        self, *, after: datetime, timeout: float, app_session_id: AppSessionId, max_events: int = 100
    ) -> Sequence[wire.AgreementEvent]:
        """See `MarketApi.agreement_events`."""
        async with self._call("agreement_events", after):
            return await self.node.agreements.events(
                self._who, after=after, timeout=timeout, session=app_session_id, max_events=max_events
            )

    # --- activities -----------------------------------------------------------------------------------

    async def create_activity(self, agreement_id: AgreementId, *, timeout: float) -> ActivityId:
        """See `ActivityApi.create_activity`."""
        async with self._call("create_activity", agreement_id):
            return await self.node.activities.create(self._who, agreement_id, timeout=timeout)

    async def destroy_activity(self, activity_id: ActivityId, *, timeout: float) -> None:
        """See `ActivityApi.destroy_activity`."""
        async with self._call("destroy_activity", activity_id):
            await self.node.activities.destroy(self._who, activity_id, timeout=timeout)

    async def execute(self, activity_id: ActivityId, commands: Sequence[dict[str, Any]]) -> BatchId:
        """See `ActivityApi.execute`."""
        async with self._call("execute", activity_id, commands):
            return await self.node.activities.execute(self._who, activity_id, commands)

    async def batch_results(
        self, activity_id: ActivityId, batch_id: BatchId, *, timeout: float
    ) -> Sequence[wire.CommandOutcome]:
        """See `ActivityApi.batch_results`."""
        async with self._call("batch_results", activity_id, batch_id):
            return await self.node.activities.results(self._who, activity_id, batch_id, timeout=timeout)

    async def activity_state(self, activity_id: ActivityId) -> wire.ActivityStateDoc:
        """See `ActivityApi.activity_state`."""
        async with self._call("activity_state", activity_id):
            return self.node.activities.state(self._who, activity_id)

    async def activities_of(self, agreement_id: AgreementId) -> Sequence[ActivityId]:
        """See `ActivityApi.activities_of`."""
        async with self._call("activities_of", agreement_id):
            return self.node.activities.ids(self._who, agreement_id)

    async def activity_usage(self, activity_id: ActivityId) -> wire.ActivityUsage:
        """See `ActivityApi.activity_usage`."""
        async with self._call("activity_usage", activity_id):
            return self.node.activities.usage(self._who, activity_id)

    # --- payment --------------------------------------------------------------------------------------

    async def create_allocation(self, allocation: wire.NewAllocation) -> wire.Allocation:
        """See `PaymentApi.create_allocation`."""
        async with self._call("create_allocation", allocation):
            return self.node.allocations.create(self._who, allocation)

    async def allocation(self, allocation_id: AllocationId) -> wire.Allocation:
        """See `PaymentApi.allocation`."""
        async with self._call("allocation", allocation_id):
            return self.node.allocations.allocation(self._who, allocation_id)

    async def change_allocation(
        self, allocation_id: AllocationId, change: wire.AllocationChange
    ) -> wire.Allocation:
        """See `PaymentApi.change_allocation`."""
        async with self._call("change_allocation", allocation_id, change):
            return self.node.allocations.change(self._who, allocation_id, change)

    async def release_allocation(self, allocation_id: AllocationId) -> None:
        """See `PaymentApi.release_allocation`."""
        async with self._call("release_allocation", allocation_id):
            self.node.allocations.release(self._who, allocation_id)

    async def demand_decorations(self, allocation_ids: Sequence[AllocationId]) -> wire.DemandDecorations:
        """See `PaymentApi.demand_decorations`."""
        async with self._call("demand_decorations", allocation_ids):
            return self.node.allocations.decorations(self._who, allocation_ids)

    async def invoice_events(
        self, *, after: datetime, timeout: float, app_session_id: AppSessionId, max_events: int = 100
    ) -> Sequence[wire.InvoiceEvent]:
        """See `PaymentApi.invoice_events`."""
        async with self._call("invoice_events", after):
            return await self.node.documents.invoice_events(
                self._who, after=after, timeout=timeout, session=app_session_id, max_events=max_events
            )

    async def debit_note_events(
        self, *, after: datetime, timeout: float, app_session_id: AppSessionId, max_events: int = 100
    ) -> Sequence[wire.DebitNoteEvent]:
        """See `PaymentApi.debit_note_events`."""
        async with self._call("debit_note_events", after):
            return await self.node.documents.note_events(
                self._who, after=after, timeout=timeout, session=app_session_id, max_events=max_events
            )

    async def invoice(self, invoice_id: InvoiceId) -> wire.Invoice:
        """See `PaymentApi.invoice`."""
        async with self._call("invoice", invoice_id):
            return self.node.documents.invoice(self._who, invoice_id)

    async def debit_note(self, debit_note_id: DebitNoteId) -> wire.DebitNote:
        """See `PaymentApi.debit_note`."""
        async with self._call("debit_note", debit_note_id):
            return self.node.documents.note(self._who, debit_note_id)

    async def accept_invoice(
        self, invoice_id: InvoiceId, acceptance: wire.Acceptance, *, timeout: float
    ) -> None:
        """See `PaymentApi.accept_invoice`."""
        async with self._call("accept_invoice", invoice_id, acceptance):
            self.node.documents.accept_invoice(self._who, invoice_id, acceptance)

    async def reject_invoice(
        self, invoice_id: InvoiceId, rejection: wire.Rejection, *, timeout: float
    ) -> None:
        """See `PaymentApi.reject_invoice`."""
        async with self._call("reject_invoice", invoice_id, rejection):
            self.node.documents.reject_invoice(self._who, invoice_id)

    async def accept_debit_note(
        self, debit_note_id: DebitNoteId, acceptance: wire.Acceptance, *, timeout: float
    ) -> None:
        """See `PaymentApi.accept_debit_note`."""
        async with self._call("accept_debit_note", debit_note_id, acceptance):
            self.node.documents.accept_note(self._who, debit_note_id, acceptance)

    # --- files ----------------------------------------------------------------------------------------

    async def publish(self, source: Source) -> Channel:
        """See `FilesApi.publish`."""
        async with self._call("publish", source):
            return await self._open(Publication(source))

    async def receive(self, sink: Sink) -> Channel:
        """See `FilesApi.receive`."""
        async with self._call("receive", sink):
            return await self._open(Reception(sink))

    async def _open(self, exchange: Exchange) -> LocalChannel:
        uuid = self.node.clock.unique_id()
        responder = _Responder(exchange)
        service = self.node.gsb.bind(self._who, f"{FILES}{uuid}", responder.components)
        await service.connect(responder)
        channel = LocalChannel(self.node, service, responder, f"gftp://{self._who}/{uuid}", self._channels)
        self._channels[channel] = None
        return channel


class _Call:
    """Around one call: the hooks, and the refusal of calls after `close`."""

    __slots__ = ("_api", "_args", "_during", "_name")

    def __init__(self, api: LocalApi, name: str, args: tuple[Any, ...]) -> None:
        self._api, self._name, self._args = api, name, args
        self._during: AbstractContextManager[None] | None = None

    async def __aenter__(self) -> None:
        if self._api.closed:
            raise NodeUnavailable(self._name, None, "the connection was closed by this side")
        if self._api.node.closed:
            raise NodeUnavailable(self._name, None, "the node was closed")
        if self._api.before_call is not None:
            await self._api.before_call(self._name, self._args)
        if self._api.during_call is not None:
            self._during = self._api.during_call(self._name)
            self._during.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._during is not None:
            self._during.__exit__(kind, error, trace)
        if error is None and self._api.after_call is not None:
            await self._api.after_call(self._name, self._args)


class LocalChannel:
    """One open transfer of a requestor in this process. Closing it twice is harmless."""

    def __init__(
        self,
        node: Node,
        service: Service,
        responder: _Responder,
        url: str,
        registry: dict[LocalChannel, None],
    ) -> None:
        self._node, self._service, self._responder = node, service, responder
        self._url, self._registry = url, registry

    @property
    def url(self) -> str:
        """URL for a `transfer` command."""
        return self._url

    @property
    def failure(self) -> TransferError | None:
        """What went wrong on the requestor's side, if anything did."""
        return self._responder.failure

    async def close(self) -> None:
        """Stop serving it."""
        if self._registry.pop(self, self) is None:
            try:
                await self._node.gsb.unbind(self._service.owner, self._service.id)
            except NotFound:
                return  # the node stopped first


class _Responder:
    """The requestor's side of one transfer, as the node's service bridge calls it."""

    def __init__(self, exchange: Exchange) -> None:
        self.failure: TransferError | None = None
        self._exchange = exchange

    @property
    def components(self) -> Sequence[str]:
        """What it can be asked."""
        return self._exchange.components

    async def answer(self, component: str, payload: Mapping[str, Any]) -> Any:
        """Answer one request; a failure is kept for the requestor."""
        try:
            return self._exchange.answer(component, payload)
        except Exception as error:  # sources and sinks are the requestor's own and may raise anything
            self.failure = self.failure or failure(component, error)
            raise self.failure from error

    async def close(self, reason: str, *, replaced: bool) -> None:
        """Let go of the source or sink."""
        self._exchange.close()
