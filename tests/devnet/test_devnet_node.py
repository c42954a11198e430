"""A whole node: what is left over, that it closes, that it repeats itself exactly, that it is quick."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from decimal import Decimal

import pytest

from shem.devnet.audit import Audit
from shem.devnet.local import LocalApi
from shem.devnet.node import Node
from shem.devnet.runtime.null import NullFactory
from shem.devnet.settings import ProviderSettings, Timings
from shem.errors import ConfigError, NodeUnavailable, NotFound
from shem.testing.sim import SimClock, run
from shem.yagna import models as wire
from shem.yagna.content import BytesSource

DONE = wire.Reason(message="done")


async def life(w):
    """A complete rental that leaves nothing over."""
    allocation_id = await w.allocation()
    spec = w.demand_spec()
    demand_id, draft = await w.draft(spec)
    agreement_id = await w.api.create_agreement(draft.proposal_id, w.valid_to())
    await w.api.confirm_agreement(agreement_id, "session-1")
    await w.api.wait_for_approval(agreement_id, timeout=5)
    await w.api.unsubscribe(demand_id)
    began = w.clock.now()
    activity_id = await w.api.create_activity(agreement_id, timeout=5)
    results = await w.do(activity_id, {"deploy": {}}, {"start": {}}, {"run": {"entry_point": "say"}})
    await asyncio.sleep(30)
    await w.api.destroy_activity(activity_id, timeout=5)
    await w.api.terminate_agreement(agreement_id, DONE)
    (event,) = await w.api.invoice_events(after=began, timeout=10, app_session_id="session-1")
    invoice = await w.api.invoice(event.invoice_id)
    await w.api.accept_invoice(
        invoice.invoice_id,
        wire.Acceptance(total_amount_accepted=invoice.amount, allocation_id=allocation_id),
        timeout=5,
    )
    await w.api.release_allocation(allocation_id)
    return results, invoice


def test_nothing_is_left_over_after_a_clean_life(in_world):
    async def main(w):
        for _ in range(3):
            await life(w)
            assert w.node.audit() == Audit()
        assert w.node.audit().clean
        assert str(w.node.audit()) == "nothing left over"

    in_world(main)


def test_the_audit_names_everything_that_is_left_over(in_world):
    async def main(w):
        allocation_id = await w.allocation()
        agreement_id, activity_id = await w.activity()
        audit = w.node.audit()
        assert not audit.clean
        assert (audit.open_allocations, audit.open_agreements) == ((allocation_id,), (agreement_id,))
        assert audit.live_activities == (activity_id,)
        assert len(audit.open_demands) == 1
        await w.api.terminate_agreement(agreement_id, DONE)
        assert w.node.audit().invoices_to_come == (agreement_id,)
        (invoice,) = await w.invoices(timeout=10)
        (note,) = await w.notes()
        audit = w.node.audit()
        assert audit.open_invoices == (invoice.invoice_id,)
        assert audit.open_debit_notes == (note.debit_note_id,)
        assert audit.live_activities == audit.open_agreements == audit.invoices_to_come == ()
        assert f"open invoices: {invoice.invoice_id}" in str(audit)

    in_world(main)


def test_the_same_seed_gives_the_same_life_and_another_one_other_ids(in_world):
    first, again, other = in_world(life, seed=1), in_world(life, seed=1), in_world(life, seed=2)
    assert first == again
    assert first[1].invoice_id != other[1].invoice_id
    assert first[1].amount == other[1].amount


def test_closing_ends_whatever_runs(in_world, program):
    async def main(w):
        _, activity_id = await w.ready()
        await w.send(activity_id, program("sleep", "1000"))
        await w.api.publish(BytesSource(b"x"))
        demand_id = await w.api.subscribe(w.demand_spec(constraints="(a=b)"))
        polls = [
            asyncio.create_task(w.api.demand_events(demand_id, timeout=500)),
            asyncio.create_task(
                w.api.invoice_events(after=w.clock.now(), timeout=500, app_session_id="session-1")
            ),
        ]
        await asyncio.sleep(1)
        before = w.clock.monotonic()
        await w.node.aclose()
        await w.node.aclose()
        gone, empty = await asyncio.gather(*polls, return_exceptions=True)
        assert isinstance(gone, NotFound)
        assert empty == []
        assert w.clock.monotonic() - before < 1
        assert w.runtimes.made[0].destroyed == 1
        audit = w.node.audit()
        assert audit.live_activities == audit.open_demands == ()
        with pytest.raises(NodeUnavailable):
            await w.api.me()
        # The loop itself notices tasks that are left behind.

    in_world(main)


def test_a_runtime_that_never_ends_does_not_keep_the_node_from_closing(in_world):
    async def main(w):
        _, activity_id = await w.ready()
        runtime = w.runtimes.made[0]
        runtime.destroy = asyncio.get_running_loop().create_future
        before = w.clock.monotonic()
        await w.api.destroy_activity(activity_id, timeout=60)
        assert w.clock.monotonic() - before == 3

    in_world(main, timings=Timings(teardown=3))


def test_providers_have_names_and_ids_of_their_own(in_world):
    async def main(w):
        providers = w.node.providers
        assert [p.name for p in providers] == ["devnet-1", "bob", "devnet-3"]
        assert len({p.node_id for p in providers} | {p.wallet for p in providers}) == 6
        for provider in providers:
            assert w.node.provider(provider.name) is w.node.provider(provider.node_id) is provider
            assert len(provider.node_id) == 42
        with pytest.raises(LookupError, match="devnet-1, bob"):
            w.node.provider("alice")

    in_world(main, providers=[ProviderSettings(), ProviderSettings(name="bob"), ProviderSettings()])


def test_senseless_settings_are_refused():
    with pytest.raises(ConfigError, match="bob"):
        Node(NullFactory(), providers=[ProviderSettings(name="bob")] * 2, clock=SimClock())
    with pytest.raises(ConfigError, match="max_agreements"):
        ProviderSettings(max_agreements=0)
    with pytest.raises(ConfigError, match="approval"):
        Timings(approval=-1)
    with pytest.raises(ConfigError, match="abandoned"):
        Timings(unresponsive=5, abandoned=1)


def test_a_recovered_provider_proposes_anew_to_those_who_still_look(in_world):
    async def main(w):
        spec = w.demand_spec()
        demand_id = await w.api.subscribe(spec)
        initial = (await w.proposals(demand_id))[0]
        w.node.faults.vanish(w.provider.name)
        with pytest.raises(Exception, match="endpoint address not found"):
            await w.api.counter_proposal(demand_id, initial.proposal_id, spec)
        w.node.faults.recover(w.provider.name)
        w.node.faults.recover(w.provider.name)
        (fresh,) = await w.proposals(demand_id)
        assert fresh.state == "Initial"

    in_world(main)


def test_two_thousand_activities_live_side_by_side():
    count = 2000

    async def main():
        clock = SimClock()
        offer = ProviderSettings(max_agreements=count)
        async with Node(NullFactory(), providers=[offer], clock=clock) as node:
            api = LocalApi(node)
            allocation = await api.create_allocation(
                wire.NewAllocation(
                    address="", payment_platform="erc20-holesky-tglm", total_amount=Decimal(1000)
                )
            )
            spec = wire.DemandSpec(
                properties={
                    "golem.srv.comp.expiration": int((clock.now().timestamp() + 1700) * 1000),
                    "golem.node.debug.subnet": "public",
                    "golem.com.payment.chosen-platform": "erc20-holesky-tglm",
                },
                constraints="(golem.runtime.name=vm)",
            )

            async def one():
                demand_id = await api.subscribe(spec)
                (event,) = await api.demand_events(demand_id, timeout=5)
                await api.counter_proposal(demand_id, event.proposal.proposal_id, spec)
                (event,) = await api.demand_events(demand_id, timeout=5)
                agreement_id = await api.create_agreement(
                    event.proposal.proposal_id, clock.now() + timedelta(minutes=1)
                )
                await api.confirm_agreement(agreement_id, "s")
                await api.wait_for_approval(agreement_id, timeout=5)
                await api.unsubscribe(demand_id)
                activity_id = await api.create_activity(agreement_id, timeout=5)
                batch_id = await api.execute(activity_id, [{"deploy": {}}, {"start": {}}])
                results = await api.batch_results(activity_id, batch_id, timeout=5)
                assert [result.ok for result in results] == [True, True]
                await asyncio.sleep(300)
                await api.destroy_activity(activity_id, timeout=5)
                await api.terminate_agreement(agreement_id, DONE)

            began = clock.now()
            await asyncio.gather(*(one() for _ in range(count)))
            assert node.audit().live_activities == ()
            events, after = [], began
            while part := await api.invoice_events(after=after, timeout=5, app_session_id="s"):
                events += part
                after = part[-1].event_date
            assert len({event.invoice_id for event in events}) == count
            for event in events:
                invoice = await api.invoice(event.invoice_id)
                await api.accept_invoice(
                    invoice.invoice_id,
                    wire.Acceptance(
                        total_amount_accepted=invoice.amount, allocation_id=allocation.allocation_id
                    ),
                    timeout=5,
                )
            await api.release_allocation(allocation.allocation_id)
            assert node.audit().clean, node.audit()

    begun = time.perf_counter()
    run(main)
    # It takes about 5 s on a slow core; quadratic work anywhere would take minutes.
    assert time.perf_counter() - begun < 60
