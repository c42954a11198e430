from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shem.engine.liveness import LivenessPace
from shem.errors import NodeFailure, NodeUnavailable, NotFound, Unauthorized
from shem.lifecycle import ActivityState

PACE = LivenessPace()
LATEST = PACE.silent_after + PACE.interval + 2 * PACE.answer


def now() -> float:
    return asyncio.get_running_loop().time()


def told_by(lease: Any) -> list[tuple[bool, float]]:
    told: list[tuple[bool, float]] = []
    lease.on_contact(lambda contact, _reason: told.append((contact, now())))
    return told


def test_a_vanished_provider_is_found_unresponsive_in_the_time_that_is_documented(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lease = await lab.lease()
        told, last_sign = told_by(lease), lease.activity.last_sign
        lab.world.node.faults.vanish("devnet-1")
        await asyncio.sleep(LATEST)
        [(contact, when)] = told
        assert not contact
        assert PACE.silent_after <= when - last_sign <= LATEST
        lab.world.node.faults.recover("devnet-1")
        await asyncio.sleep(PACE.interval)
        assert [contact for contact, _when in told] == [False, True]
        await lab.give_back(lease)

    play_engine(story, providers=1)


@settings(max_examples=40)
@given(
    interval=st.floats(0.5, 30),
    answer=st.floats(0.5, 30),
    silent_after=st.floats(1, 120),
    calm=st.floats(0, 100),
    hangs=st.booleans(),
)
def test_whatever_the_pace_silence_is_found_neither_early_nor_late(
    play_engine: Any, interval: float, answer: float, silent_after: float, calm: float, hangs: bool
) -> None:
    pace = LivenessPace(interval=interval, answer=answer, silent_after=silent_after)

    async def story(lab: Any) -> None:
        lease = await lab.lease()
        told = told_by(lease)
        await asyncio.sleep(calm)
        if hangs:
            lab.world.link.delay("activity_state", math.inf)
        else:
            lab.world.link.fail("activity_state", NodeFailure, times=1e6)
        last_sign = lease.activity.last_sign
        await asyncio.sleep(max(silent_after, interval) + interval + 2 * answer + 0.1)
        [(contact, when)] = told
        assert not contact
        assert silent_after <= when - last_sign + 1e-6
        lab.world.link.heal()
        await lab.give_back(lease)

    play_engine(story, providers=1, settings={"liveness": pace})


def test_a_death_is_found_within_an_interval_though_the_node_goes_on_answering(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lease = await lab.lease()
        lab.world.node.faults.kill_activity(lease.activity_id, "out of memory")
        cause = await lease.activity_lost
        assert "out of memory" in cause.reason
        assert now() <= lease.activity.last_sign + 2 * PACE.interval
        await lab.give_back(lease)

    play_engine(story)


@pytest.mark.parametrize("seconds", [0.0, 0.1, 4.0, 4.9])
def test_an_outage_of_the_node_is_no_silence_of_its_providers(play_engine: Any, seconds: float) -> None:
    async def story(lab: Any) -> None:
        lease = await lab.lease()
        told = told_by(lease)
        lab.world.link.delay("*", seconds)
        lab.world.link.fail("*", NodeUnavailable, times=1e6)
        await asyncio.sleep(600)
        lab.world.link.heal()
        # The provider itself does not answer now, but so far for a moment only.
        lab.world.link.fail("activity_state", NodeFailure)
        await asyncio.sleep(15)
        assert told == []
        await lab.give_back(lease)

    play_engine(story)


def test_a_node_that_hangs_is_no_silence_of_its_providers_either(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lease = await lab.lease()
        told = told_by(lease)
        lab.world.link.delay("*", math.inf)
        await asyncio.sleep(600)
        lab.world.link.heal()
        await asyncio.sleep(15)
        assert told == []
        await lab.give_back(lease)

    play_engine(story)


def test_a_provider_that_hangs_is_told_apart_from_a_node_that_does(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lease = await lab.lease()
        told = told_by(lease)
        lab.world.link.delay("activity_state", math.inf)
        await asyncio.sleep(LATEST + 1)
        assert [contact for contact, _when in told] == [False]
        lab.world.link.heal()
        await lab.give_back(lease)

    play_engine(story)


def test_one_silent_provider_delays_the_watch_over_no_other(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        market = await lab.market()
        leases = [await lab.lease(market) for _ in range(3)]
        silent, dies, _lives = leases
        lab.world.node.faults.vanish(silent.provider_name)
        lab.world.node.faults.kill_activity(dies.activity_id)
        await dies.activity_lost
        assert now() < 3 * PACE.interval
        lab.world.node.faults.recover(silent.provider_name)
        await lab.give_back(*leases)

    play_engine(story)


def test_whoever_has_just_been_heard_is_not_asked(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lease = await lab.lease()
        for _second in range(60):
            lease.activity.sign_of_life()
            await asyncio.sleep(1)
        assert "activity_state" not in lab.world.calls
        await lab.give_back(lease)

    play_engine(story)


def test_the_dead_and_the_given_back_are_not_asked(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        market = await lab.market()
        dead, back = await lab.lease(market), await lab.lease(market)
        lab.world.node.faults.kill_activity(dead.activity_id)
        await dead.activity_lost
        await lab.give_back(back)
        await asyncio.sleep(PACE.interval)
        asked = lab.world.calls.count("activity_state")
        await asyncio.sleep(60)
        assert lab.world.calls.count("activity_state") == asked
        await lab.give_back(dead)

    play_engine(story)


def test_an_activity_stays_unresponsive_until_it_answers_and_then_at_once_is_not(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lease = await lab.lease()
        lab.world.node.faults.vanish("devnet-1")
        await asyncio.sleep(100)
        assert lease.activity.state is ActivityState.UNRESPONSIVE
        lab.world.node.faults.recover("devnet-1")
        await asyncio.sleep(PACE.interval)
        assert lease.activity.state is ActivityState.INITIALIZED
        await lab.give_back(lease)

    play_engine(story, providers=1)


def test_an_activity_that_the_node_does_not_know_is_lost(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lease = await lab.lease()
        lab.world.link.fail("activity_state", NotFound)
        cause = await lease.activity_lost
        assert "does not know the activity any more" in cause.reason
        await lab.give_back(lease)

    play_engine(story)


def test_a_node_that_refuses_an_answer_has_answered(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lease = await lab.lease()
        told = told_by(lease)
        lab.world.link.delay("activity_state", math.inf)
        lab.world.link.fail("me", Unauthorized, times=math.inf)
        await asyncio.sleep(LATEST + 1)
        assert [contact for contact, _when in told] == [False]
        lab.world.link.heal()
        await lab.give_back(lease)

    play_engine(story)


def test_a_bug_does_not_make_the_watch_blind(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        market = await lab.market()
        lease, other = await lab.lease(market), await lab.lease(market)

        def fail(*_arguments: object) -> None:
            raise ZeroDivisionError("a bug")

        lease.on_contact(fail)
        lab.world.node.faults.vanish(lease.provider_name)
        await asyncio.sleep(LATEST + 1)
        lab.world.node.faults.kill_activity(other.activity_id, "seen all the same")
        assert "seen all the same" in (await other.activity_lost).reason
        lab.world.node.faults.recover(lease.provider_name)
        await lab.give_back(lease, other)

    play_engine(story)
