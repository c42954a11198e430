"""The instance: its gate, its records, and waiting for what it will become."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shem.errors import CommandFailed, IllegalEvent, WaitError
from shem.events import InstanceMoved, Phase
from shem.lifecycle import SERVICE, Actor, Cause, Event, Expectation, Machine, State, reachable
from shem.service.instance import MACHINE
from shem.service.service import Service
from shem.testing.sim import EPOCH, run


class Patient(Service):
    """Starts at once, runs until it is stopped, and shuts down for two seconds."""

    async def start(self):
        for _nothing in ():
            yield _nothing

    async def shutdown(self):
        await asyncio.sleep(2)
        for _nothing in ():
            yield _nothing


# --- the gate and its records


@given(st.lists(st.tuples(st.sampled_from(Event), st.sampled_from(Actor), st.booleans()), max_size=25))
def test_whatever_is_fired_the_records_are_a_path_of_the_table_without_gaps(
    stage: type[Any], fired: list[tuple[Event, Actor, bool]]
) -> None:
    async def main() -> None:
        one = stage(Patient)
        for event, actor, retry in fired:
            one.policy.retries = int(retry)
            before, state = len(one.instance.records), one.state
            if event is Event.RUN_SERVICE and actor is Actor.ENGINE and state is State.PENDING:
                one.provide()
                moved = True
            else:
                if event is Event.ACTIVITY_LOST and one.instance.lease is not None:
                    one.lease.loss = Cause(Actor.PROVIDER, "gone")
                try:
                    moved = one.fire(event, actor)
                except IllegalEvent as error:
                    moved = False
                    assert error.subject == "instance i1"
            assert len(one.instance.records) == before + moved
            assert moved or one.state is state
            if one.state is State.PENDING:
                one.instance.give_up_lease()
        here = SERVICE.initial
        for seq, record in enumerate(one.instance.records, 1):
            assert record.seq == seq and record.source is here and record.subject == "i1"
            assert any(move.dest is record.dest for move in SERVICE.cell(here, record.event).moves)
            assert record.cause.actor in SERVICE.raised_by[record.event]
            here = record.dest
        assert one.state is here
        assert [event.record for event in one.heard(InstanceMoved)] == list(one.instance.records)
        await one.end()

    run(main)


def test_a_record_tells_when_and_by_both_clocks(stage: type[Any]) -> None:
    async def main() -> None:
        one = stage(Patient)
        await asyncio.sleep(90)
        one.provide()
        record = one.last
        assert (record.at - EPOCH).total_seconds() == record.monotonic == 90
        with pytest.raises(dataclasses.FrozenInstanceError):
            record.seq = 2
        assert str(record) == "1. pending → starting by RunService — engine: an activity is ready"
        await one.end()

    run(main)


def test_all_instances_share_one_machine_and_answer_from_it(stage: type[Any]) -> None:
    async def main() -> None:
        one, other = stage(Patient), stage(Patient)
        assert one.instance.machine is other.instance.machine is MACHINE
        assert isinstance(MACHINE, Machine) and MACHINE.table is SERVICE
        one.provide()
        for instance in (one.instance, other.instance):
            assert set(instance.open_events()) == {event for event in Event if instance.can(event)}
            assert instance.open_events() == SERVICE.open_events(instance.state)
        await one.end()
        assert one.instance.open_events() == () and not any(map(one.instance.can, Event))

    run(main)


def test_the_guards_read_what_they_are_named_after(stage: type[Any]) -> None:
    async def main() -> None:
        one = stage(Patient, retries=1)
        instance = one.instance
        assert not instance.activity_available
        one.provide()
        assert instance.activity_available and instance.may_retry
        for guard, state in (("was_starting", State.STARTING), ("was_running", State.RUNNING)):
            await one.until(state)
            one.silence()
            assert [
                name for name in ("was_starting", "was_running", "was_stopping") if getattr(instance, name)
            ] == [guard]
            one.recover()
        one.lease.loss = Cause(Actor.PROVIDER, "gone")
        assert not instance.activity_available
        one.policy.retries = 0
        assert not instance.may_retry
        await one.end()

    run(main)


def test_policy_is_asked_with_the_error_that_ended_the_start(stage: type[Any]) -> None:
    class Demo(Patient):
        async def start(self):
            script = self._ctx.new_script()
            script.run("fail", "3")
            yield script

    async def main() -> None:
        one = stage(Demo, retries=1)
        one.provide()
        await one.until(State.PENDING)
        assert isinstance(one.policy.asked[-1], CommandFailed)
        lost = ConnectionError("cut")
        one.provide()
        one.lose(lost)
        assert one.policy.asked[-1] is lost
        assert one.instance.starts == 2
        await one.end()

    run(main)


def test_the_context_and_the_handlers_are_of_the_present_activity(stage: type[Any]) -> None:
    class Demo(Patient):
        async def start(self):
            script = self._ctx.new_script()
            script.run("say" if self._ctx.id.endswith("2") else "fail", "1")
            yield script

    async def main() -> None:
        one = stage(Demo, retries=1)
        assert one.service.provider_name is None
        one.provide()
        await one.until(State.PENDING)
        assert one.service.provider_name == "provider 1", "the last one stays readable"
        one.instance.give_up_lease()
        one.provide()
        await one.until(State.RUNNING)
        assert one.service.provider_name == "provider 2"
        assert one.service.provider_id == "0xprovider2" and one.service._ctx is one.instance.context
        assert one.leases[0].ran == [] and one.leases[1].ran == ["run say 1"]
        await one.end()

    run(main)


def test_progress_inside_a_state_ends_with_the_state(stage: type[Any]) -> None:
    async def main() -> None:
        one = stage(Patient)
        one.instance.set_phase(Phase.NEGOTIATING, "3 offers")
        one.instance.expect(Expectation("an offer is waited for until", EPOCH + timedelta(seconds=90)))
        assert one.service.phase is Phase.NEGOTIATING
        assert "next: an offer is waited for until 00:01:30 UTC (in 1 min 30 s)" in one.instance.why()
        one.provide()
        assert one.service.phase is None and one.instance.expects is None
        await asyncio.sleep(1)
        assert one.service.phase is Phase.HANDLER
        await one.end()
        assert one.service.phase is None

    run(main)


# --- its error


def test_its_error_is_the_first_that_led_off_the_path_of_success(stage: type[Any]) -> None:
    class Demo(Patient):
        async def run(self):
            raise ValueError("first")
            yield

        async def shutdown(self):
            raise ValueError("second")
            yield

    async def main() -> None:
        one = stage(Demo)
        assert one.service.error is None
        one.provide()
        await one.until(State.TERMINATED)
        assert str(one.service.error) == "first"

    run(main)


def test_an_error_of_an_earlier_start_is_forgotten_with_it(stage: type[Any]) -> None:
    async def main() -> None:
        one = stage(Patient, retries=1)
        one.provide()
        one.fire(Event.PROVIDER_UNRESPONSIVE, error=TimeoutError("no answer"))
        assert str(one.instance.error) == "no answer"
        one.fire(Event.UNRESPONSIVE_TIMEOUT, error=TimeoutError("for too long"))
        assert one.state is State.PENDING and one.instance.error is None
        one.provide()
        await one.until(State.RUNNING)
        assert one.instance.error is None
        await one.end()

    run(main)


def test_a_stop_by_the_user_is_no_error(stage: type[Any]) -> None:
    async def main() -> None:
        one = stage(Patient)
        one.provide()
        await one.until(State.RUNNING)
        await one.end()
        assert one.instance.error is None and one.path[-2:] == ["stopping", "terminated"]

    run(main)


# --- waiting


def test_waiting_for_the_present_state_does_not_wait(stage: type[Any]) -> None:
    async def main() -> None:
        one = stage(Patient)
        assert await one.service.wait_for(State.RUNNING, State.PENDING) is State.PENDING
        await one.end()
        assert await one.service.wait_for(State.TERMINATED, timeout=0) is State.TERMINATED

    run(main)


def test_many_may_wait_and_each_is_told_which_of_its_states_came_first(stage: type[Any]) -> None:
    async def main() -> None:
        one = stage(Patient)
        wanted = [
            (State.RUNNING,),
            (State.STOPPING, State.TERMINATED),
            (State.TERMINATED, State.STARTING),
        ] * 20
        waiting = [asyncio.ensure_future(one.service.wait_for(*states)) for states in wanted]
        await asyncio.sleep(1)
        one.provide()
        await one.until(State.RUNNING)
        await one.end()
        told = [await one_of_them for one_of_them in waiting]
        assert told == [State.RUNNING, State.STOPPING, State.STARTING] * 20
        assert one.instance._waiters == []

    run(main)


def test_a_state_that_was_passed_at_once_is_not_missed(stage: type[Any]) -> None:
    async def main() -> None:
        one = stage(Patient)
        waiting = asyncio.ensure_future(one.service.wait_for(State.STARTING))
        await asyncio.sleep(0)
        one.provide()
        one.stop()
        one.lose()
        assert one.state is State.TERMINATED
        assert await waiting is State.STARTING

    run(main)


def test_a_wait_may_have_a_time_limit_and_leaves_nothing_behind(stage: type[Any]) -> None:
    async def main() -> None:
        one = stage(Patient)
        for _ in range(50):
            with pytest.raises(TimeoutError):
                await one.service.wait_for(State.RUNNING, timeout=2)
        assert asyncio.get_running_loop().time() == 100
        assert one.instance._waiters == []
        await one.end()

    run(main)


def test_waiting_for_nothing_is_refused(stage: type[Any]) -> None:
    async def main() -> None:
        one = stage(Patient)
        with pytest.raises(WaitError, match=r"wait_for\(\) needs at least one state"):
            await one.service.wait_for()
        await one.end()

    run(main)


def test_a_wait_ends_as_soon_as_none_of_its_states_can_be_reached_any_more(stage: type[Any]) -> None:
    async def main() -> None:
        one = stage(Patient)
        one.provide()
        waiting = asyncio.ensure_future(one.service.wait_for(State.RUNNING))
        await asyncio.sleep(0)
        one.stop()
        assert one.state is State.STOPPING
        with pytest.raises(WaitError) as refusal:
            await waiting
        assert one.state is State.STOPPING, "it is told two seconds before the end"
        said = str(refusal.value)
        assert said.startswith("instance i1 will never be running:\n")
        assert said.endswith(one.instance.why()), "and it is told why"
        with pytest.raises(WaitError, match="will never be pending or starting"):
            await one.service.wait_for(State.STARTING, State.PENDING)
        await one.end()

    run(main)


@given(
    st.lists(st.sampled_from(["provide", "stop", "silence", "recover", "lose", "sleep"]), max_size=8),
    st.data(),
)
def test_a_wait_that_was_refused_would_indeed_have_been_in_vain(
    stage: type[Any], doings: list[str], data: st.DataObject
) -> None:
    state = data.draw(st.sampled_from(State))

    async def main() -> None:
        one = stage(Patient, retries=data.draw(st.integers(0, 1)))
        refused = False
        for doing in [*doings, "end"]:
            if doing == "sleep":
                await asyncio.sleep(1)
            elif doing == "provide":
                if one.state is State.PENDING:
                    one.instance.give_up_lease()
                    one.provide()
            elif doing == "end":
                await one.end()
            elif doing != "lose" or one.instance.lease is not None:
                getattr(one, doing)()
            assert not (refused and one.state is state)
            try:
                await one.service.wait_for(state, timeout=0)
            except WaitError:
                refused = True
                origin = one.last.source if one.state is State.UNRESPONSIVE else None
                assert state not in reachable(one.state, origin)
            except TimeoutError:
                assert not refused

    run(main)


def test_a_handler_that_waits_for_its_own_instance_is_told_at_once(stage: type[Any]) -> None:
    class Demo(Patient):
        async def run(self):
            try:
                await self.wait_for(State.STOPPING)
            except WaitError as error:
                self.told = str(error)
            assert await self.wait_for(State.RUNNING) is State.RUNNING
            for _nothing in ():
                yield _nothing

    async def main() -> None:
        one = stage(Demo)
        one.provide()
        await one.until(State.TERMINATED)
        assert (
            one.service.told == "instance i1: its own handler waits for stopping, which would wait for ever"
        )

    run(main)


def test_a_clean_up_that_waits_for_the_end_is_told_at_once_too(stage: type[Any]) -> None:
    class Demo(Patient):
        async def run(self):
            try:
                await asyncio.sleep(60)
                yield
            finally:
                try:
                    await self.wait_for(State.TERMINATED)
                except WaitError:
                    self.told = asyncio.get_running_loop().time()

    async def main() -> None:
        one = stage(Demo)
        one.provide()
        await asyncio.sleep(1)
        await one.end()
        assert one.service.told == 1

    run(main)


def test_a_task_of_a_handler_may_wait_for_its_own_instance(stage: type[Any]) -> None:
    """It need not be awaited by the handler; where it is, a stop ends both."""

    class Demo(Patient):
        async def start(self):
            self.watch = asyncio.ensure_future(self.wait_for(State.STOPPING))
            for _nothing in ():
                yield _nothing

        async def run(self):
            self.vain = asyncio.ensure_future(self.wait_for(State.TERMINATED))
            await self.vain
            for _nothing in ():
                yield _nothing

    async def main() -> None:
        one = stage(Demo)
        one.provide()
        await asyncio.sleep(5)
        assert one.state is State.RUNNING
        await one.end()
        assert await one.service.watch is State.STOPPING
        assert one.service.vain.cancelled()

    run(main)


def test_moved_since_returns_for_a_later_record_only(stage: type[Any]) -> None:
    async def main() -> None:
        one = stage(Patient)
        waiting = asyncio.ensure_future(one.instance.moved_since(1))
        one.provide()
        await asyncio.sleep(0)
        await one.until(State.RUNNING)
        await waiting
        await one.instance.moved_since(0)
        assert len(one.instance.records) == 2
        await one.end()

    run(main)


# --- why


def test_why_tells_each_move_with_its_event_actor_reason_and_error(stage: type[Any]) -> None:
    class Demo(Patient):
        async def run(self):
            script = self._ctx.new_script()
            script.run("fail", "3")
            yield script

    async def main() -> None:
        one = stage(Demo)
        assert one.service.why() == "Demo i1 (slot 0) is pending"
        await asyncio.sleep(3661)
        one.provide()
        await one.until(State.STOPPING)
        error = f"CommandFailed: {one.service.error}"
        head, *moves = one.service.why().splitlines()
        assert head == "Demo i1 (slot 0) is stopping on provider 1 (handler)"
        assert moves == [
            "  01:01:01  1. pending → starting by RunService — engine: an activity is ready",
            "  01:01:01  2. starting → running by StartSuccessful — handler: start() is exhausted",
            f"  01:01:01  3. running → stopping by ServiceError — handler: run() raised ({error})",
        ]
        assert error.startswith("CommandFailed: command 0 (run fail 3) failed with exit code 3: it failed")
        await one.until(State.TERMINATED)
        assert (
            one.service.why()
            .splitlines()[-1]
            .endswith("by ServiceStopped — handler: shutdown() is exhausted")
        )
        for record in one.instance.records:
            line = one.service.why().splitlines()[record.seq]
            assert record.cause.actor.value in line and record.cause.reason in line

    run(main)


@pytest.mark.parametrize(
    ("cause", "text"),
    [
        (Cause(Actor.USER), "user"),
        (Cause(Actor.USER, "tired"), "user: tired"),
        (Cause(Actor.HANDLER, "it raised", ValueError("no")), "handler: it raised (ValueError: no)"),
        (Cause(Actor.HANDLER, "it raised", ValueError()), "handler: it raised (ValueError())"),
        (Cause(Actor.CLOCK, "said: no", ValueError("no")), "clock: said: no"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_cause_says_each_thing_once(cause: Cause, text: str) -> None:
    assert str(cause) == text
