"""Demands, offers and proposals: who hears of what, and what may be answered when."""

from __future__ import annotations

import asyncio

import pytest

from shem.devnet.settings import ProviderSettings, Timings
from shem.errors import BadRequest, Gone, NodeFailure, NotFound, Unauthorized
from shem.yagna import models as wire

REASON = wire.Reason(message="no, thank you")


def test_every_matching_provider_proposes_once(in_world):
    async def main(w):
        demand_id = await w.api.subscribe(w.demand_spec())
        proposals = await w.proposals(demand_id)
        assert [p.issuer_id for p in proposals] == [p.node_id for p in w.node.providers]
        assert {p.state for p in proposals} == {"Initial"}
        assert all(p.prev_proposal_id is None for p in proposals)
        assert await w.proposals(demand_id, timeout=10) == []

    in_world(main, providers=3)


@pytest.mark.parametrize(
    "constraints",
    ["(golem.runtime.name=docker)", "(golem.inf.mem.gib>=1000)", "(no.such.property=1)"],
)
def test_a_provider_that_does_not_match_stays_silent(in_world, constraints):
    async def main(w):
        demand_id = await w.api.subscribe(w.demand_spec(constraints=constraints))
        assert await w.proposals(demand_id) == []

    in_world(main)


def test_a_demand_of_another_subnet_is_not_seen(in_world):
    async def main(w):
        demand_id = await w.api.subscribe(w.demand_spec(**{"golem.node.debug.subnet": "mine"}))
        assert [p.issuer_id for p in await w.proposals(demand_id)] == [w.node.provider("mine").node_id]

    in_world(main, providers=[ProviderSettings(), ProviderSettings(name="mine", subnet="mine")])


def test_the_offer_says_what_clients_insist_on(in_world):
    async def main(w):
        demand_id = await w.api.subscribe(w.demand_spec())
        offer = (await w.proposals(demand_id))[0].properties
        coeffs = offer["golem.com.pricing.model.linear.coeffs"]
        assert all(type(coeff) is float for coeff in coeffs)
        assert len(coeffs) == len(offer["golem.com.usage.vector"]) + 1
        assert offer["golem.com.payment.protocol.version"] == 3
        assert offer["golem.runtime.name"] == "vm"
        platforms = [key for key in offer if key.startswith("golem.com.payment.platform.")]
        assert len(platforms) == 3

    in_world(main, providers=[ProviderSettings(coeffs=(1, 2, 0))])


def test_nested_properties_are_flattened(in_world):
    async def main(w):
        spec = w.demand_spec()
        nested = {**spec.properties, "acme": {"a": {"b.c": 1}}}
        await w.api.subscribe(wire.DemandSpec(properties=nested, constraints="()"))
        me = (await w.api.me()).identity
        assert w.node.market.demands(me)[0].properties["acme.a.b.c"] == 1

    in_world(main)


def test_constraints_that_do_not_parse_are_refused(in_world):
    async def main(w):
        with pytest.raises(BadRequest) as caught:
            await w.api.subscribe(w.demand_spec(constraints="(golem.runtime.name=vm"))
        assert caught.value.status == 400

    in_world(main)


def test_blank_constraints_mean_anything(in_world):
    async def main(w):
        demand_id = await w.api.subscribe(w.demand_spec(constraints=" "))
        assert len(await w.proposals(demand_id)) == 1

    in_world(main)


def test_events_are_delivered_once_and_in_portions(in_world):
    async def main(w):
        demand_id = await w.api.subscribe(w.demand_spec())
        await asyncio.sleep(1)
        first = await w.api.demand_events(demand_id, timeout=0, max_events=2)
        rest = await w.api.demand_events(demand_id, timeout=0, max_events=2)
        issuers = [event.proposal.issuer_id for event in (*first, *rest)]
        assert issuers == [provider.node_id for provider in w.node.providers]
        assert (len(first), len(rest)) == (2, 1)

    in_world(main, providers=3)


@pytest.mark.parametrize("count", [0, -1, 101])
def test_a_senseless_number_of_events_is_refused(in_world, count):
    async def main(w):
        demand_id = await w.api.subscribe(w.demand_spec())
        with pytest.raises(BadRequest, match="should be between 1 and 100"):
            await w.api.demand_events(demand_id, timeout=0, max_events=count)

    in_world(main)


def test_a_poll_without_events_returns_empty_at_its_time_limit(in_world):
    async def main(w):
        demand_id = await w.api.subscribe(w.demand_spec(constraints="(a=b)"))
        before = w.clock.monotonic()
        assert await w.api.demand_events(demand_id, timeout=7) == []
        assert w.clock.monotonic() - before == 7

    in_world(main)


def test_withdrawing_a_demand_ends_its_poll_at_once_with_404(in_world):
    async def main(w):
        demand_id = await w.api.subscribe(w.demand_spec(constraints="(a=b)"))
        poll = asyncio.create_task(w.api.demand_events(demand_id, timeout=60))
        await asyncio.sleep(3)
        await w.api.unsubscribe(demand_id)
        with pytest.raises(NotFound):
            await poll
        assert w.clock.monotonic() == 3
        with pytest.raises(NotFound):
            await w.api.unsubscribe(demand_id)

    in_world(main)


def test_a_demand_lives_for_an_hour_and_then_ends_its_poll(in_world):
    async def main(w):
        demand_id = await w.api.subscribe(w.demand_spec(ahead=9000))
        initial = (await w.proposals(demand_id))[0]
        with pytest.raises(NotFound):
            await w.api.demand_events(demand_id, timeout=5000)
        assert w.clock.monotonic() == 3600
        with pytest.raises(Gone, match="expired"):
            await w.api.counter_proposal(demand_id, initial.proposal_id, w.demand_spec())

    in_world(main)


def test_no_agreement_comes_of_a_draft_whose_demand_has_expired(in_world):
    async def main(w):
        _, draft = await w.draft(w.demand_spec(ahead=1700))
        await asyncio.sleep(3601)
        with pytest.raises(BadRequest, match="Expired"):
            await w.api.create_agreement(draft.proposal_id, w.valid_to())

    in_world(main)


def test_a_draft_outlives_the_withdrawal_of_its_demand(in_world):
    async def main(w):
        demand_id, draft = await w.draft()
        await w.api.unsubscribe(demand_id)
        agreement_id = await w.api.create_agreement(draft.proposal_id, w.valid_to())
        await w.api.confirm_agreement(agreement_id, "s")
        await w.api.wait_for_approval(agreement_id, timeout=5)

    in_world(main)


def test_the_reply_to_a_counter_proposal_is_a_draft_that_names_ours(in_world):
    async def main(w):
        spec = w.demand_spec()
        demand_id = await w.api.subscribe(spec)
        initial = (await w.proposals(demand_id))[0]
        before = w.clock.monotonic()
        ours = await w.api.counter_proposal(demand_id, initial.proposal_id, spec)
        draft = (await w.proposals(demand_id))[0]
        assert w.clock.monotonic() - before == pytest.approx(0.05)
        assert (draft.state, draft.prev_proposal_id) == ("Draft", ours)
        me = (await w.api.me()).identity
        mine = w.node.market.proposal(me, demand_id, ours)
        assert (mine.issuer_id, mine.state, mine.prev_proposal_id) == (me, "Draft", initial.proposal_id)

    in_world(main)


def test_negotiation_may_go_any_number_of_rounds(in_world):
    async def main(w):
        spec = w.demand_spec()
        demand_id, draft = await w.draft(spec)
        for _ in range(4):
            await w.api.counter_proposal(demand_id, draft.proposal_id, spec)
            draft = (await w.proposals(demand_id))[0]
        agreement_id = await w.api.create_agreement(draft.proposal_id, w.valid_to())
        assert (await w.api.agreement(agreement_id)).state == "Proposal"

    in_world(main)


def test_a_proposal_can_be_countered_once(in_world):
    async def main(w):
        spec = w.demand_spec()
        demand_id = await w.api.subscribe(spec)
        initial = (await w.proposals(demand_id))[0]
        await w.api.counter_proposal(demand_id, initial.proposal_id, spec)
        with pytest.raises(Gone, match="already countered"):
            await w.api.counter_proposal(demand_id, initial.proposal_id, spec)

    in_world(main)


def test_what_cannot_be_countered_is_refused(in_world):
    async def main(w):
        spec = w.demand_spec()
        demand_id = await w.api.subscribe(spec)
        one, two = await w.proposals(demand_id)
        ours = await w.api.counter_proposal(demand_id, one.proposal_id, spec)
        with pytest.raises(BadRequest, match="your own"):
            await w.api.counter_proposal(demand_id, ours, spec)
        await w.api.reject_proposal(demand_id, two.proposal_id, REASON)
        with pytest.raises(BadRequest, match="Rejected"):
            await w.api.counter_proposal(demand_id, two.proposal_id, spec)
        with pytest.raises(NotFound):
            await w.api.counter_proposal(demand_id, wire.ProposalId("R-none"), spec)
        elsewhere = await w.api.subscribe(spec)
        with pytest.raises(NotFound):
            await w.api.counter_proposal(elsewhere, one.proposal_id, spec)
        with pytest.raises(Unauthorized):
            await w.other().counter_proposal(demand_id, two.proposal_id, spec)

    in_world(main, providers=2)


def test_a_counter_proposal_that_does_not_match_is_refused_and_can_be_mended(in_world):
    async def main(w):
        spec = w.demand_spec()
        demand_id = await w.api.subscribe(spec)
        initial = (await w.proposals(demand_id))[0]
        with pytest.raises(BadRequest, match="Mismatched constraints"):
            await w.api.counter_proposal(
                demand_id, initial.proposal_id, w.demand_spec(constraints="(golem.inf.mem.gib>=64)")
            )
        await w.api.counter_proposal(demand_id, initial.proposal_id, spec)
        assert len(await w.proposals(demand_id)) == 1

    in_world(main)


def test_what_cannot_be_rejected_is_refused_as_the_contract_has_it(in_world):
    async def main(w):
        spec = w.demand_spec()
        demand_id = await w.api.subscribe(spec)
        initial = (await w.proposals(demand_id))[0]
        ours = await w.api.counter_proposal(demand_id, initial.proposal_id, spec)
        with pytest.raises(BadRequest):
            await w.api.reject_proposal(demand_id, ours, REASON)
        for proposal_id in (initial.proposal_id, wire.ProposalId("R-none")):
            with pytest.raises(NodeFailure):
                await w.api.reject_proposal(demand_id, proposal_id, REASON)

    in_world(main)


def test_a_refusal_is_an_event_that_names_our_proposal_and_says_why(in_world):
    async def main(w):
        spec = w.demand_spec(**{"golem.com.payment.chosen-platform": None})
        demand_id = await w.api.subscribe(spec)
        initial = (await w.proposals(demand_id))[0]
        ours = await w.api.counter_proposal(demand_id, initial.proposal_id, spec)
        (event,) = await w.api.demand_events(demand_id, timeout=5)
        assert isinstance(event, wire.ProposalRejectedEvent)
        assert event.proposal_id == ours
        assert "chosen-platform" in event.reason.message
        assert event.reason.is_final is False

    in_world(main)


def test_a_busy_provider_refuses_for_now_and_proposes_again_when_it_is_free(in_world):
    async def main(w):
        agreement_id = await w.agreement()
        spec = w.demand_spec()
        demand_id = await w.api.subscribe(spec)
        initial = (await w.proposals(demand_id))[0]
        await w.api.counter_proposal(demand_id, initial.proposal_id, spec)
        (event,) = await w.api.demand_events(demand_id, timeout=5)
        assert event.reason.is_final is False
        await w.api.terminate_agreement(agreement_id, REASON)
        (fresh,) = await w.proposals(demand_id)
        assert (fresh.state, fresh.issuer_id) == ("Initial", initial.issuer_id)

    in_world(main)


def test_a_provider_keeps_as_many_agreements_as_it_is_set_to(in_world):
    async def main(w):
        for _ in range(3):
            await w.agreement()
        spec = w.demand_spec()
        demand_id = await w.api.subscribe(spec)
        initial = (await w.proposals(demand_id))[0]
        await w.api.counter_proposal(demand_id, initial.proposal_id, spec)
        (event,) = await w.api.demand_events(demand_id, timeout=5)
        assert isinstance(event, wire.ProposalRejectedEvent)

    in_world(main, providers=[ProviderSettings(max_agreements=3)])


@pytest.mark.parametrize("by_provider", [True, False])
def test_after_a_termination_the_same_pair_gets_a_fresh_proposal(in_world, by_provider):
    async def main(w):
        spec = w.demand_spec()
        demand_id, draft = await w.draft(spec)
        agreement_id = await w.api.create_agreement(draft.proposal_id, w.valid_to())
        await w.api.confirm_agreement(agreement_id, "s")
        await w.api.wait_for_approval(agreement_id, timeout=5)
        if by_provider:
            assert w.node.faults.terminate_agreement(agreement_id)
        else:
            await w.api.terminate_agreement(agreement_id, REASON)
        (fresh,) = await w.proposals(demand_id)
        assert fresh.state == "Initial"
        await w.api.counter_proposal(demand_id, fresh.proposal_id, spec)
        assert (await w.proposals(demand_id))[0].state == "Draft"

    in_world(main)


def test_matching_can_take_its_time(in_world):
    async def main(w):
        demand_id = await w.api.subscribe(w.demand_spec())
        assert await w.proposals(demand_id, timeout=2) == []
        assert len(await w.proposals(demand_id, timeout=2)) == 1

    in_world(main, timings=Timings(match=3.0))


def test_a_demand_is_its_owners_alone(in_world):
    async def main(w):
        demand_id = await w.api.subscribe(w.demand_spec())
        with pytest.raises(Unauthorized):
            await w.other().demand_events(demand_id, timeout=0)
        with pytest.raises(Unauthorized):
            await w.other().unsubscribe(demand_id)

    in_world(main)
