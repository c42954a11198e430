"""What becomes of a script's commands: every handle resolves, and tells everybody the same."""

from __future__ import annotations

import asyncio
import gc
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shem.errors import (
    ActivityGone,
    CommandFailed,
    CommandSkipped,
    ConfigError,
    ScriptError,
    ScriptInterrupted,
    ScriptMisuse,
    ScriptTimeout,
)
from shem.script import CommandResult, Script
from shem.script.results import Handle
from shem.testing.sim import run


def result(script: Script, index: int, **facts: Any) -> CommandResult:
    return CommandResult(index=index, command=script.commands[index], **facts)


async def outcome(awaitable: Any) -> Any:
    """The value, or the error, or None where nothing comes."""
    try:
        async with asyncio.timeout(1):
            return await awaitable
    except TimeoutError as error:
        return error if isinstance(error, ScriptTimeout) else None
    except ScriptError as error:
        return error


def commands(script: Script, number: int) -> list[Any]:
    return [script.run(f"/bin/{place}") for place in range(number)]


WHOLE = [ScriptTimeout("too long"), ScriptInterrupted("stopped"), ActivityGone("gone"), ScriptError("lost")]


@given(st.data())
def test_every_handle_resolves_wherever_the_script_fails(data: st.DataObject) -> None:
    number = data.draw(st.integers(0, 6), label="commands")
    good = data.draw(st.integers(0, number), label="succeed")
    failing = data.draw(st.booleans(), label="a command fails") if good < number else False

    async def main() -> None:
        script = Script()
        handles = commands(script, number)
        early = [asyncio.ensure_future(outcome(handle)) for handle in (*handles, script.results)]
        await asyncio.sleep(0)
        for index in range(good):
            await script.succeed(result(script, index, stdout=str(index)))
        error: ScriptError | None = None
        if failing:
            error = CommandFailed(str(script.commands[good]), good, "exit")
            script.fail(error, good)
        elif good < number or data.draw(st.booleans(), label="fails as a whole at the end"):
            error = data.draw(st.sampled_from(WHOLE), label="error")
            script.fail(error)
        else:
            script.finish()
        late = [asyncio.ensure_future(outcome(handle)) for handle in (*handles, script.results)]
        *each, whole = [await one for one in early]
        assert [*each, whole] == [await one for one in late], "before and after, everybody is told the same"
        assert [one.stdout for one in each[:good]] == [str(index) for index in range(good)]
        assert whole is error if error is not None else whole == each
        for place, told in enumerate(each[good:], good):
            if failing and place > good:
                assert isinstance(told, CommandSkipped)
                assert told.__cause__ is error
                assert f"command {place} (run /bin/{place})" in str(told) and f"command {good}" in str(told)
            else:
                assert told is error
        assert all(handle.done for handle in (*handles, script.results))
        assert script.failure_heard == (error is not None)

    run(main)


@given(st.lists(st.sampled_from(["value", "error"]), min_size=1, max_size=5))
def test_the_first_resolution_counts(resolutions: list[str]) -> None:
    handle: Handle[int] = Handle()
    for place, kind in enumerate(resolutions):
        if kind == "value":
            handle.resolve(place)
        else:
            handle.fail(ValueError(place))
    assert handle.done
    if resolutions[0] == "value":
        assert handle.result() == 0 and handle.error is None and not handle.heard
    else:
        assert isinstance(handle.error, ValueError) and not handle.heard
        with pytest.raises(ValueError, match="0"):
            handle.result()
        assert handle.heard


def test_a_handle_may_be_awaited_by_many_tasks_and_any_number_of_times() -> None:
    async def main() -> None:
        script = Script()
        handle = script.run("/a")

        async def twice() -> list[CommandResult]:
            return [await handle, await handle]

        waiting = [asyncio.ensure_future(twice()) for _ in range(10)]
        await asyncio.sleep(1)
        good = result(script, 0)
        await script.succeed(good)
        assert [await one for one in waiting] == [[good, good]] * 10
        assert await handle is good

    run(main)


def test_one_waiter_s_cancellation_is_its_own_and_leaves_nothing_behind() -> None:
    async def main() -> None:
        handle: Handle[str] = Handle()
        patient = asyncio.ensure_future(_await(handle))
        for _ in range(100):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(_await(handle), 0.1)
        assert handle._waiters is not None and len(handle._waiters) == 1
        handle.resolve("here")
        assert await patient == "here"

    run(main)


async def _await(handle: Handle[Any]) -> Any:
    return await handle


def test_a_result_asked_for_too_early_is_an_error_not_none() -> None:
    handle: Handle[None] = Handle()
    with pytest.raises(RuntimeError, match="not resolved yet"):
        handle.result()
    handle.resolve(None)
    assert handle.result() is None


def test_failures_that_nobody_looks_at_make_no_noise() -> None:
    async def main() -> None:
        script = Script()
        commands(script, 3)
        script.fail(ScriptTimeout("too long"))
        del script
        gc.collect()

    run(main)  # fails on anything that reaches the loop's exception handler


# --- downloads


def test_a_download_s_value_goes_to_its_callback_before_the_handle_resolves() -> None:
    order: list[object] = []

    async def main() -> None:
        script = Script()

        async def callback(value: object) -> None:
            await asyncio.sleep(1)
            order.append(value)

        script.run("/a")
        handle = script.download_bytes("/x", callback)
        other = script.download_json("/y")
        for index, value in enumerate((None, b"bytes", {"j": 1})):
            await script.succeed(result(script, index, value=value))
            order.append(handle.done)
        script.finish()
        assert order == [False, b"bytes", True, True]
        assert (await other).value == {"j": 1}
        assert [one.value for one in await script.results] == [None, b"bytes", {"j": 1}]

    run(main)


def test_an_error_of_a_callback_comes_out_to_whoever_runs_the_script() -> None:
    async def main() -> None:
        async def callback(_value: object) -> None:
            raise KeyError("disk full")

        script = Script()
        handle = script.download_bytes("/x", callback)
        with pytest.raises(KeyError, match="disk full"):
            await script.succeed(result(script, 0, value=b""))
        assert not handle.done, "failing it is for whoever runs the script"

    run(main)


# --- misuse


def test_a_script_is_sent_once() -> None:
    script = Script()
    assert not script.sent
    script.mark_sent()
    assert script.sent
    with pytest.raises(ScriptMisuse, match=r"only once; make a new one \(`self\._ctx\.new_script\(\)`\)"):
        script.mark_sent()


def test_a_script_that_was_sent_takes_no_more_commands() -> None:
    script = Script()
    script.mark_sent()
    with pytest.raises(ScriptMisuse, match="run /late was added to a script that has been sent"):
        script.run("/late")
    assert script.commands == ()


def test_an_empty_script_ends_well_with_no_results() -> None:
    async def main() -> None:
        script = Script()
        script.finish()
        assert await script.results == []

    run(main)
    assert repr(Script()) == "<Script: empty>"


@given(st.floats(min_value=0.001, max_value=1e9))
def test_a_timeout_may_be_seconds_or_a_timedelta(seconds: float) -> None:
    assert Script(timeout=seconds).timeout == seconds
    delta = timedelta(seconds=seconds)
    assert Script(timeout=delta).timeout == delta.total_seconds()


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), timedelta(0), timedelta(seconds=-5)])
def test_a_timeout_without_time_is_refused(timeout: Any) -> None:
    with pytest.raises(ConfigError, match="timeout must be more than 0 s"):
        Script(timeout=timeout)


def test_a_script_shows_its_commands() -> None:
    script = Script()
    script.deploy()
    script.run("/bin/echo", "a b")
    assert repr(script) == "<Script: deploy, run /bin/echo 'a b'>"


def test_a_good_result_is_a_success() -> None:
    script = Script()
    script.run("/a")
    assert result(script, 0).success
