"""Waiting for something to change, with a time limit and without polling."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Bell:
    """Rung at every change; wakes all who wait for one, and nobody who comes later."""

    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        self._waiters: dict[asyncio.Future[None], None] = {}

    def ring(self) -> None:
        """Wake everybody who waits."""
        waiters, self._waiters = self._waiters, {}
        for waiter in waiters:
            _release(waiter)

    async def until(self, ready: Callable[[], bool], timeout: float | None = None) -> bool:
        """Wait for `ready` to hold, looking at every ring, for at most `timeout` seconds.

        Returns whether it holds. With a timeout of 0 it answers at once, without one it may wait for ever.
        """
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        while not ready():
            if deadline is not None and loop.time() >= deadline:
                return False
            waiter = loop.create_future()
            timer = None if deadline is None else loop.call_at(deadline, _release, waiter)
            self._waiters[waiter] = None
            try:
                await waiter
            finally:
                self._waiters.pop(waiter, None)
                if timer is not None:
                    timer.cancel()
        return True


def _release(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
