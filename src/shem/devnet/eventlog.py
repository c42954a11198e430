"""Events that are kept and read by time, any number of times: those of agreements, debit notes and invoices.

The times of all events of a node are strictly increasing, so that "later than the last one I saw" neither
loses nor repeats any (contract 5.3, gotcha 4).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Generic, Protocol, TypeVar

from shem.clock import Clock
from shem.devnet.waiting import Bell


class EventTimes:
    """Times for events: the clock's, but each at least a microsecond after the one before."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last: datetime | None = None

    def next(self) -> datetime:
        """A time that was not given out before."""
        now = self._clock.now()
        if self._last is not None and now <= self._last:
            now = self._last + timedelta(microseconds=1)
        self._last = now
        return now


class Dated(Protocol):
    """An event."""

    @property
    def event_date(self) -> datetime:
        """When it happened."""


E = TypeVar("E", bound=Dated)


class EventLog(Generic[E]):
    """All events of one kind, oldest first."""

    def __init__(self) -> None:
        self._dates: list[datetime] = []
        self._events: list[E] = []
        self._bell = Bell()
        self._closed = False

    def close(self) -> None:
        """End all polls that wait; later ones do not wait any more."""
        self._closed = True
        self._bell.ring()

    def append(self, event: E) -> None:
        """Add an event, which must be later than all before, and wake those who wait for it."""
        self._dates.append(event.event_date)
        self._events.append(event)
        self._bell.ring()

    async def after(
        self,
        after: datetime | None,
        wanted: Callable[[E], bool],
        *,
        timeout: float,
        max_events: int | None = None,
    ) -> list[E]:
        """The first wanted events strictly later than `after`; waits up to `timeout` for one to come."""
        found: list[E] = []
        position = 0 if after is None else bisect_right(self._dates, after)

        def look() -> bool:
            nonlocal position
            while position < len(self._events) and (max_events is None or len(found) < max_events):
                event = self._events[position]
                position += 1
                if wanted(event):
                    found.append(event)
            return bool(found) or self._closed

        await self._bell.until(look, timeout)
        return found
