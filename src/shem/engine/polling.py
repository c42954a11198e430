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

T = TypeVar("T")

#: How long the node may hold a long poll, in seconds. The node's own ceiling is its keep-alive of 60 s.
POLL_SECONDS = 30.0

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


async def poll_for_ever(name: str, poll: Callable[[], Awaitable[None]], *, clock: Clock, bus: Bus) -> None:
    """Call `poll` again and again; ends only by cancellation.

    Whatever the node answers is survived, even what looks final: a restarted node may know better, and an
    engine that has stopped listening would be worse than one that asks in vain.
    """
    backoff = Backoff(clock)
    lost_at: float | None = None
    while True:
        try:
            await poll()
        except RequestTimeout:
            continue
        except NodeError as error:
            if lost_at is None:
                lost_at = clock.monotonic()
                bus.emit(NodeLost(at=clock.now(), poll=name, error=str(error)))
            await backoff.wait()
            continue
        if lost_at is not None:
            bus.emit(NodeBack(at=clock.now(), poll=name, seconds=clock.monotonic() - lost_at))
            lost_at = None
        backoff.reset()


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
