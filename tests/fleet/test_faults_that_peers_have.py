"""The faults known from other libraries of this kind, one named test each: none of them exists here.

The first part goes stimulus by stimulus through the states Starting, Running and Stopping, and Pending; the
second takes the weaknesses of state machines (`A…`) and of task hygiene (`B…`) one by one. Every story ends
with `World.verify`: nothing left on the node, every record a step of the table, no task left behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest

from shem import Service, State, vm
from shem.engine.engine import EngineSettings
from shem.engine.liveness import LivenessPace
from shem.errors import (
    CommandFailed,
    ScriptError,
    ScriptTimeout,
    ServiceDefinitionError,
    WaitError,
)
from shem.events import NodeBack, NodeLost, PaymentRefused
from shem.lifecycle import Event
from shem.service.handlers import streaming
from shem.testing import Reply, World
from shem.testing.world import play

HASH = "8b11df59f84358d47fc6776d0bb7290b0054c15ded2d6f54cf634488"
STATES = ("starting", "running", "stopping")
IN_STATE = {"starting": State.STARTING, "running": State.RUNNING, "stopping": State.STOPPING}
HANDLER = {"starting": "start", "running": "run", "stopping": "shutdown"}

Body = Callable[["Subject"], Any]


class Subject(Service):
    """A service that does something of the test's own in one handler, and else waits in `run`."""

    def __init__(self, where: str = "", body: Body | None = None) -> None:
        self.where, self.body = where, body
        self.began: list[str] = []
        self.caught: list[BaseException] = []

    @staticmethod
    async def get_payload():
        return await vm.repo(image_hash=HASH)

    async def start(self):
        self.began.append("start")
        async for script in super().start():
            yield script
        if self.where == "starting":
            async for script in streaming(self.body)(self):
                yield script

    async def run(self):
        self.began.append("run")
        if self.where == "running":
            async for script in streaming(self.body)(self):
                yield script
        else:
            await asyncio.sleep(50)
            yield self._ctx.new_script()

    async def shutdown(self):
        self.began.append("shutdown")
        if self.where == "stopping":
            async for script in streaming(self.body)(self):
                yield script


def command(service: Subject, program: str, **options: Any) -> Any:
    script = service._ctx.new_script(**options)
    script.run(program)
    return script


async def raises(service: Subject):
    yield command(service, "/bin/before")
    raise ValueError("a mistake in the service")


async def yields_none(_service: Subject):
    yield None


async def fails(service: Subject):
    yield command(service, "/bin/false")


async def catches(service: Subject):
    try:
        yield command(service, "/bin/false")
    except CommandFailed as error:
        service.caught.append(error)
    yield command(service, "/bin/true")


async def times_out(service: Subject):
    try:
        yield command(service, "/bin/slow", timeout=2)
    except ScriptTimeout as error:
        service.caught.append(error)
    yield command(service, "/bin/true")


async def works_long(service: Subject):
    yield command(service, "/bin/slow")


async def idles(service: Subject):
    await asyncio.sleep(300)
    yield command(service, "/bin/true")


def programs(program: str, _args: Sequence[str]) -> Reply:
    return {
        "/bin/false": Reply(exit_code=1, stderr="no"),
        "/bin/slow": Reply(seconds=300),
    }.get(program, Reply())


QUICK = LivenessPace(interval=5, answer=5, silent_after=20)


def settings() -> EngineSettings:
    from shem.config import PaymentSettings

    return EngineSettings(PaymentSettings.make(10), liveness=QUICK)


def live(
    where: str,
    body: Body,
    during: Callable[[World, Any, Subject], Awaitable[None]] | None = None,
    *,
    leftovers: Sequence[str] = (),
    **arguments: Any,
) -> Subject:
    """One instance that does `body` in one state; `during` acts from outside once it is there."""

    async def story(world: World) -> Subject:
        async with world.golem(settings=settings()) as golem:
            cluster = await golem.run_service(
                Subject,
                instance_params=[{"where": where, "body": body}],
                **{"respawn_unstarted_instances": False, "unresponsive_grace": 30, **arguments},
            )
            (service,) = cluster.instances
            if where == "stopping":
                await service.wait_for(State.RUNNING)
                cluster.stop()
            if during is not None:
                await service.wait_for(IN_STATE[where])
                await asyncio.sleep(1)
                await during(world, cluster, service)
            await cluster.wait_until(State.TERMINATED, timeout=1000)
        return service

    return play(story, respond=programs, leftovers=leftovers)


def path(service: Service) -> list[State]:
    return [record.dest for record in service.records]


def events(service: Service) -> list[Event]:
    return [record.event for record in service.records]


async def activity_of(service: Service) -> Any:
    return service._ctx.id


# --- stimulus by stimulus


def test_a_handler_that_returns_leads_to_the_next_state():
    async def ends(service: Subject):
        yield command(service, "/bin/true")

    service = live("running", ends)
    assert path(service) == [State.STARTING, State.RUNNING, State.STOPPING, State.TERMINATED]
    assert service.began == ["start", "run", "shutdown"] and service.error is None


def test_a_start_that_yields_nothing_leads_to_running_and_the_missing_deploy_is_named():
    class Lazy(Subject):
        async def start(self):
            return
            yield

        async def run(self):
            yield command(self, "/bin/true")

    async def story(world: World) -> Service:
        async with world.golem() as golem:
            cluster = await golem.run_service(Lazy)
            await cluster.wait_until(State.TERMINATED)
        return cluster.instances[0]

    service = play(story)
    assert State.RUNNING in path(service)
    assert isinstance(service.error, CommandFailed) and "deploy" in str(service.error)


@pytest.mark.parametrize("where", STATES)
def test_a_handler_that_raises_ends_in_the_right_state_and_its_error_is_kept(where):
    service = live(where, raises)
    expected = {
        "starting": [State.STARTING, State.TERMINATED],
        "running": [State.STARTING, State.RUNNING, State.STOPPING, State.TERMINATED],
        "stopping": [State.STARTING, State.RUNNING, State.STOPPING, State.TERMINATED],
    }[where]
    assert path(service) == expected
    assert isinstance(service.error, ValueError) and "a mistake in the service" in service.why()
    assert ("shutdown" in service.began) == (where != "starting")


@pytest.mark.parametrize("where", STATES)
def test_a_handler_that_is_no_async_generator_rents_nothing(where):
    async def coroutine(self):
        return None

    wrong = type("Wrong", (Subject,), {HANDLER[where]: coroutine})

    async def story(world: World) -> list[str]:
        async with world.golem() as golem:
            with pytest.raises(ServiceDefinitionError, match=rf"Wrong\.{HANDLER[where]}\(\) must be"):
                await golem.run_service(wrong)
        return world.calls

    assert "subscribe" not in play(story)


@pytest.mark.parametrize("where", STATES)
def test_a_handler_that_yields_no_script_freezes_nothing(where):
    service = live(where, yields_none, respawn_unstarted_instances=True)
    assert service.state is State.TERMINATED
    assert isinstance(service.error, ServiceDefinitionError) and "yielded None" in service.why()
    assert events(service).count(Event.RUN_SERVICE) == 1, "never tried on another provider"


@pytest.mark.parametrize("where", STATES)
def test_a_failed_command_can_be_caught_at_the_yield(where):
    service = live(where, catches)
    assert [type(error) for error in service.caught] == [CommandFailed]
    assert service.error is None


@pytest.mark.parametrize("where", STATES)
def test_a_failed_command_that_nobody_catches_fails_the_handler(where):
    service = live(where, fails)
    assert isinstance(service.error, CommandFailed) and service.state is State.TERMINATED


@pytest.mark.parametrize("where", STATES)
def test_a_script_that_takes_too_long_is_thrown_at_the_yield_and_the_next_one_works(where):
    service = live(where, times_out)
    assert [type(error) for error in service.caught] == [ScriptTimeout] and service.error is None


@pytest.mark.parametrize("where", STATES)
def test_a_node_that_cannot_be_reached_when_a_script_is_sent_is_asked_again(where):
    async def two(service: Subject):
        await asyncio.sleep(2)
        yield command(service, "/bin/true")

    async def outage(world: World, _cluster: Any, _service: Subject) -> None:
        world.link.fail("execute", error=_unavailable(), times=3)

    service = live(where, two, outage)
    assert service.error is None, service.why()


@pytest.mark.parametrize("where", STATES)
def test_an_activity_that_ends_under_a_script_is_lost_and_keeps_its_cause(where):
    async def kill(world: World, _cluster: Any, service: Subject) -> None:
        world.node.faults.kill_activity(await activity_of(service), "the provider's disk died")

    service = live(where, works_long, kill)
    assert events(service)[-1] is Event.ACTIVITY_LOST and service.state is State.TERMINATED
    assert "the provider's disk died" in service.why()
    assert ("shutdown" in service.began) == (where == "stopping")


@pytest.mark.parametrize("where", STATES)
def test_an_activity_that_ends_while_the_handler_is_idle_is_noticed(where):
    async def kill(world: World, _cluster: Any, service: Subject) -> None:
        world.node.faults.kill_activity(await activity_of(service))
        await asyncio.sleep(QUICK.interval * 2 + QUICK.answer)
        assert service.state is State.TERMINATED

    service = live(where, idles, kill, stop_timeout=200)
    assert events(service)[-1] is Event.ACTIVITY_LOST


@pytest.mark.parametrize("where", STATES)
def test_a_provider_that_cannot_be_reached_makes_it_unresponsive_and_then_terminated(where):
    async def vanish(world: World, _cluster: Any, service: Subject) -> None:
        world.node.faults.vanish(service.provider_id)
        await service.wait_for(
            State.UNRESPONSIVE, timeout=QUICK.silent_after + QUICK.interval + QUICK.answer + 1
        )

    service = live(
        where,
        idles,
        vanish,
        stop_timeout=200,
        leftovers=("live_activities", "open_agreements", "invoices_to_come"),
    )
    assert events(service)[-2:] == [Event.PROVIDER_UNRESPONSIVE, Event.UNRESPONSIVE_TIMEOUT]
    assert ("shutdown" in service.began) == (where == "stopping")


@pytest.mark.parametrize("where", STATES)
def test_a_liveness_check_that_fails_for_another_reason_freezes_nothing(where):
    async def cut(world: World, _cluster: Any, service: Subject) -> None:
        world.link.cut("activity_state", times=2)
        world.link.fail("activity_state", times=2)
        await asyncio.sleep(25)
        assert service.state is IN_STATE[where]

    service = live(where, idles, cut, stop_timeout=400)
    assert service.error is None, service.why()


@pytest.mark.parametrize("where", STATES)
def test_an_agreement_that_its_provider_ends_is_noticed_with_its_reason(where):
    async def end(world: World, _cluster: Any, service: Subject) -> None:
        (agreement,) = [one for one in world.node.agreements.all() if not one.ended]
        world.node.faults.terminate_agreement(agreement.id, "closing for the night", "Shutdown")

    service = live(where, idles, end, stop_timeout=200)
    assert Event.AGREEMENT_TERMINATED in events(service)
    assert "closing for the night" in service.why() and service.state is State.TERMINATED


@pytest.mark.parametrize("where", STATES)
def test_a_stop_runs_shutdown_wherever_there_is_an_activity(where):
    async def stop(_world: World, cluster: Any, _service: Subject) -> None:
        await cluster.stop()

    service = live(where, idles, stop, stop_timeout=100)
    assert service.began.count("shutdown") == 1
    assert State.STOPPING in path(service)


@pytest.mark.parametrize("where", ["starting", "running"])
def test_a_stop_takes_effect_at_once_while_a_script_is_executing(where):
    seconds: list[float] = []

    async def stop(_world: World, cluster: Any, service: Subject) -> None:
        began = asyncio.get_running_loop().time()
        cluster.stop()
        assert service.state is State.STOPPING
        await service.wait_for(State.TERMINATED)
        seconds.append(asyncio.get_running_loop().time() - began)

    live(where, works_long, stop)
    assert seconds[0] < 5


def test_an_expiry_drains_so_that_shutdown_runs_before_the_agreement_ends():
    async def for_ever(service: Subject):
        await asyncio.sleep(1e6)
        yield command(service, "/bin/true")

    service = live("running", for_ever, expiration=timedelta(minutes=7), stop_timeout=20)
    assert service.began[-1] == "shutdown" and service.error is None
    assert "agreements end" in service.why()


def test_a_note_that_the_budget_cannot_pay_is_reported_and_its_consequence_is_noticed():
    async def story(world: World) -> tuple[Service, list[Any]]:
        async with world.golem(budget="0.001", settings=settings()) as golem:
            cluster = await golem.run_service(
                Subject, instance_params=[{"where": "running", "body": works_long}]
            )
            (service,) = cluster.instances
            await service.wait_for(State.TERMINATED, timeout=2000)
        return service, world.events

    service, told = play(story, respond=programs, leftovers=("open_debit_notes", "open_invoices"))
    assert any(isinstance(event, PaymentRefused) and "funds" in event.reason for event in told)
    assert service.state is State.TERMINATED


def test_a_stop_while_pending_buys_nothing_and_pending_ends():
    async def story(world: World) -> Service:
        async with world.golem() as golem:
            cluster = await golem.run_service(Subject)
            await cluster.stop()
            return cluster.instances[0]

    service = play(story)
    assert path(service) == [State.TERMINATED] and service.began == []


def test_leaving_the_run_while_pending_ends_the_instance():
    async def story(world: World) -> Service:
        async with world.golem() as golem:
            cluster = await golem.run_service(Subject)
            await asyncio.sleep(0.05)
        return cluster.instances[0]

    assert play(story, providers=0).state is State.TERMINATED


def test_an_activity_that_is_not_created_gives_its_agreement_back():
    async def story(world: World) -> Service:
        world.link.fail("create_activity", times=2)
        async with world.golem() as golem:
            cluster = await golem.run_service(Subject)
            await cluster.wait_until(State.RUNNING, timeout=60)
            assert len([one for one in world.node.agreements.all() if not one.ended]) == 1
        return cluster.instances[0]

    play(story)


def test_one_failing_call_for_an_agreement_does_not_leave_it_pending_for_ever():
    async def story(world: World) -> None:
        world.link.fail("create_agreement")
        async with world.golem() as golem:
            cluster = await golem.run_service(Subject)
            await cluster.wait_until(State.RUNNING, timeout=60)

    play(story)


def test_the_event_order_of_a_clean_life():
    service = live("running", works_and_ends)
    assert events(service) == [
        Event.RUN_SERVICE,
        Event.START_SUCCESSFUL,
        Event.SHUTDOWN,
        Event.SERVICE_STOPPED,
    ]


async def works_and_ends(service: Subject):
    yield command(service, "/bin/true")


# --- A: the state machine


@pytest.mark.parametrize("where", STATES)
def test_a1_and_a2_no_error_inside_the_machinery_leaves_a_state_that_is_not_true(where, monkeypatch):
    """Not even a bug in shem: whatever it is, the instance ends and everything is given back."""
    from shem.service.driver import HandlerDriver

    async def broken(self: Any, *_args: Any) -> None:
        raise RuntimeError("a bug in shem")

    async def break_it(_world: World, _cluster: Any, _service: Subject) -> None:
        monkeypatch.setattr(HandlerDriver, "_send", broken)

    async def then_sends(service: Subject):
        await asyncio.sleep(2)
        yield command(service, "/bin/true")

    service = live(where, then_sends, break_it)
    assert service.state is State.TERMINATED and not service.is_available


def test_a3_a_terminated_activity_does_not_count_as_responsive():
    test_an_activity_that_ends_while_the_handler_is_idle_is_noticed("running")


def test_a4_no_agreement_leaks_where_activities_fail():
    async def story(world: World) -> None:
        world.link.fail("create_activity", times=4)
        async with world.golem() as golem:
            cluster = await golem.run_service(Subject)
            await cluster.wait_until(State.RUNNING, State.TERMINATED, timeout=600)
            assert len([one for one in world.node.agreements.all() if not one.ended]) <= 1

    play(story)


def test_a5_respawning_is_limited_and_slows_down():
    async def story(world: World) -> Service:
        async with world.golem() as golem:
            cluster = await golem.run_service(Subject, instance_params=[{"where": "starting", "body": fails}])
            await cluster.wait_until(State.TERMINATED, timeout=3600)
        return cluster.instances[0]

    service = play(story, respond=programs)
    starts = [r.monotonic for r in service.records if r.event is Event.RUN_SERVICE]
    assert 1 < len(starts) <= 6
    gaps = [later - sooner for sooner, later in pairwise(starts)]
    assert gaps[-1] > gaps[0]


def test_a6_stop_while_pending_is_honoured():
    test_a_stop_while_pending_buys_nothing_and_pending_ends()


def test_a7_a_second_stop_does_not_kill_a_graceful_shutdown():
    async def long_shutdown(service: Subject):
        for _ in range(3):
            await asyncio.sleep(2)
            yield command(service, "/bin/true")
        service.caught.append(ValueError("reached the end"))

    async def stop_again(_world: World, cluster: Any, _service: Subject) -> None:
        cluster.stop()

    service = live("stopping", long_shutdown, stop_again)
    assert len(service.caught) == 1 and service.error is None


def test_a8_stopping_the_cluster_from_a_handler_does_not_deadlock_the_exit():
    async def story(world: World) -> Service:
        class Suicidal(Subject):
            async def run(self):
                holder[0].stop()
                await asyncio.sleep(3600)
                yield self._ctx.new_script()

        holder: list[Any] = []
        async with world.golem() as golem:
            holder.append(await golem.run_service(Suicidal))
            await holder[0].wait_until(State.TERMINATED, timeout=100)
        return holder[0].instances[0]

    assert play(story).error is None


def test_a9_a_stop_and_a_loss_are_seen_during_a_script():
    test_a_stop_takes_effect_at_once_while_a_script_is_executing("running")
    test_an_activity_that_ends_under_a_script_is_lost_and_keeps_its_cause("running")


def test_a10_the_error_of_run_is_still_there_after_a_clean_shutdown():
    service = live("running", raises)
    assert events(service)[-1] is Event.SERVICE_STOPPED and isinstance(service.error, ValueError)


def test_a12_unresponsive_is_entered_and_left_and_no_move_goes_unrecorded():
    async def silence(world: World, _cluster: Any, service: Subject) -> None:
        world.node.faults.vanish(service.provider_id)
        await service.wait_for(State.UNRESPONSIVE)
        await asyncio.sleep(3)
        world.node.faults.recover(service.provider_id)
        await service.wait_for(State.RUNNING)

    service = live("running", idles, silence, unresponsive_grace=120)
    assert path(service)[2:4] == [State.UNRESPONSIVE, State.RUNNING]
    assert service.began.count("run") == 1


def test_a13_two_events_in_one_turn_of_the_loop_are_no_error():
    async def both(world: World, cluster: Any, service: Subject) -> None:
        world.node.faults.kill_activity(await activity_of(service))
        cluster.stop()
        cluster.stop_now()

    assert live("running", works_long, both).state is State.TERMINATED


# --- B: tasks


def test_b1_and_b4_and_b6_no_task_is_left_behind_by_restarts_and_failures():
    """`sim.run` fails on any task that outlives the run; here there are many reasons for one to."""

    async def story(world: World) -> None:
        async with world.golem(settings=settings()) as golem:
            cluster = await golem.run_service(
                Subject, instance_params=[{"where": "starting", "body": fails} for _ in range(3)]
            )
            await asyncio.sleep(20)
            await cluster.stop()

    play(story, respond=programs, providers=6)


def test_b2_the_next_handler_waits_for_the_clean_up_of_the_one_before():
    order: list[str] = []

    async def cleans_up(service: Subject):
        try:
            await asyncio.sleep(100)
            yield command(service, "/bin/true")
        finally:
            await asyncio.sleep(2)
            order.append("cleaned up")

    async def stop(_world: World, cluster: Any, service: Subject) -> None:
        cluster.stop()
        await asyncio.sleep(1)
        order.append(f"shutdown began: {'shutdown' in service.began}")

    live("running", cleans_up, stop)
    assert order == ["shutdown began: False", "cleaned up"]


def test_b2_a_handler_that_swallows_its_cancellation_blocks_neither_stop_nor_exit():
    async def zombie(service: Subject):
        for _ in range(3):
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                service.caught.append(ValueError("swallowed"))
        yield command(service, "/bin/true")

    async def stop(_world: World, cluster: Any, service: Subject) -> None:
        cluster.stop()
        await service.wait_for(State.TERMINATED, timeout=60)

    service = live("running", zombie, stop)
    assert service.caught and "shutdown" in service.began


def test_b3_abandoned_generators_are_closed_at_once():
    closed: list[bool] = []

    async def generator(service: Subject):
        try:
            yield command(service, "/bin/slow")
        finally:
            closed.append(True)

    async def stop(_world: World, cluster: Any, service: Subject) -> None:
        await cluster.stop()
        assert closed == [True]

    live("running", generator, stop)


def test_b5_a_market_that_fails_for_a_while_is_told_of_and_comes_back():
    async def story(world: World) -> list[Any]:
        world.link.fail("demand_events", times=4)
        async with world.golem() as golem:
            cluster = await golem.run_service(Subject)
            await cluster.wait_until(State.RUNNING, timeout=120)
        return world.events

    told = play(story)
    assert [type(event) for event in told if isinstance(event, NodeLost | NodeBack)] == [NodeLost, NodeBack]


def test_b7_a_golem_can_be_made_outside_any_loop_and_used_in_several(monkeypatch):
    monkeypatch.delenv("YAGNA_APPKEY", raising=False)
    from shem import Golem

    golem = Golem(budget=1)
    assert not golem.operative and golem.clusters == []


# --- what is promised to those who wait


def test_no_handle_of_a_failed_script_stays_open_for_ever():
    outcomes: list[str] = []

    async def three(service: Subject):
        script = service._ctx.new_script()
        handles = [script.run("/bin/true"), script.run("/bin/false"), script.run("/bin/true")]
        try:
            yield script
        except ScriptError:
            pass
        for handle in handles:
            try:
                await handle
                outcomes.append("ok")
            except ScriptError as error:
                outcomes.append(type(error).__name__)

    live("running", three)
    assert outcomes == ["ok", "CommandFailed", "CommandSkipped"]


def test_waiting_for_a_state_that_cannot_come_ends_with_the_story():
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(
                Subject, instance_params=[{"where": "starting", "body": raises}]
            )
            with pytest.raises(WaitError, match="a mistake in the service"):
                await cluster.instances[0].wait_for(State.RUNNING)

    play(story)


def test_every_event_has_its_own_time():
    async def story(world: World) -> list[Any]:
        async with world.golem() as golem:
            cluster = await golem.run_service(
                Subject, instance_params=[{"where": "running", "body": works_long}]
            )
            await asyncio.sleep(100)
            await cluster.stop()
        return [event.at for event in world.events]

    times = play(story, respond=programs)
    assert times == sorted(times) and len(set(times)) > 3


def test_an_amount_above_usage_times_price_is_refused_and_nothing_is_marked_paid():
    async def story(world: World) -> tuple[list[Any], Decimal]:
        for provider in world.node.providers:
            world.node.faults.pad_bills(provider.name, Decimal(3))
        async with world.golem() as golem:
            cluster = await golem.run_service(
                Subject, instance_params=[{"where": "running", "body": works_long}]
            )
            await cluster.wait_until(State.RUNNING)
            await asyncio.sleep(50)
        (account,) = golem.accounts
        assert account.refused and account.invoiced is None
        return world.events, account.accepted

    told, accepted = play(story, respond=programs, leftovers=("open_debit_notes", "open_invoices"))
    assert any(isinstance(event, PaymentRefused) for event in told) and accepted == 0


def _unavailable() -> Any:
    from shem.errors import NodeUnavailable

    return NodeUnavailable
