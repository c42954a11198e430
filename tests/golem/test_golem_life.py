from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest

from shem import Service, State
from shem.devnet.settings import ProviderSettings
from shem.errors import ConfigError, NodeError, NodeFailure, NodeUnavailable, PaymentError, Unauthorized
from shem.events import (
    AllocationReleased,
    BusEvent,
    ClusterStopped,
    InstanceMoved,
    InvoiceAccepted,
    StepSkipped,
)
from shem.lifecycle import Event
from shem.payload import VmPayload
from shem.testing import World, play

PAYLOAD = VmPayload(image_hash="a" * 56)


def now() -> float:
    return asyncio.get_running_loop().time()


class Hangs(Service):
    async def shutdown(self) -> AsyncIterator[Any]:
        await asyncio.get_running_loop().create_future()
        yield


# --- start


def test_entering_and_leaving_sets_the_budget_aside_and_gives_it_back() -> None:
    async def story(world: World) -> None:
        golem = world.golem(budget="3.5")
        assert not golem.operative
        async with golem as entered:
            assert entered is golem
            assert golem.operative
            [allocation] = world.node.allocations.open()
            assert allocation.total_amount == Decimal("3.5")
        assert not golem.operative

    play(story)


@pytest.mark.parametrize("call", ["me", "create_allocation", "demand_decorations"])
@pytest.mark.parametrize("kind", [Unauthorized, NodeFailure, NodeUnavailable])
def test_a_start_that_fails_leaves_nothing_behind_and_can_be_tried_again(call: str, kind: Any) -> None:
    async def story(world: World) -> None:
        golem = world.golem()
        world.link.fail(call, kind)
        with pytest.raises((NodeError, PaymentError)):
            await golem.start()
        assert not golem.operative
        assert world.node.audit().clean
        async with golem:
            await (await golem.run_service(Service, payload=PAYLOAD)).wait_until(State.RUNNING)

    play(story)


@pytest.mark.parametrize("moment", [0.25 * step for step in range(16)])
def test_a_start_that_is_cancelled_at_any_moment_leaves_nothing_behind(moment: float) -> None:
    async def story(world: World) -> None:
        world.link.delay("*", 0.5)
        world.link.delay("*", 0.5, answer=True)
        golem = world.golem()
        starting = asyncio.create_task(golem.start())
        await asyncio.sleep(moment)
        starting.cancel()
        await asyncio.wait([starting])
        assert golem.operative == (not starting.cancelled())
        await golem.stop()

    play(story)


@pytest.mark.parametrize("moment", [0.25 * step for step in range(16)])
def test_a_stop_in_the_middle_of_a_start_ends_what_was_started(moment: float) -> None:
    async def story(world: World) -> None:
        world.link.delay("*", 0.5)
        world.link.delay("*", 0.5, answer=True)
        golem = world.golem()
        starting = asyncio.create_task(golem.start())
        await asyncio.sleep(moment)
        await golem.stop()
        assert not golem.operative
        await asyncio.wait([starting])
        assert not golem.operative

    play(story)


def test_it_can_be_used_again_after_it_was_stopped() -> None:
    async def story(world: World) -> None:
        golem = world.golem()
        for number in range(3):
            async with golem:
                cluster = await golem.run_service(Service, payload=PAYLOAD)
                await cluster.wait_until(State.RUNNING)
            assert len(golem.clusters) == number + 1
        assert len([event for event in world.events if isinstance(event, InvoiceAccepted)]) == 3
        assert len([event for event in world.events if isinstance(event, ClusterStopped)]) == 3

    play(story)


# --- stop


def test_stopping_what_was_never_started_is_harmless() -> None:
    async def story(world: World) -> None:
        await world.golem().stop()
        assert world.calls == []

    play(story)


def test_stopping_again_or_at_the_same_time_is_harmless() -> None:
    async def story(world: World) -> None:
        golem = world.golem()
        await golem.start()
        cluster = await golem.run_service(Service, num_instances=2, payload=PAYLOAD)
        await cluster.wait_until(State.RUNNING)
        await asyncio.gather(golem.stop(), golem.stop(), golem.stop())
        await golem.stop()
        assert world.calls.count("release_allocation") == 1
        assert len([event for event in world.events if isinstance(event, ClusterStopped)]) == 1

    play(story)


@pytest.mark.parametrize("error", [ZeroDivisionError("my own"), KeyboardInterrupt(), SystemExit(3)])
def test_an_exception_in_the_block_stops_everything_gracefully_and_comes_out_as_it_was(
    error: BaseException,
) -> None:
    async def story(world: World) -> None:
        instances: list[Any] = []
        try:
            async with world.golem() as golem:
                cluster = await golem.run_service(Service, num_instances=2, payload=PAYLOAD)
                instances += cluster.instances
                await cluster.wait_until(State.RUNNING)
                raise error
        except BaseException as raised:
            assert raised is error
        for service in instances:
            assert [record.event for record in service.records][-2:] == [
                Event.SHUTDOWN,
                Event.SERVICE_STOPPED,
            ]

    play(story)


@pytest.mark.parametrize("times", [1, 2, 3])
def test_leaving_by_cancellation_sees_the_end_through(times: int) -> None:
    async def story(world: World) -> None:
        async def use() -> None:
            async with world.golem() as golem:
                await golem.run_service(Hangs, num_instances=2, payload=PAYLOAD, stop_timeout=30.0)
                await asyncio.sleep(3600)

        using = asyncio.create_task(use())
        await asyncio.sleep(10)
        for _time in range(times):
            using.cancel()
            await asyncio.sleep(1)
        await asyncio.wait([using])
        assert using.cancelled()
        # The first cancellation leaves the block; the second means: do not wait for `shutdown()`.
        assert now() < (10 + 30 + 2 if times == 1 else 10 + 5)
        reasons = {event.reason for event in world.events if isinstance(event, StepSkipped)}
        assert reasons == {"it overran its budget" if times == 1 else "nobody waits for it"}

    play(story)


def test_stop_now_is_the_fast_path_and_harmless_without_a_stop() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(Hangs, payload=PAYLOAD)
            await cluster.wait_until(State.RUNNING)
            golem.stop_now()
            await cluster.wait_until(State.TERMINATED)
            assert now() < 2

    play(story)


def test_a_service_that_is_being_run_while_the_golem_is_stopped_is_not_run() -> None:
    async def story(world: World) -> None:
        world.link.delay("subscribe", 3.0, answer=True)
        golem = world.golem()
        await golem.start()
        running = asyncio.create_task(golem.run_service(Service, payload=PAYLOAD))
        await asyncio.sleep(1)
        await golem.stop()
        with pytest.raises(ConfigError, match="was stopped before the service could be run"):
            await running
        assert golem.clusters == []
        assert "create_agreement" not in world.calls

    play(story)


@pytest.mark.parametrize("moment", [0.1 * step for step in range(24)])
def test_run_service_that_is_cancelled_at_any_moment_leaves_no_demand(moment: float) -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            world.link.delay("*", 0.5)
            world.link.delay("*", 0.5, answer=True)
            running = asyncio.create_task(golem.run_service(Service, payload=PAYLOAD))
            await asyncio.sleep(moment)
            running.cancel()
            await asyncio.wait([running])
            world.link.heal()
            if running.cancelled():
                assert golem.clusters == []
                assert world.node.audit().open_demands == ()

    play(story)


def test_nothing_can_be_run_once_the_end_has_begun() -> None:
    async def story(world: World) -> None:
        golem = world.golem()
        await golem.start()
        cluster = await golem.run_service(Hangs, payload=PAYLOAD, stop_timeout=30.0)
        await cluster.wait_until(State.RUNNING)
        stopping = asyncio.create_task(golem.stop())
        await asyncio.sleep(5)
        with pytest.raises(ConfigError, match="not running"):
            await golem.run_service(Service, payload=PAYLOAD)
        await stopping

    play(story)


def test_two_golems_in_one_program_do_not_know_of_each_other() -> None:
    async def story(world: World) -> None:
        async with world.golem(budget=1) as one, world.golem(budget=2) as other:
            first = await one.run_service(Service, payload=PAYLOAD)
            second = await other.run_service(Service, payload=PAYLOAD)
            await first.wait_until(State.RUNNING)
            await second.wait_until(State.RUNNING)
            await one.stop()
            assert second.instances[0].state is State.RUNNING
            await asyncio.sleep(300)
            assert second.instances[0].state is State.RUNNING

    play(story)


# --- money


def test_what_was_spent_is_what_was_billed_and_what_the_accounts_say() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(Service, num_instances=3, payload=PAYLOAD)
            await cluster.wait_until(State.RUNNING)
            await asyncio.sleep(1000)
            await cluster.stop()
            await asyncio.sleep(5)
            accepted = [account.accepted for account in golem.accounts]
            assert all(amount > 0 for amount in accepted)
        invoices = [event.amount for event in world.events if isinstance(event, InvoiceAccepted)]
        [released] = [event for event in world.events if isinstance(event, AllocationReleased)]
        assert sorted(invoices) == sorted(accepted)
        assert released.spent == sum(invoices)

    play(story, providers=[ProviderSettings(coeffs=(0.0, 0.0001 * price, 0.01)) for price in (1, 2, 3)])


def test_an_unpaid_run_ends_in_bounded_time_and_says_what_is_unpaid() -> None:
    async def story(world: World) -> None:
        world.node.faults.withhold_invoices("devnet-1")
        async with world.golem() as golem:
            cluster = await golem.run_service(Service, payload=PAYLOAD)
            await cluster.wait_until(State.RUNNING)
            began = now()
        assert now() - began == pytest.approx(30, abs=2)
        [skipped] = [event for event in world.events if isinstance(event, StepSkipped)]
        assert "devnet-1" in skipped.step
        assert "no invoice" in skipped.reason

    play(story, providers=1, leftovers={"invoices_to_come"})


# --- those who watch


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_consumer_hears_everything_in_order_up_to_the_very_end(how: str) -> None:
    heard: list[BusEvent] = []

    def hear(event: BusEvent) -> None:
        heard.append(event)

    async def hear_later(event: BusEvent) -> None:
        await asyncio.sleep(0)
        heard.append(event)

    async def story(world: World) -> None:
        async with world.golem(event_consumer=hear if how == "sync" else hear_later) as golem:
            cluster = await golem.run_service(Service, payload=PAYLOAD)
            await cluster.wait_until(State.RUNNING)
        assert heard == world.events
        assert isinstance(heard[-1], AllocationReleased)

    play(story)


def test_a_consumer_may_choose_what_it_hears_and_come_late() -> None:
    heard: list[Any] = []

    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(Service, payload=PAYLOAD)
            await cluster.wait_until(State.RUNNING)
            subscription = golem.add_event_consumer(heard.append, InstanceMoved, ClusterStopped)
            assert subscription is not None
            await cluster.stop()
        assert [type(event).__name__ for event in heard] == [
            "InstanceMoved",
            "InstanceMoved",
            "ClusterStopped",
        ]

    play(story)


def test_a_consumer_that_was_there_before_the_start_hears_every_run() -> None:
    heard: list[Any] = []

    async def story(world: World) -> None:
        golem = world.golem()
        assert golem.add_event_consumer(heard.append, AllocationReleased) is None
        for _run in range(2):
            async with golem:
                pass
        assert len(heard) == 2

    play(story)


class Consumer:
    """One that misbehaves."""

    def __init__(self, kind: str) -> None:
        self.kind, self.heard = kind, 0

    async def __call__(self, event: BusEvent) -> None:
        self.heard += 1
        match self.kind:
            case "fails":
                raise LookupError("I do not like it")
            case "is cancelled":
                raise asyncio.CancelledError
            case "is slow":
                await asyncio.sleep(10)
            case "hangs":
                await asyncio.sleep(math.inf)


@pytest.mark.parametrize("kind", ["fails", "is cancelled", "is slow", "hangs"])
def test_a_consumer_that_misbehaves_changes_nothing_for_anybody_else(kind: str) -> None:
    consumer = Consumer(kind)

    async def story(world: World) -> None:
        async with world.golem(event_consumer=consumer) as golem:
            cluster = await golem.run_service(Service, payload=PAYLOAD)
            await cluster.wait_until(State.RUNNING)
            assert now() < 1
            await cluster.stop()
            began = now()
        assert now() - began < 12
        heard = len(world.events)
        assert consumer.heard == (heard if kind in ("fails", "is cancelled") else consumer.heard)
        assert 0 < consumer.heard <= heard

    play(story)


def test_a_consumer_may_stop_the_run_that_it_watches() -> None:
    async def story(world: World) -> None:
        golem = world.golem()

        async def stop_when_it_runs(event: BusEvent) -> None:
            if isinstance(event, InstanceMoved) and event.record.dest is State.RUNNING:
                await golem.stop()

        golem.add_event_consumer(stop_when_it_runs)
        await golem.start()
        cluster = await golem.run_service(Service, payload=PAYLOAD)
        await cluster.wait_until(State.TERMINATED)
        await golem.stop()
        assert now() < 15

    play(story)
