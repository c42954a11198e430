from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from shem.bus import Bus
from shem.engine.cleanup import Leftovers, make, see_through
from shem.errors import NodeFailure, NotFound
from shem.events import BusEvent, StepSkipped
from shem.testing import SimClock, run


def now() -> float:
    return asyncio.get_running_loop().time()


def failure(kind: type[Exception] = NodeFailure) -> Exception:
    return kind("DELETE /x", 500, "no")  # type: ignore[call-arg]  # all errors of the node take these


def with_bus(main: Callable[[Bus], Awaitable[Any]]) -> tuple[Any, list[BusEvent]]:
    async def whole() -> tuple[Any, list[BusEvent]]:
        bus = Bus()
        feed = bus.feed(BusEvent)
        result = await main(bus)
        feed.close()
        return result, [event async for event in feed]

    return run(whole)


def through(work: Callable[[], Any], bus: Bus, within: float = 10.0) -> Any:
    return see_through("a step", work(), within=within, clock=SimClock(), bus=bus)


# --- see_through


def test_a_step_that_succeeds_is_not_worth_a_word() -> None:
    async def main(bus: Bus) -> bool:
        return await through(lambda: asyncio.sleep(3), bus)

    assert with_bus(main) == (True, [])


def test_a_step_that_fails_is_reported_and_not_raised() -> None:
    async def fail() -> None:
        raise failure()

    async def main(bus: Bus) -> bool:
        return await through(fail, bus)

    done, [told] = with_bus(main)
    assert not done
    assert isinstance(told, StepSkipped)
    assert (told.step, "no" in told.reason) == ("a step", True)


def test_a_step_that_takes_too_long_is_given_up_and_reported() -> None:
    async def main(bus: Bus) -> tuple[bool, float]:
        return await through(lambda: asyncio.sleep(3600), bus), now()

    (done, when), [told] = with_bus(main)
    assert (done, when) == (False, 10)
    assert "longer than 10 s" in told.reason


def test_a_bug_in_a_step_is_raised() -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    async def main(bus: Bus) -> None:
        with pytest.raises(ZeroDivisionError):
            await through(fail, bus)

    with_bus(main)


@pytest.mark.parametrize("times", [1, 2, 5])
def test_a_cancelled_caller_sees_the_step_through_before_it_goes(times: int) -> None:
    done: list[float] = []

    async def work() -> None:
        await asyncio.sleep(8)
        done.append(now())

    async def main(bus: Bus) -> None:
        owing = asyncio.create_task(through(work, bus))
        for _time in range(times):
            await asyncio.sleep(1)
            owing.cancel()
        await asyncio.wait([owing])
        assert owing.cancelled()

    assert with_bus(main)[1] == []
    assert done == [8]


def test_a_step_that_will_not_end_cannot_hold_up_its_caller() -> None:
    release = []

    async def stubborn() -> None:
        while not release:
            try:
                await asyncio.sleep(1)
            except asyncio.CancelledError:
                continue

    async def main(bus: Bus) -> float:
        await through(stubborn, bus)
        when = now()
        release.append(True)
        await asyncio.sleep(2)
        return when

    assert with_bus(main)[0] <= 12


# --- make


class Shelf:
    """Where things are put, after a while."""

    def __init__(self, seconds: float, error: Exception | None = None) -> None:
        self.seconds, self.error, self.things = seconds, error, []

    async def put(self) -> str:
        await asyncio.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        self.things.append("thing")
        return "thing"

    async def take(self, thing: str) -> None:
        await asyncio.sleep(self.seconds)
        self.things.remove(thing)


def put_on(shelf: Shelf, bus: Bus, within: float = 10.0) -> Any:
    return make("put a thing", shelf.put, shelf.take, within=within, clock=SimClock(), bus=bus)


def test_what_is_made_is_returned_and_stays() -> None:
    shelf = Shelf(1)

    async def main(bus: Bus) -> str:
        return await put_on(shelf, bus)

    assert with_bus(main) == ("thing", [])
    assert shelf.things == ["thing"]


@pytest.mark.parametrize("error", [failure(), failure(NotFound), ZeroDivisionError()])
def test_an_error_of_the_making_is_the_callers(error: Exception) -> None:
    async def main(bus: Bus) -> None:
        with pytest.raises(type(error)):
            await put_on(Shelf(1, error), bus)

    with_bus(main)


@pytest.mark.parametrize("moment", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("error", [None, failure()])
def test_what_is_made_for_one_who_has_gone_is_unmade(moment: float, error: Exception | None) -> None:
    shelf = Shelf(1, error)

    async def main(bus: Bus) -> None:
        making = asyncio.create_task(put_on(shelf, bus))
        await asyncio.sleep(moment)
        making.cancel()
        await asyncio.wait([making])
        assert making.cancelled()

    assert with_bus(main)[1] == []
    assert shelf.things == []


def test_unmaking_is_bounded_and_reported_where_it_fails() -> None:
    async def main(bus: Bus) -> float:
        making = asyncio.create_task(put_on(Shelf(8), bus))
        await asyncio.sleep(1)
        making.cancel()
        await asyncio.wait([making])
        return now()

    when, [told] = with_bus(main)
    assert when == 11
    assert told.step == "put a thing, and undo it"


# --- leftovers


class Stubborn:
    """Fails a number of times before it succeeds."""

    def __init__(self, times: float, kind: type[Exception] = NodeFailure) -> None:
        self.times, self.kind, self.done_at = times, kind, None

    async def __call__(self) -> None:
        if self.times > 0:
            self.times -= 1
            raise failure(self.kind)
        self.done_at = now()


def test_a_leftover_is_tried_until_it_is_done() -> None:
    async def main() -> float | None:
        leftovers, work = Leftovers(SimClock()), Stubborn(20)
        leftovers.add("a step", work)
        await asyncio.sleep(600)
        await leftovers.close(0)
        return work.done_at

    assert run(main) is not None


def test_closing_waits_for_leftovers_no_longer_than_allowed() -> None:
    async def main() -> float:
        leftovers = Leftovers(SimClock())
        leftovers.add("never", Stubborn(float("inf")))
        leftovers.add("soon", Stubborn(2))
        await leftovers.close(30)
        await leftovers.close(30)
        return now()

    assert run(main) == 30


def test_a_leftover_that_fails_for_good_is_given_up() -> None:
    async def main() -> float:
        leftovers = Leftovers(SimClock())
        leftovers.add("a step", Stubborn(1, NotFound))
        await leftovers.close(30)
        return now()

    assert run(main) == 0
