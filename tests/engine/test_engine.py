from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from shem.bus import Bus
from shem.config import PaymentSettings
from shem.engine.engine import Engine, EngineSettings
from shem.errors import ActivityRefused, NodeFailure, NodeUnavailable, PaymentError, Unauthorized
from shem.events import BusEvent, NodeBack, NodeLost, Phase
from shem.testing import World, play
from shem.testing.link import ANY


def now() -> float:
    return asyncio.get_running_loop().time()


def engine_on(world: World, **settings: Any) -> Engine:
    return Engine(
        world.api(),
        EngineSettings(PaymentSettings(Decimal(10)), **settings),
        clock=world.clock,
        bus=Bus(),
    )


# --- life


@pytest.mark.parametrize("call", ["me", "create_allocation", "demand_decorations"])
@pytest.mark.parametrize("kind", [Unauthorized, NodeFailure, NodeUnavailable])
def test_a_start_that_fails_leaves_nothing_behind(call: str, kind: Any) -> None:
    async def story(world: World) -> None:
        engine = engine_on(world)
        world.link.fail(call, kind)
        with pytest.raises((kind, PaymentError)):
            await engine.start()
        await engine.stop()

    play(story)


def test_stopping_twice_is_harmless(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        await lab.engine.stop()
        await lab.engine.stop()
        assert lab.world.calls.count("release_allocation") == 1

    play_engine(story)


def test_stopping_what_was_never_started_is_harmless() -> None:
    async def story(world: World) -> None:
        await engine_on(world).stop()
        assert world.calls == []

    play(story)


def test_a_quiet_run_asks_little(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        market = await lab.market()
        leases = [await lab.lease(market) for _ in range(3)]
        lab.world.calls.clear()
        await asyncio.sleep(119)
        asked = {call: lab.world.calls.count(call) for call in set(lab.world.calls)}
        # One long poll of 30 s per kind of event, whatever the number of instances; 3 activities every 5 s.
        polls = {"agreement_events", "debit_note_events", "invoice_events", "demand_events"}
        assert set(asked) == polls | {"activity_state"}
        assert all(asked[poll] <= 5 for poll in polls)
        assert asked["activity_state"] <= 3 * 120 / 5
        await lab.give_back(*leases)

    play_engine(story)


def test_each_poll_tells_of_an_outage_once_and_of_its_end_once(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        await lab.market()
        await asyncio.sleep(5)
        lab.world.link.up = False
        await asyncio.sleep(90)
        lab.world.link.heal()
        await asyncio.sleep(60)
        polls = ["agreement events", "debit notes", "demand events", "invoices"]
        assert sorted(event.poll for event in lab.heard(NodeLost)) == polls
        assert sorted(event.poll for event in lab.heard(NodeBack)) == polls

    play_engine(story)


# --- acquiring


def test_progress_is_told_in_order(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        phases: list[Phase] = []
        market = await lab.market()
        lease = await lab.engine.acquire(market, avoid=(), progress=phases.append)
        assert phases == [Phase.NEGOTIATING, Phase.AGREEMENT, Phase.ACTIVITY]
        await lab.give_back(lease)

    play_engine(story)


def test_a_failing_provider_costs_its_own_slot_and_no_other(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        market = await lab.market()
        lab.world.link.fail("create_activity", NodeFailure)
        got = await asyncio.gather(*(lab.lease(market) for _ in range(3)), return_exceptions=True)
        assert [type(one) for one in got].count(ActivityRefused) == 1
        assert now() < 2
        await lab.give_back(*(one for one in got if not isinstance(one, BaseException)))

    play_engine(story)


# --- releasing


def test_a_release_reports_whether_it_could_do_everything(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        market = await lab.market()
        good, bad = await lab.lease(market), await lab.lease(market)
        lab.world.node.faults.vanish(bad.provider_name)
        reason = lab.reason("done")
        assert await lab.engine.release(good, reason)
        assert not await lab.engine.release(bad, reason)
        lab.world.node.faults.recover(bad.provider_name)
        await asyncio.sleep(30)

    play_engine(story)


@pytest.mark.parametrize("moment", [0.1 * step for step in range(12)])
def test_a_release_that_is_cancelled_is_seen_through(play_engine: Any, moment: float) -> None:
    async def story(lab: Any) -> None:
        lease = await lab.lease()
        lab.world.link.delay(ANY, 0.2)
        lab.world.link.delay(ANY, 0.2, answer=True)
        releasing = asyncio.create_task(lab.engine.release(lease, lab.reason("done")))
        await asyncio.sleep(moment)
        releasing.cancel()
        await asyncio.wait([releasing])
        # Cancelled between the two steps it did only the first of them; the caller owes the rest.
        if releasing.cancelled():
            await lab.engine.release(lease, lab.reason("done"))

    play_engine(story)


def test_a_bug_in_a_poll_does_not_make_the_engine_deaf(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        market = await lab.market()
        lease = await lab.lease(market)
        original, failed = lab.engine._look_at_activities, []

        async def broken(agreement: Any) -> Any:
            if not failed:
                failed.append(agreement)
                raise ZeroDivisionError("a bug")
            return await original(agreement)

        lab.engine._look_at_activities = broken
        # The poll that is under way still knows the original.
        await asyncio.sleep(31)
        lab.world.node.faults.terminate_agreement(lease.agreement.id)
        await asyncio.sleep(10)
        assert failed
        other = await lab.lease(market)
        lab.world.node.faults.terminate_agreement(other.agreement.id, "heard of this one")
        assert "heard of this one" in (await other.agreement_ended).reason
        await lab.give_back(lease, other)

    play_engine(story)


def test_every_event_has_a_line_for_the_log(play_engine: Any) -> None:
    heard: list[BusEvent] = []

    async def story(lab: Any) -> None:
        lease = await lab.lease()
        await asyncio.sleep(150)
        await lab.give_back(lease)
        heard.extend(lab.world.events)

    play_engine(story)
    assert heard
    for event in heard:
        fields = event.fields()
        assert "at" not in fields
        assert all(value is not None and value != "" for value in fields.values())
