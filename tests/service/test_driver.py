"""Handlers at work: what they get at their `yield`, how they are stopped, and what is left of them."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from shem.errors import (
    ActivityGone,
    CommandFailed,
    CommandSkipped,
    LifecycleError,
    ScriptError,
    ScriptInterrupted,
    ScriptMisuse,
    ScriptTimeout,
    ServiceDefinitionError,
)
from shem.events import Phase, PhaseChanged, ScriptFinished, ScriptSent
from shem.lifecycle import Actor, Event, State
from shem.script import Script
from shem.service.instance import Budgets
from shem.service.service import Service
from shem.testing.sim import SimLoop, run

Handler = AsyncIterator[Script]
QUICK = Budgets(cleanup=5.0)


class Quiet(Service):
    """Starts without a script, runs for ever, shuts down without a script; notes what it did, and when."""

    def __init__(self) -> None:
        self.log: list[Any] = []

    def note(self, what: Any) -> None:
        self.log.append(what)

    def at(self, what: str) -> None:
        self.log.append((what, asyncio.get_running_loop().time()))

    async def start(self):
        for _nothing in ():
            yield _nothing

    async def shutdown(self):
        self.at("shutdown")
        for _nothing in ():
            yield _nothing

    def script(self, *commands: str, **options: Any) -> Any:
        script = self._ctx.new_script(**options)
        handles = [script.run(*command.split()) for command in commands]
        return script, handles


def lives(stage: type[Any], service: type[Service] | Service, **options: Any) -> Any:
    """See an instance through its life, without interfering, for at most 1000 s; returns the stage."""

    async def main() -> Any:
        one = stage(service, **options)
        one.provide()
        await one.until(State.TERMINATED)
        await one.instance.handlers_finished()
        return one

    return run(main)


# --- both forms


def test_the_present_form_gets_each_command_s_result(stage: type[Any]) -> None:
    class Demo(Quiet):
        async def run(self):
            script = self._ctx.new_script()
            one = script.run("say", "hello")
            two = script.run("say", "world")
            whole = yield script
            self.note(((await one).stdout, (await two).stdout, [r.stdout for r in await whole]))

    one = lives(stage, Demo)
    assert one.service.log[0] == ("hello", "world", ["hello", "world"])
    assert one.path == ["pending", "starting", "running", "stopping", "terminated"]


def test_the_older_form_gets_all_results_at_the_yield(stage: type[Any]) -> None:
    class Demo(Quiet):
        async def run(self):
            self._ctx.run("say", "hello")
            self._ctx.run("say", "world")
            future_results = yield self._ctx.commit()
            results = await future_results
            self.note((results[0].stdout, results[1].stdout))

    one = lives(stage, Demo)
    assert one.service.log[0] == ("hello", "world")
    assert one.lease.ran == ["deploy", "start", "run say hello", "run say world"]


@pytest.mark.parametrize("where", ["start", "run", "shutdown"])
def test_the_older_form_deploys_implicitly_and_exactly_once(stage: type[Any], where: str) -> None:
    async def twice(self: Any):
        for text in ("a", "b"):
            self._ctx.run("say", text)
            yield self._ctx.commit()

    demo = type("Demo", (Quiet,), {where: twice, **({} if where == "run" else {"run": Quiet.start})})
    one = lives(stage, demo)
    assert one.lease.ran == ["deploy", "start", "run say a", "run say b"]


def test_the_older_form_deploys_nothing_after_the_default_start(stage: type[Any]) -> None:
    class Demo(Service):
        async def run(self):
            self._ctx.run("say", "a")
            yield self._ctx.commit()

    one = lives(stage, Demo)
    assert one.lease.ran == ["deploy", "start", "run say a", "terminate"]


def test_a_failed_implicit_deploy_fails_the_script_that_relied_on_it(stage: type[Any]) -> None:
    class Demo(Quiet):
        async def start(self):
            handle = self._ctx.run("say", "a")
            try:
                yield self._ctx.commit()
            except ScriptError as error:
                self.note(error)
            self.note(handle.error)

    async def main() -> Any:
        one = stage(Demo)

        async def refuse(script: Script, _progress: object) -> None:
            failed = CommandFailed("deploy", 0, "no such image")
            script.fail(failed, 0)
            raise failed

        one.lease.execute = refuse
        one.provide()
        await one.until(State.RUNNING)
        await one.end()
        return one

    one = run(main)
    thrown, told = one.service.log[:2]
    assert thrown is told and "no such image" in str(thrown)


# --- failures at the yield


def test_a_failed_script_is_thrown_at_its_yield_with_all_that_is_known(stage: type[Any]) -> None:
    class Demo(Quiet):
        async def run(self):
            script, (good, bad, skipped) = self.script("say hello", "fail 7", "say never")
            try:
                yield script
            except CommandFailed as error:
                self.note(error)
            self.note([handle.error for handle in (good, bad, skipped)])
            self.note((await good).stdout)

    one = lives(stage, Demo)
    error, errors, stdout = one.service.log[:3]
    assert (error.command, error.index, error.exit_code, error.stderr) == ("run fail 7", 1, 7, "oh no")
    assert errors[0] is None and errors[1] is error and isinstance(errors[2], CommandSkipped)
    assert stdout == "hello"
    assert one.events[-2:] == [Event.SHUTDOWN, Event.SERVICE_STOPPED], "a handled failure is no failure"


def test_a_failure_that_is_not_handled_ends_running(stage: type[Any]) -> None:
    class Demo(Quiet):
        async def run(self):
            yield self.script("fail 7")[0]

    one = lives(stage, Demo)
    assert one.path[-2:] == ["stopping", "terminated"]
    record = one.instance.records[-2]
    assert (record.event, record.cause.actor) == (Event.SERVICE_ERROR, Actor.HANDLER)
    assert isinstance(record.cause.error, CommandFailed)
    assert one.instance.error is record.cause.error


def test_a_script_s_own_time_limit_is_thrown_at_the_yield_in_time(stage: type[Any]) -> None:
    class Demo(Quiet):
        async def run(self):
            try:
                yield self.script("sleep 60", timeout=2)[0]
            except ScriptTimeout as error:
                self.at(str(error))

    one = lives(stage, Demo)
    (said, when), *_ = one.service.log
    assert when == 2.0 and "took longer than 2 s" in said


@pytest.mark.parametrize("failing", ["callback", "lose"])
def test_an_error_outside_the_script_s_family_is_thrown_at_the_yield_too(
    stage: type[Any], failing: str
) -> None:
    class Demo(Quiet):
        async def run(self):
            async def on_download(_value: object) -> None:
                raise KeyError("disk full")

            script = self._ctx.new_script()
            one = script.run("lose" if failing == "lose" else "say")
            two = script.download_bytes("/x", on_download)
            try:
                yield script
            except (KeyError, ConnectionError) as error:
                self.note(error)
            self.note((one.error, two.error, script.results.error))

    one = lives(stage, Demo)
    error, (first, second, whole) = one.service.log[:2]
    assert isinstance(error, ConnectionError if failing == "lose" else KeyError)
    assert second is whole is error
    assert first is (error if failing == "lose" else None)
    assert Event.SERVICE_ERROR not in one.events


def test_a_script_sent_twice_is_refused_at_its_second_yield_and_keeps_its_results(stage: type[Any]) -> None:
    class Demo(Quiet):
        async def run(self):
            script, (handle,) = self.script("say hello")
            yield script
            try:
                yield script
            except ScriptMisuse as error:
                self.note(error)
            self.note((await handle).stdout)

    one = lives(stage, Demo)
    assert isinstance(one.service.log[0], ScriptMisuse)
    assert one.service.log[1] == "hello"
    assert one.lease.ran == ["run say hello"]


def test_an_empty_script_ends_well(stage: type[Any]) -> None:
    class Demo(Quiet):
        async def run(self):
            whole = yield self._ctx.new_script()
            self.note(await whole)

    assert lives(stage, Demo).service.log[0] == []


# --- scripts beside the handler


def test_scripts_that_overlap_never_mix_their_results(stage: type[Any]) -> None:
    class Demo(Quiet):
        async def run(self):
            slow, (slow_sleep, slow_said) = self.script("sleep 5", "say slow", wait_for_results=False)
            quick, (quick_said,) = self.script("say quick", wait_for_results=False)
            slow_whole = yield slow
            quick_whole = yield quick
            self.at((await quick_said).stdout)
            self.at((await slow_said).stdout)
            self.note([[r.stdout for r in await whole] for whole in (slow_whole, quick_whole)])
            assert (await slow_sleep).index == 0

    one = lives(stage, Demo)
    assert one.service.log[:3] == [("quick", 0.0), ("slow", 5.0), [[None, "slow"], ["quick"]]]


def test_an_end_waits_for_the_scripts_beside(stage: type[Any]) -> None:
    class Demo(Quiet):
        async def run(self):
            yield self.script("sleep 5", wait_for_results=False)[0]
            self.at("end of run")

    one = lives(stage, Demo)
    assert one.service.log == [("end of run", 0.0), ("shutdown", 5.0)]


def test_a_failure_beside_that_nobody_heard_of_makes_the_handler_fail(stage: type[Any]) -> None:
    class Demo(Quiet):
        async def run(self):
            yield self.script("fail 3", wait_for_results=False)[0]
            await asyncio.sleep(1)
            yield self.script("say on", wait_for_results=False)[0]

    one = lives(stage, Demo)
    assert Event.SERVICE_ERROR in one.events
    assert isinstance(one.instance.error, CommandFailed) and one.instance.error.exit_code == 3


def test_a_failure_beside_that_was_heard_does_not_hide_a_later_one_that_was_not(stage: type[Any]) -> None:
    class Demo(Quiet):
        async def run(self):
            for code in ("1", "2"):
                script, (handle,) = self.script(f"fail {code}", wait_for_results=False)
                yield script
                await asyncio.sleep(1)
                if code == "1":
                    with pytest.raises(CommandFailed):
                        await handle

    one = lives(stage, Demo)
    assert isinstance(one.instance.error, CommandFailed) and one.instance.error.exit_code == 2


@pytest.mark.parametrize("how", ["command", "script", "result()"])
def test_a_failure_beside_that_was_caught_is_no_failure_of_the_handler(stage: type[Any], how: str) -> None:
    class Demo(Quiet):
        async def run(self):
            script, (handle,) = self.script("fail 3", wait_for_results=False)
            whole = yield script
            try:
                if how == "result()":
                    await asyncio.sleep(1)
                    handle.result()
                else:
                    await (handle if how == "command" else whole)
            except CommandFailed as error:
                self.note(error.exit_code)

    one = lives(stage, Demo)
    assert one.service.log[0] == 3
    assert one.instance.error is None and Event.SERVICE_ERROR not in one.events


def test_many_scripts_beside_leave_nothing_in_memory(stage: type[Any]) -> None:
    def tasks() -> int:
        gc.collect()
        return sum(isinstance(one, asyncio.Task) for one in gc.get_objects())

    class Demo(Quiet):
        async def run(self):
            before = tasks()
            for _ in range(200):
                yield self.script("say x", wait_for_results=False)[0]
                await asyncio.sleep(1)
            self.note(tasks() - before)

    assert lives(stage, Demo).service.log[0] < 20


def test_a_stop_interrupts_the_scripts_beside(stage: type[Any]) -> None:
    class Demo(Quiet):
        async def run(self):
            script, self.handles = self.script("say first", "sleep 60", "say never", wait_for_results=False)
            yield script
            await asyncio.sleep(60)

    async def main() -> None:
        one = stage(Demo)
        one.provide()
        await asyncio.sleep(1)
        one.stop()
        await one.until(State.TERMINATED)
        first, *others = one.service.handles
        assert first.error is None and one.lease.running == []
        assert all(isinstance(handle.error, ScriptInterrupted) for handle in others)

    run(main)


def test_a_script_beside_that_had_no_time_to_begin_resolves_too(stage: type[Any]) -> None:
    class Demo(Quiet):
        async def run(self):
            script, self.handles = self.script("say x", wait_for_results=False)
            yield script
            raise ValueError("in the same step")

    one = lives(stage, Demo)
    assert one.lease.begun == []
    assert isinstance(one.service.handles[0].error, ScriptInterrupted)


def test_a_handler_that_stops_its_own_instance_is_stopped_at_its_next_yield(stage: type[Any]) -> None:
    class Demo(Quiet):
        async def run(self):
            script, self.handles = self.script("say x")
            self.stop()
            yield script
            self.note("never reached")

    async def main() -> None:
        one = stage(Demo)
        one.service.stop = one.stop
        one.provide()
        await one.until(State.TERMINATED)
        await one.instance.handlers_finished()
        assert one.lease.begun == [] and one.service.log == [("shutdown", 0.0)]
        assert isinstance(one.service.handles[0].error, ScriptInterrupted)

    run(main)


# --- stopping


@pytest.mark.parametrize("doing", ["script", "sleep", "suspended"])
def test_a_stop_takes_effect_at_once_whatever_the_handler_is_doing(stage: type[Any], doing: str) -> None:
    class Demo(Quiet):
        async def run(self):
            if doing == "sleep":
                await asyncio.sleep(60)
            script, self.handles = self.script("sleep 60")
            yield script

    async def main() -> None:
        one = stage(Demo)
        one.provide()
        await asyncio.sleep(3)
        if doing == "suspended":
            one.silence()
            one.recover()
        one.stop()
        assert one.state is State.STOPPING
        await one.until(State.TERMINATED)
        assert one.service.log == [("shutdown", 3.0)]
        assert one.lease.running == []
        if doing != "sleep":
            with pytest.raises(ScriptInterrupted, match=r"was under way when instance i1 was stopped"):
                await one.service.handles[0]

    run(main)


@given(
    st.lists(st.sampled_from(["say x", "sleep 2", "fail 1", "lose", "vanish"]), min_size=1, max_size=4),
    st.booleans(),
    st.none() | st.floats(0.5, 5),
    st.sampled_from(["stop", "lose", "silence", "silence, stop", "silence, lose", "silence, recover", None]),
    st.floats(0, 9),
)
def test_every_handle_of_a_yielded_script_resolves_whatever_happens_when(
    stage: type[Any],
    commands: list[str],
    wait: bool,
    timeout: float | None,
    happening: str | None,
    moment: float,
) -> None:
    class Demo(Quiet):
        async def run(self):
            script, self.handles = self.script(*commands, wait_for_results=wait, timeout=timeout)
            self.handles.append(script.results)
            await asyncio.sleep(1)
            self.note("yields")
            yield script

    async def main() -> None:
        one = stage(Demo)
        one.provide()
        await one.until(State.RUNNING)
        await asyncio.sleep(moment)
        for what in (happening or "").split(", "):
            if what:
                getattr(one, what)()
                await asyncio.sleep(1)
        await asyncio.sleep(20)
        assert one.state is State.TERMINATED or happening == "silence"
        await one.end()
        if "yields" in one.service.log:
            for handle in one.service.handles:
                assert handle.done
                assert isinstance(handle.error, ScriptError | ConnectionError | None)

    run(main)


@pytest.mark.parametrize("wait", [True, False])
@pytest.mark.parametrize("end", ["stop", "lose"])
def test_a_script_yielded_while_the_provider_is_silent_still_resolves_when_the_instance_ends(
    stage: type[Any], end: str, wait: bool
) -> None:
    class Demo(Quiet):
        async def run(self):
            await asyncio.sleep(1)
            script, self.handles = self.script("say x", wait_for_results=wait)
            yield script

    async def main() -> None:
        one = stage(Demo)
        one.provide()
        await one.until(State.RUNNING)
        one.silence()
        await asyncio.sleep(5)
        assert one.lease.begun == [] and not one.service.handles[0].done
        getattr(one, end)()
        await one.instance.handlers_finished()
        with pytest.raises(ScriptInterrupted):
            await one.service.handles[0]

    run(main)


def test_the_script_behind_an_interrupted_implicit_deploy_resolves(stage: type[Any]) -> None:
    class Demo(Quiet):
        async def start(self):
            self.handle = self._ctx.run("say", "a")
            yield self._ctx.commit()

    async def main() -> None:
        one = stage(Demo)

        async def hang(_script: Script, _progress: object) -> None:
            await asyncio.sleep(1000)

        one.lease.execute = hang
        one.provide()
        await asyncio.sleep(1)
        one.lose()
        await one.instance.handlers_finished()
        with pytest.raises(ScriptInterrupted):
            await one.service.handle

    run(main)


def test_finally_blocks_run_to_their_end_before_the_next_handler_begins(stage: type[Any]) -> None:
    class Demo(Quiet):
        async def run(self):
            try:
                yield self.script("sleep 60")[0]
            finally:
                self.at("clean-up begins")
                await asyncio.sleep(3)
                self.at("clean-up ends")

    async def main() -> None:
        one = stage(Demo, budgets=QUICK)
        one.provide()
        await asyncio.sleep(1)
        one.stop()
        await one.until(State.TERMINATED)
        assert one.service.log == [("clean-up begins", 1.0), ("clean-up ends", 4.0), ("shutdown", 4.0)]

    run(main)


def test_a_clean_up_that_takes_too_long_is_cut_short_before_the_next_handler_begins(stage: type[Any]) -> None:
    class Demo(Quiet):
        async def run(self):
            try:
                yield self.script("sleep 60")[0]
            finally:
                try:
                    await asyncio.sleep(1000)
                finally:
                    self.at("cut short")

    async def main() -> None:
        one = stage(Demo, budgets=QUICK)
        one.provide()
        await asyncio.sleep(1)
        one.stop()
        await one.until(State.TERMINATED)
        assert one.service.log == [("cut short", 6.0), ("shutdown", 6.0)]

    run(main)


def test_a_chain_of_stops_waits_for_all_earlier_handlers(stage: type[Any]) -> None:
    """The clean-up of `start` outlasts the next handler, which is stopped while it waits for it."""

    class Demo(Quiet):
        starts = 0

        async def start(self):
            self.starts += 1
            self.at(f"start {self.starts}")
            try:
                await asyncio.sleep(60)
                yield self.script("say x")[0]
            finally:
                await asyncio.sleep(4)
                self.at("clean-up ends")

    async def main() -> None:
        one = stage(Demo, budgets=QUICK, retries=1)
        one.provide()
        await asyncio.sleep(1)
        one.fire(Event.RETRY_START)
        one.provide()
        await asyncio.sleep(1)
        one.lose()
        one.provide()
        await asyncio.sleep(10)
        assert one.service.log[:3] == [("start 1", 0.0), ("clean-up ends", 5.0), ("start 2", 5.0)]
        await one.end()

    run(main)


@pytest.mark.parametrize("swallow", ["once", "for ever"])
def test_a_handler_that_swallows_its_cancellation_cannot_freeze_the_state(
    stage: type[Any], swallow: str
) -> None:
    class Demo(Quiet):
        released = False

        async def run(self):
            while not self.released:
                try:
                    await asyncio.sleep(1)
                except asyncio.CancelledError:
                    if swallow == "once":
                        break
            self.late, self.handles = self.script("say zombie")
            yield self.late
            self.note("never reached")

    async def main() -> None:
        one = stage(Demo, budgets=QUICK)
        one.provide()
        await asyncio.sleep(1.5)
        one.stop()
        await one.until(State.TERMINATED)
        (shutdown,) = one.service.log
        assert shutdown == ("shutdown", 1.5 if swallow == "once" else 7.5)
        left = await one.instance.handlers_finished()
        assert left == ([] if swallow == "once" else ["i1 run()"])
        one.service.released = True
        await asyncio.sleep(2)
        assert one.lease.begun == [], "a zombie's script is not sent"
        assert isinstance(one.service.handles[0].error, ScriptInterrupted)
        assert one.service.log == [shutdown]

    run(main)


def test_a_handler_that_swallows_its_cancellation_does_not_wait_for_its_scripts_beside(
    stage: type[Any],
) -> None:
    class Demo(Quiet):
        async def run(self):
            yield self.script("sleep 60", wait_for_results=False)[0]
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                pass

    async def main() -> None:
        one = stage(Demo, budgets=QUICK)
        one.provide()
        await asyncio.sleep(1)
        one.stop()
        await one.until(State.TERMINATED)
        assert one.service.log == [("shutdown", 1.0)] and one.lease.running == []

    run(main)


def test_an_error_raised_while_being_stopped_is_logged_and_changes_nothing(stage: type[Any]) -> None:
    class Demo(Quiet):
        async def run(self):
            try:
                yield self.script("sleep 60")[0]
            finally:
                raise ValueError("broken clean-up")

    class InTheMiddle(Quiet):
        async def run(self):
            try:
                await asyncio.sleep(60)
            finally:
                raise ValueError("broken clean-up")
            yield

    async def main(service: type[Service]) -> None:
        one = stage(service)
        one.provide()
        await asyncio.sleep(1)
        with structlog.testing.capture_logs() as logs:
            one.stop()
            await one.until(State.TERMINATED)
        assert one.events[-1] is Event.SERVICE_STOPPED
        assert [entry["error"] for entry in logs] == ["ValueError('broken clean-up')"]
        assert "run()" in logs[0]["handler"]

    for service in (Demo, InTheMiddle):
        run(lambda service=service: main(service))


def test_a_handler_cancelled_by_a_stranger_ends_in_an_event_all_the_same(stage: type[Any]) -> None:
    class Demo(Quiet):
        async def run(self):
            asyncio.current_task().cancel()
            await asyncio.sleep(1)
            yield self.script("say x")[0]

    one = lives(stage, Demo)
    assert isinstance(one.instance.error, LifecycleError)
    assert "i1 run() was cancelled by somebody else than shem" in str(one.instance.error)
    assert one.path[-2:] == ["stopping", "terminated"]


@pytest.mark.parametrize(
    "raised",
    [StopAsyncIteration("odd"), StopIteration("odd"), GeneratorExit("odd"), asyncio.CancelledError("odd")],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("where", ["before", "after"])
def test_odd_exceptions_of_a_handler_end_in_an_event(
    stage: type[Any], raised: BaseException, where: str
) -> None:
    class Demo(Quiet):
        async def run(self):
            if where == "after":
                yield self.script("say x")[0]
            raise raised
            yield

    one = lives(stage, Demo)
    assert one.path == ["pending", "starting", "running", "stopping", "terminated"]
    assert one.instance.records[-2].event is Event.SERVICE_ERROR
    assert one.instance.error is not None


def test_a_handler_that_goes_on_after_it_was_closed_is_reported_and_changes_nothing(stage: type[Any]) -> None:
    class Demo(Quiet):
        async def run(self):
            try:
                yield self.script("sleep 60")[0]
            except GeneratorExit:
                yield self.script("say stubborn")[0]

    async def main() -> None:
        one = stage(Demo)
        one.provide()
        await asyncio.sleep(1)
        with structlog.testing.capture_logs() as logs:
            one.stop()
            await one.until(State.TERMINATED)
        assert one.events[-1] is Event.SERVICE_STOPPED
        assert "ignored GeneratorExit" in logs[0]["error"] and logs[0]["handler"] == "Demo.run()"

    # Not `run`: such a generator cannot be closed at all, and that loop would not let it pass.
    loop = SimLoop()
    loop.run_until_complete(main())
    loop.close()


def test_unawaited_handles_of_a_failing_life_make_no_noise(stage: type[Any]) -> None:
    class Demo(Quiet):
        async def run(self):
            yield self.script("fail 1", "say x", wait_for_results=False)[0]
            yield self.script("fail 1", "say x")[0]

    lives(stage, Demo)
    gc.collect()


# --- wrong handlers


@pytest.mark.parametrize("item", [None, "deploy", 5, (1, 2), [Script()], b""], ids=repr)
@pytest.mark.parametrize("where", ["start", "run", "shutdown"])
def test_a_handler_that_yields_no_script_is_told_so_with_class_method_and_what_was_found(
    stage: type[Any], where: str, item: object
) -> None:
    closed = []

    async def handler(self: Any):
        try:
            yield item
        finally:
            closed.append(True)

    others = {} if where == "run" else {"run": Quiet.start}
    one = lives(stage, type("Demo", (Quiet,), {**others, where: handler}), retries=0)
    assert one.state is State.TERMINATED and closed == [True]
    error = one.last.cause.error if where != "run" else one.instance.records[-2].cause.error
    assert isinstance(error, ServiceDefinitionError)
    found = "None" if item is None else f"a {type(item).__name__} ({item!r:.80})"
    assert str(error).startswith(f"Demo.{where}() yielded {found}, but a handler must yield a Script")
    assert "self._ctx.new_script()" in str(error)


@pytest.mark.parametrize("retries", [0, 1])
def test_a_wrong_start_ends_the_instance_as_policy_says(stage: type[Any], retries: int) -> None:
    class Demo(Quiet):
        async def start(self):
            yield None

    async def main() -> None:
        one = stage(Demo, retries=retries)
        one.provide()
        await one.until(State.PENDING if retries else State.TERMINATED)
        assert one.policy.asked == [one.last.cause.error]
        assert one.last.event is (Event.RETRY_START if retries else Event.START_FAILED)
        await one.end()

    run(main)


def test_a_handler_whose_clean_up_hangs_after_a_wrong_yield_does_not_freeze_the_state(
    stage: type[Any],
) -> None:
    class Demo(Quiet):
        async def run(self):
            try:
                yield None
            finally:
                await asyncio.sleep(1000)

    async def main() -> None:
        one = stage(Demo, budgets=QUICK)
        one.provide()
        await one.until(State.STOPPING, within=10)
        assert isinstance(one.last.cause.error, ServiceDefinitionError), "the reason is not lost"
        await one.end()

    with structlog.testing.capture_logs() as logs:
        run(main)
    assert "cut short after 5 s" in [entry.get("error") for entry in logs]


# --- suspended


def test_a_silent_provider_suspends_the_handler_at_its_yield_and_the_same_one_goes_on(
    stage: type[Any],
) -> None:
    class Demo(Quiet):
        async def run(self):
            self.at("begins")
            yield self.script("sleep 2")[0]
            self.at("goes on")

    async def main() -> None:
        one = stage(Demo)
        one.provide()
        await asyncio.sleep(1)
        one.silence()
        await asyncio.sleep(20)
        assert one.service.log == [("begins", 0.0)]
        assert one.lease.running == [], "its script went on"
        one.recover()
        await one.until(State.TERMINATED)
        assert one.service.log == [("begins", 0.0), ("goes on", 21.0), ("shutdown", 21.0)]

    run(main)


def test_a_handler_does_not_begin_while_the_provider_is_silent(stage: type[Any]) -> None:
    class Demo(Quiet):
        async def start(self):
            self.at("begins")
            for _nothing in ():
                yield _nothing

    async def main() -> None:
        one = stage(Demo)
        one.provide()
        one.silence()
        await asyncio.sleep(5)
        assert one.service.log == [] and one.path[-1] == "unresponsive"
        one.recover()
        await one.until(State.RUNNING)
        assert one.service.log == [("begins", 5.0)]
        await one.end()

    run(main)


def test_the_end_of_a_handler_is_held_back_until_the_provider_is_heard_again(stage: type[Any]) -> None:
    class Demo(Quiet):
        async def run(self):
            await asyncio.sleep(2)
            self.at("ends")
            for _nothing in ():
                yield _nothing

    async def main() -> None:
        one = stage(Demo)
        one.provide()
        await asyncio.sleep(1)
        one.silence()
        await asyncio.sleep(9)
        assert one.service.log == [("ends", 2.0)] and one.state is State.UNRESPONSIVE
        one.recover()
        assert one.state is State.RUNNING, "not within the move"
        one.silence()
        await asyncio.sleep(10)
        assert one.state is State.UNRESPONSIVE, "held back again"
        one.recover()
        await one.until(State.TERMINATED)
        assert one.service.log == [("ends", 2.0), ("shutdown", 20.0)]

    run(main)


def test_a_handler_suspended_anew_in_the_moment_of_recovery_stays_where_it_is(stage: type[Any]) -> None:
    class Demo(Quiet):
        async def run(self):
            yield self.script("sleep 1")[0]
            self.at("goes on")
            await asyncio.sleep(60)

    async def main() -> None:
        one = stage(Demo)
        one.provide()
        await one.until(State.RUNNING)
        one.silence()
        await asyncio.sleep(2)
        one.recover()
        one.silence()
        await asyncio.sleep(5)
        assert one.service.log == []
        one.recover()
        await asyncio.sleep(1)
        assert one.service.log == [("goes on", 7.0)]
        await one.end()

    run(main)


def test_an_end_that_was_held_back_is_void_when_the_instance_ends_otherwise(stage: type[Any]) -> None:
    class Demo(Quiet):
        async def run(self):
            raise ValueError("too early")
            yield

    async def main() -> None:
        one = stage(Demo)
        one.provide()
        await one.until(State.RUNNING)
        one.silence()
        await asyncio.sleep(1)
        one.fire(Event.UNRESPONSIVE_TIMEOUT)
        await asyncio.sleep(1)
        assert one.path[-2:] == ["unresponsive", "terminated"]
        assert one.events[-1] is Event.UNRESPONSIVE_TIMEOUT
        assert one.service.log == []

    run(main)


# --- the activity is gone


def test_a_script_that_finds_the_activity_gone_tells_the_instance_before_the_watchers_do(
    stage: type[Any],
) -> None:
    class Demo(Quiet):
        async def run(self):
            yield self.script("vanish")[0]

    one = lives(stage, Demo)
    assert one.events[-1] is Event.ACTIVITY_LOST and one.path[-2:] == ["running", "terminated"]
    assert ("shutdown", 0.0) not in one.service.log


def test_a_script_that_claims_so_alone_ends_the_instance_as_lost_too(stage: type[Any]) -> None:
    class Demo(Quiet):
        async def run(self):
            raise ActivityGone("nobody there")
            yield

    one = lives(stage, Demo)
    assert one.events[-1] is Event.ACTIVITY_LOST
    assert one.last.cause.actor is Actor.PROVIDER and "nobody there" in str(one.last.cause)


def test_a_good_end_on_a_lost_activity_is_a_loss(stage: type[Any]) -> None:
    class Demo(Quiet):
        async def run(self):
            try:
                yield self.script("vanish")[0]
            except ActivityGone:
                self.note("caught")

    one = lives(stage, Demo)
    assert one.service.log == ["caught"]
    assert one.events[-1] is Event.ACTIVITY_LOST


# --- what is told of it


def test_progress_and_scripts_are_told_on_the_bus(stage: type[Any]) -> None:
    class Demo(Quiet):
        async def run(self):
            yield self.script("say a", "sleep 2")[0]
            try:
                yield self.script("fail 1")[0]
            except CommandFailed:
                pass

    one = lives(stage, Demo)
    sent, finished = one.heard(ScriptSent), one.heard(ScriptFinished)
    assert [event.commands for event in sent] == [("run say a", "run sleep 2"), ("run fail 1",)]
    assert [event.seconds for event in finished] == [2.0, 0.0]
    assert finished[0].error == "" and "it failed" in finished[1].error
    assert {event.activity for event in (*sent, *finished)} == {"activity-1"}
    phases = [event.phase for event in one.heard(PhaseChanged)]
    assert phases == [
        Phase.HANDLER,
        Phase.HANDLER,
        Phase.SCRIPT,
        Phase.HANDLER,
        Phase.SCRIPT,
        Phase.HANDLER,
        Phase.HANDLER,
    ]


def test_an_interrupted_script_is_told_as_such(stage: type[Any]) -> None:
    class Demo(Quiet):
        async def run(self):
            yield self.script("sleep 60")[0]

    async def main() -> Any:
        one = stage(Demo)
        one.provide()
        await asyncio.sleep(1)
        await one.end()
        return one

    (finished,) = run(main).heard(ScriptFinished)
    assert (finished.seconds, finished.error) == (1.0, "interrupted")
