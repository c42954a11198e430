"""How soon an instance knows what has befallen its provider: the documented times, by default and as set."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shem import Service, State
from shem.engine.liveness import LivenessPace
from shem.errors import ConfigError
from shem.payload import VmPayload
from shem.testing import Reply, World, play

PAYLOAD = VmPayload(image_hash="a" * 56)

#: How long the simulated node may take to tell of something, in seconds.
TELLING = 0.5

PACES = st.builds(
    LivenessPace,
    interval=st.floats(0.5, 20),
    answer=st.floats(0.5, 10),
    silent_after=st.floats(1, 60),
)


class Busy(Service):
    """Runs a script of `seconds`, pauses for `pause` seconds, and so on."""

    def __init__(self, seconds: float = 0.0, pause: float = math.inf) -> None:
        self.seconds, self.pause = seconds, pause

    async def run(self):
        while True:
            script = self._ctx.new_script()
            script.run("/bin/work", str(self.seconds))
            yield script
            await (asyncio.sleep(self.pause) if self.pause < math.inf else asyncio.Future())


def work(program: str, args: Sequence[str]) -> Reply:
    return Reply(seconds=float(args[0])) if program == "/bin/work" else Reply()


async def running(golem: Any, *, grace: float = 120.0, **params: Any) -> Busy:
    cluster = await golem.run_service(
        Busy, payload=PAYLOAD, instance_params=[params], unresponsive_grace=grace
    )
    await cluster.wait_until(State.RUNNING)
    service: Busy = cluster.instances[0]
    return service


def now() -> float:
    return asyncio.get_running_loop().time()


@settings(max_examples=50)
@given(PACES, st.floats(0, 60), st.floats(0, 30), st.floats(0.5, 30))
def test_the_end_of_an_activity_is_known_within_two_intervals(
    pace: LivenessPace, calm: float, seconds: float, pause: float
) -> None:
    async def story(world: World) -> None:
        async with world.golem(liveness=pace) as golem:
            service = await running(golem, seconds=seconds, pause=pause)
            await asyncio.sleep(calm)
            world.node.faults.kill_activity(service._ctx.id)
            killed = now()
            await service.wait_for(State.TERMINATED)
            assert now() - killed <= 2 * pace.interval + TELLING

    play(story, respond=work)


def test_the_end_of_an_activity_that_runs_a_script_is_known_at_once() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            service = await running(golem, seconds=1000)
            await asyncio.sleep(100)
            world.node.faults.kill_activity(service._ctx.id)
            killed = now()
            await service.wait_for(State.TERMINATED)
            assert now() - killed <= TELLING

    play(story, respond=work)


def test_the_end_of_an_agreement_is_known_at_once() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            service = await running(golem)
            await asyncio.sleep(100)
            world.node.faults.terminate_agreement(service.instance.lease.agreement.id, "enough")
            ended = now()
            await service.wait_for(State.STOPPING, State.TERMINATED)
            assert now() - ended <= TELLING

    play(story, respond=work)


@settings(max_examples=50)
@given(PACES, st.floats(0, 60), st.floats(1, 100))
def test_silence_recovery_and_giving_up_keep_the_times_that_were_set(
    pace: LivenessPace, calm: float, grace: float
) -> None:
    async def story(world: World) -> None:
        async with world.golem(liveness=pace) as golem:
            service = await running(golem, grace=grace)
            await asyncio.sleep(calm)
            last_sign = service.instance.lease.activity.last_sign
            world.node.faults.vanish(service.provider_name)
            await service.wait_for(State.UNRESPONSIVE)
            assert pace.silent_after <= now() - last_sign + 1e-6
            assert now() - last_sign <= pace.found_within
            await asyncio.sleep(grace / 2)
            world.node.faults.recover(service.provider_name)
            recovered = now()
            if pace.interval < grace / 4:
                await service.wait_for(State.RUNNING)
                assert now() - recovered <= pace.interval + TELLING
                world.node.faults.vanish(service.provider_name)
                await service.wait_for(State.UNRESPONSIVE)
                silent = now()
                await service.wait_for(State.TERMINATED)
                assert now() - silent == pytest.approx(grace)

    play(story, leftovers=("live_activities", "invoices_to_come"), respond=work)


def test_the_documented_defaults() -> None:
    pace = LivenessPace()
    assert (pace.interval, pace.answer, pace.silent_after) == (5, 5, 20)
    assert pace.found_within == 35
    # A look may be late where an answer is; where all answer at once it is found within 25 s.
    assert pace.found_within - 2 * pace.answer == 25


@pytest.mark.parametrize("name", ["interval", "answer", "silent_after"])
@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf])
def test_a_pace_that_makes_no_sense_is_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"LivenessPace: {name} must be a number of seconds above 0"):
        LivenessPace(**{name: value})
