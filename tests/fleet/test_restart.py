"""Filling a slot again: a new instance with a new id, when, where and how often policy says."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from typing import Any

import pytest

from shem import RestartPolicy, Service, State
from shem.errors import WaitError
from shem.events import AgreementSigned, InstanceCreated, SlotEnded
from shem.payload import VmPayload
from shem.testing import Reply, World, play

PAYLOAD = VmPayload(image_hash="a" * 56)


def now() -> float:
    return asyncio.get_running_loop().time()


def respond(program: str, _args: Sequence[str]) -> Reply:
    return Reply(exit_code=1) if program == "/fail" else Reply()


class Mortal(Service):
    """Ends after `life` seconds, in the way its class says; keeps count of its makings and its arguments."""

    life, ends_by = 5.0, "ending"
    made: list[Any]

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.made.append(self)

    async def run(self) -> AsyncIterator[Any]:
        await asyncio.sleep(self.life)
        script = self._ctx.new_script()
        match self.ends_by:
            case "raising":
                raise LookupError("a mistake in the user's own code")
            case "failing":
                script.run("/fail")
        yield script


def mortal(ends_by: str, life: float = 5.0) -> type[Mortal]:
    return type("Mortal", (Mortal,), {"ends_by": ends_by, "life": life, "made": []})


def ended(world: World) -> list[str]:
    return [event.reason for event in world.events if isinstance(event, SlotEnded)]


@pytest.mark.parametrize(
    ("on", "ends_by", "again"),
    [
        ("never", "ending", False),
        ("never", "failing", False),
        ("failure", "ending", False),
        ("failure", "failing", True),
        ("failure", "raising", False),
        ("always", "ending", True),
        ("always", "failing", True),
        ("always", "raising", False),
    ],
)
def test_a_slot_is_filled_again_when_its_policy_says_so(on: Any, ends_by: str, again: bool) -> None:
    async def story(world: World) -> None:
        service_class = mortal(ends_by)
        async with world.golem() as golem:
            restart = RestartPolicy(on=on, backoff=1.0)
            cluster = await golem.run_service(service_class, payload=PAYLOAD, restart=restart)
            [first] = cluster.instances
            await first.wait_for(State.TERMINATED)
            await asyncio.sleep(4)
            if not again:
                assert cluster.instances == [first]
                return
            [_first, second] = cluster.instances
            assert cluster.current == [second]
            assert second is not first
            assert second.id != first.id
            await second.wait_for(State.RUNNING)
        made = [event for event in world.events if isinstance(event, InstanceCreated)]
        assert [event.slot for event in made] == [0] * len(made)
        assert [event.replaces for event in made[:2]] == [None, first.id]

    play(story, respond=respond)


@pytest.mark.parametrize("what", ["killed", "agreement ended", "silent"])
def test_a_loss_is_a_failure_and_the_next_one_is_elsewhere(what: str) -> None:
    async def story(world: World) -> None:
        faults = world.node.faults
        async with world.golem() as golem:
            restart = RestartPolicy(on="failure")
            cluster = await golem.run_service(
                Service, payload=PAYLOAD, restart=restart, unresponsive_grace=10.0
            )
            [first] = cluster.instances
            await first.wait_for(State.RUNNING)
            activity = world.node.activities.find(first._ctx.id)
            match what:
                case "killed":
                    faults.kill_activity(activity.id)
                case "agreement ended":
                    faults.terminate_agreement(activity.agreement.id)
                case "silent":
                    faults.vanish("devnet-1")
            await first.wait_for(State.TERMINATED)
            await asyncio.sleep(40)
            [second] = cluster.current
            assert (second.state, second.provider_name) == (State.RUNNING, "devnet-2")
            faults.recover("devnet-1")
            await asyncio.sleep(5)

    play(story, providers=2)


def test_where_any_provider_will_do_the_same_one_may_be_taken_at_once() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            restart = RestartPolicy(on="failure", where="any", backoff=1.0, jitter=0.0)
            cluster = await golem.run_service(Service, payload=PAYLOAD, restart=restart)
            [first] = cluster.instances
            await first.wait_for(State.RUNNING)
            world.node.faults.kill_activity(first._ctx.id)
            await first.wait_for(State.TERMINATED)
            began = now()
            await cluster.wait_until(State.RUNNING)
            assert now() - began < 2.5

    play(story, providers=1)


def test_the_only_provider_is_taken_again_though_it_failed() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            restart = RestartPolicy(on="failure", backoff=1.0)
            cluster = await golem.run_service(Service, payload=PAYLOAD, restart=restart)
            [first] = cluster.instances
            await first.wait_for(State.RUNNING)
            world.node.faults.kill_activity(first._ctx.id)
            await first.wait_for(State.TERMINATED)
            began = now()
            await cluster.wait_until(State.RUNNING)
            assert 5 < now() - began < 15

    play(story, providers=1)


def test_a_crash_loop_ends_in_a_clear_reason() -> None:
    async def story(world: World) -> None:
        service_class = mortal("failing")
        async with world.golem() as golem:
            restart = RestartPolicy(on="failure", attempts=3, per=1000.0, backoff=1.0)
            cluster = await golem.run_service(service_class, payload=PAYLOAD, restart=restart)
            with pytest.raises(WaitError, match="run /fail"):
                await cluster.wait_until(State.UNRESPONSIVE)
            # The first and three more.
            assert len(cluster.instances) == 4
            assert {service.state for service in cluster.instances} == {State.TERMINATED}
        [reason] = ended(world)
        assert "tried again 3 times within 1000 s" in reason
        assert "shutdown() is exhausted" in reason or "/fail" in reason

    play(story, respond=respond, providers=6)


def test_a_slow_loop_is_no_crash_loop() -> None:
    async def story(world: World) -> None:
        service_class = mortal("failing", life=60.0)
        async with world.golem() as golem:
            restart = RestartPolicy(on="failure", attempts=2, per=100.0, backoff=1.0)
            cluster = await golem.run_service(service_class, payload=PAYLOAD, restart=restart)
            await asyncio.sleep(1500)
            assert len(cluster.instances) > 10
            assert ended(world) == []

    play(story, respond=respond, providers=3)


def test_the_pause_before_each_next_one_grows() -> None:
    async def story(world: World) -> None:
        service_class = mortal("ending", life=1.0)
        async with world.golem() as golem:
            restart = RestartPolicy(on="always", attempts=5, backoff=10.0, max_backoff=40.0, jitter=0.0)
            cluster = await golem.run_service(service_class, payload=PAYLOAD, restart=restart)
            await asyncio.sleep(250)
            ends = [service.records[-1].monotonic for service in cluster.instances]
            begins = [service.records[0].monotonic for service in cluster.instances]
            pauses = [begin - end for end, begin in zip(ends, begins[1:], strict=False)]
            assert pauses == pytest.approx([10, 20, 40, 40, 40], abs=1)
        assert "tried again 5 times" in ended(world)[0]

    play(story)


def test_jitter_keeps_slots_from_moving_in_step() -> None:
    async def story(world: World) -> None:
        service_class = mortal("ending", life=1.0)
        async with world.golem() as golem:
            restart = RestartPolicy(on="always", backoff=60.0, jitter=0.5)
            cluster = await golem.run_service(
                service_class, num_instances=6, payload=PAYLOAD, restart=restart
            )
            await asyncio.sleep(180)
            second = {service.instance.slot: service for service in reversed(cluster.instances[6:])}
            begins = sorted(service.records[0].monotonic for service in second.values())
            assert len(begins) == 6
            assert all(30 < begin < 100 for begin in begins)
            assert max(after - before for before, after in pairwise(begins)) > 1

    play(story, providers=6)


def test_a_user_error_ends_the_slot_and_says_so() -> None:
    async def story(world: World) -> None:
        service_class = mortal("raising")
        async with world.golem() as golem:
            restart = RestartPolicy(on="failure")
            cluster = await golem.run_service(service_class, payload=PAYLOAD, restart=restart)
            await cluster.wait_until(State.TERMINATED)
            await asyncio.sleep(60)
            assert len(cluster.instances) == 1
        assert "user errors are not tried again: a mistake in the user's own code" in ended(world)[0]

    play(story)


def test_user_errors_are_tried_again_where_that_was_asked_for() -> None:
    async def story(world: World) -> None:
        service_class = mortal("raising")
        async with world.golem() as golem:
            restart = RestartPolicy(on="failure", user_errors=True)
            cluster = await golem.run_service(service_class, payload=PAYLOAD, restart=restart)
            await asyncio.sleep(20)
            assert len(cluster.instances) > 1

    play(story)


def test_what_never_was_running_is_not_filled_again() -> None:
    class NeverStarts(Service):
        async def start(self) -> AsyncIterator[Any]:
            raise LookupError("a mistake in the user's own code")
            yield

    async def story(world: World) -> None:
        async with world.golem() as golem:
            restart = RestartPolicy(on="always")
            cluster = await golem.run_service(NeverStarts, payload=PAYLOAD, restart=restart)
            await asyncio.sleep(60)
            assert len(cluster.instances) == 1
        assert "it could not be started: supervisor: start() raised" in ended(world)[0]

    play(story)


def test_each_new_instance_is_made_with_the_arguments_of_its_slot() -> None:
    async def story(world: World) -> None:
        service_class = mortal("ending", life=1.0)
        async with world.golem() as golem:
            restart = RestartPolicy(on="always", backoff=1.0)
            params = [{"name": "a"}, {"name": "b"}]
            cluster = await golem.run_service(
                service_class, instance_params=params, payload=PAYLOAD, restart=restart
            )
            await asyncio.sleep(10)
            assert [service.name for service in cluster.current] == ["a", "b"]
            names = [service.name for service in cluster.instances]
            assert names.count("a") == names.count("b") > 1
            # Each object was made once, and each one made is an instance.
            assert service_class.made == cluster.instances

    play(story, providers=2)


def test_one_slots_trouble_is_no_other_slots() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            restart = RestartPolicy(on="failure", attempts=1, backoff=1.0)
            cluster = await golem.run_service(Service, num_instances=2, payload=PAYLOAD, restart=restart)
            await cluster.wait_until(State.RUNNING)
            for _time in range(2):
                troubled = cluster.current[0]
                world.node.faults.kill_activity(troubled._ctx.id)
                await troubled.wait_for(State.TERMINATED)
                await asyncio.sleep(20)
            assert [service.state for service in cluster.current] == [State.TERMINATED, State.RUNNING]
            assert len(cluster.instances) == 3

    play(story, providers=4)


def test_a_penalty_ends() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            restart = RestartPolicy(on="failure", penalty=100.0, backoff=0.0)
            cluster = await golem.run_service(Service, payload=PAYLOAD, restart=restart)
            used = []
            for _time in range(3):
                await cluster.wait_until(State.RUNNING)
                [service] = cluster.current
                used.append(service.provider_name)
                world.node.faults.kill_activity(service._ctx.id)
                await service.wait_for(State.TERMINATED)
                await asyncio.sleep(110)
        signed = [event.provider_name for event in world.events if isinstance(event, AgreementSigned)]
        assert signed[:3] == ["devnet-1", "devnet-2", "devnet-1"]

    play(story, providers=2)


def test_a_restart_policy_without_end_goes_on() -> None:
    async def story(world: World) -> None:
        service_class = mortal("failing", life=1.0)
        async with world.golem() as golem:
            restart = RestartPolicy(on="failure", attempts=10**6, per=math.inf, backoff=1.0, max_backoff=1.0)
            cluster = await golem.run_service(service_class, payload=PAYLOAD, restart=restart)
            await asyncio.sleep(200)
            assert len(cluster.instances) > 20

    play(story, respond=respond)
