"""Clean-up that has to happen even when the one who owes it is being cancelled, or the node is down."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from shem.bus import Bus
from shem.clock import Clock
from shem.engine.polling import persist
from shem.errors import NodeError, ShemError
from shem.events import StepSkipped
from shem.log import get_logger

T = TypeVar("T")

_log = get_logger("engine")

#: Seconds that a step which overran its budget gets to end after its own cancellation.
_LAST_WORDS = 2.0


async def see_through(
    step: str, work: Coroutine[Any, Any, Any], *, within: float, clock: Clock, bus: Bus
) -> bool:
    """Run a step of clean-up to its end, for at most `within` seconds; True where it succeeded.

    A cancellation of the caller does not stop the step: it is raised once the step is over. A step that fails
    or overruns its budget is reported as `StepSkipped`, since nobody is left to handle it.
    """
    task = asyncio.get_running_loop().create_task(work, name=step)
    deadline = clock.monotonic() + within
    cancelled: asyncio.CancelledError | None = None
    while not task.done() and (left := deadline - clock.monotonic()) > 0:
        try:
            await asyncio.wait([task], timeout=left)
        except asyncio.CancelledError as request:
            cancelled = request
    reason = ""
    if not task.done():
        task.cancel()
        reason = f"it took longer than {within:g} s"
        await asyncio.wait([task], timeout=_LAST_WORDS)
    elif task.cancelled():
        reason = "it was cancelled"
    elif (error := task.exception()) is not None:
        if not isinstance(error, ShemError):
            raise error
        reason = str(error)
    if reason:
        bus.emit(StepSkipped(at=clock.now(), step=step, reason=reason))
    if cancelled is not None:
        raise cancelled
    return not reason


async def make(
    step: str,
    call: Callable[[], Coroutine[Any, Any, T]],
    undo: Callable[[T], Coroutine[Any, Any, object]],
    *,
    within: float,
    clock: Clock,
    bus: Bus,
) -> T:
    """Make something on the node by one call; when cancelled meanwhile, what comes of it is undone first.

    Without this, a cancellation between the call's effect and its answer would leave behind what nobody knows
    of. Undoing may take `within` seconds, the rest of the call included.
    """
    making = asyncio.get_running_loop().create_task(call(), name=step)

    async def undo_it() -> None:
        try:
            made = await making
        except NodeError:
            return
        await undo(made)

    try:
        await asyncio.wait([making])
    except asyncio.CancelledError:
        await see_through(f"{step}, and undo it", undo_it(), within=within, clock=clock, bus=bus)
        raise
    return making.result()


class Leftovers:
    """Steps of clean-up that could not be done in their time, tried again for as long as the run lasts.

    What is left on a node that was down for a while would otherwise go on costing money.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._work: set[asyncio.Task[None]] = set()

    def add(self, step: str, work: Callable[[], Awaitable[object]]) -> None:
        """Try a step again until it succeeds, or fails for good."""
        task = asyncio.get_running_loop().create_task(self._try(step, work), name=f"again: {step}")
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def _try(self, step: str, work: Callable[[], Awaitable[object]]) -> None:
        try:
            await persist(work, clock=self._clock, within=math.inf)
        except NodeError as error:
            _log.warning("step_given_up", step=step, error=str(error))
            return
        _log.info("step_made_up_for", step=step)

    async def close(self, within: float) -> None:
        """Wait for all steps, for at most so many seconds, and give up the others."""
        if self._work:
            await asyncio.wait(self._work, timeout=within)
        late = list(self._work)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
