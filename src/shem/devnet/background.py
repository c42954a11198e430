"""The owner of everything a node does in the background: tasks and timers.

Waiting on behalf of a caller does not belong here, see `waiting`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from shem.log import get_logger

_log = get_logger("devnet")


class Timer:
    """A call that will be made later, unless it is cancelled first. Cancelling twice is harmless."""

    __slots__ = ("_handle", "_owner")

    def __init__(self, owner: Background, delay: float, callback: Callable[..., None], args: tuple[Any, ...]):
        self._owner = owner
        self._handle = asyncio.get_running_loop().call_later(delay, self._due, callback, args)

    def cancel(self) -> None:
        """Do not make the call."""
        self._handle.cancel()
        self._owner.forget(self)

    def _due(self, callback: Callable[..., None], args: tuple[Any, ...]) -> None:
        self._owner.forget(self)
        callback(*args)


class Background:
    """Keeps the node's tasks and timers until they are done, and ends what is left at the end.

    A task that finishes is forgotten; one that is cancelled, too; one that raises is a bug of the devnet and
    is handed to the loop's exception handler, so that it shows.
    """

    def __init__(self) -> None:
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._timers: dict[Timer, None] = {}
        self._closed = False

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run `work` in a task of its own."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks[task] = None
        task.add_done_callback(self._ended)
        return task

    def later(self, delay: float, callback: Callable[..., None], *args: Any) -> Timer:
        """Call `callback(*args)` after `delay` seconds; after `aclose` nothing is called any more."""
        timer = Timer(self, max(delay, 0.0), callback, args)
        if self._closed:
            timer.cancel()
        else:
            self._timers[timer] = None
        return timer

    def forget(self, timer: Timer) -> None:
        """A timer is over."""
        self._timers.pop(timer, None)

    async def aclose(self, timeout: float) -> None:
        """Cancel all timers and tasks, and wait up to `timeout` seconds for the tasks to end."""
        self._closed = True
        for timer in list(self._timers):
            timer.cancel()
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        if tasks:
            _, stuck = await asyncio.wait(tasks, timeout=timeout)
            for task in stuck:
                _log.warning("task_did_not_end", task=task.get_name(), waited=timeout)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            task.get_loop().call_exception_handler(
                {"message": f"devnet task {task.get_name()} failed", "exception": error, "task": task}
            )
