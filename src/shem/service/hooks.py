"""Calls a user's ``on_<state>`` hooks after the moves, in order, each in its own task with a time limit.

They can veto nothing and break nothing: a failure is logged with the hook's name, and one that will not end
is left behind. No task exists while there is nothing to call.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Callable

from shem.lifecycle import Event, Record, State
from shem.log import get_logger
from shem.service.driver import cut_short

_log = get_logger("hooks")

Hook = Callable[[Record[State, Event]], object]


class StateHooks:
    """The hooks of one service object.

    Args:
        timeout: the longest one hook may take, in seconds.
    """

    def __init__(self, service: object, *, timeout: float) -> None:
        self._owner = type(service).__name__
        self._timeout = timeout
        self._hooks: dict[State, Hook] = {
            state: hook for state in State if (hook := getattr(service, f"on_{state.value}", None))
        }
        self._queue: deque[Record[State, Event]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._calls: set[asyncio.Task[None]] = set()

    def moved(self, record: Record[State, Event]) -> None:
        """Call the hook of the state that was entered, if there is one, soon."""
        if record.dest not in self._hooks:
            return
        self._queue.append(record)
        if self._task is None:
            name = f"hooks of {record.subject}"
            self._task = asyncio.get_running_loop().create_task(self._work(), name=name)

    async def _work(self) -> None:
        try:
            while self._queue:
                await self._call(self._queue.popleft())
        finally:
            self._task = None

    async def _call(self, record: Record[State, Event]) -> None:
        hook = f"{self._owner}.on_{record.dest.value}"
        # In a task of its own, so that neither its cancellation nor its refusal to end is anybody else's.
        call = asyncio.get_running_loop().create_task(
            _answer(self._hooks[record.dest], record), name=f"{hook} of {record.subject}"
        )
        self._calls.add(call)
        call.add_done_callback(self._forget)
        try:
            _done, late = await asyncio.wait([call], timeout=self._timeout)
        finally:
            call.cancel()
        if late:
            error = f"it took longer than {self._timeout:g} s"
            await cut_short(late)
        elif call.cancelled():
            error = "it was cancelled"
        elif (raised := call.exception()) is not None:
            error = repr(raised)
        else:
            return
        _log.error("hook_failed", hook=hook, instance=record.subject, error=error)

    def _forget(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        if not call.cancelled():
            # Retrieved, so that the end of one that was left behind makes no noise.
            call.exception()

    async def drain(self) -> None:
        """Wait until all hooks called for so far have ended, or have used up their time."""
        while self._task is not None:
            await asyncio.wait([self._task])


async def _answer(hook: Hook, record: Record[State, Event]) -> None:
    result = hook(record)
    if inspect.isawaitable(result):
        await result
