"""Waiting with a time limit, and events that are read by time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from shem.devnet.eventlog import EventLog, EventTimes
from shem.devnet.waiting import Bell
from shem.testing.sim import SimClock, run

START = datetime(2030, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Happening:
    event_date: datetime
    number: int


class FixedClock(SimClock):
    def __init__(self, times):
        super().__init__()
        self.times = iter(times)

    def now(self):
        return next(self.times)


@given(st.lists(st.integers(-5, 5), max_size=30))
def test_event_times_always_increase_even_where_the_clock_does_not(steps):
    moments = [START + timedelta(microseconds=step) for step in steps]
    times = EventTimes(FixedClock(moments))
    given_out = [times.next() for _ in moments]
    assert all(earlier < later for earlier, later in pairwise(given_out))
    assert all(moment <= given for moment, given in zip(moments, given_out, strict=True))


@given(st.integers(0, 20), st.integers(1, 7))
def test_reading_on_from_the_last_date_neither_loses_nor_repeats_an_event(count, at_once):
    async def main():
        log, times = EventLog(), EventTimes(SimClock())
        for number in range(count):
            log.append(Happening(times.next(), number))
        after, seen = None, []
        while part := await log.after(after, lambda event: True, timeout=0, max_events=at_once):
            seen += [event.number for event in part]
            after = part[-1].event_date
        assert seen == list(range(count))

    run(main)


def test_a_poll_returns_at_the_first_wanted_event_and_not_before():
    async def main():
        log, clock = EventLog(), SimClock()
        times = EventTimes(clock)
        loop = asyncio.get_running_loop()
        loop.call_later(1, lambda: log.append(Happening(times.next(), 1)))
        loop.call_later(2, lambda: log.append(Happening(times.next(), 2)))
        found = await log.after(None, lambda event: event.number == 2, timeout=10)
        assert [event.number for event in found] == [2]
        assert clock.monotonic() == 2

    run(main)


def test_closing_a_log_ends_its_polls():
    async def main():
        log, clock = EventLog(), SimClock()
        asyncio.get_running_loop().call_later(1, log.close)
        assert await log.after(None, lambda event: True, timeout=60) == []
        assert await log.after(None, lambda event: True, timeout=60) == []
        assert clock.monotonic() == 1

    run(main)


def test_a_bell_wakes_all_who_wait_and_leaves_nothing_behind_when_one_gives_up():
    async def main():
        bell, rung = Bell(), []
        waits = [asyncio.create_task(bell.until(lambda: bool(rung), 10)) for _ in range(3)]
        given_up = asyncio.create_task(bell.until(lambda: False))
        await asyncio.sleep(1)
        given_up.cancel()
        bell.ring()  # for nothing: the condition does not hold
        await asyncio.sleep(1)
        assert not any(wait.done() for wait in waits)
        rung.append(1)
        bell.ring()
        assert await asyncio.gather(*waits) == [True, True, True]
        assert await bell.until(lambda: False, 0) is False

    run(main)
