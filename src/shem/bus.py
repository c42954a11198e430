"""In-process fan-out of events: one side emits and never waits, the other listens at its own pace.

Each listener has its own bounded queue and its own task. A slow one loses the oldest events, and the number
lost is counted and logged; it can never block a move, nor another listener.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from shem.events import BusEvent
from shem.log import get_logger

T = TypeVar("T", bound=BusEvent)

Listener = Callable[[T], Awaitable[object] | object]

#: Events a feed holds for its reader before it drops the oldest.
FEED_SIZE = 10_000

_log = get_logger("bus")


class Feed(AsyncIterator[T]):
    """Events of some kinds, as an async iterator that ends when the feed is closed.

    `dropped` counts the events lost because the reader was too slow.
    """

    def __init__(
        self,
        kinds: tuple[type[T], ...],
        where: Callable[[T], bool] | None = None,
        *,
        size: int = FEED_SIZE,
    ) -> None:
        self.dropped = 0
        self._kinds, self._where, self._size = kinds, where, size
        self._events: deque[T] = deque()
        self._wake: asyncio.Future[None] | None = None
        self._closed = False

    def offer(self, event: BusEvent) -> None:
        """Take an event if it is of interest. Never waits."""
        if self._closed or not isinstance(event, self._kinds):
            return
        if self._where is not None and not self._where(event):
            return
        if len(self._events) >= self._size:
            self._events.popleft()
            self.dropped += 1
        self._events.append(event)
        self._wake_reader()

    def close(self) -> None:
        """No more events: the iteration ends after those that are queued."""
        self._closed = True
        self._wake_reader()

    @property
    def closed(self) -> bool:
        """Whether it takes no more events."""
        return self._closed

    def _wake_reader(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def __anext__(self) -> T:
        while not self._events:
            if self._closed:
                raise StopAsyncIteration
            self._wake = asyncio.get_running_loop().create_future()
            try:
                await self._wake
            finally:
                self._wake = None
        return self._events.popleft()


class Subscription:
    """A listener on the bus, working off its feed in a task of its own."""

    def __init__(self, name: str, feed: Feed[BusEvent], listener: Listener[BusEvent]) -> None:
        self.name = name
        self._feed, self._listener = feed, listener
        self._task = asyncio.get_running_loop().create_task(self._work(), name=f"listener {name}")

    async def _work(self) -> None:
        async for event in self._feed:
            try:
                result = self._listener(event)
                if inspect.isawaitable(result):
                    await result
            except asyncio.CancelledError as error:
                if self._task.cancelling():
                    raise
                # Not this task was cancelled, but something that the listener waited for.
                self._failed(event, error)
            except Exception as error:  # a listener is foreign code: its failure is its owner's, not ours
                self._failed(event, error)

    def _failed(self, event: BusEvent, error: BaseException) -> None:
        _log.error("listener_failed", listener=self.name, heard=type(event).__name__, error=repr(error))

    def cancel(self) -> None:
        """Hear no more, and forget what is queued."""
        self._feed.close()
        self._task.cancel()

    async def drain(self, timeout: float) -> None:
        """Let the listener work off what is queued, for at most `timeout` seconds, and end it."""
        self._feed.close()
        _done, late = await asyncio.wait([self._task], timeout=timeout)
        if late:
            _log.warning("listener_too_slow", listener=self.name, gave_up_after=timeout)
            self._task.cancel()
            await asyncio.wait([self._task], timeout=timeout)
        if self._feed.dropped:
            _log.warning("listener_lost_events", listener=self.name, dropped=self._feed.dropped)


class Bus:
    """The bus of one `Golem`. Needs a running loop only for listeners, not for feeds."""

    def __init__(self) -> None:
        self._feeds: list[Feed[BusEvent]] = []
        self._subscriptions: list[Subscription] = []

    def emit(self, event: BusEvent) -> None:
        """Hand an event to whoever listens. Never waits, never raises."""
        closed = False
        for feed in self._feeds:
            feed.offer(event)
            closed = closed or feed.closed
        if closed:
            self._feeds = [feed for feed in self._feeds if not feed.closed]

    def feed(
        self, *kinds: type[T], where: Callable[[T], bool] | None = None, size: int = FEED_SIZE
    ) -> Feed[T]:
        """A stream of the events of some kinds, from now on. Close it when done."""
        feed: Feed[T] = Feed(kinds, where, size=size)
        self._feeds.append(feed)  # type: ignore[arg-type]  # offers check the kind, so any event may be offered
        return feed

    def listen(self, listener: Listener[BusEvent], *kinds: type[BusEvent], name: str = "") -> Subscription:
        """Call `listener` for each event of some kinds (all, if none are named), one at a time, in order."""
        feed = self.feed(*(kinds or (BusEvent,)))
        label = name or getattr(listener, "__qualname__", repr(listener))
        subscription = Subscription(label, feed, listener)
        self._subscriptions.append(subscription)
        return subscription

    async def close(self, timeout: float = 5.0) -> None:
        """End all feeds and let all listeners finish what is queued, for at most `timeout` seconds."""
        for feed in self._feeds:
            feed.close()
        subscriptions, self._subscriptions = self._subscriptions, []
        if subscriptions:
            await asyncio.gather(*(subscription.drain(timeout) for subscription in subscriptions))
        self._feeds.clear()
