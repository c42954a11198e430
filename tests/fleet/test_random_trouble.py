"""Any trouble, in any order, at any time, in any order of tasks: every story must end well."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from shem import RestartPolicy, Service, State
from shem.devnet.settings import Timings
from shem.payload import VmPayload
from shem.testing import Reply, World, play

PAYLOAD = VmPayload(image_hash="a" * 56)
NAMES = [f"devnet-{number}" for number in range(1, 5)]
SAFE_TO_FAIL = (
    "counter_proposal",
    "confirm_agreement",
    "wait_for_approval",
    "create_activity",
    "destroy_activity",
    "terminate_agreement",
    "execute",
    "batch_results",
    "activity_state",
    "agreement_events",
    "demand_events",
    "invoice_events",
    "debit_note_events",
    "accept_invoice",
    "accept_debit_note",
)


class Works(Service):
    async def run(self) -> AsyncIterator[Any]:
        for _turn in range(20):
            script = self._ctx.new_script()
            script.run("/bin/work")
            yield script
            await asyncio.sleep(3)

    async def shutdown(self) -> AsyncIterator[Any]:
        script = self._ctx.new_script()
        script.run("/bin/save")
        yield script


def nth(things: list[Any], number: int) -> Any:
    return things[number % len(things)] if things else None


def kill(world: World, _cluster: Any, number: int) -> None:
    if activity := nth(world.node.activities.all(), number):
        world.node.faults.kill_activity(activity.id)


def hang(world: World, _cluster: Any, number: int) -> None:
    if activity := nth(world.node.activities.all(), number):
        world.node.faults.hang_activity(activity.id)


def resume(world: World, _cluster: Any, _number: int) -> None:
    for activity in world.node.activities.all():
        world.node.faults.resume_activity(activity.id)


def terminate(world: World, _cluster: Any, number: int) -> None:
    if agreement := nth(world.node.agreements.all(), number):
        world.node.faults.terminate_agreement(agreement.id)


def vanish(world: World, _cluster: Any, number: int) -> None:
    world.node.faults.vanish(NAMES[number % 4])


def recover(world: World, _cluster: Any, _number: int) -> None:
    for name in NAMES:
        world.node.faults.recover(name)


def refuse(world: World, _cluster: Any, number: int) -> None:
    world.node.faults.refuse_next_agreements(NAMES[number % 4])


def fail(world: World, _cluster: Any, number: int) -> None:
    world.link.fail(SAFE_TO_FAIL[number % len(SAFE_TO_FAIL)], times=1 + number % 3)


def down(world: World, _cluster: Any, _number: int) -> None:
    world.link.fail("*", times=10)


def stop_one(_world: World, cluster: Any, number: int) -> None:
    cluster.stop_instance(nth(cluster.instances, number))


def add_one(_world: World, cluster: Any, _number: int) -> None:
    cluster.spawn_instances(1)


TROUBLE = st.tuples(
    st.floats(0, 60),
    st.sampled_from([kill, hang, resume, terminate, vanish, recover, refuse, fail, down, stop_one, add_one]),
    st.integers(0, 50),
)


def shuffled(seed: int) -> Callable[[int], int]:
    chance = random.Random(seed)
    return lambda count: chance.randrange(count) if chance.random() < 0.3 else 0


@settings(max_examples=50)
@given(
    troubles=st.lists(TROUBLE, max_size=8),
    restart=st.builds(
        RestartPolicy,
        on=st.sampled_from(["never", "failure", "always"]),
        attempts=st.integers(1, 4),
        where=st.sampled_from(["other", "any"]),
        backoff=st.floats(0, 5),
    ),
    respawn=st.booleans(),
    grace=st.floats(1, 40),
    latency=st.sampled_from([0.0, 0.0, 0.2]),
    seed=st.integers(0, 1000),
)
def test_whatever_befalls_a_cluster_every_story_ends_well(
    troubles: list[Any], restart: RestartPolicy, respawn: bool, grace: float, latency: float, seed: int
) -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(
                Works,
                num_instances=2,
                payload=PAYLOAD,
                restart=restart,
                respawn_unstarted_instances=respawn,
                unresponsive_grace=grace,
                stop_timeout=20.0,
            )
            world.link.delay("*", latency)
            for pause, trouble, number in troubles:
                await asyncio.sleep(pause)
                trouble(world, cluster, number)
            await asyncio.sleep(10)
            # What is ended while a provider is away, it bills when it is back.
            recover(world, cluster, 0)
            world.link.heal()
            await asyncio.sleep(20)
            began = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - began <= 20 + 40 + 30 + 15
        assert all(service.state is State.TERMINATED for service in cluster.instances)

    play(
        story,
        choose=shuffled(seed),
        providers=4,
        seed=seed,
        timings=Timings(approval=0.3),
        create_seconds=0.3,
        deploy_seconds=2.0,
        respond=lambda _program, _args: Reply(seconds=1.0),
    )
