"""A whole rental over HTTP against the embedded node: what the stub cannot show is that both ends agree."""

from __future__ import annotations

import asyncio
import hashlib
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from shem.clock import SystemClock
from shem.config import NodeAddress
from shem.devnet.devnet import Devnet
from shem.errors import Gone, NodeError, NotFound, Unauthorized
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
from shem.yagna.content import BytesSink, BytesSource
from shem.yagna.http import HttpNode
from shem.yagna.models import (
    Acceptance,
    AgreementApprovedEvent,
    AgreementTerminatedEvent,
    Allocation,
    AllocationChange,
    CommandOutcome,
    DemandSpec,
    DocumentStatus,
    Identity,
    NewAllocation,
    Proposal,
    ProposalEvent,
    Reason,
)

PLATFORM = "erc20-holesky-tglm"
SESSION = AppSessionId("session-of-this-test")
CONTENT = bytes(range(256)) * 400  # 100 KiB: three pieces


class Rental:
    """The steps of one rental, each checked as far as it goes."""

    def __init__(self, node: HttpNode) -> None:
        self.node = node
        self.begun = datetime.now(UTC) - timedelta(seconds=1)
        self.me = Identity(identity="")  # type: ignore[arg-type]  # set by the first step

    async def allocate(self) -> Allocation:
        self.me = await self.node.me()
        allocation = await self.node.create_allocation(
            NewAllocation(
                address=self.me.identity,
                payment_platform=PLATFORM,
                total_amount=Decimal(1),
                timeout=datetime.now(UTC) + timedelta(hours=1),
            )
        )
        assert allocation == await self.node.allocation(allocation.allocation_id)
        change = AllocationChange(total_amount=Decimal("2.5"))
        changed = await self.node.change_allocation(allocation.allocation_id, change)
        assert changed.total_amount == changed.remaining_amount == Decimal("2.5")
        return changed

    async def demand(self, allocation: Allocation) -> DemandSpec:
        decorations = await self.node.demand_decorations([allocation.allocation_id])
        assert any(PLATFORM in decoration.key for decoration in decorations.properties)
        expiration = datetime.now(UTC) + timedelta(minutes=20)
        return DemandSpec(
            properties={
                "golem.srv.comp.expiration": int(expiration.timestamp() * 1000),
                "golem.srv.caps.multi-activity": True,
                "golem.node.debug.subnet": "public",
                **{decoration.key: decoration.value for decoration in decorations.properties},
            },
            constraints="(&" + "".join(decorations.constraints) + "(golem.runtime.name=vm))",
        )

    async def next_proposal(self, demand_id: DemandId, state: str) -> Proposal:
        while True:
            for event in await self.node.demand_events(demand_id, timeout=5, max_events=10):
                if isinstance(event, ProposalEvent) and event.proposal.state == state:
                    return event.proposal

    async def sign(self, demand_id: DemandId, spec: DemandSpec) -> AgreementId:
        initial = await self.next_proposal(demand_id, "Initial")
        ours = DemandSpec(
            properties={**spec.properties, "golem.com.payment.chosen-platform": PLATFORM},
            constraints=spec.constraints,
        )
        countered = await self.node.counter_proposal(demand_id, initial.proposal_id, ours)
        draft = await self.next_proposal(demand_id, "Draft")
        assert draft.prev_proposal_id == countered
        valid_to = datetime.now(UTC) + timedelta(minutes=5)
        agreement_id = await self.node.create_agreement(draft.proposal_id, valid_to)
        await self.node.confirm_agreement(agreement_id, SESSION)
        await self.node.wait_for_approval(agreement_id, timeout=5)
        document = await self.node.agreement(agreement_id)
        assert (document.state, document.demand.demand_id) == ("Approved", demand_id)
        assert abs(document.valid_to - valid_to) < timedelta(milliseconds=1)
        return agreement_id

    async def run(self, activity_id: ActivityId, *commands: dict[str, Any]) -> list[CommandOutcome]:
        batch_id = await self.node.execute(activity_id, commands)
        while True:
            outcomes = list(await self.node.batch_results(activity_id, batch_id, timeout=5))
            if outcomes and outcomes[-1].is_batch_finished:
                return outcomes

    async def agreement_kinds(self) -> list[type]:
        events = await self.node.agreement_events(after=self.begun, timeout=1, app_session_id=SESSION)
        return [type(event) for event in events]

    async def settle(self, allocation: Allocation, agreement_id: AgreementId) -> None:
        after, received = self.begun, None
        while received is None:
            events = await self.node.invoice_events(after=after, timeout=5, app_session_id=SESSION)
            for event in events:
                after = event.event_date
                received = event.invoice_id
        invoice = await self.node.invoice(received)
        assert (invoice.agreement_id, invoice.status) == (agreement_id, DocumentStatus.RECEIVED)
        acceptance = Acceptance(total_amount_accepted=invoice.amount, allocation_id=allocation.allocation_id)
        for _ in range(2):  # accepting twice is harmless
            await self.node.accept_invoice(received, acceptance, timeout=5)
        assert (await self.node.invoice(received)).status in (DocumentStatus.ACCEPTED, DocumentStatus.SETTLED)


def on_devnet(scenario: Any) -> None:
    async def main() -> None:
        async with (
            asyncio.timeout(20),
            Devnet(runtime="null") as address,
            HttpNode(address, clock=SystemClock()) as node,
        ):
            await scenario(node)

    asyncio.run(main())


def test_a_rental_from_allocation_to_release_with_files_both_ways() -> None:
    async def scenario(node: HttpNode) -> None:
        rental = Rental(node)
        allocation = await rental.allocate()
        spec = await rental.demand(allocation)
        demand_id = await node.subscribe(spec)
        agreement_id = await rental.sign(demand_id, spec)
        assert await rental.agreement_kinds() == [AgreementApprovedEvent]

        activity_id = await node.create_activity(agreement_id, timeout=30)
        assert [o.ok for o in await rental.run(activity_id, {"deploy": {}}, {"start": {}})] == [True, True]
        assert (await node.activity_state(activity_id)).state[0] == "Ready"

        channel = await node.publish(BytesSource(CONTENT))
        inside = "container:/golem/work/file"
        digest = hashlib.sha3_224(CONTENT).hexdigest()
        source = f"hash:sha3:{digest}:{channel.url}"
        (sent,) = await rental.run(activity_id, {"transfer": {"from": source, "to": inside}})
        assert sent.ok, sent.message
        await channel.close()

        sink = BytesSink(limit=len(CONTENT))
        channel = await node.receive(sink)
        (fetched,) = await rental.run(activity_id, {"transfer": {"from": inside, "to": channel.url}})
        assert fetched.ok, fetched.message
        assert sink.content() == CONTENT and channel.failure is None
        await channel.close()
        (late,) = await rental.run(activity_id, {"transfer": {"from": inside, "to": channel.url}})
        assert not late.ok, "a closed transfer can no longer be reached"

        small = await node.receive(BytesSink(limit=10))
        (refused,) = await rental.run(activity_id, {"transfer": {"from": inside, "to": small.url}})
        assert not refused.ok and "10 bytes allowed" in str(small.failure)
        await small.close()

        usage = await node.activity_usage(activity_id)
        assert usage.timestamp > 0
        for _ in range(2):  # ending it twice is harmless
            await node.destroy_activity(activity_id, timeout=30)
        assert (await node.activity_state(activity_id)).state[0] == "Terminated"
        await node.terminate_agreement(agreement_id, Reason(message="done", requestor_code="Success"))
        with pytest.raises(Gone):
            await node.terminate_agreement(agreement_id, Reason(message="again"))
        assert await rental.agreement_kinds() == [AgreementApprovedEvent, AgreementTerminatedEvent]

        await rental.settle(allocation, agreement_id)
        await node.unsubscribe(demand_id)
        await node.release_allocation(allocation.allocation_id)
        with pytest.raises(Gone):
            await node.allocation(allocation.allocation_id)

    on_devnet(scenario)


def test_withdrawing_a_demand_ends_its_poll_at_once() -> None:
    async def scenario(node: HttpNode) -> None:
        rental = Rental(node)
        allocation = await rental.allocate()
        # Nobody offers this, so the poll has nothing to bring.
        spec = await rental.demand(allocation)
        demand_id = await node.subscribe(
            DemandSpec(properties=spec.properties, constraints="(golem.runtime.name=none-such)")
        )
        poll = asyncio.create_task(node.demand_events(demand_id, timeout=30))
        await asyncio.sleep(0.1)
        started = time.monotonic()
        await node.unsubscribe(demand_id)
        with pytest.raises(NotFound):
            await poll
        assert time.monotonic() - started < 1

    on_devnet(scenario)


def test_what_the_node_does_not_know_is_not_found() -> None:
    async def scenario(node: HttpNode) -> None:
        acceptance = Acceptance(total_amount_accepted=Decimal(1), allocation_id=AllocationId("x"))
        unknown = "0" * 64
        calls = [
            node.unsubscribe(DemandId(unknown)),
            node.demand_events(DemandId(unknown), timeout=0),
            node.agreement(AgreementId(unknown)),
            node.confirm_agreement(AgreementId(unknown), SESSION),
            node.activity_state(ActivityId(unknown)),
            node.batch_results(ActivityId(unknown), BatchId(unknown), timeout=0),
            node.allocation(AllocationId(unknown)),
            node.invoice(InvoiceId(unknown)),
            node.debit_note(DebitNoteId(unknown)),
            node.accept_invoice(InvoiceId(unknown), acceptance, timeout=1),
        ]
        for call in calls:
            with pytest.raises(NotFound):
                await call
        with pytest.raises(NodeError):
            await node.create_agreement(ProposalId(unknown), datetime.now(UTC) + timedelta(hours=1))

    on_devnet(scenario)


def test_a_wrong_key_is_not_let_in() -> None:
    async def main() -> None:
        async with Devnet(runtime="null") as address:
            wrong = NodeAddress(address.url, "f" * 64)
            async with HttpNode(wrong, clock=SystemClock()) as node:
                with pytest.raises(Unauthorized):
                    await node.me()

    asyncio.run(main())
