"""Probes of whole clusters, on the simulated network: what they hold back, show and end, and what not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shem import Probe, RestartPolicy, Service, State
from shem.errors import ConfigError, ProbeFailed, WaitError
from shem.events import Phase, PhaseChanged
from shem.lifecycle import Actor, Event
from shem.payload import VmPayload
from shem.service.probing import ASKED_IN
from shem.testing import Reply, World, play

PAYLOAD = VmPayload(image_hash="a" * 56)
AGAIN = RestartPolicy(on="failure", jitter=0)


class Web(Service):
    """Serves until it is stopped; `port` is known once it has started."""

    port: int | None = None

    async def start(self):
        async for script in super().start():
            yield script
        self.port = 8080

    async def reset(self):
        self.port = None


def path(service: Service) -> list[str]:
    return [record.dest.value for record in service.records]


def healthy_after(seconds: float, *, once: str = "/health") -> Callable[[str, Sequence[str]], Reply]:
    """A provider on which a program fails until so many seconds after it was first asked for."""
    first: list[float] = []

    def respond(program: str, _args: Sequence[str]) -> Reply:
        if program != once:
            return Reply()
        now = asyncio.get_running_loop().time()
        first.append(now)
        return Reply(exit_code=0 if now - first[0] >= seconds else 7)

    return respond


# --- startup


def test_instances_are_running_once_their_startup_probes_pass_on_their_providers() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            probe = Probe(command=["/health"], kind="startup", period=2, failures=30)
            cluster = await golem.run_service(Web, num_instances=2, payload=PAYLOAD, probe=probe)
            await cluster.wait_until(State.STARTING)
            await asyncio.sleep(5)
            for service in cluster.instances:
                assert service.state is State.STARTING and service.phase is Phase.PROBING
            await cluster.wait_until(State.RUNNING)
            for service in cluster.instances:
                assert path(service) == ["starting", "running"]
                assert service.records[-1].monotonic - service.records[0].monotonic == pytest.approx(
                    30, abs=2
                )

    play(story, respond=healthy_after(30))


def test_a_start_whose_probe_fails_is_tried_again_on_another_provider() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            asked: list[str] = []

            def check(service: Web) -> bool:
                asked.append(service.provider_name)
                assert service.port == 8080, "reset() and start() have been run"
                return service.provider_name != asked[0]

            probe = Probe(check, kind="startup", period=1, failures=2)
            cluster = await golem.run_service(Web, payload=PAYLOAD, probe=probe)
            await cluster.wait_until(State.RUNNING)
            (service,) = cluster.instances
            assert path(service) == ["starting", "pending", "starting", "running"]
            assert len(asked) == 3 and asked[0] == asked[1] != asked[2]
            retried = service.records[1]
            assert retried.event is Event.RETRY_START and isinstance(retried.cause.error, ProbeFailed)

    play(story)


@pytest.mark.parametrize(
    ("check", "tries"),
    [(lambda service: service.no_such_thing, 1), (lambda _service: False, 3)],
    ids=["a broken check", "a provider's failure"],
)
def test_a_broken_check_is_not_taken_to_other_providers(check: Any, tries: int) -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(
                Web,
                payload=PAYLOAD,
                probe=Probe(check, kind="startup", period=1, failures=1),
                restart=RestartPolicy(attempts=tries if tries > 1 else 5, jitter=0),
            )
            with pytest.raises(WaitError, match="the startup probe failed"):
                await cluster.wait_until_ready()
            (service,) = cluster.instances
            starts = [record for record in service.records if record.dest is State.STARTING]
            assert len(starts) == tries + (tries > 1)

    play(story, providers=8)


def test_the_start_timeout_bounds_handler_and_probe_together() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(
                Web,
                payload=PAYLOAD,
                probe=Probe(lambda _service: False, kind="startup", period=1, failures=1000),
                start_timeout=30,
                respawn_unstarted_instances=False,
            )
            await cluster.wait_until(State.TERMINATED)
            (service,) = cluster.instances
            assert service.records[-1].monotonic - service.records[0].monotonic == pytest.approx(30)
            assert "the startup probe had not passed within 30 s" in service.why()

    play(story)


def test_a_stop_ends_a_start_that_waits_for_its_probe_at_once() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            probe = Probe(lambda _service: asyncio.sleep(50), kind="startup", timeout=100)
            cluster = await golem.run_service(Web, payload=PAYLOAD, probe=probe)
            await cluster.wait_until(State.STARTING)
            await asyncio.sleep(10)
            before = world.clock.monotonic()
            report = await cluster.stop()
            assert report.clean and world.clock.monotonic() - before < 1
            assert path(cluster.instances[0]) == ["starting", "stopping", "terminated"]

    play(story)


# --- readiness


def test_a_cluster_is_ready_when_its_instances_are() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            ready: set[Any] = set()
            probe = Probe(lambda service: service.id in ready, kind="readiness", period=1, failures=1)
            cluster = await golem.run_service(Web, num_instances=3, payload=PAYLOAD, probe=probe)
            await cluster.wait_until(State.RUNNING)
            assert not any(service.is_ready for service in cluster.instances)
            with pytest.raises(TimeoutError):
                await cluster.wait_until_ready(count=1, timeout=30)
            ready.add(cluster.instances[1].id)
            await cluster.wait_until_ready(count=1)
            assert [service.is_ready for service in cluster.instances] == [False, True, False]
            ready.update(service.id for service in cluster.instances)
            await cluster.wait_until_ready()
            assert all(service.phase is Phase.READY for service in cluster.instances)
            ready.clear()
            await asyncio.sleep(2)
            assert all(service.phase is Phase.NOT_READY for service in cluster.instances)
            assert all(service.state is State.RUNNING for service in cluster.instances)
            await cluster.stop()
            assert not any(service.is_ready for service in cluster.instances)
            assert all(
                path(one) == ["starting", "running", "stopping", "terminated"] for one in cluster.current
            )

    play(story)


def test_without_readiness_probes_ready_is_running() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(Web, num_instances=2, payload=PAYLOAD)
            await cluster.wait_until_ready()
            assert all(service.state is State.RUNNING and service.is_ready for service in cluster.instances)

    play(story)


def test_waiting_for_readiness_that_cannot_come_any_more_ends_with_the_stories() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            probe = Probe(lambda _service: False, kind="readiness")
            cluster = await golem.run_service(Web, num_instances=2, payload=PAYLOAD, probe=probe)
            await cluster.wait_until(State.RUNNING)
            waiting = asyncio.ensure_future(cluster.wait_until_ready(count=2))
            await asyncio.sleep(5)
            cluster.stop_instance(cluster.instances[0])
            with pytest.raises(WaitError, match="too few instances can still become ready") as refused:
                await waiting
            assert cluster.instances[0].why() in str(refused.value)

    play(story)


def test_an_instance_that_has_ended_shows_that_it_holds_nothing_any_more() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(Web, num_instances=2, payload=PAYLOAD)
            await cluster.wait_until(State.RUNNING)
            world.link.fail("terminate_agreement", times=100)
            stopping = cluster.stop_instance(cluster.instances[0])
            await asyncio.sleep(1)
            assert cluster.instances[0].phase is Phase.RELEASING
            assert not (await stopping).clean
            assert cluster.instances[0].phase is Phase.RELEASING, "its agreement has not been ended yet"
            world.link.heal()
            await cluster.stop()
            assert cluster.instances[1].phase is Phase.RELEASED
            shown = [event.phase for event in world.events if isinstance(event, PhaseChanged)]
            assert shown[-2:] == [Phase.RELEASING, Phase.RELEASED]
            await asyncio.sleep(60)

    play(story)


# --- liveness


def test_a_service_that_is_found_dead_is_shut_down_and_replaced_where_policy_says_so() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            first: list[Any] = []

            def check(service: Web) -> bool:
                first[:] = first or [service.id]
                return service.id != first[0]

            probe = Probe(check, period=10, failures=3)
            cluster = await golem.run_service(Web, payload=PAYLOAD, probe=probe, restart=AGAIN)
            await cluster.wait_until(State.TERMINATED)
            await cluster.wait_until(State.RUNNING)
            await asyncio.sleep(100)
            dead, alive = cluster.instances
            assert path(dead) == ["starting", "running", "stopping", "terminated"]
            found = dead.records[2]
            assert found.event is Event.SERVICE_ERROR and found.cause.actor is Actor.PROBE
            assert found.monotonic - dead.records[1].monotonic == pytest.approx(20)
            assert alive.state is State.RUNNING and alive.provider_id != dead.provider_id

    play(story)


@pytest.mark.parametrize("way", ["command", "check", "tcp"])
def test_a_silent_provider_makes_its_instance_unresponsive_however_soon_the_probe_would_end_it(
    way: str,
) -> None:
    async def story(world: World) -> None:
        silent = False

        class Reach:
            async def connect(self, _host: str, _port: int) -> None:
                if silent:
                    await asyncio.sleep(1000)

        async with world.golem(reach=Reach()) as golem:
            ways: dict[str, Any] = {
                "command": {"command": ["/health"]},
                "check": {"check": lambda _service: not silent},
                "tcp": {"tcp": lambda service: ("10.0.0.2", service.port)},
            }
            cluster = await golem.run_service(
                Web, payload=PAYLOAD, probe=Probe(**ways[way], period=1, timeout=2, failures=2)
            )
            (service,) = cluster.instances
            await cluster.wait_until(State.RUNNING)
            await asyncio.sleep(30)
            silent = True
            world.node.faults.vanish(service.provider_name)
            await cluster.wait_until(State.UNRESPONSIVE)
            await asyncio.sleep(30)
            silent = False
            world.node.faults.recover(service.provider_name)
            await cluster.wait_until(State.RUNNING)
            await asyncio.sleep(60)
            assert path(service) == ["starting", "running", "unresponsive", "running"]
            assert service.error is None

    play(story)


@pytest.mark.parametrize("way", ["command", "check"])
def test_a_node_that_is_down_says_nothing_about_the_service(way: str) -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            asked: dict[str, Any] = (
                {"command": ["/health"]} if way == "command" else {"check": lambda _service: world.link.up}
            )
            cluster = await golem.run_service(
                Web, payload=PAYLOAD, probe=Probe(**asked, period=1, timeout=2, failures=2)
            )
            await cluster.wait_until(State.RUNNING)
            world.link.up = False
            await asyncio.sleep(120)
            world.link.heal()
            await asyncio.sleep(60)
            assert path(cluster.instances[0]) == ["starting", "running"]

    play(story)


def test_a_sick_service_on_a_provider_that_answers_is_found() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(
                Web, payload=PAYLOAD, probe=Probe(command=["/health"], period=5, failures=2)
            )
            await cluster.wait_until(State.RUNNING)
            await asyncio.sleep(33)
            exit_codes.append(1)
            await cluster.wait_until(State.TERMINATED)
            (service,) = cluster.instances
            error = service.error
            assert isinstance(error, ProbeFailed) and "failed with exit code 1" in str(error)
            assert service.records[2].monotonic - service.records[1].monotonic == pytest.approx(40, abs=1)

    exit_codes = [0]
    play(story, respond=lambda _program, _args: Reply(exit_code=exit_codes[-1]))


# --- the network


def test_tcp_and_http_probes_ask_over_the_reach_that_the_golem_was_given() -> None:
    class Reach:
        asked: list[Any]

        def __init__(self) -> None:
            self.asked = []

        async def connect(self, host: str, port: int) -> None:
            self.asked.append((host, port))

        async def status(self, url: str) -> int:
            self.asked.append(url)
            return 204

    async def story(world: World) -> None:
        reach = Reach()
        async with world.golem(reach=reach) as golem:
            probes = [
                Probe(tcp=lambda service: ("10.0.0.2", service.port), kind="startup"),
                Probe(http=lambda service: f"http://10.0.0.2:{service.port}/ready", kind="readiness"),
            ]
            cluster = await golem.run_service(Web, payload=PAYLOAD, probe=probes)
            await cluster.wait_until_ready()
            assert reach.asked == [("10.0.0.2", 8080), "http://10.0.0.2:8080/ready"]

    play(story)


# --- arguments


@pytest.mark.parametrize("probe", [print, [Probe(print), print], "startup"])
def test_what_is_no_probe_is_refused_before_anything_is_rented(probe: Any) -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            with pytest.raises(ConfigError, match=r"probe must be a shem\.Probe, or several"):
                await golem.run_service(Web, payload=PAYLOAD, probe=probe)
            assert "subscribe" not in world.calls

    play(story)


# --- whatever happens


ANSWER = st.sampled_from([True, True, False, "late", "stubborn", "raises"])
PROBES = st.lists(
    st.tuples(
        st.sampled_from(["startup", "readiness", "liveness"]), st.lists(ANSWER, min_size=1, max_size=6)
    ),
    min_size=1,
    max_size=3,
)
FAULTS = st.lists(
    st.tuples(st.floats(0, 40), st.sampled_from(["vanish", "recover", "kill", "down", "heal", "stop"])),
    max_size=5,
)


@settings(max_examples=60)
@given(PROBES, FAULTS)
def test_whatever_probes_answer_and_whatever_befalls_the_network_all_ends_well(
    drawn: list[tuple[Any, list[Any]]], faults: list[tuple[float, str]]
) -> None:
    faults_found: list[str] = []

    def check_of(kind: str, answers: list[Any]) -> Callable[[Web], Any]:
        asked: dict[Any, int] = {}
        under_way: set[Any] = set()

        async def check(service: Web) -> bool:
            if kind not in ASKED_IN.get(service.state, ()):
                faults_found.append(f"{kind} asked while {service.state.value}")
            if service.id in under_way:
                faults_found.append("two at once")
            under_way.add(service.id)
            number = asked[service.id] = asked.get(service.id, 0) + 1
            answer = answers[number % len(answers)]
            try:
                if answer == "raises":
                    raise ConnectionError("no")
                if answer in ("late", "stubborn"):
                    await asyncio.sleep(5)
            except asyncio.CancelledError:
                await asyncio.sleep(3 if answer == "stubborn" else 0)
                raise
            finally:
                under_way.discard(service.id)
            return bool(answer)

        return check

    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(
                Web,
                num_instances=2,
                payload=PAYLOAD,
                probe=[
                    Probe(check_of(kind, answers), kind=kind, period=3, timeout=2, failures=2)
                    for kind, answers in drawn
                ],
                restart=RestartPolicy(on="failure", attempts=3),
                start_timeout=40,
                unresponsive_grace=20,
            )
            for pause, what in faults:
                await asyncio.sleep(pause)
                service = cluster.current[0]
                match what:
                    case "vanish" if service.provider_name:
                        world.node.faults.vanish(service.provider_name)
                    case "recover":
                        for provider in world.node.providers:
                            world.node.faults.recover(provider.name)
                    case "kill" if service.is_available:
                        world.node.faults.kill_activity(service._ctx.id)
                    case "down":
                        world.link.up = False
                    case "heal":
                        world.link.heal()
                    case "stop":
                        cluster.stop_instance(service)
                for one in cluster.instances:
                    assert not one.is_ready or one.state is State.RUNNING
            world.link.heal()
            for provider in world.node.providers:
                world.node.faults.recover(provider.name)
            await asyncio.sleep(30)
        await asyncio.sleep(60)
        assert faults_found == []
        assert all(one.phase in (Phase.RELEASED, Phase.RELEASING) for one in cluster.instances)

    play(story, providers=6)
