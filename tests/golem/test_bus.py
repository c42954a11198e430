from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from shem.bus import Bus
from shem.events import BusEvent, ClusterStopped, NodeBack, NodeLost
from shem.ids import ClusterId
from shem.testing import run

AT = datetime(2030, 1, 1, tzinfo=UTC)


def lost(number: int = 0) -> NodeLost:
    return NodeLost(at=AT, poll=str(number), error="no")


def stopped(name: str) -> ClusterStopped:
    return ClusterStopped(at=AT, cluster=ClusterId(name))


def on_bus(main: Callable[[Bus], Awaitable[Any]]) -> Any:
    return run(lambda: _with(main))


async def _with(main: Callable[[Bus], Awaitable[Any]]) -> Any:
    bus = Bus()
    try:
        return await main(bus)
    finally:
        await bus.close()


# --- feeds


@given(st.lists(st.sampled_from(["lost", "back", "stopped"])))
def test_a_feed_gives_the_events_of_its_kinds_in_order(kinds: list[str]) -> None:
    made = {
        "lost": lost(),
        "back": NodeBack(at=AT, poll="x", seconds=1.0),
        "stopped": stopped("c"),
    }
    events = [made[kind] for kind in kinds]

    async def main(bus: Bus) -> list[BusEvent]:
        feed = bus.feed(NodeLost, ClusterStopped)
        for event in events:
            bus.emit(event)
        feed.close()
        return [event async for event in feed]

    assert on_bus(main) == [event for event in events if not isinstance(event, NodeBack)]


def test_a_feed_may_choose_by_more_than_kind() -> None:
    async def main(bus: Bus) -> list[ClusterStopped]:
        feed = bus.feed(ClusterStopped, where=lambda event: event.cluster == "mine")
        bus.emit(stopped("other"))
        bus.emit(stopped("mine"))
        feed.close()
        return [event async for event in feed]

    assert on_bus(main) == [stopped("mine")]


def test_a_feed_waits_for_what_is_to_come_and_ends_when_it_is_closed() -> None:
    async def main(bus: Bus) -> list[str]:
        feed = bus.feed(NodeLost)
        asyncio.get_running_loop().call_later(1, lambda: bus.emit(lost(1)))
        asyncio.get_running_loop().call_later(2, lambda: bus.emit(lost(2)))
        asyncio.get_running_loop().call_later(3, feed.close)
        asyncio.get_running_loop().call_later(4, lambda: bus.emit(lost(3)))
        return [event.poll async for event in feed]

    assert on_bus(main) == ["1", "2"]


@given(st.integers(1, 20), st.integers(0, 60))
def test_a_full_feed_drops_the_oldest_and_counts_them(size: int, count: int) -> None:
    async def main(bus: Bus) -> tuple[list[str], int]:
        feed = bus.feed(NodeLost, size=size)
        for number in range(count):
            bus.emit(lost(number))
        feed.close()
        return [event.poll async for event in feed], feed.dropped

    kept = [str(number) for number in range(count)][-size:]
    assert on_bus(main) == (kept, max(0, count - size))


def test_a_feed_hears_nothing_from_before_it_was_opened() -> None:
    async def main(bus: Bus) -> list[BusEvent]:
        bus.emit(lost())
        feed = bus.feed(BusEvent)
        feed.close()
        return [event async for event in feed]

    assert on_bus(main) == []


def test_a_reader_that_is_cancelled_loses_nothing() -> None:
    async def main(bus: Bus) -> str:
        feed = bus.feed(NodeLost)
        reading = asyncio.ensure_future(anext(feed))
        await asyncio.sleep(1)
        reading.cancel()
        await asyncio.wait([reading])
        bus.emit(lost(7))
        return (await anext(feed)).poll

    assert on_bus(main) == "7"


# --- listeners


def test_a_listener_is_called_one_event_at_a_time_in_order() -> None:
    at_work: list[str] = []
    done: list[str] = []

    async def listen(event: NodeLost) -> None:
        assert at_work == []
        at_work.append(event.poll)
        await asyncio.sleep(1)
        done.append(at_work.pop())

    async def main(bus: Bus) -> None:
        bus.listen(listen, NodeLost)
        for number in range(4):
            bus.emit(lost(number))

    on_bus(main)
    assert done == ["0", "1", "2", "3"]


def test_a_listener_that_fails_is_logged_by_name_and_goes_on() -> None:
    heard: list[str] = []

    def fussy(event: NodeLost) -> None:
        heard.append(event.poll)
        if event.poll == "1":
            raise LookupError("I do not like it")

    async def main(bus: Bus) -> None:
        bus.listen(fussy, NodeLost)
        for number in range(3):
            bus.emit(lost(number))

    with structlog.testing.capture_logs() as logs:
        on_bus(main)
    assert heard == ["0", "1", "2"]
    [line] = [line for line in logs if line["event"] == "listener_failed"]
    assert "fussy" in line["listener"]
    assert "I do not like it" in line["error"]


def test_a_listener_whose_own_work_was_cancelled_goes_on() -> None:
    heard: list[str] = []

    async def listen(event: NodeLost) -> None:
        heard.append(event.poll)
        if event.poll == "1":
            gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            gone.cancel()
            await gone

    async def main(bus: Bus) -> None:
        bus.listen(listen, NodeLost)
        for number in range(3):
            bus.emit(lost(number))

    on_bus(main)
    assert heard == ["0", "1", "2"]


def test_a_slow_listener_holds_up_neither_the_emitter_nor_another_listener() -> None:
    quick: list[float] = []

    async def slow(_event: BusEvent) -> None:
        await asyncio.sleep(100)

    async def main(bus: Bus) -> None:
        bus.listen(slow)
        bus.listen(lambda _event: quick.append(asyncio.get_running_loop().time()))
        bus.emit(lost())
        await asyncio.sleep(1)
        bus.emit(lost())
        await asyncio.sleep(1)

    on_bus(main)
    assert quick == [0, 1]


@pytest.mark.parametrize("clings", [False, True])
def test_closing_waits_for_a_slow_listener_no_longer_than_allowed(clings: bool) -> None:
    release: list[bool] = []

    async def slow(_event: BusEvent) -> None:
        while not release:
            try:
                await asyncio.sleep(1)
            except asyncio.CancelledError:
                if not clings:
                    raise

    async def main(bus: Bus) -> float:
        bus.listen(slow)
        bus.emit(lost())
        with structlog.testing.capture_logs() as logs:
            await bus.close(timeout=5)
        assert [line["event"] for line in logs] == ["listener_too_slow"]
        when = asyncio.get_running_loop().time()
        release.append(True)
        await asyncio.sleep(2)
        return when

    assert on_bus(main) == (10 if clings else 5)


def test_closing_lets_listeners_finish_what_is_queued() -> None:
    heard: list[str] = []

    async def listen(event: NodeLost) -> None:
        await asyncio.sleep(0.1)
        heard.append(event.poll)

    async def main(bus: Bus) -> None:
        bus.listen(listen, NodeLost)
        for number in range(10):
            bus.emit(lost(number))

    on_bus(main)
    assert len(heard) == 10


def test_a_subscription_that_is_cancelled_hears_no_more() -> None:
    heard: list[str] = []

    async def main(bus: Bus) -> None:
        subscription = bus.listen(lambda event: heard.append(event.poll), NodeLost)
        bus.emit(lost(1))
        await asyncio.sleep(0)
        subscription.cancel()
        bus.emit(lost(2))
        await asyncio.sleep(1)

    on_bus(main)
    assert heard == ["1"]


def test_events_lost_on_a_listener_are_told_in_the_end() -> None:
    async def main(bus: Bus) -> None:
        from shem.bus import Feed, Subscription

        feed: Feed[Any] = Feed((BusEvent,), size=2)
        bus._feeds.append(feed)
        bus._subscriptions.append(Subscription("small", feed, lambda _event: None))
        for number in range(10):
            bus.emit(lost(number))

    with structlog.testing.capture_logs() as logs:
        on_bus(main)
    assert [(line["event"], line["dropped"]) for line in logs] == [("listener_lost_events", 8)]
