"""Agreements: what each side may do in which state, and what is told about it."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shem.devnet.local import LocalApi
from shem.devnet.node import Node
from shem.devnet.runtime.null import NullFactory
from shem.devnet.settings import Timings
from shem.errors import BadRequest, Gone, NodeError, NodeFailure, NotFound, RequestTimeout
from shem.ids import AgreementId, AppSessionId
from shem.testing.sim import SimClock, run
from shem.yagna import models as wire

DONE = wire.Reason(message="done", requestor_code="Success")


async def proposed(w):
    """An agreement that is not confirmed yet."""
    _, draft = await w.draft()
    return await w.api.create_agreement(draft.proposal_id, w.valid_to())


async def state(w, agreement_id):
    return (await w.api.agreement(agreement_id)).state


def test_an_agreement_holds_both_sides_last_drafts_and_the_subscriptions_ids(in_world):
    async def main(w):
        spec = w.demand_spec(**{"golem.com.scheme.payu.payment-timeout-sec?": 777, "acme.x": 1})
        demand_id, draft = await w.draft(spec)
        agreement_id = await w.api.create_agreement(draft.proposal_id, w.valid_to(60))
        document = await w.api.agreement(agreement_id)
        assert document.demand.demand_id == demand_id
        assert document.demand.properties == spec.properties
        assert document.demand.requestor_id == (await w.api.me()).identity
        assert document.offer.properties == draft.properties
        assert document.offer.properties["golem.com.scheme.payu.payment-timeout-sec?"] == 777
        assert document.offer.provider_id == w.provider.node_id
        assert (document.state, document.approved_date) == ("Proposal", None)
        assert document.valid_to == w.valid_to(60)

    in_world(main)


def test_an_agreement_is_approved_shortly_after_it_was_confirmed(in_world):
    async def main(w):
        agreement_id = await proposed(w)
        before = w.clock.monotonic()
        await w.api.confirm_agreement(agreement_id, AppSessionId("s"))
        assert await state(w, agreement_id) == "Pending"
        await w.api.wait_for_approval(agreement_id, timeout=60)
        assert w.clock.monotonic() - before == pytest.approx(0.1)
        document = await w.api.agreement(agreement_id)
        assert (document.state, document.app_session_id) == ("Approved", "s")
        assert document.approved_date == w.clock.now()

    in_world(main)


def test_waiting_runs_out_of_time_without_harm(in_world):
    async def main(w):
        agreement_id = await proposed(w)
        await w.api.confirm_agreement(agreement_id, AppSessionId("s"))
        with pytest.raises(RequestTimeout) as caught:
            await w.api.wait_for_approval(agreement_id, timeout=1)
        assert caught.value.status == 408
        await w.api.wait_for_approval(agreement_id, timeout=5)

    in_world(main, timings=Timings(approval=3.0))


def test_waiting_for_what_was_not_confirmed_or_has_ended_is_refused(in_world):
    async def main(w):
        agreement_id = await proposed(w)
        with pytest.raises(BadRequest):
            await w.api.wait_for_approval(agreement_id, timeout=5)
        await w.api.confirm_agreement(agreement_id, AppSessionId("s"))
        await w.api.wait_for_approval(agreement_id, timeout=5)
        await w.api.terminate_agreement(agreement_id, DONE)
        with pytest.raises(BadRequest, match="Terminated"):
            await w.api.wait_for_approval(agreement_id, timeout=5)

    in_world(main)


def test_a_rejection_ends_the_wait_at_once_and_is_told_as_an_event(in_world):
    async def main(w):
        w.node.faults.refuse_next_agreements(w.provider.name, 1)
        agreement_id = await proposed(w)
        await w.api.confirm_agreement(agreement_id, AppSessionId("session-1"))
        with pytest.raises(Gone, match="Rejected"):
            await w.api.wait_for_approval(agreement_id, timeout=60)
        assert w.clock.monotonic() < 1
        (event,) = await w.agreement_events()
        assert isinstance(event, wire.AgreementRejectedEvent)
        assert event.reason.message
        await w.agreement()  # the next one is approved again

    in_world(main)


def test_an_agreement_expires_unless_it_is_approved(in_world):
    async def main(w):
        _, draft = await w.draft()
        agreement_id = await w.api.create_agreement(draft.proposal_id, w.valid_to(30))
        await asyncio.sleep(29)
        assert await state(w, agreement_id) == "Proposal"
        await asyncio.sleep(2)
        assert await state(w, agreement_id) == "Expired"
        with pytest.raises(Gone):
            await w.api.confirm_agreement(agreement_id, AppSessionId("s"))

    in_world(main)


def test_expiry_ends_the_wait_for_an_approval(in_world):
    async def main(w):
        _, draft = await w.draft()
        agreement_id = await w.api.create_agreement(draft.proposal_id, w.valid_to(30))
        await w.api.confirm_agreement(agreement_id, AppSessionId("s"))
        with pytest.raises(Gone, match="Expired"):
            await w.api.wait_for_approval(agreement_id, timeout=60)

    in_world(main, timings=Timings(approval=100.0))


def test_an_approved_agreement_outlives_its_valid_to(in_world):
    async def main(w):
        agreement_id = await w.agreement()
        await w.api.create_activity(agreement_id, timeout=5)
        await asyncio.sleep(300)
        assert await state(w, agreement_id) == "Approved"

    in_world(main)


def test_a_cancelled_agreement_is_never_approved(in_world):
    async def main(w):
        agreement_id = await proposed(w)
        await w.api.confirm_agreement(agreement_id, AppSessionId("session-1"))
        await w.api.cancel_agreement(agreement_id, wire.Reason())
        await asyncio.sleep(1)
        assert await state(w, agreement_id) == "Cancelled"
        (event,) = await w.agreement_events()
        assert isinstance(event, wire.AgreementCancelledEvent)
        assert event.reason.message

    in_world(main)


def test_only_one_agreement_comes_of_a_proposal_and_only_of_a_draft(in_world):
    async def main(w):
        spec = w.demand_spec()
        demand_id = await w.api.subscribe(spec)
        initial = (await w.proposals(demand_id))[0]
        with pytest.raises(BadRequest, match="initial") as caught:
            await w.api.create_agreement(initial.proposal_id, w.valid_to())
        assert caught.value.status == 400
        ours = await w.api.counter_proposal(demand_id, initial.proposal_id, spec)
        draft = (await w.proposals(demand_id))[0]
        for bad in (ours, "R-none"):
            with pytest.raises(BadRequest):
                await w.api.create_agreement(bad, w.valid_to())
        with pytest.raises(BadRequest, match="not found"):
            await w.other().create_agreement(draft.proposal_id, w.valid_to())
        with pytest.raises(BadRequest, match="validTo"):
            await w.api.create_agreement(draft.proposal_id, w.valid_to(-1))
        await w.api.create_agreement(draft.proposal_id, w.valid_to())
        with pytest.raises(BadRequest) as caught:
            await w.api.create_agreement(draft.proposal_id, w.valid_to())
        assert caught.value.status == 409

    in_world(main)


@pytest.mark.parametrize("how", ["countered", "rejected"])
def test_a_draft_that_was_answered_makes_no_agreement(in_world, how):
    async def main(w):
        demand_id, draft = await w.draft()
        if how == "countered":
            await w.api.counter_proposal(demand_id, draft.proposal_id, w.demand_spec())
        else:
            await w.api.reject_proposal(demand_id, draft.proposal_id, DONE)
        with pytest.raises(BadRequest):
            await w.api.create_agreement(draft.proposal_id, w.valid_to())

    in_world(main)


def test_who_terminated_and_why_is_told_to_both_sides_session(in_world):
    async def main(w):
        ours = await w.agreement()
        await w.api.terminate_agreement(ours, DONE)
        theirs = await w.agreement()
        assert w.node.faults.terminate_agreement(theirs, "bye", "Shutdown")
        assert not w.node.faults.terminate_agreement(theirs)
        ends = [e for e in await w.agreement_events() if isinstance(e, wire.AgreementTerminatedEvent)]
        assert [(e.agreement_id, e.terminator) for e in ends] == [
            (ours, "Requestor"),
            (theirs, "Provider"),
        ]
        assert ends[0].reason == DONE
        assert ends[1].reason == wire.Reason(message="bye", provider_code="Shutdown")
        me = (await w.api.me()).identity
        assert w.node.agreements.termination(me, theirs) == ends[1]

    in_world(main)


def test_a_reason_always_says_something(in_world):
    async def main(w):
        agreement_id = await w.agreement()
        await w.api.terminate_agreement(agreement_id, wire.Reason())
        assert (await w.agreement_events())[-1].reason.message

    in_world(main)


def test_events_are_filtered_by_session_and_owner(in_world):
    async def main(w):
        await w.agreement(session=AppSessionId("one"))
        early = w.began.replace(year=2000)

        async def seen(api, session):
            return await api.agreement_events(after=early, timeout=0, app_session_id=session)

        assert len(await seen(w.api, "one")) == 1
        assert await seen(w.api, "two") == []
        assert len(await w.node.agreements.events((await w.api.me()).identity, after=None, timeout=0)) == 1
        assert await seen(w.other(), "one") == []

    in_world(main)


def test_a_poll_for_events_ends_as_soon_as_there_is_one(in_world):
    async def main(w):
        agreement_id = await w.agreement()
        last = (await w.agreement_events())[-1].event_date
        poll = asyncio.create_task(
            w.api.agreement_events(after=last, timeout=60, app_session_id=AppSessionId("session-1"))
        )
        await asyncio.sleep(2)
        before = w.clock.monotonic()
        w.node.faults.terminate_agreement(agreement_id)
        (event,) = await poll
        assert event.event_date > last
        assert w.clock.monotonic() == before

    in_world(main)


def test_agreements_are_listed_by_state_session_and_time(in_world):
    async def main(w):
        me, agreements = (await w.api.me()).identity, w.node.agreements
        first = await w.agreement(session=AppSessionId("one"))
        await w.api.terminate_agreement(first, DONE)
        between = w.clock.now()
        await asyncio.sleep(1)
        second = await w.agreement(session=AppSessionId("two"))

        def ids(**wanted):
            return [entry.id for entry in agreements.entries(me, **wanted)]

        assert ids() == [first, second]
        assert ids(state="Approved") == ids(session="two") == ids(after=between) == [second]
        assert ids(before=between) == ids(state="Terminated") == [first]
        assert agreements.entries(wire.NodeId("0xother")) == []

    in_world(main)


def test_an_unknown_agreement_is_not_found(in_world):
    async def main(w):
        none = AgreementId("none")
        agreement_id = await w.agreement()
        for api, which in ((w.api, none), (w.other(), agreement_id)):
            with pytest.raises(NotFound):
                await api.agreement(which)
            with pytest.raises(NotFound):
                await api.confirm_agreement(which, AppSessionId("s"))
            with pytest.raises(NotFound):
                await api.terminate_agreement(which, DONE)

    in_world(main)


def test_without_an_activity_the_provider_ends_the_agreement_after_a_while(in_world):
    async def main(w):
        agreement_id = await w.agreement()
        await asyncio.sleep(89)
        assert await state(w, agreement_id) == "Approved"
        await asyncio.sleep(2)
        assert await state(w, agreement_id) == "Terminated"
        event = (await w.agreement_events())[-1]
        assert (event.terminator, event.reason.provider_code) == ("Provider", "NoActivity")

    in_world(main)


def test_an_idle_agreement_is_watched_again_after_its_last_activity(in_world):
    async def main(w):
        agreement_id, first = await w.activity()
        second = await w.api.create_activity(agreement_id, timeout=5)
        await asyncio.sleep(200)
        await w.api.destroy_activity(first, timeout=5)
        await asyncio.sleep(200)
        assert await state(w, agreement_id) == "Approved"
        await w.api.destroy_activity(second, timeout=5)
        await asyncio.sleep(91)
        assert await state(w, agreement_id) == "Terminated"

    in_world(main)


def test_the_time_before_an_activity_does_not_count_as_idleness_after_it(in_world):
    async def main(w):
        agreement_id = await w.agreement()
        await asyncio.sleep(10)
        activity_id = await w.api.create_activity(agreement_id, timeout=5)
        await asyncio.sleep(70)
        await w.api.destroy_activity(activity_id, timeout=5)
        await asyncio.sleep(60)
        assert await state(w, agreement_id) == "Approved"

    in_world(main)


def test_the_provider_ends_an_agreement_at_the_expiration_of_the_work(in_world):
    async def main(w):
        agreement_id, activity_id = await w.activity(w.demand_spec(ahead=400))
        await asyncio.sleep(399)
        assert await state(w, agreement_id) == "Approved"
        await asyncio.sleep(2)
        event = (await w.agreement_events())[-1]
        assert (event.terminator, event.reason.provider_code) == ("Provider", "Expired")
        assert (await w.api.activity_state(activity_id)).state[0] == "Terminated"

    in_world(main)


def test_a_provider_that_cannot_be_reached_gets_no_agreement_but_may_get_it_later(in_world):
    async def main(w):
        agreement_id = await proposed(w)
        w.node.faults.vanish(w.provider.name)
        with pytest.raises(NodeFailure, match="endpoint address not found"):
            await w.api.confirm_agreement(agreement_id, AppSessionId("s"))
        w.node.faults.recover(w.provider.name)
        await w.api.confirm_agreement(agreement_id, AppSessionId("s"))
        w.node.faults.vanish(w.provider.name)
        with pytest.raises(RequestTimeout):
            await w.api.wait_for_approval(agreement_id, timeout=5)
        w.node.faults.recover(w.provider.name)
        await w.api.wait_for_approval(agreement_id, timeout=0)

    in_world(main)


#: What each call answers in each state (contract 3.3): None for a success, else the status.
TABLE = {
    "confirm": {"Proposal": None, "*": 410},
    "cancel": {"Proposal": None, "Pending": None, "*": 410},
    "terminate": {"Proposal": 409, "Approved": None, "*": 410},
    "wait": {
        "Approved": None,
        "Pending": 408,
        "Rejected": 410,
        "Cancelled": 410,
        "Expired": 410,
        "*": 400,
    },
}
#: Where a call or a decision leads.
LEADS = {
    ("confirm", "Proposal"): "Pending",
    ("cancel", "Proposal"): "Cancelled",
    ("cancel", "Pending"): "Cancelled",
    ("terminate", "Approved"): "Terminated",
    ("decide", "Pending"): "Approved",
    ("expire", "Proposal"): "Expired",
    ("expire", "Pending"): "Expired",
    ("quit", "Approved"): "Terminated",
}
STEPS = st.lists(st.sampled_from([*TABLE, "decide", "expire", "quit"]), max_size=8)


@settings(max_examples=200)
@given(STEPS)
def test_any_sequence_of_calls_is_answered_by_the_table(steps):
    async def main():
        clock = SimClock()
        # Approval and expiry come only when the test lets that much time pass.
        async with Node(NullFactory(), clock=clock, timings=Timings(approval=10, no_activity=1e6)) as node:
            api = LocalApi(node)
            calls = {
                "confirm": lambda: api.confirm_agreement(agreement_id, AppSessionId("s")),
                "cancel": lambda: api.cancel_agreement(agreement_id, DONE),
                "terminate": lambda: api.terminate_agreement(agreement_id, DONE),
                "wait": lambda: api.wait_for_approval(agreement_id, timeout=0),
            }
            agreement_id = await _proposed(node, api, clock)
            expected = "Proposal"
            for step in steps:
                if step in TABLE:
                    status = TABLE[step].get(expected, TABLE[step]["*"])
                    try:
                        await calls[step]()
                    except NodeError as error:
                        assert error.status == status, (step, expected)
                    else:
                        assert status is None, (step, expected)
                elif step == "decide":
                    await asyncio.sleep(11)
                elif step == "expire":
                    # Far beyond valid_to; an approval that is due comes first.
                    await asyncio.sleep(11)
                    expected = LEADS.get(("decide", expected), expected)
                    await asyncio.sleep(1000)
                else:
                    moved = node.faults.terminate_agreement(agreement_id)
                    assert moved == (expected == "Approved")
                expected = LEADS.get((step, expected), expected)
                assert (await api.agreement(agreement_id)).state == expected

    run(main)


async def _proposed(node, api, clock):
    spec = wire.DemandSpec(
        properties={
            "golem.srv.comp.expiration": int((clock.now().timestamp() + 90_000) * 1000),
            "golem.node.debug.subnet": "public",
            "golem.com.payment.chosen-platform": "erc20-holesky-tglm",
            "golem.com.payment.debit-notes.accept-timeout?": 240,
            "golem.com.scheme.payu.payment-timeout-sec?": 120,
        },
        constraints="()",
    )
    demand_id = await api.subscribe(spec)
    (event,) = await api.demand_events(demand_id, timeout=1)
    await api.counter_proposal(demand_id, event.proposal.proposal_id, spec)
    (event,) = await api.demand_events(demand_id, timeout=1)
    return await api.create_agreement(event.proposal.proposal_id, clock.now().replace(hour=0, minute=5))
