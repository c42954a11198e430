"""What is rented for a time is stopped before that time is up, so that `shutdown()` can still run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from shem import RestartPolicy, Service, State
from shem.errors import ConfigError
from shem.events import AgreementEnded, ClusterStopped
from shem.lifecycle import Actor, Event
from shem.payload import VmPayload
from shem.testing import World, play

PAYLOAD = VmPayload(image_hash="a" * 56)
NOBODY_FITS = VmPayload(image_hash="a" * 56, min_mem_gib=999.0)


def now() -> float:
    return asyncio.get_running_loop().time()


class Tidy(Service):
    """Takes its time to shut down, and runs a program while it does."""

    async def shutdown(self) -> AsyncIterator[Any]:
        await asyncio.sleep(40)
        script = self._ctx.new_script()
        script.run("/bin/save")
        yield script
        self.saved_at = now()


@pytest.mark.parametrize("minutes", [6, 7, 60, 11 * 60])
@pytest.mark.parametrize("stop_timeout", [45.0, 60.0])
def test_shutdown_has_run_when_the_agreements_end(minutes: float, stop_timeout: float) -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(
                Tidy,
                num_instances=2,
                payload=PAYLOAD,
                expiration=timedelta(minutes=minutes),
                stop_timeout=stop_timeout,
            )
            await cluster.wait_until(State.TERMINATED)
            for service in cluster.instances:
                shutdown, stopped = service.records[-2:]
                assert (shutdown.event, shutdown.cause.actor) == (Event.SHUTDOWN, Actor.CLOCK)
                assert "its agreements end at" in shutdown.cause.reason
                assert stopped.event is Event.SERVICE_STOPPED
                assert service.saved_at < minutes * 60
                # Not earlier than it had to be.
                assert shutdown.monotonic == pytest.approx(minutes * 60 - stop_timeout - 5, abs=1)
            assert cluster.expiration == world.node.clock._epoch + timedelta(minutes=minutes)
        assert {event.by for event in world.events if isinstance(event, AgreementEnded)} == {"Requestor"}

    play(story)


def test_a_stop_timeout_longer_than_the_run_leaves_most_of_the_run() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(
                Service, payload=PAYLOAD, expiration=timedelta(minutes=8), stop_timeout=3600.0
            )
            [service] = cluster.instances
            await service.wait_for(State.TERMINATED)
            assert service.records[-2].monotonic == pytest.approx(6 * 60)

    play(story)


def test_what_is_pending_then_is_given_up_and_buys_nothing() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(Service, payload=NOBODY_FITS, expiration=timedelta(minutes=6))
            [service] = cluster.instances
            await service.wait_for(State.TERMINATED)
            assert now() < 360
            assert [record.event for record in service.records] == [Event.SHUTDOWN]

    play(story)


def test_nothing_is_restarted_or_added_after_it() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(
                Service,
                payload=PAYLOAD,
                expiration=timedelta(minutes=6),
                restart=RestartPolicy(on="always", backoff=1.0),
            )
            await cluster.wait_until(State.TERMINATED)
            await asyncio.sleep(100)
            assert len(cluster.instances) == 1
            with pytest.raises(ConfigError, match="has been stopped; run the service anew"):
                cluster.spawn_instances(1)

    play(story)


def test_a_cluster_that_is_empty_by_then_ends_too() -> None:
    class Brief(Service):
        async def run(self) -> AsyncIterator[Any]:
            yield self._ctx.new_script()

    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(Brief, payload=PAYLOAD, expiration=timedelta(minutes=6))
            seen = [record async for record in cluster.moves()]
            assert len(seen) == 4
            assert now() < 360
        assert [event.cluster for event in world.events if isinstance(event, ClusterStopped)] == [cluster.id]

    play(story)


def test_a_stop_before_it_leaves_no_timer() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(Service, payload=PAYLOAD, expiration=timedelta(minutes=6))
            await cluster.wait_until(State.RUNNING)
            await cluster.stop()
            await asyncio.sleep(1000)
            [service] = cluster.instances
            assert [record.cause.actor for record in service.records][2] is Actor.USER

    play(story)
