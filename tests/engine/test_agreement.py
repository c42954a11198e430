from __future__ import annotations

import asyncio
from typing import Any

import pytest

from shem.devnet.settings import ProviderSettings, Timings
from shem.engine.agreement import SigningPace
from shem.errors import AgreementRefused, BadRequest, Gone, NodeFailure, NodeUnavailable, RequestTimeout
from shem.events import AgreementEnded, AgreementFailed, AgreementSigned, StepSkipped
from shem.lifecycle import AgreementState
from shem.testing.link import ANY
from shem.yagna.models import Reason

NEVER = Timings(approval=1e6)
DONE = Reason(message="done", requestor_code="Success")


def now() -> float:
    return asyncio.get_running_loop().time()


def states(lab: Any) -> list[str]:
    return [agreement.state.value for agreement in lab.world.node.agreements.all()]


# --- signing


def test_an_agreement_is_told_of_when_it_is_signed_and_when_it_ends(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lease = await lab.lease()
        assert lab.engine.agreements.live == (lease.agreement,)
        assert lease.agreement.state is AgreementState.APPROVED
        await lab.give_back(lease)
        assert lab.engine.agreements.live == ()
        await asyncio.sleep(0)
        [signed], [ended] = lab.heard(AgreementSigned), lab.heard(AgreementEnded)
        assert signed.agreement == ended.agreement == lease.agreement.id
        assert (signed.provider_name, ended.by, ended.reason) == ("devnet-1", "Requestor", "done")

    play_engine(story, providers=1)


def test_it_is_signed_under_the_session_of_the_run(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lease = await lab.lease()
        document = await lab.world.api().agreement(lease.agreement.id)
        assert document.app_session_id == lab.engine.session
        await lab.give_back(lease)

    play_engine(story)


def test_a_refusal_is_the_providers_and_names_it(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lab.world.node.faults.refuse_next_agreements("devnet-1")
        with pytest.raises(AgreementRefused, match=r"devnet-1: no agreement: .*Rejected") as caught:
            await lab.lease()
        assert caught.value.provider_id == lab.world.node.provider("devnet-1").node_id
        await asyncio.sleep(0)
        [failed] = lab.heard(AgreementFailed)
        assert failed.provider_name == "devnet-1"
        assert states(lab) == ["Rejected"]

    play_engine(story, providers=1)


def test_one_that_is_never_approved_is_taken_back(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        market = await lab.market()
        began = now()
        with pytest.raises(AgreementRefused, match="the provider did not answer in time"):
            await lab.lease(market)
        assert now() - began == pytest.approx(SigningPace().approval, abs=1)
        assert states(lab) == ["Cancelled"]

    play_engine(story, timings=NEVER)


def test_one_that_is_approved_in_the_moment_it_is_given_up_is_ended(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        # The provider decides after 2 s, and the cancellation is under way by then.
        lab.world.link.delay("cancel_agreement", 1.5)
        signing = asyncio.create_task(lab.lease())
        await asyncio.sleep(1.5)
        signing.cancel()
        await asyncio.wait([signing])
        assert signing.cancelled()
        assert states(lab) == ["Terminated"]
        taken_back = [call for call in lab.world.calls if call in ("cancel_agreement", "terminate_agreement")]
        assert taken_back == ["cancel_agreement", "terminate_agreement"]

    play_engine(story, timings=Timings(approval=2.0))


@pytest.mark.parametrize("call", ["create_agreement", "confirm_agreement", "wait_for_approval"])
@pytest.mark.parametrize("kind", [BadRequest, NodeFailure, Gone])
def test_when_a_step_of_signing_fails_nothing_is_left(play_engine: Any, call: str, kind: Any) -> None:
    async def story(lab: Any) -> None:
        lab.world.link.fail(call, kind, times=100)
        with pytest.raises(AgreementRefused):
            await lab.lease()

    # Where the node tells a lie about an agreement's state (410 for one that waits), it is believed.
    lie = {"open_agreements"} if (call, kind) == ("wait_for_approval", Gone) else set()
    play_engine(story, leftovers=lie)


@pytest.mark.parametrize("call", ["create_agreement", "confirm_agreement", "wait_for_approval"])
def test_signing_outlives_a_short_outage(play_engine: Any, call: str) -> None:
    async def story(lab: Any) -> None:
        lab.world.link.fail(call, NodeUnavailable, times=4)
        await lab.give_back(await lab.lease())

    play_engine(story, providers=1)


@pytest.mark.parametrize("call", ["confirm_agreement", "wait_for_approval"])
def test_signing_goes_on_where_an_answer_was_lost(play_engine: Any, call: str) -> None:
    async def story(lab: Any) -> None:
        lab.world.link.cut(call)
        await lab.give_back(await lab.lease())

    play_engine(story, providers=1)


def test_an_agreement_whose_making_was_not_heard_of_is_never_sent(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lab.world.link.cut("create_agreement")
        with pytest.raises(AgreementRefused):
            await lab.lease()
        assert states(lab) == ["Proposal"]

    # Nobody was told its id. It costs nothing, and the node lets it expire.
    play_engine(story, providers=1, leftovers={"open_agreements"})


@pytest.mark.parametrize("kind", [RequestTimeout, NodeFailure])
def test_waiting_for_the_approval_is_repeated(play_engine: Any, kind: Any) -> None:
    async def story(lab: Any) -> None:
        lab.world.link.fail("wait_for_approval", kind, times=3)
        await lab.give_back(await lab.lease())

    play_engine(story, providers=1)


def test_a_slow_provider_delays_nobody_else(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        market = await lab.market()
        lab.world.link.delay("confirm_agreement", 30.0, times=1)
        first = asyncio.create_task(lab.lease(market))
        await asyncio.sleep(0)
        others = await asyncio.gather(lab.lease(market), lab.lease(market))
        assert now() < 2
        assert not first.done()
        await lab.give_back(await first, *others)

    play_engine(story)


def test_twenty_agreements_take_as_long_as_one(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        market = await lab.market()
        began = now()
        leases = await asyncio.gather(*(lab.lease(market) for _ in range(20)))
        assert now() - began < 1 + 1
        await lab.give_back(*leases)

    play_engine(story, providers=20, timings=Timings(approval=1.0))


@pytest.mark.parametrize("answer", [False, True])
@pytest.mark.parametrize("moment", [0.05 * step for step in range(1, 90)])
def test_when_signing_is_given_up_at_any_moment_nothing_is_left(
    play_engine: Any, moment: float, answer: bool
) -> None:
    async def story(lab: Any) -> None:
        market = await lab.market()
        lab.world.link.delay(ANY, 0.4, answer=answer)
        signing = asyncio.create_task(lab.lease(market))
        await asyncio.sleep(moment)
        signing.cancel()
        await asyncio.wait([signing])
        if not signing.cancelled():
            await lab.give_back(signing.result())

    play_engine(story, providers=1, create_seconds=0.5)


def test_one_that_could_not_be_taken_back_is_taken_back_when_the_node_is_there_again(
    play_engine: Any,
) -> None:
    async def story(lab: Any) -> None:
        signing = asyncio.create_task(lab.lease())
        await asyncio.sleep(2)
        lab.world.link.up = False
        signing.cancel()
        await asyncio.wait([signing])
        assert states(lab) == ["Pending"]
        lab.world.link.up = True
        await asyncio.sleep(30)
        assert states(lab) == ["Cancelled"]

    play_engine(story, timings=NEVER)


# --- ending


def test_ending_twice_is_harmless(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lease = await lab.lease()
        await lab.give_back(lease, lease)
        assert lab.world.calls.count("terminate_agreement") == 1

    play_engine(story)


def test_ending_one_that_the_provider_has_ended_is_harmless(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lease = await lab.lease()
        lab.world.link.fail("agreement_events", NodeUnavailable, times=100)
        assert lab.world.node.faults.terminate_agreement(lease.agreement.id)
        await lab.give_back(lease)

    play_engine(story)


def test_an_end_that_could_not_be_told_is_made_up_for(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lease = await lab.lease()
        lab.world.link.up = False
        began = now()
        assert not await lab.engine.release(lease, DONE)
        assert now() - began < 40
        assert states(lab) == ["Approved"]
        lab.world.link.up = True
        await asyncio.sleep(60)
        assert states(lab) == ["Terminated"]
        skipped = [event.step.split()[0] for event in lab.heard(StepSkipped)]
        assert skipped == ["destroy", "end"]

    play_engine(story)


# --- hearing


def test_an_end_by_the_provider_is_heard_with_its_code_and_reason(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lease = await lab.lease()
        lab.world.node.faults.terminate_agreement(lease.agreement.id, "We are closing", "Shutdown")
        cause = await lease.agreement_ended
        assert "Shutdown: We are closing" in cause.reason
        assert lab.engine.agreements.live == ()
        await lab.give_back(lease)
        await asyncio.sleep(0)
        [ended] = lab.heard(AgreementEnded)
        assert (ended.by, "We are closing" in ended.reason) == ("Provider", True)

    play_engine(story)


def test_the_end_of_an_agreement_is_heard_before_the_loss_of_its_activity(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lease, order = await lab.lease(), []
        lease.agreement_ended.add_done_callback(lambda _ended: order.append("agreement"))
        lease.activity_lost.add_done_callback(lambda _lost: order.append("activity"))
        lab.world.node.faults.terminate_agreement(lease.agreement.id)
        await asyncio.wait([lease.activity_lost])
        await asyncio.sleep(0)
        assert order == ["agreement", "activity"]
        await lab.give_back(lease)

    play_engine(story)


@pytest.mark.parametrize("late", [0.5, 2.5])
def test_a_loss_found_before_the_agreements_end_is_heard_of_waits_for_it(
    play_engine: Any, late: float
) -> None:
    async def story(lab: Any) -> None:
        lease, order = await lab.lease(), []
        lease.agreement_ended.add_done_callback(lambda _ended: order.append("agreement"))
        lease.activity_lost.add_done_callback(lambda _lost: order.append("activity"))
        lab.world.link.delay("agreement_events", late, answer=True)
        lab.world.node.faults.terminate_agreement(lease.agreement.id)
        await lease.activity.observe()
        await asyncio.sleep(0)
        assert order == ["agreement", "activity"]
        await lab.give_back(lease)

    play_engine(story)


def test_a_loss_whose_agreement_stands_is_told_at_once(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lease = await lab.lease()
        began = now()
        lab.world.node.faults.kill_activity(lease.activity_id, "out of memory")
        await lease.activity.observe()
        assert "out of memory" in lease.activity_lost.result().reason
        assert not lease.agreement_ended.done()
        assert now() == began
        await lab.give_back(lease)

    play_engine(story)


def test_a_loss_is_told_even_when_the_agreements_end_is_never_heard_of(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lease = await lab.lease()
        lab.world.link.delay("agreement_events", 1e6, answer=True)
        lab.world.node.faults.terminate_agreement(lease.agreement.id)
        began = now()
        await lease.activity.observe()
        assert lease.activity_lost.done()
        assert now() - began == pytest.approx(SigningPace().news)
        await lab.give_back(lease)

    play_engine(story)


def test_an_agreement_that_was_ended_while_the_node_was_away_is_heard_of_later(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lease = await lab.lease()
        lab.world.link.up = False
        lab.world.node.faults.terminate_agreement(lease.agreement.id, "Closed for repair")
        await asyncio.sleep(40)
        assert not lease.agreement_ended.done()
        lab.world.link.up = True
        assert "Closed for repair" in (await lease.agreement_ended).reason
        await lab.give_back(lease)

    play_engine(story)


def test_the_provider_ends_it_at_its_expiration_and_that_is_heard(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lease = await lab.lease(await lab.market(hours=0.1))
        assert "Expired" in (await lease.agreement_ended).reason
        assert now() == pytest.approx(360, abs=5)
        await lab.give_back(lease)

    play_engine(story, providers=[ProviderSettings(max_agreements=1)])
