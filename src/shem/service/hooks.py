"""Calls a user's ``on_<state>`` hooks after the moves, in order, each with a time limit.

They can veto nothing and break nothing: a failure is logged with the hook's name. No task exists while there
is nothing to call.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque

from shem.lifecycle import Event, Record, State
from shem.log import get_logger

_log = get_logger("hooks")


class StateHooks:
    """The hooks of one service object.

    Args:
        timeout: the longest one hook may take, in seconds.
    """

    def __init__(self, service: object, *, timeout: float) -> None:
        self._owner = type(service).__name__
        self._timeout = timeout
        self._hooks = {
            state: hook for state in State if (hook := getattr(service, f"on_{state.value}", None))
        }
        self._queue: deque[Record[State, Event]] = deque()
        self._task: asyncio.Task[None] | None = None

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
        try:
            async with asyncio.timeout(self._timeout):
                result = self._hooks[record.dest](record)
                if inspect.isawaitable(result):
                    await result
        except (
            Exception
        ) as error:  # the hook is foreign code: its failure is its owner's, and changes nothing
            _log.error("hook_failed", hook=hook, instance=record.subject, error=repr(error))

    async def drain(self) -> None:
        """Wait until all hooks called for so far have ended."""
        if self._task is not None:
            await asyncio.wait([self._task])
