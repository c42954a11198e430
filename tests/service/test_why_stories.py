"""What `why()` tells of whole lives, word for word, in virtual time: read these as a user would."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shem.events import ExpectationChanged, InstanceCreated, InstanceMoved, SlotEnded
from shem.ids import InstanceId
from shem.lifecycle import Expectation, State, Step, Story
from shem.lifecycle.story import span
from shem.payload import VmPayload
from shem.service.policy import RestartPolicy
from shem.service.probe import Probe
from shem.service.service import Service
from shem.testing import Reply, World, play
from shem.testing.sim import EPOCH

AGAIN = RestartPolicy(on="failure", jitter=0)


class Demo(Service):
    """Prepares something, works for ten minutes, cleans up."""

    @staticmethod
    async def get_payload():
        return VmPayload(image_hash="a" * 56)

    async def start(self):
        async for script in super().start():
            yield script
        script = self._ctx.new_script()
        script.run("/bin/prepare")
        yield script

    async def run(self):
        await asyncio.sleep(600)
        script = self._ctx.new_script()
        script.run("/bin/work")
        yield script

    async def shutdown(self):
        script = self._ctx.new_script()
        script.run("/bin/finish")
        yield script
        async for script in super().shutdown():
            yield script


def told(story: Callable[[World], Any], *leftovers: str, **world: Any) -> list[str]:
    """What a story has written down, with A, B, C … for the ids of instances, in the order they were made."""
    made: list[InstanceId] = []

    async def whole(stage: World) -> Any:
        texts = await story(stage)
        made.extend(event.instance for event in stage.events if isinstance(event, InstanceCreated))
        return texts

    texts = play(whole, leftovers=leftovers, create_seconds=0.5, deploy_seconds=2, **world)
    for letter, identifier in zip("ABCDEFGH", made, strict=False):
        texts = [text.replace(identifier, letter) for text in texts]
    return texts


def lines(text: str) -> str:
    return dedent(text).strip("\n")


def failing(*programs: str, times: int = 1000) -> Callable[[str, Sequence[str]], Reply]:
    """Programs that fail, the first so many times; others succeed."""
    left = dict.fromkeys(programs, times)

    def respond(program: str, _args: Sequence[str]) -> Reply:
        if left.get(program, 0) > 0:
            left[program] -= 1
            return Reply(exit_code=3, stderr="no space\n  left on device\n")
        return Reply()

    return respond


def test_a_good_life() -> None:
    async def story(world: World) -> list[str]:
        async with world.golem() as golem:
            cluster = await golem.run_service(Demo)
            (service,) = cluster.instances
            said = [service.why()]
            for state in (State.STARTING, State.RUNNING, State.STOPPING):
                await cluster.wait_until(state)
                await asyncio.sleep(0.25)
                said.append(service.why())
            await cluster.wait_until(State.TERMINATED)
            await cluster.stop()
            return [*said, service.why()]

    assert told(story, respond=lambda program, _args: Reply(seconds=4)) == [
        lines("""
            Demo A (slot 0) is pending
              next: a provider is looked for
        """),
        lines("""
            Demo A (slot 0) is starting on devnet-1 (deploying)
              00:00:01  1. pending → starting by RunService — engine: activity on devnet-1
              next: start() must end by 00:10:01 UTC (in 10 min)
        """),
        lines("""
            Demo A (slot 0) is running on devnet-1 (handler)
              00:00:01  1. pending → starting by RunService — engine: activity on devnet-1
              00:00:07  2. starting → running by StartSuccessful — handler: start() is exhausted
              next: run() goes on; it is stopped, before its agreement expires, at 02:58:55 UTC (in 2 h 58 min)
        """),  # noqa: E501  # one step, one line
        lines("""
            Demo A (slot 0) is stopping on devnet-1 (script)
              00:00:01  1. pending → starting by RunService — engine: activity on devnet-1
              00:00:07  2. starting → running by StartSuccessful — handler: start() is exhausted
              00:10:11  3. running → stopping by Shutdown — handler: run() is exhausted
              next: shutdown() must end by 00:11:11 UTC (in 1 min)
        """),
        lines("""
            Demo A (slot 0) is terminated on devnet-1 (released)
              00:00:01  1. pending → starting by RunService — engine: activity on devnet-1
              00:00:07  2. starting → running by StartSuccessful — handler: start() is exhausted
              00:10:11  3. running → stopping by Shutdown — handler: run() is exhausted
              00:10:15  4. stopping → terminated by ServiceStopped — handler: shutdown() is exhausted
              next: nothing; its slot stays empty: it has finished
        """),
    ]


def test_a_start_that_is_tried_again() -> None:
    async def story(world: World) -> list[str]:
        async with world.golem() as golem:
            cluster = await golem.run_service(Demo, restart=RestartPolicy(jitter=0, backoff=30))
            (service,) = cluster.instances
            await cluster.wait_until(State.STARTING)
            await asyncio.sleep(12)
            said = [service.why()]
            await cluster.wait_until(State.RUNNING)
            await cluster.stop()
            return [*said, service.why()]

    waiting, ended = told(story, respond=failing("/bin/prepare", times=1))
    failure = (
        "start() raised (CommandFailed: command 0 (run /bin/prepare) failed with exit code 3: "
        "ExeScript command exited with code 3; it wrote: no space left on device)"
    )
    first = [
        "  00:00:01  1. pending → starting by RunService — engine: activity on devnet-1",
        f"  00:00:03  2. starting → pending by RetryStart — supervisor: {failure}",
    ]
    assert waiting.splitlines() == [
        "Demo A (slot 0) is pending (waiting)",
        *first,
        "  next: another provider is tried at 00:00:33 UTC (in 20 s)",
    ]
    assert ended.splitlines() == [
        "Demo A (slot 0) is terminated on devnet-2 (released)",
        *first,
        "  00:00:33  3. pending → starting by RunService — engine: activity on devnet-2",
        "  00:00:35  4. starting → running by StartSuccessful — handler: start() is exhausted",
        "  00:00:35  5. running → stopping by Shutdown — user: the cluster was stopped",
        "  00:00:35  6. stopping → terminated by ServiceStopped — handler: shutdown() is exhausted",
        "  next: nothing; its slot stays empty: it was stopped",
    ]


def test_a_crash_loop_and_its_end() -> None:
    class Crashing(Demo):
        async def run(self):
            await asyncio.sleep(60)
            script = self._ctx.new_script()
            script.run("/bin/work")
            yield script

    async def story(world: World) -> list[str]:
        async with world.golem() as golem:
            cluster = await golem.run_service(
                Crashing, restart=RestartPolicy(on="failure", attempts=1, backoff=30, jitter=0)
            )
            await cluster.wait_until(State.TERMINATED)
            await asyncio.sleep(5)
            said = [cluster.instances[0].why()]
            await asyncio.sleep(200)
            (ended,) = (event for event in world.events if isinstance(event, SlotEnded))
            return [*said, *(service.why() for service in cluster.instances), ended.reason]

    failure = (
        "handler: run() raised (CommandFailed: command 0 (run /bin/work) failed with exit code 3: "
        "ExeScript command exited with code 3; it wrote: no space left on device)"
    )
    life = (
        "  00:00:01  1. pending → starting by RunService — engine: activity on devnet-1\n"
        "  00:00:03  2. starting → running by StartSuccessful — handler: start() is exhausted\n"
        f"  00:01:03  3. running → stopping by ServiceError — {failure}\n"
        "  00:01:03  4. stopping → terminated by ServiceStopped — handler: shutdown() is exhausted\n"
    )
    first, then, last, reason = told(story, respond=failing("/bin/work"))
    assert first == (
        f"Crashing A (slot 0) is terminated on devnet-1 (released)\n{life}"
        f"  next: a new instance takes its place at 00:01:33 UTC (in 25 s)"
    )
    assert then == (
        f"Crashing A (slot 0) is terminated on devnet-1 (released)\n{life}"
        f"  next: instance B has taken its place"
    )
    assert last == (
        "Crashing B (slot 0), which replaced A, is terminated on devnet-2 (released)\n"
        "  00:01:33  1. pending → starting by RunService — engine: activity on devnet-2\n"
        "  00:01:35  2. starting → running by StartSuccessful — handler: start() is exhausted\n"
        f"  00:02:35  3. running → stopping by ServiceError — {failure}\n"
        "  00:02:35  4. stopping → terminated by ServiceStopped — handler: shutdown() is exhausted\n"
        "  next: nothing; its slot stays empty: it was tried again once within 600 s: handler: run() "
        "raised (CommandFailed: command 0 (run /bin/work) failed with exit code 3: ExeScript command "
        "exited with …"
    )
    assert " ".join(reason.split()) == f"it was tried again once within 600 s: {failure}"


def test_what_went_wrong_first_is_why_a_slot_stays_empty_whatever_followed_from_it() -> None:
    class Crashing(Demo):
        async def run(self):
            script = self._ctx.new_script()
            script.run("/bin/work")
            yield script

    async def story(world: World) -> list[str]:
        async with world.golem() as golem:
            policy = RestartPolicy(on="failure", attempts=1, jitter=0)
            cluster = await golem.run_service(Crashing, restart=policy)
            await asyncio.sleep(60)
            return [cluster.instances[-1].why()]

    (said,) = told(story, respond=failing("/bin/work", "/bin/finish"))
    work, finish, outlook = said.splitlines()[3:]
    assert "running → stopping by ServiceError — handler: run() raised" in work
    assert "stopping → terminated by ServiceError — handler: shutdown() raised" in finish
    assert "it was tried again once within 600 s: handler: run() raised (CommandFailed: command 0" in outlook


def test_an_agreement_that_its_provider_ended_with_a_reason() -> None:
    async def story(world: World) -> list[str]:
        async with world.golem() as golem:
            cluster = await golem.run_service(Demo)
            (service,) = cluster.instances
            await cluster.wait_until(State.RUNNING)
            await asyncio.sleep(60)
            agreement = service.instance.lease.agreement.id
            world.node.faults.terminate_agreement(agreement, "maintenance window")
            await cluster.wait_until(State.TERMINATED)
            await cluster.stop()
            return [service.why()]

    assert told(story) == [
        lines("""
            Demo A (slot 0) is terminated on devnet-1 (released)
              00:00:01  1. pending → starting by RunService — engine: activity on devnet-1
              00:00:03  2. starting → running by StartSuccessful — handler: start() is exhausted
              00:01:03  3. running → terminated by AgreementTerminated — provider: the provider ended the agreement: Shutdown: maintenance window
              next: nothing; its slot stays empty: restart is 'never'
        """)  # noqa: E501  # one step, one line
    ]


def test_a_provider_that_falls_silent_and_is_given_up() -> None:
    async def story(world: World) -> list[str]:
        async with world.golem() as golem:
            cluster = await golem.run_service(Demo, restart=AGAIN)
            (service,) = cluster.instances
            await cluster.wait_until(State.RUNNING)
            world.node.faults.vanish(service.provider_name)
            await cluster.wait_until(State.UNRESPONSIVE)
            await asyncio.sleep(20)
            said = [service.why()]
            await service.wait_for(State.TERMINATED)
            await asyncio.sleep(1)
            said.append(service.why())
            await asyncio.sleep(20)
            return [*said, service.why()]

    silent, given_up, replaced = told(story, "live_activities", "invoices_to_come")
    *moves, outlook = silent.splitlines()
    assert moves[0] == "Demo A (slot 0) is unresponsive on devnet-1"
    assert moves[3].startswith(
        "  00:00:25  3. running → unresponsive by ProviderUnresponsive — probe: no sign of life for 22 s: "
    )
    assert outlook == "  next: given up unless the provider answers by 00:02:25 UTC (in 1 min 40 s)"
    move = (
        "  00:02:25  4. unresponsive → terminated by UnresponsiveTimeout — clock: the grace period is over "
        "(ProviderSilent: the provider was silent for 120 s more)"
    )
    assert given_up.splitlines()[4:] == [move, "  next: its activity and agreement are being ended"]
    assert replaced.splitlines()[-1] == "  next: instance B has taken its place"


def test_a_provider_that_falls_silent_and_is_heard_again() -> None:
    async def story(world: World) -> list[str]:
        async with world.golem() as golem:
            cluster = await golem.run_service(Demo)
            (service,) = cluster.instances
            await cluster.wait_until(State.RUNNING)
            world.node.faults.vanish(service.provider_name)
            await cluster.wait_until(State.UNRESPONSIVE)
            world.node.faults.recover(service.provider_name)
            await cluster.wait_until(State.RUNNING)
            await asyncio.sleep(0.1)
            return [service.why()]

    (said,) = told(story)
    assert said.splitlines()[-2:] == [
        "  00:00:30  4. unresponsive → running by ProviderRecovered — probe: it answers again",
        "  next: run() goes on; it is stopped, before its agreement expires, at 02:58:55 UTC (in 2 h 58 min)",
    ]


def test_a_stop_while_pending() -> None:
    async def story(world: World) -> list[str]:
        async with world.golem() as golem:
            cluster = await golem.run_service(Demo, num_instances=2)
            await asyncio.sleep(0.2)
            said = [cluster.instances[0].why()]
            await cluster.stop_instance(cluster.instances[0], "not needed after all")
            said.append(cluster.instances[0].why())
            return said

    assert told(story) == [
        lines("""
            Demo A (slot 0) is pending (negotiating)
              next: an acceptable offer is waited for until 00:05:00 UTC (in 5 min)
        """),
        lines("""
            Demo A (slot 0) is terminated (released)
              00:00:00  1. pending → terminated by Shutdown — user: not needed after all
              next: nothing; its slot stays empty: it was stopped
        """),
    ]


def test_nobody_offers_anything() -> None:
    async def story(world: World) -> list[str]:
        async with world.golem() as golem:
            cluster = await golem.run_service(Demo, restart=RestartPolicy(attempts=2, backoff=30, jitter=0))
            (service,) = cluster.instances
            await asyncio.sleep(310)
            said = [service.why()]
            await cluster.wait_until(State.TERMINATED)
            await cluster.stop()
            return [*said, service.why()]

    waiting, ended = told(story, providers=0)
    assert waiting == lines("""
        Demo A (slot 0) is pending (waiting)
          next: tried again, after no acceptable offer within 300 s: 0 offers seen; constraints: (&(golem.node.debug.subnet=public) …, at 00:05:30 UTC (in 20 s)
    """)  # noqa: E501  # one line is what is tested
    headline, move, outlook = ended.splitlines()
    assert headline == "Demo A (slot 0) is terminated (released)"
    assert move.startswith(
        "  00:10:30  1. pending → terminated by StartFailed — supervisor: no activity could be had (NoOff"
    )
    assert outlook == "  next: nothing; its slot stays empty: it could not be started"


def test_an_error_of_the_service_s_own() -> None:
    class Wrong(Demo):
        async def run(self):
            await asyncio.sleep(3)
            raise ValueError("observations.json has no field 'mean'")
            yield

    async def story(world: World) -> list[str]:
        async with world.golem() as golem:
            cluster = await golem.run_service(Wrong, restart=AGAIN)
            await cluster.wait_until(State.TERMINATED)
            await asyncio.sleep(10)
            return [service.why() for service in cluster.instances]

    assert told(story) == [
        lines("""
            Wrong A (slot 0) is terminated on devnet-1 (released)
              00:00:01  1. pending → starting by RunService — engine: activity on devnet-1
              00:00:03  2. starting → running by StartSuccessful — handler: start() is exhausted
              00:00:06  3. running → stopping by ServiceError — handler: run() raised (ValueError: observations.json has no field 'mean')
              00:00:06  4. stopping → terminated by ServiceStopped — handler: shutdown() is exhausted
              next: nothing; its slot stays empty: user errors are not tried again: observations.json has no field 'mean'
        """)  # noqa: E501  # one step, one line
    ]


def test_a_service_that_never_comes_up_and_a_start_that_takes_too_long() -> None:
    async def story(world: World) -> list[str]:
        async with world.golem() as golem:
            probe = Probe(lambda _service: False, kind="startup", period=20, failures=9)
            cluster = await golem.run_service(
                Demo, probe=probe, start_timeout=60, respawn_unstarted_instances=False
            )
            (service,) = cluster.instances
            await asyncio.sleep(20)
            said = [service.why()]
            await cluster.wait_until(State.TERMINATED)
            await cluster.stop()
            return [*said, service.why()]

    assert told(story) == [
        lines("""
            Demo A (slot 0) is starting on devnet-1 (probing)
              00:00:01  1. pending → starting by RunService — engine: activity on devnet-1
              next: start() must end, and the startup probe pass, by 00:01:01 UTC (in 41 s)
        """),
        lines("""
            Demo A (slot 0) is terminated on devnet-1 (released)
              00:00:01  1. pending → starting by RunService — engine: activity on devnet-1
              00:01:01  2. starting → terminated by StartFailed — supervisor: start() overran its budget (HandlerTimeout: the startup probe had not passed within 60 s)
              next: nothing; its slot stays empty: it could not be started
        """),  # noqa: E501  # one step, one line
    ]


# --- the rules behind the words


def test_in_every_state_something_is_expected_and_no_deadline_is_missed() -> None:
    async def story(world: World) -> list[str]:
        async with world.golem() as golem:
            cluster = await golem.run_service(
                Demo, num_instances=3, restart=AGAIN, start_timeout=10, stop_timeout=5, unresponsive_grace=15
            )
            await cluster.wait_until(State.RUNNING)
            one, two, three = cluster.instances
            world.node.faults.vanish(one.provider_name)
            world.node.faults.kill_activity(two.instance.lease.activity_id)
            await asyncio.sleep(60)
            await cluster.stop_instance(three)
            await cluster.stop()
        last: dict[str, InstanceMoved | ExpectationChanged] = {}
        for event in world.events:
            if not isinstance(event, InstanceMoved | ExpectationChanged):
                continue
            match last.get(event.instance):
                case InstanceMoved(at=moved) as before:
                    assert event.at <= moved + timedelta(seconds=1), before
                case ExpectationChanged(expects=Expectation(at=until)) as before if until is not None:
                    assert event.at <= until + timedelta(seconds=1), before
            last[event.instance] = event
        assert len(last) == 5
        for event in last.values():
            assert isinstance(event, ExpectationChanged) and event.expects.at is None, "the end of its story"
        return []

    told(story, "live_activities", "invoices_to_come", providers=6, respond=lambda *_: Reply(seconds=1))


def test_a_move_makes_what_was_expected_void_and_the_same_expectation_is_told_once() -> None:
    async def story(world: World) -> list[str]:
        async with world.golem() as golem:
            cluster = await golem.run_service(Demo)
            await cluster.wait_until(State.RUNNING)
            instance = cluster.instances[0].instance
            expectation = Expectation("a pause until", EPOCH + timedelta(hours=1))
            instance.expect(expectation)
            instance.expect(Expectation("a pause until", EPOCH + timedelta(hours=1)))
            assert instance.expects is expectation
            cluster.stop()
            assert instance.expects is None
            await cluster.stop()
        told_of = [event.expects for event in world.events if isinstance(event, ExpectationChanged)]
        assert told_of.count(expectation) == 1
        return []

    told(story)


@given(st.floats(0, 10**7, allow_nan=False))
def test_a_length_of_time_is_told_within_its_last_unit(seconds: float) -> None:
    sizes = {"d": 86400, "h": 3600, "min": 60, "s": 1}
    words = span(seconds).split()
    parts = [(float(amount), unit) for amount, unit in zip(words[::2], words[1::2], strict=True)]
    assert 1 <= len(parts) <= 2
    smallest = sizes[parts[-1][1]]
    if len(parts) == 1 and parts[0][1] in ("min", "h", "d"):
        # The lesser unit was zero.
        smallest = {"min": 1, "h": 60, "d": 3600}[parts[0][1]]
    back = sum(amount * sizes[unit] for amount, unit in parts)
    assert abs(back - seconds) <= smallest + 0.5


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0.0 s"),
        (0.44, "0.4 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (61, "1 min 1 s"),
        (3599.7, "1 h"),
        (10730, "2 h 58 min"),
        (90061, "1 d 1 h"),
    ],
)
def test_lengths_of_time(seconds: float, words: str) -> None:
    assert span(seconds) == words


def test_dates_are_written_out_where_days_differ() -> None:
    night, morning = EPOCH + timedelta(hours=23), EPOCH + timedelta(hours=31)
    one_day = Story(
        "Demo A", "running", steps=(Step(night, "1. …"),), expects=Expectation("stopped at", morning)
    )
    assert one_day.told().splitlines()[1:] == [
        "  23:00:00  1. …",
        "  next: stopped at 2030-01-02 07:00:00 UTC",
    ]
    two_days = Story("Demo A", "running", steps=(Step(night, "1. …"), Step(morning, "2. …")))
    assert two_days.told().splitlines()[1:] == ["  2030-01-01 23:00:00  1. …", "  2030-01-02 07:00:00  2. …"]


def test_a_moment_that_has_passed_is_told_without_how_far_ahead_it_is() -> None:
    late = Expectation("an answer is expected by", EPOCH)
    assert late.told(day=EPOCH.date(), now=EPOCH) == "an answer is expected by 00:00:00 UTC"
    assert str(late) == "an answer is expected by 2030-01-01 00:00:00 UTC"
