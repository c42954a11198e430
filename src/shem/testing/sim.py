"""A simulated asyncio loop: virtual time, no I/O, the same order of everything in every run.

Time stands still while anything can run and then jumps to the next timer, so a day passes in milliseconds.
The order in which tasks run is asyncio's own (first in, first out), the same in every process: sets of tasks
iterate in the order in which the tasks were made, not by address. A *chooser* may deviate from it, but only
between different tasks: callbacks keep the order that asyncio promises.

The loop notices what a real one would hide: a deadlock (nothing can run and nothing is due), a livelock (no
progress of time), and everything that reached the loop's exception handler.

It rests on three private names of `asyncio.BaseEventLoop` (`_ready`, `_scheduled`, `_run_once`), unchanged in
CPython 3.11 to 3.13.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections.abc import Callable, Coroutine
from contextvars import Context
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")

#: Given how many tasks could run next (at least 2), the place in line of the one that shall.
Chooser = Callable[[int], int]

#: Wall time at which every simulation begins.
EPOCH = datetime(2030, 1, 1, tzinfo=UTC)


class SimDeadlock(RuntimeError):
    """Nothing can run and no timer is due: somebody waits for what nobody will do."""


class SimLivelock(RuntimeError):
    """Very many steps without time moving: somebody turns in a circle."""


class _SimTask(asyncio.Task[Any]):
    """A task whose hash is its number, so that sets of tasks iterate alike in every process."""

    def __init__(self, *args: Any, number: int, **kwargs: Any) -> None:
        self._number = number
        super().__init__(*args, **kwargs)

    def __hash__(self) -> int:
        return self._number


class SimLoop(asyncio.BaseEventLoop):
    """The loop. `steps` counts the callbacks that ran."""

    def __init__(self, choose: Chooser | None = None, *, max_steps_at_once: int = 100_000) -> None:
        super().__init__()
        self.steps = 0
        self._now = 0.0
        self._choose = choose
        self._steps_at_once = 0
        self._max_steps_at_once = max_steps_at_once
        self._at_step: dict[int, list[Callable[[], object]]] = {}
        self._clock_resolution = 0.0
        self._timers = itertools.count()
        numbers = itertools.count(1)

        def make_task(loop: asyncio.AbstractEventLoop, coro: Any, **kwargs: Any) -> asyncio.Task[Any]:
            number = next(numbers)
            # 3.13 passes name=None, and the default names count over the whole process.
            kwargs["name"] = kwargs.get("name") or f"sim-task-{number}"
            return _SimTask(coro, loop=loop, number=number, **kwargs)

        self.set_task_factory(make_task)

    def at_step(self, number: int, action: Callable[[], object]) -> None:
        """Call `action` just before the callback with this number runs: a way to interfere at any `await`."""
        self._at_step.setdefault(number, []).append(action)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now

    # Those of asyncio check for threads and for a closed loop each time, and leave open which of two timers
    # that are due together goes first.

    def call_soon(  # type: ignore[override]  # asyncio's own has type parameters for the arguments
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """Call something as soon as all that is ready has had its turn."""
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)  # type: ignore[attr-defined]  # see the module
        return handle

    def call_at(  # type: ignore[override]  # as above
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call something at a virtual time; of those due together, the first to be asked for goes first."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        timer._scheduled = True  # type: ignore[attr-defined]  # cancelled timers count by it
        heapq.heappush(self._scheduled, (when, next(self._timers), timer))  # type: ignore[attr-defined]
        return timer

    def call_later(  # type: ignore[override]  # as above
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call something after so many virtual seconds."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def _run_once(self) -> None:
        # All the time until it is stopped, not one round: a simulation lives in this loop.
        ready, timers = self._ready, self._scheduled  # type: ignore[attr-defined]  # see the module
        while True:
            while timers and timers[0][2]._cancelled:
                heapq.heappop(timers)[2]._scheduled = False
            if not ready and not self._to_next_timer(timers):
                return
            while timers and timers[0][0] <= self._now:
                handle = heapq.heappop(timers)[2]
                handle._scheduled = False
                if not handle._cancelled:
                    ready.append(handle)
            if not ready:
                continue
            handle = ready.popleft() if self._choose is None or len(ready) == 1 else self._take(ready)
            self.steps += 1
            self._steps_at_once += 1
            if self._steps_at_once > self._max_steps_at_once:
                raise SimLivelock(f"{self._steps_at_once} steps at t={self._now} s without time moving")
            if self._at_step:
                for action in self._at_step.pop(self.steps, ()):
                    action()
            if not handle._cancelled:
                handle._run()
            if self._stopping:  # type: ignore[attr-defined]  # see the module
                return

    def _to_next_timer(self, timers: list[tuple[float, int, Any]]) -> bool:
        """Let time pass until something is due; false where nothing is, because the loop has been stopped."""
        if not timers:
            if self._stopping:  # type: ignore[attr-defined]  # see the module
                return False
            self._report_deadlock()
        if timers[0][0] > self._now:
            self._now, self._steps_at_once = timers[0][0], 0
        return True

    def _take(self, ready: Any) -> Any:
        """The next handle; perhaps, if the chooser says so, that of another task than the first's."""
        place = 0
        first_of_task: dict[int, int] = {}
        for position, handle in enumerate(ready):
            owner = getattr(handle._callback, "__self__", None)
            if not isinstance(owner, asyncio.Task):
                break
            first_of_task.setdefault(id(owner), position)
        if len(first_of_task) > 1:
            assert self._choose is not None, "there is a choice only where there is a chooser"
            places = list(first_of_task.values())
            place = places[self._choose(len(places)) % len(places)]
        handle = ready[place]
        del ready[place]
        return handle

    def _report_deadlock(self) -> NoReturn:
        stuck = ", ".join(sorted(task.get_name() for task in asyncio.all_tasks(self)))
        raise SimDeadlock(f"at t={self._now} s nothing can run and nothing is due; waiting: {stuck}")

    def _process_events(self, event_list: Any) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> NoReturn:  # type: ignore[override]  # never returns
        """Refused: a thread would bring real time in."""
        raise RuntimeError("no threads inside the simulation")

    async def getaddrinfo(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused: there is no outside world."""
        raise RuntimeError("no DNS inside the simulation")


class SimClock:
    """A clock on the running loop's time; ids and chance follow from the seed."""

    def __init__(self, seed: int = 0, *, epoch: datetime = EPOCH) -> None:
        self._random = random.Random(seed)
        self._epoch = epoch
        self._ids = itertools.count(1)

    def now(self) -> datetime:
        """The epoch plus the loop's virtual time."""
        return self._epoch + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        """The loop's virtual time, in seconds."""
        return asyncio.get_running_loop().time()

    def random(self) -> float:
        """The next number of a seeded sequence."""
        return self._random.random()

    def unique_id(self) -> str:
        """1, 2, 3 … as 32 hex digits, scattered so that their beginnings differ."""
        return f"{next(self._ids) * 0x9E3779B97F4A7C15 % 2**64:016x}{self._random.getrandbits(64):016x}"

    def secret(self) -> str:
        """64 hex digits of the seeded sequence: unpredictable to nobody, and that is the point."""
        return f"{self._random.getrandbits(256):064x}"


def run(main: Callable[[], Coroutine[Any, Any, T]], choose: Chooser | None = None) -> T:
    """Run `main()` to its end in a simulated loop of its own, and return its result.

    Raises `AssertionError` where a task is left behind or anything reached the loop's exception handler, such
    as an exception that nobody retrieved.
    """
    loop = SimLoop(choose)
    problems: list[str] = []
    loop.set_exception_handler(lambda _loop, context: problems.append(_describe(context)))
    try:
        result = loop.run_until_complete(main())
        problems += [f"task left behind: {task.get_name()}" for task in _leftovers(loop)]
    finally:
        _cancel_all(loop)
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
    if problems:
        raise AssertionError("the simulation ended with loose ends: " + "; ".join(problems))
    return result


def _leftovers(loop: SimLoop) -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks(loop) if not task.done()]


def _cancel_all(loop: SimLoop) -> None:
    tasks = _leftovers(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks, timeout=60))


def _describe(context: dict[str, Any]) -> str:
    error = context.get("exception")
    return f"{context.get('message')}: {error!r}" if error else str(context.get("message"))
