from __future__ import annotations

import asyncio
from typing import Any

import pytest

from shem import props
from shem.devnet.settings import ProviderSettings, Timings
from shem.errors import (
    ActivityRefused,
    BadRequest,
    Gone,
    NodeFailure,
    NodeUnavailable,
    NotFound,
    RequestTimeout,
)
from shem.events import ActivityCreated, ActivityEnded
from shem.lifecycle import ActivityState
from shem.script import Script
from shem.yagna.models import Reason

DONE = Reason(message="done", requestor_code="Success")


def script(*programs: str, deploy: bool = True) -> Script:
    made = Script()
    if deploy:
        made.deploy()
        made.start()
    for program in programs:
        made.run(program)
    made.mark_sent()
    return made


async def execute(lease: Any, made: Script) -> None:
    await lease.execute(made, lambda _phase: None)


# --- being made


def test_an_activity_is_told_of_when_it_is_made_and_when_it_is_destroyed(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lease = await lab.lease()
        assert lease.activity.state is ActivityState.INITIALIZED
        await lab.give_back(lease)
        await asyncio.sleep(0)
        [created], [ended] = lab.heard(ActivityCreated), lab.heard(ActivityEnded)
        assert created.activity == ended.activity == lease.activity_id
        assert created.agreement == lease.agreement.id
        assert ended.by == "Requestor"
        # Destroyed before its agreement was ended (contract 6).
        ends = [call for call in lab.world.calls if call in ("destroy_activity", "terminate_agreement")]
        assert ends == ["destroy_activity", "terminate_agreement"]

    play_engine(story)


@pytest.mark.parametrize("kind", [BadRequest, NodeFailure, RequestTimeout, NodeUnavailable, NotFound, Gone])
@pytest.mark.parametrize("cut", [False, True])
def test_when_no_activity_comes_of_it_the_agreement_is_given_back(
    play_engine: Any, kind: Any, cut: bool
) -> None:
    async def story(lab: Any) -> None:
        if cut:
            lab.world.link.cut("create_activity")
        else:
            lab.world.link.fail("create_activity", kind, times=100)
        with pytest.raises(ActivityRefused, match="provider devnet-1: no activity") as caught:
            await lab.lease()
        assert isinstance(caught.value.__cause__, NodeUnavailable if cut else kind)
        assert [agreement.state.value for agreement in lab.world.node.agreements.all()] == ["Terminated"]

    play_engine(story, providers=1)


def test_the_making_outlives_a_short_outage(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lab.world.link.fail("create_activity", NodeUnavailable, times=4)
        await lab.give_back(await lab.lease())
        assert len(lab.world.node.activities.all()) == 1

    play_engine(story, providers=1)


def test_a_provider_that_takes_too_long_loses_the_agreement(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        with pytest.raises(ActivityRefused, match="408"):
            await lab.lease()
        assert 60 <= asyncio.get_running_loop().time() < 62

    play_engine(story, create_seconds=1000.0)


# --- what is known of it


def test_commands_that_succeed_move_it(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lease = await lab.lease()
        states = [lease.activity.state]
        for command in ("deploy", "start", "terminate", "deploy"):
            made = Script()
            getattr(made, command)()
            made.mark_sent()
            await execute(lease, made)
            states.append(lease.activity.state)
        assert [state.value for state in states] == [
            "Initialized",
            "Deployed",
            "Ready",
            "Initialized",
            "Deployed",
        ]
        await lab.give_back(lease)

    play_engine(story)


def test_that_the_node_answers_proves_nothing_the_state_does(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lease = await lab.lease()
        await lease.activity.observe()
        assert lease.loss is None
        lab.world.node.faults.kill_activity(lease.activity_id, "out of memory")
        await lease.activity.observe()
        assert lease.loss is not None
        assert "has terminated: out of memory" in lease.loss.reason
        await lab.give_back(lease)

    play_engine(story)


def test_one_that_is_being_torn_down_takes_no_command_any_more_and_counts_as_gone(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lease = await lab.lease()
        lab.world.node.activities.end(lab.world.node.activities.find(lease.activity_id), "by the provider")
        document = await lease.activity.observe()
        assert document.state[1] == "Terminated"
        assert lease.loss is not None
        await lab.give_back(lease)

    play_engine(story, destroy_seconds=3.0)


def test_one_the_node_does_not_know_is_gone(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lease = await lab.lease()
        lab.world.link.fail("activity_state", NotFound)
        assert await lease.activity.examine() == "the node does not know the activity any more"
        assert lease.loss is None
        await lab.give_back(lease)

    play_engine(story)


def test_contact_is_told_when_lost_and_regained_and_nothing_twice(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lease, told = await lab.lease(), []
        lease.on_contact(lambda contact, reason: told.append((contact, reason)))
        for _twice in range(2):
            lease.activity.silent("no answer")
        for _twice in range(2):
            lease.activity.sign_of_life()
        assert told == [(False, "no answer"), (True, "it answers again")]
        assert lease.activity.state is ActivityState.INITIALIZED
        await lab.give_back(lease)
        lease.activity.silent("nobody listens any more")
        assert len(told) == 2

    play_engine(story)


@pytest.mark.parametrize("commands", [0, 1, 2])
def test_it_is_where_it_was_when_contact_is_regained(play_engine: Any, commands: int) -> None:
    async def story(lab: Any) -> None:
        lease = await lab.lease()
        for command in ("deploy", "start")[:commands]:
            made = Script()
            getattr(made, command)()
            made.mark_sent()
            await execute(lease, made)
        before = lease.activity.state
        lease.activity.silent("no answer")
        assert lease.activity.state is ActivityState.UNRESPONSIVE
        lease.activity.sign_of_life()
        assert lease.activity.state is before
        await lab.give_back(lease)

    play_engine(story)


def test_an_unresponsive_activity_is_told_by_the_nodes_word(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lease = await lab.lease()
        lab.world.node.faults.hang_activity(lease.activity_id)
        await asyncio.sleep(6)
        await lease.activity.observe()
        assert lease.activity.state is ActivityState.UNRESPONSIVE
        lab.world.node.faults.resume_activity(lease.activity_id)
        await lease.activity.observe()
        assert lease.activity.state is ActivityState.INITIALIZED
        await lab.give_back(lease)

    play_engine(story)


# --- what it costs


def test_usage_and_cost_follow_the_agreed_price(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lease = await lab.lease()
        await asyncio.sleep(100)
        usage = await lease.activity.usage()
        assert usage[props.DURATION_SEC] == pytest.approx(100, abs=0.01)
        assert usage[props.CPU_SEC] == 0
        assert float(await lease.activity.cost()) == pytest.approx(0.5 + 100 * 0.001, abs=1e-4)
        await lab.give_back(lease)

    play_engine(story, providers=[ProviderSettings(coeffs=(0.01, 0.001, 0.5))])


# --- its end


def test_destroying_it_twice_or_when_it_has_ended_is_harmless(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lease = await lab.lease()
        await lease.activity.destroy()
        await lease.activity.destroy()
        assert lab.world.calls.count("destroy_activity") == 1
        assert lease.activity_lost.cancelled()
        await lab.give_back(lease)

    play_engine(story)


@pytest.mark.parametrize("kind", [NodeFailure, NodeUnavailable, RequestTimeout])
def test_destroying_is_repeated_while_the_node_fails(play_engine: Any, kind: Any) -> None:
    async def story(lab: Any) -> None:
        lease = await lab.lease()
        lab.world.link.fail("destroy_activity", kind, times=3)
        assert await lab.engine.release(lease, DONE)

    play_engine(story)


def test_one_the_node_does_not_know_needs_no_destroying(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lease = await lab.lease()
        lab.world.link.fail("destroy_activity", NotFound)
        assert await lab.engine.release(lease, DONE)

    play_engine(story)


def test_a_runtime_that_will_not_go_does_not_hold_up_the_release(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lease = await lab.lease()
        began = asyncio.get_running_loop().time()
        await lab.engine.release(lease, DONE)
        assert asyncio.get_running_loop().time() - began <= 30

    play_engine(story, destroy_seconds=1e6, timings=Timings(teardown=20.0))
