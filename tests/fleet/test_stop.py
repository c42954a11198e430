"""Stopping, in every state there is: at once, without buying anything, bounded, saying what was skipped."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from shem import Service, State
from shem.devnet.settings import Timings
from shem.errors import CommandFailed, ConfigError, WaitError
from shem.events import ClusterStopped, Phase, StepSkipped
from shem.lifecycle import Actor, Event
from shem.payload import VmPayload
from shem.service.policy import RestartPolicy
from shem.testing import Reply, World, play

PAYLOAD = VmPayload(image_hash="a" * 56)


def now() -> float:
    return asyncio.get_running_loop().time()


def respond(program: str, args: Sequence[str]) -> Reply:
    match program:
        case "/hang":
            return Reply(seconds=math.inf)
        case "/fail":
            return Reply(exit_code=1)
    return Reply()


class Worker(Service):
    """Does in each handler what its class says: nothing, wait for ever, or run a program."""

    start_runs = run_runs = shutdown_runs = ""
    run_waits = True

    def __init__(self) -> None:
        self.log: list[str] = []

    def _script(self, program: str) -> Any:
        script = self._ctx.new_script()
        script.run(program)
        return script

    async def start(self) -> AsyncIterator[Any]:
        async for script in super().start():
            yield script
        if self.start_runs:
            yield self._script(self.start_runs)

    async def run(self) -> AsyncIterator[Any]:
        if self.run_runs:
            yield self._script(self.run_runs)
        if self.run_waits:
            await asyncio.get_running_loop().create_future()

    async def shutdown(self) -> AsyncIterator[Any]:
        self.log.append("shutdown begins")
        if self.shutdown_runs:
            yield self._script(self.shutdown_runs)
        yield self._script("/bye")
        self.log.append("shutdown ends")


class HangsInStart(Worker):
    start_runs = "/hang"


class HangsInRun(Worker):
    run_runs = "/hang"


class HangsInShutdown(Worker):
    shutdown_runs = "/hang"


class FailsInStart(Worker):
    start_runs = "/fail"


class EndsAtOnce(Worker):
    run_waits = False


@dataclass(frozen=True)
class Situation:
    """How to get an instance into a state, and what a stop must then lead to."""

    name: str
    state: State
    phase: Phase | None
    then: tuple[Event, ...]
    service: type[Worker] = Worker
    world: dict[str, Any] = field(default_factory=dict)
    prepare: Callable[[World], Awaitable[object]] | None = None
    payload: VmPayload = PAYLOAD
    graceful: bool = False

    def __str__(self) -> str:
        return self.name


async def vanish(world: World) -> None:
    await asyncio.sleep(20)
    world.node.faults.vanish("devnet-1")


BOUGHT_NOTHING = (Event.SHUTDOWN,)
GRACEFULLY = (Event.SHUTDOWN, Event.SERVICE_STOPPED)
SITUATIONS = [
    Situation(
        "negotiating",
        State.PENDING,
        Phase.NEGOTIATING,
        BOUGHT_NOTHING,
        payload=VmPayload(image_hash="a" * 56, min_mem_gib=999.0),
    ),
    Situation(
        "waiting for an approval",
        State.PENDING,
        Phase.AGREEMENT,
        BOUGHT_NOTHING,
        world={"timings": Timings(approval=1e6)},
    ),
    Situation(
        "waiting for an activity",
        State.PENDING,
        Phase.ACTIVITY,
        BOUGHT_NOTHING,
        world={"create_seconds": 1e6},
    ),
    Situation(
        "waiting for the next try",
        State.PENDING,
        Phase.WAITING,
        (Event.RETRY_START, Event.SHUTDOWN),
        service=FailsInStart,
    ),
    Situation(
        "deploying",
        State.STARTING,
        Phase.DEPLOYING,
        (Event.SHUTDOWN, Event.SERVICE_ERROR),
        world={"deploy_seconds": 1e6},
    ),
    Situation("starting", State.STARTING, Phase.SCRIPT, GRACEFULLY, service=HangsInStart, graceful=True),
    Situation("running and idle", State.RUNNING, Phase.HANDLER, GRACEFULLY, graceful=True),
    Situation("running a script", State.RUNNING, Phase.SCRIPT, GRACEFULLY, service=HangsInRun, graceful=True),
    Situation(
        "unresponsive", State.UNRESPONSIVE, None, (Event.SHUTDOWN,), service=HangsInRun, prepare=vanish
    ),
    Situation("terminated", State.TERMINATED, Phase.RELEASED, (Event.SERVICE_STOPPED,), service=EndsAtOnce),
]

WAYS = ["stop", "stop twice", "stop_now", "stop_instance", "leaving", "raising", "cancelled"]


async def bring_into(situation: Situation, golem: Any, world: World) -> tuple[Any, Worker]:
    cluster = await golem.run_service(
        situation.service,
        payload=situation.payload,
        restart=RestartPolicy(backoff=30.0, max_backoff=30.0),
    )
    [service] = cluster.instances
    if situation.prepare is not None:
        await situation.prepare(world)
    for _moment in range(12_000):
        if service.state is situation.state and service.phase is situation.phase:
            break
        await asyncio.sleep(0.01)
    else:
        raise AssertionError(f"never {situation}: {service.why()}")
    return cluster, service


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("situation", SITUATIONS, ids=str)
def test_a_stop_works_in_every_state_and_in_every_way(situation: Situation, way: str) -> None:
    ends: list[float] = []

    async def use(world: World, ready: asyncio.Future[Worker]) -> None:
        async with world.golem() as golem:
            cluster, service = await bring_into(situation, golem, world)
            ready.set_result(service)
            ends.append(now())
            match way:
                case "stop":
                    assert (await cluster.stop()).skipped == (await cluster.stop()).skipped
                case "stop twice":
                    cluster.stop()
                    await asyncio.sleep(0)
                    await cluster.stop()
                case "stop_now":
                    await cluster.stop_now()
                    # Nothing of the user's is waited for, but giving back takes its time.
                    assert now() - ends[0] <= 30
                case "stop_instance":
                    await cluster.stop_instance(service)
                    assert cluster.current == [service]
                case "raising":
                    raise ZeroDivisionError("in the user's own code")
                case "cancelled":
                    await asyncio.sleep(3600)
            ends.append(now())

    async def story(world: World) -> None:
        ready: asyncio.Future[Worker] = asyncio.get_running_loop().create_future()
        using = asyncio.create_task(use(world, ready))
        await asyncio.wait([ready, using], return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            using.result()
        service = ready.result()
        if way == "cancelled":
            # Leaving is in a hurry then; before the end of the block the stop has begun in any case.
            await asyncio.sleep(0.5)
            using.cancel()
        await asyncio.wait([using])
        if way == "raising":
            assert isinstance(using.exception(), ZeroDivisionError)
        elif way == "cancelled":
            assert using.cancelled()
        else:
            using.result()
        events = tuple(record.event for record in service.records)
        assert service.state is State.TERMINATED
        if way not in ("cancelled", "stop_now"):
            assert events[-len(situation.then) :] == situation.then
            assert ("shutdown ends" in service.log) == (situation.graceful or situation.name == "terminated")
        assert now() <= ends[0] + 60 + 40 + 30 + 15
        if situation.prepare is vanish:
            world.node.faults.recover("devnet-1")
            await asyncio.sleep(5)

    # A provider that was away sends its invoice when nobody waits for it any more.
    late = {"open_invoices", "open_debit_notes"} if situation.prepare is vanish else set()
    play(story, providers=1, respond=respond, leftovers=late, **situation.world)


def test_a_pending_instance_that_is_stopped_has_rented_nothing() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(Service, num_instances=3, payload=PAYLOAD)
            report = await cluster.stop()
            assert report.clean
            assert [service.state for service in cluster.instances] == [State.TERMINATED] * 3
            assert now() == 0
        assert "create_agreement" not in world.calls

    play(story)


def test_a_stop_takes_effect_before_it_is_awaited() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(Service, payload=PAYLOAD)
            await cluster.wait_until(State.RUNNING)
            cluster.stop("enough")
            [service] = cluster.instances
            assert service.state is State.STOPPING
            assert (service.records[-1].cause.actor, service.records[-1].cause.reason) == (
                Actor.USER,
                "enough",
            )

    play(story)


def test_an_acquisition_that_comes_after_the_stop_is_given_back() -> None:
    async def story(world: World) -> None:
        # The activity is there, and the answer on its way, when the stop comes.
        world.link.delay("create_activity", 2.0, answer=True)
        async with world.golem() as golem:
            cluster = await golem.run_service(Service, payload=PAYLOAD)
            await asyncio.sleep(2)
            assert [activity.alive for activity in world.node.activities.all()] == [True]
            report = await cluster.stop()
            assert report.clean
        [service] = cluster.instances
        assert [record.event for record in service.records] == [Event.SHUTDOWN]

    play(story)


def test_a_hanging_shutdown_is_cut_short_after_its_budget_and_reported() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(HangsInShutdown, payload=PAYLOAD, stop_timeout=7.0)
            await cluster.wait_until(State.RUNNING)
            began = now()
            report = await cluster.stop()
            assert now() - began == pytest.approx(7, abs=0.1)
            [service] = cluster.instances
            assert report.skipped == (f"shutdown() of {service.id}: it overran its budget",)
            assert not report.clean
            assert service.log == ["shutdown begins"]
        [told] = [event for event in world.events if isinstance(event, StepSkipped)]
        assert (told.step, told.reason) == (f"shutdown() of {service.id}", "it overran its budget")

    play(story, respond=respond)


def test_the_second_stop_of_the_impatient_waits_for_no_shutdown() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(HangsInShutdown, num_instances=3, payload=PAYLOAD)
            await cluster.wait_until(State.RUNNING)
            cluster.stop()
            await asyncio.sleep(5)
            began = now()
            report = await cluster.stop_now()
            assert now() - began < 1
            assert len(report.skipped) == 3
            assert all("nobody waits for it" in step for step in report.skipped)

    play(story, respond=respond)


def test_two_clusters_with_hanging_shutdowns_end_side_by_side() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            for _cluster in range(3):
                await golem.run_service(HangsInShutdown, payload=PAYLOAD, stop_timeout=20.0)
            await asyncio.sleep(10)
            began = now()
        assert now() - began < 30

    play(story, respond=respond)


@pytest.mark.parametrize("back_after", [30.0, math.inf])
def test_a_stop_while_the_node_is_down_is_bounded_and_says_what_it_could_not_do(back_after: float) -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(Service, payload=PAYLOAD, stop_timeout=10.0)
            await cluster.wait_until(State.RUNNING)
            world.link.up = False
            if back_after < math.inf:
                asyncio.get_running_loop().call_later(back_after, world.link.heal)
            began = now()
            report = await cluster.stop()
            [service] = cluster.instances
            assert service.state is State.TERMINATED
            assert now() - began <= 10 + 15 + 15
            assert any("release of activity" in step for step in report.skipped)
        assert now() - began <= 120
        skipped = " ".join(event.step for event in world.events if isinstance(event, StepSkipped))
        assert "destroy activity" in skipped
        assert ("payment of agreement" in skipped) == (back_after == math.inf)

    # Nobody could tell the node anything, if it stays down.
    left = {
        "live_activities",
        "open_agreements",
        "open_allocations",
        "open_demands",
        "open_invoices",
        "open_debit_notes",
    }
    if back_after < math.inf:
        play(story)
        return
    with pytest.raises(AssertionError, match="was created and never ended"):
        play(story, leftovers=left)


# --- stop beats restart


ALWAYS = RestartPolicy(on="always", backoff=10.0, jitter=0.0)


class Dies(Worker):
    run_waits = False


def test_stopped_while_it_waits_for_its_replacement_a_slot_stays_empty() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(Dies, payload=PAYLOAD, restart=ALWAYS)
            [service] = cluster.instances
            await service.wait_for(State.TERMINATED)
            await asyncio.sleep(3)
            began = now()
            assert (await cluster.stop_instance(service)).clean
            assert now() == began
            await asyncio.sleep(60)
            assert cluster.instances == [service]

    play(story)


def test_stopped_while_it_is_stopping_anyway_a_slot_stays_empty() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(Dies, payload=PAYLOAD, restart=ALWAYS)
            [service] = cluster.instances
            await service.wait_for(State.STOPPING)
            cluster.stop_instance(service)
            await asyncio.sleep(60)
            assert cluster.instances == [service]

    play(story)


@pytest.mark.parametrize("after", [0.5 * step for step in range(60)])
def test_whenever_a_cluster_is_stopped_nothing_is_respawned(after: float) -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(Dies, payload=PAYLOAD, restart=ALWAYS)
            await asyncio.sleep(after)
            cluster.stop()
            count = len(cluster.instances)
            await asyncio.sleep(60)
            assert len(cluster.instances) == count

    play(story)


def test_stopping_one_instance_leaves_the_others_and_its_slot_empty() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            restart = RestartPolicy(on="always")
            cluster = await golem.run_service(Worker, num_instances=3, payload=PAYLOAD, restart=restart)
            await cluster.wait_until(State.RUNNING)
            middle = cluster.instances[1]
            report = await cluster.stop_instance(middle, "not this one")
            assert report.clean
            assert middle.log == ["shutdown begins", "shutdown ends"]
            await asyncio.sleep(60)
            assert [service.state for service in cluster.current] == [
                State.RUNNING,
                State.TERMINATED,
                State.RUNNING,
            ]
            assert len(cluster.instances) == 3

    play(story)


def test_an_instance_that_was_replaced_can_not_be_stopped_any_more() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            restart = RestartPolicy(on="failure")
            cluster = await golem.run_service(Worker, payload=PAYLOAD, restart=restart)
            [first] = cluster.instances
            await first.wait_for(State.RUNNING)
            world.node.faults.kill_activity(first._ctx.id)
            await asyncio.sleep(30)
            assert (await cluster.stop_instance(first)).clean
            await asyncio.sleep(10)
            assert [service.state for service in cluster.current] == [State.RUNNING]

    play(story)


def test_the_report_on_one_instance_says_what_was_skipped() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(HangsInShutdown, payload=PAYLOAD, stop_timeout=5.0)
            await cluster.wait_until(State.RUNNING)
            [service] = cluster.instances
            report = await cluster.stop_instance(service)
            assert report.skipped == (f"shutdown() of {service.id}: it overran its budget",)

    play(story, respond=respond)


def test_somebody_elses_instance_is_refused() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            one = await golem.run_service(Service, payload=PAYLOAD)
            other = await golem.run_service(Service, payload=PAYLOAD)
            with pytest.raises(ConfigError, match=f"is no instance of cluster {one.id}"):
                one.stop_instance(other.instances[0])

    play(story)


def test_stopped_before_there_is_a_runtime_the_default_shutdown_is_no_error() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(Service, payload=PAYLOAD)
            [service] = cluster.instances
            await service.wait_for(State.STARTING)
            await asyncio.sleep(3)
            await cluster.stop()
            events = [record.event for record in service.records]
            assert events == [Event.RUN_SERVICE, Event.SHUTDOWN, Event.SERVICE_STOPPED]
            assert service.error is None

    play(story, deploy_seconds=60.0)


# --- from inside


class StopsItsCluster(Worker):
    cluster: Any = None
    where = "run"

    async def start(self) -> AsyncIterator[Any]:
        async for script in super().start():
            yield script
        if self.where == "start":
            await self.cluster.stop("from start()")

    async def run(self) -> AsyncIterator[Any]:
        if self.where == "run":
            await self.cluster.stop("from run()")
        await asyncio.get_running_loop().create_future()
        yield

    async def shutdown(self) -> AsyncIterator[Any]:
        self.log.append("shutdown begins")
        if self.where == "shutdown":
            await self.cluster.stop("from shutdown()")
        async for script in super().shutdown():
            yield script


@pytest.mark.parametrize("where", ["start", "run", "shutdown"])
def test_a_cluster_can_be_stopped_by_its_own_handler(where: str) -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            service_class = type("Suicidal", (StopsItsCluster,), {"where": where})
            cluster = await golem.run_service(service_class, num_instances=2, payload=PAYLOAD)
            service_class.cluster = cluster
            if where == "shutdown":
                await cluster.wait_until(State.RUNNING)
                cluster.stop()
            began = now()
            await cluster.wait_until(State.TERMINATED)
            assert now() - began < 10
            first, second = cluster.instances
            assert "shutdown begins" in first.log
            if where == "shutdown":
                assert isinstance(first.error, WaitError)
                assert "call stop() without awaiting it" in str(first.error)
            else:
                assert (first.error, second.error) == (None, None)
                assert "shutdown ends" in first.log

    play(story)


class StopsItself(Worker):
    cluster: Any = None

    async def run(self) -> AsyncIterator[Any]:
        await self.cluster.stop_instance(self, "I am done")
        yield


def test_an_instance_can_stop_itself() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(StopsItself, payload=PAYLOAD)
            StopsItself.cluster = cluster
            await cluster.wait_until(State.TERMINATED)
            [service] = cluster.instances
            assert service.log == ["shutdown begins", "shutdown ends"]
            assert service.error is None
            assert "I am done" in service.why()

    play(story)


class FailsInShutdown(Worker):
    shutdown_runs = "/fail"


def test_a_shutdown_that_fails_ends_the_instance_with_its_error() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(FailsInShutdown, payload=PAYLOAD)
            await cluster.wait_until(State.RUNNING)
            await cluster.stop()
            [service] = cluster.instances
            assert isinstance(service.error, CommandFailed)
            assert [record.event for record in service.records[-2:]] == [Event.SHUTDOWN, Event.SERVICE_ERROR]

    play(story, respond=respond)


def test_the_end_of_a_cluster_is_told_once() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(Service, num_instances=2, payload=PAYLOAD)
            await cluster.wait_until(State.RUNNING)
            await cluster.stop()
            await cluster.stop()
            await cluster.stop_now()
        told = [event for event in world.events if isinstance(event, ClusterStopped)]
        assert [event.cluster for event in told] == [cluster.id]

    play(story)
