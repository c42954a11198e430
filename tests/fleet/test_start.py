"""Instances that are still to be started: what is tried again, where, how often, and what is not."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from typing import Any

import pytest

from shem import Service, State
from shem.config import PaymentSettings
from shem.devnet.settings import ProviderSettings, Timings
from shem.engine.engine import EngineSettings
from shem.errors import (
    ActivityGone,
    ActivityRefused,
    CommandFailed,
    HandlerTimeout,
    NodeFailure,
    NodeUnavailable,
    NoOffers,
    ServiceDefinitionError,
    WaitError,
)
from shem.events import AgreementFailed, AgreementSigned, PhaseChanged, SlotEnded
from shem.lifecycle import Event
from shem.payload import VmPayload
from shem.service.policy import RestartPolicy
from shem.testing import Reply, World, play

PAYLOAD = VmPayload(image_hash="a" * 56)
NOBODY_FITS = VmPayload(image_hash="a" * 56, min_mem_gib=999.0)
FAST = RestartPolicy(backoff=1.0, jitter=0.0)


def now() -> float:
    return asyncio.get_running_loop().time()


def events_of(service: Service) -> list[Event]:
    return [record.event for record in service.records]


def signed_by(world: World) -> list[str]:
    return [event.provider_name for event in world.events if isinstance(event, AgreementSigned)]


class Starts(Service):
    """Its first `failing` starts run a program that fails."""

    failing = 0
    program = "/fail"

    def __init__(self) -> None:
        self.starts = self.resets = 0

    async def start(self) -> AsyncIterator[Any]:
        self.starts += 1
        async for script in super().start():
            yield script
        if self.starts <= self.failing:
            script = self._ctx.new_script()
            script.run(self.program)
            yield script

    async def reset(self) -> None:
        self.resets += 1


def failing(times: float, base: type[Starts] = Starts) -> type[Starts]:
    return type("Failing", (base,), {"failing": times})


def respond(program: str, _args: Sequence[str]) -> Reply:
    match program:
        case "/fail":
            return Reply(exit_code=1, stderr="no disk")
        case "/hang":
            return Reply(seconds=math.inf)
    return Reply()


# --- in parallel


def test_twenty_instances_take_as_long_as_one() -> None:
    async def take(world: World, count: int) -> float:
        async with world.golem() as golem:
            cluster = await golem.run_service(Service, num_instances=count, payload=PAYLOAD)
            await cluster.wait_until(State.RUNNING)
            return now()

    def story(count: int) -> Any:
        return lambda world: take(world, count)

    setting = {
        "providers": 20,
        "timings": Timings(approval=1.0),
        "create_seconds": 1.0,
        "deploy_seconds": 5.0,
    }
    assert play(story(20), **setting) == pytest.approx(play(story(1), **setting), abs=0.2)


@pytest.mark.parametrize("trouble", ["slow", "refusing", "failing", "gone"])
def test_a_bad_provider_delays_only_the_slot_that_took_it(trouble: str) -> None:
    async def story(world: World) -> None:
        faults = world.node.faults
        match trouble:
            case "slow":
                faults.hesitate("devnet-1", 1000.0)
            case "refusing":
                faults.refuse_next_agreements("devnet-1")
            case "failing":
                world.link.fail("create_activity", NodeFailure)
            case "gone":
                asyncio.get_running_loop().call_later(0.6, lambda: faults.vanish("devnet-1"))
        async with world.golem() as golem:
            cluster = await golem.run_service(Service, num_instances=3, payload=PAYLOAD, restart=FAST)
            await cluster.wait_until(State.RUNNING, count=2)
            assert now() < 2
            # The fourth provider is there for whoever drew the bad one.
            await cluster.wait_until(State.RUNNING)
            assert "devnet-4" in {service.provider_name for service in cluster.instances}
        faults.recover("devnet-1")
        await asyncio.sleep(1)

    play(story, providers=4)


def test_instances_are_spread_over_equal_providers() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(Service, num_instances=5, payload=PAYLOAD)
            await cluster.wait_until(State.RUNNING)
            used = Counter(service.provider_name for service in cluster.instances)
            assert set(used.values()) == {1}

    play(story, providers=[ProviderSettings(max_agreements=5)] * 5)


# --- nobody to rent from


def test_without_offers_an_instance_is_given_up_in_bounded_time_with_a_clear_reason() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(Service, payload=NOBODY_FITS)
            [service] = cluster.instances
            with pytest.raises(WaitError) as caught:
                await cluster.wait_until(State.RUNNING)
            # Five searches of 300 s each, and the pauses between them.
            assert 1500 <= now() <= 1700
            assert events_of(service) == [Event.START_FAILED]
            assert isinstance(service.error, NoOffers)
            assert "0 offers seen" in service.why()
            assert "golem.inf.mem.gib>=999" in str(caught.value)
        [ended] = [event for event in world.events if isinstance(event, SlotEnded)]
        assert ended.reason == ""

    play(story)


@pytest.mark.parametrize("attempts", [1, 2, 4])
def test_the_number_of_searches_is_the_policys_to_limit(attempts: int) -> None:
    async def story(world: World) -> None:
        settings = EngineSettings(PaymentSettings.make(10), offers_within=20.0)
        async with world.golem(settings=settings) as golem:
            restart = RestartPolicy(attempts=attempts, backoff=0.0)
            cluster = await golem.run_service(Service, payload=NOBODY_FITS, restart=restart)
            await cluster.wait_until(State.TERMINATED)
            assert now() == pytest.approx(attempts * 20, abs=1)

    play(story)


def test_an_instance_that_shall_not_be_respawned_searches_once() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(Service, payload=NOBODY_FITS, respawn_unstarted_instances=False)
            await cluster.wait_until(State.TERMINATED)
            assert now() == pytest.approx(300, abs=1)

    play(story)


def test_a_provider_that_comes_later_is_taken() -> None:
    async def story(world: World) -> None:
        world.node.faults.vanish("devnet-1")
        asyncio.get_running_loop().call_later(700, lambda: world.node.faults.recover("devnet-1"))
        async with world.golem() as golem:
            cluster = await golem.run_service(Service, payload=PAYLOAD)
            await cluster.wait_until(State.RUNNING)
            assert 700 <= now() <= 1000

    play(story, providers=1)


def test_an_outage_while_instances_are_pending_costs_only_its_own_time() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(Service, num_instances=3, payload=PAYLOAD)
            await asyncio.sleep(0.55)
            world.link.up = False
            await asyncio.sleep(30)
            world.link.heal()
            began = now()
            await cluster.wait_until(State.RUNNING)
            assert now() - began <= 20
            assert [events_of(service)[-1] for service in cluster.instances] == [Event.START_SUCCESSFUL] * 3

    play(story)


def test_the_phase_tells_what_a_pending_instance_waits_for() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(Service, payload=PAYLOAD)
            await cluster.wait_until(State.RUNNING)
        phases = [event.phase.value for event in world.events if isinstance(event, PhaseChanged)]
        assert phases[:4] == ["negotiating", "agreement", "activity", "handler"]

    play(story)


# --- agreements and activities that do not come about


def test_a_refused_agreement_is_tried_with_the_next_provider_and_costs_nothing() -> None:
    async def story(world: World) -> None:
        world.node.faults.refuse_next_agreements("devnet-1", 10)
        world.node.faults.refuse_next_agreements("devnet-2", 10)
        async with world.golem() as golem:
            cluster = await golem.run_service(Service, payload=PAYLOAD)
            await cluster.wait_until(State.RUNNING)
            assert cluster.instances[0].provider_name == "devnet-3"
            assert now() < 15
        assert signed_by(world) == ["devnet-3"]
        refused = [event.provider_name for event in world.events if isinstance(event, AgreementFailed)]
        assert refused == ["devnet-1", "devnet-2"]

    play(story)


def test_refusals_alone_never_give_an_instance_up() -> None:
    async def story(world: World) -> None:
        for number in range(1, 13):
            world.node.faults.refuse_next_agreements(f"devnet-{number}")
        async with world.golem() as golem:
            cluster = await golem.run_service(Service, payload=PAYLOAD, restart=FAST)
            # Twelve times refused, and when the demand is renewed they are asked again.
            await cluster.wait_until(State.RUNNING)
            assert events_of(cluster.instances[0])[0] is Event.RUN_SERVICE

    play(story, providers=12)


def test_activities_that_are_refused_again_and_again_end_in_a_clear_reason() -> None:
    async def story(world: World) -> None:
        world.link.fail("create_activity", NodeFailure, times=math.inf)
        async with world.golem() as golem:
            restart = RestartPolicy(attempts=2, backoff=1.0)
            cluster = await golem.run_service(Service, payload=PAYLOAD, restart=restart)
            await cluster.wait_until(State.TERMINATED)
            [service] = cluster.instances
            assert isinstance(service.error, ActivityRefused)
            assert "no activity could be had" in service.why()
        # The first try and two more, each on another provider, each agreement given back.
        assert signed_by(world) == ["devnet-1", "devnet-2", "devnet-3"]

    play(story, providers=5)


def test_an_outage_is_not_held_against_the_provider() -> None:
    async def story(world: World) -> None:
        world.link.cut("create_activity")
        async with world.golem() as golem:
            cluster = await golem.run_service(Service, payload=PAYLOAD, restart=FAST)
            await cluster.wait_until(State.RUNNING)
            # Taken again at once, without the delay before a second choice.
            assert now() < 4

    play(story, providers=1)


# --- start() fails


def test_a_failed_command_is_tried_again_on_another_provider_with_a_reset_object() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(failing(2), payload=PAYLOAD, restart=FAST)
            [service] = cluster.instances
            await service.wait_for(State.RUNNING)
            assert cluster.instances == [service]
            assert (service.starts, service.resets) == (3, 2)
            assert events_of(service) == [
                *[Event.RUN_SERVICE, Event.RETRY_START] * 2,
                Event.RUN_SERVICE,
                Event.START_SUCCESSFUL,
            ]
            assert service.error is None
        assert signed_by(world) == ["devnet-1", "devnet-2", "devnet-3"]

    play(story, respond=respond)


def test_before_each_new_start_it_waits_twice_as_long() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            restart = RestartPolicy(backoff=10.0, jitter=0.0, max_backoff=25.0)
            cluster = await golem.run_service(failing(4), payload=PAYLOAD, restart=restart)
            [service] = cluster.instances
            await service.wait_for(State.RUNNING)
            starts = [record.monotonic for record in service.records if record.dest is State.STARTING]
            pauses = [after - before for before, after in pairwise(starts)]
            assert pauses == pytest.approx([10, 20, 25, 25], abs=1)

    play(story, providers=6, respond=respond)


def test_starts_that_fail_again_and_again_end_in_a_clear_reason() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            restart = RestartPolicy(attempts=3, backoff=1.0)
            cluster = await golem.run_service(failing(math.inf), payload=PAYLOAD, restart=restart)
            [service] = cluster.instances
            with pytest.raises(WaitError, match="no disk"):
                await service.wait_for(State.RUNNING)
            assert service.starts == 4
            assert events_of(service)[-1] is Event.START_FAILED
            assert isinstance(service.error, CommandFailed)
            assert len(signed_by(world)) == 4

    play(story, providers=6, respond=respond)


def test_with_the_flag_off_a_failed_start_is_final() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(failing(1), payload=PAYLOAD, respawn_unstarted_instances=False)
            [service] = cluster.instances
            await service.wait_for(State.TERMINATED)
            assert events_of(service) == [Event.RUN_SERVICE, Event.START_FAILED]
            assert (service.starts, service.resets) == (1, 0)

    play(story, respond=respond)


class Raises(Starts):
    async def start(self) -> AsyncIterator[Any]:
        self.starts += 1
        if self.starts <= self.failing:
            raise LookupError("a mistake in the user's own code")
        yield self._ctx.new_script()


class YieldsNone(Starts):
    async def start(self) -> AsyncIterator[Any]:
        self.starts += 1
        yield None


@pytest.mark.parametrize(
    ("service_class", "error"), [(Raises, LookupError), (YieldsNone, ServiceDefinitionError)]
)
def test_an_error_of_the_users_own_code_is_not_paid_for_twice(
    service_class: type[Starts], error: type[Exception]
) -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(failing(1, service_class), payload=PAYLOAD)
            [service] = cluster.instances
            await service.wait_for(State.TERMINATED)
            assert events_of(service) == [Event.RUN_SERVICE, Event.START_FAILED]
            assert isinstance(service.error, error)
            assert service.resets == 0
        assert len(signed_by(world)) == 1

    play(story)


def test_an_error_of_the_users_own_code_is_tried_again_where_that_was_asked_for() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            restart = RestartPolicy(user_errors=True)
            cluster = await golem.run_service(failing(1, Raises), payload=PAYLOAD, restart=restart)
            [service] = cluster.instances
            await service.wait_for(State.RUNNING)
            assert service.resets == 1

    play(story)


# --- reset()


class ResetsBadly(Starts):
    failing = math.inf
    kind = "raises"

    async def reset(self) -> None:
        self.resets += 1
        match self.kind:
            case "raises":
                raise LookupError("cannot forget")
            case "hangs":
                await asyncio.get_running_loop().create_future()
            case "clings":
                for _second in range(60):
                    try:
                        await asyncio.sleep(1)
                    except asyncio.CancelledError:
                        continue


def resetting(kind: str) -> type[ResetsBadly]:
    return type("Resets", (ResetsBadly,), {"kind": kind})


def test_a_reset_that_raises_ends_the_start() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(resetting("raises"), payload=PAYLOAD)
            [service] = cluster.instances
            await service.wait_for(State.TERMINATED)
            assert events_of(service) == [Event.RUN_SERVICE, Event.RETRY_START, Event.START_FAILED]
            assert "reset() raised" in service.why()

    play(story, respond=respond)


def test_a_reset_that_hangs_is_given_up_after_its_budget() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(resetting("hangs"), payload=PAYLOAD)
            [service] = cluster.instances
            await service.wait_for(State.TERMINATED)
            assert 30 <= now() <= 33

    play(story, respond=respond)


@pytest.mark.parametrize("kind", ["hangs", "clings"])
def test_a_reset_that_hangs_does_not_hold_up_a_stop(kind: str) -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(resetting(kind), payload=PAYLOAD)
            await asyncio.sleep(5)
            began = now()
            report = await cluster.stop()
            assert now() - began <= 10
            assert report.clean == (kind == "hangs")
            if kind == "clings":
                assert "reset() of" in report.skipped[0]
                # It is left behind, and ends when it pleases.
                await asyncio.sleep(60)

    play(story, respond=respond)


# --- what the provider does while it starts


def test_a_start_that_takes_too_long_is_tried_on_another_provider() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            slow = type("Slow", (Starts,), {"failing": 1, "program": "/hang"})
            cluster = await golem.run_service(slow, payload=PAYLOAD, start_timeout=50.0, restart=FAST)
            [service] = cluster.instances
            await service.wait_for(State.RUNNING)
            assert 50 <= now() <= 55
            assert events_of(service)[:2] == [Event.RUN_SERVICE, Event.RETRY_START]
            cause = service.records[1].cause
            assert cause.reason == "start() overran its budget"
            assert isinstance(cause.error, HandlerTimeout)
            assert service.resets == 1
        assert signed_by(world) == ["devnet-1", "devnet-2"]

    play(story, respond=respond)


def test_a_start_that_takes_too_long_is_final_with_the_flag_off() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(
                Service, payload=PAYLOAD, start_timeout=50.0, respawn_unstarted_instances=False
            )
            [service] = cluster.instances
            await service.wait_for(State.TERMINATED)
            assert events_of(service) == [Event.RUN_SERVICE, Event.START_FAILED]
            assert isinstance(service.error, HandlerTimeout)

    play(story, deploy_seconds=1e6)


@pytest.mark.parametrize("respawn", [True, False])
@pytest.mark.parametrize("what", ["killed", "agreement ended", "silent", "hanging"])
def test_a_provider_lost_while_starting_is_replaced_where_that_is_wanted(what: str, respawn: bool) -> None:
    async def story(world: World) -> None:
        faults = world.node.faults
        async with world.golem() as golem:
            cluster = await golem.run_service(
                Starts,
                payload=PAYLOAD,
                respawn_unstarted_instances=respawn,
                unresponsive_grace=10.0,
                restart=FAST,
            )
            [service] = cluster.instances
            await service.wait_for(State.STARTING)
            activity = world.node.activities.find(service._ctx.id)
            match what:
                case "killed":
                    faults.kill_activity(activity.id)
                case "agreement ended":
                    faults.terminate_agreement(activity.agreement.id)
                case "silent":
                    faults.vanish("devnet-1")
                case "hanging":
                    faults.hang_activity(activity.id)
            await service.wait_for(State.PENDING, State.TERMINATED)
            events = events_of(service)
            assert events[0] is Event.RUN_SERVICE
            assert {
                "killed": [Event.ACTIVITY_LOST],
                "agreement ended": [Event.AGREEMENT_TERMINATED],
                "silent": [Event.PROVIDER_UNRESPONSIVE, Event.UNRESPONSIVE_TIMEOUT],
                "hanging": [Event.PROVIDER_UNRESPONSIVE, Event.ACTIVITY_LOST],
            }[what] == events[1:]
            if respawn:
                await service.wait_for(State.RUNNING)
                assert (service.starts, service.resets, service.provider_name) == (2, 1, "devnet-2")
            else:
                assert service.state is State.TERMINATED
            faults.recover("devnet-1")
            await asyncio.sleep(10)

    play(story, deploy_seconds=30.0, providers=2)


def test_a_start_that_survived_a_silence_goes_on_where_it_was() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(Starts, payload=PAYLOAD)
            [service] = cluster.instances
            await service.wait_for(State.STARTING)
            world.node.faults.vanish("devnet-1")
            await service.wait_for(State.UNRESPONSIVE)
            await asyncio.sleep(60)
            world.node.faults.recover("devnet-1")
            await service.wait_for(State.RUNNING)
            assert (service.starts, service.resets) == (1, 0)
            assert events_of(service) == [
                Event.RUN_SERVICE,
                Event.PROVIDER_UNRESPONSIVE,
                Event.PROVIDER_RECOVERED,
                Event.START_SUCCESSFUL,
            ]

    play(story, deploy_seconds=30.0)


def test_an_activity_that_dies_under_a_script_is_lost_and_not_the_users_fault() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            slow = type("Slow", (Starts,), {"failing": 1, "program": "/hang"})
            cluster = await golem.run_service(slow, payload=PAYLOAD, restart=FAST)
            [service] = cluster.instances
            await service.wait_for(State.STARTING)
            await asyncio.sleep(5)
            world.node.faults.kill_activity(service._ctx.id, "out of memory")
            await service.wait_for(State.RUNNING)
            lost = service.records[1]
            assert lost.event is Event.ACTIVITY_LOST
            assert "out of memory" in str(lost.cause)
            assert lost.cause.error is None or isinstance(lost.cause.error, ActivityGone)

    play(story, respond=respond)


def test_an_unreachable_node_is_no_reason_to_start_anew() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(Starts, payload=PAYLOAD)
            [service] = cluster.instances
            await service.wait_for(State.STARTING)
            world.link.fail("*", NodeUnavailable, times=60)
            await service.wait_for(State.RUNNING)
            assert service.starts == 1

    play(story, deploy_seconds=30.0)
