"""`on_<state>` hooks: after the move, in order, bounded, and of no consequence."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from shem.lifecycle import Event, Record, State
from shem.service.instance import Budgets
from shem.service.service import Service
from shem.testing.sim import run

BUDGETS = Budgets(hook=10.0)
LIFE = ["starting", "running", "stopping", "terminated"]


class Short(Service):
    """Lives for one second, without a script."""

    def __init__(self) -> None:
        self.log: list[Any] = []

    async def start(self):
        for _nothing in ():
            yield _nothing

    async def run(self):
        await asyncio.sleep(1)
        for _nothing in ():
            yield _nothing

    shutdown = start


def with_hooks(hook: Any, *states: str) -> type[Short]:
    return type("Demo", (Short,), {f"on_{state}": hook for state in states or LIFE})


def lives(stage: type[Any], service: type[Service]) -> Any:
    async def main() -> Any:
        one = stage(service, budgets=BUDGETS)
        one.provide()
        await one.until(State.TERMINATED)
        await one.instance.handlers_finished()
        await one.instance.hooks_finished()
        one.took = asyncio.get_running_loop().time()
        return one

    return run(main)


async def note(self: Any, move: Record[State, Event]) -> None:
    self.log.append((move.dest.value, self.state.value, move.seq))


def note_at_once(self: Any, move: Record[State, Event]) -> None:
    self.log.append((move.dest.value, self.state.value, move.seq))


@pytest.mark.parametrize("hook", [note, note_at_once], ids=["async", "sync"])
def test_hooks_are_called_after_the_move_with_its_record_and_in_order(stage: type[Any], hook: Any) -> None:
    one = lives(stage, with_hooks(hook))
    assert [(dest, seq) for dest, _state, seq in one.service.log] == [
        (record.dest.value, record.seq) for record in one.instance.records
    ]
    assert one.service.log[0] == ("starting", "starting", 1)


def test_slow_hooks_keep_their_order_and_hold_nothing_up(stage: type[Any]) -> None:
    async def slow(self: Any, move: Record[State, Event]) -> None:
        await asyncio.sleep(5)
        self.log.append((move.dest.value, asyncio.get_running_loop().time()))

    one = lives(stage, with_hooks(slow))
    assert one.service.log == [(state, 5.0 * place) for place, state in enumerate(LIFE, 1)]
    assert one.last.monotonic == 1.0, "the moves did not wait"


def test_a_hook_may_be_defined_for_each_of_the_six_states(stage: type[Any]) -> None:
    async def main() -> None:
        one = stage(with_hooks(note, *(state.value for state in State)), retries=1)
        one.provide()
        one.silence()
        one.fire(Event.UNRESPONSIVE_TIMEOUT)
        one.provide()
        await one.until(State.RUNNING)
        await one.end()
        assert [dest for dest, _state, _seq in one.service.log] == one.path[1:]
        assert set(one.path) == {state.value for state in State}

    run(main)


def test_without_hooks_no_task_is_made(stage: type[Any]) -> None:
    async def main() -> None:
        one = stage(with_hooks(None))
        one.provide()
        one.stop()
        assert [task for task in asyncio.all_tasks() if "hook" in task.get_name()] == []
        await one.end()

    run(main)


async def raises(self: Any, move: Record[State, Event]) -> None:
    raise ValueError("out of paper")


def raises_at_once(self: Any, move: Record[State, Event]) -> None:
    raise ValueError("out of paper")


async def is_cancelled(self: Any, move: Record[State, Event]) -> None:
    nothing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    nothing.cancel()
    await nothing


async def hangs(self: Any, move: Record[State, Event]) -> None:
    await asyncio.sleep(1000)


async def slow(self: Any, move: Record[State, Event]) -> None:
    await asyncio.sleep(2)


async def wrong_arguments(self: Any) -> None: ...


@pytest.mark.parametrize(
    ("hook", "said"),
    [
        (raises, "ValueError('out of paper')"),
        (raises_at_once, "ValueError('out of paper')"),
        (is_cancelled, "it was cancelled"),
        (hangs, "it took longer than 10 s"),
        (wrong_arguments, "takes 1 positional argument"),
    ],
    ids=["raises", "raises at once", "is cancelled", "hangs", "wrong arguments"],
)
def test_a_failing_hook_is_logged_with_its_owner_s_name_and_changes_nothing(
    stage: type[Any], hook: Any, said: str
) -> None:
    demo = with_hooks(hook)
    demo.on_terminated = note
    with structlog.testing.capture_logs() as logs:
        one = lives(stage, demo)
    assert one.path == ["pending", *LIFE]
    assert [entry["hook"] for entry in logs] == [f"Demo.on_{state}" for state in LIFE[:-1]]
    for entry in logs:
        assert (entry["event"], entry["log_level"], entry["instance"]) == ("hook_failed", "error", "i1")
        assert said in entry["error"]
    assert [dest for dest, *_ in one.service.log] == ["terminated"], "the later ones are called all the same"


def test_a_hook_that_will_not_end_is_left_behind_and_holds_the_end_up_for_a_bounded_time(
    stage: type[Any],
) -> None:
    async def stubborn(self: Any, move: Record[State, Event]) -> None:
        while not self.released:
            try:
                await asyncio.sleep(1)
            except asyncio.CancelledError:
                self.log.append("no")
        raise ValueError("late, and nobody's business")

    demo = with_hooks(stubborn, "running")
    demo.released = False
    demo.on_terminated = note

    async def main() -> None:
        one = stage(demo, budgets=BUDGETS)
        one.provide()
        await one.until(State.TERMINATED)
        await one.instance.hooks_finished()
        assert asyncio.get_running_loop().time() <= 12
        assert one.service.log == ["no", ("terminated", "terminated", 4)]
        one.service.released = True
        await asyncio.sleep(5)

    run(main)


def test_a_hook_cannot_veto_and_may_wait_for_what_comes_next(stage: type[Any]) -> None:
    async def waits(self: Any, move: Record[State, Event]) -> None:
        self.log.append(await self.wait_for(State.TERMINATED))

    one = lives(stage, with_hooks(waits, "starting"))
    assert one.service.log == [State.TERMINATED] and one.path == ["pending", *LIFE]


kinds = st.sampled_from([note, note_at_once, raises, raises_at_once, is_cancelled, slow, hangs])


@given(st.dictionaries(st.sampled_from(LIFE), kinds))
def test_whatever_hooks_do_the_life_is_the_same_and_its_end_is_bounded(
    stage: type[Any], hooks: dict[str, Any]
) -> None:
    demo = type("Demo", (Short,), {f"on_{state}": hook for state, hook in hooks.items()})
    one = lives(stage, demo)
    assert one.path == ["pending", *LIFE]
    assert one.last.monotonic == 1.0
    assert one.took <= 1 + len(LIFE) * BUDGETS.hook
    good = [state for state in LIFE if hooks.get(state) in (note, note_at_once)]
    assert [dest for dest, *_ in one.service.log] == good
