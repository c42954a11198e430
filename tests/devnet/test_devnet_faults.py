"""Faults on order, one by one and in any combination."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shem.devnet.settings import ProviderSettings, Timings
from shem.errors import NodeError, NodeFailure
from shem.yagna import models as wire

DONE = wire.Reason(message="done")


def test_an_agreement_is_ended_by_a_vanished_provider_only_when_it_is_back(in_world):
    async def main(w):
        agreement_id, _ = await w.activity()
        w.node.faults.vanish("devnet-1")
        assert not w.node.faults.terminate_agreement(agreement_id)
        await asyncio.sleep(10)
        assert (await w.api.agreement(agreement_id)).state == "Approved"
        w.node.faults.recover("devnet-1")
        assert (await w.api.agreement(agreement_id)).state == "Terminated"

    in_world(main)


def test_the_death_of_an_activity_is_not_seen_through_a_cut(in_world):
    async def main(w):
        _, activity_id = await w.activity()
        w.node.faults.vanish("devnet-1")
        w.node.faults.kill_activity(activity_id)
        await asyncio.sleep(1)
        with pytest.raises(NodeFailure):
            await w.api.activity_state(activity_id)
        w.node.faults.recover("devnet-1")
        assert (await w.api.activity_state(activity_id)).state[0] == "Terminated"

    in_world(main)


def test_bills_can_be_padded(in_world):
    async def main(w):
        w.node.faults.pad_bills("devnet-1", Decimal(2))
        agreement_id, activity_id = await w.activity()
        await asyncio.sleep(10)
        await w.api.destroy_activity(activity_id, timeout=5)
        await w.api.terminate_agreement(agreement_id, DONE)
        (invoice,) = await w.invoices(timeout=5)
        assert invoice.amount == Decimal("0.001")
        assert (await w.notes())[0].total_amount_due == invoice.amount

    in_world(main)


def test_a_cut_provider_sends_one_note_for_all_the_intervals_it_missed(in_world):
    async def main(w):
        await w.activity()
        w.node.faults.vanish("devnet-1")
        await asyncio.sleep(55)
        assert await w.notes() == []
        w.node.faults.recover("devnet-1")
        await asyncio.sleep(10)
        (note,) = await w.notes()
        assert note.usage_counter_vector[1] == 60

    in_world(main, timings=Timings(debit_note_interval=10))


def test_only_as_many_agreements_are_refused_as_were_ordered(in_world):
    async def main(w):
        w.node.faults.refuse_next_agreements("devnet-1", 2)
        states = []
        for _ in range(3):
            _, draft = await w.draft()
            agreement_id = await w.api.create_agreement(draft.proposal_id, w.valid_to())
            await w.api.confirm_agreement(agreement_id, "s")
            await asyncio.sleep(1)
            states.append((await w.api.agreement(agreement_id)).state)
        assert states == ["Rejected", "Rejected", "Approved"]

    in_world(main)


STEPS = st.sampled_from(
    [
        "rent",
        "create",
        "run",
        "destroy",
        "terminate",
        "quit",
        "kill",
        "lose",
        "hang",
        "resume",
        "vanish",
        "recover",
        "refuse",
        "accept",
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(STEPS, st.integers(0, 7), st.integers(0, 40)), min_size=4, max_size=40))
def test_after_any_faults_an_orderly_end_leaves_nothing_over(in_world, program, steps):
    async def main(w):
        allocation_id = await w.allocation(1000)
        agreements = [await w.agreement() for _ in range(2)]
        activities = [await w.api.create_activity(agreement, timeout=5) for agreement in agreements]

        async def accept_everything():
            for note in await w.notes():
                acceptance = wire.Acceptance(
                    total_amount_accepted=note.total_amount_due, allocation_id=allocation_id
                )
                await w.api.accept_debit_note(note.debit_note_id, acceptance, timeout=5)
            for invoice in await w.invoices():
                acceptance = wire.Acceptance(
                    total_amount_accepted=invoice.amount, allocation_id=allocation_id
                )
                await w.api.accept_invoice(invoice.invoice_id, acceptance, timeout=5)

        async def step(what, which):
            faults = w.node.faults
            provider = w.node.providers[which % 2].name
            agreement, activity = agreements[which % len(agreements)], activities[which % len(activities)]
            match what:
                case "rent":
                    agreements.append(await w.agreement())
                case "create":
                    activities.append(await w.api.create_activity(agreement, timeout=5))
                case "run":
                    await w.send(
                        activity, {"deploy": {}}, {"start": {}}, program("burn", "1"), program("sleep", "20")
                    )
                case "destroy":
                    await w.api.destroy_activity(activity, timeout=5)
                case "terminate":
                    await w.api.terminate_agreement(agreement, DONE)
                case "quit":
                    faults.terminate_agreement(agreement)
                case "kill":
                    faults.kill_activity(activity)
                case "lose":
                    runtime = w.runtimes.made[which % len(w.runtimes.made)]
                    if not runtime.lost.done():
                        runtime.lost.set_result("crashed")
                case "hang":
                    faults.hang_activity(activity)
                case "resume":
                    faults.resume_activity(activity)
                case "vanish":
                    faults.vanish(provider)
                case "recover":
                    faults.recover(provider)
                case "refuse":
                    faults.refuse_next_agreements(provider)
                case "accept":
                    await accept_everything()

        for what, which, pause in steps:
            try:
                await step(what, which)
            except (NodeError, IndexError):
                pass  # refused, or nobody has proposed anything; what counts is the end
            await asyncio.sleep(pause)

        for provider in w.node.providers:
            w.node.faults.recover(provider.name)
        me = (await w.api.me()).identity
        for demand in w.node.market.demands(me):
            await w.api.unsubscribe(demand.demand_id)
        for entry in w.node.agreements.entries(me, state="Approved"):
            await w.api.terminate_agreement(entry.id, DONE)
        await asyncio.sleep(120)  # unconfirmed agreements expire, bills come
        await accept_everything()
        await w.api.release_allocation(allocation_id)
        assert w.node.audit().clean, str(w.node.audit())
        assert all(runtime.destroyed == 1 for runtime in w.runtimes.made)

    in_world(main, providers=[ProviderSettings(max_agreements=2), ProviderSettings()])
