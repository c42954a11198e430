"""Long polls that outlive the node: retried with backoff, visible as events, never silently dead."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from shem.bus import Bus
from shem.clock import Clock
from shem.errors import NodeError, NodeFailure, NodeUnavailable, RequestTimeout
from shem.events import NodeBack, NodeLost
from shem.log import get_logger

T = TypeVar("T")

_log = get_logger("engine")

#: How long the node may hold a long poll, in seconds. The node's own ceiling is its keep-alive of 60 s.
POLL_SECONDS = 30.0

#: A long poll that comes back sooner without news has not waited.
AT_ONCE_SECONDS = 1.0

#: Failures of the moment: asking again may help.
PASSING: tuple[type[NodeError], ...] = (NodeUnavailable, RequestTimeout, NodeFailure)


@dataclass(slots=True)
class Backoff:
    """Growing pauses between attempts: `first` seconds, doubled up to `most`, each off by up to `jitter`."""

    clock: Clock
    first: float = 0.5
    most: float = 15.0
    jitter: float = 0.25
    attempts: int = 0

    def next(self) -> float:
        """The next pause, in seconds."""
        pause = min(self.most, self.first * 2.0 ** min(self.attempts, 30))
        self.attempts += 1
        return pause * (1 + self.jitter * (2 * self.clock.random() - 1))

    async def wait(self) -> None:
        """Sit the next pause out."""
        await asyncio.sleep(self.next())

    def reset(self) -> None:
        """Start again with the first pause."""
        self.attempts = 0


async def poll_for_ever(name: str, poll: Callable[[], Awaitable[bool]], *, clock: Clock, bus: Bus) -> None:
    """Call `poll` again and again; ends only by cancellation. It returns whether there was any news.

    Whatever the node answers is survived, even what looks final: a restarted node may know better, and an
    engine that has stopped listening would be worse than one that asks in vain. A node that has no news and
    yet does not wait is asked with the same growing pauses as one that fails.
    """
    backoff = Backoff(clock)
    lost_at: float | None = None
    while True:
        asked_at, news = clock.monotonic(), False
        try:
            news = await poll()
        except RequestTimeout:
            # Neither an answer nor a failure: the node, or something before it, ran out of time.
            pass
        except NodeError as error:
            if lost_at is None:
                lost_at = clock.monotonic()
                bus.emit(NodeLost(at=clock.now(), poll=name, error=str(error)))
            await backoff.wait()
            continue
        except Exception as error:  # a bug, or an answer nobody thought of: a deaf engine would be worse
            _log.error("poll_failed_by_a_bug", poll=name, error=repr(error), exc_info=True)
            await backoff.wait()
            continue
        else:
            if lost_at is not None:
                bus.emit(NodeBack(at=clock.now(), poll=name, seconds=clock.monotonic() - lost_at))
                lost_at = None
        await pause_unless(news, asked_at, backoff)


async def pause_unless(news: bool, asked_at: float, backoff: Backoff) -> None:
    """After a long poll: wait before the next one where the last had no news and yet came back at once."""
    if news or backoff.clock.monotonic() - asked_at >= AT_ONCE_SECONDS:
        backoff.reset()
    else:
        await backoff.wait()


async def insist(call: Callable[[], Awaitable[T]], *, clock: Clock, within: float) -> T:
    """Make a call that must not be repeated once it may have had an effect: again while it cannot be sent.

    Gives up after `within` seconds by raising the last failure.
    """
    backoff = Backoff(clock)
    deadline = clock.monotonic() + within
    while True:
        try:
            return await call()
        except NodeUnavailable as error:
            pause = backoff.next()
            if not error.unsent or clock.monotonic() + pause >= deadline:
                raise
            await asyncio.sleep(pause)


async def persist(
    call: Callable[[], Awaitable[T]],
    *,
    clock: Clock,
    within: float,
    on: tuple[type[NodeError], ...] = PASSING,
) -> T:
    """Make a call that may be repeated, again and again while the failure is a passing one.

    Gives up after `within` seconds by raising the last failure.
    """
    backoff = Backoff(clock)
    deadline = clock.monotonic() + within
    while True:
        try:
            return await call()
        except on:
            pause = backoff.next()
            if clock.monotonic() + pause >= deadline:
                raise
            await asyncio.sleep(pause)
