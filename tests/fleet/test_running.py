"""What can befall an instance that is up, and how it is told: each story ends in the state that is true."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from shem import Probe, Service, State
from shem.engine.liveness import LivenessPace
from shem.errors import CommandFailed, ProviderSilent
from shem.events import NodeBack, NodeLost, ScriptFinished
from shem.lifecycle import Actor, Event
from shem.payload import VmPayload
from shem.service.slot import Slot
from shem.testing import Reply, World, play

PAYLOAD = VmPayload(image_hash="a" * 56)
PACE = LivenessPace()
FOUND_WITHIN = PACE.silent_after + PACE.interval + 2 * PACE.answer


def now() -> float:
    return asyncio.get_running_loop().time()


def respond(program: str, _args: Sequence[str]) -> Reply:
    match program:
        case "/fail":
            return Reply(exit_code=1, stderr="no disk")
        case "/hang":
            return Reply(seconds=math.inf)
        case "/minute":
            return Reply(seconds=60.0, stdout="a minute has passed")
    return Reply()


class Worker(Service):
    """Runs its programs, one after another, and then waits for ever."""

    programs: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.log: list[str] = []

    async def run(self) -> AsyncIterator[Any]:
        for program in self.programs:
            self.log.append(f"runs {program}")
            script = self._ctx.new_script()
            script.run(program)
            result = yield script
            self.log.append(str((await result)[0].stdout))
        await asyncio.get_running_loop().create_future()

    async def shutdown(self) -> AsyncIterator[Any]:
        self.log.append("shutdown")
        yield self._ctx.new_script()


def worker(*programs: str) -> type[Worker]:
    return type("Worker", (Worker,), {"programs": programs})


def events_of(service: Service) -> list[Event]:
    """What has happened since it was Running."""
    events = [record.event for record in service.records]
    return events[events.index(Event.START_SUCCESSFUL) + 1 :]


def agreement_of(world: World, service: Any) -> Any:
    return world.node.activities.find(service._ctx.id).agreement.id


async def up(golem: Any, *programs: str, **arguments: Any) -> tuple[Any, Any]:
    cluster = await golem.run_service(worker(*programs), payload=PAYLOAD, **arguments)
    await cluster.wait_until(State.RUNNING)
    return cluster, cluster.instances[0]


# --- its handler fails


def test_a_run_that_raises_is_followed_by_shutdown_and_keeps_its_error() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            _cluster, service = await up(golem, "/fail")
            await service.wait_for(State.TERMINATED)
            assert events_of(service) == [Event.SERVICE_ERROR, Event.SERVICE_STOPPED]
            assert service.log == ["runs /fail", "shutdown"]
            assert isinstance(service.error, CommandFailed)
            assert "no disk" in service.why()

    play(story, respond=respond)


def test_a_run_that_ends_is_followed_by_shutdown_and_is_no_error() -> None:
    class Brief(Worker):
        async def run(self) -> AsyncIterator[Any]:
            yield self._ctx.new_script()

    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(Brief, payload=PAYLOAD)
            [service] = cluster.instances
            await service.wait_for(State.TERMINATED)
            assert events_of(service) == [Event.SHUTDOWN, Event.SERVICE_STOPPED]
            assert service.records[-2].cause.actor is Actor.HANDLER
            assert service.error is None

    play(story)


# --- its activity dies


@pytest.mark.parametrize("programs", [(), ("/hang",)], ids=["idle", "busy"])
def test_an_activity_that_dies_is_noticed_and_shutdown_does_not_run(programs: tuple[str, ...]) -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            _cluster, service = await up(golem, *programs)
            await asyncio.sleep(20)
            began = now()
            world.node.faults.kill_activity(service._ctx.id, "out of memory")
            await service.wait_for(State.TERMINATED)
            assert now() - began <= 2 * PACE.interval
            assert events_of(service) == [Event.ACTIVITY_LOST]
            assert "shutdown" not in service.log
            assert "out of memory" in service.why()

    play(story, respond=respond)


def test_an_activity_that_dies_while_stopping_ends_it() -> None:
    class Lingers(Worker):
        async def shutdown(self) -> AsyncIterator[Any]:
            script = self._ctx.new_script()
            script.run("/hang")
            yield script

    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(Lingers, payload=PAYLOAD)
            [service] = cluster.instances
            await service.wait_for(State.RUNNING)
            stopping = cluster.stop()
            await asyncio.sleep(3)
            world.node.faults.kill_activity(service._ctx.id)
            report = await stopping
            assert report.clean
            assert events_of(service) == [Event.SHUTDOWN, Event.ACTIVITY_LOST]

    play(story, respond=respond)


# --- its agreement is ended


@pytest.mark.parametrize("programs", [(), ("/hang",)], ids=["idle", "busy"])
@pytest.mark.parametrize("latency", [0.0, 0.3, 2.0])
def test_why_names_the_end_of_the_agreement_and_not_what_followed_from_it(
    programs: tuple[str, ...], latency: float
) -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            _cluster, service = await up(golem, *programs)
            await asyncio.sleep(20)
            world.link.delay("agreement_events", latency, answer=True)
            world.node.faults.terminate_agreement(agreement_of(world, service), "We are closing", "Shutdown")
            await service.wait_for(State.TERMINATED)
            assert events_of(service) == [Event.AGREEMENT_TERMINATED]
            last = service.records[-1].cause
            assert last.actor is Actor.PROVIDER
            assert "Shutdown: We are closing" in last.reason
            assert "We are closing" in service.why().splitlines()[-1]
            assert "shutdown" not in service.log

    play(story, respond=respond)


def test_while_the_activity_outlives_its_agreement_shutdown_runs() -> None:
    async def story(world: World) -> None:
        world.node.faults.linger("devnet-1", 10.0)
        async with world.golem() as golem:
            _cluster, service = await up(golem)
            world.node.faults.terminate_agreement(agreement_of(world, service), "We are closing")
            await service.wait_for(State.TERMINATED)
            assert events_of(service) == [Event.AGREEMENT_TERMINATED, Event.SERVICE_STOPPED]
            assert service.log == ["shutdown"]
            assert "We are closing" in service.why()

    play(story, providers=1)


def test_an_agreement_that_ends_while_stopping_ends_it_too() -> None:
    class Lingers(Worker):
        async def shutdown(self) -> AsyncIterator[Any]:
            await asyncio.sleep(30)
            yield self._ctx.new_script()

    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(Lingers, payload=PAYLOAD)
            [service] = cluster.instances
            await service.wait_for(State.RUNNING)
            cluster.stop()
            await asyncio.sleep(3)
            world.node.faults.terminate_agreement(agreement_of(world, service))
            await service.wait_for(State.TERMINATED)
            assert now() < 10
            assert events_of(service) == [Event.SHUTDOWN, Event.AGREEMENT_TERMINATED]

    play(story)


def test_the_providers_word_on_its_expiry_is_heard() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            _cluster, service = await up(golem, stop_timeout=1.0)
            world.node.faults.terminate_agreement(
                agreement_of(world, service), "Agreement expired", "Expired"
            )
            await service.wait_for(State.TERMINATED)
            assert "Expired: Agreement expired" in service.why()

    play(story)


# --- its provider falls silent


@pytest.mark.parametrize("programs", [(), ("/minute",)], ids=["idle", "busy"])
def test_a_silent_provider_is_found_in_time_and_the_same_handler_goes_on_when_it_is_back(
    programs: tuple[str, ...],
) -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            _cluster, service = await up(golem, *programs)
            await asyncio.sleep(20)
            began = now()
            world.node.faults.vanish("devnet-1")
            await service.wait_for(State.UNRESPONSIVE)
            assert now() - began <= FOUND_WITHIN
            await asyncio.sleep(60)
            world.node.faults.recover("devnet-1")
            await service.wait_for(State.RUNNING)
            await asyncio.sleep(30)
            assert events_of(service) == [Event.PROVIDER_UNRESPONSIVE, Event.PROVIDER_RECOVERED]
            # Begun once, and gone on with.
            assert service.log == (["runs /minute", "a minute has passed"] if programs else [])

    play(story, respond=respond)


def test_one_that_stays_silent_is_given_up_after_its_grace() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster, service = await up(golem, unresponsive_grace=45.0)
            world.node.faults.vanish("devnet-1")
            await service.wait_for(State.UNRESPONSIVE)
            began = now()
            await service.wait_for(State.TERMINATED)
            assert now() - began == pytest.approx(45)
            assert events_of(service) == [Event.PROVIDER_UNRESPONSIVE, Event.UNRESPONSIVE_TIMEOUT]
            assert isinstance(service.error, ProviderSilent)
            assert "shutdown" not in service.log
            await cluster.stop()
            world.node.faults.recover("devnet-1")
            await asyncio.sleep(5)

    play(story)


def test_a_silence_that_begins_while_stopping_goes_on_with_the_same_shutdown() -> None:
    class Lingers(Worker):
        async def shutdown(self) -> AsyncIterator[Any]:
            self.log.append("shutdown begins")
            script = self._ctx.new_script()
            script.run("/minute")
            yield script
            self.log.append("shutdown ends")

    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(Lingers, payload=PAYLOAD, stop_timeout=100.0)
            [service] = cluster.instances
            await service.wait_for(State.RUNNING)
            cluster.stop()
            await asyncio.sleep(3)
            world.node.faults.vanish("devnet-1")
            await service.wait_for(State.UNRESPONSIVE)
            world.node.faults.recover("devnet-1")
            await service.wait_for(State.TERMINATED)
            assert service.log == ["shutdown begins", "shutdown ends"]
            assert events_of(service) == [
                Event.SHUTDOWN,
                Event.PROVIDER_UNRESPONSIVE,
                Event.PROVIDER_RECOVERED,
                Event.SERVICE_STOPPED,
            ]

    play(story, respond=respond)


def test_the_end_of_a_handler_is_held_back_while_its_provider_is_silent() -> None:
    class Brief(Worker):
        async def run(self) -> AsyncIterator[Any]:
            await asyncio.sleep(60)
            self.log.append("run ends")
            yield self._ctx.new_script()

    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(Brief, payload=PAYLOAD)
            [service] = cluster.instances
            await service.wait_for(State.RUNNING)
            await asyncio.sleep(10)
            world.node.faults.vanish("devnet-1")
            await service.wait_for(State.UNRESPONSIVE)
            await asyncio.sleep(60)
            assert service.state is State.UNRESPONSIVE
            world.node.faults.recover("devnet-1")
            await service.wait_for(State.TERMINATED)
            assert events_of(service) == [
                Event.PROVIDER_UNRESPONSIVE,
                Event.PROVIDER_RECOVERED,
                Event.SHUTDOWN,
                Event.SERVICE_STOPPED,
            ]

    play(story)


# --- the node is away


@pytest.mark.parametrize("hangs", [False, True], ids=["refuses", "hangs"])
def test_a_node_that_is_away_for_a_minute_moves_nothing(hangs: bool) -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(worker(), num_instances=3, payload=PAYLOAD)
            await cluster.wait_until(State.RUNNING)
            await asyncio.sleep(40)
            if hangs:
                world.link.delay("*", math.inf)
            else:
                world.link.up = False
            await asyncio.sleep(60)
            world.link.heal()
            await asyncio.sleep(120)
            assert [events_of(service) for service in cluster.instances] == [[], [], []]
        polls = ["agreement events", "debit notes", "demand events", "invoices"]
        lost = [event.poll for event in world.events if isinstance(event, NodeLost)]
        back = [event.poll for event in world.events if isinstance(event, NodeBack)]
        # A node that hangs has not said that it is lost.
        assert sorted(lost) == sorted(back) == ([] if hangs else polls)

    play(story)


def test_a_script_under_way_outlives_an_outage_of_the_node() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            _cluster, service = await up(golem, "/minute", "/minute")
            await asyncio.sleep(30)
            world.link.up = False
            await asyncio.sleep(60)
            world.link.heal()
            await asyncio.sleep(90)
            assert service.log == ["runs /minute", "a minute has passed"] * 2
            assert events_of(service) == []
        failed = [event.error for event in world.events if isinstance(event, ScriptFinished) and event.error]
        assert failed == []

    play(story, respond=respond)


# --- it is not well


class Ill(Worker):
    """Says how it is, as it was told."""

    answers: Any = ()

    def is_well(self) -> Any:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def ill(*answers: Any) -> type[Ill]:
    return type("Ill", (Ill,), {"answers": list(answers)})


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (False, "the check said no"),
        (LookupError("no pulse"), "no pulse"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_a_probe_that_fails_again_and_again_ends_it_gracefully(answer: Any, words: str) -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            probe = Probe(Ill.is_well, period=10.0, failures=3)
            cluster = await golem.run_service(ill(True, True, answer), payload=PAYLOAD, probe=probe)
            [service] = cluster.instances
            await service.wait_for(State.TERMINATED)
            assert 30 <= now() <= 60
            assert events_of(service) == [Event.SERVICE_ERROR, Event.SERVICE_STOPPED]
            cause = service.records[-2].cause
            assert cause.actor is Actor.PROBE
            assert "liveness probe failed" in str(cause)
            assert words in str(cause)
            assert service.log == ["shutdown"]

    play(story)


@pytest.mark.parametrize("good", [True, None])
def test_one_good_answer_forgives_the_bad_ones_before(good: Any) -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            probe = Probe(Ill.is_well, period=10.0, failures=3)
            answers = [False, False, good] * 20
            cluster = await golem.run_service(ill(*answers), payload=PAYLOAD, probe=probe)
            await cluster.wait_until(State.RUNNING)
            await asyncio.sleep(500)
            assert events_of(cluster.instances[0]) == []

    play(story)


@pytest.mark.parametrize(("program", "well"), [("/ok", True), ("/fail", False), ("/hang", False)])
def test_a_probe_may_be_a_command_on_the_provider(program: str, well: bool) -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            probe = Probe(command=[program], period=10.0, timeout=5.0)
            _cluster, service = await up(golem, probe=probe)
            await asyncio.sleep(100)
            assert events_of(service) == ([] if well else [Event.SERVICE_ERROR, Event.SERVICE_STOPPED])

    play(story, respond=respond)


def test_a_check_that_takes_too_long_is_a_bad_answer() -> None:
    async def dawdle(_service: object) -> None:
        await asyncio.sleep(3600)

    async def story(world: World) -> None:
        async with world.golem() as golem:
            _cluster, service = await up(golem, probe=Probe(dawdle, period=10.0, timeout=5.0, failures=2))
            await service.wait_for(State.TERMINATED)
            assert 15 <= now() <= 31

    play(story)


def test_nobody_is_probed_while_unresponsive() -> None:
    asked: list[float] = []

    def ask(_service: object) -> None:
        asked.append(now())

    async def story(world: World) -> None:
        async with world.golem() as golem:
            _cluster, service = await up(golem, probe=Probe(ask, period=1.0))
            await asyncio.sleep(5)
            world.node.faults.vanish("devnet-1")
            await service.wait_for(State.UNRESPONSIVE)
            count = len(asked)
            await asyncio.sleep(50)
            assert len(asked) == count
            world.node.faults.recover("devnet-1")
            await service.wait_for(State.RUNNING)
            await asyncio.sleep(5)
            assert len(asked) > count

    play(story)


# --- shem itself fails


@pytest.mark.parametrize("state", [State.STARTING, State.RUNNING, State.STOPPING, State.UNRESPONSIVE])
def test_a_bug_in_the_supervision_leaves_no_state_that_is_not_true(
    monkeypatch: pytest.MonkeyPatch, state: State
) -> None:
    original = Slot._moved

    async def broken(slot: Slot, instance: Any, *arguments: Any) -> bool:
        if instance.state is state:
            await asyncio.sleep(0.5)
            raise ZeroDivisionError("a bug")
        return await original(slot, instance, *arguments)

    monkeypatch.setattr(Slot, "_moved", broken)

    class Lingers(Worker):
        async def shutdown(self) -> AsyncIterator[Any]:
            await asyncio.sleep(30)
            yield self._ctx.new_script()

    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(Lingers, payload=PAYLOAD)
            [service] = cluster.instances
            await asyncio.sleep(10)
            if state is State.STOPPING:
                cluster.stop()
            elif state is State.UNRESPONSIVE:
                world.node.faults.hang_activity(service._ctx.id)
            await service.wait_for(State.TERMINATED)
            assert "a bug in shem" in service.why()
            await cluster.stop()

    play(story, deploy_seconds=3.0)
