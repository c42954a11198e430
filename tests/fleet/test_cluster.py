from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shem import RestartPolicy, Service, State
from shem.errors import ConfigError, ServiceDefinitionError, WaitError
from shem.events import ClusterStarted, InstanceCreated
from shem.lifecycle import Event
from shem.payload import VmPayload
from shem.service.cluster import StopReport, params_for
from shem.testing import World, play

PAYLOAD = VmPayload(image_hash="a" * 56)
NOBODY_FITS = VmPayload(image_hash="a" * 56, min_mem_gib=999.0)


def now() -> float:
    return asyncio.get_running_loop().time()


class Named(Service):
    def __init__(self, name: str = "", size: int = 1) -> None:
        self.name, self.size = name, size


class Brief(Service):
    async def run(self) -> AsyncIterator[Any]:
        yield self._ctx.new_script()


# --- its instances


def test_it_knows_its_instances_and_tells_of_its_beginning() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(Named, num_instances=3, payload=PAYLOAD)
            assert repr(cluster) == f"<Cluster {cluster.id} of 3 Named>"
            assert cluster.instances == cluster.current
            assert [service.state for service in cluster.instances] == [State.PENDING] * 3
            assert len({service.id for service in cluster.instances}) == 3
            assert (cluster.service_class, cluster.payload) == (Named, PAYLOAD)
        [started] = [event for event in world.events if isinstance(event, ClusterStarted)]
        assert (started.cluster, started.service, started.slots) == (cluster.id, "Named", 3)
        assert started.expires == cluster.expiration
        made = [event for event in world.events if isinstance(event, InstanceCreated)]
        assert [event.slot for event in made] == [0, 1, 2]

    play(story)


def test_each_instance_gets_its_own_arguments() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            params = [{"name": "a"}, {"name": "b", "size": 5}]
            cluster = await golem.run_service(Named, instance_params=params, payload=PAYLOAD)
            assert [(one.name, one.size) for one in cluster.instances] == [("a", 1), ("b", 5)]
            # What the caller does with its list afterwards is nobody's business.
            params[0]["name"] = "changed"
            more = cluster.spawn_instances(instance_params=[{"name": "c"}])
            assert [one.name for one in more] == ["c"]
            assert [one.name for one in cluster.instances] == ["a", "b", "c"]

    play(story)


def test_arguments_may_come_from_an_endless_source() -> None:
    def numbers() -> Any:
        number = 0
        while True:
            yield {"size": number}
            number += 1

    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(
                Named, num_instances=3, instance_params=numbers(), payload=PAYLOAD
            )
            assert [one.size for one in cluster.instances] == [0, 1, 2]

    play(story)


def test_every_object_is_made_once() -> None:
    made: list[Any] = []

    class Counted(Service):
        def __init__(self) -> None:
            made.append(self)

    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(Counted, num_instances=2, payload=PAYLOAD)
            cluster.spawn_instances(2)
            assert made == cluster.instances

    play(story)


def test_instances_can_be_added_while_others_run_and_after_all_have_ended() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(Brief, payload=PAYLOAD)
            cluster.spawn_instances(2)
            await cluster.wait_until(State.TERMINATED)
            await asyncio.sleep(60)
            [late] = cluster.spawn_instances(1)
            await late.wait_for(State.TERMINATED)
            assert late.error is None
            assert repr(cluster).endswith("of 4 Brief>")

    play(story)


def test_when_one_constructor_fails_nothing_is_added() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(Named, payload=PAYLOAD)
            with pytest.raises(ServiceDefinitionError, match="cannot be made with instance_params"):
                cluster.spawn_instances(instance_params=[{"name": "fine"}, {"nonsense": 1}])
            assert len(cluster.instances) == 1

    play(story)


@pytest.mark.parametrize(
    "arguments", [(0,), (-1,), (True,), (1.5,), ("2",), (2, [{}]), (None, []), (None, 7)]
)
def test_numbers_that_make_no_sense_are_refused_and_nothing_is_added(arguments: tuple[Any, ...]) -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(Named, payload=PAYLOAD)
            with pytest.raises(ConfigError):
                cluster.spawn_instances(*arguments)
            assert len(cluster.instances) == 1

    play(story)


def test_a_stopped_cluster_takes_no_more() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(Named, payload=PAYLOAD)
            cluster.stop()
            with pytest.raises(ConfigError, match="has been stopped"):
                cluster.spawn_instances(1)

    play(story)


@given(st.integers(1, 5), st.lists(st.dictionaries(st.text(), st.integers(), max_size=2), max_size=6))
def test_there_are_as_many_arguments_as_instances_or_an_error(count: int, params: list[Any]) -> None:
    if len(params) >= count:
        assert params_for(count, params) == params[:count]
    else:
        with pytest.raises(ConfigError):
            params_for(count, params)
    assert params_for(count, None) == [{}] * count
    assert params_for(None, None) == [{}]
    if params:
        assert params_for(None, iter(params)) == params


def test_two_clusters_in_one_run_live_side_by_side() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            one = await golem.run_service(Named, num_instances=2, payload=PAYLOAD)
            other = await golem.run_service(Service, num_instances=2, payload=PAYLOAD)
            assert golem.clusters == [one, other]
            await one.wait_until(State.RUNNING)
            await other.wait_until(State.RUNNING)
            assert now() < 10
            await one.stop()
            assert [service.state for service in other.instances] == [State.RUNNING] * 2
            # Its market goes on, too.
            [late] = other.spawn_instances(1)
            await late.wait_for(State.RUNNING)

    play(story, providers=5)


# --- waiting for it


def test_waiting_ends_as_soon_as_all_or_enough_are_there() -> None:
    async def story(world: World) -> None:
        world.node.faults.hesitate("devnet-3", 40.0)
        async with world.golem() as golem:
            cluster = await golem.run_service(Service, num_instances=3, payload=PAYLOAD)
            await cluster.wait_until(State.PENDING)
            assert now() == 0
            await cluster.wait_until(State.RUNNING, count=2)
            assert now() < 1
            await cluster.wait_until(State.RUNNING)
            assert 40 <= now() < 42
            await cluster.wait_until(State.RUNNING, count=0)

    play(story, providers=3)


def test_waiting_may_be_bounded() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(Service, payload=NOBODY_FITS)
            with pytest.raises(TimeoutError):
                await cluster.wait_until(State.RUNNING, timeout=12)
            assert now() == 12

    play(story)


def test_waiting_for_what_can_no_longer_happen_ends_with_the_story_of_those_who_failed() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(Service, num_instances=2, payload=PAYLOAD)
            await cluster.wait_until(State.RUNNING)
            waiting = asyncio.create_task(cluster.wait_until(State.PENDING))
            await asyncio.sleep(5)
            world.node.faults.kill_activity(cluster.instances[0]._ctx.id, "out of memory")
            with pytest.raises(
                WaitError, match=r"(?s)too few instances can still become pending.*out of memory"
            ):
                await waiting

    play(story)


def test_waiting_for_a_number_there_are_no_slots_for_ends_at_once() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(Service, payload=PAYLOAD)
            with pytest.raises(WaitError):
                await cluster.wait_until(State.RUNNING, count=2)

    play(story)


def test_waiting_for_nothing_is_refused() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(Service, payload=PAYLOAD)
            with pytest.raises(WaitError, match="at least one state"):
                await cluster.wait_until()

    play(story)


def test_waiting_goes_on_over_a_restart() -> None:
    class FailsOnce(Brief):
        runs = 0

        async def run(self) -> AsyncIterator[Any]:
            FailsOnce.runs += 1
            if FailsOnce.runs > 1:
                await asyncio.sleep(1000)
            yield self._ctx.new_script()

    async def story(world: World) -> None:
        async with world.golem() as golem:
            restart = RestartPolicy(on="always", backoff=10.0)
            cluster = await golem.run_service(FailsOnce, payload=PAYLOAD, restart=restart)
            await cluster.wait_until(State.TERMINATED)
            await cluster.wait_until(State.RUNNING)
            assert len(cluster.instances) == 2

    play(story)


def test_waiting_ends_with_the_run() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(Service, payload=PAYLOAD)
            waiting = asyncio.create_task(cluster.wait_until(State.UNRESPONSIVE))
            await cluster.wait_until(State.RUNNING)
        with pytest.raises(WaitError):
            await waiting
        with pytest.raises(WaitError):
            await cluster.wait_until(State.RUNNING)
        await cluster.wait_until(State.TERMINATED)

    play(story)


# --- watching it


def test_all_moves_are_seen_in_order_until_the_cluster_ends() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(Service, num_instances=2, payload=PAYLOAD)

            async def watch() -> list[Any]:
                return [record async for record in cluster.moves()]

            watching = asyncio.create_task(watch())
            await cluster.wait_until(State.RUNNING)
            cluster.stop()
            seen = await watching
            for service in cluster.instances:
                assert tuple(record for record in seen if record.subject == service.id) == service.records
            assert len(seen) == 8

    play(story)


def test_moves_of_other_clusters_are_not_seen() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            one = await golem.run_service(Service, payload=NOBODY_FITS)
            other = await golem.run_service(Service, payload=PAYLOAD)
            moves = one.moves()
            first = asyncio.ensure_future(anext(moves))
            await other.wait_until(State.RUNNING)
            assert not first.done()
            one.stop()
            assert (await first).event is Event.SHUTDOWN
            await moves.aclose()

    play(story)


def test_moves_of_a_cluster_that_has_ended_are_none() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(Service, payload=PAYLOAD)
            await cluster.stop()
            assert [record async for record in cluster.moves()] == []
        assert [record async for record in cluster.moves()] == []

    play(story)


def test_a_watcher_may_leave_at_any_time() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(Service, payload=PAYLOAD)
            async for record in cluster.moves():
                assert record.event is Event.RUN_SERVICE
                break
            watching = asyncio.create_task(anext(cluster.moves()))
            await asyncio.sleep(0)
            watching.cancel()
            await asyncio.wait([watching])

    play(story)


def test_a_report_without_anything_skipped_is_clean() -> None:
    assert StopReport().clean
    assert not StopReport(("shutdown() of x: it overran its budget",)).clean
